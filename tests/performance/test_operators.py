"""Our own simplifier and float16 conversion on every official operator case, every known defect,
and the zoo.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from tests.performance.conftest import Note

pytestmark = pytest.mark.performance

ROOT = Path(__file__).parents[2]
DEFECTS = ROOT / "tests" / "data" / "defects"
VARIANTS = ("simplify", "fp16.io32")
# A case that raises, is invalid, doesn't run or has other types is wrong however its values are
# judged.
BROKEN = (
    Symptom.EXCEPTION,
    Symptom.CRASH,
    Symptom.INVALID,
    Symptom.DOES_NOT_RUN,
    Symptom.CHANGED_TYPES,
    "other",
)


def run_pytest(folder: Path, *words: str) -> None:
    """One run of pytest over cells; which of them fail is read from what it writes."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-n",
        "2",
        "--report-dir",
        str(folder),
    ]
    ended = subprocess.run(
        [*command, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode in (0, 1), ended.stdout[-3000:] + ended.stderr[-3000:]


@pytest.fixture(scope="module")
def operators(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The account of the operators' cases by variant."""
    folder = tmp_path_factory.mktemp("operators")
    run_pytest(folder, "--onnx-backend-suite", *(f"--variant={name}" for name in VARIANTS))
    page = json.loads((folder / "backend_suite.json").read_text("utf-8"))
    return {account["variant"]: account for account in page["variants"]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_operator_case_is_right(
    variant: str, operators: dict[str, Any], note_number: Note
) -> None:
    account = operators[variant]
    of = f"of {account['run']:,}"
    broken = [name for how in BROKEN for name in account["cases"].get(how, ())]
    wrong = account["cases"].get(Symptom.WRONG_VALUES, [])
    beyond = (
        "beyond 1e-6 or a unit in the last place"
        if variant == "simplify"
        else "beyond the FP16 rule"
    )
    note_number(
        f"operators, {variant}: invalid, not run, types changed, exceptions",
        len(broken),
        at_most=0,
        detail=of,
    )
    note_number(f"operators, {variant}: values {beyond}", len(wrong), at_most=0, detail=of)
    assert account["run"] > 1500
    assert not broken
    assert not wrong


@pytest.fixture(scope="module")
def judged() -> Callable[[str], list[CellResult]]:
    """Judges the models on which released libraries are known to fail, ONNX Runtime's own optimizer
    switched off.
    """
    from onnx_harness.cell.matrix import Cell, card_for
    from onnx_harness.names import parse_variant
    from onnx_harness.run.runner import Runner
    from onnx_harness.settings import Settings

    def judge(variant: str) -> list[CellResult]:
        runner = Runner(Settings(input_sets=1, cell_timeout=120))
        try:
            chain = parse_variant(f"{variant}+ort.disable")
            return [
                runner.judge(Cell(card_for(path), chain, "cpu"))
                for path in sorted(DEFECTS.glob("*.onnx"))
            ]
        finally:
            runner.close()

    return judge


def test_simplify_gets_every_known_defect_right(
    judged: Callable[[str], list[CellResult]], note_number: Note
) -> None:
    results = judged("simplify")
    wrong = [result for result in results if result.status is not Status.PASS]
    row = "models of known defects, simplify: not right"
    note_number(row, len(wrong), at_most=0, detail=f"of {len(results)}")
    assert not wrong, [(result.id, result.reason) for result in wrong]


def test_fp16_gets_every_known_defect_right_or_says_why_not(
    judged: Callable[[str], list[CellResult]], note_number: Note
) -> None:
    results = judged("fp16.io32")
    failed = [
        result
        for result in results
        if result.status not in (Status.PASS, Status.NOT_APPLICABLE)
    ]
    broken = [result for result in failed if result.stage is not Stage.COMPARE]
    unexplained = [
        result for result in failed if result.stage is Stage.COMPARE and not result.notes
    ]
    for row, found in (
        ("models of known defects, fp16: invalid, not run, interface changed", broken),
        ("models of known defects, fp16: values wrong without a stated reason", unexplained),
    ):
        note_number(row, len(found), at_most=0, detail=f"of {len(results)}")
    assert not broken, [(result.id, result.reason) for result in broken]
    assert not unexplained, [(result.id, result.reason) for result in unexplained]


def test_every_model_of_the_zoo_converts_runs_and_stays_finite(
    tmp_path: Path, note_number: Note
) -> None:
    run_pytest(tmp_path, "models", "--variant=fp16()", "--variant=fp16.io32")
    cells = json.loads((tmp_path / "results.json").read_text("utf-8"))["cells"]
    wrong = [
        cell["id"]
        for cell in cells
        if cell["status"] != "not_applicable"
        and (
            cell["stage"] not in (Stage.COMPARE, Stage.DONE)
            or any(
                output["nonfinite"]
                for output in ((cell["accuracy"] or {}).get("outputs") or {}).values()
            )
        )
    ]
    row = "zoo, fp16: don't convert, don't run, or not finite"
    note_number(row, len(wrong), at_most=0, detail=f"of {len(cells)}")
    assert len(cells) >= 40
    assert not wrong
