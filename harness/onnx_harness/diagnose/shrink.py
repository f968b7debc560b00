"""The input that shows a failure: how little of it is enough, and by which property.

What shrinks is one input set. Reference and candidate run on it, both with optimizations as in the
trial, and a change counts as long as the outputs depart by half of what they did at first: no noise
has to be measured anew for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnx_harness.accuracy.noise import gaps
from onnx_harness.diagnose.bench import bench_of, open_candidate
from onnx_harness.diagnose.minimal import OutOfBudget, minimal_part
from onnx_harness.diagnose.trials import Question, Trial
from onnx_harness.judging.runs import open_cpu
from onnx_harness.providers.running import feeds_for, run

_MOST_RUNS = 160
# Elements are grouped: a search over a million of them ends in as many trials.
_MOST_GROUPS = 256
_HALF = 0.5
_HALF_LARGEST, _HALF_SMALLEST = 65504.0, 2.0**-14
_KINDS = "fiub"

Array = np.ndarray[Any, np.dtype[Any]]


def _smaller(array: Array) -> Array:
    smaller: Array = (array * 0.01).astype(array.dtype)
    return smaller


def _without_greatest(array: Array) -> Array:
    return _without_edge(array, array.max())


def _without_least(array: Array) -> Array:
    return _without_edge(array, array.min())


def _without_edge(array: Array, edge: Any) -> Array:
    """Return an input whose values at an edge are the nearest of its other values."""
    inner = array[array != edge]
    if not inner.size:
        return array
    nearest = inner.max() if (inner < edge).any() else inner.min()
    return np.where(array == edge, nearest, array).astype(array.dtype)


# What is tried on a whole input: where the failure goes with it, that property matters.
_PROPERTIES: Mapping[str, Callable[[Array], Array]] = {
    "its negative values": np.abs,
    "its positive values": lambda array: -np.abs(array),
    "the size of its values": _smaller,
}
# An integer is an index, a length or a label more often than an amount: which one it is comes
# first.
_EDGES: Mapping[str, Callable[[Array], Array]] = {
    "its greatest value": _without_greatest,
    "its least value": _without_least,
}


@dataclass(frozen=True, slots=True)
class Shown:
    """The part of an input set that shows the failure.

    Attributes:
        words: one clause for each input that matters.
        runs: that it took.
    """

    words: tuple[str, ...]
    sessions: int
    runs: int


@dataclass(slots=True)
class _Shrinker:
    departs: Callable[[Mapping[str, Any]], bool]
    values: dict[str, Any]
    ends: float
    runs: int = 0
    words: list[str] = field(default_factory=list)

    def shows(self, values: Mapping[str, Any]) -> bool:
        if self.runs >= _MOST_RUNS or time.monotonic() > self.ends:
            raise OutOfBudget
        self.runs += 1
        return self.departs(values)


def shown_by(
    question: Question,
    trial: Trial,
    place: int,
    seconds: float,
) -> Shown:
    """Return what of an input set shows a failure of values. Meant for the worker.

    Args:
        question: what is diagnosed.
        trial: what fails.
        place: the position of the input set.
        seconds: that it may take.
    """
    ends = time.monotonic() + seconds
    bench = bench_of(question)
    reference = open_cpu(bench.subject.model.path)
    candidate = open_candidate(bench, trial, bench.model(trial.count, trial.off))

    def gap(values: Mapping[str, Any]) -> float:
        try:
            expected = run(reference, values)
            outputs = run(candidate, feeds_for(candidate, values))
        except Exception:  # no input of the model any more
            return 0.0
        sizes = []
        for part in gaps(expected, outputs).values():
            sizes.append(math.inf if part.nonfinite or part.changed else part.l2)
        return max(sizes, default=0.0)

    values = dict(bench.standard.reference.sets[place].values)
    least = gap(values)
    least = least if math.isinf(least) else _HALF * least
    shrinker = _Shrinker(lambda changed: gap(changed) >= least > 0, values, ends)
    try:
        for name in values:
            _shrink(shrinker, name)
    except OutOfBudget:
        pass
    return Shown(tuple(shrinker.words), 2, 2 * shrinker.runs + 2)


def _properties(array: Array) -> Mapping[str, Callable[[Array], Array]]:
    """Return the properties that an input of its type may have, the most telling first."""
    if array.size == 1:  # the value says it all
        return {}
    if array.dtype.kind == "f":
        return {**_PROPERTIES, **_EDGES}
    if array.dtype.kind == "i":
        return {**_EDGES, **_PROPERTIES}
    return _EDGES if array.dtype.kind == "u" else {}


def _shrink(shrinker: _Shrinker, name: str) -> None:
    """Set all of an input's elements to zero that the failure doesn't need.

    What is left is put into words.
    """
    array = shrinker.values[name]
    if not isinstance(array, np.ndarray) or array.dtype.kind not in _KINDS or not array.size:
        return
    properties = []
    for words, change in _properties(array).items():
        changed = np.asarray(change(array))
        differs = not np.array_equal(changed, array)
        if differs and not shrinker.shows({**shrinker.values, name: changed}):
            properties.append(words)
    groups = tuple(range(min(array.size, _MOST_GROUPS)))

    def only(chosen: tuple[int, ...]) -> Array:
        flat = np.zeros_like(array).reshape(-1)
        for group in chosen:
            part = slice(
                array.size * group // len(groups), array.size * (group + 1) // len(groups)
            )
            flat[part] = array.reshape(-1)[part]
        return flat.reshape(array.shape)

    def shows(chosen: tuple[int, ...]) -> bool:
        return shrinker.shows({**shrinker.values, name: only(chosen)})

    result = minimal_part(groups, shows)
    remaining = only(result.items)
    shrinker.values[name] = remaining
    words = _words(name, array, remaining)
    if words:
        shrinker.words.append("; it takes ".join([words, *properties[:1]]))


def _words(name: str, array: Array, remaining: Array) -> str:
    """Return how much of an input is enough, and what its elements are."""
    places = np.flatnonzero(remaining.reshape(-1))
    if not places.size:
        return ""
    value = remaining.reshape(-1)[places[0]]
    at = [int(axis) for axis in np.unravel_index(int(places[0]), array.shape)]
    if array.size == 1:
        return f"it takes '{name}' to be {_number(value)}{_kind(value)}"
    if places.size > max(array.size // 2, 1):
        return ""
    if places.size == 1:
        return f"one element of '{name}' is enough: {_number(value)} at {at}{_kind(value)}"
    return (
        f"{places.size:,} of {array.size:,} elements of '{name}' are enough, the first "
        f"{_number(value)} at {at}"
    )


def _number(value: Any) -> str:
    """Return a number as a person reads it: an integer in full."""
    return f"{float(value):g}" if value.dtype.kind == "f" else str(value)


def _kind(value: Any) -> str:
    """Return what is special about a number."""
    if value.dtype.kind == "f":
        return _float_kind(float(value))
    if value.dtype.kind == "b":
        return ""
    if value in (np.iinfo(value.dtype).max, np.iinfo(value.dtype).min):
        return f", at the edge of {value.dtype}"
    return ", negative" if value < 0 else ""


def _float_kind(value: float) -> str:
    magnitude = abs(value)
    if math.isnan(value) or math.isinf(value):
        return ", not a finite number"
    if magnitude > _HALF_LARGEST:
        return ", beyond float16"
    if 0 < magnitude < _HALF_SMALLEST:
        return ", subnormal in float16"
    if magnitude % 1 == _HALF:  # where rules of rounding differ
        return ", halfway between two whole numbers"
    return ""
