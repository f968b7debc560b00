"""The float model with a switch at each quantizer: what it computes, for every choice of nodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from onnx_harness.judging.mixed.quantizers import ERRORS, Quantizers, quantizers
from onnx_harness.judging.mixed.switches import MASK
from onnx_harness.transforms.quantization.mixed import QuantizedConversion
from tests.models import model

Floats = npt.NDArray[np.float32]

# `y` is an output that another node reads, `p` and `q` are two outputs of one node, `w` is a
# weight; `free` has no name, `out` is left out, `t` only moves values, `n` isn't quantized.
FLOAT = """(float[2,2] x) => (float[2,2] y, float[2,2] z, float[1,2] p, float[1,2] q) {
    h = MatMul(x, w)
    n = Neg(h)
    y = Add(n, w)
    t = Transpose(y)
    z = Mul(t, y)
    u = Mul(z, z)
    v = Sub(u, n)
    p, q = Split <axis = 0> (v, sizes)
    e = Div(p, q)
}"""
NAMED = {"h": "H", "n": "N", "y": "Y", "t": "T", "z": "Z", "v": "V", "p": "P", "e": "E"}
SIZES = np.array([1, 1], np.int64)
STEPS = {"x": 0.25, "h": 0.5, "y": 1.0, "t": 1.0, "z": 0.75, "n": 2.0, "p": 0.5, "q": 0.125}
# The values that a node reads or gives whose quantizers are the node's.
OF_NODE = {"H": "xhw", "Y": "nyw", "Z": "tyz", "E": "pq"}
LABELS = tuple(OF_NODE)
X = np.array([[0.3, -1.1], [2.7, 0.9]], np.float32)
W = np.array([[1.5, -0.5], [0.25, 2.0]], np.float32)


def float_model() -> onnx.ModelProto:
    made = model(FLOAT, opset=13)
    made.graph.initializer.append(numpy_helper.from_array(W, "w"))
    made.graph.initializer.append(numpy_helper.from_array(SIZES, "sizes"))
    for node in made.graph.node:
        node.name = NAMED.get(node.output[0], "")
    made.ir_version = 3
    return made


def quantized_model() -> onnx.ModelProto:
    """As the library writes it: a pair of nodes for each value, one node for a weight."""
    nodes: list[str] = []
    steps: list[tuple[str, npt.NDArray[Any]]] = []
    for name, step in STEPS.items():
        nodes.append(f"{name}_q = QuantizeLinear({name}, {name}_scale, zero)")
        nodes.append(
            f"{name}_DequantizeLinear_Output = DequantizeLinear({name}_q, {name}_scale, zero)"
        )
        steps.append((f"{name}_scale", np.array(step, np.float32)))
    nodes.append("w_DequantizeLinear_Output = DequantizeLinear(w_quantized, w_scale, zero)")
    # A node itself, which gives its value under the name that it had.
    nodes.append("h = MatMul(x_DequantizeLinear_Output, w_DequantizeLinear_Output)")
    # What belongs to no node of the list, what isn't in the model, and one value a second time.
    for name in ("v", "strange", "x"):
        nodes.append(f"{name}_more = QuantizeLinear({name}, x_scale, zero)")
        other = f"{name}_DequantizeLinear_Output" + "_2" * (name == "x")
        nodes.append(f"{other} = DequantizeLinear({name}_more, x_scale, zero)")
    values = ", ".join(f"float[2,2] {name}" for name in (*STEPS, "v", "strange"))
    made = model(
        f"({values}) => (float[2,2] o) {{ {' '.join(nodes)} o = Identity(x) }}", opset=13
    )
    steps += [
        ("zero", np.array(3, np.int8)),
        ("w_scale", np.array(0.5, np.float32)),
        ("w_quantized", np.array([[6, 1], [4, 7]], np.int8)),
    ]
    for name, value in steps:
        made.graph.initializer.append(numpy_helper.from_array(value, name))
    for node in made.graph.node:
        node.name = f"make_{node.output[0]}"
    return made


def conversion(**changes: Any) -> QuantizedConversion:
    given: dict[str, Any] = {
        "model": None,
        "quantize": None,
        "ops": frozenset({"MatMul", "Add", "Mul", "Div", "Sub", "Transpose", "Split"}),
        "left_out": frozenset({"V"}),
        "sqnr_db": 0.0,
        "agreement": 0.0,
        "spelling": "",
    }
    return QuantizedConversion(**(given | changes))


def rounded(value: Floats, step: float) -> Floats:
    levels = np.clip(np.rint(value / np.float32(step)) + 3, -128, 127) - 3
    value_rounded: Floats = (levels * np.float32(step)).astype(np.float32)
    return value_rounded


def computed(rounding: Collection[str]) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """What the model makes with some values rounded: all values as made, and as they are read."""
    made: dict[str, Floats] = {"x": X, "w": W}
    read: dict[str, Floats] = {}

    def reading(name: str) -> Floats:
        if name not in read:
            value = made[name]
            if name in rounding:
                value = W_ROUNDED if name == "w" else rounded(value, STEPS[name])
            read[name] = value
        return read[name]

    made["h"] = reading("x") @ reading("w")
    made["n"] = -reading("h")
    made["y"] = reading("n") + reading("w")
    made["t"] = reading("y").T
    made["z"] = reading("t") * reading("y")
    made["v"] = reading("z") * reading("z") - reading("n")
    made["p"], made["q"] = reading("v")[:1], reading("v")[1:]
    for name in ("p", "q"):
        reading(name)
    return made, read


W_ROUNDED = np.array([[1.5, -1.0], [0.5, 2.0]], np.float32)
CHOICES = [set(some) for count in range(5) for some in combinations(range(4), count)]


def made() -> Quantizers:
    return quantizers(float_model(), quantized_model(), conversion())


def opened(graph: Quantizers) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    onnx.checker.check_model(graph.model, full_check=True)
    return ort.InferenceSession(
        graph.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


ORDER = (*STEPS, "w")


def test_a_quantizer_belongs_to_the_nodes_that_read_or_give_its_value() -> None:
    graph = made()
    assert graph.labels == LABELS
    claims = []
    for name in ORDER:
        claims.append(
            {place for place, label in enumerate(LABELS) if name in OF_NODE[label]}
        )
    assert list(graph.claims) == claims


def test_a_value_is_rounded_unless_all_its_nodes_are_float() -> None:
    graph = made()
    session = opened(graph)
    names = [info.name for info in session.get_outputs()]
    assert names == ["y", "z", "p", "q", ERRORS]
    for floats in CHOICES:
        rounding = set()
        for place, label in enumerate(LABELS):
            rounding |= set() if place in floats else set(OF_NODE[label])
        mask = graph.mask(floats)
        assert mask.dtype == np.bool_
        assert mask.tolist() == [name in rounding for name in ORDER]
        values, read = computed(rounding)
        outputs = session.run(None, {"x": X, MASK: mask})
        got: Mapping[str, Any] = dict(zip(names, outputs, strict=True))
        for name in "yzpq":
            np.testing.assert_array_equal(got[name], read[name], err_msg=f"{name} {floats}")
        parts = []
        for name in ORDER:
            exact = values[name]
            apart = exact - (W_ROUNDED if name == "w" else rounded(exact, STEPS[name]))
            parts += [np.sum(apart**2), np.sum(exact**2)]
        np.testing.assert_allclose(got[ERRORS], parts, rtol=1e-6)


def test_the_model_says_what_it_takes_and_gives() -> None:
    graph = made()
    assert graph.model.ir_version == 4  # initializers that aren't inputs
    taken = {info.name: info.type.tensor_type for info in graph.model.graph.input}
    assert list(taken) == ["x", MASK]
    assert taken[MASK].elem_type == onnx.TensorProto.BOOL
    assert [size.dim_value for size in taken[MASK].shape.dim] == [len(ORDER)]
    errors = graph.model.graph.output[-1].type.tensor_type
    assert (errors.elem_type, errors.shape.dim[0].dim_value) == (
        onnx.TensorProto.FLOAT,
        2 * len(ORDER),
    )
    names = [tensor.name for tensor in graph.model.graph.initializer]
    assert len(set(names)) == len(names)
    assert not graph.model.graph.value_info


def test_a_newer_model_keeps_its_version_and_one_without_quantizers_its_outputs() -> None:
    source = float_model()
    source.ir_version = 9
    source.graph.value_info.append(source.graph.output[0])
    graph = quantizers(source, quantized_model(), conversion(ops=frozenset({"Transpose"})))
    assert (graph.labels, graph.claims) == ((), ())
    assert graph.model.ir_version == 9
    assert [info.name for info in graph.model.graph.output] == ["y", "z", "p", "q"]
    assert (graph.mask(()).shape, graph.mask(()).dtype.kind) == ((0,), "b")
