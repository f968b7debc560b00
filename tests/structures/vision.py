"""Images, boxes, flows and rays."""

from __future__ import annotations

from functools import partial

import numpy as np

from tests.structures.building import Parts, floats, integers, structure


@structure
def resize_to_another(size: int) -> Parts:
    """A feature map brought to the size of another, as FPNs do."""
    nodes = """hw = Shape<start = 2>(b) lead = Shape<start = 0, end = 2>(a)
        to = Concat<axis = 0>(lead, hw) u = Resize<mode = "nearest",
        coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">(a, , , to)
        s = Add(u, b) y = Conv<kernel_shape = [1, 1]>(s, w)"""
    inputs = {"a": floats(1, 4, 5, size), "b": floats(1, 4, 9, 2 * size - 1, seed=1)}
    return nodes, inputs, {"w": floats(3, 4, 1, 1)}


@structure
def resize_to_the_shorter_side(size: int) -> Parts:
    """A scale from the shorter side, a size by floor, as detectors preprocess."""
    nodes = """hw = Shape<start = 2>(x) f = Cast<to = 1>(hw) m = ReduceMin<keepdims = 0>(f)
        s = Div(#333.0, m) t = Mul(f, s) r = Floor(t) i = Cast<to = 7>(r)
        lead = Shape<start = 0, end = 2>(x) to = Concat<axis = 0>(lead, i)
        u = Resize<mode = "linear">(x, , , to)
        y = Conv<kernel_shape = [3, 3], strides = [8, 8]>(u, w)"""
    return nodes, {"x": floats(1, 3, 7, size)}, {"w": floats(2, 3, 3, 3)}


@structure
def pixels_normalized(size: int) -> Parts:
    """Bytes less the mean over the deviation, inside the model."""
    nodes = """f = Cast<to = 1>(x) t = Transpose<perm = [0, 3, 1, 2]>(f) d = Sub(t, mean)
        n = Div(d, deviation) y = Conv<kernel_shape = [3, 3]>(n, w)"""
    constants = {
        "mean": np.array([123.675, 116.28, 103.53], "f4").reshape(1, 3, 1, 1),
        "deviation": np.array([58.395, 57.12, 57.375], "f4").reshape(1, 3, 1, 1),
        "w": floats(4, 3, 3, 3) / 5,
    }
    return nodes, {"x": integers(1, size, size, 3, below=256).astype("u1")}, constants


@structure
def luma(size: int) -> Parts:
    """Colours of 0 to 255 to YCbCr and back, with an offset of 128."""
    nodes = """t = Transpose<perm = [0, 2, 3, 1]>(x) m = MatMul(t, matrix) o = Add(m, offset)
        c = Clip(o, #0.0, #255.0) r = Round(c) y = Div(r, #255.0)"""
    matrix = np.array(
        [[0.299, -0.1687, 0.5], [0.587, -0.3313, -0.4187], [0.114, 0.5, -0.0813]], "f4"
    )
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 3, size, size)).astype("f4")
    return nodes, {"x": pixels}, {"matrix": matrix, "offset": np.array([0, 128, 128], "f4")}


@structure
def grid_sample_of_flow(size: int) -> Parts:
    """An optical flow in pixels becomes a grid between -1 and 1."""
    nodes = """sh = Shape(x) h = Gather<axis = 0>(sh, #2i) w = Gather<axis = 0>(sh, #3i)
        rw = Range(#0i, w, #1i) rh = Range(#0i, h, #1i) fw = Cast<to = 1>(rw)
        fh = Cast<to = 1>(rh) uh = Unsqueeze(fh, #[1]) zero = Mul(uh, #0.0) gx = Add(zero, fw)
        zw = Mul(fw, #0.0) gy = Add(uh, zw) s = Gather<axis = 1>(flow, #0i)
        t = Gather<axis = 1>(flow, #1i) px = Add(gx, s) py = Add(gy, t) w1 = Sub(w, #1i)
        h1 = Sub(h, #1i) wf = Cast<to = 1>(w1) hf = Cast<to = 1>(h1) ax = Mul(px, #2.0)
        bx = Div(ax, wf) cx = Sub(bx, #1.0) ay = Mul(py, #2.0) by = Div(ay, hf)
        cy = Sub(by, #1.0) ex = Unsqueeze(cx, #[3]) ey = Unsqueeze(cy, #[3])
        g = Concat<axis = 3>(ex, ey) y = GridSample<align_corners = 1>(x, g)"""
    return (
        nodes,
        {
            "x": floats(1, 2, 3 * size, 4 * size),
            "flow": 3 * floats(1, 2, 3 * size, 4 * size, seed=1),
        },
        {},
    )


