"""Structures that mix operators of several exporters: preprocessing, decoding, control flow, tables."""

from __future__ import annotations

import numpy as np

from tests.structures.building import Parts, floats, integers, structure


@structure
def bilinear_weights_spelt_out(size: int) -> Parts:
    """Grid sampling by hand: floors, fractions, four gathers and their weights."""
    nodes = """s = Mul(g, #30.0) f = Floor(s) w = Sub(s, f) o = Sub(#1.0, w) i = Cast<to = 7>(f)
        x0 = Gather<axis = 1>(i, #0i) y0 = Gather<axis = 1>(i, #1i) x1 = Add(x0, #1i)
        r0 = Mul(y0, #32i) a = Add(r0, x0) b = Add(r0, x1) p = Gather<axis = 0>(table, a)
        q = Gather<axis = 0>(table, b) wx = Gather<axis = 1>(w, #[0]) ox = Gather<axis = 1>(o, #[0])
        u = Mul(p, ox) v = Mul(q, wx) y = Add(u, v)"""
    points = np.random.default_rng(0).random((9 * size, 2), np.float32)
    return nodes, {"g": points}, {"table": floats(1024, 4)}


@structure
def hue_of_an_image(size: int) -> Parts:
    """RGB to hue: maxima, a guarded quotient, a modulo of six."""
    nodes = """m = ReduceMax<keepdims = 1>(x, #[1]) n = ReduceMin<keepdims = 1>(x, #[1]) d = Sub(m, n)
        e = Add(d, #1e-8) r = Slice(x, #[0], #[1], #[1]) g = Slice(x, #[1], #[2], #[1])
        b = Slice(x, #[2], #[3], #[1]) gb = Sub(g, b) q = Div(gb, e) h = Mod<fmod = 1>(q, #6.0)
        y = Div(h, #6.0)"""
    return nodes, {"x": np.random.default_rng(0).random((1, 3, size, size), np.float32)}, {}


@structure
def gamma_corrected(size: int) -> Parts:
    """sRGB to linear light by a power of 2.4 and a threshold."""
    nodes = """s = Div(x, #255.0) t = Greater(s, #0.04045) a = Add(s, #0.055) b = Div(a, #1.055)
        p = Pow(b, #2.4) l = Div(s, #12.92) y = Where(t, p, l)"""
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 3, size, size)).astype("f4")
    return nodes, {"x": pixels}, {}


@structure
def histogram_equalized(size: int) -> Parts:
    """A running sum of a histogram becomes a table of grey levels."""
    nodes = """i = Cast<to = 7>(x) z = ConstantOfShape<value = float[1] {0}>(#[256]) sh = Shape(x)
        o = ConstantOfShape<value = float[1] {1}>(sh)
        h = ScatterElements<axis = 0, reduction = "add">(z, i, o) c = CumSum(h, #0i)
        n = ReduceMax<keepdims = 0>(c) q = Div(c, n) t = Gather<axis = 0>(q, i) y = Mul(t, #255.0)"""
    return nodes, {"x": integers(300 * size, below=256).astype("f4")}, {}


@structure
def blurred_by_a_gaussian(size: int) -> Parts:
    """A kernel computed from a sigma that is an input."""
    nodes = """r = Range(#-7.0, #8.0, #1.0) q = Mul(r, r) s = Mul(sigma, sigma) d = Mul(s, #2.0) n = Neg(q)
        e = Div(n, d) k = Exp(e) t = ReduceSum<keepdims = 0>(k) w = Div(k, t) v = Reshape(w, #[1, 1, 1, 15])
        y = Conv<kernel_shape = [1, 15], pads = [0, 7, 0, 7]>(x, v)"""
    return nodes, {"x": floats(1, 1, size, 2 * size), "sigma": np.float32(1.7)}, {}


