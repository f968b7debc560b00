"""The rows of causes.

They plant faults whose cause is known, and count how often a diagnosis names it first.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from onnx_harness.cards.card import Card
from onnx_harness.cards.fetch import materialize
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.diagnose.search import diagnose
from onnx_harness.errors import UsageError
from onnx_harness.mutation.planting import atlas_of, choose, planted
from onnx_harness.names import ORIGINAL, parse_variant
from onnx_harness.results.diagnosis import Diagnosis
from onnx_harness.selftest.bench import Bench, Outcome
from onnx_harness.selftest.minimality import is_minimal
from onnx_harness.selftest.planted_causes import STEP, Planted, planted_steps
from onnx_harness.selftest.table import Row, Step, bad, summed, total
from onnx_harness.settings import Settings
from onnx_harness.transforms.variant import BoundVariant, bind_variant

_GOAL = 0.97
_QUICK_STEPS, _QUICK_FAULTS, _QUICK_DEFECTS = 2, 1, 2
_FAULTS = 8
# These change values, which a model may take no notice of; whatever else is planted is always seen.
_OF_VALUES = frozenset(
    {
        "wrong pass",
        "two passes together",
        "wrong rule",
        "three rules together",
        "Cast",
        "sign",
    }
)
_SETTINGS = Settings(input_sets=1)


def _steps(bench: Bench) -> Iterator[Step]:
    """The planted steps on every model, and the planted faults of nodes in every model."""
    if bench.quick:
        for fault in list(planted_steps())[:_QUICK_STEPS]:
            yield Step(
                f"tiny, {fault.kind}", partial(of_tiny, partial(_of_step, fault=fault))
            )
        for number in range(_QUICK_FAULTS):
            yield Step(
                f"tiny, node {number}", partial(of_tiny, partial(_of_node, number=number))
            )
        return
    for card in bench.cards:
        for fault in planted_steps():
            judge = partial(_of_step, card, fault)
            yield Step(f"{card.name}, {fault.kind}", judge, fault.kind)
        for number in range(_FAULTS):
            kind = f"node {number}"
            yield Step(f"{card.name}, {kind}", partial(_of_node, card, number), kind)


def of_tiny(judge: Callable[[Card], Outcome]) -> Outcome:
    """A network of a few nodes.

    What is planted is seen in its output, and no model has to be fetched.
    """
    with tempfile.TemporaryDirectory(prefix="onnx-harness-tiny-") as folder:
        file = Path(folder) / "tiny.onnx"
        onnx.save(tiny(), str(file))
        return judge(card_for(file))


def tiny() -> onnx.ModelProto:
    """Return two layers of a perceptron, with weights that tell every element apart."""
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 17]> tiny (float[n,4] x) => (float[n,3] y)
        { p = MatMul(x, w)  s = Add(p, b)  h = Tanh(s)  q = MatMul(h, v)  y = Add(q, c) }"""
    )
    generator = np.random.default_rng(5)
    for name, shape in {"w": (4, 5), "b": (5,), "v": (5, 3), "c": (3,)}.items():
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(generator.normal(size=shape).astype("f4"), name)
        )
    return model


def _of_step(card: Card, fault: Planted) -> Outcome:
    """A step of the chain behind an honest one, with parts of which some do harm."""
    bound = bind_variant(parse_variant("simplify"))
    bound = replace(bound, steps=(*bound.steps, fault.step))
    task = Task(Cell(card, parse_variant("simplify"), "cpu"), materialize(card), _SETTINGS)
    diagnosis = diagnose(task, bound=bound)
    if "StopIteration" in diagnosis.sentence:  # the model has no such place
        return Outcome(0, 0)
    if diagnosis.sentence.startswith("Nothing to diagnose") and fault.kind in _OF_VALUES:
        # What follows takes it away again, as a normalization does; the words let a person see how
        # often.
        return Outcome(
            0,
            0,
            (f"{card.name}: {fault.kind} changes nothing that is compared: not counted",),
        )
    parts = diagnosis.cause.passes if fault.passes else diagnosis.cause.rules
    right = diagnosis.cause.transform == STEP and parts == fault.parts
    outcome = _outcome(
        diagnosis, right, f"{card.name}: {fault.kind} of {', '.join(fault.parts)}"
    )
    return _with_minimality(outcome, task, bound, diagnosis)


