"""Show a diagnosis in reports: the node, the mend, and the other parts of the cause."""

from __future__ import annotations

from onnx_harness.results.diagnosis import Cause, Diagnosis, Mend, NodeCause, Smallest

MOST_PARTS = 8
"""Names of passes or rules that are listed; results.json has all of them."""


def facts(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    """Return the parts of a diagnosis that apply, as pairs of a title and a text."""
    cause = diagnosis.cause
    pairs = [
        ("node", node(cause.node)),
        ("mend", mend(diagnosis.mend)),
        ("transform", cause.transform),
        ("passes", _listed(cause.passes)),
        ("rules or nodes", _listed(cause.rules)),
        ("optimization level", cause.level),
        ("ONNX Runtime's optimizers", _listed(cause.optimizers)),
        ("provider", cause.provider),
        ("input set", cause.input_set),
        ("first bad release", cause.release),
        ("smallest model that fails", smallest(diagnosis.smallest)),
    ]
    return [(title, text) for title, text in pairs if text]


def node(record: NodeCause | None) -> str:
    """Return ``/a/Exp (Exp): own error 3.1e-02, inherited 1.2e-06``; empty without a node."""
    if record is None:
        return ""
    own, inherited = _error(record.own_error), _error(record.inherited_error)
    return f"{record.name} ({record.op_type}): own error {own}, inherited {inherited}"


def mend(record: Mend | None) -> str:
    """Return ``variant simplify passes``, and that it wasn't tried where it wasn't."""
    if record is None:
        return ""
    if record.verified:
        return f"variant {record.variant} passes"
    return f"variant {record.variant} should pass; it wasn't tried"


def smallest(record: Smallest | None) -> str:
    """Return the folder of the smallest failing model, with its nodes; empty without one."""
    if record is None:
        return ""
    nodes = "1 node" if record.nodes == 1 else f"{record.nodes:,} nodes"
    return f"{record.path}, {nodes}"


def key(diagnosis: Diagnosis) -> tuple[str, ...]:
    """Return what diagnoses of one cause have in common, whichever model they are of.

    Nodes are named differently in each model: where a node was found its operator counts, and not
    the names of the rules, which may be names of nodes too.
    """
    cause: Cause = diagnosis.cause
    part = cause.node.op_type if cause.node else _joined(cause.rules)
    words = (cause.transform, cause.level, cause.provider, cause.release)
    names = (_joined(cause.passes), _joined(cause.optimizers), part)
    return (*(word or "" for word in words), *names)


def _joined(names: tuple[str, ...] | None) -> str:
    return "\n".join(sorted(names or ()))


def _listed(names: tuple[str, ...] | None) -> str:
    if not names:
        return ""
    more = len(names) - MOST_PARTS
    return ", ".join(names[:MOST_PARTS]) + (f" and {more:,} more" if more > 0 else "")


def _error(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}"
