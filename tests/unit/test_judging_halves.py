"""What float16 does that float32 hides: overflows, the simulated run, and what is said of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from onnx_harness.accuracy.compare import Comparison
from onnx_harness.accuracy.failures import Check, OutputFailure
from onnx_harness.errors import NotApplicable
from onnx_harness.inputs.values.sets import MAGNIFIED, InputSet
from onnx_harness.judging import emulation, overflow
from onnx_harness.judging.emulation import half_as_hardware, half_verdict, judge_simulated
from onnx_harness.judging.half_range import OUTPUT, Place
from onnx_harness.judging.half_runs import open_simulated
from onnx_harness.judging.ideal import Conversion
from onnx_harness.judging.overflow import (
    Overflow,
    RangeVerdict,
    judge_overflows,
    judge_range,
    overflowing,
    overflows_of,
)
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.verdict import Verdict
from onnx_harness.model.file import Model
from onnx_harness.results.cache import Cache
from onnx_harness.results.cells import NOT_SIMULATED, Status, Symptom
from onnx_harness.transforms import Precision
from tests.models import model, save

SINGLE = "(float[2] x) => (float[2] y) { y = Exp(x) }"
HALF = "(float[2] x) => (float[2] y) { h = Cast <to = 10> (x) e = Exp(h) y = Cast <to = 1> (e) }"
NARROW = "(float16[2] x) => (float16[2] y, float16[2] z) { y = Exp(x) z = Exp(y) }"
SETS = (
    InputSet("one", {"x": np.array([1, 2], "f4")}),
    InputSet("two", {"x": np.array([3, 20], "f4")}),
    InputSet("at 10", {"x": np.array([10, 20], "f4")}, f"at 10 {MAGNIFIED}"),
    InputSet("odd", {"x": np.array([np.inf, 20], "f4")}, "odd"),
)


def answering(asked: list[Any], answer: Any) -> Callable[..., Any]:
    """Note what is asked; raise the answer if it's an error, and give it otherwise."""

    def answers(*words: Any, **more: Any) -> Any:
        asked.append((*words, more) if more else words)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return answers


def saved(text: str, folder: Path, name: str = "m.onnx") -> Model:
    return Model(save(model(text), folder / name))


def held_to(subject: Model, folder: Path, **changes: Any) -> Any:
    """As much of a standard as is asked for here."""
    outputs = tuple({"y": np.exp(each.values["x"])} for each in SETS)
    words: dict[str, Any] = {
        "model": subject,
        "reference": Reference(SETS, outputs, frozenset()),
        "kept": Cache(folder / "cache"),
        "conversion": Conversion("float16"),
        "precision": Precision.FP16,
    }
    return SimpleNamespace(**(words | changes))


def said(status: Status, notes: tuple[str, ...] = ("note",), at: int | None = 1) -> Verdict:
    record: Any = SimpleNamespace(outputs={})
    failures = (
        ()
        if status is Status.PASS
        else (OutputFailure("y", Check.ELEMENTS, "is wrong", at=at),)
    )
    reason = None if status is Status.PASS else "it is wrong"
    return Verdict(status, Comparison(record, failures, ()), reason, notes=notes)


# what overflows


def over(value: str, greatest: float, at: int, node: str = "") -> Overflow:
    return Overflow(Place(value, node, "Exp"), greatest, at)


