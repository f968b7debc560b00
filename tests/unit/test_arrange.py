"""The order in which several processes judge: by what the history says each model took."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from onnx_harness.cards.card import Card, PathSource
from onnx_harness.cell.matrix import Cell
from onnx_harness.names import parse_variant
from onnx_harness.results.history import FILE_NAME, History
from onnx_harness.run.arrange import cell_of, groups_to_judge, in_order_of_jobs, is_latency
from onnx_harness.run.past import Past
from onnx_harness.settings import Settings
from tests.unit.results_examples import RUN
from tests.unit.results_examples import cell as result_of

SECONDS = {"quick": 1.0, "slow": 40.0, "middling": 20.0}


def items_of(model: str) -> list[pytest.Item]:
    """The tests of a model's two cells, as pytest collects them: latency among accuracy."""
    card = Card(Path(f"{model}.onnx"), model, PathSource(Path(f"{model}.onnx")))
    collected = []
    for variant in ("original", "simplify"):
        cell = Cell(card, parse_variant(variant), "cpu")
        for name in ("test_accuracy", "test_latency"):
            call = SimpleNamespace(params={"onnx_cell": cell})
            collected.append(
                cast("pytest.Item", SimpleNamespace(originalname=name, callspec=call))
            )
    return collected


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A report folder in whose history each model took another time."""
    with History(tmp_path / FILE_NAME) as past:
        past.begin(RUN)
        for model, seconds in SECONDS.items():
            for variant in ("original", "simplify"):
                judged = result_of(variant, model=model, seconds={"run": seconds})
                past.put(replace(judged, peak_bytes=int(seconds) << 30))
    return tmp_path


@pytest.fixture
def items() -> list[pytest.Item]:
    return [item for model in SECONDS for item in items_of(model)]


def models_of(items: list[pytest.Item], *, latency: bool) -> list[str]:
    names = [cell_of(item).card.name for item in items if is_latency(item) == latency]
    return list(dict.fromkeys(names))


def test_the_model_that_took_longest_is_judged_first_and_times_are_taken_last(
    history: Path, items: list[pytest.Item]
) -> None:
    ordered = in_order_of_jobs(items, history)
    assert models_of(ordered, latency=False) == ["slow", "middling", "quick"]
    assert models_of(ordered, latency=True) == ["quick", "slow", "middling"]
    assert [is_latency(item) for item in ordered] == [False] * 6 + [True] * 6
    accuracy = [cell_of(item).card.name for item in ordered[:6]]
    assert accuracy == ["slow", "slow", "middling", "middling", "quick", "quick"]


@pytest.mark.parametrize("damaged", [False, True])
def test_without_a_history_the_order_stays(
    tmp_path: Path, items: list[pytest.Item], damaged: bool
) -> None:
    if damaged:
        (tmp_path / FILE_NAME).write_text("this is no history")
    ordered = in_order_of_jobs(items, tmp_path)
    assert models_of(ordered, latency=False) == ["quick", "slow", "middling"]
    assert (tmp_path / FILE_NAME).exists() == damaged  # to look for one makes none


def test_what_an_earlier_run_judged_isnt_judged_again(
    history: Path, items: list[pytest.Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    past = Past(Settings())
    judged = {"quick-original-cpu", "quick-simplify-cpu", "slow-simplify-cpu"}
    monkeypatch.setattr(past, "verdict", lambda cell: "it" if cell.id in judged else None)
    groups = groups_to_judge(items, past, history)
    assert [[cell.id for cell in group.cells] for group in groups] == [
        ["slow-original-cpu"],
        ["middling-original-cpu", "middling-simplify-cpu"],
    ]


def test_on_a_cluster_a_models_providers_are_groups_of_their_own() -> None:
    item = items_of("quick")[0]
    item.callspec.params["onnx_cell"] = replace(cell_of(item), provider="openvino")  # type: ignore[attr-defined]
    both = [*items_of("quick"), item]
    for by_provider, counts in ((False, [3]), (True, [2, 1])):
        groups = groups_to_judge(both, Past(Settings()), None, by_provider=by_provider)
        assert [len(group.cells) for group in groups] == counts


def test_a_models_cells_are_a_group_with_what_they_took_and_held(
    history: Path, items: list[pytest.Item]
) -> None:
    groups = groups_to_judge(items, Past(Settings()), history)
    assert [(len(group.cells), group.seconds) for group in groups] == [
        (2, 2.0),
        (2, 80.0),
        (2, 40.0),
    ]
    assert [group.peak_bytes >> 30 for group in groups] == [1, 40, 20]
