"""The range of a float16 model is watched though ONNX Runtime's optimizer breaks the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_harness.inputs import InputSet
from onnx_harness.judging.overflow import overflows_of
from onnx_harness.model.file import Model
from onnx_harness.results.cache import Cache
from onnx_harness.transforms.fp16 import convert_float_to_float16

# ONNX Runtime 1.32 joins the two to a Clip from 0 to -1, and refuses that.
BROKEN = """<ir_version: 6, opset_import: ["" : 10]>
agraph (float[n,4] x) => (float[n,4] y) {
    r = Relu (x)
    c = Clip <min = -2.0, max = -1.0> (r)
    h = Mul (c, x)
    y = Mul (h, h)
}"""


@pytest.mark.parametrize(("scale", "overflows"), [(1.0, 0), (1e3, 1)])
def test_where_no_level_of_the_optimizer_takes_the_model(
    scale: float, overflows: int, tmp_path: Path
) -> None:
    converted = convert_float_to_float16(onnx.parser.parse_model(BROKEN), keep_io_types=True)
    path = tmp_path / "m.onnx"
    onnx.save(converted, path)
    with pytest.raises(Exception, match="min_ <= max_"):
        ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    sets = [InputSet("one", {"x": np.full((2, 4), scale, np.float32)})]
    assert len(overflows_of(Model(path), sets, Cache(tmp_path / "cache"))) == overflows