@structure
def structural_similarity(size: int) -> Parts:
    """SSIM: variances and a covariance as differences of blurred products."""
    nodes = """m = AveragePool<kernel_shape = [5, 5]>(a) n = AveragePool<kernel_shape = [5, 5]>(b)
        aa = Mul(a, a) bb = Mul(b, b) ab = Mul(a, b) p = AveragePool<kernel_shape = [5, 5]>(aa)
        q = AveragePool<kernel_shape = [5, 5]>(bb) r = AveragePool<kernel_shape = [5, 5]>(ab)
        mm = Mul(m, m) nn = Mul(n, n) mn = Mul(m, n) va = Sub(p, mm) vb = Sub(q, nn) vab = Sub(r, mn)
        t1 = Mul(mn, #2.0) u1 = Add(t1, #6.5025) t2 = Mul(vab, #2.0) u2 = Add(t2, #58.5225)
        s1 = Add(mm, nn) w1 = Add(s1, #6.5025) s2 = Add(va, vb) w2 = Add(s2, #58.5225)
        num = Mul(u1, u2) den = Mul(w1, w2) y = Div(num, den)"""
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 1, size, size + 3)).astype("f4")
    return (
        nodes,
        {"a": pixels, "b": np.clip(pixels + 9 * floats(1, 1, size, size + 3), 0, 255)},
        {},
    )


@structure
def peak_signal_to_noise(size: int) -> Parts:
    nodes = """d = Sub(a, b) q = Mul(d, d) m = ReduceMean<keepdims = 0>(q, #[1, 2]) e = Add(m, #1e-10)
        r = Div(#65025.0, e) l = Log(r) y = Mul(l, #4.3429448)"""
    pixels = np.random.default_rng(0).uniform(0, 255, (2, size, size)).astype("f4")
    return nodes, {"a": pixels, "b": pixels + 30 * floats(2, size, size)}, {}


@structure
def charbonnier(size: int) -> Parts:
    nodes = """d = Sub(a, b) q = Mul(d, d) e = Add(q, #1e-6) r = Sqrt(e) y = ReduceMean<keepdims = 0>(r, #[1])"""
    return nodes, {"a": 0.01 * floats(3, size), "b": 0.01 * floats(3, size, seed=1)}, {}


@structure
def homography(size: int) -> Parts:
    """Points of an image through a projective matrix: a quotient by a third coordinate."""
    nodes = """o = ConstantOfShape<value = float[1] {1}>(#[1, 1]) n = Shape<start = 0, end = 1>(p)
        to = Concat<axis = 0>(n, #[1]) ones = Expand(o, to) h = Concat<axis = 1>(p, ones)
        t = MatMul(h, m) z = Gather<axis = 1>(t, #[2]) xy = Slice(t, #[0], #[2], #[1]) y = Div(xy, z)"""
    m = np.array([[1.1, 0.05, 1e-4], [-0.03, 0.95, 2e-4], [12, -30, 1]], "f4")
    return (
        nodes,
        {"p": np.random.default_rng(0).uniform(0, 1900, (size, 2)).astype("f4")},
        {"m": m},
    )


@structure
def top_of_each_level(size: int) -> Parts:
    """Proposals of levels: the best of each, joined, and their boxes gathered."""
    nodes = """s = Sigmoid(x) n = Shape<start = 1, end = 2>(x) k = Min(n, #[20]) v, i = TopK<axis = 1>(s, k)
        u = Unsqueeze(i, #[2]) to = Concat<axis = 0>(#[1], k, #[4]) e = Expand(u, to)
        y = GatherElements<axis = 1>(b, e)"""
    return nodes, {"x": floats(1, size), "b": 300 * np.abs(floats(1, size, 4))}, {}


@structure
def matched_queries(size: int) -> Parts:
    """DETR's output: the best class of each query, its box from centre to corners, in pixels."""
    nodes = """p = Softmax<axis = -1>(x) c = Slice(p, #[0], #[-1], #[2]) s = ReduceMax<keepdims = 0>(c, #[2])
        k, w = Split<axis = 2, num_outputs = 2>(b) h = Mul(w, #0.5) lo = Sub(k, h) hi = Add(k, h)
        z = Concat<axis = 2>(lo, hi) d = Cast<to = 1>(hw) t = Concat<axis = 0>(d, d) v = Mul(z, t)
        u = Unsqueeze(s, #[2]) y = Concat<axis = 2>(v, u)"""
    boxes = np.random.default_rng(0).random((1, size, 4), np.float32)
    return nodes, {"x": floats(1, size, 6), "b": boxes, "hw": np.array([1333, 800])}, {}


