"""A cell on its way: what goes wrong at a stage, what has been found out, and what it is timed on."""

from __future__ import annotations

import errno
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_harness import providers, transforms
from onnx_harness.cards.card import Card, KnownFailure, PathSource
from onnx_harness.cell import artifacts, checks, placement, session, timing
from onnx_harness.cell import state as states
from onnx_harness.cell.known import with_ledger
from onnx_harness.cell.matrix import Cell
from onnx_harness.cell.session import NoKernel, open_cell, reopening
from onnx_harness.cell.state import (
    CellEnded,
    Findings,
    Judged,
    RunNote,
    Task,
    Way,
    further_lines,
    never_loaded,
    own_frames,
)
from onnx_harness.errors import (
    InputError,
    MachineError,
    ModelError,
    NotApplicable,
    ResultsError,
    UsageError,
)
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.runs import MOST_BYTES
from onnx_harness.latency.sessions import keeps_to_its_threads
from onnx_harness.model.file import Model
from onnx_harness.names import parse_variant
from onnx_harness.providers.sessions import Purpose
from onnx_harness.results.cells import PlacementRecord, Stage, Status, Symptom
from onnx_harness.settings import Settings
from tests.models import linear, model, save
from tests.unit.results_examples import cell as result_of


def a_way(
    path: Path = Path("net.onnx"),
    variant: str = "original",
    provider: str = "cpu",
    *,
    settings: Settings | None = None,
    explained: bool = True,
    **card: Any,
) -> Way:
    made = Card(path=path, name="net", source=PathSource(path), **card)
    cell = Cell(made, parse_variant(variant), provider)
    return Way(Task(cell, path, settings or Settings(), explained=explained))


DISK = OSError(errno.ENOSPC, "No space left")


@pytest.mark.parametrize(
    ("error", "stage", "status", "reason", "symptom"),
    [
        (NotApplicable("no such"), Stage.TRANSFORM, Status.NOT_APPLICABLE, "no such", None),
        (InputError("no inputs"), Stage.LOAD, Status.ERROR, "no inputs", None),
        (
            MachineError("no locale"),
            Stage.LOAD,
            Status.ERROR,
            "no locale",
            Symptom.ENVIRONMENT,
        ),
        (ResultsError("full"), Stage.LOAD, Status.ERROR, "full", Symptom.ENVIRONMENT),
        (DISK, Stage.RUN, Status.ERROR, "OSError: ", Symptom.ENVIRONMENT),
        (MemoryError("x"), Stage.RUN, Status.ERROR, "MemoryError: x", Symptom.DOES_NOT_RUN),
        (OSError(errno.ENOENT, "x"), Stage.LOAD, Status.ERROR, "FileNotFoundError: ", None),
        (ModelError("not ONNX"), Stage.LOAD, Status.FAIL, "not ONNX", None),
        (UsageError("no step"), Stage.LOAD, Status.ERROR, "no step", None),
        (ValueError("x"), Stage.TRANSFORM, Status.ERROR, "ValueError: x", Symptom.EXCEPTION),
        (
            ValueError("x"),
            Stage.SESSION,
            Status.ERROR,
            "ValueError: x",
            Symptom.DOES_NOT_RUN,
        ),
        (ValueError("x"), Stage.COMPARE, Status.ERROR, "ValueError: x", None),
    ],
)
def test_what_goes_wrong_at_a_stage_ends_the_cell_with_its_status(
    error: Exception, stage: Stage, status: Status, reason: str, symptom: Symptom | None
) -> None:
    way = a_way()
    with pytest.raises(CellEnded) as ended, way.at(stage, fault=Status.ERROR):
        raise error
    found = ended.value
    assert (found.status, found.symptom) == (status, symptom)
    assert found.reason.startswith(reason)
    assert (found.__cause__, way.stage) == (error, stage)


