"""A cell compared with its accepted level, in all but latency: see `onnx_harness.gate.latency`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from onnx_harness.results.cells import CellResult, OutputAccuracy, PinnedRecord, Status
from onnx_harness.results.gated import Finding
from onnx_harness.results.levels import Level
from onnx_harness.results.outcome import Outcome
from onnx_harness.results.run import RunInfo

WORSE = 2.0
"""An error that has doubled has changed.

Another kernel's order of summation is worth less than that.
"""
NEGLIGIBLE = 0.01
"""Errors below a hundredth of the tolerance may grow.

Between 1e-9 and 3e-9 of an allowed 1e-4 lies no defect.
"""
LOOSER = 1.01
"""The factor for the absolute tolerance.

It follows the reference's values, whose last bits are another ONNX Runtime's own. Those of another
model are altogether its own: then only the relative tolerance is held.
"""
MORE_BYTES = 0.01
"""Names and metadata that another version writes are worth less than 1% of a file."""
LESS_SHARE = 1e-3
"""Less than any node of a graph of 1,000 nodes: only rounding is allowed."""

SETTINGS = ("seed", "inputs", "card", "threads", "versions")
"""Findings that make two cells' figures incomparable."""

_UNTOUCHED = {"onnx-harness", "pytest", "pytest-benchmark"}
"""Distributions that neither transform nor run a model."""


@dataclass(slots=True)
class Compared:
    """The findings and notes of a comparison, as they are gathered."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def comparable(self) -> bool:
        """True where the figures of the two mean the same."""
        return not any(finding.what in SETTINGS for finding in self.findings)

    def fail(self, what: str, reason: str) -> None:
        """Add a change for the worse."""
        self.findings.append(Finding(Outcome.FAIL, what, reason))

    def void(self, what: str, reason: str) -> None:
        """Add a reason why the two can't be compared."""
        self.findings.append(Finding(Outcome.INVALID, what, reason))


def compare(level: Level, now: CellResult, run: RunInfo) -> Compared:
    """Compare a cell of ``run`` with its level: first their settings, then all but the latency."""
    compared = Compared()
    accepted = level.cell
    _compare_settings(compared, level, now, run)
    if not _compare_status(compared, accepted, now):
        return compared
    if accepted.model_sha256 != now.model_sha256:
        compared.notes.append("the model isn't the file that was accepted")
    _compare_graph(compared, accepted, now)
    _compare_placement(compared, accepted, now)
    if compared.comparable:
        _compare_accuracy(compared, accepted, now)
    return compared


def same_reference(first: PinnedRecord, second: PinnedRecord) -> bool:
    """True for the same versions and threads: only then do two ratios mean the same."""
    if first.threads != second.threads:
        return False
    return not differing(first.versions, second.versions)


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """List the versions that matter and differ, as ``onnxruntime 1.31.0, now 1.32.0``."""
    differences = []
    for name in sorted({*before, *now} - _UNTOUCHED):
        old, new = before.get(name, "absent"), now.get(name, "absent")
        if old != new:
            differences.append(f"{name} {old}, now {new}")
    return differences


def _compare_settings(
    compared: Compared, level: Level, now: CellResult, run: RunInfo
) -> None:
    accepted = level.cell
    if run.seed != level.seed:
        compared.void(
            "seed",
            f"the run's seed is {run.seed}, and the level was accepted with {level.seed}",
        )
    elif _differ_where_known(accepted.inputs_sha256, now.inputs_sha256):
        compared.void(
            "inputs",
            "it was judged on other inputs than the accepted ones: their number, or how they're "
            "made",
        )
    if accepted.card_sha256 != now.card_sha256:
        compared.void(
            "card",
            "its card says other things about inputs, tolerances or known failures than when "
            "accepted",
        )
    if accepted.pinned is None or now.pinned is None:
        return
    if now.pinned.threads != accepted.pinned.threads:
        compared.void(
            "threads",
            f"timed on {now.pinned.threads} threads, and accepted on {accepted.pinned.threads}",
        )
    differences = differing(accepted.pinned.versions, now.pinned.versions)
    if differences:
        listed = "; ".join(differences)
        compared.void("versions", f"the pinned reference isn't the accepted one: {listed}")


def _differ_where_known(accepted: str | None, now: str | None) -> bool:
    if not accepted or not now:
        return False
    return accepted != now


def _compare_status(compared: Compared, accepted: CellResult, now: CellResult) -> bool:
    """Compare how the two ended; True where there is more to compare."""
    reason = now.reason or "no reason was given"
    why = f"{now.status} at {now.stage}: {reason}{_blame(now)}"
    as_accepted = f"{accepted.status} at {accepted.stage}"
    if now.status is accepted.status:
        if now.status is Status.PASS:
            return True
        if now.stage is not accepted.stage:
            compared.fail("status", f"was accepted as {as_accepted}, and is {why}")
    elif now.status is Status.PASS:
        mended = f", mended by {now.known.mended}" if now.known and now.known.mended else ""
        compared.notes.append(f"passes{mended}; it was accepted as {as_accepted}")
    elif now.status is Status.ERROR:
        compared.void("status", f"couldn't be judged, {why}")
    else:
        compared.fail("status", f"was accepted as {accepted.status}, and is {why}")
    return False