@structure(opset=20)
def affine_grid(size: int) -> Parts:
    """A spatial transformer."""
    nodes = """to = Shape(x) h = GlobalAveragePool(x) f = Flatten(h) t = MatMul(f, w)
        u = Reshape(t, #[1, 2, 3]) theta = Add(u, identity)
        g = AffineGrid<align_corners = 0>(theta, to) y = GridSample<mode = "linear">(x, g)"""
    constants = {"w": floats(2, 6) / 9, "identity": np.array([[[1, 0, 0], [0, 1, 0]]], "f4")}
    return nodes, {"x": floats(1, 2, size, 2 * size)}, constants


@structure
def correlation_volume(size: int) -> Parts:
    """RAFT: all pairs, over the root of the channels, looked up at growing coordinates."""
    nodes = """a = Reshape(l, #[1, 16, -1]) b = Reshape(r, #[1, 16, -1])
        t = Transpose<perm = [0, 2, 1]>(a) m = MatMul(t, b) d = Div(m, #4.0)
        c = Reshape(d, #[-1, 1, 8, 8]) p = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(c)
        s = Mul(coords, #0.2857143) g = Sub(s, #1.0) gu = Reshape(g, #[-1, 1, 1, 2])
        o = GridSample<align_corners = 1>(p, gu) y = Reshape(o, #[1, -1])"""
    inputs = {
        "l": floats(1, 16, 8, size),
        "r": floats(1, 16, 8, 8, seed=1),
        "coords": np.random.default_rng(2).uniform(0, 7, (8 * size, 2)).astype("f4"),
    }
    return nodes, inputs, {}


@structure
def deformable_by_sampling(size: int) -> Parts:
    """Deformable attention: reference points and offsets over the sizes of levels."""
    nodes = """o = MatMul(q, wo) r = Reshape(o, #[1, -1, 4, 2]) wh = Shape<start = 2>(x)
        f = Cast<to = 1>(wh) d = Div(r, f) u = Unsqueeze(points, #[2]) l = Add(u, d)
        m = Mul(l, #2.0) g = Sub(m, #1.0) s = GridSample(x, g) lo = MatMul(q, wa)
        a = Softmax<axis = -1>(lo) au = Unsqueeze(a, #[1]) p = Mul(s, au)
        y = ReduceSum<keepdims = 0>(p, #[3])"""
    inputs = {
        "x": floats(1, 8, 20, size),
        "q": floats(1, 15, 16),
        "points": np.random.default_rng(0).random((1, 15, 2), np.float32),
    }
    return nodes, inputs, {"wo": floats(16, 8) / 4, "wa": floats(16, 4) / 4}


@structure(opset=19)
def deformable_convolution(size: int) -> Parts:
    nodes = """o = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, wo)
        d = DeformConv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w, o) y = Relu(d)"""
    return (
        nodes,
        {"x": floats(1, 4, size, size)},
        {"wo": floats(18, 4, 3, 3) / 20, "w": floats(6, 4, 3, 3) / 6},
    )


@structure
def depthwise_squeeze_and_excite(size: int) -> Parts:
    nodes = """d = Conv<kernel_shape = [3, 3], group = 8, pads = [1, 1, 1, 1]>(x, w)
        b = BatchNormalization(d, g, s, m, v) r = HardSwish(b) p = GlobalAveragePool(r)
        e = Conv<kernel_shape = [1, 1]>(p, w1) f = Relu(e) h = Conv<kernel_shape = [1, 1]>(f, w2)
        a = HardSigmoid<alpha = 0.16666667>(h) y = Mul(r, a)"""
    constants = {
        "w": floats(8, 1, 3, 3),
        "g": floats(8),
        "s": floats(8),
        "m": floats(8),
        "v": np.abs(floats(8)) + 1e-3,
        "w1": floats(2, 8, 1, 1),
        "w2": floats(8, 2, 1, 1),
    }
    return nodes, {"x": floats(1, 8, size, size)}, constants


