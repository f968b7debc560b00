"""Small models that look words and categories up, and mistakes in what they look up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ML = "ai.onnx.ml"
_WORDS = (
    "amber",
    "beryl",
    "coral",
    "dusk",
    "ember",
    "flint",
    "garnet",
    "hazel",
    "indigo",
    "jade",
    "kelp",
    "lilac",
    "mauve",
    "nickel",
    "ochre",
    "pearl",
    "quartz",
    "russet",
    "sable",
    "teal",
    "umber",
    "violet",
    "wheat",
    "zinc",
)
_NUMBERS = (3, 7, 8, 12, 19, 40, 41, 56, 77, 80, 93, 120)

Table = list[Any]


@dataclass(frozen=True, slots=True)
class Lookup:
    """A model that looks something up.

    Attributes:
        name: of the model.
        tables: what is looked up and what it counts for, by name. In each, two entries may be
            swapped; those of floats may be scaled too.
        build: the model of such tables.
    """

    name: str
    tables: Mapping[str, Table]
    build: Callable[[Mapping[str, Table]], onnx.ModelProto] = field(compare=False)


def mistakes(model: Lookup) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield each mistake, in words, and the model with it.

    Neighbours swapped, one number 1% larger or times -3.
    """
    for name, table in model.tables.items():
        for at in range(len(table) - 1):
            swapped = list(table)
            swapped[at], swapped[at + 1] = table[at + 1], table[at]
            what = f"{name}: {table[at]} and {table[at + 1]} swapped"
            yield what, _rebuilt(model, name, swapped)
        if not isinstance(table[0], float):
            continue
        for at, value in enumerate(table):
            for factor in (1.01, -3.0):
                scaled = list(table)
                scaled[at] = float(np.float32(value * factor))
                yield f"{name}: entry {at} times {factor:g}", _rebuilt(model, name, scaled)


def lookups(*, quick: bool = False) -> list[Lookup]:
    """Return the models; a quick look is at small vocabularies."""
    words, numbers = _WORDS[: 5 if quick else None], _NUMBERS[: 5 if quick else None]
    return [*_encodings(words, numbers), *_bags(words, numbers)]


def _encodings(words: Sequence[str], numbers: Sequence[int]) -> list[Lookup]:
    """Return the models that look up one word, or one number, at a time."""
    return [
        Lookup(
            "one_hot_words",
            {"cats": [*words], "weights": _weights(len(words))},
            _one_hot(TensorProto.STRING),
        ),
        Lookup(
            "one_hot_numbers",
            {"cats": [*numbers], "weights": _weights(len(numbers))},
            _one_hot(TensorProto.INT64),
        ),
        Lookup(
            "one_hot_two_columns",
            {"left": [*words], "right": [*reversed(words)]},
            _two_columns,
        ),
        Lookup(
            "label_to_float",
            {"keys": [*words], "values": _weights(len(words))},
            _label_to_float,
        ),
        Lookup(
            "number_to_float",
            {"keys": [*numbers], "values": _weights(len(numbers))},
            _number_to_float,
        ),
        Lookup("label_to_number", {"keys": [*words]}, _label_to_number),
        Lookup(
            "label_to_embedding",
            {"keys": [*words], "rows": _weights(len(words))},
            _label_to_embedding,
        ),
        Lookup(
            "category_mapper",
            {"words": [*words], "weights": _weights(len(words))},
            _category_mapper,
        ),
    ]


def _bags(words: Sequence[str], numbers: Sequence[int]) -> list[Lookup]:
    """Return the models that count or weigh the words of a text."""
    return [
        Lookup(
            "word_counts",
            {"pool": [*words], "weights": _weights(len(words))},
            _counts(TensorProto.STRING),
        ),
        Lookup(
            "token_counts",
            {"pool": [*numbers], "weights": _weights(len(numbers))},
            _counts(TensorProto.INT64),
        ),
        Lookup(
            "weighted_words",
            {"pool": [*words], "idf": _positive(len(words))},
            _weighted_words,
        ),
        Lookup("word_pairs", {"weights": _weights(len(words) - 1)}, _pairs(words)),
        Lookup(
            "classified_words",
            {"pool": [*words], "weights": _weights(len(words))},
            _classified_words,
        ),
    ]


