"""Activations as exporters spell them, and what is made of exponentials and logarithms."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.structures.building import Parts, floats, structure


def _wide(*shape: int, scale: float = 30.0) -> Any:
    return np.float32(scale) * floats(*shape)


@structure
def gelu_by_cubes(size: int) -> Parts:
    """As GPT-2 spells it: a cube overflows above 40."""
    nodes = """h = MatMul(x, w) c = Pow(h, #3.0) d = Mul(c, #0.044715) e = Add(h, d)
        f = Mul(e, #0.7978846) t = Tanh(f) u = Add(t, #1.0) v = Mul(h, u) y = Mul(v, #0.5)"""
    return nodes, {"x": _wide(3, size)}, {"w": floats(size, 8, seed=1)}


@structure
def gelu_by_products(size: int) -> Parts:
    nodes = """a = Mul(x, x) c = Mul(a, x) d = Mul(c, #0.044715) e = Add(x, d)
        f = Mul(e, #0.7978846) t = Tanh(f) u = Add(t, #1.0) v = Mul(x, #0.5) y = Mul(v, u)"""
    return nodes, {"x": _wide(3, size)}, {}


@structure
def gelu_by_error_function(size: int) -> Parts:
    nodes = """d = Div(x, #1.4142135) e = Erf(d) f = Add(e, #1.0) g = Mul(x, f)
        h = Mul(g, #0.5) y = MatMul(h, w)"""
    return nodes, {"x": floats(3, size)}, {"w": floats(size, 8) / size**0.5}


@structure
def swish_by_exponential(size: int) -> Parts:
    """A sigmoid spelt out: its exponential is infinite, its quotient 0."""
    nodes = """n = Neg(x) e = Exp(n) d = Add(e, #1.0) y = Div(x, d)"""
    return nodes, {"x": _wide(3, size)}, {}


@structure
def softplus_spelt_out(size: int) -> Parts:
    nodes = """e = Exp(x) d = Add(e, #1.0) y = Log(d)"""
    return nodes, {"x": _wide(3, size, scale=8)}, {}


@structure
def mish(size: int) -> Parts:
    nodes = """e = Exp(x) d = Add(e, #1.0) l = Log(d) t = Tanh(l) y = Mul(x, t)"""
    return nodes, {"x": _wide(3, size, scale=8)}, {}


@structure
def logarithm_of_a_sum_of_exponentials(size: int) -> Parts:
    nodes = """m = ReduceMax<keepdims = 1>(x, #[-1]) d = Sub(x, m) e = Exp(d)
        s = ReduceSum<keepdims = 1>(e, #[-1]) l = Log(s) a = Add(l, m) y = Sub(x, a)"""
    return nodes, {"x": _wide(3, size)}, {}


@structure
def softmax_without_maximum(size: int) -> Parts:
    nodes = """e = Exp(x) s = ReduceSum<keepdims = 1>(e, #[-1]) y = Div(e, s)"""
    return nodes, {"x": _wide(3, size, scale=6)}, {}


@structure
def softmax_of_a_large_vocabulary(size: int) -> Parts:
    nodes = """h = MatMul(x, w) y = LogSoftmax<axis = -1>(h)"""
    return nodes, {"x": floats(size, 16)}, {"w": floats(16, 6000, seed=1)}


@structure
def probability_of_a_product(size: int) -> Parts:
    """Naive Bayes: a product of many probabilities by the sum of their logarithms."""
    nodes = """p = Sigmoid(x) q = Add(p, #1e-8) l = Log(q) s = ReduceSum<keepdims = 1>(l, #[-1])
        y = Exp(s)"""
    return nodes, {"x": floats(3, size)}, {}


@structure
def cross_entropy(size: int) -> Parts:
    nodes = """p = Softmax<axis = -1>(x) c = Clip(p, #1e-7, #0.9999999) l = Log(c)
        t = OneHot<axis = -1>(k, depth, values) m = Mul(l, t)
        s = ReduceSum<keepdims = 0>(m, #[-1]) y = Neg(s)"""
    constants = {"depth": np.int64(9), "values": np.array([0, 1], np.float32)}
    return nodes, {"x": 9 * floats(size, 9), "k": np.arange(size) % 9}, constants


@structure
def inverse_sigmoid(size: int) -> Parts:
    """Deformable DETR refines reference points by it."""
    nodes = """c = Clip(x, #0.0, #1.0) a = Clip(c, #1e-5) o = Sub(#1.0, c) b = Clip(o, #1e-5)
        d = Div(a, b) l = Log(d) s = Add(l, t) y = Sigmoid(s)"""
    points = np.random.default_rng(0).random((size, 4), np.float32)
    points[0] = 0, 1, 1e-3, 0.999
    return nodes, {"x": points, "t": floats(size, 4)}, {}


@structure
def elu_by_where(size: int) -> Parts:
    nodes = """p = Greater(x, #0.0) e = Exp(x) m = Sub(e, #1.0) y = Where(p, x, m)"""
    return nodes, {"x": _wide(3, size)}, {}


@structure
def snake(size: int) -> Parts:
    """The activation of BigVGAN and the Descript codec."""
    nodes = """b = Mul(x, a) s = Sin(b) q = Pow(s, #2.0) e = Add(a, #1e-9) r = Reciprocal(e)
        m = Mul(r, q) y = Add(x, m)"""
    alphas = np.exp(floats(1, 4, 1, seed=3))
    return nodes, {"x": floats(1, 4, size)}, {"a": alphas}


@structure
def power_law(size: int) -> Parts:
    """A generalized mean pooling with its tiny floor."""
    nodes = """c = Clip(x, #1e-6) p = Pow(c, p3) m = GlobalAveragePool(p) i = Reciprocal(p3)
        r = Pow(m, i) f = Flatten(r) y = MatMul(f, w)"""
    constants = {"p3": np.array([3], np.float32), "w": floats(4, 8)}
    return nodes, {"x": np.abs(floats(1, 4, size, size)) * 20}, constants


@structure
def box_cox(size: int) -> Parts:
    nodes = """l = Log(x) a = Mul(l, #0.3) e = Exp(a) d = Sub(e, #1.0) y = Div(d, #0.3)"""
    return nodes, {"x": np.exp(floats(3, size) * 6)}, {}


@structure
def logarithm_of_counts(size: int) -> Parts:
    nodes = (
        """c = Cast<to = 1>(n) p = Add(c, #1.0) l = Log(p) h = MatMul(l, w) y = Relu(h)"""
    )
    counts = 10 ** np.random.default_rng(0).integers(0, 7, (3, size))
    return nodes, {"n": counts}, {"w": floats(size, 8) / size}


@structure
def symmetric_logarithm(size: int) -> Parts:
    """As DreamerV3 squeezes observations."""
    nodes = """s = Sign(x) a = Abs(x) p = Add(a, #1.0) l = Log(p) h = Mul(s, l)
        y = MatMul(h, w)"""
    x = floats(3, size) * 10 ** (5 * np.abs(floats(3, size, seed=1)))
    return nodes, {"x": x.astype("f4")}, {"w": floats(size, 8) / size}


@structure
def gumbel_noise(size: int) -> Parts:
    nodes = """a = Add(u, #1e-20) l = Log(a) n = Neg(l) b = Add(n, #1e-20) m = Log(b) g = Neg(m)
        s = Add(x, g) d = Div(s, #0.5) y = Softmax<axis = -1>(d)"""
    noise = np.random.default_rng(0).random((3, size), np.float32)
    noise[0, 0] = 0
    return nodes, {"x": floats(3, size), "u": noise}, {}


@structure
def entropy(size: int) -> Parts:
    nodes = """p = Softmax<axis = -1>(x) a = Add(p, #1e-12) l = Log(a) m = Mul(p, l)
        s = ReduceSum<keepdims = 1>(m, #[-1]) y = Neg(s)"""
    return nodes, {"x": 5 * floats(3, size)}, {}
