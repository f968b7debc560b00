"""How far outputs lie apart, and what noise usually is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.diagnose.distance import Gap, gaps, typical, worst
from harness.diagnose.mutants import furthest

ONE = np.array([3.0, 4.0], np.float32)


def test_a_gap_is_the_norm_of_a_difference_and_its_greatest_element() -> None:
    found = gaps({"y": ONE, "z": ONE}, {"y": ONE + np.array([3, -4], np.float32), "z": ONE})
    assert found == {"y": Gap(5.0, 4.0, 5.0, 4.0), "z": Gap(0.0, 0.0, 4.0, 4.0)}


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
def test_what_has_no_distance_is_changed(other: dict[str, Any]) -> None:
    assert gaps({"y": ONE}, other)["y"].changed


def test_labels_are_equal_or_changed() -> None:
    assert not gaps({"y": np.array([1, 2])}, {"y": np.array([1, 2])})["y"].changed
    assert gaps({"y": np.array([1, 2])}, {"y": np.array([1, 3])})["y"].changed


def test_the_worst_of_several_runs_is_taken_figure_by_figure() -> None:
    assert worst([{"y": Gap(1.0, 5.0)}, {"y": Gap(2.0, 3.0)}, {"y": Gap(changed=True)}]) == {
        "y": Gap(2.0, 5.0, 0.0, 0.0, True)
    }


def test_noise_is_nowhere_less_than_it_usually_is_for_an_output_of_that_size() -> None:
    sets = [{"y": Gap(l2, l2, 10.0 * size, 10.0 * size)} for l2, size in ((1.0, 1), (2.0, 1), (0.0, 2), (9.0, 1))]
    assert [found["y"].l2 for found in typical(sets)] == pytest.approx([1.5, 2.0, 3.0, 9.0])


def test_the_output_that_moved_furthest_is_told_in_units_of_its_noise() -> None:
    noise = {"a": Gap(1.0, 1.0), "b": Gap(1.0, 1.0), "unstable": Gap(changed=True)}
    assert furthest({"a": Gap(2.0, 1.0), "b": Gap(1.0, 3.0), "unstable": Gap(changed=True)}, noise) == ("b", 3.0)
    assert furthest({"a": Gap(), "b": Gap(changed=True)}, noise) == ("b", np.inf)
    assert furthest({"new": Gap(1e-30, 1e-30)}, noise) == ("new", np.inf)
    assert furthest({"a": Gap(), "b": Gap()}, noise) == ("", 0.0)
