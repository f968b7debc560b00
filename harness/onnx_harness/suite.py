"""The tests that every cell gets. The plugin makes a test module of this one for each model."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from onnx_harness.cards.backend_suite import case_of
from onnx_harness.cell.known import with_ledger
from onnx_harness.cell.matrix import GROUPS, Cell, upstream
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.results.diagnosis import Diagnosis
from onnx_harness.run.selection import from_here

if TYPE_CHECKING:
    from onnx_harness.run.runner import Runner


# pytest-benchmark's, of a test whose timing an earlier run or another machine did
_UNUSED = "Benchmark fixture was not used"


class Record(Protocol):
    """Takes a cell's verdict; ``reused`` is one that an earlier run made."""

    def __call__(self, result: CellResult, *, reused: bool = False) -> None:
        """Keep it for the report."""


Progress = Callable[[str], None]


def test_accuracy(
    onnx_cell: Cell,
    _onnx_runner: Runner,
    _onnx_record: Record,
    _onnx_progress: Progress,
    request: pytest.FixtureRequest,
) -> None:
    """The cell's outputs are the reference's, within the tolerance.

    They were computed where it was asked.
    """
    if (earlier := _onnx_runner.past.verdict(onnx_cell)) is not None:
        _onnx_record(earlier, reused=True)
        conclude(earlier)
        return
    from onnx_harness.diagnose import repro

    result = against_expectation(judged(onnx_cell, _onnx_runner, _onnx_progress), onnx_cell)
    command_kept = repro.settle(_onnx_runner, onnx_cell, result)
    if result.status in (Status.FAIL, Status.ERROR):
        lines = [] if command_kept is None else [command_kept]
        result = replace(
            result,
            detail=(*result.detail, *lines, alone(request.node, onnx_cell, _onnx_runner)),
        )
        try:
            result = diagnosed(result, onnx_cell, _onnx_runner, _onnx_progress)
        except KeyboardInterrupt as interruption:
            # The verdict is there, and reaches the report as a test's that ends. The run stops
            # after it, as pytest does at Ctrl-C.
            result = interrupted(result, interruption)
            request.session.shouldstop = (
                f"the search for the cause of {onnx_cell.id} was stopped"
            )
    _onnx_runner.reported[onnx_cell.id] = result
    _onnx_record(result)
    conclude(result)


def test_latency(
    onnx_cell: Cell,
    _onnx_runner: Runner,
    _onnx_record: Record,
    _onnx_progress: Progress,
    benchmark: Any,
    request: pytest.FixtureRequest,
) -> None:
    """The cell's latency, paired with the baseline's. Only what passed its accuracy is timed."""
    if hasattr(request.config, "workerinput"):
        pytest.skip(
            "latency isn't measured under xdist, where cells disturb each other: run it without -n"
        )
    if (earlier := _onnx_runner.past.timed(onnx_cell)) is not None:
        # pytest reads a marker's filters when a test begins, and takes back those set in it.
        warnings.filterwarnings("ignore", _UNUSED)
        _onnx_record(earlier, reused=True)
        conclude(earlier)
        return
    # Of a failure, what its test reported has the cause too, and where its files are.
    accurate = (
        _onnx_runner.past.verdict(onnx_cell)
        or _onnx_runner.reported.get(onnx_cell.id)
        or against_expectation(judged(onnx_cell, _onnx_runner, _onnx_progress), onnx_cell)
    )
    if accurate.status is not Status.PASS:
        reused = _onnx_runner.past.verdict(onnx_cell) is not None
        _onnx_record(_onnx_runner.beside(onnx_cell, accurate), reused=reused)
        pytest.skip(
            f"accuracy ended as {accurate.status} at {accurate.stage}: only what passes is timed"
        )
    if benchmark.disabled:
        _onnx_record(_onnx_runner.beside(onnx_cell, accurate))
        pytest.skip("latency isn't measured: --benchmark-disable")
    if accurate.placement is None:
        _onnx_record(_onnx_runner.beside(onnx_cell, accurate))
        pytest.skip(
            "its type was simulated, since the provider has no kernels for it: there is nothing "
            "to time"
        )
    if _onnx_runner.timed_elsewhere(onnx_cell):
        warnings.filterwarnings("ignore", _UNUSED)
    # What pytest-benchmark stores and shows: a name with the model, and params that JSON has.
    benchmark.name, benchmark.param = f"test_latency[{onnx_cell.id}]", onnx_cell.id
    benchmark.params = {
        "model": onnx_cell.card.name,
        "variant": onnx_cell.variant.id,
        "provider": onnx_cell.provider,
    }
    result = _onnx_runner.time(onnx_cell, benchmark)
    if result.status is Status.ERROR:
        result = replace(result, detail=(alone(request.node, onnx_cell, _onnx_runner),))
    _onnx_record(result)
    conclude(result)


