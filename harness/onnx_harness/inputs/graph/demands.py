"""Find what the operators that an input reaches demand of its values.

Demands are exact bounds, choices, masks, lengths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_harness.inputs.graph.attributes import attribute, label
from onnx_harness.inputs.graph.demand import Demand, Kind
from onnx_harness.inputs.graph.scopes import KnownDims, Scope
from onnx_harness.inputs.graph.tables import is_open, keys_of, ngrams_of
from onnx_harness.inputs.graph.texts import texts_of
from onnx_harness.model.ops import is_standard

# op type -> input slot -> what it is, for arguments that become shapes, axes or counts.
_SHAPE_SLOTS: dict[str, dict[int, str]] = {
    "Reshape": {1: "shape"},
    "Expand": {1: "shape"},
    "Tile": {1: "repeats"},
    "ConstantOfShape": {0: "shape"},
    "Range": {0: "start", 1: "limit", 2: "delta"},
    "Slice": {1: "starts", 2: "ends", 3: "axes", 4: "steps"},
    "Pad": {1: "pads", 3: "axes"},
    "Resize": {2: "scales", 3: "sizes"},
    "Upsample": {1: "scales"},
    "TopK": {1: "k"},
    "Split": {1: "split"},
    "Trilu": {1: "k"},
    "CumSum": {1: "axis"},
    "OneHot": {1: "depth"},
    "Squeeze": {1: "axes"},
    "Unsqueeze": {1: "axes"},
    "CenterCropPad": {1: "shape"},
    "AffineGrid": {1: "size"},
    "Loop": {0: "trip count"},
    "NonMaxSuppression": {2: "count"},
    "STFT": {1: "frame step", 3: "frame length"},
    "HannWindow": {0: "size"},
    "HammingWindow": {0: "size"},
    "BlackmanWindow": {0: "size"},
    "SequenceAt": {1: "position"},
    "SequenceInsert": {2: "position"},
    "SequenceErase": {1: "position"},
    "Bernoulli": {},
    **{
        f"Reduce{kind}": {1: "axes"}
        for kind in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare")
    },
}
# Where a real function is defined, for inputs that reach it untouched; ends where it is infinite
# are kept off.
_DOMAINS: dict[str, tuple[float | None, float | None]] = {
    "Log": (1e-3, None),
    "Sqrt": (0.0, None),
    "Acos": (-1.0, 1.0),
    "Asin": (-1.0, 1.0),
    "Atanh": (-0.99, 0.99),
    "Acosh": (1.0, None),
}
_ORDERS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual")
IS_DEFINED = "is defined there"
"""In the reason of a bound that a function's domain is: a model runs beyond it, and gives NaN."""

BECOMES_TRUTH = "it becomes a truth value"
"""The beginning of the reason of a mask that is cast to truth values."""

_RNNS = frozenset({"LSTM", "GRU", "RNN"})


def demands_of(
    scope: Scope, node: onnx.NodeProto, slot: int, *, integers: bool, scalar: bool
) -> Iterator[Demand]:
    """Return what ``node`` demands of the value in ``slot``.

    Args:
        scope: whose constants and shapes ``node`` sees.
        node: the consumer.
        slot: which of its inputs the value is.
        integers: whether the value is made of integers.
        scalar: whether the value has one element, and so may be a control value.
    """
    op, where = node.op_type, f"in {label(node)}"
    if (maker := _INDEXING.get(op)) is not None:
        yield from maker(scope, node, slot, where)
    elif slot in _SHAPE_SLOTS.get(op, {}):
        role = f"{op} {_SHAPE_SLOTS[op][slot]}"
        yield Demand(
            Kind.SHAPE, f"it becomes the {_SHAPE_SLOTS[op][slot]} {where}", role=role
        )
    elif op == "Equal" and (texts := _texts(scope.constant(node.input[1 - slot]))):
        why = f"it is compared with {len(texts)} texts {where}"
        yield Demand(Kind.KEYS, why, values=texts)
    elif op == "Equal" and not scalar:
        yield from _compared(scope, node, slot, where)
    elif (
        op in _ORDERS
        and integers
        and (steps := scope.counted(node.input[1 - slot])) is not None
    ):
        yield from _length(steps, where)
    elif op in _ORDERS and scalar:
        yield from _threshold(scope, node, slot, where)
    elif op == "IsNaN":
        yield Demand(Kind.MISSING, f"it is asked for NaN {where}")
    elif op in ("Div", "Mod") and slot == 1 and integers:
        yield Demand(Kind.NONZERO, f"integers are divided by it {where}")
    elif op in _RNNS and slot == 4:
        length = _axis(scope.shape(node.input[0]), 0)
        yield from _length(length, where)
    elif op in _DOMAINS and slot == 0 and not integers:
        low, high = _DOMAINS[op]
        yield Demand(Kind.BOUND, f"{op} {IS_DEFINED} ({where})", low=low, high=high)
    else:
        yield from _looked_up(node, slot, where)


