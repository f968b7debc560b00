"""Small models for the tests of transforms, written as text, and the ways of running and counting
them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime


def model_of(text: str, opset: int = 17, ir_version: int = 8) -> onnx.ModelProto:
    """Parse ``agraph (...) => (...) {...}``; functions and their opset imports may follow it."""
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "local" : 1]>'
    model = onnx.parser.parse_model(f"{header} {text}")
    onnx.checker.check_model(model, full_check=True)
    return model


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy, for a transform that may change what it gets."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def run(model: onnx.ModelProto, **feeds: Any) -> list[Any]:
    """The outputs of the model, unoptimized, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: list[Any] = session.run(
        None, {name: np.asarray(value) for name, value in feeds.items()}
    )
    return outputs


def arrays(outputs: list[Any]) -> list[np.ndarray[Any, Any]]:
    """The tensors among the outputs, those of sequences one by one."""
    return [
        array
        for value in outputs
        for array in (value if isinstance(value, list) else [value])
    ]


def ops(model: onnx.ModelProto) -> dict[str, int]:
    """How many nodes there are of each type in the main graph."""
    return dict(Counter(node.op_type for node in model.graph.node))


def floats(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Normally distributed float32 values."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def same_bits(one: list[Any], other: list[Any]) -> bool:
    """Whether two lists of arrays agree in dtype, shape and every bit."""
    return [(a.dtype, a.shape, a.tobytes()) for a in one] == [
        (b.dtype, b.shape, b.tobytes()) for b in other
    ]
