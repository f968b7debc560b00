"""The common ground of the trials of one question: the reference, and the models that steps make.

Lives in the worker.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness import providers, transforms
from onnx_harness.cell.comparison import Pair, pair_reference, pair_standard
from onnx_harness.cell.state import Subject
from onnx_harness.cell.subjects import subject_of
from onnx_harness.diagnose.trials import Cost, Question, Trial
from onnx_harness.judging.exact_sums import exact_sums
from onnx_harness.judging.half_range import computes_in_half
from onnx_harness.judging.mixed.choose import chooser
from onnx_harness.judging.precision import loosest
from onnx_harness.judging.reference import calibration_sets
from onnx_harness.judging.standard import Standard, standard
from onnx_harness.judging.verdict import session_config
from onnx_harness.model.file import Model
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.workbench import workbench
from onnx_harness.transforms import BoundStep, Precision

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort


@dataclass(slots=True)
class Bench:
    """The common ground of trials of one question.

    Attributes:
        subject: the untouched model and its reference.
        standard: what outputs are judged by.
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
        choose = chooser(self.standard, transforms.remark) if step.transform.chosen else None
        self.count("transforms")
        with transforms.remarks():  # they were told when the cell itself was judged
            return step(model, samples, choose)

    def _samples(self, count: int) -> Sequence[Mapping[str, Any]]:
        if not self.step(count).transform.calibrated:
            return ()
        task = self.question.task
        sets = calibration_sets(
            self.subject.model,
            task.cell.card,
            task.settings,
            workbench().cache,
            task.recorded,
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
        if any(step.transform.calibrated for step in question.bound.changing):
            sets = calibration_sets(
                subject.model, cell.card, task.settings, cache, task.recorded
            )
            judged_standard = replace(judged_standard, calibration=tuple(sets))
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
        source, half, config = (
            model.path,
            computes_in_half(model.skeleton),
            bench.config(model),
        )
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
