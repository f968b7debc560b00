"""Two questions: is a departure explained, and is it within the user's bound."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from onnx_harness.accuracy.compare import Comparison
from onnx_harness.accuracy.explain import MOST_ELEMENT, MOST_L2, Yardstick
from onnx_harness.accuracy.noise import Gap, Noise, gap_of, gaps, worst
from onnx_harness.accuracy.tolerance import Tolerance, choose
from onnx_harness.cards.card import ToleranceSpec
from onnx_harness.transforms import Precision
from tests.comparing import compare

RNG = np.random.default_rng(3)
Y = RNG.standard_normal((8, 100)).astype(np.float32)
ERROR = RNG.standard_normal(Y.shape).astype(np.float32)
FP16 = choose(Precision.FP16, None, None)
LOOSE = Tolerance(rtol=10.0, atol=10.0)


def noise(*changed: Any, reference: Any = Y) -> Noise:
    return Noise(tuple({"y": gap_of(reference, each)} for each in changed))


def rounded(error: float) -> Yardstick:
    """What explains ``error`` as the ideal conversion's, on a model that makes no noise."""
    ideal = noise(Y + np.float32(error) * ERROR)
    return Yardstick(noise(Y), ideal, ideal, "float16")


def judged(
    candidate: Any,
    yardstick: Yardstick | None,
    tolerance: Tolerance = LOOSE,
    reference: Any = Y,
) -> Comparison:
    sets = ["one"]
    return compare(
        [{"y": reference}],
        [{"y": candidate}],
        lambda _: tolerance,
        set_names=sets,
        yardstick=yardstick,
    )


@pytest.mark.parametrize("times", [0.1, 1.0, 3.9])
def test_what_the_ideal_conversion_does_is_faithful(times: float) -> None:
    comparison = judged(Y + np.float32(times * 1e-3) * ERROR, rounded(1e-3))
    assert comparison.passed
    output = comparison.record.outputs["y"]
    assert (output.faithful, output.usable, output.departure) == (True, True, "change")
    assert output.factor == pytest.approx(times, rel=1e-2)
    assert output.ideal_rel_l2 == pytest.approx(1e-3, rel=0.1)


def test_ten_times_the_ideal_is_not_faithful_however_wide_the_bound() -> None:
    comparison = judged(Y + np.float32(1e-2) * ERROR, rounded(1e-3))
    assert not comparison.passed
    reason = comparison.reason()
    assert reason is not None
    assert reason.startswith(
        "not faithful: output y departs by 9.5e-03 (relative L2), 10 times what ideal float16 does"
    )
    assert "at most 4x" in reason
    assert (comparison.faithful, comparison.usable) == (False, True)


@pytest.mark.parametrize(("cost", "faithful"), [(0.5, False), (1.5, True)])
def test_an_ideal_that_leaves_nothing_says_nothing_of_the_conversion(
    cost: float, faithful: bool
) -> None:
    comparison = judged(Y + np.float32(10 * cost) * ERROR, rounded(cost))
    assert not comparison.passed
    assert (comparison.faithful, comparison.usable) == (faithful, False)
    assert ("which leaves nothing of it either" in str(comparison.reason())) is faithful


def test_one_wrong_element_among_many_good_ones_is_not_faithful() -> None:
    candidate = Y + np.float32(1e-3) * ERROR
    candidate[4, 50] += 0.05
    comparison = judged(candidate, rounded(1e-3))
    assert comparison.record.outputs["y"].factor is not None
    assert comparison.record.outputs["y"].factor < MOST_L2
    assert "at [4, 50]" in str(comparison.reason())
    assert f"at most {MOST_ELEMENT:g}x" in str(comparison.reason())


def test_what_the_type_costs_may_be_more_than_the_user_can_bear() -> None:
    comparison = judged(Y + np.float32(0.1) * ERROR, rounded(0.1), FP16)
    assert (comparison.faithful, comparison.usable) == (True, False)
    assert str(comparison.reason()).startswith("faithful, but not usable: output y: ")


def test_exact_noise_and_change_are_three_words() -> None:
    last_bits = np.nextafter(Y, np.float32(9))
    yardstick = Yardstick(noise(last_bits))
    words = [
        judged(each, yardstick).record.outputs["y"].departure
        for each in (Y, last_bits, Y * np.float32(1.01))
    ]
    assert words == ["exact", "noise", "change"]


