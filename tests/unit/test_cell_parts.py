"""Parts of a cell: names in a run, keys, simulated outputs, large models that are opened again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from onnx_harness.cards.card import Card, PathSource
from onnx_harness.cell import artifacts, content, pipeline, timing
from onnx_harness.cell.content import timing_key
from onnx_harness.cell.matrix import (
    Cell,
    card_or_problem,
    models_below,
    named_card,
    upstream,
    with_distinct_names,
)
from onnx_harness.cell.pipeline import artifact_of, judge, place_of_artifact, run_untouched
from onnx_harness.cell.repeats import AT_ONCE, AT_THE_END, run_anew, run_sets
from onnx_harness.cell.state import Task, Way
from onnx_harness.cell.subjects import subject_of
from onnx_harness.errors import ModelError
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.standard import key_of
from onnx_harness.latency.plain import PlainRounds
from onnx_harness.names import parse_variant
from onnx_harness.providers.sessions import Purpose
from onnx_harness.results.cache import Cache, source_digest
from onnx_harness.results.cells import Stage, Status
from onnx_harness.results.run import versions
from onnx_harness.settings import Settings
from tests.models import linear, model, save
from tests.unit.results_examples import RUN
from tests.unit.results_examples import cell as result_of

SETTINGS = Settings(input_sets=2)


def task_of(path: Path, variant: str = "original", **card: Any) -> Task:
    made = Card(path=path, name="net", source=PathSource(path), **card)
    return Task(Cell(made, parse_variant(variant), "cpu"), path, SETTINGS)


def noting(asked: list[Any], answer: object) -> Callable[..., object]:
    """Stands in for a function: notes what it's asked, and answers."""

    def answers(*words: object) -> object:
        asked.append(words)
        return answer

    return answers


# names


