"""Faults in the graph: an operator removed, an attribute wrong, operands swapped. Shapes stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnx_harness.model.ops import is_standard
from onnx_harness.mutation.atlas import FLOATS, Array, Atlas, Site, ValueType, attributes
from onnx_harness.mutation.faults import Edit, Fault, Find, Kind, called

_ACTIVATIONS = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Sigmoid", "HardSigmoid", "HardSwish",
     "Tanh", "Softplus", "Softsign", "Gelu", "Mish", "Erf", "Clip", "Softmax", "LogSoftmax", "Swish", "QuickGelu"}
)  # fmt: skip
_PADDED = frozenset({"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool"})
# Whose outputs are of the type of their first input, and are worth clamping.
_CLAMPED = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Relu", "LeakyRelu", "BatchNormalization", "Sub", "Div",
     "LayerNormalization", "Concat", "MaxPool", "AveragePool", "LSTM", "Pow", "Sqrt", "Exp"}
)  # fmt: skip
_CLAMP = 100.0
_TO_THE_END = np.iinfo(np.int32).max  # what exporters write for it, or more
# Versions of the standard operators.
_CLIP_SINCE, _CLIP_TAKES_BOUNDS_SINCE, _RESIZE_MODES_SINCE, _SOFTMAX_OF_ONE_AXIS_SINCE = 6, 11, 11, 13
_POOLS = {
    "MaxPool": "AveragePool", "AveragePool": "MaxPool",
    "GlobalMaxPool": "GlobalAveragePool", "GlobalAveragePool": "GlobalMaxPool",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Place:
    """A node, and what a kind of fault needs to tell whether it can be planted there."""

    atlas: Atlas
    site: Site
    node: onnx.NodeProto
    rng: np.random.Generator

    def fault(self, kind: str, text: str, slot: int = 0, index: tuple[int, ...] = ()) -> Fault:
        """A fault of ``kind`` here; its text is ``text`` with the node's name for ``{}``."""
        return Fault(kind, self.site, text.format(called(self.node)), slot, index)

    def type_of(self, name: str) -> ValueType:
        """What is known of the type of a value."""
        return self.atlas.value_type(self.site, name) or ValueType(0, None)

    def gives_floats(self) -> bool:
        """Whether the node's output is known to be floating-point."""
        return bool(self.node.output and self.node.output[0]) and self.type_of(self.node.output[0]).dtype in FLOATS

    def constant(self, slot: int) -> Array | None:
        """The values of a constant that the node reads, flat."""
        tensor = self.atlas.constant(self.site, slot)
        return None if tensor is None else self.atlas.array(tensor).reshape(-1)