@pytest.fixture
def overflows(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    def say(*found: Overflow) -> list[Any]:
        asked: list[Any] = []
        for room in (overflow, emulation):
            monkeypatch.setattr(room, "overflows_of", answering(asked, list(found)))
        return asked

    return say


USUAL = [over("b", 7e4, 0), over("a", 9e4, 1, "exp_1"), over("b", 8e4, 1), over("c", 9e9, 2)]


def test_overflows_on_usual_sets_count_once_each(
    tmp_path: Path, overflows: Callable[..., list[Any]]
) -> None:
    asked = overflows(*USUAL)
    candidate = saved(HALF, tmp_path)
    held = held_to(candidate, tmp_path)
    assert [place.value for place in overflowing(held, candidate)] == ["b", "a"]
    assert asked == [(candidate, SETS, held.kept)]


@pytest.mark.parametrize(
    ("found", "notes"),
    [
        ((), ()),
        (
            (over("a", 9e9, 2), over("b", 8e9, 2)),
            (f"float16 would overflow at 10 {MAGNIFIED}: 'a' (Exp) reaches 9e+09",),
        ),
    ],
)
def test_what_overflows_on_no_usual_set_is_told_at_most(
    found: tuple[Overflow, ...],
    notes: tuple[str, ...],
    tmp_path: Path,
    overflows: Callable[..., list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = overflows(*found)
    monkeypatch.setattr(overflow, "judge_overflows", None)
    candidate = saved(HALF, tmp_path)
    held = held_to(candidate, tmp_path)
    assert judge_range(held, candidate) == RangeVerdict(notes=notes)
    assert asked == [(candidate, SETS, held.kept)]


@pytest.mark.parametrize(
    ("found", "count"),
    [(USUAL, "2 float16 values overflow"), (USUAL[1:2], "a float16 value overflows")],
)
@pytest.mark.parametrize("simulated", [True, False])
def test_an_overflow_without_consequence_is_a_note(
    found: list[Overflow],
    count: str,
    simulated: bool,
    tmp_path: Path,
    overflows: Callable[..., list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    overflows(*found)
    asked: list[Any] = []
    monkeypatch.setattr(overflow, "judge_overflows", answering(asked, said(Status.PASS)))
    candidate = saved(HALF, tmp_path)
    held = held_to(candidate, tmp_path)
    half = said(Status.PASS) if simulated else None
    assert judge_range(held, candidate, half) == RangeVerdict(
        notes=(
            f"{count}, unseen where float32 computes and without consequence for the outputs: "
            "'a' (Exp 'exp_1') reaches 9e+04, and float16 ends at 65504",
        )
    )
    names = ["b", "a"] if found is USUAL else ["a"]
    assert asked == ([] if simulated else [(held, candidate, names)])


@pytest.mark.parametrize("values", [8, 9, 11])
def test_an_overflow_that_makes_outputs_wrong_is_told_with_its_places(
    values: int,
    tmp_path: Path,
    overflows: Callable[..., list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [
        over(f"v{place}", 7e4 + 1e3 * (place == 3), place % 2) for place in range(values)
    ]
    overflows(*found)
    asked: list[Any] = []
    wrong = said(Status.FAIL, at=0)
    monkeypatch.setattr(overflow, "judge_overflows", answering(asked, wrong))
    candidate = saved(HALF, tmp_path)
    held = held_to(candidate, tmp_path)
    verdict = judge_range(held, candidate, said(Status.FAIL))
    reason = (
        "float16 overflows unseen, since this provider computes it in float32: 'v3' (Exp) reaches "
        "7.1e+04 in input set 2 of 4 (two), and float16 ends at 65504"
    )
    lines = [f"'v{place}' (Exp): {7.1e4 if place == 3 else 7e4:.3g}" for place in range(8)]
    more = {8: [], 9: ["and 1 more values"], 11: ["and 3 more values"]}[values]
    detail = ("where float16 computes: it is wrong", *lines, *more)
    assert verdict == RangeVerdict(reason, detail, failing=(0,))
    assert asked == [(held, candidate, [f"v{place}" for place in range(values)])]
    monkeypatch.setattr(
        overflow, "judge_overflows", answering(asked, said(Status.FAIL, at=None))
    )
    assert judge_range(held, candidate).failing == (1,)


def test_outputs_are_judged_with_the_overflowing_values_alone_rounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(overflow, "verdict", answering(asked, "a verdict"))
    opened: list[Any] = []
    real = open_simulated

    def opens(made: onnx.ModelProto, size: int, **more: Any) -> Any:
        opened.append((size, more))
        return real(made, size, **more)

    monkeypatch.setattr(overflow, "open_simulated", opens)
    candidate = saved(NARROW, tmp_path)
    sets = tuple(InputSet(str(at), {"x": np.array([at, 12], np.float16)}) for at in (0.5, 2))
    expected = tuple({"y": np.zeros(2, np.float16)} for _ in sets)
    held = held_to(candidate, tmp_path, reference=Reference(sets, expected, frozenset()))
    found: Any = judge_overflows(held, candidate, ["y"])
    assert found == "a verdict"
    assert opened == [(candidate.size_bytes, {"level": "disable"})]
    [(standard, outputs)] = asked
    assert standard is held
    for given, got in zip(sets, outputs, strict=True):
        assert list(got) == ["y", "z"]
        assert (got["y"].dtype, got["z"].dtype) == (np.float16, np.float32)
        x: Any = given.values["x"]
        with np.errstate(over="ignore"):
            y = np.exp(x.astype(np.float32)).astype(np.float16)
        np.testing.assert_array_equal(got["y"], y)
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(got["z"], np.exp(y.astype(np.float32)), rtol=1e-5)


def test_overflows_are_kept_by_the_candidate_the_sets_and_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    answer = [over("a", 7e4, 0)]

    class Recording:
        key = staticmethod(Cache.key)

        def remember(self, kind: str, key: str, make: Any, codec: Any) -> Any:
            kept.append((kind, key))
            value = make()
            assert codec.loads(codec.dumps(value)) == value
            return value

    asked: list[Any] = []
    monkeypatch.setattr(overflow, "_watch_run", answering(asked, answer))
    cache: Any = Recording()
    first, second = saved(HALF, tmp_path), saved(NARROW, tmp_path, "other.onnx")
    for candidate, sets in ((first, SETS), (first, SETS), (second, SETS), (first, SETS[:1])):
        assert overflows_of(candidate, sets, cache) == answer
    assert asked == [(first, SETS), (first, SETS), (second, SETS), (first, SETS[:1])]
    for name in ("runtime_key", "source_digest"):
        with monkeypatch.context() as patched:
            patched.setattr(overflow, name, lambda: "another")
            overflows_of(first, SETS, cache)
    assert {kind for kind, _ in kept} == {"range"}
    keys = [key for _, key in kept]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 5


@pytest.mark.parametrize("fails", [0, 1, 2, 3])
def test_a_run_that_fails_is_tried_for_empty_tensors_and_without_an_optimizer(
    fails: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def magnitudes(candidate: Any, sets: Any, level: str, *, with_empty: bool) -> Any:
        assert (candidate, sets) == ("candidate", "sets")
        asked.append((with_empty, level))
        if len(asked) <= fails:
            raise RuntimeError(f"no {len(asked)}")
        return ["found"]

    monkeypatch.setattr(overflow, "_magnitudes", magnitudes)
    words: list[Any] = ["candidate", "sets"]
    if fails == 3:
        with pytest.raises(RuntimeError, match="no 3"):
            overflow._watch_run(*words)
    else:
        found: Any = overflow._watch_run(*words)
        assert found == ["found"]
    ways = [(False, "all"), (True, "all"), (True, "disable")]
    assert asked == ways[: fails + 1]


def test_magnitudes_that_float16_cannot_hold_and_that_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = saved(NARROW, tmp_path)
    opened: list[Any] = []
    monkeypatch.setattr(overflow, "open_simulated", answering(opened, "session"))
    greatest = {1: [65519.9, 65520.0], 3: [1e5, math.inf], 10: [math.nan, 7e4]}
    fed: list[Any] = []

    def runs(session: Any, values: Any) -> Any:
        fed.append((session, values["x"].dtype.name))
        return {OUTPUT: np.array(greatest[int(values["x"][0])])}

    monkeypatch.setattr(overflow, "run", runs)
    sets = (SETS[3], *SETS[:3])
    half: list[Any] = [np.asarray(each.values["x"], np.float16) for each in sets]
    narrow = [replace(each, values={"x": x}) for each, x in zip(sets, half, strict=True)]
    found = overflow._magnitudes(candidate, narrow, "basic", with_empty=True)
    assert [(each.place.value, each.greatest, each.input_set) for each in found] == [
        ("z", 65520.0, 1),
        ("y", 1e5, 2),
        ("z", 7e4, 3),
    ]
    assert fed == [("session", "float32")] * 3
    [(made, size, more)] = opened
    assert (size, more) == (candidate.size_bytes, {"level": "basic"})
    empties = len(made.graph.node)
    overflow._magnitudes(candidate, narrow, "all", with_empty=False)
    assert len(opened[1][0].graph.node) < empties
    assert (
        overflow._magnitudes(
            saved(SINGLE, tmp_path, "s.onnx"), narrow, "all", with_empty=False
        )
        == []
    )
    assert len(opened) == 2


# the model that float16 is judged by


def test_where_the_original_computes_in_float16_usual_overflows_alone_are_rounded(
    tmp_path: Path, overflows: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    single, half = saved(SINGLE, tmp_path, "s.onnx"), saved(HALF, tmp_path)
    answers = held_to(half, tmp_path).reference
    cache: Any = "cache"
    asked = overflows(over("h", 8e4, 2), over("e", 7e4, 1), over("e", 9e4, 0))
    rounds: list[Any] = []
    monkeypatch.setattr(emulation, "rounded", answering(rounds, "rounded"))
    monkeypatch.setattr(emulation, "simulated", answering(rounds, "simulated"))
    found: Any = half_as_hardware(half, answers, half, cache)
    assert found == "rounded"
    [(made, values)] = rounds
    assert values == ["e"]
    assert made.graph.output[-1].name == OUTPUT
    assert asked == [(half, SETS, cache)]
    overflows(over("h", 8e4, 2))
    assert half_as_hardware(half, answers, half, cache) is None
    rounds.clear()
    found = half_as_hardware(single, answers, half, cache)
    assert found == "simulated"
    assert rounds == [(half.load(), half.skeleton)]


# the simulated run


@pytest.mark.parametrize(
    ("text", "conversion", "why"),
    [
        (SINGLE, Conversion("float16"), None),
        (SINGLE, Conversion("bfloat16"), None),
        (SINGLE, Conversion("int8"), "it isn't all that the variant leaves behind (fp16)"),
        (SINGLE, None, "it isn't all that the variant leaves behind (fp16)"),
        (
            HALF,
            Conversion("float16"),
            "the untouched model asks for it too, and so its reference was computed in float32",
        ),
    ],
)
def test_float16_is_simulated_where_the_reference_is_float32(
    text: str, conversion: Conversion | None, why: str | None, tmp_path: Path
) -> None:
    held = held_to(saved(text, tmp_path), tmp_path, conversion=conversion)
    assert emulation._not_simulated(held) == why


@pytest.fixture
def simulates(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Answers for the questions on the way to a simulated verdict."""

    def say(
        why: str | None = None, outputs: Any = "outputs", verdict: Any = None
    ) -> list[Any]:
        asked: list[Any] = []
        answers = {
            "_not_simulated": why,
            "_simulated_outputs": outputs,
            "verdict": verdict or said(Status.FAIL),
            "unknown_types": [],
        }
        for name, answer in answers.items():
            noted: list[Any] = asked if name != "unknown_types" else []
            monkeypatch.setattr(emulation, name, answering(noted, answer))
        return asked

    return say


def test_a_simulated_verdict_keeps_its_distances_and_what_was_not_rounded(
    tmp_path: Path, simulates: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = simulates()
    candidate = saved(HALF, tmp_path)
    standard: Any = "standard"
    plain = said(Status.FAIL)
    found = judge_simulated(standard, candidate)
    assert found == replace(plain, simulated=found.comparison)
    assert found.comparison is found.simulated
    assert asked == [(standard,), (standard, candidate), (standard, "outputs")]
    unknown: list[Any] = []
    monkeypatch.setattr(emulation, "unknown_types", answering(unknown, ["b:B", "c:C"]))
    note = (
        "not rounded in the simulated float16, since neither ONNX nor ONNX Runtime says of what "
        "type it is: what b:B, c:C gives"
    )
    assert judge_simulated(standard, candidate).notes == ("note", note)
    asked.clear()
    verdict, notes = emulation._simulate(standard, candidate)
    assert (verdict is not None, notes) == (True, (note,))
    assert asked == [(standard,), (standard, candidate), (standard, "outputs")]
    assert unknown == [(candidate.skeleton,)] * 2


@pytest.mark.parametrize(
    ("why", "outputs", "words"),
    [
        ("it is so", "outputs", "it is so"),
        (None, RuntimeError("first " + "x" * 200 + "\nsecond"), "first xxx"),
    ],
)
def test_what_cannot_be_simulated_is_told(
    why: str | None,
    outputs: Any,
    words: str,
    tmp_path: Path,
    simulates: Callable[..., list[Any]],
) -> None:
    simulates(why, outputs)
    candidate = saved(HALF, tmp_path)
    standard: Any = "standard"
    with pytest.raises(NotApplicable) as told:
        judge_simulated(standard, candidate)
    assert str(told.value).startswith(f"it could not be simulated: {words}")
    verdict, [note] = emulation._simulate(standard, candidate)
    assert verdict is None
    assert note.startswith(f"{NOT_SIMULATED}: {words}")
    if why is None:
        assert len(note) == len(f"{NOT_SIMULATED}: ") + 160
    else:
        assert note.endswith(words)


def test_a_model_is_judged_where_float16_computes_whatever_the_provider_does(
    tmp_path: Path, simulates: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = saved(HALF, tmp_path)
    standard: Any = "standard"
    asked = simulates()
    assert half_verdict(standard, candidate).status is Status.FAIL
    assert asked == [(standard,), (standard, candidate), (standard, "outputs")]
    simulates(why="it can't be")
    places: list[Any] = []
    judged: list[Any] = []
    monkeypatch.setattr(emulation, "judge_overflows", answering(judged, said(Status.FAIL)))
    monkeypatch.setattr(emulation, "overflowing", answering(places, []))
    assert half_verdict(standard, candidate) == Verdict(Status.PASS)
    found = [Place("a", "", "Exp"), Place("b", "", "Exp")]
    monkeypatch.setattr(emulation, "overflowing", answering(places, found))
    assert half_verdict(standard, candidate).status is Status.FAIL
    assert places == [(standard, candidate)] * 2
    assert judged == [(standard, candidate, ["a", "b"])]


def test_a_simulated_run_feeds_numbers_of_the_type_and_gives_outputs_of_the_reference_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "(float[3] f, float16[3] h, bfloat16[3] b) => (float16[3] y, bfloat16[3] z, float[3] g) "
        "{ y = Mul(h, h) z = Mul(b, b) g = Abs(f) }"
    )
    candidate = saved(text, tmp_path)
    opened: list[Any] = []
    real = open_simulated

    def opens(made: onnx.ModelProto, size: int, **more: Any) -> Any:
        opened.append((size, more))
        return real(made, size, **more)

    monkeypatch.setattr(emulation, "open_simulated", opens)
    x = np.array([0.1, -0.7, 0.013], np.float32)
    sets = [InputSet(str(at), {"f": x, "h": x, "b": x * np.float32(at)}) for at in (1, 2, 3)]
    sets[1] = replace(sets[1], unusual="odd")
    expected = {"y": np.zeros(3, np.float16), "g": x}
    answers = Reference(tuple(sets), (expected,) * 3, frozenset())
    held = held_to(candidate, tmp_path, reference=answers)
    found = emulation._simulated_outputs(held, candidate)
    assert opened == [(candidate.size_bytes, {"level": "disable"})]
    assert len(found) == 2
    for at, outputs in zip((1, 3), found, strict=True):
        assert list(outputs) == ["y", "z", "g"]
        assert [value.dtype.name for value in outputs.values()] == [
            "float16",
            "float32",
            "float32",
        ]
        half = x.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(outputs["y"], (half * half).astype(np.float16))
        np.testing.assert_array_equal(outputs["g"], np.abs(x))
        brain = (x * np.float32(at)).astype(ml_dtypes.bfloat16).astype(np.float32)
        product = (brain * brain).astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(outputs["z"], product)
    assert (half * half != (x * x).astype(np.float16)).any()


def test_a_candidate_is_simulated_by_what_it_is_held_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(emulation, "_simulate", answering(asked, (None, ("made",))))
    standard: Any = "standard"
    candidate: Any = "candidate"
    wrong = replace(said(Status.FAIL), symptom=Symptom.WRONG_VALUES)
    assert emulation.judge_half(standard, candidate, wrong).notes == ("note", "made")
    assert asked == [(standard, candidate)]


def test_what_overflows_is_a_fault_of_values_on_the_sets_that_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranged = RangeVerdict("it overflows", ("where",), ("range note",), (3,))
    monkeypatch.setattr(emulation, "judge_range", lambda *_: ranged)
    words: Any = "standard"
    found = emulation._decided(words, words, said(Status.PASS), None, ("before",))
    assert found == Verdict(
        Status.FAIL,
        said(Status.PASS).comparison and found.comparison,
        "it overflows",
        ("where",),
        ("before", "range note"),
        Symptom.WRONG_VALUES,
        (3,),
    )
