"""Tell a trial that hangs from one that is slow.

A trial has a first limit, a share of the budget. Where it isn't over by then, what counts is what
the untouched model takes in the same worker, in this diagnosis: opening it, running it, and judging
its outputs. A slow model, and a loaded machine, take their time with that as well.
"""

from __future__ import annotations

from dataclasses import replace

from onnx_harness.diagnose import attempts
from onnx_harness.diagnose.findings import Findings
from onnx_harness.diagnose.minimal import OutOfBudget
from onnx_harness.diagnose.trial_runner import TrialRunner
from onnx_harness.diagnose.trials import Outcome, Trial, is_timeout
from onnx_harness.errors import WorkerTimedOut

# A trial hangs that takes so many times as long as one of the untouched model: transforms and
# checks take a few times as long as a session and a run, of a small model more.
_HANGS_AFTER = 10.0
# What was narrowed down is given so many times the first limit, and at most this share of the rest.
_LONGER, _CONFIRMING_SHARE = 2.0, 0.4


def tell_hang(
    runner: TrialRunner,
    findings: Findings,
    whole: Trial,
    hanging: Outcome,
    known_failure: str,
) -> Outcome:
    """Return what comes of the whole cell, which wasn't over within the first limit.

    Args:
        runner: of the trials.
        findings: get a remark while it isn't decided.
        whole: the cell.
        hanging: the outcome within the first limit.
        known_failure: the reason of an earlier verdict. Where that is a time-out, it had longer
            than any trial; where it is something else, the trial has as long as there is.

    Raises:
        OutOfBudget: it may be slow, and the budget is too small to tell.
    """
    if is_timeout(known_failure):
        return hanging
    findings.failure = hanging.reason or ""
    available = runner.left
    findings.remark = f"the untouched model alone takes longer than {available:.2g} s"
    try:
        untouched = runner.ask(attempts.time_untouched, whole, limit=available)
    except WorkerTimedOut:
        raise OutOfBudget from None
    except OutOfBudget:
        raise
    except Exception:
        # It isn't judged by itself, or ends its process: nothing to measure by.
        findings.remark = ""
        return hanging
    findings.remark = f"the untouched model takes {untouched:.2g} s of that: it may be slow"
    runner.slowest = max(runner.slowest, untouched)
    longest = _HANGS_AFTER * untouched
    if known_failure:
        longest = max(longest, runner.left)
    outcome = hanging
    if longest > runner.limit:
        outcome = runner.trial(replace(whole, attempt=1), limit=longest)
    findings.remark = ""
    if outcome.manner == "hang":
        runner.limit = max(runner.limit, longest)
        findings.note(f"{outcome.reason}; the untouched model takes {untouched:.2g} s")
    else:
        findings.note(
            f"slow, and no hang: a trial takes {runner.slowest:.2g} s, the untouched model "
            f"{untouched:.2g} s"
        )
    return outcome


def confirm_hang(
    runner: TrialRunner, findings: Findings, reduced: Trial, first: float
) -> bool:
    """Give what was narrowed down longer than the whole had.

    Args:
        runner: of the trials.
        findings: get a line.
        reduced: the trial, with all taken away that it doesn't take to hang.
        first: the limit, in seconds, that the whole wasn't over by.

    Returns:
        Whether it hangs, as far as there was time to see.
    """
    limit = min(_LONGER * first, _CONFIRMING_SHARE * runner.left)
    if limit <= runner.limit:
        findings.note(f"no time was left to give it longer than {runner.limit:.3g} s")
        return True
    outcome = runner.trial(replace(reduced, attempt=2), limit=limit)
    if outcome.manner == "hang":
        findings.note(f"what was narrowed down did not end within {limit:.3g} s either")
        return True
    findings.note(
        f"slow, and no hang: what was narrowed down ends after {runner.slowest:.2g} s"
    )
    return False
