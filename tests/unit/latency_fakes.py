"""A clock that moves only when something runs, sessions that take as long as they're told to, and a
fixture's stand-in.

Nothing here sleeps, and no test that uses it measures time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from onnx_harness.latency import Timed


@dataclass
class Clock:
    """Nanoseconds; moves by what runs on it, and not otherwise."""

    now: int = 0

    def __call__(self) -> int:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


@dataclass
class Sessions:
    """Opens sessions whose runs take ``run_s``, times a noise of their own and one of each run.

    ``used`` has the input set of each run; with ``transfer_s`` they can also be timed there and
    back, and ``transferred`` has the input set of each such run behind that of the run before it.
    """

    clock: Clock
    run_s: float
    name: str = "variant"
    open_s: float = 0.01
    pair_noise: float = 0.0
    run_noise: float = 0.0
    seed: int = 0
    sets: int = 1
    transfer_s: float = 0.0
    log: list[str] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    transferred: list[tuple[int, int]] = field(default_factory=list)
    closed: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.name}{self.seed}")

    def __call__(self) -> Timed:
        self.clock.spend(self.open_s)
        self.log.append(f"open {self.name}")
        level = self.run_s * self.rng.lognormvariate(0, self.pair_noise)

        def on(index: int, transfer_s: float = 0.0) -> Callable[[], None]:
            def run() -> None:
                self.log.append(f"{self.name} there and back" if transfer_s else self.name)
                if transfer_s:
                    self.transferred.append((self.used[-1], index))
                else:
                    self.used.append(index)
                self.clock.spend(
                    transfer_s + level * self.rng.lognormvariate(0, self.run_noise)
                )

            return run

        transferring = (
            [on(index, self.transfer_s) for index in range(self.sets)]
            if self.transfer_s
            else []
        )
        return Timed(
            [on(index) for index in range(self.sets)], self.open_s, transferring, self._close
        )

    def _close(self) -> None:
        self.closed += 1
        self.log.append(f"close {self.name}")


@dataclass
class Fixture:
    """Does what pytest-benchmark's fixture does in `pedantic`, without timing anything."""

    disabled: bool = False
    extra_info: dict[str, Any] = field(default_factory=dict)
    rounds: int = 0

    def pedantic(
        self,
        target: Callable[[], object],
        *,
        setup: Callable[[], None] | None = None,
        teardown: Callable[[], None] | None = None,
        rounds: int = 1,
    ) -> object:
        if self.disabled:
            if setup is not None:
                setup()
            return target()
        self.rounds = rounds
        for _ in range(rounds):
            if setup is not None:
                setup()
            target()
            if teardown is not None:
                teardown()
        return None
