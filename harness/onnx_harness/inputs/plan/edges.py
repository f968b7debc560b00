"""Make unusual input sets.

They have magnitudes, signs, ties, infinities and sizes that usual signals leave untouched.

They reveal what noise can't: a maximum over padding that is wrong for negative values alone, a
product that leaves float16's range, a reshape that fails on an empty batch. Each is derived from
the first set, is fed to the reference first, and is kept only where the reference itself makes
sense of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_harness.inputs.graph.demand import Kind
from onnx_harness.inputs.graph.demands import IS_DEFINED
from onnx_harness.inputs.graph.signature import Input
from onnx_harness.inputs.plan.float_edges import FLOAT_EDGES, Edge, scaled
from onnx_harness.inputs.plan.integer_edges import MAKERS
from onnx_harness.inputs.plan.recipe import Guess, Recipe
from onnx_harness.inputs.plan.roles import Role
from onnx_harness.inputs.plan.rule import Make
from onnx_harness.inputs.values.generators import find, seeded
from onnx_harness.inputs.values.sets import Array, InputSet, Value, arrays_of, shape_text
from onnx_harness.isolate import noting
from onnx_harness.model.ops import is_standard
from onnx_harness.model.walk import body_reads

UNUSUAL = "unusual inputs"
"""The beginning of the worker's note while the untouched model is fed with them.

Dying there is no variant's fault.
"""

Attempt = Callable[[dict[str, Value]], Any]
"""Runs the reference: its outputs by name, or None where it doesn't run."""

# 41 = 1 (mod 4): of the signals that sets take turns with, the one that is normal noise.
_INDEX = 41
# Elements; beyond these, and the two below, a run isn't next to free any more.
_MOST_WEIGHTS = 1 << 18
_MOST_ELEMENTS = 1 << 16
_MOST_NODES = 300
_MOST_EMPTY = 3
_SETTLING = (
    1,
    0,
    4,
    2,
    8,
    3,
    -1,
)  # what stands in for doubtful integers where another size needs another number


def unusual_sets(
    recipe: Recipe,
    seed: int,
    base: Guess,
    attempt: Attempt,
    light: bool,
    more: Iterable[tuple[Edge, dict[str, Value]]] = (),
) -> Iterator[InputSet]:
    """The unusual sets that the reference makes sense of, in a fixed order.

    Args:
        recipe: of the model.
        seed: of the run.
        base: what the first set ran with.
        attempt: runs the reference.
        light: whether a run costs next to nothing (:func:`is_light`).
        more: further candidates, tried last.
    """
    seen: set[str] = set()
    settled: set[str] = set()
    for edge, values in chain(_candidates(recipe, seed, base, light), more):
        if edge.words in settled:
            continue
        input_set = InputSet(
            _name(edge.words, seed, values), values, edge.words, edge.smooth
        )
        if (digest := input_set.digest()) in seen:
            continue
        seen.add(digest)
        with noting(f"{UNUSUAL} {edge.words}"):
            outputs = attempt(values)
        if outputs is not None and _makes_sense(outputs, edge):
            settled.add(edge.words)
            yield input_set


def is_light(
    model: onnx.ModelProto, recipe: Recipe, base: Guess, *, with_tables: bool = True
) -> bool:
    """Return whether one run of the model costs next to nothing, by its size alone.

    The same on every machine.

    Args:
        model: large initializers may have lost their data.
        recipe: of the model.
        base: what the first set ran with.
        with_tables: count what rows are looked up in. A run reads few of its rows.
    """
    graph = model.graph
    tables = frozenset() if with_tables else _tables(graph)
    weights = 0
    for tensor in graph.initializer:
        weights += 0 if tensor.name in tables else math.prod(tensor.dims)
    for node in graph.node:
        if not tables.intersection(node.output):
            weights += sum(math.prod(a.t.dims) for a in node.attribute if a.HasField("t"))
    values = recipe.values(_INDEX, 0, base)
    elements = 0
    for value in values.values():
        for array in arrays_of(value):
            elements += array.size
    return (
        len(graph.node) <= _MOST_NODES
        and weights <= _MOST_WEIGHTS
        and elements <= _MOST_ELEMENTS
    )


def _tables(graph: onnx.GraphProto) -> frozenset[str]:
    """The names that rows are looked up in, and that nothing else reads."""
    tables, others = set(), {info.name for info in graph.output}
    for node in graph.node:
        slot = 1 if is_standard(node, "Gather") else 0
        tables.update(node.input[:slot])
        others.update(node.input[slot:], body_reads(node))
    return frozenset(tables - others)


def _candidates(
    recipe: Recipe, seed: int, base: Guess, light: bool
) -> Iterator[tuple[Edge, dict[str, Value]]]:
    usual = recipe.values(_INDEX, seed, base)
    for number, edge in enumerate(FLOAT_EDGES):
        if light or edge.always:
            changed = {}
            for name, value in usual.items():
                if (
                    changed_value := _float_edge(recipe, name, value, edge, seed, number)
                ) is not None:
                    changed[name] = changed_value
            if changed:
                yield edge, usual | changed
    if not light:
        return
    for words, maker in MAKERS:
        changed = {}
        for name, value in usual.items():
            if (changed_value := maker(recipe, name, value, base, seed)) is not None:
                changed[name] = changed_value
        if changed:
            yield Edge(words, scaled(1)), usual | changed
    yield from _other_sizes(recipe, seed, base)