@structure
def pixel_shuffle(size: int) -> Parts:
    nodes = """c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w)
        d = DepthToSpace<blocksize = 2, mode = "CRD">(c) t = Tanh(d) m = Mul(t, #0.5)
        a = Add(m, #0.5) y = Clip(a, #0.0, #1.0)"""
    return nodes, {"x": floats(1, 4, size, size)}, {"w": floats(12, 4, 3, 3) / 6}


@structure
def pixel_shuffle_by_reshape(size: int) -> Parts:
    nodes = """sh = Shape(x) h = Gather<axis = 0>(sh, #[2]) w = Gather<axis = 0>(sh, #[3])
        a = Concat<axis = 0>(#[1, 3, 2, 2], h, w) r = Reshape(x, a)
        t = Transpose<perm = [0, 1, 4, 2, 5, 3]>(r) h2 = Mul(h, #[2]) w2 = Mul(w, #[2])
        b = Concat<axis = 0>(#[1, 3], h2, w2) y = Reshape(t, b)"""
    return nodes, {"x": floats(1, 12, size, size)}, {}


@structure
def transposed_upsampling(size: int) -> Parts:
    nodes = """c = ConvTranspose<kernel_shape = [4, 4], strides = [2, 2], pads = [1, 1, 1, 1],
        group = 4>(x, w) y = Sigmoid(c)"""
    return nodes, {"x": floats(1, 4, size, size)}, {"w": floats(4, 1, 4, 4) / 4}


@structure
def disparity_to_depth(size: int) -> Parts:
    nodes = """s = Sigmoid(x) a = Mul(s, #9.99) b = Add(a, #0.01) d = Reciprocal(b)
        y = Clip(d, #0.001, #80.0)"""
    return nodes, {"x": 5 * floats(1, 1, size, size)}, {}


@structure
def plane_sweep(size: int) -> Parts:
    """Pixels through intrinsics of 1000 and their inverse, to a depth and back (MVSNet)."""
    nodes = """p = MatMul(inverse, pixels) d = Mul(p, depth) t = Add(d, move) q = MatMul(k, t)
        z = Slice(q, #[2], #[3], #[0]) e = Add(z, #1e-8) xy = Slice(q, #[0], #[2], #[0])
        u = Div(xy, e) n = Div(u, #960.0) y = Sub(n, #1.0)"""
    k = np.array([[1100, 0, 960], [0, 1100, 540], [0, 0, 1]], "f4")
    pixels = np.stack(
        [np.linspace(0, 1919, 9 * size), np.linspace(0, 1079, 9 * size), np.ones(9 * size)]
    ).astype("f4")
    inputs = {
        "pixels": pixels,
        "depth": np.float32(3.7),
        "move": np.array([[0.2], [0], [0.1]], "f4"),
    }
    return nodes, inputs, {"k": k, "inverse": np.linalg.inv(k)}


@structure
def volume_rendering(size: int) -> Parts:
    """NeRF: transmittance as the exponential of a running sum of densities."""
    nodes = """r = Relu(s) d = Mul(r, #0.015625) n = Neg(d) e = Exp(n) a = Sub(#1.0, e)
        c = CumSum<exclusive = 1>(d, #1i) m = Neg(c) t = Exp(m) w = Mul(a, t)
        u = Unsqueeze(w, #[2]) p = Mul(u, rgb) y = ReduceSum<keepdims = 0>(p, #[1])"""
    inputs = {"s": 20 * floats(8, 8 * size), "rgb": np.abs(floats(8, 8 * size, 3, seed=1))}
    return nodes, inputs, {}


