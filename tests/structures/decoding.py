"""Decoders with control flow, mixtures of experts, and weights in unusual forms."""

from __future__ import annotations

import numpy as np

from tests.structures.building import Parts, floats, integers, structure


@structure
def beam_search(size: int) -> Parts:
    """Scores of beams grow step by step in a Loop."""
    nodes = """b, s = Loop<body = step (int64 i, bool c, float[3] scores, int64[3] last) =>
            (bool c1, float[3] next, int64[3] tokens) {
            c1 = Identity(c) e = Gather<axis = 0>(table, last) l = MatMul(e, w)
            p = LogSoftmax<axis = -1>(l) su = Unsqueeze(scores, one) t = Add(p, su)
            f = Reshape(t, flat) v, at = TopK(f, three) next = Identity(v)
            tokens = Mod(at, words) }>(steps, , first, begin)
        y = Sub(b, #0.5)"""
    constants = {
        "table": floats(20, 8),
        "w": 2 * floats(8, 20, seed=1),
        "one": np.array([1]),
        "flat": np.array([-1]),
        "three": np.array([3]),
        "words": np.int64(20),
        "first": np.array([0, -1e9, -1e9], "f4"),
        "begin": np.zeros(3, np.int64),
    }
    return nodes, {"steps": np.int64(4 * size)}, constants


@structure
def nucleus(size: int) -> Parts:
    """Top-p sampling: sorted probabilities, their running sum, a mask scattered back."""
    nodes = """d = Div(x, #0.7) n = Shape<start = 1, end = 2>(d) v, i = TopK(d, n) p = Softmax<axis = -1>(v)
        c = CumSum<exclusive = 1>(p, #1i) k = Greater(c, #0.9) m = Where(k, infinite, v)
        s = ScatterElements<axis = 1>(d, i, m) y = Softmax<axis = -1>(s)"""
    return nodes, {"x": 3 * floats(2, 8 * size)}, {"infinite": np.float32(-np.inf)}


@structure
def viterbi(size: int) -> Parts:
    """A CRF's best path: maxima added up over a sequence."""
    nodes = """s, b = Scan<num_scan_inputs = 1, body = step (float[5] a, float[5] e) =>
            (float[5] n, int64[5] k) { u = Unsqueeze(a, one) t = Add(u, trans)
            m = ReduceMax<keepdims = 0>(t, zero) k = ArgMax<axis = 0, keepdims = 0>(t) n = Add(m, e) }>
            (first, x)
        d = Sub(s, #1.0) y = Softmax<axis = -1>(d)"""
    constants = {
        "trans": floats(5, 5),
        "one": np.array([1]),
        "zero": np.array([0]),
        "first": np.zeros(5, "f4"),
    }
    return nodes, {"x": floats(10 * size, 5) + 3}, constants


@structure
def partition_function(size: int) -> Parts:
    """A CRF's forward pass: logarithms of sums of exponentials along a sequence."""
    nodes = """s = Scan<num_scan_inputs = 1, body = step (float[5] a, float[5] e) => (float[5] n) {
            u = Unsqueeze(a, one) t = Add(u, trans) m = ReduceLogSumExp<keepdims = 0>(t, zero)
            n = Add(m, e) }>(first, x)
        y = ReduceLogSumExp<keepdims = 1>(s, #[0])"""
    constants = {
        "trans": floats(5, 5),
        "one": np.array([1]),
        "zero": np.array([0]),
        "first": np.zeros(5, "f4"),
    }
    return nodes, {"x": floats(30 * size, 5)}, constants


@structure
def chosen_by_length(size: int) -> Parts:
    """An If by the length of its input, each branch with weights of its own."""
    nodes = """n = Shape<start = 0, end = 1>(x) z = Squeeze(n) c = Greater(z, #20i)
        h = If<then_branch = long () => (float[n, 8] a) { a = MatMul(x, w1) },
            else_branch = short () => (float[n, 8] b) { t = Tanh(x) b = MatMul(t, w2) }>(c)
        y = Relu(h)"""
    return (
        nodes,
        {"x": floats(size, 16)},
        {"w1": floats(16, 8) / 4, "w2": floats(16, 8, seed=1) / 4},
    )


