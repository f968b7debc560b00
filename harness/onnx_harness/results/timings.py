"""The records of a cell's time: transfers, the machine's condition, latency, the level."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_harness.results.outcome import Outcome


@dataclass(frozen=True, slots=True)
class TransferRecord:
    """Latency with the transfers to a device and back, paired with the baseline's.

    Fields as in `LatencyRecord`.
    """

    median_ms: float
    baseline_median_ms: float
    speedup: float
    speedup_ci95: tuple[float, float] | None
    log_ratios: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ConditionsRecord:
    """The machine's condition during a measurement.

    Attributes:
        affinity: the cores that the runs were kept on; None where they weren't.
        load: the load average over a minute, before; None where the system has none.
        steal_share: of the machine's CPU time, what its host gave to others.
        involuntary_switches: how often this process lost a core to another.
    """

    affinity: tuple[int, ...] | None
    load: float | None
    steal_share: float
    involuntary_switches: int


@dataclass(frozen=True, slots=True)
class LatencyRecord:
    """Steady-state latency, paired with the baseline's. Times in milliseconds, ratios without unit.

    Where a device has a memory of its own, inputs lie in it beforehand, and `end_to_end` has the
    other figure.

    Attributes:
        samples: timed runs of the variant.
        pairs: fresh pairs of sessions, the replicates of the interval.
        speedup: baseline over variant, median over pairs; above 1 the variant is faster.
        speedup_ci95: 95% interval over the pairs; None when there are too few of them.
        session_ms: creating the variant's session, median over pairs.
        first_run_ms: its first run, median over pairs.
        threads: intra-op threads of both sessions.
        spinning: whether idle threads of the sessions wait busily.
        log_ratios: ln(baseline / variant) of each pair, the median over its iterations: what a
            verdict rests on.
        unsettled_pairs: pairs whose warm-up ended before two adjacent windows of runs agreed within
            1%.
        input_sets: sets of inputs that the runs took in turn.
        end_to_end: with transfers to the device and back; None where it has no memory of its own.
    """

    median_ms: float
    p90_ms: float | None
    p99_ms: float | None
    baseline_median_ms: float
    speedup: float
    speedup_ci95: tuple[float, float] | None
    samples: int
    pairs: int
    session_ms: float
    first_run_ms: float
    threads: int = 1
    spinning: bool = False
    log_ratios: tuple[float, ...] = ()
    unsettled_pairs: int = 0
    input_sets: int = 1
    end_to_end: TransferRecord | None = None
    conditions: ConditionsRecord | None = None


@dataclass(frozen=True, slots=True)
class LevelVerdict:
    """The verdict of one night's pairs on a cell's time, compared with its accepted level.

    Above 1 is slower than accepted.

    Attributes:
        outcome: of both measurements where there were two.
        accepted: the accepted ratio that the pairs were held against.
        p: of the test that it isn't slower, adjusted for the other cells of the run in the first
            measurement; None where INVALID.
        ratio: time over the accepted level, the pseudomedian over pairs; of the second measurement
            where there is one.
        ratio_ci95: its 95% interval.
        pairs: that it rests on.
        reason: why it's INVALID, or how two measurements made the outcome; else None.
    """

    outcome: Outcome
    accepted: float
    p: float | None
    ratio: float | None
    ratio_ci95: tuple[float, float] | None
    pairs: int
    reason: str | None = None
