"""Outputs that are picked out of a table: where no bit may change, and where it may."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.accuracy.explain import Yardstick
from onnx_harness.accuracy.noise import Noise, gap_of
from onnx_harness.accuracy.tolerance import choose
from onnx_harness.judging.picked import picked_outputs
from onnx_harness.transforms import Precision
from tests.comparing import compare
from tests.forests import forest
from tests.models import model


def weighted(text: str) -> onnx.ModelProto:
    made = model(text)
    made.graph.initializer.append(numpy_helper.from_array(np.ones((5, 2), np.float32), "w"))
    return made


def classifier() -> onnx.ModelProto:
    """One tree that chooses a class: what it gives as scores is computed of its leaves."""
    made = forest(trees=1)
    [node] = made.graph.node
    node.op_type = "TreeEnsembleClassifier"
    for attribute in node.attribute:
        if attribute.name.startswith("target_"):
            attribute.name = attribute.name.replace("target_", "class_")
    [count] = [attribute for attribute in node.attribute if attribute.name == "n_targets"]
    node.attribute.remove(count)
    node.attribute.append(onnx.helper.make_attribute("classlabels_int64s", [0]))
    node.output[:] = ["label", "y"]
    return made


@pytest.mark.parametrize(
    ("made", "picked"),
    [
        (weighted("(int64[n] k) => (float[n,2] y) { y = Gather(w, k) }"), ("y",)),
        (weighted("(int64[n] k) => (float[n,2] y) { r = Gather(w, k) y = Mul(r, r) }"), ()),
        (
            weighted("(float[5,2] x, bool[5,2] b) => (float[5,2] y) { y = Where(b, x, w) }"),
            ("y",),
        ),
        (
            weighted(
                "(float[5,2] x, bool[5,2] b) => (float[5,2] y) { s = Exp(x) y = Where(b, s, w) }"
            ),
            (),
        ),
        (
            model(
                "(int64[n] k) => (float[n] y, float[n] z) "
                "{ c = Constant <value = float[2] {1, 2}> () y = Gather(c, k) z = Neg(y) }"
            ),
            ("y",),
        ),
        (
            model(
                "(int64[n] k) => (float[n] y) { y = ai.onnx.ml.LabelEncoder"
                "<keys_int64s = [1], values_floats = [2.0]> (k) }",
                domains=', "ai.onnx.ml" : 2',
            ),
            ("y",),
        ),
        (forest(trees=1), ("y",)),
        (classifier(), ()),
        (forest(trees=2), ()),
        (
            weighted(
                "(float[5,2] x, bool[5,2] b) => (float[5,2] y) "
                "{ s = Exp(x) r = Identity(w) y = Where(b, s, r) }"
            ),
            (),
        ),
        (forest(trees=1, post_transform="LOGISTIC"), ()),
    ],
)
def test_what_is_picked_and_what_is_computed(
    made: onnx.ModelProto, picked: tuple[str, ...]
) -> None:
    assert picked_outputs(made) == picked


def test_a_last_bit_of_a_picked_output_is_a_change_and_of_a_computed_one_noise() -> None:
    right = np.linspace(1, 2, 8, dtype=np.float32)
    wrong = right.copy()
    wrong[3] = np.nextafter(wrong[3], np.float32(9))
    for names, passes in (((), True), (("y",), False)):
        yardstick = Yardstick(Noise(({"y": gap_of(right, right)},), picked=names))
        found = compare(
            [{"y": right}], [{"y": wrong}], lambda _: choose(Precision.FP32, None, None), set_names=["one"],
            yardstick=yardstick,
        )  # fmt: skip
        assert found.passed is passes
