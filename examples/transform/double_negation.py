"""A transform of one's own: `pytest model.onnx --variant double_negation`.

Its package declares it in pyproject.toml:

    [project.entry-points."onnx_harness.transforms"]
    double_negation = "double_negation"

A summary, the function and the names of its forms are all that is needed. A form presets options;
options are named with their types, and a user writes them in parentheses:
`double_negation(limit=3)`. Other fields of `onnx_harness.transforms.Transform` say what the step
leaves behind (`precision`), what it needs (`requires`), which groups it belongs to (`groups`), or
whether it is calibrated on inputs (`calibrated`).
"""

from __future__ import annotations

import onnx

from onnx_harness.transforms import Transform


def remove(model: onnx.ModelProto, limit: int = 100) -> onnx.ModelProto:
    """Remove pairs of Neg that undo one another, at most ``limit``.

    The model that is passed in may be changed.
    """
    producers = {node.output[0]: node for node in model.graph.node if node.op_type == "Neg"}
    for node in list(producers.values())[:limit]:
        inner = producers.get(node.input[0])
        if inner is not None:
            node.op_type = "Identity"
            node.input[0] = inner.input[0]
    return model


TRANSFORM = Transform(
    summary="removes double negations",
    apply=remove,
    forms={"double_negation": {}},
    options={"limit": int},
)
