"""Make input sets of what a model looks its inputs up among.

They have each key, category and n-gram, and others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_harness.inputs.decisions.batch import INDEX, Attempt, Batch
from onnx_harness.inputs.decisions.columns import NotTraced
from onnx_harness.inputs.decisions.lookups import Lookup, lookups_of
from onnx_harness.inputs.decisions.space import UNKNOWN_TEXT
from onnx_harness.inputs.graph.attributes import attribute, label
from onnx_harness.inputs.graph.scopes import Scope, view
from onnx_harness.inputs.graph.signature import Container
from onnx_harness.inputs.graph.tables import keys_of, ngrams_of, replaced_of
from onnx_harness.inputs.plan.recipe import Guess, Recipe
from onnx_harness.inputs.values.generators import seeded
from onnx_harness.inputs.values.sets import InputSet, Value

_MOST_CELLS = 1 << 22  # of what a vocabulary becomes: rows times n-grams
_LEAST_ROWS = 64
_MOST_ROWS_ALONE = 64  # sets of one row
_FORWARDING = frozenset(
    {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "StringNormalizer"}
)


@dataclass(frozen=True)
class Vocabulary:
    """An input that holds words of a vocabulary.

    Attributes:
        source: the input.
        ngrams: of the vocabulary.
        separator: what stands between two words of a text that is taken apart; None where each
            element is a word.
    """

    source: str
    ngrams: tuple[tuple[Any, ...], ...]
    separator: str | None


@dataclass(frozen=True)
class Words:
    """All that a model looks up.

    Attributes:
        lookups: of keys, column by column.
        vocabularies: of n-grams.
        notes: why others can't be followed back to an input, a sentence each.
    """

    lookups: tuple[Lookup, ...]
    vocabularies: tuple[Vocabulary, ...]
    notes: tuple[str, ...]


def words_of(model: onnx.ModelProto, recipe: Recipe) -> Words | None:
    """Return what a model looks its inputs up among; None where it does no such.

    Args:
        model: large initializers may have lost their data.
        recipe: of the model.
    """
    tables = []
    for node in model.graph.node:
        if keys_of(node) or replaced_of(node):
            tables.append(node)
    vectorizers = [node for node in model.graph.node if ngrams_of(node)]
    if not tables and not vectorizers:
        return None
    scope = view(model).main
    lookups, notes = lookups_of(scope, tables, recipe.inputs, recipe.specs)
    vocabularies = []
    for node in vectorizers:
        try:
            vocabularies.append(_vocabulary(scope, recipe, node))
        except NotTraced as reason:
            notes.append(f"the vocabulary of {label(node)} isn't fed word by word: {reason}")
    return Words(lookups, tuple(vocabularies), tuple(notes))


def word_sets(
    model: onnx.ModelProto, recipe: Recipe, seed: int, base: Guess, attempt: Attempt
) -> tuple[list[InputSet], list[InputSet]]:
    """The sets that hold each key and n-gram.

    Usual ones, and those of fractions, where a last bit decides.

    Args:
        model: large initializers may have lost their data.
        recipe: of the model.
        seed: of the run.
        base: what the first set ran with.
        attempt: runs the reference: its outputs by name, or None where it doesn't run.
    """
    words = words_of(model, recipe)
    usual: list[InputSet] = []
    poised: list[InputSet] = []
    if words is None:
        return usual, poised
    if words.lookups:
        fractions = any(_is_fraction(key) for lookup in words.lookups for key in lookup.keys)
        feeds = list(_lookup_feeds(model, recipe, words.lookups, seed, base, attempt))
        named = "every key"
        if fractions:
            sets = []
            for values in feeds:
                sets.append(
                    InputSet(f"unusual: {named} (seed {seed})", values, named, poised=True)
                )
            poised += sets
        else:
            usual += [InputSet(f"{named} (seed {seed})", values) for values in feeds]
    for vocabulary in words.vocabularies:
        feeds = list(_vocabulary_feeds(model, recipe, vocabulary, seed, base, attempt))
        input_sets = []
        for values in feeds:
            input_sets.append(
                InputSet(f"every word of '{vocabulary.source}' (seed {seed})", values)
            )
        usual += input_sets
    return usual, poised


def _lookup_feeds(
    model: onnx.ModelProto,
    recipe: Recipe,
    lookups: Sequence[Lookup],
    seed: int,
    base: Guess,
    attempt: Attempt,
) -> Iterator[dict[str, Value]]:
    batch = Batch(model, recipe, base, sorted({lookup.source for lookup in lookups}))
    for others in (True, False):
        listed = [_with_others(lookup) if others else lookup.keys for lookup in lookups]
        # Lists of unlike length, each begun elsewhere: two columns don't go in step.
        count = max(map(len, listed)) + 1
        entries = []
        for at, keys in enumerate(listed):
            entries.append((np.arange(count) * _stride(len(keys)) + at) % len(keys))
        rows = np.stack(
            entries,
            1,
        )
        feeds = []
        for part in batch.parts(rows):

            def fill(
                values: dict[str, Value], part: Any = part, listed: Any = listed
            ) -> None:
                for at, lookup in enumerate(lookups):
                    array = values[lookup.source]
                    assert isinstance(array, np.ndarray)
                    entries = []
                    for number in part[:, at]:
                        entries.append(listed[at][number])
                    array.reshape(len(part), -1)[:, lookup.place] = entries

            values = batch.values(seed, len(part), fill)
            if attempt(values) is not None:
                feeds.append(values)
        if feeds:
            yield from feeds
            return


def _is_fraction(key: Any) -> bool:
    return isinstance(key, float) and math.isfinite(key) and not key.is_integer()


def _stride(count: int) -> int:
    """A step through ``count`` things that comes by all of them."""
    return next(step for step in (7, 5, 3, 2, 1) if np.gcd(step, count) == 1)


def _with_others(lookup: Lookup) -> tuple[Any, ...]:
    """The keys, and one that isn't among them where such are taken."""
    if not lookup.is_open:
        return lookup.keys
    if isinstance(lookup.keys[0], str):
        return (*lookup.keys, UNKNOWN_TEXT)
    greatest = max(lookup.keys)
    return (*lookup.keys, greatest + 1 if np.isfinite(greatest) else 0)


