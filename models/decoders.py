"""Builders of small decoders: a key-value cache that grows, one of a fixed size, grouped queries.

Seeded.
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

WIDTH, HEADS, KEY_HEADS, HEAD, VOCABULARY, POSITIONS = 64, 4, 2, 16, 200, 64


def _normal(*shape: int, scale: float | None = None, seed: int = 0) -> Array:
    """A normal weight; without ``scale``, its variance keeps that of what it's multiplied with."""
    factor = shape[0] ** -0.5 if scale is None else scale
    return (factor * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def _save(
    out: Path, text: str, weights: Mapping[str, Array], *, opsets: str, ir_version: int = 8
) -> None:
    model = onnx.parser.parse_model(
        f"<ir_version: {ir_version}, opset_import: [{opsets}]>\n{text}"
    )
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for node in model.graph.node:
        node.name = next(name for name in node.output if name)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, out)


def _attention_weights(key_heads: int) -> dict[str, Array]:
    return {
        "token": _normal(VOCABULARY, WIDTH, scale=1.0),
        "gain": (1 + _normal(WIDTH, scale=0.1, seed=1)).astype(np.float32),
        "query_weight": _normal(WIDTH, WIDTH, scale=0.2, seed=2),
        "key_weight": _normal(WIDTH, key_heads * HEAD, scale=0.2, seed=3),
        "value_weight": _normal(WIDTH, key_heads * HEAD, seed=4),
        "mix_weight": _normal(WIDTH, WIDTH, seed=5),
        "up_weight": _normal(WIDTH, 128, seed=6),
        "down_weight": _normal(128, WIDTH, seed=7),
        "head": _normal(WIDTH, VOCABULARY, seed=8),
        "root_head": np.array(HEAD**0.5, np.float32),
        "split": np.array([0, 0, HEADS, HEAD], np.int64),
        "merge": np.array([0, 0, WIDTH], np.int64),
    }


_EMBEDDED = """
    embedded = Gather (token, ids)
    bias0 = Sub (gain, gain)
    normed = LayerNormalization <axis = -1> (embedded, gain, bias0)
    q = MatMul (normed, query_weight)
    k = MatMul (normed, key_weight)
    v = MatMul (normed, value_weight)
"""

_FEED_FORWARD = """
    attended = MatMul (merged, mix_weight)
    x = Add (embedded, attended)
    normed2 = LayerNormalization <axis = -1> (x, gain, bias0)
    up = MatMul (normed2, up_weight)
    rectified = Relu (up)
    down = MatMul (rectified, down_weight)
    x2 = Add (x, down)
    normed3 = LayerNormalization <axis = -1> (x2, gain, bias0)
    logits = MatMul (normed3, head)
"""

_SPLIT = """
    q4 = Reshape (q, split)
    k4 = Reshape (k, split)
    v4 = Reshape (v, split)
    query = Transpose <perm = [0, 2, 1, 3]> (q4)
    key = Transpose <perm = [0, 2, 1, 3]> (k4)
    value = Transpose <perm = [0, 2, 1, 3]> (v4)
"""

_ATTENTION = """
    turned = Transpose <perm = [0, 1, 3, 2]> (present_key)
    product = MatMul (query, turned)
    scores = Div (product, root_head)
    masked = Where (visible, scores, hidden)
    attention = Softmax <axis = -1> (masked)
    mixed = MatMul (attention, present_value)
    mixed4 = Transpose <perm = [0, 2, 1, 3]> (mixed)
    merged = Reshape (mixed4, merge)
"""


def decoder_growing_cache(out: Path) -> None:
    """One block that appends its keys and values to those it is given.

    It has a causal mask over both.
    """
    text = f"""decoder (int64[batch, sequence] ids, float[batch, {HEADS}, past, {HEAD}] past_key,
                     float[batch, {HEADS}, past, {HEAD}] past_value)
        => (float[batch, sequence, {VOCABULARY}] logits, float[batch, {HEADS}, total, {HEAD}] present_key,
            float[batch, {HEADS}, total, {HEAD}] present_value) {{
        {_EMBEDDED} {_SPLIT}
        present_key = Concat <axis = 2> (past_key, key)
        present_value = Concat <axis = 2> (past_value, value)
        past_shape = Shape (past_key)
        past_length = Gather (past_shape, two)
        present_shape = Shape (present_key)
        total_length = Gather (present_shape, two)
        columns = Range (zero, total_length, one)
        rows = Range (past_length, total_length, one)
        rows2 = Unsqueeze (rows, one_axis)
        visible = LessOrEqual (columns, rows2)
        {_ATTENTION} {_FEED_FORWARD}
    }}"""
    weights = _attention_weights(HEADS) | {
        name: np.array(n, np.int64) for name, n in [("zero", 0), ("one", 1), ("two", 2)]
    }
    weights |= {"one_axis": np.array([1], np.int64), "hidden": np.array(-1e4, np.float32)}
    _save(out, text, weights, opsets='"" : 17')