@structure
def merged_branches(size: int) -> Parts:
    """A decoder exported once with and once without its cache."""
    nodes = """k = MatMul(x, w) o = If<
            then_branch = cached () => (float[1, m, 8] a) { a = Concat<axis = 1>(past, k) },
            else_branch = fresh () => (float[1, m, 8] b) { b = Identity(k) }>(use)
        t = Transpose<perm = [0, 2, 1]>(o) s = MatMul(k, t) p = Softmax<axis = -1>(s) y = MatMul(p, o)"""
    inputs = {"x": floats(1, 2, 8), "past": floats(1, size, 8), "use": np.array(True)}
    return nodes, inputs, {"w": floats(8, 8) / 3}


@structure
def kalman(size: int) -> Parts:
    """A filter of one dimension in a Loop: variances that shrink."""
    nodes = """n = Shape<start = 0, end = 1>(x) z = Squeeze(n)
        m, v, y = Loop<body = step (int64 i, bool c, float m0, float v0) => (bool c1, float m1, float v1, float o) {
            c1 = Identity(c) p = Add(v0, drift) s = Add(p, noise) g = Div(p, s) e = Gather<axis = 0>(x, i)
            r = Sub(e, m0) u = Mul(g, r) m1 = Add(m0, u) f = Sub(unit, g) v1 = Mul(f, p)
            o = Identity(m1) }>(z, , start, wide)"""
    constants = {
        "drift": np.float32(1e-5),
        "noise": np.float32(0.1),
        "unit": np.float32(1),
        "start": np.float32(0),
        "wide": np.float32(1),
    }
    return nodes, {"x": floats(10 * size) / 3 + 10}, constants


@structure
def merged_adapter(size: int) -> Parts:
    """LoRA beside its weight: two thin products, scaled."""
    nodes = """h = MatMul(x, w) d = MatMul(x, a) u = MatMul(d, b) s = Mul(u, #0.25) y = Add(h, s)"""
    constants = {"w": floats(32, 16) / 6, "a": floats(32, 4) / 6, "b": 1e-3 * floats(4, 16)}
    return nodes, {"x": floats(size, 32)}, constants


@structure
def adapter_on_the_weight(size: int) -> Parts:
    nodes = """d = MatMul(a, b) s = Mul(d, #0.25) k = Add(w, s) y = MatMul(x, k)"""
    constants = {"w": floats(32, 16) / 6, "a": floats(32, 4) / 6, "b": 1e-3 * floats(4, 16)}
    return nodes, {"x": floats(size, 32)}, constants


@structure
def switch_experts(size: int) -> Parts:
    """Each token to its best expert: a one-hot dispatch over all."""
    nodes = """l = MatMul(x, router) p = Softmax<axis = -1>(l) g = ReduceMax<keepdims = 1>(p, #[-1])
        k = ArgMax<axis = -1, keepdims = 0>(p) o = OneHot<axis = -1>(k, depth, values)
        d = Transpose<perm = [1, 0]>(o) u = Unsqueeze(d, #[2]) xe = Unsqueeze(x, #[0]) i = Mul(u, xe)
        h = MatMul(i, w) r = Relu(h) s = ReduceSum<keepdims = 0>(r, #[0]) y = Mul(s, g)"""
    constants = {
        "router": floats(16, 6),
        "w": floats(6, 16, 8, seed=1) / 4,
        "depth": np.int64(6),
        "values": np.array([0, 1], "f4"),
    }
    return nodes, {"x": floats(size, 16, seed=2)}, constants


@structure
def grouped_experts(size: int) -> Parts:
    """DeepSeek: sigmoid scores, a bias for the choice only, weights made to sum to one."""
    nodes = """l = MatMul(x, router) s = Sigmoid(l) c = Add(s, bias) v, at = TopK(c, #[2])
        w = GatherElements<axis = 1>(s, at) t = ReduceSum<keepdims = 1>(w, #[1]) e = Add(t, #1e-20)
        n = Div(w, e) k = Mul(n, #2.5) z = Sub(s, s) g = ScatterElements<axis = 1>(z, at, k)
        h = MatMul(x, up) r = Reshape(h, #[-1, 6, 8]) gu = Unsqueeze(g, #[1]) m = MatMul(gu, r)
        y = Squeeze(m, #[1])"""
    constants = {
        "router": floats(16, 6) / 2,
        "bias": floats(6) / 9,
        "up": floats(16, 48, seed=1) / 4,
    }
    return nodes, {"x": floats(size, 16, seed=2)}, constants


@structure(opset=21)
def weights_of_four_bits(size: int) -> Parts:
    nodes = (
        "w = DequantizeLinear<axis = 0, block_size = 16>(q, s) h = MatMul(x, w) y = Relu(h)"
    )
    import onnx

    packed = np.random.default_rng(0).integers(0, 15, (32, 8)).astype("u1")
    del onnx
    return nodes, {"x": floats(size, 32)}, {"q": packed, "s": np.abs(floats(2, 8)) / 16}


