"""Positions, counts, timesteps and sizes on their way into activations."""

from __future__ import annotations

import numpy as np

from tests.structures.building import Parts, floats, integers, structure


@structure
def interleaved_rope(size: int) -> Parts:
    """As GPT-J and ChatGLM rotate: even and odd numbers in turn, from a table by position."""
    nodes = """c = Gather<axis = 0>(cosines, at) s = Gather<axis = 0>(sines, at)
        p = Reshape(x, #[0, 0, 4, 2]) a = Gather<axis = 3>(p, #0i) b = Gather<axis = 3>(p, #1i)
        ac = Mul(a, c) bs = Mul(b, s) r = Sub(ac, bs) bc = Mul(b, c) as = Mul(a, s)
        i = Add(bc, as) ru = Unsqueeze(r, #[3]) iu = Unsqueeze(i, #[3])
        z = Concat<axis = 3>(ru, iu) y = Reshape(z, #[0, 0, 8])"""
    angles = np.arange(4096)[:, None] * (0.1 ** np.arange(4)).astype("f4")
    tables = {"cosines": np.cos(angles).astype("f4"), "sines": np.sin(angles).astype("f4")}
    return nodes, {"x": floats(1, size, 8), "at": np.arange(size)[None] + 3000}, tables


@structure
def positions_by_running_sum(size: int) -> Parts:
    """Positions of a padded batch: a running sum over the attention mask."""
    nodes = """s = CumSum(m, #1i) p = Sub(s, #1i) c = Clip(p, #0i) f = Cast<to = 1>(c)
        u = Unsqueeze(f, #[2]) a = Mul(u, inv) k = Cos(a) y = Mul(x, k)"""
    mask = np.ones((2, 400 * size), np.int64)
    mask[0, : 100 * size] = 0
    inverses = (0.1 ** np.arange(4)).astype("f4")
    return nodes, {"m": mask, "x": floats(2, 400 * size, 4)}, {"inv": inverses}


@structure
def positions_by_sum_of_floats(size: int) -> Parts:
    """As fairseq counts: the mask is cast before it's summed up."""
    nodes = """e = Equal(ids, #1i) n = Not(e) f = Cast<to = 1>(n) s = CumSum(f, #1i)
        q = Mul(s, f) i = Cast<to = 7>(q) p = Add(i, #1i) y = Gather<axis = 0>(table, p)"""
    ids = integers(2, 60 * size, below=50) + 2
    ids[0, 50 * size :] = 1
    return nodes, {"ids": ids}, {"table": floats(4000, 8)}


@structure
def relative_buckets(size: int) -> Parts:
    """T5's buckets: the logarithm of a distance becomes an index."""
    nodes = """n = Shape(ids) l = Gather<axis = 0>(n, #0i) r = Range(#0i, l, #1i)
        a = Unsqueeze(r, #[0]) b = Unsqueeze(r, #[1]) d = Sub(a, b) g = Greater(d, #0i)
        gi = Cast<to = 7>(g) far = Mul(gi, #16i) ad = Abs(d) small = Less(ad, #8i)
        f = Cast<to = 1>(ad) q = Div(f, #8.0) lo = Log(q) w = Div(lo, #2.7725887)
        e = Mul(w, #8.0) i = Cast<to = 7>(e) p = Add(i, #8i) m = Min(p, #15i)
        c = Where(small, ad, m) t = Add(far, c) h = Gather<axis = 0>(table, t)
        k = Transpose<perm = [2, 0, 1]>(h) s = Add(k, x) y = Softmax<axis = -1>(s)"""
    length = 5 * size
    inputs = {"ids": integers(length, below=9), "x": floats(4, length, length)}
    return nodes, inputs, {"table": floats(32, 4)}