def test_a_fault_is_a_failure_unless_said_otherwise_and_an_end_stays_one() -> None:
    way = a_way()
    with pytest.raises(CellEnded) as ended, way.at(Stage.RUN):
        raise ValueError("one\n\n  two\nthree")
    assert (ended.value.status, ended.value.reason) == (Status.FAIL, "ValueError: one")
    assert ended.value.detail == ("  two", "three")
    end = CellEnded(Status.ERROR, "why", ("more",), Symptom.UNSTABLE, (3,))
    with pytest.raises(CellEnded) as ended, way.at(Stage.COMPARE):
        raise end
    assert ended.value is end
    assert (end.detail, end.symptom, end.failing, str(end)) == (
        ("more",),
        Symptom.UNSTABLE,
        (3,),
        "why",
    )


def test_the_seconds_of_a_stage_add_up_whatever_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([10.0, 12.5, 20.0, 21.0, 30.0, 34.0])
    noted: list[str] = []
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(states, "note_stage", noted.append)
    way = a_way()
    with way.at(Stage.RUN):
        pass
    with pytest.raises(CellEnded), way.at(Stage.RUN):
        raise ValueError
    with way.at(Stage.COMPARE):
        pass
    assert way.seconds == {Stage.RUN: 3.5, Stage.COMPARE: 4.0}
    assert noted == [Stage.RUN, Stage.RUN, Stage.COMPARE]


def test_a_result_has_all_that_was_found_out() -> None:
    values: dict[str, Any] = {}
    for place, name in enumerate(Findings.__dataclass_fields__):
        values[name] = f"found {place}"
    way = a_way(settings=Settings())
    way.found = Findings(**values)
    way.notes.append("a note")
    way.stage = Stage.COMPARE
    failed = way.result(Status.FAIL, "why", ("more",), Symptom.WRONG_VALUES)
    assert {name: getattr(failed, name) for name in values} == values
    assert (failed.id, failed.model, failed.variant, failed.provider) == (
        "net-original-cpu",
        "net",
        "original",
        "cpu",
    )
    assert (failed.status, failed.stage, failed.reason) == (
        Status.FAIL,
        Stage.COMPARE,
        "why",
    )
    assert (failed.detail, failed.notes, failed.symptom) == (
        ("more",),
        ("a note",),
        Symptom.WRONG_VALUES,
    )
    assert failed.card_sha256 == way.task.cell.card.digest()
    assert failed.seconds is way.seconds
    assert way.result(Status.PASS).stage is Stage.DONE
    blank = never_loaded(way.task.cell)
    assert (blank.id, blank.model, blank.variant) == (failed.id, "net", "original")
    assert (blank.status, blank.stage, blank.provider) == (Status.ERROR, Stage.LOAD, "cpu")
    assert (blank.model_sha256, blank.card_sha256) == ("", failed.card_sha256)


def test_a_variant_is_bound_once() -> None:
    way = a_way(variant="fp16.io32")
    assert way.bound is way.bound
    assert [step.name for step in way.task.cell.variant.steps] == ["fp16.io32"]


@pytest.mark.parametrize("note", [RunNote(3, True, "a: b"), RunNote(0, False, "")])
def test_a_note_on_a_run_is_read_back(note: RunNote) -> None:
    assert RunNote.read(str(note)) == note
    assert RunNote.read("load") is None


def test_the_lines_after_the_first_are_told_but_blank_ones() -> None:
    assert further_lines(ValueError("")) == ()
    assert further_lines(ValueError("\n one \n\n two \n")) == (" two",)


def raised(filenames: list[str]) -> Exception:
    """An error that came up through frames of these files, the outermost first."""
    scope: dict[str, Any] = {"call": None}
    for depth, filename in enumerate(reversed(filenames)):
        source = f"def f{depth}(): " + ("1 / 0" if depth == 0 else f"f{depth - 1}()")
        exec(compile(source, filename, "exec"), scope)
    try:
        scope[f"f{len(filenames) - 1}"]()
    except ZeroDivisionError as error:
        return error
    raise AssertionError


STEP = str(transforms.__file__)
OURS = str(Path(STEP).parents[1] / "x.py")


