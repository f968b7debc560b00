"""Runs that lack accepted cells through no change of theirs, and the words for why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from onnx_harness.gate.partial import MOST_WORDS, missing_levels, selection_of, why_partial
from onnx_harness.results.levels import Level, trimmed
from tests.nights import timed
from tests.unit.results_examples import RUN

WORDS = tuple("abcdefgh")


def level(
    name: str = "original", selection: tuple[str, ...] = (), processor: str = "P"
) -> Level:
    cell = trimmed(timed(name))
    return Level(cell, processor, RUN.seed, "night0", RUN.started, "w", "y", selection)


def test_a_run_without_a_selection_was_chosen_by_its_command() -> None:
    assert selection_of(RUN) == (RUN.command,)
    assert selection_of(replace(RUN, selection=("models",))) == ("models",)


@pytest.mark.parametrize(
    ("of_run", "judged", "missing", "expected"),
    [
        ({}, 1, [], None),
        ({"planned": 5}, 0, [], None),
        ({}, 0, [("models",)], "it was killed, refused, or all was deselected"),
        ({"planned": 5}, 0, [("m",)], "it was killed, refused, or all was deselected"),
        ({"planned": 2000}, 1999, [("m",)], "it ended after 1,999 of its own 2,000"),
        ({"planned": 2, "selection": ("m",)}, 2, [("m",)], None),
        ({"planned": 1, "selection": ("m",)}, 2, [("m",)], None),
        (
            {"shards": ("1/3 ab", "2/3 ab")},
            4,
            [("m",)],
            "it is shard 1/3 ab, 2/3 ab: merge the shards' reports first",
        ),
        ({"shards": ("1/2 ab", "2/2 ab"), "selection": ("m",)}, 4, [("m",)], None),
        ({"selection": ("m",)}, 1, [("m",), ("m",)], None),
        (
            {"selection": ("m",)},
            1,
            [("m",), ("n", "o"), ("p",)],
            "it was chosen by 'm', and the accepted run by 'n o'",
        ),
        (
            {"selection": ("m",)},
            1,
            [()],
            "it was chosen by 'm', and the accepted run by a selection that isn't known",
        ),
        (
            {"selection": WORDS[:MOST_WORDS]},
            1,
            [WORDS[: MOST_WORDS + 1]],
            "it was chosen by 'a b c d e f', and the accepted run by 'a b c d e f' and 1 more",
        ),
    ],
)
def test_why_a_run_is_partial(
    of_run: dict[str, Any],
    judged: int,
    missing: Sequence[tuple[str, ...]],
    expected: str | None,
) -> None:
    levels = [level(selection=selection) for selection in missing]
    assert why_partial(replace(RUN, **of_run), judged, levels) == expected


def test_a_cell_that_is_missing_counts_once_whatever_it_was_accepted_on() -> None:
    levels = [level("v2"), level("v1"), level("v1", processor="Q"), level("v3")]
    by_key = {each.key: each for each in levels}
    assert missing_levels(by_key, {"net-v3-cpu": 1}) == [levels[2], levels[0]]
    assert missing_levels(by_key, {each.cell.id: 1 for each in levels}) == []
