"""Which quantized models get sessions without integer kernels, and by which option."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.judging import exact_sums as room
from onnx_harness.judging.exact_sums import exact_sums
from tests.models import model

FLOATS = {"session.qdq_matmulnbits_accuracy_level": "1"}
UNSIGNED = {**FLOATS, "session.x64quantprecision": "1"}
WITHOUT = {**FLOATS, "session.disable_quant_qdq": "1"}
ALONE = {"session.disable_quant_qdq": "1"}

# A scale, a zero point, weights of 8 bits, and weights that are floats.
CONSTANTS = (
    "<float s = {0.5}, uint8 u = {128}, int8 i = {0}, int8 j = {0}, uint8[1,1,1] bytes = {3},"
    " int8[1,1,1] c = {1}, int8[1,1,1] e = {2}, float[1,1,1] w = {0.5}, float[1] b = {0.5}>"
)
QUANTIZED = "q = QuantizeLinear(x, s, u) d = DequantizeLinear(q, s, u) "
ENDS = " p = QuantizeLinear(f, s, u) y = DequantizeLinear(p, s, u)"
WEIGHT = "v = DequantizeLinear(c, s, i) "


def graph(body: str, domains: str = "") -> onnx.ModelProto:
    return model(
        f"(float[1,1,4] x, float[1,1,1] fed, bool go) => (float y) {CONSTANTS} {{ {body} }}",
        domains=domains,
    )


def between(body: str) -> onnx.ModelProto:
    """A node, or several, that read what a dequantizer gives and whose ``f`` is quantized."""
    return graph(QUANTIZED + body + ENDS)


@pytest.fixture(autouse=True)
def saturates(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Say what this processor does: nothing saturates here, whatever it is."""

    def say(answer: bool) -> None:
        monkeypatch.setattr(room, "_saturates", lambda: answer)

    say(False)
    return say


@pytest.mark.parametrize(
    ("body", "coarse"),
    [
        ("f = Softmax(d)", True),
        ("f = Softmax(x)", False),
        ("r = Relu(d) f = Softmax(r)", True),
        ("t = Transpose(d) k = Clip(t) f = Softmax(k)", True),
        ("r = Exp(d) f = Softmax(r)", False),
        ("g = Softmax(d) f = Transpose(g)", True),
        ("g = Softmax(d) f = Exp(g)", False),
        ("least = DequantizeLinear(u, s, u) k = Clip(x, least) f = Softmax(k)", False),
        ("g = Softmax(d) f = Reshape(x, g)", False),
        ("f = Conv(d, w)", True),
        ("f = Conv(d, w, b)", True),
        ("f = ConvTranspose(d, w)", True),
        ("f = Gemm(d, w)", True),
        ("f = MatMul(d, w)", False),
        ("f = Conv(x, w)", False),
        ("f = Conv(d, fed)", False),
        ("n = Neg(w) f = Conv(d, n)", True),
        ("n = Neg(fed) f = Conv(d, n)", False),
        (WEIGHT + "f = Conv(d, v)", False),
        ("o = DequantizeLinear(u, s, u) f = Conv(d, w, o)", True),
        (WEIGHT + "f = Conv(v, w)", True),
    ],
)
def test_a_node_between_quantizers_is_left_to_no_integer_kernel(
    body: str, coarse: bool
) -> None:
    made = between(body)
    kernels = {**FLOATS, **({"session.x64quantprecision": "1"} if not coarse else ALONE)}
    assert exact_sums(made) == kernels
    unquantized = graph(QUANTIZED + body + " y = Identity(f)")
    assert "session.disable_quant_qdq" not in exact_sums(unquantized)


def test_what_is_between_quantizers_in_one_branch_is_not_in_the_other() -> None:
    branches = (
        "y = If (go) <then_branch = t () => (float p) {{ {} p = Identity(l) }}, "
        "else_branch = e () => (float r) {{ {} r = Identity(m) }}>"
    )
    inside = QUANTIZED + "f = Softmax(d) l = QuantizeLinear(f, s, u)"
    outside = "m = Softmax(x)"
    assert exact_sums(graph(branches.format(inside, outside))) == WITHOUT
    apart = branches.format(QUANTIZED + "l = Softmax(d)", "m = QuantizeLinear(l, s, u)")
    assert exact_sums(graph(apart)) == UNSIGNED


def test_a_softmax_counts_in_the_candidate_and_a_weight_in_the_untouched_model() -> None:
    softmax, conv, plain = (
        between(f"f = {op}(d{w})")
        for op, w in (("Softmax", ""), ("Conv", ", w"), ("Neg", ""))
    )
    assert exact_sums(plain, softmax) == WITHOUT
    assert exact_sums(softmax, plain) == UNSIGNED
    assert exact_sums(conv, plain) == WITHOUT
    assert exact_sums(plain, conv) == UNSIGNED
    shared = between(
        "v = DequantizeLinear(c, s, i) t = DequantizeLinear(c, s, j) f = Neg(d)"
    )
    assert exact_sums(plain, shared) == FLOATS
    assert exact_sums(shared, plain) == UNSIGNED


