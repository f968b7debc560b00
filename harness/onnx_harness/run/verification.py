"""A question that somebody's own test asks about a model, and its answer as a cell's verdict."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness import providers
from onnx_harness.cards import fetch
from onnx_harness.cell import given_outputs
from onnx_harness.cell.comparison import Pair, PairOutcome
from onnx_harness.cell.matrix import Cell, expand_variants, named_card
from onnx_harness.errors import InputError, ProviderError, UsageError
from onnx_harness.names import Variant, cell_id
from onnx_harness.providers.probe import refusal
from onnx_harness.results.cells import CellResult, OutputAccuracy, Stage, Status
from onnx_harness.run.files import files_of
from onnx_harness.run.pair import compare_pair
from onnx_harness.run.runner import Runner

if TYPE_CHECKING:
    from onnx_harness.run.files import InputsLike, ModelLike

    Forward = Callable[..., Any]

CHOICES = frozenset(
    {"input_sets", "seed", "rtol", "atol", "min_placement", "cell_timeout", "cell_memory"}
)
"""The settings that a question may override."""


@dataclass(frozen=True, slots=True)
class Question:
    """The question to be judged: see :func:`onnx_harness.verify`.

    Attributes:
        name: of the model in reports; empty takes the file's.
        float16_io: the candidate may take and give float16 where the model has float32.
    """

    model: ModelLike
    variant: str = "simplify"
    candidate: ModelLike | Forward | None = None
    reference: ModelLike | Forward | None = None
    provider: str = "cpu"
    inputs: InputsLike | None = None
    float16_io: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to whether a model still computes what the untouched one does.

    True in a condition when it does.

    Attributes:
        status: as in results.json: ``pass``, ``fail``, ``error`` or ``not_applicable``.
        reason: one sentence; None for a pass.
        outputs: the figures of each output, by name; empty where nothing could be compared.
        detail: further lines for a person.
        notes: remarks on a verdict that stands.
        subject: what was judged: model, variant and provider, or the two models.
    """

    status: Status
    reason: str | None = None
    outputs: Mapping[str, OutputAccuracy] = field(default_factory=dict)
    detail: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    subject: str = ""

    def __bool__(self) -> bool:
        """Return whether it is a pass."""
        return self.status is Status.PASS

    def report(self) -> str:
        """The verdict in lines, for the message of an assertion."""
        lines = [
            f"{self.subject}: {self.status.value}"
            + (f": {self.reason}" if self.reason else "")
        ]
        again = self.reason and self.detail and self.detail[0] in self.reason
        lines += [f"  {line}" for line in (self.detail[1:] if again else self.detail)]
        lines += [
            f"  output {name}: {_figures(output)}" for name, output in self.outputs.items()
        ]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def verdict_of(result: CellResult) -> Verdict:
    """Return a cell's result as the answer that a caller gets."""
    outputs = {} if result.accuracy is None else result.accuracy.outputs
    return Verdict(
        result.status, result.reason, outputs, result.detail, result.notes, result.id
    )


def answer(question: Question, runner: Runner) -> CellResult:
    """Judge what was asked, with the runner's settings.

    Raises:
        as :func:`onnx_harness.verify`.
    """
    __tracebackhide__ = True  # what a callable raises is shown in its own frames
    if question.candidate is not None and question.reference is not None:
        raise UsageError(
            "candidate and reference exclude one another: one is judged by the model, or judges it"
        )
    provider = providers.get(question.provider).name
    if provider != "cpu" and not (availability := runner.probe(provider)).usable:
        raise ProviderError(refusal(availability))
    counterpart = question.candidate if question.reference is None else question.reference
    if counterpart is None:
        return _judge_variant(question, runner)
    if callable(counterpart):
        return _judge_forward(question, counterpart, runner)
    return _judge_pair(question, runner)


def snapshot(
    question: Question, runner: Runner, folder: Path, *, update: bool
) -> CellResult:
    """Compare a model with the golden outputs in ``folder``, or write them there.

    Raises:
        InputError: there are none, or they don't fit the model.
        others: as :func:`onnx_harness.verify`.
    """
    with files_of(question.model, question.inputs, runner.given) as (path, recorded):
        pair = _pair(path, path, question, recorded, runner)
        if update:
            count = _write_snapshot(pair, runner, folder)
            outcome = PairOutcome(
                notes=(f"{count} golden data sets were written to {folder}",)
            )
        elif not any(folder.glob("test_data_set_*")):
            raise InputError(
                f"there are no golden outputs in {folder}. Mend: run this test once with "
                f"--onnx-update"
            )
        else:
            outcome = runner.call(given_outputs.compare_with_snapshot, pair, folder)
        return _as_cell(pair, outcome, question, "snapshot")