@pytest.mark.parametrize(
    ("filenames", "named"),
    [
        (["a.py", STEP, "mine.py", "lib.py"], ["mine.py", "lib.py"]),
        ([STEP, "a.py", STEP, "mine.py"], ["mine.py"]),
        (["a.py", STEP, OURS, "lib.py"], []),
        (["a.py", STEP], []),
        (["a.py", "b.py"], []),
        ([STEP, *(f"l{number}.py" for number in range(9))], [f"l{n}.py" for n in range(6)]),
    ],
)
def test_the_frames_of_a_user_s_transform_are_told(
    filenames: list[str], named: list[str]
) -> None:
    told = own_frames(raised(filenames))
    assert [line.split('"')[1] for line in told] == named
    if named:
        assert told[0].startswith(f'File "{named[0]}", line 1, in f')


ENTRY = KnownFailure(
    stage=Stage.RUN,
    reason="a defect",
    versions={"numpy": ">=1"},
)


def test_a_failure_that_the_card_knows_is_known_with_its_cause_and_script() -> None:
    failed = result_of(status=Status.FAIL, stage=Stage.RUN, reason="it died", detail=("x",))
    entry = replace(ENTRY, cause="an overflow", repro="here")
    known = with_ledger(failed, entry, "net.model.toml")
    assert (known.status, known.reason) == (
        Status.KNOWN_FAILURE,
        "a defect (seen in numpy >=1)",
    )
    assert known.detail == ("x", "cause: an overflow", "repro: here")
    assert known.known is not None
    assert (known.known.reason, known.known.versions) == ("a defect", {"numpy": ">=1"})
    assert (known.known.cause, known.known.repro, known.known.mended) == (
        "an overflow",
        "here",
        None,
    )
    plain = with_ledger(failed, ENTRY, "c")
    assert plain.detail == ("x",)
    assert plain.known is not None
    assert (plain.known.cause, plain.known.repro) == (None, None)


def test_a_failure_elsewhere_or_of_other_versions_fails() -> None:
    failed = result_of(status=Status.FAIL, stage=Stage.COMPARE, reason="it differs")
    other = with_ledger(failed, ENTRY, "c")
    assert (other.status, other.known) == (Status.FAIL, None)
    assert other.reason == "fails at compare, not at run as the card knows it: it differs"
    outside = with_ledger(failed, replace(ENTRY, versions={"numpy": "<1"}), "c.toml")
    assert outside.status is Status.FAIL
    assert str(outside.reason).startswith(
        "it differs (a failure as the card c.toml knows one, but of numpy "
    )


def test_a_cell_that_passes_though_it_is_known_to_fail_is_out_of_date_or_mended() -> None:
    passed = result_of(notes=("n",))
    stale = with_ledger(passed, ENTRY, "c.toml")
    assert stale.status is Status.FAIL
    assert stale.reason == (
        "passes, though the card c.toml knows it to fail (a defect; seen in numpy >=1)"
    )
    assert stale.detail == ("Mend: take that entry out of the card.",)
    upgraded = with_ledger(passed, replace(ENTRY, versions={"numpy": "1.0"}), "c")
    assert upgraded.status is Status.FAIL
    assert "; mended by numpy " in str(upgraded.reason)
    assert upgraded.known is not None
    assert str(upgraded.known.mended).startswith("numpy ")
    assert upgraded.detail[0].startswith(
        "Mend: take that entry out of the card, or give it the"
    )
    mended = with_ledger(passed, replace(ENTRY, versions={"numpy": "<1"}), "c")
    assert mended.status is Status.PASS
    assert mended.notes[0] == "n"
    assert mended.notes[1].startswith("mended by numpy ")
    assert mended.notes[1].endswith(": a defect")
    assert mended.known is not None
    assert str(mended.known.mended).startswith("numpy ")


X = np.ones((2, 4), np.float32)


