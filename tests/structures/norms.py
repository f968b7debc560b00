"""Normalizations, distances and statistics."""

from __future__ import annotations

import numpy as np

from tests.structures.building import Parts, floats, structure


@structure
def instance_norm_by_batch_norm(size: int) -> Parts:
    """Batch folded into channels, a normalization, and back."""
    nodes = """sh = Shape(x) r = Reshape(x, #[1, -1, 64]) n = InstanceNormalization(r, ones, zeros)
        b = Reshape(n, sh) y = Mul(b, g)"""
    x = 40 * floats(2, 3, size, 64) + 100
    return (
        nodes,
        {"x": x},
        {
            "ones": np.ones(2 * 3 * size, "f4"),
            "zeros": np.zeros(2 * 3 * size, "f4"),
            "g": floats(1, 3, 1, 1),
        },
    )


@structure
def instance_norm(size: int) -> Parts:
    nodes = "n = InstanceNormalization(x, g, b) y = Relu(n)"
    return (
        nodes,
        {"x": 5 * floats(1, 4, size, size) + 3},
        {"g": floats(4), "b": floats(4, seed=1)},
    )


@structure
def layer_norm_of_residuals(size: int) -> Parts:
    """Massive activations: a few channels of thousands beside others of one."""
    nodes = """s = Add(x, r) m = ReduceMean<keepdims = 1>(s, #[-1]) d = Sub(s, m)
        q = Mul(d, d) v = ReduceMean<keepdims = 1>(q, #[-1]) e = Add(v, #1e-6) t = Sqrt(e)
        n = Div(d, t) g = Mul(n, scale) h = Add(g, shift) y = MatMul(h, w)"""
    x = floats(4, 8 * size)
    x[:, 3] = 3000
    constants = {
        "scale": floats(8 * size),
        "shift": floats(8 * size),
        "w": floats(8 * size, 8) / size,
    }
    return nodes, {"x": x, "r": floats(4, 8 * size, seed=2)}, constants


@structure
def layer_norm_over_channels(size: int) -> Parts:
    """ConvNeXt's, channels first: the mean of squares of what is centred by hand."""
    nodes = """m = ReduceMean<keepdims = 1>(x, #[1]) d = Sub(x, m) q = Pow(d, #2.0)
        v = ReduceMean<keepdims = 1>(q, #[1]) e = Add(v, #1e-6) t = Sqrt(e) n = Div(d, t)
        g = Mul(scale, n) y = Add(g, shift)"""
    constants = {"scale": floats(16, 1, 1), "shift": floats(16, 1, 1)}
    return nodes, {"x": floats(1, 16, size, size)}, constants


@structure
def response_norm(size: int) -> Parts:
    """ConvNeXt v2: norms over the image, divided by their mean over channels."""
    nodes = """n = ReduceL2<keepdims = 1>(x, #[1, 2]) m = ReduceMean<keepdims = 1>(n, #[-1])
        e = Add(m, #1e-6) r = Div(n, e) a = Mul(x, r) b = Mul(g, a) c = Add(b, z) y = Add(c, x)"""
    constants = {"g": floats(1, 1, 1, 16), "z": floats(1, 1, 1, 16)}
    return nodes, {"x": floats(1, 3 * size, 3 * size, 16)}, constants


@structure
def local_response(size: int) -> Parts:
    nodes = "y = LRN<size = 5, alpha = 1e-4, beta = 0.75, bias = 2.0>(x)"
    return nodes, {"x": 100 * np.abs(floats(1, 8, size, size))}, {}


@structure
def local_response_spelt_out(size: int) -> Parts:
    """As PyTorch exports it: squares, an average over channels, a power."""
    nodes = """q = Mul(x, x) u = Unsqueeze(q, #[1]) p = Pad(u, #[0, 0, 2, 0, 0, 0, 0, 2, 0, 0])
        a = AveragePool<kernel_shape = [5, 1, 1]>(p) s = Squeeze(a, #[1]) m = Mul(s, #1e-4)
        b = Add(m, #2.0) r = Pow(b, #0.75) y = Div(x, r)"""
    return nodes, {"x": 300 * np.abs(floats(1, 8, size, size))}, {}