def _looked_up(node: onnx.NodeProto, slot: int, where: str) -> Iterator[Demand]:
    """Keys, words and texts that a node tells apart."""
    if keys := keys_of(node):
        why = f"it is looked up among {len(keys)} keys {where}"
        yield Demand(Kind.KEYS, why, values=keys, is_closed=not is_open(node))
    elif slot == 0 and (texts := texts_of(node)):
        why = f"{len(texts)} texts that it decides on are made for it {where}"
        yield Demand(Kind.KEYS, why, values=texts)
    elif ngrams := ngrams_of(node):
        words = tuple(dict.fromkeys(word for ngram in ngrams for word in ngram))
        why = f"it is looked up in a vocabulary of {len(words)} words {where}"
        yield Demand(Kind.KEYS, why, values=words)


def _threshold(
    scope: Scope, node: onnx.NodeProto, slot: int, where: str
) -> Iterator[Demand]:
    """A single value that others are compared with, unless that is another single one."""
    # "x < s" bounds x from above by s, and so does "s > x".
    ceiling = node.op_type.startswith("Less") == (slot == 1)
    second = scope.constant(node.input[1 - slot])
    if second is not None and second.size == 1:
        return
    kind, word = (Kind.UPPER, "ceiling") if ceiling else (Kind.LOWER, "floor")
    # A table of numbers tells the scale that the threshold is on.
    ends: tuple[float, ...] = ()
    if second is not None and second.size:
        ends = (float(second.min()), float(second.max()))
    yield Demand(kind, f"other values are compared with it as a {word} {where}", values=ends)


def _texts(constant: NDArray[np.generic] | None) -> tuple[str, ...]:
    """The texts that a constant holds; empty for numbers."""
    if constant is None or constant.dtype.kind not in "OSU":
        return ()
    flat = constant.reshape(-1).tolist()
    return tuple(
        text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        for text in flat
    )


def _axis(dims: KnownDims | None, axis: int) -> int | str | None:
    if dims is None or not -len(dims) <= axis < len(dims):
        return None
    return dims[axis]


def _indexes(size: int | str | None, what: str, where: str) -> Demand:
    if isinstance(size, int) and size > 0:
        return Demand(
            Kind.BOUND,
            f"it indexes the {size} entries of {what} {where}",
            low=0,
            high=size - 1,
        )
    if isinstance(size, str):
        return Demand(
            Kind.BOUND, f"it indexes dimension {size} of {what} {where}", low=0, dim=size
        )
    return Demand(Kind.LOOSE, f"it indexes {what}, whose size isn't known, {where}")


def _gather(scope: Scope, node: onnx.NodeProto, slot: int, where: str) -> Iterator[Demand]:
    if slot != 1:
        return
    data = node.input[0]
    # GatherBlockQuantized has the axis under another name.
    rank_free = 1 if "Block" in node.op_type else 0
    axis = int(attribute(node, "gather_axis" if rank_free else "axis", 0))
    yield _indexes(_axis(scope.shape(data), axis), f"axis {axis} of '{data}'", where)


