"""Constants as their readers see them.

Through what only moves values, and as numbers where they are few.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx.numpy_helper import to_array

from onnx_harness.model.constants import constant_tensor
from onnx_harness.model.ops import MOVES
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.steps import Step

# More elements than an epsilon, a limit or a mask's number for each head has, and fewer than a
# weight's.
_FEW = 64
# As numpy reads raw data, in a tenth of the time that onnx takes.
_RAW = {
    int(onnx.TensorProto.FLOAT): "<f4",
    int(onnx.TensorProto.INT32): "<i4",
    int(onnx.TensorProto.INT64): "<i8",
}


def constant_behind(reading: Reading, name: str) -> onnx.TensorProto | None:
    """Return the constant whose elements a value has.

    Exporters share equal weights through Identity.

    Args:
        reading: the graphs of the model.
        name: of the value. What a Slice or a Gather takes of a constant is looked for too.

    Returns:
        The constant, of which the value may be a part; None where it isn't one alone. The default
        of an input counts as well: exporters list every weight among the inputs.
    """
    while True:
        tensor = reading.initializers.get(name, reading.defaults.get(name))
        if tensor is not None:
            return tensor
        maker = reading.makers.get(name)
        if not isinstance(maker, Step):
            return None
        if maker.op == "Constant":
            return maker.tensor or constant_tensor(maker.node)
        if maker.op not in MOVES or maker.op == "Concat":
            return None
        name = maker.ins[0]


def few_numbers(reading: Reading, name: str) -> list[float]:
    """Return the elements of a small constant of float32, int32 or int64.

    None for whatever else.
    """
    tensor = constant_behind(reading, name)
    if tensor is None or math.prod(tensor.dims[:]) > _FEW or tensor.data_type not in _RAW:
        return []
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return []
    raw = tensor.raw_data
    array = np.frombuffer(raw, _RAW[tensor.data_type]) if raw else to_array(tensor)
    numbers: list[float] = array.reshape(-1).tolist()
    return numbers
