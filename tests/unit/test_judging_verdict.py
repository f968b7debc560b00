"""The verdict's own decisions: what is compared with what, on which sets, and what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_harness.accuracy.compare import ComparedSet, Comparison
from onnx_harness.accuracy.explain import Yardstick
from onnx_harness.accuracy.failures import Check, OutputFailure
from onnx_harness.accuracy.noise import Gap, Noise
from onnx_harness.cards.card import Card, PathSource
from onnx_harness.inputs.values.sets import MAGNIFIED, RISING, InputSet
from onnx_harness.judging import verdict as room
from onnx_harness.judging.ideal import Conversion, Ideal
from onnx_harness.judging.noise_floor import INEXACT, NOT_NOISE, RESTS_ON
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.standard import Standard
from onnx_harness.judging.untouched import DRAWS
from onnx_harness.judging.verdict import (
    Verdict,
    measured_yardstick,
    verdict,
)
from onnx_harness.model.file import Model
from onnx_harness.providers import get
from onnx_harness.results.cells import Status, Symptom
from onnx_harness.transforms import Precision
from tests.models import model, save

NEG = "(float[n,2] x) => (float[n,2] y, float[n,2] z) { y = Neg(x) z = Abs(x) }"
SETS = (
    InputSet("one", {"x": np.full((1, 2), 1, "f4")}),
    InputSet("two", {"x": np.full((2, 2), 2, "f4")}, large=True),
    InputSet("odd", {"x": np.full((1, 2), np.inf, "f4")}, "odd"),
    InputSet("poised", {"x": np.full((1, 2), 3, "f4")}, "on an edge", poised=True),
    InputSet("smooth", {"x": np.full((1, 2), 4, "f4")}, f"at 9 {MAGNIFIED}", smooth=True),
    InputSet("rising", {"x": np.full((1, 2), 5, "f4")}, RISING),
)
OUTPUTS: tuple[dict[str, Any], ...] = tuple(
    {"y": np.full(2, at, "f4"), "z": np.full(2, -at, "f4")} for at in range(6)
)
CANDIDATE: list[dict[str, Any]] = [
    {name: value + 1 for name, value in outputs.items()} for outputs in OUTPUTS
]
CONVERSION = Conversion("float16")
FLOOR = Noise(({},) * 6)


def held_to(folder: Path, **changes: Any) -> Standard:
    path = save(model(changes.pop("text", NEG)), folder / "m.onnx")
    kept: Any = "cache"
    unstable = frozenset(changes.pop("unstable", ""))
    words: dict[str, Any] = {
        "model": Model(path),
        "reference": Reference(SETS, OUTPUTS, unstable),
        "card": Card(path=path, name="m", source=PathSource(path)),
        "precision": Precision.FP32,
        "conversion": None,
        "float_io": None,
        "provider": "cpu",
        "exact": False,
        "override": None,
        "kept": kept,
    }
    return Standard(**(words | changes))


def said(*failures: OutputFailure, notes: tuple[str, ...] = ()) -> Comparison:
    record: Any = SimpleNamespace(outputs={})
    return Comparison(record, failures, notes)


def failing(check: Check = Check.ELEMENTS, at: int | None = 0) -> OutputFailure:
    return OutputFailure("y", check, "is wrong", at=at)


def noting(asked: list[Any], answer: Any) -> Any:
    """Note what is asked, and give that answer."""

    def answers(*words: Any) -> Any:
        asked.append(words)
        return answer

    return answers


def false_of(made: Model, reference: Reference) -> list[str]:
    assert reference.sets
    return [f"false of {made.path.name}"]


# what is compared


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Answers for comparisons, in turn; the last one for all that follow."""
    asked: list[Any] = []

    def answer(*answers: Comparison) -> list[Any]:
        waiting = list(answers)

        def compares(sets: Any, tolerance_for: Any, **more: Any) -> Comparison:
            asked.append((sets, tolerance_for("y"), more))
            return waiting.pop(0) if len(waiting) > 1 else waiting[0]

        monkeypatch.setattr(room, "compare", compares)
        return asked

    return answer


