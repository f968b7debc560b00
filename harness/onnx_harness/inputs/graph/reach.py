"""Find the outputs that can depend on what a model's inputs hold, not merely on their shapes.

Which hold nothing.
"""

from __future__ import annotations

import onnx

from onnx_harness.inputs.graph.signature import default_names
from onnx_harness.model.inference import infer_types
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.ops import is_standard
from onnx_harness.model.walk import reads

# The first input of these gives its shape or its length alone. So does the mask of a Dropout that
# drops nothing, as at inference.
_SHAPE_ONLY = frozenset(
    {"Shape", "Size", "SequenceLength", "EyeLike", "RandomNormalLike", "RandomUniformLike"}
)


def reached_outputs(model: onnx.ModelProto) -> frozenset[str]:
    """The outputs that a path from an input leads to, other than through the shape of something.

    Inputs with a default (an initializer) keep it and don't count, nor do those that hold nothing
    by their shape. Whether anything arrives at the end of a path (it may lead through a
    multiplication by zero) isn't asked.

    Args:
        model: its nodes in the order of their dependence; large initializers may have lost their
            data.
    """
    model = inline_functions(model)
    defaults = default_names(model)
    reached = {info.name for info in model.graph.input if not _is_empty(info)} - defaults
    for node in model.graph.node:
        if is_standard(node, *_SHAPE_ONLY):
            continue
        if not reached.isdisjoint(reads(node)):
            outputs = node.output[:1] if node.op_type == "Dropout" else node.output
            reached.update(filter(None, outputs))
    names = set()
    for info in model.graph.output:
        if info.name in reached:
            names.add(info.name)
    return frozenset(names)


def empty_outputs(model: onnx.ModelProto) -> frozenset[str]:
    """The outputs that hold nothing, whatever goes in.

    By the shape that is declared for them, or inferred.
    """
    outputs = [*model.graph.output, *infer_types(model, follow_sizes=True).graph.output]
    return frozenset(info.name for info in outputs if _is_empty(info))


def _is_empty(info: onnx.ValueInfoProto) -> bool:
    dims = info.type.tensor_type.shape.dim
    return any(dim.HasField("dim_value") and dim.dim_value == 0 for dim in dims)