@pytest.mark.parametrize("operator", ["MatMulInteger", "ConvInteger"])
def test_a_model_that_holds_integer_kernels_keeps_them(operator: str) -> None:
    held = f" h = {operator}(q, c)"
    assert exact_sums(between("f = Neg(d)" + held)) == {}
    assert exact_sums(between("f = Softmax(d)" + held)) == ALONE
    assert exact_sums(graph("y = Neg(x)" + held)) == {}
    assert exact_sums(graph("y = Neg(x)")) == {}


@pytest.mark.parametrize(
    ("body", "loads"),
    [
        (WEIGHT + "f = Conv(d, v)", True),
        (WEIGHT + "t = DequantizeLinear(e, s, j) f = Conv(d, v) g = Conv(d, t)", True),
        # One tensor of 8 bits, one zero point or one dequantized weight for several nodes.
        (WEIGHT + "t = DequantizeLinear(c, s, j) f = Conv(d, v) g = Conv(d, t)", False),
        (WEIGHT + "t = DequantizeLinear(e, s, i) f = Conv(d, v) g = Conv(d, t)", False),
        (WEIGHT + "f = Conv(d, v) g = Conv(d, v)", False),
        (WEIGHT + "f = Conv(d, v) y2 = Neg(v)", False),
        # Without a zero point, or with an empty one.
        ("v = DequantizeLinear(c, s) f = Conv(d, v)", False),
        ("v = DequantizeLinear(c, s, ) f = Conv(d, v)", False),
        # Unsigned weights and signed activations may be shared.
        ("v = DequantizeLinear(bytes, s, u) f = Conv(d, v) g = Conv(d, v)", True),
        (
            "o = QuantizeLinear(x, s, i) v = DequantizeLinear(o, s, i) f = Conv(v, v) g = Neg(v)",
            True,
        ),
        # What is folded to a constant is one.
        (
            "k = Identity(c) v = DequantizeLinear(k, s, i) f = Conv(d, v) g = Conv(d, v)",
            False,
        ),
    ],
)
def test_int8_weights_are_made_uint8_where_the_model_can_then_be_loaded(
    body: str, loads: bool, saturates: Any
) -> None:
    made = between(body)
    for answer, otherwise in ((False, FLOATS), (True, WITHOUT)):
        saturates(answer)
        assert exact_sums(made) == (UNSIGNED if loads else otherwise)


def test_a_weight_that_the_graph_gives_out_is_read_once_more() -> None:
    made = between(WEIGHT + "f = Conv(d, v)")
    made.graph.output.append(onnx.helper.make_tensor_value_info("v", 1, [1, 1, 1]))
    assert exact_sums(made) == FLOATS


def test_weights_and_reads_inside_a_body_count() -> None:
    body = (
        "f = If (go) <then_branch = t () => (float h) {{ v = DequantizeLinear(c, s, i) {} }},"
        " else_branch = e () => (float k) {{ k = Conv(d, w) }}>"
    )
    once, twice = (
        between(body.format(text))
        for text in ("h = Conv(d, v)", "m = Neg(v) h = Conv(m, v)")
    )
    assert (exact_sums(once), exact_sums(twice)) == (UNSIGNED, FLOATS)


@pytest.mark.parametrize(("exact", "answer"), [(True, False), (False, True)])
def test_sums_are_tried_on_products_that_no_sixteen_bits_hold(
    exact: bool, answer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    class Session:
        def __init__(self, data: bytes, providers: list[str]) -> None:
            self._model = onnx.load_from_string(data)
            onnx.checker.check_model(self._model, full_check=True)
            opened.append(providers)

        def run(self, names: Any, values: dict[str, Any]) -> list[Any]:
            [weight] = map(numpy_helper.to_array, self._model.graph.initializer)
            [node] = self._model.graph.node
            assert (node.op_type, names, list(values)) == (
                "MatMulInteger",
                None,
                list(node.input[:1]),
            )
            left, right = values[node.input[0]].astype(np.int64), weight.astype(np.int64)
            assert values[node.input[0]].dtype == np.uint8
            pairs = (
                left[:, ::2, None] * right[None, ::2]
                + left[:, 1::2, None] * right[None, 1::2]
            )
            return [(pairs if exact else np.clip(pairs, -(2**15), 2**15 - 1)).sum(axis=1)]

    monkeypatch.setattr("onnxruntime.InferenceSession", Session)
    assert REAL() is answer
    assert opened == [["CPUExecutionProvider"]]


REAL: Any = room._saturates.__wrapped__