def _vocabulary(scope: Scope, recipe: Recipe, node: onnx.NodeProto) -> Vocabulary:
    """Follow a vectorizer's input back.

    Raises:
        NotTraced: something on the way isn't known here.
    """
    name, separator = node.input[0], None
    while name not in recipe.inputs:
        before = scope.producers.get(name)
        if before is None or before.op_type not in (*_FORWARDING, "Tokenizer"):
            raise NotTraced(
                f"{label(before)} can't be inverted"
                if before is not None
                else f"'{name}' isn't an input"
            )
        if before.op_type == "Tokenizer":
            separator = _separator(before)
        name = before.input[0]
    entry, spec = recipe.inputs[name], recipe.specs.get(name)
    if spec is not None and spec.values:
        raise NotTraced(f"the card fixes the values of '{name}'")
    if entry.container is not Container.TENSOR or not entry.dims or len(entry.dims) > 2:
        raise NotTraced(f"the shape of input '{name}' isn't that of rows")
    return Vocabulary(name, tuple(ngrams_of(node)), separator)


def _separator(node: onnx.NodeProto) -> str:
    separators = []
    for text in attribute(node, "separators", ()):
        separators.append(text.decode(errors="replace") if isinstance(text, bytes) else text)
    expression = attribute(node, "tokenexp", b"")
    if separators:
        return separators[0]
    return "" if expression in (b".", ".") else " "


