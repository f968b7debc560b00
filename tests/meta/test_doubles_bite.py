"""A model in float64 is judged by float64's last bits: what goes through float32 fails."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from onnx_harness.cell.comparison import Pair, compare_models
from onnx_harness.cell.matrix import card_for
from onnx_harness.judging import noise_floor
from onnx_harness.judging.float64 import double_outputs
from onnx_harness.settings import Settings
from tests.models import model, save

RIGHT = "(double[n,8] x) => (double[n,8] y) <double k = {3}> { z = Mul(x, k) y = Tanh(z) }"
THROUGH_FLOAT = (
    "(double[n,8] x) => (double[n,8] y) <double k = {3}>"
    "{ z = Mul(x, k) f = Cast<to = 1>(z) d = Cast<to = 11>(f) y = Tanh(d) }"
)
# Another order of the same.
ROUNDED_OTHERWISE = (
    "(double[n,8] x) => (double[n,8] y) <double k = {1.5}, double two = {2}>"
    "{ a = Mul(x, two) z = Mul(a, k) y = Tanh(z) }"
)


def reason(folder: Path, right: str, other: str) -> str | None:
    a, b = save(model(right), folder / "a.onnx"), save(model(other), folder / "b.onnx")
    return compare_models(Pair(a, b, card_for(a), "cpu", None, False, Settings())).reason


def test_what_float32_rounds_away_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    assert "not faithful: output y" in str(reason(tmp_path, RIGHT, THROUGH_FLOAT))
    assert reason(tmp_path, RIGHT, ROUNDED_OTHERWISE) is None
    # With float32 inside, its last bits are the model's own noise.
    assert reason(tmp_path, THROUGH_FLOAT, RIGHT) is None
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "blind"))
    monkeypatch.setattr(noise_floor, "double_outputs", lambda _: ())
    assert reason(tmp_path, RIGHT, THROUGH_FLOAT) is None


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        (RIGHT, ("y",)),
        (THROUGH_FLOAT, ()),
        ("(float[n] x) => (double[n] y) { y = Cast<to = 11>(x) }", ()),
        ("(double[n] x) => (float[n] y) { y = Cast<to = 1>(x) }", ()),
        ("(double[n] x) => (double[n] y, bool[n] z) { y = Neg(x) z = IsNaN(y) }", ("y",)),
        (
            "(double[n] x) => (double[n] y) { c = Constant<value_float = 2.0>() y = Neg(x) }",
            (),
        ),
    ],
)
def test_a_narrower_float_anywhere_means_that_its_last_bits_count(
    graph: str, found: tuple[str, ...]
) -> None:
    assert double_outputs(model(graph)) == found


def test_what_has_no_type_may_be_narrower() -> None:
    made = model("(double[n] x) => (double[n] y) { z = Neg(x) y = Neg(z) }")
    made.graph.node[0].domain = "somebody.else"
    made.opset_import.append(onnx.helper.make_opsetid("somebody.else", 1))
    assert double_outputs(made) == ()