def test_each_set_is_compared_by_what_is_unusual_about_it(
    tmp_path: Path, compared: Any
) -> None:
    asked = compared(said(failing(at=1), failing(at=None), failing(at=4)))
    held = held_to(tmp_path, float_io="float16", override=(0.5, 0.25))
    noise = Noise(tuple({"y": Gap(l2=float(at))} for at in range(6)))
    yardstick = Yardstick(noise, usual=(0, 1))
    places = [0, 1, 3, 4, 5]
    found = room._compared(held, OUTPUTS, CANDIDATE, places, yardstick)
    [(sets, tolerance, more)] = asked
    shapes = ["{'x': [(1, 2)]}", "{'x': [(2, 2)]}", *["{'x': [(1, 2)]}"] * 3]
    flags: list[tuple[bool, bool, bool]] = [
        (False, False, False),
        (False, False, False),
        (False, False, True),
        (True, True, False),
        (True, True, True),
    ]
    assert sets == [
        ComparedSet(SETS[at].name, OUTPUTS[at], CANDIDATE[at], *flag, sizes=size)
        for at, flag, size in zip(places, flags, shapes, strict=True)
    ]
    assert (tolerance.rtol, tolerance.atol) == (0.5, 0.25)
    assert more == {
        "float_io": "float16",
        "inputs_differ": True,
        "yardstick": yardstick.on(places),
    }
    assert [failure.at for failure in found.failures] == [1, None, 5]
    asked.clear()
    compared(said())
    room._compared(held, OUTPUTS, CANDIDATE, [2], None)
    assert asked[0][2] == {"float_io": "float16", "inputs_differ": False, "yardstick": None}
    twins = Reference((SETS[0], replace(SETS[0], name="twin")), OUTPUTS[:2], frozenset())
    room._compared(replace(held, reference=twins), OUTPUTS, CANDIDATE, [0, 1], None)
    assert asked[1][2]["inputs_differ"] is False
    room._compared(held, OUTPUTS, CANDIDATE, [0, 1], None)
    assert asked[2][2]["inputs_differ"] is True


@pytest.mark.parametrize(
    ("precision", "places"), [(Precision.INT8, [0]), (Precision.FP16, [0, 1])]
)
def test_what_quantizes_is_not_judged_on_large_sets(
    precision: Precision, places: list[int], tmp_path: Path
) -> None:
    assert room._usual(held_to(tmp_path, precision=precision)) == places


# what explains a departure


