"""A cell's subject: what is read of a model, when it is read anew, and what its inputs reach."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_harness.cards.specs import PlacementSpec, ToleranceSpec
from onnx_harness.cell import subjects
from onnx_harness.cell.state import CellEnded, Subject, Task, Way
from onnx_harness.errors import CardError, InputError, ModelError
from onnx_harness.inputs.decisions.coverage import Coverage
from onnx_harness.inputs.values.sets import InputSet, digest_of
from onnx_harness.judging.reference import Reference
from onnx_harness.model.file import Model
from onnx_harness.results.cache import Cache
from onnx_harness.results.cells import GraphChange, Status, Symptom
from onnx_harness.results.coverage import CoverageRecord, Reached
from onnx_harness.results.workbench import Workbench
from tests.models import linear, save, with_external_data
from tests.unit.test_cell_parts import noting, task_of

CACHE: Any = "the cache"
GRAPH: Any = "the graph"
MISSED: Any = SimpleNamespace(reason=lambda: "y departs")


@pytest.fixture(autouse=True)
def bench(monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A bench of this test alone."""
    own = Workbench(CACHE)
    monkeypatch.setattr(subjects, "workbench", lambda: own)
    return own


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save(linear(), tmp_path / "net.onnx")


def a_subject(path: Path, missed: Any = None) -> Subject:
    sets = [InputSet(f"set {place}", {"x": np.full((1, 4), place)}) for place in range(3)]
    outputs = tuple({"y": place} for place in range(3))
    reference = Reference(tuple(sets), outputs, frozenset(), notes=("of the reference",))
    return Subject(Model(path), reference, missed)


# what is found out while it's loaded


@pytest.mark.parametrize("seeded", ["", "of the seed"])
def test_what_is_known_of_a_subject_is_found_and_noted(
    path: Path, monkeypatch: pytest.MonkeyPatch, seeded: str
) -> None:
    read, asked, covered = a_subject(path), [], []  # type: ignore[var-annotated]
    task = replace(task_of(path), skipped=(1,))
    monkeypatch.setattr(subjects, "read_subject", noting(asked, (read, GRAPH)))
    monkeypatch.setattr(subjects, "seed_note", noting(asked, seeded))
    monkeypatch.setattr(subjects, "_cover", noting(covered, None))
    way = Way(task, notes=["before"])
    subject = subjects.load(way, CACHE)
    assert asked == [(task, CACHE), (read.model.skeleton, task.cell.card)]
    assert [each.name for each in subject.reference.sets] == ["set 0", "set 2"]
    assert subject.reference.outputs == ({"y": 0}, {"y": 2})
    assert (subject.model, subject.missed) == (read.model, None)
    assert (way.found.model_sha256, way.found.opset) == (read.model.sha256, 17)
    assert (way.found.graph, way.found.coverage) == (GRAPH, None)
    assert way.found.inputs_sha256 == digest_of(subject.reference.sets)
    assert way.notes == ["before", "of the reference", *filter(None, [seeded])]
    assert covered == [(way, subject, CACHE)]


