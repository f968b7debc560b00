"""Faults: each changes exactly what it says, where weights are stored however they are, and the
model stays valid.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.mutation.atlas import Atlas, attributes
from onnx_harness.mutation.faults import Fault
from onnx_harness.mutation.planting import KINDS, atlas_of, choose, planted
from tests.models import linear, model, save, with_external_data

Arrays = dict[str, Any]


def built(
    graph: str, weights: Arrays, *, opset: int = 17, domains: str = ""
) -> onnx.ModelProto:
    made = model(graph, opset=opset, domains=domains)
    made.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()
    )
    return made


def noise(*shape: int, dtype: str = "f4") -> Any:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(dtype)


def convolution() -> onnx.ModelProto:
    graph = """(float[1,3,6,6] x) => (float[1,3,6,6] y) {
        c = Conv<pads=[1,1,1,1]>(x, w, b)
        n = BatchNormalization<epsilon=0.001>(c, scale, bias, mean, var)
        r = Relu(n)
        p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(r)
        y = Mul(p, two) }"""
    vectors = {name: noise(3) for name in ("b", "scale", "bias", "mean")}
    return built(
        graph,
        {"w": noise(3, 3, 3, 3), "var": np.ones(3, "f4"), "two": np.float32(2), **vectors},
    )


def attention() -> onnx.ModelProto:
    graph = """(float[n,4,4] x) => (float[n,4,8] y) {
        q = MatMul(x, w)  s = Softmax<axis=-1>(q)  t = Transpose<perm=[0,2,1]>(s)
        d = Sub(t, x)  g = Gather<axis=1>(d, one)  z = Slice(d, from, to, axis)  e = Add(d, eps)  u = Sqrt(e)
        y = Concat<axis=2>(d, t) }"""
    numbers = {
        "one": np.array([1]),
        "from": np.array([1]),
        "to": np.array([3]),
        "axis": np.array([1]),
    }
    return built(graph, {"w": noise(4, 4), "eps": np.float32(1e-6), **numbers})


def recurrent() -> onnx.ModelProto:
    graph = "(float[t,1,3] x) => (float[t,1,1,2] y) { y = LSTM<hidden_size=2>(x, w, r, b) }"
    return built(graph, {"w": noise(1, 8, 3), "r": noise(1, 8, 2), "b": noise(1, 16)})


def quantized() -> onnx.ModelProto:
    graph = "(float[n,4] x) => (float[n,3] y) { w = DequantizeLinear(q, s, z)  y = MatMul(x, w) }"
    codes = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    return built(graph, {"q": codes, "s": np.float32(0.5), "z": np.int8(1)})


def resized() -> onnx.ModelProto:
    graph = '(float[1,1,4,4] x) => (float[1,1,8,8] y) { y = Resize<mode="linear">(x, , s)  }'
    return built(graph, {"s": np.array([1, 1, 2, 2], "f4")})


def forest() -> onnx.ModelProto:
    tree: dict[str, Any] = {
        "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.5, 0.0, 0.0], "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 0], "target_weights": [3.0, -2.0],
        "n_targets": 1,
    }  # fmt: skip
    made = model(
        "(float[n,1] x) => (float[n,1] y) { y = Relu(x) }", domains=', "ai.onnx.ml": 3'
    )
    made.graph.node[0].CopyFrom(
        helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **tree)
    )
    return made


def atlas(made: onnx.ModelProto, folder: Path) -> Atlas:
    return atlas_of(save(made, folder / "model.onnx"))


def faults_of(held: Atlas, kind: str) -> list[Fault]:
    return [fault for fault in choose(held, 300, 0) if fault.kind == kind]


def read(held: Atlas, changed: onnx.ModelProto, fault: Fault) -> tuple[Any, Any]:
    """What the faulty node reads before and after."""
    name = changed.graph.node[fault.site.node].input[fault.slot]
    after = next(each for each in changed.graph.initializer if each.name == name)
    before = held.constant(fault.site, fault.slot)
    assert before is not None
    return held.array(before), numpy_helper.to_array(after)


def one_element(factor: float) -> Callable[[Any, Any], bool]:
    def check(before: Any, after: Any) -> bool:
        at = np.flatnonzero(before != after)
        ratio = after.reshape(-1)[at] / before.reshape(-1)[at]
        return at.size == 1 and bool(np.isclose(ratio, factor, rtol=1e-3)[0])

    return check


def coarse(before: Any, after: Any) -> bool:
    kept = after.view(np.uint32) & 0xFFFF
    return (
        not kept.any()
        and bool((np.abs(after / before - 1) <= 2**-8).all())
        and not np.array_equal(before, after)
    )


def two_swapped(before: Any, after: Any) -> bool:
    """Two channels changed places, whichever axis they lie along."""
    for axis in range(before.ndim):
        rows, others = np.moveaxis(before, axis, 0), np.moveaxis(after, axis, 0)
        moved = [k for k in range(len(rows)) if not np.array_equal(rows[k], others[k])]
        if len(moved) == 2 and np.array_equal(rows[moved], others[moved[::-1]]):
            return True
    return False


NUMBERS: list[tuple[Callable[[], onnx.ModelProto], str, Callable[[Any, Any], bool]]] = [
    (linear, "flipped sign", one_element(-1.0)),
    (linear, "weight +1%", one_element(1.01)),
    (convolution, "weight +1%", one_element(1.01)),
    (linear, "dropped bias", lambda before, after: before.any() and not after.any()),
    (convolution, "dropped bias", lambda before, after: before.any() and not after.any()),
    (convolution, "swapped axes", lambda before, after: np.array_equal(after, np.swapaxes(before, -1, -2))),
    (attention, "swapped axes", lambda before, after: np.array_equal(after, before.T)),
    (convolution, "permuted channels", two_swapped),
    (linear, "permuted channels", two_swapped),
    (convolution, "stale scalar", lambda before, after: np.isclose(after, 1.1 * before)),
    (attention, "epsilon x100", lambda before, after: np.isclose(after, 100 * before)),
    (convolution, "coarse weight", coarse),
    (quantized, "quantization scale", lambda before, after: np.isclose(after, 1.1 * before)),
    (quantized, "weight +1%", lambda before, after: np.abs(after.astype(int) - before).sum() == 1),
    (recurrent, "swapped gates",
     lambda before, after: np.array_equal(after[0, [2, 3, 0, 1, 4, 5, 6, 7]], before[0])),
]  # fmt: skip


@pytest.mark.parametrize(("build", "kind", "check"), NUMBERS)
def test_a_fault_in_numbers_changes_what_it_says_and_nothing_else(
    build: Any, kind: str, check: Any, tmp_path: Path
) -> None:
    held = atlas(build(), tmp_path)
    faults = faults_of(held, kind)
    assert faults
    for fault in faults:
        changed = planted(held, fault)
        assert check(*read(held, changed, fault)), fault
        assert [node.op_type for node in changed.graph.node] == [
            node.op_type for node in held.model.graph.node
        ]


def test_the_sign_of_a_quantized_weight_is_flipped_about_its_zero_point(
    tmp_path: Path,
) -> None:
    held = atlas(quantized(), tmp_path)
    for fault in faults_of(held, "flipped sign"):
        before, after = read(held, planted(held, fault), fault)
        [at] = np.flatnonzero(before != after)
        assert after.reshape(-1)[at] - 1 == -(int(before.reshape(-1)[at]) - 1)


def op_types(made: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in made.graph.node]


def changed_attributes(before: onnx.NodeProto, after: onnx.NodeProto) -> dict[str, Any]:
    old = attributes(before)
    return {
        name: value for name, value in attributes(after).items() if old.get(name) != value
    }


GRAPHS: list[tuple[Callable[[], onnx.ModelProto], str, Callable[[onnx.NodeProto, onnx.NodeProto], bool]]] = [
    (convolution, "removed activation", lambda old, new: (old.op_type, new.op_type) == ("Relu", "Identity")),
    (attention, "removed activation", lambda old, new: (old.op_type, new.op_type) == ("Softmax", "Identity")),
    (convolution, "pad by one", lambda _, new: sorted(attributes(new)["pads"]) == [0, 1, 1, 2]),
    (convolution, "epsilon x100", lambda old, new: np.isclose(changed_attributes(old, new)["epsilon"], 0.1)),
    (convolution, "another pooling", lambda old, new: (old.op_type, new.op_type) == ("AveragePool", "MaxPool")),
    (attention, "swapped Concat inputs", lambda old, new: list(new.input) == list(old.input)[::-1]),
    (attention, "swapped operands", lambda old, new: list(new.input) == list(old.input)[::-1]),
    (resized, "another interpolation",
     lambda old, new: changed_attributes(old, new) == {"coordinate_transformation_mode": b"asymmetric"}),
    (forest, "wrong leaf",
     lambda old, new: changed_attributes(old, new)["target_weights"] in ([-3.0, -2.0], [3.0, 2.0])),
    (forest, "wrong threshold", lambda old, new: changed_attributes(old, new) == {"nodes_values": [-0.5, 0.0, 0.0]}),
]  # fmt: skip


@pytest.mark.parametrize(("build", "kind", "check"), GRAPHS)
def test_a_fault_in_the_graph_changes_one_node_as_it_says(
    build: Any, kind: str, check: Any, tmp_path: Path
) -> None:
    held = atlas(build(), tmp_path)
    faults = faults_of(held, kind)
    assert faults
    for fault in faults:
        nodes = planted(held, fault).graph.node
        differing = [
            at for at, node in enumerate(held.model.graph.node) if node != nodes[at]
        ]
        assert differing == [fault.site.node]
        assert check(held.node(fault.site), nodes[fault.site.node]), fault


def test_a_clamp_is_put_between_a_node_and_its_readers(tmp_path: Path) -> None:
    held = atlas(convolution(), tmp_path)
    for fault in faults_of(held, "clamp at 1e2"):
        nodes = planted(held, fault).graph.node
        node, clip = nodes[fault.site.node], nodes[fault.site.node + 1]
        assert (clip.op_type, clip.input[0], clip.output[0]) == (
            "Clip",
            node.output[0],
            held.node(fault.site).output[0],
        )


def test_indexes_are_one_off(tmp_path: Path) -> None:
    held = atlas(attention(), tmp_path)
    found = {}
    for fault in faults_of(held, "off by one"):
        changed = planted(held, fault)
        node = changed.graph.node[fault.site.node]
        values = {
            each.name: numpy_helper.to_array(each).tolist()
            for each in changed.graph.initializer
        }
        found[node.op_type] = [values[name] for name in node.input[1 : 1 + fault.slot]]
    assert found == {"Gather": [[0]], "Slice": [[0], [2]]}


def test_a_wrong_axis_is_another_one_of_the_same_size(tmp_path: Path) -> None:
    held = atlas(attention(), tmp_path)
    changes = {}
    for fault in faults_of(held, "wrong axis"):
        node = planted(held, fault).graph.node[fault.site.node]
        changes[node.op_type] = changed_attributes(held.node(fault.site), node)
    assert changes == {"Softmax": {"axis": 1}, "Transpose": {"perm": [0, 1, 2]}}


MODELS = (linear, convolution, attention, recurrent, quantized, resized, forest)


def test_every_kind_has_a_place_in_these_tests() -> None:
    tested = {kind for _, kind, _ in (*NUMBERS, *GRAPHS)} | {
        "clamp at 1e2",
        "off by one",
        "wrong axis",
    }
    assert tested == set(KINDS)


@pytest.mark.parametrize("build", MODELS)
def test_a_mutant_is_valid_runs_and_gives_the_shapes_of_the_model(
    build: Any, tmp_path: Path
) -> None:
    held = atlas(build(), tmp_path)
    [given] = build().graph.input
    shape = [dim.dim_value or 5 for dim in given.type.tensor_type.shape.dim]
    feed = {given.name: np.random.default_rng(0).normal(size=shape).astype("f4")}

    def outputs(made: onnx.ModelProto) -> list[Any]:
        session = ort.InferenceSession(
            made.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return list(session.run(None, feed))

    usual = outputs(held.model)
    for fault in choose(held, 60, 0):
        changed = planted(held, fault)
        onnx.checker.check_model(changed, full_check=True)
        assert [each.shape for each in outputs(changed)] == [each.shape for each in usual], (
            fault
        )


def by_floats(made: onnx.ModelProto) -> onnx.ModelProto:
    for tensor in made.graph.initializer:
        values = numpy_helper.to_array(tensor).reshape(-1).tolist()
        tensor.ClearField("raw_data")
        tensor.float_data.extend(values)
    return made


def by_nodes(made: onnx.ModelProto) -> onnx.ModelProto:
    constants = [
        helper.make_node("Constant", [], [each.name], value=each)
        for each in made.graph.initializer
    ]
    for place, node in enumerate(constants):
        made.graph.node.insert(place, node)
    del made.graph.initializer[:]
    return made


def in_half(made: onnx.ModelProto) -> onnx.ModelProto:
    for tensor in made.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype("f2"), tensor.name)
        )
    for info in (*made.graph.input, *made.graph.output):
        info.type.tensor_type.elem_type = TensorProto.FLOAT16
    return made


@pytest.mark.parametrize("store", [lambda made: made, by_floats, by_nodes, in_half])
def test_weights_are_found_however_they_are_stored(store: Any, tmp_path: Path) -> None:
    held = atlas(store(linear()), tmp_path)
    faults = faults_of(held, "flipped sign")
    assert {held.node(fault.site).input[fault.slot] for fault in faults} == {"w", "b"}
    for fault in faults:
        assert one_element(-1.0)(*read(held, planted(held, fault), fault))


def test_external_data_stays_where_it_is_but_for_the_faulty_weight(tmp_path: Path) -> None:
    held = atlas_of(with_external_data(tmp_path / "model.onnx", "weights.bin"))
    [tensor] = held.model.graph.initializer
    assert not tensor.raw_data
    changed = planted(held, faults_of(held, "flipped sign")[0])
    stored, new = changed.graph.initializer
    assert stored == tensor
    assert np.count_nonzero(numpy_helper.to_array(new) != np.eye(8, dtype="f4")) == 1


def loop_with_weight() -> onnx.ModelProto:
    graph = """(int64 n, float[2] x) => (float[2] y) {
        y = Loop(n, , x) <body = step (int64 i, bool c, float[2] h) => (bool d, float[2] k) {
            d = Identity(c)  p = Mul(h, w)  k = Add(p, w) }> }"""
    return built(graph, {"w": np.array([0.5, 0.25], "f4")})


def test_a_weight_read_inside_a_loop_is_changed_for_every_reader_and_a_bias_for_one(
    tmp_path: Path,
) -> None:
    held = atlas(loop_with_weight(), tmp_path)
    for kind, inputs in (
        ("flipped sign", ["w.planted", "w.planted"]),
        ("dropped bias", ["w", "w.planted"]),
    ):
        fault = faults_of(held, kind)[0]
        changed = planted(held, fault)
        body = changed.graph.node[0].attribute[0].g
        assert [node.input[1] for node in body.node[1:]] == inputs
        onnx.checker.check_model(changed, full_check=True)


def test_an_old_model_lists_the_new_weight_among_its_inputs(tmp_path: Path) -> None:
    made = linear()
    made.ir_version = 3
    made.graph.input.extend(
        helper.make_tensor_value_info(each.name, each.data_type, each.dims)
        for each in made.graph.initializer
    )
    held = atlas(made, tmp_path)
    changed = planted(held, faults_of(held, "flipped sign")[0])
    onnx.checker.check_model(changed, full_check=True)


def test_the_same_seed_chooses_the_same_faults_and_fewer_are_the_beginning_of_more(
    tmp_path: Path,
) -> None:
    held = atlas(convolution(), tmp_path)
    assert choose(held, 30, 1) == choose(atlas(convolution(), tmp_path), 40, 1)[:30]
    assert choose(held, 30, 1) != choose(held, 30, 2)
    assert len(set(choose(held, 200, 0))) == len(choose(held, 200, 0))


def test_a_model_without_a_place_has_no_faults(tmp_path: Path) -> None:
    assert (
        choose(atlas(model("(float[n] x) => (float[n] y) { y = Abs(x) }"), tmp_path), 10, 0)
        == []
    )
