"""One cell against its accepted level. Latency apart (`onnx_harness.gate.latency`): that takes all its nights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from onnx_harness.results.cells import CellResult, OutputAccuracy, PinnedRecord, Status
from onnx_harness.results.gated import Finding
from onnx_harness.results.levels import Level
from onnx_harness.results.outcome import Outcome
from onnx_harness.results.run import RunInfo

WORSE = 2.0
"""An error that has doubled has changed. Another kernel's order of summation is worth less than that."""
NEGLIGIBLE = 0.01
"""Errors below a hundredth of the tolerance may grow: between 1e-9 and 3e-9 of an allowed 1e-4 lies no defect."""
LOOSER = 1.01
"""The absolute tolerance follows the reference's values, whose last bits are another ONNX Runtime's own. Those of
another model are altogether its own: then only the relative tolerance is held."""
MORE_BYTES = 0.01
LESS_SHARE = 1e-3

SETTINGS = ("seed", "inputs", "card", "threads", "versions")
"""What has to be the same before figures may be compared."""

_UNTOUCHED = {"onnx-harness", "pytest", "pytest-benchmark"}
"""Distributions that neither transform nor run a model."""


@dataclass(slots=True)
class Compared:
    """What comes of a comparison, as it is gathered."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def comparable(self) -> bool:
        """Whether the figures of the two mean the same."""
        return not any(finding.what in SETTINGS for finding in self.findings)

    def fail(self, what: str, reason: str) -> None:
        """A change for the worse."""
        self.findings.append(Finding(Outcome.FAIL, what, reason))

    def void(self, what: str, reason: str) -> None:
        """A reason why the two can't be compared."""
        self.findings.append(Finding(Outcome.INVALID, what, reason))


def compare(level: Level, now: CellResult, run: RunInfo) -> Compared:
    """A cell of ``run`` against its level: first whether they may be compared, then everything but the latency."""
    seen = Compared()
    _settings(seen, level, now, run)
    if not _status(seen, level.cell, now):
        return seen
    if level.cell.model_sha256 != now.model_sha256:
        seen.notes.append("the model isn't the file that was accepted")
    _graph(seen, level.cell, now)
    _placement(seen, level.cell, now)
    if seen.comparable:
        _accuracy(seen, level.cell, now)
    return seen


def same_reference(one: PinnedRecord, other: PinnedRecord) -> bool:
    """Whether two records come of the same versions and threads: only then do their ratios mean the same."""
    return not differing(one.versions, other.versions) and one.threads == other.threads