@pytest.mark.parametrize("appears", [True, False])
def test_a_nan_on_one_side_alone_is_a_change_and_no_noise(appears: bool) -> None:
    holed = Y.copy()
    holed[0, 0] = np.nan
    reference, candidate = (Y, holed) if appears else (holed, Y)
    output = judged(
        candidate, Yardstick(noise(reference, reference=reference)), reference=reference
    )
    assert output.record.outputs["y"].departure == "change"


def test_an_output_that_fails_on_an_unusual_set_alone_is_not_usable() -> None:
    yardstick = Yardstick(Noise((*noise(Y).sets, {})))
    comparison = compare(
        [{"y": Y}] * 2,
        [{"y": Y}, {"y": 2 * Y}],
        lambda _: FP16,
        set_names="ab",
        unusual=[False, True],
        yardstick=yardstick,
    )
    assert (comparison.faithful, comparison.usable) == (True, False)


@pytest.mark.parametrize("place", [0, 1])
def test_an_output_that_is_missing_from_one_set_is_neither_faithful_nor_usable(
    place: int,
) -> None:
    candidate = [{"y": Y}] * 2
    candidate[place] = {}
    yardstick = Yardstick(noise(Y, Y))
    comparison = compare(
        [{"y": Y}] * 2, candidate, lambda _: FP16, set_names="ab", yardstick=yardstick
    )
    output = comparison.record.outputs["y"]
    assert (output.faithful, output.usable, output.departure) == (False, False, "change")


def test_a_floor_of_nothing_still_leaves_the_last_places() -> None:
    yardstick = Yardstick(noise(Y))
    assert judged(np.nextafter(Y, np.float32(9)), yardstick).passed
    assert not judged(Y * np.float32(1 + 3e-6), yardstick).passed


def test_without_a_measured_floor_only_the_bound_is_asked_for() -> None:
    comparison = judged(Y + np.float32(0.1) * ERROR, None, FP16)
    assert not comparison.passed
    assert str(comparison.reason()).startswith("output y: ")
    output = comparison.record.outputs["y"]
    assert (output.faithful, output.usable, output.departure, comparison.faithful) == (
        None,
        None,
        None,
        None,
    )


def test_a_tiny_output_within_its_noise_is_usable_by_default_and_not_by_a_bound_of_the_card() -> (
    None
):
    tiny = Y * np.float32(1e-8)
    moved = tiny * np.float32(1 + 1e-3)
    yardstick = Yardstick(noise(moved, reference=tiny))
    assert not judged(moved, None, choose(Precision.FP32, None, None), tiny).passed
    assert judged(moved, yardstick, choose(Precision.FP32, None, None), tiny).passed
    strict = choose(Precision.FP32, ToleranceSpec(rtol=1e-4, atol=1e-13), None)
    assert str(judged(moved, yardstick, strict, tiny).reason()).startswith(
        "faithful, but not usable"
    )


def test_an_output_that_came_out_right_by_chance_is_judged_by_what_is_typical() -> None:
    one = np.array([0.5], np.float32)
    lucky, usual = gap_of(one, one), gap_of(one, one + np.float32(1e-3))
    ideal = Noise(({"y": lucky}, {"y": usual}, {"y": usual}))
    yardstick = Yardstick(Noise(({"y": lucky},) * 3), ideal, ideal, "float16")
    outputs = [{"y": one}] * 3
    found = compare(
        outputs,
        [{"y": one + np.float32(2e-3)}] * 3,
        lambda _: LOOSE,
        set_names="abc",
        yardstick=yardstick,
    )
    assert found.passed


def test_more_noise_is_allowed_where_a_provider_declares_it() -> None:
    moved, more = Y * np.float32(1 + 1e-6), Y * np.float32(1 + 8e-6)
    assert not judged(more, Yardstick(noise(moved))).passed
    assert judged(more, Yardstick(noise(moved), factor=4.0)).passed


def test_an_overflow_of_the_ideal_conversion_explains_an_overflow_and_nothing_else() -> None:
    overflowing = Y.copy()
    overflowing[0, :3] = np.inf
    ideal = noise(Y + np.float32(1e-3) * ERROR)
    yardstick = Yardstick(noise(Y), ideal, noise(overflowing), "float16")
    comparison = judged(overflowing, yardstick)
    assert str(comparison.reason()).startswith("faithful, but not usable: ")
    assert "ideal float16 overflows too" in str(comparison.reason())
    without = Yardstick(noise(Y), ideal, ideal, "float16")
    assert str(judged(overflowing, without).reason()).startswith("not faithful: ")
    assert not judged(Y * np.float32(1.1), yardstick).passed


