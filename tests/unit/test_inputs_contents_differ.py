"""Sets that differ in their sizes alone say nothing of whether an output reacts to what they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_harness.inputs.values.sets import InputSet, contents_differ

ONE, TWO = np.full((2, 3), 1.5, np.float32), np.full((2, 3), 2.5, np.float32)


@pytest.mark.parametrize(
    ("first", "second", "differ"),
    [
        (ONE, ONE, False),
        (ONE, ONE[:1], False),
        (ONE, TWO, True),
        (ONE, TWO[:1], True),
        (np.arange(3), np.arange(4), True),
        (np.array(["a"] * 8, object), np.array(["a"], object), False),
        (np.array(["a"] * 8, object), np.array(["b"], object), True),
        (ONE, ONE[:0], True),
        ([ONE], [ONE[:1]], True),
    ],
)
def test_one_value_in_another_size_is_no_difference(
    first: Any, second: Any, differ: bool
) -> None:
    sets = [InputSet("", {"x": first}), InputSet("", {"x": second})]
    assert contents_differ(sets) is differ


def test_every_input_has_to_hold_the_same() -> None:
    sets = [
        InputSet("", {"x": ONE, "y": ONE}),
        InputSet("", {"x": ONE[:1], "y": TWO}),
    ]
    assert contents_differ(sets)
