"""What is tried for a cell that ends before its values are compared, in which order, and what is said."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import onnx
import pytest

from onnx_harness import transforms
from onnx_harness.cell import artifacts, mends
from onnx_harness.cell.state import CellEnded, Judged, Task, Way
from onnx_harness.errors import DiedBefore, UsageError
from onnx_harness.model.file import Model
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import Stage, Status, Symptom
from onnx_harness.transforms import Parts, Transform
from tests.models import linear, save
from tests.unit.results_examples import cell as result_of
from tests.unit.test_cell_parts import task_of

CACHE: Any = "the cache"
PARTS = tuple("abcdefghij")


class Judging:
    """Stands in for the judging of cells: right are those that ``passes`` says are.

    Attributes:
        tried: the variants that it was asked about, in order.
        clock: the seconds that have gone by: ``seconds`` with each.
    """

    def __init__(self, passing: Any = (), failure: Any = None, seconds: float = 0) -> None:
        self._passes = passing if callable(passing) else set(passing).__contains__
        self._failure = failure or {"status": Status.FAIL, "stage": Stage.RUN}
        self._seconds = seconds
        self.tasks: list[Task] = []
        self.clock = 1000.0

    def __call__(self, task: Task) -> Judged:
        self.tasks.append(task)
        self.clock += self._seconds
        passed = self._passes(task.cell.variant.spelling)
        return Judged(result_of() if passed else result_of(**self._failure))

    @property
    def tried(self) -> list[str]:
        return [task.cell.variant.spelling for task in self.tasks]


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model, and a step of ours whose parts can be left out one by one."""
    named: list[tuple[onnx.ModelProto, Mapping[str, Any]]] = []

    def names(model: onnx.ModelProto, options: Mapping[str, Any]) -> list[str]:
        named.append((model, options))
        return [name for name in PARTS if name not in options.get("skipped_optimizers", ())]

    planted = Transform(
        "a planted step",
        lambda model, **_: model,
        {"planted": {}},
        options={"skipped_optimizers": tuple, "again": bool},
        parts=Parts("rule", names, lambda *_: {}),
    )
    registry = cast("dict[str, Transform]", transforms.registry())
    monkeypatch.setitem(registry, "planted", planted)
    return SimpleNamespace(model=Model(save(linear(), tmp_path / "net.onnx")), named=named)


def a_way(subject: Any, variant: str, stage: Stage, **card: Any) -> Way:
    return Way(task_of(subject.model.path, variant, **card), stage)


TRANSFORM, CHECK, SESSION = Stage.TRANSFORM, Stage.CHECK, Stage.SESSION
RUN, COMPARE = Stage.RUN, Stage.COMPARE
IN_PLACE = "passes: simplify in the place of"
OFF = "passes: ONNX Runtime's optimizations above"


@pytest.mark.parametrize(
    ("variant", "stage", "passing", "tried", "words"),
    [
        # another library's optimizer, and simplify in its place
        ("onnxslim", TRANSFORM, ["simplify"], 1, f"{IN_PLACE} onnxslim"),
        (
            "onnxslim+onnxsim+ort.basic",
            CHECK,
            ["onnxslim+simplify+ort.basic"],
            ["simplify+onnxsim+ort.basic", "onnxslim+simplify+ort.basic"],
            f"{IN_PLACE} onnxsim",
        ),
        (
            "onnxslim+onnxsim",
            CHECK,
            [],
            ["simplify+onnxsim", "onnxslim+simplify"],
            "simplify+onnxsim fails too, at run; onnxslim+simplify fails too, at run",
        ),
        # a conversion of another library is no optimizer, nor is a pass that is one of a group
        ("fp16.onnxmltools", Stage.PLACEMENT, ["simplify"], [], ""),
        ("pass.nop", TRANSFORM, ["simplify"], [], ""),
        # ONNX Runtime's level: the lowest tells whether its optimizer is at fault
        ("ort.basic", SESSION, ["ort.disable"], 1, f"{OFF} 'disable' are off"),
        (
            "ort.all",
            RUN,
            ["ort.disable", "ort.basic", "ort.extended"],
            ["ort.disable", "ort.layout", "ort.extended"],
            f"{OFF} 'extended' are off",
        ),
        (
            "pass.nop",
            COMPARE,
            ["pass.nop+ort.disable"],
            ["disable", "layout", "extended", "basic"],
            f"{OFF} 'disable' are off",
        ),
        ("original", SESSION, ["ort.basic"], ["ort.disable"], ""),
        ("ort.disable", SESSION, ["ort.disable"], [], ""),
        ("ort.all", TRANSFORM, ["ort.disable"], [], ""),
        ("ort.all", Stage.LATENCY, ["ort.disable"], [], ""),
        ("int4+ort.all", COMPARE, ["int4+ort.disable"], [], ""),
    ],
)
def test_what_is_tried_in_its_place(
    subject: Any, variant: str, stage: Stage, passing: list[str], tried: Any, words: str
) -> None:
    judge = Judging(passing)
    way = a_way(subject, variant, stage)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("int8_mend_of", "mend_of"):
            patch.setattr(mends, name, lambda *_: (None, ""))
        patch.setattr(artifacts, "judged_by", lambda *_: None)
        spelling, line = mends.early_mend_of(way, subject, CACHE, judge)
    if tried == ["disable", "layout", "extended", "basic"]:
        tried = [f"pass.nop+ort.{level}" for level in tried]
    assert judge.tried == (passing if tried == 1 else tried)
    if "passes: " in words:
        assert spelling == passing[-1]
        assert line == f"mend: `--variant {spelling}` {words}"
    else:
        assert (spelling, line) == (None, words and f"No mend was found: {words}")
    for task in judge.tasks:  # all else is the cell's
        assert replace(task, cell=way.task.cell) == way.task
        assert replace(task.cell, variant=way.task.cell.variant) == way.task.cell


