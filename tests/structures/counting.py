"""Counters, running sums, positions and sizes that loops and bodies hand on."""

from __future__ import annotations

import numpy as np

from tests.structures.building import Parts, floats, integers, structure


@structure
def counter_of_a_loop(size: int) -> Parts:
    """A Loop adds 1.0 to a float: above 2048 a float16 stays where it is."""
    nodes = """n, h = Loop<body = step (int64 i, bool c, float k, float[1, 8] a) =>
            (bool c1, float k1, float[1, 8] a1) {
            c1 = Identity(c) k1 = Add(k, one) t = Tanh(a) a1 = Add(t, bias) }>(steps, , zero, x)
        m = Div(h, n) y = Mul(m, #1000.0)"""
    constants = {"one": np.float32(1), "zero": np.float32(0), "bias": floats(1, 8)}
    return nodes, {"x": floats(1, 8), "steps": np.int64(80 * size)}, constants


@structure
def running_total_of_a_scan(size: int) -> Parts:
    """A Scan adds up a sequence: thousands of terms in one number."""
    nodes = """t = Scan<num_scan_inputs = 1, body = step (float[4] s, float[4] e) => (float[4] n) {
            n = Add(s, e) }>(first, x)
        l = Shape<start = 0, end = 1>(x) f = Cast<to = 1>(l) y = Div(t, f)"""
    x = np.abs(floats(160 * size, 4)) + 1
    return nodes, {"x": x}, {"first": np.zeros(4, "f4")}


@structure
def positions_in_three_axes(size: int) -> Parts:
    """As Qwen2-VL rotates: time, height and width have positions of their own."""
    nodes = """f = Cast<to = 1>(ids) u = Unsqueeze(f, #[3]) a = Mul(u, inv) t, h, w = Split<axis = 0,
            num_outputs = 3>(a)
        ts = Slice(t, #[0], #[2], #[3]) hs = Slice(h, #[2], #[5], #[3]) ws = Slice(w, #[5], #[8], #[3])
        j = Concat<axis = 3>(ts, hs, ws) q = Squeeze(j, #[0]) c = Cos(q) s = Sin(q)
        xc = Mul(x, c) xs = Mul(x, s) y = Sub(xc, xs)"""
    ids = np.stack([np.arange(size)[None] * step for step in (61, 37, 11)])
    inverses = (10000.0 ** -(np.arange(8) / 8)).astype("f4")
    return nodes, {"ids": ids, "x": floats(1, size, 8)}, {"inv": inverses}


@structure
def frequencies_by_the_length(size: int) -> Parts:
    """Dynamic NTK: the base of the frequencies is computed from the length of the sequence."""
    nodes = """n = Shape<start = 1, end = 2>(x) f = Cast<to = 1>(n) d = Div(f, #16.0) m = Max(d, #1.0)
        p = Pow(m, #1.1) b = Mul(p, #10000.0) e = Pow(b, exponents) i = Reciprocal(e)
        z = Squeeze(n) r = Range(#0i, z, #1i) rf = Cast<to = 1>(r) ru = Unsqueeze(rf, #[1])
        a = Mul(ru, i) c = Cos(a) y = Mul(x, c)"""
    exponents = (np.arange(8) / 8).astype("f4")
    return nodes, {"x": floats(1, 30 * size, 8)}, {"exponents": exponents}


@structure
def linspace_of_floats(size: int) -> Parts:
    """A Range of floats makes the sample times of a sine."""
    nodes = """r = Range(#0.0, end, #0.01) w = Mul(r, #6.2831855) s = Sin(w) u = Unsqueeze(s, #[0])
        y = Mul(u, gain)"""
    return nodes, {"end": np.float32(2 * size)}, {"gain": floats(4, 1)}


@structure
def resize_in_a_branch(size: int) -> Parts:
    """An If's branch resizes by scales that are computed outside."""
    nodes = """s = Shape<start = 2>(x) f = Cast<to = 1>(s) t = Cast<to = 1>(target) r = Div(t, f)
        q = Concat<axis = 0>(ones, r) n = ReduceSum<keepdims = 0>(target) c = Greater(n, #4i)
        y = If<then_branch = grow () => (float[1, 2, h, w] a) {
                a = Resize<mode = "linear">(x, , q) },
            else_branch = stay () => (float[1, 2, h2, w2] b) { b = Identity(x) }>(c)"""
    inputs = {
        "x": floats(1, 2, size, size + 3),
        "target": np.array([9 * size + 1, 7 * size + 4]),
    }
    return nodes, inputs, {"ones": np.ones(2, "f4")}


@structure
def frames_of_a_loop(size: int) -> Parts:
    """A Loop cuts frames out by starts that it computes as floats."""
    nodes = """l, f = Loop<body = step (int64 i, bool c, float[8] p) =>
            (bool c1, float[8] p1, float[8] g) {
            c1 = Identity(c) fi = Cast<to = 1>(i) at = Mul(fi, hop) fl = Floor(at)
            b = Cast<to = 7>(fl) bu = Unsqueeze(b, first) e = Add(bu, eight) g = Slice(x, bu, e, first)
            p1 = Add(p, g) }>(steps, , zeros)
        y = Mul(f, window)"""
    constants = {
        "hop": np.float32(10.7),
        "eight": np.array([8]),
        "first": np.array([0]),
        "zeros": np.zeros(8, "f4"),
        "window": np.hanning(8).astype("f4"),
    }
    inputs = {"x": floats(400 * size), "steps": np.int64(30 * size)}
    return nodes, inputs, constants