@structure
def mask_prototypes(size: int) -> Parts:
    """YOLACT and YOLO-seg: coefficients times prototypes, cropped by boxes, thresholded."""
    nodes = """f = Reshape(m, #[8, -1]) l = MatMul(c, f) r = Reshape(l, #[-1, 16, 16]) s = Sigmoid(r)
        g = Range(#0i, #16i, #1i) gf = Cast<to = 1>(g) x = Reshape(gf, #[1, 1, 16]) a = Gather<axis = 1>(b, #[0])
        e = Unsqueeze(a, #[2]) k = GreaterOrEqual(x, e) kf = Cast<to = 1>(k) y = Mul(s, kf)"""
    return (
        nodes,
        {"m": floats(1, 8, 16, 16), "c": floats(size, 8), "b": 8 * np.abs(floats(size, 4))},
        {},
    )


@structure
def sequence_of_frames(size: int) -> Parts:
    """A padded batch packed by lengths: Where over positions and a gather of the last step."""
    nodes = """a = GRU<hidden_size = 6>(x, w, r, , lengths) s = Squeeze(a, #[1]) t = Transpose<perm = [1, 0, 2]>(s)
        l = Cast<to = 7>(lengths) i = Sub(l, #1i) u = Unsqueeze(i, #[1]) v = Unsqueeze(u, #[2])
        e = Expand(v, #[2, 1, 6]) y = GatherElements<axis = 1>(t, e)"""
    constants = {"w": floats(1, 18, 4) / 2, "r": floats(1, 18, 6, seed=1) / 3}
    return nodes, {"x": floats(size, 2, 4), "lengths": np.array([size, 3], "i4")}, constants


@structure
def lstm_with_peepholes(size: int) -> Parts:
    nodes = """a, h, c = LSTM<hidden_size = 6, direction = "reverse">(x, w, r, b, , h0, c0, p)
        y = Squeeze(a, #[1])"""
    constants = {
        "w": floats(1, 24, 4) / 2,
        "r": floats(1, 24, 6, seed=1) / 3,
        "b": floats(1, 48) / 4,
        "p": floats(1, 18) / 3,
    }
    inputs = {
        "x": floats(size, 2, 4),
        "h0": floats(1, 2, 6),
        "c0": 3 * floats(1, 2, 6, seed=1),
    }
    return nodes, inputs, constants


@structure
def decoder_with_state_in_a_loop(size: int) -> Parts:
    """Tacotron: an attention's alignment is carried and added up from step to step."""
    nodes = """al, y = Loop<body = step (int64 i, bool c, float[1, n] sum) => (bool c1, float[1, n] next, float[1, 8] o) {
            c1 = Identity(c) d = Unsqueeze(sum, two) e = Mul(memory, d) g = Sub(memory, e) t = Tanh(g)
            s = MatMul(t, v) q = Squeeze(s, two) p = Softmax<axis = 1>(q) next = Add(sum, p)
            pu = Unsqueeze(p, one) k = MatMul(pu, memory) o = Squeeze(k, one) }>(steps, , start)"""
    inputs = {"memory": floats(1, size, 8), "start": np.zeros((1, size), "f4")}
    return (
        nodes,
        inputs,
        {
            "v": floats(8, 1),
            "two": np.array([2]),
            "one": np.array([1]),
            "steps": np.int64(30),
        },
    )


@structure
def text_lengths_in_seconds(size: int) -> Parts:
    """Frames to milliseconds by a hop length and a rate, rounded to whole ones."""
    nodes = """f = Cast<to = 1>(frames) h = Mul(f, #320.0) d = Div(h, #16000.0) m = Mul(d, #1000.0) r = Round(m)
        i = Cast<to = 7>(r) y = Cast<to = 1>(i)"""
    return nodes, {"frames": 100 * integers(size, below=900)}, {}


@structure
def normal_distribution(size: int) -> Parts:
    """A cumulated normal distribution by an error function, and its logarithm."""
    nodes = """d = Sub(x, m) s = Exp(l) e = Div(d, s) f = Div(e, #1.4142135) g = Erf(f) h = Add(g, #1.0) k = Mul(h, #0.5)
        c = Clip(k, #1e-9) y = Log(c)"""
    inputs = {
        "x": floats(3, size),
        "m": floats(3, size, seed=1),
        "l": floats(3, size, seed=2) - 1,
    }
    return nodes, inputs, {}


