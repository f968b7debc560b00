"""Faults in numbers: weights, biases, scalars, quantization scales, leaves of trees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from onnx_harness.model.ops import is_standard
from onnx_harness.mutation.atlas import BYTES, FLOATS, Array, Atlas, Site, attributes
from onnx_harness.mutation.faults import Edit, Fault, Kind, called

# Inputs that hold a bias: dropped, they are all zeros. Those of an Add are found by their rank.
_BIASES = {
    "Conv": 2, "ConvTranspose": 2, "Gemm": 2, "LSTM": 3, "GRU": 3, "RNN": 3,
    "LayerNormalization": 2, "BatchNormalization": 2, "InstanceNormalization": 2, "GroupNormalization": 2,
}  # fmt: skip
_EPSILONS = frozenset(
    {"BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization",
     "RMSNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"}
)  # fmt: skip
# Their constants are sizes, bounds and tables that other kinds are for. Whether a row of an embedding is read is a
# question about the inputs, so single elements of one are left alone.
_NOT_WEIGHTS = frozenset(
    {"Resize", "Upsample", "Pad", "Clip", "Range", "Gather", "QuantizeLinear", "DequantizeLinear",
     "DynamicQuantizeLinear", "ConstantOfShape", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual",
     "Where", "Cast", "Shape"}
)  # fmt: skip
_QUANTIZED = {
    "DequantizeLinear": (0,), "MatMulInteger": (0, 1), "ConvInteger": (1,), "QLinearConv": (3,), "QLinearMatMul": (3,),
    "DynamicQuantizeMatMul": (1,), "MatMulIntegerToFloat": (1,),
}  # fmt: skip
_ZERO_POINTS = {
    "DequantizeLinear": {0: 2}, "MatMulInteger": {0: 2, 1: 3}, "ConvInteger": {1: 3}, "QLinearConv": {3: 5},
    "QLinearMatMul": {3: 5},
}  # fmt: skip
_SCALES = {"DequantizeLinear": 1, "QuantizeLinear": 1, "QLinearConv": 4, "QLinearMatMul": 4}
_SCALARS = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Clip", "Min", "Max", "PRelu", "Sum"})
_ALPHAS = {
    "LeakyRelu": ("alpha", 0.01), "Elu": ("alpha", 1.0), "HardSigmoid": ("alpha", 0.2), "Gemm": ("alpha", 1.0),
    "ThresholdedRelu": ("alpha", 1.0), "Celu": ("alpha", 1.0),
}  # fmt: skip
_EPSILON = 1e-5  # what every normalization's epsilon is by default
_GREATEST_EPSILON = 1e-3
_LEAVES = ("target_weights", "class_weights", "coefficients")


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
    """Every constant of two elements or more that is weights, as the first node reads it that makes weights of it."""
    found: dict[int, Weight] = {}
    for site, node in atlas.nodes:
        for slot in range(len(node.input)):
            tensor = atlas.constant(site, slot)
            if tensor is None or _size(tensor) < 2:
                continue
            quantized = tensor.data_type in BYTES and slot in _QUANTIZED.get(node.op_type, ())
            if quantized or (tensor.data_type in FLOATS and node.op_type not in _NOT_WEIGHTS):
                found.setdefault(id(tensor), Weight(site, node, slot, tensor))
    return list(found.values())


def telling_element(atlas: Atlas, weight: Weight, rng: np.random.Generator) -> int | None:
    """A random element among those no smaller than the tensor's root mean square: by those a weight is felt.

    Returns:
        Its flat index; None when all are zero.
    """
    values = _centred(atlas, weight.site, weight.slot, atlas.array(weight.tensor)).reshape(-1)
    values = np.abs(np.nan_to_num(values, posinf=0.0, neginf=0.0))
    at = np.flatnonzero((values >= np.sqrt(np.mean(values**2))) & (values > 0))
    return int(rng.choice(at)) if at.size else None


def weight_fault(kind: str, weight: Weight, element: int, factor: float, text: str) -> Fault:
    """A fault that multiplies one element of a weight."""
    index = tuple(int(each) for each in np.unravel_index(element, tuple(weight.tensor.dims)))
    place = f"{weight.name}, element {list(index)}"
    return Fault(kind, weight.site, f"{text} {place}", weight.slot, (element,), factor)


def _elements(kind: str, factor: float, text: str) -> Kind:
    def find(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
        known = weights(atlas)
        while known:
            for position in rng.permutation(len(known)):
                element = telling_element(atlas, known[position], rng)
                if element is not None:
                    yield weight_fault(kind, known[position], element, factor, text)
            known = [each for each in known if _size(each.tensor) > 8]  # the small ones have been seen

    return Kind(kind, find, multiply)


def multiply(edit: Edit) -> None:
    """Multiply one element by the fault's factor; one of a byte moves by a step at least."""
    array = edit.array()
    flat = array.reshape(-1)
    [at] = edit.fault.index
    if array.dtype.kind in "iu":
        zero = array.astype(np.int64) - _centred(edit.atlas, edit.fault.site, edit.fault.slot, array)
        point = int(np.broadcast_to(zero, array.shape).reshape(-1)[at])
        value = int(flat[at])
        new = point + round((value - point) * edit.fault.factor)
        new += (1 if value < np.iinfo(array.dtype).max else -1) if new == value else 0
        flat[at] = np.clip(new, np.iinfo(array.dtype).min, np.iinfo(array.dtype).max)
    else:
        flat[at] = (flat[at : at + 1].astype(np.float64) * edit.fault.factor).astype(array.dtype)[0]
    edit.replace_for_all(array)


