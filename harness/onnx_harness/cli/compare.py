"""``onnx-harness compare``: whether B still computes what A does."""

from __future__ import annotations

import argparse
import pickle
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from onnx_harness import providers
from onnx_harness.accuracy.failures import OutputFailure
from onnx_harness.cards.card import Card
from onnx_harness.cli import DONE, NEGATIVE
from onnx_harness.cli.common import add_json, add_limits, add_model, find_model, settings_of, started_worker, words_of
from onnx_harness.cli.precision import loosest
from onnx_harness.cli.show import console, facts, figure, indented, labelled, size, table, text, write_json
from onnx_harness.errors import HarnessError, InputError, ModelError, ProviderError, UsageError, WorkerDied
from onnx_harness.isolate import note_stage
from onnx_harness.model.file import Model
from onnx_harness.providers import Provider
from onnx_harness.providers.placement import Placement, placement, shortfall
from onnx_harness.providers.probe import probe, refusal
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.cache import Cache, cache_root
from onnx_harness.results.cells import AccuracyRecord
from onnx_harness.settings import Settings
from onnx_harness.transforms import Precision

if TYPE_CHECKING:
    from onnx_harness.judging.reference import Reference

# What the worker notes: who is to blame when it dies.
_RUNNING_A, _RUNNING_B, _MEASURING_A = "running A", "running B", "measuring A's noise"


