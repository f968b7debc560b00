"""A side of a pair: a fresh session that can be run and timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from onnx_harness.errors import HarnessError

Clock = Callable[[], int]


class LatencyError(HarnessError):
    """A run without its counterpart, a clock that stood still, or a session used in two pairs."""


class Side(Protocol):
    """One side of a pair: a fresh session, not run yet. It may live in another process."""

    @property
    def session_s(self) -> float:
        """Seconds that creating the session took."""

    @property
    def input_sets(self) -> int:
        """The number of input sets that it can be run on."""

    @property
    def transfers(self) -> bool:
        """True where it can also be timed with the transfers to a device and back."""

    def ready(self) -> None:
        """Do what has to be done before a run and isn't to be timed."""

    def time(self, index: int, clock: Clock) -> int:
        """Run once on set ``index``; the nanoseconds until the outputs exist."""

    def time_end_to_end(self, index: int, clock: Clock) -> int:
        """The same from arrays in host memory to arrays in host memory."""

    def close(self) -> None:
        """Release the session."""


def _nothing() -> None:
    """Close a side that releases everything when it's dropped."""


@dataclass(slots=True)
class Timed:
    """A side in this process.

    Attributes:
        runs: one for each set of inputs; runs the model once and returns when the outputs exist.
        session_s: seconds that creating the session took.
        end_to_end: the same with transfers to the device and back; empty where there are none.
        closing: releases what dropping the object doesn't.
    """

    runs: Sequence[Callable[[], object]]
    session_s: float
    end_to_end: Sequence[Callable[[], object]] = ()
    closing: Callable[[], object] = _nothing

    @property
    def input_sets(self) -> int:
        """The number of input sets that it can be run on."""
        return len(self.runs)

    @property
    def transfers(self) -> bool:
        """True where it can be timed end to end."""
        return bool(self.end_to_end)

    def ready(self) -> None:
        """Do nothing: the session is open."""

    def time(self, index: int, clock: Clock) -> int:
        """Run once on set ``index``; in nanoseconds."""
        return _elapsed(self.runs[index], clock)

    def time_end_to_end(self, index: int, clock: Clock) -> int:
        """Run once on set ``index``, transfers included; in nanoseconds."""
        return _elapsed(self.end_to_end[index], clock)

    def close(self) -> None:
        """Release the session: nothing can be run on it any more."""
        self.runs = self.end_to_end = ()
        self.closing()


def _elapsed(run: Callable[[], object], clock: Clock) -> int:
    start = clock()
    run()
    return clock() - start


Opener = Callable[[], Side]
