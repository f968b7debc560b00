"""How far a mutant lies from the unmutated model, in units of noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_harness.accuracy.explain import Yardstick
from onnx_harness.accuracy.noise import Gap, Noise
from onnx_harness.mutation.distance import furthest

ONE = np.array([3.0, 4.0], np.float32)


def noise(**outputs: Gap) -> Yardstick:
    return Yardstick(Noise((outputs,)))


USUAL = noise(y=Gap(l2=0.5, greatest=0.5, norm=5.0, scale=4.0, size=2))


def test_an_output_is_as_far_as_its_norm_or_its_worst_element_says() -> None:
    assert furthest({"y": ONE}, {"y": ONE}, USUAL, 0) == ("", 0.0)
    name, times = furthest(
        {"y": ONE}, {"y": ONE + np.array([1.5, 2.0], np.float32)}, USUAL, 0
    )
    assert (name, round(times, 3)) == ("y", 5.0)
    several = noise(a=Gap(1, 1, 5, 4, size=2), b=Gap(1, 1, 5, 4, size=2))
    shift = np.array([0.0, 2.0], np.float32)
    name, times = furthest(
        {"a": ONE, "b": ONE}, {"a": ONE + shift, "b": ONE + 2 * shift}, several, 0
    )
    assert (name, round(times, 3)) == ("b", 4.0)


@pytest.mark.parametrize(
    "other",
    [
        {"y": ONE[:1]},
        {"y": ONE.astype(np.float64)},
        {"y": np.array([3.0, np.nan], np.float32)},
        {"y": [ONE]},
        {},
    ],
)
def test_what_has_no_distance_is_infinitely_far(other: dict[str, Any]) -> None:
    assert furthest({"y": ONE}, other, USUAL, 0) == ("y", np.inf)


def test_labels_are_equal_or_infinitely_far() -> None:
    labels = noise(y=Gap(size=2))
    assert furthest({"y": np.array([1, 2])}, {"y": np.array([1, 2])}, labels, 0) == ("", 0.0)
    assert furthest({"y": np.array([1, 2])}, {"y": np.array([1, 3])}, labels, 0) == (
        "y",
        np.inf,
    )


@pytest.mark.parametrize("gap", [Gap(changed=1, size=2), Gap(nonfinite=1, size=2)])
def test_what_noise_alone_changes_says_nothing(gap: Gap) -> None:
    assert furthest({"y": np.array([1, 2])}, {"y": np.array([1, 3])}, noise(y=gap), 0) == (
        "",
        0.0,
    )
    assert furthest({"y": ONE}, {"y": ONE + 1}, noise(y=gap), 0) == ("", 0.0)


def test_the_scores_of_a_map_are_one_vector() -> None:
    maps = noise(p=Gap(0.5, 0.5, 5.0, 4.0, size=2))
    name, times = furthest(
        {"p": [{"a": 3.0, "b": 4.0}]}, {"p": [{"a": 3.0, "b": 6.0}]}, maps, 0
    )
    assert (name, round(times, 3)) == ("p", 4.0)
