"""The set with a dimension beyond what float16 counts to: which models get it, and what it shows."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import onnx_harness
from onnx_harness import inputs
from onnx_harness.cards.card import InputSpec
from onnx_harness.inputs import InputSet
from onnx_harness.judging.reference import Reference
from onnx_harness.providers.running import run
from tests.models import model

# Position p of a sequence gets sin(p / 2). Both are right up to 2,048 positions.
POSITIONS = """(float[1,seq,4] x) => (float[1,seq,4] y)
    <int64[1] axis = {{1}}, int64 zero = {{0}}, int64 one = {{1}}, float half = {{0.5}}> {{
    shape = Shape(x)  sized = Gather<axis = 0>(shape, axis)  length = Squeeze(sized)
    positions = Range(zero, length, one)  {cast}  column = Unsqueeze(p, axis)
    angles = Mul(column, half)  wave = Sin(angles)  y = Add(x, wave) }}"""
IN_FLOAT32 = POSITIONS.format(cast="p = Cast<to = 1>(positions)")
IN_FLOAT16 = POSITIONS.format(cast="h = Cast<to = 10>(positions)  p = Cast<to = 1>(h)")


def sets_of(
    made: onnx.ModelProto, specs: dict[str, InputSpec] | None = None
) -> list[InputSet]:
    session = ort.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return inputs.generate(
        made, specs or {}, try_run=lambda values: run(session, values), unusual=True
    )


def large(made: onnx.ModelProto, specs: dict[str, InputSpec] | None = None) -> list[str]:
    return [each.name for each in sets_of(made, specs) if each.large]


def test_a_length_that_is_free_gets_a_set_beyond_2048_after_the_usual_ones() -> None:
    sets = sets_of(model(IN_FLOAT32))
    assert [each.name for each in sets if each.large] == ["large (seed 0, 1x3001x4)"]
    assert [each.large for each in sets[:5]] == [False] * 4 + [True]


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(
            "(float[n,4,4] x) => (float[n,4,4] y) { y = Relu(x) }", id="a batch alone"
        ),
        pytest.param(
            "(float[1,8] x) => (float[1,8] y) { y = Relu(x) }", id="nothing is free"
        ),
        pytest.param(
            "(float[1,seq,64] x) => (float[1,seq,seq] y)"
            "{ t = Transpose<perm = [0, 2, 1]>(x)  y = MatMul(x, t) }",
            id="every position with every other",
        ),
        pytest.param(
            "(float[1,samples] audio) => (float[1,samples] y) { y = Tanh(audio) }",
            id="16,000 are usual",
        ),
    ],
)
def test_no_set_is_large_where(graph: str) -> None:
    assert large(model(graph)) == []


def test_a_card_that_says_the_shapes_is_believed() -> None:
    assert large(model(IN_FLOAT32), {"x": InputSpec(shapes=((1, 7, 4),))}) == []


def test_a_model_that_refuses_the_size_goes_without() -> None:
    zeros = ", ".join(["0"] * 256)
    table = f"(float[1,seq,4] x) => (float[1,seq,4] y) <float[1,64,4] w = {{{zeros}}}> {{"
    made = model(
        table + "s = Shape<start = 1, end = 2>(x)  one = Constant<value_ints = [1]>()"
        " zero = Constant<value_ints = [0]>()  p = Slice(w, zero, s, one)  y = Add(x, p) }"
    )
    assert large(made) == []


def test_timing_and_what_belongs_to_others_go_without_it() -> None:
    sets = tuple(sets_of(model(IN_FLOAT32)))
    reference = Reference(sets, ({},) * len(sets), frozenset())
    assert reference.usual == [0, 1, 2, 3, 4]
    assert reference.everyday == [0, 1, 2, 3]


def test_positions_in_float16_are_wrong_above_2048_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
    verdict = onnx_harness.verify(model(IN_FLOAT32), candidate=model(IN_FLOAT16))
    assert not verdict
    assert "not faithful: output y" in str(verdict.reason)
    assert "large (seed 0, 1x3001x4)" in verdict.report()


@pytest.mark.parametrize("step", ["int8.static", "int8.mixed"])
def test_ranges_that_were_calibrated_on_shorter_inputs_are_not_judged_there(
    step: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A sum over the length leaves every calibrated range."""
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
    graph = """(float[1,seq,4] x) => (float[1,2] y)
        <int64[1] axis = {1}, float[4,2] w = {0.5, 0.2, -0.3, 0.1, 0.4, -0.6, 0.7, 0.9}> {
        size = Abs(x)  s = ReduceSum<keepdims = 0>(size, axis)  y = MatMul(s, w) }"""
    verdict = onnx_harness.verify(model(graph), variant=f"{step}(weight_type='uint8')")
    assert verdict, verdict.report()


def test_sets_behind_the_large_one_are_judged_in_int8(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Those that hold every index of a table come after it."""
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
    small = model(
        """(int64[n,l] x) => (float[n,l,2] y)
        <float[4,2] t = {0.1, 0.2, -0.3, 0.4, 0.5, -0.6, 0.7, -0.8}, float[2,2] w = {1, 2, 3, -4}> {
        e = Gather(t, x)  y = MatMul(e, w) }"""
    )
    verdict = onnx_harness.verify(small, variant="int8.dynamic")
    assert verdict, verdict.report()


def test_a_choice_gets_a_set_of_many_rows() -> None:
    """A weight of one class among 40 changes the choice in a row of hundreds."""
    made = model(
        "(float[n,24] x) => (int64[n] y) { s = MatMul(x, w)  y = ArgMax<axis = 1>(s) }"
    )
    made.graph.output[0].type.tensor_type.shape.dim.add(dim_value=1)
    weights = np.random.default_rng(0).normal(size=(24, 40)).astype(np.float32)
    made.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    assert large(made) == ["large (seed 0, 501x24)"]


def test_a_table_gets_a_set_of_many_rows() -> None:
    """A probability that is nearly always 0 shows a weight in a row of hundreds."""
    made = model(
        "(float[n,8] x) => (float[n,1] y) <float far = {30}>"
        "{ s = ReduceSum<keepdims = 1>(x, one)  c = Sub(s, far)  d = Mul(c, far)  y = Sigmoid(d) }"
    )
    made.graph.initializer.append(numpy_helper.from_array(np.asarray([1]), "one"))
    assert large(made) == ["large (seed 0, 3001x8)"]
