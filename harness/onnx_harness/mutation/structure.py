"""Faults in the graph: an operator removed, an attribute wrong, operands swapped.

Shapes stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnx_harness.model.ops import is_standard
from onnx_harness.mutation.atlas import FLOATS, Array, Atlas, Site, ValueType, attributes
from onnx_harness.mutation.faults import Edit, Fault, FaultKind, Find, called

_ACTIVATIONS = frozenset({
    "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Sigmoid",
    "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Softsign", "Gelu", "Mish", "Erf", "Clip",
    "Softmax", "LogSoftmax", "Swish", "QuickGelu",
})  # fmt: skip
_PADDED = frozenset({
    "Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool",
})  # fmt: skip
# Whose outputs are of the type of their first input, and are worth clamping.
_CLAMPED = frozenset({
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Relu", "LeakyRelu",
    "BatchNormalization", "Sub", "Div", "LayerNormalization", "Concat", "MaxPool", "AveragePool",
    "LSTM", "Pow", "Sqrt", "Exp",
})  # fmt: skip
_CLAMP = 100.0
_TO_THE_END = np.iinfo(np.int32).max  # what exporters write for it, or more
# Versions of the standard operators.
_CLIP_SINCE = 6
_CLIP_TAKES_BOUNDS_SINCE = 11
_RESIZE_MODES_SINCE = 11
_SOFTMAX_OF_ONE_AXIS_SINCE = 13
_POOLS = {
    "MaxPool": "AveragePool",
    "AveragePool": "MaxPool",
    "GlobalMaxPool": "GlobalAveragePool",
    "GlobalAveragePool": "GlobalMaxPool",
}
_POOL_ATTRIBUTES = ("auto_pad", "ceil_mode", "kernel_shape", "pads", "strides")
# By op type: two inputs whose order matters and whose types are the same.
_OPERANDS = {"Sub": (0, 1), "Div": (0, 1), "Where": (1, 2)}
_SAME_PADDING = (b"SAME_UPPER", b"SAME_LOWER")
_IN_AN_ATTRIBUTE = -1


@dataclass(frozen=True, slots=True)
class _Place:
    """A node, with all that a kind of fault needs to tell if it can be planted there."""

    atlas: Atlas
    site: Site
    node: onnx.NodeProto
    rng: np.random.Generator

    def fault(
        self, kind: str, text: str, slot: int = 0, index: tuple[int, ...] = ()
    ) -> Fault:
        """Make a fault of ``kind`` here; its text is ``text`` with the node's name for ``{}``."""
        return Fault(kind, self.site, text.format(called(self.node)), slot, index)

    def type_of(self, name: str) -> ValueType:
        """Return the type of a value, as far as it's known."""
        return self.atlas.value_type(self.site, name) or ValueType(0, None)

    def gives_floats(self) -> bool:
        """True where the node's output is known to be floating-point."""
        output = next(iter(self.node.output), "")
        return bool(output) and self.type_of(output).dtype in FLOATS

    def constant(self, slot: int) -> Array | None:
        """Return the values of a constant that the node reads, flat."""
        tensor = self.atlas.constant(self.site, slot)
        return None if tensor is None else self.atlas.array(tensor).reshape(-1)

    def drawn(self, candidates: Sequence[Any]) -> Any:
        """Draw one of the candidates."""
        return candidates[int(self.rng.integers(len(candidates)))]