@structure
def evidence_bound(size: int) -> Parts:
    """A VAE: a sample from a mean and a logarithm of a variance, and the divergence."""
    nodes = """h = MatMul(x, w) m, l = Split<axis = 1, num_outputs = 2>(h) c = Clip(l, #-30.0, #20.0) half = Mul(c, #0.5)
        s = Exp(half) n = Mul(s, noise) z = Add(m, n) v = Exp(c) q = Mul(m, m) a = Add(q, v) b = Sub(a, #1.0)
        d = Sub(b, c) k = ReduceSum<keepdims = 1>(d, #[1]) y = Concat<axis = 1>(z, k)"""
    return (
        nodes,
        {"x": floats(3, size), "noise": floats(3, 4, seed=2)},
        {"w": floats(size, 8) / size**0.5},
    )


@structure
def flow_coupling(size: int) -> Parts:
    """A normalizing flow's inverse: a difference over an exponential, and its log determinant."""
    nodes = """a, b = Split<axis = 1, num_outputs = 2>(x) h = MatMul(a, w) t = Tanh(h) s, m = Split<axis = 1, num_outputs = 2>(t)
        n = Neg(s) e = Exp(n) d = Sub(b, m) z = Mul(d, e) y = Concat<axis = 1>(a, z)"""
    return nodes, {"x": floats(size, 8)}, {"w": floats(4, 8)}


@structure
def spline_coupling(size: int) -> Parts:
    """VITS' rational splines: widths by softmax, their running sum, a search, quotients."""
    nodes = """p = Softmax<axis = -1>(l) q = Mul(p, #0.99) w = Add(q, #0.001) c = CumSum(w, #1i)
        u = Unsqueeze(x, #[1]) g = GreaterOrEqual(u, c) k = Cast<to = 7>(g) s = ReduceSum<keepdims = 1>(k, #[1])
        i = Min(s, #9i) left = GatherElements<axis = 1>(c, i) width = GatherElements<axis = 1>(w, i)
        d = Sub(u, left) y = Div(d, width)"""
    return (
        nodes,
        {"x": np.random.default_rng(0).random(size, np.float32), "l": floats(size, 10)},
        {},
    )


@structure
def kernel_of_distances(size: int) -> Parts:
    """A Gaussian process: a kernel by cdist, times weights."""
    nodes = """a = Unsqueeze(x, #[1]) b = Unsqueeze(t, #[0]) d = Sub(a, b) n = ReduceL2<keepdims = 0>(d, #[2]) q = Mul(n, n)
        m = Mul(q, #-0.5) k = Exp(m) y = MatMul(k, w)"""
    return (
        nodes,
        {"x": floats(size, 5)},
        {"t": floats(30, 5, seed=1), "w": floats(30, 2) / 5},
    )


@structure
def contrastive_loss(size: int) -> Parts:
    """Log-softmax of a similarity over a temperature of 0.07, its diagonal by EyeLike."""
    nodes = """n = ReduceL2<keepdims = 1>(x, #[1]) e = Add(n, #1e-8) u = Div(x, e) t = Transpose<perm = [1, 0]>(u) s = MatMul(u, t)
        d = Div(s, #0.07) l = LogSoftmax<axis = 1>(d) i = EyeLike(l) m = Mul(l, i) k = ReduceSum<keepdims = 0>(m, #[1])
        y = Neg(k)"""
    return nodes, {"x": floats(size, 16)}, {}


@structure
def low_rank_bilinear(size: int) -> Parts:
    """Signed square roots and unit vectors of a product (bilinear pooling)."""
    nodes = """a = MatMul(x, p) b = MatMul(x, q) c = Mul(a, b) s = Sign(c) m = Abs(c) e = Add(m, #1e-12) r = Sqrt(e) k = Mul(s, r)
        n = ReduceL2<keepdims = 1>(k, #[1]) f = Max(n, #1e-12) y = Div(k, f)"""
    return (
        nodes,
        {"x": floats(4, size)},
        {"p": floats(size, 8, seed=1), "q": floats(size, 8, seed=2)},
    )


