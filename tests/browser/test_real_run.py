"""A stranger's eight questions, each answered in at most two clicks on the report of a real run.

The run is made here: two models, of which one overflows in float16, judged twice into one history.
In the second run its weights are ten times as large as in the first, where it passes.
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from onnx import numpy_helper

from tests.models import model, save

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FAILED = "attention-fp16.io32-cpu"
RIGHT = "(float[n,4] x) => (float[n,4] y) { y = Relu(x) }"
ATTENTION = """(float[batch, sequence, 64] x) => (float[batch, sequence, 64] y) {
    query = MatMul (x, query_weight)
    key = MatMul (x, key_weight)
    value = MatMul (x, value_weight)
    turned = Transpose <perm = [0, 2, 1]> (key)
    scores = MatMul (query, turned)
    scaled = Div (scores, scale)
    attention = Softmax <axis = -1> (scaled)
    y = MatMul (attention, value)
}"""
"""With great weights its scores reach 1e5 before they are divided: more than float16 holds."""


def attention(file: Path, scale: float) -> None:
    draw = np.random.default_rng(0)
    made = model(ATTENTION)
    weights = {"scale": np.array(8.0 * 4900.0)}
    for name, factor in (
        ("query_weight", scale),
        ("key_weight", scale),
        ("value_weight", 8),
    ):
        weights[name] = draw.standard_normal((64, 64)) * factor / 8
    for name, value in weights.items():
        made.graph.initializer.append(numpy_helper.from_array(value.astype("f4"), name))
    save(made, file)


def run(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    variants = ["--variant=original", "--variant=fp16.io32", "--variant=fp16.mixed"]
    done = subprocess.run(
        [*command, *variants, "--report-dir=reports", "--benchmark-disable"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr


class Real(NamedTuple):
    """A folder in which a run has ended."""

    folder: Path

    @property
    def report(self) -> Path:
        return self.folder / "reports" / "report.html"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    folder = tmp_path_factory.mktemp("real")
    (folder / "pyproject.toml").touch()
    save(model(RIGHT), folder / "right.onnx")
    attention(folder / "attention.onnx", 7)
    run(folder, "attention.onnx", "right.onnx")
    attention(folder / "attention.onnx", 70)
    run(folder, "attention.onnx", "right.onnx", "--diagnose", "--diagnose-budget=30")
    return Real(folder)


@pytest.fixture
def page(browser: "Browser", real: Real) -> "Iterator[Page]":
    """Open the report; the test fails if it logs anything or asks for anything."""
    complaints: list[str] = []

    def see(url: str) -> None:
        if not url.startswith("file:"):
            complaints.append(url)

    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: see(request.url))
    opened.goto(real.report.as_uri())
    opened.wait_for_selector("html[data-ready]", state="attached")
    yield opened
    opened.close()
    assert complaints == []


IN_CELL = [".heat td.fail a"]
QUESTIONS = {
    "what to ship": ([], "#ship", ["right on cpu", "original", "ship it as it is"]),
    "why did it fail": (IN_CELL, "dialog", ["overflows", "float16 ends at 65504"]),
    "which node": (IN_CELL, "dialog", ["'scores' (MatMul)"]),
    "since when": (
        IN_CELL,
        "dialog",
        ["fails since", "(1 run); before, on", "it was: pass"],
    ),
    "is the machine to blame": (IN_CELL, "dialog", ["the machine isn't to blame"]),
    "what would pass": (IN_CELL, "dialog", ["mend", "fp16.mixed"]),
    "where did it run": (IN_CELL, "dialog", ["on CPUExecutionProvider", "machine"]),
    "how to run it again": (
        [*IN_CELL, "dialog .copy"],
        "dialog",
        [
            "pytest 'attention.onnx::test_accuracy[fp16.io32-cpu]' --provider cpu "
            "--variant fp16.io32 --seed 0"
        ],
    ),
}
"""What is clicked, where the answer stands, and what it has to say."""


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered_in_two_clicks(page: "Page", question: str) -> None:
    clicks, place, answers = QUESTIONS[question]
    assert len(clicks) <= 2
    for selector in clicks:
        page.locator(selector).first.click()
    said = page.inner_text(place)
    assert [answer for answer in answers if answer not in said] == [], said


def test_the_command_that_the_page_gives_shows_the_failure_again(
    page: "Page", real: Real
) -> None:
    page.locator(IN_CELL[0]).first.click()
    command = page.locator("dialog dt:text-is('judge it alone') + dd code").inner_text()
    words = shlex.split(command)
    assert words[0] == "pytest"
    again = [sys.executable, "-m", *words, "-q", "--report-dir=again", "--benchmark-disable"]
    done = subprocess.run(
        again, cwd=real.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout
    cells = json.loads((real.folder / "again" / "results.json").read_text("utf-8"))["cells"]
    assert [(cell["id"], cell["status"]) for cell in cells] == [(FAILED, "fail")]


def test_the_first_screen_has_the_verdict_where_it_ran_what_changed_and_what_to_ship(
    page: "Page",
) -> None:
    shown = page.evaluate(
        """() => ["h1", "header p", "#since", "#ship tbody tr"].map(
            name => document.querySelector(name).getBoundingClientRect().bottom)"""
    )
    assert max(shown) < 900
    assert "Fail: 1 of" in page.inner_text("h1")
    assert "1 cell no longer passes" in page.inner_text("#since")


def test_the_page_of_a_real_cell_has_its_evidence(page: "Page") -> None:
    page.locator(IN_CELL[0]).first.click()
    shown = page.inner_text("dialog .body")
    for expected in ("Graph", "Cast", "simulated float16", "Inputs", "input sets"):
        assert expected in shown
    assert page.locator("dialog rect.bar").count() > 3
    assert page.locator("dialog .ideal-mark").count() == 1
