"""The reference: what it's kept by, which sets are in it, which outputs are unstable."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_harness.cards.card import Card, PathSource
from onnx_harness.cards.specs import InputSpec
from onnx_harness.errors import CardError, DiedBefore, InputError, ModelError
from onnx_harness.inputs.plan.edges import UNUSUAL
from onnx_harness.inputs.values.sets import DataSet, InputSet
from onnx_harness.judging import reference as room
from onnx_harness.judging.reference import (
    FEED,
    Reference,
    calibration_sets,
    recorded_file,
    recorded_files,
    reference,
    runtime_key,
    runtime_version,
)
from onnx_harness.model.file import Model
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.cache import Cache
from onnx_harness.settings import Settings
from tests.models import model, save

NEG = "(float[n,2] x) => (float[n,2] y, float[n,2] z) { y = Neg(x) z = Abs(x) }"


def carded(path: Path, **changes: Any) -> Card:
    return Card(path=path, name="m", source=PathSource(path), **changes)


def subject(folder: Path, text: str = NEG) -> tuple[Model, Card]:
    path = save(model(text), folder / "m.onnx")
    return Model(path), carded(path)


def filled(name: str, value: float, **more: Any) -> InputSet:
    return InputSet(name, {"x": np.full((1, 2), value, np.float32)}, **more)


@pytest.mark.parametrize("card", ["m.onnx", "m.model.toml"])
def test_recorded_inputs_lie_beside_the_model_or_its_card(card: str, tmp_path: Path) -> None:
    made, _ = subject(tmp_path)
    listed = carded(tmp_path / card)
    assert recorded_file(listed) == tmp_path / "m.npz"
    assert recorded_files(listed, made.path) == []
    (tmp_path / "m.npz").write_bytes(b"")
    pair = tmp_path / "test_data_set_0"
    pair.mkdir()
    for name in ("input_0.pb", "output_0.pb"):
        (pair / name).write_bytes(b"")
    files = recorded_files(listed, made.path)
    assert files[0] == tmp_path / "m.npz"
    assert sorted(file.name for file in files[1:]) == ["input_0.pb", "output_0.pb"]


def test_positions_of_usual_and_of_everyday_sets() -> None:
    sets = (filled("a", 1), filled("b", 2, unusual="odd"), filled("c", 3, large=True))
    answers = Reference(sets, ({},) * 3, frozenset())
    assert (answers.usual, answers.everyday) == ([0, 2], [0])


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


def test_a_reference_is_kept_by_all_that_it_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, card = subject(tmp_path)
    cache: Any = Recording()
    calls: list[Any] = []
    answer = Reference((), (), frozenset("a"))

    def makes(*words: Any, **more: Any) -> Reference:
        calls.append((*words, more))
        return answer

    monkeypatch.setattr(room, "_make", makes)
    settings = Settings(input_sets=3, seed=5)
    assert reference(made, card, settings, cache) == answer
    assert reference(made, card, settings, cache, unusual=False) == answer
    npz = tmp_path / "m.npz"
    assert calls == [
        (made, card, settings, npz, {"unusual": unusual}) for unusual in (True, False)
    ]
    reference(made, card, settings, cache)
    asked = cache.asked
    assert {kind for kind, _ in asked} == {"reference"}
    assert asked[0] == asked[2] != asked[1]
    others: list[tuple[Model, Card, Settings]] = [
        (made, card, replace(settings, input_sets=4)),
        (made, card, replace(settings, seed=6)),
        (made, replace(card, suite="onnx"), settings),
        (made, replace(card, inputs={"x": InputSpec(low=0.0)}), settings),
        (
            Model(save(model(NEG.replace("Abs", "Exp")), tmp_path / "other.onnx")),
            card,
            settings,
        ),
    ]
    for words in others:
        reference(*words, cache)
    changes = {
        "version": lambda name: f"9 of {name}",
        "runtime_key": lambda: "another",
        "source_digest": lambda: "another",
        "digest": lambda _: "another",
    }
    for name, change in changes.items():
        with monkeypatch.context() as patched:
            patched.setattr(room, name, change)
            reference(made, card, settings, cache)
    with monkeypatch.context() as patched:
        patched.setattr("onnx_harness.__version__", "another")
        reference(made, card, settings, cache)
    for content in (b"one", b"two"):
        npz.write_bytes(content)
        reference(made, card, settings, cache)
    assert len({key for _, key in asked}) == len(asked) - 1 == 14


def test_data_sets_beside_the_model_and_numpy_s_version_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, card = subject(tmp_path)
    seen: list[Any] = []

    def noted(word: Any) -> str:
        seen.append(word)
        return "noted"

    monkeypatch.setattr(room, "digest", noted)
    monkeypatch.setattr(room, "version", noted)
    monkeypatch.setattr(room, "data_set_files", lambda path: [path])
    monkeypatch.setattr(room, "_make", lambda *_, **__: Reference((), (), frozenset()))
    cache: Any = Recording()
    reference(made, card, Settings(), cache)
    assert seen == [[made.path], "numpy"]


def test_a_runtime_is_its_version_and_its_custom_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "libraries_digest", lambda: "+libraries")
    assert runtime_key() == f"{runtime_version()}+libraries"


def test_a_step_is_calibrated_on_sets_that_judge_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, card = subject(tmp_path)
    sets = (filled("a", 1), filled("large", 2, large=True), filled("b", 3))
    calls: list[Any] = []

    def refers(*words: Any, **more: Any) -> Reference:
        calls.append((*words, more))
        return Reference(sets, ({},) * 3, frozenset())

    monkeypatch.setattr(room, "reference", refers)
    cache: Any = "cache"
    settings = Settings(input_sets=3, seed=5, rtol=0.5, atol=0.1)
    assert calibration_sets(made, card, settings, cache) == [sets[0], sets[2]]
    others = replace(settings, seed=1_000_008, input_sets=12)
    assert calls == [(made, card, others, cache, {"unusual": False})]
    x = np.array([[3, 4]], np.float32)
    np.savez(tmp_path / "own.npz", x=x)
    [own] = calibration_sets(made, card, settings, cache, tmp_path / "own.npz")
    assert own.values["x"] is not x
    np.testing.assert_array_equal(own.values["x"], x)
    assert len(calls) == 1


# making it


Made = tuple[Reference, list[Any]]


@pytest.fixture
def makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a reference of ``y = -x, z = |x|`` with these generated sets."""

    def make(
        generated: list[InputSet] | Exception,
        *,
        suite: str = "",
        recorded: bool = False,
        data_set: bool = False,
        fatal: tuple[str, ...] = (),
        text: str = NEG,
    ) -> Made:
        made, card = subject(tmp_path, text)
        asked: list[Any] = []
        risks: list[str] = []

        @contextlib.contextmanager
        def risking(what: str) -> Iterator[None]:
            risks.append(what)
            yield

        def generates(*words: Any, **more: Any) -> list[InputSet]:
            asked.append((*words[:3], more))
            words[3].fatal.update(dict.fromkeys(fatal))
            fed = {"x": np.full((1, 2), 5, np.float32)}
            assert words[3](fed)["y"].tolist() == [[-5.0, -5.0]]
            assert risks == [f"{FEED} 1 {made.sha256[:16]}"]
            risks.clear()
            if isinstance(generated, Exception):
                raise generated
            return generated

        def opens(*words: Any, **more: Any) -> Any:
            asked.append((words[0], words[1].name, more))
            return open_session(*words, **more)

        def loads(path: Path, skeleton: Any) -> list[DataSet]:
            assert (path, skeleton) == (made.path, made.skeleton)
            return (
                [DataSet(filled("pb", 7), {"z": np.full((1, 2), 7.0, "f4")})]
                if data_set
                else []
            )

        monkeypatch.setattr(room, "risking", risking)
        monkeypatch.setattr(room, "_generated", generates)
        monkeypatch.setattr(room, "open_session", opens)
        monkeypatch.setattr(room, "load_data_sets", loads)
        npz = tmp_path / "m.npz"
        npz.unlink(missing_ok=True)
        if recorded:
            np.savez(
                npz, x=np.array([[3, -4]], np.float32), y=np.array([[-3, 4]], np.float32)
            )
        settings = Settings(input_sets=2, seed=9)
        found = room._make(made, replace(card, suite=suite), settings, npz, unusual=True)
        opened = {"purpose": Purpose.ACCURACY, "level": "disable"}
        assert asked.pop(0) == (made.path, "cpu", opened)
        for generation in asked:
            assert generation == (
                made,
                replace(card, suite=suite),
                settings,
                {"unusual": True},
            )
        return found, asked

    return make


