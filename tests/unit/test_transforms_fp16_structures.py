"""Structures of trained models at two sizes, computed as float16 hardware computes them beside
float32.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_harness.judging.simulation import simulated
from onnx_harness.transforms.fp16 import convert_float_to_float16
from tests.unit.transform_models import copy_of, floats, run

Arrays = dict[str, Any]
Structure = tuple[str, Arrays, Arrays]
"""The nodes, the inputs and the constants of a model; it gives ``y``."""

LOWEST = np.float32(np.finfo(np.float32).min)


def built(structure: Structure, opset: int = 18) -> onnx.ModelProto:
    nodes, inputs, constants = structure
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
    model = onnx.parser.parse_model(f"{header} agraph () => () {{ {nodes} }}")
    for name, array in inputs.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        model.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    model.graph.output.append(helper.make_tensor_value_info("y", 1, None))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model)
    rank = len(inferred.graph.output[0].type.tensor_type.shape.dim)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, [None] * rank))
    return model


def departure(structure: Structure, **options: Any) -> float:
    """The relative L2 error of the converted model, each float16 value of it rounded as it's made."""
    model = built(structure)
    half = convert_float_to_float16(model, keep_io_types=True, **options)
    (ours,) = run(simulated(copy_of(half), copy_of(half)), **structure[1])
    (expected,) = run(model, **structure[1])
    assert ours.shape == expected.shape
    assert np.isfinite(ours).all() or not np.isfinite(expected).all()
    return float(
        np.linalg.norm(ours.astype("f8") - expected) / np.linalg.norm(expected.astype("f8"))
    )


def rope(size: int) -> Structure:
    nodes = """pf = Cast<to = 1>(pos) pu = Unsqueeze(pf, last) fr = Mul(pu, inv)
              emb = Concat<axis = -1>(fr, fr)
        c = Cos(emb) s = Sin(emb) x1, x2 = Split<axis = -1, num_outputs = 2>(x) nx = Neg(x2)
        rot = Concat<axis = -1>(nx, x1) a = Mul(x, c) b = Mul(rot, s) y = Add(a, b)"""
    positions = np.arange(size, dtype=np.int64)[None] + 3000
    constants = {"inv": (0.1 ** np.arange(4)).astype("f4"), "last": np.array([2], np.int64)}
    return nodes, {"x": floats(1, size, 8), "pos": positions}, constants


def rope_by_product(size: int) -> Structure:
    """As transformers exports it: the frequencies, expanded, times the positions.

    Both by shape and by input.
    """
    nodes = """pf = Cast<to = 1>(pos) row = Unsqueeze(pf, one) n = Shape<start = 0, end = 1>(pos)
        to = Concat<axis = 0>(n, tail) column = Expand(inv, to) grid = MatMul(column, row)
        angles = Transpose<perm = [0, 2, 1]>(grid) c = Cos(angles) y = Mul(x, c)"""
    constants = {
        "inv": (0.1 ** np.arange(8)).astype("f4").reshape(1, 8, 1),
        "one": np.array([1], np.int64),
        "tail": np.array([8, 1], np.int64),
    }
    return (
        nodes,
        {"x": floats(2, size, 8), "pos": np.tile(np.arange(size) + 2500, (2, 1))},
        constants,
    )


def rotary_by_range(size: int) -> Structure:
    nodes = """n = Shape<start = 0, end = 1>(x) none = Squeeze(n) nf = Cast<to = 1>(none)
              at = Range(zero, nf, one)
        column = Unsqueeze(at, last) fr = Mul(column, inv) c = Cos(fr) s = Sin(fr)
        x1, x2 = Split<axis = -1, num_outputs = 2>(x) a = Mul(x1, c) b = Mul(x2, s) d = Sub(a, b)
        e = Mul(x1, s) f = Mul(x2, c) g = Add(e, f) y = Concat<axis = -1>(d, g)"""
    constants = {
        "zero": np.float32(0),
        "one": np.float32(1),
        "inv": np.array([1, 0.3, 0.01, 0.001], np.float32),
    }
    return nodes, {"x": floats(size, 8)}, {**constants, "last": np.array([1], np.int64)}


def alibi(size: int) -> Structure:
    nodes = """row = Unsqueeze(at, first) column = Unsqueeze(at, last) far = Sub(row, column)
              away = Abs(far)
        ff = Cast<to = 1>(away) minus = Neg(ff) bias = Mul(minus, slopes) s = Add(x, bias)
              y = Softmax<axis = -1>(s)"""
    constants = {
        "slopes": np.array([0.5, 0.0625, 0.004], np.float32).reshape(3, 1, 1),
        "first": np.array([0], np.int64),
        "last": np.array([1], np.int64),
    }
    return nodes, {"x": floats(3, size, size), "at": np.arange(size, dtype=np.int64)}, constants


