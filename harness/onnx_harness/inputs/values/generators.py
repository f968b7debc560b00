"""Signals by name: noise, and drawn or sung ones that a trained model reacts to. Only numpy.

Each generator fills a shape and knows the usual meaning of the trailing axes: the last one is time
for ``audio`` and ``tokens``, height and width are the last two axes for ``page`` unless the last
one looks like colour channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_harness.errors import InputError, did_you_mean

Floats = NDArray[np.float32]
Shape = tuple[int, ...]

_CHANNELS = (1, 3, 4)
_SAMPLE_RATE = 16_000.0  # Hz; the rate that speech models are trained at
_WORDS = (
    "alpha",
    "bravo",
    "",
    "Charlie 42",
    "delta-9",
    "écho",
    "fox trot",
    "golf!",
    "Hotel",
    "x",
    "日本",
    "0",
)


@dataclass(frozen=True, slots=True)
class Generator:
    """One named signal.

    Attributes:
        name: as a card spells it.
        label: as a set's name shows it.
        fill: makes float32 values of the shape, in ``span``.
        span: the interval that the values lie in; None for what has no bounds.
        summary: a few words for ``inspect``.
    """

    name: str
    label: str
    fill: Callable[[np.random.Generator, Shape], Floats]
    span: tuple[float, float] | None
    summary: str


def find(name: str) -> Generator:
    """The generator called ``name``.

    Raises:
        InputError: there is none.
    """
    if name not in GENERATORS:
        raise InputError(
            f"no generator is called '{name}'. {did_you_mean(name, GENERATORS)}"
        )
    return GENERATORS[name]


def seeded(seed: int, index: int, name: str) -> np.random.Generator:
    """The random stream of one input in one set.

    No other input's, set's or count's change moves it.

    Args:
        seed: of the run, 0 or more.
        index: of the set.
        name: of the input.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, index, *name.encode()]))


def integers(
    rng: np.random.Generator, shape: Shape, low: int, high: int
) -> NDArray[np.int64]:
    """Uniform integers, ``low`` and ``high`` included.

    The two ends occur where there is room for them.
    """
    values = rng.integers(low, high, size=shape, endpoint=True, dtype=np.int64)
    if values.size >= 4:
        # The ends are where an off-by-one shows.
        ends = rng.choice(values.size, size=2, replace=False)
        values.reshape(-1)[ends] = low, high
    return values