def _weights(count: int) -> list[float]:
    weights: list[float] = []
    for value in np.random.default_rng(11).normal(size=count).astype(np.float32):
        weights.append(float(value))
    return weights


def _positive(count: int) -> list[float]:
    return [float(np.float32(1 + abs(value))) for value in _weights(count)]


def _rebuilt(model: Lookup, name: str, table: Table) -> onnx.ModelProto:
    return model.build({**model.tables, name: table})


def _column(values: Sequence[float], name: str = "w") -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.float32).reshape(-1, 1), name)


def _one_hot(kind: int) -> Callable[[Mapping[str, Table]], onnx.ModelProto]:
    name = "cats_strings" if kind == TensorProto.STRING else "cats_int64s"

    def build(tables: Mapping[str, Table]) -> onnx.ModelProto:
        categories: dict[str, Any] = {name: tables["cats"]}
        encoder = helper.make_node("OneHotEncoder", ["x"], ["hot"], domain=ML, **categories)
        score = helper.make_node("MatMul", ["hot", "w"], ["y"])
        return _model(
            [encoder, score], {"x": (kind, ["n"])}, ["n", 1], _column(tables["weights"])
        )

    return build


def _two_columns(tables: Mapping[str, Table]) -> onnx.ModelProto:
    nodes, width = [], 0
    for side in ("left", "right"):
        nodes.append(
            helper.make_node(
                "OneHotEncoder",
                [side],
                [f"hot_{side}"],
                domain=ML,
                cats_strings=tables[side],
            )
        )
        width += len(tables[side])
    nodes.append(helper.make_node("Concat", ["hot_left", "hot_right"], ["hot"], axis=1))
    nodes.append(helper.make_node("MatMul", ["hot", "w"], ["y"]))
    inputs = {side: (TensorProto.STRING, ["n"]) for side in ("left", "right")}
    return _model(nodes, inputs, ["n", 1], _column(_weights(width)))


def _label_to_float(tables: Mapping[str, Table]) -> onnx.ModelProto:
    node = helper.make_node(
        "LabelEncoder",
        ["x"],
        ["y"],
        domain=ML,
        keys_strings=tables["keys"],
        values_floats=tables["values"],
    )
    return _model([node], {"x": (TensorProto.STRING, ["n", 1])}, ["n", 1])


def _number_to_float(tables: Mapping[str, Table]) -> onnx.ModelProto:
    node = helper.make_node(
        "LabelEncoder",
        ["x"],
        ["y"],
        domain=ML,
        keys_int64s=tables["keys"],
        values_floats=tables["values"],
    )
    return _model([node], {"x": (TensorProto.INT64, ["n", 1])}, ["n", 1])


def _label_to_number(tables: Mapping[str, Table]) -> onnx.ModelProto:
    keys = tables["keys"]
    encoder = helper.make_node(
        "LabelEncoder",
        ["x"],
        ["k"],
        domain=ML,
        keys_strings=keys,
        values_int64s=[5 * at for at in range(len(keys))],
    )
    cast = helper.make_node("Cast", ["k"], ["y"], to=TensorProto.FLOAT)
    return _model([encoder, cast], {"x": (TensorProto.STRING, ["n", 1])}, ["n", 1])


def _label_to_embedding(tables: Mapping[str, Table]) -> onnx.ModelProto:
    keys = tables["keys"]
    encoder = helper.make_node(
        "LabelEncoder",
        ["x"],
        ["k"],
        domain=ML,
        keys_strings=keys,
        values_int64s=list(range(len(keys))),
        default_int64=0,
    )
    gather = helper.make_node("Gather", ["w", "k"], ["y"])
    return _model(
        [encoder, gather],
        {"x": (TensorProto.STRING, ["n"])},
        ["n", 1],
        _column(tables["rows"]),
    )