def test_recorded_sets_come_before_generated_ones_each_with_its_outputs(makes: Any) -> None:
    generated = [filled("a", 1), filled("b", 2, unusual="odd")]
    found, asked = makes(generated, recorded=True, data_set=True)
    first = [input_set.values["x"].tolist() for input_set in found.sets]
    assert first == [[[7.0, 7.0]], [[3.0, -4.0]], [[1.0, 1.0]], [[2.0, 2.0]]]
    assert [outputs["y"].tolist() for outputs in found.outputs] == [
        [[-value for value in row] for row in rows] for rows in first
    ]
    assert [outputs["z"].tolist() for outputs in found.outputs] == [
        [[abs(value) for value in row] for row in rows] for rows in first
    ]
    assert [list(recorded) for recorded in found.recorded] == [["z"], ["y"]]
    assert (found.notes, found.unstable, len(asked)) == ((), frozenset(), 1)


@pytest.mark.parametrize(
    ("suite", "recorded", "generations", "sets"),
    [("", True, 1, 2), ("onnx", True, 0, 1), ("onnx", False, 1, 1), ("", False, 1, 1)],
)
def test_a_case_of_a_suite_is_judged_on_its_own_sets(
    suite: str, recorded: bool, generations: int, sets: int, makes: Any
) -> None:
    found, asked = makes([filled("a", 1)], suite=suite, recorded=recorded)
    assert (len(asked), len(found.sets)) == (generations, sets)