@structure
def weights_of_eight_bits(size: int) -> Parts:
    nodes = "w = DequantizeLinear<axis = 1>(q, s, z) h = MatMul(x, w) y = Relu(h)"
    packed = np.random.default_rng(0).integers(-127, 127, (32, 8)).astype("i1")
    constants = {"q": packed, "s": np.abs(floats(8)) / 600, "z": np.zeros(8, "i1")}
    return nodes, {"x": floats(size, 32)}, constants


@structure
def quantized_and_back(size: int) -> Parts:
    """A QDQ model of static scales."""
    nodes = """a = QuantizeLinear(x, xs, xz) b = DequantizeLinear(a, xs, xz) w = DequantizeLinear(q, ws, wz)
        h = MatMul(b, w) c = QuantizeLinear(h, hs, xz) d = DequantizeLinear(c, hs, xz) y = Relu(d)"""
    packed = np.random.default_rng(0).integers(-127, 127, (32, 8)).astype("i1")
    constants = {
        "q": packed,
        "xs": np.float32(0.03),
        "xz": np.int8(0),
        "ws": np.float32(2e-3),
        "wz": np.int8(0),
        "hs": np.float32(0.06),
    }
    return nodes, {"x": floats(size, 32)}, constants


@structure
def dynamically_quantized(size: int) -> Parts:
    nodes = """a, s, z = DynamicQuantizeLinear(x) i = MatMulInteger(a, q, z, wz) f = Cast<to = 1>(i)
        k = Mul(s, ws) h = Mul(f, k) y = Add(h, b)"""
    packed = np.random.default_rng(0).integers(-127, 127, (320, 8)).astype("i1")
    constants = {"q": packed, "ws": np.float32(2e-3), "wz": np.int8(0), "b": floats(8)}
    return nodes, {"x": floats(size, 320)}, constants


@structure
def tied_embedding(size: int) -> Parts:
    nodes = """e = Gather<axis = 0>(table, ids) h = MatMul(e, w) t = Transpose<perm = [1, 0]>(table)
        y = MatMul(h, t)"""
    return (
        nodes,
        {"ids": integers(1, size, below=50)},
        {"table": floats(50, 16), "w": floats(16, 16) / 4},
    )


@structure
def scaled_embedding(size: int) -> Parts:
    """Gemma multiplies embeddings by the root of the width and adds them up for many layers."""
    nodes = """e = Gather<axis = 0>(table, ids) s = Mul(e, #55.4256) a = MatMul(s, w1) b = Add(s, a)
        c = MatMul(b, w2) d = Add(b, c) q = Mul(d, d) m = ReduceMean<keepdims = 1>(q, #[-1])
        f = Add(m, #1e-6) r = Sqrt(f) i = Div(#1.0, r) n = Mul(d, i) g = Mul(n, scale) y = MatMul(g, w1)"""
    constants = {
        "table": floats(50, 32),
        "w1": floats(32, 32) * 2,
        "w2": floats(32, 32, seed=1) * 2,
        "scale": 1 + floats(32) / 9,
    }
    return nodes, {"ids": integers(1, size, below=50)}, constants


@structure
def large_bias(size: int) -> Parts:
    """A last layer that predicts a price or a depth in millimetres."""
    nodes = "h = MatMul(x, w) r = Relu(h) o = MatMul(r, v) s = Mul(o, #1000.0) y = Add(s, #25000.0)"
    return (
        nodes,
        {"x": floats(size, 16)},
        {"w": floats(16, 32) / 4, "v": np.abs(floats(32, 1))},
    )


@structure
def overflowing_output(size: int) -> Parts:
    """What the model gives has no float16: it has to be said."""
    nodes = "h = MatMul(x, w) e = Exp(h) y = Mul(e, #100000.0)"
    return nodes, {"x": floats(size, 8)}, {"w": floats(8, 4)}


@structure
def overflowing_product(size: int) -> Parts:
    """Activations beyond 65504 that a normalization brings back."""
    nodes = """h = MatMul(x, w) c = MatMul(h, v) y = LayerNormalization<axis = -1>(c, g)"""
    constants = {"w": 30 * floats(32, 64), "v": 30 * floats(64, 16, seed=1), "g": floats(16)}
    return nodes, {"x": 9 * floats(size, 32)}, constants


