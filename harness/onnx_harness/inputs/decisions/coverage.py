"""Count, without running a model, what input sets reach of what it decides by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from onnx_harness.inputs.decisions.trees import forest_of, visited
from onnx_harness.inputs.decisions.vocabulary import Vocabulary, words_of
from onnx_harness.inputs.plan.recipe import Recipe
from onnx_harness.inputs.values.sets import InputSet

LOW = 0.9
"""Below it, coverage is told of."""


@dataclass(frozen=True)
class Coverage:
    """The share that is reached.

    Attributes:
        kinds: by kind, how many are reached, and how many there are.
        notes: what couldn't be followed back to an input.
    """

    kinds: dict[str, tuple[int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def low(self) -> str:
        """Return what is reached too little of, as a sentence; empty where nothing is."""
        short = []
        for kind, (reached, total) in self.kinds.items():
            if reached < LOW * total:
                short.append(f"{reached:,} of {total:,} {kind}")
        return f"the inputs reach {', '.join(short)}" if short else ""


def coverage(model: onnx.ModelProto, recipe: Recipe, sets: Sequence[InputSet]) -> Coverage:
    """Count what ``sets`` reach of a model's trees, tables and vocabularies.

    Args:
        model: large initializers may have lost their data.
        recipe: of the model.
        sets: that it is judged on.
    """
    kinds: dict[str, tuple[int, int]] = {}
    notes: list[str] = []
    forest = forest_of(model, recipe)
    if forest is not None:
        notes += forest.notes
        if forest.slots:
            kinds |= visited(forest, sets)
    words = words_of(model, recipe)
    if words is not None:
        notes += words.notes
        if words.lookups:
            reached = []
            for lookup in words.lookups:
                values = _held(sets, lookup.source, lookup.place)
                reached.append(len(values & set(map(_comparable, lookup.keys))))
            kinds["keys"] = (sum(reached), sum(len(lookup.keys) for lookup in words.lookups))
        if words.vocabularies:
            counts = [_spoken(sets, vocabulary) for vocabulary in words.vocabularies]
            kinds["words"] = (
                sum(counts),
                sum(len(vocabulary.ngrams) for vocabulary in words.vocabularies),
            )
    return Coverage(kinds, tuple(notes))


def _held(sets: Sequence[InputSet], source: str, place: int) -> set[Any]:
    """The values that an input's column holds in some set."""
    values: set[Any] = set()
    for input_set in sets:
        array = input_set.values.get(source)
        if isinstance(array, np.ndarray) and array.ndim and array.shape[0] and array.size:
            column = array.reshape(array.shape[0], -1)[:, place].tolist()
            values.update(map(_comparable, column))
    return values


def _comparable(value: Any) -> Any:
    """Return a value that equals itself: NaN, which an Imputer replaces, doesn't."""
    return value if value == value else None


def _spoken(sets: Sequence[InputSet], vocabulary: Vocabulary) -> int:
    """Return how many n-grams of a vocabulary stand in some row."""
    vocabulary_ngrams = set(vocabulary.ngrams)
    sizes = {len(ngram) for ngram in vocabulary_ngrams}
    windows_seen: set[Any] = set()
    for input_set in sets:
        array = input_set.values.get(vocabulary.source)
        if isinstance(array, np.ndarray) and array.size:
            rows = (
                array.reshape(-1, 1)
                if vocabulary.separator is not None
                else array.reshape(-1, array.shape[-1])
            )
            for row in rows.tolist():
                words = (
                    _taken_apart(row[0], vocabulary.separator)
                    if vocabulary.separator is not None
                    else row
                )
                for size in sizes:
                    windows = []
                    for at in range(len(words) - size + 1):
                        windows.append(tuple(words[at : at + size]))
                    windows_seen.update(windows)
    return len(windows_seen & vocabulary_ngrams)


def _taken_apart(text: Any, separator: str) -> list[str]:
    return str(text).split(separator) if separator else list(str(text))
