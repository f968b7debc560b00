"""The profile of a run, ONNX Runtime's own: the record of assignments is compared with it.

The record is taken before ONNX Runtime fuses nodes and inserts Casts and copies between memories.
Those show here alone, and so does the arithmetic that a kernel really did.
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

# Operators that move values or choose among them. A CPU does that in float16 too, which says
# nothing about arithmetic.
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

# Of `precision`: some float16 arithmetic was done in float32, where nothing overflows that would in
# float16.
EMULATED = frozenset({"emulated", "mixed"})

_FLOATS = {
    "float": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "double": "float64",
}

_SIZE_TYPES = frozenset(
    {
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
    }
)
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
        nodes: nodes that ran, by (ONNX Runtime provider name, op type), copies and inserted Casts
            left out.
        microseconds: by provider, as the host saw it: a device's kernel that nobody waited for
            counts with its launch, and what waits for it with its duration. The bodies of If, Loop
            and Scan count once.
        copies: nodes that copy between a device's memory and the host's.
        inserted_casts: Casts that no model asked for: they surround kernels that lack the type
            asked for.
        arithmetic: nodes that compute floats, by the type that they compute in; those that a
            provider compiled left out, since nobody tells what it made of them.
        compiled: nodes that stand for what the provider compiled.
        sizes: nodes that take and give a few integers or booleans each, as arithmetic on shapes
            does, by (ONNX Runtime provider name, op type).
    """

    nodes: Counter[tuple[str, str]] = field(default_factory=Counter)
    microseconds: Counter[str] = field(default_factory=Counter)
    copies: int = 0
    inserted_casts: int = 0
    arithmetic: Counter[str] = field(default_factory=Counter)
    compiled: int = 0
    sizes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def executed(self) -> dict[str, int]:
        """Count the nodes that ran, by provider."""
        counts: Counter[str] = Counter()
        for (provider, _), count in self.nodes.items():
            counts[provider] += count
        return dict(sorted(counts.items()))

    def time_share(self, provider: Provider) -> float | None:
        """Return the share of the time in kernels spent on ``provider``, in [0, 1].

        None where no kernel took any time.
        """
        total = self.microseconds.total()
        if not total:
            return None
        return self.microseconds[provider.ort_name] / total


def read_profile(file: Path, provider: Provider) -> Profile:
    """Read the last run in a profile.

    Raises:
        ProviderError: it can't be read, or isn't a profile that holds a run.
    """
    try:
        return _last_run(file, provider)
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"ONNX Runtime's profile can't be read ({type(error).__name__}: {error})"
        raise ProviderError(
            f"where the nodes ran on provider '{provider.name}' can't be told: {what}"
        ) from error


def _last_run(file: Path, provider: Provider) -> Profile:
    last = None
    run = _Run()
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:  # one event, and of a Loop's events there may be a million
            if run.events > _MOST_EVENTS and _RUN_ENDS not in line:
                continue
            event = parse_event(line)
            run.events += 1
            category = event.get("cat")
            if category == "Node" and event["name"].endswith(_KERNEL):
                run.add(event, provider)
            elif category == "Session" and event["name"] == _RUN_ENDS:
                last, run = run.profile, _Run()
    if last is None:
        raise ValueError("it holds no run")
    return last


def precision(profile: Profile, provider: Provider, *, wants_half: bool) -> str | None:
    """Return the precision in which float arithmetic was really done.

    Args:
        profile: of the cell's session.
        provider: the one asked for.
        wants_half: whether the model asks for arithmetic in float16.

    Returns:
        ``float16``; ``emulated``, where a model's float16 arithmetic ran in float32, rounded by
        Casts at best; ``mixed``, where some of it did; where the model asks for none, the type that
        most nodes computed in (``float32``, ``float64``, ``bfloat16``). None where no float was
        computed.
    """
    if not wants_half:
        return _most_common_precision(profile)
    half, total = profile.arithmetic["float16"], profile.arithmetic.total()
    total += profile.compiled
    if provider.native_fp16:
        half += profile.compiled
    if not total:
        return None
    if half == 0:
        return "emulated"
    # The model may ask for float32 in some nodes; it doesn't ask for inserted Casts.
    is_mixed = half < total and profile.inserted_casts > 0
    return "mixed" if is_mixed else "float16"


def _most_common_precision(profile: Profile) -> str | None:
    if profile.compiled:
        return "float32"
    for type_name, _ in profile.arithmetic.most_common(1):
        return type_name
    return None


def parse_event(line: str) -> dict[str, Any]:
    """Parse a line of a profile; the result is empty for the list's brackets."""
    text = line.strip().rstrip(",")
    if text in ("[", "]", "[]", ""):
        return {}
    event: dict[str, Any] = json.loads(text)
    return event


@dataclass(slots=True)
class _Run:
    """A run that is being read.

    Attributes:
        profile: what has been read of it.
        seen: its nodes so far, by event name, index and op type.
        events: the number of its events so far.
    """

    profile: Profile = field(default_factory=Profile)
    seen: set[tuple[str, str, str]] = field(default_factory=set)
    events: int = 0

    def add(self, event: Mapping[str, Any], provider: Provider) -> None:
        """Add the event of a kernel."""
        details = event["args"]
        owner, op = details["provider"], details["op_name"]
        if op not in _BODIES:
            self.profile.microseconds[owner] += int(event["dur"])
        identity = (event["name"], str(details.get("node_index", "")), op)
        if identity not in self.seen:
            self.seen.add(identity)
            _add_node(self.profile, event, provider)


def _add_node(profile: Profile, event: Mapping[str, Any], provider: Provider) -> None:
    details = event["args"]
    owner, op = details["provider"], details["op_name"]
    if op in COPIES:
        profile.copies += 1
        return
    if op == "Cast" and event["name"].startswith(_INSERTED_CAST):
        profile.inserted_casts += 1
        return
    profile.nodes[owner, op] += 1
    profile.sizes[owner, op] += _handles_sizes(details)
    type_name = _computes_in(op, details)
    if provider.compiles and owner == provider.ort_name:
        profile.compiled += 1
    elif type_name is not None:
        profile.arithmetic[type_name] += 1


def _handles_sizes(details: Mapping[str, Any]) -> bool:
    """Tell if a node has outputs, and all its inputs and outputs are a few integers or booleans."""
    outputs, inputs = (
        details.get("output_type_shape", ()),
        details.get("input_type_shape", ()),
    )
    if not outputs:
        return False
    return all(_is_small(tensor) for tensor in (*outputs, *inputs))


def _is_small(tensor: Mapping[str, Any]) -> bool:
    for type_name, shape in tensor.items():
        if not (type_name in _SIZE_TYPES and math.prod(shape) <= _MOST_SIZES):
            return False
    return True


def _computes_in(op: str, details: Mapping[str, Any]) -> str | None:
    """Return the float type of a node's outputs, else of its inputs (ArgMax); None without one."""
    if op in COMPUTES_NOTHING:
        return None
    for side in ("output_type_shape", "input_type_shape"):
        for tensor in details.get(side, ()):
            for type_name in tensor:
                if type_name in _FLOATS:
                    return _FLOATS[type_name]
    return None
