"""What ran where, from ONNX Runtime's profile of a run: the witness that the record of assignments is held against.

The record is taken before ONNX Runtime fuses nodes and inserts Casts and copies between memories. Those show here
alone, and so does the arithmetic that a kernel really did.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_harness.errors import ProviderError
from onnx_harness.model.ops import MOVES
from onnx_harness.providers import Provider

COPIES = frozenset({"MemcpyFromHost", "MemcpyToHost"})

# Their time is that of the nodes inside them, which have events of their own.
_BODIES = frozenset({"If", "Loop", "Scan"})

# Operators that move values or choose among them. A CPU does that in float16 too, which says nothing about arithmetic.
COMPUTES_NOTHING = (
    MOVES
    | COPIES
    | _BODIES
    | frozenset(
        {
            "Cast",
            "CastLike",
            "Compress",
            "ConcatFromSequence",
            "Constant",
            "ConstantOfShape",
            "OneHot",
            "Pad",
            "ReorderInput",
            "ReorderOutput",
            "ReverseSequence",
            "ScatterElements",
            "ScatterND",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceInsert",
            "Shape",
            "Size",
            "SplitToSequence",
            "Where",
        }
    )
)

# Of `precision`: some float16 arithmetic was done in float32, where nothing overflows that would in float16.
EMULATED = frozenset({"emulated", "mixed"})

_FLOATS = {"float": "float32", "float16": "float16", "bfloat16": "bfloat16", "double": "float64"}

_WHOLE = frozenset({"bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))})
# A shape has as many as the tensor has dimensions, and an operator's pads or steps twice as many.
_MOST_SIZES = 64

# onnxruntime/core/optimizer/insert_cast_transformer.cc
_INSERTED_CAST = "InsertedPrecisionFreeCast_"
_KERNEL = "_kernel_time"
_RUN_ENDS = "model_run"

# Of one run: what a loop does in its thousandth round, it did before.
_MOST_EVENTS = 50_000


@dataclass(slots=True)
class Profile:
    """One run, node by node. A node that ran several times, in a Loop, is one node.

    Attributes:
        nodes: nodes that ran, by (ONNX Runtime provider name, op type), copies and inserted Casts left out.
        microseconds: by provider, as the host saw it: a device's kernel that nobody waited for counts with its
            launch, and what waits for it with its duration. The bodies of If, Loop and Scan count once.
        copies: nodes that copy between a device's memory and the host's.
        inserted_casts: Casts that no model asked for: they surround kernels that lack the type asked for.
        arithmetic: nodes that compute floats, by the type that they compute in; those that a provider compiled
            left out, since nobody tells what it made of them.
        compiled: nodes that stand for what the provider compiled.
        sizes: nodes that take and give a few integers or booleans each, as arithmetic on shapes does, by (ONNX Runtime
            provider name, op type).
    """

    nodes: Counter[tuple[str, str]] = field(default_factory=Counter)
    microseconds: Counter[str] = field(default_factory=Counter)
    copies: int = 0
    inserted_casts: int = 0
    arithmetic: Counter[str] = field(default_factory=Counter)
    compiled: int = 0
    sizes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def executed(self) -> dict[str, int]:
        """Nodes that ran, by provider."""
        found: Counter[str] = Counter()
        for (provider, _), count in self.nodes.items():
            found[provider] += count
        return dict(sorted(found.items()))

    def time_share(self, provider: Provider) -> float | None:
        """Of the time in kernels, the share spent on ``provider``, in [0, 1]; None where nothing took any."""
        whole = self.microseconds.total()
        return self.microseconds[provider.ort_name] / whole if whole else None


def read_profile(file: Path, provider: Provider) -> Profile:
    """The last run in a profile.

    Raises:
        ProviderError: it can't be read, or isn't a profile that holds a run.
    """
    try:
        return _last_run(file, provider)
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"ONNX Runtime's profile can't be read ({type(error).__name__}: {error})"
        raise ProviderError(f"where the nodes ran on provider '{provider.name}' can't be told: {what}") from error


def _last_run(file: Path, provider: Provider) -> Profile:
    last, profile, seen, read = None, Profile(), set[tuple[str, str, str]](), 0
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:  # an event each, and of a Loop's events there may be a million
            if read > _MOST_EVENTS and _RUN_ENDS not in line:
                continue
            event = _event(line)
            read += 1
            if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
                _add(profile, event, seen, provider)
            elif event.get("cat") == "Session" and event["name"] == _RUN_ENDS:
                last, profile, seen, read = profile, Profile(), set(), 0
    if last is None:
        raise ValueError("it holds no run")
    return last


def contradiction(recorded: Counter[tuple[str, str]], profile: Profile, provider: Provider) -> str | None:
    """How a profile contradicts ONNX Runtime's record of assignments, in one sentence; None when it doesn't.

    Fusion renames nodes and a branch not taken doesn't run, so counts differ honestly. What has no honest
    explanation: of one operator more nodes ran elsewhere than were assigned there, and fewer on the provider.
    """
    moved: Counter[str] = Counter()
    owners: set[str] = set()
    assigned: Counter[tuple[str, str]] = Counter()
    for (owner, op), count in recorded.items():
        assigned[owner, op.rpartition(":")[2]] += count  # the profile names no domain
    for (owner, op), ran in profile.nodes.items():
        if owner == provider.ort_name:
            continue
        excess = ran - assigned[owner, op]
        missing = assigned[provider.ort_name, op] - profile.nodes[provider.ort_name, op]
        if min(excess, missing) > 0:
            moved[op] += min(excess, missing)
            owners.add(owner)
    if moved:
        listed = ", ".join(f"{op} x{count}" for op, count in moved.most_common(6))
        return (
            f"the record of assignments puts {_nodes(moved.total())} on {provider.ort_name} that ran on "
            f"{' and '.join(sorted(owners))}: {listed}"
        )
    executed = profile.executed()
    promised = sum(count for (owner, _), count in recorded.items() if owner == provider.ort_name)
    if promised and executed and provider.ort_name not in executed:
        instead = ", ".join(f"{name} {count}" for name, count in executed.items())
        return (
            f"the record of assignments puts {_nodes(promised)} on {provider.ort_name}, and none ran there ({instead})"
        )
    return None


def _nodes(count: int) -> str:
    return f"{count} node{'' if count == 1 else 's'}"


def breach(
    profile: Profile, provider: Provider, *, min_time_share: float | None = None, max_copies: int | None = None
) -> str | None:
    """What of a card's demands a profile doesn't meet, in one sentence; None when it meets them.

    Args:
        profile: of the cell's session.
        provider: the one asked for.
        min_time_share: of the time in kernels, the share it must have, in [0, 1].
        max_copies: how many nodes may copy between its memory and the host's.
    """
    share = profile.time_share(provider)
    if min_time_share is not None and share is not None and share < min_time_share:
        spent = ", ".join(f"{name} {used / 1000:.3g} ms" for name, used in profile.microseconds.most_common())
        return (
            f"{provider.ort_name} has {share:.0%} of the time in kernels, and the card wants at least "
            f"{min_time_share:.0%} (time by provider: {spent})"
        )
    if max_copies is not None and profile.copies > max_copies:
        ops = [op for (owner, op), _ in profile.nodes.most_common() if owner != provider.ort_name]
        between = f"; what lies elsewhere: {', '.join(ops[:6])}" if ops else ""
        copy = f"{_nodes(profile.copies)} {'copies' if profile.copies == 1 else 'copy'}"
        return (
            f"{copy} between the memory of {provider.ort_name} and the host's (Memcpy), and the card allows "
            f"{max_copies}{between}"
        )
    return None


def precision(profile: Profile, provider: Provider, *, wants_half: bool) -> str | None:
    """The precision in which float arithmetic was really done.

    Args:
        profile: of the cell's session.
        provider: the one asked for.
        wants_half: whether the model asks for arithmetic in float16.

    Returns:
        ``float16``; ``emulated``, where a model's float16 arithmetic ran in float32, rounded by Casts at best;
        ``mixed``, where some of it did; where the model asks for none, the type that most nodes computed in
        (``float32``, ``float64``, ``bfloat16``). None where no float was computed.
    """
    half, done = profile.arithmetic["float16"], profile.arithmetic.total()
    if not wants_half:
        if profile.compiled:
            return "float32"
        return profile.arithmetic.most_common(1)[0][0] if done else None
    if profile.compiled:
        half += profile.compiled if provider.native_fp16 else 0
        done += profile.compiled
    if not done:
        return None
    if half == 0:
        return "emulated"
    # Float32 beside float16 may be what the model asks for; inserted Casts are what it doesn't.
    return "mixed" if half < done and profile.inserted_casts else "float16"


def _event(line: str) -> dict[str, Any]:
    """The event on a line of the file; an empty one where it has the list's brackets alone."""
    text = line.strip().rstrip(",")
    event: dict[str, Any] = {} if text in ("[", "]", "[]", "") else json.loads(text)
    return event


