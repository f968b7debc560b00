"""Unusual wiring: shared and captured weights, optional results, sequences, movers between."""

from __future__ import annotations

import numpy as np

from tests.structures.building import Parts, floats, integers, structure


@structure
def weight_that_a_branch_captures(size: int) -> Parts:
    """One matrix multiplies outside of an If and inside both of its branches."""
    nodes = """h = MatMul(x, w) r = Relu(h) s = ReduceMean<keepdims = 0>(r) c = Greater(s, #0.1)
        y = If<then_branch = a () => (float[n, 16] p) { p = MatMul(r, w) },
            else_branch = b () => (float[n, 16] q) { t = MatMul(r, w) q = Neg(t) }>(c)"""
    return nodes, {"x": floats(size, 16)}, {"w": floats(16, 16) / 4}


@structure
def weight_of_a_loop(size: int) -> Parts:
    """A recurrent layer spelt as a Loop: the matrix is captured, the states are collected."""
    nodes = """h, o = Loop<body = step (int64 i, bool c, float[1, 8] s) =>
            (bool c1, float[1, 8] n, float[1, 8] z) {
            c1 = Identity(c) e = Gather<axis = 0>(x, i) p = MatMul(s, u) q = Add(p, e) n = Tanh(q)
            z = Identity(n) }>(steps, , first)
        k = Squeeze(o, #[1]) y = MatMul(k, w)"""
    constants = {
        "u": floats(8, 8) / 3,
        "w": floats(8, 4, seed=1),
        "first": np.zeros((1, 8), "f4"),
    }
    return nodes, {"x": floats(size, 1, 8), "steps": np.int64(size)}, constants


@structure
def sequence_that_a_loop_fills(size: int) -> Parts:
    """A Loop inserts into an empty sequence, and all of it is joined."""
    nodes = """b = SequenceEmpty<dtype = 1>()
        s = Loop<body = step (int64 i, bool c, seq(float[1, 4]) t) =>
            (bool c1, seq(float[1, 4]) n) {
            c1 = Identity(c) e = Gather<axis = 0>(x, i) r = Relu(e) n = SequenceInsert(t, r) }>
            (steps, , b)
        j = ConcatFromSequence<axis = 0>(s) y = MatMul(j, w)"""
    return nodes, {"x": floats(size, 1, 4), "steps": np.int64(size)}, {"w": floats(4, 3)}


@structure
def noise_as_its_neighbour(size: int) -> Parts:
    """A tensor of ones in the type and shape of another, by CastLike and ConstantOfShape."""
    nodes = """s = Shape(x) o = ConstantOfShape<value = float[1] {0.1}>(s) c = CastLike(o, x)
        e = EyeLike<dtype = 1, k = 1>(square) m = MatMul(x, e) y = Add(m, c)"""
    return nodes, {"x": floats(size, 8), "square": floats(8, 8, seed=1)}, {}


@structure
def shared_by_convolution_and_product(size: int) -> Parts:
    """One tensor is a kernel of 1 by 1 and, reshaped, a matrix."""
    nodes = """k = Reshape(w, #[6, 4]) t = Transpose<perm = [1, 0]>(k) c = Conv(x, w)
        g = GlobalAveragePool(x) f = Flatten(g) m = MatMul(f, t) u = Unsqueeze(m, #[2, 3])
        y = Add(c, u)"""
    return nodes, {"x": floats(1, 4, size, size)}, {"w": floats(6, 4, 1, 1)}


@structure
def bias_that_is_all(size: int) -> Parts:
    """A weight of zeros: its quantization has no step."""
    nodes = "a = MatMul(x, zeros) b = Add(a, bias) c = MatMul(x, w) y = Add(b, c)"
    constants = {
        "zeros": np.zeros((8, 6), "f4"),
        "bias": floats(6),
        "w": floats(8, 6, seed=1),
    }
    return nodes, {"x": floats(size, 8)}, constants


@structure
def constant_activation(size: int) -> Parts:
    """A branch of the graph that is the same number whatever comes in."""
    nodes = """z = Mul(x, #0.0) r = Relu(z) c = Conv<kernel_shape = [1, 1]>(r, k, b)
        d = Conv<kernel_shape = [1, 1]>(x, k) y = Add(c, d)"""
    return (
        nodes,
        {"x": floats(1, 3, size, 4)},
        {"k": floats(3, 3, 1, 1), "b": floats(3, seed=1)},
    )


