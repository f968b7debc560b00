"""The clamp of the float16 conversions keeps its laws, on any floats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_harness.transforms.float16 import clamp
from tests.properties.clamp_laws import (
    LAWS,
    Law,
    bit_for_bit_what_the_definition_says,
    bit_for_bit_what_the_library_gives,
    every_clamped_value_is_counted,
)
from tests.properties.clamp_oracle import Floats, Limits
from tests.properties.clamp_values import DTYPES, LIMITS, arrays, bulk

SEEDS = st.integers(0, 2**63)


def one_in(share: int) -> settings:
    """A share of the profile's examples where each is dear, so that a night on the clamp takes
    minutes.
    """
    examples = settings().max_examples
    return settings(max_examples=max(min(examples, 50), examples // share))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@one_in(10)
@given(array=arrays(), limits=LIMITS)
def test_the_clamp_keeps_the_law(law: Law, array: Floats, limits: Limits) -> None:
    law(clamp, array, limits)


@one_in(4)
@given(seed=SEEDS, dtype=st.sampled_from(DTYPES), limits=LIMITS)
def test_the_clamp_keeps_every_law_on_thousands_of_values(
    seed: int, dtype: np.dtype[np.floating], limits: Limits
) -> None:
    array = bulk(seed, 5000, dtype)  # enough for ONNX Runtime's cast
    for law in LAWS:
        law(clamp, array, limits)


@one_in(10)
@given(seed=SEEDS, limits=LIMITS)
def test_longdoubles_are_what_the_library_gives(seed: int, limits: Limits) -> None:
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        array = bulk(seed, 500, np.dtype(np.float64)).astype(np.longdouble)
        array = np.nextafter(array, rng.normal(size=array.size).astype(np.longdouble))
        # Beyond float64 too.
        array = np.ldexp(array, rng.choice([0, 0, 0, 900, -900], array.size))
    bit_for_bit_what_the_library_gives(clamp, array, limits)


@one_in(50)
@given(seed=SEEDS, at=st.integers(0, 2**18), few=st.booleans(), limits=LIMITS)
def test_a_long_array_is_clamped_wherever_it_has_to_be(
    seed: int, at: int, few: bool, limits: Limits
) -> None:
    array = np.linspace(-3, 3, 2**18 + 2000, dtype=np.float32)
    some = 64 if few else 2000
    array[at : at + some] = bulk(seed, some, array.dtype)
    bit_for_bit_what_the_definition_says(clamp, array, limits)
    every_clamped_value_is_counted(clamp, array, limits)
