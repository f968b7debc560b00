"""Read the tables that nodes look texts and numbers up in: keys, categories, vocabularies."""

from __future__ import annotations

from typing import Any

import onnx

from onnx_harness.inputs.graph.attributes import attribute
from onnx_harness.model.ops import is_standard

ML = "ai.onnx.ml"


def keys_of(node: onnx.NodeProto) -> tuple[Any, ...]:
    """The keys or categories that a node looks its input up among: texts or numbers.

    Empty where it does no such.
    """
    names = {
        "OneHotEncoder": ("cats_strings", "cats_int64s"),
        "CategoryMapper": ("cats_strings", "cats_int64s"),
        "LabelEncoder": (
            "keys_strings",
            "keys_int64s",
            "keys_floats",
            "keys_tensor",
            "classes_strings",
        ),
    }
    for name in names.get(node.op_type, ()) if node.domain == ML else ():
        if keys := _listed(attribute(node, name, ())):
            return keys
    return ()


def replaced_of(node: onnx.NodeProto) -> tuple[Any, ...]:
    """Return the number that an Imputer replaces, which is often no number.

    Empty for other nodes.
    """
    if node.op_type != "Imputer" or node.domain != ML:
        return ()
    whole = len(_listed(attribute(node, "imputed_value_int64s", ()))) > 0
    return (
        attribute(node, "replaced_value_int64", 0)
        if whole
        else attribute(node, "replaced_value_float", 0.0),
    )


def values_of(node: onnx.NodeProto) -> tuple[Any, ...]:
    """Return what the keys of :func:`keys_of` are mapped to, in their order."""
    if node.op_type == "CategoryMapper":
        return _listed(attribute(node, "cats_int64s", ()))
    names = ("values_int64s", "values_floats", "values_tensor", "values_strings")
    values_listed = next(
        (values for name in names if (values := _listed(attribute(node, name, ())))), ()
    )
    return values_listed or tuple(range(len(keys_of(node))))


def default_of(node: onnx.NodeProto) -> float:
    """Return what an unknown key is mapped to, where that is a number."""
    if len(_listed(attribute(node, "values_floats", ()))):
        return float(attribute(node, "default_float", 0.0))
    tensor = _listed(attribute(node, "default_tensor", ()))
    return (
        float(tensor[0])
        if tensor and not isinstance(tensor[0], str)
        else attribute(node, "default_int64", -1)
    )


def is_open(node: onnx.NodeProto) -> bool:
    """Return whether a node takes what isn't among its keys."""
    return node.op_type != "OneHotEncoder" or bool(attribute(node, "zeros", 1))


def ngrams_of(node: onnx.NodeProto) -> list[tuple[Any, ...]]:
    """The n-grams of a TfIdfVectorizer's vocabulary, texts or integers; empty for other nodes."""
    if not is_standard(node, "TfIdfVectorizer"):
        return []
    pool = _listed(attribute(node, "pool_strings", ())) or _listed(
        attribute(node, "pool_int64s", ())
    )
    starts = [int(start) for start in attribute(node, "ngram_counts", (0,))]
    ngrams: list[tuple[Any, ...]] = []
    for number, (start, end) in enumerate(
        zip(starts, [*starts[1:], len(pool)], strict=True)
    ):
        size = number + 1
        ngrams += [tuple(pool[at : at + size]) for at in range(start, end - size + 1, size)]
    return ngrams


def _listed(values: Any) -> tuple[Any, ...]:
    if isinstance(values, onnx.TensorProto):
        try:
            values = onnx.numpy_helper.to_array(values).reshape(-1).tolist()
        except Exception:  # its data was stripped
            return ()
    return tuple(
        value.decode(errors="replace") if isinstance(value, bytes) else value
        for value in values
    )