def _each(look: Callable[[_Place], Fault | None]) -> Find:
    """A finder that looks at every node of the standard domain once, in random order."""

    def find(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
        for position in rng.permutation(len(atlas.nodes)):
            site, node = atlas.nodes[position]
            if is_standard(node) or node.op_type in _ACTIVATIONS:
                fault = look(_Place(atlas, site, node, rng))
                if fault is not None:
                    yield fault

    return find


def _activation(here: _Place) -> Fault | None:
    return here.fault("removed activation", "{} removed") if here.node.op_type in _ACTIVATIONS else None


def _remove(edit: Edit) -> None:
    edit.become("Identity")


def _pad(here: _Place) -> Fault | None:
    kind, text = "pad by one", "padding of {} off by one"
    held = attributes(here.node)
    if here.node.op_type in _PADDED:
        if held.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER"):
            return here.fault(kind, text, -1)
        ends = _paddable(list(held.get("pads", ())), here.rng)
        return None if ends is None else here.fault(kind, text, -1, ends)
    if here.node.op_type == "Pad" and here.gives_floats():
        pads = here.constant(1)
        ends = _paddable(list(held.get("pads", ())) if pads is None else pads.tolist(), here.rng)
        return None if ends is None else here.fault(kind, text, -1 if pads is None else 1, ends)
    return None


def _paddable(pads: list[int], rng: np.random.Generator) -> tuple[int, int] | None:
    """(from, to) in ``pads``: two ends of an axis, where one of padding can be moved over."""
    half = len(pads) // 2
    moves = [(a, b) for axis in range(half) for a, b in ((axis, half + axis), (half + axis, axis)) if pads[a] > 0]
    return moves[int(rng.integers(len(moves)))] if moves else None


def _move_pad(edit: Edit) -> None:
    if not edit.fault.index:
        upper = edit.attribute("auto_pad") == b"SAME_UPPER"
        edit.set_attribute("auto_pad", "SAME_LOWER" if upper else "SAME_UPPER")
        return
    start, end = edit.fault.index
    pads = list(edit.attribute("pads")) if edit.fault.slot < 0 else edit.array()
    pads[start] -= 1
    pads[end] += 1
    if edit.fault.slot < 0:
        edit.set_attribute("pads", pads)
    else:
        edit.replace(np.asarray(pads))


def _clamp(here: _Place) -> Fault | None:
    if here.node.op_type not in _CLAMPED or here.atlas.opset < _CLIP_SINCE or not here.gives_floats():
        return None
    return here.fault("clamp at 1e2", "{} clamped at 100", index=(here.type_of(here.node.output[0]).dtype,))


def _insert_clamp(edit: Edit) -> None:
    node, name = edit.node, edit.node.output[0]
    node.output[0] = f"{name}.before_clamp"
    inputs: list[str] = [node.output[0]]
    bounds: dict[str, Any] = {}
    if edit.atlas.opset >= _CLIP_TAKES_BOUNDS_SINCE:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(edit.fault.index[0])
        inputs += [edit.new_constant(np.array(bound, dtype), f"{name}.{bound:g}") for bound in (-_CLAMP, _CLAMP)]
    else:
        bounds = {"min": -_CLAMP, "max": _CLAMP}
    clip = onnx.helper.make_node("Clip", inputs, [name], name=f"{name}.clamp", **bounds)
    edit.graph.node.insert(edit.fault.site.node + 1, clip)


def _concat(here: _Place) -> Fault | None:
    names = here.node.input
    pairs = [at for at in range(len(names) - 1) if names[at] != names[at + 1]]
    if here.node.op_type != "Concat" or not pairs or not here.gives_floats():
        return None
    at = pairs[int(here.rng.integers(len(pairs)))]
    return here.fault("swapped Concat inputs", f"inputs {at} and {at + 1} of {{}} swapped", index=(at, at + 1))


def _operands(here: _Place) -> Fault | None:
    places = {"Sub": (0, 1), "Div": (0, 1), "Where": (1, 2)}.get(here.node.op_type)
    if places is None or here.node.input[places[0]] == here.node.input[places[1]] or not here.gives_floats():
        return None
    return here.fault("swapped operands", f"inputs {places[0]} and {places[1]} of {{}} swapped", index=places)


def _swap_inputs(edit: Edit) -> None:
    one, other = edit.fault.index
    edit.node.input[one], edit.node.input[other] = edit.node.input[other], edit.node.input[one]


def _axis(here: _Place) -> Fault | None:
    if not here.gives_floats():
        return None
    dims = here.type_of(here.node.output[0]).dims
    if here.node.op_type in ("Softmax", "LogSoftmax") and here.atlas.opset >= _SOFTMAX_OF_ONE_AXIS_SINCE:
        axis = attributes(here.node).get("axis", -1)
        if dims is None:
            others = [-2] if axis == -1 else []
        else:
            others = [at for at in range(len(dims)) if at != axis % len(dims) and dims[at] != 1]
        return here.fault("wrong axis", f"axis of {{}} is {others[-1]}", index=(others[-1],)) if others else None
    if here.node.op_type == "Transpose" and dims is not None:
        equal = [(a, b) for b in range(len(dims)) for a in range(b) if dims[a] == dims[b] not in (None, 1)]
        if equal:
            a, b = equal[int(here.rng.integers(len(equal)))]
            return here.fault("wrong axis", f"axes {a} and {b} of {{}} swapped", index=(a, b, len(dims)))
    return None


def _turn(edit: Edit) -> None:
    if len(edit.fault.index) == 1:
        edit.set_attribute("axis", edit.fault.index[0])
        return
    a, b, rank = edit.fault.index
    perm = list(edit.attribute("perm", range(rank)[::-1]))
    perm[a], perm[b] = perm[b], perm[a]
    edit.set_attribute("perm", perm)


def _index(here: _Place) -> Fault | None:
    if here.node.op_type not in ("Gather", "Slice") or not here.gives_floats():
        return None
    dims = here.type_of(here.node.input[0]).dims
    if here.node.op_type == "Gather":
        at = here.constant(1)
        if at is None or here.atlas.constant(here.site, 0) is not None:
            return None
        size = None if dims is None else dims[attributes(here.node).get("axis", 0)]
        return _shifted(here, 1, at, size)
    start, end, axes, steps = (here.constant(slot) for slot in range(1, 5))
    if start is None or end is None or start.size != 1 or (steps is not None and steps[0] != 1):
        return None
    if (start[0] < 0) != (end[0] <= 0) or end[0] >= _TO_THE_END:
        return None  # there is no room on that side
    size = None if dims is None else dims[0 if axes is None else int(axes[0])]
    return _shifted(here, 2, np.concatenate([start, end]), None if size is None else size + 1)


def _shifted(here: _Place, last: int, values: Array, size: int | None) -> Fault | None:
    """A fault that moves indexes by one towards where there's room; ``size`` is one more than the greatest can be."""
    if not values.size:
        return None
    low, high = int(values.min()), int(values.max())
    if low > 0 or (high < 0 and size is not None and low > -size):
        step = -1
    elif (low == 0 and size is not None and high + 1 < size) or high < -1:
        step = 1
    else:
        return None
    return here.fault("off by one", "{} one off", last, (step,))


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
    edit.become(_POOLS[edit.node.op_type], ("auto_pad", "ceil_mode", "kernel_shape", "pads", "strides"))


def _resize(here: _Place) -> Fault | None:
    if here.node.op_type != "Resize" or here.atlas.opset < _RESIZE_MODES_SINCE:
        return None
    return here.fault("another interpolation", "{} samples elsewhere")


def _change_resize(edit: Edit) -> None:
    asymmetric = edit.attribute("coordinate_transformation_mode", b"half_pixel") == b"asymmetric"
    edit.set_attribute("coordinate_transformation_mode", "half_pixel" if asymmetric else "asymmetric")
    if edit.attribute("mode", b"nearest") == b"nearest":
        ceil = edit.attribute("nearest_mode", b"round_prefer_floor") == b"ceil"
        edit.set_attribute("nearest_mode", "floor" if ceil else "ceil")


KINDS = (
    Kind("removed activation", _each(_activation), _remove),
    Kind("pad by one", _each(_pad), _move_pad),
    Kind("clamp at 1e2", _each(_clamp), _insert_clamp),
    Kind("swapped Concat inputs", _each(_concat), _swap_inputs),
    Kind("swapped operands", _each(_operands), _swap_inputs),
    Kind("wrong axis", _each(_axis), _turn),
    Kind("off by one", _each(_index), _shift),
    Kind("another pooling", _each(_pool), _change_pool),
    Kind("another interpolation", _each(_resize), _change_resize),
)