@structure
def dropped_and_counted(size: int) -> Parts:
    """Dropout's mask and MaxPool's places are read as well."""
    nodes = """d, m = Dropout(x) p, i = MaxPool<kernel_shape = [2], strides = [2]>(d)
        f = Cast<to = 1>(m) g = ReduceMean<keepdims = 1>(f, #[2]) n = Mod(i, #2i) h = Cast<to = 1>(n)
        a = Mul(p, g) y = Add(a, h)"""
    return nodes, {"x": floats(1, 3, 20 * size)}, {}


@structure
def grouped_transposed_convolution(size: int) -> Parts:
    """ConvTranspose in groups with a padding of the output."""
    nodes = """c = ConvTranspose<group = 2, strides = [2], output_padding = [1], pads = [1, 1]>(x, w, b)
        y = LeakyRelu<alpha = 0.01>(c)"""
    return nodes, {"x": floats(1, 4, size)}, {"w": floats(4, 3, 3), "b": floats(6)}


@structure
def stacked_matrices(size: int) -> Parts:
    """A weight of three dimensions: a matrix for each head."""
    nodes = "u = Unsqueeze(x, #[0]) m = MatMul(u, w) s = Softmax<axis = -1>(m) y = ReduceSum(s, #[0])"
    return nodes, {"x": floats(size, 8)}, {"w": floats(3, 8, 6)}


@structure
def vector_products(size: int) -> Parts:
    """MatMul with vectors on either side."""
    nodes = """a = MatMul(x, v) u = Unsqueeze(a, #[0]) b = MatMul(x, w) p = MatMul(u, b) q = MatMul(p, h)
        y = Add(q, a)"""
    constants = {"v": floats(8), "w": floats(8, 5, seed=1), "h": floats(5, seed=2)}
    return nodes, {"x": floats(size, 8)}, constants


@structure(opset=13)
def squeezed_excitation_by_hard_swish(size: int) -> Parts:
    """Hard swish as clip(x + 3, 0, 6) / 6, and a gate by a hard sigmoid."""
    nodes = """c = Conv<pads = [1, 1, 1, 1]>(x, k, b) a = Add(c, #3.0) l = Clip(a, #0.0, #6.0)
        m = Mul(c, l) h = Div(m, #6.0) g = GlobalAveragePool(h) q = Conv(g, k1)
        s = HardSigmoid<alpha = 0.1666667>(q) y = Mul(h, s)"""
    constants = {
        "k": floats(8, 3, 3, 3),
        "b": floats(8, seed=1),
        "k1": floats(8, 8, 1, 1, seed=2),
    }
    return nodes, {"x": floats(1, 3, size, size)}, constants


@structure(opset=11)
def normalization_by_old_operators(size: int) -> Parts:
    """Opset 11: axes as attributes, a Dropout with a ratio, Pad of an input."""
    nodes = """p = Pad(x, #[0, 0, 1, 1, 0, 0, 1, 1], #0.0) c = Conv(p, k) n = BatchNormalization(c, g, b, m, v)
        d = Dropout<ratio = 0.5>(n) r = Relu(d) e = ReduceMean<axes = [2, 3], keepdims = 0>(r)
        u = Unsqueeze<axes = [1]>(e) q = Squeeze<axes = [1]>(u) y = Gemm(q, w)"""
    constants = {
        "k": floats(4, 3, 3, 3),
        "g": floats(4) + 2,
        "b": floats(4, seed=1),
        "m": floats(4, seed=2),
        "v": np.abs(floats(4, seed=3)) + 1,
        "w": floats(4, 5, seed=4),
    }
    return nodes, {"x": floats(2, 3, size, size)}, constants


@structure
def pairs_of_bytes(size: int) -> Parts:
    """Integers below 256 are split into nibbles, and each is looked up."""
    nodes = """h = Div(ids, #16i) l = Mod(ids, #16i) a = Gather<axis = 0>(high, h) b = Gather<axis = 0>(low, l)
        s = Add(a, b) n = LayerNormalization<axis = -1>(s, g) y = MatMul(n, w)"""
    constants = {
        "high": floats(16, 8),
        "low": floats(16, 8, seed=1),
        "g": floats(8, seed=2) + 2,
        "w": floats(8, 4, seed=3),
    }
    return nodes, {"ids": integers(2, size, below=256)}, constants


@structure
def selected_rows(size: int) -> Parts:
    """Compress and NonZero choose rows by a threshold; a number of them that depends on values."""
    nodes = """s = ReduceMax<keepdims = 0>(x, #[1]) c = Greater(s, #0.5) r = Compress<axis = 0>(x, c)
        m = MatMul(r, w) y = Softmax<axis = -1>(m)"""
    return nodes, {"x": floats(4 * size, 8)}, {"w": floats(8, 4)}


