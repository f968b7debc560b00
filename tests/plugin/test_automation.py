"""Under GitHub Actions the plugin writes annotations and the job's summary by itself.

SARIF and JUnit where asked.
"""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.models import linear, save
from tests.plugin.running import run_pytest
from tests.schemas import SARIF, violations


def test_a_failing_run_in_a_job(tmp_path: Path) -> None:
    save(linear(), tmp_path / "net.onnx")
    page = tmp_path / "page.md"
    page.write_text("earlier\n", "utf-8")
    in_a_job = ("env", "GITHUB_ACTIONS=true", f"GITHUB_STEP_SUMMARY={page}")
    words = (
        "net.onnx",
        "--variant=original",
        "--variant=fp16.io32",
        "--rtol=1e-9",
        "--atol=1e-9",
        "-k=accuracy",
    )
    files = ("--sarif=out/failures.sarif", "--junitxml=junit.xml", "--report-dir=reports")
    ended = run_pytest(tmp_path, *words, *files, wrap=in_a_job)
    assert ended.code == pytest.ExitCode.TESTS_FAILED, ended.told
    failing = ["net-fp16.io32-cpu"]
    assert [
        name for name, cell in ended.cells.items() if cell["status"] == "fail"
    ] == failing
    lines = [line for line in ended.told.splitlines() if line.startswith("::error ")]
    assert lines, ended.told
    assert all(line.startswith("::error file=net.onnx,title=net-") for line in lines)
    assert page.read_text("utf-8").startswith("earlier\n# Fail")
    log = json.loads((tmp_path / "out/failures.sarif").read_text("utf-8"))
    assert violations(log, SARIF, SARIF) == []
    found = [
        result["partialFingerprints"]["onnxHarnessCell/v1"]
        for result in log["runs"][0]["results"]
    ]
    assert sorted(found) == sorted(failing)
    [case, *_] = ElementTree.parse(tmp_path / "junit.xml").iter("testcase")
    names = {prop.get("name") for prop in case.iter("property")}
    assert {"error", "tolerance", "placement"} <= names
    run = json.loads((tmp_path / "reports/results.json").read_text("utf-8"))["run"]
    selection = [
        "net.onnx",
        "--provider cpu",
        "--variant fp16.io32",
        "--variant original",
        "keyword=accuracy",
    ]
    assert (run["selection"], run["planned"]) == (selection, 2)


def test_outside_of_a_job_nothing_is_annotated_and_a_lost_file_is_no_success(
    tmp_path: Path,
) -> None:
    save(linear(), tmp_path / "net.onnx")
    ended = run_pytest(
        tmp_path, "net.onnx", "--variant=original", "-k=accuracy", "--sarif=net.onnx/x.sarif"
    )
    assert ended.code == pytest.ExitCode.TESTS_FAILED, ended.told
    assert "the SARIF file can't be written" in ended.told
    assert "::error" not in ended.told