@structure
def demodulated_weights(size: int) -> Parts:
    """StyleGAN 2: weights times styles, over the root of the sum of their squares."""
    nodes = """s = MatMul(z, a) u = Reshape(s, #[1, 1, 8, 1, 1]) m = Mul(u, w) q = Mul(m, m)
        v = ReduceSum<keepdims = 1>(q, #[2, 3, 4]) e = Add(v, #1e-8) t = Sqrt(e)
        i = Reciprocal(t) d = Mul(m, i) k = Reshape(d, #[6, 8, 3, 3])
        y = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, k)"""
    constants = {"a": floats(5, 8), "w": floats(1, 6, 8, 3, 3)}
    return nodes, {"x": floats(1, 8, size, size), "z": 20 * floats(1, 5)}, constants


@structure
def weight_norm(size: int) -> Parts:
    """A weight as direction and length, not yet folded."""
    nodes = """n = ReduceL2<keepdims = 1>(v, #[1, 2]) d = Div(v, n) w = Mul(g, d)
        y = Conv<kernel_shape = [3]>(x, w)"""
    return (
        nodes,
        {"x": floats(1, 4, size)},
        {"v": floats(6, 4, 3), "g": floats(6, 1, 1, seed=1)},
    )


@structure
def spectral_norm(size: int) -> Parts:
    nodes = """r = Reshape(w, #[6, -1]) a = MatMul(r, v) m = Mul(u, a)
        s = ReduceSum<keepdims = 0>(m) k = Div(w, s) y = Conv<kernel_shape = [3]>(x, k)"""
    w = floats(6, 4, 3)
    left, _, right = np.linalg.svd(w.reshape(6, -1))
    return nodes, {"x": floats(1, 4, size)}, {"w": w, "u": left[:, 0], "v": right[0]}


@structure
def standardized_weights(size: int) -> Parts:
    """NFNet and BiT: weights less their mean over their deviation."""
    nodes = """m = ReduceMean<keepdims = 1>(w, #[1, 2]) d = Sub(w, m) q = Mul(d, d)
        v = ReduceMean<keepdims = 1>(q, #[1, 2]) e = Add(v, #1e-10) t = Sqrt(e) k = Div(d, t)
        y = Conv<kernel_shape = [3]>(x, k)"""
    return nodes, {"x": floats(1, 4, size)}, {"w": 1e-3 * floats(6, 4, 3)}


@structure
def variance_by_squares(size: int) -> Parts:
    """The mean of squares less the square of the mean (TensorFlow, attentive pooling)."""
    nodes = """m = ReduceMean<keepdims = 1>(x, #[2]) q = Mul(x, x)
        a = ReduceMean<keepdims = 1>(q, #[2]) mm = Mul(m, m) v = Sub(a, mm) c = Clip(v, #1e-9)
        s = Sqrt(c) y = Concat<axis = 1>(m, s)"""
    return nodes, {"x": floats(2, 4, 30 * size) + 20}, {}


@structure
def weighted_statistics(size: int) -> Parts:
    """ECAPA-TDNN: attentive mean and deviation."""
    nodes = """a = Softmax<axis = 2>(l) p = Mul(a, x) m = ReduceSum<keepdims = 1>(p, #[2])
        d = Sub(x, m) q = Pow(d, #2.0) w = Mul(a, q) v = ReduceSum<keepdims = 1>(w, #[2])
        c = Clip(v, #1e-12) s = Sqrt(c) y = Concat<axis = 1>(m, s)"""
    inputs = {"x": floats(2, 4, 30 * size) + 9, "l": floats(2, 4, 30 * size, seed=1)}
    return nodes, inputs, {}


@structure
def reversible_scaling(size: int) -> Parts:
    """RevIN of a price series: mean and deviation come back at the end."""
    nodes = """m = ReduceMean<keepdims = 1>(x, #[1]) d = Sub(x, m) q = Mul(d, d)
        v = ReduceMean<keepdims = 1>(q, #[1]) e = Add(v, #1e-5) s = Sqrt(e) n = Div(d, s)
        h = MatMul(n, w) r = Mul(h, s) y = Add(r, m)"""
    prices = 42000 + 30 * np.cumsum(floats(2, size), 1)
    return nodes, {"x": prices.astype("f4")}, {"w": floats(size, 4) / size**0.5}


@structure
def standard_scaler(size: int) -> Parts:
    """A table's columns less their means, over their deviations, of any magnitude."""
    nodes = "d = Sub(x, m) n = Div(d, s) h = MatMul(n, w) y = Sigmoid(h)"
    means = np.geomspace(1e-3, 3e5, size).astype("f4")
    deviations = means / 20
    x = means + deviations * floats(4, size)
    return nodes, {"x": x}, {"m": means, "s": deviations, "w": floats(size, 3) / size**0.5}


