"""What a runner asks of a cluster: the coordinator is above it, since its workers have runners."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from onnx_harness.cell.content import Machine
from onnx_harness.cell.matrix import Cell
from onnx_harness.providers.probe import Availability
from onnx_harness.run.cluster.messages import RemoteVerdict
from onnx_harness.run.schedule import Group


class Elsewhere(Protocol):
    """Judges and times cells on other machines."""

    def __contains__(self, cell: Cell) -> bool:
        """Whether the cell is judged there."""

    def times(self, cell: Cell) -> bool:
        """Whether the cell is timed there, too."""

    def verdict(self, cell: Cell) -> RemoteVerdict:
        """The verdict on a cell, as soon as there is one."""

    def timed(self, cell: Cell) -> RemoteVerdict:
        """The verdict on a cell with its latency, as soon as there is one."""

    def machines(self) -> list[Machine]:
        """The machines of the workers, each once."""

    def probe(self, provider: str) -> Availability:
        """Whether a worker can use the provider."""

    def start(
        self,
        groups: Iterable[Group],
        timed: Sequence[Cell],
        locate: Callable[[Cell], Path],
        progress: Callable[[str], None],
    ) -> None:
        """Begin to judge in the background."""

    def close(self) -> None:
        """Give up what isn't judged, and leave."""
