"""The cause of a failure in one sentence."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness.results.diagnosis import Cause, NodeCause
from onnx_harness.settings import Settings

if TYPE_CHECKING:
    from onnx_harness.diagnose.findings import Findings
    from onnx_harness.diagnose.releases import Found
    from onnx_harness.diagnose.trials import Question

_MOST = 4


def sentence(findings: Findings, question: Question, seconds: float) -> str:
    """Return what is known, for a person.

    Args:
        findings: what is known.
        question: what was asked.
        seconds: the budget.
    """
    what = question.task.cell.id if question.candidate is None else question.candidate.name
    match findings.end:
        case "passes":
            return f"Nothing to diagnose: {what} passes."
        case "flaky":
            return (
                f"{what} is flaky: it failed in {findings.remark} trials, all of them alike "
                f"({findings.failure})."
            )
        case "not judged":
            return f"Nothing to diagnose: {what} isn't judged ({findings.remark})."
        case "untouched":
            return (
                f"The untouched model itself fails, and no transform has a part in it: "
                f"{findings.remark}"
            )
    subject = _subject(findings)
    if findings.end in ("budget", "interrupted"):
        so_far = (
            f"as far as it was narrowed down: {subject}"
            if subject
            else "nothing was narrowed down"
        )
        failure = "; ".join(part for part in (findings.failure, findings.remark) if part)
        explained = f" ({failure})" if failure else ""
        if findings.end == "interrupted":
            return (
                f"The search for the cause was interrupted; {so_far}{explained}; "
                f"`{command(question, seconds)}` starts it anew."
            )
        return (
            f"No cause was found within {seconds:g} s; {so_far}{explained}; "
            f"`{command(question, 10 * seconds)}` goes on."
        )
    if not subject:
        return f"No cause was found: {findings.failure}."
    facts = _facts(findings.cause)
    explained = f" ({'; '.join(facts)})" if facts else ""
    return f"{subject}: {findings.failure}{explained}."


def command(question: Question, seconds: float) -> str:
    """Return the command line that diagnoses the same with another budget."""
    task = question.task
    words = ["onnx-harness", "diagnose"]
    if question.candidate is not None:
        words += [_from_here(task.model), _from_here(question.candidate)]
        words += ["--float16-io"] * question.float16_io
    else:
        variant = task.cell.variant.spelling or "original"
        model = task.model if task.cell.card.suite else task.cell.card.path
        words += [_from_here(model), "--variant", variant]
    if task.cell.provider != "cpu":
        words += ["--provider", task.cell.provider]
    if task.recorded is not None:
        words += ["--inputs", _from_here(task.recorded)]
    usual = Settings()
    for option in ("seed", "input_sets"):
        number = getattr(task.settings, option)
        if number != getattr(usual, option):
            words += [f"--{option.replace('_', '-')}", str(number)]
    return shlex.join([*words, "--budget", f"{seconds:g}"])


def _from_here(path: Path) -> str:
    """Return a path as it is named in the current folder, where it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _subject(findings: Findings) -> str:
    """Return what is at fault, the most exact first."""
    cause = findings.cause
    words = _runtime(findings) or _step(findings)
    if cause.provider is not None:
        words = f"provider '{cause.provider}'" + (f", {words}" if words else "")
    if findings.threads:
        words = f"{words}, with more than one thread" if words else "more than one thread"
    if cause.node is not None and _node(cause.node) not in findings.operators:
        words = f"{words} on {_node(cause.node)}" if words else _node(cause.node)
    return words


def _step(findings: Findings) -> str:
    cause = findings.cause
    if cause.transform is None:
        return ""
    named = cause.passes or cause.rules
    if not named or (cause.passes and f"pass.{named[0]}" == cause.transform):
        return f"`{cause.transform}`"
    return f"{_listed(named)} ({_counted(findings.kind, len(named))} of `{cause.transform}`)"


def _runtime(findings: Findings) -> str:
    cause = findings.cause
    if cause.level is None:
        return ""
    operators = (
        f", which made {', '.join(findings.operators[:_MOST])}" if findings.operators else ""
    )
    before = f", on what `{cause.transform}` made" if cause.transform is not None else ""
    if cause.optimizers:
        passes = f"{_listed(cause.optimizers)} (level '{cause.level}')"
        return f"ONNX Runtime's {passes}{operators}{before}"
    return f"ONNX Runtime's optimization level '{cause.level}'{before}"


def _node(node: NodeCause) -> str:
    return f"{node.op_type} '{node.name}'"


def _facts(cause: Cause) -> list[str]:
    facts = []
    if cause.node is not None:
        facts.append(
            f"own error {_error(cause.node.own_error)}, inherited "
            f"{_error(cause.node.inherited_error)}"
        )
    if cause.input_set is not None:
        facts.append(f"input {cause.input_set}")
    if cause.release is not None:
        facts.append(f"since {cause.release}")
    return facts


def _error(error: float | None) -> str:
    return "not finite" if error is None else f"{error:.2g}"


def _listed(names: tuple[str, ...]) -> str:
    words = " and ".join(f"`{name}`" for name in names[:_MOST])
    return f"{words} and {len(names) - _MOST} more" if len(names) > _MOST else words


def _counted(kind: str, count: int) -> str:
    plural = {"pass": "passes"}.get(kind, f"{kind}s")
    return f"a {kind}" if count == 1 else f"the {count} {plural} together"


def of_release(cell: str, package: str, bounds: Found, reason: str) -> str:
    """Return since which release a cell fails.

    Args:
        cell: its id.
        package: the distribution's name.
        bounds: the result of the search.
        reason: what the verdict says of the first release that fails; of the newest, where that one
            doesn't fail.
    """
    if bounds.bad is None:
        if bounds.good is not None:
            return f"Nothing to search for: {cell} passes with {package} {bounds.good}."
        newest = f" {bounds.tried[0][0]}" if bounds.tried else ""
        return (
            f"Nothing to search for: {cell} can't be judged with {package}{newest}: {reason}"
        )
    skipped = _skipped(bounds)
    if bounds.good is None:
        return (
            f"{cell} passes with no release of {package} that can be judged; the oldest of them, "
            f"{bounds.bad}, fails too{skipped}: {reason}"
        )
    return f"{cell} fails since {package} {bounds.bad}; {bounds.good} is right{skipped}: {reason}"


def _skipped(bounds: Found) -> str:
    """Return which releases may be the first bad one as well, as a part of a sentence."""
    if not bounds.between:
        return ""
    if bounds.good is None:
        count = len(bounds.between)
        return f" ({count} older {'one' if count == 1 else 'ones'} can't be judged)"
    listed = ", ".join(bounds.between[:_MOST])
    more = f" and {len(bounds.between) - _MOST} more" if len(bounds.between) > _MOST else ""
    return f", and what lies between can't be judged ({listed}{more})"