def decoder_static_cache(out: Path) -> None:
    """One block that writes its keys and values at a position of a cache of 64.

    It sees what lies up to there.
    """
    text = f"""decoder (int64[1, 1] ids, int64[1] position, float[1, {HEADS}, {POSITIONS}, {HEAD}] cache_key,
                     float[1, {HEADS}, {POSITIONS}, {HEAD}] cache_value)
        => (float[1, 1, {VOCABULARY}] logits, float[1, {HEADS}, {POSITIONS}, {HEAD}] present_key,
            float[1, {HEADS}, {POSITIONS}, {HEAD}] present_value) {{
        {_EMBEDDED} {_SPLIT}
        place = Reshape (position, place_shape)
        places = Expand (place, row_shape)
        present_key = ScatterElements <axis = 2> (cache_key, places, key)
        present_value = ScatterElements <axis = 2> (cache_value, places, value)
        visible = LessOrEqual (columns, position)
        {_ATTENTION} {_FEED_FORWARD}
    }}"""
    weights = _attention_weights(HEADS) | {
        "place_shape": np.array([1, 1, 1, 1], np.int64),
        "row_shape": np.array([1, HEADS, 1, HEAD], np.int64),
        "columns": np.arange(POSITIONS, dtype=np.int64),
        "hidden": np.array(-1e4, np.float32),
    }
    _save(out, text, weights, opsets='"" : 17')


def decoder_grouped_queries(out: Path) -> None:
    """Opset 23: RMSNormalization, RotaryEmbedding, Attention and a cache.

    Attention has 4 heads of queries over 2 of keys.
    """
    text = f"""decoder (int64[batch, sequence] ids, int64[batch, sequence] position_ids,
                     float[batch, {KEY_HEADS}, past, {HEAD}] past_key,
                     float[batch, {KEY_HEADS}, past, {HEAD}] past_value)
        => (float[batch, sequence, {VOCABULARY}] logits, float[batch, {KEY_HEADS}, total, {HEAD}] present_key,
            float[batch, {KEY_HEADS}, total, {HEAD}] present_value) {{
        embedded = Gather (token, ids)
        normed = RMSNormalization <axis = -1> (embedded, gain)
        q = MatMul (normed, query_weight)
        k = MatMul (normed, key_weight)
        v = MatMul (normed, value_weight)
        query = RotaryEmbedding <num_heads = {HEADS}> (q, cosines, sines, position_ids)
        key = RotaryEmbedding <num_heads = {KEY_HEADS}> (k, cosines, sines, position_ids)
        merged, present_key, present_value = Attention
            <q_num_heads = {HEADS}, kv_num_heads = {KEY_HEADS}, is_causal = 1> (query, key, v, , past_key, past_value)
        attended = MatMul (merged, mix_weight)
        x = Add (embedded, attended)
        normed2 = RMSNormalization <axis = -1> (x, gain)
        up = MatMul (normed2, up_weight)
        gelu = Gelu (up)
        down = MatMul (gelu, down_weight)
        x2 = Add (x, down)
        normed3 = RMSNormalization <axis = -1> (x2, gain)
        logits = MatMul (normed3, head)
    }}"""
    weights = _attention_weights(KEY_HEADS)
    for unused in ("root_head", "split", "merge"):
        del weights[unused]
    _save(out, text, weights | _rotary(), opsets='"" : 23', ir_version=10)


def grouped_query_attention(out: Path) -> None:
    """ONNX Runtime's GroupQueryAttention.

    It has packed lengths, a cache of its own, rotary positions within the operator.
    """
    text = f"""decoder (int64[batch, sequence] ids, int32[batch] seqlens_k, int32 total_sequence_length,
                     float[batch, {KEY_HEADS}, past, {HEAD}] past_key,
                     float[batch, {KEY_HEADS}, past, {HEAD}] past_value)
        => (float[batch, sequence, {VOCABULARY}] logits, float[batch, {KEY_HEADS}, total, {HEAD}] present_key,
            float[batch, {KEY_HEADS}, total, {HEAD}] present_value) {{
        {_EMBEDDED}
        merged, present_key, present_value = com.microsoft.GroupQueryAttention
            <num_heads = {HEADS}, kv_num_heads = {KEY_HEADS}, do_rotary = 1>
            (q, k, v, past_key, past_value, seqlens_k, total_sequence_length, cosines, sines)
        {_FEED_FORWARD}
    }}"""
    weights = _attention_weights(KEY_HEADS)
    for unused in ("root_head", "split", "merge"):
        del weights[unused]
    _save(out, text, weights | _rotary(), opsets='"" : 17, "com.microsoft" : 1')


def _rotary() -> dict[str, Array]:
    """Cosines and sines of rotary positions (Su et al. 2021), each (positions, head / 2)."""
    angles = np.outer(np.arange(POSITIONS), 100.0 ** -(np.arange(HEAD // 2) / (HEAD // 2)))
    return {
        "cosines": np.cos(angles).astype(np.float32),
        "sines": np.sin(angles).astype(np.float32),
    }