@structure
def fast_fourier_mixer(size: int) -> Parts:
    """FNet: a transform over the sequence and the width, its real part."""
    nodes = """u = Unsqueeze(x, #[2]) i = Unsqueeze(x, #[3]) z = Mul(i, #0.0) c = Concat<axis = 3>(i, z)
        f = DFT<axis = 1>(c) y = Gather<axis = 3>(f, #0i)"""
    nodes = nodes.replace("u = Unsqueeze(x, #[2]) ", "")
    return nodes, {"x": floats(1, 4 * size, 8)}, {}


@structure
def complex_rotation(size: int) -> Parts:
    """RoPE by complex numbers: real and imaginary parts of pairs."""
    nodes = """n = Shape<start = 1, end = 2>(x) z = Squeeze(n) r = Range(#0i, z, #1i) f = Cast<to = 1>(r) u = Unsqueeze(f, #[1])
        o = Mul(u, theta) c = Cos(o) s = Sin(o) p = Reshape(x, #[1, -1, 4, 2]) a, b = Split<axis = 3, num_outputs = 2>(p)
        aq = Squeeze(a, #[3]) bq = Squeeze(b, #[3]) ac = Mul(aq, c) bs = Mul(bq, s) d = Sub(ac, bs) as = Mul(aq, s)
        bc = Mul(bq, c) e = Add(as, bc) du = Unsqueeze(d, #[3]) eu = Unsqueeze(e, #[3]) k = Concat<axis = 3>(du, eu)
        y = Reshape(k, #[1, -1, 8])"""
    return (
        nodes,
        {"x": floats(1, 60 * size, 8)},
        {"theta": (0.1 ** np.arange(4)).astype("f4")},
    )


@structure
def scaled_frequencies(size: int) -> Parts:
    """Llama 3 and YaRN: frequencies blended by wavelength, inside the model."""
    nodes = """w = Div(#6.2831855, inv) lo = Greater(w, #8192.0) d = Div(inv, #8.0) f1 = Where(lo, d, inv) k = Div(#8192.0, w)
        s = Sub(k, #1.0) t = Div(s, #3.0) c = Clip(t, #0.0, #1.0) o = Sub(#1.0, c) a = Mul(o, f1) b = Mul(c, inv) f = Add(a, b)
        pf = Cast<to = 1>(pos) u = Unsqueeze(pf, #[2]) g = Mul(u, f) cs = Cos(g) y = Mul(x, cs)"""
    return (
        nodes,
        {"x": floats(1, size, 8), "pos": np.arange(size)[None] + 9000},
        {"inv": (5e5 ** (-np.arange(8) / 8)).astype("f4")},
    )


@structure
def sliding_window_mask(size: int) -> Parts:
    """Mistral: causal, and no further back than a window, from positions, by And and Where."""
    nodes = """n = Shape<start = 1, end = 2>(x) z = Squeeze(n) r = Range(#0i, z, #1i) a = Unsqueeze(r, #[0]) b = Unsqueeze(r, #[1])
        c = LessOrEqual(a, b) d = Sub(b, a) e = Less(d, #4i) m = And(c, e) w = Where(m, #0.0, #-3.4028235e38) s = Add(x, w)
        y = Softmax<axis = -1>(s)"""
    return nodes, {"x": floats(2, size, size)}, {}


