"""A whole comparison: that every check is asked, of every output and set, with what it's to know."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnx_harness.accuracy.compare import ComparedSet, Comparison, compare
from onnx_harness.accuracy.explain import Yardstick
from onnx_harness.accuracy.failures import Check, Question
from onnx_harness.accuracy.noise import Gap, Noise, gap_of
from onnx_harness.accuracy.tolerance import Tolerance, choose
from onnx_harness.cards.card import ToleranceSpec
from onnx_harness.transforms import Precision

FP16 = choose(Precision.FP16, None, None)
WIDE = Tolerance(rtol=100.0, atol=100.0)
ODDS = np.tile(np.array([[0.75, 0.25]], np.float32), (200, 1))
LINE = np.linspace(-1, 1, 1000, dtype=np.float32)


def compared(
    *pairs: tuple[Any, Any],
    tolerance: Tolerance = WIDE,
    yardstick: Yardstick | None = None,
    **flags: Any,
) -> Comparison:
    """Compare an output ``y`` in some sets; with names where a pair is one of mappings."""
    sets = []
    for place, pair in enumerate(pairs):
        sides = [
            each if isinstance(each, dict) and "y" in each else {"y": each} for each in pair
        ]
        sets.append(ComparedSet(f"set {place}", sides[0], sides[1], **flags))
    return compare(sets, lambda _: tolerance, yardstick=yardstick)


def failed(comparison: Comparison) -> list[tuple[str, Check]]:
    return [(failure.output, failure.check) for failure in comparison.failures]


QUIET = Yardstick(
    Noise(({"y": Gap(l2=100.0, greatest=0.01, norm=1.0, scale=1.0, size=400)},))
)


@pytest.mark.parametrize(
    ("reference", "candidate", "tolerance", "yardstick", "check"),
    [
        (
            ODDS,
            ODDS[:, ::-1].copy(),
            replace(WIDE, choices_changed=0.01),
            QUIET,
            Check.AGREEMENT,
        ),
        (ODDS, ODDS[:, ::-1].copy(), replace(WIDE, top_k=1), None, Check.AGREEMENT),
        (ODDS, ODDS[:, ::-1].copy(), replace(WIDE, cosine=0.99), None, Check.COSINE),
        (ODDS, ODDS[:, ::-1].copy(), replace(WIDE, sqnr_db=20.0), None, Check.SQNR),
        (ODDS, ODDS[:, ::-1].copy(), Tolerance(rtol=0.0, atol=0.25), None, Check.ELEMENTS),
        (ODDS, ODDS * np.float32(np.nan), WIDE, None, Check.NONFINITE),
        (0 * ODDS, -0.0 * ODDS, WIDE, None, Check.SIGNED_ZERO),
    ],
)
def test_each_check_is_asked(
    reference: Any, candidate: Any, tolerance: Tolerance, yardstick: Any, check: Check
) -> None:
    found = compared(
        (reference, candidate), tolerance=tolerance, yardstick=yardstick
    ).failures
    [failure] = [each for each in found if each.check is not Check.FAITHFUL]
    assert (failure.output, failure.check) == ("y", check)
    assert (failure.input_set, failure.at) == ("input set 1 of 1 (set 0)", 0)
    assert failure.question is (Question.NEITHER if yardstick is None else Question.USABLE)
    assert compared(
        (reference, reference.copy()), tolerance=tolerance, yardstick=yardstick
    ).passed


def noise_of(*pairs: tuple[Any, Any], **more: Any) -> Yardstick:
    return Yardstick(Noise(tuple({"y": gap_of(*pair)} for pair in pairs), **more))


def test_a_default_ratio_yields_to_the_model_s_own_noise() -> None:
    noisy = LINE + np.float32(0.05) * np.where(np.arange(1000) % 2, 1, -1).astype(np.float32)
    plain = compared((LINE, noisy), tolerance=FP16)
    assert Check.SQNR in [failure.check for failure in plain.failures]
    explained = compared((LINE, noisy), tolerance=FP16, yardstick=noise_of((LINE, noisy)))
    assert explained.passed
    assert explained.record.outputs["y"].departure == "noise"
    stated = choose(Precision.FP16, ToleranceSpec(sqnr_db=40.0), None)
    asked = compared((LINE, noisy), tolerance=stated, yardstick=noise_of((LINE, noisy)))
    assert failed(asked) == [("y", Check.SQNR)]


def test_signs_of_zero_that_the_noise_changes_in_another_set_stand() -> None:
    zeros = np.zeros(8, np.float32)
    yardstick = noise_of((zeros, -zeros), (zeros, zeros), has_tail=True)
    pairs = ((zeros, zeros), (zeros, -zeros))
    assert compared(*pairs, yardstick=yardstick).passed
    assert failed(compared(*pairs)) == [("y", Check.SIGNED_ZERO)]
    assert compared(*pairs, saturated=True).passed


def test_a_usual_set_is_explained_even_where_nothing_was_measured() -> None:
    comparison = compared((LINE, LINE), yardstick=Yardstick(Noise(({},))))
    assert (comparison.faithful, comparison.usable) == (True, True)


def test_integers_that_last_bits_change_are_told() -> None:
    whole, other = np.arange(10), np.arange(10)
    other[3] = 99
    comparison = compared((whole, other), yardstick=noise_of((whole, other)))
    assert comparison.passed
    stands = "y: 1 elements differ, which stands: the model's own last bits change 1"
    assert stands in comparison.notes
    assert compared((whole, whole), yardstick=noise_of((whole, other))).notes == ()


def test_outputs_that_prove_nothing_alike_are_told_together() -> None:
    sides = {"y": LINE, "x": LINE, "z": LINE[:1]}
    later = {**sides, "z": LINE[:1] + 1}
    comparison = compared((sides, sides), (later, later))
    assert comparison.notes == (
        "comparing y, x proves nothing: each is identical for all 2 input sets",
    )
    assert comparison.record.input_sets == 2


def test_an_output_that_is_missing_hides_none_that_follows() -> None:
    comparison = compared(({"x": LINE, "y": LINE}, {"y": LINE + 1000}))
    assert failed(comparison) == [("x", Check.NAMES), ("y", Check.ELEMENTS)]


def test_the_scores_of_a_map_are_judged_by_the_greatest_of_them() -> None:
    tolerance = Tolerance(rtol=0.0, k=1e-5)
    scores = {"y": {0: 4.0, 1: 0.001}}
    near = {"y": {0: 4.0, 1: 0.001 + 3e-5}}
    far = {"y": {0: 4.0, 1: 0.001 + 5e-5}}
    assert compared((scores, near), tolerance=tolerance).passed
    assert failed(compared((scores, far), tolerance=tolerance)) == [("y", Check.ELEMENTS)]
    alone = compared((np.array([0.001]), np.array([0.001 + 3e-5])), tolerance=tolerance)
    assert failed(alone) == [("y", Check.ELEMENTS)]


@pytest.mark.parametrize("turned", [False, True])
def test_where_structures_part_in_one_set_no_tolerance_passes(turned: bool) -> None:
    pairs = [([LINE], [LINE, LINE]), (LINE, LINE)]
    comparison = compared(*(pairs[::-1] if turned else pairs))
    assert failed(comparison) == [("y", Check.SHAPE)]
    assert comparison.record.outputs["y"].minimum_tolerance is None
    assert comparison.inert == frozenset()


def test_an_optional_that_is_absent_on_both_sides_proves_nothing() -> None:
    absent = compared((None, None), (None, None))
    assert absent.record.outputs["y"].vacuous == "is absent in every input set"
    assert (absent.passed, absent.inert) == (True, frozenset("y"))
    sometimes = compared((None, None), (LINE, LINE))
    assert sometimes.record.outputs["y"].vacuous is None
    assert sometimes.inert == frozenset()  # that it's there is a trace of the inputs


def test_errors_of_floats_have_a_distribution() -> None:
    errors = compared((LINE, LINE + np.float32(0.5))).record.outputs["y"].errors
    assert errors is not None
    assert errors.equal + sum(errors.shares.values()) == LINE.size
    assert compared((np.arange(3), np.arange(3))).record.outputs["y"].errors is None