def _vocabulary_feeds(
    model: onnx.ModelProto,
    recipe: Recipe,
    vocabulary: Vocabulary,
    seed: int,
    base: Guess,
    attempt: Attempt,
) -> Iterator[dict[str, Value]]:
    entry = recipe.inputs[vocabulary.source]
    assert entry.dims is not None
    ngrams = list(vocabulary.ngrams)
    order = seeded(seed, INDEX, vocabulary.source).permutation(len(ngrams))
    elementwise = vocabulary.separator is None
    if elementwise and len(entry.dims) == 1:
        yield from _single_rows(
            model, recipe, vocabulary, [ngrams[at] for at in order], seed, base, attempt
        )
        return
    rows = min(len(ngrams), max(_LEAST_ROWS, _MOST_CELLS // len(ngrams)))
    words = [
        _joined(ngrams, [*part, *also])
        for part, also in zip(*_mixed(order, rows), strict=True)
    ]
    words.append([])
    batch = Batch(model, recipe, base, [vocabulary.source])
    width = entry.dims[-1] if len(entry.dims) > 1 else 1
    further = {}
    if elementwise and isinstance(width, str):
        further = {width: max(map(len, words))}
    for part in batch.parts(np.arange(len(words))):

        def fill(values: dict[str, Value], part: Any = part) -> None:
            array = values[vocabulary.source]
            assert isinstance(array, np.ndarray)
            table = array.reshape(len(part), -1)
            for row, at in enumerate(part):
                table[row] = _laid_out(
                    words[at], table.shape[1], vocabulary.separator, array.dtype
                )

        values = batch.values(seed, len(part), fill, further)
        if attempt(values) is not None:
            yield values


def _mixed(
    order: NDArray[np.int64], rows: int
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """N-grams for each row, and two more that stand with them.

    Where rows are normalized, one alone has no weight.
    """
    parts = np.array_split(order, rows)
    others = []
    for shift in (len(order) // 2 or 1, len(order) // 3 + 1):
        others.append(np.roll(order, -shift)[:rows])
    return parts, [np.asarray(pair) for pair in zip(*others, strict=True)]


def _joined(ngrams: Sequence[tuple[Any, ...]], places: Sequence[int]) -> list[Any]:
    words: list[Any] = []
    for at in places:
        for word in ngrams[at]:
            words.append(word)
    return words


def _single_rows(
    model: onnx.ModelProto,
    recipe: Recipe,
    vocabulary: Vocabulary,
    ngrams: Sequence[tuple[Any, ...]],
    seed: int,
    base: Guess,
    attempt: Attempt,
) -> Iterator[dict[str, Value]]:
    """An input that is one row of words.

    Of any two n-grams, one stands in some set without the other.

    Two that only stand together may be swapped unseen: what is counted of them is the same.
    """
    batch = Batch(model, recipe, base, [vocabulary.source])
    for words in islice(_apart(ngrams, batch.fixed), _MOST_ROWS_ALONE):

        def fill(values: dict[str, Value], words: Any = words) -> None:
            array = values[vocabulary.source]
            assert isinstance(array, np.ndarray)
            array[:] = _laid_out(words, array.shape[0], None, array.dtype)

        values = batch.values(seed, batch.fixed or len(words), fill)
        if attempt(values) is not None:
            yield values


def _apart(ngrams: Sequence[tuple[Any, ...]], size: int | None) -> Iterator[list[Any]]:
    """Yield the words of each set.

    Numbers of n-grams differ in some digit, and each digit has its sets.

    Args:
        ngrams: in any order.
        size: how many words a set holds; None: any number.
    """
    count = len(ngrams)
    base = 2 if size is None else max(2, -(-sum(map(len, ngrams)) // size))
    unit = 1
    while unit < count:
        for digit in range(base):
            members = []
            for at, ngram in enumerate(ngrams):
                if at // unit % base == digit:
                    members.append(ngram)
            yield from _filling(members, size)
        unit *= base
    if count == 1:
        yield from _filling(ngrams, size)


def _filling(ngrams: Sequence[tuple[Any, ...]], size: int | None) -> Iterator[list[Any]]:
    """Yield the n-grams' words, at most ``size`` at a time.

    An n-gram isn't parted unless it's longer.
    """
    words: list[Any] = []
    for ngram in ngrams:
        if words and size is not None and len(words) + len(ngram) > size:
            yield words
            words = []
        words += ngram
    if words:
        yield words


def _laid_out(
    words: Sequence[Any], width: int, separator: str | None, dtype: np.dtype[Any]
) -> Any:
    """One row: a text of the words, or the words and then what isn't one."""
    filler: str | int = UNKNOWN_TEXT
    if dtype.kind != "O":
        filler = -1 if dtype.kind == "i" else 0
    if separator is not None:
        return np.full(width, separator.join(map(str, words)) or str(filler), object)
    row = [*words, *[filler] * width][:width]
    return np.asarray(row, dtype)