def _of_node(card: Card, number: int) -> Outcome:
    """A copy of the model with a fault in one node, compared with the model."""
    model = materialize(card)
    atlas = atlas_of(model)
    faults = choose(atlas, number + 1, 0)
    if len(faults) <= number or faults[number].site.graph:
        return Outcome(0, 0)  # inside a body, which no value of the main graph tells apart
    fault = faults[number]
    node = atlas.model.graph.node[fault.site.node]
    with tempfile.TemporaryDirectory(
        prefix="onnx-harness-causes-", dir=model.parent
    ) as folder:
        candidate = Path(folder) / "candidate.onnx"
        onnx.save(planted(atlas, fault), str(candidate))
        task = Task(Cell(card, parse_variant(ORIGINAL), "cpu"), model, _SETTINGS)
        diagnosis = diagnose(task, candidate=candidate)
    if diagnosis.sentence.startswith(
        "Nothing to diagnose"
    ):  # the fault changes nothing that is compared
        return Outcome(0, 0)
    named = diagnosis.cause.node.name if diagnosis.cause.node is not None else ""
    right = diagnosis.found and named in (node.name, *node.output) and bool(named)
    return _outcome(diagnosis, right, f"{card.name}: {fault.text}")


def _defects(bench: Bench) -> Iterator[Step]:
    index = bench.defects / "index.json"
    if not index.is_file():
        raise UsageError(
            f"there is no {index}: run this in the repository, or name the folder with --defects"
        )
    cases = json.loads(index.read_text(encoding="utf-8"))
    for case in cases[:: len(cases) // _QUICK_DEFECTS] if bench.quick else cases:
        file = bench.defects / f"{case['name']}.onnx"
        yield Step(case["name"], partial(_of_defect, file, case["variant"]))


def _of_defect(file: Path, variant: str) -> Outcome:
    """A defect of a released library: the step that calls it, or ONNX Runtime's own level."""
    card, chain = card_for(file), parse_variant(variant)
    task = Task(Cell(card, chain, "cpu"), materialize(card), _SETTINGS)
    diagnosis = diagnose(task)
    step, cause = chain.steps[-1].name, diagnosis.cause
    right = cause.transform == step
    if step.startswith("ort."):
        right = cause.transform is None and cause.level is not None
    elif step.startswith("pass."):
        right = right and cause.passes == (step.removeprefix("pass."),)
    outcome = _outcome(diagnosis, diagnosis.found and right, file.stem)
    return _with_minimality(outcome, task, bind_variant(chain), diagnosis)


def _outcome(diagnosis: Diagnosis, right: bool, what: str) -> Outcome:
    words = () if right else (f"{what}: {diagnosis.sentence}",)
    spent = {
        "transforms": diagnosis.spent.transforms,
        "sessions": diagnosis.spent.sessions,
        "seconds": diagnosis.spent.seconds,
    }
    return Outcome(1, 0 if right else 1, words, spent)


def _with_minimality(
    outcome: Outcome,
    task: Task,
    bound: BoundVariant,
    diagnosis: Diagnosis,
) -> Outcome:
    """Count a set that the diagnosis names, and as wrong one that isn't minimal."""
    minimal = is_minimal(task, bound, diagnosis.cause) if diagnosis.found else None
    if minimal is None:
        return outcome
    figures = {**outcome.figures, "sets": 1.0, "minimal": float(minimal)}
    if minimal:
        return replace(outcome, figures=figures)
    words = (*outcome.words, f"{task.cell.id}: not minimal: {diagnosis.sentence}")
    return replace(outcome, bad=1, words=words, figures=figures)


def _figure(outcomes: Sequence[Outcome]) -> str:
    right = total(outcomes) - bad(outcomes)
    seconds = summed(outcomes, "seconds") / max(total(outcomes), 1)
    most = max((outcome.figures.get("transforms", 0) for outcome in outcomes), default=0)
    share = right / max(total(outcomes), 1)
    minimal, sets = summed(outcomes, "minimal"), summed(outcomes, "sets")
    return (
        f"{right} of {total(outcomes)} ({share:.0%}); {minimal} of {sets} sets minimal; "
        f"{seconds:.0f} s each, at most {most:.0f} transforms"
    )


def _reached(outcomes: Sequence[Outcome]) -> bool:
    enough = bad(outcomes) <= (1 - _GOAL) * total(outcomes) and total(outcomes) > 0
    return enough and summed(outcomes, "minimal") == summed(outcomes, "sets")


def _row(name: str, title: str, steps: Callable[[Bench], Iterator[Step]]) -> Row:
    return Row(name, title, "97%; each set minimal", steps, _figure, _reached)


CAUSES = _row("causes", "planted faults of 20 kinds: the right cause named", _steps)
CAUSES_OF_DEFECTS = _row(
    "defect-causes", "defects of released libraries: the right cause named", _defects
)