@pytest.fixture
def floors(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []

    def floor(*words: Any) -> Noise:
        asked.append(("floor", *words))
        notes = (
            "float64 can't be run",
            f"{NOT_NOISE} a",
            f"{RESTS_ON} b",
            f"{INEXACT} c",
        )
        return replace(FLOOR, notes=notes)

    monkeypatch.setattr(room, "noise_floor", floor)
    return asked


TOLD = [f"{NOT_NOISE} a", f"{RESTS_ON} b", f"{INEXACT} c"]


@pytest.mark.parametrize(("provider", "factor"), [("cpu", 1.0), ("webgpu", 4.0)])
def test_float32_is_explained_by_the_model_s_noise(
    provider: str, factor: float, floors: list[Any], tmp_path: Path
) -> None:
    held = held_to(tmp_path, provider=provider)
    assert get(provider).noise_factor == factor
    yardstick, notes = measured_yardstick(held)
    assert notes == TOLD
    assert yardstick is not None
    assert yardstick.floor.sets == FLOOR.sets
    assert (yardstick.ideal, yardstick.range, yardstick.type) == (None, None, "float32")
    assert (yardstick.factor, yardstick.usual) == (factor, (0, 1))
    assert floors == [("floor", held.model, held.reference, held.kept)]


def test_a_conversion_is_explained_by_the_ideal_one(
    floors: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ideal = Ideal(Noise(({"y": Gap(l2=1.0)},)), Noise(({"y": Gap(l2=2.0)},)))

    def ideals(*words: Any) -> Ideal:
        floors.append(("ideal", *words))
        return ideal

    monkeypatch.setattr(room, "ideal_conversion", ideals)
    held = held_to(
        tmp_path,
        conversion=Conversion("int8"),
        precision=Precision.INT8,
        calibration=SETS[:1],
    )
    yardstick, notes = measured_yardstick(held)
    assert yardstick is not None
    assert (yardstick.ideal, yardstick.range) == (ideal.digits, ideal.range)
    assert yardstick.floor.sets == FLOOR.sets
    assert (yardstick.type, yardstick.factor, yardstick.usual) == ("int8", 1.0, (0,))
    assert notes == TOLD
    words = (held.model, held.reference, held.conversion, held.kept, SETS[:1])
    assert floors[1:] == [("ideal", *words)]

    def fails(*_: Any) -> Ideal:
        raise RuntimeError("no kernel " + "x" * 200)

    monkeypatch.setattr(room, "ideal_conversion", fails)
    nothing, notes = measured_yardstick(held)
    assert nothing is None
    assert notes[:-1] == TOLD
    why = "whether it is faithful isn't judged: the ideal conversion can't be run: no kernel xx"
    assert notes[-1].startswith(why)
    assert len(notes[-1]) == len(why) - len("no kernel xx") + 160


def test_a_case_and_what_needs_no_explanation_are_not_measured(
    floors: list[Any], tmp_path: Path
) -> None:
    held = held_to(tmp_path)
    for plain in (
        replace(held, card=replace(held.card, suite="onnx")),
        replace(held, explained=False),
    ):
        assert measured_yardstick(plain) == (None, [])
    assert floors == []


# where the reference itself is in doubt


def steadied(
    monkeypatch: pytest.MonkeyPatch, shaky: dict[int, bool], *, explained: bool = True
) -> list[Any]:
    asked: list[Any] = []

    def floor(*words: Any) -> Noise:
        asked.append(("floor", *words))
        return Noise(tuple({"y": Gap(l2=float(at))} if at > 1 else {} for at in range(6)))

    def unsteady(reference: Any, noise: Noise, tolerance_for: Any) -> dict[int, bool]:
        asked.append((reference, noise, tolerance_for("y").rtol))
        return shaky

    yardstick = Yardstick(FLOOR, usual=(0,)) if explained else None

    def measured(standard: Standard) -> tuple[Yardstick | None, list[str]]:
        assert isinstance(standard, Standard)
        return yardstick, ["measured"]

    monkeypatch.setattr(room, "measured_yardstick", measured)
    monkeypatch.setattr(room, "unusual_floor", floor)
    monkeypatch.setattr(room, "unsteady", unsteady)
    monkeypatch.setattr(room, "said_of", noting(asked, ["shaky"]))
    return asked


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (said(), False),
        (said(failing(at=0)), False),
        (said(failing(at=None)), False),
        (said(failing(at=2)), True),
        (said(failing(at=1), failing(at=4)), True),
    ],
)
def test_a_model_s_steadiness_is_asked_where_an_unusual_set_fails(
    first: Comparison,
    again: bool,
    tmp_path: Path,
    compared: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    questions = steadied(monkeypatch, {2: False, 3: True})
    asked = compared(first, said(notes=("second",)))
    held = held_to(tmp_path)
    found = room._steadied(held, OUTPUTS, CANDIDATE)
    assert [len(sets) for sets, _, _ in asked] == ([6, 5] if again else [6])
    floors = [more["yardstick"].floor for _, _, more in asked]
    assert floors[0] == FLOOR
    assert found.comparison == (said(notes=("second",)) if again else first)
    assert list(found.places) == ([0, 1, 3, 4, 5] if again else list(range(6)))
    assert found.notes == (("measured", "shaky") if again else ("measured",))
    assert (found.expected, found.outputs) == (OUTPUTS, CANDIDATE)
    yardstick = found.yardstick
    assert yardstick is not None
    assert floors[1:] == ([yardstick.on(found.places).floor] if again else [])
    if not again:
        assert questions == []
        assert yardstick.floor == FLOOR
        return
    noise = questions[1][1]
    assert questions == [
        ("floor", held.model, held.reference, held.kept),
        (held.reference, noise, 1e-4),
        (held.reference, {2: False, 3: True}),
    ]
    assert yardstick.floor.sets == noise.sets


@pytest.mark.parametrize("at", [0, None])
def test_a_failure_of_the_first_set_or_of_none_is_no_unusual_one(
    at: int | None, tmp_path: Path, compared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = steadied(monkeypatch, {})
    compared(said(failing(at=at)))
    held = held_to(tmp_path)
    alone = replace(held.reference, sets=(SETS[0], SETS[2]), outputs=OUTPUTS[:2])
    room._steadied(replace(held, reference=alone), OUTPUTS[:2], CANDIDATE[:2])
    assert questions == []


@pytest.mark.parametrize(("factor", "asks"), [(1.0, False), (1.5, True)])
def test_kernels_that_are_not_the_reference_s_are_known_by_their_noise(
    factor: float, asks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    kernels: Any = SimpleNamespace(noise_factor=factor)
    monkeypatch.setattr("onnx_harness.providers.get", lambda _: kernels)
    monkeypatch.setattr(room, "specified_instead", noting(asked, {}))
    found = room._specified(held_to(tmp_path), OUTPUTS, CANDIDATE, range(6))
    assert found == ({2: {}} if asks else {})
    assert len(asked) == asks


def test_all_sets_stay_where_types_change_and_none_is_asked_without_noise(
    tmp_path: Path, compared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steadied(monkeypatch, {2: False})
    asked = compared(said(failing(Check.DTYPE, at=2)))
    assert len(room._steadied(held_to(tmp_path), OUTPUTS, CANDIDATE).places) == 6
    assert [len(sets) for sets, _, _ in asked] == [6, 6]
    asked.clear()
    questions = steadied(monkeypatch, {2: False}, explained=False)
    assert len(room._steadied(held_to(tmp_path), OUTPUTS, CANDIDATE).places) == 6
    assert (len(asked), questions) == (1, [])


@pytest.mark.parametrize(
    ("precision", "count"), [(Precision.FP32, 6), (Precision.FP16, 2), (Precision.INT8, 1)]
)
def test_a_conversion_is_judged_on_usual_sets(
    precision: Precision,
    count: int,
    tmp_path: Path,
    compared: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steadied(monkeypatch, {})
    asked = compared(said())
    room._steadied(held_to(tmp_path, precision=precision), OUTPUTS, CANDIDATE)
    assert [len(sets) for sets, _, _ in asked] == [count]


@pytest.mark.parametrize("provider", ["cpu", "webgpu"])
def test_on_sets_with_infinities_onnx_s_own_reference_is_asked_about_other_kernels(
    provider: str, tmp_path: Path, compared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[Any] = []
    odd = replace(SETS[4], values={"x": np.full((1, 2), np.nan, "f4")})
    usual = replace(SETS[1], values={"x": np.full((1, 2), np.nan, "f4")})
    sets = (SETS[0], usual, SETS[2], SETS[3], odd, SETS[5])
    instead = {"y": np.zeros(2, "f4")}

    def specifies(*words: Any) -> Any:
        questions.append(words)
        return instead if words[3].name == "odd" else None

    monkeypatch.setattr(room, "specified_instead", specifies)
    asked = compared(said(failing(), notes=("new",)))
    held = held_to(tmp_path, provider=provider)
    held = replace(held, reference=replace(held.reference, sets=sets))
    yardstick = Yardstick(FLOOR)
    before = room._Compared(
        said(failing()), OUTPUTS, CANDIDATE, range(6), yardstick, ("before",)
    )
    found = room._as_specified(held, before)
    if provider == "cpu":
        assert found is before
        assert questions == asked == []
        return
    assert questions == [(CANDIDATE[at], OUTPUTS[at], held.model, sets[at]) for at in (2, 4)]
    [(seen, _, more)] = asked
    assert [each.reference for each in seen] == [*OUTPUTS[:2], instead, *OUTPUTS[3:]]
    assert [each.candidate for each in seen] == CANDIDATE
    assert more["yardstick"] is yardstick
    assert found.expected == [*OUTPUTS[:2], instead, *OUTPUTS[3:]]
    assert found.comparison.notes == ("new",)
    assert found.notes[0] == "before"
    [note] = found.notes[1:]
    assert note.startswith("compared with ONNX's reference implementation where ")
    assert note.endswith("and neither it nor webgpu does: odd")
    monkeypatch.setattr(room, "specified_instead", lambda *_: None)
    assert room._as_specified(held, before) is before


# what it comes to


def concluded(
    held: Standard, comparison: Comparison, places: Any = range(6), **more: Any
) -> Verdict:
    found = room._Compared(
        comparison, OUTPUTS, CANDIDATE, places, Yardstick(FLOOR), ("note",)
    )
    return room._concluded(held, replace(found, **more))


@pytest.mark.parametrize(("empty", "remarks"), [(None, ("remark",)), ("nothing", ())])
def test_a_comparison_that_could_not_fail_is_no_pass(
    empty: str | None,
    remarks: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, passed = held_to(tmp_path), said()
    asked: list[Any] = []

    def proves(*words: Any) -> Any:
        asked.append(words)
        return empty, remarks

    monkeypatch.setattr(room, "proves_nothing", proves)
    found = concluded(held, passed)
    notes = ("note", *remarks)
    if empty is None:
        assert found == Verdict(Status.PASS, passed, notes=notes)
    else:
        assert found == Verdict(
            Status.FAIL, passed, empty, notes=notes, symptom=Symptom.VACUOUS
        )
    assert asked == [(held, passed)]


@pytest.mark.parametrize(
    ("check", "symptom"),
    [(Check.ELEMENTS, Symptom.WRONG_VALUES), (Check.SHAPE, Symptom.CHANGED_TYPES)],
)
@pytest.mark.parametrize("usual", [True, False])
def test_a_failure_says_whether_it_is_on_unusual_inputs_alone(
    check: Check, symptom: Symptom, usual: bool, tmp_path: Path, compared: Any
) -> None:
    asked = compared(said(*([failing()] if usual else [])))
    held, comparison = held_to(tmp_path), said(failing(check))
    found = concluded(held, comparison)
    alone = "" if usual else "on unusual inputs alone, "
    reason = f"{alone}output y: is wrong"
    assert found == Verdict(
        Status.FAIL, comparison, reason, comparison.lines(), ("note",), symptom
    )
    [(sets, _, more)] = asked
    assert [(each.name, each.reference, each.candidate) for each in sets] == [
        (SETS[at].name, OUTPUTS[at], CANDIDATE[at]) for at in (0, 1)
    ]
    assert more["yardstick"].floor.sets == FLOOR.sets[:2]
    asked.clear()
    assert concluded(held, comparison, [0, 1]).reason == "output y: is wrong"
    assert asked == []


@pytest.fixture
def simple(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All but the verdict's own way taken for granted."""
    asked: list[Any] = []
    monkeypatch.setattr(room, "made_constant", noting(asked, []))
    monkeypatch.setattr(room, "measured_yardstick", lambda _: (None, ["measured"]))
    monkeypatch.setattr(room, "proves_nothing", lambda *_: (None, ()))
    monkeypatch.setattr(room, "false_shapes", false_of)
    return asked


def test_notes_of_a_verdict_come_in_the_order_of_its_questions(
    tmp_path: Path, simple: list[Any], compared: Any
) -> None:
    asked = compared(said(notes=("of outputs",)))
    held = held_to(tmp_path)

    def again() -> dict[str, Any]:
        return {}

    found = verdict(held, CANDIDATE, again)
    assert found.status is Status.PASS
    assert found.notes == ("false of m.onnx", "measured", "of outputs")
    assert simple == [(held.model, held.reference, "cpu", CANDIDATE[0], again)]
    assert [each.candidate for each in asked[0][0]] == CANDIDATE


def test_a_failure_is_looked_at_once_more_and_a_pass_is_not(
    tmp_path: Path, simple: list[Any], compared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def specified(held: Standard, found: Any) -> Any:
        asked.append((held, found.comparison))
        return replace(found, comparison=said())

    monkeypatch.setattr(room, "_as_specified", specified)
    held = held_to(tmp_path)
    compared(said(failing()))
    assert verdict(held, CANDIDATE).passed
    assert asked == [(held, said(failing()))]
    compared(said())
    assert verdict(held, CANDIDATE).passed
    assert (len(asked), len(simple)) == (1, 2)


DRAWN = (
    "(float[n,2] x) => (float[n,2] y, float[n,2] z) "
    "{ r = RandomNormalLike(x) y = Add(x, r) z = Abs(x) }"
)


@pytest.mark.parametrize(
    ("text", "words"),
    [(DRAWN, "y (drawn at random by RandomNormalLike (which gives 'r'))"), (NEG, "y")],
)
def test_outputs_that_are_drawn_are_not_judged_and_the_mend_is_told(
    text: str,
    words: str,
    tmp_path: Path,
    simple: list[Any],
    compared: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mends: list[Any] = []
    monkeypatch.setattr(room, "seed_mend", noting(mends, "Mend: a seed"))
    asked = compared(said())
    held = held_to(tmp_path, text=text, unstable="y")
    mend = ". Mend: a seed" if text is DRAWN else ""
    found = verdict(held, CANDIDATE)
    assert found.notes == (
        f"not judged, since the reference itself gives another value each time: {words}{mend}",
        "false of m.onnx",
        "measured",
    )
    for each, expected, given in zip(asked[0][0], OUTPUTS, CANDIDATE, strict=True):
        assert (each.reference, each.candidate) == ({"z": expected["z"]}, {"z": given["z"]})
    all_drawn = held_to(tmp_path, text=text, unstable="yz")
    nothing = verdict(all_drawn, CANDIDATE)
    assert (nothing.status, nothing.symptom) == (Status.NOT_APPLICABLE, Symptom.UNSTABLE)
    both = words.replace("y", "y, z", 1)
    end = " Mend: a seed" if text is DRAWN else ""
    assert nothing.reason == f"the model gives other outputs each time it runs: {both}.{end}"
    assert mends == (
        [(made.model, made.reference, made.card, "cache") for made in (held, all_drawn)]
        if text is DRAWN
        else []
    )
    assert len(simple) == 2


def test_one_set_of_drawn_outputs_alone_is_enough_to_refuse(
    tmp_path: Path, simple: list[Any]
) -> None:
    held = held_to(tmp_path, unstable="yz")
    alone = replace(held.reference, sets=SETS[:1], outputs=OUTPUTS[:1])
    found = verdict(replace(held, reference=alone), CANDIDATE[:1])
    assert found.symptom is Symptom.UNSTABLE
    assert len(simple) == 1


def test_a_verdict_is_concluded_by_the_same_standard(
    tmp_path: Path, simple: list[Any], compared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(room, "_concluded", noting(asked, "a verdict"))
    compared(said())
    held = held_to(tmp_path)
    found: Any = verdict(held, CANDIDATE)
    assert found == "a verdict"
    [(standard, _)] = asked
    assert standard is held
    assert len(simple) == 1


def test_what_was_made_constant_is_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "made_constant", lambda *_: ["y", "z"])
    found = verdict(held_to(tmp_path, unstable="y"), CANDIDATE)
    assert found == Verdict(
        Status.FAIL,
        reason=(
            f"drawn at random by the untouched model, and the same in each of {DRAWS} runs here: "
            "y, z"
        ),
        symptom=Symptom.WRONG_VALUES,
    )
