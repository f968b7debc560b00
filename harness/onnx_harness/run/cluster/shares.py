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


@dataclass(slots=True)
class Share:
    """Cells of a model on a provider that are yet to be judged, or timed.

    Attributes:
        load: what they need of a worker.
        attempts: how often a worker was given them.
        avoided: workers that were lost or failed with them.
        host: the machine that they should go to; empty: any.
        since: when no worker was found for them, on the monotonic clock; 0: one was.
    """

    cells: list[Cell]
    load: Load
    timed: bool = False
    attempts: int = 0
    avoided: set[str] = field(default_factory=set)
    host: str = ""
    since: float = 0.0


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
