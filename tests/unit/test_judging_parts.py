"""Small judgements on the untouched model and its noise, on both sides of each boundary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_harness.accuracy.explain import MOST_ELEMENT, MOST_L2
from onnx_harness.accuracy.noise import Gap, Noise
from onnx_harness.accuracy.tolerance import Tolerance
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging import emulation, inside
from onnx_harness.judging import noise_floor as floor_room
from onnx_harness.judging.overflow import Overflow, RangeVerdict, _unusually, by_value
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.runs import few_elements, nudged
from onnx_harness.judging.untouched import (
    DRAWS,
    false_shapes,
    is_of,
    made_constant,
    said_of,
    unsteady,
)
from onnx_harness.judging.verdict import Verdict
from onnx_harness.model.file import Model
from onnx_harness.results.cells import Status, Symptom
from tests.models import model, save


def referred(*outputs: dict[str, Any], unusual: str = "", unstable: str = "") -> Reference:
    sets = tuple(InputSet(f"set {place}", {}, unusual) for place in range(len(outputs)))
    return Reference(sets, outputs, frozenset(unstable))


@pytest.mark.parametrize(
    ("name", "output", "of"),
    [
        ("out", "out", True),
        ("out[0]", "out", True),
        ("out['a'][1]", "out", True),
        ("out2", "out", False),
        ("out", "out2", False),
        ("ou", "out", False),
        ("anything", "*", True),
    ],
)
def test_a_value_is_of_its_output_and_of_no_namesake(
    name: str, output: str, of: bool
) -> None:
    assert is_of(name, output) is of


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([(3, 2)], None),
        ([(3, 3)], "output y is declared as [?, 2] and comes out as [3, 3]"),
        ([(3, 2), (2,), (1, 9)], "output y is declared as [?, 2] and comes out as [2]"),
        ([(3, 2, 1)], "output y is declared as [?, 2] and comes out as [3, 2, 1]"),
    ],
)
def test_an_output_of_a_false_shape_is_told_once(
    tmp_path: Path, shapes: list[tuple[int, ...]], words: str | None
) -> None:
    made = model(
        "(float[?,2] x) => (float[?,2] y, float z) { y = Neg(x)  z = ReduceMax(x) }"
    )
    made.graph.output[1].type.tensor_type.ClearField("shape")
    reference = referred(*({"y": np.zeros(shape), "z": np.zeros(5)} for shape in shapes))
    told = false_shapes(Model(save(made, tmp_path / "m.onnx")), reference)
    assert [line.split(":")[0] for line in told] == ([] if words is None else [words])


RANDOM = "(float[2] x) => (float[2] y, float[2] z) { y = RandomNormalLike(x)  z = Neg(x) }"


@pytest.mark.parametrize(
    ("reruns", "provider", "constant"),
    [
        ([1.0] * (DRAWS - 1), "cpu", ["y"]),
        ([1.0] * (DRAWS - 2) + [2.0], "cpu", []),
        ([2.0], "cpu", []),
        ([1.0] * (DRAWS - 1), "cuda", []),
    ],
)
def test_what_is_drawn_and_always_the_same_was_made_constant(
    tmp_path: Path, reruns: list[float], provider: str, constant: list[str]
) -> None:
    drawn = Model(save(model(RANDOM), tmp_path / "m.onnx"))
    reference = referred({"y": np.ones(2), "z": np.ones(2)}, unstable="yz")
    answers = iter(reruns)

    def again() -> dict[str, Any]:
        return {"y": np.full(2, next(answers)), "z": np.ones(2)}

    first = {"y": np.ones(2), "z": np.ones(2)}
    assert made_constant(drawn, reference, provider, first, again) == constant
    assert made_constant(drawn, reference, provider, first, None) == []
    lost = made_constant(drawn, reference, "cpu", first, dict)
    assert lost == []
    steady = replace(reference, unstable=frozenset())
    assert made_constant(drawn, steady, "cpu", first, lambda: {"y": np.ones(2)}) == []
    if provider == "cpu":
        assert next(answers, None) is None


BOUND = Tolerance(rtol=0.1, atol=1.0)
SHARE = 0.25 / MOST_ELEMENT


@pytest.mark.parametrize(
    ("gaps", "judges"),
    [
        ({"y": Gap(greatest=2.0, scale=10.0)}, {}),
        ({"y": Gap(greatest=2.1, scale=10.0)}, {0: False}),
        ({"y": Gap(greatest=21.0, scale=200.0 / SHARE / 8)}, {}),
        ({"y": Gap(greatest=1.5, scale=1.5 / SHARE)}, {}),
        ({"y[0]": Gap(nonfinite=1)}, {0: False}),
        ({"y": Gap(changed=1)}, {0: False}),
    ],
)
def test_an_unusual_set_on_which_last_bits_break_the_bound_judges_less_or_nothing(
    gaps: dict[str, Gap], judges: dict[int, bool]
) -> None:
    asked: list[str] = []

    def tolerance_for(output: str) -> Tolerance:
        asked.append(output)
        return BOUND

    reference = referred({"y": np.zeros(2)})
    assert unsteady(reference, Noise((gaps,)), tolerance_for) == judges
    assert asked == ["y"]


def test_a_set_judges_where_its_noise_is_beyond_the_bound_and_no_chaos() -> None:
    strict = Tolerance(rtol=0.0, atol=1.0)
    reference = referred(
        {"y": np.zeros(2), "z": np.zeros(2)}, {"y": np.zeros(2)}, unusual="odd"
    )
    mild, wild = Gap(greatest=2.0, scale=1000.0), Gap(greatest=2.0, scale=4.0)
    shaky = unsteady(
        reference, Noise(({"y": wild, "z": mild}, {"y": mild})), lambda _: strict
    )
    assert shaky == {0: False, 1: True}
    turned = unsteady(reference, Noise(({"y": mild, "z": wild}, {})), lambda _: strict)
    assert turned == {0: False}
    told = said_of(reference, shaky)
    assert told[0].startswith("judges nothing, since last bits alone")
    assert told[1] == (
        "held to the untouched model's own noise, which is beyond the bound there: odd"
    )
    assert said_of(reference, {}) == []
    assert len(said_of(reference, {0: True, 1: True})) == 1


def overflow(value: str, greatest: float, input_set: int = 0) -> Overflow:
    place = SimpleNamespace(value=value)
    return Overflow(place, greatest, input_set)  # type: ignore[arg-type]


def test_the_greatest_overflow_of_each_value_counts_in_the_graph_s_order() -> None:
    seen = [
        overflow("b", 7e4),
        overflow("a", 9e4),
        overflow("b", 8e4, 1),
        overflow("a", 7e4, 1),
    ]
    found = by_value(seen)
    assert list(found) == ["b", "a"]
    assert [each.greatest for each in found.values()] == [8e4, 9e4]
    assert by_value(seen[::-1])["a"].greatest == 9e4
    assert by_value([overflow("a", 7e4, 2), overflow("a", 7e4)])["a"].input_set == 2


def test_the_least_magnitude_that_overflows_is_told_with_its_worst_value() -> None:
    sets = [InputSet(str(place), {}, f"at {place}") for place in range(3)]
    assert _unusually(sets, []) == ()
    seen = [overflow("a", 9e9, 1), overflow("b", 7e4, 2), overflow("c", 8e4, 2)]
    [told] = _unusually(sets, seen)
    assert told.startswith("float16 would overflow at 2: ")
    assert told.endswith("reaches 8e+04")


CLOSE = 1 + 1e-9


@pytest.mark.parametrize(
    ("gap", "rounds", "change"),
    [
        (Gap(), False, False),
        (Gap(nonfinite=1), False, True),
        (Gap(changed=int(2 * MOST_L2)), False, False),
        (Gap(changed=int(2 * MOST_L2) + 1), False, True),
        (Gap(l2=32.0 * CLOSE, greatest=32.0 * CLOSE), False, True),
        (Gap(l2=32.0, greatest=99.0), False, False),
        (Gap(l2=99.0, greatest=32.0), False, False),
        (Gap(l2=32.1, greatest=32.1, norm=1e7), False, False),
        (Gap(l2=32.1, greatest=32.1, scale=1e7), False, False),
        (Gap(l2=MOST_L2, greatest=MOST_ELEMENT), True, False),
        (Gap(l2=MOST_L2 * CLOSE), True, True),
        (Gap(greatest=MOST_ELEMENT * CLOSE), True, True),
        (Gap(l2=50.0, norm=1e7), True, False),
        (Gap(greatest=50.0, scale=1e7), True, False),
    ],
)
def test_a_level_changes_something_beyond_so_many_times_the_model_s_own_noise(
    gap: Gap, rounds: bool, change: bool
) -> None:
    own = Gap(l2=1.0, greatest=1.0, changed=2)
    assert floor_room._is_change(gap, own, rounds) is change
    if change:
        assert floor_room._is_change(gap, None, rounds)


def test_the_size_of_a_gap_is_relative_or_a_share() -> None:
    assert inside._size(Gap(l2=1.0, norm=4.0, changed=9, size=10)) == 0.25
    assert inside._size(Gap(changed=5, size=10)) == 0.5
    assert inside._size(Gap(changed=5)) == 5.0
    sizes = inside._sizes(
        {0: {"b": Gap(changed=1, size=4), "a": Gap()}, 3: {"b": Gap(changed=3, size=4)}}
    )
    assert sizes == [("a", 0.0), ("b", 0.75)]


def test_the_model_s_own_noise_is_that_of_the_set_or_where_it_rounds_of_the_worst() -> None:
    sets: tuple[dict[str, Gap], ...] = (
        {"y": Gap(l2=1.0, norm=1.0)},
        {"y": Gap(l2=5.0, norm=1.0)},
        {},
    )
    for rounds, l2 in ((False, 1.0), (True, 5.0)):
        own = floor_room._own(Noise(sets, has_tail=rounds), [0, 1], 0, "y")
        assert own is not None
        assert own.l2 == l2
    assert floor_room._own(Noise(sets, has_tail=True), [0, 1], 2, "y") is None


GENERATOR = np.random.default_rng


def test_a_last_bit_moves_what_is_no_whole_number() -> None:
    value = np.array([0.5, 1.0, 2.5, np.inf, np.nan, -0.25], np.float32)
    moved = nudged(value, GENERATOR(0))
    assert np.isnan(moved[4])
    changed = moved != value
    assert changed.tolist() == [True, False, True, False, True, True]
    for place in (0, 2, 5):
        assert abs(moved[place] - value[place]) <= np.spacing(np.abs(value[place]))
    assert moved.dtype == np.float32
    wide = nudged(value, GENERATOR(0), 0.125)
    assert (np.abs(wide[[0, 2, 5]] / value[[0, 2, 5]] - 1) <= 0.125).all()
    assert (np.abs(wide[[0, 2, 5]] / value[[0, 2, 5]] - 1) > 1e-5).any()
    assert wide[1] == 1.0


def test_what_cannot_be_moved_is_the_same_object() -> None:
    for value in (np.array([1.0, 2.0]), np.array([1, 2]), np.array([np.inf, np.nan])):
        assert nudged(value, GENERATOR(0)) is value
    still = [np.array([1.0]), np.array([2])]
    assert nudged(still, GENERATOR(0)) is still
    one = nudged([np.array([1.0]), np.array([0.5])], GENERATOR(0))
    assert one[0].tolist() == [1.0]
    assert one[1][0] != 0.5
    [wide] = nudged([np.full(99, 0.5)], GENERATOR(0), 0.25)
    assert np.ptp(wide) > 0.2
    both = {float(nudged(np.array([0.5]), GENERATOR(seed))[0]) for seed in range(20)}
    assert both == {np.nextafter(0.5, 0), np.nextafter(0.5, 1)}


@pytest.mark.parametrize(
    ("outputs", "few"),
    [
        ({"y": np.zeros(64)}, True),
        ({"y": np.zeros(1)}, True),
        ({"y": None}, False),
        ({"y": np.zeros(65)}, False),
        ({"y": np.zeros(0)}, False),
        ({"y": np.zeros(3, np.int64)}, False),
        ({"u": np.zeros(3)}, False),
        ({"y": np.zeros(65), "z": [np.zeros(65), np.zeros(2)]}, True),
    ],
)
def test_an_output_of_few_elements_may_be_right_by_chance(
    outputs: dict[str, Any], few: bool
) -> None:
    assert few_elements(referred(outputs, unstable="u")) is few


def said(status: Status, word: str) -> Verdict:
    comparison: Any = f"the distances of {word}"
    symptom = None if status is Status.PASS else Symptom.WRONG_VALUES
    reason = None if status is Status.PASS else f"{word} departs"
    return Verdict(status, comparison, reason, (f"{word} line",), (f"{word} note",), symptom)


RIGHT, WRONG = (said(status, "float32") for status in (Status.PASS, Status.FAIL))
HALF_RIGHT, HALF_WRONG = (said(status, "float16") for status in (Status.PASS, Status.FAIL))
RANGED = RangeVerdict("it overflows", ("where",), ("range note",), (3,))


@pytest.mark.parametrize(
    ("emulated", "half", "ranged", "reason", "notes", "of"),
    [
        (RIGHT, HALF_RIGHT, False, None, ["float32 note", "made", "range note"], RIGHT),
        (RIGHT, None, False, None, ["float32 note", "made", "range note"], RIGHT),
        (
            RIGHT,
            HALF_WRONG,
            False,
            "float16 as hardware computes it departs: float16 departs",
            ["float32 note", "made", "range note"],
            HALF_WRONG,
        ),
        (
            RIGHT,
            HALF_WRONG,
            True,
            "it overflows",
            ["float32 note", "made", "range note"],
            RIGHT,
        ),
        (RIGHT, None, True, "it overflows", ["float32 note", "made", "range note"], RIGHT),
        (WRONG, None, False, "float32 departs", ["float32 note", "made"], WRONG),
        (WRONG, HALF_WRONG, False, "float32 departs", ["float32 note", "made"], WRONG),
        (
            WRONG,
            HALF_RIGHT,
            True,
            None,
            [
                "float16 note",
                "float16 as hardware computes it is right, and decides. In float32, as computed "
                "here: float32 departs",
            ],
            HALF_RIGHT,
        ),
    ],
)
def test_float16_decides_where_it_is_right_and_where_it_alone_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
    emulated: Verdict,
    half: Verdict | None,
    ranged: bool,
    reason: str | None,
    notes: list[str],
    of: Verdict,
) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(emulation, "_simulate", lambda *words: (half, ("made", *words[2:])))
    range_verdict = RANGED if ranged else RangeVerdict(notes=RANGED.notes)

    def judges(*words: Any) -> RangeVerdict:
        asked.append(words)
        return range_verdict

    monkeypatch.setattr(emulation, "judge_range", judges)
    outcome = emulation.judge_half("standard", "candidate", emulated)  # type: ignore[arg-type]
    assert (outcome.reason, list(outcome.notes)) == (reason, notes)
    assert (outcome.passed, outcome.comparison) == (reason is None, of.comparison)
    assert outcome.emulated == emulated.comparison
    assert outcome.simulated == (half and half.comparison)
    assert asked == ([("standard", "candidate", half)] if emulated is RIGHT else [])
    if ranged and emulated is RIGHT:
        assert (outcome.detail, outcome.failing) == (("where",), (3,))
        assert outcome.symptom is Symptom.WRONG_VALUES
    else:
        assert (outcome.detail, outcome.symptom) == (of.detail, of.symptom)


def test_what_fails_by_no_value_is_not_simulated() -> None:
    failed = replace(WRONG, symptom=Symptom.VACUOUS)
    assert emulation.judge_half("standard", "candidate", failed) is failed  # type: ignore[arg-type]
