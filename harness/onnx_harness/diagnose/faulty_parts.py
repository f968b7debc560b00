"""Find the minimal set of passes, rules or nodes of a transform that it takes to fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnx_harness.diagnose import attempts, trials
from onnx_harness.diagnose.findings import Findings
from onnx_harness.diagnose.localization import watched
from onnx_harness.diagnose.minimal import Minimal, OutOfBudget, minimal_part
from onnx_harness.diagnose.trial_runner import TrialRunner
from onnx_harness.diagnose.trials import Outcome, Trial
from onnx_harness.errors import WorkerDied

MOST_NAMED = 8
"""A larger set of nodes isn't the cause, it's the whole conversion."""


def find_parts(
    runner: TrialRunner, findings: Findings, base: Trial, failure: Outcome
) -> Trial:
    """Find the parts at fault of the last transform of a trial.

    Returns:
        The trial without the parts that it doesn't take to fail.

    Raises:
        OutOfBudget: there is no time left; what was narrowed down is in the findings.
    """
    if base.count == 0:
        return base
    try:
        names = runner.ask(attempts.parts_of, base.count)
    except WorkerDied:
        return base
    parts = runner.question.bound.changing[base.count - 1].transform.parts
    if not names or parts is None:
        return base
    findings.kind = parts.kind
    if parts.kind == "node" and runner.ask(attempts.lacks_names, base.count):
        named = runner.trial(replace(base, named=True))
        if not trials.same_failure(failure, named):
            findings.note(
                f"it takes nodes without names: once each node has one, {named.in_words}"
            )
            return base

    def without_others(part: tuple[str, ...]) -> Trial:
        chosen = set(part)
        return replace(base, off=tuple(name for name in names if name not in chosen))

    runner.shorten(without_others(()))
    watch = watched(runner, findings, base, failure) if parts.kind == "node" else None
    suspected = set()
    if watch is not None and watch.node is not None:
        suspected.add(watch.node.name)
    departing = tuple(name for name in names if name in suspected)
    suspects = [departing, _named_in(failure.reason or "", names)]
    result = minimal_part(
        names,
        lambda part: runner.still_fails(without_others(part), failure),
        guesses=[group for group in suspects if group],
    )
    # With fewer nodes converted, a value may depart that the whole conversion has right.
    if not result.items or not suspected.isdisjoint(result.items):
        findings.watch = watch
    _note_parts(findings, parts.kind, names, result)
    return without_others(result.items) if result.items else base


def _named_in(reason: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the parts that the reason of a failure quotes: an overflowing node, for instance."""
    return tuple(name for name in names if f"'{name}'" in reason)


def _note_parts(
    findings: Findings, kind: str, names: Sequence[str], result: Minimal[str]
) -> None:
    plural = {"pass": "passes"}.get(kind, f"{kind}s")
    if not result.items:
        findings.note(f"none of its {len(names)} {plural} is needed for that")
        return
    if result.proven:
        findings.proven = True
        findings.note(
            f"minimal set of {len(names)} {plural}: {', '.join(result.items[:MOST_NAMED])} "
            f"({result.trials_in_words}; it takes each of them)"
        )
    else:
        findings.note(f"narrowed down to {len(result.items)} of {len(names)} {plural}")
    if len(result.items) < len(names) or len(names) == 1:
        findings.set_cause(**{"passes" if kind == "pass" else "rules": result.items})
    if result.exhausted:
        raise OutOfBudget
