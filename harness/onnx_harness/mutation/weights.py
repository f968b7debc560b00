"""Faults in whole weights: a bias dropped, channels, axes or gates swapped, fewer bits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from onnx_harness.model.ops import is_standard
from onnx_harness.mutation import scalars, trees
from onnx_harness.mutation.atlas import FLOATS, Array, Atlas, attributes
from onnx_harness.mutation.elements import NUDGE, SIGN, size_of, weights
from onnx_harness.mutation.faults import Edit, Fault, FaultKind, called

# By op type: the input that holds a bias. Those of an Add are found by their rank.
_BIASES = {
    "Conv": 2,
    "ConvTranspose": 2,
    "Gemm": 2,
    "LSTM": 3,
    "GRU": 3,
    "RNN": 3,
    "LayerNormalization": 2,
    "BatchNormalization": 2,
    "InstanceNormalization": 2,
    "GroupNormalization": 2,
}
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div"})
"""A table that is added or multiplied isn't a matrix."""
_GATES = {"LSTM": 4, "GRU": 3}
# Rounds over the weights: a few pairs of channels of each.
_CHANNEL_ROUNDS = 4
# Rounding fewer elements to 8 bits may well change none of them.
_LEAST_COARSE = 16


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
        if tensor is not None and _is_bias(tensor) and np.any(atlas.array(tensor)):
            text = f"bias {node.input[slot]} of {called(node)} dropped"
            yield Fault("dropped bias", site, text, slot)


def _is_bias(tensor: TensorProto) -> bool:
    if tensor.data_type not in FLOATS or size_of(tensor) < 2:
        return False
    axes = [dim for dim in tensor.dims if dim > 1]
    return len(axes) <= 2


def _drop(edit: Edit) -> None:
    edit.replace(np.zeros_like(edit.array()))


def _find_squares(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    matrices = [weight for weight in weights(atlas) if len(weight.tensor.dims) >= 2]
    places = [weight for weight in matrices if weight.node.op_type not in _ELEMENTWISE]
    for position in rng.permutation(len(places)):
        weight = places[position]
        rows, columns = weight.tensor.dims[-2:]
        if rows == columns > 1:
            array = atlas.array(weight.tensor)
            if not np.array_equal(array, np.swapaxes(array, -1, -2)):
                text = f"square weight {weight.name} transposed"
                yield Fault("swapped axes", weight.site, text, weight.slot)


def _transpose(edit: Edit) -> None:
    edit.replace(np.swapaxes(edit.array(), -1, -2))


def _find_channels(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places = []
    for site, node in atlas.nodes:
        output_axis = _output_axis(node)
        if output_axis is None:
            continue
        slot, axis = output_axis
        tensor = atlas.constant(site, slot)
        if tensor is not None and len(tensor.dims) > 1 and tensor.dims[axis] > 1:
            places.append((site, node, slot, axis % len(tensor.dims), tensor))
    for _ in range(_CHANNEL_ROUNDS):
        for position in rng.permutation(len(places)):
            site, node, slot, axis, tensor = places[position]
            drawn = rng.choice(tensor.dims[axis], 2, replace=False)
            first, second = (int(channel) for channel in drawn)
            array = atlas.array(tensor)
            if not np.array_equal(np.take(array, first, axis), np.take(array, second, axis)):
                channels = f"output channels {first} and {second} of {node.input[slot]}"
                text = f"{channels} swapped in {called(node)}"
                yield Fault("permuted channels", site, text, slot, (axis, first, second))


def _output_axis(node: onnx.NodeProto) -> tuple[int, int] | None:
    """Return (input, axis) of a node's weight, along which its output channels lie."""
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
    axis, first, second = edit.fault.index
    array = edit.array()
    order = np.arange(array.shape[axis])
    order[[first, second]] = second, first
    edit.replace(np.take(array, order, axis))


def _find_coarse(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    places = [weight for weight in weights(atlas) if weight.tensor.data_type in floats]
    places = [weight for weight in places if size_of(weight.tensor) >= _LEAST_COARSE]
    for position in rng.permutation(len(places)):
        weight = places[position]
        text = f"{weight.name} kept in bfloat16's 8 bits"
        yield Fault("coarse weight", weight.site, text, weight.slot)


def _coarsen(edit: Edit) -> None:
    array = edit.array()
    values = array.astype(np.float32)
    coarse = np.where(np.isfinite(values), _bfloat16(values), values)
    with np.errstate(over="ignore"):
        edit.replace_for_all(coarse.astype(array.dtype))


def _bfloat16(values: Array) -> Array:
    """Round float32 to bfloat16, to nearest with ties to even, as float32."""
    bits = np.require(values, requirements="C").view(np.uint32)
    # Half of the last bit that stays, and that bit itself: a tie goes up only from an odd one.
    last_bit = bits >> np.uint32(16) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + last_bit) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def _find_gates(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places = []
    for site, node in atlas.nodes:
        if node.op_type in _GATES:
            places += [(site, node, slot) for slot in (1, 2)]
    for position in rng.permutation(len(places)):
        site, node, slot = places[position]
        gates = _GATES[node.op_type]
        tensor = atlas.constant(site, slot)
        if tensor is not None and len(tensor.dims) == 3 and tensor.dims[1] % gates == 0:
            text = f"the first two gates of {node.input[slot]} swapped in {called(node)}"
            yield Fault("swapped gates", site, text, slot, (gates,))


def _swap_gates(edit: Edit) -> None:
    array = edit.array()
    [gates] = edit.fault.index
    first, second, *further = np.split(array, gates, axis=1)
    edit.replace(np.concatenate([second, first, *further], axis=1))


# In this order they take turns: a fault's seed and its place in the order decide which is planted.
KINDS = (
    SIGN,
    NUDGE,
    FaultKind("dropped bias", _find_biases, _drop),
    FaultKind("swapped axes", _find_squares, _transpose),
    FaultKind("permuted channels", _find_channels, _swap_channels),
    *scalars.KINDS,
    FaultKind("coarse weight", _find_coarse, _coarsen),
    FaultKind("swapped gates", _find_gates, _swap_gates),
    *trees.KINDS,
)
