"""Simulated bfloat16 beside onnx's reference implementation, where that computes in it, and beside
ml_dtypes.

The reference adds up in bfloat16 what a simulated node adds up in float32, so sums are compared
with those of float32.
"""

from __future__ import annotations

from random import Random
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onnx_harness.fuzz.models import feeds, random_model
from onnx_harness.judging.narrow_types import typed, types_in
from onnx_harness.judging.runs import open_cpu
from onnx_harness.judging.simulation import simulated
from onnx_harness.model.inlining import inline_functions
from onnx_harness.transforms.bf16 import convert_float_to_bfloat16

ELEMENTWISE = (
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Neg",
    "Abs",
    "Relu",
    "Exp",
    "Sqrt",
    "Tanh",
    "Max",
    "Min",
)
BINARY = {"Add", "Sub", "Mul", "Div", "Max", "Min"}
# The reference adds these up in bfloat16, or takes their steps in it.
IN_STEPS = {
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "Einsum", "Gelu", "Gemm", "GlobalAveragePool",
    "InstanceNormalization", "LayerNormalization", "LogSoftmax", "MatMul", "Mish", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Sigmoid", "Softmax",
    "Softplus", "Selu", "Elu", "Celu", "HardSigmoid", "HardSwish", "Swish", "PRelu", "LeakyRelu", "ThresholdedRelu",
    "Softsign", "CumSum", "Erf", "Pow", "Hardmax", "MaxPool", "ReduceMax", "Clip", "Mean", "Sum", "LRN", "LpPool",
}  # fmt: skip
BODIES = {"If", "Loop", "Scan"}


def ulps(expected: Any, got: Any) -> int:
    """The greatest distance in units in the last place of bfloat16; NaN is no distance from NaN."""

    def places(array: Any) -> Any:
        bits = (
            np.asarray(array)
            .astype(ml_dtypes.bfloat16)
            .reshape(-1)
            .view(np.int16)
            .astype(np.int32)
        )
        return np.where(bits < 0, -(bits & 0x7FFF), bits)

    wide = [np.asarray(array).astype(np.float32).reshape(-1) for array in (expected, got)]
    both = np.isnan(wide[0]) & np.isnan(wide[1])
    return int(np.where(both, 0, np.abs(places(expected) - places(got))).max(initial=0))


def of_one_node(op_type: str) -> onnx.ModelProto:
    names = ["x", "x"] if op_type in BINARY else ["x"]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.BFLOAT16, ["n"])
        for name in ("x", "y")
    ]
    # A second node: what it reads is what the first one was rounded to.
    nodes = [
        helper.make_node(op_type, names, ["a"]),
        helper.make_node("Mul", ["a", "x"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "one", infos[:1], infos[1:])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10
    )


@pytest.mark.parametrize("op_type", ELEMENTWISE)
def test_an_operator_gives_what_the_reference_gives(op_type: str) -> None:
    model = of_one_node(op_type)
    bits = np.arange(0, 1 << 16, dtype=np.uint32).astype(np.uint16)
    x = bits.view(ml_dtypes.bfloat16)
    x = x[np.isfinite(x.astype(np.float32))]
    with np.errstate(all="ignore"):
        (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    (got,) = open_cpu(simulated(model, model)).run(None, {"x": x.astype(np.float32)})
    # Exp, Sqrt and Tanh are ONNX Runtime's own in float32, where ml_dtypes' are rounded from
    # numpy's.
    assert ulps(expected, got) <= (1 if op_type in ("Exp", "Tanh") else 0)


def test_without_rounding_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "onnx_harness.judging.simulation.with_rounded", lambda node, _: [node]
    )
    model = of_one_node("Mul")
    x = np.linspace(1, 2, 50).astype(ml_dtypes.bfloat16)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    (got,) = open_cpu(simulated(model, model)).run(None, {"x": x.astype(np.float32)})
    assert ulps(expected, got) > 0


def test_a_product_is_that_of_float32_rounded_once() -> None:
    infos = [
        helper.make_tensor_value_info(name, TensorProto.BFLOAT16, shape)
        for name, shape in (("a", [8, 300]), ("b", [300, 8]), ("y", [8, 8]))
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["y"])], "product", infos[:2], infos[2:]
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10
    )
    rng = np.random.default_rng(0)
    a, b = (
        rng.normal(size=shape).astype(ml_dtypes.bfloat16).astype(np.float32)
        for shape in ((8, 300), (300, 8))
    )
    (got,) = open_cpu(simulated(model, model)).run(None, {"a": a, "b": b})
    assert (
        ulps((a.astype(np.float64) @ b.astype(np.float64)).astype(ml_dtypes.bfloat16), got)
        <= 1
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 15))
def test_each_node_of_a_random_graph_is_rounded_once(seed: int, size: int) -> None:
    try:
        converted = inline_functions(
            convert_float_to_bfloat16(random_model(Random(seed), size))
        )
        inputs = {
            name: value.astype(ml_dtypes.bfloat16).astype(np.float32)
            if value.dtype == np.float32
            else value
            for name, value in feeds(Random(seed), 2).items()
        }
        types = types_in(typed(converted).graph)
        values = _values(converted, inputs)
    except (
        Exception
    ):  # of models at random some are invalid, and ONNX Runtime's errors have no common base
        assume(False)
    far = []
    for node in converted.graph.node:
        known = all(
            name in types and isinstance(values.get(name), np.ndarray)
            for name in node.input
            if name
        )
        if node.op_type in BODIES | IN_STEPS or not known:
            continue
        fed = {
            name: values[name].astype(ml_dtypes.bfloat16)
            if types[name] == TensorProto.BFLOAT16
            else values[name]
            for name in node.input
            if name
        }
        for name, expected in zip(
            node.output, _alone(converted, node, fed, types), strict=False
        ):
            same = name in values and types.get(name) == TensorProto.BFLOAT16
            if (
                same
                and np.shape(expected) == values[name].shape
                and ulps(expected, values[name]) > 1
            ):
                far.append((node.op_type, name))
    assert far == []


def _values(converted: onnx.ModelProto, inputs: dict[str, Any]) -> dict[str, Any]:
    """Every value of the main graph as the simulated model gives it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(converted)
    model = simulated(copy, converted)
    shown = {info.name for info in model.graph.output}
    fresh = [
        name
        for node in converted.graph.node
        for name in node.output
        if name and name not in shown
    ]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in fresh)
    session = open_cpu(model)
    names = [info.name for info in session.get_outputs()]
    fed = {info.name: inputs[info.name] for info in session.get_inputs()}
    constants = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in converted.graph.initializer
    }
    return constants | inputs | dict(zip(names, session.run(names, fed), strict=True))


def _alone(
    converted: onnx.ModelProto,
    node: onnx.NodeProto,
    fed: dict[str, Any],
    types: dict[str, int],
) -> list[Any]:
    """What the reference implementation gives of one node; nothing where it refuses it."""
    try:
        inputs = [helper.make_tensor_value_info(name, types[name], None) for name in fed]
        outputs = [
            helper.make_tensor_value_info(name, types.get(name, 1), None)
            for name in node.output
            if name
        ]
        graph = helper.make_graph([node], "alone", inputs, outputs)
        model = helper.make_model(
            graph, opset_imports=converted.opset_import, ir_version=converted.ir_version
        )
        with np.errstate(all="ignore"):
            return list(ReferenceEvaluator(model).run(None, fed))
    except Exception:  # it has no common error either, and none for a type that it lacks
        return []