def _category_mapper(tables: Mapping[str, Table]) -> onnx.ModelProto:
    words = tables["words"]
    mapper = helper.make_node(
        "CategoryMapper",
        ["x"],
        ["k"],
        domain=ML,
        cats_strings=words,
        cats_int64s=list(range(len(words))),
        default_int64=0,
    )
    gather = helper.make_node("Gather", ["w", "k"], ["y"])
    return _model(
        [mapper, gather],
        {"x": (TensorProto.STRING, ["n"])},
        ["n", 1],
        _column(tables["weights"]),
    )


def _vectorizer(kind: int, pool: Table, weights: Table | None = None) -> onnx.NodeProto:
    name = "pool_strings" if kind == TensorProto.STRING else "pool_int64s"
    more: dict[str, Any] = (
        {name: pool} if weights is None else {name: pool, "weights": weights}
    )
    return helper.make_node(
        "TfIdfVectorizer",
        ["x"],
        ["counts"],
        mode="TF" if weights is None else "TFIDF",
        min_gram_length=1,
        max_gram_length=1,
        max_skip_count=0,
        ngram_counts=[0],
        ngram_indexes=list(range(len(pool))),
        **more,
    )


def _counts(kind: int) -> Callable[[Mapping[str, Table]], onnx.ModelProto]:
    def build(tables: Mapping[str, Table]) -> onnx.ModelProto:
        nodes = [
            _vectorizer(kind, tables["pool"]),
            helper.make_node("MatMul", ["counts", "w"], ["y"]),
        ]
        return _model(nodes, {"x": (kind, ["n", 8])}, ["n", 1], _column(tables["weights"]))

    return build


def _weighted_words(tables: Mapping[str, Table]) -> onnx.ModelProto:
    nodes = [
        _vectorizer(TensorProto.STRING, tables["pool"], tables["idf"]),
        helper.make_node("Normalizer", ["counts"], ["unit"], domain=ML, norm="L2"),
        helper.make_node("MatMul", ["unit", "w"], ["y"]),
    ]
    weights = _column(_weights(len(tables["pool"])))
    return _model(nodes, {"x": (TensorProto.STRING, ["n", 8])}, ["n", 1], weights)


def _pairs(words: Sequence[str]) -> Callable[[Mapping[str, Table]], onnx.ModelProto]:
    pairs = []
    for pair in pairwise(words):
        for word in pair:
            pairs.append(word)

    def build(tables: Mapping[str, Table]) -> onnx.ModelProto:
        vectorizer = helper.make_node(
            "TfIdfVectorizer",
            ["x"],
            ["counts"],
            mode="TF",
            min_gram_length=2,
            max_gram_length=2,
            max_skip_count=0,
            ngram_counts=[0, 0],
            ngram_indexes=list(range(len(words) - 1)),
            pool_strings=pairs,
        )
        nodes = [vectorizer, helper.make_node("MatMul", ["counts", "w"], ["y"])]
        return _model(
            nodes,
            {"x": (TensorProto.STRING, ["n", 8])},
            ["n", 1],
            _column(tables["weights"]),
        )

    return build


def _classified_words(tables: Mapping[str, Table]) -> onnx.ModelProto:
    """A classifier of lower-cased words, of two classes."""
    weights = tables["weights"]
    nodes = [
        # Of locales, "C" alone is on every machine.
        helper.make_node(
            "StringNormalizer",
            ["x"],
            ["lower"],
            case_change_action="LOWER",
            is_case_sensitive=1,
            locale="C",
        ),
        _vectorizer(TensorProto.STRING, tables["pool"]),
        helper.make_node(
            "LinearClassifier",
            ["counts"],
            ["label", "y"],
            domain=ML,
            classlabels_ints=[0, 1],
            post_transform="SOFTMAX",
            coefficients=[*weights, *(-weight for weight in weights)],
            intercepts=[0.1, -0.1],
        ),
    ]
    nodes[1].input[0] = "lower"
    return _model(nodes, {"x": (TensorProto.STRING, [8])}, [1, 2])


def _model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, list[Any]]],
    shape: list[int | str],
    *weights: onnx.TensorProto,
) -> onnx.ModelProto:
    declared = []
    for name, (kind, dims) in inputs.items():
        declared.append(helper.make_tensor_value_info(name, kind, dims))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "lookup", declared, [y], weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)
