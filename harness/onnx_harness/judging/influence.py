"""Run a model to find out what input sets reach inside it.

They reach sides of comparisons, branches, inputs that matter.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_harness.errors import first_line
from onnx_harness.isolate import risking
from onnx_harness.judging.reference import Reference, runtime_key
from onnx_harness.judging.runs import open_cpu
from onnx_harness.model.file import Model
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.ops import is_standard
from onnx_harness.model.walk import body_reads, subgraphs, walk
from onnx_harness.model.watch import GREATEST_MAGNITUDE, LEAST, watch
from onnx_harness.providers.running import run
from onnx_harness.results.cache import Cache, source_digest

if TYPE_CHECKING:
    import onnx

SIDES, BRANCHES, INPUTS = "sides of comparisons", "branches", "inputs that matter"
"""Kinds of what is reached."""

_COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_SHAPES = frozenset({"Shape", "Size"})
_FILE = "reached.json"
_TRUE, _FALSE = "onnx_harness_true", "onnx_harness_false"
# A decoder has an input for each layer's cache: beyond so many, the first ones stand for the rest.
_MOST_INPUTS = 16
# Another set that holds the same by chance says nothing: so many are tried.
_MOST_OTHERS = 3

Counts = dict[str, tuple[int, int]]


def influence(
    model: Model, reference: Reference, cache: Cache
) -> tuple[Counts, tuple[str, ...]]:
    """Return what the input sets reach, by kind: how many, and how many there are.

    And why others aren't known.

    A comparison has two sides, an If two branches, wherever they stand. What hangs on shapes alone
    isn't counted: no input decides it. An input matters when another set's value in its place
    changes some output.

    Args:
        model: the untouched one.
        reference: its input sets, and what it makes of them.
        cache: the cache.
    """
    digests = [chosen.digest() for chosen in reference.sets]
    key = cache.key("influence", model.sha256, digests, runtime_key(), source_digest())

    def write(folder: Path) -> None:
        (folder / _FILE).write_text(
            json.dumps(_measured(model, reference)), encoding="utf-8"
        )

    counts, notes = json.loads(
        (cache.get_or_put("influence", key, write) / _FILE).read_text(encoding="utf-8")
    )
    return {kind: (int(seen), int(total)) for kind, (seen, total) in counts.items()}, tuple(
        notes
    )


def to_be_counted(skeleton: onnx.ModelProto) -> str:
    """Return a sentence on the comparisons and branches that a run will count.

    Empty where there is none.

    Args:
        skeleton: of the model; its weights aren't needed.
    """
    inlined = inline_functions(skeleton)
    choose = _Choice(set(_decided(inlined.graph, set())))
    kinds = []
    for node in walk(inlined.graph):
        for _, kind in choose(node):
            kinds.append(kind)
    words = []
    for kind, name in ((SIDES, "comparison"), (BRANCHES, "If")):
        if kind in kinds:
            words.append(
                f"{kinds.count(kind):,} {name}{'s' if kinds.count(kind) > 1 else ''}"
            )
    return (
        f"{' and '.join(words)} decide by the inputs: a run counts which of their sides are reached"
        if words
        else ""
    )


def _measured(model: Model, reference: Reference) -> tuple[Counts, list[str]]:
    counts: Counts = {}
    notes: list[str] = []
    for what, measure in (("comparisons", _sides), ("inputs", _inputs)):
        try:
            with risking(f"what is reached of {what} {model.sha256[:16]}"):
                counts |= measure(model, reference)
        except Exception as error:
            # ONNX Runtime's errors have no common class below Exception.
            notes.append(f"what is reached of {what} can't be counted: {first_line(error)}")
    return counts, notes


def _sides(model: Model, reference: Reference) -> Counts:
    """Count the results of comparisons and conditions that were seen."""
    skeleton = inline_functions(model.skeleton)
    decided = set(_decided(skeleton.graph, set()))
    if not decided:
        return {}
    watched = inline_functions(model.load())
    choose = _Choice(decided)
    # Two numbers of each truth value, 0 or 1: the greatest, and the least.
    places = watch(
        watched, choose, _TRUE, GREATEST_MAGNITUDE, casts=decided, with_empty=True
    )
    watch(watched, choose, _FALSE, LEAST, casts=decided, with_empty=True)
    session = open_cpu(watched)
    true, false = (np.zeros(len(places), bool) for _ in range(2))
    for chosen in reference.sets:
        values = run(session, chosen.values)
        true |= values[_TRUE] == 1
        false |= values[_FALSE] == 0
    counts = {}
    for kind in (SIDES, BRANCHES):
        mine = np.asarray([place == kind for place in places])
        if mine.any():
            reached = int(true[mine].sum() + false[mine].sum())
            counts[kind] = (reached, 2 * int(mine.sum()))
    return counts


class _Choice:
    """The truth values that are watched."""

    def __init__(self, decided: set[str]) -> None:
        self._decided = decided

    def __call__(self, node: onnx.NodeProto) -> Iterator[tuple[str, str]]:
        if is_standard(node, *_COMPARISONS) and node.output[0] in self._decided:
            yield node.output[0], SIDES
        if is_standard(node, "If") and node.input[0] in self._decided:
            yield node.input[0], BRANCHES


def _decided(graph: onnx.GraphProto, outer: set[str]) -> Iterator[str]:
    """Yield the truth values that hang on what an input holds, in this graph and inside it."""
    constants = {tensor.name for tensor in graph.initializer}
    fed = outer | {info.name for info in graph.input if info.name not in constants}
    for node in graph.node:
        for body in subgraphs(node):
            yield from _decided(body, fed)
        if is_standard(node, "If") and node.input[0] in fed:
            yield node.input[0]
        if node.op_type in _SHAPES or not fed.intersection((*node.input, *body_reads(node))):
            continue
        fed.update(node.output)
        if is_standard(node, *_COMPARISONS):
            yield node.output[0]


def _inputs(model: Model, reference: Reference) -> Counts:
    """Count the inputs that change an output."""
    first = reference.sets[0]
    names = list(first.values)[:_MOST_INPUTS]
    if len(first.values) < 2 or reference.unstable:
        return {}
    session = open_cpu(model.path)
    mattering = 0
    judged = 0
    for name in names:
        others = _others(reference, name)
        if not others:
            continue
        try:
            changed = [run(session, {**first.values, name: value}) for value in others]
        except Exception:  # a value that doesn't go with the others' does matter
            changed = []
        judged += 1
        mattering += not changed or any(
            not _same(outputs, reference.outputs[0]) for outputs in changed
        )
    return {INPUTS: (mattering, judged)} if judged else {}


def _others(reference: Reference, name: str) -> list[Any]:
    """Return values that other sets have for an input, in the first one's shape."""
    own = reference.sets[0].values[name]
    if not isinstance(own, np.ndarray):
        return []
    values = (chosen.values.get(name) for chosen in reference.sets[1:])
    fitting = []
    for value in values:
        if (
            isinstance(value, np.ndarray)
            and value.shape == own.shape
            and value.tobytes() != own.tobytes()
        ):
            fitting.append(value)
    return fitting[:_MOST_OTHERS]


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return pickle.dumps([first[name] for name in second]) == pickle.dumps(
        list(second.values())
    )
