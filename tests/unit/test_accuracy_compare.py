"""Comparing outputs: what is checked, in which order, and what is said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnx_harness.accuracy.compare import Comparison
from onnx_harness.accuracy.failures import Check
from onnx_harness.accuracy.tolerance import Tolerance, choose
from onnx_harness.cards.card import ToleranceSpec
from onnx_harness.transforms import Precision
from tests.comparing import compare

FP32 = choose(Precision.FP32, None, None)


def run(
    reference: Mapping[str, Any],
    candidate: Mapping[str, Any],
    tolerance: Tolerance = FP32,
    **options: Any,
) -> Comparison:
    return compare(
        [reference], [candidate], lambda _: tolerance, set_names=["noise"], **options
    )


def f32(*values: float) -> Any:
    return np.array(values, np.float32)


def checks(comparison: Comparison) -> dict[str, list[Check]]:
    found: dict[str, list[Check]] = {}
    for failure in comparison.failures:
        found.setdefault(failure.output, []).append(failure.check)
    return found


def test_equal_outputs_pass_with_a_distance_of_zero() -> None:
    comparison = run({"y": f32(1, -2, 3)}, {"y": f32(1, -2, 3)})
    accuracy = comparison.record.outputs["y"]
    assert comparison.passed
    assert comparison.reason() is None
    assert comparison.lines() == ()
    assert (accuracy.max_abs, accuracy.max_rel, accuracy.rel_l2, accuracy.cosine) == (
        0.0,
        0.0,
        0.0,
        1.0,
    )
    assert (accuracy.sqnr_db, accuracy.minimum_tolerance) == (None, 0.0)


def test_the_figures_are_those_of_their_formulas() -> None:
    comparison = run({"y": f32(3, 4, 0)}, {"y": f32(3, 4.5, 0.25)})
    accuracy = comparison.record.outputs["y"]
    noise, signal = 0.5**2 + 0.25**2, 25.0
    assert accuracy.max_abs == 0.5
    assert accuracy.max_rel == 0.125
    assert accuracy.rel_l2 == pytest.approx(math.sqrt(noise / signal))
    assert accuracy.sqnr_db == pytest.approx(10 * math.log10(signal / noise))
    assert accuracy.cosine == pytest.approx((9 + 18) / (5 * math.sqrt(9 + 4.5**2 + 0.25**2)))
    assert (accuracy.rtol, accuracy.atol) == (1e-4, 4e-5)
    assert accuracy.minimum_tolerance == pytest.approx(1e-4 * 0.25 / 4e-5)


def test_a_failure_says_how_many_the_worst_where_and_what_would_pass() -> None:
    reference, candidate = np.ones((2, 50), np.float32), np.ones((2, 50), np.float32)
    candidate[1, 7] = 1.5
    comparison = compare(
        [{"y": reference}, {"y": reference * 2}],
        [{"y": candidate}, {"y": reference * 2}],
        lambda _: Tolerance(rtol=1e-2, atol=1e-2),
        set_names=["seed 0, page-like", "seed 0, noise"],
    )
    assert comparison.reason() == (
        "output y: 1 of 100 values (1%) beyond the tolerance; worst 0.5 at [1, 7] (reference 1, "
        "got 1.5, allowed 0.02)"
    )
    assert comparison.lines() == (
        (
            "y: 1 of 100 values (1%) beyond the tolerance; worst 0.5 at [1, 7] (reference 1, got "
            "1.5, "
            "allowed 0.02)"
        ),
        "  greatest relative difference 0.5; would pass with rtol 0.25 and atol 0.25 (used 0.01 "
        "and 0.01); "
        "input set 1 of 2 (seed 0, page-like)",
    )


def test_the_worst_input_set_is_the_one_that_is_told() -> None:
    reference = [{"y": f32(1, 2)}, {"y": f32(3, 4)}, {"y": f32(5, 6)}]
    candidate = [{"y": f32(1.1, 2)}, {"y": f32(3, 9)}, {"y": f32(5, 6)}]
    comparison = compare(reference, candidate, lambda _: FP32, set_names=["a", "b", "c"])
    (failure,) = comparison.failures
    assert failure.input_set == "input set 2 of 3 (b)"
    assert failure.sets == 2
    assert comparison.record.outputs["y"].max_abs == 5.0
    assert comparison.record.outputs["y"].minimum_tolerance == failure.minimum_tolerance


def test_the_bounds_that_are_said_to_pass_do_pass_on_every_input_set() -> None:
    reference = [{"y": f32(1, 1e-3)}, {"y": f32(1000, 0)}]
    candidate = [{"y": f32(1.5, 1e-3)}, {"y": f32(1000, 5)}]
    failure = compare(reference, candidate, lambda _: FP32, set_names=["a", "b"]).failures[0]
    assert failure.minimum_tolerance is not None
    bounds = (
        failure.minimum_tolerance,
        failure.atol * failure.minimum_tolerance / failure.rtol,
    )
    tolerance = choose(Precision.FP32, None, bounds)
    assert compare(reference, candidate, lambda _: tolerance, set_names=["a", "b"]).passed


@pytest.mark.parametrize("worst", [0, 1, 2])
def test_the_record_keeps_the_figures_of_the_worst_input_set_wherever_it_comes(
    worst: int,
) -> None:
    reference = [{"y": f32(1, 2)}] * 3
    candidate = [{"y": f32(1.25, 2)}] * 3
    candidate[worst] = {"y": f32(3, 2)}
    overall = compare(reference, candidate, lambda _: FP32, set_names="abc").record.outputs[
        "y"
    ]
    alone = run(reference[worst], candidate[worst]).record.outputs["y"]
    for figure in ("max_abs", "max_rel", "rel_l2", "cosine", "sqnr_db", "minimum_tolerance"):
        assert getattr(overall, figure) == getattr(alone, figure)


@pytest.mark.parametrize("place", [1, 2])
def test_an_unusual_set_is_judged_by_what_is_usual_the_last_of_them_too(place: int) -> None:
    reference = [{"y": f32(1000, 2000)}, {"y": f32(1000, 3000)}, {"y": f32(1000, 4000)}]
    candidate = list(reference)
    reference[place], candidate[place] = {"y": f32(1e-4, 1e-3)}, {"y": f32(1e-4, 2e-3)}
    unusual = [index == place for index in range(3)]
    assert compare(
        reference, candidate, lambda _: FP32, set_names="abc", unusual=unusual
    ).passed
    assert not compare(reference, candidate, lambda _: FP32, set_names="abc").passed


def test_every_failing_output_is_reported_not_the_first() -> None:
    reference = {name: f32(1, 2) for name in "abcd"}
    candidate = {"a": f32(1, 3), "b": f32(1, 2), "c": f32(math.nan, 2), "e": f32(1)}
    assert checks(run(reference, candidate)) == {
        "d": [Check.NAMES], "e": [Check.NAMES], "c": [Check.NONFINITE], "a": [Check.ELEMENTS],
    }  # fmt: skip


def test_one_output_may_fail_several_checks() -> None:
    comparison = run({"y": f32(1, 2, 0)}, {"y": f32(math.inf, 5, -0.0)})
    assert checks(comparison) == {"y": [Check.NONFINITE, Check.ELEMENTS, Check.SIGNED_ZERO]}
    assert comparison.record.outputs["y"].minimum_tolerance is None
    assert all("no tolerance would pass" in line for line in comparison.lines()[1::2])


def test_many_failing_outputs_stay_on_a_screen() -> None:
    reference = {f"output_{index}": f32(1, 2) for index in range(40)}
    candidate = {f"output_{index}": f32(1, 3 + index) for index in range(40)}
    comparison = run(reference, candidate)
    lines = comparison.lines()
    assert len(comparison.failures) == 40
    assert len(lines) == 11
    assert lines[0].startswith("output_39: ")
    assert lines[-1].startswith("35 more outputs fail: output_34, ")
    assert lines[-1].endswith("and 27 more")
    assert comparison.reason() is not None
    assert str(comparison.reason()).endswith("and 39 more outputs fail")


@pytest.mark.parametrize("place", [0, 1])
def test_no_tolerance_would_pass_an_output_that_is_missing_from_one_set(place: int) -> None:
    reference = [{"x": f32(1), "y": f32(1, 2)}] * 2
    candidate = list(reference)
    candidate[place] = {"x": f32(1)}
    outputs = compare(reference, candidate, lambda _: FP32, set_names="ab").record.outputs
    assert (outputs["x"].minimum_tolerance, outputs["y"].minimum_tolerance) == (0.0, None)


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        (f32(1, math.nan), f32(1, 2)),
        (f32(1, 2), f32(1, math.nan)),
        (f32(1, math.inf), f32(1, -math.inf)),
        (f32(1, -math.inf), f32(1, -3.4028235e38)),
        (f32(1, math.inf), f32(1, math.nan)),
        (
            np.array([1, 70000.0], np.float32),
            np.array([1, 70000.0]).astype(np.float32) * math.inf,
        ),
    ],
)
def test_nan_and_infinity_must_be_where_the_reference_has_them(
    reference: Any, candidate: Any
) -> None:
    comparison = run({"y": reference}, {"y": candidate}, Tolerance(rtol=1e9, atol=1e9))
    assert checks(comparison) == {"y": [Check.NONFINITE]}
    assert "at [" in str(comparison.reason())
    assert comparison.record.outputs["y"].minimum_tolerance is None


def test_nan_and_infinity_in_the_reference_s_places_pass() -> None:
    reference = f32(math.nan, math.inf, -math.inf, 2)
    comparison = run({"y": reference}, {"y": reference + f32(0, 0, 0, 1e-5)})
    assert comparison.passed
    assert comparison.record.outputs["y"].max_abs == pytest.approx(1e-5, rel=0.1)
    assert comparison.record.outputs["y"].nonfinite == 0


def test_positions_count_the_values_that_are_not_finite() -> None:
    comparison = run(
        {"y": f32(math.nan, math.inf, 1, 0, 2)}, {"y": f32(math.nan, math.inf, 1, -0.0, 7)}
    )
    assert "at [4]" in comparison.failures[0].what
    assert "at [3]" in comparison.failures[1].what


def test_the_sign_of_zero_counts_unless_a_card_says_otherwise() -> None:
    comparison = run({"y": f32(1, 0)}, {"y": f32(1, -0.0)})
    assert checks(comparison) == {"y": [Check.SIGNED_ZERO]}
    assert "reference 0, got -0" in str(comparison.reason())
    assert comparison.record.outputs["y"].minimum_tolerance is None
    loose = choose(Precision.FP32, ToleranceSpec(signed_zero=False), None)
    assert run({"y": f32(1, 0)}, {"y": f32(1, -0.0)}, loose).passed


def test_where_gates_saturate_the_sign_of_zero_says_nothing_and_values_do() -> None:
    signed, flipped = {"y": f32(-0.0, 1)}, {"y": f32(0.0, 1)}
    assert not run(signed, flipped, unusual=[True]).passed
    assert run(signed, flipped, unusual=[True], saturated=[True]).passed
    assert not run(signed, {"y": f32(0.0, 1.01)}, unusual=[True], saturated=[True]).passed


def test_a_shape_counts_even_where_the_values_agree() -> None:
    comparison = run({"y": np.ones((1, 3), np.float32)}, {"y": np.ones((3, 1), np.float32)})
    assert comparison.reason() == "output y: has shape [3, 1]; the reference has [1, 3]"


def test_dtype_and_shape_are_both_reported_and_values_wait_for_them() -> None:
    comparison = run({"y": np.ones((1, 3), np.float32)}, {"y": np.full((3,), 7.0)})
    assert checks(comparison) == {"y": [Check.DTYPE, Check.SHAPE]}
    assert comparison.record.outputs["y"].max_abs is None
    assert comparison.record.outputs["y"].minimum_tolerance is None


def test_float16_is_allowed_only_where_it_was_promised() -> None:
    reference, candidate = f32(1, 2), np.array([1, 2], np.float16)
    assert checks(run({"y": reference}, {"y": candidate})) == {"y": [Check.DTYPE]}
    assert run({"y": reference}, {"y": candidate}, float_io="float16").passed
    assert run({"y": reference}, {"y": reference}, float_io="float16").passed
    for other in (np.float64, np.int64):
        ours = {"y": reference.astype(other)}
        assert checks(run(ours, {"y": candidate}, float_io="float16")) == {
            "y": [Check.DTYPE]
        }


def test_an_overflow_of_float16_is_an_infinity() -> None:
    with np.errstate(over="ignore"):
        candidate = f32(1, 70000).astype(np.float16)
    comparison = run(
        {"y": f32(1, 70000)},
        {"y": candidate},
        Tolerance(rtol=1e-2, k=5e-3),
        float_io="float16",
    )
    assert checks(comparison) == {"y": [Check.NONFINITE]}


def test_bfloat16_is_a_float() -> None:
    reference = np.array([1, 2, 4], ml_dtypes.bfloat16)
    assert run({"y": reference}, {"y": reference}).passed
    comparison = run({"y": reference}, {"y": np.array([1, 2, 5], ml_dtypes.bfloat16)})
    assert "worst 1 at [2] (reference 4, got 5" in str(comparison.reason())


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_integers_are_exact_unless_a_card_gives_an_atol(dtype: Any) -> None:
    reference, candidate = {"y": np.array([1, 100], dtype)}, {"y": np.array([1, 98], dtype)}
    comparison = run(
        reference, candidate, choose(Precision.FP16, ToleranceSpec(rtol=1.0), (1.0, 9.0))
    )
    assert checks(comparison) == {"y": [Check.ELEMENTS]}
    assert "would pass with atol 2 (used 0)" in comparison.lines()[1]
    assert comparison.record.outputs["y"].minimum_tolerance == 2.0
    assert run(
        reference, candidate, choose(Precision.FP32, ToleranceSpec(atol=2), None)
    ).passed
    assert not run(
        reference, candidate, choose(Precision.FP32, ToleranceSpec(atol=1), None)
    ).passed


def test_large_integers_differ_though_their_floats_do_not() -> None:
    reference, candidate = np.array([2**62, -(2**63)]), np.array([2**62 + 1, 2**63 - 1])
    comparison = run({"y": reference}, {"y": candidate})
    assert comparison.failures[0].what.startswith(
        "2 of 2 values (100%) beyond the tolerance; worst 1.84e+19 at [1]"
    )
    assert not run({"y": reference[:1]}, {"y": candidate[:1]}).passed
    assert run({"y": reference}, {"y": reference.copy()}).passed


def test_booleans_and_text_are_exact() -> None:
    loose = choose(Precision.FP32, ToleranceSpec(atol=9.0), None)
    flags = run({"y": np.array([True, False])}, {"y": np.array([True, True])}, loose)
    words = run(
        {"y": np.array(["a", "b"], object)}, {"y": np.array(["a", "ß"], object)}, loose
    )
    assert "(reference False, got True)" in str(flags.reason())
    assert "1 of 2 values (50%) differ; the first at [1] (reference 'b', got 'ß')" in str(
        words.reason()
    )
    assert words.record.outputs["y"].minimum_tolerance is None
    assert run({"y": np.array(["a"], object)}, {"y": np.array(["a"])}).passed


def test_int8_is_judged_by_the_noise_of_the_whole_output() -> None:
    int8 = choose(Precision.INT8, None, None)
    signal = np.sin(np.arange(1000, dtype=np.float32))
    fair = run({"y": signal}, {"y": signal + np.float32(0.1)}, int8)
    assert fair.passed
    assert fair.record.outputs["y"].rtol == pytest.approx(10 ** (-15 / 20))
    assert fair.record.outputs["y"].minimum_tolerance == fair.record.outputs["y"].rel_l2
    poor = run({"y": signal}, {"y": signal + np.float32(0.3)}, int8)
    assert checks(poor) == {"y": [Check.SQNR]}
    assert "and 15 dB are asked for" in str(poor.reason())
    assert "would pass with sqnr_db 7.4" in poor.lines()[1]
    assert checks(run({"y": f32(0, 0)}, {"y": f32(0, 1)}, int8)) == {"y": [Check.SQNR]}


def test_both_rules_hold_where_a_card_gives_both() -> None:
    both = choose(Precision.FP32, ToleranceSpec(sqnr_db=60.0, rtol=1.0, atol=1.0), None)
    comparison = run({"y": f32(1, 2)}, {"y": f32(1, 2.5)}, both)
    assert checks(comparison) == {"y": [Check.SQNR]}
    assert comparison.record.outputs["y"].minimum_tolerance is None


@pytest.mark.parametrize(
    ("reference", "candidate"), [(f32(1, 2), f32(0, 0)), (f32(0, 0), f32(1, 2))]
)
def test_an_output_of_zeros_has_no_cosine_and_fails_where_one_is_asked_for(
    reference: Any, candidate: Any
) -> None:
    card = choose(Precision.FP32, ToleranceSpec(cosine=0.5), None)
    comparison = run({"y": reference}, {"y": candidate}, card)
    assert str(comparison.reason()) == "output y: has no cosine; 0.5 is asked for"


def test_nested_outputs_are_named_as_they_are_indexed() -> None:
    reference = {
        "probs": [{"cat": 0.25, "dog": 0.75}, {"cat": 0.5, "dog": 0.5}],
        "seq": [f32(1), f32(2, 3)],
    }
    candidate = {
        "probs": [{"cat": 0.25, "dog": 0.7}, {"cat": 0.5, "dog": 0.5}],
        "seq": [f32(1), f32(2, 4)],
    }
    comparison = run(reference, candidate)
    assert checks(comparison) == {
        "seq[1]": [Check.ELEMENTS],
        "probs": [Check.ELEMENTS],
    }
    assert list(comparison.record.outputs) == ["probs", "seq[0]", "seq[1]"]
    [scores] = [failure for failure in comparison.failures if failure.output == "probs"]
    assert "worst 0.05 at [0]['dog'] (reference 0.75, got 0.7" in scores.what


def test_a_small_score_in_a_map_is_judged_beside_the_large_ones() -> None:
    reference, candidate = {"p": [{0: 1.0, 1: 1e-9}]}, {"p": [{0: 1.0, 1: 2e-9}]}
    assert run(reference, candidate).passed


@pytest.mark.parametrize(
    ("reference", "candidate", "check", "what"),
    [
        ([f32(1)], f32(1), Check.KIND, "is a tensor; the reference is a sequence"),
        (None, f32(1), Check.KIND, "is a tensor; the reference is absent (an empty optional)"),
        ({"a": 1.0}, [1.0], Check.KIND, "is a sequence; the reference is a map"),
        ([f32(1)], [], Check.SHAPE, "has 0 elements; the reference has 1 element"),
        ({"a": 1.0}, {"b": 1.0}, Check.SHAPE, ("has 1 key ('b' only there); the reference has 1 "
                                              "key ('a' only there)")),
        (object(), object(), Check.KIND, "is of a type that can't be compared (object); the "
                                         "reference is of a type"
                                         " that can't be compared (object)"),
    ],
)  # fmt: skip
def test_structures_must_agree(
    reference: Any, candidate: Any, check: Check, what: str
) -> None:
    comparison = run({"y": reference}, {"y": candidate})
    assert [(failure.check, failure.what) for failure in comparison.failures] == [
        (check, what)
    ]


@pytest.mark.parametrize("value", [None, [], {}, np.empty((0, 4), np.float32)])
def test_nothing_compared_with_nothing_passes_and_says_so(value: Any) -> None:
    comparison = run({"y": value}, {"y": value})
    assert comparison.passed
    assert comparison.record.outputs["y"].vacuous is not None
    assert comparison.notes[0].startswith("comparing y proves nothing: it is ")


def test_a_scalar_has_no_position() -> None:
    comparison = run({"y": np.array(1.0, np.float32)}, {"y": np.array(2.0, np.float32)})
    assert str(comparison.reason()).endswith("worst 1 (reference 1, got 2, allowed 0.00011)")


def test_an_output_that_ignores_its_inputs_is_called_vacuous() -> None:
    sets = [{"y": f32(1, 2)}, {"y": f32(1, 2)}]
    comparison = compare(sets, sets, lambda _: FP32, set_names=["a", "b"])
    assert comparison.record.outputs["y"].vacuous == "is identical for all 2 input sets"
    assert comparison.notes == (
        "comparing y proves nothing: it is identical for all 2 input sets",
    )
    same_inputs = compare(
        sets, sets, lambda _: FP32, set_names=["a", "b"], inputs_differ=False
    )
    assert same_inputs.notes == ()


def test_an_output_that_moves_in_one_set_of_many_is_not_vacuous() -> None:
    sets = [{"y": f32(1, 2)}, {"y": f32(1, 2)}, {"y": f32(1, 3)}]
    assert compare(sets, sets, lambda _: FP32, set_names=["a", "b", "c"]).notes == ()


def test_a_constant_and_a_nan_output_are_called_vacuous() -> None:
    reference = {
        "constant": f32(5, 5),
        "nan": f32(math.nan, math.inf),
        "words": np.array(["a", "a"], object),
    }
    outputs = run(reference, reference).record.outputs
    assert (
        outputs["constant"].vacuous
        == "has one and the same value throughout in the one input set"
    )
    assert outputs["nan"].vacuous == "is NaN or infinite throughout in the one input set"
    assert outputs["words"].vacuous == outputs["constant"].vacuous


def test_a_relative_error_without_a_reference_is_none() -> None:
    accuracy = run({"y": f32(0, 0)}, {"y": f32(0, 1)}).record.outputs["y"]
    assert (accuracy.rel_l2, accuracy.max_rel, accuracy.cosine, accuracy.sqnr_db) == (
        None,
        None,
        None,
        None,
    )
    assert accuracy.minimum_tolerance is None


def test_differences_beyond_float64_are_not_passed_over() -> None:
    comparison = run({"y": np.array([1e308, 1.0])}, {"y": np.array([-1e308, 1.0])})
    assert checks(comparison) == {"y": [Check.ELEMENTS]}
    assert comparison.record.outputs["y"].max_abs is None


def test_views_and_foreign_orders_are_compared_by_position() -> None:
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert run({"y": base.T}, {"y": np.asfortranarray(base.T)}).passed
    assert run({"y": base[::2, ::-1]}, {"y": base[::2, ::-1].copy()}).passed


def test_complex_numbers_are_compared_by_part() -> None:
    reference = np.array([1 + 2j, 3 + 4j], np.complex64)
    comparison = run({"y": reference}, {"y": reference + np.array([0, 1j], np.complex64)})
    assert "worst 1 at [1] (reference 4, got 5" in str(comparison.reason())


def test_a_large_output_is_compared_across_pieces() -> None:
    reference = np.random.default_rng(0).standard_normal((7, 30011)).astype(np.float32)
    candidate = reference.copy()
    candidate[6, 30010] += 1
    candidate[3, 5] = math.nan
    comparison = run({"y": reference}, {"y": candidate})
    assert {
        failure.what.split("at ")[1].split(" (")[0] for failure in comparison.failures
    } == {
        "[6, 30010]",
        "[3, 5]",
    }


def test_there_has_to_be_an_input_set() -> None:
    with pytest.raises(ValueError, match="at least one"):
        compare([], [], lambda _: FP32, set_names=[])


def test_the_tolerance_is_asked_for_by_the_graph_output_s_name() -> None:
    asked: list[str] = []

    def tolerance_for(name: str) -> Tolerance:
        asked.append(name)
        return FP32

    compare([{"p": [{"cat": 1.0}]}], [{"p": [{"cat": 1.0}]}], tolerance_for, set_names=["a"])
    assert asked == ["p"]


LARGE = np.linspace(-1, 1, 100_000, dtype=np.float32)


def by_default(candidate: Any, precision: Precision = Precision.FP16) -> Comparison:
    tolerance = choose(precision, None, None)
    return compare(
        [{"y": LARGE}], [{"y": candidate}], lambda _: tolerance, set_names=["one"]
    )


@pytest.mark.parametrize(
    ("elements", "off", "passes"),
    [
        (100, 0.05, True),  # 0.1%, by 3 to 10 times what is allowed
        (101, 0.05, False),
        (1, 0.2, False),  # one by more than 10 times
    ],
)
def test_a_default_bound_knows_how_large_the_output_is(
    elements: int, off: float, passes: bool
) -> None:
    candidate = LARGE.copy()
    candidate[49_900 : 49_900 + elements] += np.float32(
        off
    )  # where the reference is near 0: allowed are 0.005
    comparison = by_default(candidate)
    assert comparison.passed is passes, comparison.lines()
    assert comparison.record.outputs["y"].max_abs == pytest.approx(off, rel=1e-3), (
        "the worst is shown"
    )
    stated = choose(Precision.FP16, None, (1e-2, 5e-3))
    assert not compare(
        [{"y": LARGE}], [{"y": candidate}], lambda _: stated, set_names=["one"]
    ).passed


def test_a_default_bound_asks_for_a_signal_to_noise_ratio_too() -> None:
    # Each within 1e-2 + 5e-3, at 36 dB.
    candidate = LARGE + np.float32(0.009) * np.sign(LARGE)
    assert [
        failure.check
        for failure in by_default(candidate).failures
        if failure.check != "elements"
    ] == ["sqnr"]
    assert by_default(LARGE * np.float32(1.009)).passed
    assert by_default(LARGE * np.float32(1.05), Precision.BF16).passed


def test_an_element_that_one_set_alone_is_long_enough_for_does_not_react() -> None:
    zeros = [np.zeros(3, np.float32)] * 3
    sets = [{"y": zeros[:2]}, {"y": zeros}]
    tolerance = choose(Precision.FP32, None, None)
    comparison = compare(sets, sets, lambda _: tolerance, set_names=["one", "two"])
    assert comparison.inert == {"y[0]", "y[1]", "y[2]"}
    keys = [{"y": {"a": 1.0}}, {"y": {"b": 1.0}}]
    assert (
        compare(keys, keys, lambda _: tolerance, set_names=["one", "two"]).inert
        == frozenset()
    )


def test_a_rare_class_outside_of_the_smallest_set_reacts() -> None:
    bare, rare = np.zeros((2, 4), np.int64), np.array([[0, 0, 0, 0], [0, 0, 7, 0]])
    sets = [{"y": bare[:1, :2]}, {"y": bare}, {"y": rare}]
    tolerance = Tolerance(0.0, 0.0)
    names = ["small", "large", "also large"]
    assert compare(sets, sets, lambda _: tolerance, set_names=names).inert == frozenset()


def test_more_of_the_same_in_larger_sets_does_not_react() -> None:
    counting = [{"y": np.arange(size)} for size in (1, 4, 9)]
    tolerance = Tolerance(0.0, 0.0)
    assert compare(
        counting, counting, lambda _: tolerance, set_names=["a", "b", "c"]
    ).inert == {"y"}