def _blame(now: CellResult) -> str:
    """Say if the pinned versions fail too: if they do, the versions aren't the cause."""
    if now.pinned is None:
        return ""
    if now.pinned.status is now.status:
        return " (with the pinned versions too: it's the model, the card or the machine)"
    pinned = now.pinned.status
    return f" (with the pinned versions it ends as {pinned}: it's the versions under test)"


def _compare_graph(compared: Compared, accepted: CellResult, now: CellResult) -> None:
    if accepted.graph is None or now.graph is None:
        return
    before, after = accepted.graph.nodes_after, now.graph.nodes_after
    if after > before:
        pinned = now.pinned.graph if now.pinned else None
        with_pinned = f" ({pinned.nodes_after:,} with the pinned versions)" if pinned else ""
        compared.fail("nodes", f"{after:,} nodes{with_pinned}, and {before:,} were accepted")
    elif after < before:
        compared.notes.append(f"{after:,} nodes, fewer than the {before:,} accepted")
    size, accepted_size = now.graph.bytes_after, accepted.graph.bytes_after
    if size > accepted_size * (1 + MORE_BYTES):
        compared.fail("size", f"{size:,} bytes, and {accepted_size:,} were accepted")


def _compare_placement(compared: Compared, accepted: CellResult, now: CellResult) -> None:
    before, after = accepted.placement, now.placement
    if before is None:
        return
    if after is None:
        compared.void("placement", "it isn't known where its nodes ran")
        return
    if after.requested != before.requested:
        reason = f"asked for {after.requested}, and accepted on {before.requested}"
        compared.fail("placement", reason)
        return
    # Written so that a share that is NaN fails.
    if not after.share >= before.share - LESS_SHARE:
        reason = (
            f"{after.share:.1%} of its nodes run on {after.requested}, and {before.share:.1%} were "
            "accepted"
        )
        counts = [f"{op} ({count})" for op, count in sorted(after.off_provider_ops.items())]
        if counts:
            reason += f"; elsewhere: {', '.join(counts)}"
        compared.fail("placement", reason)


def _compare_accuracy(compared: Compared, accepted: CellResult, now: CellResult) -> None:
    if accepted.accuracy is None:
        return
    if now.accuracy is None:
        compared.void("accuracy", "its outputs weren't compared")
        return
    before, after = accepted.accuracy.outputs, now.accuracy.outputs
    lost = sorted(before.keys() - after.keys())
    if lost:
        compared.fail("accuracy", f"its outputs {', '.join(lost)} are gone")
    other_model = accepted.model_sha256 != now.model_sha256
    for name in before:
        if name not in after:
            continue
        for outcome, reason in _compare_output(
            before[name], after[name], other_model=other_model
        ):
            sentence = f"{name}: {reason}{_with_pinned(name, now)}"
            compared.findings.append(Finding(outcome, "accuracy", sentence))


def _compare_output(
    accepted: OutputAccuracy, now: OutputAccuracy, *, other_model: bool
) -> Iterator[tuple[Outcome, str]]:
    if not _is_as_strict(accepted, now, other_model=other_model):
        yield (
            Outcome.INVALID,
            f"the tolerance is looser (rtol {now.rtol:g}, atol {now.atol:g}) than the accepted one "
            f"(rtol {accepted.rtol:g}, atol {accepted.atol:g})",
        )
    if now.vacuous is not None and accepted.vacuous is None:
        yield Outcome.INVALID, f"the comparison can't fail any more: {now.vacuous}"
    if now.nonfinite > accepted.nonfinite:
        yield (
            Outcome.FAIL,
            f"{now.nonfinite:,} values are NaN or infinite where they shouldn't be, "
            f"{accepted.nonfinite:,} were",
        )
    least = NEGLIGIBLE * accepted.rtol
    figures = (
        (
            "smallest tolerance that would pass",
            accepted.minimum_tolerance,
            now.minimum_tolerance,
        ),
        ("relative L2 error", accepted.rel_l2, now.rel_l2),
    )
    for what, before, after in figures:
        reason = _worse(what, before, after, least)
        if reason is not None:
            yield Outcome.FAIL, reason


def _is_as_strict(
    accepted: OutputAccuracy, now: OutputAccuracy, *, other_model: bool
) -> bool:
    # Written so that a tolerance that is NaN isn't strict.
    atol_holds = other_model or now.atol <= accepted.atol * LOOSER
    return now.rtol <= accepted.rtol and atol_holds


def _worse(what: str, before: float | None, after: float | None, least: float) -> str | None:
    """Say how an error has grown; None where it hasn't, or is below ``least``."""
    if before is None or math.isnan(before):
        return None
    if after is None or math.isnan(after):
        return f"has no {what} any more, and had {before:.2g}"
    if after > max(WORSE * before, least):
        return f"{what} {after:.2g}, and {before:.2g} was accepted"
    return None


def _with_pinned(output: str, now: CellResult) -> str:
    """Return the same figure with the pinned versions, on the same night."""
    if now.pinned is None or now.pinned.accuracy is None:
        return ""
    accuracy = now.pinned.accuracy.outputs.get(output)
    if accuracy is None or accuracy.minimum_tolerance is None:
        return ""
    return (
        f" (smallest tolerance with the pinned versions: {accuracy.minimum_tolerance:.2g})"
    )
