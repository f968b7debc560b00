"""``simplify`` and an If of which one branch gives a rank that nothing after it accepts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.transforms.simplify import simplify_with_report
from tests.unit.transform_models import floats, ops, run, same_bits

# What an exporter makes of ``x.squeeze(-1)``: only where the dimension is 1.
SQUEEZED = """
    s = Shape(x) d = Gather<axis = 0>(s, last) c = Equal(d, one)
    q = If (c) <
        then_branch = t () => (a) { a = Squeeze(x, last) },
        else_branch = e () => (b) { b = Identity(x) }
    >
"""


def model(
    text: str, declared: str = "float[N,4,T] x", **constants: object
) -> onnx.ModelProto:
    """A model of ``text`` from x to z."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> agraph ({declared}) => (float z) {{ {text} }}'
    )
    values = {
        "last": np.array([-1]),
        "one": np.array([1]),
        "nil": np.array([0]),
        **constants,
    }
    for name, value in values.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


LSTM = (
    SQUEEZED
    + "u = Unsqueeze(q, nil) h, l, k = LSTM<hidden_size = 3>(u, w, r) z = Squeeze(l, nil)"
)


def test_the_rank_that_a_recurrent_layer_accepts_chooses_the_branch() -> None:
    source = model(LSTM, w=floats(1, 12, 4), r=floats(1, 12, 3))
    result, _ = simplify_with_report(source)

    assert "If" not in ops(result)
    feeds = {"x": floats(3, 4, 1)}
    assert same_bits(run(source, **feeds), run(result, **feeds))


@pytest.mark.parametrize(
    "after",
    [
        pytest.param("z = Relu(q)", id="any rank will do"),
        pytest.param(
            "y = Equal(d, nil) z = If (y) < then_branch = f () => (m) { m = Transpose<perm=[1,0]>(q) }, "
            "else_branch = g () => (n) { n = Neg(q) } >",
            id="asked in a branch that isn't taken",
        ),
        pytest.param("z = MatMul(q, w)", id="an operator of several ranks"),
    ],
)
@pytest.mark.parametrize("steps", [1, 2])
def test_both_branches_stay_where_both_may_run(after: str, steps: int) -> None:
    width = 4 if steps == 1 else 2
    source = model(SQUEEZED + after, w=floats(width, 5))
    result, _ = simplify_with_report(source)

    assert "If" in ops(result)
    feeds = {"x": floats(3, 4, steps)}
    assert same_bits(run(source, **feeds), run(result, **feeds))


def test_the_axes_that_a_branch_reads_from_outside_are_known() -> None:
    text = """
        c = Equal(d, one)
        z = If (c) <
            then_branch = t () => (a) {
                u = Unsqueeze(x, nil) s = Shape(u) e = Size(s) f = Cast<to = 1>(e) a = Add(u, f)
            },
            else_branch = e () => (b) { b = Neg(x) }
        >
    """
    source = model(text, "float[N,4] x, int64[1] d")
    result, _ = simplify_with_report(source)

    assert "Shape" not in ops(result)
    for number in (0, 1):
        feeds = {"x": floats(3, 4), "d": np.array([number])}
        assert same_bits(run(source, **feeds), run(result, **feeds))
