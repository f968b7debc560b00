"""Find ONNX Runtime's lowest level that fails, its optimizers at fault and what they made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from onnx_harness.diagnose import optimizers
from onnx_harness.diagnose.faulty_parts import MOST_NAMED
from onnx_harness.diagnose.findings import Findings
from onnx_harness.diagnose.minimal import OutOfBudget, minimal_part
from onnx_harness.diagnose.trial_runner import TrialRunner
from onnx_harness.diagnose.trials import Outcome, Trial
from onnx_harness.results.cells import Stage

_LEVELS = ("disable", "basic", "extended", "layout", "all")


def find_optimizers(
    runner: TrialRunner, findings: Findings, base: Trial, failure: Outcome
) -> Trial:
    """Find the level and the optimizers that it takes to fail.

    Returns:
        The trial at that level without the optimizers that it doesn't take.

    Raises:
        OutOfBudget: there is no time left; what was narrowed down is in the findings.
    """
    runner.shorten(replace(base, level="disable"))
    base = replace(base, level=_lowest_level(runner, base, failure))
    findings.set_cause(level=base.level)
    findings.note(f"the lowest level that fails is '{base.level}'")
    names, guesses = _suspects(runner, base, failure)
    if not names:
        return base

    def without_others(part: tuple[str, ...]) -> Trial:
        chosen = set(part)
        return replace(base, disabled=tuple(name for name in names if name not in chosen))

    result = minimal_part(
        names,
        lambda part: runner.still_fails(without_others(part), failure),
        guesses=guesses,
    )
    if not result.items or len(result.items) == len(names) > MOST_NAMED:
        findings.note(f"none of {len(names)} optimizers is needed for that")
        return base
    findings.set_cause(optimizers=result.items)
    findings.proven = result.proven
    findings.note(
        f"minimal set of its optimizers: {', '.join(result.items)} ({result.trials_in_words})"
    )
    if result.exhausted:
        raise OutOfBudget
    _find_operators(runner, findings, base, result.items)
    return without_others(result.items)


def _lowest_level(runner: TrialRunner, base: Trial, failure: Outcome) -> str:
    for lower in _LEVELS[1 : _LEVELS.index(base.level)]:
        if runner.still_fails(replace(base, level=lower), failure):
            return lower
    return base.level


def _suspects(
    runner: TrialRunner, base: Trial, failure: Outcome
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the optimizers that may be at fault, by the session's log.

    The second item is sets of them to try first.
    """
    folder = runner.question.folder
    log, healthy = folder / "session.log", folder / "healthy.log"
    if _logs(runner, base, log) and failure.stage is not Stage.SESSION:
        return optimizers.changing(log), []
    _logs(runner, base, healthy, idle=True)
    return optimizers.all_of(log, healthy), optimizers.interrupted(log, healthy)


def optimizers_at(runner: TrialRunner, base: Trial) -> tuple[str, ...]:
    """Return the names of all optimizers of ONNX Runtime at a trial's level, its rules with them.

    By the log of a session, and by that of another one in which they find nothing to do.
    """
    folder = runner.question.folder
    log, healthy = folder / "session.log", folder / "healthy.log"
    _logs(runner, base, log)
    _logs(runner, base, healthy, idle=True)
    return optimizers.all_of(log, healthy)


def _logs(runner: TrialRunner, base: Trial, log: Path, *, idle: bool = False) -> bool:
    """Keep the log of a session; whether it was made.

    A trial's own model, or one in which nothing is optimized.
    """
    try:
        runner.ask(optimizers.log_session, base, log, idle)
    except OutOfBudget:
        raise
    except Exception:  # the session isn't made: that is what is looked into
        return False
    return True


def _find_operators(
    runner: TrialRunner, findings: Findings, base: Trial, culprits: Sequence[str]
) -> None:
    try:
        findings.operators = runner.ask(optimizers.made_operators, base, culprits)
    except OutOfBudget:
        raise
    except Exception:  # what can't be opened made nothing
        return
    if findings.operators:
        findings.note(f"it made {', '.join(findings.operators)}")
