"""The strings of a case, replaced by words that say nothing.

A confidential model says in them what nobody else is to read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

from onnx_harness.diagnose.moves import duplicate
from onnx_harness.diagnose.smaller_case import Array, Case
from onnx_harness.model.walk import graphs

# Attributes that hold data; any other string is a word of its operator, such as a mode.
_DATA_ENDINGS = ("_string", "_strings", "vocabulary", "stopwords")


def has_strings(case: Case) -> bool:
    """Tell if a case holds strings as data."""
    if any(_is_text(array) for array in case.inputs.values()):
        return True
    return any(True for model in case.models for _ in _fields(model))


def replaced_strings(case: Case) -> Case:
    """Return the case with ``s0``, ``s1`` and so on in the place of its strings.

    Equal ones stay equal; an empty one stays empty.
    """
    words: dict[bytes, bytes] = {b"": b""}

    def word(text: bytes) -> bytes:
        return words.setdefault(text, f"s{len(words) - 1}".encode())

    changed = duplicate(case)
    for model in changed.models:
        for field in _fields(model):
            if isinstance(field, TensorProto):
                texts = [word(text) for text in field.string_data]
                del field.string_data[:]
                field.string_data.extend(texts)
            elif field.type == AttributeProto.STRING:
                field.s = word(field.s)
            else:
                texts = [word(text) for text in field.strings]
                del field.strings[:]
                field.strings.extend(texts)
    inputs = dict(changed.inputs)
    for name, array in inputs.items():
        if _is_text(array):
            replaced = [word(str(text).encode()).decode() for text in array.reshape(-1)]
            inputs[name] = np.array(replaced, dtype=object).reshape(array.shape)
    return Case(changed.model, inputs, changed.other)


def _is_text(array: Array) -> bool:
    return array.dtype.kind in "OUS"


def _fields(model: onnx.ModelProto) -> Iterator[TensorProto | AttributeProto]:
    """Yield the tensors and attributes that hold strings as data."""
    for graph in graphs(model.graph):
        yield from (tensor for tensor in graph.initializer if tensor.string_data)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.t.string_data:
                    yield attribute.t
                texts = attribute.type in (AttributeProto.STRING, AttributeProto.STRINGS)
                if texts and attribute.name.endswith(_DATA_ENDINGS):
                    yield attribute
