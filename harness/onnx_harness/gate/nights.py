"""The two-nights rule: a slowdown counts when two nights in a row show it. Pure functions.

A night's figure is ln(time under test / time in the pinned reference): what slows the machine slows
both and cancels. What is left varies from night to night by about 1% where it was measured, and
every cell is looked at every night: a single night over a limit is bound to come up, two in a row
of the same cell hardly ever.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from statistics import fmean

from onnx_harness.results.gated import Nights
from onnx_harness.results.outcome import Outcome

Z_LIMIT = 2.5
"""Spreads above the level from which a night is suspect.

0.6% of normal nights, and 1 in 26,000 pairs of them.
"""
MINIMUM_EFFECT = math.log(1.02)
"""Slowdowns below 2% fail no cell: alignment and memory layout alone are worth that much."""
AGREEING = MINIMUM_EFFECT / 2
"""The part of a slowdown of the second measurement that the first has to show."""
BLUNT = 0.10
"""The greatest step that may go unseen.

A cell in which a step of 10% would go unseen isn't watched, and saying PASS of it would be untrue.
"""

BETWEEN_NIGHTS = timedelta(hours=4)
"""Runs closer to each other share the machine's state, which the second night is to rule out.

What slows one slows the other. Nightly runs are 20 hours apart or more, and `--max-age` is of the
same order; a run that is repeated by hand comes within minutes.
"""

PRIOR_SPREAD = 0.02
"""A cell's own spread isn't known in its first nights.

It starts at 2%, with the weight of one night. Twice what was measured: with less, a noisy cell
gives false alarms until its spread is known.
"""
PRIOR_NIGHTS = 1
SETTLING_NIGHTS = 10
"""The number of nights that settle a level.

They're the accepted night and the quiet ones after it; the level doesn't follow later.
"""
SPREAD_NIGHTS = 20
DIFFERENCE_OF_NORMALS = 2 / math.sqrt(math.pi)
"""Mean of |a - b| of two independent standard normal numbers."""


@dataclass(frozen=True, slots=True)
class Night:
    """The figures of a night: ln(ratio).

    Attributes:
        figure: of the measurement that the night goes by: the second where there is one.
        error: its standard error, from its pairs.
        first: of the first measurement, where there is a second; else None.
    """

    figure: float
    error: float = 0.0
    first: float | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    """A night compared with those before it."""

    z: float
    level: float
    limit: float
    suspect: bool
    unconfirmed: bool = False


def judge_nights(accepted: float, nights: Sequence[Night]) -> Nights:
    """Judge the latest of a cell's nights.

    A night is suspect when its figure lies above the level by more than 2.5 spreads and by more
    than 2%. Two suspect nights in a row are a FAIL; one is INCONCLUSIVE, and the next night
    decides.

    Where a night was measured again, its figure is the second's: that has more pairs, and the first
    was picked for being slow. The first has to lie above the level too, by more than half of those
    2%. Asking it for all that is asked of the second would miss slowdowns that one measurement
    finds: the noise within the night would count twice.

    The spread is taken from the differences between successive nights, up to two nights back, so
    that a step itself doesn't hide in it; in a cell's first nights it's drawn towards 2%. It's
    never smaller than tonight's own standard error. The uncertain level counts in the limit, and
    counts twice, since both nights are compared with it.

    Args:
        accepted: ln(ratio) of the night that was accepted.
        nights: the nights after it, in the order of the runs; the last is judged. With none, the
            accepted night itself is, and passes.
    """
    quiet = [accepted]
    last = _Look(0.0, accepted, _limit(PRIOR_SPREAD, 1), suspect=False)
    was_suspect = False
    figures = [accepted, *(night.figure for night in nights)]
    for index, night in enumerate(nights):
        was_suspect = last.suspect
        last = _look(night, quiet, _spread(figures[:index]))
        if len(quiet) < SETTLING_NIGHTS and _is_quiet(night, last):
            quiet.append(night.figure)
    first = nights[-1].first if nights else None
    return Nights(
        _outcome(last, was_suspect),
        ratio=math.exp(figures[-1]),
        level=math.exp(last.level),
        z=last.z,
        smallest_step=math.expm1(last.limit),
        count=len(figures),
        first=None if first is None else math.exp(first),
        unconfirmed=last.unconfirmed,
    )


def _is_quiet(night: Night, look: _Look) -> bool:
    # Within 2%, too: while little is known of the spread, a slowdown would settle as a part of
    # the level.
    return abs(night.figure - look.level) <= MINIMUM_EFFECT and abs(look.z) <= Z_LIMIT


def _outcome(last: _Look, was_suspect: bool) -> Outcome:
    if last.suspect:
        return Outcome.FAIL if was_suspect else Outcome.INCONCLUSIVE
    return Outcome.INCONCLUSIVE if last.limit > math.log1p(BLUNT) else Outcome.PASS


def standard_error(log_ratios: Sequence[float]) -> float:
    """Return the standard error of the median of a night's pairs; 0 for fewer than 3 pairs.

    That of normal values: sqrt(pi / 2) s / sqrt(K).
    """
    count = len(log_ratios)
    if count < 3:
        return 0.0
    centre = fmean(log_ratios)
    squares = sum((value - centre) ** 2 for value in log_ratios)
    variance = squares / (count - 1)
    return math.sqrt(math.pi / 2 * variance / count)


def _look(night: Night, quiet: Sequence[float], spread: float) -> _Look:
    level = fmean(quiet)
    spread = max(spread, night.error)
    limit = _limit(spread, len(quiet))
    step = night.figure - level
    first_step = step if night.first is None else night.first - level
    suspect = step > limit and first_step > AGREEING
    slow_once = step > limit or first_step > limit
    z = step / _widened(spread, len(quiet))
    return _Look(z, level, limit, suspect, unconfirmed=slow_once and not suspect)


def _limit(spread: float, quiet: int) -> float:
    return max(Z_LIMIT * _widened(spread, quiet), MINIMUM_EFFECT)


def _widened(spread: float, quiet: int) -> float:
    return spread * math.sqrt(1 + 2 / quiet)


def _spread(nights: Sequence[float]) -> float:
    """The spread of ``nights``, from their successive differences and the prior."""
    recent = nights[-SPREAD_NIGHTS - 1 :]
    differences = sorted(abs(after - before) for before, after in pairwise(recent))
    # The greatest may be a step, and would hide in the spread that it makes.
    steady = differences[:-1]
    own = fmean(steady) / DIFFERENCE_OF_NORMALS if steady else 0.0
    count = PRIOR_NIGHTS + len(steady)
    variance = (PRIOR_NIGHTS * PRIOR_SPREAD**2 + len(steady) * own**2) / count
    return math.sqrt(variance)