@structure
def float_identities(size: int) -> Parts:
    """Token ids that come as floats, as mobile runtimes want them."""
    nodes = """i = Cast<to = 7>(ids) e = Gather<axis = 0>(table, i) y = MatMul(e, w)"""
    ids = integers(1, 4 * size, below=4999).astype("f4")
    return nodes, {"ids": ids}, {"table": floats(5000, 8), "w": floats(8, 4, seed=1)}


@structure
def steps_of_a_clock(size: int) -> Parts:
    """Minutes of a week as a remainder, then a sine."""
    nodes = """f = Cast<to = 1>(at) m = Mod<fmod = 1>(f, #10080.0) d = Div(m, #10080.0)
        a = Mul(d, #6.2831855) s = Sin(a) c = Cos(a) j = Concat<axis = 1>(s, c) y = MatMul(j, w)"""
    at = 1_000_000 + integers(3 * size, 1, below=20_000)
    return nodes, {"at": at}, {"w": floats(2, 5)}


@structure
def places_of_maxima(size: int) -> Parts:
    """The flat place of a maximum becomes a row and a column by Div and Mod."""
    nodes = """f = Reshape(x, #[1, -1]) m, i = TopK(f, #[3]) r = Div(i, width) c = Mod(i, width)
        rf = Cast<to = 1>(r) cf = Cast<to = 1>(c) j = Concat<axis = 0>(rf, cf) wf = Cast<to = 1>(width)
        y = Div(j, wf)"""
    x = np.random.default_rng(0).permutation(100 * size).astype("f4").reshape(1, 10, -1) / 64
    return nodes, {"x": x, "width": np.int64(10 * size)}, {}


@structure
def sum_of_durations(size: int) -> Parts:
    """The end of each token is the running sum of rounded lengths; frames are told apart by it."""
    nodes = """e = Exp(x) c = Ceil(e) s = CumSum(c, #1i) t = ReduceMax<keepdims = 0>(s)
        r = Range(#0.0, t, #1.0) ru = Unsqueeze(r, #[0, 1]) su = Unsqueeze(s, #[2])
        l = Less(ru, su) f = Cast<to = 1>(l) n = ReduceSum<keepdims = 0>(f, #[2])
        d = ReduceMax<keepdims = 1>(n) y = Div(n, d)"""
    return nodes, {"x": np.abs(floats(1, 40 * size)) + 1}, {}


@structure
def scores_by_the_age(size: int) -> Parts:
    """Seconds since then: the difference of two large times decays."""
    nodes = """a = Sub(now, then) f = Cast<to = 1>(a) h = Div(f, #3600.0) n = Neg(h) d = Mul(n, #0.05)
        e = Exp(d) y = Mul(e, x)"""
    then = 1_700_000_000 - integers(2, 5 * size, below=200_000)
    inputs = {"now": np.int64(1_700_000_000), "then": then, "x": floats(2, 5 * size)}
    return nodes, inputs, {}


@structure
def grid_of_a_large_image(size: int) -> Parts:
    """A flow of pixels is added to the pixels' own places and made a grid of -1 to 1."""
    nodes = """s = Shape(x) h = Gather<axis = 0>(s, #2i) w = Gather<axis = 0>(s, #3i)
        r = Range(#0i, w, #1i) f = Cast<to = 1>(r) u = Unsqueeze(f, #[0, 1]) d = Slice(flow, #[0], #[1], #[3])
        dq = Squeeze(d, #[3]) p = Add(u, dq) wf = Cast<to = 1>(w) m = Sub(wf, #1.0) q = Div(p, m)
        t = Mul(q, #2.0) g = Sub(t, #1.0) gu = Unsqueeze(g, #[3]) z = Mul(gu, #0.0)
        k = Concat<axis = 3>(gu, z) y = GridSample<align_corners = 1>(x, k)"""
    wide = 50 * size
    ramp = np.sin(np.arange(wide) / 9).astype("f4")
    inputs = {
        "x": np.broadcast_to(ramp, (1, 1, 3, wide)).copy(),
        "flow": 2 * floats(1, 3, wide, 2),
    }
    return nodes, inputs, {}


@structure
def expected_position(size: int) -> Parts:
    """A softmax weighs the positions: their mean is a place among thousands."""
    nodes = """p = Softmax<axis = 1>(x) n = Shape<start = 1, end = 2>(x) z = Squeeze(n)
        r = Range(#0i, z, #1i) f = Cast<to = 1>(r) m = Mul(p, f) e = ReduceSum<keepdims = 1>(m, #[1])
        nf = Cast<to = 1>(n) y = Div(e, nf)"""
    return nodes, {"x": 4 * floats(3, 100 * size)}, {}
