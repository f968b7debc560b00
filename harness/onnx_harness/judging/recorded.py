"""The untouched model beside the outputs that somebody recorded.

For most users the framework's only word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnx_harness.accuracy.compare import ComparedSet, Comparison, compare
from onnx_harness.accuracy.noise import Noise
from onnx_harness.accuracy.tolerance import Tolerance, choose, spec_for
from onnx_harness.cards.card import Card
from onnx_harness.judging.noise_floor import noise_floor
from onnx_harness.judging.reference import Reference
from onnx_harness.model.file import Model
from onnx_harness.model.seeding import seeding_of
from onnx_harness.results.cache import Cache
from onnx_harness.settings import Settings
from onnx_harness.transforms import Precision

# What ONNX's own suite allows between the outputs it records and a backend's,
# onnx.backend.test.case.test_case.
_SUITE = Tolerance(rtol=1e-3, atol=1e-7, signed_zero=False)
# Where nobody chose a bound: the suite's, and of the output's greatest magnitude the share that
# float32 sums may leave on an element near zero (accuracy.tolerance, FP32). A framework adds in
# another order, and writes -0 as 0.
_RTOL, _SHARE = 1e-3, 1e-5
# The model's own noise is measured in a few runs, which seldom meet its worst.
_NOISES = 4.0


@dataclass(frozen=True, slots=True)
class _RecordedSet:
    """One recorded input set.

    It has its position in the reference, and the outputs that are compared on it.
    """

    place: int
    expected: Mapping[str, Any]


def missed(
    model: Model, reference: Reference, card: Card, settings: Settings, cache: Cache
) -> Comparison | None:
    """Return :func:`compare_recorded` where the model misses a recorded output.

    None where it gives them all.
    """
    comparison = compare_recorded(model, reference, card, settings, cache)
    return None if comparison is None or comparison.passed else comparison


def compare_recorded(
    model: Model, reference: Reference, card: Card, settings: Settings, cache: Cache
) -> Comparison | None:
    """Compare the reference's outputs with the recorded ones.

    The bound is the card's, or the command line's. Where neither gives one it is ONNX's own for
    recorded outputs, and it yields to four times the untouched model's own noise. Outputs that the
    model draws at random aren't compared.

    Args:
        model: the untouched model.
        reference: its input sets and outputs, and the recorded outputs.
        card: its tolerances; that it is a case of a suite.
        settings: the tolerance of the command line.
        cache: where the noise is kept.

    Returns:
        The comparison, whose sets are numbered as the reference's; None where no outputs were
        recorded.
    """
    sets = _recorded_sets(reference, _drawn(model, reference, card))
    if not sets:
        return None
    comparison = _compared(reference, sets, _tolerances(model, card, settings, None))
    if not comparison.passed and not card.suite:
        noise = noise_floor(model, reference, cache)  # only now, since it's rarely needed
        comparison = _compared(reference, sets, _tolerances(model, card, settings, noise))
    return comparison


def _drawn(model: Model, reference: Reference, card: Card) -> frozenset[str]:
    """Return the outputs that the model draws, or drew before a seed of the card fixed them."""
    seeding = None if card.random_seed is None else seeding_of(model.skeleton)
    return reference.unstable.union(() if seeding is None else seeding.outputs)


def _recorded_sets(reference: Reference, drawn: frozenset[str]) -> list[_RecordedSet]:
    sets = []
    for place, recorded in enumerate(reference.recorded):
        expected = {}
        for name, value in recorded.items():
            if name not in drawn:
                expected[name] = value
        if expected:
            sets.append(_RecordedSet(place, expected))
    return sets


def _compared(
    reference: Reference, sets: Sequence[_RecordedSet], bound: Callable[[str], Tolerance]
) -> Comparison:
    compared = []
    for recorded in sets:
        outputs = reference.outputs[recorded.place]
        given = {name: outputs[name] for name in recorded.expected}
        name = reference.sets[recorded.place].name
        compared.append(ComparedSet(name, recorded.expected, given))
    comparison = compare(compared, bound)
    places = [input_set.place for input_set in sets]
    failures = []
    for failure in comparison.failures:
        failures.append(
            failure if failure.at is None else replace(failure, at=places[failure.at])
        )
    return replace(comparison, failures=tuple(failures))


def _tolerances(
    model: Model, card: Card, settings: Settings, noise: Noise | None
) -> Callable[[str], Tolerance]:
    if card.suite:
        return lambda _: _SUITE
    kinds = {value.name: value.kind for value in model.signature.outputs}

    def bound(output: str) -> Tolerance:
        half = "float16" in kinds.get(output, "")
        precision = Precision.FP16 if half else Precision.FP32
        spec = spec_for(card.tolerance, output)
        chosen = choose(precision, spec=spec, override=settings.tolerance_override)
        if chosen.chosen or not chosen.elementwise:
            return chosen
        default = (
            replace(chosen, signed_zero=False)
            if half
            else replace(chosen, rtol=_RTOL, k=_SHARE, signed_zero=False)
        )
        return default if noise is None else _above(noise, output, default)

    return bound


def _above(noise: Noise, output: str, default: Tolerance) -> Tolerance:
    """Return the default bound, and at least some times the greatest noise of an element.

    The noise is that of any input set.
    """
    gaps = [by_output[output] for by_output in noise.sets if output in by_output]
    if not gaps:
        return default
    scale = max(gap.scale for gap in gaps)
    greatest = max(gap.greatest for gap in gaps)
    _, atol = default.bounds(scale)
    return replace(default, atol=max(atol, _NOISES * greatest))