@structure
def squared_distances(size: int) -> Parts:
    """Nearest neighbours of a point cloud by |a|^2 + |b|^2 - 2ab (PointNet++)."""
    nodes = """t = Transpose<perm = [1, 0]>(x) g = MatMul(x, t) i = Mul(g, #-2.0) q = Mul(x, x)
        s = ReduceSum<keepdims = 1>(q, #[1]) st = Transpose<perm = [1, 0]>(s) a = Add(i, s)
        d = Add(a, st) n = Neg(d) v, at = TopK<axis = 1>(n, #[3]) h = Gather<axis = 0>(x, at)
        y = ReduceMean<keepdims = 0>(h, #[1])"""
    return nodes, {"x": floats(5 * size, 3) + 4}, {}


@structure
def distances_to_centres(size: int) -> Parts:
    nodes = """a = Unsqueeze(x, #[1]) d = Sub(a, c) q = Mul(d, d) s = ReduceSum<keepdims = 0>(q, #[2])
        r = Sqrt(s) n = Neg(r) y = Softmax<axis = 1>(n)"""
    return nodes, {"x": 40 * floats(size, 16)}, {"c": 40 * floats(5, 16, seed=1)}


@structure
def radial_basis(size: int) -> Parts:
    """SchNet: distances of atoms spread over Gaussians."""
    nodes = """p = Gather<axis = 0>(x, from) q = Gather<axis = 0>(x, into) d = Sub(p, q)
        s = Mul(d, d) t = ReduceSum<keepdims = 1>(s, #[1]) r = Sqrt(t) o = Sub(r, centres)
        u = Pow(o, #2.0) m = Mul(u, #-10.0) e = Exp(m) y = MatMul(e, w)"""
    constants = {"centres": np.linspace(0, 10, 30, dtype="f4"), "w": floats(30, 4)}
    inputs = {
        "x": 3 * floats(size, 3),
        "from": np.arange(size),
        "into": np.arange(size)[::-1] - 1,
    }
    return nodes, inputs, constants


@structure
def means_by_scatter(size: int) -> Parts:
    """A graph network's mean over neighbours: sums and counts by ScatterElements."""
    nodes = """z = ConstantOfShape<value = float[1] {0}>(#[4, 8]) u = Unsqueeze(into, #[1])
        e = Expand(u, #[1, 8]) s = ScatterElements<axis = 0, reduction = "add">(z, e, x)
        o = Mul(x, #0.0) n = Add(o, #1.0) c = ScatterElements<axis = 0, reduction = "add">(z, e, n)
        d = Max(c, #1.0) y = Div(s, d)"""
    return nodes, {"x": floats(500 * size, 8) + 1, "into": np.arange(500 * size) % 4}, {}


@structure
def degree_normalization(size: int) -> Parts:
    """A GCN: adjacency over the roots of degrees."""
    nodes = """d = ReduceSum<keepdims = 1>(a, #[1]) i = Pow(d, #-0.5) b = IsInf(i)
        n = Where(b, #0.0, i) m = Mul(a, n) t = Transpose<perm = [1, 0]>(n) k = Mul(m, t)
        h = MatMul(k, x) y = MatMul(h, w)"""
    adjacency = (floats(4 * size, 4 * size) > 1).astype("f4")
    adjacency[0] = 0
    return nodes, {"a": adjacency, "x": floats(4 * size, 8)}, {"w": floats(8, 8) / 3}


@structure
def histogram_by_scatter(size: int) -> Parts:
    """Counts of a histogram, then frequencies."""
    nodes = """s = Mul(x, #7.99) i = Cast<to = 7>(s) z = ConstantOfShape<value = float[1] {0}>(#[8])
        sh = Shape(x) o = ConstantOfShape<value = float[1] {1}>(sh)
        h = ScatterElements<axis = 0, reduction = "add">(z, i, o) n = Size(x) f = Cast<to = 1>(n)
        y = Div(h, f)"""
    x = np.random.default_rng(0).random(2000 * size, np.float32)
    return nodes, {"x": x}, {}


@structure
def mean_of_a_large_image(size: int) -> Parts:
    nodes = "a = ReduceMean<keepdims = 0>(x, #[2, 3]) y = MatMul(a, w)"
    return nodes, {"x": np.abs(40 * floats(1, 3, 12 * size, 64))}, {"w": floats(3, 4)}


