"""Faults in one element of a weight: another sign, another value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from onnx_harness.mutation.atlas import BYTES, FLOATS, Array, Atlas, Site
from onnx_harness.mutation.faults import Edit, Fault, FaultKind, called

# Their constants are sizes, bounds and tables that other kinds are for. Whether a row of an
# embedding is read is a question about the inputs, so single elements of one are left alone.
_NOT_WEIGHTS = frozenset({
    "Resize", "Upsample", "Pad", "Clip", "Range", "Gather", "QuantizeLinear", "DequantizeLinear",
    "DynamicQuantizeLinear", "ConstantOfShape", "Equal", "Greater", "Less", "GreaterOrEqual",
    "LessOrEqual", "Where", "Cast", "Shape",
})  # fmt: skip
# By op type: inputs that hold quantized weights, and the inputs with their zero points.
_QUANTIZED = {
    "DequantizeLinear": (0,),
    "MatMulInteger": (0, 1),
    "ConvInteger": (1,),
    "QLinearConv": (3,),
    "QLinearMatMul": (3,),
    "DynamicQuantizeMatMul": (1,),
    "MatMulIntegerToFloat": (1,),
}
_ZERO_POINTS = {
    "DequantizeLinear": {0: 2},
    "MatMulInteger": {0: 2, 1: 3},
    "ConvInteger": {1: 3},
    "QLinearConv": {3: 5},
    "QLinearMatMul": {3: 5},
}
# A tensor of so few elements has been seen whole after one round.
_SMALL = 8


@dataclass(frozen=True, slots=True)
class Weight:
    """A constant with weights in it, as one node reads it."""

    site: Site
    node: onnx.NodeProto
    slot: int
    tensor: TensorProto

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.node.input[self.slot]} of {called(self.node)}"


def weights(atlas: Atlas) -> list[Weight]:
    """List the constants of two elements or more that a node reads as weights.

    A constant that several nodes read is listed with the first of them.
    """
    by_tensor: dict[int, Weight] = {}
    for site, node in atlas.nodes:
        for slot in range(len(node.input)):
            tensor = atlas.constant(site, slot)
            if tensor is None or size_of(tensor) < 2:
                continue
            if _holds_weights(node, slot, tensor):
                by_tensor.setdefault(id(tensor), Weight(site, node, slot, tensor))
    return list(by_tensor.values())


def _holds_weights(node: onnx.NodeProto, slot: int, tensor: TensorProto) -> bool:
    if tensor.data_type in BYTES and slot in _QUANTIZED.get(node.op_type, ()):
        return True
    return tensor.data_type in FLOATS and node.op_type not in _NOT_WEIGHTS


def telling_element(atlas: Atlas, weight: Weight, rng: np.random.Generator) -> int | None:
    """Draw an element that is no smaller than the tensor's root mean square.

    Smaller ones hardly reach the outputs.

    Returns:
        Its flat index; None when all are zero.
    """
    array = atlas.array(weight.tensor)
    values = _centred(atlas, weight.site, weight.slot, array).reshape(-1)
    magnitudes = np.abs(np.nan_to_num(values, posinf=0.0, neginf=0.0))
    root_mean_square = np.sqrt(np.mean(magnitudes**2))
    candidates = np.flatnonzero((magnitudes >= root_mean_square) & (magnitudes > 0))
    return int(rng.choice(candidates)) if candidates.size else None


def weight_fault(kind: str, weight: Weight, element: int, factor: float, text: str) -> Fault:
    """Make a fault that multiplies one element of a weight."""
    index = np.unravel_index(element, tuple(weight.tensor.dims))
    position = [int(axis_index) for axis_index in index]
    place = f"{weight.name}, element {position}"
    return Fault(kind, weight.site, f"{text} {place}", weight.slot, (element,), factor)


def _elements(kind: str, factor: float, text: str) -> FaultKind:
    def find(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
        places = weights(atlas)
        while places:
            for position in rng.permutation(len(places)):
                element = telling_element(atlas, places[position], rng)
                if element is not None:
                    yield weight_fault(kind, places[position], element, factor, text)
            places = [weight for weight in places if size_of(weight.tensor) > _SMALL]

    return FaultKind(kind, find, multiply)


def multiply(edit: Edit) -> None:
    """Multiply one element by the fault's factor; one of a byte moves by a step at least."""
    array = edit.array()
    flat = array.reshape(-1)
    [element] = edit.fault.index
    factor = edit.fault.factor
    if array.dtype.kind in "iu":
        centred = _centred(edit.atlas, edit.fault.site, edit.fault.slot, array)
        zero_points = array.astype(np.int64) - centred
        zero_point = int(np.broadcast_to(zero_points, array.shape).reshape(-1)[element])
        flat[element] = _scaled_byte(int(flat[element]), zero_point, factor, array.dtype)
    else:
        scaled = flat[element : element + 1].astype(np.float64) * factor
        flat[element] = scaled.astype(array.dtype)[0]
    edit.replace_for_all(array)


def _scaled_byte(value: int, zero_point: int, factor: float, dtype: np.dtype) -> int:
    limits = np.iinfo(dtype)
    scaled = zero_point + round((value - zero_point) * factor)
    if scaled == value:
        scaled += 1 if value < limits.max else -1
    return int(np.clip(scaled, limits.min, limits.max))


def size_of(tensor: TensorProto) -> int:
    """Count the elements of a constant."""
    return int(np.prod(list(tensor.dims), dtype=np.int64))


def _centred(atlas: Atlas, site: Site, slot: int, array: Array) -> Array:
    """Weights as numbers around zero: those of bytes less their zero point."""
    if array.dtype.kind not in "iu":
        return array.astype(np.float64)
    return array.astype(np.int64) - _zero_point(atlas, site, slot, array)


def _zero_point(atlas: Atlas, site: Site, slot: int, array: Array) -> int:
    slots = _ZERO_POINTS.get(atlas.node(site).op_type, {})
    tensor = atlas.constant(site, slots[slot]) if slot in slots else None
    if tensor is None:
        return 0
    if size_of(tensor) == 1:
        return int(atlas.array(tensor).reshape(-1)[0])
    # With one for each channel: every quantizer centres unsigned bytes on the middle.
    return 128 if array.dtype == np.uint8 else 0


SIGN = _elements("flipped sign", -1.0, "sign flipped of")
NUDGE = _elements("weight +1%", 1.01, "1% more in")