def judged(cell: Cell, runner: Runner, progress: Progress) -> CellResult:
    """The verdict on the cell, with its sensitivity where that was asked for."""
    if not runner.settings.sensitivity:
        return runner.judge(cell)
    from onnx_harness.mutation import sensitivity

    return sensitivity.examine(runner, cell, progress)


def diagnosed(
    result: CellResult, cell: Cell, runner: Runner, progress: Progress
) -> CellResult:
    """The failing cell with the cause of its failure, where that was asked for.

    Its sentence is the last line.
    """
    if not runner.settings.diagnose or result.status is not Status.FAIL:
        return result
    from onnx_harness.diagnose.cell import diagnose_cell

    progress(f"searching for the cause of {cell.id}")
    return with_diagnosis(result, diagnose_cell(runner, cell, result))


def interrupted(result: CellResult, interruption: KeyboardInterrupt) -> CellResult:
    """The failing cell with what the search for its cause knew when it was interrupted."""
    from onnx_harness.diagnose.search import SearchInterrupted

    if isinstance(interruption, SearchInterrupted):
        return with_diagnosis(result, interruption.diagnosis)
    return with_diagnosis(result, Diagnosis("The search for the cause was interrupted."))


def with_diagnosis(result: CellResult, diagnosis: Diagnosis) -> CellResult:
    """The failing cell with a diagnosis."""
    return replace(result, diagnosis=diagnosis, detail=(*result.detail, diagnosis.sentence))


def against_expectation(result: CellResult, cell: Cell) -> CellResult:
    """The verdict in the light of the card's known failures.

    An expected failure that passes, or that fails at another stage than the card says, is a
    failure: the card is out of date, or something else broke. Of a suite's cases, those that
    somebody else's library breaks are known: which ones is what the account at the end is for.
    """
    libraries = upstream(cell.variant)
    if cell.card.suite and libraries and result.status is Status.FAIL:
        seen = " and ".join(f"{name} {version(name)}" for name in libraries)
        return replace(
            result, status=Status.KNOWN_FAILURE, reason=f"{result.reason} (made by {seen})"
        )
    entry = cell.known_failure
    if entry is None or result.status not in (Status.PASS, Status.FAIL):
        return result
    return with_ledger(result, entry, cell.card.path.name)


def conclude(result: CellResult) -> None:
    """Turn a verdict into pytest's outcome."""
    match result.status:
        case Status.PASS:
            return
        case Status.NOT_APPLICABLE:
            pytest.skip(result.reason or "not applicable")
        case Status.KNOWN_FAILURE:
            pytest.xfail(result.reason or "known failure")
        case _:
            from onnx_harness.report.escape import printable
            from onnx_harness.report.figures import explanation

            # JUnit and plugins of others show it as it is: no control character of a model's name.
            explained = "\n  ".join(map(printable, explanation(result)))
            pytest.fail(
                f"{result.id}: {result.status} at {result.stage}: {explained}", pytrace=False
            )


def alone(item: pytest.Item, cell: Cell, runner: Runner) -> str:
    """The command that runs this test alone, with the seed that matters."""
    settings = runner.settings
    suite = cell.card.suite
    name = f"--{suite}={case_of(cell.card)}" if suite else from_here(item)
    words = ["pytest", name, "--provider", cell.provider, "--variant", cell.variant.id]
    if cell.variant.id not in settings.variants:
        # `fp16` alone names the group; with parentheses it's the step.
        spelling = cell.variant.spelling
        words[-1] = f"{spelling}()" if spelling in GROUPS else spelling
    words += ["--seed", str(settings.seed), "--input-sets", str(settings.input_sets)]
    return "alone: " + " ".join(shlex.quote(word) for word in words)
