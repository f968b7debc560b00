"""Faults in single numbers: epsilons, scalars of an operator, quantization scales."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from onnx_harness.mutation.atlas import FLOATS, Atlas, Site
from onnx_harness.mutation.elements import multiply, size_of
from onnx_harness.mutation.faults import Edit, Fault, FaultKind, called

_EPSILONS = frozenset({
    "BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization",
    "RMSNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization",
})  # fmt: skip
_EPSILON = 1e-5  # what every normalization's epsilon is by default
_GREATEST_EPSILON = 1e-3
# By op type: the input that holds a quantization scale.
_SCALES = {"DequantizeLinear": 1, "QuantizeLinear": 1, "QLinearConv": 4, "QLinearMatMul": 4}
_SCALARS = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Clip", "Min", "Max", "PRelu", "Sum"}
)
# By op type: an attribute that is a factor, and its default.
_ALPHAS = {
    "LeakyRelu": ("alpha", 0.01),
    "Elu": ("alpha", 1.0),
    "HardSigmoid": ("alpha", 0.2),
    "Gemm": ("alpha", 1.0),
    "ThresholdedRelu": ("alpha", 1.0),
    "Celu": ("alpha", 1.0),
}
_IN_AN_ATTRIBUTE = -1

Place = tuple[Site, onnx.NodeProto, int]
"""A node and its input that holds the number."""


def _find_epsilons(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places: list[Place] = []
    for site, node in atlas.nodes:
        if node.op_type in _EPSILONS:
            places.append((site, node, _IN_AN_ATTRIBUTE))
        elif node.op_type in ("Add", "Max", "Clip"):
            for slot in range(len(node.input)):
                tensor = atlas.constant(site, slot)
                if tensor is not None and _is_epsilon(atlas, tensor):
                    places.append((site, node, slot))
    for position in rng.permutation(len(places)):
        site, node, slot = places[position]
        text = f"epsilon of {called(node)} times 100"
        yield Fault("epsilon x100", site, text, slot, factor=100.0)


def _is_epsilon(atlas: Atlas, tensor: TensorProto) -> bool:
    if not _is_scalar(tensor):
        return False
    return 0 < _number(atlas, tensor) <= _GREATEST_EPSILON


def _is_scalar(tensor: TensorProto) -> bool:
    return tensor.data_type in FLOATS and size_of(tensor) == 1


def _number(atlas: Atlas, tensor: TensorProto) -> float:
    return float(atlas.array(tensor).astype(np.float64).reshape(-1)[0])


def _enlarge(edit: Edit) -> None:
    if edit.fault.slot == _IN_AN_ATTRIBUTE:
        _scale_attribute(edit, "epsilon", _EPSILON)
    else:
        _scale_constant(edit)


def _scale_attribute(edit: Edit, name: str, default: float) -> None:
    value = float(edit.attribute(name, default))
    edit.set_attribute(name, value * edit.fault.factor)


def _scale_constant(edit: Edit) -> None:
    array = edit.array()
    scaled = array.astype(np.float64) * edit.fault.factor
    edit.replace(scaled.astype(array.dtype))


def _find_scalars(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places: list[Place] = []
    for site, node in atlas.nodes:
        if node.op_type in _ALPHAS:
            places.append((site, node, _IN_AN_ATTRIBUTE))
        if node.op_type in _SCALARS:
            slots = range(len(node.input))
            places += [(site, node, slot) for slot in slots if _is_factor(atlas, site, slot)]
    for position in rng.permutation(len(places)):
        site, node, slot = places[position]
        name = _ALPHAS[node.op_type][0] if slot == _IN_AN_ATTRIBUTE else node.input[slot]
        text = f"scalar {name} of {called(node)} 10% too large"
        yield Fault("stale scalar", site, text, slot, factor=1.1)


def _is_factor(atlas: Atlas, site: Site, slot: int) -> bool:
    """True for a finite scalar that a multiplication changes, and that isn't an epsilon."""
    tensor = atlas.constant(site, slot)
    if tensor is None or not _is_scalar(tensor) or _is_epsilon(atlas, tensor):
        return False
    value = _number(atlas, tensor)
    return value != 0 and bool(np.isfinite(value))


def _stale(edit: Edit) -> None:
    if edit.fault.slot == _IN_AN_ATTRIBUTE:
        _scale_attribute(edit, *_ALPHAS[edit.node.op_type])
    else:
        _scale_constant(edit)


def _find_scales(atlas: Atlas, rng: np.random.Generator) -> Iterator[Fault]:
    places: list[Place] = []
    for site, node in atlas.nodes:
        if node.op_type in _SCALES:
            places.append((site, node, _SCALES[node.op_type]))
    for position in rng.permutation(len(places)):
        site, node, slot = places[position]
        tensor = atlas.constant(site, slot)
        if tensor is not None and tensor.data_type in FLOATS:
            element = int(rng.integers(size_of(tensor)))
            scale = f"quantization scale {node.input[slot]} of {called(node)}"
            text = f"{scale} 10% too large at {element}"
            yield Fault("quantization scale", site, text, slot, (element,), 1.1)


KINDS = (
    FaultKind("epsilon x100", _find_epsilons, _enlarge),
    FaultKind("stale scalar", _find_scalars, _stale),
    FaultKind("quantization scale", _find_scales, multiply),
)
