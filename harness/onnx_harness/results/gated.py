"""The gate's word on a run, as it travels to the terminal, to the job's page and into JSON."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_harness.results.operators import OperatorRecord
from onnx_harness.results.outcome import Outcome
from onnx_harness.results.run import RunInfo

SEVERITY = (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.INVALID, Outcome.FAIL)
"""From harmless to grave: a run is as its gravest cell."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that isn't as it was accepted.

    Attributes:
        what: ``status``, ``latency``, ``accuracy``, ``nodes``, ``size``, ``placement``, ``cell``,
            ``run`` or, where something makes the comparison void, its name: ``processor``,
            ``threads``, ``versions``, ``card``, …
        reason: one sentence, with what to do about it where that isn't plain.
    """

    outcome: Outcome
    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Nights:
    """The summary of the ratios of a cell's nights.

    Ratios are time under test over time in the pinned reference.

    Attributes:
        ratio: the latest night's; of the second measurement where there is one.
        level: the accepted one, from the nights that settled it.
        z: how many of its spreads the latest night lies above the level.
        smallest_step: the slowdown from which a night is suspected, such as 0.025 for 2.5%.
        count: nights since the level was accepted, that one included.
        first: the ratio of the first measurement of a night that was measured again; None where it
            wasn't.
        unconfirmed: one of the two looks slower, and the other doesn't bear it out: that makes no
            suspect night.
    """

    outcome: Outcome
    ratio: float
    level: float
    z: float
    smallest_step: float
    count: int
    first: float | None = None
    unconfirmed: bool = False


@dataclass(frozen=True, slots=True)
class GatedCell:
    """The gate's word on a cell.

    Attributes:
        findings: what isn't as accepted; none where it passes.
        notes: remarks that fail nothing: faster, smaller, another model.
        nights: the latency, where it is gated.
        operators: those that got slower, where the latest night is slower than accepted.
    """

    id: str
    outcome: Outcome
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    nights: Nights | None = None
    operators: OperatorRecord | None = None


@dataclass(frozen=True, slots=True)
class GateReport:
    """The gate's word on a run.

    Attributes:
        run: the run that was judged; None when there is none.
        findings: what concerns the run as a whole.
        notes: remarks on the run, such as where the change-point pass can't be made.
    """

    outcome: Outcome
    run: RunInfo | None
    findings: tuple[Finding, ...]
    cells: tuple[GatedCell, ...]
    notes: tuple[str, ...] = ()


def gravest(findings: tuple[Finding, ...]) -> Outcome:
    """The gravest outcome of several findings; PASS when there are none."""
    return max(
        (finding.outcome for finding in findings), key=SEVERITY.index, default=Outcome.PASS
    )