def test_an_ideal_conversion_that_leaves_nothing_finite_explains_nothing_that_is() -> None:
    ruined = noise(np.full_like(Y, np.nan))
    assert ruined.sets[0]["y"].norm == pytest.approx(float(np.linalg.norm(Y)))
    assert not judged(
        Y * np.float32(1.1), Yardstick(noise(Y), noise(Y), ruined, "float16")
    ).passed


def test_values_whose_squares_vanish_are_judged_all_the_same() -> None:
    tiny = np.full(4, 1e-170)
    assert noise(tiny * 2, reference=tiny).sets[0]["y"].norm == 0
    assert judged(tiny, Yardstick(noise(tiny * 2, reference=tiny)), reference=tiny).passed


def test_a_nan_as_the_measure_explains_nothing() -> None:
    broken = Noise(({"y": Gap(float("nan"), float("nan"), float("nan"), 1.0, 0, 3, 800)},))
    assert not judged(
        Y * np.float32(1.1), Yardstick(noise(Y), broken, broken, "float16")
    ).passed


def test_integers_are_exact_unless_the_ideal_conversion_changes_them() -> None:
    labels = np.arange(100)
    flipped = labels.copy()
    flipped[:3] += 1
    same = Noise(({"y": gap_of(labels, labels)},))
    changed = Noise(({"y": gap_of(labels, flipped)},))
    assert not judged(flipped, Yardstick(same), LOOSE, labels).passed
    assert not judged(flipped, Yardstick(same, same, same, "float16"), LOOSE, labels).passed
    comparison = judged(flipped, Yardstick(same, changed, changed, "float16"), LOOSE, labels)
    assert comparison.passed
    assert comparison.notes == (
        "y: 3 elements differ, which stands: ideal float16 changes 3",
    )
    far = np.roll(labels, 1)
    assert not judged(
        far, Yardstick(same, changed, changed, "float16"), LOOSE, labels
    ).passed


FIGURES = [field.name for field in fields(Gap)]


@pytest.mark.parametrize("figure", FIGURES)
def test_the_worst_of_several_runs_is_the_worst_in_every_figure_whichever_run_it_is(
    figure: str,
) -> None:
    quiet, loud = Gap(*[1] * len(FIGURES)), replace(Gap(*[1] * len(FIGURES)), **{figure: 2})
    assert (
        worst([{"y": quiet}, {"y": loud}])
        == worst([{"y": loud}, {"y": quiet}])
        == {"y": loud}
    )


def test_the_scores_of_a_map_are_measured_as_one_vector() -> None:
    one, other = {"probs": [{"a": 0.25, "b": 0.75}]}, {"probs": [{"a": 0.25, "b": 0.5}]}
    assert gaps(one, other)["probs"].greatest == 0.25
    assert gaps(one, other)["probs"].size == 2


def test_outputs_that_cannot_be_paired_are_left_out_of_the_measure() -> None:
    assert gaps({"y": Y, "z": Y}, {"y": Y[:2], "z": Y}).keys() == {"z"}


def test_noise_stays_with_its_input_set_where_others_are_left_out() -> None:
    quiet, loud = noise(Y).sets[0], noise(Y + np.float32(0.1)).sets[0]
    whole = Yardstick(Noise((quiet, quiet, loud)), usual=(0,))
    part = whole.on([0, 2])
    assert part.floor.sets == (quiet, loud)
    assert whole.on([0, 1, 2]) is whole
    assert part.bound(1, "y", Y, 1.0).greatest == pytest.approx(0.1, rel=1e-3)


def stepped(*moved: Any) -> Noise:
    """The noise of an output on a grid of tenths."""
    return Noise(
        tuple({"y": gap_of(Y, each, 0.1)} for each in moved), has_tail=True, steps={"y": 0.1}
    )


def one_step_off(index: int = 0) -> Any:
    changed = Y.copy()
    changed.flat[index] += np.float32(0.1)
    return changed


@pytest.mark.parametrize(
    ("flipped", "edged", "passes"), [(1, False, True), (1, True, False), (4, False, False)]
)
def test_a_flip_in_one_unusual_set_of_many_stands_but_for_an_edge(
    flipped: int, edged: bool, passes: bool
) -> None:
    count = 9
    outputs = [
        {"y": one_step_off()} if at >= count - flipped else {"y": Y} for at in range(count)
    ]
    comparison = compare(
        [{"y": Y}] * count,
        outputs,
        lambda _: choose(Precision.FP32, None, None),
        set_names=["set"] * count,
        unusual=[False] + [True] * (count - 1),
        edged=[False] + [edged] * (count - 1),
        yardstick=Yardstick(stepped(*[Y] * count), usual=(0,)),
    )
    assert comparison.passed is passes
    assert any("in 1 of 8 unusual input sets" in note for note in comparison.notes) is passes


