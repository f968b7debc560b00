"""The record of one cell, as it travels between processes and into results.json."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

from onnx_harness.results.coverage import CoverageRecord, SensitivityRecord
from onnx_harness.results.diagnosis import Diagnosis
from onnx_harness.results.generation import GenerationRecord
from onnx_harness.results.known import KnownRecord as KnownRecord
from onnx_harness.results.operators import OperatorRecord
from onnx_harness.results.run import HostInfo
from onnx_harness.results.timings import LatencyRecord, LevelVerdict


class Status(StrEnum):
    """The end that a cell came to.

    ``error`` is the harness's own fault or the environment's; ``fail`` is the cell's.
    """

    PASS = "pass"
    FAIL = "fail"
    ERROR = "error"
    NOT_APPLICABLE = "not_applicable"
    KNOWN_FAILURE = "known_failure"


class Stage(StrEnum):
    """The way of one cell, in order."""

    LOAD = "load"
    TRANSFORM = "transform"
    CHECK = "check"
    SESSION = "session"
    PLACEMENT = "placement"
    RUN = "run"
    COMPARE = "compare"
    LATENCY = "latency"
    DONE = "done"


class Symptom(StrEnum):
    """The kind of thing that went wrong, where a count of them says more than the stage."""

    # ONNX Runtime itself doesn't run the untouched model, or computes something else.
    NOT_RUN = "not_run"
    UNSTABLE = "unstable"  # the untouched model gives other outputs each time
    EXCEPTION = "exception"  # a transform raised
    INVALID = "invalid"  # the ONNX checker rejects what it made
    # Names, types or shapes of inputs or outputs aren't what they were.
    CHANGED_TYPES = "changed_types"
    # ONNX Runtime refuses what it made, or fails while running it.
    DOES_NOT_RUN = "does_not_run"
    CRASH = "crash"  # the process died, hung or ate its memory
    WRONG_VALUES = "wrong_values"
    # The values are right, but too many planted faults would have passed as well.
    INSENSITIVE = "insensitive"
    # The machine's: no process, no room on a disk; says nothing about the cell.
    ENVIRONMENT = "environment"
    # No output reacts to the inputs: nothing that was compared could have failed.
    VACUOUS = "vacuous"


class Departure(StrEnum):
    """The kind of a difference from the reference."""

    EXACT = "exact"
    NOISE = "noise"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class GraphChange:
    """The transforms' change to the graph. Bytes count external data.

    Attributes:
        operators_before: nodes by operator, those of bodies included; operators of other domains
            than ONNX's own with their domain.
        operators_after: the same, of what the transforms made.
        changes: what the steps say that they did, such as the rules of `simplify` with how often
            each applied.
    """

    nodes_before: int
    nodes_after: int
    bytes_before: int
    bytes_after: int
    transform_seconds: float
    operators_before: dict[str, int] = field(default_factory=dict)
    operators_after: dict[str, int] = field(default_factory=dict)
    changes: tuple[str, ...] = ()


NOT_SIMULATED = "float16 could not be simulated"
BF16_SIMULATED = "bfloat16 was simulated, with sums in float32, and nothing is timed"
"""The beginning of the note on a cell whose emulated float16 is judged as float32 computes it."""


@dataclass(frozen=True, slots=True)
class PlacementRecord:
    """The number of nodes that each provider executes.

    It comes from ONNX Runtime's own record and its profile of a run.

    What the profile tells is None or empty where the cell ended before a run.

    Attributes:
        requested: ONNX Runtime's name of the provider asked for.
        nodes: node count by ONNX Runtime provider name; by the record, before fusion.
        off_provider_ops: op types executed elsewhere that aren't allowed to be, with counts; by the
            record.
        share: nodes on the provider, of the nodes that aren't allowed elsewhere; 1.0 when there are
            none.
        executed: nodes that ran by provider name; by the profile, after fusion, inserted ones left
            out.
        time_share: time in the provider's kernels, of that in all kernels, as the host saw it.
        memcpy: nodes that copied between the provider's memory and the host's.
        inserted_casts: Casts that ONNX Runtime put around kernels which lack the type that the
            model asks for.
        arithmetic: nodes that computed floats, by the type that they computed in.
        precision: ``float16``, ``emulated`` (asked for float16, computed in float32), ``mixed``
            (some of each), or, where the model asks for no float16, the type that it computed in;
            None where no float was computed.
        operators: node count by operator, by ONNX Runtime provider name; by the record.
    """

    requested: str
    nodes: dict[str, int]
    off_provider_ops: dict[str, int]
    share: float
    executed: dict[str, int] = field(default_factory=dict)
    time_share: float | None = None
    memcpy: int | None = None
    inserted_casts: int | None = None
    arithmetic: dict[str, int] = field(default_factory=dict)
    precision: str | None = None
    operators: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ErrorSketch:
    """The distribution of the errors of one output's elements, all input sets together.

    Attributes:
        equal: sampled elements without an error.
        shares: sampled elements by k, where the error lies between 2^k and 2^(k+1) of what is
            allowed to the element; empty where nothing is allowed.
        greatest: the greatest error by k, over all elements whose reference's magnitude lies
            between 2^k and 2^(k+1), rounded up to four digits; k = -1023 has those of zeros.
    """

    equal: int
    shares: dict[str, int] = field(default_factory=dict)
    greatest: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutputAccuracy:
    """One output's distance from the reference, the worst over all input sets.

    Figures that don't exist (a relative error of text, the cosine of an empty tensor) or aren't
    finite are None.

    Attributes:
        max_abs: greatest absolute difference.
        max_rel: greatest relative difference where the reference isn't 0.
        rel_l2: ||candidate - reference|| / ||reference||.
        cosine: cosine of the angle between the two, flattened.
        sqnr_db: 10 log10(||reference||^2 / ||candidate - reference||^2); None when they are equal.
        nonfinite: elements where one is NaN or infinite and the other isn't the same.
        minimum_tolerance: the smallest rtol that would pass, atol scaled along with it; None when
            none would.
        rtol: relative tolerance used.
        atol: absolute tolerance used.
        vacuous: why the comparison could not have failed, or None.
        departure: ``exact`` (the same bits), ``noise`` (no further than the untouched model's own
            noise) or ``change``; None where the noise wasn't measured.
        floor_rel_l2: the model's noise, as a relative L2 error; the greatest over the input sets,
            as the two after it.
        ideal_rel_l2: that of the ideal conversion to the variant's type; None where the arithmetic
            is float32.
        factor: the L2 error in units of what explains it: the greater of the two.
        faithful: the departure is explained by noise, or by what the type costs.
        usable: it is within the user's bounds.
        errors: the distribution of its elements' errors; None of what isn't floating-point.
    """

    max_abs: float | None
    max_rel: float | None
    rel_l2: float | None
    cosine: float | None
    sqnr_db: float | None
    nonfinite: int
    minimum_tolerance: float | None
    rtol: float
    atol: float
    vacuous: str | None = None
    departure: Departure | None = None
    floor_rel_l2: float | None = None
    ideal_rel_l2: float | None = None
    factor: float | None = None
    faithful: bool | None = None
    usable: bool | None = None
    errors: ErrorSketch | None = None


@dataclass(frozen=True, slots=True)
class AccuracyRecord:
    """All outputs of a cell. Nested outputs are flattened: ``probs[0]``, ``probs[0]['cat']``."""

    input_sets: int
    outputs: dict[str, OutputAccuracy]


@dataclass(frozen=True, slots=True)
class PinnedRecord:
    """The same cell in the pinned reference environment, in lockstep with this one.

    Times in milliseconds.

    Attributes:
        versions: of the reference environment: ``python`` and distribution names to versions.
        status: how the cell ended there.
        reason: why it didn't pass there, or why the two couldn't be timed side by side; None or one
            sentence.
        model_sha256: of the model that ran there: the accepted one.
        ratio: time under test over time in the reference, median over the pairs; above 1 the
            versions under test are slower. None when it couldn't be taken.
        ratio_ci95: 95% interval over the pairs.
        log_ratios: ln(time under test / time in the reference) of each pair of fresh processes.
        median_ms: under test, in lockstep.
        pinned_median_ms: in the reference.
        samples: timed runs of each side.
        verdict: on ``log_ratios``, and on those below, beside the accepted level; None where there
            is no level that they may be held against.
        confirming_log_ratios: as ``log_ratios``, of the second measurement, on fresh pairs; empty
            where the verdict didn't ask for one.
        operators: those that got slower; None where nobody asked, since the cell isn't slower.
    """

    versions: dict[str, str]
    status: Status
    reason: str | None = None
    model_sha256: str = ""
    graph: GraphChange | None = None
    accuracy: AccuracyRecord | None = None
    ratio: float | None = None
    ratio_ci95: tuple[float, float] | None = None
    log_ratios: tuple[float, ...] = ()
    median_ms: float | None = None
    pinned_median_ms: float | None = None
    samples: int = 0
    threads: int = 1
    verdict: LevelVerdict | None = None
    confirming_log_ratios: tuple[float, ...] = ()
    operators: OperatorRecord | None = None

    @property
    def night_ratio(self) -> float | None:
        """The night's figure: ``ratio``, or that of the second measurement.

        The second has more pairs and wasn't chosen.
        """
        return (
            math.exp(median(self.confirming_log_ratios))
            if self.confirming_log_ratios
            else self.ratio
        )

    @property
    def night_ci95(self) -> tuple[float, float] | None:
        """95% interval of the night's figure."""
        if not self.confirming_log_ratios:
            return self.ratio_ci95
        if self.verdict is None or self.verdict.ratio_ci95 is None:
            return None
        low, high = self.verdict.ratio_ci95
        return self.verdict.accepted * low, self.verdict.accepted * high