@structure
def image_positions(size: int) -> Parts:
    """DETR's sines of positions, counted in an unpadded image and scaled to two pi."""
    nodes = """f = Cast<to = 1>(m) r = CumSum(f, #1i) e = Slice(r, #[-1], #[9999], #[1])
        a = Add(e, #1e-6) n = Div(r, a) t = Mul(n, #6.2831855) u = Unsqueeze(t, #[3])
        d = Div(u, dims) s = Sin(d) c = Cos(d) p = Concat<axis = 3>(s, c)
        y = Add(p, x)"""
    mask = np.ones((1, size, size), bool)
    mask[:, :, size - 2 :] = False
    dims = (10000 ** (np.arange(4) / 4)).astype("f4")
    return nodes, {"m": mask, "x": floats(1, size, size, 8)}, {"dims": dims}


@structure
def fourier_features(size: int) -> Parts:
    """NeRF's positions: sines of a coordinate times powers of two."""
    nodes = """u = Unsqueeze(x, #[2]) a = Mul(u, powers) s = Sin(a) c = Cos(a)
        p = Concat<axis = 2>(s, c) f = Reshape(p, #[0, -1]) y = MatMul(f, w)"""
    powers = (2.0 ** np.arange(10)).astype("f4")
    return nodes, {"x": floats(size, 3)}, {"powers": powers, "w": floats(60, 8) / 8}


@structure
def random_fourier_features(size: int) -> Parts:
    nodes = """p = MatMul(x, b) t = Mul(p, #6.2831855) s = Sin(t) c = Cos(t)
        f = Concat<axis = -1>(s, c) y = MatMul(f, w)"""
    return nodes, {"x": floats(size, 2)}, {"b": 10 * floats(2, 16), "w": floats(32, 8) / 6}


@structure
def noise_schedule(size: int) -> Parts:
    """A diffusion step: a table of cumulated products, by timestep, and its roots."""
    nodes = """a = Gather<axis = 0>(table, t) r = Sqrt(a) o = Sub(#1.0, a) b = Sqrt(o)
        n = Mul(b, e) d = Sub(x, n) y = Div(d, r)"""
    betas = np.linspace(8.5e-4**0.5, 0.012**0.5, 1000) ** 2
    table = np.cumprod(1 - betas).astype("f4")
    return (
        nodes,
        {"x": floats(4, size), "e": floats(4, size, seed=1), "t": np.int64(981)},
        {"table": table},
    )


@structure
def log_sigma_timestep(size: int) -> Parts:
    """EDM conditions on a quarter of a logarithm."""
    nodes = """l = Log(sigma) q = Mul(l, #0.25) u = Unsqueeze(q, #[1]) a = Mul(u, freqs)
        c = Cos(a) s = Sin(a) e = Concat<axis = 1>(c, s) h = MatMul(e, w) g = Sigmoid(h)
        y = Mul(h, g)"""
    freqs = (2 * np.pi * floats(16)).astype("f4")
    sigma = np.geomspace(0.002, 80, size).astype("f4")
    return nodes, {"sigma": sigma}, {"freqs": freqs, "w": floats(32, 8) / 6}


@structure
def interpolated_position_table(size: int) -> Parts:
    """A ViT's table of positions brought to the size of the image."""
    nodes = """h = Conv<kernel_shape = [4, 4], strides = [4, 4]>(x, w) n = Shape<start = 2>(h)
        lead = Constant<value_ints = [1, 6]>() to = Concat<axis = 0>(lead, n)
        p = Resize<mode = "cubic", coordinate_transformation_mode = "half_pixel">(table, , , to)
        s = Add(h, p) y = Reshape(s, #[0, 6, -1])"""
    return (
        nodes,
        {"x": floats(1, 3, 4 * size, 24)},
        {
            "w": floats(6, 3, 4, 4) / 7,
            "table": floats(1, 6, 14, 14),
        },
    )


@structure
def cells_of_a_grid(size: int) -> Parts:
    """Hash of coordinates (instant NGP): floors become indices of a table."""
    nodes = """s = Mul(x, #128.0) f = Floor(s) r = Sub(s, f) i = Cast<to = 7>(f)
        a = Gather<axis = 1>(i, #0i) b = Gather<axis = 1>(i, #1i) m = Mul(b, #129i)
        k = Add(a, m) j = Mod(k, #512i) t = Gather<axis = 0>(table, j)
        v = ReduceMean<keepdims = 1>(r, #[1]) y = Mul(t, v)"""
    points = np.random.default_rng(0).random((20 * size, 2), np.float32)
    return nodes, {"x": points}, {"table": floats(512, 4)}


