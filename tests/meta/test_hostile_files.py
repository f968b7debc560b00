"""Hostile files end in a verdict: soon, in words of our own, with nothing read outside and no
escape sequence shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.names import parse_variant
from onnx_harness.report.table import lines
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings
from tests.hostile_kinds import PLACES_THAT_RUN, kinds
from tests.unit.results_examples import RUN

HOSTILE = dict(kinds())
SECONDS = 5.0
# Strange, and right as ONNX Runtime takes them.
RUNS_ALL_THE_SAME = {
    "graph: an axis of 2^62",
    "external: the model itself",
    "graph: one node with 5,000 inputs",
    "model: IR version below 0",
    "name: a null byte",
    "name: a path",
    "name: a tag",
    "name: an escape sequence",
    "name: an input of escape sequences",
    "name: an output of escape sequences",
    "name: right to left",
    "bytes: a dimension in ten bytes",
    "text: not UTF-8, as a key",
    "bytes: unknown fields 3,000 deep",
    *(f"name: escape sequences in {place}" for place in PLACES_THAT_RUN),
}
# What is at fault is a file that isn't the model's, or no file at all.
ERRORS = ("recorded: ", "file: a link to /dev/zero", "file: a pipe", "file: a folder")
LIBRARY_WORDS = (
    "array is too big",
    "maximum supported dimension",
    "the harness itself failed",
    "MemoryError",
)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNX_HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        running = Runner(Settings(input_sets=1, cell_timeout=60, cell_memory=1 << 30))
        running.warm()
        yield running
        running.close()


def judge(runner: Runner, folder: Path, kind: str, variant: str) -> CellResult:
    folder.mkdir(exist_ok=True)
    path = folder / "m.onnx"
    if not path.exists():
        HOSTILE[kind](path)
    runner._judged.clear()
    return runner.judge(Cell(card_for(path), parse_variant(variant), "cpu"))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_ends_in_a_verdict(runner: Runner, tmp_path: Path, kind: str) -> None:
    started = time.monotonic()
    result = judge(runner, tmp_path / "models", kind, "original")
    assert (
        time.monotonic() - started < SECONDS * 4
    )  # other tests run beside this one; `make scale` has the bare figure
    expected = Status.ERROR if kind.startswith(ERRORS) else Status.FAIL
    if kind in RUNS_ALL_THE_SAME:
        expected = Status.PASS
    assert result.status is expected, (result.stage, result.symptom, result.reason)
    assert not any(words in (result.reason or "") for words in LIBRARY_WORDS), result.reason
    shown = [line.text for line in lines(RUN, [result], width=120, models={})]
    assert not any(
        character in text for text in [*shown] for character in "\x1b\x07\x00\u202e"
    )
    assert "root:" not in repr(result)  # of /etc/passwd


@pytest.mark.parametrize("kind", ["bomb: Concat doubled 40 times", "loop: without an end"])
def test_a_bomb_costs_nothing_once_more_for_each_variant(
    runner: Runner, tmp_path: Path, kind: str
) -> None:
    verdicts = [
        judge(runner, tmp_path / "models", kind, variant)
        for variant in ("original", "simplify", "optimize")
    ]
    assert {(each.status, each.stage) for each in verdicts} == {(Status.FAIL, "load")}
    assert len({each.reason for each in verdicts}) == 1