def a_subject(path: Path, *values: dict[str, Any], **reference: Any) -> Any:
    sets = tuple(InputSet(f"set {place}", given) for place, given in enumerate(values))
    made = Reference(sets, tuple({} for _ in sets), frozenset(), **reference)
    return SimpleNamespace(model=Model(path), reference=made)


def an_artifact(path: Path, **more: Any) -> Any:
    given = {
        "model": Model(path),
        "transformed": True,
        "check": None,
        "level": "all",
        **more,
    }
    return SimpleNamespace(**given)


def test_an_untouched_or_right_model_passes_its_check(tmp_path: Path) -> None:
    path = save(linear(), tmp_path / "net.onnx")
    way, subject = a_way(path), a_subject(path, {"x": X})
    checks.check_artifact(way, subject, an_artifact(path))
    checks.check_artifact(way, subject, an_artifact(path, transformed=False, check="bad"))
    assert way.notes == []


@pytest.mark.parametrize("original", [None, "it is odd"])
def test_a_model_that_the_checker_rejects_fails_unless_the_original_is_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, original: str | None
) -> None:
    path = save(linear(), tmp_path / "net.onnx")
    monkeypatch.setattr(artifacts, "checker_says", {path: original}.__getitem__)
    way, subject = a_way(path), a_subject(path, {"x": X})
    if original is None:
        with pytest.raises(CellEnded) as ended:
            checks.check_artifact(way, subject, an_artifact(path, check="bad"))
        assert ended.value.reason == "the ONNX checker rejects the transformed model: bad"
        assert (ended.value.status, ended.value.symptom) == (Status.FAIL, Symptom.INVALID)
    else:
        checks.check_artifact(way, subject, an_artifact(path, check="bad"))
        assert way.notes == ["the ONNX checker rejects the original too: it is odd"]


def test_a_changed_interface_fails_with_every_difference(tmp_path: Path) -> None:
    first = save(model("(float[2] x) => (float[2] y) { y = Neg(x) }"), tmp_path / "a.onnx")
    other = save(model("(float[3] u) => (float[3] v) { v = Neg(u) }"), tmp_path / "b.onnx")
    subject = a_subject(first, {"x": np.ones(2, np.float32)})
    with pytest.raises(CellEnded) as ended:
        checks.check_artifact(a_way(first), subject, an_artifact(other))
    assert ended.value.reason.startswith("the model's interface changed: ")
    assert (ended.value.status, ended.value.symptom) == (Status.FAIL, Symptom.CHANGED_TYPES)
    assert len(ended.value.detail) >= 1


@pytest.mark.parametrize("second", [X, X[:1]])
def test_a_variant_of_fixed_shapes_is_judged_on_those_alone(
    tmp_path: Path, second: Any
) -> None:
    path = save(linear(), tmp_path / "net.onnx")
    way = a_way(path)
    way._bound = SimpleNamespace(  # type: ignore[assignment]
        fixed_shapes={"x": (2, 4), "unknown": (1,)}, float_io=None
    )
    subject = a_subject(path, {"x": X}, {"x": second})
    fixed = save(
        model("(float[2,4] x) => (float[2,4] y) { y = Neg(x) }"), tmp_path / "fixed.onnx"
    )
    if second.shape == (2, 4):
        checks.check_artifact(way, subject, an_artifact(fixed))
        return
    with pytest.raises(CellEnded) as ended:
        checks.check_artifact(way, subject, an_artifact(fixed))
    assert ended.value.status is Status.NOT_APPLICABLE
    assert ended.value.reason == (
        "the variant fixes the shape of input 'x' at [2, 4], and the input sets have others. "
        "Mend: shapes = [[2, 4]] under [inputs.x] of the model's card"
    )


NO_OWNER = (
    "IsNodeCompatibleWithProvider(const Node&) const !node_provider_type.empty() was false. "
    "Provider type for MatMul node with name 'make_a' is not set."
)
NO_MUL = "Could not find an implementation for Mul(14) node with name ''"
OLD_TYPE = (
    "Type 'tensor(bfloat16)' of input parameter (x) of operator (Gelu) in node () is invalid"
)


