"""What ``simplify`` does about the size of a model: integers stay integers, and growth is bounded
and said.
"""

from __future__ import annotations

import numpy as np

from onnx_harness.transforms import remarks
from onnx_harness.transforms.simplify import simplify, simplify_with_report
from tests.unit.test_transforms_simplify_rules import NORMALIZATION, after, with_weights
from tests.unit.transform_models import floats, model_of, ops, run, same_bits

BN = "BatchNormalization(%s, gamma, beta, mean, variance)"


def test_quantized_weights_stay_integers() -> None:
    model = model_of(
        "agraph (float[N,8] x) => (float[N,4] z) <float scale = {0.01}, float[8,4] w = {WEIGHT}> "
        "{ q = QuantizeLinear(w, scale) f = DequantizeLinear(q, scale) z = MatMul(x, f) }".replace(
            "WEIGHT", ",".join(map(str, range(32)))
        )
    )
    result = simplify(model)
    assert ops(result) == {"DequantizeLinear": 1, "MatMul": 1}
    assert result.ByteSize() < model.ByteSize()
    assert same_bits(run(model, x=floats(3, 8)), run(result, x=floats(3, 8)))


def test_twin_convolutions_take_in_their_normalizations_first() -> None:
    text = (
        f"a = Conv(x, w) b = {BN % 'a'} c = Conv(x, twin) d = "
        f"{BN.replace('gamma', 'other') % 'c'} z = Add(b, d)"
    )
    weights = {
        "w": floats(6, 4, 1, 1),
        "twin": floats(6, 4, 1, 1),
        "other": floats(6, seed=9),
    }
    assert after(
        with_weights(text, 17, **weights, **NORMALIZATION), x=floats(2, 4, 5, 5)
    ) == {
        "Conv": 2,
        "Add": 1,
    }


def test_twins_without_anything_after_them_are_one() -> None:
    text = "a = Conv(x, w) c = Conv(x, twin) z = Add(a, c)"
    weights = {"w": floats(6, 4, 1, 1), "twin": floats(6, 4, 1, 1)}
    assert after(with_weights(text, 17, **weights), x=floats(2, 4, 5, 5)) == {
        "Conv": 1,
        "Add": 1,
    }


def test_shared_weights_are_copied_as_far_as_the_model_may_grow() -> None:
    model = with_weights(
        "y = Conv(x, w) v = Conv(x, w, mean) m = Mul(v, two) z = Add(y, m)",
        w=floats(60, 4, 3, 3),
        two=np.array(2, np.float32),
        mean=floats(60),
    )
    assert after(model, x=floats(1, 4, 5, 5)) == {"Conv": 2, "Add": 1}
    assert ops(simplify_with_report(model, max_growth_bytes=0)[0]) == {
        "Conv": 2,
        "Mul": 1,
        "Add": 1,
    }


def test_a_constant_bias_goes_beside_weights_that_are_computed() -> None:
    model = model_of(
        "agraph (float[N,4,H,W] x, float[6,4,1,1] w, float[M,4,1,1] v) => (float[N,6,H,W] y, "
        "float[A,B,C,D] z) "
        "<float[6,1,1] b = {1,2,3,4,5,6}, float[1] c = {7}> "
        "{ a = Conv(x, w) y = Add(b, a) d = Conv(x, v) z = Add(d, c) }"
    )
    result = simplify(model)
    assert ops(result) == {"Conv": 2, "Add": 1}
    feeds = {"x": floats(2, 4, 3, 3), "w": floats(6, 4, 1, 1), "v": floats(5, 4, 1, 1)}
    for expected, got in zip(run(model, **feeds), run(result, **feeds), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_growth_is_remarked_and_undone_above_the_limit() -> None:
    model = model_of(
        "agraph (float[N,64] x) => (float[N] z) <int64[1] n = {64}> "
        "{ f = ConstantOfShape<value = float[1] {3}>(n) z = MatMul(x, f) }"
    )
    with remarks() as noted:
        grown = simplify(model)
    assert ops(grown) == {"MatMul": 1}
    assert "the model grew from" in noted[0]
    with remarks() as noted:
        assert ops(simplify(model, max_growth_bytes=16)) == {
            "ConstantOfShape": 1,
            "MatMul": 1,
        }
    assert noted == []
