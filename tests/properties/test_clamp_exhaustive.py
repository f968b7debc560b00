"""The clamp round every float16 value: each, its float32 neighbours, each midpoint and the
midpoint's neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_harness.transforms import float16_rounding
from onnx_harness.transforms.float16 import clamp
from tests.properties.clamp_laws import (
    bit_for_bit_what_the_definition_says,
    bit_for_bit_what_the_library_gives,
)
from tests.properties.clamp_oracle import Limits
from tests.properties.clamp_values import NAMED_LIMITS, around, cast

EVERY_FLOAT16 = np.arange(1 << 16)


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
@pytest.mark.parametrize("limits", NAMED_LIMITS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_neighbourhood_of_every_float16(
    dtype: type[Any], limits: Limits, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "numpy":
        monkeypatch.setattr(float16_rounding, "_ort_cast", lambda: None)
    single = dtype is np.float32
    for midway in (False, True):
        for nudge in (-1, 0, 1):
            values = cast(around(EVERY_FLOAT16, midway, nudge, single), np.dtype(dtype))
            bit_for_bit_what_the_definition_says(clamp, values, limits)
            bit_for_bit_what_the_library_gives(clamp, values, limits)


@pytest.mark.parametrize("limits", NAMED_LIMITS, ids=str)
def test_every_float16_as_a_float16(limits: Limits) -> None:
    values = EVERY_FLOAT16.astype(np.uint16).view(np.float16)
    bit_for_bit_what_the_definition_says(clamp, values, limits)
    bit_for_bit_what_the_library_gives(clamp, values, limits)


def test_the_neighbourhoods_are_those_of_float16() -> None:
    finite = EVERY_FLOAT16[EVERY_FLOAT16 & 0x7FFF < 0x7C00].astype(np.uint16)
    halves = finite.view(np.float16)
    np.testing.assert_array_equal(around(finite, False, 0, True), halves.astype(np.float64))
    positive = halves[: halves.size // 2].astype(np.float64)
    middles = (positive[1:] + positive[:-1]) / 2
    np.testing.assert_array_equal(around(finite[: middles.size], True, 0, True), middles)
    for dtype in (np.float32, np.float64):
        above = around(finite[1 : middles.size], True, 1, dtype is np.float32)
        np.testing.assert_array_equal(
            above, np.nextafter(middles[1:].astype(dtype), dtype(np.inf))
        )
