"""The transforms that call a released library: which passes they run, and what they do to small
models.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxoptimizer
import pytest

from onnx_harness.errors import NotApplicable
from onnx_harness.model.file import signature
from onnx_harness.names import Step
from onnx_harness.transforms import bind, passes, registry
from onnx_harness.transforms import optimize as optimize_module
from onnx_harness.transforms.optimize import chosen_passes, optimize
from tests.unit.transform_models import copy_of, floats, model_of, ops, run

CONV_BN = """
agraph (float[1,1,4,4] x) => (float[1,2,2,2] z)
<float[2,1,3,3] w = {1,2,3,4,5,6,7,8,9,9,8,7,6,5,4,3,2,1}, float[2] one = {1,2}, float[2] half = {0.5,0.25}>
{ y = Conv(x, w)  z = BatchNormalization(y, one, half, half, one) }
"""
IDENTITIES = (
    "agraph (float[N] x) => (float[N] z) { a = Identity(x) b = Identity(a) z = Neg(b) }"
)

LISTED = """
eliminate_deadend eliminate_nop_dropout eliminate_nop_cast eliminate_nop_monotone_argmax eliminate_nop_pad
extract_constant_to_initializer eliminate_unused_initializer eliminate_nop_transpose eliminate_nop_flatten
eliminate_identity fuse_add_bias_into_conv fuse_consecutive_concats fuse_consecutive_log_softmax
fuse_consecutive_reduce_unsqueeze fuse_consecutive_squeezes fuse_consecutive_transposes fuse_matmul_add_bias_into_gemm
fuse_pad_into_conv fuse_transpose_into_gemm eliminate_duplicate_initializer fuse_bn_into_conv
"""


def test_optimize_runs_the_21_passes_of_onnx_simplifier() -> None:
    assert chosen_passes() == tuple(LISTED.split())
    assert set(chosen_passes()) <= set(onnxoptimizer.get_available_passes())


def test_skipping_leaves_passes_out() -> None:
    assert set(chosen_passes()) - set(chosen_passes(True, ["eliminate_identity"])) == {
        "fuse_bn_into_conv",
        "eliminate_identity",
    }


def test_optimize_fuses_batch_normalization_unless_told_not_to() -> None:
    x = floats(1, 1, 4, 4)
    model = model_of(CONV_BN)
    optimized = optimize(copy_of(model))
    assert "BatchNormalization" not in ops(optimized)
    np.testing.assert_allclose(run(optimized, x=x)[0], run(model, x=x)[0], rtol=1e-5)
    assert ops(optimize(copy_of(model), skip_fuse_bn=True)) == {
        "Conv": 1,
        "BatchNormalization": 1,
    }


def test_optimize_leaves_out_what_is_skipped() -> None:
    assert ops(optimize(model_of(IDENTITIES))) == {"Neg": 1}
    assert ops(
        optimize(model_of(IDENTITIES), skipped_optimizers=["eliminate_identity"])
    ) == {
        "Identity": 2,
        "Neg": 1,
    }


def test_optimize_strips_doc_strings() -> None:
    model = model_of(IDENTITIES)
    model.graph.doc_string = model.graph.node[2].doc_string = "told"
    assert b"told" not in optimize(model).SerializeToString()


def test_optimize_makes_no_inputs_of_the_constants_that_old_versions_list() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 3, opset_import: ["" : 8]> g (float[2, 2] x, float[2, 2] w) => (float[2, 2] y)
        <float[2, 2] w = {1, 2, 3, 4}> {
            k = Constant <value = float[2, 2] {5, 6, 7, 8}> ()
            a = MatMul (x, w)
            y = Add (a, k)
        }"""
    )
    optimized = optimize(copy_of(model))
    assert signature(optimized) == signature(model)
    x = np.ones((2, 2), np.float32)
    np.testing.assert_array_equal(run(optimized, x=x)[0], run(model, x=x)[0])


def test_optimize_checks_the_model_first() -> None:
    model = model_of(IDENTITIES)
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(onnx.checker.ValidationError, match="nowhere"):
        optimize(model)


