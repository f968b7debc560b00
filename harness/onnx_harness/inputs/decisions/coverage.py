"""What input sets reach of what a model decides by, counted without running it."""

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
    """How much is reached.

    Attributes:
        kinds: by kind, how many are reached, and how many there are.
        notes: what couldn't be followed back to an input.
    """

    kinds: dict[str, tuple[int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def low(self) -> str:
        """What is reached too little of, as a sentence; empty where nothing is."""
        short = [
            f"{reached:,} of {total:,} {kind}"
            for kind, (reached, total) in self.kinds.items()
            if reached < LOW * total
        ]
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
            found = [
                len(_held(sets, each.source, each.place) & set(each.keys)) for each in words.lookups
            ]
            kinds["keys"] = (sum(found), sum(len(each.keys) for each in words.lookups))
        if words.vocabularies:
            counts = [_spoken(sets, each) for each in words.vocabularies]
            kinds["words"] = (sum(counts), sum(len(each.ngrams) for each in words.vocabularies))
    return Coverage(kinds, tuple(notes))


def _held(sets: Sequence[InputSet], source: str, place: int) -> set[Any]:
    """The values that an input's column holds in some set."""
    found: set[Any] = set()
    for each in sets:
        array = each.values.get(source)
        if isinstance(array, np.ndarray) and array.ndim and array.shape[0] and array.size:
            found.update(array.reshape(array.shape[0], -1)[:, place].tolist())
    return found


def _spoken(sets: Sequence[InputSet], vocabulary: Vocabulary) -> int:
    """How many n-grams of a vocabulary stand in some row."""
    wanted = set(vocabulary.ngrams)
    sizes = {len(ngram) for ngram in wanted}
    found: set[Any] = set()
    for each in sets:
        array = each.values.get(vocabulary.source)
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
                    found.update(
                        tuple(words[at : at + size]) for at in range(len(words) - size + 1)
                    )
    return len(found & wanted)


def _taken_apart(text: Any, separator: str) -> list[str]:
    return str(text).split(separator) if separator else list(str(text))