def _add(profile: Profile, event: Mapping[str, Any], seen: set[tuple[str, str, str]], provider: Provider) -> None:
    details = event["args"]
    owner, op = details["provider"], details["op_name"]
    if op not in _BODIES:
        profile.microseconds[owner] += int(event["dur"])
    identity = (event["name"], str(details.get("node_index", "")), op)
    if identity in seen:
        return
    seen.add(identity)
    if op in COPIES:
        profile.copies += 1
    elif op == "Cast" and event["name"].startswith(_INSERTED_CAST):
        profile.inserted_casts += 1
    else:
        profile.nodes[owner, op] += 1
        profile.sizes[owner, op] += _handles_sizes(details)
        kind = _computes_in(op, details)
        if provider.compiles and owner == provider.ort_name:
            profile.compiled += 1
        elif kind is not None:
            profile.arithmetic[kind] += 1


def _handles_sizes(details: Mapping[str, Any]) -> bool:
    """Whether a node gives something, and all that it takes and gives is a few integers or booleans."""
    given, taken = details.get("output_type_shape", ()), details.get("input_type_shape", ())
    return bool(given) and all(
        kind in _WHOLE and math.prod(shape) <= _MOST_SIZES
        for tensor in (*given, *taken)
        for kind, shape in tensor.items()
    )


def _computes_in(op: str, details: Mapping[str, Any]) -> str | None:
    """The float type of a node's outputs, or of its inputs where it gives none (ArgMax, Greater); None: no float."""
    if op in COMPUTES_NOTHING:
        return None
    for side in ("output_type_shape", "input_type_shape"):
        for tensor in details.get(side, ()):
            for kind in tensor:
                if kind in _FLOATS:
                    return _FLOATS[kind]
    return None
