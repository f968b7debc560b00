"""Boxes, anchors, key points and cells of detectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.structures.building import Parts, floats, structure


@structure
def distribution_of_boxes(size: int) -> Parts:
    """YOLOv8: sides of boxes as expectations, on anchors in pixels."""
    nodes = """r = Reshape(x, #[1, 4, 16, -1]) t = Transpose<perm = [0, 2, 1, 3]>(r)
        p = Softmax<axis = 1>(t) c = Conv<kernel_shape = [1, 1]>(p, w) d = Reshape(c, #[1, 4, -1])
        a, b = Split<axis = 1, num_outputs = 2>(d) lo = Sub(anchors, a) hi = Add(anchors, b)
        s = Add(lo, hi) m = Div(s, #2.0) wh = Sub(hi, lo) k = Concat<axis = 1>(m, wh)
        y = Mul(k, #8.0)"""
    anchors = (
        np.stack([np.arange(9 * size) % 80, np.arange(9 * size) // 80]).astype("f4")[None]
        + 0.5
    )
    constants = {"w": np.arange(16, dtype="f4").reshape(1, 16, 1, 1)}
    return nodes, {"x": 2 * floats(1, 64, 9 * size), "anchors": anchors}, constants


@structure
def anchors_from_the_shape(size: int) -> Parts:
    """YOLOX and RetinaNet: a grid by Range, strides of 32, exponentials of sizes."""
    nodes = """sh = Shape(x) h = Gather<axis = 0>(sh, #2i) w = Gather<axis = 0>(sh, #3i)
        rh = Range(#0i, h, #1i) rw = Range(#0i, w, #1i) uh = Unsqueeze(rh, #[1])
        uw = Unsqueeze(rw, #[0]) eh = Unsqueeze(h, #[0]) ew = Unsqueeze(w, #[0])
        to = Concat<axis = 0>(eh, ew) gh = Expand(uh, to) gw = Expand(uw, to)
        ch = Unsqueeze(gh, #[0]) cw = Unsqueeze(gw, #[0]) g = Concat<axis = 0>(cw, ch)
        gf = Cast<to = 1>(g) c, s = Split<axis = 1, num_outputs = 2>(x) a = Add(c, gf)
        p = Mul(a, #32.0) e = Exp(s) q = Mul(e, #32.0) y = Concat<axis = 1>(p, q)"""
    return nodes, {"x": floats(1, 4, size, 3 * size)}, {}


@structure
def boxes_decoded(size: int) -> Parts:
    """Deltas on proposals in pixels of a large image, clipped to it (Faster R-CNN)."""
    nodes = """x1 = Gather<axis = 1>(b, #[0]) y1 = Gather<axis = 1>(b, #[1])
        x2 = Gather<axis = 1>(b, #[2]) y2 = Gather<axis = 1>(b, #[3]) w = Sub(x2, x1)
        h = Sub(y2, y1) hw = Mul(w, #0.5) hh = Mul(h, #0.5) cx = Add(x1, hw) cy = Add(y1, hh)
        dx = Gather<axis = 1>(d, #[0]) dy = Gather<axis = 1>(d, #[1]) dw0 = Gather<axis = 1>(d, #[2])
        dw = Min(dw0, #4.1351666) mx = Mul(dx, w) px = Add(mx, cx) my = Mul(dy, h)
        py = Add(my, cy) ew = Exp(dw) pw = Mul(ew, w) k = Concat<axis = 1>(px, py, pw)
        y = Clip(k, #0.0, #1333.0)"""
    corners = np.random.default_rng(0).uniform(0, 600, (size, 2)).astype("f4")
    boxes = np.concatenate(
        [corners, corners + 20 + 600 * np.random.default_rng(1).random((size, 2))], 1
    )
    return nodes, {"b": boxes.astype("f4"), "d": 0.3 * floats(size, 3)}, {}


def _boxes(count: int) -> Any:
    corners = np.random.default_rng(0).uniform(0, 600, (count, 2))
    sizes = np.random.default_rng(1).uniform(20, 200, (count, 2))
    return np.concatenate([corners, corners + sizes], 1).astype("f4")[None]


@structure
def suppressed_boxes(size: int) -> Parts:
    """NonMaxSuppression, and the boxes that it selects."""
    nodes = """p = Sigmoid(x) s = NonMaxSuppression(b, p, #[20], iou, least)
        i = Slice(s, #[2], #[3], #[1]) f = Squeeze(i, #[1]) b0 = Squeeze(b, #[0])
        y = Gather<axis = 0>(b0, f)"""
    constants = {"iou": np.array([0.45], "f4"), "least": np.array([0.25], "f4")}
    return nodes, {"b": _boxes(size), "x": floats(1, 1, size)}, constants


@structure
def suppressed_by_classes(size: int) -> Parts:
    """Boxes of each class moved apart by a large offset before NonMaxSuppression."""
    nodes = """p = Softmax<axis = -1>(x) c = ReduceMax<keepdims = 0>(p, #[-1])
        k = ArgMax<axis = -1, keepdims = 1>(p) f = Cast<to = 1>(k) o = Mul(f, #7680.0)
        m = Add(b, o) cu = Unsqueeze(c, #[1]) s = NonMaxSuppression(m, cu, #[20], iou, least)
        i = Slice(s, #[2], #[3], #[1]) l = Squeeze(i, #[1]) b0 = Squeeze(b, #[0])
        y = Gather<axis = 0>(b0, l)"""
    constants = {"iou": np.array([0.45], "f4"), "least": np.array([0.25], "f4")}
    return nodes, {"b": _boxes(size), "x": 3 * floats(1, size, 5)}, constants


@structure
def overlaps(size: int) -> Parts:
    """Intersection over union of boxes in pixels: areas above 65504."""
    nodes = """a = Unsqueeze(b, #[2]) c = Unsqueeze(b, #[1]) a1 = Slice(a, #[0], #[2], #[3])
        a2 = Slice(a, #[2], #[4], #[3]) c1 = Slice(c, #[0], #[2], #[3]) c2 = Slice(c, #[2], #[4], #[3])
        lt = Max(a1, c1) rb = Min(a2, c2) d = Sub(rb, lt) e = Clip(d, #0.0)
        i = ReduceProd<axes = [3], keepdims = 0>(e) aw = Sub(a2, a1)
        aa = ReduceProd<axes = [3], keepdims = 0>(aw) cw = Sub(c2, c1)
        ca = ReduceProd<axes = [3], keepdims = 0>(cw) s = Add(aa, ca) u = Sub(s, i) y = Div(i, u)"""
    return (
        nodes.replace("ReduceProd<axes = [3], keepdims = 0>(", "ReduceProd<keepdims = 0>(")
        .replace("(e) aw", "(e, #[3]) aw")
        .replace("(aw)", "(aw, #[3])")
        .replace("(cw)", "(cw, #[3])"),
        {"b": 2 * _boxes(size)},
        {},
    )


@structure
def region_features(size: int) -> Parts:
    nodes = """r = RoiAlign<output_height = 3, output_width = 3, spatial_scale = 0.125>(x, b, at)
        y = Relu(r)"""
    boxes = _boxes(size)[0]
    return nodes, {"x": floats(1, 4, 80, 80), "b": boxes, "at": np.zeros(size, np.int64)}, {}


@structure
def soft_argmax(size: int) -> Parts:
    """Keypoints as expectations over a heat map, in pixels."""
    nodes = """f = Reshape(x, #[1, 3, -1]) p = Softmax<axis = -1>(f) h = Reshape(p, #[1, 3, 64, -1])
        c = ReduceSum<keepdims = 0>(h, #[2]) n = Shape<start = 3>(x) z = Squeeze(n)
        r = Range(#0i, z, #1i) rf = Cast<to = 1>(r) m = Mul(c, rf)
        y = ReduceSum<keepdims = 0>(m, #[2])"""
    return nodes, {"x": 4 * floats(1, 3, 64, 4 * size)}, {}


@structure
def keypoints_by_argmax(size: int) -> Parts:
    """A heat map's best place, split into row and column, moved by a quarter."""
    nodes = """f = Reshape(x, #[1, 3, -1]) i = ArgMax<axis = 2, keepdims = 0>(f) w = Shape<start = 3>(x)
        c = Mod(i, w) r = Div(i, w) cf = Cast<to = 1>(c) rf = Cast<to = 1>(r)
        cu = Unsqueeze(cf, #[2]) ru = Unsqueeze(rf, #[2]) k = Concat<axis = 2>(cu, ru)
        a = Add(k, #0.25) y = Mul(a, #4.0)"""
    return nodes, {"x": floats(1, 3, 64, 4 * size)}, {}


@structure
def focal_heat_map(size: int) -> Parts:
    """CenterNet: peaks by a max pooling of equal value, then the best of them."""
    nodes = """s = Sigmoid(x) m = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(s)
        e = Equal(s, m) f = Cast<to = 1>(e) p = Mul(s, f) l = Reshape(p, #[1, -1])
        v, i = TopK(l, #[5]) y = Identity(v)"""
    return nodes, {"x": floats(1, 2, size, size)}, {}


@structure
def point_pillars(size: int) -> Parts:
    """Points in metres to cells of a bird's eye view by ScatterND."""
    nodes = """h = MatMul(x, w) r = Relu(h) xy = Slice(x, #[0], #[2], #[1]) s = Sub(xy, #-51.2)
        d = Div(s, #0.8) f = Floor(d) i = Cast<to = 7>(f)
        z = ConstantOfShape<value = float[1] {0}>(#[128, 128, 4])
        g = ScatterND<reduction = "max">(z, i, r) a = ReduceMax<keepdims = 0>(g, #[0])
        y = Relu(a)"""
    points = np.random.default_rng(0).uniform(-51, 51, (9 * size, 3)).astype("f4")
    return nodes, {"x": points}, {"w": floats(3, 4)}


@structure
def cropped_by_boxes(size: int) -> Parts:
    """Slice bounds computed in floats from a ratio of the image."""
    nodes = """hw = Shape<start = 2>(x) f = Cast<to = 1>(hw) a = Mul(f, box) c = Ceil(a) i = Cast<to = 7>(c)
        s = Slice(x, i, hw, #[2, 3]) m = ReduceMax<keepdims = 0>(s, #[1]) y = Relu(m)"""
    return nodes, {"x": floats(1, 2, 40, 70 * size), "box": np.array([0.3, 0.301], "f4")}, {}
