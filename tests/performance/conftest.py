"""The tests here measure: they are collected only when their marker is asked for, as `make
performance` does.

What they measure is printed at the end as one table: what was asked for, what was measured, and
whether it's reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

# The table's rows in order. One that no test of a run measured is printed as such.
ROWS = (
    "operators, simplify: invalid, not run, types changed, exceptions",
    "operators, simplify: values beyond 1e-6 or a unit in the last place",
    "operators, fp16.io32: invalid, not run, types changed, exceptions",
    "operators, fp16.io32: values beyond the FP16 rule",
    "models of known defects, simplify: not right",
    "models of known defects, fp16: invalid, not run, interface changed",
    "models of known defects, fp16: values wrong without a stated reason",
    "zoo, fp16: don't convert, don't run, or not finite",
    "clamp: times the library's throughput, ordinary weights",
    "clamp: times the library's throughput, random bits",
    "clamp: times the library's throughput, every special kind",
    "clamp: memory beside input and output",
    "fp16: times as fast as the library, zoo, geometric mean",
    "fp16: times as fast as the library, zoo, above 100 nodes, geometric mean",
    "fp16: times as fast as the library, ResNet-50 in float_data",
    "simplify: models of the zoo with more nodes left than the better library",
    "simplify: seconds beside the faster library, geometric mean",
    "3 GB, fp16, loaded: memory",
    "3 GB, fp16, loaded: seconds",
    "3 GB, fp16, from its path: memory",
    "3 GB, fp16, from its path: seconds",
    "3 GB, simplify: memory",
    "3 GB, simplify: seconds",
    "first verdict: seconds for a 3 kB model, default variants",
    "ordinary pytest: seconds more with the plugin",
)


@dataclass(frozen=True, slots=True)
class Number:
    """What was measured of a row, the worst if it was more than once."""

    asked: str
    measured: str
    excess: float


Note = Callable[..., None]
_numbers = pytest.StashKey[dict[str, Number]]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin an empty table."""
    config.stash[_numbers] = {}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the folder alone in an ordinary run, where other work would disturb what it measures."""
    asked_for = "performance" in str(config.getoption("markexpr"))
    return None if asked_for or collection_path.suffix != ".py" else True


@pytest.fixture
def note_number(request: pytest.FixtureRequest) -> Note:
    """Put a figure into the table: ``note_number(row, 21.3, at_least=20)``, before anything is
    asserted of it.
    """

    def note(
        row: str,
        measured: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        detail: str = "",
    ) -> None:
        if row not in ROWS or (at_least is None) == (at_most is None):
            raise ValueError(f"{row!r} is no row, or its bound isn't one")
        bound = at_least if at_most is None else at_most
        excess = (bound or 0) - measured if at_most is None else measured - (bound or 0)
        words = f"{'at least' if at_most is None else 'at most'} {bound:g}" if bound else "0"
        told = f"{measured:.3g}" if measured != int(measured) else f"{measured:,.0f}"
        found = Number(words, f"{told} {detail}".rstrip(), excess)
        table = request.config.stash[_numbers]
        if row not in table or table[row].excess < excess:
            table[row] = found

    return note


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table."""
    table = config.stash[_numbers]
    if not table:
        return
    terminalreporter.section("what was asked for, and what was measured")
    wide = max(map(len, ROWS))
    for row in ROWS:
        number = table.get(row)
        if number is None:
            terminalreporter.write_line(f"{row:{wide}}  not measured in this run")
            continue
        verdict, colour = ("PASS", "green") if number.excess <= 0 else ("NOT REACHED", "red")
        line = f"{row:{wide}}  {number.asked:13}  {verdict:11}  {number.measured}"
        terminalreporter.write_line(line, **{colour: True})
