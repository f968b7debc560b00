"""The stages of a cell: which follows which, with what, and what ends a cell on its way."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_harness.cards.specs import GenerateSpec
from onnx_harness.cell import artifacts, pipeline, session
from onnx_harness.cell.pipeline import judge, judge_alone, mend_after_death
from onnx_harness.cell.session import NoKernel, open_cell
from onnx_harness.cell.state import CellEnded, Findings, Judged, Task, Way
from onnx_harness.errors import NotApplicable
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging.reference import Reference
from onnx_harness.model.file import Model
from onnx_harness.providers import get
from onnx_harness.providers.sessions import Purpose
from onnx_harness.results.cache import Cache
from onnx_harness.results.cells import Stage, Status, Symptom
from onnx_harness.results.workbench import Workbench
from tests.models import linear, model, save
from tests.unit.test_cell_pairs import spied
from tests.unit.test_cell_parts import task_of

ARTIFACT: Any = SimpleNamespace(model=SimpleNamespace(path=Path("made.onnx")), level="basic")
RUNS: Any = SimpleNamespace(profile="a profile")


class Stages:
    """Stands in for every stage: notes what each is given, and where the cell is then.

    Attributes:
        asked: (stage that the cell is at, name, arguments after the cell itself).
        answers: what each gives; an exception is raised.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, str, tuple[Any, ...]]] = []
        self.ways: list[Way] = []
        self.answers: dict[str, Any] = {
            "load": "the subject",
            "transformed": ARTIFACT,
            "open_cell": "a session",
            "prove_placement": "the assigned",
            "run_sets": RUNS,
            "judged_by": "the standard",
            "may_be_mended": False,
            "tried_early_mend": "a mend",
        }
        for name in ("transformed", "judged_by"):
            monkeypatch.setattr(artifacts, name, self._stage(name))
        for name in (
            *("load", "check_artifact", "open_cell", "prove_placement", "reopening"),
            *("run_sets", "cross_check", "compare", "compare_simulated", "judge_decoding"),
            *("may_be_mended", "tried_early_mend"),
        ):
            monkeypatch.setattr(pipeline, name, self._stage(name))

    def _stage(self, name: str) -> Callable[..., Any]:
        def stage(way: Way, *words: Any) -> Any:
            self.ways.append(way)
            self.asked.append((way.stage, name, words))
            answer = self.answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return stage

    @property
    def names(self) -> list[str]:
        return [name for _, name, _ in self.asked]

    def given(self, name: str) -> tuple[Any, ...]:
        [words] = [words for _, each, words in self.asked if each == name]
        return words


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(monkeypatch)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workbench:
    own = Workbench(Cache(tmp_path / "cache"))
    monkeypatch.setattr(pipeline, "workbench", lambda: own)
    return own


TASK = task_of(Path("net.onnx"), "simplify")
DECODER = task_of(Path("net.onnx"), generate=GenerateSpec((7,), 3))
SUBJECT = "the subject"


