"""The provider that executes a node, from ONNX Runtime's own record."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx_harness.errors import ProviderError
from onnx_harness.model.ops import STANDARD_DOMAINS
from onnx_harness.providers import Provider

if TYPE_CHECKING:
    import onnxruntime as ort

# ONNX Runtime moves what computes a shape to the CPU on purpose: the values are needed there to
# allocate memory, and a kernel launch costs more than the arithmetic. The record tells op types and
# no data types, so these are the operators that mostly handle shapes; the others that may are told
# from real ones by the profile of a run.
SHAPE_OPS = frozenset(
    {
        "Cast",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Equal",
        "Gather",
        "Identity",
        "Range",
        "ReduceProd",
        "Reshape",
        "Shape",
        "Size",
        "Slice",
        "Split",
        "Squeeze",
        "Unsqueeze",
        "Where",
    }
)

# What a device promises. Over twenty models on OpenVINO and WebGPU, shape arithmetic and odd
# operators that count against the provider came to 4% of the nodes at most; a kind of layer that it
# lacks came to 7% and more.
DEVICE_SHARE = 0.95

# Those are real work as a rule, and arithmetic on shapes where they take and give a few integers
# each.
SIZE_ARITHMETIC = frozenset(
    {
        "Abs",
        "Add",
        "And",
        "Ceil",
        "Clip",
        "CumSum",
        "Div",
        "Expand",
        "Floor",
        "GatherElements",
        "GatherND",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "NonZero",
        "Not",
        "Or",
        "Pow",
        "ReduceMax",
        "ReduceMin",
        "ReduceSum",
        "ScatterElements",
        "ScatterND",
        "Sign",
        "Sub",
        "Sum",
        "Tile",
        "TopK",
        "Transpose",
        "Xor",
    }
)


_CPU = "CPUExecutionProvider"

# A sentence with more op types isn't read.
_MOST_LISTED = 6


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the nodes of a session went. Taken after ONNX Runtime's basic optimizations.

    A provider that compiles lists the nodes it took in, not what it made of them. Copies between
    memories and Casts that ONNX Runtime inserts later aren't in the record: see
    :mod:`onnx_harness.providers.profile`.

    Attributes:
        requested: ONNX Runtime's name of the provider asked for.
        nodes: node count by ONNX Runtime provider name.
        off_provider_ops: op types executed elsewhere that aren't allowed to be, with counts; those
            outside the standard domain as ``domain:op``.
        share: nodes on the provider, of the nodes that aren't allowed elsewhere. 1.0 for a graph
            without nodes (everything folded away); 0.0 when the provider owns no node and another
            one does.
    """

    requested: str
    nodes: dict[str, int]
    off_provider_ops: dict[str, int]
    share: float


def placement(session: ort.InferenceSession, provider: Provider) -> Placement:
    """Read a session's placement.

    Raises:
        ProviderError: the session keeps no record.
    """
    return judge(assignments(session, provider), provider)


def assignments(
    session: ort.InferenceSession, provider: Provider
) -> Counter[tuple[str, str]]:
    """Count a session's nodes by (ONNX Runtime provider name, op type).

    Outside the standard domain the op type is ``domain:op``.

    Raises:
        ProviderError: the session keeps no record.
    """
    try:
        subgraphs = session.get_provider_graph_assignment_info()
    except Exception as error:  # ONNX Runtime's errors have no common class below Exception
        raise ProviderError(
            f"the placement on provider '{provider.name}' can't be proven: this session keeps no "
            f"record of it ({error})"
        ) from error
    assigned: Counter[tuple[str, str]] = Counter()
    for subgraph in subgraphs:
        for node in subgraph.get_nodes():
            standard = node.domain in STANDARD_DOMAINS
            assigned[
                subgraph.ep_name,
                node.op_type if standard else f"{node.domain}:{node.op_type}",
            ] += 1
    return assigned


def keeps_record(session: ort.InferenceSession) -> bool:
    """Return whether this release of ONNX Runtime records where nodes went (1.24 or newer)."""
    return hasattr(session, "get_provider_graph_assignment_info")


def judge(
    assigned: Counter[tuple[str, str]],
    provider: Provider,
    sizes: Counter[tuple[str, str]] | None = None,
) -> Placement:
    """Tell a placement from counts of (ONNX Runtime provider name, op type).

    Args:
        assigned: the record's.
        provider: the one asked for.
        sizes: of those, how many were found to compute nothing but shapes (see
            :mod:`onnx_harness.providers.profile`).
    """
    nodes: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    for (owner, op), count in assigned.items():
        nodes[owner] += count
        on_cpu = owner == _CPU
        # What the CPU may have, no other provider may: a shape on a third device is of no use to
        # anybody.
        allowed = on_cpu and op in provider.cpu_ops
        if owner == provider.ort_name or allowed:
            continue
        small = 0
        if sizes and on_cpu and op in SIZE_ARITHMETIC:
            small = sizes[owner, op]
        elsewhere[op] += max(0, count - small)
    own = nodes[provider.ort_name]
    if own == 0 and nodes.total() > 0:
        # Listed first and idle. That what runs elsewhere would be allowed there is no excuse.
        elsewhere = Counter()
        for (_, op), count in assigned.items():
            elsewhere[op] += count
    elsewhere += Counter()  # drops those of which none is left
    judged = own + elsewhere.total()
    return Placement(
        requested=provider.ort_name,
        nodes={name: count for name, count in sorted(nodes.items()) if count},
        off_provider_ops=dict(elsewhere.most_common()),
        share=own / judged if judged else 1.0,
    )


def shortfall(
    placed: Placement, provider: Provider, min_share: float | None = None
) -> str | None:
    """Say in one sentence why a placement isn't what was promised; None when it is.

    Args:
        placed: from the session's record.
        provider: the one asked for.
        min_share: the share it must own, in [0, 1]; None takes the provider's own.
    """
    required = provider.min_share if min_share is None else min_share
    if placed.share >= required:
        return None
    ops = [f"{op} x{count}" for op, count in placed.off_provider_ops.items()]
    listed = ", ".join(ops[:_MOST_LISTED])
    if len(ops) > _MOST_LISTED:
        listed += f" and {len(ops) - _MOST_LISTED} more op types"
    owners = ", ".join(f"{name} {count}" for name, count in placed.nodes.items())
    own = placed.nodes.get(placed.requested, 0)
    total = own + sum(placed.off_provider_ops.values())
    return (
        f"{placed.requested} owns {own} of {total} nodes ({placed.share:.0%}, at least "
        f"{required:.0%} is required); elsewhere: {listed} (nodes by provider: {owners})"
    )