def _each(look: Callable[[_Place], Fault | None]) -> Find:
    """Make a finder that looks at every node of the standard domain once, in random order."""

    def find(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
        for position in rng.permutation(len(atlas.nodes)):
            site, node = atlas.nodes[position]
            if is_standard(node) or node.op_type in _ACTIVATIONS:
                fault = look(_Place(atlas, site, node, rng))
                if fault is not None:
                    yield fault

    return find


def _activation(here: _Place) -> Fault | None:
    if here.node.op_type not in _ACTIVATIONS:
        return None
    return here.fault("removed activation", "{} removed")


def _remove(edit: Edit) -> None:
    edit.become("Identity")


def _pad(here: _Place) -> Fault | None:
    kind, text = "pad by one", "padding of {} off by one"
    values = attributes(here.node)
    slot = _IN_AN_ATTRIBUTE
    pads = list(values.get("pads", ()))
    if here.node.op_type in _PADDED:
        if values.get("auto_pad", b"NOTSET") in _SAME_PADDING:
            return here.fault(kind, text, slot)
    elif here.node.op_type == "Pad" and here.gives_floats():
        constant = here.constant(1)
        if constant is not None:
            slot, pads = 1, constant.tolist()
    else:
        return None
    moves = _pad_moves(pads)
    return here.fault(kind, text, slot, here.drawn(moves)) if moves else None


def _pad_moves(pads: list[int]) -> list[tuple[int, int]]:
    """List (from, to) in ``pads``: two ends of an axis, where one of padding can be moved over."""
    axes = len(pads) // 2
    moves = []
    for axis in range(axes):
        start, end = axis, axes + axis
        if pads[start] > 0:
            moves.append((start, end))
        if pads[end] > 0:
            moves.append((end, start))
    return moves


def _move_pad(edit: Edit) -> None:
    if not edit.fault.index:
        upper = edit.attribute("auto_pad") == b"SAME_UPPER"
        edit.set_attribute("auto_pad", "SAME_LOWER" if upper else "SAME_UPPER")
        return
    start, end = edit.fault.index
    in_attribute = edit.fault.slot == _IN_AN_ATTRIBUTE
    pads = list(edit.attribute("pads")) if in_attribute else edit.array()
    pads[start] -= 1
    pads[end] += 1
    if in_attribute:
        edit.set_attribute("pads", pads)
    else:
        edit.replace(np.asarray(pads))


def _clamp(here: _Place) -> Fault | None:
    if here.node.op_type not in _CLAMPED or here.atlas.opset < _CLIP_SINCE:
        return None
    if not here.gives_floats():
        return None
    dtype = here.type_of(here.node.output[0]).dtype
    return here.fault("clamp at 1e2", "{} clamped at 100", index=(dtype,))


def _insert_clamp(edit: Edit) -> None:
    node, name = edit.node, edit.node.output[0]
    node.output[0] = f"{name}.before_clamp"
    inputs: list[str] = [node.output[0]]
    bounds: dict[str, Any] = {}
    if edit.atlas.opset >= _CLIP_TAKES_BOUNDS_SINCE:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(edit.fault.index[0])
        for bound in (-_CLAMP, _CLAMP):
            inputs.append(edit.new_constant(np.array(bound, dtype), f"{name}.{bound:g}"))
    else:
        bounds = {"min": -_CLAMP, "max": _CLAMP}
    clip = onnx.helper.make_node("Clip", inputs, [name], name=f"{name}.clamp", **bounds)
    edit.graph.node.insert(edit.fault.site.node + 1, clip)


def _concat(here: _Place) -> Fault | None:
    if here.node.op_type != "Concat" or not here.gives_floats():
        return None
    names = here.node.input
    pairs = [first for first in range(len(names) - 1) if names[first] != names[first + 1]]
    if not pairs:
        return None
    first = here.drawn(pairs)
    text = f"inputs {first} and {first + 1} of {{}} swapped"
    return here.fault("swapped Concat inputs", text, index=(first, first + 1))


def _operands(here: _Place) -> Fault | None:
    slots = _OPERANDS.get(here.node.op_type)
    if slots is None or not here.gives_floats():
        return None
    first, second = slots
    if here.node.input[first] == here.node.input[second]:
        return None
    text = f"inputs {first} and {second} of {{}} swapped"
    return here.fault("swapped operands", text, index=slots)


def _swap_inputs(edit: Edit) -> None:
    first, second = edit.fault.index
    names = edit.node.input
    names[first], names[second] = names[second], names[first]


def _axis(here: _Place) -> Fault | None:
    if not here.gives_floats():
        return None
    dims = here.type_of(here.node.output[0]).dims
    if here.node.op_type in ("Softmax", "LogSoftmax"):
        return _softmax_axis(here, dims)
    if here.node.op_type == "Transpose" and dims is not None:
        equal = _equal_axes(dims)
        if equal:
            first, second = here.drawn(equal)
            text = f"axes {first} and {second} of {{}} swapped"
            return here.fault("wrong axis", text, index=(first, second, len(dims)))
    return None


def _softmax_axis(here: _Place, dims: tuple[int | None, ...] | None) -> Fault | None:
    if here.atlas.opset < _SOFTMAX_OF_ONE_AXIS_SINCE:
        return None
    axis = attributes(here.node).get("axis", -1)
    if dims is None:
        wrong_axes = [-2] if axis == -1 else []
    else:
        wrong_axes = [number for number, dim in enumerate(dims) if dim != 1]
        wrong_axes = [number for number in wrong_axes if number != axis % len(dims)]
    if not wrong_axes:
        return None
    wrong_axis = wrong_axes[-1]
    return here.fault("wrong axis", f"axis of {{}} is {wrong_axis}", index=(wrong_axis,))


def _equal_axes(dims: tuple[int | None, ...]) -> list[tuple[int, int]]:
    """List the pairs of axes of the same static size above 1."""
    pairs = []
    for second, dim in enumerate(dims):
        if dim not in (None, 1):
            equal_pairs = []
            for first in range(second):
                if dims[first] == dim:
                    equal_pairs.append((first, second))
            pairs += equal_pairs
    return pairs


def _change_axis(edit: Edit) -> None:
    if len(edit.fault.index) == 1:
        edit.set_attribute("axis", edit.fault.index[0])
        return
    first, second, rank = edit.fault.index
    perm = list(edit.attribute("perm", range(rank)[::-1]))
    perm[first], perm[second] = perm[second], perm[first]
    edit.set_attribute("perm", perm)


def _index(here: _Place) -> Fault | None:
    if here.node.op_type not in ("Gather", "Slice") or not here.gives_floats():
        return None
    dims = here.type_of(here.node.input[0]).dims
    if here.node.op_type == "Gather":
        return _gather_index(here, dims)
    return _slice_bounds(here, dims)


def _gather_index(here: _Place, dims: tuple[int | None, ...] | None) -> Fault | None:
    indices = here.constant(1)
    if indices is None or here.atlas.constant(here.site, 0) is not None:
        return None
    size = None if dims is None else dims[attributes(here.node).get("axis", 0)]
    return _shifted(here, 1, indices, size)


def _slice_bounds(here: _Place, dims: tuple[int | None, ...] | None) -> Fault | None:
    start, end, axes, steps = (here.constant(slot) for slot in range(1, 5))
    if start is None or end is None or start.size != 1:
        return None
    if steps is not None and steps[0] != 1:
        return None
    if (start[0] < 0) != (end[0] <= 0) or end[0] >= _TO_THE_END:
        return None  # there is no room on that side
    axis = 0 if axes is None else int(axes[0])
    size = None if dims is None else dims[axis]
    bounds = np.concatenate([start, end])
    # An end may be one more than the greatest index.
    return _shifted(here, 2, bounds, None if size is None else size + 1)


def _shifted(here: _Place, last: int, values: Array, size: int | None) -> Fault | None:
    """Make a fault that moves indexes by one towards where there's room.

    Args:
        here: the node.
        last: the last of the inputs, from 1 on, that are moved.
        values: of these inputs.
        size: one more than the greatest index can be; None: not known.
    """
    if not values.size:
        return None
    low, high = int(values.min()), int(values.max())
    if _has_room_below(low, high, size):
        step = -1
    elif _has_room_above(low, high, size):
        step = 1
    else:
        return None
    return here.fault("off by one", "{} one off", last, (step,))


def _has_room_below(low: int, high: int, size: int | None) -> bool:
    if low > 0:
        return True
    return high < 0 and size is not None and low > -size


def _has_room_above(low: int, high: int, size: int | None) -> bool:
    if high < -1:
        return True
    return low == 0 and size is not None and high + 1 < size


def _shift(edit: Edit) -> None:
    [step] = edit.fault.index
    for slot in range(1, edit.fault.slot + 1):
        array = edit.array(slot)
        edit.replace((array + step).astype(array.dtype), slot)


def _pool(here: _Place) -> Fault | None:
    if here.node.op_type not in _POOLS or len(here.node.output) != 1:
        return None
    if any(step != 1 for step in attributes(here.node).get("dilations", ())):
        return None
    return here.fault("another pooling", f"{{}} became {_POOLS[here.node.op_type]}")


def _change_pool(edit: Edit) -> None:
    edit.become(_POOLS[edit.node.op_type], _POOL_ATTRIBUTES)


def _resize(here: _Place) -> Fault | None:
    if here.node.op_type != "Resize" or here.atlas.opset < _RESIZE_MODES_SINCE:
        return None
    return here.fault("another interpolation", "{} samples elsewhere")


def _change_resize(edit: Edit) -> None:
    name = "coordinate_transformation_mode"
    asymmetric = edit.attribute(name, b"half_pixel") == b"asymmetric"
    edit.set_attribute(name, "half_pixel" if asymmetric else "asymmetric")
    if edit.attribute("mode", b"nearest") == b"nearest":
        ceil = edit.attribute("nearest_mode", b"round_prefer_floor") == b"ceil"
        edit.set_attribute("nearest_mode", "floor" if ceil else "ceil")


KINDS = (
    FaultKind("removed activation", _each(_activation), _remove),
    FaultKind("pad by one", _each(_pad), _move_pad),
    FaultKind("clamp at 1e2", _each(_clamp), _insert_clamp),
    FaultKind("swapped Concat inputs", _each(_concat), _swap_inputs),
    FaultKind("swapped operands", _each(_operands), _swap_inputs),
    FaultKind("wrong axis", _each(_axis), _change_axis),
    FaultKind("off by one", _each(_index), _shift),
    FaultKind("another pooling", _each(_pool), _change_pool),
    FaultKind("another interpolation", _each(_resize), _change_resize),
)
