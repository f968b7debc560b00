"""Constants and attributes that a narrow type has no number for, and what they bound."""

from __future__ import annotations

import numpy as np

from tests.structures.building import Parts, floats, integers, structure

_GREATEST = float(np.finfo(np.float32).max)


@structure
def clip_by_the_greatest(size: int) -> Parts:
    """Exporters write a bound that is none as the greatest float32."""
    nodes = "c = Clip(x, #0.0, top) y = Relu(c)"
    return nodes, {"x": floats(3, size)}, {"top": np.float32(_GREATEST)}


@structure
def bounds_of_both_kinds(size: int) -> Parts:
    """Max with the lowest float32 and Min with the greatest."""
    nodes = "a = Max(x, low) b = Min(a, top) y = Tanh(b)"
    return (
        nodes,
        {"x": floats(3, size)},
        {"low": np.float32(-_GREATEST), "top": np.float32(1e9)},
    )


@structure
def tiny_times_huge(size: int) -> Parts:
    """A product by 1e-8 is undone by one by 1e8."""
    nodes = "a = Mul(x, #1e-8) b = Add(a, shift) y = Mul(b, big)"
    return (
        nodes,
        {"x": floats(3, size)},
        {"shift": 1e-8 * floats(1, 1), "big": np.float32(1e8)},
    )


@structure
def step_of_an_optimizer(size: int) -> Parts:
    """Adam's step: a square's root beside an epsilon of 1e-8."""
    nodes = """s = Mul(x, x) v = Mul(s, #0.001) r = Sqrt(v) d = Add(r, #1e-8) m = Mul(x, #0.1)
        y = Div(m, d)"""
    return nodes, {"x": 1e-3 * floats(3, 4 * size)}, {}


@structure
def binary_cross_entropy(size: int) -> Parts:
    """The logarithms of a probability and of what it leaves, each with a floor of 1e-7."""
    nodes = """p = Sigmoid(x) c = Clip(p, #1e-7, #0.9999999) l = Log(c) q = Sub(#1.0, c) lq = Log(q)
        a = Mul(t, l) ti = Sub(#1.0, t) b = Mul(ti, lq) s = Add(a, b) y = Neg(s)"""
    inputs = {"x": 8 * floats(3, size), "t": integers(3, size, below=2).astype("f4")}
    return nodes, inputs, {}


@structure
def odds(size: int) -> Parts:
    """p / (1 - p + 1e-12)."""
    nodes = "p = Sigmoid(x) q = Sub(#1.0, p) d = Add(q, #1e-12) o = Div(p, d) l = Log(o) y = Tanh(l)"
    return nodes, {"x": 2 * floats(3, size)}, {}


@structure
def epsilon_of_a_layer_norm(size: int) -> Parts:
    """LayerNormalization's own epsilon of 1e-12, on small values."""
    nodes = "s = Mul(x, #0.0001) n = LayerNormalization<axis = -1, epsilon = 1e-12>(s, g, b) y = Tanh(n)"
    return nodes, {"x": floats(3, size, 16)}, {"g": floats(16) + 2, "b": floats(16, seed=1)}


@structure
def statistics_of_a_layer_norm(size: int) -> Parts:
    """What LayerNormalization gives beside its result is float32 by its stash_type."""
    nodes = """n, m, d = LayerNormalization<axis = -1>(x, g) c = Sub(x, m) e = Mul(c, d) s = Add(n, e)
        y = Tanh(s)"""
    return nodes, {"x": floats(3, size, 16)}, {"g": floats(16) + 2}


@structure(opset=21)
def group_normalization_operator(size: int) -> Parts:
    """GroupNormalization of opset 21 on values of hundreds."""
    nodes = "s = Mul(x, #90.0) g = GroupNormalization<num_groups = 2>(s, a, b) y = Relu(g)"
    return (
        nodes,
        {"x": floats(1, 4, size, size)},
        {"a": floats(4) + 1, "b": floats(4, seed=1)},
    )


@structure
def mean_variance_normalization(size: int) -> Parts:
    """The operator of that name, on an image of 0 to 255."""
    nodes = "f = Cast<to = 1>(x) m = MeanVarianceNormalization<axes = [0, 2, 3]>(f) y = Conv(m, w)"
    image = integers(1, 3, 4 * size, 4 * size, below=256).astype("u1")
    return nodes, {"x": image}, {"w": floats(4, 3, 3, 3)}


@structure
def norms_as_operators(size: int) -> Parts:
    """LpNormalization and ReduceL2 of values whose squares overflow."""
    nodes = """s = Mul(x, #400.0) l = LpNormalization<axis = -1, p = 2>(s)
        n = ReduceL2<keepdims = 1>(s, #[2]) q = Div(s, n) y = Add(l, q)"""
    return nodes, {"x": floats(2, size, 64)}, {}


@structure
def mean_of_a_wide_pool(size: int) -> Parts:
    """GlobalAveragePool over thousands of values of some hundreds."""
    nodes = "f = Cast<to = 1>(x) g = GlobalAveragePool(f) d = Div(g, #255.0) y = Conv(d, w)"
    return (
        nodes,
        {"x": integers(1, 3, 8 * size, 8 * size, below=256).astype("u1")},
        {"w": floats(4, 3, 1, 1)},
    )


@structure
def gemm_with_factors(size: int) -> Parts:
    """Gemm's alpha and beta, one tiny and one huge."""
    nodes = "g = Gemm<alpha = 1e-6, beta = 1000000.0, transB = 1>(x, w, b) y = Tanh(g)"
    constants = {"w": 1e6 * floats(4, 16), "b": 1e-6 * floats(4, seed=1)}
    return nodes, {"x": floats(size, 16)}, constants


