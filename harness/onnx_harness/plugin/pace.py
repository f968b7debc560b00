"""Show the pace of a run: which cell is judged, of how many, and how long the others may take.

It's shown on a terminal, with the name of the test that runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TextIO

import pytest

MINUTE = 60
HOUR = 60 * MINUTE


class Pace:
    """Shows the progress of a run's cells while each is judged.

    The text stands behind what pytest wrote, and the cursor before it: what pytest writes next
    replaces it.
    """

    def __init__(
        self,
        terminal: pytest.TerminalReporter,
        tests: Mapping[str, tuple[str, str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count.

        Args:
            terminal: to write on.
            tests: id of the cell, and name of the function, of each test, by its node id.
            clock: in seconds.
        """
        self._terminal = terminal
        self._tests = dict(tests)
        self._clock = clock
        self._begun = self._test_begun = clock()
        self._waiting = dict(tests)
        self._cells: set[str] = set()
        self._seconds: dict[str, list[float]] = {}
        self._shown = 0

    # After pytest has written the name of the test.
    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Show which cell is begun."""
        if nodeid in self._tests:
            self._test_begun = self._clock()
            self._cells.add(self._tests[nodeid][0])
            self._show(self.text())

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self) -> None:
        """Make room for the outcome."""
        self._clear()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Take down what the test took."""
        if nodeid in self._waiting:
            _, function = self._waiting.pop(nodeid)
            self._seconds.setdefault(function, []).append(self._clock() - self._test_begun)

    def text(self) -> str:
        """Return the progress: ``cell 3 of 12, 42 s so far, about 2 min left``."""
        total = len({cell for cell, _ in self._tests.values()})
        words = f"cell {len(self._cells)} of {total}"
        left = self._left()
        if left is None:
            return words
        spent = self._clock() - self._begun
        return f"{words}, {_duration(spent)} so far, about {_duration(left)} left"

    def _left(self) -> float | None:
        """Estimate the seconds of the tests that haven't ended, by those that have.

        A test of accuracy and one of latency take different times, so that each function has a mean
        of its own. Of one that hasn't run yet, that of all stands in.
        """
        everything = [seconds for taken in self._seconds.values() for seconds in taken]
        if not everything:
            return None
        left = 0.0
        for _, function in self._waiting.values():
            taken = self._seconds.get(function, everything)
            left += sum(taken) / len(taken)
        return left

    def _show(self, text: str) -> None:
        writer = self._terminal._tw
        room = writer.fullwidth - writer.width_of_current_line - 2
        if len(text) <= room:
            self._shown = len(text) + 1
            self._put(f" {text}" + "\b" * self._shown)

    def _clear(self) -> None:
        if self._shown:
            self._put(" " * self._shown + "\b" * self._shown)
            self._shown = 0

    def _put(self, text: str) -> None:
        # Not by pytest's writer, which would count the characters as part of its line.
        file: TextIO = self._terminal._tw._file
        file.write(text)
        file.flush()


def _duration(seconds: float) -> str:
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / HOUR:.1f} h"