def test_a_case_of_a_suite_that_is_no_fault_of_a_variant_does_not_apply(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, suite = task_of(path), task_of(path, suite="a suite")
    for error in (ModelError("no kernel\nmore"), InputError("no inputs\nmore")):

        def fails(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(subjects, "read_subject", fails)
        with pytest.raises(type(error)):
            subjects.load(Way(own), CACHE)
        with pytest.raises(CellEnded) as ended:
            subjects.load(Way(suite), CACHE)
        found = ended.value
        assert (found.status, found.symptom) == (Status.NOT_APPLICABLE, Symptom.NOT_RUN)
        assert (found.reason, found.__cause__) == (str(error).partition("\n")[0], error)
    read = a_subject(path, MISSED), GRAPH
    monkeypatch.setattr(subjects, "read_subject", lambda *_: read)
    monkeypatch.setattr(subjects, "_cover", lambda *_: None)
    assert subjects.load(Way(own), CACHE).missed is MISSED
    with pytest.raises(CellEnded) as ended:
        subjects.load(Way(suite), CACHE)
    found = ended.value
    assert (found.status, found.symptom) == (Status.NOT_APPLICABLE, Symptom.NOT_RUN)
    assert found.reason == "ONNX Runtime itself departs from the suite: y departs"
    monkeypatch.setattr(subjects, "read_subject", lambda *_: (a_subject(path), GRAPH))
    assert subjects.load(Way(suite), CACHE).missed is None


def test_the_subject_of_a_task_lacks_the_sets_that_are_skipped(
    path: Path, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(subjects, "read_subject", noting(asked, (a_subject(path), GRAPH)))
    task = replace(task_of(path), skipped=(0, 2))
    subject = subjects.subject_of(task)
    assert [each.name for each in subject.reference.sets] == ["set 1"]
    assert subject.reference.outputs == ({"y": 1},)
    assert asked == [(task, bench.cache)]
    whole = a_subject(path).reference
    assert subjects.without_sets(whole, ()) is whole


# what is read, and when


def test_a_subject_is_read_anew_where_something_of_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_external_data(tmp_path / "net.onnx", "weights.bin")
    read: list[Any] = []
    bounds: list[Any] = []

    def reads(*words: object) -> str:
        read.append(words)
        return f"subject {len(read)}"

    def bounded(*words: object, **more: object) -> None:
        bounds.append((words, more))

    monkeypatch.setattr(subjects, "_read", reads)
    monkeypatch.setattr(subjects, "check_bounds", bounded)
    task = task_of(path)

    def anew(task: Task) -> bool:
        before = len(read)
        subject: Any = subjects.read_subject(task, CACHE)
        assert subject == f"subject {len(read)}"
        assert subjects.read_subject(task, CACHE) == subject
        if len(read) > before:
            assert read[before:] == [(task, CACHE)]
        return len(read) > before

    def with_settings(**changes: Any) -> Task:
        return replace(task, settings=replace(task.settings, **changes))

    assert anew(task)
    assert not anew(task)
    # what decides nothing here
    assert not anew(replace(task, cell=task_of(path, "simplify").cell, skipped=(1,)))
    assert not anew(with_settings(cell_timeout=3.0, jobs=7))
    for other in (
        replace(task, unusual=False),
        with_settings(input_sets=7),
        with_settings(seed=7),
        with_settings(rtol=0.5, atol=0.5),
        with_settings(custom_ops=(tmp_path / "ops.so",)),
        replace(task, cell=replace(task.cell, card=replace(task.cell.card, name="other"))),
        replace(task, recorded=tmp_path / "given.npz"),
    ):
        assert anew(other), other
        assert anew(task)
    recorded = tmp_path / "net.npz"  # beside the model
    for file in (tmp_path / "weights.bin", recorded):
        before = file.stat() if file.exists() else None
        file.write_bytes((file.read_bytes() if before else b"") + b"more")
        if before:  # of another size at the same time
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert anew(task), file
    for file in (path, tmp_path / "weights.bin", recorded):
        os.utime(file, ns=(5, 5))
        assert anew(task), file
    # The sets beside the model alone, and without those that are made up.
    assert anew(replace(task, recorded=recorded))
    given = replace(task, recorded=tmp_path / "given.npz")
    assert anew(given)
    given.recorded.write_bytes(b"more")  # type: ignore[union-attr]
    assert anew(given)
    recorded.unlink()
    assert not anew(given)  # nor is what lies beside the model read then
    assert bounds[0] == ((path, task.settings.cell_memory), {"trusted": False})
    subjects.read_subject(with_settings(trust_models=True, cell_memory=77), CACHE)
    assert bounds[-1] == ((path, 77), {"trusted": True})


@pytest.mark.parametrize("recorded", [None, Path("given.npz")])
def test_a_subject_is_read_with_what_its_cell_asks_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, recorded: Path | None
) -> None:
    path = path.rename(path.with_name("file.onnx"))
    generate: Any = SimpleNamespace()
    task = task_of(path, generate=generate)
    task = replace(task, recorded=recorded, unusual=False)
    asked: dict[str, Any] = {}

    def stand_in(name: str) -> None:
        def answers(*words: object, **more: object) -> object:
            asked[name] = (*words, *more.items())
            return name

        monkeypatch.setattr(subjects, name, answers)

    for name in ("reference", "given", "missed", "check_generation"):
        stand_in(name)
    subject, graph = subjects._read(task, CACHE)
    card, settings, model = task.cell.card, task.settings, subject.model
    assert (model.path, model.name) == (path, "net")
    answers = "given" if recorded else "reference"
    read: tuple[Any, Any] = (subject.reference, subject.missed)
    assert read == (answers, "missed")
    assert asked.pop(answers) == (
        (model, recorded) if recorded else (model, card, settings, CACHE, ("unusual", False))
    )
    assert asked == {
        "check_generation": (model, generate),
        "missed": (model, answers, card, settings, CACHE),
    }
    operators, size = {"MatMul": 1, "Add": 1}, model.size_bytes
    assert graph == GraphChange(2, 2, size, size, 0.0, operators, operators)


def test_a_card_that_names_what_is_not_there_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subjects, "reference", lambda *_, **__: pytest.fail("it was asked"))
    for card, words in (
        ({"tolerance": {"z": ToleranceSpec()}}, "the model has no output 'z'"),
        (
            {"placement": PlacementSpec(by_provider={"cbu": PlacementSpec()})},
            "placement.cbu is neither a key nor an execution provider",
        ),
    ):
        with pytest.raises(CardError, match=words):
            subjects._read(task_of(path, **card), CACHE)


# what the inputs reach

LEAVES = Coverage({"leaves": (8, 10), "keys": (9, 10)}, ("of the trees",))
BRANCHES = {"branches": (1, 2)}
LOW = "the inputs reach 8 of 10 leaves"


@pytest.mark.parametrize(
    ("seen", "task", "kinds", "notes", "low"),
    [
        (
            LEAVES,
            {},
            {"leaves": Reached(8, 10), "keys": Reached(9, 10), "branches": Reached(1, 2)},
            ("of the trees", "of the branches"),
            f"{LOW}, 1 of 2 branches",
        ),
        (InputError("none"), {}, {"branches": Reached(1, 2)}, ("of the branches",), None),
        (
            LEAVES,
            {"explained": False},
            {"leaves": Reached(8, 10), "keys": Reached(9, 10)},
            ("of the trees",),
            LOW,
        ),
        (
            Coverage({"keys": (1, 1)}),
            {"suite": "s"},
            {"keys": Reached(1, 1)},
            (),
            "",
        ),
        (Coverage({}, ("alone",)), {"suite": "s"}, {}, ("alone",), ""),
        (Coverage(), {"suite": "s"}, None, (), ""),
        (InputError("none"), {"explained": False}, None, (), ""),
    ],
)
def test_what_the_inputs_reach_is_recorded(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seen: Any,
    task: dict[str, Any],
    kinds: dict[str, Reached] | None,
    notes: tuple[str, ...],
    low: str | None,
) -> None:
    asked: list[Any] = []

    def reaches(*words: object) -> Coverage:
        asked.append(words)
        if isinstance(seen, Exception):
            raise seen
        assert isinstance(seen, Coverage)
        return seen

    measured: list[Any] = []
    monkeypatch.setattr(subjects, "reached", reaches)
    monkeypatch.setattr(
        subjects, "influence", noting(measured, (BRANCHES, ("of the branches",)))
    )
    specs: Any = {"x": SimpleNamespace(said=lambda: "a specification")}
    made = task_of(path, suite=task.get("suite"), inputs=specs)
    made = replace(made, explained=task.get("explained", True))
    subject = a_subject(path)
    cache = Cache.temporary()
    expected = None if kinds is None else CoverageRecord(kinds, notes=notes)
    for _ in range(2):  # the second time from the cache
        record, words = subjects._coverage(made, subject, cache)
        assert (record, words) == (
            expected,
            "the inputs reach 1 of 2 branches" if low is None else low,
        )
    model, reference = subject.model, subject.reference
    assert asked == [(model.skeleton, specs, reference.sets)]
    assert measured == ([] if task else [(model, reference, cache)])


def test_what_is_reached_is_kept_for_the_inputs_the_card_and_the_way_of_judging(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, counted = Cache.temporary(), []

    def reaches(*_: object) -> Coverage:
        counted.append(1)
        return LEAVES

    monkeypatch.setattr(subjects, "reached", reaches)
    monkeypatch.setattr(subjects, "influence", lambda *_: (BRANCHES, ()))
    specs: Any = {"x": SimpleNamespace(said=lambda: "a specification")}
    task, subject = task_of(path), a_subject(path)
    fewer = replace(subject, reference=subjects.without_sets(subject.reference, (1,)))
    for other in (
        (task, subject),
        (task, fewer),
        (task_of(path, inputs=specs), subject),
        (replace(task, explained=False), subject),
    ):
        before = len(counted)
        for _ in range(2):
            subjects._coverage(*other, cache)
        assert len(counted) == before + 1


def test_what_is_reached_is_counted_once_for_a_model_and_its_inputs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[Any] = []
    records: list[Any] = ["first", "second", "third"]
    lows = iter(["a remark", "", "another"])

    def counts(*words: object) -> tuple[Any, str]:
        counted.append(words)
        return records[len(counted) - 1], next(lows)

    monkeypatch.setattr(subjects, "_coverage", counts)
    other = linear()
    other.graph.name = "other"
    first, second = a_subject(path), a_subject(save(other, tmp_path / "other.onnx"))

    def covered(subject: Subject, inputs: str) -> tuple[Any, list[str]]:
        way = Way(task_of(path), notes=["before"])
        way.found = replace(way.found, inputs_sha256=inputs, opset=17)
        subjects._cover(way, subject, CACHE)
        assert (way.found.opset, way.found.inputs_sha256) == (17, inputs)
        return way.found.coverage, way.notes

    for _ in range(2):
        assert covered(first, "sets") == ("first", ["before", "a remark"])
    assert covered(second, "sets") == ("second", ["before"])
    assert covered(second, "others") == ("third", ["before", "another"])
    assert [words[1:] for words in counted] == [
        (each, CACHE) for each in (first, second, second)
    ]
    assert {words[0].model for words in counted} == {path}


def test_the_kinds_of_things_that_are_kept_are_each_its_own(
    path: Path, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is counted of a model doesn't replace the model that was read."""
    kinds: list[str] = []
    last = bench.last

    def noted(kind: str, key: object, make: Callable[[], Any]) -> Any:
        kinds.append(kind)
        return last(kind, key, make)

    monkeypatch.setattr(bench, "last", noted)
    monkeypatch.setattr(subjects, "_read", lambda *_: (a_subject(path), GRAPH))
    monkeypatch.setattr(subjects, "_coverage", lambda *_: (None, ""))
    subjects.load(Way(task_of(path)), CACHE)
    assert kinds == ["files", "subject", "coverage"]
