"""Parts of a cell: names in a run, keys, simulated outputs, large models that are opened again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from onnx_harness.cards.card import Card, PathSource
from onnx_harness.cell import artifacts, content, generation, int8_mends, outputs, pipeline, timing
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
from onnx_harness.cell.repeats import run_anew
from onnx_harness.cell.state import CellEnded, Task, Way
from onnx_harness.cell.subjects import subject_of
from onnx_harness.errors import InputError, ModelError, NotApplicable
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging.mends import quoted
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.verdict import Verdict
from onnx_harness.latency.plain import PlainRounds
from onnx_harness.model.file import Model
from onnx_harness.names import parse_variant
from onnx_harness.providers.sessions import Purpose
from onnx_harness.results.cache import Cache, source_digest
from onnx_harness.results.cells import BF16_SIMULATED, Status, Symptom
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
def test_a_card_that_cannot_be_read_is_a_problem_of_its_cells(tmp_path: Path, named: str) -> None:
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
        (tmp_path / "aa.onnx", f"there is no file {tmp_path}/aa.onnx. Did you mean 'a.onnx'?"),
        (tmp_path / "no" / "a.onnx", f"there is no file {tmp_path}/no/a.onnx."),
    ):
        with pytest.raises(ModelError) as told:
            named_card(path)
        assert str(told.value).startswith(words)
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


def test_a_machine_is_its_host_with_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
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
    steady = save(model("(float[n,4] x) => (float[n,4] y) { y = Neg(x) }"), tmp_path / "s.onnx")
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


def test_a_step_is_calibrated_on_what_was_recorded_where_something_was(tmp_path: Path) -> None:
    path = save(linear(), tmp_path / "net.onnx")
    np.savez(tmp_path / "given.npz", x=np.full((3, 4), 7, np.float32))
    task = replace(task_of(path, "int8.static"), recorded=tmp_path / "given.npz")
    way, cache = Way(task), Cache(tmp_path / "cache")
    subject = subject_of(task)
    [given] = artifacts.judged_by(way, subject, cache).calibration
    assert np.asarray(given.values["x"]).tolist() == [[7.0] * 4] * 3
    [step] = way.bound.changing
    assert len(artifacts._calibrating(way, step, subject, cache)) == 1
    assert list(way.notes) == ["int8.static was calibrated on 1 of the 1 input sets that judge it"]
    made = Way(replace(task, recorded=None))
    own = artifacts._calibrating(made, step, subject_of(made.task), cache)
    assert len(own) == 4 * SETTINGS.input_sets
    assert list(made.notes) == []
    plain = Way(task_of(path, "simplify"))
    assert artifacts.judged_by(plain, subject, cache).calibration == ()
    [simplifying] = plain.bound.changing
    assert artifacts._calibrating(plain, simplifying, subject, cache) == []


LACKING: Any = SimpleNamespace(on=lambda provider: f"{provider} has no kernel")
SUBJECT: Any = SimpleNamespace(missed=None)
ARTIFACT: Any = SimpleNamespace(model="the model")
COMPARED: Any = SimpleNamespace(record="a record", failures=(), only_values_or_shapes=False)
BAD = Verdict(
    Status.FAIL, COMPARED, "output y departs", ("a line",), ("a note",), Symptom.WRONG_VALUES
)


@pytest.mark.parametrize(
    ("outcome", "reason", "detail"),
    [
        (Verdict(Status.PASS, COMPARED, notes=("a note",)), None, ()),
        (BAD, "bfloat16 as hardware computes it departs: output y departs", ("a line", "a mend")),
        (
            replace(BAD, reason=None, symptom=Symptom.CHANGED_TYPES),
            "bfloat16 as hardware computes it departs: the outputs differ",
            ("a line",),
        ),
        (
            replace(BAD, comparison=None),
            "bfloat16 as hardware computes it departs: output y departs",
            None,
        ),
    ],
)
def test_a_model_without_kernels_is_judged_as_bfloat16_would_compute_it(
    monkeypatch: pytest.MonkeyPatch,
    outcome: Verdict,
    reason: str | None,
    detail: tuple[str, ...] | None,
) -> None:
    way = Way(task_of(Path("net.onnx")))
    asked: list[Any] = []
    monkeypatch.setattr(artifacts, "judged_by", lambda *words: words)
    monkeypatch.setattr(outputs, "judge_simulated", noting(asked, outcome))
    monkeypatch.setattr(outputs, "tried_mend", noting(asked, "a mend"))
    given: tuple[Any, ...] = (way, SUBJECT, ARTIFACT, LACKING, "the cache")
    if reason is None:
        outputs.compare_simulated(*given)
    else:
        with pytest.raises(CellEnded) as ended:
            outputs.compare_simulated(*given)
        assert (ended.value.status, ended.value.reason) == (Status.FAIL, reason)
        assert ended.value.symptom is outcome.symptom
        if detail is not None:
            assert ended.value.detail == detail
        assert ended.value.failing == outcome.worst_sets
    standard = (way, SUBJECT, "the cache")
    assert asked[0] == (standard, "the model")
    assert asked[1:] in ([], [(standard, way.bound, "the model")])
    assert list(way.notes) == ["a note", f"{BF16_SIMULATED}: cpu has no kernel"]
    record: Any = None if outcome.comparison is None else "a record"
    assert (way.found.accuracy, way.found.accuracy_simulated) == (record, record)


def test_what_cannot_be_simulated_either_has_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> Verdict:
        raise NotApplicable("it could not be simulated: why")

    monkeypatch.setattr(artifacts, "judged_by", lambda *words: words)
    monkeypatch.setattr(outputs, "judge_simulated", refuses)
    way = Way(task_of(Path("net.onnx")))
    plain = Way(replace(way.task, explained=False))
    for each, reason in (
        (way, "cpu has no kernel, and it could not be simulated: why"),
        (plain, "cpu has no kernel"),
    ):
        with pytest.raises(CellEnded) as ended:
            outputs.compare_simulated(each, SUBJECT, ARTIFACT, LACKING, None)  # type: ignore[arg-type]
        found = ended.value
        assert (found.status, found.reason) == (Status.NOT_APPLICABLE, reason)
        assert (found.symptom, each.found.accuracy) == (Symptom.NOT_RUN, None)


MISSED: Any = SimpleNamespace(
    reason=lambda: "y departs", lines=lambda: ["a line"], failures=(), only_values=True
)


@pytest.mark.parametrize(
    ("variant", "accepted", "only_values"),
    [
        ("original", "fail", True),
        ("original", "fail", False),
        ("original", "note", True),
        ("simplify", "fail", True),
    ],
)
def test_missed_recorded_outputs_fail_the_untouched_model_s_own_cell(
    variant: str, accepted: str, only_values: bool
) -> None:
    way = Way(task_of(Path("net.onnx"), variant, recorded_outputs=accepted))
    failures = (SimpleNamespace(at=3), SimpleNamespace(at=None))
    missed = SimpleNamespace(**{**vars(MISSED), "only_values": only_values, "failures": failures})
    subject: Any = SimpleNamespace(missed=missed)
    words = "the untouched model misses the outputs recorded beside it: y departs"
    if variant != "original" or accepted == "note":
        outputs._judge_recorded(way, subject)
        assert list(way.notes) == [words]
        return
    with pytest.raises(CellEnded) as ended:
        outputs._judge_recorded(way, subject)
    found = ended.value
    assert (found.status, found.reason, found.failing) == (Status.FAIL, words, (3,))
    assert found.detail[0] == "a line"
    assert found.detail[1].endswith('[recorded] outputs = "note"')
    assert found.symptom is (Symptom.WRONG_VALUES if only_values else Symptom.CHANGED_TYPES)
    assert list(way.notes) == []


def test_a_model_that_cannot_be_decoded_is_told_with_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("no such id\nmore")

    monkeypatch.setattr(generation, "open_cpu", lambda path: path)
    monkeypatch.setattr(generation, "decode", fails)
    for place, words in (("card.toml", "card.toml: generate: "), ("", "generate: ")):
        spec: Any = SimpleNamespace(place=place, prompt=(), steps=1)
        with pytest.raises(InputError) as told:
            generation._decoded(SimpleNamespace(path=Path("a")), None, {}, spec)  # type: ignore[arg-type]
        assert str(told.value).startswith(
            f"{words}the untouched model can't be decoded: no such id. Mend: see that"
        )


# mends of a quantization


def way_of(tmp_path: Path, variant: str) -> tuple[Way, Any]:
    text = (
        "(float[n,4] x) => (float[n,4] y) "
        "{ a = MatMul(x, w) b = Relu(a) c = MatMul(b, w) y = Gemm(c, w) }"
    )
    made = model(text)
    made.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    for node, name in zip(made.graph.node, ("m", "r", "", "g"), strict=True):
        node.name = name
    path = save(made, tmp_path / "net.onnx")
    subject: Any = SimpleNamespace(model=Model(path))
    return Way(task_of(path, variant)), subject


SEVEN, CHANNELS = int8_mends._SWITCHES.values()


@pytest.mark.parametrize(
    ("variant", "candidates"),
    [
        (
            "int8.dynamic",
            [
                ("int8.dynamic(reduce_range=True)", SEVEN, ""),
                ("int8.dynamic(per_channel=True)", CHANNELS, ""),
                *(
                    (
                        f"int8.dynamic(nodes_to_exclude=['{name}'])",
                        f"passes: '{name}' stays float",
                        name,
                    )
                    for name in "mcg"
                ),
            ],
        ),
        (
            "int8.dynamic(per_channel=True, nodes_to_exclude=['m'])",
            [
                (
                    "int8.dynamic(nodes_to_exclude=['m'], per_channel=True, reduce_range=True)",
                    SEVEN,
                    "",
                ),
                *(
                    (
                        f"int8.dynamic(nodes_to_exclude=['m', '{name}'], per_channel=True)",
                        f"passes: '{name}' stays float",
                        name,
                    )
                    for name in "cg"
                ),
            ],
        ),
        (
            "simplify+int8.static+ort.basic",
            [
                ("simplify+int8.static(reduce_range=True)+ort.basic", SEVEN, ""),
                ("simplify+int8.static(per_channel=True)+ort.basic", CHANNELS, ""),
                ("simplify+int8.mixed+ort.basic", "", ""),
            ],
        ),
        (
            "simplify+int8.dynamic",
            [
                ("simplify+int8.dynamic(reduce_range=True)", SEVEN, ""),
                ("simplify+int8.dynamic(per_channel=True)", CHANNELS, ""),
            ],
        ),
        ("simplify", []),
    ],
)
def test_the_cheapest_mends_are_tried_first(
    tmp_path: Path, variant: str, candidates: list[tuple[str, str, str]]
) -> None:
    way, subject = way_of(tmp_path, variant)
    told = [
        (candidate.variant.spelling, candidate.why, candidate.node)
        for candidate in int8_mends._candidates(way, subject)
    ]
    assert told == candidates


@pytest.mark.parametrize(
    ("answers", "seconds", "spelling", "line"),
    [
        ([None, ""], 0, 1, f"mend: `--variant {{}}` {CHANNELS}"),
        (["keeps 1 node in float"], 0, 0, "mend: `--variant {}` keeps 1 node in float"),
        ([ValueError("x"), None, ""], 0, 2, "mend: `--variant {}` passes: 'm' stays float"),
        (
            [None] * 5,
            0,
            None,
            "No mend was found: none of {0}, {1} passes, nor what leaves out one node (3 tried)",
        ),
        (
            [NotApplicable("not here"), None],
            99,
            None,
            "No mend was found: none of {0}, {1} passes (not here)",
        ),
    ],
)
def test_the_first_mend_that_passes_is_offered(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[Any],
    seconds: float,
    spelling: int | None,
    line: str,
) -> None:
    way, subject = way_of(tmp_path, "int8.dynamic")
    spellings = [each.variant.spelling for each in int8_mends._candidates(way, subject)]
    clock = iter([100.0, *[100.0 + seconds] * 9])
    left = iter(answers)
    risked: list[str] = []

    def passes(*words: Any) -> Any:
        assert words[:3] == (way, subject, "the cache")
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(int8_mends, "_passes", passes)
    monkeypatch.setattr(int8_mends.time, "monotonic", lambda: next(clock))  # type: ignore[attr-defined]
    monkeypatch.setattr(
        int8_mends,
        "risking",
        lambda words: risked.append(words) or contextlib.nullcontext(),  # type: ignore[func-returns-value]
    )
    found, told = int8_mends.int8_mend_of(way, subject, "the cache")  # type: ignore[arg-type]
    assert found == (None if spelling is None else spellings[spelling])
    if found is not None:
        assert told == line.format(quoted(found))
    else:
        assert told == line.format(*spellings)
    assert next(left, "all asked") == "all asked"
    digest = subject.model.sha256[:16]
    assert risked == [f"mend {each} {digest}" for each in spellings[: len(answers)]]


def test_of_a_large_model_no_mend_is_tried(tmp_path: Path) -> None:
    way, subject = way_of(tmp_path, "int8.dynamic")
    for size, words in ((int8_mends._MOST_BYTES + 1, "No mend is offered: the model is too"),):
        large: Any = SimpleNamespace(model=SimpleNamespace(size_bytes=size))
        assert int8_mends.tried_int8_mend(way, large, None).startswith(words)  # type: ignore[arg-type]
    other = Way(replace(way.task, cell=replace(way.task.cell, variant=parse_variant("simplify"))))
    assert int8_mends.int8_mend_of(other, subject, None) == (None, "")  # type: ignore[arg-type]


# generation


def test_what_counts_no_tokens_is_the_same_in_each_step() -> None:
    shapes: dict[str, tuple[Any, ...] | None] = {
        "ids": ("b", "n"),
        "past": ("b", "n"),
        "mask": ("b", "n"),
        "batch": ("b", 4),
        "fixed": (2, 4),
        "scalar": (),
        "unknown": None,
        "several": ("b", 4),
    }
    values: dict[str, Any] = {name: np.full((2, 4), place) for place, name in enumerate(shapes)}
    values["several"] = [values["batch"], values["fixed"]]
    values["undeclared"] = np.full((2, 4), 9)
    large = replace(InputSet("large", {}), large=True)
    reference = Reference((large, InputSet("set", values)), ({}, {}), frozenset())
    signature = SimpleNamespace(
        inputs=[SimpleNamespace(name=name, shape=shape) for name, shape in shapes.items()]
    )
    subject: Any = SimpleNamespace(reference=reference, model=SimpleNamespace(signature=signature))
    decoder: Any = SimpleNamespace(
        ids=SimpleNamespace(name="ids"), cache={"past": "present"}, roles={"mask": None}
    )
    fixed = generation._fixed(subject, decoder)
    assert list(fixed) == ["batch", "fixed", "scalar", "unknown", "several", "undeclared"]
    assert fixed["batch"].shape == (1, 4)
    assert all(fixed[name] is values[name] for name in list(fixed)[1:])


@pytest.mark.parametrize(
    ("variant", "precision", "outcome", "detail"),
    [
        ("fp16", "emulated", BAD, ("a line", "a mend")),
        ("fp16", "mixed", BAD, ("a line", "a mend")),
        ("fp16", "float16", BAD, ("a line",)),
        ("fp16", None, BAD, ("a line",)),
        ("fp16", "emulated", replace(BAD, symptom=Symptom.VACUOUS), ("a line",)),
        ("int8.dynamic", "float32", BAD, ("a line", "an int8 mend")),
        ("int8.dynamic", "float32", replace(BAD, symptom=Symptom.VACUOUS), ("a line",)),
        ("simplify", "float32", replace(BAD, reason=None), ("a line",)),
        ("simplify", "float32", replace(BAD, status=Status.PASS), None),
    ],
)
def test_a_mend_is_tried_for_what_fails_by_its_values(
    monkeypatch: pytest.MonkeyPatch,
    variant: str,
    precision: str | None,
    outcome: Verdict,
    detail: tuple[str, ...] | None,
) -> None:
    way = Way(task_of(Path("net.onnx"), variant))
    placed: Any = None if precision is None else SimpleNamespace(precision=precision)
    way.found = replace(way.found, placement=placed)
    distances: list[Any] = [SimpleNamespace(record=f"record {place}") for place in range(2)]
    given = replace(outcome, emulated=distances[0], simulated=distances[1])
    asked: list[Any] = []
    judged: list[Any] = []
    monkeypatch.setattr(artifacts, "judged_by", lambda *words: words)

    def judges(*words: Any, **more: Any) -> Verdict:
        judged.append((words, more))
        return given

    monkeypatch.setattr(outputs, "judge_outputs", judges)
    monkeypatch.setattr(outputs, "wrong_repeat", noting(judged, None))
    monkeypatch.setattr(outputs, "tried_mend", noting(asked, "a mend"))
    monkeypatch.setattr(outputs, "tried_int8_mend", noting(asked, "an int8 mend"))
    runs: Any = SimpleNamespace(outputs="outputs", again="again", repeats="repeats")
    words: tuple[Any, ...] = (way, SUBJECT, ARTIFACT, runs, "the cache")
    if detail is None:
        outputs.compare(*words)
    else:
        with pytest.raises(CellEnded) as ended:
            outputs.compare(*words)
        found = ended.value
        assert (found.status, found.detail) == (Status.FAIL, detail)
        assert (found.reason, found.symptom) == (
            outcome.reason or "the outputs differ",
            outcome.symptom,
        )
        assert found.failing == outcome.worst_sets
    standard = (way, SUBJECT, "the cache")
    emulated = precision in ("emulated", "mixed")
    assert judged == [
        ((standard, "outputs", "the model"), {"emulated": emulated, "again": "again"}),
        (standard, "outputs", "repeats"),
    ]
    mends = {
        "a mend": (standard, way.bound, "the model"),
        "an int8 mend": (way, SUBJECT, "the cache"),
    }
    assert asked == ([mends[detail[1]]] if detail and len(detail) > 1 else [])
    kept: list[Any] = [
        way.found.accuracy,
        way.found.accuracy_emulated,
        way.found.accuracy_simulated,
    ]
    assert kept == ["a record", "record 0", "record 1"]
    assert list(way.notes) == ["a note"]


def test_a_second_run_that_differs_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    way = Way(task_of(Path("net.onnx"), "simplify"))
    wrong = replace(BAD, reason="the second run departs")
    monkeypatch.setattr(artifacts, "judged_by", lambda *words: words)
    right = replace(BAD, status=Status.PASS)
    monkeypatch.setattr(outputs, "judge_outputs", lambda *_, **__: right)
    monkeypatch.setattr(outputs, "wrong_repeat", lambda *_: wrong)
    runs: Any = SimpleNamespace(outputs=[], again=None, repeats=[])
    with pytest.raises(CellEnded, match="the second run departs"):
        outputs.compare(way, SUBJECT, ARTIFACT, runs, None)  # type: ignore[arg-type]
