"""Sound: spectra, codecs, vocoders, recurrences."""

from __future__ import annotations

import numpy as np

from tests.structures.building import Parts, floats, integers, structure


@structure
def short_time_spectrum(size: int) -> Parts:
    nodes = """s = STFT<onesided = 1>(x, #16i, window, #32i) q = Mul(s, s)
        p = ReduceSum<keepdims = 0>(q, #[3]) m = MatMul(p, bank) c = Clip(m, #1e-5) y = Log(c)"""
    constants = {"window": np.hanning(32).astype("f4"), "bank": np.abs(floats(17, 8)) / 9}
    return nodes, {"x": 0.1 * floats(1, 16 * size + 32)}, constants


@structure
def spectrum_by_convolution(size: int) -> Parts:
    """silero-vad and many others: the transform as a Conv, its magnitude by a root."""
    nodes = """u = Unsqueeze(x, #[1]) p = Pad<mode = "reflect">(u, #[0, 0, 16, 0, 0, 16])
        c = Conv<kernel_shape = [32], strides = [16]>(p, basis) a, b = Split<axis = 1, num_outputs = 2>(c)
        aa = Mul(a, a) bb = Mul(b, b) s = Add(aa, bb) m = Sqrt(s) n = Mul(m, #1048576.0)
        o = Add(n, #1.0) l = Log(o) y = Conv<kernel_shape = [1]>(l, w)"""
    angles = 2 * np.pi * np.outer(np.arange(16), np.arange(32)) / 32
    basis = np.concatenate([np.cos(angles), -np.sin(angles)])[:, None].astype("f4")
    return (
        nodes,
        {"x": 0.02 * floats(1, 16 * size + 40)},
        {"basis": basis, "w": floats(4, 16, 1) / 9},
    )


@structure
def samples_of_16_bits(size: int) -> Parts:
    nodes = """f = Cast<to = 1>(x) d = Div(f, #32768.0) u = Unsqueeze(d, #[1])
        c = Conv<kernel_shape = [9], strides = [4]>(u, w) y = Tanh(c)"""
    samples = (6000 * floats(1, 16 * size)).astype("i2")
    return nodes, {"x": samples}, {"w": floats(4, 1, 9)}


@structure
def cepstrum(size: int) -> Parts:
    """MFCC: decibels, a floor eighty below the greatest, a cosine transform."""
    nodes = """c = Max(p, #1e-10) l = Log(c) d = Mul(l, #4.3429448) m = ReduceMax<keepdims = 0>(d)
        f = Sub(m, #80.0) g = Max(d, f) y = MatMul(g, dct)"""
    power = (np.abs(floats(size, 16)) ** 6 * 1e-5).astype("f4")
    power[0] = 0
    dct = np.cos(np.pi / 16 * (np.arange(16) + 0.5)[:, None] * np.arange(8)).astype("f4") / 4
    return nodes, {"p": power}, {"dct": dct}


@structure
def energy_normalization(size: int) -> Parts:
    """PCEN: a smoothed energy to a power, a root and a bias."""
    nodes = """a = Add(s, #1e-6) l = Log(a) m = Mul(l, #-0.98) g = Exp(m) p = Mul(e, g) b = Add(p, #2.0)
        r = Pow(b, #0.5) c = Sub(r, #1.4142135) y = MatMul(c, w)"""
    energy = np.exp(3 * floats(3, size)) * np.float32(1e-3)
    return nodes, {"e": energy, "s": energy * 0.8 + 1e-5}, {"w": floats(size, 4) / size**0.5}


@structure
def harmonic_source(size: int) -> Parts:
    """NSF vocoders (Kokoro, RVC): the phase is a running sum of frequencies."""
    nodes = """u = Unsqueeze(f0, #[2]) h = Mul(u, harmonics) r = Div(h, #24000.0) o = Mod<fmod = 1>(r, #1.0)
        c = CumSum(o, #1i) p = Mul(c, #6.2831855) s = Sin(p) a = Mul(s, #0.1) l = MatMul(a, w) y = Tanh(l)"""
    pitch = 200 + 60 * np.sin(np.arange(60 * size) / 30)
    constants = {"harmonics": np.arange(1, 10, dtype="f4"), "w": floats(9, 1)}
    return nodes, {"f0": pitch.astype("f4")[None]}, constants


