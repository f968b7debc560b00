"""The row of smallest models: planted faults, each reduced to the model that still shows it.

Of each it looks at the nodes, the checks that it took, whether a diagnosis of the small model names
the same cause, and whether its script exits with 1, and with 0 once the fault is taken away.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from onnx_harness.cards.card import Card
from onnx_harness.cards.fetch import materialize
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.cell.workers import cell_worker
from onnx_harness.diagnose import handout
from onnx_harness.diagnose.fault import Fault
from onnx_harness.diagnose.oracle import Observer
from onnx_harness.diagnose.search import diagnose
from onnx_harness.diagnose.smaller_case import Case
from onnx_harness.names import ORIGINAL, parse_variant
from onnx_harness.results.diagnosis import Diagnosis, Smallest
from onnx_harness.selftest.bench import Bench, Outcome
from onnx_harness.selftest.cause_rows import of_tiny, tiny
from onnx_harness.selftest.planted_causes import STEP, Planted, planted_steps
from onnx_harness.selftest.table import Row, Step, none_bad, summed, total
from onnx_harness.settings import Settings
from onnx_harness.transforms.variant import bind_variant

# What ends or stalls the process isn't in the graph, and its smallest model says nothing of it.
_NOT_IN_THE_GRAPH = frozenset({"exception", "crash", "hang"})
_MEDIAN_NODES, _MOST_NODES, _MEDIAN_CHECKS = 3, 6, 40
_SCRIPT_SECONDS = 120
_TIMED_CHECKS, _LEAST_RATE, _CHECK_SECONDS = 200, 100, 10.0
_SETTINGS = Settings(input_sets=1)


def _steps(bench: Bench) -> Iterator[Step]:
    yield Step("checks a second", _rate, "rate")
    faults = [fault for fault in planted_steps() if fault.kind not in _NOT_IN_THE_GRAPH]
    if bench.quick:
        for fault in (faults[0], faults[-1]):
            yield Step(f"tiny, {fault.kind}", partial(of_tiny, partial(judge, fault=fault)))
        return
    for card in bench.cards:
        for fault in faults:
            yield Step(f"{card.name}, {fault.kind}", partial(judge, card, fault), fault.kind)


def timed_checks(fault: Planted, count: int) -> float:
    """Return the seconds of so many checks of a tiny model, once the fork is there.

    Meant for a worker: what is forked must have no sessions.
    """
    values = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    case = Case(tiny(), {"x": values})
    observer = Observer(Fault(fault.step, fault.parts, "disable"))
    try:
        sign = observer.look(case, _CHECK_SECONDS)
        if sign is None or not sign.fails:
            raise RuntimeError(f"the tiny model doesn't show the planted fault: {sign}")
        started = time.perf_counter()
        for _ in range(count):
            observer.look(case, _CHECK_SECONDS)
        return time.perf_counter() - started
    finally:
        observer.close()


def _rate() -> Outcome:
    """Measure the checks a second; none of the models is counted."""
    with closing(cell_worker(Settings(), preload=("onnx", "onnxruntime"))) as worker:
        seconds = worker.call(timed_checks, next(planted_steps()), _TIMED_CHECKS)
    return rate_outcome(_TIMED_CHECKS / seconds)


def rate_outcome(rate: float) -> Outcome:
    """Return what counts of a number of checks a second."""
    words: tuple[str, ...] = ()
    if rate < _LEAST_RATE:
        words = (
            f"a tiny model: {rate:.0f} checks a second, at least {_LEAST_RATE} are asked for",
        )
    return Outcome(0, int(bool(words)), words, {"rate": rate})


def judge(card: Card, fault: Planted) -> Outcome:
    """Plant a fault in a chain of no other steps, and look at the smallest model that shows it."""
    name = f"{card.name}: {fault.kind}"
    with tempfile.TemporaryDirectory(prefix="onnx-harness-smallest-") as scratch:
        folder = Path(scratch) / "shown"
        diagnosis = _diagnosed(card, fault, folder)
        if not diagnosis.found:  # the row of causes counts those
            return Outcome(0, 0, (f"{name}: no cause, not counted: {diagnosis.sentence}",))
        if diagnosis.smallest is None:
            return Outcome(0, 0, (f"{name}: no smallest model: {diagnosis.evidence[-1]}",))
        again = _diagnosed(
            card_for(folder / handout.MODEL), fault, None, folder / handout.INPUTS
        )
        codes = (_exit_code(folder), _exit_code(folder, "--control"))
    return outcome_of(name, diagnosis.smallest, again, fault, codes)


def outcome_of(
    name: str, smallest: Smallest, again: Diagnosis, fault: Planted, codes: tuple[int, int]
) -> Outcome:
    """Return what counts of a smallest model.

    Args:
        name: of the fault and the model that it was planted in.
        smallest: the smallest model.
        again: the diagnosis of that.
        fault: that was planted.
        codes: the exit codes of its script, and of that with the fault taken away.
    """
    is_same = _names(again, fault)
    words = []
    if not is_same:
        words.append(f"{name}: at the end the cause is another one: {again.sentence}")
    if codes != (1, 0):
        words.append(
            f"{name}: the script exits with {codes[0]}, and {codes[1]} as a control"
        )
    figures = {
        "nodes": smallest.nodes,
        "checks": smallest.checks,
        "same": float(is_same),
        "shown": float(codes == (1, 0)),
    }
    return Outcome(1, int(bool(words)), tuple(words), figures)


def _diagnosed(
    card: Card, fault: Planted, folder: Path | None, recorded: Path | None = None
) -> Diagnosis:
    variant = parse_variant(ORIGINAL)
    bound = bind_variant(variant)
    bound = replace(bound, steps=(*bound.steps, fault.step))
    task = Task(Cell(card, variant, "cpu"), materialize(card), _SETTINGS, recorded=recorded)
    return diagnose(task, bound=bound, folder=folder)


def _names(diagnosis: Diagnosis, fault: Planted) -> bool:
    cause = diagnosis.cause
    parts = cause.passes if fault.passes else cause.rules
    return cause.transform == STEP and parts == fault.parts


def _exit_code(folder: Path, *words: str) -> int:
    command = [sys.executable, handout.SCRIPT, *words]
    finished = subprocess.run(
        command, cwd=folder, capture_output=True, timeout=_SCRIPT_SECONDS, check=False
    )
    return finished.returncode


def _quantile(outcomes: Sequence[Outcome], figure: str, share: float) -> float:
    numbers = [outcome.figures[figure] for outcome in outcomes if outcome.count]
    return float(np.quantile(numbers, share, method="inverted_cdf")) if numbers else 0.0


def _figure(outcomes: Sequence[Outcome]) -> str:
    nodes, most, checks = (
        _quantile(outcomes, "nodes", 0.5),
        _quantile(outcomes, "nodes", 0.95),
        _quantile(outcomes, "checks", 0.5),
    )
    count = total(outcomes)
    rate = max((outcome.figures.get("rate", 0.0) for outcome in outcomes), default=0.0)
    return (
        f"{count} models: median {nodes:.0f} nodes, 95th percentile {most:.0f}; median "
        f"{checks:.0f} checks; the same cause at the end of {summed(outcomes, 'same')}; the "
        f"script right for {summed(outcomes, 'shown')}; {rate:.0f} checks a second of a tiny one"
    )


def _reached(outcomes: Sequence[Outcome]) -> bool:
    small = _quantile(outcomes, "nodes", 0.5) <= _MEDIAN_NODES
    small = small and _quantile(outcomes, "nodes", 0.95) <= _MOST_NODES
    cheap = _quantile(outcomes, "checks", 0.5) <= _MEDIAN_CHECKS
    return small and cheap and none_bad(outcomes) and total(outcomes) > 0


SMALLEST = Row(
    "smallest",
    "the smallest models of planted faults: nodes, checks, cause at the end, script",
    "median 3 nodes, 95th percentile 6, median 40 checks; all the same cause, all scripts right; "
    "100 checks a second",
    _steps,
    _figure,
    _reached,
)
