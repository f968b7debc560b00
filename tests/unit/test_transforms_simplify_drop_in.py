"""What ``onnxsim.simplify`` takes, and what happens where a model or a library is at fault."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import onnx
import onnxsim
import pytest
from onnx import TensorProto, helper

from onnx_harness.transforms import remarks
from onnx_harness.transforms.simplification import no_ops
from onnx_harness.transforms.simplify import (
    simplify,
    simplify_as_onnxsim,
    simplify_with_report,
)
from tests.unit.test_transforms_simplify_rules import BN, NORMALIZATION, with_weights
from tests.unit.transform_models import copy_of, floats, model_of, ops, run, same_bits

TWO = (
    "agraph (float[N,2] x) => (float[N,2] y, float[N,2] z) { i = Identity(x) y = Neg(i) z = "
    "Abs(i) }"
)


def normalized() -> onnx.ModelProto:
    return with_weights(f"y = Conv(x, w) z = {BN}", w=floats(6, 4, 1, 1), **NORMALIZATION)


def test_a_path_is_as_good_as_a_model(tmp_path: Path) -> None:
    onnx.save(model_of(TWO), tmp_path / "two.onnx")
    assert ops(simplify(tmp_path / "two.onnx")) == {"Neg": 1, "Abs": 1}
    assert ops(simplify(str(tmp_path / "two.onnx"))) == {"Neg": 1, "Abs": 1}


def test_outputs_that_nobody_uses_go_with_what_computes_them() -> None:
    model = model_of(TWO)
    before = copy_of(model)
    assert ops(simplify(model, unused_output=["z"])) == {"Neg": 1}
    assert model == before
    with pytest.raises(ValueError, match="'w' is no output of the model"):
        simplify(model, unused_output=["w"])
    with pytest.raises(ValueError, match="every output"):
        simplify(model, unused_output=["y", "z"])


@pytest.mark.parametrize(
    "options",
    [
        {"skip_fuse_bn": True},
        {"skipped_optimizers": ["fuse_bn_into_conv"]},
        {"skipped_optimizers": ["fuse affine"]},
    ],
)
def test_a_normalization_stays_where_asked(options: dict[str, object]) -> None:
    assert ops(simplify(normalized(), **options)) == {"Conv": 1, "BatchNormalization": 1}  # type: ignore[arg-type]
    assert ops(simplify(normalized())) == {"Conv": 1}


def test_a_rule_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="no rule of simplify and no pass"):
        simplify(normalized(), skipped_optimizers=["fuse_bn_into_convs"])


def test_constants_stay_nodes_where_folding_is_skipped() -> None:
    model = model_of(
        "agraph (float[N] x) => (float[N] z) <float c = {2}> { d = Neg(c) z = Mul(x, d) }"
    )
    assert ops(simplify(model, skip_constant_folding=True)) == {"Neg": 1, "Mul": 1}
    assert ops(simplify(model)) == {"Mul": 1}


def test_shapes_by_name_and_what_follows_from_them_for_outputs() -> None:
    model = model_of(
        "agraph (float[1,3,8,8] x) => (float[1,4,8,8] z, float[1,K,8,8] k) "
        "<float[4,3,1,1] w = {1,2,3,4,5,6,7,8,9,10,11,12}> "
        "{ a = Relu(x) z = Conv(a, w) k = Neg(a) }"
    )
    before = copy_of(model)
    result = simplify(model, overwrite_input_shapes={"x": [2, 3, 16, 16]}, check_n=1)
    onnx.checker.check_model(result, full_check=True)
    assert [
        [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in result.graph.output
    ] == [
        [2, 4, 16, 16],
        [2, 3, 16, 16],
    ]
    assert model == before


def test_as_onnxsim_is_called() -> None:
    model, valid = simplify_as_onnxsim(
        normalized(), check_n=2, overwrite_input_shapes={"x": (1, 4, 5, 5)}
    )
    assert valid
    assert ops(model) == {"Conv": 1}


def test_arguments_that_onnxsim_takes_have_their_places_and_effects() -> None:
    model = model_of(
        "agraph (float[N,2] x) => (float[2,2] y) { i = Identity(x) y = MatMul(x, i) }"
    )
    assert simplify_as_onnxsim(model, 1, True, False, None, {"x": [2, 2]})[1]
    assert simplify_as_onnxsim(model, 1, input_data={"x": floats(2, 2)})[1]
    with pytest.raises(ValueError, match="doesn't run on drawn inputs"):
        simplify_as_onnxsim(model, 1)
    whole, _ = simplify_as_onnxsim(model, perform_optimization=False)
    assert ops(whole) == {"Identity": 1, "MatMul": 1}
    same, _ = simplify_as_onnxsim(model, skip_shape_inference=True, dynamic_input_shape=True)
    assert ops(same) == {"MatMul": 1}
    with pytest.raises(TypeError, match="unexpected argument 'check'"):
        simplify_as_onnxsim(model, check=3)


def test_each_argument_of_onnxsim_is_taken_where_it_asks_for_nothing_that_is_not_done(
    tmp_path: Path,
) -> None:
    theirs = inspect.signature(onnxsim.simplify).parameters
    model = model_of(TWO)
    defaults = {name: one.default for name, one in theirs.items() if name != "model"}
    same, valid = simplify_as_onnxsim(
        model, **(defaults | {"output_path": str(tmp_path / "s.onnx")})
    )
    assert valid
    assert onnx.load(tmp_path / "s.onnx") == same
    places = [name for name, one in theirs.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    ours = [*inspect.signature(simplify_as_onnxsim).parameters]
    assert ours[:13] == places[:13]
    with pytest.raises(ValueError, match="target_opset_version=17"):
        simplify_as_onnxsim(model, target_opset_version=17)


def test_the_bounds_of_the_comparison_are_the_callers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(no_ops._NOPS, "Neg", no_ops._is_identity)
    data = {"x": np.full((1, 2), 1e-3, np.float32)}
    assert not simplify_as_onnxsim(model_of(TWO), 1, input_data=data)[1]
    assert simplify_as_onnxsim(model_of(TWO), 1, input_data=data, check_atol=1.0)[1]


def test_the_comparison_is_of_the_arrays_that_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(no_ops._NOPS, "Neg", no_ops._is_identity)
    model = model_of(TWO)
    assert simplify_as_onnxsim(model, 1, input_data={"x": np.zeros((1, 2), np.float32)})[1]
    assert not simplify_as_onnxsim(model, 1, input_data={"x": np.ones((1, 2), np.float32)})[
        1
    ]


def test_the_comparison_catches_a_broken_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(no_ops._NOPS, "Neg", no_ops._is_identity)
    assert not simplify_as_onnxsim(model_of(TWO), check_n=1)[1]
    with pytest.raises(ValueError, match="output 'y' differs"):
        simplify(model_of(TWO), check_n=1)
    assert simplify_as_onnxsim(model_of(TWO))[1], "nothing was to be compared"


def test_a_rule_in_which_a_library_raises_is_left_out(
    monkeypatch: pytest.MonkeyPatch, rules_left_out: list[str]
) -> None:
    def broken(*_: object) -> bool:
        raise ValueError("zip() argument 2 is shorter")

    monkeypatch.setitem(no_ops._NOPS, "Cast", broken)
    model = model_of(
        "agraph (float[N] x) => (float[N] z) <float c = {2}> { y = Cast<to = 1>(x) d = Neg(c) z = "
        "Mul(y, d) }"
    )
    with remarks() as noted:
        result, report = simplify_with_report(model)
    assert noted == [
        "simplify's rule 'remove nops' was left out: ValueError: zip() argument 2 is shorter"
    ]
    assert ops(result) == {"Cast": 1, "Mul": 1}
    assert report["fold constants"] == 1
    assert rules_left_out == noted
    rules_left_out.clear()


def test_an_if_whose_branches_have_no_outputs_is_left() -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["b"])], "branch", [], []
    )
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["x"], ["i"]),
            helper.make_node("Neg", ["i"], ["z"]),
            helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
        ],
        "g",
        [value("x", TensorProto.FLOAT, [2])],
        [value("z", TensorProto.FLOAT, [2]), value("y", TensorProto.FLOAT, [2])],
        [helper.make_tensor("c", TensorProto.BOOL, [], [True])],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    assert ops(simplify(model)) == {"Neg": 1, "If": 1}


def test_a_deconvolution_whose_groups_do_not_divide_its_channels_is_left() -> None:
    text = f"y = ConvTranspose<group = 3>(x, w) z = {BN}"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> agraph (float[N,4,H,W] x) => (float[A,B,C,D] '
        f"z) {{ {text} }}"
    )
    arrays = {"w": floats(4, 2, 1, 1), **NORMALIZATION}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()
    )
    with remarks() as noted:
        assert ops(simplify(model)) == {"ConvTranspose": 1, "BatchNormalization": 1}
    assert noted == []


@pytest.mark.parametrize(
    ("op", "name"), [("LeakyRelu", "alpha"), ("Transpose", "perm"), ("Cast", "to")]
)
def test_a_node_whose_attribute_nobody_gives_is_left(op: str, name: str) -> None:
    model = model_of(
        "agraph (float[2,2] x) => (float[2,2] z, float[2,2] y) { i = Identity(x) y = Neg(i) z = "
        "Abs(i) }"
    )
    node = model.graph.node[2]
    node.op_type = op
    kind = {
        "alpha": onnx.AttributeProto.FLOAT,
        "perm": onnx.AttributeProto.INTS,
        "to": onnx.AttributeProto.INT,
    }[name]
    node.attribute.add(name=name, type=kind, ref_attr_name="outer")
    result = simplify(model)
    assert ops(result) == {"Neg": 1, op: 1}
    assert result.graph.node[1].attribute[0].ref_attr_name == "outer"


def test_tensors_without_a_name_stay_without_one() -> None:
    model = model_of(
        "agraph (float[N] x) => (float[N] z) { c = Constant<value = float {2}>() z = Mul(x, c) }"
    )
    model.graph.node[0].attribute[0].t.ClearField("name")
    before = model.SerializeToString()
    simplify(model)
    assert model.SerializeToString() == before


def test_constants_inside_functions_are_folded() -> None:
    model = model_of(
        """agraph (float[N] x) => (float[N] z) { z = local.scaled<by = 3.0>(x) }
        <domain: "local", opset_import: ["" : 17]> scaled<by>(a) => (b) {
          two = Constant<value_float = 2.0>()
          four = Mul(two, two)
          more = Add(four, two)
          own = Constant<value_float: float = @by>()
          both = Mul(own, two)
          m = Mul(a, more)
          b = Mul(m, both)
        }"""
    )
    result, report = simplify_with_report(model, inline_functions=False)
    onnx.checker.check_model(result, full_check=True)
    assert [node.op_type for node in result.functions[0].node].count("Constant") == 3
    assert report["fold functions"] > 0
    assert len(result.functions[0].node) == 6
    assert len(model.functions[0].node) == 7
    x = np.array([1.5, -0.0, np.inf], np.float32)
    assert same_bits(run(model, x=x), run(result, x=x))
