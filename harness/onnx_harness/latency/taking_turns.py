"""Sides of a pair of which one is open at a time, for models too large to be held twice.

Each run of one side closes the other's session. A session that is opened for another run has one
untimed run first: what is timed is the steady state, as with two open sessions. Runs of a pair
still alternate, in random order; they are some seconds further apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from onnx_harness.latency.sides import Clock, Opener, Side

LARGE_BYTES = 1 << 31
"""Of both models together. A session of 1 GiB opens in a second: taking turns costs seconds."""


def taking_turns(baseline: Opener, variant: Opener) -> tuple[Opener, Opener]:
    """Return openers of the same two sides, of which one at a time is open."""
    place = _Place()
    return lambda: _Turns(baseline, place), lambda: _Turns(variant, place)


@dataclass(slots=True)
class _Place:
    """The place in memory for one session, and whose it is."""

    side: Side | None = None
    owner: _Turns | None = field(default=None, repr=False)

    def give(self, owner: _Turns, opener: Opener) -> Side:
        """Close the session in the place, and open another."""
        self.clear()
        self.side, self.owner = opener(), owner
        return self.side

    def clear(self) -> None:
        side, self.side, self.owner = self.side, None, None
        if side is not None:
            side.close()


class _Turns:
    """A side that opens its session when it's run, and loses it when the other one is run."""

    def __init__(self, opener: Opener, place: _Place) -> None:
        self._opener, self._place = opener, place
        side = place.give(self, opener)
        self.session_s, self.input_sets = side.session_s, side.input_sets
        self.transfers = side.transfers
        self._has_run = False

    def ready(self) -> None:
        """Open the session, and run it once where the next run isn't the side's first."""
        if self._place.owner is self:
            return
        side = self._place.give(self, self._opener)
        if self._has_run:
            side.time(0, lambda: 0)

    def time(self, index: int, clock: Clock) -> int:
        """Run once on set ``index``; the nanoseconds until the outputs exist."""
        return self._opened().time(index, clock)

    def time_end_to_end(self, index: int, clock: Clock) -> int:
        """The same from arrays in host memory to arrays in host memory."""
        return self._opened().time_end_to_end(index, clock)

    def close(self) -> None:
        """Release the session."""
        if self._place.owner is self:
            self._place.clear()

    def _opened(self) -> Side:
        self.ready()
        self._has_run = True
        assert self._place.side is not None
        return self._place.side
