"""Round a value to 256 levels within fixed bounds, as a static quantization does."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Range = tuple[float, float]

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def fixed_pair(
    source: str, target: str, bounds: Range, signed: bool, *, half: bool = False
) -> list[onnx.NodeProto]:
    """Return nodes that round a value to levels within fixed bounds.

    A float16 value is float32 in between: operators before opset 19 take no other.
    """
    least, most = min(bounds[0], 0.0), max(bounds[1], 0.0)
    if signed:
        step, zero = max(-least, most) / 127, np.array(0, np.int8)
    else:
        step = (most - least) / 255
        zero = np.array(round(-least / step) if step else 0, np.uint8)
    names = [f"{target}/{part}" for part in ("step", "zero", "level")]
    before, after = (f"{target}/wide", f"{target}/wide/levels") if half else (source, target)
    nodes = [
        helper.make_node(
            "Constant",
            [],
            names[:1],
            value=numpy_helper.from_array(np.array(step or 1.0, np.float32)),
        ),
        helper.make_node("Constant", [], names[1:2], value=numpy_helper.from_array(zero)),
        helper.make_node("QuantizeLinear", [before, *names[:2]], names[2:]),
        helper.make_node("DequantizeLinear", [names[2], *names[:2]], [after]),
    ]
    if half:
        nodes.insert(2, helper.make_node("Cast", [source], [before], to=_FLOAT))
        nodes.append(helper.make_node("Cast", [after], [target], to=_HALF))
    return nodes