@pytest.mark.parametrize(
    ("words", "variant", "provider", "outcome"),
    [
        (NO_MUL, "bf16.io32", "cpu", NoKernel("Mul")),
        (NO_OWNER, "bf16.io32", "cpu", NoKernel("MatMul")),
        (OLD_TYPE, "bf16.io32", "cpu", NoKernel("Gelu")),
        (NO_MUL, "fp16.io32", "cpu", RuntimeError),
        ("out of memory", "bf16.io32", "cpu", RuntimeError),
        (NO_MUL, "bf16.io32", "cuda", NotApplicable),
    ],
)
def test_a_missing_kernel_is_a_fact_about_the_provider(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    variant: str,
    provider: str,
    outcome: Any,
) -> None:
    path = save(linear(), tmp_path / "net.onnx")

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(session, "open_session", fails)
    way = a_way(path, variant, provider)
    opened = (way, a_subject(path, {"x": X}), an_artifact(path), tmp_path)
    if isinstance(outcome, NoKernel):
        assert open_cell(*opened) == outcome
        return
    with pytest.raises(outcome) as told:
        open_cell(*opened)
    if outcome is NotApplicable:
        assert str(told.value) == "provider 'cuda' has no Mul in bfloat16"


LOOP = """(float[2] x) => (float[2] y) {
  n = Constant <value_int = 2> () c = Constant <value = bool {1}> ()
  y = Loop (n, c, x) <body = b (int64 i, bool k, float[2] s) => (bool k2, float[2] s2)
    { k2 = Identity(k) s2 = Neg(s) }> }"""
HALF = "(float16[2] x) => (float16[2] y) { y = Exp(x) }"
PLAIN = "(float[2] x) => (float[2] y) { y = Neg(x) }"


@pytest.mark.parametrize(
    ("text", "provider", "more", "profiled"),
    [
        (PLAIN, "cpu", {}, True),
        (LOOP, "cpu", {}, False),
        (LOOP, "cuda", {}, True),
        (HALF, "cpu", {}, True),
        (PLAIN, "cpu", {"suite": "s"}, False),
        (PLAIN, "cpu", {"explained": False}, False),
        (PLAIN, "cuda", {"explained": False}, True),
    ],
)
def test_a_run_is_profiled_where_a_profile_tells_something(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    provider: str,
    more: dict[str, Any],
    profiled: bool,
) -> None:
    path = save(model(text), tmp_path / "net.onnx")
    opened: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        session, "open_session", lambda *words, **more: opened.append((words, more))
    )
    way = a_way(path, "original", provider, **more)
    open_cell(way, a_subject(path, {"x": X}), an_artifact(path, level="basic"), tmp_path)
    [((opened_path, on), options)] = opened
    assert (opened_path, on) == (path, providers.get(provider))
    assert options["profile"] == (tmp_path / "profile" if profiled else None)
    assert (options["level"], options["purpose"]) == ("basic", Purpose.ACCURACY)
    assert set(options) == {"level", "purpose", "profile", "config"}


@pytest.mark.parametrize(("more_bytes", "again"), [(0, False), (1, True)])
def test_the_session_of_a_large_model_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more_bytes: int, again: bool
) -> None:
    large = SimpleNamespace(model=SimpleNamespace(size_bytes=MOST_BYTES + more_bytes))
    given = ("way", "subject", large, tmp_path)
    monkeypatch.setattr(session, "open_cell", lambda *words: words)
    opens = reopening(*given)  # type: ignore[arg-type]
    assert (opens is not None) is again
    if opens is not None:
        assert opens() == given


def test_a_cell_is_timed_on_the_everyday_sets_of_the_first_one_s_shapes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrays: list[Any] = [np.full((rows, 4), rows) for rows in (2, 3, 2, 2, 2)]
    sets = [InputSet("set", {"x": array}) for array in arrays]
    sets[3] = replace(sets[3], unusual="odd")
    sets[4] = replace(sets[4], large=True)
    made = Reference(tuple(sets), ({},) * 5, frozenset())
    task = a_way().task
    monkeypatch.setattr(timing, "subject_of", lambda _: SimpleNamespace(reference=made))
    timed = timing.timing_inputs(task)
    assert [
        values["x"] is array for values, array in zip(timed, arrays[::2], strict=False)
    ] == [True] * 2
    assert timed[1] is not sets[2].values


