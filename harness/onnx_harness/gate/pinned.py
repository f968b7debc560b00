"""The pinned reference in a run: the same cells with the accepted versions, in the same minutes."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from onnx_harness import providers
from onnx_harness.cell.state import Judged, Task
from onnx_harness.errors import GateError
from onnx_harness.gate import models, verdicts
from onnx_harness.gate.latency import is_comparable
from onnx_harness.gate.lockstep import Lockstep, Timed, core, measure
from onnx_harness.gate.process import EnvironmentProcess, python_of
from onnx_harness.gate.slower import profile_cell
from onnx_harness.latency.plan import THREADS
from onnx_harness.latency.statistics import Decision, needs_confirmation, speedup_interval
from onnx_harness.results.cells import CellResult, PinnedRecord, Status
from onnx_harness.results.levels import FOLDER, Key, Level, read_levels
from onnx_harness.results.operators import OperatorRecord
from onnx_harness.results.run import HostInfo
from onnx_harness.settings import Settings


@dataclass(frozen=True, slots=True)
class _Cell:
    """A cell that was timed, and what it takes to time it again."""

    task: Task
    judged: Judged
    pinned: Judged
    record: PinnedRecord


class Pinned:
    """The reference environment, during a run.

    Args:
        environment: the folder of the virtual environment.
        settings: of the run.
        host: this machine.
        pairs: of fresh processes that each cell is timed in.
        family: how many cells the whole run times, where this is a part of one.
    """

    def __init__(
        self,
        environment: Path,
        settings: Settings,
        host: HostInfo,
        pairs: int,
        *,
        family: int | None = None,
    ) -> None:
        self._environment = environment
        self._settings = settings
        self._host = host
        self._pairs = pairs
        self._family = family
        self._cells: dict[str, _Cell] = {}
        # By id of the cell: the ratio of its level, the decision on its first measurement, and the
        # log ratios of its second one so far.
        self._accepted: dict[str, float] = {}
        self._firsts: dict[str, Decision] = {}
        self._seconds: dict[str, tuple[float, ...]] = {}
        self._judge: EnvironmentProcess | None = None
        self._versions: dict[str, str] = {}
        self._levels: Mapping[Key, Level] | None = None

    def check(self) -> dict[str, str]:
        """Start the environment, and check that it has what a cell needs.

        Returns:
            The versions of its distributions.

        Raises:
            UsageError: there is no environment.
            GateError: it doesn't work.
            ResultsError: the accepted levels can't be read.
        """
        python = python_of(self._environment)
        mend = f"Make it anew: onnx-harness gate reference {self._environment}"
        try:
            self._versions = self._started().ask("versions")
        except GateError as error:
            self.close()
            raise GateError(
                f"the reference environment doesn't work: {python}: {error}. {mend}"
            ) from error
        if not any(name.startswith("onnxruntime") for name in self._versions):
            self.close()
            raise GateError(
                f"the reference environment has no ONNX Runtime ({python}). {mend}"
            )
        self._levels = {}
        if self._settings.report_dir:
            self._levels = read_levels(self._settings.report_dir / FOLDER)
        return self._versions

    @property
    def has_levels(self) -> bool:
        """True where the report folder has accepted levels, of whatever cells."""
        return bool(self._levels)

    def record(
        self, task: Task, judged: Judged, values: Mapping[str, Any] | None
    ) -> PinnedRecord:
        """Judge a cell with the pinned versions, and time both in lockstep where both pass.

        Args:
            task: the cell.
            judged: its verdict with the versions under test.
            values: the inputs to time it on; None doesn't time it.

        Returns:
            A record whose ``reason`` says what went wrong there: never a reason to end the run.
        """
        if self._levels is None:
            self.check()
        failed = PinnedRecord(self._versions, Status.ERROR, threads=THREADS)
        accepted = self._accepted_record(task)
        accepted_sha256 = accepted.model_sha256 if accepted else ""
        store = self._environment / models.FOLDER
        try:
            pinned: Judged = self._started().ask("judge", task, accepted_sha256, store)
        except GateError as error:
            self.close()  # the next cell gets a fresh process
            return replace(failed, reason=f"in the reference environment: {error}")
        result = pinned.result
        record = replace(
            failed,
            status=result.status,
            reason=result.reason,
            model_sha256=result.model_sha256,
            graph=result.graph,
            accuracy=result.accuracy,
        )
        if result.status is not Status.PASS or judged.artifact is None or values is None:
            return record
        if _differ_in_inputs(result, judged.result):
            reason = "the two environments make different inputs from the same seed"
            return replace(record, reason=reason)
        cell = _Cell(task, judged, pinned, record)
        try:
            times = self._timed(cell, values, pairs=self._pairs, seed=self._settings.seed)
        except GateError as error:
            return replace(
                record, reason=f"in lockstep with the reference environment: {error}"
            )
        record = _with_times(record, times)
        self._cells[task.cell.id] = replace(cell, record=record)
        return record

    def decide(self) -> dict[str, PinnedRecord]:
        """Compare the cells that were timed with their accepted levels; once, after the last one.

        Returns:
            The records with their verdicts. A cell without a level that it may be compared with
            isn't among them.
        """
        for name, cell in self._cells.items():
            ratio = self._comparable_ratio(cell)
            if ratio:
                self._accepted[name] = ratio
        timed = {
            name: (self._cells[name].record, self._accepted[name]) for name in self._accepted
        }
        self._firsts = verdicts.decide_cells(timed, self._family)
        records: dict[str, PinnedRecord] = {}
        for name, decision in self._firsts.items():
            records[name] = verdicts.with_verdict(*timed[name], decision)
        return records

    def doubtful(self) -> list[str]:
        """Return the ids of cells that are to be measured again before their verdicts are final."""
        names: list[str] = []
        for name, decision in self._firsts.items():
            if needs_confirmation(decision):
                names.append(name)
        return names

    def again(self, id: str, values: Mapping[str, Any]) -> PinnedRecord | None:
        """Take the next part of a cell's second measurement, in fresh processes, on ``values``.

        Returns:
            After the last part its record, with the final verdict; None before.

        Raises:
            GateError: it can't be timed any more.
        """
        cell, accepted = self._cells[id], self._accepted[id]
        log_ratios = self._seconds.get(id, ())
        before = len(log_ratios)
        required = verdicts.confirming_pairs(self._pairs)
        pairs = min(verdicts.PART_PAIRS, required - before)
        seed = self._settings.seed + 1 + before
        times = self._timed(cell, values, pairs=pairs, seed=seed, before=before)
        log_ratios = self._seconds[id] = log_ratios + times.log_ratios
        if len(log_ratios) < required:
            return None
        final = verdicts.decide_again(self._firsts[id], log_ratios, accepted)
        record = verdicts.with_verdict(cell.record, accepted, final)
        operators = self._profiled(cell, values) if verdicts.is_slower(final) else None
        return replace(record, confirming_log_ratios=log_ratios, operators=operators)

    def close(self) -> None:
        """End its process."""
        if self._judge is not None:
            self._judge.close()
            self._judge = None

    def _level(self, task: Task) -> Level | None:
        processor = self._host.processor_of(task.cell.provider)
        levels = self._levels or {}
        return levels.get((task.cell.id, processor))

    def _accepted_record(self, task: Task) -> PinnedRecord | None:
        level = self._level(task)
        return level.cell.pinned if level else None

    def _comparable_ratio(self, cell: _Cell) -> float | None:
        """Return the accepted ratio that a cell's may be compared with, or None."""
        level = self._level(cell.task)
        if level is None or level.cell.pinned is None:
            return None
        result = replace(cell.judged.result, pinned=cell.record)
        processor = self._host.processor_of(result.provider)
        if is_comparable(level, processor, self._settings.seed, result):
            return level.cell.pinned.ratio
        return None

    def _started(self) -> EnvironmentProcess:
        if self._judge is None:
            self._judge = self._side(pinned=True)
        return self._judge

    def _side(self, *, pinned: bool) -> EnvironmentProcess:
        environment: dict[str, str] = {}
        for name in self._settings.provider:
            environment.update(providers.get(name).environment)
        python = python_of(self._environment) if pinned else Path(sys.executable)
        return EnvironmentProcess(python, self._settings.limits, environment, apart=pinned)

    def _timed(
        self,
        cell: _Cell,
        values: Mapping[str, Any],
        *,
        pairs: int,
        seed: int,
        before: int = 0,
    ) -> Lockstep:
        """Time a cell in ``pairs`` pairs; ``before`` of the same measurement were timed before."""
        provider = cell.task.cell.provider

        def open_pair(
            stack: ExitStack, number: int, tested_first: bool
        ) -> tuple[Timed, Timed, float]:
            order = (False, True) if tested_first else (True, False)
            sides = {}
            for is_pinned in order:
                sides[is_pinned] = stack.enter_context(self._side(pinned=is_pinned))
            stays_on = core(before + number, providers.get(provider))
            run_s = []
            # One after the other: sessions that open at once disturb each other's memory.
            for is_pinned in order:
                judged = cell.pinned if is_pinned else cell.judged
                opening = (
                    judged.artifact,
                    judged.level,
                    provider,
                    THREADS,
                    values,
                    stays_on,
                )
                run_s.append(sides[is_pinned].ask("open_model", *opening))
            return sides[False], sides[True], max(median(run_s), 1e-6)

        seconds = 2 * self._settings.latency_budget * pairs / self._pairs
        return measure(open_pair, pairs=pairs, seconds=seconds, seed=seed)

    def _profiled(self, cell: _Cell, values: Mapping[str, Any]) -> OperatorRecord:
        """Name the operators that take longer under test than in the reference."""
        provider = cell.task.cell.provider

        def start(number: int, pinned: bool) -> tuple[EnvironmentProcess, float]:
            judged = cell.pinned if pinned else cell.judged
            stays_on = core(number, providers.get(provider))
            opening = (judged.artifact, judged.level, provider, THREADS, values, stays_on)
            process = self._side(pinned=pinned)
            try:
                return process, process.ask("open_profiled", *opening)
            except GateError:
                process.close()
                raise

        return profile_cell(start, self._settings.seed)


def _differ_in_inputs(pinned: CellResult, tested: CellResult) -> bool:
    same_model = pinned.model_sha256 == tested.model_sha256
    return same_model and pinned.inputs_sha256 != tested.inputs_sha256


def _with_times(record: PinnedRecord, times: Lockstep) -> PinnedRecord:
    return replace(
        record,
        ratio=math.exp(median(times.log_ratios)),
        ratio_ci95=speedup_interval(times.log_ratios),
        log_ratios=times.log_ratios,
        median_ms=times.median_ms,
        pinned_median_ms=times.pinned_median_ms,
        samples=times.samples,
    )
