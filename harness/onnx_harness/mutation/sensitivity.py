"""``--sensitivity``: the worth of a cell's verdict, as the share of planted faults it catches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from onnx_harness.cell.matrix import Cell
from onnx_harness.errors import WorkerDied, named
from onnx_harness.mutation import mutants
from onnx_harness.mutation.elements import NUDGE
from onnx_harness.mutation.faults import Fault
from onnx_harness.mutation.mutants import Fate, Trial
from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from onnx_harness.results.coverage import FaultCount, SensitivityRecord
from onnx_harness.run.runner import Runner

FAULTS = 30
"""Faults that are planted in a cell.

Of so many a share is known to some percent, and each kind has two or three.
"""

SECONDS = 60.0
"""No further fault is planted in a cell after so long."""

# A fault that ONNX Runtime refuses says nothing about the comparison: a few count, more are
# replaced by others.
_MOST_BROKEN = 3
_SPARE = 15
# The smallest change is looked for in so many weights, between 1e-6 and 1 of the weight, to a
# sixth.
_PROBES = 3
_LEAST_CHANGE, _MOST_CHANGE, _FINENESS = 1e-6, 1.0, 7 / 6

_MEND = (
    "Mend: inputs that the model reacts to (recorded ones, more of them), or a tighter tolerance "
    "in the card."
)

Progress = Callable[[str], None]
"""Gets a few words about what is being done."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The sensitivity of a cell's verdict.

    Attributes:
        trials: in the order of planting.
        smallest: the smallest relative change of a weight that was caught, with the fault; None
            when none was.
        cut: why fewer faults were planted than asked for, or None.
        seconds: that measuring it took.
    """

    trials: tuple[Trial, ...]
    smallest: tuple[float, Fault] | None
    cut: str | None
    seconds: float

    def fates(self, fate: Fate) -> list[Trial]:
        """Return the trials that ended so."""
        return [trial for trial in self.trials if trial.fate is fate]

    def record(self) -> SensitivityRecord:
        """Return the figures, for ``results.json``."""
        broken = len(self.fates(Fate.BROKEN))
        caught = len(self.fates(Fate.CAUGHT)) + broken
        equivalent = len(self.fates(Fate.EQUIVALENT))
        to_catch = len(self.trials) - equivalent
        change, fault = self.smallest or (None, None)
        return SensitivityRecord(
            planted=len(self.trials),
            caught=caught,
            broken=broken,
            equivalent=equivalent,
            missed=tuple(_sentence(trial) for trial in self.fates(Fate.MISSED)),
            score=caught / to_catch if to_catch else None,
            smallest_change=change,
            smallest_change_of=None if fault is None else fault.text.partition(" in ")[2],
            kinds={kind: _count(trials) for kind, trials in _by_kind(self.trials)},
            seconds=self.seconds,
        )


def _sentence(trial: Trial) -> str:
    return f"{trial.fault.kind}: {trial.fault.text}; {trial.words}"


def examine(
    runner: Runner, cell: Cell, progress: Progress | None = None, *, seconds: float = SECONDS
) -> CellResult:
    """Judge ``cell``, with the verdict's sensitivity if it passed; measured once per run.

    A cell that catches less than its card's minimum doesn't pass. The cases of a suite are left as
    they are.

    Args:
        runner: judges the cell, and does the work.
        cell: which.
        progress: told about every fault.
        seconds: after which no further fault is planted.
    """
    result = runner.judge(cell)
    is_measured = result.sensitivity is not None
    if result.status is not Status.PASS or is_measured or cell.card.suite:
        return result
    # Its type was simulated: there is no model to plant faults in.
    if result.placement is None:
        return result
    try:
        sensitivity = measure(runner, cell, seconds=seconds, progress=progress)
    except Exception as error:
        reason = f"its sensitivity can't be measured: {named(error)}"
        result = replace(result, status=Status.ERROR, stage=Stage.COMPARE, reason=reason)
    else:
        if sensitivity.cut is not None:
            result = replace(result, notes=(*result.notes, sensitivity.cut))
        result = replace(result, sensitivity=sensitivity.record())
        result = _compared_with_minimum(result, cell.card.least_sensitivity)
    runner.revise(result)
    return result


def measure(
    runner: Runner,
    cell: Cell,
    *,
    count: int = FAULTS,
    seed: int | None = None,
    seconds: float = SECONDS,
    probe: bool = True,
    progress: Progress | None = None,
) -> Sensitivity:
    """Plant faults in the transformed model of a cell that passed.

    Args:
        runner: has judged the cell.
        cell: which.
        count: how many faults.
        seed: of their choice; None: the run's.
        seconds: after which no further one is planted.
        probe: whether the smallest change that would be caught is looked for, too.
        progress: told about every fault.

    Raises:
        WorkerDied: the worker dies before any fault is planted.
    """
    started = time.monotonic()
    report = progress or (lambda _: None)
    seed = runner.settings.seed if seed is None else seed
    faults = runner.ask(mutants.plan, cell, count + _SPARE, seed)
    trials: list[Trial] = []
    broken = 0
    cut: str | None = None
    for fault in faults:
        if len(trials) == count:
            break
        if time.monotonic() - started > seconds:
            cut = f"{len(trials)} of {count} faults were planted: {seconds:g} s were up"
            break
        report(f"{cell.id}: fault {len(trials) + 1} of {count}, {fault.kind}")
        trial = _attempt(runner, cell, fault)
        broken += trial.fate is Fate.BROKEN
        if trial.fate is not Fate.BROKEN or broken <= _MOST_BROKEN:
            trials.append(trial)
    smallest = None
    if probe and cut is None:
        report(f"{cell.id}: the smallest change that is caught")
        probes = [fault for fault in faults if fault.kind == NUDGE.name][:_PROBES]
        smallest = smallest_change(probes, lambda fault: _is_caught(runner, cell, fault))
    if cut is None and len(trials) < count:
        planted = f"{len(trials)} faults were planted, not {count}"
        cut = f"{planted}: the model has no more places for them"
    return Sensitivity(tuple(trials), smallest, cut, time.monotonic() - started)


def smallest_change(
    probes: Sequence[Fault], is_caught: Callable[[Fault], bool]
) -> tuple[float, Fault] | None:
    """Find the smallest relative change of one of these weights that is caught.

    By bisection on a logarithmic scale.

    Args:
        probes: faults that multiply a weight by a factor.
        is_caught: asked at most 8 times for the first weight, and less for the others: only a
            smaller change than the smallest so far is looked for in them.

    Returns:
        The change and the fault that makes it, to within a sixth; None when twice the weight isn't
        caught in any.
    """
    best: tuple[float, Fault] | None = None
    for probe in probes:
        high = best[0] / _FINENESS if best else _MOST_CHANGE
        low = _LEAST_CHANGE
        if high <= low or not is_caught(changed := replace(probe, factor=1 + high)):
            continue
        best = high, changed
        while high / low > _FINENESS:
            middle = math.sqrt(low * high)
            if is_caught(changed := replace(probe, factor=1 + middle)):
                high, best = middle, (middle, changed)
            else:
                low = middle
    return best


def _attempt(runner: Runner, cell: Cell, fault: Fault) -> Trial:
    try:
        return runner.ask(mutants.attempt, cell, fault)
    except WorkerDied as death:
        return Trial(fault, Fate.BROKEN, death.what)


def _is_caught(runner: Runner, cell: Cell, fault: Fault) -> bool:
    try:
        return runner.ask(mutants.is_caught, cell, fault)
    except WorkerDied:
        return True


def _compared_with_minimum(result: CellResult, minimum: float | None) -> CellResult:
    """Fail at ``compare`` where the verdict catches less than the card demands."""
    record = result.sensitivity
    if record is None or minimum is None:
        return result
    if record.score is not None and record.score >= minimum:
        return result
    if record.score is None:
        reason = (
            f"none of {record.planted} planted faults changes an output, and the card requires "
            f"{minimum:.0%} of them to be caught"
        )
    else:
        reason = (
            f"{record.caught} of {record.planted - record.equivalent} planted faults are caught "
            f"({record.score:.0%}), and the card requires {minimum:.0%}; one of those missed: "
            f"{record.missed[0]}"
        )
    return replace(
        result,
        status=Status.FAIL,
        stage=Stage.COMPARE,
        reason=reason,
        detail=(*(f"missed {sentence}" for sentence in record.missed), _MEND),
        symptom=Symptom.INSENSITIVE,
    )


def _by_kind(trials: Sequence[Trial]) -> Iterator[tuple[str, list[Trial]]]:
    for kind in dict.fromkeys(trial.fault.kind for trial in trials):
        yield kind, [trial for trial in trials if trial.fault.kind == kind]


def _count(trials: Sequence[Trial]) -> FaultCount:
    fates = [trial.fate for trial in trials]
    caught = fates.count(Fate.CAUGHT) + fates.count(Fate.BROKEN)
    return FaultCount(len(fates), caught, fates.count(Fate.EQUIVALENT))
