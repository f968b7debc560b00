"""One trial of a diagnosis: a part of what a cell does, judged as the cell is.

Runs in the worker, which may die of it.

A trial is a prefix of the chain of transforms, with parts of its last transform left out, at one of
ONNX Runtime's levels, with some of its optimizers left out, on a number of threads, on a provider,
on some input sets. What decides is :func:`onnx_harness.judging.judge.judge_outputs`, as everywhere.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness import providers, transforms
from onnx_harness.cell.artifacts import checker_says
from onnx_harness.cell.checks import check_artifact
from onnx_harness.cell.comparison import Pair, is_emulated, pair_reference, pair_standard
from onnx_harness.cell.repeats import AT_THE_END, Repeat, is_steady, wrong_repeat
from onnx_harness.cell.state import Artifact, CellEnded, Findings, RunNote, Subject, Task, Way
from onnx_harness.cell.subjects import subject_of
from onnx_harness.isolate import note_stage, noting
from onnx_harness.judging.half_range import computes_in_half
from onnx_harness.judging.judge import judge_outputs
from onnx_harness.judging.last_bits import exact_sums
from onnx_harness.judging.mends import mend_of
from onnx_harness.judging.precision import loosest
from onnx_harness.judging.reference import calibration_sets
from onnx_harness.judging.standard import Standard, standard
from onnx_harness.judging.verdict import session_config, verdict
from onnx_harness.model.file import Model
from onnx_harness.model.interface import interface_changes
from onnx_harness.providers.placement import placement, shortfall
from onnx_harness.providers.running import feeds_for, run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.cells import GraphChange, Stage, Status, Symptom
from onnx_harness.results.workbench import workbench
from onnx_harness.transforms import BoundStep, Precision
from onnx_harness.transforms.variant import BoundVariant

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

# The type of an exception in a reason.
_TYPE_NAME = re.compile(
    r"\b[A-Z]\w*(?:Error|Exception|Fail|Failure|Invalid\w*|NotImplemented|Graph)\b"
)


@dataclass(frozen=True, slots=True)
class Question:
    """The subject of a diagnosis: a cell, or a model that should compute what another one does.

    Attributes:
        task: the cell; of two models, the one that is right, with no steps.
        bound: its variant.
        folder: where models are kept while the diagnosis lasts.
        candidate: the other model; None for a cell.
        float16_io: the candidate may take and give float16.
    """

    task: Task
    bound: BoundVariant
    folder: Path
    candidate: Path | None = None
    float16_io: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """A part of what a cell does.

    Attributes:
        count: changing steps of the chain that are applied.
        off: parts of the last one that are left out.
        level: ONNX Runtime's optimization level.
        disabled: its optimizers that are left out.
        threads: of the session; None leaves that to ONNX Runtime.
        provider: the execution provider's name.
        places: positions of the input sets that are run; None: all that the verdict rests on.
        attempt: its number, where it is tried several times.
        until: the stage after which it counts as passed; None: it is judged whole.
        named: give the nodes names that the last step is applied to. They have them anyhow where
            some are left out.
    """

    count: int
    level: str
    provider: str
    off: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()
    threads: int | None = None
    places: tuple[int, ...] | None = None
    attempt: int = 0
    until: Stage | None = None
    named: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a trial."""

    transforms: int = 0
    sessions: int = 0
    runs: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
        stage: where it ended.
        reason: one sentence; None for a pass.
        places: positions of the input sets that show it, where outputs fail or the process died.
    """

    status: Status
    stage: Stage
    reason: str | None = None
    symptom: Symptom | None = None
    places: tuple[int, ...] = ()
    cost: Cost = field(default_factory=Cost)

    @property
    def fails(self) -> bool:
        """Return whether what was tried is at fault."""
        return self.status is Status.FAIL

    @property
    def manner(self) -> str:
        """Return what kind of death or of exception it ended in; empty for wrong values."""
        if self.symptom is Symptom.WRONG_VALUES or self.reason is None:
            return ""
        if self.symptom is Symptom.CRASH:
            return "hang" if "did not end within" in self.reason else "death"
        match = _TYPE_NAME.search(self.reason)
        return match[0] if match else ""


def same_failure(first: Outcome, second: Outcome) -> bool:
    """Return whether two trials fail in the same way.

    At one stage, with one symptom, in one manner.
    """
    alike = first.stage is second.stage and first.symptom is second.symptom
    return first.fails and second.fails and alike and first.manner == second.manner


@dataclass(slots=True)
class Bench:
    """The common ground of trials of one question.

    Attributes:
        subject: the untouched model and its reference.
        standard: what outputs are judged by.
        made: files of transformed models by what they are.
    """

    question: Question
    subject: Subject
    standard: Standard
    counted: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> None:
        """Count a transform, a session or a run."""
        self.counted[what] = self.counted.get(what, 0) + 1

    def cost(self) -> Cost:
        """Return what was counted since the last time."""
        cost = Cost(**self.counted)
        self.counted.clear()
        return cost

    @property
    def places(self) -> list[int]:
        """The positions of the input sets that the verdict rests on."""
        reference = self.standard.reference
        if self.standard.precision is Precision.FP32:
            return list(range(len(reference.sets)))
        return reference.usual

    def config(self, model: Model) -> Mapping[str, str]:
        """The configuration of sessions of a candidate, as the verdict's are configured."""
        if self.question.candidate is not None:
            return exact_sums(self.subject.model.skeleton, model.skeleton)
        return session_config(self.subject.model, self.question.bound, model.skeleton)

    def model(self, count: int, off: tuple[str, ...], *, named: bool = False) -> Model:
        """The model after that many changing steps; see :class:`Trial`."""
        if self.question.candidate is not None:
            return Model(self.question.candidate, self.subject.model.name)
        if count == 0:
            return self.subject.model
        named = named or bool(off)
        name = hashlib.sha256(repr((count, off, named)).encode()).hexdigest()[:16]
        folder = self.question.folder / name
        file = folder / "model.onnx"
        if not file.is_file():
            folder.mkdir(exist_ok=True)
            candidate = self._applied(count, off, named)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                from onnx_harness.model.saving import save

                save(candidate, Path(scratch) / file.name)
                for part in Path(scratch).iterdir():
                    part.rename(folder / part.name)
        return Model(file, self.subject.model.name)

    def before(self, count: int, *, named: bool = True) -> onnx.ModelProto:
        """Return what the step with that number, from 1, is applied to.

        Args:
            count: the step's number.
            named: give its nodes names, where they are what can be left out. A failure may be
                gone once they have some.
        """
        model = self.model(count - 1, ()).load()
        if named and self._by_nodes(count):
            name_nodes(model.graph)
        return model

    def step(self, count: int) -> BoundStep:
        """The changing step with that number, from 1."""
        return self.question.bound.changing[count - 1]

    def _by_nodes(self, count: int) -> bool:
        parts = self.step(count).transform.parts
        return parts is not None and parts.kind == "node"

    def _applied(self, count: int, off: tuple[str, ...], named: bool) -> onnx.ModelProto:
        step, samples = self.step(count), self._samples(count)
        model = self.before(count, named=named)
        if off and step.transform.parts is not None:
            step = replace(step, options=step.transform.parts.without(step.options, off))
        self.count("transforms")
        with transforms.remarks():  # they were told when the cell itself was judged
            return step(model, samples)

    def _samples(self, count: int) -> Sequence[Mapping[str, Any]]:
        if not self.step(count).transform.calibrated:
            return ()
        task = self.question.task
        sets = calibration_sets(
            self.subject.model, task.cell.card, task.settings, workbench().cache
        )
        return [calibration.values for calibration in sets]


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give nodes without a name of their own that of their first output.

    A person finds them by it.
    """
    names = {node.name for node in graph.node}
    seen: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            name = next(iter(node.output), "") or f"{node.op_type}_{number}"
            while name in names:
                name += "_"
            node.name = name
            names.add(name)
        seen.add(node.name)


def bench_of(question: Question) -> Bench:
    """Return what trials of the question share; that of the last question is remembered."""
    key = (question.task, question.candidate, question.folder)
    bench = workbench().last("trials", key, lambda: _bench(question))
    bench.counted.clear()
    return bench


def _bench(question: Question) -> Bench:
    task, cell, cache = question.task, question.task.cell, workbench().cache
    if question.candidate is None:
        subject = subject_of(task)
        judged_standard = standard(
            subject.model,
            subject.reference,
            cell.card,
            question.bound,
            cell.provider,
            task.settings,
            cache,
        )
        return Bench(question, subject, judged_standard)
    a, b = Model(task.model, "a"), Model(question.candidate, "b")
    pair = Pair(
        a.path,
        b.path,
        cell.card,
        cell.provider,
        task.recorded,
        question.float16_io,
        task.settings,
    )
    answers = pair_reference(pair, a)
    judged_standard = pair_standard(pair, a, answers, loosest(b.skeleton, beyond=a.skeleton))
    return Bench(question, Subject(a, answers), judged_standard)


def warm(question: Question) -> None:
    """Have at hand what every trial takes: the reference, and the noise that it is judged by.

    Meant for the worker.
    """
    bench = bench_of(question)
    verdict(bench.standard, bench.standard.reference.outputs)


def attempt(question: Question, trial: Trial) -> Outcome:
    """Try a part of what a cell does, and judge it. Meant for the worker.

    Returns:
        What came of it. A death of the worker is for the caller to turn into an outcome.
    """
    way = Way(
        question.task, found=Findings(graph=GraphChange(0, 0, 0, 0, 0.0)), _bound=question.bound
    )
    bench: list[Bench] = []
    try:
        with way.at(Stage.LOAD, fault=Status.ERROR):
            bench.append(bench_of(question))
        _attempt(way, bench[0], trial)
    except CellEnded as end:
        cost = bench[0].cost() if bench else Cost()
        return Outcome(end.status, way.stage, end.reason, end.symptom, end.failing, cost)
    return Outcome(Status.PASS, Stage.DONE, cost=bench[0].cost())


def _attempt(way: Way, bench: Bench, trial: Trial) -> None:
    with way.at(Stage.TRANSFORM):
        model = bench.model(trial.count, trial.off, named=trial.named)
    if trial.until is Stage.TRANSFORM:
        return
    with way.at(Stage.CHECK):
        _check(way, bench, trial, model)
    if trial.until is Stage.CHECK and bench.question.candidate is None:
        return
    with tempfile.TemporaryDirectory(
        prefix="onnx-harness-profile-", ignore_cleanup_errors=True
    ) as scratch:
        with way.at(Stage.SESSION):
            session = open_candidate(bench, trial, model, profile=Path(scratch) / "profile")
        if trial.until is Stage.SESSION:
            return
        with way.at(Stage.PLACEMENT):
            _prove_placement(way, trial, session)
        with way.at(Stage.RUN):
            outputs, emulated, repeats = _outputs(bench, trial, session, model)
    with way.at(Stage.COMPARE, fault=Status.ERROR):
        first = feeds_for(session, bench.standard.reference.sets[0].values)
        outcome = judge_outputs(
            bench.standard, outputs, model, emulated=emulated, again=lambda: run(session, first)
        )
        outcome = wrong_repeat(bench.standard, outputs, repeats) or outcome
        if not outcome.passed:
            reason = outcome.reason or "the outputs differ"
            raise CellEnded(
                outcome.status, reason, outcome.detail, outcome.symptom, outcome.worst_sets
            )
    if bench.question.candidate is not None:
        with way.at(Stage.CHECK):
            float_io = "float16" if bench.question.float16_io else None
            changes = interface_changes(bench.subject.model.signature, model.signature, float_io)
            if changes:
                raise CellEnded(
                    Status.FAIL,
                    f"the interface differs: {changes[0]}",
                    symptom=Symptom.CHANGED_TYPES,
                )


def _check(way: Way, bench: Bench, trial: Trial, model: Model) -> None:
    """Check the transformed model as a cell's is.

    What the checker says is remembered beside the file.
    """
    if trial.count == 0 or bench.question.candidate is not None:
        return
    check_artifact(way, bench.subject, Artifact(model, checker_says(model.path), True, trial.level))
    note_stage(Stage.CHECK)


def open_candidate(
    bench: Bench,
    trial: Trial,
    model: Model | onnx.ModelProto,
    *,
    profile: Path | None = None,
    optimized: Path | None = None,
    verbose: bool = False,
) -> ort.InferenceSession:
    """Open a session of a candidate as a trial asks for."""
    half, config = False, None
    source: Path | bytes
    if isinstance(model, Model):
        source, half, config = model.path, computes_in_half(model.skeleton), bench.config(model)
    else:
        source = model.SerializeToString()
    bench.count("sessions")
    return open_session(
        source,
        providers.get(trial.provider),
        purpose=Purpose.ACCURACY,
        level=trial.level,
        threads=trial.threads,
        profile=profile if half else None,
        config=config,
        disabled=trial.disabled,
        optimized=optimized,
        verbose=verbose,
    )


def _prove_placement(way: Way, trial: Trial, session: ort.InferenceSession) -> None:
    provider = providers.get(trial.provider)
    if not provider.fallback:
        return
    demands = way.task.cell.card.placement.of(provider.name)
    allowed = replace(provider, cpu_ops=provider.cpu_ops.union(demands.allowed_cpu_ops))
    demanded = way.task.settings.min_placement
    least = demands.min_share if demanded is None else demanded
    short = shortfall(placement(session, allowed), allowed, least)
    if short:
        raise CellEnded(Status.FAIL, short)


def _outputs(
    bench: Bench, trial: Trial, session: ort.InferenceSession, model: Model
) -> tuple[list[dict[str, Any]], bool, list[Repeat]]:
    """The outputs on every input set, those that aren't run taken from the reference.

    And whether float16 is emulated.

    An output that isn't run thus is right: a part of the sets costs a part of the time, and is
    judged as all are.
    """
    reference = bench.standard.reference
    chosen = bench.places if trial.places is None else list(trial.places)
    outputs, emulated = [dict(output) for output in reference.outputs], False
    for number, place in enumerate(chosen):
        input_set = reference.sets[place]
        note = RunNote(bench.question.task.place(place), bool(input_set.unusual), input_set.name)
        with noting(str(note)):
            outputs[place] = run(session, feeds_for(session, input_set.values))
        bench.count("runs")
        if number == 0:
            emulated = is_emulated(
                session, providers.get(trial.provider), half=computes_in_half(model.skeleton)
            )
    looks_again = trial.places is None and not bench.standard.card.suite
    if not looks_again or not is_steady(bench.subject.model, reference):
        return outputs, emulated, []
    bench.count("runs")
    again = run(session, feeds_for(session, reference.sets[0].values))
    return outputs, emulated, [Repeat(AT_THE_END, again)]


def parts_of(question: Question, count: int) -> tuple[str, ...]:
    """Return the names of the parts of a step that can be left out. Meant for the worker."""
    bench = bench_of(question)
    parts = bench.step(count).transform.parts
    return (
        () if parts is None else tuple(parts.names(bench.before(count), bench.step(count).options))
    )


def mend(question: Question, trial: Trial) -> tuple[str | None, str]:
    """Return what mends a conversion to float16: see `mend_of`. Meant for the worker."""
    bench = bench_of(question)
    return mend_of(bench.standard, question.bound, bench.model(trial.count, trial.off))
