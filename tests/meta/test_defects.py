"""Each known defect of a released library is called a failure, where it happens.

Without it, all is well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import Status
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings

FOLDER = Path(__file__).parents[1] / "data" / "defects"
CASES = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))

SEEN_IN = {
    "onnxoptimizer": "0.4.2",
    "onnxconverter-common": "1.16.0",
    "onnxruntime": "1.32.0",
    "onnxsim": "0.8.1",
    "onnxslim": "0.1.98",
    "onnxscript": "0.7.2",
}


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    runner = Runner(Settings(input_sets=1, cell_timeout=120))
    yield runner
    runner.close()


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_variant_that_shows_the_defect_fails_at_its_stage(
    case: dict[str, str], runner: Runner
) -> None:
    assert version(case["library"]) == SEEN_IN[case["library"]], (
        "see whether the defect is still there"
    )
    card = card_for(FOLDER / f"{case['name']}.onnx")

    result = runner.judge(Cell(card, parse_variant(case["variant"]), "cpu"))

    assert result.status is Status.FAIL, result
    assert result.stage == case["stage"], result
    assert result.reason


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_same_model_passes_without_the_transform(
    case: dict[str, str], runner: Runner
) -> None:
    card = card_for(FOLDER / f"{case['name']}.onnx")

    result = runner.judge(Cell(card, parse_variant("ort.disable"), "cpu"))

    assert result.status is Status.PASS, result
    assert result.accuracy is not None
    assert result.accuracy.outputs
