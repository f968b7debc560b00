"""Read a node as a scale and a shift of each channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_harness.model.graph import Editing
from onnx_harness.transforms.simplification.constants import constant_array
from onnx_harness.transforms.simplification.no_ops import Facts, fact_of, is_private

Doubles = npt.NDArray[np.float64]
DTYPES = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


_TRAINING_MODE = 14


@dataclass(frozen=True, slots=True)
class Affine:
    """``source * scale + shift`` along axis 1; both are vectors of one value or one a channel."""

    source: ir.Value
    scale: Doubles
    shift: Doubles


def affine_of(editing: Editing, node: ir.Node, facts: Facts) -> Affine | None:
    """Return the scale and the shift that a node is; None where it is none."""
    if editing.is_standard(node, "BatchNormalization"):
        terms = normalization(editing, node)
        return (
            None
            if terms is None or node.inputs[0] is None
            else Affine(node.inputs[0], *terms)
        )
    if not editing.is_standard(node, "Mul", "Add", "Sub", "Div") or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    for source, factor in ((first, second), (second, first)):
        constant = constant_array(factor)
        if (
            source is None
            or constant is None
            or constant.dtype not in (np.float32, np.float64)
        ):
            continue
        channels = along_channels(constant, _rank_of(editing, source, facts))
        if channels is None:
            continue
        unit, zero = np.ones(1), np.zeros(1)
        if node.op_type == "Mul":
            return Affine(source, channels, zero)
        if node.op_type == "Div":
            if source is not first:
                return None
            with np.errstate(all="ignore"):
                return Affine(source, 1 / channels, zero)
        if node.op_type == "Add":  # adding -0 to a sum that is 0 leaves it
            shifted = Affine(source, unit, channels + zero)
        else:
            shifted = (
                Affine(source, unit, -channels)
                if source is first
                else Affine(source, -unit, channels)
            )
        return _with_scale_before(editing, node, shifted, facts)
    return None


def _with_scale_before(
    editing: Editing, node: ir.Node, shifted: Affine, facts: Facts
) -> Affine:
    """Take the product before a sum along, as a normalization is spelt.

    Alone it may change the sign of a zero.
    """
    first = shifted.source.producer()
    if (
        first is None
        or not editing.is_standard(first, "Mul")
        or not is_private(shifted.source, node)
    ):
        return shifted
    scaled = affine_of(editing, first, facts)
    if scaled is None or not is_private(scaled.source, first):
        return shifted
    shift = scaled.shift * shifted.scale + shifted.shift
    return Affine(scaled.source, scaled.scale * shifted.scale, shift)


def _rank_of(editing: Editing, value: ir.Value, facts: Facts) -> int | None:
    producer = value.producer()
    if producer is not None and editing.is_standard(producer, "Conv", "ConvTranspose"):
        weight = constant_array(producer.inputs[1])
        if weight is not None:
            return weight.ndim
    fact = fact_of(value, facts)
    return None if fact is None or fact.shape is None else len(fact.shape)


def along_channels(constant: npt.NDArray[np.generic], rank: int | None) -> Doubles | None:
    """The constant as a vector along axis 1 of a tensor of that rank.

    None where it varies along another.
    """
    if rank is None or rank < 2 or constant.ndim > rank:
        return None
    padded = (1,) * (rank - constant.ndim) + constant.shape
    if any(dim != 1 for axis, dim in enumerate(padded) if axis != 1):
        return None
    return constant.reshape(-1).astype(np.float64)


def normalization(editing: Editing, node: ir.Node) -> tuple[Doubles, Doubles] | None:
    """The scale and shift of a BatchNormalization that infers.

    None for one that trains or isn't constant.
    """
    training = node.attributes.get("training_mode")
    spatial = node.attributes.get("spatial")
    if any(
        value.name and (value.uses() or value.is_graph_output())
        for value in node.outputs[1:]
    ):
        return None
    if editing.opset >= _TRAINING_MODE and training is not None and training.as_int() != 0:
        return None
    if spatial is not None and spatial.as_int() != 1:
        return None
    parts = [constant_array(value) for value in node.inputs[1:5]]
    if len(parts) != 4 or any(
        part is None or part.dtype not in (np.float32, np.float64) for part in parts
    ):
        return None
    normalizations = []
    for part in parts:
        if part is not None:
            normalizations.append(part.astype(np.float64))
    gamma, beta, mean, variance = normalizations
    epsilon = node.attributes.get("epsilon")
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(
            variance + (epsilon.as_float() if epsilon is not None else np.float32(1e-5))
        )
        return scale, beta - mean * scale