@structure
def year_and_hour(size: int) -> Parts:
    """Seconds since 1970 as sine and cosine of the day (weather, traffic)."""
    nodes = """f = Cast<to = 1>(t) d = Div(f, #86400.0) l = Floor(d) r = Sub(d, l)
        a = Mul(r, #6.2831855) s = Sin(a) c = Cos(a) k = Concat<axis = 1>(s, c)
        y = MatMul(k, w)"""
    seconds = integers(size, 1, below=31_536_000)
    return nodes, {"t": seconds}, {"w": floats(2, 8)}


@structure
def great_circle(size: int) -> Parts:
    """Distances in metres by the haversine formula, scaled."""
    nodes = """r = Mul(x, #0.017453292) a = Gather<axis = 1>(r, #[0]) b = Gather<axis = 1>(r, #[1])
        c = Gather<axis = 1>(r, #[2]) d = Gather<axis = 1>(r, #[3]) p = Sub(c, a) q = Sub(d, b)
        ph = Mul(p, #0.5) qh = Mul(q, #0.5) sp = Sin(ph) sq = Sin(qh) pp = Mul(sp, sp)
        qq = Mul(sq, sq) ca = Cos(a) cc = Cos(c) cs = Mul(ca, cc) m = Mul(cs, qq) s = Add(pp, m)
        o = Sqrt(s) i = Asin(o) dist = Mul(i, #12742000.0) y = Div(dist, #1000.0)"""
    points = np.random.default_rng(0).uniform(-1, 1, (size, 4)).astype("f4")
    return nodes, {"x": 50 + points}, {}


@structure
def rope(size: int) -> Parts:
    nodes = """pf = Cast<to = 1>(pos) pu = Unsqueeze(pf, last) fr = Mul(pu, inv)
              emb = Concat<axis = -1>(fr, fr)
        c = Cos(emb) s = Sin(emb) x1, x2 = Split<axis = -1, num_outputs = 2>(x) nx = Neg(x2)
        rot = Concat<axis = -1>(nx, x1) a = Mul(x, c) b = Mul(rot, s) y = Add(a, b)"""
    positions = np.arange(size, dtype=np.int64)[None] + 3000
    constants = {"inv": (0.1 ** np.arange(4)).astype("f4"), "last": np.array([2], np.int64)}
    return nodes, {"x": floats(1, size, 8), "pos": positions}, constants


@structure
def rope_by_product(size: int) -> Parts:
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


@structure
def rotary_by_range(size: int) -> Parts:
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


@structure
def alibi(size: int) -> Parts:
    nodes = """row = Unsqueeze(at, first) column = Unsqueeze(at, last) far = Sub(row, column)
              away = Abs(far)
        ff = Cast<to = 1>(away) minus = Neg(ff) bias = Mul(minus, slopes) s = Add(x, bias)
              y = Softmax<axis = -1>(s)"""
    constants = {
        "slopes": np.array([0.5, 0.0625, 0.004], np.float32).reshape(3, 1, 1),
        "first": np.array([0], np.int64),
        "last": np.array([1], np.int64),
    }
    return (
        nodes,
        {"x": floats(3, size, size), "at": np.arange(size, dtype=np.int64)},
        constants,
    )


def timestep(size: int, kind: str = "int64") -> Parts:
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


structure(timestep, name="timestep")


@structure
def float_timestep(size: int) -> Parts:
    return timestep(size, "float32")


@structure
def timestep_by_a_cast_like(size: int) -> Parts:
    nodes, inputs, constants = timestep(size)
    return nodes.replace("Cast<to = 1>(t)", "CastLike(t, w)"), inputs, constants