def differing(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Which versions that matter differ, as ``onnxruntime 1.31.0, then 1.32.0``."""
    names = sorted(name for name in {*before, *now} - _UNTOUCHED if before.get(name) != now.get(name))
    return [f"{name} {before.get(name, 'absent')}, now {now.get(name, 'absent')}" for name in names]


def _settings(seen: Compared, level: Level, now: CellResult, run: RunInfo) -> None:
    was = level.cell
    if run.seed != level.seed:
        seen.void("seed", f"the run's seed is {run.seed}, and the level was accepted with {level.seed}")
    elif was.inputs_sha256 != now.inputs_sha256 and was.inputs_sha256 and now.inputs_sha256:
        seen.void("inputs", "it was judged on other inputs than the accepted ones: their number, or how they're made")
    if was.card_sha256 != now.card_sha256:
        seen.void("card", "its card says other things about inputs, tolerances or known failures than when accepted")
    if was.pinned is None or now.pinned is None:
        return
    if now.pinned.threads != was.pinned.threads:
        seen.void("threads", f"timed on {now.pinned.threads} threads, and accepted on {was.pinned.threads}")
    others = differing(was.pinned.versions, now.pinned.versions)
    if others:
        seen.void("versions", f"the pinned reference isn't the accepted one: {'; '.join(others)}")


def _status(seen: Compared, was: CellResult, now: CellResult) -> bool:
    """Whether there is more to compare."""
    why = f"{now.status} at {now.stage}: {now.reason or 'no reason was given'}{_blame(now)}"
    if now.status is was.status:
        if now.status is not Status.PASS and now.stage is not was.stage:
            seen.fail("status", f"was accepted as {was.status} at {was.stage}, and is {why}")
        return now.status is Status.PASS
    if now.status is Status.PASS:
        seen.notes.append(f"passes; it was accepted as {was.status} at {was.stage}")
        return False
    if now.status is Status.ERROR:
        seen.void("status", f"couldn't be judged, {why}")
    else:
        seen.fail("status", f"was accepted as {was.status}, and is {why}")
    return False


def _blame(now: CellResult) -> str:
    """Whether the pinned versions share a failure: if so, it isn't the versions."""
    if now.pinned is None:
        return ""
    if now.pinned.status is now.status:
        return " (with the pinned versions too: it's the model, the card or the machine)"
    return f" (with the pinned versions it ends as {now.pinned.status}: it's the versions under test)"


def _graph(seen: Compared, was: CellResult, now: CellResult) -> None:
    if was.graph is None or now.graph is None:
        return
    before, after = was.graph.nodes_after, now.graph.nodes_after
    pinned = now.pinned.graph if now.pinned else None
    if after > before:
        beside = f" ({pinned.nodes_after:,} with the pinned versions)" if pinned else ""
        seen.fail("nodes", f"{after:,} nodes{beside}, and {before:,} were accepted")
    elif after < before:
        seen.notes.append(f"{after:,} nodes, fewer than the {before:,} accepted")
    size, allowed = now.graph.bytes_after, was.graph.bytes_after * (1 + MORE_BYTES)
    if size > allowed:
        seen.fail("size", f"{size:,} bytes, and {was.graph.bytes_after:,} were accepted")


def _placement(seen: Compared, was: CellResult, now: CellResult) -> None:
    if was.placement is None:
        return
    if now.placement is None:
        seen.void("placement", "it isn't known where its nodes ran")
        return
    if now.placement.requested != was.placement.requested:
        seen.fail("placement", f"asked for {now.placement.requested}, and accepted on {was.placement.requested}")
    elif not now.placement.share >= was.placement.share - LESS_SHARE:
        elsewhere = ", ".join(f"{op} ({count})" for op, count in sorted(now.placement.off_provider_ops.items()))
        seen.fail(
            "placement",
            f"{now.placement.share:.1%} of its nodes run on {now.placement.requested}, and {was.placement.share:.1%} "
            f"were accepted{f'; elsewhere: {elsewhere}' if elsewhere else ''}",
        )


def _accuracy(seen: Compared, was: CellResult, now: CellResult) -> None:
    if was.accuracy is None:
        return
    if now.accuracy is None:
        seen.void("accuracy", "its outputs weren't compared")
        return
    lost = sorted(was.accuracy.outputs.keys() - now.accuracy.outputs.keys())
    if lost:
        seen.fail("accuracy", f"its outputs {', '.join(lost)} are gone")
    other_model = was.model_sha256 != now.model_sha256
    for name, output in was.accuracy.outputs.items():
        if name in now.accuracy.outputs:
            for what, reason in _output(output, now.accuracy.outputs[name], other_model=other_model):
                seen.findings.append(Finding(what, "accuracy", f"{name}: {reason}{_beside(name, now)}"))


def _output(was: OutputAccuracy, now: OutputAccuracy, *, other_model: bool) -> Iterator[tuple[Outcome, str]]:
    if not (now.rtol <= was.rtol and (other_model or now.atol <= was.atol * LOOSER)):
        yield (
            Outcome.INVALID,
            f"the tolerance is looser (rtol {now.rtol:g}, atol {now.atol:g}) than the accepted one "
            f"(rtol {was.rtol:g}, atol {was.atol:g})",
        )
    if now.vacuous is not None and was.vacuous is None:
        yield Outcome.INVALID, f"the comparison can't fail any more: {now.vacuous}"
    if now.nonfinite > was.nonfinite:
        yield (
            Outcome.FAIL,
            f"{now.nonfinite:,} values are NaN or infinite where they shouldn't be, {was.nonfinite:,} were",
        )
    floor = NEGLIGIBLE * was.rtol
    for what, before, after, least in (
        ("smallest tolerance that would pass", was.minimum_tolerance, now.minimum_tolerance, floor),
        ("relative L2 error", was.rel_l2, now.rel_l2, floor),
    ):
        if before is None or math.isnan(before):
            continue
        if after is None or math.isnan(after):
            yield Outcome.FAIL, f"has no {what} any more, and had {before:.2g}"
        elif after > max(WORSE * before, least):
            yield Outcome.FAIL, f"{what} {after:.2g}, and {before:.2g} was accepted"


def _beside(output: str, now: CellResult) -> str:
    """The same figure with the pinned versions, on the same night."""
    there = now.pinned.accuracy.outputs.get(output) if now.pinned and now.pinned.accuracy else None
    if there is None or there.minimum_tolerance is None:
        return ""
    return f" (smallest tolerance with the pinned versions: {there.minimum_tolerance:.2g})"
