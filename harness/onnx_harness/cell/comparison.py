"""The comparison of two model files.

Whether B still computes what A does, by the judge of a cell.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness import providers
from onnx_harness.accuracy.failures import OutputFailure
from onnx_harness.cards.card import Card
from onnx_harness.cards.seeded import judged_file
from onnx_harness.cell.repeats import run_anew
from onnx_harness.cell.state import RunNote
from onnx_harness.cell.subjects import without_sets
from onnx_harness.errors import HarnessError, InputError, ModelError, words_of
from onnx_harness.inputs import InputSet
from onnx_harness.isolate import note_stage, noting
from onnx_harness.judging.exact_sums import exact_sums
from onnx_harness.judging.half_range import computes_in_half
from onnx_harness.judging.ideal import Conversion
from onnx_harness.judging.judge import judge_outputs
from onnx_harness.judging.precision import loosest
from onnx_harness.judging.reference import Reference, given, reference
from onnx_harness.judging.rounding import Clamp
from onnx_harness.judging.runs import MOST_BYTES
from onnx_harness.judging.standard import Standard
from onnx_harness.model.bounds import check_bounds
from onnx_harness.model.file import Model, has_loops
from onnx_harness.model.interface import interface_changes
from onnx_harness.providers import Provider
from onnx_harness.providers.placement import Placement, placement, shortfall
from onnx_harness.providers.profile import EMULATED, precision, read_profile
from onnx_harness.providers.running import feeds_for, run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.cells import AccuracyRecord, Status
from onnx_harness.results.workbench import workbench
from onnx_harness.settings import Settings
from onnx_harness.transforms import Precision
from onnx_harness.transforms.float16 import MAX_FINITE_VAL, MIN_POSITIVE_VAL

if TYPE_CHECKING:
    import onnxruntime as ort

# What the worker notes: who is to blame when it dies.
RUNNING_B = "running B"
_READING, _RUNNING_A, _JUDGING = "reading", "running A", "measuring A's noise"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models to compare.

    Attributes:
        card: A's: input specifications and tolerances.
        recorded: a ``.npz`` of inputs that are used instead of generated ones, or None.
        float16_io: B may take and give float16 where A has float32.
        skipped: positions in the reference of unusual input sets that ONNX Runtime died of.
    """

    a: Path
    b: Path
    card: Card
    provider: str
    recorded: Path | None
    float16_io: bool
    settings: Settings
    skipped: tuple[int, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that a worker has to read in order to compare them."""
        named = (self.a, self.b, self.card.path)
        return named if self.recorded is None else (*named, self.recorded)

    @property
    def custom_ops(self) -> tuple[Path, ...]:
        """Libraries of custom operators that both models' sessions need.

        The card's, then the settings'.
        """
        return (*self.card.custom_ops, *self.settings.custom_ops)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models."""

    path: Path
    sha256: str
    bytes: int
    opset: int | None


@dataclass(frozen=True, slots=True)
class PairOutcome:
    """The result of a comparison.

    Attributes:
        reason: why B departs from A, in a sentence; None when it doesn't.
        interface: differences that a caller would notice.
        lines: the failing outputs, for a person.
        precision: the arithmetic that B has beyond A's; it chooses the tolerance.
        emulated: whether B asks for float16 and the provider computed it in float32.
    """

    a: Side | None = None
    b: Side | None = None
    reason: str | None = None
    interface: tuple[str, ...] = ()
    precision: Precision = Precision.FP32
    input_sets: tuple[str, ...] = ()
    unusual_sets: int = 0
    placement: Placement | None = None
    emulated: bool = False
    accuracy: AccuracyRecord | None = None
    failures: tuple[OutputFailure, ...] = ()
    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def compare_models(pair: Pair) -> PairOutcome:
    """Run A and B on the same inputs and judge what B gives. Meant for the worker.

    Raises:
        ModelError: a file can't be read, or A itself doesn't run.
        InputError: no inputs can be had.
    """
    note_stage(_READING)
    for path in (pair.a, pair.b):
        check_bounds(path, pair.settings.cell_memory, trusted=pair.settings.trust_models)
    a, b = _models(pair)
    float_io = "float16" if pair.float16_io else None
    outcome = PairOutcome(
        a=_side(a),
        b=_side(b),
        interface=tuple(interface_changes(a.signature, b.signature, float_io)),
        precision=loosest(b.skeleton, beyond=a.skeleton),
    )
    note_stage(_RUNNING_A)
    answers = without_sets(pair_reference(pair, a), pair.skipped)
    # Out of a narrower type's usual range, B needn't be usable: it's judged on the usual sets.
    judged = (
        answers.sets
        if outcome.precision is Precision.FP32
        else [answers.sets[place] for place in answers.usual]
    )
    outcome = replace(
        outcome,
        input_sets=tuple(input_set.name for input_set in judged),
        unusual_sets=sum(bool(input_set.unusual) for input_set in judged),
        notes=answers.notes,
    )
    inputs = [change for change in outcome.interface if change.startswith("input")]
    if inputs:
        return replace(
            outcome, reason=f"B doesn't take what A takes, so it wasn't run: {inputs[0]}"
        )
    note_stage(RUNNING_B)
    with tempfile.TemporaryDirectory(
        prefix="onnx-harness-profile-", ignore_cleanup_errors=True
    ) as scratch:
        return _judged(pair, a, b, answers, outcome, Path(scratch))


def _judged(
    pair: Pair, a: Model, b: Model, answers: Reference, outcome: PairOutcome, scratch: Path
) -> PairOutcome:
    """The outcome with B's run in it, judged as a cell is."""
    provider = providers.get(pair.provider)
    half = computes_in_half(b.skeleton)
    profiled = bool(provider.fallback) or half or not has_loops(b.skeleton.graph)
    profile = scratch / "profile" if profiled else None
    config = exact_sums(a.skeleton, b.skeleton)
    opened = partial(
        open_session,
        b.path,
        provider,
        purpose=Purpose.ACCURACY,
        profile=profile,
        config=config,
    )
    try:
        session = opened()
    except Exception as error:  # ONNX Runtime's errors have no common class below Exception
        return replace(
            outcome, reason=f"B can't be opened on {provider.name}: {words_of(error)}"
        )
    assigned = placement(session, provider)
    outcome = replace(outcome, placement=assigned)
    if short := shortfall(assigned, provider, pair.settings.min_placement):
        return replace(outcome, reason=f"B doesn't run where it was asked to: {short}")
    try:
        first, outputs = feeds_for(session, answers.sets[0].values), []
        for place, input_set in _by_place(pair, answers):
            with noting(str(RunNote(place, bool(input_set.unusual), input_set.name))):
                outputs.append(run(session, feeds_for(session, input_set.values)))
            if len(outputs) == 1:
                outcome = replace(
                    outcome, emulated=is_emulated(session, provider, half=half)
                )
    except Exception as error:
        return replace(outcome, reason=f"B doesn't run on A's inputs: {words_of(error)}")
    note_stage(
        _JUDGING
    )  # the noise floor runs the untouched model: what dies there isn't B's failure
    standard = pair_standard(pair, a, answers, outcome.precision)
    again: Callable[[], dict[str, Any]] = partial(run, session, first)
    if b.size_bytes > MOST_BYTES:
        again = run_anew(opened, first)
        del session  # the noise floor's sessions hold as much
    verdict = judge_outputs(standard, outputs, b, emulated=outcome.emulated, again=again)
    if verdict.status is Status.NOT_APPLICABLE:
        raise ModelError(f"there is nothing to compare: {verdict.reason}")
    reason = verdict.reason
    if reason is None and outcome.interface:
        reason = f"the interface differs: {outcome.interface[0]}"
    return replace(
        outcome,
        reason=reason,
        accuracy=None if verdict.comparison is None else verdict.comparison.record,
        failures=() if verdict.comparison is None else verdict.comparison.failures,
        lines=verdict.detail,
        notes=(*outcome.notes, *verdict.notes),
    )


def _models(pair: Pair) -> tuple[Model, Model]:
    """A and B as they're judged."""
    a, b = (judged_file(path, pair.card) for path in (pair.a, pair.b))
    return Model(a, "a"), Model(b, "b")


def _by_place(pair: Pair, answers: Reference) -> Iterator[tuple[int, InputSet]]:
    """The sets that are judged, each with its position before some were left out."""
    kept = (place for place in itertools.count() if place not in pair.skipped)
    return zip(kept, answers.sets, strict=False)


def excuse_for(pair: Pair, place: int) -> str:
    """Return why it says nothing of B that the worker died of an unusual set; empty: it does.

    Meant for a worker, which dies as well where ONNX Runtime itself does.
    """
    a, b = _models(pair)
    if loosest(b.skeleton, beyond=a.skeleton) is not Precision.FP32:
        return "a narrower type needn't be usable on unusual inputs"
    session = open_session(a.path, providers.get(pair.provider), purpose=Purpose.ACCURACY)
    run(session, pair_reference(pair, a).sets[place].values)
    return ""


def pair_standard(
    pair: Pair, a: Model, answers: Reference, arithmetic: Precision
) -> Standard:
    """Return what B's outputs are judged by, where it has ``arithmetic`` beyond A's."""
    return Standard(
        a,
        answers,
        pair.card,
        arithmetic,
        conversion=_presumed(arithmetic, all_inputs=pair.float16_io),
        float_io="float16" if pair.float16_io else None,
        provider=pair.provider,
        exact=False,
        override=pair.settings.tolerance_override,
        kept=workbench().cache,
        # What a quantization may cost follows from its options, and nobody knows those of B's:
        # bounds alone decide.
        explained=arithmetic is not Precision.INT8,
    )


def _presumed(arithmetic: Precision, *, all_inputs: bool) -> Conversion | None:
    """The conversion that B is held to.

    The documented one, since nobody knows the options of B's.
    """
    if arithmetic is Precision.FP16:
        return Conversion("float16", Clamp(MIN_POSITIVE_VAL, MAX_FINITE_VAL), all_inputs)
    if arithmetic is Precision.BF16:
        return Conversion("bfloat16", None, all_inputs)
    return None


def is_emulated(session: ort.InferenceSession, provider: Provider, *, half: bool) -> bool:
    """Decide whether float16 that the model asks for was computed in float32.

    The profile of its first run says so.
    """
    if not session.get_session_options().enable_profiling:
        return False
    profile = read_profile(Path(session.end_profiling()), provider)
    return precision(profile, provider, wants_half=half) in EMULATED


def _side(model: Model) -> Side:
    return Side(model.path, model.sha256, model.size_bytes, model.opset)


def pair_reference(pair: Pair, a: Model) -> Reference:
    """Return A's inputs and outputs.

    They're cached between runs when they are generated, made afresh when they were given.
    """
    try:
        if pair.recorded is None:
            return reference(a, pair.card, pair.settings, workbench().cache)
        return given(a, pair.recorded)
    except (ModelError, InputError) as error:
        raise type(error)(f"A ({a.path.name}): {error}") from None
    except HarnessError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no common class below Exception
        raise ModelError(
            f"A ({a.path.name}) doesn't run itself: {words_of(error)}"
        ) from None
