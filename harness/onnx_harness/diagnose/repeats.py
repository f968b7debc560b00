"""Repeat a failure, and count how often it comes."""

from __future__ import annotations

from dataclasses import replace

from onnx_harness.diagnose.findings import Findings
from onnx_harness.diagnose.trial_runner import TrialRunner
from onnx_harness.diagnose.trials import Outcome, Trial, same_failure

# So often a failure that doesn't repeat at once is tried again, to tell its share.
_REPEATS = 10


def repeated(
    runner: TrialRunner, findings: Findings, whole: Trial, failure: Outcome
) -> Outcome | None:
    """Return the failure that repeats; None where there is none, and how often it failed is noted.

    Args:
        runner: runs trials.
        findings: get the end of the search where nothing repeats.
        whole: the trial that failed.
        failure: its outcome.
    """
    again = runner.trial(replace(whole, attempt=2))
    if same_failure(failure, again):
        return failure
    outcomes = [failure, again]
    for number in range(3, _REPEATS + 1):
        outcomes.append(runner.trial(replace(whole, attempt=number)))
    failing = [outcome for outcome in outcomes if outcome.fails]
    if len(failing) == len(outcomes):
        # In one way or another, and what is searched for is the last one.
        return failing[-1]
    findings.end = "flaky" if failing else "passes"
    findings.remark = f"{len(failing)} of {len(outcomes)}"
    findings.failure = next((outcome.reason or "" for outcome in failing), "")
    return None
