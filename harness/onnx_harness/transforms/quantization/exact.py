"""Find what computes positions, angles, counts and indices: 256 levels can't tell them apart.

The conversion to float16 knows them by where they come from and where they go, and leaves them in
float32 for the same reason: a level of positions up to 1000 is 4 wide.
"""

from __future__ import annotations

import contextlib
import math

import onnx

from onnx_harness.model.messages import copy_fields
from onnx_harness.model.ops import imports_standard, opset_of
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.positions import exact_steps
from onnx_harness.transforms.half.schemas import DEFAULT_OP_BLOCK_LIST

# Only numbers that stand alone are looked at: of larger constants the shape says all.
_LOOKED_AT = 64
_ANY_OPSET = 13


def exact_outputs(model: onnx.ModelProto) -> frozenset[str]:
    """Return the outputs of nodes of the main graph that compute such values.

    Args:
        model: it stays as it is.
    """
    skeleton = _without_weights(model)
    opset = opset_of(model) if imports_standard(model) else _ANY_OPSET
    names: set[str] = set()
    with contextlib.closing(Reading(skeleton, opset, onnx.TensorProto.FLOAT16)) as reading:
        for step in exact_steps(reading, DEFAULT_OP_BLOCK_LIST, ()):
            if step.scope is reading.scopes[0]:
                names.update(step.outs)
    return frozenset(names - {""})


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    copy_fields(model, result, but="graph")
    result.graph.SetInParent()
    copy_fields(model.graph, result.graph, but="initializer")
    for tensor in model.graph.initializer:
        twin = result.graph.initializer.add()
        if math.prod(tensor.dims) > _LOOKED_AT:
            twin.name, twin.data_type = tensor.name, tensor.data_type
            twin.dims.extend(tensor.dims)
        else:
            twin.CopyFrom(tensor)
    return result
