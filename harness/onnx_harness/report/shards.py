"""The shards of a run that are merged: which are missing, and which are parts of another plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from onnx_harness.report.figures import counted
from onnx_harness.results.shard_plan import ShardPlan
from onnx_harness.results.store import Results

_MOST_NAMED = 5
"""Cells that a sentence names; the plans in the folders have all of them."""


@dataclass(frozen=True, slots=True)
class Part:
    """Results that are merged.

    Attributes:
        name: of the folder, file or run, as it was typed.
        plan: of its shards, where its folder keeps it.
    """

    name: str
    results: Results
    plan: ShardPlan | None = None


def shards_of_one_plan(parts: Sequence[Results]) -> bool:
    """Return whether each of the results is of other shards of the same plan."""
    labels = [part.run.shards for part in parts]
    places = [shard for shards in labels for shard in shards]
    plans = {shard.partition("/")[2] for shard in places}
    return all(labels) and len(plans) == 1 and len(set(places)) == len(places)


def shards_amiss(parts: Sequence[Part]) -> Iterator[str]:
    """Yield what keeps shards from being one whole run: a sentence each."""
    groups = _by_plan(parts)
    if len(groups) > 1:
        yield _of_several(groups)
        yield from _differences(groups)
    for group in groups:
        if group.missing:
            yield _of_missing(group, len(groups) == 1)
    if len(groups) > 1:
        yield (
            "to mend it, choose one plan, and run the parts that it lacks in empty folders, with "
            "the options, models and --shard-times of its other parts; then merge those alone"
        )


@dataclass(slots=True)
class _OfPlan:
    """The shards of one plan.

    Attributes:
        digest: of the plan.
        count: of its parts.
        folders: where each part that is here was found, by its number.
        plan: with the ids of its cells, where a folder keeps it.
    """

    digest: str
    count: int
    folders: dict[int, str]
    plan: ShardPlan | None = None

    @property
    def missing(self) -> list[int]:
        """Return the numbers of the parts that aren't here."""
        return sorted({*range(1, self.count + 1)} - {*self.folders})

    @property
    def title(self) -> str:
        """Return what tells this plan from another."""
        return f"plan {self.digest}"


def _by_plan(parts: Sequence[Part]) -> list[_OfPlan]:
    """Return the shards by plan, that with the most parts here first."""
    groups: dict[str, _OfPlan] = {}
    for part in parts:
        for shard in part.results.run.shards:
            place, _, digest = shard.partition(" ")
            index, _, count = place.partition("/")
            group = groups.setdefault(f"{count} {digest}", _OfPlan(digest, int(count), {}))
            group.folders.setdefault(int(index), part.name)
            if part.plan is not None and part.plan.digest == digest:
                group.plan = part.plan
    return sorted(groups.values(), key=lambda group: (-len(group.folders), group.digest))


def _of_several(groups: Sequence[_OfPlan]) -> str:
    sentences = []
    for group in groups:
        cells = "" if group.plan is None else f", {counted(len(group.plan.cells), 'cell')}"
        here = [
            f"part {index} ({folder})" for index, folder in sorted(group.folders.items())
        ]
        sentences.append(
            f"{group.title} ({counted(group.count, 'part')}{cells}) has here {', '.join(here)}"
        )
    return (
        f"the shards are parts of {len(groups)} different plans, so cells may be missing: "
        f"{'; '.join(sentences)}"
    )


def _differences(groups: Sequence[_OfPlan]) -> Iterator[str]:
    """Yield what tells each plan from the first, as far as both are known."""
    first = groups[0]
    for group in groups[1:]:
        if first.plan is None or group.plan is None:
            continue
        more, fewer = (
            group.plan.cells - first.plan.cells,
            first.plan.cells - group.plan.cells,
        )
        for having, lacking, cells in ((group, first, more), (first, group, fewer)):
            if cells:
                yield (
                    f"{having.title} has {counted(len(cells), 'cell')} that {lacking.title} "
                    f"hasn't: {_some(cells)}. Their models, providers or variants weren't the same"
                )
        if more or fewer:
            continue
        if first.count != group.count:
            yield (
                f"{first.title} and {group.title} have the same cells, in {first.count} and in "
                f"{group.count} parts: --shard wasn't of the same number"
            )
        else:
            yield (
                f"{first.title} and {group.title} have the same cells, dealt out differently: "
                "--shard-times weren't the same"
            )


def _of_missing(group: _OfPlan, is_only: bool) -> str:
    missing = ", ".join(map(str, group.missing))
    if not is_only:
        return f"of {group.title}, {_are_missing(group)}: {missing}"
    return (
        f"of {group.count} shards of one plan, {_are_missing(group)}: {missing}; run those parts, "
        "then merge again"
    )


def _are_missing(group: _OfPlan) -> str:
    count = len(group.missing)
    return f"{count} {'is' if count == 1 else 'are'} missing"


def _some(cells: Iterable[str]) -> str:
    names = sorted(cells)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"