def tokens(rng: np.random.Generator, shape: Shape, low: int, high: int) -> NDArray[np.int64]:
    """Text-like ids in [low, high].

    A start id, mostly frequent (small) ids, an end id, then padding on some rows.

    Args:
        rng: where the randomness comes from.
        shape: the last axis is the position in the text.
        low: smallest id, used as padding.
        high: greatest id.
    """
    span = high - low
    # Squared uniform: small ids are the frequent ones, as in a vocabulary that is sorted by
    # frequency.
    ids = low + np.minimum(np.floor(rng.random(shape) ** 2 * (span + 1)), span).astype(
        np.int64
    )
    if not shape or ids.size == 0 or shape[-1] < 4 or span < 3:
        return ids
    rows = ids.reshape(-1, shape[-1])
    length = shape[-1]
    for number, row in enumerate(rows):
        end = length if number == 0 else length - int(rng.integers(0, length // 2))
        row[0] = low + 1
        row[end - 1] = low + 2
        row[end:] = low
    rows[0, length // 2] = high
    return ids


def mask(rng: np.random.Generator, shape: Shape, index: int) -> NDArray[np.int64]:
    """0/1: all 1 in even sets; in odd ones a tail of each row is 0, as padding is.

    A row never is all 0.
    """
    values = np.ones(shape, np.int64)
    if index % 2 == 0 or not shape or values.size == 0 or shape[-1] < 2:
        return values
    for row in values.reshape(-1, shape[-1]):
        row[int(rng.integers((shape[-1] + 1) // 2, shape[-1])) :] = 0
    return values


def texts(
    rng: np.random.Generator,
    shape: Shape,
    vocabulary: tuple[str, ...] = (),
    *,
    is_closed: bool = False,
) -> NDArray[Any]:
    """An object array of strings.

    Some of those that the graph knows, and words with blanks, digits and non-ASCII.

    Args:
        rng: where the randomness comes from.
        shape: to fill.
        vocabulary: to the graph.
        is_closed: whether it takes no others.
    """
    words = (
        [*vocabulary, *_WORDS[: max(2, len(vocabulary) // 2)]]
        if vocabulary
        else list(_WORDS)
    )
    words = list(vocabulary) if vocabulary and is_closed else words
    values = np.empty(shape, dtype=object)
    picked = rng.integers(0, len(words), size=values.size)
    values.reshape(-1)[:] = [words[item] for item in picked]
    return values


def _normal(rng: np.random.Generator, shape: Shape) -> Floats:
    return np.asarray(rng.standard_normal(shape, dtype=np.float32), np.float32)


def _uniform(rng: np.random.Generator, shape: Shape) -> Floats:
    return np.asarray(rng.random(shape, dtype=np.float32), np.float32)


def _steps(rng: np.random.Generator, shape: Shape) -> Floats:
    """Plateaus of random height in [-2, 2] and random length along the last axis.

    Edges, ties and both signs.
    """
    values = rng.uniform(-2.0, 2.0, shape).astype(np.float32)
    if not shape or values.size == 0:
        return values
    starts = rng.random(shape) < 0.5
    starts[..., 0] = True
    positions = np.maximum.accumulate(np.where(starts, np.arange(shape[-1]), 0), axis=-1)
    return np.asarray(np.take_along_axis(values, positions, axis=-1), np.float32)


def _audio(rng: np.random.Generator, shape: Shape) -> Floats:
    """Sums of harmonic tones under a slow envelope, with a little noise, in [-1, 1].

    The last axis is time.
    """
    if not shape:
        return np.asarray(rng.uniform(-1.0, 1.0), np.float32)
    rows = int(np.prod(shape[:-1]))
    length = shape[-1]
    time = np.arange(length, dtype=np.float32) / np.float32(_SAMPLE_RATE)
    out = np.empty((rows, length), np.float32)
    for row in out:
        pitch, tremor = rng.uniform(90.0, 400.0), rng.uniform(2.0, 6.0)
        phases = rng.uniform(0.0, 2 * np.pi, 6)
        # The harmonics fall off as 1/n, the way a voice's do.
        tone = np.zeros(length)
        for n in range(5):
            harmonic = n + 1
            angle = 2 * np.pi * pitch * harmonic * time + phases[n]
            tone += np.sin(angle) / harmonic
        envelope = 0.55 + 0.45 * np.sin(2 * np.pi * tremor * time + phases[5])
        row[:] = 0.4 * tone * envelope + 0.02 * rng.standard_normal(length)
    return np.clip(out, -1.0, 1.0).reshape(shape)


def _page(rng: np.random.Generator, shape: Shape) -> Floats:
    """Lines of dark glyph-like strokes and a few rectangles on a light page, in [-1, 1]."""
    if len(shape) < 2 or 0 in shape:
        return _steps(rng, shape)
    channels_last = len(shape) >= 3 and shape[-1] in _CHANNELS and shape[-3] not in _CHANNELS
    grid = shape[:-1] if channels_last else shape
    height, width = grid[-2:]
    # The three colour planes of one image show the same drawing.
    shared = 1
    if not channels_last and len(shape) >= 3 and shape[-3] in _CHANNELS:
        shared = shape[-3]
    planes = int(np.prod(grid[:-2])) // shared
    pages = (
        np.stack([_draw(rng, height, width) for _ in range(planes)])
        if planes
        else np.empty((0, height, width))
    )
    spread = np.repeat(pages[:, None], shared, axis=1).reshape(grid)
    noisy = np.asarray(spread, np.float64) + 0.02 * rng.standard_normal(grid)
    if channels_last:
        noisy = np.broadcast_to(noisy[..., None], shape)
    return np.asarray(np.clip(noisy, -1.0, 1.0), np.float32)


def _draw(rng: np.random.Generator, height: int, width: int) -> Floats:
    page = np.full((height, width), 0.9, np.float32)
    if height >= 64 and width >= 64:
        top = int(rng.integers(0, height // 2))
        column = int(rng.integers(0, width // 2))
        page[top : top + height // 3, column : column + width // 3] = rng.uniform(0.4, 0.7)
    glyph = max(4, min(24, height // 4))
    stroke = max(1, glyph // 8)
    for top in range(max(1, glyph // 3), max(2, height - glyph), max(1, glyph * 7 // 4)):
        column = int(rng.integers(1, glyph + 1))
        while column + glyph // 2 < width:
            if rng.random() < 0.85:  # the rest are blanks between words
                _glyph(
                    rng, page[top : top + glyph, column : column + glyph * 2 // 3], stroke
                )
            column += glyph * 2 // 3 + stroke
    return page


def _glyph(rng: np.random.Generator, box: Floats, stroke: int) -> None:
    """Two to four strokes in one character cell: upright, level or slanting."""
    height, width = box.shape
    if height == 0 or width == 0:
        return
    ink = float(rng.uniform(-1.0, -0.7))
    for kind in rng.integers(0, 3, size=int(rng.integers(2, 5))):
        if kind == 0:
            column = int(rng.integers(0, width))
            box[:, column : column + stroke] = ink
        elif kind == 1:
            top = int(rng.integers(0, height))
            box[top : top + stroke, :] = ink
        else:
            slope = np.arange(height) * width // max(1, height)
            for shift in range(stroke):
                box[np.arange(height), np.minimum(slope + shift, width - 1)] = ink


def _bytes(rng: np.random.Generator, shape: Shape) -> Floats:
    return np.asarray(rng.integers(0, 256, size=shape), np.float32)


def _zeros(rng: np.random.Generator, shape: Shape) -> Floats:  # noqa: ARG001 - every generator is called alike
    return np.zeros(shape, np.float32)


def _ones(rng: np.random.Generator, shape: Shape) -> Floats:  # noqa: ARG001 - every generator is called alike
    return np.ones(shape, np.float32)


def _token_values(rng: np.random.Generator, shape: Shape) -> Floats:
    return tokens(rng, shape, 0, 1000).astype(np.float32)


GENERATORS: dict[str, Generator] = {
    entry.name: entry
    for entry in (
        Generator(
            "normal", "normal noise", _normal, None, "normal noise, mean 0, deviation 1"
        ),
        Generator(
            "uniform", "uniform noise", _uniform, (0.0, 1.0), "uniform noise in [0, 1)"
        ),
        Generator("steps", "steps", _steps, (-2.0, 2.0), "plateaus and edges in [-2, 2]"),
        Generator(
            "audio",
            "audio-like",
            _audio,
            (-1.0, 1.0),
            "harmonic tones with an envelope in [-1, 1]",
        ),
        Generator(
            "page", "page-like", _page, (-1.0, 1.0), "drawn glyphs and rectangles in [-1, 1]"
        ),
        Generator(
            "tokens",
            "text-like ids",
            _token_values,
            None,
            "text-like ids with start, end and padding",
        ),
        Generator("bytes", "bytes", _bytes, (0.0, 255.0), "bytes, 0 to 255"),
        Generator("zeros", "zeros", _zeros, (0.0, 0.0), "zeros"),
        Generator("ones", "ones", _ones, (1.0, 1.0), "ones"),
    )
}