@structure
def padding_by_the_lowest(size: int) -> Parts:
    """A Pad by the lowest float32 before a maximum."""
    nodes = """p = Pad(x, #[0, 0, 1, 1, 0, 0, 1, 1], low) m = MaxPool<kernel_shape = [3, 3]>(p)
        y = Relu(m)"""
    return nodes, {"x": floats(1, 2, size, size)}, {"low": np.float32(-_GREATEST)}


@structure
def best_of_the_allowed(size: int) -> Parts:
    """What isn't allowed is the lowest float32, and TopK takes the rest."""
    nodes = """m = Where(allowed, x, low) v, i = TopK(m, #[3]) f = Cast<to = 1>(i)
        s = Softmax<axis = -1>(v) y = Concat<axis = 1>(s, f)"""
    x = np.random.default_rng(0).permutation(30 * size).astype("f4").reshape(2, -1) / 32
    inputs = {"x": x, "allowed": integers(2, 15 * size, below=2) > 0}
    return nodes, inputs, {"low": np.float32(-_GREATEST)}


@structure
def decibels(size: int) -> Parts:
    """An amplitude spectrum in decibels above the greatest, at most 80 below it."""
    nodes = """a = Abs(x) m = Max(a, #1e-5) l = Log(m) d = Mul(l, #8.685889638)
        t = ReduceMax<keepdims = 1>(d) f = Sub(t, #80.0) c = Max(d, f) s = Add(c, #80.0) y = Div(s, #80.0)"""
    return nodes, {"x": 1e-4 * np.exp(3 * floats(2, 8 * size))}, {}


@structure
def per_channel_energy(size: int) -> Parts:
    """PCEN: a smoothed energy to the power of -0.98, and a bias that is taken off again."""
    nodes = """l, m = Scan<num_scan_inputs = 1, body = step (float[8] a, float[8] e) =>
            (float[8] n, float[8] o) { k = Mul(a, keep) q = Mul(e, take) n = Add(k, q) o = Identity(n) }>
            (first, x)
        f = Add(m, #1e-6) p = Pow(f, #-0.98) g = Mul(x, p) b = Add(g, #2.0) r = Sqrt(b)
        y = Sub(r, #1.4142135)"""
    constants = {
        "keep": np.float32(0.975),
        "take": np.float32(0.025),
        "first": np.full(8, 1e-4, "f4"),
    }
    return nodes, {"x": 1e-3 * np.exp(2 * floats(20 * size, 8))}, constants


@structure
def distance_by_squares(size: int) -> Parts:
    """Euclid's distance to prototypes by cdist, in units of some tens."""
    nodes = """a = Unsqueeze(x, #[1]) d = Sub(a, c) s = Mul(d, d) t = ReduceSum<keepdims = 0>(s, #[2])
        r = Sqrt(t) n = Neg(r) y = Softmax<axis = -1>(n)"""
    return nodes, {"x": 20 * floats(size, 32)}, {"c": 20 * floats(5, 32, seed=1)}


@structure
def temperature_of_an_input(size: int) -> Parts:
    """Scores divided by a temperature that is an input and near nothing."""
    nodes = "m = Max(t, #1e-6) d = Div(x, m) y = Softmax<axis = -1>(d)"
    return nodes, {"x": floats(2, 8 * size), "t": np.float32(1e-5)}, {}


@structure
def sum_of_many_probabilities(size: int) -> Parts:
    """A distribution over thousands is normalized by its sum."""
    nodes = "a = Abs(x) s = ReduceSum<keepdims = 1>(a, #[1]) y = Div(a, s) "
    return nodes, {"x": floats(2, 900 * size) + 3}, {}


@structure
def variance_of_channels_by_pools(size: int) -> Parts:
    """E[x^2] - E[x]^2 by two average pools, as local normalization is spelt."""
    nodes = """m = AveragePool<kernel_shape = [5, 5], pads = [2, 2, 2, 2]>(x) q = Mul(x, x)
        mq = AveragePool<kernel_shape = [5, 5], pads = [2, 2, 2, 2]>(q) mm = Mul(m, m) v = Sub(mq, mm)
        e = Add(v, #1e-6) d = Sqrt(e) c = Sub(x, m) y = Div(c, d)"""
    return nodes, {"x": floats(1, 2, size + 6, size + 6) + 12}, {}


@structure
def scale_behind_a_reshape(size: int) -> Parts:
    """A BatchNormalization's variances of 1e8 reach it by a Reshape and a Transpose."""
    nodes = (
        """v = Reshape(variance, #[4]) n = BatchNormalization(x, g, b, m, v) y = Relu(n)"""
    )
    constants = {
        "variance": np.full((2, 2), 1e8, "f4") * (np.abs(floats(2, 2)) + 1),
        "g": 1e4 * floats(4),
        "b": floats(4, seed=1),
        "m": 1e3 * floats(4, seed=2),
    }
    return nodes, {"x": 100 * floats(1, 4, size, size)}, constants


@structure
def doubles_in_between(size: int) -> Parts:
    """What needs digits is computed in double, and comes back."""
    nodes = """d = Cast<to = 11>(x) s = Add(d, far) m = ReduceMean<keepdims = 1>(s, #[1]) c = Sub(s, m)
        f = Cast<to = 1>(c) y = MatMul(f, w)"""
    return (
        nodes,
        {"x": floats(size, 96)},
        {
            "far": np.float64(1e6),
            "w": floats(96, 4, seed=1),
        },
    )
