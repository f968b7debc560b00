"""The pinned reference in a run: the same cells with the last accepted versions, in the same minutes."""

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
from onnx_harness.gate.latency import held_against
from onnx_harness.gate.lockstep import Lockstep, Timed, core, measure
from onnx_harness.gate.process import Side, python_of
from onnx_harness.latency.plan import THREADS
from onnx_harness.latency.statistics import Decision, needs_confirmation, speedup_interval
from onnx_harness.results.cells import PinnedRecord, Status
from onnx_harness.results.levels import FOLDER, Key, Level, read_levels
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
    """

    def __init__(self, environment: Path, settings: Settings, host: HostInfo, pairs: int) -> None:
        self._environment = environment
        self._settings = settings
        self._host = host
        self._pairs = pairs
        self._cells: dict[str, _Cell] = {}
        self._accepted: dict[str, float] = {}  # ratios of the levels that cells are held against
        self._firsts: dict[str, Decision] = {}
        self._seconds: dict[str, tuple[float, ...]] = {}  # log ratios, as far as they are taken
        self._judge: Side | None = None
        self._versions: dict[str, str] = {}
        self._levels: Mapping[Key, Level] | None = None

    def check(self) -> dict[str, str]:
        """Start it, and see that what a cell needs is there.

        Returns:
            Its versions.

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
            raise GateError(f"the reference environment has no ONNX Runtime ({python}). {mend}")
        self._levels = (
            read_levels(self._settings.report_dir / FOLDER) if self._settings.report_dir else {}
        )
        return self._versions

    def beside(self, task: Task, judged: Judged, values: Mapping[str, Any] | None) -> PinnedRecord:
        """What the pinned versions make of a cell, timed in lockstep where both pass.

        Args:
            task: the cell.
            judged: what the versions under test made of it.
            values: the inputs to time it on; None doesn't time it.

        Returns:
            What went wrong there is in its ``reason``: never a reason to end the run.
        """
        if self._levels is None:
            self.check()
        record = PinnedRecord(self._versions, Status.ERROR, threads=THREADS)
        level = self._level(task)
        accepted = level.cell.pinned.model_sha256 if level and level.cell.pinned else ""
        try:
            pinned: Judged = self._started().ask(
                "judge", task, accepted, self._environment / models.FOLDER
            )
        except GateError as error:
            self.close()  # the next cell gets a fresh process
            return replace(record, reason=f"in the reference environment: {error}")
        result = pinned.result
        record = replace(
            record,
            status=result.status,
            reason=result.reason,
            model_sha256=result.model_sha256,
            graph=result.graph,
            accuracy=result.accuracy,
        )
        if values is None or judged.artifact is None or result.status is not Status.PASS:
            return record
        if (
            result.model_sha256 == judged.result.model_sha256
            and result.inputs_sha256 != judged.result.inputs_sha256
        ):
            return replace(
                record, reason="the two environments make different inputs of the same seed"
            )
        try:
            found = self._timed(
                task, judged, pinned, values, pairs=self._pairs, seed=self._settings.seed
            )
        except GateError as error:
            return replace(record, reason=f"side by side with the reference environment: {error}")
        record = replace(
            record,
            ratio=math.exp(median(found.log_ratios)),
            ratio_ci95=speedup_interval(found.log_ratios),
            log_ratios=found.log_ratios,
            median_ms=found.median_ms,
            pinned_median_ms=found.pinned_median_ms,
            samples=found.samples,
        )
        self._cells[task.cell.id] = _Cell(task, judged, pinned, record)
        return record

    def decide(self) -> dict[str, PinnedRecord]:
        """The verdicts on the cells that were timed, each beside its accepted level; once, when all
        of them were.

        Returns:
            The records with their verdicts. A cell without a level that it may be held against
            isn't among them.
        """
        for name, each in self._cells.items():
            level, result = self._level(each.task), replace(each.judged.result, pinned=each.record)
            ratio = (
                level.cell.pinned.ratio
                if level is not None and level.cell.pinned is not None
                else None
            )
            here = self._host.processor_of(result.provider)
            if level and ratio and held_against(level, here, self._settings.seed, result):
                self._accepted[name] = ratio
        records = {name: self._cells[name].record for name in self._accepted}
        self._firsts = verdicts.decide_cells(
            {name: (records[name], self._accepted[name]) for name in records}
        )
        return {
            name: verdicts.with_verdict(records[name], verdict, self._accepted[name])
            for name, verdict in self._firsts.items()
        }

    def doubtful(self) -> list[str]:
        """The ids of cells that are to be measured again before their verdicts stand."""
        return [name for name, verdict in self._firsts.items() if needs_confirmation(verdict)]

    def again(self, id: str, values: Mapping[str, Any]) -> PinnedRecord | None:
        """Take the next part of a cell's second measurement, in fresh processes, on ``values``.

        Returns:
            After the last part its record, with the final verdict; None before.

        Raises:
            GateError: it can't be timed any more.
        """
        each, accepted = self._cells[id], self._accepted[id]
        taken, wanted = self._seconds.get(id, ()), verdicts.confirming_pairs(self._pairs)
        pairs = min(verdicts.PART_PAIRS, wanted - len(taken))
        seed = self._settings.seed + 1 + len(taken)
        found = self._timed(
            each.task, each.judged, each.pinned, values, pairs=pairs, seed=seed, before=len(taken)
        )
        taken = self._seconds[id] = taken + found.log_ratios
        if len(taken) < wanted:
            return None
        final = verdicts.decide_again(self._firsts[id], taken, accepted)
        return replace(
            verdicts.with_verdict(each.record, final, accepted), confirming_log_ratios=taken
        )

    def close(self) -> None:
        """End its process."""
        if self._judge is not None:
            self._judge.close()
            self._judge = None

    def _level(self, task: Task) -> Level | None:
        return (self._levels or {}).get((task.cell.id, self._host.processor_of(task.cell.provider)))

    def _started(self) -> Side:
        if self._judge is None:
            self._judge = self._side(pinned=True)
        return self._judge

    def _side(self, *, pinned: bool) -> Side:
        environment: dict[str, str] = {}
        for name in self._settings.provider:
            environment.update(providers.get(name).environment)
        python = python_of(self._environment) if pinned else Path(sys.executable)
        return Side(python, self._settings.limits, environment, apart=pinned)

    def _timed(
        self,
        task: Task,
        judged: Judged,
        pinned: Judged,
        values: Mapping[str, Any],
        *,
        pairs: int,
        seed: int,
        before: int = 0,
    ) -> Lockstep:
        provider = task.cell.provider

        def open_pair(
            stack: ExitStack, number: int, tested_first: bool
        ) -> tuple[Timed, Timed, float]:
            order = (False, True) if tested_first else (True, False)
            sides = {
                is_pinned: stack.enter_context(self._side(pinned=is_pinned)) for is_pinned in order
            }
            taken = []
            for is_pinned in (
                order
            ):  # one after the other: sessions that open at once disturb each other's memory
                each = pinned if is_pinned else judged
                stays_on = core(before + number, providers.get(provider))
                opening = (each.artifact, each.level, provider, THREADS, values, stays_on)
                taken.append(sides[is_pinned].ask("open_model", *opening))
            return sides[False], sides[True], max(median(taken), 1e-6)

        seconds = 2 * self._settings.latency_budget * pairs / self._pairs
        return measure(open_pair, pairs=pairs, seconds=seconds, seed=seed)