def _gather_nd(
    scope: Scope, node: onnx.NodeProto, slot: int, where: str
) -> Iterator[Demand]:
    if slot != 1:
        return
    data = scope.shape(node.input[0])
    batch = int(attribute(node, "batch_dims", 0))
    depth = _axis(scope.shape(node.input[1]), -1)
    if data is None or not isinstance(depth, int):
        yield _indexes(None, f"'{node.input[0]}'", where)
        return
    # One range has to do for all columns: that of the shortest axis that is indexed.
    sizes = data[batch : batch + depth]
    fixed = [size for size in sizes if isinstance(size, int)]
    named = [size for size in sizes if isinstance(size, str)]
    size: int | str | None = named[0] if len(sizes) == 1 and named else None
    if fixed and len(fixed) == len(sizes):
        size = min(fixed)
    yield _indexes(size, f"'{node.input[0]}'", where)


def _rotary(scope: Scope, node: onnx.NodeProto, slot: int, where: str) -> Iterator[Demand]:
    positions, table = (3, 1) if is_standard(node) else (1, 2)
    if slot == positions:
        name = node.input[table]
        yield _indexes(_axis(scope.shape(name), 0), f"axis 0 of '{name}'", where)


# Of ONNX Runtime's attentions: the input that says what is attended to.
_MASK_SLOTS = {"Attention": 3, "QAttention": 5, "MultiHeadAttention": 4}
# nonpad_kv_seqlen of the standard Attention, since opset 24.
_KEYS_THAT_COUNT = 6


def _attention(
    scope: Scope, node: onnx.NodeProto, slot: int, where: str
) -> Iterator[Demand]:
    if is_standard(node):
        if slot == _KEYS_THAT_COUNT:
            yield from _length(_axis(scope.shape(node.input[1]), -2), where)
        return
    if slot != _MASK_SLOTS[node.op_type]:
        return
    dims = scope.shape(node.input[slot])
    if dims is not None and len(dims) == 1:
        yield from _length(_axis(scope.shape(node.input[0]), 1), where)
    else:
        yield Demand(Kind.MASK, f"it is the mask {where}")


def _tensor_scatter(
    scope: Scope, node: onnx.NodeProto, slot: int, where: str
) -> Iterator[Demand]:
    """Where a step is written into a cache of fixed size: what is written has to fit behind it."""
    if slot != 2:
        return
    axis = int(attribute(node, "axis", -2))
    size = _axis(scope.shape(node.input[0]), axis)
    written = _axis(scope.shape(node.input[1]), axis)
    if not isinstance(size, int):
        yield _indexes(size, f"axis {axis} of '{node.input[0]}'", where)
        return
    # Where the length is free, sets take at most half of the cache.
    length = written if isinstance(written, int) else size // 2
    why = f"steps are written from there on into the {size} of '{node.input[0]}' {where}"
    yield Demand(Kind.BOUND, why, low=0, high=size - length)


def _roi_align(
    scope: Scope, node: onnx.NodeProto, slot: int, where: str
) -> Iterator[Demand]:
    data = scope.shape(node.input[0])
    if slot == 2:
        yield _indexes(_axis(data, 0), f"the pictures of '{node.input[0]}'", where)
    elif slot == 1 and data is not None:
        # From one side alone where the other isn't known: the boxes have to lie within the picture.
        scale = float(attribute(node, "spatial_scale", 1.0))
        fixed = [side for side in data[2:] if isinstance(side, int)]
        named = [side for side in data[2:] if isinstance(side, str)]
        high = int(min(fixed) / scale) - 1 if fixed and scale else None
        why = f"it holds the corners of boxes {where}"
        yield Demand(
            Kind.BOXES, why, low=0, high=high, dim=named[0] if named and scale == 1 else None
        )


