"""The strings of a case, replaced by words that say nothing.

A confidential model says in them what nobody else is to read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

from onnx_harness.diagnose.case_data import all_nodes, all_tensors
from onnx_harness.diagnose.moves import duplicate
from onnx_harness.diagnose.smaller_case import Array, Case

# Attributes that hold data, whatever the operator's documentation has for an example.
_DATA_ENDINGS = ("_string", "_strings", "vocabulary", "stopwords")


def strings_of(case: Case) -> list[str]:
    """Return the distinct strings that a case holds as data, the empty one left out.

    Words of an operator, such as a mode, aren't among them: its documentation has them.
    """
    words: dict[str, None] = {}
    for model in case.models:
        for field in _fields(model):
            words.update({_decoded(text): None for text in _texts(field)})
    for array in case.inputs.values():
        if _is_text(array):
            words.update({str(text): None for text in array.reshape(-1)})
    return [word for word in words if word]


def replaced_strings(
    case: Case,
    stay: Collection[str] = (),
) -> Case:
    """Return the case with ``s0``, ``s1`` and so on in the place of its strings.

    Equal ones stay equal; an empty one stays empty, and so do those in ``stay``.
    """
    words = {text: text for text in ("", *stay)}
    for text in strings_of(case):
        words.setdefault(text, f"s{len(words) - 1}")
    changed = duplicate(case)
    for model in changed.models:
        for field in _fields(model):
            texts = [_encoded(words[_decoded(text)]) for text in _texts(field)]
            if isinstance(field, TensorProto):
                field.string_data[:] = texts
            elif field.type == AttributeProto.STRING:
                field.s = texts[0]
            else:
                field.strings[:] = texts
    inputs = dict(changed.inputs)
    for name, array in inputs.items():
        if _is_text(array):
            replaced = [words[str(text)] for text in array.reshape(-1)]
            inputs[name] = np.array(replaced, dtype=object).reshape(array.shape)
    return Case(changed.model, inputs, changed.other)


def _is_text(array: Array) -> bool:
    return array.dtype.kind in "OUS"


def _texts(field: TensorProto | AttributeProto) -> list[bytes]:
    if isinstance(field, TensorProto):
        return list(field.string_data)
    return [field.s] if field.type == AttributeProto.STRING else list(field.strings)


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _fields(model: onnx.ModelProto) -> Iterator[TensorProto | AttributeProto]:
    """Yield the tensors and attributes that hold strings as data."""
    for _, _, tensor in all_tensors(model):
        if tensor.string_data:
            yield tensor
    for node in all_nodes(model):
        documentation = _documentation(node)
        for attribute in node.attribute:
            if attribute.type not in (AttributeProto.STRING, AttributeProto.STRINGS):
                continue
            if attribute.ref_attr_name:
                continue
            texts = [_decoded(text) for text in _texts(attribute)]
            is_data = attribute.name.endswith(_DATA_ENDINGS)
            if is_data or any(text not in documentation for text in texts):
                yield attribute


def _documentation(node: onnx.NodeProto) -> str:
    """Return all that onnx's schema of a node's operator says; empty without a schema."""
    try:
        schema = onnx.defs.get_schema(node.op_type, domain=node.domain)
    except onnx.defs.SchemaError:
        return ""
    descriptions = [attribute.description for attribute in schema.attributes.values()]
    return "\n".join([schema.doc or "", *descriptions])