@structure
def durations(size: int) -> Parts:
    """VITS: logarithms of durations, rounded up, become a path over frames."""
    nodes = """w = Exp(l) s = Mul(w, #1.2) c = Ceil(s) d = CumSum(c, #1i) t = ReduceMax<keepdims = 0>(d)
        m = Max(t, #1.0) n = Cast<to = 7>(m) r = Range(#0i, n, #1i) f = Cast<to = 1>(r)
        u = Unsqueeze(d, #[2]) b = Less(f, u) p = Cast<to = 1>(b)
        q = Pad(p, #[0, 1, 0, 0, -1, 0]) k = Sub(p, q) kt = Transpose<perm = [0, 2, 1]>(k)
        y = MatMul(kt, h)"""
    return nodes, {"l": floats(1, size) + 3, "h": floats(1, size, 8, seed=1)}, {}


@structure
def repeated_by_durations(size: int) -> Parts:
    """FastSpeech: a length regulator by cumulated durations and a search."""
    nodes = """e = Exp(l) m = Sub(e, #1.0) r = Round(m) z = Clip(r, #0.0) i = Cast<to = 7>(z)
        c = CumSum(i, #0i) n = ReduceMax<keepdims = 0>(c) at = Range(#0i, n, #1i) u = Unsqueeze(at, #[1])
        b = LessOrEqual(c, u) f = Cast<to = 7>(b) k = ReduceSum<keepdims = 0>(f, #[1])
        y = Gather<axis = 0>(h, k)"""
    return nodes, {"l": floats(size) / 3 + 2, "h": floats(size, 8, seed=1)}, {}


@structure
def greedy_transcription(size: int) -> Parts:
    """CTC: the best class, repeats and blanks left out."""
    nodes = """h = MatMul(x, w) s = LogSoftmax<axis = -1>(h) a = ArgMax<axis = -1, keepdims = 0>(s)
        i = Slice(a, #[0], #[-1], #[0]) j = Slice(a, #[1], #[9999], #[0]) e = Equal(i, j) n = Not(e)
        z = Greater(j, #0i) k = And(n, z) y = Compress<axis = 0>(j, k)"""
    return nodes, {"x": floats(size, 16)}, {"w": floats(16, 12, seed=1)}


@structure
def stacked_lstm(size: int) -> Parts:
    nodes = """a = LSTM<hidden_size = 6, direction = "bidirectional">(x, w1, r1, b1)
        t = Transpose<perm = [0, 2, 1, 3]>(a) f = Reshape(t, #[0, 0, -1])
        b, h, c = LSTM<hidden_size = 6>(f, w2, r2, b2) s = Squeeze(b, #[1]) y = Softmax<axis = -1>(s)"""
    constants = {
        "w1": floats(2, 24, 4) / 2,
        "r1": floats(2, 24, 6, seed=1) / 3,
        "b1": floats(2, 48) / 4,
        "w2": floats(1, 24, 12) / 3,
        "r2": floats(1, 24, 6, seed=1) / 3,
        "b2": floats(1, 48) / 4,
    }
    return nodes, {"x": floats(size, 2, 4)}, constants


@structure
def stacked_gru(size: int) -> Parts:
    nodes = """a, h1 = GRU<hidden_size = 6, linear_before_reset = 1>(x, w1, r1, b1) s = Squeeze(a, #[1])
        b, h2 = GRU<hidden_size = 6, linear_before_reset = 1>(s, w2, r2, b2, , h1) y = Squeeze(b, #[1])"""
    constants = {
        "w1": floats(1, 18, 4) / 2,
        "r1": floats(1, 18, 6, seed=1) / 3,
        "b1": floats(1, 36) / 4,
        "w2": floats(1, 18, 6) / 2,
        "r2": floats(1, 18, 6, seed=2) / 3,
        "b2": floats(1, 36) / 4,
    }
    return nodes, {"x": floats(size, 2, 4)}, constants


@structure
def gated_stack(size: int) -> Parts:
    """WaveNet: dilated convolutions, a tanh times a sigmoid, sums of skips."""
    nodes = """a = Conv<kernel_shape = [2], dilations = [2], pads = [2, 0]>(x, w1)
        f, g = Split<axis = 1, num_outputs = 2>(a) t = Tanh(f) s = Sigmoid(g) m = Mul(t, s)
        k = Conv<kernel_shape = [1]>(m, w2) r = Add(k, x) z = Add(r, k) y = Mul(z, #0.70710677)"""
    return (
        nodes,
        {"x": floats(1, 4, 8 * size)},
        {"w1": floats(8, 4, 2) / 3, "w2": floats(4, 4, 1) / 2},
    )


@structure
def residual_codes(size: int) -> Parts:
    """Codes of a codec to vectors: tables summed over quantizers (EnCodec)."""
    nodes = """a = Gather<axis = 0>(codes, #0i) b = Gather<axis = 0>(codes, #1i) c = Gather<axis = 0>(codes, #2i)
        e = Gather<axis = 0>(t0, a) f = Gather<axis = 0>(t1, b) g = Gather<axis = 0>(t2, c)
        s = Add(e, f) u = Add(s, g) t = Transpose<perm = [1, 0]>(u) v = Unsqueeze(t, #[0])
        y = ConvTranspose<kernel_shape = [4], strides = [2]>(v, w)"""
    tables = {f"t{number}": floats(64, 8, seed=number) for number in range(3)}
    return (
        nodes,
        {"codes": integers(3, size, below=64)},
        {**tables, "w": floats(8, 2, 4) / 4},
    )