@structure
def inverted_mask_by_log(size: int) -> Parts:
    """A mask as the logarithm of zeros and ones with an epsilon."""
    nodes = """f = Cast<to = 1>(m) a = Add(f, #1e-45) b = Add(f, #1e-10) l = Log(b) u = Unsqueeze(l, #[1]) s = Add(x, u)
        y = Softmax<axis = -1>(s)"""
    nodes = nodes.replace("a = Add(f, #1e-45) ", "")
    mask = np.ones((2, size), np.int64)
    mask[0, : size // 2] = 0
    return nodes, {"x": floats(2, size, size), "m": mask}, {}


@structure
def bag_of_embeddings(size: int) -> Parts:
    """A mean of rows by offsets: Loop-free EmbeddingBag with a padded index."""
    nodes = """e = Gather<axis = 0>(table, ids) n = Equal(ids, #0i) k = Not(n) f = Cast<to = 1>(k) u = Unsqueeze(f, #[2])
        m = Mul(e, u) s = ReduceSum<keepdims = 0>(m, #[1]) c = ReduceSum<keepdims = 0>(u, #[1]) d = Max(c, #1.0)
        h = Div(s, d) y = MatMul(h, w)"""
    return (
        nodes,
        {"ids": integers(3, size, below=40)},
        {"table": floats(40, 16), "w": floats(16, 4)},
    )


@structure
def wide_and_deep(size: int) -> Parts:
    """Counters of millions by a logarithm, categories by a table, a cross by products."""
    nodes = """f = Cast<to = 1>(n) p = Add(f, #1.0) l = Log(p) s = Div(l, #16.0) e = Gather<axis = 0>(table, k) r = Reshape(e, #[0, -1])
        c = Concat<axis = 1>(s, r) h = MatMul(c, w) a = Relu(h) y = Sigmoid(a)"""
    return (
        nodes,
        {"n": integers(size, 3, below=5_000_000), "k": integers(size, 2, below=20)},
        {"table": floats(20, 4), "w": floats(11, 2)},
    )


@structure
def trees_by_comparisons(size: int) -> Parts:
    """A forest as products (Hummingbird): thresholds, paths, leaves."""
    nodes = """v = MatMul(x, pick) c = Less(v, thresholds) f = Cast<to = 1>(c) p = MatMul(f, paths) e = Equal(p, depth) g = Cast<to = 1>(e)
        y = MatMul(g, leaves)"""
    pick = np.eye(8, dtype="f4")[:, [0, 3, 5]]
    paths = np.array([[1, 1, -1, -1], [1, -1, 0, 0], [0, 0, 1, -1]], "f4")
    constants = {
        "pick": pick,
        "thresholds": np.array([12345.5, 0.3, -0.2], "f4"),
        "paths": paths,
        "depth": np.array([2, 1, 0, -1], "f4"),
        "leaves": floats(4, 2),
    }
    x = floats(size, 8)
    x[:, 0] = 12345 + np.arange(size) % 3
    return nodes, {"x": x}, constants


@structure
def moving_average_by_pool(size: int) -> Parts:
    """A series less its trend (DLinear, Autoformer): a padded average, two products."""
    nodes = """p = Pad<mode = "edge">(x, #[0, 0, 2, 0, 0, 2]) t = AveragePool<kernel_shape = [5], strides = [1]>(p) s = Sub(x, t)
        a = MatMul(t, w) b = MatMul(s, w) y = Add(a, b)"""
    series = 400 + np.cumsum(floats(1, 2, 24), 2) + floats(1, 2, 24, seed=1)
    return (
        nodes.replace("MatMul(t, w)", "MatMul(t, v)"),
        {"x": np.tile(series, (size, 1, 1)).astype("f4")},
        {"w": floats(24, 6) / 24, "v": floats(24, 6, seed=3) / 24},
    )


@structure
def autocorrelation(size: int) -> Parts:
    nodes = """m = ReduceMean<keepdims = 1>(x, #[1]) d = Sub(x, m) a = Slice(d, #[0], #[-1], #[1]) b = Slice(d, #[1], #[99999], #[1]) p = Mul(a, b)
        s = ReduceSum<keepdims = 0>(p, #[1]) q = Mul(d, d) v = ReduceSum<keepdims = 0>(q, #[1]) e = Add(v, #1e-8) y = Div(s, e)"""
    return nodes, {"x": 60 * floats(3, 20 * size) + 500}, {}


@structure
def drawdown(size: int) -> Parts:
    """A price over its greatest until then, by a Scan."""
    nodes = """f, g = Scan<num_scan_inputs = 1, body = step (float m, float p) => (float n, float o) { n = Max(m, p) o = Identity(n) }>(zero, x)
        q = Div(x, g) y = Sub(q, #1.0)"""
    prices = 30000 + np.cumsum(40 * floats(30 * size))
    return nodes, {"x": prices.astype("f4")}, {"zero": np.float32(0)}
