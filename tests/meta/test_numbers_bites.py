"""The table of `make numbers` says NOT REACHED of what isn't, and nothing of what wasn't measured."""

from __future__ import annotations

from pathlib import Path

import pytest

TABLE = Path(__file__).parents[1] / "performance" / "conftest.py"
RATIO, MEMORY = (
    "clamp: times the library's throughput, random bits",
    "clamp: memory beside input and output",
)


def told(pytester: pytest.Pytester, *notes: str) -> list[str]:
    pytester.makeconftest(TABLE.read_text("utf-8"))
    body = "".join(f"    note_number({note})\n" for note in notes)
    pytester.makepyfile(
        f"import pytest\n@pytest.mark.performance\ndef test_it(note_number):\n{body}"
    )
    pytester.makeini("[pytest]\nmarkers = performance")
    return pytester.runpytest_subprocess("-m", "performance").outlines


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ([f'"{RATIO}", 19.4, at_least=20'], "at least 20    NOT REACHED  19.4"),
        (
            [f'"{RATIO}", 20, at_least=20, detail="of 3"'],
            "at least 20    PASS         20 of 3",
        ),
        (
            [f'"{RATIO}", {low}, at_least=20' for low in (30, 19, 40)],
            "at least 20    NOT REACHED  19",
        ),
        (
            [f'"{MEMORY}", {much}, at_most=0.05' for much in (0.01, 0.06)],
            "at most 0.05   NOT REACHED  0.06",
        ),
        ([f'"{MEMORY}", 0, at_most=0'], "0              PASS         0"),
    ],
)
def test_a_figure_is_held_against_its_bound_the_worst_of_several(
    notes: list[str], expected: str, pytester: pytest.Pytester
) -> None:
    lines = told(pytester, *notes)
    (line,) = [
        line for line in lines if line.startswith(RATIO if RATIO in notes[0] else MEMORY)
    ]
    assert line.endswith(expected)
    assert sum("not measured in this run" in line for line in lines) > 10


def test_a_row_that_is_not_in_the_table_is_an_error(pytester: pytest.Pytester) -> None:
    assert any(
        "is no row" in line for line in told(pytester, '"clamp: speed", 1, at_least=0')
    )
