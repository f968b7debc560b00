"""Constant scales and shifts of channels, carried into the weights before them.

This is the one family of rules that changes rounding: the weights are computed anew in float64 and
rounded once.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification.affine import (
    DTYPES,
    Affine,
    Doubles,
    affine_of,
    normalization,
)
from onnx_harness.transforms.simplification.constants import constant_array
from onnx_harness.transforms.simplification.no_ops import Facts, fact_of, is_private

# Since this version elementwise operators broadcast as numpy does, and BatchNormalization infers
# unless told to train.
_NUMPY_BROADCAST = 7


def fuse_affine(
    editing: Editing, facts: Facts, budget: int, normalizes: bool = True
) -> tuple[int, int]:
    """Carry BatchNormalization and constant Mul, Add and Sub into the operator before.

    That is a Conv, ConvTranspose, Gemm or the like.

    Precondition: the first node's output has no other reader and is no output of a graph; all
    weights are float32 or float64 constants that no caller can override, but that a mere bias may
    go beside weights that are computed; the constant varies along axis 1 alone. Weights that
    another node reads are copied, if that fits the budget.

    Args:
        editing: the graph.
        facts: types of the values.
        budget: bytes by which the model may grow.
        normalizes: carry BatchNormalization too.

    Returns:
        How often, and the bytes by which the model grew.
    """
    if editing.opset < _NUMPY_BROADCAST:
        return 0, 0
    fused = growth = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            if not normalizes and node.op_type == "BatchNormalization":
                continue
            affine = affine_of(editing, node, facts)
            copied = (
                None
                if affine is None
                else _absorb(editing, node, affine, facts, budget - growth)
            )
            if copied is not None:
                fused += 1
                growth += copied
    return fused, growth


def fuse_matmul_add(editing: Editing, facts: Facts) -> int:
    """Turn a MatMul of two matrices and the Add of a constant row into one Gemm.

    Precondition: both factors are known to be 2-D and float32 or float64; the product has no other
    reader; the constant is a scalar or a row as wide as the product, so that it can't widen the
    result.
    """
    if editing.opset < _NUMPY_BROADCAST:
        return 0
    fused = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            if not editing.is_standard(node, "Add") or len(node.inputs) != 2:
                continue
            for product, row in (node.inputs, reversed(node.inputs)):
                if _is_matrix_product(editing, node, product, facts) and _is_row(
                    row, product, facts
                ):
                    assert product is not None
                    first = product.producer()
                    assert first is not None
                    output = node.outputs[0]
                    gemm = ir.node(
                        "Gemm", [*first.inputs, row], num_outputs=1, name=node.name
                    )
                    graph.insert_before(node, gemm)
                    take_over(output, gemm.outputs[0])
                    graph.remove(node, safe=True)
                    graph.remove(first, safe=True)
                    fused += 1
                    break
    return fused


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Give ``new`` the name, the type and the readers of ``old``, whose node the caller removes."""
    name, new.type, new.shape = old.name, old.type, old.shape
    old.name = None
    new.name = name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def _is_matrix_product(
    editing: Editing, node: ir.Node, product: ir.Value | None, facts: Facts
) -> bool:
    first = product.producer() if product is not None else None
    if (
        product is None
        or first is None
        or not editing.is_standard(first, "MatMul")
        or not is_private(product, node)
    ):
        return False
    factors = [fact_of(value, facts) for value in first.inputs]
    for fact in factors:
        if not (
            fact is not None
            and fact.dtype in DTYPES
            and fact.shape is not None
            and len(fact.shape) == 2
        ):
            return False
    return True


def _is_row(row: ir.Value | None, product: ir.Value | None, facts: Facts) -> bool:
    constant, fact = constant_array(row), fact_of(product, facts)
    if constant is None or fact is None or fact.shape is None:
        return False
    width = fact.shape[-1]
    return width is not None and constant.shape in ((), (1,), (width,), (1, width), (1, 1))


def _absorb(
    editing: Editing, node: ir.Node, affine: Affine, facts: Facts, budget: int
) -> int | None:
    """Compute the weights of the node before anew, and remove ``node``.

    The bytes of weights that are then there twice.

    None where ``node`` has to stay.
    """
    first = affine.source.producer()
    if first is None or not is_private(affine.source, node):
        return None
    if not editing.is_standard(first, "Conv", "ConvTranspose", "Gemm", "BatchNormalization"):
        return None
    with np.errstate(all="ignore"):
        if first.op_type == "BatchNormalization":
            new = _into_normalization(editing, first, affine)
        else:
            new = _into_weights(first, affine, facts)
    # float64 that overflows float32 is no weight, and a NaN would spread.
    if (
        new is None
        or not all(np.isfinite(array).all() for array in new.values())
        or not _keeps_zeros(affine, new[2])
    ):
        return None
    copied = 0
    for index, array in new.items():
        if _is_shared(first, index):
            copied += array.nbytes
    if copied > budget:
        return None
    for index, array in new.items():
        _set_input(editing, first, index, array)
    if first.op_type == "Gemm":
        first.attributes.pop("beta", None)
    take_over(node.outputs[0], affine.source)
    assert isinstance(node.graph, ir.Graph)
    node.graph.remove(node, safe=True)
    return copied


def _is_shared(node: ir.Node, index: int) -> bool:
    """Return whether the old weight stays beside the new one."""
    value = node.inputs[index] if index < len(node.inputs) else None
    return value is not None and (len(value.uses()) > 1 or value.is_graph_output())


