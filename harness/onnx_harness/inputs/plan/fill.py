"""Makes an input's array from its rule, a shape and a random stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnx_harness.inputs.graph.signature import Input
from onnx_harness.inputs.plan.rule import Make, Rule, in_turn
from onnx_harness.inputs.values import generators
from onnx_harness.inputs.values.sets import Array

# where neither a table nor anything else ends them: what language models are trained to, and more
_FAR_POSITION = 4095
# The share of true values, set by set: what takes several of them at once is rarely true at half.
_TRUE = (0.5, 0.1, 0.9)


def fill(
    rule: Rule,
    entry: Input,
    shape: tuple[int, ...],
    rng: np.random.Generator,
    *,
    index: int,
    sizes: Mapping[str, int],
    cap: int | None = None,
    far: bool = False,
) -> Array:
    """The values of one input in one set.

    Args:
        rule: what it gets.
        entry: the input.
        shape: to fill.
        rng: its random stream.
        index: of the set; choices and generators take turns by it.
        sizes: of the dynamic dimensions.
        far: for positions: whether they end with the greatest that there is.
        cap: for integers that nothing certain bounds: the greatest value that an earlier failure
            allows.
    """
    if rule.make is Make.CHOICES:
        return constant(entry, shape, rule.choice(index))
    if rule.make in (Make.TEXTS, Make.AMONG) and rule.columns:
        return _by_column(rule, entry, shape, rng)
    if rule.make is Make.TEXTS:
        choices = tuple(str(choice) for choice in rule.choices)
        return generators.texts(rng, shape, choices, is_closed=rule.is_closed)
    if rule.make is Make.SIGNAL:
        raw = _signal(rule, entry, shape, rng, index)
        if rule.around is not None and raw.ndim:
            raw = rule.around.placed(raw, rng)
    else:
        low, high = _ends(rule, sizes)
        if cap is not None and not rule.certain and rule.make is Make.INTEGERS:
            low, high = max(0, min(low, cap)), min(high, cap)
        raw = _integers(rule, shape, rng, low, high, index=index, far=far)
    # Not ascontiguousarray, which makes a vector of a scalar.
    filled = np.array(raw.reshape(shape), dtype=entry.dtype, order="C")
    if rule.salient and filled.size:
        _sprinkle(filled, rule.salient, rng)
    for lag, (place, values) in enumerate(rule.elements):
        filled[place] = in_turn(values, index, lag)
    return filled


def _integers(
    rule: Rule,
    shape: tuple[int, ...],
    rng: np.random.Generator,
    low: int,
    high: int,
    *,
    index: int,
    far: bool,
) -> NDArray[np.generic]:
    """The values of an input that isn't a signal, in any shape of that many elements.

    Args:
        rule: what it gets.
        shape: to fill.
        rng: its random stream.
        low: the least value.
        high: the greatest.
        index: of the set.
        far: for positions: whether they end with the greatest that there is.
    """
    match rule.make:
        case Make.AMONG:
            return _among(rule, shape, rng)
        case Make.BOOLS:
            return rng.random(shape) < _TRUE[index % len(_TRUE)]
        case Make.MASK:
            return generators.mask(rng, shape, index)
        case Make.IDS:
            return generators.tokens(rng, shape, low, high)
        case Make.POSITIONS:
            return _positions(shape, low, high, far=far)
        case Make.AXES:
            return np.arange(int(np.prod(shape)))
        case Make.TARGET:
            target = np.ones(int(np.prod(shape)), np.int64)
            target[:1] = -1
            return target
        case Make.LENGTH:
            # The first is the whole length, the others may be shorter: padded rows.
            lengths = rng.integers(
                max(1, high // 2), max(1, high), size=shape, endpoint=True
            )
            lengths = np.asarray(lengths)
            lengths.reshape(-1)[:1] = max(1, high)
            return lengths
        case Make.BOXES:
            # [x1, y1, x2, y2]: of each two coordinates the lesser comes first.
            return _boxes(shape, rng).reshape(shape) * max(high, 1)
        case _:
            return generators.integers(rng, shape, low, high)


def _positions(
    shape: tuple[int, ...], low: int, high: int, *, far: bool
) -> NDArray[np.generic]:
    """Positions in a row along the last axis, from ``low`` on.

    Beyond 2,048 float16 can't hold every position: every second set ends with the greatest that
    there is.
    """
    count = shape[-1] if shape else 1
    start = max(0, min(high, _FAR_POSITION) - low + 1 - count) if far else 0
    steps = (np.arange(count) + start) % (high - low + 1) + low
    return np.broadcast_to(steps if shape else steps[0], shape)


def _boxes(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return corners between 0 and 1 [..., n, 2, 2].

    Each second box is moved a little from the one before.

    What overlaps of all degrees decide, as in NonMaxSuppression, isn't decided by boxes that are
    all apart.
    """
    corners = np.sort(rng.random((*shape[:-1], 2, 2)), axis=-2)
    if corners.ndim > 2:
        earlier = corners[..., :-1:2, :, :]
        extents = earlier[..., 1:, :] - earlier[..., :1, :]
        corners[..., 1::2, :, :] = np.clip(
            earlier + extents * rng.uniform(0, 0.25, extents.shape), 0, 1
        )
    return corners