@dataclass(frozen=True, slots=True)
class Task:
    """What to compare.

    Attributes:
        card: A's: input specifications and tolerances.
        recorded: a ``.npz`` of inputs that are used instead of generated ones, or None.
        float16_io: B may take and give float16 where A has float32.
    """

    a: Path
    b: Path
    card: Card
    provider: str
    recorded: Path | None
    float16_io: bool
    settings: Settings


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models."""

    path: Path
    sha256: str
    bytes: int
    opset: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found.

    Attributes:
        reason: why B departs from A, in a sentence; None when it doesn't.
        interface: differences that a caller would notice.
        lines: the failing outputs, for a person.
        precision: the arithmetic that B has beyond A's; it chooses the tolerance.
    """

    a: Side | None = None
    b: Side | None = None
    reason: str | None = None
    interface: tuple[str, ...] = ()
    precision: Precision = Precision.FP32
    input_sets: tuple[str, ...] = ()
    unusual_sets: int = 0
    placement: Placement | None = None
    accuracy: AccuracyRecord | None = None
    failures: tuple[OutputFailure, ...] = ()
    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_model(parser, "a", "the model that is right: a .onnx file or a model card")
    add_model(parser, "b", "the model that should compute the same")
    inputs = parser.add_argument_group("inputs")
    inputs.add_argument("--inputs", metavar="FILE.npz", type=Path, help="use these instead of generated ones")
    inputs.add_argument("--input-sets", type=int, metavar="N", help="how many to generate (default: 4)")
    inputs.add_argument("--seed", type=int, metavar="S", help="of the generated ones (default: 0)")
    judging = parser.add_argument_group("judging")
    judging.add_argument("--provider", metavar="NAME", default="cpu", help="where B runs (default: cpu)")
    judging.add_argument("--rtol", type=float, metavar="R", help="relative tolerance, with --atol")
    judging.add_argument("--atol", type=float, metavar="A", help="absolute tolerance, with --rtol")
    judging.add_argument("--float16-io", action="store_true", help="B may take and give float16 where A has float32")
    judging.add_argument("--min-placement", type=float, metavar="F", help="share of B's nodes on the provider, 0 to 1")
    add_json(parser)
    add_limits(parser)
    parser.epilog = (
        "A runs on the CPU with graph optimizations disabled, B on the provider with ONNX Runtime's default ones,\n"
        "both in a worker process. A NAME.npz beside A is a recorded input set and is used first; A's card gives\n"
        "input ranges and tolerances. Without those the tolerance follows from B's arithmetic: rtol 1e-4 in float32,\n"
        "1e-2 when B holds float16 and A doesn't, a signal to noise ratio of 15 dB when B is quantized and A isn't."
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare two models."""
    settings = settings_of(args, "input_sets", "seed", "rtol", "atol", "min_placement", "cell_timeout", "cell_memory")
    provider = providers.get(args.provider)
    if args.inputs is not None:
        if args.input_sets is not None or args.seed is not None:
            raise UsageError("--inputs replaces generated inputs: --input-sets and --seed have no effect beside it")
        if not args.inputs.is_file():
            raise UsageError(f"there is no file {args.inputs}")
    card, a = find_model(args.a)
    _, b = find_model(args.b)
    task = Task(a, b, card, provider.name, args.inputs, args.float16_io, settings)
    outcome = _outcome(task, provider)
    if args.json:
        write_json(_as_json(outcome, task))
    else:
        _show(console(), outcome, task, args.a, args.b)
    return DONE if outcome.reason is None else NEGATIVE


def _outcome(task: Task, provider: Provider) -> Outcome:
    """Compare in a worker. What kills it while B runs is B's failure, before that it's an error."""
    with started_worker(task.settings, provider.environment) as worker:
        try:
            if provider.name != "cpu" and not (found := worker.call(probe, provider.name)).usable:
                raise ProviderError(refusal(found))
            return worker.call(compare_models, task)
        except WorkerDied as death:
            reason = f"{death.stage or 'starting'}: {death}"
            if death.stage != _RUNNING_B:
                raise ModelError(f"{task.a.name} and {task.b.name} can't be compared. {reason}") from None
            return Outcome(reason=f"{reason}, and A ran on the same inputs")


def compare_models(task: Task) -> Outcome:
    """Run A and B on the same inputs and compare what they give. Meant for the worker.

    Raises:
        ModelError: a file can't be read, or A itself doesn't run.
        InputError: no inputs can be had.
    """
    from onnx_harness.model.interface import interface_changes

    note_stage("reading")
    a, b = Model(task.a, "a"), Model(task.b, "b")
    float_io = "float16" if task.float16_io else None
    outcome = Outcome(
        a=_side(a),
        b=_side(b),
        interface=tuple(interface_changes(a.signature, b.signature, float_io)),
        precision=loosest(b.skeleton, beyond=a.skeleton),
    )
    note_stage(_RUNNING_A)
    made = _reference(task, a)
    if outcome.precision is not Precision.FP32:
        # Out of a narrower type's usual range, B needn't be usable.
        made = replace(
            made,
            sets=tuple(made.sets[place] for place in made.usual),
            outputs=tuple(made.outputs[place] for place in made.usual),
        )
    outcome = replace(
        outcome,
        input_sets=tuple(each.name for each in made.sets),
        unusual_sets=len(made.sets) - len(made.usual),
        notes=made.notes,
    )
    inputs = [change for change in outcome.interface if change.startswith("input")]
    if inputs:
        return replace(outcome, reason=f"B doesn't take what A takes, so it wasn't run: {inputs[0]}")
    note_stage(_RUNNING_B)
    return _judged(task, a, b, made, outcome, float_io)


def _judged(task: Task, a: Model, b: Model, made: Reference, outcome: Outcome, float_io: str | None) -> Outcome:
    """The outcome with B's run in it, judged as a cell is."""
    from onnx_harness.judging.last_bits import gains_integer_kernels
    from onnx_harness.judging.verdict import Standard, verdict
    from onnx_harness.providers.running import run as run_session
    from onnx_harness.results.cells import Status

    provider = providers.get(task.provider)
    try:
        exact = gains_integer_kernels(a.skeleton)
        session = open_session(b.path, provider, purpose=Purpose.ACCURACY, exact_sums=exact)
    except Exception as error:  # ONNX Runtime's errors have no common class below Exception
        return replace(outcome, reason=f"B can't be opened on {provider.name}: {words_of(error)}")
    found = placement(session, provider)
    outcome = replace(outcome, placement=found)
    if short := shortfall(found, provider, task.settings.min_placement):
        return replace(outcome, reason=f"B doesn't run where it was asked to: {short}")
    try:
        outputs = [run_session(session, _feeds(session, each.values, float_io)) for each in made.sets]
    except Exception as error:
        return replace(outcome, reason=f"B doesn't run on A's inputs: {words_of(error)}")
    standard = Standard(
        a,
        made,
        task.card,
        outcome.precision,
        conversion=None,
        float_io=float_io,
        provider=task.provider,
        exact=False,
        override=task.settings.tolerance_override,
        kept=Cache(cache_root()),
        # What a conversion may cost follows from its options, and nobody knows those of B's: bounds alone decide.
        explained=outcome.precision is Precision.FP32,
    )
    note_stage(_MEASURING_A)  # the noise floor runs the untouched model: what dies there isn't B's failure
    judged = verdict(standard, outputs)
    if judged.status is Status.NOT_APPLICABLE or judged.comparison is None:
        raise ModelError(f"there is nothing to compare: {judged.reason}")
    reason = judged.reason
    if reason is None and outcome.interface:
        reason = f"the interface differs: {outcome.interface[0]}"
    return replace(
        outcome,
        reason=reason,
        accuracy=judged.comparison.record,
        failures=judged.comparison.failures,
        lines=judged.comparison.lines(),
        notes=(*outcome.notes, *judged.notes),
    )


def _side(model: Model) -> Side:
    return Side(model.path, model.sha256, model.size_bytes, model.opset)


def _reference(task: Task, a: Model) -> Reference:
    """A's inputs and outputs: kept between runs when they are generated, made afresh when they were given."""
    from onnx_harness.judging.reference import reference

    try:
        if task.recorded is None:
            return reference(a, task.card, task.settings, Cache(cache_root()))
        return _given(a, task.recorded)
    except (ModelError, InputError) as error:
        raise type(error)(f"A ({a.path.name}): {error}") from None
    except HarnessError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no common class below Exception
        raise ModelError(f"A ({a.path.name}) doesn't run itself: {words_of(error)}") from None


def _given(a: Model, recorded: Path) -> Reference:
    from onnx_harness.inputs import load_npz
    from onnx_harness.judging.reference import Reference
    from onnx_harness.providers.running import run as run_session

    sets = load_npz(recorded, a.skeleton)
    session = open_session(a.path, providers.get("cpu"), purpose=Purpose.ACCURACY, level="disable")
    outputs = tuple(run_session(session, each.values) for each in sets)
    again = run_session(session, sets[0].values)
    unstable = {name for name, value in again.items() if pickle.dumps(value) != pickle.dumps(outputs[0][name])}
    return Reference(tuple(sets), outputs, frozenset(unstable))


def _feeds(session: Any, values: dict[str, Any], float_io: str | None) -> dict[str, Any]:
    """``values``, float32 ones as float16 where B takes that and may."""
    half = {info.name for info in session.get_inputs() if info.type == "tensor(float16)"} if float_io else set()
    return {
        name: value.astype("float16") if name in half and value.dtype == "float32" else value
        for name, value in values.items()
    }


def _as_json(outcome: Outcome, task: Task) -> dict[str, Any]:
    document = {
        "passed": outcome.reason is None,
        "provider": task.provider,
        "seed": task.settings.seed if task.recorded is None else None,
    } | asdict(outcome)
    del document["lines"]  # the failures, once more
    document["a"] = document["a"] or {"path": task.a}
    document["b"] = document["b"] or {"path": task.b}
    return document


def _show(out: Console, outcome: Outcome, task: Task, a: Path, b: Path) -> None:
    out.print(
        facts(
            {
                "A": _told(a, outcome.a, "on cpu, graph optimizations disabled"),
                "B": _told(b, outcome.b, f"on {task.provider}, ONNX Runtime's default optimizations"),
                "inputs": "\n".join(outcome.input_sets) or "none",
            }
        )
    )
    if outcome.accuracy is not None:
        out.print()
        out.print(indented(_table(outcome)))
    if outcome.precision is not Precision.FP32 and task.settings.tolerance_override is None:
        what = {Precision.FP16: "float16", Precision.BF16: "bfloat16", Precision.INT8: "quantized"}[outcome.precision]
        out.print(text(f"note: judged as {what}, since B holds that and A doesn't", "yellow"), soft_wrap=True)
    for change in outcome.interface:
        out.print(labelled("interface: ", "bold yellow", change), soft_wrap=True)
    for note in outcome.notes:
        out.print(text(f"note: {note}", "yellow"), soft_wrap=True)
    out.print()
    if outcome.reason is None:
        count = len(outcome.input_sets) - outcome.unusual_sets
        sets = f"{count} input set{'s' if count != 1 else ''}"
        sets += f" and {outcome.unusual_sets} unusual ones" if outcome.unusual_sets else ""
        out.print(text(f"B computes what A does, within the tolerance, on {sets}", "bold green"), soft_wrap=True)
        return
    # The reason is the first failing output's, which the lines tell in full.
    why = _counted(outcome) if outcome.lines else outcome.reason
    out.print(labelled("B departs from A: ", "bold red", why), soft_wrap=True)
    for line in outcome.lines:
        out.print(text(f"  {line}"), soft_wrap=True)
    if outcome.a and outcome.b and outcome.a.sha256 == outcome.b.sha256:
        cause = "ONNX Runtime's optimizer" + ("" if task.provider == "cpu" else f" or the provider {task.provider}")
        out.print(text(f"A and B are the same model: the difference is the work of {cause}", "dim"), soft_wrap=True)
    if not task.float16_io and any(change.endswith("is tensor(float16)") for change in outcome.interface):
        out.print(text("--float16-io allows float16 where A has float32", "dim"), soft_wrap=True)


def _counted(outcome: Outcome) -> str:
    failing = len({each.output for each in outcome.failures})
    return f"{failing} output{'s' if failing > 1 else ''} beyond the tolerance or not comparable"


def _told(path: Path, side: Side | None, how: str) -> str:
    if side is None:
        return f"{path}\n{how}"
    return f"{path} ({size(side.bytes)}, opset {side.opset or '?'})\n{how}"


def _table(outcome: Outcome) -> Any:
    assert outcome.accuracy is not None
    failing = {failure.output for failure in outcome.failures}
    rows = []
    for name, each in outcome.accuracy.outputs.items():
        fails = name in failing
        used = f"{figure(each.rtol)}, {figure(each.atol)}"
        needs = "none" if each.minimum_tolerance is None and fails else figure(each.minimum_tolerance)
        verdict = text("FAIL", "bold red") if fails else text("pass", "green")
        rows.append([name, verdict, figure(each.max_abs), figure(each.sqnr_db), needs, used])
    columns: list[str | tuple[str, str]] = [
        "output",
        ("", "whole"),
        ("max |B-A|", "right"),
        ("SQNR dB", "right"),
        ("needs rtol", "right"),
        ("rtol, atol used", "right"),
    ]
    return table(columns, rows)
