"""What a runner asks of other machines that judge and time its cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from onnx_harness.cell.content import Machine
from onnx_harness.cell.matrix import Cell
from onnx_harness.providers.probe import Availability
from onnx_harness.run.cluster.messages import RemoteVerdict
from onnx_harness.run.schedule import Group


class Remote(Protocol):
    """A cluster, as the runner of this machine knows it."""

    def __contains__(self, cell: Cell) -> bool:
        """Tell if the cluster judges a cell."""

    def times(self, cell: Cell) -> bool:
        """Tell if the cluster times a cell."""

    def verdict(self, cell: Cell) -> RemoteVerdict:
        """Wait for what was found of a cell."""

    def timed(self, cell: Cell) -> RemoteVerdict:
        """Wait for the latency of a cell."""

    def machines(self) -> list[Machine]:
        """Return the machines of its workers."""

    def probe(self, provider: str) -> Availability:
        """Find out if a provider can be used on one of them."""

    def start(
        self,
        groups: Sequence[Group],
        timed: Sequence[Cell],
        locate: Callable[[Cell], Path],
        progress: Callable[[str], None],
    ) -> None:
        """Begin to judge and to time."""

    def close(self) -> None:
        """Let go of the cluster."""
