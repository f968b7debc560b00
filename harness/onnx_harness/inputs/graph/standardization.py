"""Where a model expects its inputs to lie: around the constants that it subtracts first.

A trained model standardizes its features: (x - mean) / deviation. Noise around zero, fed to
features with a mean of 700, lies a hundred deviations away from all that the model tells apart, and
its outputs say one thing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_harness.inputs.graph.attributes import attribute, label
from onnx_harness.inputs.graph.scopes import Scope
from onnx_harness.inputs.graph.signature import Input
from onnx_harness.inputs.graph.tables import ML

Floats = NDArray[np.float64]

_FORWARDING = frozenset(
    {
        "Cast",
        "Flatten",
        "Identity",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
    }
)
_MOST_STEPS = 64
_MOST_CENTRES = 64
# Noise with a deviation of 1 reaches so many deviations from its centre, now and then.
_FAR = 3.0
# Where nothing says how far values spread: a feature with a mean of 40 spreads by 10.
_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Standardization:
    """Where values lie.

    Attributes:
        centres: rows of constants; each has a number for each element of the last axis, or one for
            all.
        spread: the deviations along the last axis, or one for all.
        why: the end of a sentence.
    """

    centres: tuple[tuple[float, ...], ...]
    spread: tuple[float, ...]
    why: str

    def placed(self, values: NDArray[np.generic], rng: np.random.Generator) -> Floats:
        """Move a signal around zero to a centre, and spread it.

        Args:
            values: of any shape with the last axis of the input.
            rng: chooses the centre of each row.
        """
        wide = values.astype(np.float64)
        rows = rng.integers(0, len(self.centres), wide.shape[:-1])
        return np.asarray(wide * np.asarray(self.spread) + np.asarray(self.centres)[rows])


def standardization(scope: Scope, entry: Input) -> Standardization | None:
    """Return where the values of a float input lie; None where noise around zero does.

    Args:
        scope: the main graph.
        entry: the input; its last axis has a fixed size, or one number is subtracted from all.
    """
    if not entry.is_float or not entry.dims:
        return None
    width = entry.dims[-1] if isinstance(entry.dims[-1], int) else 0
    for node, slot in _readers(scope, entry.name):
        is_by_row = node.op_type != "BatchNormalization" or len(entry.dims) == 2
        found = _of(scope, node, slot) if is_by_row else None
        if found is None:
            continue
        centres, spread = (_as_rows(part, width) for part in found)
        if centres is None:
            continue
        deviations = _deviations(centres) if spread is None else np.abs(spread[0])
        deviations = np.where(np.isfinite(deviations) & (deviations > 0), deviations, 1.0)
        if not np.isfinite(centres).all() or not _is_far(centres, deviations):
            continue
        rows = tuple(tuple(map(float, row)) for row in centres[:_MOST_CENTRES])
        why = f"it is standardized in {label(node)}"
        return Standardization(rows, tuple(map(float, deviations)), why)
    return None


def _readers(scope: Scope, name: str) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Yield the nodes that compute with a value, behind those that only reshape it."""
    names = [name]
    for step in range(_MOST_STEPS):
        if step >= len(names):
            return
        for node, slot in scope.uses.get(names[step], ()):
            if node.op_type in _FORWARDING and slot == 0:
                names.append(node.output[0])
            else:
                yield node, slot


def _of(
    scope: Scope, node: onnx.NodeProto, slot: int
) -> tuple[NDArray[np.generic], NDArray[np.generic] | None] | None:
    """Return what a node subtracts and, where that is known, by what it divides then."""
    domain = node.domain.replace("ai.onnx.ml", ML)
    if (domain, node.op_type) == (ML, "Scaler"):
        offset = np.asarray(attribute(node, "offset", ()), np.float64)
        scale = np.asarray(attribute(node, "scale", ()), np.float64)
        return (offset, _inverse(scale)) if offset.size else None
    if node.op_type == "BatchNormalization" and slot == 0:
        mean = scope.constant(node.input[3])
        variance = scope.constant(node.input[4])
        if mean is None or variance is None:
            return None
        return mean, np.sqrt(np.maximum(variance.astype(np.float64), 0.0))
    if node.op_type == "Add" or (node.op_type == "Sub" and slot == 0):
        constant = scope.constant(node.input[1 - slot])
        if constant is None or not np.issubdtype(constant.dtype, np.floating):
            return None
        divisor = _divided(scope, node.output[0])
        # What is added, and not scaled then, is as often a bias or an embedding of positions.
        if node.op_type == "Add" and divisor is None:
            return None
        sign = -1.0 if node.op_type == "Add" else 1.0
        return sign * constant.astype(np.float64), divisor
    return None


def _divided(scope: Scope, name: str) -> NDArray[np.generic] | None:
    for node, slot in scope.uses.get(name, ()):
        if node.op_type == "Div" and slot == 0:
            return scope.constant(node.input[1])
        if node.op_type == "Mul":
            factor = scope.constant(node.input[1 - slot])
            return None if factor is None else _inverse(factor.astype(np.float64))
    return None


def _inverse(scale: NDArray[np.generic]) -> Floats | None:
    if scale.size == 0:
        return None
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / np.abs(scale.astype(np.float64)))


def _as_rows(values: NDArray[np.generic] | None, width: int) -> Floats | None:
    """Return constants as rows of the input's last axis; None where they are along another."""
    if values is None or values.size == 0:
        return None
    if values.size == 1:
        return values.astype(np.float64).reshape(1, 1)
    if width == 0 or values.shape[-1] != width:
        return None
    return values.astype(np.float64).reshape(-1, width)


def _deviations(centres: Floats) -> Floats:
    """Return how far values spread, from how far their centres do, or from how large they are."""
    if len(centres) > 1:
        return np.asarray(centres.std(axis=0))
    return np.asarray(np.maximum(np.abs(centres[0]) * _SHARE, 1.0))


def _is_far(centres: Floats, deviations: Floats) -> bool:
    return bool(np.any(np.abs(centres) > _FAR * np.maximum(deviations, 1.0)))
