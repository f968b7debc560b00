"""Broken on purpose: clamps that are wrong in one thing each, and the laws that must see it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from onnx_harness.transforms.float16 import Clamped, clamp
from tests.properties import clamp_laws as laws
from tests.properties.clamp_laws import LAWS, Clamp, Law
from tests.properties.clamp_oracle import Floats, Limits, doubles
from tests.properties.clamp_values import LIMITS, arrays

SEARCH = settings(
    max_examples=5000,  # the hardest pair needs some 300
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def with_array(right: Clamped, array: npt.NDArray[np.float16]) -> Clamped:
    return dataclasses.replace(right, array=array)


def only_casts(array: Floats, low: float, high: float) -> Clamped:
    with np.errstate(all="ignore"):
        return with_array(clamp(array, low, high), np.asarray(array.astype(np.float16)))


def truncates(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    up = np.abs(right.array).astype(np.float64) > np.maximum(np.abs(doubles(array)), low)
    return with_array(
        right,
        np.where(
            up & np.isfinite(right.array),
            np.nextafter(right.array, np.float16(0)),
            right.array,
        ),
    )


def takes_ties_away_from_zero(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    beyond = np.nextafter(right.array, np.copysign(np.float16(np.inf), right.array))
    with np.errstate(all="ignore"):
        middle = (doubles(right.array) + doubles(beyond)) / 2
    tie = (middle == doubles(array)) & (np.abs(middle) < high) & (np.abs(middle) > low)
    return with_array(right, np.where(tie, beyond, right.array))


def rounds_twice(array: Floats, low: float, high: float) -> Clamped:
    with np.errstate(all="ignore"):
        return with_array(
            clamp(array, low, high), clamp(array.astype(np.float32), low, high).array
        )


def forgets_the_sign_of_what_it_clamps(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    magnitudes = np.abs(doubles(array))
    inside = (magnitudes >= low) & (magnitudes <= high)
    return with_array(right, np.where(inside, right.array, np.abs(right.array)))


def forgets_the_sign_of_zero(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    return with_array(right, right.array + np.float16(0))


def raises_zero(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    return with_array(
        right,
        np.where(right.array == 0, np.copysign(np.float16(low), right.array), right.array),
    )


def flushes_subnormals(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    small = np.abs(right.array) < np.finfo(np.float16).smallest_normal
    return with_array(
        right, np.where(small, np.copysign(np.float16(0), right.array), right.array)
    )


def lowers_infinity(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    return with_array(right, np.clip(right.array, -np.float16(high), np.float16(high)))


def makes_a_number_of_nan(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    return with_array(right, np.where(np.isnan(right.array), np.float16(high), right.array))


def knows_only_the_default_limits(array: Floats, _low: float, _high: float) -> Clamped:
    return clamp(array)


def is_a_step_low_above_one(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    odd = (
        (np.abs(right.array) >= 1)
        & np.isfinite(right.array)
        & (right.array.view(np.uint16) % 2 == 1)
    )
    return with_array(
        right, np.where(odd, -np.nextafter(-right.array, np.float16(np.inf)), right.array)
    )


def turns_neighbours_round(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    inside = (np.abs(right.array) > 2 * np.float16(low)) & (
        np.abs(right.array) < np.float16(high) / 2
    )
    return with_array(
        right,
        np.where(inside, (right.array.view(np.uint16) ^ 1).view(np.float16), right.array),
    )


def is_flat(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    return with_array(right, right.array.reshape(-1))


def is_always_in_c_order(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    return with_array(right, right.array.copy(order="C"))


def leaves_gaps(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    return with_array(
        right, np.repeat(right.array, 2, axis=-1)[..., ::2] if array.ndim else right.array
    )


def writes_to_its_input(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    if array.flags.writeable:
        array[...] = right.array.astype(array.dtype)
    return right


def makes_its_input_read_only(array: Floats, low: float, high: float) -> Clamped:
    array.flags.writeable = False
    return clamp(array, low, high)


def gives_float16_back_as_it_is(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    same: Any = array
    return (
        with_array(right, same)
        if array.dtype == np.float16 and not right.raised + right.lowered
        else right
    )


def counts_zero_as_raised(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    return dataclasses.replace(
        right, raised=right.raised + int(np.count_nonzero(right.array == 0))
    )


def counts_infinity_as_lowered(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    return dataclasses.replace(
        right, lowered=right.lowered + int(np.count_nonzero(np.isinf(right.array)))
    )


def counts_the_limit_itself(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    return dataclasses.replace(
        right, lowered=int(np.count_nonzero(np.isfinite(array) & (np.abs(array) >= high)))
    )


def gives_the_limit_for_the_largest(array: Floats, low: float, high: float) -> Clamped:
    right = clamp(array, low, high)
    return dataclasses.replace(right, largest=None if right.largest is None else high)


DEFINITION = (
    laws.bit_for_bit_what_the_definition_says,
    laws.bit_for_bit_what_the_library_gives,
)
SEEN_BY: dict[Clamp, tuple[Law, ...]] = {
    only_casts: (
        *DEFINITION,
        laws.finite_stays_finite_and_nan_stays_nan,
        laws.only_zero_becomes_zero,
        laws.limits_hold,
    ),
    truncates: (*DEFINITION, laws.half_a_step_away_at_most),
    takes_ties_away_from_zero: DEFINITION,
    rounds_twice: (*DEFINITION, laws.half_a_step_away_at_most),
    forgets_the_sign_of_what_it_clamps: (
        *DEFINITION,
        laws.the_sign_is_kept,
        laws.order_is_kept,
    ),
    forgets_the_sign_of_zero: (*DEFINITION, laws.the_sign_is_kept),
    raises_zero: (*DEFINITION, laws.only_zero_becomes_zero),
    flushes_subnormals: (
        *DEFINITION,
        laws.only_zero_becomes_zero,
        laws.half_a_step_away_at_most,
    ),
    lowers_infinity: (*DEFINITION, laws.finite_stays_finite_and_nan_stays_nan),
    makes_a_number_of_nan: (*DEFINITION, laws.finite_stays_finite_and_nan_stays_nan),
    knows_only_the_default_limits: (
        *DEFINITION,
        laws.limits_hold,
        laws.every_clamped_value_is_counted,
    ),
    is_a_step_low_above_one: (*DEFINITION, laws.half_a_step_away_at_most),
    turns_neighbours_round: (*DEFINITION, laws.order_is_kept, laws.twice_is_once),
    is_flat: (laws.shape_and_layout_are_kept,),
    is_always_in_c_order: (laws.shape_and_layout_are_kept,),
    leaves_gaps: (laws.shape_and_layout_are_kept,),
    writes_to_its_input: (laws.the_input_is_untouched,),
    makes_its_input_read_only: (laws.the_input_is_untouched,),
    gives_float16_back_as_it_is: (laws.the_input_is_untouched,),
    counts_zero_as_raised: (laws.every_clamped_value_is_counted,),
    counts_infinity_as_lowered: (laws.every_clamped_value_is_counted,),
    counts_the_limit_itself: (laws.every_clamped_value_is_counted,),
    gives_the_limit_for_the_largest: (laws.every_clamped_value_is_counted,),
}


def put_before(law: Law, broken: Clamp) -> None:
    @SEARCH
    @given(array=arrays(), limits=LIMITS)
    def search(array: Floats, limits: Limits) -> None:
        with np.errstate(all="ignore"):  # a broken clamp's own arithmetic may overflow
            law(broken, array, limits)

    search()


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        pytest.param(broken, law, id=f"{broken.__name__}-{law.__name__}")
        for broken, seeing in SEEN_BY.items()
        for law in seeing
    ],
)
def test_a_broken_clamp_is_seen(broken: Clamp, law: Law) -> None:
    with pytest.raises(AssertionError):
        put_before(law, broken)


def test_every_law_sees_something() -> None:
    assert {law for seeing in SEEN_BY.values() for law in seeing} == set(LAWS)
