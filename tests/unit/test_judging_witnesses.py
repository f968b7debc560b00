"""Who else is asked about an output: recorded ones, ONNX's own reference, the card, the graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnx_harness.accuracy.compare import ComparedSet, Comparison
from onnx_harness.accuracy.failures import Check, OutputFailure
from onnx_harness.accuracy.noise import Gap, Noise
from onnx_harness.accuracy.tolerance import Tolerance
from onnx_harness.cards.card import Card, PathSource, ToleranceSpec
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging import recorded, seed_trial, specification, vacuity
from onnx_harness.judging.choices import choice_axes, level_outputs
from onnx_harness.judging.recorded import compare_recorded, missed
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.seed_trial import seed_mend
from onnx_harness.judging.specification import has_infinities, specified_instead
from onnx_harness.judging.untouched import false_shapes, made_constant, said_of, unsteady
from onnx_harness.model.file import Model
from onnx_harness.model.seeding import Seeding
from onnx_harness.results.cache import Cache
from onnx_harness.settings import Settings
from tests.models import model, save

NEG = "(float[2] x) => (float[2] y, float[2] z) { y = Neg(x) z = Abs(x) }"
DRAWS = NEG.replace("y = Neg(x)", "r = RandomNormalLike(x) y = Add(x, r)")


def answering(asked: list[Any], *answers: Any) -> Callable[..., Any]:
    """Note what is asked; give the answers in turn, the last one for all that follow."""
    waiting = list(answers)

    def answer(*words: Any, **more: Any) -> Any:
        asked.append((*words, more) if more else words)
        given = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(given, Exception):
            raise given
        return given

    return answer


def subject(folder: Path, text: str = NEG) -> tuple[Model, Card]:
    path = save(model(text), folder / "m.onnx")
    return Model(path), Card(path=path, name="m", source=PathSource(path))


def said(*failures: OutputFailure, outputs: str = "", inert: str = "") -> Comparison:
    record: Any = SimpleNamespace(outputs=dict.fromkeys(outputs))
    return Comparison(record, failures, (), frozenset(inert))


# recorded outputs


def ones(value: float) -> Any:
    return np.full(2, value, np.float32)


SETS = tuple(InputSet(f"set {at}", {"x": ones(at)}) for at in range(4))
OUTPUTS = tuple({"y": ones(-at), "z": ones(at)} for at in range(4))
RECORDED: tuple[dict[str, Any], ...] = ({"y": ones(0)}, {}, {"z": ones(2), "y": ones(-2)})


def test_recorded_outputs_are_compared_on_their_own_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, card = subject(tmp_path)
    answers = Reference(SETS, OUTPUTS, frozenset("z"), recorded=RECORDED)
    asked: list[Any] = []
    noises: list[Any] = []
    wrong = [OutputFailure("y", Check.ELEMENTS, "is wrong", at=at) for at in (1, None, 0)]
    monkeypatch.setattr(recorded, "compare", answering(asked, said(*wrong)))
    monkeypatch.setattr(
        recorded, "noise_floor", answering(noises, Noise(({"y": Gap(greatest=9.0)},)))
    )
    cache: Any = "cache"
    found = compare_recorded(made, answers, card, Settings(), cache)
    assert found is not None
    assert [failure.at for failure in found.failures] == [2, None, 0]
    assert missed(made, answers, card, Settings(), cache) == found
    sets = [
        ComparedSet(f"set {at}", {"y": RECORDED[at]["y"]}, {"y": OUTPUTS[at]["y"]})
        for at in (0, 2)
    ]
    assert [given for given, _ in asked] == [sets] * 4
    assert [bound("y").atol for _, bound in asked] == [None, 36.0] * 2
    assert noises == [(made, answers, cache)] * 2
    # A case of a suite has the suite's bound, which yields to nothing.
    asked.clear()
    compare_recorded(made, answers, replace(card, suite="onnx"), Settings(), cache)
    assert [bound("y") for _, bound in asked] == [recorded._SUITE]
    asked.clear()
    monkeypatch.setattr(recorded, "compare", answering(asked, said()))
    assert compare_recorded(made, answers, card, Settings(), cache) == said()
    assert missed(made, answers, card, Settings(), cache) is None
    assert (len(asked), len(noises)) == (2, 2)
    nothings: list[tuple[dict[str, Any], ...]] = [(), ({"z": ones(0)}, {})]
    for nothing in nothings:
        alone = replace(answers, recorded=nothing)
        assert compare_recorded(made, alone, card, Settings(), cache) is None
        assert missed(made, alone, card, Settings(), cache) is None


def test_what_a_seed_of_the_card_fixed_is_as_good_as_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, card = subject(tmp_path)
    answers = Reference(SETS, OUTPUTS, frozenset("z"))
    asked: list[Any] = []
    monkeypatch.setattr(recorded, "seeding_of", answering(asked, Seeding(1, ("y",)), None))
    assert recorded._drawn(made, answers, card) == {"z"}
    assert asked == []
    seeded = replace(card, random_seed=0)
    assert recorded._drawn(made, answers, seeded) == {"y", "z"}
    assert recorded._drawn(made, answers, seeded) == {"z"}
    assert asked == [(made.skeleton,)] * 2
    cache: Any = "cache"
    monkeypatch.setattr(recorded, "seeding_of", answering(asked, Seeding(1, ("y", "z"))))
    known = replace(answers, recorded=RECORDED)
    assert compare_recorded(made, known, seeded, Settings(), cache) is None
    assert asked == [(made.skeleton,)] * 3


def test_noise_loosens_a_default_bound_by_the_greatest_of_any_set() -> None:
    noise = Noise(
        (
            {"y": Gap(greatest=1.0, scale=50.0)},
            {"y": Gap(greatest=3.0, scale=4.0), "z": Gap(greatest=99.0, scale=99.0)},
        )
    )
    found = recorded._above(noise, "y", Tolerance(rtol=0.5, k=0.125))
    assert found == Tolerance(rtol=0.5, k=0.125, atol=12.0)
    assert recorded._above(noise, "y", Tolerance(rtol=0.5, k=0.5)).atol == 25.0


def test_a_bound_that_a_card_states_for_recorded_outputs_holds(tmp_path: Path) -> None:
    made, card = subject(tmp_path)
    noise = Noise(({"y": Gap(greatest=9.0, scale=1.0), "z": Gap(greatest=9.0, scale=1.0)},))
    for spec in (ToleranceSpec(rtol=0.25), ToleranceSpec(cosine=0.5)):
        stated = replace(card, tolerance={"y": spec})
        bounds = recorded._tolerances(made, stated, Settings(), noise)
        plain = recorded._tolerances(made, stated, Settings(), None)
        assert bounds("y") == plain("y")
        assert bounds("y").signed_zero
        assert (bounds("z").atol, bounds("z").rtol) == (36.0, 1e-3)
        assert (bounds("unknown").atol, bounds("unknown").rtol) == (None, 1e-3)


# the untouched model's own word


def test_an_output_of_no_declared_shape_hides_no_false_one(tmp_path: Path) -> None:
    made = model("(float[2] x) => (float y, float[3] z) { y = Neg(x) z = Abs(x) }")
    made.graph.output[0].type.tensor_type.ClearField("shape")
    answers = Reference(SETS, OUTPUTS, frozenset())
    [told] = false_shapes(Model(save(made, tmp_path / "m.onnx")), answers)
    assert told.startswith("output z is declared as [3] and comes out as [2]:")
    for odd in ({}, {"z": [ones(1)]}, {"z": None}):
        assert (
            false_shapes(Model(tmp_path / "m.onnx"), replace(answers, outputs=(odd,))) == []
        )


def test_what_is_of_no_output_is_bounded_by_its_own_name() -> None:
    asked: list[Any] = []
    noise = Noise(({"w": Gap(nonfinite=1), "y[0]": Gap()},))
    bounds = answering(asked, Tolerance(rtol=0.0, atol=1.0))
    assert unsteady(Reference(SETS, OUTPUTS, frozenset()), noise, bounds) == {0: False}
    assert asked == [("w",), ("y",)]


def test_a_set_is_steady_within_a_share_of_its_own_scale() -> None:
    noise = Noise(({"y": Gap(greatest=2.0, scale=4.0)}, {"y": Gap(greatest=2.1, scale=4.0)}))
    bounds = answering([], Tolerance(rtol=0.0, k=0.5))
    assert unsteady(Reference(SETS, OUTPUTS, frozenset()), noise, bounds) == {1: False}


@pytest.mark.parametrize(("factor", "constant"), [(1.0, ["y"]), (1.5, [])])
def test_kernels_that_make_more_noise_may_draw_alike(
    factor: float, constant: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = subject(tmp_path, DRAWS)
    kernels: Any = SimpleNamespace(noise_factor=factor)
    monkeypatch.setattr("onnx_harness.providers.get", answering([], kernels))
    answers = Reference(SETS, OUTPUTS, frozenset("y"))
    found = made_constant(made, answers, "any", OUTPUTS[0], lambda: OUTPUTS[0])
    assert found == constant


def test_unusual_sets_are_told_by_what_they_judge() -> None:
    sets = tuple(replace(each, unusual=f"odd {at}") for at, each in enumerate(SETS))
    answers = Reference(sets, OUTPUTS, frozenset())
    nothing, little = said_of(answers, {3: False, 0: True, 1: False})
    assert nothing.startswith("judges nothing, since last bits alone")
    assert nothing.endswith("there: odd 1, odd 3")
    assert little.endswith("beyond the bound there: odd 0")


@pytest.mark.parametrize(
    ("kind", "rtol", "sqnr"), [("float", 1e-3, None), ("float16", 1e-2, 40.0)]
)
def test_a_recorded_output_is_bounded_by_its_own_arithmetic(
    kind: str, rtol: float, sqnr: float | None, tmp_path: Path
) -> None:
    made, card = subject(tmp_path, NEG.replace("float[2]", f"{kind}[2]"))
    bound = recorded._tolerances(made, card, Settings(), None)("y")
    assert (bound.rtol, bound.sqnr_db) == (rtol, sqnr)


# onnx's own reference


@pytest.mark.parametrize(
    ("values", "odd"),
    [
        ([ones(1)], False),
        ([ones(np.inf)], True),
        ([ones(1), np.array([1.0, np.nan])], True),
        ([ones(1), np.array([3])], False),
        ([np.array(["inf"], object)], False),
        ([np.array([np.inf], ml_dtypes.bfloat16)], True),
    ],
)
def test_infinities_of_any_input_count(values: list[Any], odd: bool) -> None:
    assert (
        has_infinities(InputSet("s", {str(at): value for at, value in enumerate(values)}))
        is odd
    )
    assert has_infinities(InputSet("s", {"n": ones(0), "list": values})) is odd


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("candidate", "reference", "specified", "counts"),
    [
        ([NAN, 1], [2, 1], [NAN, 5], True),
        ([NAN, 1], [NAN, 1], [NAN, 5], False),
        ([2, 1], [2, 1], [NAN, 5], False),
        ([2, 1], [NAN, 1], [NAN, 5], False),
        ([INF, 1], [2, 1], [INF, 5], True),
        ([INF, 1], [2, 1], [-INF, 5], False),
        ([INF, 1], [-INF, 1], [INF, 5], True),
        ([NAN, 1], [2, 1], [NAN, 5, 6], False),
    ],
)
def test_onnx_s_reference_counts_where_it_bears_the_candidate_out_and_the_other_not(
    candidate: list[float],
    reference: list[float],
    specified: list[float],
    counts: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, _ = subject(tmp_path)
    asked: list[Any] = []
    risks: list[str] = []
    instead = {"y": np.array(specified), "k": np.array([7])}

    @contextlib.contextmanager
    def risking(what: str) -> Iterator[None]:
        risks.append(what)
        yield

    monkeypatch.setattr(specification, "risking", risking)
    monkeypatch.setattr(specification, "_specified", answering(asked, instead))
    mine = {"y": np.array(candidate, np.float32), "k": np.array([8])}
    theirs = {"y": np.array(reference, np.float32), "k": np.array([9], np.int32)}
    found = specified_instead(mine, theirs, made, SETS[0])
    assert (found is not None) is counts
    assert asked == [(made, SETS[0], ["y", "k"])]
    assert risks == [f"onnx.reference {made.sha256[:16]}"]
    if found is not None:
        assert [value.dtype.name for value in found.values()] == ["float32", "int32"]
        np.testing.assert_array_equal(found["y"], np.array(specified, np.float32))
        assert found["k"].tolist() == [7]


@pytest.mark.parametrize("answer", [RuntimeError("no such operator"), {"y": [ones(NAN)]}])
def test_what_onnx_s_reference_cannot_say_counts_for_nothing(
    answer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = subject(tmp_path)
    monkeypatch.setattr(specification, "_specified", answering([], answer))
    assert specified_instead({"y": [ones(NAN)]}, {"y": [ones(1)]}, made, SETS[0]) is None


def test_onnx_s_reference_gives_the_outputs_that_are_asked_for(tmp_path: Path) -> None:
    made, _ = subject(tmp_path, NEG.replace("Abs", "Log"))
    found = specification._specified(
        made, InputSet("s", {"x": np.array([-1, 0], "f4")}), ["z"]
    )
    assert list(found) == ["z"]
    assert np.isnan(found["z"][0])
    assert found["z"][1] == -np.inf
    both = specification._specified(made, SETS[2], ["z", "y"])
    assert list(both) == ["z", "y"]
    assert both["y"].tolist() == [-2.0, -2.0]


def test_marks_are_where_nan_and_infinities_stand() -> None:
    assert specification._alike({"y": ones(1)}, {"y": ones(2)})
    assert not specification._alike({"y": ones(1)}, {"y": ones(INF)})
    assert not specification._alike(
        {"x": ones(1), "y": [ones(1)]}, {"x": ones(1), "y": [ones(INF)]}
    )
    assert not specification._alike({"y": [ones(1)]}, {"y": ones(1)})
    assert specification._marked_alike(None, ones(INF))
    assert specification._marked_alike(ones(INF), None)
    assert specification._marked_alike(np.array([1]), ones(INF))
    assert specification._marked_alike(ones(INF), np.array([1]))
    assert not specification._marked_alike(ones(1), np.ones(3, np.float32))


# a comparison that couldn't have failed


def proves(
    folder: Path, comparison: Comparison, text: str = NEG, **card: Any
) -> tuple[str | None, tuple[str, ...]]:
    made, plain = subject(folder, text)
    standard: Any = SimpleNamespace(model=made, card=replace(plain, **card))
    return vacuity.proves_nothing(standard, comparison)


def test_outputs_that_ignore_the_inputs_are_named_unless_one_reacts(tmp_path: Path) -> None:
    reason, remarks = proves(tmp_path, said(outputs="yz", inert="zy"))
    assert remarks == ()
    assert str(reason).startswith(
        "nothing was compared that could have failed: no output reacts to the inputs (y, z). "
    )
    assert str(reason).endswith('accept it in the card: [vacuous] y = "why"')
    for comparison, more in (
        (said(outputs="yz", inert="y"), {}),
        (said(outputs="yz", inert="yz"), {"suite": "onnx"}),
        (said(outputs="yz", inert="yz"), {"vacuous": {"*": "so"}}),
    ):
        assert proves(tmp_path, comparison, **more)[0] is None


def test_what_the_card_accepts_is_told_and_what_it_accepts_in_vain_too(
    tmp_path: Path,
) -> None:
    vacuous = {"y": "a stub", "z": "a stub too", "gone": "never"}
    reason, remarks = proves(tmp_path, said(outputs="yz", inert="y"), vacuous=vacuous)
    accepted = "accepted by the card: y says nothing about the inputs, a stub"
    reacts = "the card's [vacuous] lists z, which does react to the inputs: remove the line"
    assert (reason, remarks) == (None, (accepted, reacts))
    reason, remarks = proves(
        tmp_path, said(outputs="yz", inert="yz"), vacuous={"y": "a stub"}
    )
    assert "(z)" in str(reason)
    assert str(reason).endswith('[vacuous] z = "why"')
    assert remarks == (accepted,)
    assert (
        proves(tmp_path, said(outputs="yz", inert="yz"), vacuous={"y": "a", "z": "b"})[0]
        is None
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("(float[n] x) => (int64[1] y, float[n] z) { y = Shape(x) z = Sub(x, x) }", "z"),
        ("(float[n] x) => (float[0] y, float[n] z) { y = Neg(x) z = Sub(x, x) }", "z"),
        ("(float[n] x) => (int64[1] y, int64[1] z) { y = Shape(x) z = Shape(x) }", None),
    ],
)
def test_an_output_that_no_input_can_change_is_as_it_has_to_be(
    text: str, named: str | None, tmp_path: Path
) -> None:
    reason, _ = proves(tmp_path, said(outputs="yz", inert="yz"), text)
    assert (reason is None) == (named is None)
    assert named is None or f"({named})" in str(reason)


# what an output is read for


@pytest.mark.parametrize(
    ("body", "opset", "axes"),
    [
        ("a = ArgMax(y)", 17, {"y": 0}),
        ("a = ArgMax <axis = 2> (y)", 17, {"y": 2}),
        ("v, i = TopK(y, k)", 17, {"y": -1}),
        ("v, i = TopK <axis = 1> (y, k)", 17, {"y": 1}),
        ("z = LogSoftmax(x)", 17, {"z": -1}),
        ("z = LogSoftmax(x)", 13, {"z": -1}),
        ("z = LogSoftmax(x)", 12, {}),
        ("z = LogSoftmax <axis = 1> (x)", 12, {"z": 1}),
        ("a = ArgMax <keepdims = 3> (y)", 17, {"y": 0}),
        ("b = LogSoftmax(y) a = ArgMax(b)", 17, {}),
        ("a = ArgMin(y) b = Softmax(y)", 17, {}),
        ("c = ArgMax(x) d = ArgMax <axis = 2> (y) z = LogSoftmax(x)", 17, {"y": 2, "z": -1}),
    ],
)  # fmt: skip
def test_the_axis_that_an_output_is_chosen_along(
    body: str, opset: int, axes: dict[str, int]
) -> None:
    text = f"(float[n,4,4] x, int64[1] k) => (float y, float z) {{ y = Neg(x) {body} }}"
    assert choice_axes(model(text, opset=opset)) == axes


@pytest.mark.parametrize(
    ("body", "levels"),
    [
        ("y = Cast <to = 2> (x)", "y"),
        ("c = Clip(x) y = Cast <to = 2> (c)", "y"),
        ("i = Cast <to = 7> (x) y = Cast <to = 2> (i)", ""),
        ("h = Cast <to = 10> (x) y = Cast <to = 2> (h)", "y"),
        ("h = Cast <to = 16> (x) y = Cast <to = 2> (h)", "y"),
        ("h = Cast <to = 11> (x) y = Cast <to = 2> (h)", "y"),
        ("y = QuantizeLinear(x, s, z0)", "y"),
        ("q = QuantizeLinear(x, s, z0) r = Reshape(q, k) y = Pad(r, k)", "y"),
        ("q = QuantizeLinear(x, s, z0) y = Add(q, q)", ""),
        ("y = Identity(u)", ""),
        ("y = CastLike(x, u)", "y"),
        ("y = Cast <to = 2> (x) z = Identity(u)", "y"),
        ("z = Cast <to = 3> (x) y = Identity(u)", "z"),
        ("z = Cast <to = 3> (x) y = Cast <to = 2> (x)", "yz"),
    ],
)
def test_bytes_that_floats_were_brought_to_are_levels(body: str, levels: str) -> None:
    outputs = "uint8[4] y, int8[4] z" if "z =" in body else "uint8[4] y, float[4] w"
    more = "" if "z =" in body else "w = Cast <to = 1> (x)"
    inputs = "float[4] x, uint8[4] u, uint8 z0, float s, int64[1] k"
    text = f"({inputs}) => ({outputs}) {{ {body} {more} }}"
    assert level_outputs(model(text)) == frozenset(levels)


# a seed that is offered


class Recording:
    """A cache that remembers nothing, but what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    key = staticmethod(Cache.key)

    def remember(self, kind: str, key: str, make: Any, codec: Any) -> Any:
        self.asked.append((kind, key))
        value = make()
        assert codec.loads(codec.dumps(value)) == value
        return value


