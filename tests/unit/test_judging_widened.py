"""What becomes of a model of narrow types in float32, and of one of float32 in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.judging import half_runs
from onnx_harness.judging.float64 import to_double, without_kernel
from onnx_harness.judging.half_runs import float32_inputs, in_type_of, open_simulated
from onnx_harness.judging.runs import open_cpu
from onnx_harness.judging.simulation import PREFIX, promote, simulated
from onnx_harness.model.file import INLINE_BYTES
from onnx_harness.providers.running import run
from onnx_harness.providers.sessions import Purpose
from tests.models import model

FLOAT, HALF, BHALF = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
INT64, DOUBLE = TensorProto.INT64, TensorProto.DOUBLE
NARROW = frozenset({HALF, BHALF})


# runs of such a model


@pytest.mark.parametrize(
    ("size", "by_file"), [(INLINE_BYTES, False), (INLINE_BYTES + 1, True)]
)
def test_a_model_that_no_message_holds_is_opened_from_a_file(
    size: int, by_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def opens(source: Path | bytes, provider: Any, **more: Any) -> str:
        content = source.read_bytes() if isinstance(source, Path) else source
        asked.append(
            (isinstance(source, Path), onnx.load_from_string(content), provider.name, more)
        )
        return "a session"

    monkeypatch.setattr(half_runs, "open_session", opens)
    made = model("(float[2] x) => (float[2] y) { y = Neg(x) }")
    assert open_simulated(made, size, level="disable") == "a session"
    words = {"purpose": Purpose.ACCURACY, "level": "disable", "record_placement": False}
    assert asked == [(by_file, made, "cpu", words)]


def test_inputs_are_widened_and_where_the_model_took_a_narrow_type_rounded_to_it() -> None:
    x = np.array([0.1, 7e4, -3.0], np.float32)
    half, brain = x.astype(ml_dtypes.bfloat16), np.array([0.1], np.float16)
    values: dict[str, Any] = {
        "plain": x,
        "half": x,
        "brain": x,
        "narrow": brain,
        "bits": half,
        "whole": np.array([1]),
        "wide": np.array([0.1]),
        "list": [x, brain],
    }
    found = float32_inputs(
        values,
        {
            "half": "float16",
            "brain": "bfloat16",
            "whole": "float16",
            "wide": "",
            "list": "float16",
        },
    )
    with np.errstate(over="ignore"):
        expected = {
            **values,
            "half": x.astype(np.float16).astype(np.float32),
            "brain": half.astype(np.float32),
            "narrow": brain.astype(np.float32),
            "bits": half.astype(np.float32),
            "list": [x, brain.astype(np.float32)],
        }
    assert list(found) == list(values)
    for name, value in expected.items():
        got, right = (
            each if isinstance(each, list) else [each] for each in (found[name], value)
        )
        assert [array.dtype for array in got] == [array.dtype for array in right], name
        assert [array.tolist() for array in got] == [array.tolist() for array in right], name
    assert np.isinf(found["half"][1])
    assert float32_inputs({"x": x})["x"] is x


@pytest.mark.parametrize(
    ("value", "expected", "kind"),
    [
        (np.zeros(1, np.float32), np.zeros(1, np.float16), "float16"),
        (np.zeros(1, np.float32), np.zeros(1, np.float32), "float32"),
        (np.zeros(1, np.float64), np.zeros(1, np.float16), "float64"),
        (np.zeros(1, np.int64), np.zeros(1, np.float16), "int64"),
        (np.zeros(1, np.float32), None, "float32"),
        (np.zeros(1, np.float32), [np.zeros(1, np.float16)], "float32"),
    ],
)
def test_an_output_has_the_type_of_the_reference_s_where_that_is_narrower(
    value: Any, expected: Any, kind: str
) -> None:
    found = in_type_of(value, expected)
    assert found.dtype == kind
    assert (found is value) == (kind == value.dtype)
    listed = [value]
    assert in_type_of(listed, expected) is listed


# float32 for narrow types


def test_what_states_a_narrow_type_states_float32_and_weights_stay() -> None:
    made = model(
        "(float16[2] x, bfloat16[2] b, float16[2] w, double[2] d, seq(float16[2]) s) => "
        "(float16[2] y, bfloat16[2] z, seq(float16[2]) o) { y = Mul(x, w) z = Mul(b, v) "
        "k = Constant <value = float16[2] {15360, 16384}> () c = Cast <to = 16> (x) "
        "n = Concat <axis = 10> (x) o = SequenceInsert(s, x) l = Mul(f, f) }"
    )
    made.graph.value_info.append(helper.make_tensor_value_info("k", HALF, [2]))
    weights = {"w": np.float16, "v": ml_dtypes.bfloat16, "f": np.float32}
    for name, kind in weights.items():
        made.graph.initializer.append(numpy_helper.from_array(np.ones(2, kind), name))
    promote(made.graph, NARROW)
    graph = made.graph
    assert not graph.value_info
    assert [info.name for info in graph.input] == ["x", "b", "d", "s"]
    assert [info.type.tensor_type.elem_type for info in graph.input][:3] == [
        FLOAT,
        FLOAT,
        DOUBLE,
    ]
    assert [info.type.tensor_type.elem_type for info in graph.output][:2] == [FLOAT, FLOAT]
    for info in (graph.input[3], graph.output[2]):
        assert info.type.sequence_type.elem_type.tensor_type.elem_type == FLOAT
    named = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert named == {f"{PREFIX}_weight_w": HALF, f"{PREFIX}_weight_v": BHALF, "f": FLOAT}
    casts = [(node.input[0], node.output[0], node.attribute[0].i) for node in graph.node[:2]]
    assert casts == [(f"{PREFIX}_weight_w", "w", FLOAT), (f"{PREFIX}_weight_v", "v", FLOAT)]
    nodes = {node.output[0]: node for node in graph.node[2:]}
    assert list(nodes) == ["y", "z", "k", "c", "n", "o", "l"]
    held = nodes["k"].attribute[0].t
    assert (held.data_type, numpy_helper.to_array(held).tolist()) == (FLOAT, [1.0, 2.0])
    assert (nodes["c"].attribute[0].i, nodes["n"].attribute[0].i) == (FLOAT, 10)


def test_one_type_alone_is_widened_where_it_alone_is_asked() -> None:
    made = model(
        "(float16[2] x, bfloat16[2] b) => (bfloat16[2] y) { y = Cast <to = 16> (x) }"
    )
    made.graph.initializer.append(
        numpy_helper.from_array(np.ones(2, ml_dtypes.bfloat16), "w")
    )
    promote(made.graph, frozenset({HALF}))
    assert [info.type.tensor_type.elem_type for info in made.graph.input] == [FLOAT, BHALF]
    assert (made.graph.node[0].attribute[0].i, made.graph.initializer[0].name) == (
        BHALF,
        "w",
    )
    assert len(made.graph.node) == 1


def test_sparse_tensors_and_types_in_attributes_are_widened() -> None:
    made = model("(float16[2] x) => (float16[2] y) { y = Neg(x) z = Neg(x) }")
    values = numpy_helper.from_array(np.array([1.5], np.float16), "s")
    places = numpy_helper.from_array(np.array([1]), "i")
    sparse = helper.make_sparse_tensor(values, places, [2])
    made.graph.sparse_initializer.append(sparse)
    node = made.graph.node[0]
    node.attribute.append(helper.make_attribute("sparse_value", sparse))
    node.attribute.append(
        helper.make_attribute("type", helper.make_tensor_type_proto(HALF, [2]))
    )
    node.attribute.append(helper.make_attribute("list", [values, places]))
    promote(made.graph, NARROW)
    for tensor in (
        made.graph.sparse_initializer[0].values,
        node.attribute[0].sparse_tensor.values,
        node.attribute[2].tensors[0],
    ):
        assert (tensor.data_type, tensor.name) == (FLOAT, "s")
        assert numpy_helper.to_array(tensor).tolist() == [1.5]
    assert node.attribute[1].tp.tensor_type.elem_type == FLOAT
    assert node.attribute[2].tensors[1].data_type == INT64


def test_bodies_are_widened_with_the_inputs_that_they_have() -> None:
    made = model(
        "(float16[2] x, int64 n) => (float16[2] y) { yes = Constant <value = bool {1}> () "
        "y = Loop (n, yes, x) "
        "<body = b (int64 i, bool go, float16[2] v) => (bool on, float16[2] u) "
        "{ on = Identity(go) u = Add(v, w) }> }"
    )
    body = made.graph.node[1].attribute[0].g
    body.initializer.append(numpy_helper.from_array(np.ones(2, np.float16), "v"))
    promote(made.graph, NARROW)
    assert [info.name for info in body.input] == ["i", "go", "v"]
    assert body.input[2].type.tensor_type.elem_type == FLOAT
    assert body.output[1].type.tensor_type.elem_type == FLOAT
    assert [node.op_type for node in body.node] == ["Cast", "Identity", "Add"]


def test_each_value_is_rounded_to_its_own_type_once() -> None:
    made = model(
        "(float16[2] x, bfloat16[2] b, float[2] f) => (float16[2] y, bfloat16[2] z, float[2] g) "
        "{ y = Mul(x, w) z = Mul(b, b) g = Exp(f) m = Identity(y) c = Cast <to = 10> (f) }"
    )
    made.graph.initializer.append(numpy_helper.from_array(np.full(2, 0.1, np.float16), "w"))
    changed = simulated(made, made)
    casts = {
        node.output[0]: node.attribute[0].i
        for node in changed.graph.node
        if node.op_type == "Cast"
    }
    rounded = {name: (casts[f"{PREFIX}_half_{name}"], casts[name]) for name in "yzc"}
    assert rounded == {"y": (HALF, FLOAT), "z": (BHALF, FLOAT), "c": (HALF, FLOAT)}
    assert casts.keys() == {"w", f"{PREFIX}_raw_c"} | {
        end for name in "yzc" for end in (name, f"{PREFIX}_half_{name}")
    }
    x = np.array([0.1, 3.0], np.float32)
    got = run(open_cpu(changed), {"x": x, "b": x, "f": x})
    tenth = np.float16(0.1)
    np.testing.assert_array_equal(
        got["y"], (x * np.float32(tenth)).astype(np.float16).astype("f4")
    )
    np.testing.assert_array_equal(got["z"], (x * x).astype(ml_dtypes.bfloat16).astype("f4"))


# float64 for float32


def test_every_float32_becomes_a_float64_and_nothing_else_changes() -> None:
    made = model(
        "(float[2] x, float16[2] h, seq(float[2]) q) => (float[2] y, int64[2] o) { "
        "a = Constant <value = float[2] {0.5, 2}> () b = Constant <value_float = 0.5> () "
        "c = Constant <value_floats = [0.5, 1.5]> () i = Constant <value_int = 3> () "
        "t = Constant <value = int64[1] {2}> () z = ConstantOfShape (t) "
        "f = ConstantOfShape <value = float[1] {7}> (t) "
        "n = ConstantOfShape <value = int64[1] {7}> (t) "
        "k = Cast <to = 1> (h) l = Cast <to = 10> (x) s = Softmax <axis = 1> (x) "
        "o = Constant <value_ints = [1, 2]> () y = Add(x, w) }"
    )
    for name, kind in (("w", np.float32), ("v", np.float16), ("u", np.int64)):
        made.graph.initializer.append(numpy_helper.from_array(np.ones(2, kind), name))
    made.graph.value_info.append(helper.make_tensor_value_info("k", FLOAT, [2]))
    to_double(made)
    graph = made.graph
    assert not graph.value_info
    assert [info.type.tensor_type.elem_type for info in graph.input][:2] == [DOUBLE, HALF]
    assert graph.input[2].type.sequence_type.elem_type.tensor_type.elem_type == DOUBLE
    assert [info.type.tensor_type.elem_type for info in graph.output] == [DOUBLE, INT64]
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert {name: array.dtype.name for name, array in held.items()} == {
        "w": "float64",
        "v": "float16",
        "u": "int64",
    }
    attributes = {node.output[0]: list(node.attribute) for node in graph.node}
    numbers = {
        name: numpy_helper.to_array(values[0].t)
        for name, values in attributes.items()
        if values and values[0].name == "value"
    }
    expected = {"a": [0.5, 2.0], "b": 0.5, "c": [0.5, 1.5], "z": [0.0], "f": [7.0]}
    whole = {"t": [2], "n": [7]}
    assert {name: array.tolist() for name, array in numbers.items()} == expected | whole
    for name, array in numbers.items():
        assert array.dtype == (np.float64 if name in expected else np.int64), name
    assert [attributes[name][0].i for name in "kls"] == [DOUBLE, HALF, 1]
    assert (attributes["i"][0].name, attributes["o"][0].name) == ("value_int", "value_ints")


def test_bodies_become_float64_and_kernels_are_missed_in_them_too() -> None:
    made = model(
        "(float[2] x, bool c) => (float[2] y) { y = If (c) <then_branch = t () => (float[2] p) "
        "{ k = Constant <value_float = 0.1> () e = Erf(x) p = Mul(e, k) }, "
        "else_branch = o () => (float[2] q) { a = Atan(x) q = Neg(a) }> }"
    )
    assert without_kernel(made) == ["Atan", "Erf"]
    to_double(made)
    first, second = (attribute.g for attribute in made.graph.node[0].attribute)
    assert [body.output[0].type.tensor_type.elem_type for body in (first, second)] == [
        DOUBLE
    ] * 2
    assert first.node[0].attribute[0].t.data_type == DOUBLE
    held = numpy_helper.to_array(first.node[0].attribute[0].t)
    assert held.dtype == np.float64
    assert held == np.float32(0.1)
