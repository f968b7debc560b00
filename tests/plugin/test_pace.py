"""The progress of a run: which cell of how many, and an estimate of what is left."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onnx_harness.plugin.pace import Pace
from tests.models import linear, save
from tests.plugin.running import LEAN

TESTS = {
    "m.onnx::test_accuracy[a]": ("m-a", "test_accuracy"),
    "m.onnx::test_accuracy[b]": ("m-b", "test_accuracy"),
    "m.onnx::test_latency[a]": ("m-a", "test_latency"),
    "m.onnx::test_latency[b]": ("m-b", "test_latency"),
}


class Terminal:
    """A terminal of so many columns, at the beginning of a line, and a clock to set."""

    def __init__(self, columns: int = 80) -> None:
        self.file = io.StringIO()
        self.now = 0.0
        self._tw = SimpleNamespace(
            fullwidth=columns, width_of_current_line=10, _file=self.file
        )

    def pace(self) -> Pace:
        reporter: Any = self
        return Pace(reporter, TESTS, lambda: self.now)


def run(pace: Pace, terminal: Terminal, test: str, seconds: float) -> None:
    pace.pytest_runtest_logstart(test)
    terminal.now += seconds
    pace.pytest_runtest_logreport()
    pace.pytest_runtest_logfinish(test)


def test_what_is_left_is_estimated_by_kind_of_test() -> None:
    terminal = Terminal()
    pace = terminal.pace()
    tests = list(TESTS)
    pace.pytest_runtest_logstart(tests[0])
    assert pace.text() == "cell 1 of 2"
    terminal.now = 4.0
    pace.pytest_runtest_logfinish(tests[0])
    pace.pytest_runtest_logstart(tests[1])
    assert pace.text() == "cell 2 of 2, 4 s so far, about 12 s left"  # three tests of 4 s
    terminal.now = 6.0
    pace.pytest_runtest_logfinish(tests[1])
    run(pace, terminal, tests[2], 300.0)
    pace.pytest_runtest_logstart(tests[3])
    assert pace.text() == "cell 2 of 2, 5 min so far, about 5 min left"


def test_the_text_is_wiped_and_the_cursor_where_it_was() -> None:
    terminal = Terminal()
    run(terminal.pace(), terminal, next(iter(TESTS)), 1.0)
    column, least = 0, 0
    screen: dict[int, str] = {}
    for character in terminal.file.getvalue():
        if character == "\b":
            column -= 1
        else:
            screen[column] = character
            column += 1
        least = min(least, column)
    assert (column, least) == (0, 0)
    assert set(screen.values()) == {" "}


def test_a_line_without_room_stays_as_it_is() -> None:
    terminal = Terminal(columns=20)
    run(terminal.pace(), terminal, next(iter(TESTS)), 1.0)
    assert terminal.file.getvalue() == ""


@pytest.mark.parametrize("options", [[], ["-q"]])
def test_a_run_on_a_terminal_shows_it_and_a_quiet_one_does_not(
    tmp_path: Path, options: list[str]
) -> None:
    save(linear(), tmp_path / "net.onnx")
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "net.onnx",
        *options,
    ]
    variants = ["--variant=original", "--variant=optimize", "-k=accuracy"]
    environment = os.environ | {"PYTEST_ADDOPTS": LEAN, "COLUMNS": "100", "TERM": "xterm"}
    with subprocess.Popen(
        [*command, *variants], cwd=tmp_path, env=environment, stdout=theirs, stderr=theirs
    ):
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            said += part
    os.close(ours)
    shown = re.findall(rb"cell (\d) of 2(, \d+ s so far, about \d+ s left)?", said)
    assert [number for number, _ in shown] == ([] if options else [b"1", b"2"])
    assert options or [bool(estimate) for _, estimate in shown] == [False, True]
