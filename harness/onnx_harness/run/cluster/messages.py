"""The messages of a cluster's coordinator and workers: data, never pickles of ours."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnx_harness.cell.content import Machine
from onnx_harness.cell.matrix import Cell
from onnx_harness.cell.state import Judged
from onnx_harness.results.cells import CellResult, Symptom
from onnx_harness.results.codec import as_json
from onnx_harness.results.run import HostInfo
from onnx_harness.run.cluster.parcels import Parcel
from onnx_harness.run.fatal import FatalSet
from onnx_harness.settings import Settings


@dataclass(frozen=True, slots=True)
class Request:
    """The cells of a model on one provider, for one worker.

    Attributes:
        cells: as `onnx_harness.run.cluster.parcels.packed` made them, without paths of their own.
        settings: of the run.
        parcel: the files that they need.
        inline: contents of the small ones, by SHA-256.
        source: hash of the coordinator's code; a worker of another one refuses.
        topic: of the events with which the worker tells each verdict as it comes.
        sharing: workers on the same machine, which share its cores.
        results: in a request for times: the verdicts so far, in the order of ``cells``.
    """

    cells: tuple[Cell, ...]
    settings: Settings
    parcel: Parcel
    inline: dict[str, bytes]
    source: str
    topic: str
    sharing: int = 1
    results: tuple[CellResult, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoteVerdict:
    """A verdict, and where it was found.

    Attributes:
        result: of the cell, with its latency where that was asked for.
        machine: that judged it.
        level: ONNX Runtime's optimization level of the cell's model.
        failing: as in `onnx_harness.cell.state.Judged`.
        crashed: likewise.
        fatal: unusual input sets that the cell process died of.
        died: what the model's cell process died of on unusual inputs; empty where it didn't.
        boot: as in `Described`.
        limit: bytes of memory that the cell might have needed more of; 0 where it didn't matter.
        warnings: as in `Judged`, of that machine's cache.
    """

    result: CellResult
    machine: Machine
    level: str = "all"
    failing: tuple[int, ...] = ()
    crashed: bool = False
    fatal: tuple[FatalSet, ...] = ()
    died: str = ""
    boot: str = ""
    limit: int = 0
    warnings: tuple[str, ...] = ()

    def timed(self, accurate: CellResult, machine: HostInfo | None) -> CellResult:
        """Return an accuracy verdict with the latency that was taken here, and by which machine."""
        return replace(
            accurate,
            status=self.result.status,
            stage=self.result.stage,
            reason=self.result.reason,
            latency=self.result.latency,
            machine=machine,
        )

    def is_of_the_machine(self, settings: Settings) -> bool:
        """Return whether another worker may come to another verdict.

        Args:
            settings: of the run, whose limit of memory a worker may have lowered to what it has.
        """
        failed = self.result.symptom is Symptom.ENVIRONMENT
        return failed or 0 < self.limit < settings.cell_memory

    @property
    def judged(self) -> Judged:
        """The outcome as a runner keeps it; the model file that was judged is elsewhere."""
        starved = self.limit > 0
        return Judged(
            self.result, None, self.level, self.failing, self.crashed, starved, self.warnings
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a worker to a request.

    Attributes:
        verdicts: JSON of a `RemoteVerdict` for each cell, in their order.
        missing: SHA-256 of the files that it lacks; nothing was judged then.
        refusal: why it judges nothing; empty where it does.
    """

    verdicts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Described:
    """A worker.

    Attributes:
        machine: that it runs on.
        boot: of the machine's kernel: workers of one boot share a machine, whatever their
            addresses.
        limit: bytes of memory that a cell process may hold there at most.
    """

    machine: Machine
    boot: str
    limit: int = 0


VERDICT = as_json(RemoteVerdict)
REPLY = as_json(Reply)
DESCRIBED = as_json(Described)