def _other_sizes(
    recipe: Recipe, seed: int, base: Guess
) -> Iterator[tuple[Edge, dict[str, Value]]]:
    """Every free dimension 1 at once.

    Each 0 by itself; and the numbers that those need elsewhere.
    """
    pinned = recipe.pinned(0)
    free = []
    for name, entry in recipe.dimensions.items():
        if name not in pinned and entry.role is not Role.FIXED:
            free.append(name)
    requests = [("with every free dimension 1", dict.fromkeys(free, 1))] if free else []
    requests += [
        (f"with nothing in it ({name} = 0)", {name: 0}) for name in free[:_MOST_EMPTY]
    ]
    doubtful = []
    for name, rule in recipe.rules.items():
        if (
            not rule.certain
            and recipe.inputs[name].is_integer
            and rule.make in (Make.CHOICES, Make.TARGET, Make.LENGTH)
        ):
            doubtful.append(name)
    for words, sizes in requests:
        guess = replace(base, sizes=recipe.fit(base.sizes | sizes, {*pinned, *sizes}))
        for constants in (
            {},
            *(dict.fromkeys(doubtful, number) for number in _SETTLING if doubtful),
        ):
            trial = replace(guess, constants=guess.constants | constants)
            yield Edge(words, scaled(1), smooth=True), recipe.values(_INDEX, seed, trial)


def _float_edge(
    recipe: Recipe, name: str, value: Value, edge: Edge, seed: int, number: int
) -> Value | None:
    """The unusual values of one float signal; None where it has to stay what it is."""
    if not is_swept(recipe, name):
        return None
    entry = recipe.inputs[name]
    low, high = bounds(recipe, name)
    bounded = low is not None or high is not None
    if edge.infinite and (bounded or name in recipe.specs):
        return None
    if edge.missing and not any(
        demand.kind is Kind.MISSING for demand in recipe.findings[name].demands
    ):
        return None
    if edge.undefined:
        if not bounded or name in recipe.specs or not _is_bounded_by_domains(recipe, name):
            return None
        low = high = None
    rng = seeded(seed, 100 + number, name)
    arrays = []
    for a in arrays_of(value):
        arrays.append(_cast(entry, edge.change(np.asarray(a, np.float64), rng), low, high))
    if all(
        a.tobytes() == b.tobytes() for a, b in zip(arrays, arrays_of(value), strict=True)
    ):
        return None
    return arrays if isinstance(value, list) else arrays[0]


def _is_bounded_by_domains(recipe: Recipe, name: str) -> bool:
    bounding = []
    for demand in recipe.findings[name].demands:
        if demand.kind is Kind.BOUND:
            bounding.append(demand.why)
    return all(IS_DEFINED in why for why in bounding)


def is_swept(recipe: Recipe, name: str) -> bool:
    """Return whether unusual sets change what an input holds.

    A float signal, and no number that is compared or counted.
    """
    return recipe.inputs[name].is_float and recipe.rules[name].make is Make.SIGNAL


def bounds(recipe: Recipe, name: str) -> tuple[float | None, float | None]:
    """Return what an input's values must stay within.

    The graph's bounds, the card's, and the span of a card's generator.
    """
    rule, spec = recipe.rules[name], recipe.specs.get(name)
    low, high = rule.low, rule.high
    if spec is not None and spec.generator is not None and (low is None or high is None):
        # A card that asks for noise without bounds asks for the usual magnitude of that noise.
        start, end = find(spec.generator).span or (-4.0, 4.0)
        low, high = start if low is None else low, end if high is None else high
    return low, high


def _cast(
    entry: Input, values: NDArray[Any], low: float | None, high: float | None
) -> Array:
    clipped = np.clip(values, low, high) if low is not None or high is not None else values
    if entry.dtype.kind == "f" and np.isfinite(clipped).all():
        greatest = float(ml_dtypes.finfo(entry.dtype).max)  # type: ignore[no-untyped-call]
        clipped = np.clip(clipped, -greatest, greatest)
    return np.array(clipped, dtype=entry.dtype, order="C").reshape(np.shape(values))


def _makes_sense(outputs: Any, edge: Edge) -> bool:
    """Return whether a difference on these outputs would mean anything.

    A sum that overflows, or of infinities of both signs, depends on the order of its terms, which
    no rewriting has to
    keep: with NaN in an output, or with an infinity that the inputs didn't hold, the set proves
    nothing.
    """
    if not isinstance(outputs, Mapping):
        return True
    for value in outputs.values():
        for array in _floats(value):
            if edge.undefined:
                return False
            wide = array.astype(np.float64)
            if np.isnan(wide).any() or (not edge.infinite and np.isinf(wide).any()):
                return False
    return True


def _floats(value: Any) -> Iterator[NDArray[Any]]:
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" or value.dtype.name in ("bfloat16",):
            yield value
    elif isinstance(value, list):
        for item in value:
            yield from _floats(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _floats(item)


def _name(words: str, seed: int, values: Mapping[str, Value]) -> str:
    first = max(
        values.values(), key=lambda value: sum(array.size for array in arrays_of(value))
    )
    shape = shape_text(next(arrays_of(first), np.empty(0)).shape)
    return f"unusual: {words} (seed {seed}, {shape})"
