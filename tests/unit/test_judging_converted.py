"""What conversions cost, in numbers: blocks of 4 bits, precisions in a graph, scales of logits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.accuracy.explain import MOST_ELEMENT, Yardstick
from onnx_harness.accuracy.noise import Gap, Noise
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging import reference as referring
from onnx_harness.judging.emulation import half_as_hardware
from onnx_harness.judging.generation.verdict import _scale, explained_by
from onnx_harness.judging.half_range import computes_in_half
from onnx_harness.judging.level_pairs import fixed_pair
from onnx_harness.judging.mixed.quantized import agreement
from onnx_harness.judging.overflow import overflowing
from onnx_harness.judging.precision import loosest
from onnx_harness.judging.quantizing import Scheme, quantize_through, quantized
from onnx_harness.judging.reference import Reference, given
from onnx_harness.judging.rounding import round_through
from onnx_harness.judging.runs import open_cpu
from onnx_harness.model.file import Model
from onnx_harness.providers.running import run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.cache import Cache
from onnx_harness.transforms import Precision
from tests.models import model, save
from tests.unit.test_transforms_int8 import weighted

BLOCKS = Scheme(frozenset({"MatMul"}), static=False, block=2)
UNSIGNED = replace(BLOCKS, signed_weights=False)


@pytest.mark.parametrize(
    ("scheme", "column", "levels"),
    [
        (BLOCKS, [1.0, -8.0, 3.0], [1.0, -8.0, 2.625]),
        (BLOCKS, [8.0, 0.4, -0.0], [7.0, 0.0, 0.0]),
        (BLOCKS, [0.0, 0.0, 16.0, 3.1], [0.0, 0.0, 14.0, 4.0]),
        (UNSIGNED, [1.0, -8.0, 3.0], [1.2, -7.8, 3.0]),
        (UNSIGNED, [15.0, 3.4, 0.0, 0.0], [15.0, 3.0, 0.0, 0.0]),
        (UNSIGNED, [-15.0, -3.4, 30.0, 15.1], [-15.0, -3.0, 30.0, 16.0]),
        (replace(BLOCKS, block=3), [1.0, -8.0, 3.0], [1.0, -8.0, 3.0]),
    ],
)
def test_weights_in_blocks_have_sixteen_levels_for_each_column(
    scheme: Scheme, column: list[float], levels: list[float]
) -> None:
    weight = np.array([column, [16 * value for value in column]], np.float32).T
    rounded = quantized(weight, scheme, 0)
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(rounded[:, 0], levels, rtol=1e-6)
    np.testing.assert_allclose(rounded[:, 1], 16 * np.array(levels), rtol=1e-6)


BRANCHED = (
    "agraph (float[N,4] x, bool c) => (float[N,4] y) { a = MatMul(x, w) y = If (c) "
    "<then_branch = t () => (float[N,4] p) { q = MatMul(a, w) r = Add(q, v) p = If (c) "
    "<then_branch = u () => (float[N,4] s) { s = MatMul(r, v) }, "
    "else_branch = o () => (float[N,4] s) { s = MatMul(r, r) }> }, "
    "else_branch = e () => (float[N,4] p) "
    "{ k = Constant<value = float[2] {1.5, 2.5}>() z = MatMul(a, odd) p = Neg(z) }> }"
)


def branched() -> onnx.ModelProto:
    made = weighted(BRANCHED, w=(4, 4), v=(4, 4), odd=(4, 4))
    [odd] = [tensor for tensor in made.graph.initializer if tensor.name == "odd"]
    array = numpy_helper.to_array(odd).copy()
    array[0, 0] = np.inf  # has no levels
    odd.CopyFrom(numpy_helper.from_array(array, "odd"))
    return made


def test_matrices_in_bodies_are_rounded_to_blocks_where_they_have_levels() -> None:
    made = branched()
    before = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer
    }
    converted = quantize_through(made, replace(BLOCKS, block=4), {})
    x = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    w, v = (quantized(before[name], replace(BLOCKS, block=4), None) for name in "wv")
    got = run(open_cpu(converted), {"x": x, "c": np.array(True)})["y"]
    np.testing.assert_allclose(got, ((x @ w) @ w + before["v"]) @ v, rtol=1e-4, atol=1e-5)
    node = converted.graph.node[-1]
    bodies = {attribute.name: attribute.g for attribute in node.attribute}
    assert [each.op_type for each in bodies["then_branch"].node] == [
        "Constant",
        "MatMul",
        "Add",
        "If",
    ]
    assert [each.op_type for each in bodies["else_branch"].node] == [
        "Constant",
        "MatMul",
        "Neg",
    ]
    assert "odd" in bodies["else_branch"].node[1].input


@pytest.mark.parametrize(
    ("bounds", "signed", "step", "zero"),
    [
        ((-1.0, 4.1), False, 0.02, 50),
        ((1.0, 5.1), False, 0.02, 0),
        ((-5.1, -1.0), False, 0.02, 255),
        ((0.0, 0.0), False, 1.0, 0),
        ((-2.54, 1.0), True, 0.02, 0),
        ((1.0, 2.54), True, 0.02, 0),
        ((0.0, 0.0), True, 1.0, 0),
    ],
)
def test_a_range_becomes_a_step_and_a_zero_point(
    bounds: tuple[float, float], signed: bool, step: float, zero: int
) -> None:
    constants = [
        numpy_helper.to_array(node.attribute[0].t)
        for node in fixed_pair("a", "b", bounds, signed)[:2]
    ]
    assert constants[0] == pytest.approx(step)
    assert constants[1] == zero
    assert constants[1].dtype == (np.int8 if signed else np.uint8)
    assert constants[0].dtype == np.float32


F32 = "(float[2] x) => (float[2] y) { y = Neg(x) }"


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        (F32, Precision.FP32),
        ("(float16[2] x) => (float[2] y) { y = Cast<to = 1>(x) }", Precision.FP16),
        ("(float[2] x) => (float16[2] y) { y = Cast<to = 10>(x) }", Precision.FP16),
        (
            "(float[2] x) => (float[2] y) { h = Cast<to = 10>(x) y = Cast<to = 1>(h) }",
            Precision.FP16,
        ),
        (
            "(float[2] x) => (float[2] y) { h = Cast<to = 16>(x) y = Cast<to = 1>(h) }",
            Precision.BF16,
        ),
        (
            "(float16[2] x) => (bfloat16[2] y) { h = Cast<to = 1>(x) y = Cast<to = 16>(h) }",
            Precision.BF16,
        ),
        ("(float[2] x) => (float[2] y) { y = Elu<alpha = 10.0>(x) }", Precision.FP32),
        ("(float[2] x) => (float[2] y) { y = Softmax<to = 10>(x) }", Precision.FP32),
        (
            "(float[2] x) => (float[2] y) { c = Constant<value = float16[1] {15360}>() "
            "d = Cast<to = 1>(c) y = Add(x, d) }",
            Precision.FP16,
        ),
        (
            "(float[2] x) => (uint8[2] y) { s = Constant<value = float {1.0}>() y = QuantizeLinear(x, s) }",
            Precision.INT8,
        ),
        ("(float[2] x) => (float[2] y) { y = QLinearAdd(x) }", Precision.INT8),
        ("(float[2] x) => (float[2] y) { y = DynamicQuantizeLinear(x) }", Precision.INT8),
        ("(float[2] x) => (float[2] y) { y = MyQLinear(x) }", Precision.FP32),
        (
            "(float[2] x, bool c) => (float[2] y) { y = If (c) "
            "<then_branch = t () => (float[2] p) { h = Cast<to = 10>(x) p = Cast<to = 1>(h) }, "
            "else_branch = e () => (float[2] p) { p = MatMulInteger(x, x) }> }",
            Precision.INT8,
        ),
    ],
)
def test_the_loosest_arithmetic_is_read_from_types_casts_and_operators(
    text: str, precision: Precision
) -> None:
    made, plain = (
        onnx.parser.parse_graph(f"agraph {text}"),
        onnx.parser.parse_graph(f"agraph {F32}"),
    )
    b, a = (helper.make_model(graph) for graph in (made, plain))
    assert loosest(b, beyond=a) is precision
    assert loosest(b, beyond=b) is Precision.FP32


def test_a_weight_of_a_narrow_type_counts() -> None:
    made = model(F32)
    made.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float16), "w"))
    assert loosest(made, beyond=model(F32)) is Precision.FP16


@pytest.mark.parametrize(
    ("expected", "actual", "share"),
    [
        ([[1, 2], [4, 3]], [[0, 1], [0, 1]], 0.5),
        ([[1, 2, 0]], [[1, 3, 2]], 1.0),
        ([[1], [2]], [[2], [1]], 1.0),
        (5.0, 6.0, 1.0),
        (np.zeros((0, 3)), np.zeros((0, 3)), 1.0),
        ([[[1, 2], [2, 1]], [[1, 2], [1, 2]]], [[[1, 2], [2, 1]], [[1, 2], [2, 1]]], 0.75),
    ],
)
def test_first_choices_agree_row_by_row(expected: Any, actual: Any, share: float) -> None:
    assert agreement(np.array(expected), np.array(actual)) == share


def test_the_scale_of_logits_is_their_greatest_finite_magnitude() -> None:
    assert _scale(np.array([1.0, -3.0, np.inf, np.nan], np.float32)) == 3.0
    assert _scale(np.array([np.nan], np.float32)) == 0.0


def test_two_logits_change_places_within_what_noise_moves_them_by() -> None:
    yardstick = Yardstick(
        Noise(
            ({"l": Gap(greatest=0.01, scale=2.0)}, {"l": Gap(greatest=0.08, scale=4.0)}, {})
        )
    )
    usual = {
        0: {"l": np.array([2.0, 1.0], np.float32)},
        1: {"l": np.array([-4.0, 1.0], np.float32)},
        2: {"l": np.zeros(2, np.float32)},
    }
    logits = np.array([[10.0, -5.0]], np.float32)
    got = explained_by(yardstick, usual, "l", logits)
    assert got == pytest.approx(2 * MOST_ELEMENT * 0.02 * 10.0)
    tailed = Yardstick(replace(yardstick.floor, has_tail=True), usual=(0, 1))
    first = {0: usual[0]}
    assert explained_by(tailed, first, "l", logits) == pytest.approx(got)
    assert explained_by(yardstick, first, "l", logits) == pytest.approx(got / 4)


LARGE = (
    "(float[2] x) => (float[2] y) { h = Cast<to = 10>(x) e = Exp(h) y = Cast<to = 1>(e) }"
)


def refer(path: Path, *values: float, unusual: str = "") -> Reference:
    session = open_cpu(path)
    feeds: list[dict[str, Any]] = [{"x": np.full(2, value, np.float32)} for value in values]
    sets = [InputSet(f"set {place}", feed) for place, feed in enumerate(feeds)]
    sets[-1] = replace(sets[-1], unusual=unusual)
    return Reference(tuple(sets), tuple(run(session, feed) for feed in feeds), frozenset())


@pytest.mark.parametrize(
    ("values", "unusual", "names"),
    [((1.0, 20.0), "", ["e"]), ((1.0, 20.0), "odd", []), ((1.0, 2.0), "", [])],
)
def test_what_overflows_on_usual_sets_is_named_and_rounded(
    tmp_path: Path, values: tuple[float, ...], unusual: str, names: list[str]
) -> None:
    candidate = Model(save(model(LARGE), tmp_path / "b.onnx"))
    original = Model(save(model(F32.replace("Neg", "Exp")), tmp_path / "a.onnx"))
    reference = refer(original.path, *values, unusual=unusual)
    cache = Cache(tmp_path / "cache")
    standard: Any = SimpleNamespace(reference=reference, kept=cache)
    assert [place.value for place in overflowing(standard, candidate)] == names
    calm = Model(save(model(LARGE.replace("Exp", "Neg")), tmp_path / "calm.onnx"))
    assert overflowing(standard, calm) == []  # the cache knows one candidate from another
    assert not computes_in_half(original.skeleton)
    simulation = half_as_hardware(original, reference, candidate, cache)
    assert simulation is not None
    y = run(open_cpu(simulation), {"x": np.full(2, 20.0, np.float32)})["y"]
    assert np.isinf(y).all()
    # Where the untouched model computes in float16 itself, only what overflows is rounded.
    half = half_as_hardware(candidate, reference, candidate, cache)
    assert (half is None) == (not names)
    if half is not None:
        assert np.isinf(run(open_cpu(half), {"x": np.full(2, 20.0, np.float32)})["y"]).all()


def test_a_constant_in_a_node_is_rounded_with_the_rest() -> None:
    text = (
        "(float[2] x) => (float[2] y) { c = Constant<value_float = 0.1>() "
        "d = Constant<value = float[2] {0.1, 0.3}>() i = Constant<value = int64[1] {2}>() "
        "e = Expand(d, i) s = Add(e, c) y = Add(x, s) }"
    )
    converted = round_through(model(text), TensorProto.FLOAT16, None, all_inputs=False)
    got = {}
    for node in converted.graph.node:
        if node.op_type == "Constant" and node.output[0] in "cdi":
            [attribute] = node.attribute
            got[node.output[0]] = helper.get_attribute_value(attribute)
    half = np.array([0.1, 0.3], np.float32).astype(np.float16).astype(np.float32)
    values = {
        name: np.ravel(
            numpy_helper.to_array(held) if isinstance(held, TensorProto) else held
        )
        for name, held in got.items()
    }
    np.testing.assert_array_equal(values["c"], half[:1])
    np.testing.assert_array_equal(values["d"], half)
    assert values["i"].tolist() == [2]


RANDOM = "(float[2] x) => (float[2] y, float[2] z) { y = Neg(x) z = RandomNormalLike(x) }"


def test_given_inputs_are_run_as_they_are_and_with_what_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def opens(*words: Any, **more: Any) -> Any:
        asked.append(more)
        return open_session(*words, **more)

    monkeypatch.setattr(referring, "open_session", opens)
    path = save(model(RANDOM), tmp_path / "m.onnx")
    values: dict[str, Any] = {
        "x": np.array([1.0, 2.0], np.float32),
        "y": np.array([3.0, 4.0], np.float32),
    }
    np.savez(tmp_path / "m.npz", **values)
    answers = given(Model(path), tmp_path / "m.npz")
    [output] = answers.outputs
    assert [sorted(input_set.values) for input_set in answers.sets] == [["x"]]
    assert output["y"].tolist() == [-1.0, -2.0]
    assert answers.unstable == {"z"}
    assert (answers.notes, len(answers.recorded)) == ((), 1)
    assert answers.recorded[0]["y"].tolist() == [3.0, 4.0]
    assert asked == [{"purpose": Purpose.ACCURACY, "level": "disable"}]
