"""Laws of the float16 conversion's Casts, over graphs of operators that can compute in float16 and
that can't.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnx_harness.transforms.fp16 import convert_float_to_float16

KINDS = {
    "float": TensorProto.FLOAT,
    "half": TensorProto.FLOAT16,
    "double": TensorProto.DOUBLE,
}
# CumSum and TopK stay float32, Neg and Tanh take any type, Transpose and Identity move values; the
# rest are Casts.
UNARY = ["Neg", "Tanh", "Transpose", "Identity", "CumSum", "TopK", *KINDS]


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """A model of up to a dozen nodes on one float32 input, each value of one of three types."""
    values, nodes = [("x", TensorProto.FLOAT)], []
    for number in range(draw(st.integers(1, 12))):
        name = f"v{number}"
        source, kind = draw(st.sampled_from(values))
        op = draw(st.sampled_from([*UNARY, "Mul"]))
        if op in KINDS:
            kind = KINDS[op]
            nodes.append(helper.make_node("Cast", [source], [name], to=kind))
        elif op == "Mul":
            other = draw(
                st.sampled_from(
                    [each for each, of in values if of == kind] + ["w"] * (kind == 1)
                )
            )
            nodes.append(helper.make_node(op, [source, other], [name]))
        elif op in ("CumSum", "TopK") and kind != TensorProto.FLOAT16:
            inputs = [source, "axis"] if op == "CumSum" else [source, "k"]
            nodes.append(
                helper.make_node(
                    op, inputs, [name] if op == "CumSum" else [name, f"{name}_at"]
                )
            )
        else:
            nodes.append(
                helper.make_node(op if op in UNARY[:4] else "Neg", [source], [name])
            )
        values.append((name, kind))
    outputs = draw(
        st.lists(st.sampled_from(values[1:]), min_size=1, max_size=3, unique=True)
    )
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])],
        [helper.make_tensor_value_info(name, kind, [2, 2]) for name, kind in outputs],
        [
            helper.make_tensor("w", TensorProto.FLOAT, [2, 2], [0.5, -1, 2, 0.25]),
            helper.make_tensor("axis", TensorProto.INT64, [], [0]),
            helper.make_tensor("k", TensorProto.INT64, [1], [2]),
        ],
    )
    return helper.make_model(
        graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]
    )


def types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of each value, by its name."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {
        info.name: info.type.tensor_type.elem_type
        for info in (*graph.input, *graph.output, *graph.value_info)
    }
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def chains(model: onnx.ModelProto) -> Iterator[tuple[int, int, int]]:
    """The types along each two Casts in a row."""
    of, made = (
        types(model),
        {name: node for node in model.graph.node for name in node.output},
    )
    for node in model.graph.node:
        before = made.get(node.input[0])
        if node.op_type == "Cast" and before is not None and before.op_type == "Cast":
            yield of[before.input[0]], of[node.input[0]], of[node.output[0]]


@given(models(), st.booleans())
def test_no_casts_in_a_row_but_the_models_own(model: onnx.ModelProto, keep: bool) -> None:
    before = set(chains(model))
    result = convert_float_to_float16(model, keep_io_types=keep)

    onnx.checker.check_model(result, full_check=True)
    # Of three in a row the middle one may be gone; the last then only gives an output its name.
    shorter = {
        (*one[:2], other[2]) for one in before for other in before if one[1:] == other[:2]
    }
    added = set(chains(result)) - before - shorter
    between = {TensorProto.FLOAT, TensorProto.FLOAT16}
    assert not [each for each in added if set(each) <= between]


@given(models(), st.booleans())
def test_nothing_is_cast_from_float16_and_back_for_a_reader_that_takes_it(
    model: onnx.ModelProto, keep: bool
) -> None:
    # Blocked by its name alone: what reads running sums and what decides an order stays float32 for
    # what it computes.
    result = convert_float_to_float16(
        model, keep_io_types=keep, op_block_list=["Tanh"], allow_missing=True
    )

    of = types(result)
    for node in result.graph.node:
        if node.op_type in ("Neg", "Mul"):
            assert TensorProto.FLOAT not in {of[name] for name in node.input}


@given(models())
def test_inputs_and_outputs_stay_what_they_are_and_it_runs(model: onnx.ModelProto) -> None:
    inputs, outputs = list(model.graph.input), list(model.graph.output)

    result = convert_float_to_float16(model, keep_io_types=True)

    assert inputs == list(result.graph.input)
    assert outputs == list(result.graph.output)
    session = onnxruntime.InferenceSession(
        result.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    values = session.run(None, {"x": np.array([[1, 2], [3, 4]], np.float32)})
    assert [each.shape for each in values] == [(2, 2)] * len(outputs)