def test_models_of_one_stem_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = []
    for name in ("one/model.onnx", "two/model.onnx", "one/other.onnx", "far/model.onnx"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        paths.append(save(linear(), path))
    (tmp_path / "one" / "notes.txt").write_text("no model")
    (tmp_path / "one" / "folder.onnx").mkdir()
    assert models_below(tmp_path / "one") == [paths[0], paths[2]]
    cards = [Card(path=path, name=path.stem, source=PathSource(path)) for path in paths[:3]]
    named = with_distinct_names(cards, [])
    assert list(named) == paths[:3]
    assert [card.name for card in named.values()] == ["one.model", "two.model", "other"]
    assert [card.path for card in named.values()] == paths[:3]
    # A run of one of them calls it as a run of all does: where a folder has them both.
    alone = with_distinct_names(cards[:1], [tmp_path])
    assert (len(alone), alone[paths[0]].name) == (1, "one.model")
    assert with_distinct_names(cards[:1], [tmp_path / "two"])[paths[0]].name == "model"
    # A model and the card beside it are one.
    (tmp_path / "one" / "model.model.toml").write_text('[model]\npath = "model.onnx"\n')
    beside = replace(cards[0], path=tmp_path / "one" / "model.model.toml")
    [(path, card)] = with_distinct_names([beside], [tmp_path / "one"]).items()
    assert (path, card.name) == (beside.path, "model")


@pytest.mark.parametrize("named", ["net.onnx", "net.model.toml"])
def test_a_card_that_cannot_be_read_is_a_problem_of_its_cells(
    tmp_path: Path, named: str
) -> None:
    path = save(linear(), tmp_path / "net.onnx")
    assert card_or_problem(path).problem == ""
    (tmp_path / "net.model.toml").write_text("[nonsense")
    card = card_or_problem(tmp_path / named)
    assert (card.path, card.name) == (tmp_path / "net.model.toml", "net")
    assert card.source == PathSource(tmp_path / named)
    assert "net.model.toml" in str(card.problem)


def test_a_model_that_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    for name in "jihgfedcba":
        save(linear(), tmp_path / f"{name}.onnx")
    (tmp_path / "z.txt").write_text("")
    inside = ", ".join(f"{name}.onnx" for name in "abcdefgh")
    for path, words in (
        (tmp_path, f"{tmp_path} is a folder; name one of its models: {inside}"),
        (
            tmp_path / "aa.onnx",
            f"there is no file {tmp_path}/aa.onnx. Did you mean 'a.onnx'?",
        ),
        (tmp_path / "no" / "a.onnx", f"there is no file {tmp_path}/no/a.onnx.\n"),
    ):
        with pytest.raises(ModelError) as told:
            named_card(path)
        assert f"{told.value}\n".startswith(words)
        assert path != tmp_path or "i.onnx" not in str(told.value).partition(": ")[2]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty is a folder; it holds no model"):
        named_card(tmp_path / "empty")
    assert named_card(tmp_path / "a.onnx").name == "a"


def test_libraries_of_others_answer_for_what_they_make() -> None:
    assert upstream(parse_variant("original")) == ()
    both = upstream(parse_variant("simplify+fp16.onnxmltools"))
    assert len(both) == len(set(both)) > 0
    assert not {"onnx", "onnx-ir", "onnxruntime"} & {*both}
    assert upstream(parse_variant("fp16.onnxmltools")) == both


# keys


def test_a_timing_depends_on_the_machine_and_the_time_spent() -> None:
    machine: Any = SimpleNamespace(host=RUN.host)
    keys = {timing_key(SETTINGS, machine), timing_key(SETTINGS)}
    keys.add(timing_key(replace(SETTINGS, latency_budget=9.0), machine))
    for change in ({"cpu": "Another"}, {"cores": 99}, {"os": "Another"}):
        keys.add(timing_key(SETTINGS, SimpleNamespace(host=replace(RUN.host, **change))))  # type: ignore[arg-type]
    assert len(keys) == 6
    assert timing_key(SETTINGS, machine) in keys
    other: Any = SimpleNamespace(host=replace(RUN.host, memory_bytes=1))
    assert timing_key(SETTINGS, other) == timing_key(SETTINGS, machine)


def test_a_machine_is_its_host_with_what_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = content.machine_of(RUN.host)
    assert (machine.source, machine.versions) == (source_digest(), versions())
    assert machine.host is RUN.host
    fingerprints = {machine.fingerprint, content.machine_of(RUN.host).fingerprint}
    fingerprints.add(content.machine_of(replace(RUN.host, cores=99)).fingerprint)
    monkeypatch.setattr(content, "versions", lambda: {"onnx": "9"})
    fingerprints.add(content.machine_of(RUN.host).fingerprint)
    monkeypatch.setattr(content, "source_digest", lambda: "ab")
    fingerprints.add(content.machine_of(RUN.host).fingerprint)
    assert len(fingerprints) == 4


def test_the_source_of_a_transform_is_its_file_where_there_is_one() -> None:
    def function() -> None:
        """Stands in for a transform."""

    assert content._source(function) == content._digest(Path(__file__))
    assert content._source(len) is None
    code = function.__code__.replace(co_filename="<string>")
    assert content._source(SimpleNamespace(__code__=code)) is None


# stages


def drawn_twice(path: Path) -> list[Any]:
    values = {"x": np.zeros((2, 4), np.float32)}
    again = run_anew(lambda: ort.InferenceSession(str(path)), values)
    return [again()["y"] for _ in range(3)]


def test_a_session_that_is_opened_anew_goes_on_drawing(tmp_path: Path) -> None:
    drawn = "(float[n,4] x) => (float[n,4] y) { y = RandomNormalLike(x) }"
    path = save(model(drawn), tmp_path / "net.onnx")
    first = ort.InferenceSession(str(path)).run(None, {"x": np.zeros((2, 4), np.float32)})[0]
    values = [first, *drawn_twice(path)]
    assert len({value.tobytes() for value in values}) == 4
    steady = save(
        model("(float[n,4] x) => (float[n,4] y) { y = Neg(x) }"), tmp_path / "s.onnx"
    )
    assert len({value.tobytes() for value in drawn_twice(steady)}) == 1


def test_a_large_model_that_draws_is_judged_as_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = "(float[n,4] x) => (float[n,4] y, float[n,4] z) { y = RandomNormalLike(x) z = Neg(x) }"
    path = save(model(drawn), tmp_path / "net.onnx")
    assert judge(task_of(path)).result.status is Status.PASS
    monkeypatch.setattr("onnx_harness.cell.session.MOST_BYTES", 0)
    assert judge(task_of(path)).result.status is Status.PASS


def test_what_was_judged_is_had_again_and_run_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(linear(), tmp_path / "net.onnx")
    task = task_of(path, "ort.basic")
    judged = judge(task)
    assert judged.result.status is Status.PASS
    assert place_of_artifact(task) == (judged.artifact, judged.level)
    assert artifact_of(task).level == judged.level == "basic"
    assert artifact_of(task_of(path, "simplify")).model.path.name == "model.onnx"
    opened: list[Any] = []
    fed: list[Any] = []
    monkeypatch.setattr(
        pipeline, "open_session", lambda *words, **more: opened.append((words, more))
    )
    monkeypatch.setattr(pipeline, "run", lambda _, values: fed.append(values["x"]))
    skipping = replace(task, skipped=(0,))
    run_untouched(skipping, 1)
    sets = subject_of(task).reference.sets
    assert len(subject_of(skipping).reference.sets) == len(sets) - 1
    np.testing.assert_array_equal(fed[0], sets[1].values["x"])
    [((model_path, provider), more)] = opened
    assert (model_path, provider.name) == (path, "cpu")
    assert more == {"purpose": Purpose.ACCURACY, "level": "basic"}


def test_a_cell_is_timed_by_itself_as_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, result = task_of(save(linear(), tmp_path / "net.onnx")), result_of()
    asked: list[Any] = []
    monkeypatch.setattr(timing, "place_of_artifact", lambda of: (tmp_path, of.cell.id))
    monkeypatch.setattr(timing, "timing_inputs", lambda of: [of.cell.id])
    monkeypatch.setattr(timing, "time_cell", noting(asked, "record"))
    assert timing.time_by_itself(task, result) == "record"  # type: ignore[comparison-overlap]
    [(of, judged, sets, rounds)] = asked
    assert of is task
    assert (judged.result, judged.artifact, judged.level) == (result, tmp_path, task.cell.id)
    assert sets == [task.cell.id]
    assert isinstance(rounds, PlainRounds)


def test_a_step_is_calibrated_on_what_was_recorded_where_something_was(
    tmp_path: Path,
) -> None:
    path = save(linear(), tmp_path / "net.onnx")
    np.savez(tmp_path / "given.npz", x=np.full((3, 4), 7, np.float32))
    task = replace(task_of(path, "int8.static"), recorded=tmp_path / "given.npz")
    way, cache = Way(task), Cache(tmp_path / "cache")
    subject = subject_of(task)
    [given] = artifacts.judged_by(way, subject, cache).calibration
    assert np.asarray(given.values["x"]).tolist() == [[7.0] * 4] * 3
    [step] = way.bound.changing
    assert len(artifacts._calibrating(way, step, subject, cache)) == 1
    assert list(way.notes) == [
        "int8.static was calibrated on 1 of the 1 input sets that judge it"
    ]
    made = Way(replace(task, recorded=None))
    own = artifacts._calibrating(made, step, subject_of(made.task), cache)
    assert len(own) == 4 * SETTINGS.input_sets
    assert list(made.notes) == []
    plain = Way(task_of(path, "simplify"))
    assert artifacts.judged_by(plain, subject, cache).calibration == ()
    [simplifying] = plain.bound.changing
    assert artifacts._calibrating(plain, simplifying, subject, cache) == []


def test_a_choice_of_nodes_depends_on_what_its_verdicts_depend_on() -> None:
    sets = [InputSet(f"set {place}", {"x": np.full(2, place)}) for place in range(3)]
    sets[2] = replace(sets[2], unusual="odd")

    def keyed(**changes: Any) -> str:
        fields = {
            "reference": Reference(tuple(sets), ({},) * 3, frozenset()),
            "provider": "cpu",
            "card": SimpleNamespace(tolerance="t"),
            "override": None,
            "explained": True,
            "level": "all",
        }
        standard: Any = SimpleNamespace(**{**fields, **changes})
        return Cache.key(*key_of(standard))

    other = [sets[0], replace(sets[1], values={"x": np.full(2, 9)}), sets[2]]
    fewer = Reference(tuple(sets[:2]), ({},) * 2, frozenset())
    keys = [
        keyed(),
        keyed(provider="cuda"),
        keyed(card=SimpleNamespace(tolerance="u")),
        keyed(override=1.0),
        keyed(explained=False),
        keyed(reference=Reference(tuple(other), ({},) * 3, frozenset())),
    ]
    assert len(set(keys)) == len(keys)
    assert keyed(reference=fewer) == keyed(level="basic") == keys[0]
    # What it refuses hangs on the level.
    assert keyed(provider="cuda", level="basic") not in keys


def test_the_checker_s_word_is_asked_for_at_its_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[str] = []
    monkeypatch.setattr(artifacts, "note_stage", stages.append)
    assert artifacts.checker_says(save(linear(), tmp_path / "net.onnx")) is None
    assert stages == [Stage.CHECK, Stage.TRANSFORM]
    broken = linear()
    broken.graph.output[0].name = "nowhere"
    assert "nowhere" in str(artifacts.checker_says(save(broken, tmp_path / "broken.onnx")))
    assert stages[2:] == [Stage.CHECK]


@pytest.mark.parametrize(("sets", "times"), [(1, [AT_ONCE]), (2, [AT_ONCE, AT_THE_END])])
def test_the_first_set_is_run_again_at_once_and_after_others(
    tmp_path: Path, sets: int, times: list[str]
) -> None:
    task = task_of(save(linear(), tmp_path / "net.onnx"))
    subject = subject_of(task)
    made = subject.reference
    subject = replace(
        subject, reference=replace(made, sets=made.sets[:sets], outputs=made.outputs[:sets])
    )
    session = ort.InferenceSession(str(task.model))
    runs = run_sets(Way(task), subject, session)
    assert [repeat.when for repeat in runs.repeats] == times
    assert len(runs.outputs) == sets
    for repeat in runs.repeats:
        np.testing.assert_array_equal(repeat.outputs["y"], runs.outputs[0]["y"])
    np.testing.assert_array_equal(runs.again()["y"], runs.outputs[0]["y"])
    assert run_sets(Way(replace(task, explained=False)), subject, session).repeats == []
