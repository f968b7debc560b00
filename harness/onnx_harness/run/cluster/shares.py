"""Shares of work of a cluster: cells of a model on a provider, and what is known of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnx_harness.cell.content import this_machine
from onnx_harness.cell.matrix import Cell
from onnx_harness.cell.state import never_loaded
from onnx_harness.results.cells import Stage, Status, Symptom
from onnx_harness.run.cluster.messages import RemoteVerdict
from onnx_harness.run.cluster.parcels import Parcel, packed
from onnx_harness.run.cluster.workers import Load, Place
from onnx_harness.settings import Settings

MOST_ATTEMPTS = 3
"""So often is a cell begun whose worker is lost or whose machine fails.

Once, and twice elsewhere.
"""


@dataclass(slots=True)
class Share:
    """Cells of a model on a provider that are yet to be judged, or timed.

    Attributes:
        load: what they need of a worker.
        tries: by cell, the workers that were lost or failed with it.
        failures: by cell, what the last of them said, if it lived to say it.
        avoided: workers that were lost or failed with them.
        host: the machine that they should go to; empty: any.
        since: when no worker was found for them, on the monotonic clock; 0: one was.
    """

    cells: list[Cell]
    load: Load
    timed: bool = False
    tries: dict[str, list[str]] = field(default_factory=dict)
    failures: dict[str, RemoteVerdict] = field(default_factory=dict)
    avoided: set[str] = field(default_factory=set)
    host: str = ""
    since: float = 0.0

    def charge(
        self,
        cell: Cell,
        address: str,
        told: RemoteVerdict | None,
    ) -> None:
        """Count a try of a cell that came to nothing.

        Args:
            cell: that was begun.
            address: of the worker that was lost, or that failed with it.
            told: its verdict, which says more of the machine than of the cell; None without any.
        """
        self.tries.setdefault(cell.id, []).append(address)
        self.failures.pop(cell.id, None)
        if told is not None:
            self.failures[cell.id] = told

    def is_tried_enough(self, cell: Cell) -> bool:
        """Return whether no further worker is given the cell."""
        return len(self.tries.get(cell.id, ())) >= MOST_ATTEMPTS

    def outcome(self, cell: Cell) -> RemoteVerdict | None:
        """Return the last worker's verdict on a cell, which names all that had it.

        None where it was lost, or where nothing was tried.
        """
        told = self.failures.get(cell.id)
        if told is None or told.result.symptom is not Symptom.ENVIRONMENT:
            return told  # a verdict on the cell, under that worker's limit of memory
        workers = self.workers(cell)
        tried = f"tried {len(self.tries[cell.id])} times, on {workers}: {told.result.reason}"
        return replace(told, result=replace(told.result, reason=tried))

    def workers(self, cell: Cell) -> str:
        """Return the workers that had the cell, each once, in words."""
        return ", ".join(dict.fromkeys(self.tries.get(cell.id, ())))


@dataclass(slots=True)
class Running:
    """A share that a worker has, and the answer of Dask that is waited for."""

    share: Share
    place: Place
    future: Any


class Parcels:
    """The files of models on their way; those of a model are read once."""

    def __init__(self, settings: Settings, locate: Callable[[Cell], Path]) -> None:
        self._settings = settings
        self._locate = locate
        self._packed: dict[Path, tuple[tuple[Cell, ...], Settings, Parcel]] = {}

    def of(self, cells: Sequence[Cell]) -> tuple[tuple[Cell, ...], Settings, Parcel]:
        """Return the cells of a model as they travel, the settings, and the parcel.

        Raises:
            HarnessError, OSError: the model can't be had or read.
        """
        card = cells[0].card
        if card.path not in self._packed:
            self._packed[card.path] = packed(cells, self._locate(cells[0]), self._settings)
        moved, settings, parcel = self._packed[card.path]
        return tuple(replace(cell, card=moved[0].card) for cell in cells), settings, parcel


def settle(future: Future[RemoteVerdict], found: RemoteVerdict) -> None:
    """Give a cell its verdict, if it has none yet and is still waited for."""
    with contextlib.suppress(InvalidStateError, CancelledError):
        if not future.done():
            future.set_result(found)


def ended(cell: Cell, reason: str, symptom: Symptom | None = None) -> RemoteVerdict:
    """The outcome of a cell that no worker has judged."""
    result = replace(never_loaded(cell), reason=reason, symptom=symptom)
    return RemoteVerdict(result, this_machine())


def unjudged(cell: Cell, why: str) -> RemoteVerdict:
    """The outcome of a cell that no worker could be found for, or that cost several."""
    mend = "Mend: see that the workers live, and run again with --resume"
    return ended(cell, f"not judged: {why}. {mend}", Symptom.ENVIRONMENT)


def untimed(cell: Cell, why: str, accurate: RemoteVerdict | None) -> RemoteVerdict:
    """The outcome of a cell that no worker could time.

    Args:
        cell: the cell.
        why: a sentence's part.
        accurate: its verdict up to ``compare``, where it was judged on the cluster.
    """
    lost = unjudged(cell, why)
    result = lost.result if accurate is None else accurate.result
    result = replace(
        result,
        status=Status.ERROR,
        stage=Stage.LATENCY,
        reason=f"can't be timed: {why}",
        symptom=Symptom.ENVIRONMENT,
    )
    return replace(lost, result=result)
