"""Partial runs: those that weren't to judge, or didn't get to, every cell that was accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx_harness.results.levels import Level
from onnx_harness.results.run import RunInfo, are_all_shards

MOST_WORDS = 6
"""Of a selection, named in a reason."""


def selection_of(run: RunInfo) -> tuple[str, ...]:
    """Return what chose the cells of a run; its command where the run didn't note that."""
    return run.selection or (run.command,)


def why_partial(run: RunInfo, judged: int, missing: Sequence[Level]) -> str | None:
    """Return why a run lacks accepted cells through no change of theirs, or None.

    A cell has vanished only if a whole run of the selection that it was accepted with lacks it.

    Args:
        run: the run.
        judged: how many cells it has.
        missing: the levels of the cells that it lacks.
    """
    if not missing:
        return None
    if not judged:
        return "it was killed, refused, or all was deselected"
    if run.planned is not None and judged < run.planned:
        return f"it ended after {judged:,} of its own {run.planned:,}"
    if run.shards and not are_all_shards(run.shards):
        return f"it is shard {', '.join(run.shards)}: merge the shards' reports first"
    selection = selection_of(run)
    others = [level.selection for level in missing if _differs(level, selection)]
    if not others:
        return None
    accepted = _listed(others[0])
    return f"it was chosen by {_listed(selection)}, and the accepted run by {accepted}"


def _differs(level: Level, selection: tuple[str, ...]) -> bool:
    # A level of an earlier version doesn't say how its run was chosen: it differs from all.
    return level.selection != selection


def missing_levels(
    levels: Mapping[tuple[str, str], Level], judged: Mapping[str, object]
) -> list[Level]:
    """Return a level of each accepted cell that the run lacks, by id."""
    lacking = {}
    for (name, _), level in levels.items():
        if name not in judged:
            lacking[name] = level
    return [lacking[name] for name in sorted(lacking)]


def _listed(selection: Sequence[str]) -> str:
    if not selection:
        return "a selection that isn't known"
    more = f" and {len(selection) - MOST_WORDS} more" if len(selection) > MOST_WORDS else ""
    return f"'{' '.join(selection[:MOST_WORDS])}'{more}"
