"""Attention as models spell it, and what they put round it."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from tests.structures.building import Arrays, Parts, floats, integers, structure

LOWEST = np.float32(np.finfo(np.float32).min)


def _heads(size: int) -> Arrays:
    return {f"{name}": floats(1, 2, size, 8, seed=seed) for seed, name in enumerate("qkv")}


@structure
def static_cache(size: int) -> Parts:
    """A cache of fixed length that ScatterND writes at the current position."""
    nodes = """k = MatMul(x, wk) idx = Unsqueeze(at, #[1])
        c0 = Squeeze(cache, #[0]) k0 = Squeeze(k, #[0]) c = ScatterND(c0, idx, k0)
        q = MatMul(x, wq) q0 = Squeeze(q, #[0]) t = Transpose<perm = [1, 0]>(c) s = MatMul(q0, t)
        n = Mul(s, #0.35355338) r = Range(#0i, #64i, #1i) last = ReduceMax<keepdims = 0>(at)
        g = Greater(r, last) gu = Unsqueeze(g, #[0]) m = Where(gu, #-3.4028234e38, n)
        p = Softmax<axis = -1>(m) y = MatMul(p, c)"""
    inputs = {
        "x": floats(1, 2, 8),
        "cache": np.concatenate([floats(1, size, 8), np.zeros((1, 64 - size, 8), "f4")], 1),
        "at": np.array([size, size + 1]),
    }
    return nodes, inputs, {"wk": floats(8, 8) / 3, "wq": floats(8, 8, seed=1) / 3}


@structure
def softcap(size: int) -> Parts:
    """Gemma 2: scores through a tanh of fifty."""
    nodes = """t = Transpose<perm = [0, 1, 3, 2]>(k) s = MatMul(q, t) d = Div(s, #50.0) h = Tanh(d)
        c = Mul(h, #50.0) p = Softmax<axis = -1>(c) y = MatMul(p, v)"""
    return nodes, _heads(size), {}


@structure
def attention_by_einsum(size: int) -> Parts:
    nodes = """s = Einsum<equation = "bhid,bhjd->bhij">(q, k) n = Mul(s, #0.35355338)
        p = Softmax<axis = -1>(n) y = Einsum<equation = "bhij,bhjd->bihd">(p, v)"""
    return nodes, _heads(size), {}


@structure
def cosine_attention(size: int) -> Parts:
    """Swin v2: unit vectors and an exponential of a clamped logit scale."""
    nodes = """qn = ReduceL2<keepdims = 1>(q, #[-1]) qc = Clip(qn, #1e-12) qu = Div(q, qc)
        kn = ReduceL2<keepdims = 1>(k, #[-1]) kc = Clip(kn, #1e-12) ku = Div(k, kc)
        t = Transpose<perm = [0, 1, 3, 2]>(ku) s = MatMul(qu, t) l = Min(scale, #4.6051702)
        e = Exp(l) m = Mul(s, e) p = Softmax<axis = -1>(m) y = MatMul(p, v)"""
    return nodes, _heads(size), {"scale": np.array([2.3, 5], "f4").reshape(1, 2, 1, 1)}


@structure
def linear_attention(size: int) -> Parts:
    """EfficientViT and SANA: a quotient of two sums over all positions."""
    nodes = """qr = Relu(q) kr = Relu(k) t = Transpose<perm = [0, 1, 3, 2]>(kr) kv = MatMul(t, v)
        n = MatMul(qr, kv) s = ReduceSum<keepdims = 1>(kr, #[2])
        st = Transpose<perm = [0, 1, 3, 2]>(s) d = MatMul(qr, st) e = Add(d, #1e-15)
        y = Div(n, e)"""
    return nodes, {name: 2 * array for name, array in _heads(40 * size).items()}, {}


@structure
def shifted_windows(size: int) -> Parts:
    """Swin: a roll, windows, and a mask of minus a hundred from numbered regions."""
    nodes = """a = Slice(x, #[2], #[9999], #[1]) b = Slice(x, #[0], #[2], #[1])
        r = Concat<axis = 1>(a, b) w = Reshape(r, #[-1, 4, 8]) t = Transpose<perm = [0, 2, 1]>(w)
        s = MatMul(w, t) g1 = Unsqueeze(regions, #[1]) g2 = Unsqueeze(regions, #[2])
        d = Sub(g1, g2) z = Equal(d, #0.0) m = Where(z, #0.0, #-100.0) n = Add(s, m)
        p = Softmax<axis = -1>(n) o = MatMul(p, w) y = Reshape(o, #[1, -1, 8])"""
    regions = np.zeros((size, 4), np.float32)
    regions[-1, 2:] = 1
    return nodes, {"x": floats(1, 4 * size, 8), "regions": regions}, {}


@structure
def sinks(size: int) -> Parts:
    """gpt-oss: a learned score beside the others takes its share of the softmax."""
    nodes = """t = Transpose<perm = [0, 1, 3, 2]>(k) s = MatMul(q, t) n = Mul(s, #0.35355338)
        sh = Shape<start = 0, end = 3>(n) to = Concat<axis = 0>(sh, #[1]) e = Expand(sink, to)
        c = Concat<axis = 3>(n, e) p = Softmax<axis = -1>(c)
        d = Slice(p, #[0], #[-1], #[3]) y = MatMul(d, v)"""
    return nodes, _heads(size), {"sink": floats(1, 2, 1, 1, seed=5)}


@structure(opset=23)
def attention_of_opset_23(size: int) -> Parts:
    nodes = """h = MatMul(x, w) q = Reshape(h, #[0, 2, -1, 8])
        a = Attention<is_causal = 1>(q, q, q) y = Reshape(a, #[0, -1, 16])"""
    return nodes, {"x": floats(1, size, 16)}, {"w": floats(16, 16) / 4}


@structure(opset=23)
def rms_normalization_of_opset_23(size: int) -> Parts:
    nodes = """n = RMSNormalization<axis = -1, epsilon = 1e-6>(x, g) y = MatMul(n, w)"""
    x = 300 * floats(3, size) * floats(3, 1, seed=2)
    return nodes, {"x": x}, {"g": floats(size), "w": floats(size, 8) / size**0.5}


@structure(opset=23)
def rotary_embedding_of_opset_23(size: int) -> Parts:
    nodes = """y = RotaryEmbedding(x, cosines, sines, at)"""
    angles = np.arange(4096)[:, None] * (0.1 ** np.arange(4)).astype("f4")
    tables = {"cosines": np.cos(angles).astype("f4"), "sines": np.sin(angles).astype("f4")}
    return nodes, {"x": floats(1, 2, size, 8), "at": np.arange(size)[None] + 3000}, tables


@structure
def grouped_queries(size: int) -> Parts:
    nodes = """q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wk)
        y, pk, pv = com.microsoft.GroupQueryAttention<num_heads = 4, kv_num_heads = 2>
            (q, k, v, , , lengths, total)"""
    constants = {
        "wq": floats(32, 64) / 6,
        "wk": floats(32, 32) / 6,
    }
    inputs = {
        "x": floats(1, size, 32),
        "lengths": np.array([size - 1], "i4"),
        "total": np.array(size, "i4"),
    }
    return nodes, inputs, constants


@structure
def multi_head_attention(size: int) -> Parts:
    nodes = """q = MatMul(x, w) n = com.microsoft.SkipLayerNormalization(x, q, g, b)
        y = com.microsoft.MultiHeadAttention<num_heads = 4>(n, n, n)"""
    constants = {"w": floats(32, 32) / 6, "g": floats(32), "b": floats(32)}
    return nodes, {"x": floats(1, size, 32)}, constants


@structure
def repeated_heads(size: int) -> Parts:
    """Keys of few heads repeated for many by Expand (Llama)."""
    nodes = """u = Unsqueeze(k, #[2]) sh = Shape(u)
        b = Gather<axis = 0>(sh, #[0]) l = Gather<axis = 0>(sh, #[3])
        to = Concat<axis = 0>(b, #[2, 3], l, #[8]) e = Expand(u, to)
        f = Concat<axis = 0>(b, #[6], l, #[8]) r = Reshape(e, f)
        t = Transpose<perm = [0, 1, 3, 2]>(r) s = MatMul(q, t) y = Softmax<axis = -1>(s)"""
    return nodes, {"q": floats(1, 6, size, 8), "k": floats(1, 2, size, 8, seed=1)}, {}


@structure
def mask_of_lengths(size: int) -> Parts:
    """Lengths become a mask: a row of positions less than a column."""
    nodes = """n = Shape<start = 1, end = 2>(x) l = Squeeze(n) r = Range(#0i, l, #1i)
        u = Unsqueeze(lengths, #[1]) b = Less(r, u) f = Cast<to = 1>(b) e = Unsqueeze(f, #[2])
        m = Mul(x, e) s = ReduceSum<keepdims = 0>(m, #[1]) c = ReduceSum<keepdims = 0>(e, #[1])
        d = Clip(c, #1e-9) y = Div(s, d)"""
    return nodes, {"x": 9 * floats(2, 80 * size, 8), "lengths": np.array([80 * size, 7])}, {}


@structure
def infinite_mask(size: int) -> Parts:
    nodes = """b = Cast<to = 9>(m) u = Unsqueeze(b, #[1]) s = Where(u, x, infinite)
        p = Softmax<axis = -1>(s) i = IsNaN(p) y = Where(i, #0.0, p)"""
    mask = np.ones((2, size), np.int64)
    mask[0] = 0
    return nodes, {"x": floats(2, size, size), "m": mask}, {"infinite": np.float32(-np.inf)}


@structure
def pooled_sentences(size: int) -> Parts:
    """sentence-transformers: the mean of what isn't padded, made a unit vector."""
    nodes = """f = Cast<to = 1>(m) u = Unsqueeze(f, #[2]) sh = Shape(x) e = Expand(u, sh)
        p = Mul(x, e) s = ReduceSum<keepdims = 0>(p, #[1]) c = ReduceSum<keepdims = 0>(e, #[1])
        d = Clip(c, #1e-9) h = Div(s, d) n = ReduceL2<keepdims = 1>(h, #[1]) l = Clip(n, #1e-12)
        ns = Shape(h) le = Expand(l, ns) y = Div(h, le)"""
    mask = np.ones((2, 30 * size), np.int64)
    mask[0, 4:] = 0
    return nodes, {"x": floats(2, 30 * size, 8), "m": mask}, {}


@structure
def contrastive_scores(size: int) -> Parts:
    """CLIP: unit vectors times the exponential of a learned temperature."""
    nodes = """an = ReduceL2<keepdims = 1>(a, #[1]) au = Div(a, an) bn = ReduceL2<keepdims = 1>(b, #[1])
        bu = Div(b, bn) t = Transpose<perm = [1, 0]>(bu) s = MatMul(au, t) e = Exp(scale)
        l = Mul(s, e) y = Softmax<axis = -1>(l)"""
    inputs = {"a": floats(3, 32 * size), "b": floats(5, 32 * size, seed=1)}
    return nodes, inputs, {"scale": np.float32(np.log(100))}


@structure
def cosine_similarity(size: int) -> Parts:
    nodes = """p = Mul(a, b) d = ReduceSum<keepdims = 0>(p, #[1]) aa = Mul(a, a)
        as = ReduceSum<keepdims = 0>(aa, #[1]) bb = Mul(b, b) bs = ReduceSum<keepdims = 0>(bb, #[1])
        m = Mul(as, bs) c = Max(m, #1e-16) r = Sqrt(c) y = Div(d, r)"""
    return nodes, {"a": 30 * floats(3, size), "b": 0.01 * floats(3, size, seed=1)}, {}


@structure
def repetition_penalty(size: int) -> Parts:
    nodes = """g = GatherElements<axis = 1>(x, ids) n = Less(g, #0.0) a = Mul(g, #1.3)
        b = Div(g, #1.3) w = Where(n, a, b) y = ScatterElements<axis = 1>(x, ids, w)"""
    return nodes, {"x": 9 * floats(2, 50), "ids": integers(2, size, below=50)}, {}


@structure
def embeddings_with_types(size: int) -> Parts:
    """BERT's first layer: three tables and a normalization."""
    nodes = """w = Gather<axis = 0>(words, ids) n = Shape<start = 1, end = 2>(ids) z = Squeeze(n)
        r = Range(#0i, z, #1i) p = Gather<axis = 0>(places, r) s = Add(w, p)
        m = ReduceMean<keepdims = 1>(s, #[-1]) d = Sub(s, m) q = Pow(d, #2.0)
        v = ReduceMean<keepdims = 1>(q, #[-1]) e = Add(v, #1e-12) t = Sqrt(e) h = Div(d, t)
        g = Mul(h, scale) y = Add(g, shift)"""
    constants = {
        "words": 0.05 * floats(60, 16),
        "places": 0.02 * floats(256, 16),
        "scale": floats(16),
        "shift": floats(16),
    }
    return nodes, {"ids": integers(2, size, below=60)}, constants


@structure
def key_value_cache(size: int) -> Parts:
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
    "a choice of the lowest double": """b = Cast<to = 9>(m) bu = Unsqueeze(b, axis)
        low = CastLike(lowest_double, x) s = Where(bu, x, low)""",
    "a choice between zero and the lowest": """b = Cast<to = 9>(m) c = Where(b, nought, lowest)
        add = Unsqueeze(c, axis) s = Add(x, add)""",
    "a triangle chosen by positions": """n = Shape<start = 1, end = 2>(x) none = Squeeze(n)
        at = Range(zero, none, step) row = Unsqueeze(at, k0) column = Unsqueeze(at, k1)
              late = Greater(row, column)
        up = Where(late, lowest, nought) s = Add(x, up)""",
}


def masked(text: str) -> Callable[[int], Parts]:
    def parts(size: int) -> Parts:
        mask = np.ones((2, size), np.int64)
        mask[0, : size // 2] = 0
        constants = {
            "one": np.float32(1),
            "nought": np.float32(0),
            "lowest": LOWEST,
            "lowest_double": np.float64(LOWEST),
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

    return parts


for _name, _text in MASKS.items():
    structure(masked(_text), name=f"a mask by {_name}")