@structure
def sum_over_an_image(size: int) -> Parts:
    """Attention pooling: the axis isn't known."""
    nodes = """e = Exp(x) s = ReduceSum<keepdims = 1>(e, #[1]) p = Div(e, s) m = Mul(p, x)
        y = ReduceSum<keepdims = 0>(m, #[1])"""
    return nodes, {"x": floats(2, 1200 * size, 4)}, {}


@structure
def covariance(size: int) -> Parts:
    nodes = """m = ReduceMean<keepdims = 1>(x, #[1]) d = Sub(x, m) t = Transpose<perm = [1, 0]>(d)
        c = MatMul(d, t) y = Div(c, n)"""
    return nodes, {"x": 30 * floats(4, 50 * size)}, {"n": np.float32(50 * size - 1)}


@structure
def gram_matrix(size: int) -> Parts:
    """Style transfer: a product over all pixels, over their number."""
    nodes = """f = Reshape(x, #[4, -1]) t = Transpose<perm = [1, 0]>(f) g = MatMul(f, t)
        n = Size(x) c = Cast<to = 1>(n) y = Div(g, c)"""
    return nodes, {"x": 30 * floats(1, 4, size, size)}, {}


@structure
def quantile_threshold(size: int) -> Parts:
    """Dynamic thresholding of a sampler: a sorted quantile bounds the image."""
    nodes = """f = Reshape(x, #[-1]) a = Abs(f) n = Shape(a) nf = Cast<to = 1>(n)
        q = Mul(nf, #0.95) k = Cast<to = 7>(q) v, i = TopK<axis = 0, largest = 0>(a, n)
        t = Gather<axis = 0>(v, k) m = Max(t, #1.0) l = Neg(m) u = Min(x, m) c = Max(u, l)
        y = Div(c, m)"""
    return nodes, {"x": 2 * floats(1, 3, 2 * size, 32)}, {}


@structure
def group_norm(size: int) -> Parts:
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


def _rms_norm(size: int, scale: float) -> Parts:
    nodes = """q = Pow(x, two) v = ReduceMean<keepdims = 1>(q, last) e = Add(v, eps) s = Sqrt(e)
              i = Reciprocal(s)
        n = Mul(x, i) h = Mul(n, g) y = MatMul(h, w)"""
    constants = {
        "last": np.array([1], np.int64),
        "two": np.float32(2),
        "eps": np.float32(1e-12),
    }
    weights = {"g": floats(size, seed=1), "w": floats(size, 8, seed=2) / size**0.5}
    return nodes, {"x": np.float32(scale) * floats(3, size)}, {**constants, **weights}


@structure
def rms_norm(size: int) -> Parts:
    return _rms_norm(size, 1.0)


@structure
def rms_norm_of_tiny(size: int) -> Parts:
    return _rms_norm(size, 1e-4)


@structure
def rms_norm_of_huge(size: int) -> Parts:
    return _rms_norm(size, 2e3)


@structure
def unit_vectors(size: int) -> Parts:
    nodes = """n = ReduceL2<keepdims = 1>(x, last) f = Clip(n, eps) y = Div(x, f)"""
    constants = {"last": np.array([1], np.int64), "eps": np.float32(1e-12)}
    return (
        nodes,
        {
            "x": np.concatenate(
                [1e-5 * floats(2, size), 1e3 * floats(2, size), 0 * floats(1, size)]
            )
        },
        constants,
    )


@structure
def long_sum(size: int) -> Parts:
    nodes = "a = ReduceSum<keepdims = 1>(x, last) b = Mul(a, c) y = MatMul(b, w)"
    constants = {
        "c": np.array([1e-3], np.float32),
        "w": floats(1, 8),
        "last": np.array([1], np.int64),
    }
    return nodes, {"x": np.abs(floats(2, 300 * size)) * 10}, constants


@structure
def running_window(size: int) -> Parts:
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


@structure
def normalized_by_large_variances(size: int) -> Parts:
    """Exporters share equal tensors of a BatchNormalization through Identity."""
    nodes = "v2 = Identity(v) g2 = Identity(g) y = BatchNormalization(x, g2, b, b, v2)"
    constants = {
        "g": np.ones(3, np.float32),
        "b": np.zeros(3, np.float32),
        "v": np.array([1e6, 4e6, 1e8], np.float32),
    }
    return nodes, {"x": 1e3 * floats(1, 3, size, size)}, constants
