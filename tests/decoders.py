"""Small decoders with a cache of keys and values, whose next token hangs on all of the history."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tests.models import model

VOCABULARY, WIDTH, PLACES = 48, 16, 32


def static_cache() -> onnx.ModelProto:
    """One token at a time, written at a position of a cache of `PLACES`."""
    graph = f"""(int64[1,1] ids, int64[1] position, float[1,{PLACES},{WIDTH}] cache_key,
                 float[1,{PLACES},{WIDTH}] cache_value)
        => (float[1,1,{VOCABULARY}] logits, float[1,{PLACES},{WIDTH}] present_key,
            float[1,{PLACES},{WIDTH}] present_value) {{
        slot = Identity (position)
        embedded = Gather (token, ids)
        place = Gather (places, position)
        e = Add (embedded, place)
        q = MatMul (e, query)
        k = MatMul (e, key)
        v = MatMul (e, value)
        index = Reshape (slot, index_shape)
        indices = Expand (index, row_shape)
        present_key = ScatterElements <axis = 1> (cache_key, indices, k)
        present_value = ScatterElements <axis = 1> (cache_value, indices, v)
        turned = Transpose <perm = [0, 2, 1]> (present_key)
        scores = MatMul (q, turned)
        visible = LessOrEqual (columns, position)
        masked = Where (visible, scores, hidden)
        attention = Softmax <axis = -1> (masked)
        mixed = MatMul (attention, present_value)
        logits = MatMul (mixed, head)
    }}"""
    return _with_weights(
        model(graph),
        index_shape=np.array([1, 1, 1], np.int64),
        row_shape=np.array([1, 1, WIDTH], np.int64),
        columns=np.arange(PLACES, dtype=np.int64),
    )


def growing_cache(pattern: str = "past_key_values.0.{} present.0.{}") -> onnx.ModelProto:
    """Any number of tokens, appended to a cache; with a mask and positions.

    Args:
        pattern: the names of an input of the cache and of the output that is fed back to it, with
            braces for ``key`` and ``value``.
    """
    before, after = pattern.split()
    graph = f"""(int64[batch,sequence] input_ids, int64[batch,total] attention_mask,
                 int64[batch,sequence] position_ids, float[batch,past,{WIDTH}] past_key,
                 float[batch,past,{WIDTH}] past_value)
        => (float[batch,sequence,{VOCABULARY}] logits, float[batch,total,{WIDTH}] present_key,
            float[batch,total,{WIDTH}] present_value) {{
        embedded = Gather (token, input_ids)
        place = Gather (places, position_ids)
        e = Add (embedded, place)
        q = MatMul (e, query)
        k = MatMul (e, key)
        v = MatMul (e, value)
        present_key = Concat <axis = 1> (past_key, k)
        present_value = Concat <axis = 1> (past_value, v)
        turned = Transpose <perm = [0, 2, 1]> (present_key)
        scores = MatMul (q, turned)
        length = Shape <start = 1, end = 2> (present_key)
        scalar = Squeeze (length)
        columns = Range (zero, scalar, one)
        rows = Unsqueeze (position_ids, last)
        causal = LessOrEqual (columns, rows)
        there = Cast <to = 9> (attention_mask)
        all_there = Unsqueeze (there, middle)
        visible = And (causal, all_there)
        masked = Where (visible, scores, hidden)
        attention = Softmax <axis = -1> (masked)
        mixed = MatMul (attention, present_value)
        logits = MatMul (mixed, head)
    }}"""
    names = {}
    for what in ("key", "value"):
        names[f"past_{what}"] = before.format(what)
        names[f"present_{what}"] = after.format(what)
    return _with_weights(
        _renamed(model(graph), names),
        zero=np.array(0, np.int64),
        one=np.array(1, np.int64),
        last=np.array([2], np.int64),
        middle=np.array([1], np.int64),
    )


def without_cache() -> onnx.ModelProto:
    """The whole history each time: a running mean of embeddings, scored."""
    graph = f"""(int64[batch,sequence] tokens) => (float[batch,sequence,{VOCABULARY}] scores) {{
        embedded = Gather (token, tokens)
        summed = CumSum (embedded, one)
        bent = Tanh (summed)
        scores = MatMul (bent, head)
    }}"""
    return _with_weights(model(graph), one=np.array(1, np.int64))


def _renamed(decoder: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    """Rename values: ONNX's text takes no dots in a name."""
    for info in (*decoder.graph.input, *decoder.graph.output):
        info.name = names.get(info.name, info.name)
    for node in decoder.graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    return decoder


def _with_weights(decoder: onnx.ModelProto, **more: NDArray[np.generic]) -> onnx.ModelProto:
    generator = np.random.default_rng(3)

    def normal(*shape: int, scale: float = 1.0) -> NDArray[np.float32]:
        return (scale * generator.standard_normal(shape)).astype(np.float32)

    weights: dict[str, NDArray[np.generic]] = {
        "token": normal(VOCABULARY, WIDTH),
        "places": normal(PLACES, WIDTH),
        "query": normal(WIDTH, WIDTH, scale=0.2),
        "key": normal(WIDTH, WIDTH, scale=0.2),
        "value": normal(WIDTH, WIDTH, scale=0.5),
        "head": normal(WIDTH, VOCABULARY),
        "hidden": np.array(-1e4, np.float32),
    }
    named = {name for node in decoder.graph.node for name in node.input}
    for name, value in (weights | more).items():
        if name in named:
            decoder.graph.initializer.append(
                numpy_helper.from_array(np.asarray(value), name)
            )
    return decoder
