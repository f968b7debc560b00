"""A cell timed with two environments' versions, under test and pinned, in turns on one core."""

from __future__ import annotations

import math
import os
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from onnx_harness.errors import GateError
from onnx_harness.latency.pairs import alternating, balanced
from onnx_harness.latency.sessions import keeps_to_its_threads
from onnx_harness.providers import Provider

FEWEST_TURNS, MOST_TURNS = 4, 60
# Some milliseconds: short enough for a disturbance to meet both sides of a turn.
BLOCK_SECONDS = 0.004
MOST_IN_BLOCK = 8
SLOW_SECONDS = 0.005
"""A run as long as this doesn't notice that the process had slept before it.

A shorter one's first of a turn isn't timed.
"""


class Timed(Protocol):
    """A process with a model open, ready to be timed."""

    def ask(self, name: str, *args: object) -> list[int]:
        """Return its answer to ``run_block``."""


@dataclass(frozen=True, slots=True)
class Lockstep:
    """A measurement. Times in milliseconds.

    Attributes:
        log_ratios: ln(time under test / time in the reference) of each pair.
        median_ms: under test.
        pinned_median_ms: in the reference.
        samples: timed runs of each side.
    """

    log_ratios: tuple[float, ...]
    median_ms: float
    pinned_median_ms: float
    samples: int


Opener = Callable[[ExitStack, int, bool], tuple[Timed, Timed, float]]
"""Opens pair number k, the side under test first or not.

The sides (under test, pinned), and seconds of a run.
"""


def measure(open_pair: Opener, *, pairs: int, seconds: float, seed: int) -> Lockstep:
    """Time both sides in pairs of fresh processes.

    In each turn both sides run, one after the other, in random order, half of the turns either way;
    the processes wait for each other, so only one of them runs at a time. A turn's reading is the
    ratio of the two medians, a pair's the median over its turns, and the pairs are the replicates:
    fresh processes with a fresh session each. What a process or a session brings along for its
    whole life, such as where its memory lies, counts as noise between the pairs and not as a
    difference between the versions.

    Args:
        open_pair: see `Opener`.
        pairs: how many.
        seconds: of running, for all the pairs, opening not counted. A slow model overruns: 4 turns
            are the fewest.
        seed: of the order.

    Raises:
        GateError: a side died, or a time isn't above 0.
    """
    rng = random.Random(seed)
    log_ratios: list[float] = []
    tested_ns: list[int] = []
    pinned_ns: list[int] = []
    for number, opens_tested_first in enumerate(alternating(rng, pairs)):
        with ExitStack() as stack:
            tested, pinned, run_s = open_pair(stack, number, opens_tested_first)
            untimed, timed, turns = plan(run_s, seconds / pairs)
            readings = []
            for tested_first in balanced(rng, turns):
                if tested_first:
                    tested_block = _block(tested, untimed, timed)
                    pinned_block = _block(pinned, untimed, timed)
                else:
                    pinned_block = _block(pinned, untimed, timed)
                    tested_block = _block(tested, untimed, timed)
                tested_ns += tested_block
                pinned_ns += pinned_block
                readings.append(math.log(median(tested_block) / median(pinned_block)))
            log_ratios.append(median(readings))
    return Lockstep(
        log_ratios=tuple(log_ratios),
        median_ms=median(tested_ns) / 1e6,
        pinned_median_ms=median(pinned_ns) / 1e6,
        samples=len(tested_ns),
    )


def plan(run_s: float, seconds: float) -> tuple[int, int, int]:
    """Plan the turns of a pair.

    Args:
        run_s: seconds of a run.
        seconds: for the pair.

    Returns:
        Untimed and timed runs of a side in a turn, and the number of turns, which is even.
    """
    untimed = 0 if run_s >= SLOW_SECONDS else 1
    timed = max(1, min(MOST_IN_BLOCK, int(BLOCK_SECONDS / run_s)))
    turn_s = 2 * (untimed + timed) * run_s
    turns = max(FEWEST_TURNS, min(MOST_TURNS, int(seconds / turn_s)))
    return untimed, timed, turns - turns % 2


def core(number: int, provider: Provider) -> int | None:
    """Choose the processor that both sides of pair ``number`` stay on; None where none fits.

    On the same processor both sides have the same noise.
    """
    if not keeps_to_its_threads(provider) or not sys.platform.startswith("linux"):
        return None
    allowed: Sequence[int] = sorted(os.sched_getaffinity(0))
    return allowed[number % len(allowed)]


def _block(side: Timed, untimed: int, timed: int) -> list[int]:
    times = side.ask("run_block", untimed, timed)
    if len(times) != timed or min(times) <= 0:
        raise GateError(
            f"the clock moved by {min(times, default=0)} ns during a run: no time can be read "
            "from it"
        )
    return times
