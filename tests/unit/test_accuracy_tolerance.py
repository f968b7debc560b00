"""Which tolerance an output gets."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from onnx_harness.accuracy.tolerance import Tolerance, choose, same_values, spec_for
from onnx_harness.cards.card import ToleranceSpec
from onnx_harness.errors import UsageError
from onnx_harness.transforms import Precision


@pytest.mark.parametrize(
    ("precision", "rtol", "k"),
    [
        (Precision.FP32, 1e-4, 1e-5),
        (Precision.FP16, 1e-2, 5e-3),
        (Precision.BF16, 8e-2, 4e-2),
    ],
)
def test_the_default_follows_the_precision(
    precision: Precision, rtol: float, k: float
) -> None:
    tolerance = choose(precision, None, None)
    assert (tolerance.rtol, tolerance.k, tolerance.elementwise) == (rtol, k, True)
    assert tolerance.bounds(20.0) == (rtol, k * 20.0)


@pytest.mark.parametrize(
    ("kind", "rtol"),
    [
        ("tensor(float)", 1e-6),
        ("tensor(double)", 1e-6),
        ("tensor(float16)", 2.0**-10),
        ("seq(tensor(bfloat16))", 2.0**-7),
        ("tensor(float8e5m2)", 0.25),
        ("tensor(float8e4m3fn)", 0.125),
    ],
)
def test_what_keeps_values_may_move_by_a_unit_in_the_last_place_of_a_coarse_type(
    kind: str, rtol: float
) -> None:
    assert same_values(kind) == Tolerance(rtol=rtol, k=1e-6)


@pytest.mark.parametrize(
    ("precision", "decibels", "share", "times", "choices"),
    [
        (Precision.FP32, None, 0.0, 1.0, None),
        (Precision.FP16, 40.0, 1e-3, 10.0, 0.01),
        (Precision.BF16, 25.0, 1e-3, 10.0, 0.01),
        (Precision.INT8, 15.0, 0.0, 1.0, 0.01),
    ],
)
def test_in_a_reduced_type_the_default_is_a_distribution(
    precision: Precision,
    decibels: float | None,
    share: float,
    times: float,
    choices: float | None,
) -> None:
    tolerance = choose(precision, None, None)
    asked = (
        tolerance.sqnr_db,
        tolerance.share_beyond,
        tolerance.most_times,
        tolerance.choices_changed,
    )
    assert asked == (decibels, share, times, choices)


@pytest.mark.parametrize(
    ("spec", "override"),
    [
        (ToleranceSpec(rtol=1e-3), None),
        (ToleranceSpec(atol=1e-3), None),
        (ToleranceSpec(by_precision={"fp16": ToleranceSpec(atol=1e-3)}), None),
        (None, (1e-3, 1e-3)),
    ],
)
def test_a_stated_bound_holds_to_the_letter(
    spec: ToleranceSpec | None, override: tuple[float, float] | None
) -> None:
    tolerance = choose(Precision.FP16, spec, override)
    assert (tolerance.share_beyond, tolerance.most_times, tolerance.choices_changed) == (
        0.0,
        1.0,
        None,
    )
    assert (tolerance.sqnr_db, tolerance.elementwise) == (None, True)


def test_int8_is_judged_by_its_noise_and_not_by_element() -> None:
    tolerance = choose(Precision.INT8, None, None)
    assert (tolerance.sqnr_db, tolerance.elementwise, tolerance.signed_zero) == (
        15.0,
        False,
        False,
    )


def test_what_a_card_leaves_out_keeps_its_default() -> None:
    tolerance = choose(Precision.FP32, ToleranceSpec(atol=1e-3), None)
    assert tolerance.bounds(20.0) == (1e-4, 1e-3)
    assert tolerance.signed_zero
    assert not choose(Precision.FP32, ToleranceSpec(signed_zero=False), None).signed_zero


def test_a_card_s_decibels_replace_the_element_wise_rule_unless_it_gives_both() -> None:
    alone = choose(Precision.FP32, ToleranceSpec(sqnr_db=30.0), None)
    both = choose(Precision.FP32, ToleranceSpec(sqnr_db=30.0, rtol=1e-1), None)
    assert (alone.sqnr_db, alone.elementwise) == (30.0, False)
    assert (both.sqnr_db, both.elementwise, both.rtol) == (30.0, True, 1e-1)


def test_a_card_s_bound_is_never_ignored_on_int8() -> None:
    tolerance = choose(Precision.INT8, ToleranceSpec(atol=1e-3), None)
    assert (tolerance.elementwise, tolerance.sqnr_db) == (True, 15.0)
    assert tolerance.bounds(1.0) == (0.0, 1e-3)


def test_the_command_line_beats_the_card_but_leaves_integers_and_zeros_alone() -> None:
    card = ToleranceSpec(rtol=1.0, atol=2.0, sqnr_db=3.0, signed_zero=False)
    tolerance = choose(Precision.INT8, card, (0.5, 0.25))
    assert tolerance.bounds(100.0) == (0.5, 0.25)
    assert (tolerance.elementwise, tolerance.sqnr_db) == (True, None)
    assert (tolerance.integer_atol, tolerance.signed_zero) == (2.0, False)


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize(
    "card",
    [None, ToleranceSpec(cosine=0.9), ToleranceSpec(top_k=5), ToleranceSpec(sqnr_db=9.0)],
)
def test_the_command_line_leaves_nothing_but_its_two_bounds(
    precision: Precision, card: ToleranceSpec | None
) -> None:
    tolerance = choose(precision, card, (0.5, 0.25))
    signed = precision is not Precision.INT8
    assert tolerance == Tolerance(
        rtol=0.5, atol=0.25, k=tolerance.k, chosen=True, signed_zero=signed
    )


@pytest.mark.parametrize(
    ("card", "stated"),
    [
        (ToleranceSpec(cosine=0.9), {"cosine": 0.9}),
        (ToleranceSpec(sqnr_db=9.0), {"sqnr_db": 9.0}),
        (ToleranceSpec(top_k=5, agreement=0.75), {"top_k": 5, "agreement": 0.75}),
        (ToleranceSpec(top_k=5, cosine=0.0), {"top_k": 5, "cosine": 0.0}),
    ],
)
def test_a_card_s_own_measure_takes_the_place_of_the_default_ones(
    card: ToleranceSpec, stated: dict[str, float]
) -> None:
    expected = Tolerance(rtol=1e-2, k=5e-3, elementwise=False, **stated)  # type: ignore[arg-type]
    assert choose(Precision.FP16, card, None) == expected
    bounded = replace(card, atol=0.5)
    expected = replace(expected, elementwise=True, atol=0.5, integer_atol=0.5, chosen=True)
    assert choose(Precision.FP16, bounded, None) == expected


def test_agreement_alone_changes_nothing_else() -> None:
    agreed = choose(Precision.FP16, ToleranceSpec(agreement=0.5), None)
    assert agreed == replace(choose(Precision.FP16, None, None), agreement=0.5)


@pytest.mark.parametrize("field", ["rtol", "atol", "k", "integer_atol", "sqnr_db"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_figure_of_a_tolerance_may_be_infinite(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"{field} is a finite number .* {value!r} isn't"):
        Tolerance(**{"rtol": 0.0, field: value})  # type: ignore[arg-type]


def test_decibels_may_be_negative_and_bounds_zero() -> None:
    assert Tolerance(rtol=0.0, atol=0.0, k=0.0, sqnr_db=-3.0).sqnr_db == -3.0
    with pytest.raises(
        UsageError, match=r"k is a finite number that isn't negative; -0\.5 isn't"
    ):
        Tolerance(rtol=0.0, k=-0.5)


def test_an_output_s_own_entry_is_completed_by_the_one_for_all() -> None:
    entries = {
        "*": ToleranceSpec(rtol=1.0, signed_zero=False),
        "probs": ToleranceSpec(rtol=2.0),
    }
    assert spec_for(entries, "probs") == ToleranceSpec(rtol=2.0, signed_zero=False)
    assert spec_for(entries, "boxes") == entries["*"]
    assert spec_for({}, "boxes") is None


def test_for_one_precision_too_an_output_s_own_entry_goes_before_the_one_for_all() -> None:
    general = ToleranceSpec(
        by_precision={"fp16": ToleranceSpec(rtol=1.0), "int8": ToleranceSpec(sqnr_db=5.0)}
    )
    own = ToleranceSpec(by_precision={"fp16": ToleranceSpec(rtol=2.0)})
    chosen = spec_for({"*": general, "probs": own}, "probs")
    assert chosen is not None
    assert chosen.by_precision == {**general.by_precision, **own.by_precision}


@pytest.mark.parametrize("bounds", [(-1.0, 0.0), (0.0, math.inf), (math.nan, 0.0)])
def test_a_bound_that_is_no_bound_is_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="isn't negative"):
        choose(Precision.FP32, None, bounds)


def test_scaling_keeps_the_two_bounds_in_proportion() -> None:
    assert Tolerance(rtol=1e-4, k=1e-5).scaled(10).bounds(2.0) == pytest.approx((1e-3, 2e-4))
    assert Tolerance(rtol=1e-4, atol=1e-3).scaled(10).bounds(2.0) == pytest.approx(
        (1e-3, 1e-2)
    )


def test_a_card_can_loosen_one_precision_and_leave_the_others() -> None:
    spec = ToleranceSpec(by_precision={"fp16": ToleranceSpec(atol=0.02)})

    assert choose(Precision.FP16, spec=spec, override=None).atol == 0.02
    assert choose(Precision.FP32, spec=spec, override=None) == choose(
        Precision.FP32, None, None
    )
