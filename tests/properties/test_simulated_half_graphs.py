"""Simulated float16 on random graphs: each node gives what onnx's reference implementation gives of
the same values.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import onnx
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_harness.fuzz.models import feeds, random_model
from onnx_harness.judging.half_range import half_values
from onnx_harness.judging.runs import open_cpu
from onnx_harness.judging.simulation import simulated
from onnx_harness.model.inlining import inline_functions
from onnx_harness.transforms.fp16 import convert_float_to_float16
from tests.properties.test_simulated_half_reference import ulps

# The reference takes these in steps of float16, where a simulated node is rounded once: see
# `simulated`.
IN_STEPS = {
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "Einsum", "Gemm", "LogSoftmax", "Sigmoid", "Softmax",
}  # fmt: skip
# Its maxima are NaN where there is one, and it marks every one of equals: ONNX Runtime doesn't, in
# no type.
OTHERWISE = {"Hardmax", "MaxPool", "ReduceMax"}
BODIES = {"If", "Loop", "Scan"}


def intermediate_values(
    converted: onnx.ModelProto, inputs: dict[str, Any]
) -> dict[str, Any]:
    """Every value of the main graph as the simulated model gives it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(converted)
    model = simulated(copy, converted)
    shown = {info.name for info in model.graph.output}
    for name in (name for node in converted.graph.node for name in node.output):
        if name and name not in shown:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
            shown.add(name)
    session = open_cpu(model)
    names = [info.name for info in session.get_outputs()]
    fed = {info.name: inputs[info.name] for info in session.get_inputs()}
    constants = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in converted.graph.initializer
    }
    return constants | inputs | dict(zip(names, session.run(names, fed), strict=True))


def distances(
    converted: onnx.ModelProto, values: dict[str, Any]
) -> Iterator[tuple[str, int]]:
    """By node: its operator, and how far its float16 outputs are from the reference's, in units in
    the last place.
    """
    half = half_values(converted)
    inferred = onnx.shape_inference.infer_shapes(converted).graph
    infos = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    types |= {tensor.name: tensor.data_type for tensor in converted.graph.initializer}
    for node in converted.graph.node:
        names = [name for name in dict.fromkeys(node.input) if name]
        known = all(
            types.get(name) and isinstance(values.get(name), np.ndarray) for name in names
        )
        if node.op_type in BODIES or not known or not half.intersection(node.output):
            continue
        outputs = [name for name in node.output if name]
        fed = {
            name: values[name].astype(np.float16)
            if types[name] == TensorProto.FLOAT16
            else values[name]
            for name in names
        }
        for name, expected in zip(outputs, alone(converted, node, fed, types), strict=False):
            got = values[name]
            if name in half and np.shape(expected) == got.shape:
                yield node.op_type, ulps(expected, got.astype(np.float16))


def alone(
    converted: onnx.ModelProto,
    node: onnx.NodeProto,
    fed: dict[str, Any],
    types: dict[str, int],
) -> list[Any]:
    """What the reference implementation gives of one node; nothing where it refuses it."""
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
    try:
        with np.errstate(all="ignore"):
            return list(ReferenceEvaluator(model).run(None, fed))
    except Exception:  # it has no common error either
        return []


@given(st.integers(0, 2**32 - 1), st.integers(1, 25))
def test_each_node_is_rounded_once(seed: int, size: int) -> None:
    try:
        converted = inline_functions(
            convert_float_to_float16(random_model(Random(seed), size))
        )
        inputs = {
            name: value.astype(np.float16).astype(np.float32)
            if value.dtype == np.float32
            else value
            for name, value in feeds(Random(seed), 2).items()
        }
        values = intermediate_values(converted, inputs)
    except (
        Exception
    ):  # of models at random some are invalid, and ONNX Runtime's errors have no common base
        assume(False)
    far = [(op, apart) for op, apart in distances(converted, values) if apart > 1]
    assert [found for found in far if found[0] not in IN_STEPS | OTHERWISE] == []
