"""What is remembered: in the cache from run to run, at the workbench from cell to cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from onnx_harness.results.cache import Cache
from onnx_harness.results.codec import as_json
from onnx_harness.results.workbench import workbench


@dataclass(frozen=True)
class Figure:
    name: str
    values: tuple[float, ...]


FIGURE = Figure("error", (0.5, 2.0))


@pytest.fixture
def makers() -> tuple[list[str], Callable[[], Figure]]:
    """How often the figure was made, and what makes it."""
    calls: list[str] = []

    def make() -> Figure:
        calls.append("made")
        return FIGURE

    return calls, make


def test_a_value_is_made_once_and_read_by_whoever_comes_later(
    makers: tuple[list[str], Callable[[], Figure]], tmp_path: Path
) -> None:
    calls, make = makers
    for _ in range(3):
        assert Cache(tmp_path).remember("figure", "ab12", make, as_json(Figure)) == FIGURE
    assert len(calls) == 1


def test_what_could_not_be_made_is_not_kept(
    makers: tuple[list[str], Callable[[], Figure]], tmp_path: Path
) -> None:
    def fails() -> Figure:
        raise ValueError("no figure")

    with pytest.raises(ValueError, match="no figure"):
        Cache(tmp_path).remember("figure", "ab12", fails, as_json(Figure))
    assert Cache(tmp_path).remember("figure", "ab12", makers[1], as_json(Figure)) == FIGURE


def test_what_is_held_in_memory_is_not_read_again(tmp_path: Path) -> None:
    cache, codec = Cache(tmp_path), as_json(Figure)
    first = cache.remember("figure", "ab12", lambda: FIGURE, codec, in_memory=True)
    assert (
        cache.remember("figure", "ab12", lambda: Figure("other", ()), codec, in_memory=True)
        is first
    )
    for number in range(20):
        cache.remember("figure", f"cd{number}", lambda: FIGURE, codec, in_memory=True)
    assert (
        cache.remember("figure", "ab12", lambda: Figure("other", ()), codec, in_memory=True)
        is not first
    )


def test_the_last_thing_of_a_kind_is_at_hand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "one"))
    bench = workbench()
    first = bench.last("subject", ["model"], object)
    assert bench.last("subject", ["model"], object) is first
    assert bench.last("atlas", ["model"], object) is not first
    assert bench.last("subject", ["other model"], object) is not first
    assert bench.last("subject", ["model"], object) is not first
    assert (
        bench.passing_cache("case")
        is bench.passing_cache("case")
        is not bench.passing_cache("next case")
    )
    assert workbench() is bench


def test_another_cache_is_another_workbench(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "one"))
    bench = workbench()
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "two"))
    assert workbench() is not bench