def test_a_variant_says_that_the_checker_rejects_the_model_itself() -> None:
    """ONNX Runtime writes operators of its own into the standard domain."""
    model = model_of(IDENTITIES)
    model.graph.node[0].op_type = "SimplifiedLayerNormalization"
    step = bind(Step("optimize"))
    with pytest.raises(
        NotApplicable, match=r"rejects the model: No Op registered.*`simplify`"
    ):
        step(model)


def test_optimize_takes_an_output_without_a_shape() -> None:
    model = model_of(IDENTITIES)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    optimized = optimize(copy_of(model))
    assert len(optimized.graph.node) < len(model.graph.node)
    assert not optimized.graph.output[0].type.tensor_type.HasField("shape")


def test_optimize_keeps_the_type_of_a_sequence() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 17]> g (float[2] x, seq(float[2]) t) => (seq(float[2]) y) {
            z = Identity (x)
            s = SequenceInsert (t, z)
            y = Identity (s)
        }"""
    )
    optimized = optimize(copy_of(model)).graph
    assert list(optimized.input) == list(model.graph.input)
    assert list(optimized.output) == list(model.graph.output)


def test_optimize_refuses_an_unknown_pass_by_name() -> None:
    with pytest.raises(ValueError, match="Did you mean 'fuse_bn_into_conv'"):
        optimize(model_of(IDENTITIES), skipped_optimizers=["fuse_bn_to_conv"])


@pytest.mark.parametrize("name", ["optimize", "pass.nop"])
def test_a_model_too_large_for_onnxoptimizer_is_not_applicable(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimize_module, "MAX_BYTES", 10)
    with pytest.raises(NotApplicable, match="up to 2 GB"):
        bind(Step(name))(model_of(IDENTITIES))


def test_every_pass_of_the_library_has_a_form() -> None:
    assert set(passes.NAMES) == set(onnxoptimizer.get_available_passes())
    assert len(passes.NAMES) == 48


def test_a_single_pass_does_what_it_is_called_after_and_no_more() -> None:
    assert ops(bind(Step("pass.eliminate_identity"))(model_of(IDENTITIES))) == {"Neg": 1}
    assert ops(bind(Step("pass.eliminate_deadend"))(model_of(IDENTITIES))) == {
        "Identity": 2,
        "Neg": 1,
    }


@pytest.mark.parametrize("name", ["onnxoptimizer", "onnxscript", "onnxsim", "onnxslim"])
def test_a_library_as_released_shortens_a_plain_model(name: str) -> None:
    pytest.importorskip(registry()[name].requires[0])
    model = model_of(IDENTITIES)
    x = floats(5)
    shortened = bind(Step(name))(copy_of(model))
    assert ops(shortened) == {"Neg": 1}
    np.testing.assert_array_equal(run(shortened, x=x)[0], run(model, x=x)[0])


def test_what_a_library_raises_is_left_as_it_is() -> None:
    scaled = "agraph (float[3] x) => (float[3] z) <float[3] w = {1,2,3}> { z = Mul(x, w) }"
    with pytest.raises(RuntimeError, match="Unresolved value references"):
        bind(Step("pass.lift_lexical_references"))(model_of(scaled))


@pytest.mark.parametrize("transform", ["optimize", "pass.eliminate_duplicate_initializer"])
def test_a_type_that_onnxoptimizer_lacks_is_named(transform: str) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> '
        "g (float[2,4] x) => (float[2,4] y) <float s = {0.1}> "
        "{ d = DequantizeLinear(v, s) e = DequantizeLinear(w, s) h = MatMul(x, d) y = MatMul(h, e) }"
    )
    for name in ("v", "w"):
        tensor = onnx.helper.make_tensor(name, onnx.TensorProto.INT4, [4, 4], range(-8, 8))
        model.graph.initializer.append(tensor)
    with pytest.raises(RuntimeError, match=r"can't compare tensors of int4.*`simplify`"):
        bind(Step(transform))(model)


def test_other_errors_of_onnxoptimizer_stay_its_own() -> None:
    with (
        pytest.raises(RuntimeError, match=r"^something else$"),
        optimize_module.refused_types(),
    ):
        raise RuntimeError("something else")
