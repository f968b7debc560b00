"""A model whose names are hostile, through a real run: every output shows them as text."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from tests.models import linear, save
from tests.plugin.running import LEAN

HOSTILE = (
    "y]]></failure><b>&\x1b[31m|`@all` [a](http://evil)\u202e\n::error::told\r::warning::too"
)
"""Ends an element, escapes a terminal's colours, links, mentions, and begins a workflow's command."""

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]")


class Left(NamedTuple):
    """What a run has printed, and the folder that it wrote to."""

    printed: str
    folder: Path

    def text(self, name: str) -> str:
        return (self.folder / name).read_text("utf-8")


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.mktemp("hostile")
    made = linear()
    made.graph.output[0].name = made.graph.node[-1].output[0] = HOSTILE
    made.graph.node[0].name = HOSTILE
    save(made, folder / "net.onnx")
    (folder / "pyproject.toml").touch()
    words = [
        "net.onnx",
        "--variant=fp16.io32",
        "--rtol=1e-9",
        "--atol=1e-12",
        "--benchmark-skip",
    ]
    files = ["--report-dir=reports", "--junitxml=junit.xml", "--sarif=run.sarif"]
    environment = os.environ | {
        "PYTEST_ADDOPTS": LEAN,
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(folder / "job.md"),
        "ONNX_HARNESS_CACHE": str(folder / ".cache"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words, *files],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1, done.stdout
    cells = json.loads((folder / "reports" / "results.json").read_text("utf-8"))["cells"]
    assert [cell["status"] for cell in cells] == ["fail"]
    assert HOSTILE in cells[0]["accuracy"]["outputs"]
    return Left(done.stdout, folder)


def test_the_terminal_gets_no_escape_sequence_and_a_workflow_no_command(left: Left) -> None:
    assert "::error::told" in left.printed, "the name is shown"
    assert _CONTROLS.search(left.printed) is None
    lines = left.printed.splitlines()
    commands = [line for line in lines if line.lstrip().startswith("::")]
    assert all("file=" in line or "title=" in line for line in commands), commands
    assert commands


def test_junit_has_one_failure_and_no_element_of_the_models(left: Left) -> None:
    text = left.text("junit.xml")
    assert _CONTROLS.search(text) is None
    tree = ElementTree.fromstring(text)
    known = {"testsuites", "testsuite", "testcase", "failure", "properties", "property"}
    assert {node.tag for node in tree.iter()} <= known | {"skipped", "system-out"}
    failures = list(tree.iter("failure"))
    assert len(failures) == 1
    assert "</failure><b>" in "".join(
        [failures[0].text or "", failures[0].get("message") or ""]
    )


def test_sarif_and_markdown_hold_no_control_character(left: Left) -> None:
    for name in ("run.sarif", "reports/summary.md", "job.md"):
        text = left.text(name)
        assert "told" in text, name
        assert _CONTROLS.search(text) is None, name
    messages = json.loads(left.text("run.sarif"))["runs"][0]["results"][0]["message"]["text"]
    assert _CONTROLS.search(messages) is None


def test_the_page_has_no_element_of_the_models(left: Left) -> None:
    page = left.text("reports/report.html")
    assert "</failure>" not in page
    assert _CONTROLS.search(page) is None
