"""Compare each cell of one run with that of the next."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_harness.report.figures import BAD
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.results.run import RunInfo
from onnx_harness.results.store import Results


@dataclass(frozen=True, slots=True)
class Change:
    """A cell in two runs.

    Attributes:
        before: in the first; None where only the other has it.
        after: in the second, likewise.
        same_processor: whether one and the same computed it in both. Times of two, and speedups,
            are never compared.
    """

    before: CellResult | None
    after: CellResult | None
    same_processor: bool = True

    @property
    def id(self) -> str:
        """The cell's id."""
        cell = self.after or self.before
        return cell.id if cell else ""

    @property
    def kind(self) -> str:
        """Return the key in `KINDS` of what became of the cell."""
        if self.before is None:
            return "new"
        if self.after is None:
            return "gone"
        kind = _kind(self.before, self.after)
        return "same" if kind == "speed" and not self.same_processor else kind

    @property
    def speedup(self) -> str:
        """Return ``1.05x``: the median time before over that after.

        Empty without both times, and where two processors took them.
        """
        if not self.same_processor:
            return ""
        before, after = _median_ms(self.before), _median_ms(self.after)
        return f"{before / after:.2f}x" if before and after else ""


def _median_ms(cell: CellResult | None) -> float:
    return cell.latency.median_ms if cell and cell.latency else 0.0


KINDS = {
    "worse": "no longer pass",
    "better": "pass now",
    "other": "end otherwise",
    "speed": "pass with another speedup: the 95% intervals don't overlap",
    "gone": "are gone",
    "new": "are new",
    "same": "end as before",
}
"""The possible changes of a cell, the gravest first."""


def _kind(before: CellResult, after: CellResult) -> str:
    if (before.status is Status.PASS) != (after.status is Status.PASS):
        return "worse" if before.status is Status.PASS else "better"
    if (before.status, before.stage) != (after.status, after.stage):
        return "worse" if after.status in BAD and before.status not in BAD else "other"
    return "speed" if _apart(before, after) else "same"


def _apart(before: CellResult, after: CellResult) -> bool:
    """Decide whether two speedups differ beyond their 95% intervals."""
    first = before.latency.speedup_ci95 if before.latency else None
    second = after.latency.speedup_ci95 if after.latency else None
    if first is None or second is None:
        return False
    (first_low, first_high), (second_low, second_high) = first, second
    return first_high < second_low or second_high < first_low


def changes(before: Results, after: Results) -> dict[str, list[Change]]:
    """Return every cell of two runs by what became of it; kinds that no cell has are left out."""
    first = {cell.id: cell for cell in before.cells}
    second = {cell.id: cell for cell in after.cells}
    grouped: dict[str, list[Change]] = {kind: [] for kind in KINDS}
    for key in dict.fromkeys([*second, *first]):
        change = _change(first.get(key), second.get(key), before.run, after.run)
        grouped[change.kind].append(change)
    return {kind: members for kind, members in grouped.items() if members}


def _change(
    first: CellResult | None, second: CellResult | None, old: RunInfo, new: RunInfo
) -> Change:
    if first is None or second is None:
        return Change(first, second)
    return Change(first, second, first.processor(old.host) == second.processor(new.host))


def sentence(grouped: dict[str, list[Change]]) -> str:
    """Return ``2 cells no longer pass, 1 passes now``; the cells that end as before come last."""
    parts = []
    for kind, members in grouped.items():
        words, _, _ = KINDS[kind].partition(":")
        parts.append(f"{len(members):,} {words}")
    return ", ".join(parts) or "no cell in either run"


def moved(old: RunInfo, new: RunInfo) -> list[str]:
    """Return what else differs between two runs: a sentence each."""
    remarks = []
    for name in sorted(old.versions.keys() | new.versions.keys()):
        before_it, after_it = (
            old.versions.get(name, "absent"),
            new.versions.get(name, "absent"),
        )
        if before_it != after_it:
            remarks.append(f"{name}: {before_it} → {after_it}")
    if old.host.cpu != new.host.cpu:
        remarks.append(
            f"processor: {old.host.cpu} → {new.host.cpu}; times can't be compared"
        )
    for provider in sorted(old.host.devices.keys() & new.host.devices.keys()):
        old_device, new_device = old.host.devices[provider], new.host.devices[provider]
        if old_device != new_device:
            remarks.append(
                f"device of {provider}: {old_device} → {new_device}; its times can't be compared"
            )
    if old.seed != new.seed:
        remarks.append(f"seed: {old.seed} → {new.seed}")
    return remarks
