"""Products that float16 would spoil, and one that ONNX Runtime dies of: what the conversion makes
of them.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnx_harness.transforms.fp16 import convert_float_to_float16
from onnx_harness.transforms.half import convert
from tests.unit.transform_models import copy_of, floats, model_of, run

QUANTIZED = """agraph (float[2,64] x) => (float[2,5] z) <HELD> {
    q, s, p = DynamicQuantizeLinear(x)
    t = %s
    c = Cast<to = 1>(%s)
    k = Mul(s, ws)
    y = Mul(c, k)
    z = Relu(y) }"""
TOTALS = {
    "a product": ("MatMulInteger(q, w, p)", "t"),
    "with a bias": ("MatMulInteger(q, w, p) u = Add(t, b)", "u"),
    "moved": (
        "MatMulInteger(q, w, p) r = Constant<value_ints = [-1, 5]>() u = Reshape(t, r)",
        "u",
    ),
}


def held(name: str, kind: str, array: Any) -> str:
    """An initializer in ONNX's text format."""
    array = np.asarray(array)
    return (
        f"{kind}[{','.join(map(str, array.shape))}] {name} = "
        f"{{{','.join(map(str, array.reshape(-1).tolist()))}}}"
    )


def quantized(total: tuple[str, str]) -> onnx.ModelProto:
    """As dynamic quantization writes a linear layer; ``total`` makes the integers."""
    rng = np.random.default_rng(0)
    weights = [
        held("w", "int8", rng.integers(-127, 128, (64, 5))),
        held("b", "int32", rng.integers(-9999, 9999, 5)),
        held("ws", "float", [1e-6]),
    ]
    return model_of(QUANTIZED.replace("HELD", ", ".join(weights)) % total)


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model)
    return {info.name: info.type.tensor_type.elem_type for info in inferred.graph.value_info}


@pytest.mark.parametrize("total", TOTALS)
def test_what_scales_a_product_of_integers_stays_float32(total: str) -> None:
    """The product is beyond 65504, and the scale of 1e-6 times that of x is below what float16
    knows.
    """
    model = quantized(TOTALS[total])
    x = 3 * floats(2, 64)
    result = convert_float_to_float16(copy_of(model), keep_io_types=True)
    onnx.checker.check_model(result, full_check=True)
    found = kinds(result)
    assert {found[name] for name in ("c", "k", "y")} == {TensorProto.FLOAT}
    np.testing.assert_allclose(run(result, x=x)[0], run(model, x=x)[0], rtol=1e-2, atol=1e-6)


def test_a_cast_of_other_integers_is_converted() -> None:
    model = model_of(
        "agraph (int32[3] i, float[3] x) => (float[3] z) { c = Cast<to = 1>(i) z = Mul(c, x) }"
    )
    assert kinds(convert_float_to_float16(model))["c"] == TensorProto.FLOAT16


def moving(
    perm: list[int], shape: list[int], *, more: str = "", outputs: str = "float[?,?,?] y"
) -> onnx.ModelProto:
    axes, dims = ",".join(map(str, perm)), ",".join(map(str, shape))
    matrix = held("w", "float", floats(shape[perm[-1]], 5, seed=3))
    body = f"{{ t = Transpose<perm = [{axes}]>(x) {more} y = MatMul(t, w) }}"
    return model_of(f"agraph (float[{dims}] x) => ({outputs}) <{matrix}> {body}")


def code_of_opening(model: onnx.ModelProto, folder: Path) -> int:
    onnx.save(model, folder / "opened.onnx")
    opening = (
        "import onnxruntime as ort, sys; ort.InferenceSession(sys.argv[1], "
        "providers=['CPUExecutionProvider'])"
    )
    return subprocess.run(
        [sys.executable, "-c", opening, folder / "opened.onnx"], check=False
    ).returncode


@pytest.mark.parametrize(
    ("perm", "shape", "more", "outputs", "swapped"),
    [
        ([1, 0, 2], [3, 4, 6], "", "float[?,?,?] y", True),
        ([1, 2, 0, 3], [3, 4, 2, 6], "", "float[?,?,?,?] y", True),
        ([0, 2, 1], [3, 6, 4], "", "float[?,?,?] y", False),
        ([1, 0, 2], [3, 4, 6], "u = Relu(t)", "float[?,?,?] y, float[?,?,?] u", True),
        ([1, 0, 2], [3, 4, 6], "", "float[?,?,?] y, float[?,?,?] t", True),
    ],
    ids=["rank 3", "rank 4", "another permutation", "another reader", "an output"],
)
def test_a_product_comes_before_the_transpose_that_onnx_runtime_would_fuse_it_with(
    perm: list[int], shape: list[int], more: str, outputs: str, swapped: bool, tmp_path: Path
) -> None:
    model = moving(perm, shape, more=more, outputs=outputs)
    result = convert_float_to_float16(copy_of(onnx.shape_inference.infer_shapes(model)))
    onnx.checker.check_model(result, full_check=True)
    (product,) = (node for node in result.graph.node if node.op_type == "MatMul")
    assert (product.input[0] == "x") is swapped
    kept = {name for node in result.graph.node for name in node.output if name == "t"}
    assert kept == ({"t"} if more or "t" in outputs.split() or not swapped else set())
    x = floats(*shape)
    for one, other in zip(run(result, x=x.astype(np.float16)), run(model, x=x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-2, atol=5e-3)
    assert code_of_opening(result, tmp_path) == 0


def test_without_that_onnx_runtime_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it doesn't any more, what spares it can go."""
    monkeypatch.setattr(convert, "multiply_before_moving", lambda _: None)
    result = convert_float_to_float16(moving([1, 0, 2], [3, 4, 6]))
    assert code_of_opening(result, tmp_path) == -signal.SIGSEGV


def test_in_a_branch_as_well() -> None:
    model = model_of(
        """agraph (bool c, float[3,4,2] x) => (float[4,3,2] z) {
          b = If (c) <then_branch = one () => (float[4,3,2] t) <float[2,2] v = {1, 2, 3, 4}>
                                      { m = Transpose<perm = [1,0,2]>(x) t = MatMul(m, v) },
                      else_branch = two () => (float[4,3,2] s) { s = Transpose<perm = [1,0,2]>(x) }>
          z = Neg(b) }"""
    )
    result = convert_float_to_float16(copy_of(model), keep_io_types=True)
    then = next(
        each.g
        for each in next(n for n in result.graph.node if n.op_type == "If").attribute
        if each.name == "then_branch"
    )
    assert [node.op_type for node in then.node if node.op_type != "Cast"] == [
        "MatMul",
        "Transpose",
    ]
    feeds = {"x": floats(3, 4, 2), "c": np.bool_(True)}
    np.testing.assert_allclose(
        run(result, **feeds)[0], run(model, **feeds)[0], rtol=1e-2, atol=5e-3
    )