@pytest.mark.parametrize(
    ("card", "place"),
    [
        ("m.onnx", "m.model.toml next to the model"),
        ("m.model.toml", "the model's card"),
    ],
)
def test_a_seed_is_offered_where_it_was_tried(
    card: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, plain = subject(tmp_path, DRAWS)
    answers = Reference(SETS[1:3], OUTPUTS[1:3], frozenset("y"))
    cache: Any = Recording()
    mine = replace(plain, path=tmp_path / card)
    told = seed_mend(made, answers, mine, cache)
    assert told == (
        f"Mend: `[random] seed = 0` in {place}. That was tried: the model then gives the same "
        "values in each run, and all its outputs can be judged"
    )
    asked: list[Any] = []
    monkeypatch.setattr(seed_trial, "_is_steady", answering(asked, False))
    without = seed_mend(made, answers, mine, cache)
    assert without.startswith("Mend: where an input scales what is drawn, hold it at 0")
    assert asked == [(made, answers)]
    assert seed_mend(made, answers, replace(mine, random_seed=0), cache) == without
    assert len(asked) == 1
    assert cache.asked[0] == cache.asked[1]
    seed_mend(made, replace(answers, sets=SETS[2:3]), mine, cache)
    seed_mend(subject(tmp_path / "other")[0], answers, mine, cache)
    for name in ("runtime_key", "source_digest"):
        with monkeypatch.context() as patched:
            patched.setattr(seed_trial, name, lambda: "another")
            seed_mend(made, answers, mine, cache)
    for package in ("onnx_harness", "onnx"):
        with monkeypatch.context() as patched:
            patched.setattr(f"{package}.__version__", "another")
            seed_mend(made, answers, mine, cache)
    assert {kind for kind, _ in cache.asked} == {"seed_trial"}
    assert len({key for _, key in cache.asked}) == len(cache.asked) - 1 == 7


def test_a_seeded_model_is_steady_if_two_runs_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, _ = subject(tmp_path, DRAWS)
    plain, _ = subject(tmp_path / "plain")
    answers = Reference(SETS[:2], OUTPUTS[:2], frozenset())
    assert seed_trial._is_steady(drawn, answers)
    assert not seed_trial._is_steady(plain, answers)
    fed: list[Any] = []
    monkeypatch.setattr(seed_trial, "run", answering(fed, {"y": ones(0)}, {"y": ones(1)}))
    assert not seed_trial._is_steady(drawn, answers)
    assert [values for _, values in fed] == [SETS[0].values] * 2
    monkeypatch.setattr(seed_trial, "run", answering(fed, {"y": ones(NAN)}))
    assert seed_trial._is_steady(drawn, answers)
    monkeypatch.setattr(seed_trial, "run", answering(fed, RuntimeError("no")))
    assert not seed_trial._is_steady(drawn, answers)
    monkeypatch.setattr(seed_trial, "run", answering(fed, {}))
    for size, steady in ((1 << 29, True), ((1 << 29) + 1, False)):
        large: Any = SimpleNamespace(size_bytes=size, load=drawn.load)
        assert seed_trial._is_steady(large, answers) is steady