@structure
def scattered_cache(size: int) -> Parts:
    """A new row is scattered into a cache at a place that is an input."""
    nodes = """n = MatMul(x, w) u = Unsqueeze(at, #[1]) c = ScatterND(cache, u, n) t = Transpose(c)
        s = MatMul(n, t) y = Softmax<axis = -1>(s)"""
    inputs = {
        "x": floats(1, 8),
        "cache": floats(4 * size, 8, seed=1),
        "at": np.array([3 * size]),
    }
    return nodes, inputs, {"w": floats(8, 8, seed=2) / 3}


@structure
def results_by_identities(size: int) -> Parts:
    """Identities before and after a value that is transposed there and back."""
    nodes = """a = Identity(x) t = Transpose<perm = [1, 0]>(a) i = Identity(t) r = Relu(i)
        b = Transpose<perm = [1, 0]>(r) y = Identity(b)"""
    return nodes, {"x": floats(size, 8)}, {}


@structure
def halves_of_a_gate(size: int) -> Parts:
    """GLU by Split with sizes, and by Slice to the end of int64."""
    nodes = """a, b = Split<axis = 1>(x, #[6, 6]) s = Sigmoid(b) m = Mul(a, s)
        c = Slice(m, #[3], #[9223372036854775807], #[1]) d = Slice(m, #[0], #[3], #[1])
        z = Concat<axis = 1>(c, d) y = MatMul(z, w)"""
    return nodes, {"x": floats(size, 12)}, {"w": floats(6, 4)}


@structure
def quantized_by_hand(size: int) -> Parts:
    """Fake quantization by Round and Clip, as training writes it."""
    nodes = """d = Div(x, #0.05) r = Round(d) c = Clip(r, #-128.0, #127.0) q = Mul(c, #0.05)
        y = MatMul(q, w)"""
    return nodes, {"x": floats(size, 16)}, {"w": floats(16, 4)}


@structure
def sorted_by_a_key(size: int) -> Parts:
    """TopK over all sorts, and another tensor is gathered in that order."""
    nodes = """n = Shape<start = 1, end = 2>(x) v, i = TopK(x, n) g = GatherElements<axis = 1>(z, i)
        c = CumSum(g, #1i) y = Div(c, #100.0)"""
    x = np.random.default_rng(0).permutation(20 * size).astype("f4").reshape(2, -1) / 16
    return nodes, {"x": x, "z": np.abs(floats(2, 10 * size, seed=1))}, {}


@structure
def fused_by_the_runtime(size: int) -> Parts:
    """Operators that ONNX Runtime's optimizer writes: a fused product, a bias with a Gelu."""
    nodes = """a = com.microsoft.FusedMatMul<alpha = 0.125, transB = 1>(x, w) b = com.microsoft.BiasGelu(a, bias)
        c = com.microsoft.QuickGelu<alpha = 1.702>(b) m = MatMul(c, v)
        y = com.microsoft.FastGelu(m)"""
    constants = {"w": floats(12, 8), "bias": floats(12, seed=1), "v": floats(12, 6, seed=2)}
    return nodes, {"x": floats(size, 8)}, constants


@structure
def normalization_with_a_skip(size: int) -> Parts:
    """Llama as ONNX Runtime writes it: simplified layer norms, one with a skip."""
    nodes = """n = SimplifiedLayerNormalization<axis = -1, epsilon = 1e-6>(x, g) a = MatMul(n, w)
        s, p, q, r = com.microsoft.SkipSimplifiedLayerNormalization<epsilon = 1e-6>(a, x, g)
        b = MatMul(s, v) y = Add(b, r)"""
    constants = {
        "g": floats(8) + 2,
        "w": floats(8, 8, seed=1) / 3,
        "v": floats(8, 8, seed=2) / 3,
    }
    return nodes, {"x": floats(1, size, 8)}, constants


@structure
def rotated_by_the_runtime(size: int) -> Parts:
    """com.microsoft.RotaryEmbedding with caches and positions."""
    nodes = """r = com.microsoft.RotaryEmbedding<num_heads = 2>(x, at, cosines, sines) y = MatMul(r, w)"""
    angles = np.arange(4096)[:, None] * (0.1 ** np.arange(4)).astype("f4")
    constants = {
        "cosines": np.cos(angles).astype("f4"),
        "sines": np.sin(angles).astype("f4"),
        "w": floats(16, 4),
    }
    return nodes, {"x": floats(1, size, 16), "at": np.arange(size)[None] + 3000}, constants
