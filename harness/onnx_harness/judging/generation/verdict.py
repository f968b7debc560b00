"""Judge greedy decoding: which token a candidate picks at each step of the reference's history."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_harness.accuracy.explain import MOST_ELEMENT, Yardstick
from onnx_harness.cards.specs import GenerateSpec
from onnx_harness.judging.generation.decoder import Decoder
from onnx_harness.judging.generation.decoding import Decoded
from onnx_harness.results.generation import GenerationRecord

_MOST_LISTED = 4


@dataclass(frozen=True, slots=True)
class Generation:
    """The verdict on greedy decoding.

    Attributes:
        record: its figures.
        reason: one sentence; None where no step departs.
        detail: a line for each step that departs, the first ones.
        notes: remarks on a verdict that stands.
    """

    record: GenerationRecord
    reason: str | None = None
    detail: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def explained_by(
    yardstick: Yardstick,
    usual: Mapping[int, Mapping[str, Any]],
    name: str,
    logits: NDArray[np.float32],
) -> float:
    """Return how far below the best logit a pick may lie that noise and the type explain.

    The comparison of single runs lets a logit move by `MOST_ELEMENT` times what the model's noise,
    or the ideal conversion, moves it by at most. So two of them change places where they lie no
    more than twice that apart.

    Args:
        yardstick: of the cell's comparison.
        usual: the reference's outputs by name, by the position of a usual input set.
        name: of the logits.
        logits: of the reference's decoding, (steps, vocabulary).
    """
    share = 0.0
    for place, outputs in usual.items():
        reference = np.asarray(outputs[name])
        scale = _scale(reference.astype(np.float32))
        if scale > 0:
            bound = yardstick.bound(place, name, reference, scale)
            tail = 0.0 if bound.tail is None else bound.tail.greatest
            share = max(share, bound.greatest / scale, tail / scale)
    return 2 * MOST_ELEMENT * share * _scale(logits)


def judge_generation(
    decoder: Decoder,
    spec: GenerateSpec,
    reference: Decoded,
    candidate: Decoded,
    noise: float | None,
) -> Generation:
    """Judge a candidate that was fed the reference's tokens and its own cache.

    A step departs where the logit of the candidate's pick lies further below the reference's best
    one than noise explains, or where it gives NaN and the reference doesn't.

    Args:
        decoder: its interface.
        spec: the card's ``[generate]``.
        reference: the untouched model's steps.
        candidate: the candidate's.
        noise: from :func:`explained_by`; None where it couldn't be measured: nothing is judged.
    """
    expected, picked = reference.tokens, candidate.tokens
    rows = np.arange(spec.steps)
    behind = reference.logits[rows, expected] - reference.logits[rows, picked]
    broken = _has_nan(candidate) & ~_has_nan(reference)
    behind = np.where(broken, np.inf, behind)
    differs = (picked != expected) | broken
    record = _record(decoder, candidate, float(1 - differs.mean()), noise)
    if not differs.any():
        return Generation(record)
    first = int(np.argmax(differs))
    record = replace(
        record,
        first_divergence=first + 1,
        margin=_margin(reference.logits[first]),
        behind=float(behind[first]) if np.isfinite(behind[first]) else None,
    )
    agree = f"{spec.steps - int(differs.sum())} of {spec.steps} tokens agree"
    if noise is None:
        return Generation(
            record, notes=(f"generation isn't judged, its noise wasn't measured: {agree}",)
        )
    departing = np.flatnonzero(differs & (behind > noise))
    if not departing.size:
        note = (
            f"generation: {agree}; the first other one is at step {first + 1}, where the two "
            f"best logits lie {record.margin:.2g} apart, which noise explains"
        )
        return Generation(record, notes=(note,))
    lines = []
    for step in departing[:_MOST_LISTED]:
        lines.append(_line(int(step), expected, picked, reference, behind, broken))
    step = int(departing[0])
    reason = (
        f"generation departs at step {step + 1} of {spec.steps} ({decoder.form} cache fed back): "
        f"{_words(step, expected, picked, behind, broken)}, and noise explains {noise:.2g}; {agree}"
    )
    return Generation(record, reason, tuple(lines))


def _record(
    decoder: Decoder, candidate: Decoded, agreement: float, noise: float | None
) -> GenerationRecord:
    """The figures of steps none of which has another token."""
    first, *further = candidate.seconds
    return GenerationRecord(
        steps=len(candidate.seconds),
        agreement=agreement,
        first_divergence=None,
        margin=None,
        behind=None,
        noise=noise,
        cache=decoder.form,
        first_token_ms=first * 1e3,
        per_token_ms=statistics.median(further) * 1e3 if further else None,
    )


def _has_nan(decoded: Decoded) -> NDArray[np.bool_]:
    """Decide for each step whether one of its logits is NaN."""
    return np.asarray(np.isnan(decoded.logits).any(axis=1))


def _words(
    step: int,
    expected: NDArray[np.int64],
    picked: NDArray[np.int64],
    behind: NDArray[Any],
    broken: NDArray[np.bool_],
) -> str:
    if broken[step]:
        return "its logits are NaN"
    return (
        f"token {picked[step]} instead of {expected[step]}, whose logit lies "
        f"{behind[step]:.2g} higher in the reference"
    )


def _line(
    step: int,
    expected: NDArray[np.int64],
    picked: NDArray[np.int64],
    reference: Decoded,
    behind: NDArray[Any],
    broken: NDArray[np.bool_],
) -> str:
    margin = _margin(reference.logits[step])
    words = _words(step, expected, picked, behind, broken)
    return f"step {step + 1}: {words}; the reference's two best lie {margin:.2g} apart"


def _margin(logits: NDArray[np.float32]) -> float:
    """The distance of the two best of the logits of a step; 0 where there is but one."""
    if logits.size < 2:
        return 0.0
    best = np.partition(logits, -2)[-2:]
    margin = float(best[1] - best[0])
    return margin if np.isfinite(margin) else 0.0


def _scale(values: NDArray[np.float32]) -> float:
    """The greatest finite magnitude."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0