@structure
def finite_scalar_codes(size: int) -> Parts:
    """FSQ: a bounded value rounded to a level, levels to an index."""
    nodes = """h = MatMul(x, w) t = Tanh(h) m = Mul(t, #3.49) r = Round(m) s = Add(r, #4.0) p = Mul(s, basis)
        c = ReduceSum<keepdims = 0>(p, #[1]) i = Cast<to = 7>(c) y = Gather<axis = 0>(table, i)"""
    constants = {
        "w": floats(8, 4),
        "basis": np.array([1, 8, 64, 512], "f4"),
        "table": floats(4096, 4),
    }
    return nodes, {"x": floats(size, 8)}, constants


@structure
def mu_law(size: int) -> Parts:
    nodes = """s = Sign(x) a = Abs(x) m = Mul(a, #255.0) p = Add(m, #1.0) l = Log(p) d = Div(l, #5.5451775)
        c = Mul(s, d) q = Add(c, #1.0) h = Mul(q, #127.5) r = Add(h, #0.5) i = Cast<to = 7>(r)
        y = Gather<axis = 0>(table, i)"""
    return nodes, {"x": np.tanh(floats(4, 8 * size) / 4)}, {"table": floats(257, 4)}


@structure
def overlap_and_add(size: int) -> Parts:
    """An inverse transform as ConvTranspose, over the sum of squared windows."""
    nodes = """c = Cos(phase) s = Sin(phase) re = Mul(m, c) im = Mul(m, s) k = Concat<axis = 1>(re, im)
        o = ConvTranspose<kernel_shape = [32], strides = [16]>(k, basis) n = Shape<start = 2>(o)
        w = Slice(sums, #[0], n, #[2]) e = Add(w, #1e-8) d = Div(o, e) y = Slice(d, #[16], #[-16], #[2])"""
    angles = 2 * np.pi * np.outer(np.arange(17), np.arange(32)) / 32
    window = np.hanning(32) + 1e-3
    basis = np.concatenate([np.cos(angles), -np.sin(angles)])[:, None] * window / 32
    constants = {"basis": basis.astype("f4"), "sums": np.full((1, 1, 4000), 0.75, "f4")}
    inputs = {"m": np.abs(floats(1, 17, size)), "phase": 3 * floats(1, 17, size, seed=1)}
    return nodes, inputs, constants


@structure
def pitch_by_difference(size: int) -> Parts:
    """YIN: a cumulative mean of a difference function."""
    nodes = """c = CumSum(d, #1i) n = Shape<start = 1, end = 2>(d) z = Squeeze(n) e = Add(z, #1i)
        r = Range(#1i, e, #1i) t = Cast<to = 1>(r) p = Mul(d, t) q = Add(c, #1e-8) y = Div(p, q)"""
    return nodes, {"d": np.abs(floats(2, 8 * size)) * 3}, {}


@structure
def state_space(size: int) -> Parts:
    """Mamba by a Scan: a state decays by an exponential and takes an input."""
    nodes = """sp = Softplus(delta) u = Mul(sp, a) e = Exp(u) b = Mul(sp, x)
        h, y = Scan<num_scan_inputs = 2, body = step (float[4] s, float[4] d, float[4] i) =>
            (float[4] n, float[4] o) { m = Mul(s, d) n = Add(m, i) o = Identity(n) }>(start, e, b)"""
    inputs = {"delta": floats(20 * size, 4) - 2, "x": floats(20 * size, 4, seed=1)}
    return nodes, inputs, {"a": -np.exp(floats(4)), "start": np.zeros(4, "f4")}


@structure
def recurrent(size: int) -> Parts:
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


@structure
def log_mel(size: int) -> Parts:
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


@structure
def silent_log_mel(size: int) -> Parts:
    nodes, inputs, constants = log_mel(size)
    return nodes, {"frames": inputs["frames"] * 0}, constants


@structure
def residual_quantizer(size: int) -> Parts:
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


@structure
def log_mel_with_a_chosen_floor(size: int) -> Parts:
    """As `torch.where` and boolean indexing export it."""
    nodes, inputs, constants = log_mel(size)
    chosen = "low = Less(mel, floor) floored = Where(low, floor, mel)"
    return nodes.replace("floored = Max(mel, floor)", chosen), inputs, constants
