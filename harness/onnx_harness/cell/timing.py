"""Time a cell that passed, paired with its baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx_harness import providers
from onnx_harness.cell.pipeline import place_of_artifact
from onnx_harness.cell.state import Judged, Task
from onnx_harness.cell.subjects import subject_of
from onnx_harness.inputs.values.sets import shapes_of
from onnx_harness.latency import measure
from onnx_harness.latency.plain import PlainRounds
from onnx_harness.latency.sessions import keeps_to_its_threads, timed_session
from onnx_harness.latency.sides import Opener, Side
from onnx_harness.latency.taking_turns import LARGE_BYTES, taking_turns
from onnx_harness.model.custom_ops import custom_operators
from onnx_harness.results.cells import CellResult
from onnx_harness.results.timings import LatencyRecord


def timing_inputs(task: Task) -> list[dict[str, Any]]:
    """The input sets to time a cell on.

    Meant to run in the worker, which has what :func:`judge` used at hand.

    Those of the first set's shapes, since a latency is that of one size; and no unusual ones:
    arithmetic on subnormal numbers alone is many times slower.
    """
    reference_sets = subject_of(task).reference
    usual = [reference_sets.sets[place] for place in reference_sets.everyday]
    input_sets: list[dict[str, Any]] = []
    for input_set in usual:
        if shapes_of(input_set) == shapes_of(usual[0]):
            input_sets.append(dict(input_set.values))
    return input_sets


def time_by_itself(task: Task, result: CellResult) -> LatencyRecord | None:
    """Time a cell that passed, as :func:`time_cell` does, without pytest-benchmark's fixture.

    Meant to run in the worker of another machine, where no process but that one opens a model.
    """
    path, level = place_of_artifact(task)
    return time_cell(task, Judged(result, path, level), timing_inputs(task), PlainRounds())


def time_cell(
    task: Task, judged: Judged, sets: Sequence[Mapping[str, Any]], benchmark: Any
) -> LatencyRecord | None:
    """Time a cell that passed, paired with the baseline, through pytest-benchmark's fixture.

    Args:
        task: the cell.
        judged: what :func:`judge` said of it.
        sets: the inputs to time it on, of the dtypes that the original takes; both sides take them
            in turn.
        benchmark: pytest-benchmark's fixture.

    Returns:
        None when pytest-benchmark was told not to measure.
    """
    provider = providers.get(task.cell.provider)
    if judged.artifact is None:
        raise ValueError(f"{task.cell.id} did not pass: there is nothing to time")
    variant = judged.artifact

    def open_baseline() -> Side:
        return timed_session(task.model, provider, sets)

    def open_variant() -> Side:
        return timed_session(variant, provider, sets, level=judged.level)

    openers: tuple[Opener, Opener] = (open_baseline, open_variant)
    if _bytes(judged) > LARGE_BYTES:
        openers = taking_turns(*openers)
    with custom_operators(task.custom_ops):
        return measure(
            benchmark,
            baseline=openers[0],
            variant=openers[1],
            budget_s=task.settings.latency_budget,
            seed=task.settings.seed,
            pin=keeps_to_its_threads(provider),
            labels={
                "model": task.cell.card.name,
                "variant": task.cell.variant.id,
                "provider": provider.name,
            },
        )


def _bytes(judged: Judged) -> int:
    """Return the size of the untouched model and of its variant together."""
    graph = judged.result.graph
    return 0 if graph is None else graph.bytes_before + graph.bytes_after