def _by_column(
    rule: Rule, entry: Input, shape: tuple[int, ...], rng: np.random.Generator
) -> Array:
    """Values that are looked up, each among the keys of its own column."""
    columns = []
    for keys in rule.columns:
        own = replace(rule, choices=keys, columns=())
        columns.append(fill(own, entry, shape[:1], rng, index=0, sizes={}))
    return np.stack(columns, axis=-1).reshape(shape)


def _among(
    rule: Rule, shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.generic]:
    """Keys at random; where others are taken, one in eight is the number after a key."""
    keys = np.asarray(rule.choices)
    values = keys[rng.integers(0, len(keys), shape)]
    return np.asarray(values if rule.is_closed else values + (rng.random(shape) < 1 / 8))


def _sprinkle(values: Array, constants: tuple[float, ...], rng: np.random.Generator) -> None:
    """Put each of some constants into a few elements, as far as there are elements.

    A quarter of them at least.
    """
    flat = values.reshape(-1)
    count = min(flat.size, max(len(constants), flat.size // 4))
    places = rng.permutation(flat.size)[:count]
    flat[places] = np.resize(rng.permutation(np.asarray(constants)), count).astype(
        values.dtype
    )


def constant(entry: Input, shape: tuple[int, ...], value: object) -> Array:
    """An array that holds ``value`` throughout, in the input's dtype."""
    return np.full(shape, value, dtype=entry.dtype)


def kind_of(rule: Rule, index: int) -> str:
    """The word for a set's name: what the values look like."""
    if rule.make is Make.SIGNAL:
        return generators.find(rule.generators[index % len(rule.generators)]).label
    words = {
        Make.IDS: "text-like ids",
        Make.CHOICES: "constants",
        Make.TEXTS: "texts",
        Make.BOOLS: "truth values",
    }
    return words.get(rule.make, str(rule.make))


def _ends(rule: Rule, sizes: Mapping[str, int]) -> tuple[int, int]:
    low = int(rule.low or 0)
    if rule.make is Make.LENGTH:
        longest = sizes.get(rule.dim, 0) if rule.dim else max(sizes.values(), default=1)
        return 1, int(rule.high or longest or 1)
    high = rule.high
    if rule.dim is not None and rule.dim in sizes:
        below = sizes[rule.dim] - 1
        high = below if high is None else min(high, below)
    if high is None:
        high = 1 if rule.make is not Make.POSITIONS else 1 << 30
    return low, max(low, int(high))


def _signal(
    rule: Rule, entry: Input, shape: tuple[int, ...], rng: np.random.Generator, index: int
) -> NDArray[np.generic]:
    generator = generators.find(rule.generators[index % len(rule.generators)])
    values = generator.fill(rng, shape)
    low, high = rule.low, rule.high
    if not entry.is_float and not entry.is_bool:
        least, greatest = entry.integer_range
        # Drawn and noisy signals fill the range of an 8-bit type; in wider ones they stay as they
        # are, rounded.
        if entry.dtype.itemsize == 1:
            low, high = least if low is None else low, greatest if high is None else high
    if low is not None and high is not None:
        values = _into(values, generator.span, low, high)
    elif low is not None:
        values = (
            np.maximum(values, np.float32(low))
            if generator.span
            else np.abs(values) + np.float32(low)
        )
    elif high is not None:
        values = np.minimum(values, np.float32(high))
    if entry.is_bool:
        return np.asarray(values > 0.5)
    return np.asarray(values if entry.is_float else np.rint(values))


def _into(
    values: generators.Floats, span: tuple[float, float] | None, low: float, high: float
) -> generators.Floats:
    """Bring a signal into [low, high].

    Noise without bounds keeps its shape out to two deviations and is clipped.
    """
    if span is not None and span[0] == span[1]:
        return np.asarray(np.clip(values, low, high), np.float32)
    start, end = span or (-2.0, 2.0)
    moved = low + (values.astype(np.float64) - start) * ((high - low) / (end - start))
    return np.asarray(np.clip(moved, low, high), np.float32)
