"""Runs and cells for the tests of results and reports, with as little said as the test needs."""

from dataclasses import replace

from onnx_harness.results.cells import (
    AccuracyRecord,
    CellResult,
    GraphChange,
    OutputAccuracy,
    PlacementRecord,
    Stage,
    Status,
)
from onnx_harness.results.coverage import FaultCount, SensitivityRecord
from onnx_harness.results.run import HostInfo, RunInfo
from onnx_harness.results.timings import ConditionsRecord, LatencyRecord, TransferRecord

RUN = RunInfo(
    id="20260102t030405z-0a1b2c3d",
    started="2026-01-02T03:04:05+00:00",
    command="pytest models --provider cpu",
    seed=7,
    host=HostInfo("A Processor", 2, 8_000_000_000, "Linux"),
    versions={"python": "3.11.7", "onnx": "1.23.2"},
)


def output(
    minimum_tolerance: float | None = 1.1e-6, rtol: float = 1e-4, **more: object
) -> OutputAccuracy:
    given = {
        "max_abs": 1e-6,
        "max_rel": 0.1,
        "rel_l2": 1e-5,
        "cosine": 0.999,
        "sqnr_db": 100.0,
        "nonfinite": 0,
    }
    return OutputAccuracy(
        minimum_tolerance=minimum_tolerance,
        rtol=rtol,
        atol=1e-5,
        **{**given, **more},  # type: ignore[arg-type]
    )


def latency(
    median_ms: float = 28.4,
    speedup: float = 1.02,
    ci95: tuple[float, float] | None = (1.01, 1.03),
) -> LatencyRecord:
    return LatencyRecord(
        median_ms, median_ms * 1.1, None, 29.0, speedup, ci95, 100, 16, 12.5, 40.0, threads=2
    )


def full_latency() -> LatencyRecord:
    """A record of a device with a memory of its own, every field filled."""
    return replace(
        latency(),
        log_ratios=(0.01, 0.02),
        unsettled_pairs=1,
        input_sets=2,
        end_to_end=TransferRecord(3.0, 4.0, 1.33, (1.2, 1.4), (0.28, 0.29)),
        conditions=ConditionsRecord((1,), 0.5, 0.01, 12),
    )


def sensitivity(
    caught: int = 27, planted: int = 30, smallest_change: float | None = 0.003
) -> SensitivityRecord:
    missed = tuple("weight +1%: 1% more in w" for _ in range(planted - 2 - caught))
    kinds = {"weight +1%": FaultCount(planted, caught, 2)}
    score = caught / (planted - 2)
    return SensitivityRecord(
        planted, caught, 0, 2, missed, score, smallest_change, "w of MatMul 'm'", kinds, 3.5
    )


def cell(
    variant: str = "original", model: str = "net", provider: str = "cpu", **more: object
) -> CellResult:
    """A cell that passed with all its numbers but latency; ``more`` overrides fields."""
    given = {
        "status": Status.PASS,
        "stage": Stage.DONE,
        "graph": GraphChange(672, 331, 4_700_000, 4_600_000, 0.5),
        "placement": PlacementRecord(
            *("CPUExecutionProvider", {"CPUExecutionProvider": 331}, {}, 1.0),
            operators={"CPUExecutionProvider": {"Conv": 200, "Relu": 131}},
        ),
        "accuracy": AccuracyRecord(4, {"y": output()}),
        "seconds": {"load": 0.25},
    }
    fields = {**given, **more}
    return CellResult(
        f"{model}-{variant}-{provider}",
        model,
        "ab" * 32,
        variant,
        provider,
        **fields,  # type: ignore[arg-type]
    )
