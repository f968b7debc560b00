"""The choice of nodes by verdicts: which search it asks, and what is said of its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from onnx_harness.judging.mixed import choose
from onnx_harness.judging.mixed.account import UNLIMITED, Effort, Mix
from onnx_harness.judging.mixed.choose import chooser, find_mix
from onnx_harness.judging.mixed.source import Source
from onnx_harness.transforms import remark, remarks
from onnx_harness.transforms.half.mixed import MixedConversion
from onnx_harness.transforms.quantization.mixed import QuantizedConversion
from tests.models import model
from tests.unit.test_judging_mixed_switches import CHAIN, built, conversion_of

STANDARD: Any = "the standard"
MIX = Mix(("a", "b"), 2, 5, 0.25, True, True, 0, 2, 9, 1.0)
SENTENCES = list(MIX.sentences("fp16.io32"))


def quantization(proto: onnx.ModelProto) -> QuantizedConversion:
    return QuantizedConversion(
        proto, lambda _: proto, frozenset(), frozenset(), 20.0, 0.0, "int8.static"
    )


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The searches that were asked for; each is said to have found the same."""
    calls: list[tuple[Any, ...]] = []

    def search(kind: str) -> Any:
        def find(standard: Any, conversion: Any, source: Source, effort: Effort) -> Mix:
            remark(f"of a model that was tried for {kind}")
            (source.folder / "file").write_text("left behind")
            assert source.copy() == conversion.model
            calls.append((kind, standard, conversion, source.folder, effort))
            return MIX

        return find

    monkeypatch.setattr(choose, "find_floats", search("float"))
    monkeypatch.setattr(choose, "find_float32", search("float32"))
    return calls


@pytest.mark.parametrize("kind", ["float", "float32"])
def test_each_kind_of_conversion_has_its_search(
    asked: list[tuple[Any, ...]], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    conversion: MixedConversion | QuantizedConversion = conversion_of(built(CHAIN))
    if kind == "float":
        conversion = quantization(model("(float[n] x) => (float[n] y) { y = Relu(x) }"))
    effort = Effort(seconds=3.0)
    assert find_mix(STANDARD, conversion, effort) is MIX
    assert find_mix(STANDARD, conversion) is MIX
    assert [call[:3] for call in asked] == [(kind, STANDARD, conversion)] * 2
    assert [call[4] for call in asked] == [effort, UNLIMITED]
    folders = [call[3] for call in asked]
    assert all(folder.parent == tmp_path for folder in folders)
    assert not list(tmp_path.iterdir())  # nor anything else of a search


def test_what_was_found_is_kept_and_said(asked: list[tuple[Any, ...]]) -> None:
    said: list[str] = []
    chosen: list[Mix] = []
    conversion = conversion_of(built(CHAIN))
    with remarks() as remarked:
        names = chooser(STANDARD, said.append, chosen, Effort(seconds=2.0))(conversion)
    assert names == ("a", "b")
    assert chosen == [MIX]
    assert said == SENTENCES
    assert remarked == []  # those of the models that were tried are none of the result's
    assert asked[0][:3] == ("float32", STANDARD, conversion)
    assert asked[0][4] == Effort(seconds=2.0)
    assert chooser(STANDARD, said.append)(conversion) == ("a", "b")
    assert asked[1][4] == UNLIMITED
    assert said == SENTENCES * 2


def test_a_folder_that_cannot_be_removed_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where a file that a session has mapped stays."""

    def busy(*_: Any, **__: Any) -> None:
        raise OSError("busy")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("os.rmdir", busy)
    assert find_mix(STANDARD, conversion_of(built(CHAIN))) is MIX
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1
