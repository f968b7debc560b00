"""int8.static: what reads or gives NaN or infinity as a model is calibrated."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from onnx_harness.transforms import remarks
from onnx_harness.transforms.quantization.aliases import Aliases
from onnx_harness.transforms.quantization.unbounded import Unbounded, run_bounded
from tests.unit.test_transforms_int8 import quantized, samples_for, signal_db, weighted
from tests.unit.transform_models import floats, ops

# The end of the model is quantized in any case.
_MODEL = (
    "agraph (float[2,4] x) => (float[2,4] y) <float none = {0.0}, int64[2] s = {2, 4}, "
    "float big = {900.0}, float two = {2.0}> { %s h = MatMul(d, w) y = Add(h, d) }"
)
_DROPPED = "same = Equal(x, x) d = Where(same, x, m)"


@pytest.mark.parametrize(
    "part",
    [
        f"z = Mul(x, none) n = Div(z, z) [moved] m = Reshape(n, s) {_DROPPED}",
        f"z = Mul(x, big) n = Exp(z) [moved] m = Mul(n, two) {_DROPPED}",
    ],
    ids=["nan", "infinite"],
)
def test_what_has_no_range_stays_in_float_and_is_named(part: str) -> None:
    model = weighted(_MODEL % part, w=(4, 4))
    with remarks() as said:
        result = quantized(model, "int8.static", samples_for(model))
    assert ops(result)["QuantizeLinear"]
    assert signal_db(model, result, floats(2, 4)) > 20
    (remark,) = (each for each in said if each.startswith("left in float: "))
    assert "moved" in remark
    assert "NaN or infinity" in remark


def test_another_failure_of_the_library_is_raised(tmp_path: Path) -> None:
    model = weighted(
        "agraph (float[2,4] x) => (float[2,4] y) { y = MatMul(x, w) }", w=(4, 4)
    )
    aliases = Aliases(model)
    source = tmp_path / "model.onnx"
    onnx.save_model(model, source)

    def fail(_: Unbounded) -> None:
        raise AssertionError("another one")

    feeds = [{aliases.of_value("x"): floats(2, 4)}]
    with pytest.raises(AssertionError, match="another one"):
        run_bounded(fail, source, tmp_path / "quantized.onnx", feeds, aliases)