def test_what_failed_is_said_once_with_its_reason(subject: Any) -> None:
    judge = Judging(failure={"status": Status.NOT_APPLICABLE, "reason": "no such kernel"})
    way = a_way(subject, "onnxslim+onnxslim", RUN)
    words = (
        "No mend was found: simplify+onnxslim: no such kernel; onnxslim+simplify: no such"
    )
    assert mends.early_mend_of(way, subject, CACHE, judge) == (None, f"{words} kernel")
    # That of a lower level isn't what was asked for: it's no answer to say that it fails.
    assert judge.tried[2:] == ["onnxslim+onnxslim+ort.disable"]


def left_out(spelling: str) -> set[str]:
    """The parts that a chain's step without other options of its own leaves out."""
    [step] = [step for step in parse_variant(spelling).steps if step.name == "planted"]
    return set(cast("tuple[str, ...]", dict(step.options).get("skipped_optimizers", ())))


@pytest.mark.parametrize(
    ("variant", "needed", "offered", "words"),
    [
        ("planted", "c", "planted(skipped_optimizers=['c'])", "without c"),
        (
            "pass.nop+planted+ort.all",
            "hb",
            "pass.nop+planted(skipped_optimizers=['b', 'h'])+ort.all",
            "without b, h",
        ),
        (
            "planted(again=True, skipped_optimizers=['d'])",
            "dj",
            "planted(again=True, skipped_optimizers=['d', 'j'])",
            "without j",
        ),
        (
            "planted",
            "abdeg",
            "planted(skipped_optimizers=['a', 'b', 'd', 'e', 'g'])",
            "without a, b, d, e, g",
        ),
        (
            "planted",
            "abdegij",
            "planted(skipped_optimizers=['a', 'b', 'd', 'e', 'g', 'i', 'j'])",
            "without a, b, d, e, g and 2 more",
        ),
    ],
)
def test_the_fewest_parts_of_a_step_of_ours_are_left_out(
    subject: Any, variant: str, needed: str, offered: str, words: str
) -> None:
    judge = Judging(lambda spelling: left_out(spelling) >= set(needed))
    way = a_way(subject, variant, TRANSFORM)
    found = mends.early_mend_of(way, subject, CACHE, judge)
    assert found == (offered, f'mend: `--variant "{offered}"` passes: {words}')
    [(seen, options)] = subject.named
    assert seen == subject.model.load()
    assert options == way.bound.steps[len(way.bound.steps) // 2].options


@pytest.mark.parametrize(
    ("variant", "tried"), [("planted", 1), (f"planted(skipped_optimizers={[*PARTS]})", 0)]
)
def test_a_step_that_fails_whatever_it_leaves_out_is_named(
    subject: Any, variant: str, tried: int
) -> None:
    judge = Judging()
    line = mends.tried_early_mend(a_way(subject, variant, CHECK), subject, CACHE, judge)
    assert line == "No mend was found: planted fails whatever it leaves out"
    assert len(judge.tried) == tried


def test_of_two_steps_the_one_at_fault_is_found(subject: Any) -> None:
    """Of the first one no option leaves a part out, or it fails whatever is left out."""
    judge = Judging(
        lambda spelling: spelling.startswith("onnxsim") and left_out(spelling) >= {"a"}
    )
    way = a_way(subject, "onnxsim+planted", TRANSFORM)
    found = mends.early_mend_of(way, subject, CACHE, judge)
    assert found[0] == "onnxsim+planted(skipped_optimizers=['a'])"
    assert judge.tried[0] == "simplify+planted"
    second = Judging(lambda spelling: "a" in spelling.partition("+planted(")[2])
    found = mends.early_mend_of(
        a_way(subject, "planted+planted", TRANSFORM), subject, CACHE, second
    )
    assert found[0] == "planted+planted(skipped_optimizers=['a'])"


@pytest.mark.parametrize(
    ("variant", "stage", "asked"),
    [
        ("fp16.io32", RUN, True),
        ("bf16.io32", SESSION, True),
        ("fp16.io32", TRANSFORM, False),
        ("fp16.io32", CHECK, False),
        ("fp16.io32", COMPARE, False),
        ("fp16.onnxmltools", TRANSFORM, True),
        ("fp16.onnxmltools", COMPARE, True),
        ("simplify", RUN, False),
    ],
)
@pytest.mark.parametrize(
    ("mend", "passing", "expected"),
    [
        (("fp16.mixed", "the line"), ["fp16.mixed"], ("fp16.mixed", "the line")),
        (
            ("fp16.mixed", "the line"),
            [],
            (None, "No mend was found: fp16.mixed fails too, at run"),
        ),
        (
            (None, "No mend is offered: one: two"),
            [],
            (None, "No mend was found: one: two"),
        ),
        ((None, ""), [], (None, "")),
    ],
)
def test_another_conversion_is_offered_where_it_passes_as_a_cell(
    subject: Any,
    monkeypatch: pytest.MonkeyPatch,
    variant: str,
    stage: Stage,
    asked: bool,
    mend: tuple[str | None, str],
    passing: list[str],
    expected: tuple[str | None, str],
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(artifacts, "judged_by", lambda *words: words)
    monkeypatch.setattr(mends, "mend_of", lambda *words: given.append(words) or mend)  # type: ignore[func-returns-value]
    monkeypatch.setattr(mends._Mending, "_of_level", lambda _: None)
    monkeypatch.setattr(mends._Mending, "_of_parts", lambda _: None)
    way, judge = a_way(subject, variant, stage), Judging(passing)
    found = mends.early_mend_of(way, subject, CACHE, judge)
    if asked:
        assert given == [((way, subject, CACHE), way.bound, subject.model)]
        assert found == expected
        assert judge.tried == [name for name in mend[:1] if name is not None]
    else:
        assert (given, judge.tried) == ([], [])
        assert found == (None, "")


@pytest.mark.parametrize(
    ("variant", "asked"),
    [
        ("int8.static", True),
        ("pass.nop+int4", True),
        ("int8.static+fp16", False),
        ("fp16", False),
    ],
)
def test_another_quantization_is_offered_where_it_passes_as_a_cell(
    subject: Any, monkeypatch: pytest.MonkeyPatch, variant: str, asked: bool
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(
        mends,
        "int8_mend_of",
        lambda *words: given.append(words) or ("int8.mixed", "the line"),  # type: ignore[func-returns-value]
    )
    way, judge = a_way(subject, variant, TRANSFORM), Judging(["int8.mixed"])
    found = mends.early_mend_of(way, subject, CACHE, judge)
    assert found == (("int8.mixed", "the line") if asked else (None, ""))
    assert given == ([(way, subject, CACHE)] if asked else [])


@pytest.mark.parametrize(("seconds", "tried"), [(10.0, 3), (10.1, 2)])
def test_nothing_further_is_tried_after_twenty_seconds(
    subject: Any, monkeypatch: pytest.MonkeyPatch, seconds: float, tried: int
) -> None:
    judge = Judging(seconds=seconds)
    monkeypatch.setattr(mends.time, "monotonic", lambda: judge.clock)  # type: ignore[attr-defined]
    way = a_way(subject, "onnxslim+onnxsim", SESSION)
    line = mends.tried_early_mend(way, subject, CACHE, judge)
    assert line == (
        "No mend was found: simplify+onnxsim fails too, at run; "
        "onnxslim+simplify fails too, at run"
    )
    assert len(judge.tried) == tried


def test_a_search_that_is_late_offers_what_passed_so_far(
    subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judging(lambda spelling: left_out(spelling) >= {"a"}, seconds=15.0)
    monkeypatch.setattr(mends.time, "monotonic", lambda: judge.clock)  # type: ignore[attr-defined]
    spelling, _ = mends.early_mend_of(
        a_way(subject, "planted", TRANSFORM), subject, CACHE, judge
    )
    assert spelling is not None
    assert len(judge.tried) == 2
    assert left_out(spelling) == left_out(judge.tried[1]) == set("abcde")


@pytest.mark.parametrize(
    ("change", "size", "offered"),
    [
        ({}, 0, True),
        ({}, 1, False),
        ({"suite": "s"}, 0, False),
        ({"explained": False}, 0, False),
    ],
)
def test_no_mend_is_looked_for_where_nobody_waits_for_advice(
    subject: Any,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    size: int,
    offered: bool,
) -> None:
    monkeypatch.setattr(mends, "_MOST_BYTES", subject.model.size_bytes - size)
    explained = change.pop("explained", True)
    way, judge = a_way(subject, "onnxslim", TRANSFORM, **change), Judging(["simplify"])
    way = Way(replace(way.task, explained=explained), way.stage)
    found = mends.early_mend_of(way, subject, CACHE, judge)
    assert (found[0] == "simplify", found == (None, "")) == (offered, not offered)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DiedBefore("it dies of it"), "it dies of it"),
        (ValueError(f"{'x' * 200}\nmore"), f"{'x' * 159}…"),
    ],
)
def test_what_a_search_dies_of_is_said(
    subject: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    risked: list[str] = []

    @contextlib.contextmanager
    def risking(what: str) -> Any:
        risked.append(what)
        yield

    def judge(_: Task) -> Judged:
        raise error

    monkeypatch.setattr(mends, "risking", risking)
    found = mends.early_mend_of(a_way(subject, "onnxslim", CHECK), subject, CACHE, judge)
    assert found == (None, f"No mend is offered: {words}")
    assert risked == [f"mend at check onnxslim {subject.model.sha256[:16]}"]


def ended(
    status: Status = Status.FAIL, symptom: Symptom | None = None, **more: Any
) -> CellEnded:
    return CellEnded(status, "why", symptom=symptom, **more)


def asked_in_vain() -> CellEnded:
    end = ended()
    end.__cause__ = UsageError("no such node")
    return end


WRONG, TYPES = Symptom.WRONG_VALUES, Symptom.CHANGED_TYPES


@pytest.mark.parametrize(
    ("stage", "variant", "end", "may"),
    [
        *((stage, "fp16.io32", ended(), True) for stage in (TRANSFORM, CHECK, SESSION, RUN)),
        *((stage, "simplify", ended(), False) for stage in (Stage.LOAD, Stage.PLACEMENT)),
        (RUN, "simplify", ended(Status.ERROR), False),
        (RUN, "simplify", ended(starved=True), False),
        (RUN, "simplify", asked_in_vain(), False),
        # of values that float32 gives wrongly
        (COMPARE, "simplify", ended(symptom=WRONG), True),
        (COMPARE, "simplify", ended(symptom=TYPES), True),
        (COMPARE, "simplify", ended(symptom=Symptom.VACUOUS), False),
        (COMPARE, "fp16.io32", ended(symptom=WRONG), False),
        (Stage.PLACEMENT, "simplify", ended(symptom=WRONG), False),
        # for want of kernels of the type
        (SESSION, "bf16.io32", ended(Status.NOT_APPLICABLE), True),
        (SESSION, "fp16.io32", ended(Status.NOT_APPLICABLE), True),
        (SESSION, "simplify", ended(Status.NOT_APPLICABLE), False),
        (RUN, "bf16.io32", ended(Status.NOT_APPLICABLE), False),
    ],
)
def test_another_variant_may_end_better(
    stage: Stage, variant: str, end: CellEnded, may: bool
) -> None:
    assert mends.may_be_mended(Way(task_of(Path("net.onnx"), variant), stage), end) is may
