"""The case that a diagnosis hands to the reduction, and what comes of it. Runs in the worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from onnx_harness.diagnose import handout
from onnx_harness.diagnose.bench import Bench, bench_of
from onnx_harness.diagnose.fault import Fault
from onnx_harness.diagnose.oracle import Observer
from onnx_harness.diagnose.reduce import Reduced, smallest
from onnx_harness.diagnose.smaller_case import Array, Case, part_of
from onnx_harness.diagnose.trials import Question, Trial
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.walk import reads
from onnx_harness.results.cells import Stage
from onnx_harness.results.diagnosis import Cause, Smallest

_SECONDS_TO_COMPUTE = 30.0


@dataclass(frozen=True, slots=True)
class Order:
    """The order to reduce something, and where to.

    Attributes:
        trial: fails, and was narrowed down.
        cause: as far as it is known.
        stage: at which the trial fails.
        place: the position of the input set that shows it.
        sentence: the cause for a person.
        seconds: that it may take.
        folder: to write.
        public: replace names, weights and inputs.
        limit: seconds after which a check counts as hanging; None: the reduction's own.
    """

    trial: Trial
    cause: Cause
    stage: Stage
    place: int
    sentence: str
    seconds: float
    folder: Path
    public: bool = False
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of an order.

    Attributes:
        smallest: None where nothing was written.
        words: one line on it.
    """

    smallest: Smallest | None
    words: str


def reduce_failure(question: Question, order: Order) -> Answer:
    """Find the smallest model that fails for the cause, and write it with all that shows it."""
    bench = bench_of(question)
    fault = fault_of(bench, order)
    case = _whole(bench, order, fault)
    if fault is None or case is None:
        return Answer(None, "the failure has no model of its own to reduce")
    reduced = smallest(fault, case, order.seconds, public=order.public, limit=order.limit)
    if reduced is None or reduced.sign.stage is not order.stage:
        return Answer(
            None,
            "no smaller model: a part of the cell doesn't fail by itself as the cell does",
        )
    return _written(order, reduced, _nodes_before(bench, case))


def _nodes_before(bench: Bench, case: Case) -> int:
    """Return the nodes of what was reduced; of two models, of the whole untouched one."""
    whole = case if case.other is None else Case(bench.subject.model.load(), {})
    return Case(inline_functions(whole.model), {}).nodes


def _written(order: Order, reduced: Reduced, before: int) -> Answer:
    sentence = "" if order.public else order.sentence
    shown = handout.write(order.folder, reduced.fault, reduced, sentence)
    nodes, rate = reduced.case.nodes, reduced.checks / max(reduced.seconds, 1e-6)
    effort = f"{reduced.checks} checks, {rate:.0f} a second"
    words = f"smallest model: {nodes} of {before} nodes ({effort})"
    if reduced.kept:
        words += "; it isn't public altogether, see the warning"
    if not shown:
        words += f"; {handout.SCRIPT} doesn't show it in a fresh process"
    return Answer(Smallest(str(order.folder), nodes, reduced.checks, reduced.kept), words)


def fault_of(bench: Bench, order: Order) -> Fault | None:
    """Return the cause as a check applies it.

    None where it is no transform's, model's or optimizer's.
    """
    trial, cause = order.trial, order.cause
    if trial.provider != "cpu":
        return None
    config = tuple(sorted(bench.config(bench.subject.model).items()))
    if cause.level is not None:
        optimizers = cause.optimizers or ()
        return Fault(
            None, (), trial.level, trial.disabled, optimizers, trial.threads, config
        )
    if bench.question.candidate is not None:
        return Fault(None, (), "disable", config=config)
    if trial.count == 0 or bench.step(trial.count).transform.chosen:
        return None
    return Fault(
        bench.step(trial.count),
        tuple(cause.passes or cause.rules or ()),
        "disable",
        config=config,
    )


def _whole(bench: Bench, order: Order, fault: Fault | None) -> Case | None:
    if fault is None:
        return None
    values = bench.standard.reference.sets[order.place].values
    if order.cause.level is not None:
        model = bench.model(order.trial.count, order.trial.off).load()
    elif bench.question.candidate is not None:
        model = bench.subject.model.load()
    else:
        model = bench.before(order.trial.count, named=bool(order.trial.off))
    inputs: dict[str, Array] = {}
    for info in model.graph.input:
        value = values.get(info.name)
        if isinstance(value, np.ndarray):
            inputs[info.name] = value
        elif value is not None:  # a sequence
            return None
    case = Case(model, inputs)
    if fault.step is not None or order.cause.level is not None:
        return case
    return _pair(case, bench, order, fault)


def _pair(case: Case, bench: Bench, order: Order, fault: Fault) -> Case | None:
    """Return of two models the parts that make the value at which they part.

    They start from values that both have.
    """
    node = order.cause.node
    if node is None:
        return None
    models = [inline_functions(case.model), inline_functions(bench.model(0, ()).load())]
    observer = Observer(fault)
    try:
        values = observer.compute(Case(models[0], case.inputs), _SECONDS_TO_COMPUTE)
    finally:
        observer.close()
    value = next((name for name in _values_of(models[1], node.name) if name in values), None)
    if value is None:
        return None
    shared = _made(models[0]) & _made(models[1]) & values.keys()
    known_values = {
        **{name: values[name] for name in shared},
        **case.inputs,
        value: values[value],
    }
    parts = []
    for model in models:
        parts.append(
            part_of(model, _behind(model.graph, value, shared), known_values, (value,))
        )
    if parts[0] is None or parts[1] is None:
        return None
    return Case(parts[0].model, {**parts[1].inputs, **parts[0].inputs}, parts[1].model)


def _values_of(model: onnx.ModelProto, name: str) -> Sequence[str]:
    """Return the outputs of the node with a name, or with an output of that name."""
    for node in model.graph.node:
        if node.name == name or name in node.output:
            return list(node.output)
    return ()


def _made(model: onnx.ModelProto) -> set[str]:
    names: set[str] = set()
    for node in model.graph.node:
        for name in node.output:
            if name:
                names.add(name)
    return names


def _behind(graph: onnx.GraphProto, value: str, known_names: set[str]) -> list[int]:
    """Return the positions of the nodes that make a value from known ones."""
    needed, chosen = {value}, []
    for at in range(len(graph.node) - 1, -1, -1):
        node = graph.node[at]
        if needed.isdisjoint(node.output):
            continue
        chosen.append(at)
        needed |= {name for name in reads(node) if name not in known_names}
    return chosen[::-1]