def _find_biases(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places = []
    for site, node in atlas.nodes:
        if node.op_type in _BIASES:
            places.append((site, node, _BIASES[node.op_type]))
        elif is_standard(node, "Add") and len(node.input) == 2:
            places += [(site, node, slot) for slot in (0, 1)]
    for position in rng.permutation(len(places)):
        site, node, slot = places[position]
        tensor = atlas.constant(site, slot)
        if tensor is None or tensor.data_type not in FLOATS or _size(tensor) < 2 or sum(d > 1 for d in tensor.dims) > 2:
            continue
        if np.any(atlas.array(tensor)):
            yield Fault("dropped bias", site, f"bias {node.input[slot]} of {called(node)} dropped", slot)


def _drop(edit: Edit) -> None:
    edit.replace(np.zeros_like(edit.array()))


def _find_squares(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places = [each for each in weights(atlas) if len(each.tensor.dims) >= 2 and each.node.op_type not in _BIASES_ONLY]
    for position in rng.permutation(len(places)):
        weight = places[position]
        dims = tuple(weight.tensor.dims)
        if dims[-1] == dims[-2] > 1:
            array = atlas.array(weight.tensor)
            if not np.array_equal(array, np.swapaxes(array, -1, -2)):
                yield Fault("swapped axes", weight.site, f"square weight {weight.name} transposed", weight.slot)


_BIASES_ONLY = frozenset({"Add", "Sub", "Mul", "Div"})  # a table added or multiplied isn't a matrix


def _transpose(edit: Edit) -> None:
    edit.replace(np.swapaxes(edit.array(), -1, -2))


def _find_channels(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places = []
    for site, node in atlas.nodes:
        axis = _output_axis(node)
        if axis is None:
            continue
        slot, at = axis
        tensor = atlas.constant(site, slot)
        if tensor is not None and len(tensor.dims) > 1 and tensor.dims[at] > 1:
            places.append((site, node, slot, at % len(tensor.dims), tensor))
    for _ in range(4):  # a few pairs of each
        for position in rng.permutation(len(places)):
            site, node, slot, at, tensor = places[position]
            one, other = (int(each) for each in rng.choice(tensor.dims[at], 2, replace=False))
            array = atlas.array(tensor)
            if not np.array_equal(np.take(array, one, at), np.take(array, other, at)):
                text = f"output channels {one} and {other} of {node.input[slot]} swapped in {called(node)}"
                yield Fault("permuted channels", site, text, slot, (at, one, other))


def _output_axis(node: onnx.NodeProto) -> tuple[int, int] | None:
    """(input, axis) of the weight of a node, along which its output channels lie."""
    match node.op_type:
        case "Conv" | "ConvInteger":
            return 1, 0
        case "QLinearConv":
            return 3, 0
        case "ConvTranspose":
            return 1, 1
        case "Gemm":
            return 1, 0 if attributes(node).get("transB", 0) else 1
        case "MatMul" | "MatMulInteger":
            return 1, -1
        case "Gather":
            return (0, -1) if attributes(node).get("axis", 0) == 0 else None
        case "LSTM" | "GRU" | "RNN":
            return 1, 1
    return None


def _swap_channels(edit: Edit) -> None:
    at, one, other = edit.fault.index
    array = edit.array()
    order = np.arange(array.shape[at])
    order[[one, other]] = other, one
    edit.replace(np.take(array, order, at))


def _find_epsilons(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places: list[tuple[Site, onnx.NodeProto, int]] = []
    for site, node in atlas.nodes:
        if node.op_type in _EPSILONS:
            places.append((site, node, -1))
        elif node.op_type in ("Add", "Max", "Clip"):
            for slot in range(len(node.input)):
                tensor = atlas.constant(site, slot)
                if tensor is not None and _is_epsilon(atlas, tensor):
                    places.append((site, node, slot))
    for position in rng.permutation(len(places)):
        site, node, slot = places[position]
        yield Fault("epsilon x100", site, f"epsilon of {called(node)} times 100", slot, factor=100.0)


def _is_epsilon(atlas: Atlas, tensor: TensorProto) -> bool:
    if tensor.data_type not in FLOATS or _size(tensor) != 1:
        return False
    return 0 < float(atlas.array(tensor).astype(np.float64).reshape(-1)[0]) <= _GREATEST_EPSILON


def _enlarge(edit: Edit) -> None:
    if edit.fault.slot < 0:
        edit.set_attribute("epsilon", float(edit.attribute("epsilon", _EPSILON)) * edit.fault.factor)
    else:
        _scale_all(edit)


def _scale_all(edit: Edit) -> None:
    array = edit.array()
    edit.replace((array.astype(np.float64) * edit.fault.factor).astype(array.dtype))


def _find_scalars(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places: list[tuple[Site, onnx.NodeProto, int]] = []
    for site, node in atlas.nodes:
        if node.op_type in _ALPHAS:
            places.append((site, node, -1))
        if node.op_type not in _SCALARS:
            continue
        for slot in range(len(node.input)):
            tensor = atlas.constant(site, slot)
            if tensor is None or tensor.data_type not in FLOATS or _size(tensor) != 1 or _is_epsilon(atlas, tensor):
                continue
            value = float(atlas.array(tensor).astype(np.float64).reshape(-1)[0])
            if value != 0 and np.isfinite(value):
                places.append((site, node, slot))
    for position in rng.permutation(len(places)):
        site, node, slot = places[position]
        what = _ALPHAS[node.op_type][0] if slot < 0 else node.input[slot]
        yield Fault("stale scalar", site, f"scalar {what} of {called(node)} 10% too large", slot, factor=1.1)


def _stale(edit: Edit) -> None:
    if edit.fault.slot < 0:
        name, default = _ALPHAS[edit.node.op_type]
        edit.set_attribute(name, float(edit.attribute(name, default)) * edit.fault.factor)
    else:
        _scale_all(edit)


def _find_scales(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places = [(site, node, _SCALES[node.op_type]) for site, node in atlas.nodes if node.op_type in _SCALES]
    for position in rng.permutation(len(places)):
        site, node, slot = places[position]
        tensor = atlas.constant(site, slot)
        if tensor is not None and tensor.data_type in FLOATS:
            element = int(rng.integers(_size(tensor)))
            text = f"quantization scale {node.input[slot]} of {called(node)} 10% too large at {element}"
            yield Fault("quantization scale", site, text, slot, (element,), 1.1)


def _find_coarse(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places = [each for each in weights(atlas) if each.tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)]
    places = [each for each in places if _size(each.tensor) >= 16]
    for position in rng.permutation(len(places)):
        weight = places[position]
        yield Fault("coarse weight", weight.site, f"{weight.name} kept in bfloat16's 8 bits", weight.slot)


def _coarsen(edit: Edit) -> None:
    array = edit.array()
    bits = np.require(array.astype(np.float32), requirements="C").view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) & np.uint32(0xFFFF0000)
    coarse = np.where(np.isfinite(array.astype(np.float32)), rounded.view(np.float32), array.astype(np.float32))
    with np.errstate(over="ignore"):
        edit.replace_for_all(coarse.astype(array.dtype))


def _find_gates(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    gates = {"LSTM": 4, "GRU": 3}
    places = [(site, node, slot) for site, node in atlas.nodes if node.op_type in gates for slot in (1, 2)]
    for position in rng.permutation(len(places)):
        site, node, slot = places[position]
        tensor = atlas.constant(site, slot)
        if tensor is not None and len(tensor.dims) == 3 and tensor.dims[1] % gates[node.op_type] == 0:
            text = f"the first two gates of {node.input[slot]} swapped in {called(node)}"
            yield Fault("swapped gates", site, text, slot, (gates[node.op_type],))


def _swap_gates(edit: Edit) -> None:
    array = edit.array()
    [gates] = edit.fault.index
    blocks = np.split(array, gates, axis=1)
    edit.replace(np.concatenate([blocks[1], blocks[0], *blocks[2:]], axis=1))


def _find_leaves(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places = []
    for site, node in atlas.nodes:
        if node.domain == "ai.onnx.ml":
            held = attributes(node)
            places += [(site, node, name, held[name]) for name in _LEAVES if held.get(name)]
    while places:
        for site, node, name, values in places:
            at = int(rng.choice(np.flatnonzero(np.asarray(values))))
            text = f"{name}[{at}] of {called(node)} with the other sign"
            yield Fault("wrong leaf", site, text, _LEAVES.index(name), (at,), -1.0)


def _spoil_leaf(edit: Edit) -> None:
    name = _LEAVES[edit.fault.slot]
    values = list(edit.attribute(name))
    values[edit.fault.index[0]] *= edit.fault.factor
    edit.set_attribute(name, values)


def _find_thresholds(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places = []
    for site, node in atlas.nodes:
        if node.domain == "ai.onnx.ml" and "nodes_values" in (held := attributes(node)):
            inner = [at for at, mode in enumerate(held.get("nodes_modes", ())) if mode not in (b"LEAF", "LEAF")]
            if inner:
                places.append((site, node, inner))
    while places:
        for site, node, inner in places:
            at = int(rng.choice(inner))
            text = f"threshold {at} of {called(node)} with the other sign"
            yield Fault("wrong threshold", site, text, 0, (at,), -1.0)


def _spoil_threshold(edit: Edit) -> None:
    values = list(edit.attribute("nodes_values"))
    values[edit.fault.index[0]] *= edit.fault.factor
    edit.set_attribute("nodes_values", values)


def _size(tensor: TensorProto) -> int:
    return int(np.prod(list(tensor.dims), dtype=np.int64))


def _centred(atlas: Atlas, site: Site, slot: int, array: Array) -> Array:
    """Weights as numbers around zero: those of bytes less their zero point."""
    if array.dtype.kind not in "iu":
        return array.astype(np.float64)
    points = _ZERO_POINTS.get(atlas.node(site).op_type, {})
    tensor = atlas.constant(site, points[slot]) if slot in points else None
    if tensor is not None and _size(tensor) == 1:
        return array.astype(np.int64) - int(atlas.array(tensor).reshape(-1)[0])
    # Without one, or with one for each channel: unsigned bytes are centred on the middle by every quantizer.
    return array.astype(np.int64) - (128 if tensor is not None and array.dtype == np.uint8 else 0)


SIGN = _elements("flipped sign", -1.0, "sign flipped of")
NUDGE = _elements("weight +1%", 1.01, "1% more in")

KINDS = (
    SIGN,
    NUDGE,
    Kind("dropped bias", _find_biases, _drop),
    Kind("swapped axes", _find_squares, _transpose),
    Kind("permuted channels", _find_channels, _swap_channels),
    Kind("epsilon x100", _find_epsilons, _enlarge),
    Kind("stale scalar", _find_scalars, _stale),
    Kind("quantization scale", _find_scales, multiply),
    Kind("coarse weight", _find_coarse, _coarsen),
    Kind("swapped gates", _find_gates, _swap_gates),
    Kind("wrong leaf", _find_leaves, _spoil_leaf),
    Kind("wrong threshold", _find_thresholds, _spoil_threshold),
)
