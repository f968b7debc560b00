"""Find the first node that departs on its own: every value is compared, in bounded memory.

Values are matched by name, which transforms keep. The candidate's graph is cut at every matched
value: what reads it reads an input of the graph instead, and what makes it gives an output. Fed
with the reference's values, each output then shows its node's *own* error; the error of its inputs
as the candidate runs is *inherited*. One session answers for all nodes whose values fit into memory
at once: it runs all that it holds, so values that don't get sessions of parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnx_harness.diagnose.bench import Bench, bench_of, open_candidate
from onnx_harness.diagnose.blame import (
    NodeError,
    blamed,
    greatest_change,
    observer_words,
    relative_error,
)
from onnx_harness.diagnose.smaller_case import copied
from onnx_harness.diagnose.trials import Question, Trial
from onnx_harness.diagnose.watched_graph import (
    MADE,
    byte_sizes,
    exposed,
    matching_values,
    part_of_severed,
    severed,
    sources,
)
from onnx_harness.errors import words_of
from onnx_harness.isolate import note_stage
from onnx_harness.judging.emulation import half_as_hardware
from onnx_harness.judging.half_range import computes_in_half, half_values
from onnx_harness.judging.runs import open_cpu
from onnx_harness.judging.verdict import verdict
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.saving import save
from onnx_harness.providers.running import feeds_for
from onnx_harness.results.cells import Stage
from onnx_harness.results.workbench import workbench
from onnx_harness.transforms import Precision

if TYPE_CHECKING:
    import onnxruntime as ort

    from onnx_harness.judging.reference import Reference

_MOST_BYTES = 1 << 28
"""Of values that are held at a time, of each of the two models."""


@dataclass(frozen=True, slots=True)
class Watch:
    """The result of watching values.

    Attributes:
        node: the first one that departs on its own; None: none does.
        compared: values that were compared, of all that the candidate has.
        values: those.
        mended: whether the outputs are right once that node's output is the reference's; None: it
            wasn't tried.
        observer: what is to be said where watching values changes the result; empty: it doesn't.
        sessions: that were opened.
        runs: of them.
    """

    node: NodeError | None
    compared: int
    values: int
    mended: bool | None = None
    observer: str = ""
    sessions: int = 0
    runs: int = 0


def first_departure(question: Question, trial: Trial, place: int) -> Watch:
    """Find the first node that departs on its own. Meant for the worker.

    Args:
        question: what is diagnosed.
        trial: what fails.
        place: the position of an input set on which it fails.
    """
    note_stage(Stage.COMPARE)
    bench = bench_of(question)
    return _Watcher(bench, trial, place).watch()


def value_errors(
    question: Question, trial: Trial, place: int
) -> dict[str, tuple[float, float]]:
    """Return the errors of every value that both graphs make. Meant for the worker.

    Args:
        question: what is looked at.
        trial: the candidate.
        place: the position of an input set.

    Returns:
        By name of the value, relative L2 errors: its node's own, where the node's inputs are the
        reference's, and that of the whole run; infinite where one isn't finite.
    """
    return _Watcher(bench_of(question), trial, place).errors()


class _Watcher:
    """The sessions and runs of one search."""

    def __init__(self, bench: Bench, trial: Trial, place: int) -> None:
        self._bench = bench
        self._trial = trial
        self._place = place
        self._sessions = 0
        self._runs = 0
        self._half: set[str] = set()
        # The candidate, its values exposed.
        self._watching: ort.InferenceSession | None = None

    def watch(self) -> Watch:
        model = self._explicit()
        original = inline_functions(self._bench.subject.model.load())
        graph = model.graph
        matched = matching_values(original, model)
        values = sum(len(node.output) for node in graph.node)
        observer = self._observed(original)
        if not matched:
            sessions, runs = self._sessions, self._runs
            return Watch(None, 0, values, observer=observer, sessions=sessions, runs=runs)
        errors = self._errors(original, model, matched)
        node = blamed(original.graph, graph, errors, matched)
        mended = None if node is None else self._mended(original, model, node, matched)
        return Watch(
            node, len(matched), values, mended, observer, self._sessions, self._runs
        )

    def errors(self) -> dict[str, tuple[float, float]]:
        """Own error and whole error of each value that both graphs make."""
        model = self._explicit()
        original = inline_functions(self._bench.subject.model.load())
        matched = matching_values(original, model)
        return self._errors(original, model, matched) if matched else {}

    def _explicit(self) -> onnx.ModelProto:
        """The candidate as a graph that computes the same with optimizations off.

        ONNX Runtime's changes are in it.
        """
        bench, trial = self._bench, self._trial
        candidate = bench.model(trial.count, trial.off)
        cache = workbench().cache
        if (
            computes_in_half(candidate.skeleton)
            and bench.standard.precision is Precision.FP16
        ):
            self._half = _half_names(candidate.skeleton)
            rounded = half_as_hardware(
                bench.subject.model, bench.standard.reference, candidate, cache
            )
            if rounded is not None:
                return inline_functions(rounded)
        if trial.level == "disable":
            return inline_functions(candidate.load())
        file = bench.question.folder / "explicit.onnx"
        open_candidate(bench, trial, candidate, optimized=file)
        self._sessions += 1
        return inline_functions(onnx.load(str(file)))

    def _observed(self, original: onnx.ModelProto) -> str:
        """Compare the candidate, at its own level, with itself when its values are exposed.

        Watching may take a failure away altogether, or a part of it.

        Returns:
            What is to be said of it; empty where watching changes nothing that counts.
        """
        bench, trial = self._bench, self._trial
        if self._half:  # simulated in float32, at a level that optimizes nothing
            return ""
        candidate = bench.model(trial.count, trial.off)
        model = inline_functions(candidate.load())
        try:
            unwatched = self._outputs_of(open_candidate(bench, trial, candidate))
        except Exception:  # the trial has told of it
            return ""
        try:
            watching = exposed(model, matching_values(original, model))
            session = open_candidate(bench, trial, watching)
            watched = self._outputs_of(session)
        except Exception as error:  # exposing them all isn't always possible
            return f"its values can't be watched at level '{trial.level}': {words_of(error)}"
        if trial.level == "disable" and trial.provider == "cpu":
            self._watching = session  # it's what every value is read from
        right = bench.standard.reference.outputs[self._place]
        change = greatest_change(right, unwatched, watched)
        if change is None:
            return ""
        passes = self._passes(watched) and not self._passes(unwatched)
        return observer_words(trial.level, change, passes=passes)

    def _outputs_of(self, session: ort.InferenceSession) -> dict[str, Any]:
        """Run a session on the input set; its outputs that the reference has."""
        self._sessions += 1
        outputs = self._run(session, None, self._values(session))
        names = self._bench.standard.reference.outputs[self._place]
        return {name: outputs[name] for name in names if name in outputs}

    def _errors(
        self, original: onnx.ModelProto, model: onnx.ModelProto, matched: Mapping[str, int]
    ) -> dict[str, tuple[float, float]]:
        """Own error and whole error of each matched value."""
        reference = self._opened(exposed(original, matched), "reference")
        candidate = self._watching
        if candidate is None:
            candidate = self._opened(exposed(copied(model), matched), "exposed")
        apart = severed(copied(model), matched)
        read_by = sources(model.graph, matched)
        errors: dict[str, tuple[float, float]] = {}
        for number, chunk in enumerate(self._chunks(original, list(matched))):
            needed = dict.fromkeys(chunk)
            for value in chunk:
                needed.update(dict.fromkeys(read_by[value]))
            right = self._run(reference, list(needed), self._values(reference))
            whole = self._run(candidate, list(chunk), self._values(candidate))
            fed = {name: self._rounded(name, value) for name, value in right.items()}
            nodes = self._opened(part_of_severed(apart, chunk), f"cut_{number}")
            own = self._run(nodes, [MADE + name for name in chunk], self._fed(nodes, fed))
            for name in chunk:
                errors[name] = (
                    relative_error(right[name], own[MADE + name]),
                    relative_error(right[name], whole[name]),
                )
        return errors

    def _mended(
        self,
        original: onnx.ModelProto,
        model: onnx.ModelProto,
        node: NodeError,
        matched: Mapping[str, int],
    ) -> bool | None:
        """Return whether the outputs are right once the value is the reference's.

        None where that can't be tried.
        """
        value = {node.value: matched[node.value]}
        outputs = set(self._bench.standard.reference.outputs[self._place])
        try:
            reference = self._opened(exposed(original, value), "one")
            session = self._opened(
                severed(copied(model), value, with_values=False), "switched"
            )
            right = self._run(reference, [node.value], self._values(reference))
            outputs_made = self._run(session, None, self._fed(session, right))
        except Exception:  # a graph that is nothing but that node
            return None
        outputs_made = {
            name.removeprefix(MADE): array for name, array in outputs_made.items()
        }
        arrays = {}
        for name, array in right.items():
            if name in outputs:
                arrays[name] = array
        outputs_made.update(arrays)
        return self._passes(
            {name: array for name, array in outputs_made.items() if name in outputs}
        )

    def _passes(self, outputs: Mapping[str, Any]) -> bool:
        """Judge those outputs on the one input set, in the place of the candidate's."""
        judged_standard, reference = self._bench.standard, self._bench.standard.reference
        if set(outputs) != set(reference.outputs[self._place]):
            return False
        answers = [dict(output) for output in reference.outputs]
        answers[self._place] = dict(outputs)
        return verdict(judged_standard, answers).passed

    def _opened(self, model: onnx.ModelProto, name: str) -> ort.InferenceSession:
        self._sessions += 1
        folder = self._bench.question.folder / name
        folder.mkdir(exist_ok=True)
        file = folder / "model.onnx"
        save(model, file)
        return open_cpu(file, config=self._bench.config(self._bench.subject.model))

    def _run(
        self, session: ort.InferenceSession, names: Sequence[str] | None, feeds: Any
    ) -> dict[str, Any]:
        self._runs += 1
        fetched = (
            [info.name for info in session.get_outputs()] if names is None else list(names)
        )
        return dict(zip(fetched, session.run(fetched, feeds), strict=True))

    def _values(self, session: ort.InferenceSession) -> dict[str, Any]:
        """The values of the input set, as the session takes them."""
        reference: Reference = self._bench.standard.reference
        inputs = {info.name for info in session.get_inputs()}
        values = feeds_for(session, reference.sets[self._place].values)
        if self._half:
            values = {name: _through_half(value) for name, value in values.items()}
        return {name: value for name, value in values.items() if name in inputs}

    def _fed(
        self, session: ort.InferenceSession, right: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The values of the input set and the reference's."""
        feeds = self._values(session)
        names = [info.name for info in session.get_inputs()]
        feeds.update({name: right[name] for name in names if name in right})
        return feeds

    def _rounded(self, name: str, value: Any) -> Any:
        """The reference's value as the candidate can hold it.

        A node isn't at fault for what float16 can't say.
        """
        return _through_half(value) if name in self._half else value

    def _chunks(self, original: onnx.ModelProto, names: Sequence[str]) -> list[list[str]]:
        """Group the values so that the size of a group is bounded."""
        sizes = byte_sizes(original, self._bench.standard.reference.sets[self._place].values)
        chunks: list[list[str]] = [[]]
        total = 0
        for name in names:
            size = sizes.get(name, 0)
            if chunks[-1] and total + size > _MOST_BYTES:
                chunks.append([])
                total = 0
            chunks[-1].append(name)
            total += size
        return chunks


def _through_half(value: Any) -> Any:
    if getattr(value, "dtype", None) != np.float32:
        return value
    with np.errstate(over="ignore"):
        return value.astype(np.float16).astype(np.float32)


def _half_names(skeleton: onnx.ModelProto) -> set[str]:
    return set(half_values(inline_functions(skeleton)))
