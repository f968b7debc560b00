"""What is said of outputs that fail: the worst, how many others, what would pass, and flips."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnx_harness.accuracy.explain import Bound
from onnx_harness.accuracy.failures import (
    Check,
    OutputFailure,
    Question,
    detail_lines,
    element,
    listed,
    merged,
    pair,
    place,
    reason,
    share,
)
from onnx_harness.accuracy.flips import in_steps, without_flips
from onnx_harness.accuracy.measure import measure
from onnx_harness.accuracy.noise import Gap
from onnx_harness.accuracy.values import Mismatch, walk


def failure(output: str, check: Check = Check.ELEMENTS, **more: Any) -> OutputFailure:
    return OutputFailure(output, check, "differs", **more)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("a", "output a: differs"),
        ("ab", "output a: differs, and 1 more output fails"),
        ("abc", "output a: differs, and 2 more outputs fail"),
        ("aab", "output a: differs, and 1 more output fails"),
    ],
)
def test_the_reason_counts_the_other_outputs(names: str, words: str) -> None:
    assert reason([failure(name) for name in names]) == words
    assert reason([]) is None


def test_the_reason_names_the_question_of_the_worst_output_alone() -> None:
    usable, faithful = Question.USABLE, Question.FAITHFUL
    first = failure("a", question=usable)
    assert str(reason([first, failure("b", question=faithful)])).startswith(
        "faithful, but not us"
    )
    second = failure("a", Check.FAITHFUL, question=faithful)
    assert reason([second, first]) == "not faithful: output a differs"
    assert str(reason([first, failure("a", Check.SHAPE)])).startswith("output a: ")


def test_the_worst_set_of_each_check_stands_for_the_others() -> None:
    made = merged(
        [
            failure("a", severity=1.0, minimum_tolerance=5.0, input_set="first"),
            failure("a", severity=2.0, minimum_tolerance=3.0, input_set="second"),
            failure("a", severity=0.5, minimum_tolerance=None, check=Check.SQNR),
            failure("b", severity=9.0, minimum_tolerance=None),
            failure("b", severity=9.0, minimum_tolerance=1.0, input_set="later"),
        ]
    )
    found = {(each.output, each.check): each for each in made}
    worst = found["a", Check.ELEMENTS]
    assert (worst.input_set, worst.sets, worst.minimum_tolerance) == ("second", 2, 5.0)
    assert found["a", Check.SQNR].sets == 1
    assert found["b", Check.ELEMENTS].input_set == ""
    assert found["b", Check.ELEMENTS].minimum_tolerance is None
    elements = [each.output for each in made if each.check is Check.ELEMENTS]
    assert elements == ["b", "a"]


def test_the_worst_outputs_are_told_in_full_and_the_others_by_name() -> None:
    two = detail_lines([failure(f"o{number}") for number in range(20)])
    assert two[-1].split(": ")[0].endswith(" more outputs fail")
    full = len(two) // 2
    two_more = detail_lines([failure(f"o{number}") for number in range(full + 2)])
    assert two_more[-1] == f"2 more outputs fail: o{full}, o{full + 1}"
    one_more = detail_lines([failure(f"o{number}") for number in range(full + 1)])
    assert one_more[-1] == f"1 more output fails: o{full}"
    assert len(detail_lines([failure(f"o{number}") for number in range(full)])) == 2 * full


def test_what_is_not_faithful_departs_and_what_is_not_usable_is_named_with_a_colon() -> None:
    [faithful, _, usable, _] = detail_lines([failure("a", Check.FAITHFUL), failure("b")])
    assert (faithful, usable) == ("a differs", "b: differs")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"max_rel": 0.5}, "greatest relative difference 0.5; no tolerance would pass; set"),
        ({"max_rel": math.inf}, "no tolerance would pass; set"),
        ({"max_rel": 0.5, "check": Check.SQNR}, "no tolerance would pass; set"),
        ({"enough": "cosine 0.9"}, "would pass with cosine 0.9; set"),
        (
            {"check": Check.SQNR, "sqnr_db": 12.39, "minimum_tolerance": 1.0},
            "would pass with sqnr_db 12.3; set",
        ),
        (
            {"minimum_tolerance": 0.0301, "rtol": 0.01, "atol": 0.02},
            "would pass with rtol 0.031 and atol 0.061 (used 0.01 and 0.02); set",
        ),
        (
            {"minimum_tolerance": 0.03, "atol": 0.02},
            "would pass with atol 0.03 (used 0.02); set",
        ),
        (
            {"minimum_tolerance": 0.03, "rtol": 0.01},
            "would pass with rtol 0.03 and atol 0 (used 0.01 and 0); set",
        ),
        ({"check": Check.FAITHFUL}, "no tolerance of the card mends that; set"),
        (
            {"minimum_tolerance": 0.03, "sets": 2},
            "would pass with atol 0.03 (used 0); set, the worst of 2 that fail",
        ),
    ],
)
def test_what_would_pass_is_told_of_each_failure(more: dict[str, Any], words: str) -> None:
    [_, told] = detail_lines([replace(failure("y"), input_set="set", **more)])
    assert told == f"  {words}"


def test_a_share_a_list_a_place_and_a_pair_in_words() -> None:
    assert share(1, 1) == "1 of 1 value (100%)"
    assert share(1, 10) == "1 of 10 values (10%)"
    assert share(1, 20_000_000) == "1 of 20,000,000 values (5e-06%)"
    assert share(6_246, 102_400) == "6,246 of 102,400 values (6.1%)"
    names = [f"n{number}" for number in range(40)]
    shown = listed(names).split(" and ")
    assert shown[1] == f"{40 - len(shown[0].split(', '))} more"
    assert listed(names[:3], most=3) == "n0, n1, n2"
    assert listed(names[:4], most=3) == "n0, n1, n2 and 1 more"
    assert (place(np.array(1.0), 0), place(np.zeros((2, 3)), 5)) == ("", " at [1, 2]")
    turned = np.array([1 + 2j, 3 + 4j])
    matrix = np.array([[1 + 2j, 3 + 4j], [5 + 6j, 7 + 8j]])
    assert (place(matrix, 5), element(matrix, 5), element(matrix, 7)) == (
        " at [1, 0]",
        6.0,
        8.0,
    )
    assert element(np.array([[1.0, 2.0], [3.0, 4.0]]), 2) == 3.0
    assert (place(turned, 3), element(turned, 2), element(turned, 3)) == (
        " at [1]",
        3.0,
        4.0,
    )
    assert pair(np.array([0.402]), np.array([0.533]), 0) == "reference 0.402, got 0.533"
    near = pair(np.array([1.00001]), np.array([1.00002]), 0)
    assert near == "reference 1.00001, got 1.00002"
    assert pair(np.array([3]), np.array([4]), 0) == "reference 3, got 4"
    for length, end in ((38, "x'"), (39, "x…")):
        text = np.array(["x" * length], dtype=object)
        assert pair(text, text, 0).endswith(end)
        assert len(pair(text, text, 0)) == len("reference , got ") + 80


@pytest.mark.parametrize(
    ("expected", "actual", "words"),
    [
        (0.4021, 0.5333, "reference 0.402, got 0.533"),
        (1.00012345, 1.00022345, "reference 1.0001, got 1.0002"),
        (1.0000011111, 1.0000022222, "reference 1.000001, got 1.000002"),
        (1.00000001111, 1.00000002222, "reference 1.00000001, got 1.00000002"),
        (1 / 3, 1 / 3 + 2.0**-54, "reference 0.33333333333333331, got 0.33333333333333337"),
        (0.5, 0.5, "reference 0.5, got 0.5"),
        (math.nan, math.inf, "reference nan, got inf"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_two_numbers_get_the_digits_that_tell_them_apart(
    dtype: Any, expected: float, actual: float, words: str
) -> None:
    assert pair(np.array([[expected]], dtype), np.array([[actual]], dtype), 0) == words


def test_narrow_floats_are_written_as_numbers_and_other_elements_as_python_does() -> None:
    for dtype in (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        assert (
            pair(np.array([0.5], dtype), np.array([2], dtype), 0) == "reference 0.5, got 2"
        )
    assert pair(np.array([True]), np.array([False]), 0) == "reference True, got False"
    assert pair(np.array(["a"]), np.array(["b"]), 0) == "reference 'a', got 'b'"
    assert pair(np.array([1], np.uint8), np.array([2], np.uint8), 0) == "reference 1, got 2"


@pytest.mark.parametrize(
    ("flips", "usual", "unusual", "stands"),
    [
        ([0], 4, 0, True),
        ([0, 1], 4, 0, False),
        ([0, 1], 8, 0, True),
        ([0, 1, 2], 8, 0, False),
        ([0], 1, 0, False),
        ([0], 2, 0, True),
        ([0, 4], 4, 4, True),
        ([4, 5], 4, 4, False),
        ([3, 4], 4, 4, True),
    ],
)
def test_flips_in_few_sets_of_a_kind_are_chance(
    flips: list[int], usual: int, unusual: int, stands: bool
) -> None:
    failures = [failure("y", flip=True, at=at) for at in flips]
    steady = [failure("z", at=0), failure("y", Check.SHAPE, at=0)]
    remaining, remarks = without_flips([*failures, *steady], usual, unusual)
    assert remaining == (steady if stands else [*failures, *steady])
    assert bool(remarks) is stands


def test_flips_are_counted_by_output_and_by_kind_of_set() -> None:
    flips = [
        failure("a", flip=True, at=0),
        failure("b", flip=True, at=1),
        failure("b", flip=True, at=4),
        failure("b", Check.SQNR, flip=True, at=4),
        failure("c", flip=True, at=2),
        failure("c", flip=True, at=3),
        failure("a", flip=True),
        failure("a", flip=True, at=9),
    ]
    remaining, remarks = without_flips(flips, 4, 4)
    assert remaining == [flips[place] for place in (4, 5, 6, 7)]
    stands = "it departs as far as the model's own last bits move it in others, which stands"
    assert remarks == [
        f"a: in 1 of 4 input sets {stands}",
        f"b: in 1 of 4 input sets {stands}",
        f"b: in 1 of 4 unusual input sets {stands}",
    ]
    assert without_flips([failure("a", flip=True, at=4)], 4, 0) == (
        [failure("a", flip=True, at=4)],
        [],
    )


def test_a_departure_on_a_grid_is_told_in_steps() -> None:
    reference = np.array([0.0, 1.0, 2.0])
    candidate = np.array([0.0, 1.0, 3.0])
    made = measure(reference, candidate, rtol=0.0, atol=0.0)
    bound = Bound(Gap(greatest=0.25, moved=1, size=3), step=0.5)
    assert in_steps(reference, candidate, made, 1, bound) == (
        "departs by 2 steps of its last quantizer or rounding at [2] (reference 2, got 3), and 1 "
        "of 3 values (33%) lie on another step; the untouched model's own last bits move 1 of 3 "
        "values (33%) by 0.5 (at most 4x as many, 2x as far)"
    )


@pytest.mark.parametrize(
    ("own", "other", "words"),
    [
        ({1: 0, 2: 0}, {1: 0}, ("2 keys (2 only there)", "1 key")),
        ({}, {"a": 0}, ("0 keys", "1 key ('a' only there)")),
        (
            dict.fromkeys(range(5)),
            dict.fromkeys(range(3, 5)),
            ("5 keys (0, 1, 2 only there)", "2 keys"),
        ),
        (dict.fromkeys(range(4)), {}, ("4 keys (0, 1, 2 and 1 more only there)", "0 keys")),
    ],
)
def test_keys_that_one_side_lacks_are_named(
    own: dict[Any, Any], other: dict[Any, Any], words: tuple[str, str]
) -> None:
    [mismatch] = walk("y", dict.fromkeys(own, 1.0), dict.fromkeys(other, 1.0))
    assert isinstance(mismatch, Mismatch)
    assert (mismatch.reference, mismatch.candidate) == words
