"""Build small models of further tasks, seeded.

They're of text, prompts, boxes, graphs, diffusion, sound, old opsets.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
from onnx import numpy_helper

Array = npt.NDArray[np.generic]


def _normal(*shape: int, scale: float | None = None, seed: int = 0) -> Array:
    """A normal weight; without ``scale``, its variance keeps that of what it's multiplied with."""
    factor = shape[0] ** -0.5 if scale is None else scale
    return (factor * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def _filters(*shape: int, seed: int = 0) -> Array:
    """A kernel of a Conv before Relu: normal, of variance 2 / fan-in (He et al. 2015)."""
    return _normal(*shape, scale=float(2 / np.prod(shape[1:])) ** 0.5, seed=seed)


def _save(out: Path, text: str, weights: Mapping[str, Array], *, opset: int = 17) -> None:
    ir_version = 3 if opset < 9 else 8
    head = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>\n'
    model = onnx.parser.parse_model(head + text)
    for name, value in weights.items():
        tensor = numpy_helper.from_array(np.asarray(value), name)
        model.graph.initializer.append(tensor)
        if ir_version < 4:  # where weights were inputs with a default
            model.graph.input.append(
                onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            )
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, out)


def text_classifier(out: Path) -> None:
    """Sentiment of a line of words, strings in.

    It's a TF-IDF vectorizer and a logistic regression of scikit-learn.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import StringTensorType
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    good = [
        "good film",
        "a great story",
        "i like it",
        "great good fun",
        "well made and good",
        "a film to like",
    ]
    bad = [
        "bad film",
        "a dull story",
        "i hate it",
        "dull bad waste",
        "badly made and dull",
        "a film to hate",
    ]
    words = TfidfVectorizer(token_pattern="[a-zA-Z]+", ngram_range=(1, 2))  # what a word is
    pipeline = make_pipeline(words, LogisticRegression(C=10.0)).fit(
        good + bad, [1] * len(good) + [0] * len(bad)
    )
    inputs = [("text", StringTensorType([None]))]
    # The locale that every machine has: ONNX Runtime opens no model whose locale isn't installed.
    options = {LogisticRegression: {"zipmap": False}, TfidfVectorizer: {"locale": "C"}}
    model = to_onnx(
        pipeline,
        initial_types=inputs,
        options=options,
        target_opset={"": 15, "ai.onnx.ml": 3},
    )
    model.graph.name = "text_classifier"
    onnx.save(model, out)


def prompt_segmentation(out: Path) -> None:
    """A mask decoder as of Segment Anything.

    An image's embedding and points with labels give masks and scores.
    """
    width = 32
    text = """prompt_segmentation (float[1, 32, 16, 16] image_embeddings, float[1, points, 2] point_coords,
                                   float[1, points] point_labels, float[2] orig_im_size)
        => (float[1, 3, height, width] masks, float[1, 3] scores) {
        normalized = Div (point_coords, side)
        centred = Sub (normalized, half)
        projected = MatMul (centred, gaussian)
        waves1 = Sin (projected)
        waves2 = Cos (projected)
        coded = Concat <axis = 2> (waves1, waves2)
        labels = Unsqueeze (point_labels, last)
        is_background = Equal (labels, zero)
        is_padding = Less (labels, zero)
        background = Where (is_background, background_code, foreground_code)
        marked = Add (coded, background)
        prompts = Where (is_padding, padding_code, marked)
        tokens = Concat <axis = 1> (mask_tokens, prompts)
        flat = Reshape (image_embeddings, flat_shape)
        keys = Transpose <perm = [0, 2, 1]> (flat)
        query = MatMul (tokens, query_weight)
        scores_all = MatMul (query, flat)
        scaled = Div (scores_all, root)
        attention = Softmax <axis = -1> (scaled)
        gathered = MatMul (attention, keys)
        updated = Add (tokens, gathered)
        normed = LayerNormalization <axis = -1> (updated, gain, shift)
        own = Slice (normed, first, third, one)
        hyper = MatMul (own, hyper_weight)
        fine = ConvTranspose <strides = [2, 2]> (image_embeddings, upscale)
        fine_relu = Relu (fine)
        fine_flat = Reshape (fine_relu, fine_shape)
        low_flat = MatMul (hyper, fine_flat)
        low = Reshape (low_flat, mask_shape)
        size = Cast <to = 7> (orig_im_size)
        full_size = Concat <axis = 0> (batch_and_masks, size)
        masks = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (low, , , full_size)
        quality = MatMul (own, quality_weight)
        score = Sigmoid (quality)
        scores = Reshape (score, score_shape)
    }"""
    weights: dict[str, Array] = {
        name: np.array(value, np.float32)
        for name, value in [("side", 256), ("half", 0.5), ("zero", 0), ("root", 16)]
    }
    integers = {"last": [2], "first": [0], "third": [3], "one": [1], "flat_shape": [1, width, 256],
                "fine_shape": [1, 8, 1024], "mask_shape": [1, 3, 32, 32], "batch_and_masks": [1, 3],
                "score_shape": [1, 3]}  # fmt: skip
    weights |= {name: np.array(value, np.int64) for name, value in integers.items()}
    weights["one"] = np.array([1], np.int64)
    weights |= {
        "gaussian": _normal(2, width // 2, scale=6.0),
        "background_code": _normal(width, scale=1.0, seed=1),
        "foreground_code": _normal(width, scale=1.0, seed=2),
        "padding_code": _normal(width, scale=1.0, seed=3),
        "mask_tokens": _normal(1, 3, width, scale=1.0, seed=4),
        "query_weight": _normal(width, width, scale=0.6, seed=5),
        "gain": (1 + _normal(width, scale=0.1, seed=6)).astype(np.float32),
        "shift": _normal(width, scale=0.1, seed=7),
        "hyper_weight": _normal(width, 8, seed=8),
        "upscale": _normal(width, 8, 2, 2, scale=width**-0.5, seed=9),
        "quality_weight": _normal(width, 1, seed=10),
    }
    _save(out, text, weights)


def detector_nms(out: Path) -> None:
    """A detector of one class, with NonMaxSuppression and Gather.

    Two Conv layers give boxes and scores for 256 places.
    """
    text = """detector_nms (float[1, 3, 128, 128] image) => (float[kept, 4] boxes, float[kept] scores) {
        c1 = Conv <kernel_shape = [4, 4], strides = [4, 4]> (image, w1, b1)
        r1 = Relu (c1)
        c2 = Conv <kernel_shape = [2, 2], strides = [2, 2]> (r1, w2, b2)
        r2 = Relu (c2)
        head = Conv <kernel_shape = [1, 1]> (r2, w3, b3)
        rows = Reshape (head, row_shape)
        raw_scores = Slice (rows, zero, one, one)
        raw_boxes = Slice (rows, one, five, one)
        probability = Sigmoid (raw_scores)
        by_place = Transpose <perm = [0, 2, 1]> (raw_boxes)
        bounded = Tanh (by_place)
        moved = Mul (bounded, reach)
        all_boxes = Add (moved, anchors)
        chosen = NonMaxSuppression (all_boxes, probability, most, overlap, least)
        place = Slice (chosen, two, three, one)
        index = Squeeze (place, one)
        flat_boxes = Squeeze (all_boxes, zero)
        boxes = Gather <axis = 0> (flat_boxes, index)
        flat_scores = Reshape (probability, minus_one)
        scores = Gather <axis = 0> (flat_scores, index)
    }"""
    side = np.arange(16) * 8 + 4
    y, x = (grid.ravel() for grid in np.meshgrid(side, side, indexing="ij"))
    anchors = np.stack([y - 9, x - 9, y + 9, x + 9], axis=1)[None].astype(np.float32)
    weights: dict[str, Array] = {
        "w1": _filters(16, 3, 4, 4), "b1": _normal(16, scale=0.1, seed=1),
        "w2": _filters(32, 16, 2, 2, seed=2), "b2": _normal(32, scale=0.1, seed=3),
        "w3": _normal(5, 32, 1, 1, scale=0.35, seed=4), "b3": _normal(5, scale=0.1, seed=5),
        "anchors": anchors, "reach": np.array(3, np.float32),
        "overlap": np.array([0.3], np.float32), "least": np.array([0.55], np.float32),
        "most": np.array([40], np.int64), "row_shape": np.array([1, 5, 256], np.int64),
        "minus_one": np.array([-1], np.int64),
    }  # fmt: skip
    numbers = {"zero": 0, "one": 1, "two": 2, "three": 3, "five": 5}
    _save(
        out,
        text,
        weights | {name: np.array([value], np.int64) for name, value in numbers.items()},
    )


def graph_network(out: Path) -> None:
    """Two rounds of messages over the edges of a graph.

    Gather by source, ScatterElements with add by target.
    """
    text = """graph_network (float[nodes, 16] x, int64[2, edges] edge_index, float[edges, 4] edge_attr)
        => (float[nodes, 8] y) {
        source = Gather <axis = 0> (edge_index, zero)
        target = Gather <axis = 0> (edge_index, one)
        column = Unsqueeze (target, last)
        h0 = Gemm (x, enter, enter_bias)
        from0 = Gather <axis = 0> (h0, source)
        edge0 = MatMul (edge_attr, edge_weight)
        sum0 = Add (from0, edge0)
        message0 = Relu (sum0)
        shape0 = Shape (message0)
        places = Expand (column, shape0)
        nodes_shape = Shape (h0)
        empty = ConstantOfShape (nodes_shape)
        received0 = ScatterElements <axis = 0, reduction = "add"> (empty, places, message0)
        joined0 = Add (h0, received0)
        mixed0 = MatMul (joined0, mix)
        h1 = Tanh (mixed0)
        from1 = Gather <axis = 0> (h1, source)
        sum1 = Add (from1, edge0)
        message1 = Relu (sum1)
        received1 = ScatterElements <axis = 0, reduction = "add"> (empty, places, message1)
        joined1 = Add (h1, received1)
        y = MatMul (joined1, leave)
    }"""
    weights: dict[str, Array] = {
        "enter": _normal(16, 24),
        "enter_bias": _normal(24, scale=0.1, seed=1),
        "edge_weight": _normal(4, 24, seed=2),
        "mix": _normal(24, 24, seed=3),
        "leave": _normal(24, 8, seed=4),
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "last": np.array([1], np.int64),
    }
    _save(out, text, weights, opset=16)


def diffusion_block(out: Path) -> None:
    """A residual block of a diffusion network.

    Sines of the timestep scale and shift what GroupNorm leaves.
    """
    text = """diffusion_block (float[batch, 4, 16, 16] sample, int64[batch] timestep)
        => (float[batch, 4, 16, 16] noise) {
        t = Cast <to = 1> (timestep)
        column = Unsqueeze (t, last)
        angles = Mul (column, frequencies)
        sines = Sin (angles)
        cosines = Cos (angles)
        waves = Concat <axis = 1> (sines, cosines)
        e1 = Gemm (waves, embed1, embed1_bias)
        gate1 = Sigmoid (e1)
        silu1 = Mul (e1, gate1)
        e2 = Gemm (silu1, embed2, embed2_bias)
        e4 = Unsqueeze (e2, spatial)
        scale, shift = Split <axis = 1> (e4)
        x = Conv <pads = [1, 1, 1, 1]> (sample, enter)
        grouped = Reshape (x, group_shape)
        centred = InstanceNormalization (grouped, group_gain, group_bias)
        shape = Shape (x)
        normed = Reshape (centred, shape)
        one_more = Add (scale, one)
        scaled = Mul (normed, one_more)
        shifted = Add (scaled, shift)
        gate = Sigmoid (shifted)
        silu = Mul (shifted, gate)
        inner = Conv <pads = [1, 1, 1, 1]> (silu, middle)
        sum = Add (x, inner)
        noise = Conv <pads = [1, 1, 1, 1]> (sum, leave)
    }"""
    frequencies = np.exp(-np.log(10000) * np.arange(16) / 16).astype(np.float32)
    weights: dict[str, Array] = {
        "frequencies": frequencies[None],
        "embed1": _normal(32, 64), "embed1_bias": _normal(64, scale=0.1, seed=1),
        "embed2": _normal(64, 64, scale=0.15, seed=2), "embed2_bias": _normal(64, scale=0.1, seed=3),
        "enter": _filters(32, 4, 3, 3, seed=4), "middle": _filters(32, 32, 3, 3, seed=5),
        "leave": _normal(4, 32, 3, 3, scale=0.05, seed=6),
        "group_shape": np.array([0, 8, -1], np.int64),
        "group_gain": np.ones(8, np.float32), "group_bias": np.zeros(8, np.float32),
        "one": np.array(1, np.float32), "last": np.array([1], np.int64), "spatial": np.array([2, 3], np.int64),
    }  # fmt: skip
    _save(out, text, weights)


def noise_vocoder(out: Path) -> None:
    """A vocoder: mel frames, upsampled by ConvTranspose, plus noise that the model draws.

    And its loudness, steady.
    """
    text = """noise_vocoder (float[batch, 20, frames] mel) => (float[batch, 1, samples] sound,
                                                               float[batch, 1, frames] loudness) {
        hidden = Conv <pads = [1, 1]> (mel, enter)
        rectified = LeakyRelu <alpha = 0.1> (hidden)
        loud = Conv (rectified, loud_weight)
        loudness = Softplus (loud)
        raised = ConvTranspose <strides = [8], kernel_shape = [16], pads = [4, 4]> (rectified, upsample)
        drawn = RandomNormalLike (raised)
        quiet = Mul (drawn, breath)
        noisy = Add (raised, quiet)
        active = LeakyRelu <alpha = 0.1> (noisy)
        wave = Conv <pads = [3, 3]> (active, leave)
        sound = Tanh (wave)
    }"""
    weights: dict[str, Array] = {
        "enter": _filters(32, 20, 3),
        "loud_weight": _normal(1, 32, 1, scale=0.2, seed=1),
        "upsample": _normal(32, 16, 16, scale=0.18, seed=2),
        "leave": _normal(1, 16, 7, scale=0.1, seed=3),
        "breath": np.array(0.1, np.float32),
    }
    _save(out, text, weights)


def legacy_opset7(out: Path) -> None:
    """A segmentation network of opset 7 and IR version 3.

    Weights are inputs, Upsample has its scales as attribute.
    """
    text = """legacy_opset7 (float[1, 3, 32, 32] image) => (float[1, 4, 32, 32] classes) {
        c1 = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (image, w1)
        n1 = BatchNormalization <epsilon = 0.001> (c1, gain, shift, mean, var)
        r1 = Relu (n1)
        pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r1)
        c2 = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (pooled, w2)
        r2 = PRelu (c2, slope)
        dropped = Dropout <ratio = 0.5> (r2)
        raised = Upsample <mode = "nearest", scales = [1.0, 1.0, 2.0, 2.0]> (dropped)
        joined = Concat <axis = 1> (raised, r1)
        c3 = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (joined, w3)
        classes = Softmax <axis = 1> (c3)
    }"""
    text = text.replace(
        "classes = Softmax <axis = 1> (c3)",
        """
        flat = Transpose <perm = [0, 2, 3, 1]> (c3)
        rows = Reshape (flat, row_shape)
        soft = Softmax <axis = 1> (rows)
        places = Reshape (soft, place_shape)
        classes = Transpose <perm = [0, 3, 1, 2]> (places)""",
    )
    weights: dict[str, Array] = {
        "w1": _filters(16, 3, 3, 3), "w2": _filters(24, 16, 3, 3, seed=1),
        "w3": _normal(4, 40, 3, 3, scale=0.08, seed=2), "slope": np.full((24, 1, 1), 0.2, np.float32),
        "gain": (1 + _normal(16, scale=0.1, seed=3)).astype(np.float32), "shift": _normal(16, scale=0.1, seed=4),
        "mean": _normal(16, scale=0.1, seed=5), "var": np.full(16, 1.8, np.float32),
        "row_shape": np.array([-1, 4], np.int64), "place_shape": np.array([1, 32, 32, 4], np.int64),
    }  # fmt: skip
    _save(out, text, weights, opset=7)
