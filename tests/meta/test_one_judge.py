"""pytest, ``compare`` and ``verify`` have one judge: of what a variant made, they say the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import onnx_harness
from onnx_harness.cell import pipeline
from onnx_harness.cell.comparison import Pair, compare_models
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.errors import WorkerCrashed
from onnx_harness.isolate import Worker
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import Stage, Status
from onnx_harness.settings import Settings

FOLDER = Path(__file__).parents[1] / "data" / "defects"
NAMES = sorted(
    case["name"] for case in json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
)
SETTINGS = Settings(input_sets=2, cell_timeout=120)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker(SETTINGS.limits)
    yield worker
    worker.close()


def both(model: Path, variant: str) -> tuple[Status, Stage, str | None]:
    """The cell's verdict, and why ``compare`` calls what the variant made another model.

    None where it doesn't.
    """
    card = card_for(model)
    task = Task(Cell(card, parse_variant(variant), "cpu"), model, SETTINGS)
    judged = pipeline.judge(task)
    if (
        judged.result.stage not in (Stage.COMPARE, Stage.DONE)
        or judged.result.status is Status.NOT_APPLICABLE
    ):
        return judged.result.status, judged.result.stage, None
    made = pipeline.artifact_of(task).model.path
    outcome = compare_models(
        Pair(model, made, card, "cpu", None, float16_io=False, settings=SETTINGS)
    )
    return judged.result.status, judged.result.stage, outcome.reason


@pytest.mark.parametrize("variant", ["simplify", "fp16.io32"])
@pytest.mark.parametrize("name", NAMES)
def test_compare_says_what_the_cell_says(name: str, variant: str, worker: Worker) -> None:
    try:
        status, stage, reason = worker.call(both, FOLDER / f"{name}.onnx", variant)
    except WorkerCrashed:
        return  # ONNX Runtime dies of what the variant made, whoever asks
    if stage in (Stage.COMPARE, Stage.DONE) and status is not Status.NOT_APPLICABLE:
        assert (status is Status.PASS) is (reason is None), reason


def test_verify_says_what_the_cell_says(worker: Worker) -> None:
    name = NAMES[0]
    status, _, _ = worker.call(both, FOLDER / f"{name}.onnx", "simplify")
    assert (
        onnx_harness.verify(FOLDER / f"{name}.onnx", variant="simplify", input_sets=2).status
        is status
    )