def timestep(size: int, kind: str = "int64") -> Structure:
    cast = "tf = Cast<to = 1>(t)" if kind == "int64" else "tf = Identity(t)"
    nodes = f"""{cast} column = Unsqueeze(tf, last) arg = Mul(column, freqs) s = Sin(arg)
              c = Cos(arg)
        e = Concat<axis = -1>(c, s) h = MatMul(e, w) g = Sigmoid(h) y = Mul(h, g)"""
    freqs = np.exp(-np.log(1e4) * np.arange(size) / size).astype("f4")
    constants = {
        "freqs": freqs,
        "w": floats(2 * size, 16) / size**0.5,
        "last": np.array([1], np.int64),
    }
    return nodes, {"t": np.array([981, 3, 511], kind)}, constants


def float_timestep(size: int) -> Structure:
    return timestep(size, "float32")


def group_norm(size: int) -> Structure:
    nodes = """r = Reshape(x, groups) m = ReduceMean<keepdims = 1>(r, last) d = Sub(r, m)
              q = Pow(d, two)
        v = ReduceMean<keepdims = 1>(q, last) e = Add(v, eps) s = Sqrt(e) n = Div(d, s)
              back = Shape(x)
        h = Reshape(n, back) y = Mul(h, g)"""
    constants = {
        "groups": np.array([1, 2, -1], np.int64),
        "last": np.array([2], np.int64),
        "two": np.float32(2),
        "eps": np.float32(1e-5),
        "g": floats(1, 4, 1, 1, seed=1),
    }
    return nodes, {"x": 3 * floats(1, 4, size, size) + 1}, constants


def rms_norm(size: int, scale: float = 1.0) -> Structure:
    nodes = """q = Pow(x, two) v = ReduceMean<keepdims = 1>(q, last) e = Add(v, eps) s = Sqrt(e)
              i = Reciprocal(s)
        n = Mul(x, i) h = Mul(n, g) y = MatMul(h, w)"""
    constants = {"last": np.array([1], np.int64), "two": np.float32(2), "eps": np.float32(1e-12)}
    weights = {"g": floats(size, seed=1), "w": floats(size, 8, seed=2) / size**0.5}
    return nodes, {"x": np.float32(scale) * floats(3, size)}, {**constants, **weights}


def rms_norm_of_tiny(size: int) -> Structure:
    return rms_norm(size, 1e-4)


def rms_norm_of_huge(size: int) -> Structure:
    return rms_norm(size, 2e3)


def unit_vectors(size: int) -> Structure:
    nodes = """n = ReduceL2<keepdims = 1>(x, last) f = Clip(n, eps) y = Div(x, f)"""
    constants = {"last": np.array([1], np.int64), "eps": np.float32(1e-12)}
    return (
        nodes,
        {"x": np.concatenate([1e-5 * floats(2, size), 1e3 * floats(2, size), 0 * floats(1, size)])},
        constants,
    )


def key_value_cache(size: int) -> Structure:
    nodes = """q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
              ks = Concat<axis = 1>(past_k, k)
        vs = Concat<axis = 1>(past_v, v) t = Transpose<perm = [0, 2, 1]>(ks) s = MatMul(q, t)
              n = Mul(s, sc)
        p = Softmax<axis = -1>(n) y = MatMul(p, vs)"""
    inputs = {
        "x": floats(1, 1, 8),
        "past_k": floats(1, size, 8, seed=1),
        "past_v": floats(1, size, 8, seed=2),
    }
    weights = {f"w{name}": floats(8, 8, seed=seed) / 3 for seed, name in enumerate("qkv", 3)}
    return nodes, inputs, {**weights, "sc": np.float32(8**-0.5)}


MASKS = {
    "a product with the lowest": """mf = Cast<to = 1>(m) inv = Sub(one, mf) low = Mul(inv, lowest)
        add = Unsqueeze(low, axis) s = Add(x, add)""",
    "a choice of the lowest": (
        "b = Cast<to = 9>(m) bu = Unsqueeze(b, axis) s = Where(bu, x, lowest)"
    ),
    "a product with -1e9": """mf = Cast<to = 1>(m) inv = Sub(mf, one) low = Mul(inv, billion)
        add = Unsqueeze(low, axis) s = Add(x, add)""",
    "a triangle of the lowest": """all = Shape(x) square = Slice(all, k1, k3)
        full = ConstantOfShape<value = float[1] {-3.4028235e+38}>(square)
        up = Trilu<upper = 1>(full, k) c = Add(x, up) mf = Cast<to = 1>(m) inv = Sub(one, mf)
        low = Mul(inv, lowest) add = Unsqueeze(low, axis) s = Add(c, add)""",
    "a triangle chosen by positions": """n = Shape<start = 1, end = 2>(x) none = Squeeze(n)
        at = Range(zero, none, step) row = Unsqueeze(at, k0) column = Unsqueeze(at, k1)
              late = Greater(row, column)
        up = Where(late, lowest, nought) s = Add(x, up)""",
}


