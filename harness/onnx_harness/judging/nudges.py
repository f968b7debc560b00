"""Move the last bits of inputs, of constants and of what a model rounds; or compute in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnx_harness.errors import NotApplicable
from onnx_harness.judging.float64 import to_double, without_kernel
from onnx_harness.judging.last_bits import AMOUNT, EDGES, FOUR_UNITS, NOTHING, ONE_UNIT
from onnx_harness.judging.runs import in_memory, nudged, open_cpu
from onnx_harness.model.file import Model


def nudge_inputs(
    values: Mapping[str, Any], generator: np.random.Generator
) -> dict[str, Any]:
    """Move the last bit of every float of the inputs."""
    return {name: nudged(value, generator) for name, value in values.items()}


def nudge_inside(
    values: Mapping[str, Any], generator: np.random.Generator
) -> dict[str, Any]:
    """Move the last bits of inputs, of constants and of what step functions read."""
    return {**nudge_inputs(values, generator), AMOUNT: ONE_UNIT, EDGES: ONE_UNIT}


def nudge_further(
    values: Mapping[str, Any], generator: np.random.Generator
) -> dict[str, Any]:
    """Move what is inside by four units: as far as a kernel that sums integers may be off.

    Such a kernel rounds a product of scales, and that product times a sum, before it rounds to a
    step. Floats between quantizers are rounded once more or less, and in another order.
    """
    return {**nudge_inputs(values, generator), AMOUNT: FOUR_UNITS, EDGES: FOUR_UNITS}


def nudge_constants(values: Mapping[str, Any], _: np.random.Generator) -> dict[str, Any]:
    """Move the last bits of the constants alone."""
    return {**values, AMOUNT: ONE_UNIT, EDGES: NOTHING}


def in_double(model: Model) -> Any:
    """Return a session of the model in float64.

    Raises:
        NotApplicable: ONNX Runtime lacks a kernel for it.
    """
    lacking = without_kernel(model.skeleton)
    if lacking:
        raise NotApplicable(
            f"ONNX Runtime has no kernel of float64 for {', '.join(lacking)}"
        )
    changed = in_memory(model)
    to_double(changed)
    return open_cpu(changed)


def as_double(values: Mapping[str, Any], _: np.random.Generator) -> dict[str, Any]:
    """Return the inputs with float64 for float32."""

    def wide(value: Any) -> Any:
        if isinstance(value, list):
            return [wide(each) for each in value]
        return value.astype(np.float64) if value.dtype == np.float32 else value

    return {name: wide(value) for name, value in values.items()}
