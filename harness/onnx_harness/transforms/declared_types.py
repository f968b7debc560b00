"""The types of values that onnx can't infer, as ONNX Runtime does.

Where a value has no type, conversions and onnxruntime.quantization leave it and all that follows
alone: what a custom library's operators give, and, for the quantizers, GroupNormalization (onnx
1.23) and ONNX Runtime's own operators.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness.model.custom_ops import in_foreign_sessions, libraries_digest

if TYPE_CHECKING:
    import onnx

_MOST_BYTES = 2**31 - 1  # of one message

_TYPES = {"tensor(float)": 1, "tensor(float16)": 10}  # of TensorProto


def declare_custom_types(model: onnx.ModelProto) -> None:
    """Do so where libraries of custom operators are registered; beyond 2 GB nothing is stated.

    Args:
        model: it's changed.
    """
    from onnx_harness.model.size import byte_size

    if not libraries_digest() or byte_size(model) > _MOST_BYTES:
        return
    prefix = "onnx-harness-types-"
    with tempfile.TemporaryDirectory(prefix=prefix) as folder, in_foreign_sessions():
        declare_float_types(model, Path(folder))


def declare_float_types(model: onnx.ModelProto, folder: Path) -> None:
    """State of each value of the main graph that it's float, where onnx wouldn't find out.

    Nothing is stated where ONNX Runtime can't load the model either.

    Args:
        model: of up to 2 GB; it's changed.
        folder: where a copy may be written.
    """
    from onnx_harness.model.inference import infer_types

    inferred = infer_types(model).graph
    known = {info.name for info in (*inferred.value_info, *inferred.output, *inferred.input)}
    unknown = []
    for node in model.graph.node:
        for name in node.output:
            if name and name not in known:
                unknown.append(name)
    if not unknown:
        return
    stated = {info.name: info for info in model.graph.value_info}
    for name, kind in _types_by_session(model, unknown, folder / "exposed.onnx").items():
        if kind in _TYPES:
            info = stated[name] if name in stated else model.graph.value_info.add(name=name)
            info.type.tensor_type.elem_type = _TYPES[kind]


def _types_by_session(
    model: onnx.ModelProto, names: list[str], file: Path
) -> dict[str, str]:
    import onnx
    import onnxruntime

    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    for name in names:
        exposed.graph.output.add(name=name)  # of the type that ONNX Runtime infers
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnx.save_model(exposed, file)
        session = onnxruntime.InferenceSession(
            file, options, providers=["CPUExecutionProvider"]
        )
    except Exception:  # what ONNX Runtime raises has no common class
        return {}
    finally:
        file.unlink(missing_ok=True)
    return {output.name: output.type for output in session.get_outputs()}