SCORES = [np.array([number], np.float32) for number in (5.0, -4.0, 3.0, 0.2)]


def scores(
    errors: list[float], ideal: list[float], tolerance: Tolerance, many: int = 1
) -> Any:
    """Compare one score in each of four sets, with what the ideal conversion does to it."""
    sets = [np.repeat(score, many) for score in SCORES]
    floor = Noise(tuple({"y": gap_of(score, score)} for score in sets))
    explained = Noise(
        tuple(
            {"y": gap_of(score, score + np.float32(error))}
            for score, error in zip(sets, ideal, strict=True)
        )
    )
    actual = [score + np.float32(error) for score, error in zip(sets, errors, strict=True)]
    return compare(
        [{"y": score} for score in sets],
        [{"y": score} for score in actual],
        lambda _: tolerance,
        set_names="abcd",
        yardstick=Yardstick(floor, explained, explained, "float16"),
    )


def test_a_score_next_to_zero_is_judged_beside_the_scores_of_other_sets() -> None:
    error = [0.01, 0.01, 0.01, 0.01]
    assert scores(error, error, FP16).passed
    assert scores([0.3] * 4, [0.3] * 4, choose(Precision.INT8, None, None)).passed


def test_the_error_of_one_score_may_be_what_other_scores_have() -> None:
    assert scores([0.01] * 4, [0.01, 0.01, 0.01, 1e-5], FP16).faithful


@pytest.mark.parametrize("error", [0.1, 1.0])
def test_a_score_that_is_wrong_in_one_set_alone_is_still_wrong(error: float) -> None:
    comparison = scores([0.0, 0.0, 0.0, error], [0.01] * 4, FP16)
    assert (comparison.faithful, comparison.usable) == (False, False)


def test_sets_of_many_elements_are_judged_by_themselves() -> None:
    assert not scores([0.01] * 4, [0.01] * 4, FP16, many=65).usable


@pytest.mark.parametrize(("error_of_many", "usable"), [(1e-4, True), (0.01, False)])
def test_scores_are_judged_beside_each_other_next_to_a_set_of_many(
    error_of_many: float, usable: bool
) -> None:
    many = np.full(3000, 0.2, np.float32)
    reference = [*SCORES, many]
    candidate = [score + np.float32(0.01) for score in SCORES]
    candidate.append(many + np.float32(error_of_many))
    comparison = compare(
        [{"y": score} for score in reference],
        [{"y": score} for score in candidate],
        lambda _: FP16,
        set_names="abcde",
    )
    assert comparison.passed == usable


def test_a_stated_bound_of_a_score_holds_to_the_letter() -> None:
    stated = choose(Precision.FP16, ToleranceSpec(rtol=1e-2), None)
    assert not scores([0.01] * 4, [0.01] * 4, stated).usable


@pytest.mark.parametrize("spelt_out", [True, False])
def test_the_scores_of_a_map_have_the_signal_of_their_vector(spelt_out: bool) -> None:
    expected, actual = [0.9, 0.096, 0.004], [0.9, 0.09605, 0.00405]

    def output(values: list[float]) -> Any:
        return [dict(enumerate(values))] if spelt_out else np.array([values], np.float32)

    comparison = compare(
        [{"y": output(expected)}], [{"y": output(actual)}], lambda _: FP16, set_names="a"
    )
    assert comparison.passed


def test_what_is_typical_is_that_of_the_sets_that_stay() -> None:
    """The large set lies between two usual ones, and INT8 isn't judged on it."""
    unlike = noise(Y, 2 * Y, Y + np.float32(1e-6) * ERROR)
    kept = Yardstick(unlike, usual=(0, 2)).on([0, 2])
    assert kept.usual == (0, 1)
    assert not judged_on(kept, Y + np.float32(0.1) * ERROR).passed


def judged_on(yardstick: Yardstick, candidate: Any) -> Comparison:
    return compare(
        [{"y": Y}] * 2,
        [{"y": candidate}] * 2,
        lambda _: LOOSE,
        set_names="ab",
        yardstick=yardstick,
    )
