"""Runs to look at: all green, twenty failures of three causes, five thousand cells, hostile names."""

import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from onnx_harness.report.background import Background
from onnx_harness.report.trends import PINNED, Night, Trend, standing
from onnx_harness.results.cells import (
    AccuracyRecord,
    CellResult,
    Departure,
    ErrorSketch,
    GraphChange,
    OutputAccuracy,
    PinnedRecord,
    PlacementRecord,
    Stage,
    Status,
)
from onnx_harness.results.coverage import CoverageRecord, Reached
from onnx_harness.results.diagnosis import Cause, Diagnosis, Mend, NodeCause, Smallest
from onnx_harness.results.operators import OperatorRecord, SlowerOperator
from onnx_harness.results.run import RunInfo
from onnx_harness.results.store import Results
from onnx_harness.results.timings import LatencyRecord
from tests.unit.results_examples import RUN, cell, full_latency, output, sensitivity

VARIANTS = ("original", "optimize", "simplify", "fp16", "fp16.io32", "simplify+fp16.io32")
HOSTILE = "</script><img src=x onerror=alert(2)><b>&amp;\u202e#%2B\"'`\n"

_FAITHFUL = (
    "not faithful: output sigmoid_0 departs by 3.1e-02 (relative L2), {} times what ideal "
    "float16 does"
)
_REFUSED = (
    "ONNX Runtime refuses it: Type parameter (T) of Optype (Add) bound to different types "
    "in node (/layer.{}/Add)"
)
_PLACED = "{} nodes of 331 run on CPUExecutionProvider, and 0 are allowed there"
CAUSES = (
    (11, _FAITHFUL, Stage.COMPARE),
    (6, _REFUSED, Stage.SESSION),
    (3, _PLACED, Stage.PLACEMENT),
)


def passing(models: int, variants: tuple[str, ...] = VARIANTS) -> list[CellResult]:
    """Cells that pass with all their figures."""
    draw = random.Random(7)
    return [
        _passing(draw, f"model_{number}", variant)
        for number in range(models)
        for variant in variants
    ]


def _passing(draw: random.Random, model: str, variant: str) -> CellResult:
    size = draw.randint(10**6, 10**8)
    after = draw.randint(200, 600)
    graph = GraphChange(
        600,
        after,
        size,
        size // 2 if "fp16" in variant else size,
        draw.random(),
        {"Conv": 100, "Add": 500},
        {"Conv": 100, "Add": after - 100},
        () if variant == "original" else (f"{variant}: fuse adds {600 - after}",),
    )
    outputs = {f"out_{number}": _output(draw) for number in range(2)}
    return cell(
        variant,
        model,
        graph=graph,
        accuracy=AccuracyRecord(4, outputs),
        latency=_latency(draw, variant),
        sensitivity=sensitivity(draw.randint(20, 28)),
    )


def _output(draw: random.Random) -> OutputAccuracy:
    needed = 10 ** draw.uniform(-7, -4.1)
    return output(
        needed,
        rel_l2=needed * draw.random(),
        floor_rel_l2=2e-7 * draw.random(),
        ideal_rel_l2=5e-4,
        factor=draw.uniform(0.1, 3),
        faithful=True,
        usable=True,
        departure=Departure.CHANGE,
        errors=_errors(draw, needed),
    )


def _errors(draw: random.Random, needed: float) -> ErrorSketch:
    """A bell whose greatest error is the output's."""
    top = math.floor(math.log2(needed / 1e-4))
    shares = {
        str(top - place): draw.randint(1, 9) * 4 ** min(place, 6) for place in range(14)
    }
    return ErrorSketch(17, shares, {"0": needed})


def _latency(draw: random.Random, variant: str) -> LatencyRecord:
    speedup = 1.0 if variant == "original" else draw.uniform(0.5, 3)
    ratios = tuple(draw.gauss(0, 0.02) for _ in range(16))
    interval = (speedup * 0.98, speedup * 1.02)
    return replace(
        full_latency(),
        median_ms=draw.uniform(1, 30),
        speedup=speedup,
        speedup_ci95=interval,
        log_ratios=ratios,
    )


def failing() -> list[CellResult]:
    """Eight models that pass, and twenty failures of three causes."""
    cells = passing(8)
    number = 0
    for many, reason, stage in CAUSES:
        for _ in range(many):
            cells.append(_failed(number, reason.format(number + 40), stage))
            number += 1
    return cells


def _diagnosis(number: int, path: str) -> Diagnosis:
    node = NodeCause(f"/layer.{number}/Exp", "Exp", 0.031, 1.2e-6)
    sentence = (
        f"step fp16: node '{node.name}' (Exp) overflows in float16 on input set 'large'"
    )
    evidence = ("the original passes", "fp16 alone fails", "without /layer.0/Exp it passes")
    cause = Cause(transform="fp16", rules=(node.name,), node=node, input_set="large")
    mend = Mend("fp16(op_block_list=['Exp'])", verified=True)
    return Diagnosis(
        sentence, cause, Smallest(path, 1, 17), mend, evidence=evidence, found=True
    )


