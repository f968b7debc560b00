"""What a run leaves behind: results, reports, the table, and the way to run one cell again."""

from __future__ import annotations

import json
import shlex
import sqlite3
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.models import linear, save
from tests.plugin.running import Ended, run_pytest
from tests.schemas import violations
from tests.unit.test_results_store import SCHEMA

VARIANTS = [
    "original",
    "optimize",
    "simplify",
    "simplify+optimize",
    "fp16.io32",
    "simplify+fp16.io32",
]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Two models, one of them broken, in the default variants."""
    folder = tmp_path_factory.mktemp("reporting")
    save(linear(), folder / "good.onnx")
    (folder / "broken.onnx").write_text("this is no model")
    (folder / "good.model.toml").write_text('[model]\nlicense = "Apache-2.0"\n')
    return run_pytest(
        folder,
        "good.onnx",
        "broken.onnx",
        "--benchmark-skip",
        "--report-dir=reports",
        "--junitxml=junit.xml",
        "-vv",
    )


def test_every_cell_has_its_verdict_in_results_json(ended: Ended) -> None:
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    verdicts = {key: (cell["status"], cell["stage"]) for key, cell in ended.cells.items()}
    assert verdicts == {f"good-{variant}-cpu": ("pass", "done") for variant in VARIANTS} | {
        f"broken-{variant}-cpu": ("fail", "load") for variant in VARIANTS
    }


def test_results_json_follows_the_published_schema(ended: Ended) -> None:
    results = json.loads((ended.folder / "reports" / "results.json").read_text("utf-8"))
    assert violations(results, SCHEMA, SCHEMA) == []
    assert results["run"]["command"].startswith(
        "pytest -p no:cacheprovider good.onnx broken.onnx"
    )
    assert {"onnx", "onnxruntime", "numpy", "onnx-harness"} <= results["run"][
        "versions"
    ].keys()


def test_a_verdict_carries_its_evidence(ended: Ended) -> None:
    cell = ended.cells["good-fp16.io32-cpu"]
    assert cell["placement"]["requested"] == "CPUExecutionProvider"
    assert cell["placement"]["share"] == 1.0
    assert cell["accuracy"]["input_sets"] == 5
    (output,) = cell["accuracy"]["outputs"].values()
    assert 0 < output["max_abs"] < output["rtol"]
    assert cell["graph"]["nodes_after"] > cell["graph"]["nodes_before"] == 2


def test_the_summary_and_the_page_tell_the_same(ended: Ended) -> None:
    for name in ("summary.md", "report.html"):
        page = (ended.folder / "reports" / name).read_text("utf-8")
        assert "broken.onnx isn't an ONNX file" in page.replace("&#x27;", "'").replace(
            "&#39;", "'"
        )
        assert "Apache-2.0" in page


def test_the_run_ends_with_the_table(ended: Ended) -> None:
    _, _, table = ended.told.partition("= onnx-harness =")
    assert "good (Apache-2.0" in table
    assert "2 models, 12 cells on cpu: 6 pass, 6 fail · reports/summary.md" in table


def test_junit_has_every_cell_and_the_reason_of_a_failure(ended: Ended) -> None:
    cases = {
        (case.get("classname"), case.get("name")): case
        for case in ElementTree.parse(ended.folder / "junit.xml").iter("testcase")
    }
    assert len(cases) == 2 * 2 * len(VARIANTS)
    failure = cases["broken.onnx", "test_accuracy[simplify-cpu]"].find("failure")
    assert failure is not None
    assert "broken-simplify-cpu: fail at load: broken.onnx isn't an ONNX file" in str(
        failure.get("message")
    )
    assert cases["good.onnx", "test_accuracy[simplify-cpu]"].find("failure") is None


def test_a_failure_ends_in_the_command_that_runs_its_cell_alone(ended: Ended) -> None:
    lines = {
        line.partition("alone: ")[2]
        for line in ended.told.splitlines()
        if "[simplify-cpu]" in line
    }
    command = shlex.split(max(lines))
    assert command[0] == "pytest"
    again = run_pytest(ended.folder, *command[1:])
    assert again.code == pytest.ExitCode.TESTS_FAILED
    assert "broken-simplify-cpu: fail at load" in again.told
    assert "1 model, 1 cell on cpu: 1 fail" in again.told


def test_a_failing_cell_is_kept_by_itself_and_the_failure_says_where(tmp_path: Path) -> None:
    save(linear(), tmp_path / "lin.onnx")
    wrong = "fp16.io32(max_finite_val=0.1)"  # cuts the weights off at a tenth
    ended = run_pytest(
        tmp_path,
        "lin.onnx",
        "--variant",
        wrong,
        "--benchmark-skip",
        "--report-dir=reports",
        "-n2",
    )
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    (cell,) = ended.cells.values()
    kept, alone = cell["detail"][-2:]
    assert kept == f"kept by itself: reports/repro/{cell['id']}"
    assert alone.startswith("alone: pytest ")
    assert {
        path.name for path in (tmp_path / "reports" / "repro" / cell["id"]).iterdir()
    } >= {
        "model.onnx",
        "repro.py",
    }
    assert kept in ended.told


def test_a_failure_keeps_its_cause_and_its_command_where_others_are_timed(
    tmp_path: Path,
) -> None:
    save(linear(), tmp_path / "lin.onnx")
    wrong = "fp16.io32(max_finite_val=0.1)"
    ended = run_pytest(
        *(tmp_path, "lin.onnx", "--variant", wrong, "--latency-budget=0.2"),
        *("--diagnose", "--diagnose-budget=5", "--report-dir=reports"),
    )
    (cell,) = ended.cells.values()
    assert cell["diagnosis"] is not None
    assert cell["detail"][-1] == cell["diagnosis"]["sentence"]
    assert cell["detail"][-2].startswith("alone: pytest ")
    kept = tmp_path / "reports" / "verdicts"
    [file] = kept.rglob("*.json")
    assert json.loads(file.read_text())["cell"]["detail"] == cell["detail"]


def test_a_command_that_runs_a_failure_alone_is_for_the_folder_that_pytest_was_begun_in(
    tmp_path: Path,
) -> None:
    save(linear(), tmp_path / "lin.onnx")
    (tmp_path / "pytest.ini").write_text("[pytest]")
    folder = tmp_path / "below"
    folder.mkdir()
    wrong = "fp16.io32(max_finite_val=0.1)"
    own = f"def test_it(onnx_verify): onnx_verify('../lin.onnx', variant={wrong!r})"
    (folder / "test_own.py").write_text(own)
    cells = ["--variant", wrong, "-k=accuracy or it", "--report-dir=reports"]
    ended = run_pytest(folder, "../lin.onnx", "test_own.py", *cells)
    commands = [shlex.split(cell["detail"][-1]) for cell in ended.cells.values()]
    (of_suite, own_test) = [words[2] for words in commands]
    assert of_suite.startswith("../lin.onnx::test_accuracy[fp16.io32")
    assert own_test == "test_own.py::test_it"


def test_a_second_run_replaces_the_results_and_joins_the_history(ended: Ended) -> None:
    database = ended.folder / "reports" / "history.sqlite"
    before = (ended.folder / "reports" / "results.json").read_text("utf-8")
    try:
        again = run_pytest(
            ended.folder,
            "good.onnx",
            "--variant=optimize",
            "-k=accuracy",
            "--report-dir=reports",
        )
        assert again.code == pytest.ExitCode.OK
        assert list(again.cells) == ["good-optimize-cpu"]
        with sqlite3.connect(database) as connection:
            (cells,) = connection.execute("select count(*) from cells").fetchone()
            (runs,) = connection.execute("select count(*) from runs").fetchone()
        connection.close()
        assert (cells, runs) == (2 * len(VARIANTS) + 1, 2)
    finally:
        (ended.folder / "reports" / "results.json").write_text(before, "utf-8")


def test_nothing_is_written_unless_a_folder_is_named(tmp_path: Path) -> None:
    save(linear(), tmp_path / "lin.onnx")
    ended = run_pytest(tmp_path, "lin.onnx", "--variant=original", "--benchmark-skip")
    assert ended.code == pytest.ExitCode.OK
    ours = {path.name for path in tmp_path.iterdir()} - {
        ".cache",
        ".benchmarks",
    }  # the cache's place, and a plugin's
    assert ours == {"lin.onnx"}
    assert "1 model, 1 cell on cpu: 1 pass" in ended.told


def test_the_first_failure_can_end_the_run_and_be_run_again(
    pytester: pytest.Pytester,
) -> None:
    save(linear(), pytester.path / "good.onnx")
    (pytester.path / "broken.onnx").write_text("this is no model")
    cells = [
        "broken.onnx",
        "good.onnx",
        "--variant=original",
        "--benchmark-skip",
        "--report-dir=reports",
    ]
    first = pytester.runpytest_subprocess(*cells, "-x")
    first.assert_outcomes(failed=1)
    first.stdout.fnmatch_lines(["1 model, 1 cell on cpu: 1 fail*"])
    last_failed = pytester.runpytest_subprocess(*cells, "--lf")
    last_failed.assert_outcomes(failed=1)


def test_under_xdist_accuracy_is_judged_and_latency_refused(tmp_path: Path) -> None:
    save(linear(), tmp_path / "lin.onnx")
    (tmp_path / "broken.onnx").write_text("this is no model")
    ended = run_pytest(
        tmp_path, "lin.onnx", "broken.onnx", "-n2", "--report-dir=reports", "-rs"
    )
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    verdicts = {key: cell["status"] for key, cell in ended.cells.items()}
    assert verdicts == {f"{model}-{variant}-cpu": status for variant in VARIANTS
                        for model, status in (("lin", "pass"), ("broken", "fail"))}  # fmt: skip
    assert all(cell["latency"] is None for cell in ended.cells.values())
    assert "latency isn't measured under xdist" in ended.told
    assert "2 models, 12 cells on cpu: 6 pass, 6 fail" in ended.told


SETTLING = """
from dataclasses import replace

import pytest

from onnx_harness.run.runner import Runner


@pytest.fixture(autouse=True)
def _remember(monkeypatch):
    judge = Runner.judge

    def judge_and_remember(self, cell, *args, **options):
        global judged
        judged = judge(self, cell, *args, **options)
        return judged

    monkeypatch.setattr(Runner, "judge", judge_and_remember)


def settle(self, say):
    assert judged is not None
    yield replace(judged, reason="measured again")


Runner.settle = settle
"""


def test_what_is_measured_again_at_the_end_replaces_what_was_written(tmp_path: Path) -> None:
    save(linear(), tmp_path / "lin.onnx")
    (tmp_path / "conftest.py").write_text(SETTLING, "utf-8")
    options = ("--variant=original", "--report-dir=reports", "-k=accuracy")
    ended = run_pytest(tmp_path, "lin.onnx", *options)
    assert ended.code == 0, ended.told
    assert ended.cells["lin-original-cpu"]["reason"] == "measured again"