def _suppression(
    scope: Scope,  # noqa: ARG001
    node: onnx.NodeProto,
    slot: int,
    where: str,
) -> Iterator[Demand]:
    if slot == 0 and not attribute(node, "center_point_box", 0):
        yield Demand(Kind.BOXES, f"it holds the corners of boxes {where}", low=0, high=1)


def _one_hot(scope: Scope, node: onnx.NodeProto, slot: int, where: str) -> Iterator[Demand]:
    if slot == 0:
        depth = scope.constant(node.input[1])
        size = int(depth.reshape(-1)[0]) if depth is not None and depth.size == 1 else None
        yield _indexes(size, "the classes", where)
    elif slot == 1:
        yield Demand(Kind.SHAPE, f"it becomes the depth {where}", role="OneHot depth")


def _loss(scope: Scope, node: onnx.NodeProto, slot: int, where: str) -> Iterator[Demand]:
    if slot == 1:
        yield _indexes(_axis(scope.shape(node.input[0]), 1), "the classes", where)


def _embed_layer_norm(
    scope: Scope, node: onnx.NodeProto, slot: int, where: str
) -> Iterator[Demand]:
    table = {0: 2, 1: 4, 8: 3}.get(slot)
    if table is not None and table < len(node.input):
        yield _indexes(
            _axis(scope.shape(node.input[table]), 0), f"'{node.input[table]}'", where
        )
    elif slot == 7:
        yield Demand(Kind.MASK, f"it is the mask {where}")


def _reverse_sequence(
    scope: Scope, node: onnx.NodeProto, slot: int, where: str
) -> Iterator[Demand]:
    if slot == 1:
        yield from _length(
            _axis(scope.shape(node.input[0]), int(attribute(node, "time_axis", 0))), where
        )


def _length(size: int | str | None, where: str) -> Iterator[Demand]:
    if isinstance(size, int):
        yield Demand(
            Kind.LENGTH, f"it counts steps, of which there are {size}, {where}", high=size
        )
    else:
        yield Demand(
            Kind.LENGTH, f"it counts steps of dimension {size or '?'} {where}", dim=size
        )


def _compared(scope: Scope, node: onnx.NodeProto, slot: int, where: str) -> Iterator[Demand]:
    """Many values held against a table.

    Single numbers are a matter of :mod:`onnx_harness.inputs.graph.controls`.
    """
    counterpart = node.input[1 - slot]
    constant, dims = scope.constant(counterpart), scope.shape(counterpart)
    if (
        constant is not None
        and constant.size > 1
        and np.issubdtype(constant.dtype, np.integer)
    ):
        low, high = int(constant.min()), int(constant.max())
        yield Demand(
            Kind.BOUND,
            f"it is compared with the {constant.size} values {low}..{high} {where}",
            low,
            high,
        )
    elif constant is None and scope.is_constant(counterpart) and dims is not None:
        # The values were stripped. A vector that ids are compared with is how a one-hot encoding is
        # spelled: 0..n-1.
        count = math.prod(size for size in dims if isinstance(size, int))
        if count > 1:
            yield Demand(
                Kind.BOUND,
                f"it is compared with {count} constants, as in a one-hot {where}",
                0,
                count - 1,
            )


_Maker = Callable[[Scope, onnx.NodeProto, int, str], Iterator[Demand]]
_INDEXING: dict[str, _Maker] = {
    "Gather": _gather,
    "GatherElements": _gather,
    "ScatterElements": _gather,
    "Scatter": _gather,
    "GatherBlockQuantized": _gather,
    "GatherND": _gather_nd,
    "ScatterND": _gather_nd,
    "OneHot": _one_hot,
    **dict.fromkeys(_MASK_SLOTS, _attention),
    "RoiAlign": _roi_align,
    "RotaryEmbedding": _rotary,
    "NonMaxSuppression": _suppression,
    "SoftmaxCrossEntropyLoss": _loss,
    "NegativeLogLikelihoodLoss": _loss,
    "EmbedLayerNormalization": _embed_layer_norm,
    "ReverseSequence": _reverse_sequence,
    "TensorScatter": _tensor_scatter,
}