def _keeps_zeros(affine: Affine, shift: npt.NDArray[np.generic]) -> bool:
    """Return whether infinities stay infinite and zeros keep their sign.

    A scale of 0 makes a NaN of infinity, wherever it is met. A negative one makes -0 of a sum that
    is 0, which the sum of the scaled products isn't, unless something is added afterwards; nor is 0
    - 0 where the first is -0.
    """
    negative = np.broadcast_to(affine.scale < 0, shift.shape)
    subtracts_from_zero = (affine.shift == 0) & np.signbit(affine.shift)
    return (
        bool((affine.scale != 0).all())
        and not (negative & (shift == 0)).any()
        and not subtracts_from_zero.any()
    )


def _into_normalization(
    editing: Editing, first: ir.Node, affine: Affine
) -> dict[int, npt.NDArray[np.generic]] | None:
    gamma = constant_array(first.inputs[1])
    beta = constant_array(first.inputs[2])
    if normalization(editing, first) is None or gamma is None or beta is None:
        return None
    if not _fits(affine, gamma.size):
        return None
    return {
        1: (gamma.astype(np.float64) * affine.scale).astype(gamma.dtype),
        2: (beta.astype(np.float64) * affine.scale + affine.shift).astype(beta.dtype),
    }


def _into_weights(
    first: ir.Node, affine: Affine, facts: Facts
) -> dict[int, npt.NDArray[np.generic]] | None:
    weight = constant_array(first.inputs[1])
    bias_value = first.inputs[2] if len(first.inputs) > 2 else None
    bias = constant_array(bias_value)
    if bias_value is not None and bias is None:
        return None
    if weight is None:
        return _into_bias(first, bias, affine, facts)
    if weight.dtype not in (np.float32, np.float64):
        return None
    shape = _by_output_channel(first, weight.shape)
    if shape is None:
        return None
    channels = math.prod(shape)
    shift = _new_shift(first, bias, affine, channels)
    if shift is None:
        return None
    new: dict[int, npt.NDArray[np.generic]] = {2: shift.astype(weight.dtype)}
    if (affine.scale != 1).any():
        groups = first.attributes.get("group")
        scale = np.broadcast_to(affine.scale, channels).reshape(shape)
        if first.op_type == "ConvTranspose" and groups is not None:
            grouped = weight.astype(np.float64).reshape(
                groups.as_int(), -1, *weight.shape[1:]
            )
            tail = (1,) * (weight.ndim - 2)
            new[1] = (
                (grouped * scale.reshape(groups.as_int(), 1, -1, *tail))
                .reshape(weight.shape)
                .astype(weight.dtype)
            )
        else:
            new[1] = (weight.astype(np.float64) * scale).astype(weight.dtype)
    return new


def _into_bias(
    first: ir.Node, bias: npt.NDArray[np.generic] | None, affine: Affine, facts: Facts
) -> dict[int, npt.NDArray[np.generic]] | None:
    """The bias of a node whose weights are computed.

    It takes a shift alone, and the channels have to be known.
    """
    fact = fact_of(affine.source, facts)
    channels = (
        fact.shape[1]
        if fact is not None and fact.shape is not None and len(fact.shape) > 1
        else None
    )
    if (
        fact is None
        or channels is None
        or fact.dtype not in DTYPES
        or (affine.scale != 1).any()
    ):
        return None
    shift = _new_shift(first, bias, affine, channels)
    return None if shift is None else {2: shift.astype(ir.DataType(fact.dtype).numpy())}


def _new_shift(
    first: ir.Node, bias: npt.NDArray[np.generic] | None, affine: Affine, channels: int
) -> Doubles | None:
    """The bias that a node has and the shift, scaled together.

    None where they don't fit its channels.
    """
    if not _fits(affine, channels):
        return None
    shift = np.broadcast_to(affine.shift, channels)
    if bias is None:
        return shift
    # A Gemm's may also vary along the rows.
    if bias.size != 1 and (bias.size != channels or bias.shape[-1] != channels):
        return None
    beta = first.attributes.get("beta")
    factor = beta.as_float() if beta is not None and first.op_type == "Gemm" else 1.0
    return np.asarray(bias.reshape(-1).astype(np.float64) * factor * affine.scale + shift)


def _by_output_channel(first: ir.Node, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that lets a vector of one value an output channel broadcast against the weights.

    None without any.
    """
    if len(shape) < 2:
        return None
    if first.op_type == "Gemm":
        transposed = first.attributes.get("transB")
        return (
            (shape[0], 1)
            if transposed is not None and transposed.as_int()
            else (1, shape[1])
        )
    if first.op_type == "ConvTranspose":
        attribute = first.attributes.get("group")
        groups = 1 if attribute is None else attribute.as_int()
        if groups < 1 or shape[0] % groups:
            return None  # an invalid model that the checker lets pass
        return (1, shape[1] * groups, *(1 for _ in shape[2:]))
    return (shape[0], *(1 for _ in shape[1:]))


def _fits(affine: Affine, channels: int) -> bool:
    return affine.scale.size in (1, channels) and affine.shift.size in (1, channels)


def _set_input(
    editing: Editing, node: ir.Node, index: int, array: npt.NDArray[np.generic]
) -> None:
    old = node.inputs[index] if index < len(node.inputs) else None
    stem = old.name if old is not None and old.name else f"{node.outputs[0].name}_bias"
    name = editing.fresh_name(stem)
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(array.shape),
        const_value=tensor,
    )
    editing.graph.register_initializer(value)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)
