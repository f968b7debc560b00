"""Runs of one session: on which sets, noted as what, and which of two that differ is at fault."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_harness.cell import repeats
from onnx_harness.cell.repeats import (
    AT_ONCE,
    AT_THE_END,
    Repeat,
    run_anew,
    run_sets,
    wrong_repeat,
)
from onnx_harness.cell.state import RunNote, Way
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.verdict import Verdict
from onnx_harness.results.cells import Status, Symptom
from onnx_harness.results.workbench import Workbench
from tests.unit.test_cell_parts import task_of

NUMBERS: list[Any] = [0.0, 1.0, 2.0]
SETS = tuple(
    InputSet(f"set {place}", {"x": number}, unusual="odd" if place == 2 else "")
    for place, number in enumerate(NUMBERS)
)
REFERENCE = Reference(SETS, ({"y": 0},) * 3, frozenset())
CACHE: Any = "the cache"
MODEL: Any = SimpleNamespace(skeleton="the skeleton", sha256="its digest")


class Session:
    """Stands in for a session, which counts its runs; of 'a profile', where it keeps one."""

    def __init__(self, profiling: bool = False) -> None:
        self.log: list[Any] = []
        self._profiling = profiling

    def get_session_options(self) -> Any:
        return SimpleNamespace(enable_profiling=self._profiling)

    def end_profiling(self) -> str:
        self.log.append("end")
        return "a profile"


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[RunNote | None]:
    """What the worker notes, while every run gives the number that it was fed, and how many there were."""
    notes: list[RunNote | None] = []

    @contextlib.contextmanager
    def noting(words: str) -> Any:
        notes.append(RunNote.read(words))
        yield
        notes.append(None)

    def run(session: Session, values: Mapping[str, Any]) -> dict[str, Any]:
        session.log.append(values["x"])
        return {"y": (values["x"], len(session.log))}

    monkeypatch.setattr(repeats, "noting", noting)
    monkeypatch.setattr(repeats, "run", run)
    monkeypatch.setattr(repeats, "feeds_for", lambda _, values: dict(values))
    monkeypatch.setattr(repeats, "random_nodes", lambda *_: [])
    bench = Workbench(CACHE)
    monkeypatch.setattr(repeats, "workbench", lambda: bench)
    return notes


def way_on(provider: str, **task: Any) -> Way:
    suite = task.pop("suite", None)
    made = replace(task_of(Path("net.onnx"), suite=suite), **task)
    return Way(replace(made, cell=replace(made.cell, provider=provider)))


@pytest.mark.parametrize(
    ("provider", "profiling", "count", "log"),
    [
        ("cpu", False, 3, [0, 0, 1, 2, 0]),
        ("cpu", True, 3, [0, "end", 0, 1, 2, 0]),
        ("cpu", False, 2, [0, 0, 1, 0]),
        ("cpu", False, 1, [0, 0]),
        # A device compiles its kernels in its first run, and the profile is of the next.
        ("cuda", True, 3, [0, 0, "end", 0, 1, 2, 0]),
    ],
)
def test_each_set_is_run_and_the_first_again(
    noted: list[RunNote | None], provider: str, profiling: bool, count: int, log: list[Any]
) -> None:
    session: Any = Session(profiling)
    reference = replace(REFERENCE, sets=SETS[:count], outputs=REFERENCE.outputs[:count])
    subject: Any = SimpleNamespace(model=MODEL, reference=reference)
    runs = run_sets(way_on(provider), subject, session)
    assert session.log == log
    assert [output["y"][0] for output in runs.outputs] == [0.0, 1.0, 2.0][:count]
    assert runs.outputs[0]["y"] == (0.0, 1)
    when = [AT_ONCE, AT_THE_END][: 1 if count == 1 else 2]
    assert [repeat.when for repeat in runs.repeats] == when
    assert all(repeat.outputs["y"][0] == 0.0 for repeat in runs.repeats)
    assert runs.profile == (Path("a profile") if profiling else None)
    assert runs.again()["y"] == (0.0, len(log) + 1)
    notes = [note for note in noted if note is not None]
    expected = [RunNote(place, place == 2, f"set {place}") for place in range(count)]
    again = [RunNote(0, False, f"set 0, {words}") for words in when]
    assert notes == [expected[0], again[0], *expected[1:], *again[1:]]


@pytest.mark.parametrize(
    ("task", "reference", "drawn"),
    [
        ({"explained": False}, REFERENCE, []),
        ({"suite": "s"}, REFERENCE, []),
        ({}, replace(REFERENCE, unstable=frozenset("y")), []),
        ({}, REFERENCE, ["a node"]),
    ],
)
@pytest.mark.usefixtures("noted")
def test_what_needs_no_second_look_or_draws_gets_none(
    monkeypatch: pytest.MonkeyPatch,
    task: dict[str, Any],
    reference: Reference,
    drawn: list[str],
) -> None:
    asked: list[Any] = []

    def random_nodes(*words: Any) -> list[str]:
        asked.append(words)
        return drawn

    monkeypatch.setattr(repeats, "random_nodes", random_nodes)
    subject: Any = SimpleNamespace(model=MODEL, reference=reference)
    session: Any = Session()
    runs = run_sets(way_on("cpu", **task), subject, session)
    assert (runs.repeats, session.log) == ([], [0, 1, 2])
    if drawn:
        run_sets(way_on("cpu", **task), subject, session)  # they're looked for once
        assert asked == [("the skeleton", {"y": 0}.keys())]


def test_the_notes_name_sets_by_their_place_in_the_whole_reference(
    noted: list[RunNote | None],
) -> None:
    subject: Any = SimpleNamespace(model=MODEL, reference=REFERENCE)
    session: Any = Session()
    run_sets(way_on("cpu", skipped=(0, 2)), subject, session)
    places = [note.place for note in noted if note is not None]
    assert places == [1, 1, 3, 4, 1]


def test_a_large_model_s_session_is_opened_anew_for_another_run(
    noted: list[RunNote | None],
) -> None:
    subject: Any = SimpleNamespace(model=MODEL, reference=REFERENCE)
    opened: list[Session] = []

    def opens() -> Any:
        opened.append(Session())
        return opened[-1]

    session: Any = Session(profiling=True)
    runs = run_sets(way_on("cpu"), subject, session, opens)
    assert runs.profile == Path("a profile")
    before = len(session.log)
    # what it draws goes on where the call before ended
    assert [runs.again()["y"] for _ in range(3)] == [(0.0, 2), (0.0, 3), (0.0, 4)]
    assert [each.log for each in opened] == [[0, 0], [0, 0, 0], [0, 0, 0, 0]]
    assert len(session.log) == before
    assert run_anew(opens, {"x": 5.0})()["y"] == (5.0, 2)
    assert noted


WRONG = Verdict(Status.FAIL, None, "y departs", ("a line",), symptom=Symptom.WRONG_VALUES)
RIGHT = Verdict(Status.PASS)
FIRST = (
    "the first run alone departs; when its input set (set 0) is run a second time, it is right: "
    "y departs"
)
AGAIN = "the first input set (set 0) gives another result when it is run a second time: y departs"


@pytest.mark.parametrize(
    ("first", "again", "reason"),
    [
        (RIGHT, RIGHT, None),
        (WRONG, WRONG, None),
        (RIGHT, WRONG, AGAIN),
        (WRONG, RIGHT, FIRST),
    ],
)
@pytest.mark.parametrize("same_before", [0, 2])
def test_of_two_runs_that_differ_the_one_that_is_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch,
    first: Verdict,
    again: Verdict,
    reason: str | None,
    same_before: int,
) -> None:
    standard: Any = SimpleNamespace(reference=REFERENCE)
    outputs = [{"y": np.full(3, place)} for place in range(3)]
    other = {"y": np.full(3, 9)}
    judged: list[Any] = []

    def verdict(*words: Any) -> Verdict:
        judged.append(words)
        return again if words[1][0] is other else first

    monkeypatch.setattr(repeats, "verdict", verdict)
    copies = [Repeat("not told", {"y": np.zeros(3, int)})] * same_before
    told = wrong_repeat(standard, outputs, [*copies, Repeat(AT_ONCE, other)])
    if reason is None:
        assert told is None
    else:
        assert told == replace(WRONG, reason=reason, failing=(0,))
    assert judged[0] == (standard, outputs)
    [(_, repeated)] = judged[1:]
    assert [each["y"][0] for each in repeated] == [9, 1, 2]


def test_runs_that_are_the_same_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "verdict", lambda *_: pytest.fail("it was judged"))
    outputs = [{"y": np.array([np.nan, -0.0]), "s": [np.ones(2)]}]
    same = {"y": np.array([np.nan, -0.0]), "s": [np.ones(2)]}
    assert wrong_repeat(None, outputs, [Repeat(AT_ONCE, same)]) is None  # type: ignore[arg-type]