@dataclass(frozen=True, slots=True)
class CellResult:
    """The verdict of a cell with all its numbers; the fields of ``cells[]`` in results.json.

    Attributes:
        stage: where it ended; ``done`` when it went all the way that was asked.
        reason: None or one sentence.
        detail: further lines for a person: every failing output, the command that runs the cell
            alone.
        opset: the model's version of the standard operator set.
        notes: remarks on a verdict that stands (a vacuous output, a nondeterministic one).
        symptom: what kind of thing went wrong; None where nothing did, or where the stage says it
            all.
        card_sha256: hash of what the card says about inputs, tolerances and known failures.
        inputs_sha256: hash of the input sets that it was judged on; empty when it didn't get that
            far.
        pinned: the same cell in the pinned reference environment; None when none was named.
        sensitivity: what the verdict catches; None where it wasn't asked for.
        coverage: what its input sets reach; None where the model decides by nothing that is
            counted.
        accuracy_emulated: where a provider computed float16 in float32: the distances of what it
            gave. ``accuracy`` has those that decided.
        accuracy_simulated: the distances where float16 was simulated; None where it wasn't.
        generation: greedy decoding; None where the card doesn't ask for it.
        diagnosis: the cause of its failure; None where it wasn't searched for.
        known: the card's entry on it; None where it has none.
        peak_bytes: of resident memory, the most that the process was seen to hold while it judged
            the cell.
        machine: where it was judged and timed, if that isn't the run's own host.
    """

    id: str
    model: str
    model_sha256: str
    variant: str
    provider: str
    status: Status
    stage: Stage
    reason: str | None = None
    graph: GraphChange | None = None
    placement: PlacementRecord | None = None
    accuracy: AccuracyRecord | None = None
    latency: LatencyRecord | None = None
    detail: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    opset: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    symptom: Symptom | None = None
    card_sha256: str = ""
    inputs_sha256: str = ""
    pinned: PinnedRecord | None = None
    sensitivity: SensitivityRecord | None = None
    coverage: CoverageRecord | None = None
    accuracy_emulated: AccuracyRecord | None = None
    accuracy_simulated: AccuracyRecord | None = None
    generation: GenerationRecord | None = None
    diagnosis: Diagnosis | None = None
    known: KnownRecord | None = None
    peak_bytes: int | None = None
    machine: HostInfo | None = None

    def processor(self, host: HostInfo) -> str:
        """Return what computed it, as a key of history: times of two processors are never compared.

        Args:
            host: of the cell's run.
        """
        return (self.machine or host).processor_of(self.provider)