def _failed(number: int, reason: str, stage: Stage) -> CellResult:
    variant, model = VARIANTS[number % 5 + 1], f"failing_{number // 5}"
    placement = PlacementRecord(
        "CUDAExecutionProvider", {"CUDAExecutionProvider": 328}, {"NonZero": 3}, 0.99
    )
    return cell(
        variant,
        model,
        "cuda",
        status=Status.FAIL,
        stage=stage,
        reason=reason,
        placement=placement,
        diagnosis=_diagnosis(number, f"reports/repro/{model}")
        if stage is Stage.COMPARE
        else None,
        detail=(
            "sigmoid_0: 6.1% of 102,400 values beyond the tolerance",
            f"kept by itself: reports/repro/{model}-{variant}-cuda",
            f"alone: pytest models/{model}.model.toml --variant {variant} --seed 0",
        ),
    )


def evidence() -> CellResult:
    """A cell with all that its page can show: coverage, slower operators, two sets of errors."""
    [full, *_] = passing(1, ("fp16.io32",))
    assert full.accuracy is not None
    float32 = {
        name: replace(one, rel_l2=1e-7, errors=None)
        for name, one in full.accuracy.outputs.items()
    }
    slowest = SlowerOperator("/gru/GRU", "GRU", 1.4, 2.1, (1.47, 1.53), 0.97)
    there, here = "CUDAExecutionProvider", "CPUExecutionProvider"
    placement = PlacementRecord(
        there,
        {there: 14, here: 3},
        {"NonZero": 2},
        0.875,
        operators={there: {"GRU": 12, "Relu": 2}, here: {"NonZero": 2, "Relu": 1}},
    )
    return replace(
        full,
        placement=placement,
        accuracy_simulated=full.accuracy,
        accuracy_emulated=AccuracyRecord(4, float32),
        coverage=CoverageRecord({"leaves": Reached(60, 64)}, ("'x' isn't followed back",)),
        pinned=PinnedRecord({}, Status.PASS, operators=OperatorRecord((slowest,), 5)),
        notes=("3 weights of 'w' were clipped at 65504; the largest was 7e+04",),
    )


def large() -> list[CellResult]:
    """Five thousand cells, of a hundred models by fifty variants."""
    return passing(100, tuple(f"variant_{number}" for number in range(50)))


VACUOUS = output(
    rel_l2=1e-3,
    floor_rel_l2=1e-6,
    vacuous=HOSTILE,
    errors=ErrorSketch(1, {"-3": 5}, {"0": 1.0}),
)
SLOWER = SlowerOperator(HOSTILE, HOSTILE, 1.0, 2.0, None, 1.0)


def hostile() -> list[CellResult]:
    """A cell of each status whose every text is hostile."""
    accuracy = AccuracyRecord(1, {HOSTILE: VACUOUS})
    placement = PlacementRecord(
        *(HOSTILE, {HOSTILE: 3}, {HOSTILE: 2}, 0.5),
        arithmetic={HOSTILE: 1},
        precision="mixed",
        operators={HOSTILE: {HOSTILE: 1}},
    )
    return [
        cell(
            f"{HOSTILE}{status}",
            HOSTILE,
            HOSTILE,
            status=status,
            stage=Stage.RUN,
            reason=HOSTILE,
            graph=GraphChange(1, 2, 3, 4, 0.1, {HOSTILE: 1}, {HOSTILE: 2}, (HOSTILE,)),
            coverage=CoverageRecord({HOSTILE: Reached(1, 2)}, (HOSTILE,)),
            pinned=PinnedRecord(
                {}, Status.PASS, operators=OperatorRecord((SLOWER,), 1, reason=HOSTILE)
            ),
            detail=(HOSTILE, f"kept by itself: {HOSTILE}", f"alone: {HOSTILE}"),
            notes=(HOSTILE,),
            accuracy=accuracy,
            placement=placement,
            latency=full_latency(),
        )
        for status in Status
    ]


def background(cells: list[CellResult]) -> Background:
    """Return a past for a run: yesterday all passed, and thirty nights of which one cell's level
    moved.
    """
    yesterday = [
        replace(each, status=Status.PASS, stage=Stage.DONE, reason=None, detail=())
        for each in cells
    ]
    trends = tuple(_trend(place, each) for place, each in enumerate(cells))
    return Background(Results(_night_run(29), tuple(yesterday[1:])), trends)


def _night_run(number: int) -> RunInfo:
    started = datetime(2025, 12, 3, 2, 15, tzinfo=UTC) + timedelta(days=number)
    return replace(
        RUN, id=f"night{number:02}", started=started.isoformat(), versions={"onnx": "1.22.0"}
    )


def _trend(place: int, cell: CellResult) -> Trend:
    draw = random.Random(place)
    nights = []
    for number in range(30):
        slower = 1.07 if place == 1 and number >= 18 else 1.0
        value = slower * draw.gauss(1.0, 0.01)
        level = None if number < 3 else 1.0
        nights.append(
            Night(
                _night_run(number), Status.PASS, value, (value * 0.99, value * 1.01), level
            )
        )
    nights.append(Night(RUN, cell.status, nights[-1].value if cell.latency else None))
    moved = (18,) if place == 1 else ()
    return Trend(cell.id, PINNED, tuple(nights), moved, standing(nights))