@structure
def factorization_machine(size: int) -> Parts:
    """The square of a sum less the sum of squares."""
    nodes = """e = Gather<axis = 0>(table, ids) s = ReduceSum<keepdims = 0>(e, #[1]) a = Mul(s, s)
        q = Mul(e, e) b = ReduceSum<keepdims = 0>(q, #[1]) d = Sub(a, b) h = Mul(d, #0.5)
        t = ReduceSum<keepdims = 1>(h, #[1]) y = Sigmoid(t)"""
    return nodes, {"ids": integers(size, 20, below=90)}, {"table": floats(90, 16) / 9}


@structure
def hashed_identities(size: int) -> Parts:
    """Identifiers of millions, in float because of a framework, into a table."""
    nodes = """i = Cast<to = 7>(x) m = Mod(i, #97i) e = Gather<axis = 0>(table, m)
        s = ReduceMean<keepdims = 0>(e, #[1]) y = MatMul(s, w)"""
    ids = integers(size, 4, below=9_000_000).astype("f4")
    return nodes, {"x": ids}, {"table": floats(97, 8), "w": floats(8, 4)}


@structure
def running_mean_of_rewards(size: int) -> Parts:
    """A discounted sum, backwards, in a Scan."""
    nodes = """f, y = Scan<num_scan_inputs = 1, scan_input_directions = [1], scan_output_directions = [1],
            body = step (float a, float r) => (float n, float o) {
            d = Mul(a, gamma) n = Add(d, r) o = Identity(n) }>(zero, x)"""
    return (
        nodes,
        {"x": np.abs(floats(30 * size))},
        {"gamma": np.float32(0.999), "zero": np.float32(0)},
    )


@structure
def bounded_policy(size: int) -> Parts:
    """A tanh policy's log probability: the logarithm of one less a square and 1e-6."""
    nodes = """h = MatMul(x, w) t = Tanh(h) q = Mul(t, t) o = Sub(#1.0, q) e = Add(o, #1e-6) l = Log(e)
        y = ReduceSum<keepdims = 1>(l, #[1])"""
    return nodes, {"x": floats(size, 8)}, {"w": floats(8, 4)}


@structure
def gaussian_likelihood(size: int) -> Parts:
    """Mixture densities: squares over variances, logarithms, a weighted sum."""
    nodes = """s = Exp(l) d = Sub(x, m) r = Div(d, s) q = Mul(r, r) h = Mul(q, #-0.5) a = Sub(h, l)
        b = Sub(a, #0.9189385) t = ReduceSum<keepdims = 0>(b, #[2]) y = ReduceLogSumExp<keepdims = 0>(t, #[1])"""
    inputs = {
        "x": floats(size, 1, 8),
        "m": floats(size, 3, 8, seed=1),
        "l": floats(size, 3, 8, seed=2) - 2,
    }
    return nodes, inputs, {}


@structure
def running_product(size: int) -> Parts:
    """Survival probabilities: an exponential of a running sum of logarithms."""
    nodes = """h = Sigmoid(x) o = Sub(#1.0, h) e = Add(o, #1e-10) l = Log(e) c = CumSum(l, #1i) s = Exp(c)
        y = Sub(#1.0, s)"""
    return nodes, {"x": floats(3, 4 * size) - 4}, {}


@structure
def rank_of_items(size: int) -> Parts:
    """Soft ranks by differences of all pairs."""
    nodes = """a = Unsqueeze(x, #[2]) b = Unsqueeze(x, #[1]) d = Sub(a, b) s = Div(d, #0.1) p = Sigmoid(s)
        y = ReduceSum<keepdims = 0>(p, #[2])"""
    return nodes, {"x": floats(2, 4 * size)}, {}


@structure
def positions_of_matches(size: int) -> Parts:
    """NonZero and GatherND pick what is above a threshold."""
    nodes = """g = Greater(x, #0.5) n = NonZero(g) t = Transpose<perm = [1, 0]>(n) y = GatherND(x, t)"""
    return nodes, {"x": floats(3, 4 * size)}, {}


@structure
def experts(size: int) -> Parts:
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


@structure
def blocks_of_bits(size: int) -> Parts:
    nodes = (
        f"h = com.microsoft.MatMulNBits<K = 32, N = {size}, bits = 4, block_size = 16>(x, q, "
        f"s) y = MatMul(h, w)"
    )
    packed = np.random.default_rng(2).integers(0, 255, (size, 2, 8), dtype=np.uint8)
    constants = {
        "q": packed,
        "s": np.abs(floats(2 * size)) / 16,
        "w": floats(size, 8) / size**0.5,
    }
    return nodes, {"x": floats(3, 32)}, constants