def _write_snapshot(pair: Pair, runner: Runner, folder: Path) -> int:
    """Put golden outputs in the place of those that are there; returns the number of sets."""
    golden = (runner.given or folder.parent) / "golden"
    count = runner.call(given_outputs.write_snapshot, pair, golden)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("test_data_set_*"):
        shutil.rmtree(old)
    for data_set in golden.iterdir():
        shutil.move(data_set, folder / data_set.name)
    return count


def _judge_variant(question: Question, runner: Runner) -> CellResult:
    with files_of(question.model, question.inputs, runner.given) as (path, recorded):
        variant = _one_variant(question.variant, runner)
        card = named_card(path)
        if question.name:
            card = replace(card, name=question.name)
        cell = Cell(card, variant, providers.get(question.provider).name)
        return runner.apart(runner.settings, recorded).judge(cell)


def _one_variant(word: str, runner: Runner) -> Variant:
    """Return the variant of that name.

    ``fp16`` is the name of a group as well, and means the variant: a question is about one.
    """
    variants = expand_variants([word], runner.settings.variants)
    if len(variants) == 1:
        return variants[0]
    for variant in variants:
        if variant.spelling == word:
            return variant
    names = ", ".join(member.id for member in variants[:6])
    raise UsageError(f"'{word}' is a group of variants; name one, such as {names}")


def _judge_pair(question: Question, runner: Runner) -> CellResult:
    """Judge one model by another."""
    right, judged = (
        (question.model, question.candidate)
        if question.reference is None
        else (question.reference, question.model)
    )
    with ExitStack() as stack:
        path, recorded = stack.enter_context(files_of(right, question.inputs))  # type: ignore[arg-type]
        counterpart, _ = stack.enter_context(files_of(judged, None))  # type: ignore[arg-type]
        pair = _pair(path, counterpart, question, recorded, runner)
        outcome = compare_pair(pair)
        return _as_cell(
            pair,
            outcome,
            question,
            "candidate" if question.reference is None else "reference",
        )


def _judge_forward(question: Question, forward: Forward, runner: Runner) -> CellResult:
    """Judge a model and a framework's forward by one another.

    The bound is the same either way round.
    """
    __tracebackhide__ = True
    with files_of(question.model, question.inputs, runner.given) as (path, recorded):
        pair = _pair(path, path, question, recorded, runner)
        sets = runner.call(given_outputs.usual_inputs, pair)
        names = runner.call(given_outputs.output_names, pair.a)
        outputs = []
        for values in sets:
            outputs.append(_by_name(forward(*values.values()), names))
        outcome = runner.call(given_outputs.compare_with_outputs, pair, outputs)
        return _as_cell(
            pair,
            outcome,
            question,
            "candidate" if question.reference is None else "reference",
        )


def _by_name(returned: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return what a forward gave as arrays by output name."""
    import numpy as np

    if not isinstance(returned, Mapping):
        several = isinstance(returned, list | tuple)
        values = list(returned) if several else [returned]
        if len(values) != len(names):
            raise InputError(
                f"the callable gave {len(values)} output{'s' * (len(values) != 1)}, and the model "
                f"has {len(names)}: "
                f"{', '.join(names)}. Mend: return one array for each, in this order, or a "
                f"mapping by name"
            )
        returned = dict(zip(names, values, strict=True))
    unknown = sorted(set(returned) - set(names))
    if unknown or not returned:
        raise InputError(
            f"the callable gave {unknown or 'nothing'}, and the model's outputs are "
            f"{', '.join(names)}"
        )
    return {name: np.asarray(value) for name, value in returned.items()}


def _pair(
    path: Path, counterpart: Path, question: Question, recorded: Path | None, runner: Runner
) -> Pair:
    card, second = named_card(path), named_card(counterpart)
    return Pair(
        fetch.materialize(card),
        fetch.materialize(second),
        card,
        providers.get(question.provider).name,
        recorded,
        question.float16_io,
        runner.settings,
    )


def _as_cell(
    pair: Pair, outcome: PairOutcome, question: Question, variant: str
) -> CellResult:
    name = question.name or pair.card.name
    status = Status.PASS if outcome.reason is None else Status.FAIL
    return CellResult(
        id=cell_id(name, variant, pair.provider),
        model=name,
        model_sha256="" if outcome.a is None else outcome.a.sha256,
        variant=variant,
        provider=pair.provider,
        status=status,
        stage=Stage.DONE if status is Status.PASS else Stage.COMPARE,
        reason=outcome.reason,
        detail=outcome.lines,
        notes=outcome.notes,
        accuracy=outcome.accuracy,
    )


def _figures(output: OutputAccuracy) -> str:
    figures = {
        "max abs": output.max_abs,
        "relative L2": output.rel_l2,
        "rtol": output.rtol,
        "atol": output.atol,
    }
    entries = []
    for name, value in figures.items():
        if value is not None:
            entries.append(f"{name} {value:.2g}")
    return ", ".join(entries)
