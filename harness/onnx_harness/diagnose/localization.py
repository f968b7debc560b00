"""Localize a failure: the first node that departs on its own, and the part of the input it takes.

Both are searched for in what is left of the cell after all reductions.
"""

from __future__ import annotations

import math

from onnx_harness.diagnose import shrink, values
from onnx_harness.diagnose.findings import Findings
from onnx_harness.diagnose.minimal import OutOfBudget
from onnx_harness.diagnose.trial_runner import TrialRunner
from onnx_harness.diagnose.trials import Cost, Outcome, Trial
from onnx_harness.errors import words_of
from onnx_harness.results.cells import Stage
from onnx_harness.results.diagnosis import NodeCause

# An input that is small is good to have, and no more.
_SHRINK_SECONDS = 8.0


def find_node(
    runner: TrialRunner, findings: Findings, base: Trial, failure: Outcome
) -> None:
    """Find the first node that departs on its own.

    Raises:
        OutOfBudget: there is no time left.
    """
    watch = findings.watch or watched(runner, findings, base, failure)
    if watch is None:
        return
    if watch.observer:
        findings.note(watch.observer)
    findings.note(f"{watch.compared} of {watch.values} values compared with the reference's")
    if watch.node is None:
        return
    node, own, inherited = watch.node, _finite(watch.node.own), _finite(watch.node.inherited)
    findings.set_cause(node=NodeCause(node.name, node.op_type, own, inherited))
    right = {True: "are right", False: "are still wrong", None: "can't be had"}[watch.mended]
    findings.note(
        f"with the reference's value in the place of '{node.value}', the outputs {right}"
    )


def watched(
    runner: TrialRunner,
    findings: Findings,
    base: Trial,
    failure: Outcome,
) -> values.Watch | None:
    """Compare every value of a trial with the reference's; None where that can't be done.

    Raises:
        OutOfBudget: there is no time left.
    """
    outcome = runner.trial(base)
    if failure.stage is not Stage.COMPARE or not outcome.places:
        return None
    try:
        watch = runner.ask(
            values.first_departure, base, outcome.places[0], limit=runner.left
        )
    except OutOfBudget:
        raise
    except Exception as error:  # a graph that can't be cut has no such node
        findings.note(f"its values can't be compared one by one: {words_of(error)}")
        return None
    runner.add(Cost(sessions=watch.sessions, runs=watch.runs))
    return watch


def find_input(
    runner: TrialRunner, findings: Findings, base: Trial, failure: Outcome
) -> None:
    """Find out how little of the input set is enough.

    Raises:
        OutOfBudget: there is no time left.
    """
    outcome = runner.trial(base)
    if failure.stage is not Stage.COMPARE or not outcome.places:
        return
    seconds = min(runner.left / 2, _SHRINK_SECONDS)
    try:
        shown = runner.ask(
            shrink.shown_by, base, outcome.places[0], seconds, limit=runner.left
        )
    except OutOfBudget:
        raise
    except Exception as error:  # what can't be changed can't be shrunk
        findings.note(f"its input can't be shrunk: {words_of(error)}")
        return
    runner.add(Cost(sessions=shown.sessions, runs=shown.runs))
    for line in shown.words:
        findings.note(line)


def _finite(error: float) -> float | None:
    return error if math.isfinite(error) else None