def test_where_nothing_can_be_invented_recorded_sets_are_enough(makes: Any) -> None:
    error = InputError("no text for x")
    found, _ = makes(error, recorded=True, fatal=("zeros", "text"))
    assert found.notes == (
        "judged on the recorded inputs alone: no text for x",
        "not fed zeros: ONNX Runtime dies of them with the untouched model itself",
        "not fed text: ONNX Runtime dies of them with the untouched model itself",
    )
    assert len(found.sets) == 1
    with pytest.raises(InputError, match="no text for x"):
        makes(error)


def test_a_recorded_set_that_the_model_does_not_run_on_is_named(makes: Any) -> None:
    bad = InputSet("set of old", {"x": np.zeros(3, np.float32)})
    with pytest.raises(
        InputError,
        match=r"^the untouched model doesn't run on set of old: .*INVALID.*\. Record it again\.$",
    ):
        makes([bad])


DRAWS = (
    "(float[n,2] x) => (float[n,2] y, float[n,2] z) "
    "{ y = Neg(x) r = RandomNormalLike(x) z = Add(r, x) }"
)


def test_unusual_sets_on_which_more_is_drawn_are_left_out(
    makes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def steady(session: Any, input_set: InputSet, unstable: frozenset[str]) -> bool:
        assert len(session.get_outputs()) == 2
        asked.append((input_set.name, unstable))
        return input_set.name == "b"

    monkeypatch.setattr(room, "_is_steady", steady)
    sets = [filled("a", 1), filled("b", 2, unusual="odd"), filled("c", 3, unusual="odd")]
    found, _ = makes(sets, text=DRAWS)
    assert asked == [("b", {"z"}), ("c", {"z"})]
    assert [input_set.name for input_set in found.sets] == ["a", "b"]
    assert [outputs["y"].tolist() for outputs in found.outputs] == [[[-1, -1]], [[-2, -2]]]
    assert found.unstable == {"z"}
    asked.clear()
    assert len(makes(sets)[0].sets) == 3
    dropout = NEG.replace(
        "z = Abs(x)",
        "k = Constant <value_float = 0.5> () t = Constant <value = bool {0}> () "
        "z = Dropout(x, k, t)",
    )
    assert len(makes(sets, text=dropout)[0].sets) == 3
    assert asked == []


def test_a_set_is_steady_if_no_other_output_moves_in_any_of_several_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def steady(*reruns: str) -> tuple[bool, int]:
        """Run first, and then again: each time these outputs are others."""
        runs: list[Any] = []

        def runs_once(session: Any, values: Any) -> dict[str, float]:
            assert (session, list(values)) == ("session", ["x"])
            moving = reruns[len(runs) - 1] if 0 < len(runs) <= len(reruns) else ""
            runs.append(moving)
            return {name: float(len(runs)) if name in moving else 0.0 for name in "ab"}

        monkeypatch.setattr(room, "run", runs_once)
        session: Any = "session"
        return room._is_steady(session, filled("s", 1), frozenset("a")), len(runs)

    assert steady() == (True, 9)
    assert steady("a", "", "a") == (True, 9)
    assert steady("a", "b") == (False, 3)
    assert steady("ab") == (False, 2)
    assert steady("", "", "", "", "", "", "", "b") == (False, 9)
    assert steady("", "", "", "", "", "", "", "", "b") == (True, 9)


# what it's fed


@pytest.fixture
def risks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    risks: list[str] = []

    @contextlib.contextmanager
    def risking(what: str) -> Iterator[None]:
        risks.append(what)
        if "deadly" in what:
            raise DiedBefore("of it")
        yield

    monkeypatch.setattr(room, "risking", risking)
    monkeypatch.setattr(room, "run", lambda session, values: {"y": (session, values["x"])})
    return risks


def test_feeds_are_counted_and_what_came_out_is_known(
    risks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session: Any = "session"
    tried = room._Tried(session, "0123456789abcdef" * 4)
    first, again = {"x": 1}, {"x": 1}
    assert tried.outputs_of(first) is None
    assert tried(first) == {"y": ("session", 1)}
    assert tried.outputs_of(first) == {"y": ("session", 1)}
    assert tried.outputs_of(again) is None
    assert tried({"x": 2}) == {"y": ("session", 2)}
    stage = f"{UNUSUAL} of zeros"
    for word in (stage, f"{UNUSUAL} deadly", f"something {UNUSUAL}"):
        monkeypatch.setattr(room, "noted", lambda word=word: word)
        with contextlib.suppress(DiedBefore):
            tried({"x": 3})
    digest = "0123456789abcdef"
    assert risks == [
        f"{FEED} 1 {digest}",
        f"{FEED} 2 {digest}",
        f"{stage} {digest}",
        f"{UNUSUAL} deadly {digest}",
        f"{FEED} 5 {digest}",
    ]
    assert list(tried.fatal) == [f"{UNUSUAL} deadly"]
    monkeypatch.setattr(room, "FEED", "deadly")
    with pytest.raises(DiedBefore):
        tried({"x": 3})
    assert list(tried.fatal) == [f"{UNUSUAL} deadly"]


def test_outputs_that_are_known_are_not_computed_again(risks: list[str]) -> None:
    session: Any = "another"
    tried = room._Tried(session, "5a")
    known, unknown = filled("a", 1), filled("b", 2)
    outputs = tried(known.values)
    other: Any = "session"
    assert room._answer(other, known, tried) is outputs
    assert room._answer(other, unknown, tried)["y"][0] == "session"
    assert len(risks) == 1


def test_generation_is_asked_for_the_sets_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, card = subject(tmp_path)
    asked: list[Any] = []

    def generates(*words: Any, **more: Any) -> list[InputSet]:
        asked.append((words, more))
        return []

    monkeypatch.setattr("onnx_harness.inputs.generate", generates)
    tried: Any = "tried"
    card = replace(card, inputs={"x": InputSpec(low=0.0)})
    assert (
        room._generated(made, card, Settings(input_sets=3, seed=5), tried, unusual=False)
        == []
    )
    more = {"count": 3, "seed": 5, "try_run": "tried", "unusual": False}
    assert asked == [((made.skeleton, card.inputs), more)]


# what is refused


def test_an_error_of_onnx_runtime_is_the_model_s_and_one_of_ours_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, card = subject(tmp_path)
    for error, kind, words in (
        (
            RuntimeError("[ONNXRuntimeError] : 1 : broken\nmore"),
            ModelError,
            "can't open the untouched model.*: broken$",
        ),
        (CardError("no such library"), CardError, "^no such library$"),
    ):

        def refuses(*_: Any, error: Exception = error, **__: Any) -> Any:
            raise error

        monkeypatch.setattr(room, "open_session", refuses)
        with pytest.raises(kind, match=words):
            room._make(made, card, Settings(), tmp_path / "m.npz", unusual=True)


def test_sequences_and_maps_are_compared_bit_for_bit() -> None:
    one, twin = [np.array([1.0, np.nan])], [np.array([1.0, np.nan])]
    assert room._same(one, twin)
    assert not room._same(one, [np.array([-1.0, np.nan])])
    assert not room._same(np.array([0.0]), np.array([-0.0]))