@structure
def rotations_from_quaternions(size: int) -> Parts:
    nodes = """n = ReduceL2<keepdims = 1>(q, #[1]) u = Div(q, n) a = Unsqueeze(u, #[2])
        b = Unsqueeze(u, #[1]) o = MatMul(a, b) f = Reshape(o, #[0, 16]) r = MatMul(f, m)
        c = Add(r, eye) k = Reshape(c, #[0, 3, 3]) e = Unsqueeze(p, #[2]) t = MatMul(k, e)
        y = Squeeze(t, #[2])"""
    rotation = "-yy-zz +xy-wz +xz+wy +xy+wz -xx-zz +yz-wx +xz-wy +yz+wx -xx-yy"
    m = np.zeros((16, 9), "f4")
    for column, terms in enumerate(rotation.split()):
        for start in (0, 3):
            first, second = map("wxyz".index, terms[start + 1 : start + 3])
            m[4 * first + second, column] += 2 if terms[start] == "+" else -2
    return (
        nodes,
        {"q": floats(size, 4), "p": floats(size, 3)},
        {"m": m, "eye": np.eye(3, dtype="f4").reshape(9)},
    )


@structure
def edges_of_an_image(size: int) -> Parts:
    """Sobel: the root of a sum of squares of differences of 0 to 255."""
    nodes = """a = Conv<kernel_shape = [3, 3]>(x, v) b = Conv<kernel_shape = [3, 3]>(x, h)
        aa = Mul(a, a) bb = Mul(b, b) s = Add(aa, bb) e = Add(s, #1e-6) y = Sqrt(e)"""
    sobel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]], "f4").reshape(1, 1, 3, 3)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 1, size, size)).astype("f4")
    return (
        nodes,
        {"x": pixels},
        {"v": sobel, "h": np.ascontiguousarray(sobel.transpose(0, 1, 3, 2))},
    )


@structure
def padded_to_a_multiple(size: int) -> Parts:
    nodes = """hw = Shape<start = 2>(x) f = Cast<to = 1>(hw) d = Div(f, #32.0) c = Ceil(d)
        m = Mul(c, #32.0) i = Cast<to = 7>(m) p = Sub(i, hw) pads = Concat<axis = 0>(#[0, 0, 0, 0, 0, 0], p)
        o = Pad(x, pads) y = Conv<kernel_shape = [3, 3], strides = [2, 2]>(o, w)"""
    return nodes, {"x": floats(1, 3, size, 70 * size)}, {"w": floats(2, 3, 3, 3) / 5}


@structure
def windows_unfolded(size: int) -> Parts:
    """im2col by indices, as torch's unfold exports."""
    nodes = """p = Pad(x, #[0, 0, 1, 1, 0, 0, 1, 1]) n = Shape<start = 2, end = 3>(x) z = Squeeze(n)
        r = Range(#0i, z, #1i) u = Unsqueeze(r, #[0]) k = Add(u, offsets)
        g = Gather<axis = 2>(p, k) h = Gather<axis = 4>(g, k)
        t = Transpose<perm = [0, 1, 2, 4, 3, 5]>(h) y = Reshape(t, #[1, 18, -1])"""
    return nodes, {"x": floats(1, 2, size, size)}, {"offsets": np.array([[0], [1], [2]])}


def resize(size: int, by: str) -> Parts:
    image = {"x": floats(1, 2, 7, size)}
    ends = {"w": floats(3, 2, 1, 1, seed=1), "o2": np.ones(2, np.float32)}
    product = " y = Conv<kernel_shape = [1, 1]>(u, w)"
    target = {"t": np.array([21, 3 * size], np.int64)}
    match by:
        case "ratio":
            nodes = """sh = Shape<start = 2>(x) shf = Cast<to = 1>(sh) tf = Cast<to = 1>(t)
              r = Div(tf, shf)
                sc = Concat<axis = 0>(o2, r) u = Resize<mode = "linear">(x, , sc)"""
            return nodes + product, {**image, **target}, ends
        case "size":
            nodes = """lead = Shape<start = 0, end = 2>(x) all = Concat<axis = 0>(lead, t)
                u = Resize<mode = "linear">(x, , , all)"""
            return nodes + product, {**image, **target}, {"w": ends["w"]}
        case _:
            nodes = 'sc = Concat<axis = 0>(o2, f) u = Resize<mode = "nearest">(x, , sc)'
            return (
                nodes + product,
                {**image, "f": np.array([3.003, 3.003], np.float32)},
                ends,
            )


for _by in ("ratio", "size", "scale"):
    structure(partial(resize, by=_by), name=f"resize by {_by}")