def test_a_cell_is_timed_beside_the_untouched_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = tmp_path / "net.onnx", tmp_path / "variant.onnx"
    task = a_way(path, "simplify", settings=Settings(latency_budget=3.0, seed=9)).task
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(timing, "timed_session", lambda *words, **more: (words, more))

    def measures(benchmark: object, **options: Any) -> str:
        asked.append((benchmark, options))
        return "a record"

    monkeypatch.setattr(timing, "measure", measures)
    judged = Judged(result_of(), made, "basic")
    record: Any = timing.time_cell(task, judged, [{"x": X}], "fixture")
    assert record == "a record"
    [(benchmark, options)] = asked
    cpu = providers.get("cpu")
    assert benchmark == "fixture"
    assert options.pop("baseline")() == ((path, cpu, [{"x": X}]), {})
    assert options.pop("variant")() == ((made, cpu, [{"x": X}]), {"level": "basic"})
    assert options == {
        "budget_s": 3.0,
        "seed": 9,
        "pin": keeps_to_its_threads(cpu),
        "labels": {"model": "net", "variant": "simplify", "provider": "cpu"},
    }
    assert timing._bytes(judged) == 9_300_000
    assert timing._bytes(replace(judged, result=result_of(graph=None))) == 0
    monkeypatch.setattr(timing, "LARGE_BYTES", 9_299_999)
    monkeypatch.setattr(timing, "taking_turns", lambda *sides: [side() for side in sides])
    timing.time_cell(task, judged, [{"x": X}], "fixture")
    sides = [asked[1][1][side] for side in ("baseline", "variant")]
    assert sides == [
        ((path, cpu, [{"x": X}]), {}),
        ((made, cpu, [{"x": X}]), {"level": "basic"}),
    ]
    with pytest.raises(
        ValueError, match="net-simplify-cpu did not pass: there is nothing to time"
    ):
        timing.time_cell(task, replace(judged, artifact=None), [], "fixture")


ON, OFF = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("assigned", "demand", "card", "short"),
    [
        ({(ON, "Conv"): 19, (OFF, "Det"): 1}, None, {}, False),
        ({(ON, "Conv"): 18, (OFF, "Det"): 2}, None, {}, True),
        ({(ON, "Conv"): 18, (OFF, "Det"): 2}, 0.9, {}, False),
        ({(ON, "Conv"): 19, (OFF, "Det"): 1}, 0.96, {}, True),
        # It may be arithmetic on shapes.
        ({(ON, "Conv"): 18, (OFF, "Add"): 2}, None, {}, False),
    ],
)
def test_nodes_elsewhere_are_counted_against_the_demand(
    monkeypatch: pytest.MonkeyPatch,
    assigned: dict[tuple[str, str], int],
    demand: float | None,
    card: dict[str, Any],
    short: bool,
) -> None:
    given = Counter(assigned)
    monkeypatch.setattr(placement, "assignments", lambda *_: given)
    way = a_way(provider="cuda", settings=Settings(min_placement=demand), **card)
    if short:
        with pytest.raises(CellEnded, match="CUDAExecutionProvider owns"):
            placement.prove_placement(way, None)
    else:
        assert placement.prove_placement(way, None) == given
    assert isinstance(way.found.placement, PlacementRecord)
    assert way.found.placement.requested == ON


def test_nothing_stands_behind_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Counter({(OFF, "Conv"): 99, ("Other", "Add"): 1})
    monkeypatch.setattr(placement, "assignments", lambda *_: given)
    with pytest.raises(CellEnded, match="CPUExecutionProvider owns 99 of 100"):
        placement.prove_placement(a_way(), None)