def masked(text: str) -> Callable[[int], Structure]:
    def structure(size: int) -> Structure:
        mask = np.ones((2, size), np.int64)
        mask[0, : size // 2] = 0
        constants = {
            "one": np.float32(1),
            "nought": np.float32(0),
            "lowest": LOWEST,
            "billion": np.float32(1e9),
            "axis": np.array([1], np.int64),
            "k": np.int64(1),
            **{f"k{number}": np.array([number], np.int64) for number in (0, 1, 3)},
            "zero": np.int64(0),
            "step": np.int64(1),
        }
        words = set(re.findall(r"\w+", text))
        used = {name: value for name, value in constants.items() if name in words}
        inputs = {"x": floats(2, size, size)}
        return (
            text + " y = Softmax<axis = -1>(s)",
            {**inputs, **({"m": mask} if "(m)" in text else {})},
            used,
        )

    return structure


def resize(size: int, by: str) -> Structure:
    image = {"x": floats(1, 2, 7, size)}
    ends = {"w": floats(3, 2, 1, 1, seed=1), "o2": np.ones(2, np.float32)}
    product = " y = Conv<kernel_shape = [1, 1]>(u, w)"
    target = {"t": np.array([21, 3 * size], np.int64)}
    match by:
        case "ratio":
            nodes = """sh = Shape<start = 2>(x) shf = Cast<to = 1>(sh) tf = Cast<to = 1>(t)
              r = Div(tf, shf)
                sc = Concat<axis = 0>(o2, r) u = Resize<mode = "linear">(x, , sc)"""
            return nodes + product, {**image, **target}, ends
        case "size":
            nodes = """lead = Shape<start = 0, end = 2>(x) all = Concat<axis = 0>(lead, t)
                u = Resize<mode = "linear">(x, , , all)"""
            return nodes + product, {**image, **target}, {"w": ends["w"]}
        case _:
            nodes = 'sc = Concat<axis = 0>(o2, f) u = Resize<mode = "nearest">(x, , sc)'
            return nodes + product, {**image, "f": np.array([3.003, 3.003], np.float32)}, ends


def recurrent(size: int) -> Structure:
    nodes = "h, = LSTM<hidden_size = 6>(x, w, r, b) s = Squeeze(h, axis) y = MatMul(s, m)".replace(
        "h, =", "h ="
    )
    weights = {
        "w": floats(1, 24, 4) / 2,
        "r": floats(1, 24, 6, seed=1) / 3,
        "b": floats(1, 48, seed=2) / 4,
    }
    return (
        nodes,
        {"x": floats(size, 2, 4)},
        {**weights, "m": floats(6, 3), "axis": np.array([1], np.int64)},
    )


def log_mel(size: int) -> Structure:
    nodes = """re = MatMul(frames, cosines) im = MatMul(frames, sines) r2 = Mul(re, re)
              i2 = Mul(im, im)
        power = Add(r2, i2) mel = MatMul(power, bank) floored = Max(mel, floor) l = Log(floored)
              d = Div(l, ten)
        greatest = ReduceMax<keepdims = 0>(d) least = Sub(greatest, eight) c = Max(d, least)
              a = Add(c, four)
        y = Div(a, four)"""
    angles = 2 * np.pi * np.outer(np.arange(32), np.arange(17)) / 32
    frames = floats(size, 32) * np.float32(0.1)
    frames[: size // 2] = 0
    constants = {
        "cosines": np.cos(angles).astype("f4"),
        "sines": np.sin(angles).astype("f4"),
        "bank": np.abs(floats(17, 8)) / 17,
        "floor": np.float32(1e-10),
        "ten": np.float32(np.log(10)),
        "eight": np.float32(8),
        "four": np.float32(4),
    }
    return nodes, {"frames": frames}, constants


def silent_log_mel(size: int) -> Structure:
    nodes, inputs, constants = log_mel(size)
    return nodes, {"frames": inputs["frames"] * 0}, constants


def residual_quantizer(size: int) -> Structure:
    nodes = """xx = Mul(x, x) n = ReduceSum<keepdims = 1>(xx, last) p = MatMul(x, table)
              t = Mul(p, two) d = Sub(n, t)
        e = Add(d, norms) at = ArgMin<axis = -1, keepdims = 0>(e)
              book = Transpose<perm = [1, 0]>(table)
        first = Gather(book, at) r = Sub(x, first) p2 = MatMul(r, table) t2 = Mul(p2, two)
              e2 = Sub(norms, t2)
        at2 = ArgMin<axis = -1, keepdims = 0>(e2) second = Gather(book, at2)
              y = Add(first, second)"""
    table = floats(8, 64, seed=4)
    constants = {
        "table": table,
        "norms": (table**2).sum(0),
        "two": np.float32(2),
        "last": np.array([1], np.int64),
    }
    return nodes, {"x": floats(size, 8)}, constants


def experts(size: int) -> Structure:
    nodes = """l = MatMul(x, router) p = Softmax<axis = -1>(l) top, at = TopK(p, two)
        s = ReduceSum<keepdims = 1>(top, last) n = Div(top, s) zeros = Sub(p, p)
        g = ScatterElements<axis = -1>(zeros, at, n) h = MatMul(x, w) hs = Reshape(h, split)
        gu = Unsqueeze(g, axis) m = MatMul(gu, hs) y = Squeeze(m, last)"""
    constants = {
        "router": floats(16, 6),
        "w": floats(16, 48, seed=1) / 4,
        "two": np.array([2], np.int64),
        "last": np.array([1], np.int64),
        "axis": np.array([1], np.int64),
        "split": np.array([-1, 6, 8], np.int64),
    }
    return nodes, {"x": floats(size, 16, seed=2)}, constants


def blocks_of_bits(size: int) -> Structure:
    nodes = (
        f"h = com.microsoft.MatMulNBits<K = 32, N = {size}, bits = 4, block_size = 16>(x, q, "
        f"s) y = MatMul(h, w)"
    )
    packed = np.random.default_rng(2).integers(0, 255, (size, 2, 8), dtype=np.uint8)
    constants = {"q": packed, "s": np.abs(floats(2 * size)) / 16, "w": floats(size, 8) / size**0.5}
    return nodes, {"x": floats(3, 32)}, constants


def long_sum(size: int) -> Structure:
    nodes = "a = ReduceSum<keepdims = 1>(x, last) b = Mul(a, c) y = MatMul(b, w)"
    constants = {
        "c": np.array([1e-3], np.float32),
        "w": floats(1, 8),
        "last": np.array([1], np.int64),
    }
    return nodes, {"x": np.abs(floats(2, 300 * size)) * 10}, constants


def running_window(size: int) -> Structure:
    """A moving average by the difference of running sums."""
    nodes = """run = CumSum(x, axis) late = Slice(run, four, end, four)
              early = Slice(run, start, minus, four)
        d = Sub(late, early) y = Mul(d, c)"""
    nodes = nodes.replace(", end, four)", ", end, axes)").replace(
        ", minus, four)", ", minus, axes)"
    )
    constants = {
        "axis": np.int64(1),
        "four": np.array([4], np.int64),
        "end": np.array([100000], np.int64),
        "start": np.array([0], np.int64),
        "minus": np.array([-4], np.int64),
        "axes": np.array([1], np.int64),
        "c": np.float32(0.25),
    }
    return nodes, {"x": np.abs(floats(2, 20 * size))}, constants


def normalized_by_large_variances(size: int) -> Structure:
    """Exporters share equal tensors of a BatchNormalization through Identity."""
    nodes = "v2 = Identity(v) g2 = Identity(g) y = BatchNormalization(x, g2, b, b, v2)"
    constants = {
        "g": np.ones(3, np.float32),
        "b": np.zeros(3, np.float32),
        "v": np.array([1e6, 4e6, 1e8], np.float32),
    }
    return nodes, {"x": 1e3 * floats(1, 3, size, size)}, constants


STRUCTURES: dict[str, Callable[[int], Structure]] = {
    function.__name__: function
    for function in (
        rope,
        rope_by_product,
        rotary_by_range,
        alibi,
        timestep,
        float_timestep,
        group_norm,
        rms_norm,
        rms_norm_of_tiny,
        rms_norm_of_huge,
        unit_vectors,
        key_value_cache,
        recurrent,
        log_mel,
        silent_log_mel,
        residual_quantizer,
        experts,
        blocks_of_bits,
        long_sum,
        running_window,
        normalized_by_large_variances,
    )
}
STRUCTURES |= {f"a mask by {name}": masked(text) for name, text in MASKS.items()}
STRUCTURES |= {
    f"resize by {by}": lambda size, by=by: resize(size, by)  # type: ignore[misc]
    for by in ("ratio", "size", "scale")
}


@pytest.mark.filterwarnings("ignore:the float32 number:UserWarning")
@pytest.mark.parametrize("size", [6, 37])
@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_is_right_where_float16_computes(name: str, size: int) -> None:
    assert departure(STRUCTURES[name](size)) < 3e-3
