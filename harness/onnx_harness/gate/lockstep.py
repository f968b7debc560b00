"""A cell timed in two environments at once: versions under test and pinned ones, on the same cores, turn by turn."""

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
BLOCK_SECONDS = 0.004
MOST_IN_BLOCK = 8
SLOW_SECONDS = 0.005
"""A run as long as this doesn't notice that the process had slept before it; a shorter one's first of a turn isn't
timed."""


class Timed(Protocol):
    """A process with a model open, ready to be timed."""

    def ask(self, name: str, *args: object) -> list[int]:
        """Its answer to ``run_block``."""


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
"""Opens pair number k, the side under test first or not; the sides (under test, pinned), and seconds of a run."""


def measure(open_pair: Opener, *, pairs: int, seconds: float, seed: int) -> Lockstep:
    """Time both sides.

    In each turn both sides run, one after the other, in random order, half of the turns either way; the processes
    wait for each other, so only one of them runs at a time. A turn's reading is the ratio of the two medians, a pair's
    the median over its turns, and the pairs are the replicates: fresh processes with a fresh session each. What a
    process or a session brings along for its whole life, such as where its memory lies, counts as noise between the
    pairs and not as a difference between the versions.

    Args:
        open_pair: see `Opener`.
        pairs: how many.
        seconds: of running, for all the pairs, opening not counted. A slow model overruns: 4 turns are the fewest.
        seed: of the order.

    Raises:
        GateError: a side died, or a time isn't above 0.
    """
    rng = random.Random(seed)
    log_ratios: list[float] = []
    times: tuple[list[int], list[int]] = ([], [])
    for number, tested_first in enumerate(alternating(rng, pairs)):
        with ExitStack() as stack:
            tested, pinned, run_s = open_pair(stack, number, tested_first)
            untimed, timed, turns = plan(run_s, seconds / pairs)
            readings = []
            for order in balanced(rng, turns):
                first, second = (tested, pinned) if order else (pinned, tested)
                one, other = (_block(side, untimed, timed) for side in (first, second))
                ours, theirs = (one, other) if order else (other, one)
                times[0].extend(ours)
                times[1].extend(theirs)
                readings.append(math.log(median(ours) / median(theirs)))
            log_ratios.append(median(readings))
    return Lockstep(tuple(log_ratios), median(times[0]) / 1e6, median(times[1]) / 1e6, len(times[0]))


def plan(run_s: float, seconds: float) -> tuple[int, int, int]:
    """Untimed and timed runs of a side in a turn, and turns (an even number), for a run of ``run_s`` seconds."""
    untimed = 0 if run_s >= SLOW_SECONDS else 1
    timed = max(1, min(MOST_IN_BLOCK, int(BLOCK_SECONDS / run_s)))
    turns = int(seconds / (2 * (untimed + timed) * run_s))
    return untimed, timed, 2 * (max(FEWEST_TURNS, min(MOST_TURNS, turns)) // 2)


def core(number: int, provider: Provider) -> int | None:
    """The processor that both sides of pair ``number`` stay on: their noise is then the same. None where none fits."""
    if not keeps_to_its_threads(provider) or not sys.platform.startswith("linux"):
        return None
    allowed: Sequence[int] = sorted(os.sched_getaffinity(0))
    return allowed[number % len(allowed)]


def _block(side: Timed, untimed: int, timed: int) -> list[int]:
    times = side.ask("run_block", untimed, timed)
    if len(times) != timed or min(times) <= 0:
        raise GateError(f"the clock moved by {min(times, default=0)} ns during a run: no time can be read from it")
    return times