def test_the_stages_follow_one_another(
    stages: Stages, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = spied(monkeypatch, tempfile, "TemporaryDirectory")
    judged = judge(TASK)
    cache = bench.cache
    [scratch] = [words[2] for _, name, words in stages.asked if name == "open_cell"]
    assert stages.asked == [
        (Stage.LOAD, "load", (cache,)),
        (Stage.TRANSFORM, "transformed", (SUBJECT, cache)),
        (Stage.CHECK, "check_artifact", (SUBJECT, ARTIFACT)),
        (Stage.SESSION, "open_cell", (SUBJECT, ARTIFACT, scratch)),
        (Stage.PLACEMENT, "prove_placement", ("a session",)),
        (Stage.RUN, "reopening", (SUBJECT, ARTIFACT, scratch)),
        (Stage.RUN, "run_sets", (SUBJECT, "a session", None)),
        (Stage.PLACEMENT, "cross_check", ("the assigned", "a profile", ARTIFACT)),
        (Stage.COMPARE, "compare", (SUBJECT, ARTIFACT, RUNS, cache)),
    ]
    assert {id(way) for way in stages.ways} == {id(stages.ways[0])}
    assert stages.ways[0].task is TASK
    assert (judged.result.status, judged.result.stage) == (Status.PASS, Stage.DONE)
    assert (judged.artifact, judged.level) == (Path("made.onnx"), "basic")
    assert set(judged.result.seconds) == {
        *(Stage.LOAD, Stage.TRANSFORM, Stage.CHECK, Stage.SESSION),
        *(Stage.PLACEMENT, Stage.RUN, Stage.COMPARE),
    }
    assert isinstance(scratch, Path)
    assert not scratch.exists()  # any more
    # On Windows a file that is still mapped can't be removed: that costs no verdict.
    assert [more["ignore_cleanup_errors"] for _, more in folders] == [True]


@pytest.mark.parametrize("again", [None, lambda: "another session"])
def test_a_decoder_is_decoded_after_its_outputs_were_compared(
    stages: Stages, bench: Workbench, again: Callable[[], str] | None
) -> None:
    stages.answers["reopening"] = again
    assert judge(DECODER).result.status is Status.PASS
    assert stages.names[-3:] == ["compare", "judged_by", "judge_decoding"]
    assert stages.asked[-1][0] == Stage.COMPARE
    assert stages.given("run_sets") == (SUBJECT, "a session", again)
    assert stages.given("judged_by") == (SUBJECT, bench.cache)
    subject, opened, standard = stages.given("judge_decoding")
    assert (subject, standard) == (SUBJECT, "the standard")
    assert opened() == ("a session" if again is None else "another session")


def test_a_model_without_kernels_is_simulated_and_not_timed(
    stages: Stages, bench: Workbench
) -> None:
    lacking = stages.answers["open_cell"] = NoKernel("Mul")
    judged = judge(TASK)
    assert stages.asked[-1] == (
        Stage.COMPARE,
        "compare_simulated",
        (SUBJECT, ARTIFACT, lacking, bench.cache),
    )
    assert (judged.result.status, judged.artifact) == (Status.PASS, None)
    assert judged.level == "basic"


@pytest.mark.parametrize(
    ("broken", "stage", "status"),
    [
        ("load", Stage.LOAD, Status.ERROR),
        ("transformed", Stage.TRANSFORM, Status.FAIL),
        ("check_artifact", Stage.CHECK, Status.FAIL),
        ("open_cell", Stage.SESSION, Status.FAIL),
        ("prove_placement", Stage.PLACEMENT, Status.FAIL),
        ("reopening", Stage.RUN, Status.FAIL),
        ("run_sets", Stage.RUN, Status.FAIL),
        ("cross_check", Stage.PLACEMENT, Status.FAIL),
        ("compare", Stage.COMPARE, Status.ERROR),
        ("judge_decoding", Stage.COMPARE, Status.ERROR),
    ],
)
@pytest.mark.usefixtures("bench")
def test_what_raises_ends_the_cell_where_it_is(
    stages: Stages, broken: str, stage: Stage, status: Status
) -> None:
    """A failure is the variant's, an error nobody's: loading and comparing are ours."""
    stages.answers[broken] = ValueError("no\nmore")
    judged = judge(DECODER)
    result = judged.result
    assert (result.status, result.stage) == (status, stage)
    assert (result.reason, result.detail) == ("ValueError: no", ("more",))
    assert (judged.artifact, judged.failing, judged.starved) == (None, (), False)
    # No mend is asked for where there is no model.
    assert stages.names[-1] == (broken if broken == "load" else "may_be_mended")


@pytest.mark.usefixtures("bench")
def test_a_simulation_that_raises_is_an_error(stages: Stages) -> None:
    stages.answers |= {"open_cell": NoKernel("Mul"), "compare_simulated": ValueError("no")}
    result = judge(TASK).result
    assert (result.status, result.stage) == (Status.ERROR, Stage.COMPARE)


@pytest.mark.parametrize(
    ("judging", "may", "mend", "detail"),
    [
        (judge, True, "a mend", ("a line", "a mend")),
        (judge, True, "", ("a line",)),
        (judge, False, "a mend", ("a line",)),
        (judge_alone, True, "a mend", ("a line",)),
    ],
)
def test_a_mend_is_the_last_line_of_a_failure(
    stages: Stages,
    bench: Workbench,
    judging: Callable[[Task], Judged],
    may: bool,
    mend: str,
    detail: tuple[str, ...],
) -> None:
    end = CellEnded(
        Status.FAIL, "why", ("a line",), Symptom.WRONG_VALUES, (0, 2), starved=True
    )
    stages.answers |= {"run_sets": end, "may_be_mended": may, "tried_early_mend": mend}
    judged = judging(replace(TASK, skipped=(1,)))
    result = judged.result
    assert (result.status, result.stage, result.reason) == (Status.FAIL, Stage.RUN, "why")
    assert (result.symptom, result.detail) == (Symptom.WRONG_VALUES, detail)
    assert (judged.failing, judged.starved) == ((0, 3), True)
    if judging is judge:
        assert stages.given("may_be_mended") == (end,)
    if "a mend" in detail:
        assert stages.given("tried_early_mend") == (SUBJECT, bench.cache, judge_alone)
        assert stages.ways[-1].stage is Stage.RUN
    else:
        assert (stages.names[-1] == "tried_early_mend") == (may and judging is judge)


def test_of_a_suite_nothing_is_kept_but_for_the_variants_of_a_case(
    stages: Stages, bench: Workbench
) -> None:
    caches = []
    for name in ("a.onnx", "a.onnx", "b.onnx"):
        stages.asked.clear()
        judge(task_of(Path(name), suite="s"))
        [cache] = stages.given("load")
        caches.append(cache)
    assert caches[0] is caches[1]
    assert caches[2] not in (*caches[:2], bench.cache)
    assert caches[0] is not bench.cache


def test_a_death_is_mended_at_the_stage_that_it_happened_at(
    stages: Stages, bench: Workbench
) -> None:
    assert mend_after_death(TASK, Stage.SESSION) == "a mend"
    assert stages.asked == [
        (Stage.LOAD, "load", (bench.cache,)),
        (Stage.SESSION, "tried_early_mend", (SUBJECT, bench.cache, judge_alone)),
    ]
    assert all(way.task is TASK for way in stages.ways)


def test_what_was_judged_is_made_again_from_the_cache(
    stages: Stages, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def reads(*words: Any) -> tuple[str, str]:
        asked.append(words)
        return SUBJECT, "the graph"

    monkeypatch.setattr(pipeline, "read_subject", reads)
    assert pipeline.artifact_of(TASK) is ARTIFACT
    assert asked == [(TASK, bench.cache)]
    assert stages.given("transformed") == (SUBJECT, bench.cache)
    graph: Any = "the graph"
    assert (stages.ways[0].task, stages.ways[0].found) == (TASK, Findings(graph=graph))


# the session


def way_of(path: Path, variant: str, provider: str = "cpu") -> Way:
    task = task_of(path, variant)
    return Way(replace(task, cell=replace(task.cell, provider=provider)))


def opened_by(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> list[Any]:
    """Note what a session is opened with; ``error`` is what that ends with."""
    opened: list[Any] = []

    def opens(*words: Any, **more: Any) -> str:
        opened.append((words, more))
        if error is not None:
            raise error
        return "a session"

    monkeypatch.setattr(session, "open_session", opens)
    return opened


def test_a_session_is_configured_by_both_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = (save(linear(), tmp_path / f"{name}.onnx") for name in "ab")
    asked: list[Any] = []

    def configured(*words: Any) -> str:
        asked.append(words)
        return "a configuration"

    monkeypatch.setattr(session, "session_config", configured)
    opened = opened_by(monkeypatch)
    way = way_of(path, "simplify")
    subject: Any = SimpleNamespace(
        model=Model(path),
        reference=Reference((InputSet("s", {"x": np.ones((1, 4))}),), ({},), frozenset()),
    )
    artifact: Any = SimpleNamespace(model=Model(other), level="extended")
    assert open_cell(way, subject, artifact, tmp_path) == "a session"
    assert asked == [(subject.model, way.bound, artifact.model.skeleton)]
    assert opened == [
        (
            (other, get("cpu")),
            {
                "purpose": Purpose.ACCURACY,
                "level": "extended",
                "profile": tmp_path / "profile",
                "config": "a configuration",
            },
        )
    ]


MISSING = "Could not find an implementation for Mul(14) node with name ''"


@pytest.mark.parametrize(
    "variant", ["bf16.io32", "bf16.io32+ort.basic", "simplify+bf16.io32"]
)
def test_a_kernel_is_missing_of_any_chain_that_converts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    path = save(model("(float[2] x) => (float[2] y) { y = Mul(x, x) }"), tmp_path / "m.onnx")
    error = RuntimeError(MISSING)
    opened_by(monkeypatch, error)
    subject: Any = SimpleNamespace(model=Model(path))
    artifact: Any = SimpleNamespace(model=Model(path), level="all")
    lacking = open_cell(way_of(path, variant), subject, artifact, tmp_path)
    assert lacking == NoKernel("Mul")
    with pytest.raises(NotApplicable) as raised:
        open_cell(way_of(path, variant, "cuda"), subject, artifact, tmp_path)
    assert raised.value.__cause__ is error
