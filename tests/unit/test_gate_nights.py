"""The two-nights rule, on nights that are made up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnx_harness.gate.nights import (
    BLUNT,
    DIFFERENCE_OF_NORMALS,
    Z_LIMIT,
    Night,
    _Look,
    _outcome,
    judge_nights,
    standard_error,
)
from onnx_harness.results.gated import Nights
from onnx_harness.results.outcome import Outcome
from tests.nights import simulated

QUIET = [0.0, 0.004, -0.003, 0.002, -0.005, 0.003, 0.001, -0.002]


def verdict(accepted: float, nights: list[float], error: float = 0.0) -> Outcome:
    return judged(accepted, nights, error).outcome


def judged(accepted: float, nights: list[float], error: float = 0.0) -> Nights:
    return judge_nights(accepted, [Night(night, error) for night in nights])


def test_the_accepted_night_itself_passes() -> None:
    found = judge_nights(math.log(1.3), [])
    assert (found.outcome, found.count) == (Outcome.PASS, 1)
    assert (found.ratio, found.level) == pytest.approx((1.3, 1.3))


def test_one_slow_night_is_inconclusive_and_two_in_a_row_fail() -> None:
    assert verdict(0.0, [*QUIET, 0.05]) is Outcome.INCONCLUSIVE
    assert verdict(0.0, [*QUIET, 0.05, 0.05]) is Outcome.FAIL
    assert verdict(0.0, [*QUIET, 0.05, 0.0, 0.05]) is Outcome.INCONCLUSIVE
    assert verdict(0.0, [*QUIET, 0.05, 0.05, 0.0]) is Outcome.PASS


def test_a_slowdown_below_two_percent_never_fails() -> None:
    still = [0.0] * 30
    assert verdict(0.0, [*still, 0.0195, 0.0195, 0.0195]) is Outcome.PASS
    assert verdict(0.0, [*still, 0.0205, 0.0205]) is Outcome.FAIL


def test_faster_is_not_worse() -> None:
    assert verdict(0.0, [*QUIET, -0.2, -0.2, -0.2]) is Outcome.PASS


def test_the_level_stays_where_it_was_accepted_however_long_a_slowdown_lasts() -> None:
    found = judged(0.0, [*QUIET, *[0.06] * 40])
    assert found.outcome is Outcome.FAIL
    assert found.level == pytest.approx(1.0, abs=0.002)


def test_a_slowdown_right_after_acceptance_does_not_settle_as_the_level() -> None:
    found = judged(0.0, [0.06] * 20)
    assert found.outcome is Outcome.FAIL
    assert found.level == 1.0


def test_a_creeping_slowdown_is_caught() -> None:
    """Half a percent a night: never much against the night before, and that isn't what it's held
    against.
    """
    creeping = [0.005 * number for number in range(1, 25)]
    assert any(verdict(0.0, creeping[:count]) is Outcome.FAIL for count in range(1, 25))


SLOW, STILL = Night(0.05), Night(0.0)
CONFIRMED, REFUTED = Night(0.05, first=0.05), Night(0.0, first=0.05)


def after_quiet(*nights: Night) -> Nights:
    return judge_nights(0.0, [*map(Night, QUIET), *nights])


def test_a_night_whose_slowdown_was_not_confirmed_is_not_suspect() -> None:
    found = after_quiet(REFUTED)
    assert (found.outcome, found.unconfirmed) == (Outcome.PASS, True)
    assert found.first == pytest.approx(math.exp(0.05))
    assert found.ratio == 1.0
    assert after_quiet(CONFIRMED).outcome is Outcome.INCONCLUSIVE
    assert not after_quiet(CONFIRMED).unconfirmed
    assert after_quiet(CONFIRMED, CONFIRMED).outcome is Outcome.FAIL
    assert after_quiet(SLOW, CONFIRMED).outcome is Outcome.FAIL
    assert after_quiet(REFUTED, CONFIRMED).outcome is Outcome.INCONCLUSIVE
    assert after_quiet(CONFIRMED, REFUTED).outcome is Outcome.PASS
    assert after_quiet(CONFIRMED, REFUTED, CONFIRMED).outcome is Outcome.INCONCLUSIVE


def test_a_slowdown_that_only_the_second_measurement_shows_is_not_suspect() -> None:
    found = after_quiet(Night(0.05, first=0.009))
    assert (found.outcome, found.unconfirmed) == (Outcome.PASS, True)
    assert not after_quiet(Night(0.0, first=0.009)).unconfirmed


def test_the_first_of_two_measurements_need_not_reach_the_limit_by_itself() -> None:
    """Half of the minimum effect will do: asking both for 2.5 spreads would miss what one of them
    finds.
    """
    wide = [0.0, 0.02, -0.02, 0.015, -0.01, 0.02, -0.015]
    nights = [*map(Night, wide), Night(0.08, first=0.015)]
    found = judge_nights(0.0, nights)
    assert math.log1p(found.smallest_step) > 0.03
    assert found.outcome is Outcome.INCONCLUSIVE


def test_the_level_settles_on_second_measurements() -> None:
    nights = [Night(0.004, first=0.03), Night(0.004), Night(0.004)]
    assert judge_nights(0.004, nights).level == pytest.approx(math.exp(0.004))


def test_a_night_further_off_than_its_spreads_does_not_settle_the_level() -> None:
    """Below 2% of the level, which a quiet night is, and yet beyond 2.5 spreads."""
    steady = [0.0, 0.0, 0.0, *[-0.05] * 20]
    assert judged(0.0, [*steady, 0.019, 0.0]).level == pytest.approx(1.0, abs=1e-9)
    assert judged(0.0, [*steady, 0.012, 0.0]).level == pytest.approx(math.exp(0.0024))


def test_the_spread_is_that_of_the_differences_without_the_greatest() -> None:
    nights = [0.01, 0.0, 0.01, 0.3]  # 0.01 three times, and a step
    own = 0.01 / DIFFERENCE_OF_NORMALS
    spread = math.sqrt((0.02**2 + 3 * own**2) / 4)
    limit = Z_LIMIT * spread * math.sqrt(1 + 2 / 5)
    judged_last = judged(0.0, [*nights, 0.0, 0.0])
    assert judged_last.level == pytest.approx(math.exp(0.02 / 5))
    assert judged_last.smallest_step == pytest.approx(math.expm1(limit))


@pytest.mark.parametrize("steps", [(0.05, 0.05), (0.05, 0.3), (0.3, 0.05)])
def test_two_slow_nights_do_not_widen_the_spread_they_are_compared_with(
    steps: tuple[float, float],
) -> None:
    """An earlier step is the greatest difference, so that the latest ones would count."""
    history = [*QUIET, 0.1, *QUIET]
    widest = judged(0.0, [*history, *steps])
    assert widest.smallest_step == pytest.approx(
        judged(0.0, [*history, -0.5, -0.5]).smallest_step
    )


def test_noise_within_the_night_widens_the_limit() -> None:
    assert verdict(0.0, [*QUIET, 0.05, 0.05], error=0.02) is Outcome.PASS
    assert judged(0.0, QUIET, 0.05).smallest_step > 0.12


def test_a_cell_too_noisy_to_be_watched_says_so() -> None:
    rng = np.random.default_rng(3)
    assert verdict(0.0, simulated(rng, 30, 0.08)) is Outcome.INCONCLUSIVE


def test_the_standard_error_of_a_nights_median_is_what_resampling_gives() -> None:
    rng = np.random.default_rng(4)
    medians = np.median(rng.normal(scale=0.02, size=(20_000, 16)), axis=1)
    estimated = np.mean(
        [standard_error(list(rng.normal(scale=0.02, size=16))) for _ in range(500)]
    )
    assert estimated == pytest.approx(float(medians.std()), rel=0.1)
    assert standard_error([0.1, 0.2]) == 0.0


def test_false_alarms_are_rare_and_a_slowdown_of_five_percent_is_caught() -> None:
    """The rule on nights with the spread of 1% that was measured.

    `make performance` has the full count.
    """
    rng = np.random.default_rng(5)
    alarms = nights = 0
    for _ in range(60):
        history = simulated(rng, 31, 0.01)
        verdicts = [verdict(history[0], history[1:count]) for count in range(2, 32)]
        alarms += verdicts.count(Outcome.FAIL)
        nights += len(verdicts)
    assert alarms / nights <= 0.002
    caught = 0
    for _ in range(60):
        history = simulated(rng, 17, 0.01, step=0.05, at=15)
        caught += verdict(history[0], history[1:]) is Outcome.FAIL
    assert caught >= 48


def spread_of_quiet(count: int) -> float:
    """The spread after ``count`` differences without a difference, beside the greatest."""
    return math.sqrt(0.02**2 / (1 + max(count - 1, 0)))


def test_without_a_night_the_limit_is_that_of_a_first_one() -> None:
    found = judge_nights(math.log(1.3), [])
    assert found.z == 0.0
    assert found.smallest_step == pytest.approx(math.expm1(Z_LIMIT * 0.02 * math.sqrt(3)))
    assert (found.first, found.unconfirmed) == (None, False)
    assert judged(0.0, [0.0]).smallest_step == found.smallest_step


def test_how_far_off_a_night_is() -> None:
    found = judged(0.01, [0.01, 0.01, 0.01, 0.05])
    spread = spread_of_quiet(2)
    assert found.z == pytest.approx(0.04 / (spread * math.sqrt(1 + 2 / 4)))
    assert found.count == 5
    assert found.ratio == pytest.approx(math.exp(0.05))
    assert judged(0.01, [0.01, 0.01, 0.01, -0.03]).z == pytest.approx(-found.z)


def test_ten_nights_settle_a_level() -> None:
    """The accepted one, and nine after it: an eleventh doesn't move it."""
    for nights, total in ((8, 0.08), (9, 0.09), (10, 0.09), (30, 0.09)):
        found = judged(0.0, [*[0.01] * nights, 0.0])
        assert found.level == pytest.approx(math.exp(total / min(nights + 1, 10))), nights


def test_no_more_than_the_latest_differences_make_the_spread() -> None:
    """Twenty of them, of which the greatest doesn't count."""
    wild = [0.3, -0.3]
    calm = [0.0] * 21
    found = judged(0.0, [*wild, *calm, 0.0])
    assert found.smallest_step == pytest.approx(math.expm1(math.log(1.02)))
    near = judged(0.0, [*wild, *calm[:19], 0.0])
    assert near.smallest_step > found.smallest_step * 1.5


@pytest.mark.parametrize(
    ("figure", "outcome"),
    [
        (math.log(1.02), Outcome.PASS),
        (math.nextafter(math.log(1.02), 1), Outcome.INCONCLUSIVE),
    ],
)
def test_a_night_at_the_limit_is_not_suspect(figure: float, outcome: Outcome) -> None:
    found = judged(0.0, [*[0.0] * 30, figure])
    assert (found.outcome, found.unconfirmed) == (outcome, False)


def test_a_night_at_two_percent_is_quiet_and_one_beyond_is_not() -> None:
    for figure, counts in (
        (math.log(1.02), True),
        (math.nextafter(math.log(1.02), 1), False),
    ):
        level = judged(0.0, [figure, 0.0]).level
        assert level == pytest.approx(math.exp(figure / 2) if counts else 1.0)
        assert judged(0.0, [-figure, 0.0]).level == pytest.approx(1 / level)


@pytest.mark.parametrize("error", [0.02, 0.0221, 0.0223, 0.05])
def test_a_cell_is_watched_where_a_step_of_a_tenth_would_be_seen(error: float) -> None:
    """In a first night after the accepted one the limit is 2.5 errors times the root of 3."""
    limit = 2.5 * error * math.sqrt(3)
    expected = Outcome.INCONCLUSIVE if limit > math.log(1.1) else Outcome.PASS
    assert verdict(0.0, [0.0], error=error) is expected


@pytest.mark.parametrize(
    ("night", "outcome", "unconfirmed"),
    [
        (Night(0.05, first=math.log(1.02) / 2), Outcome.PASS, True),
        (
            Night(0.05, first=math.nextafter(math.log(1.02) / 2, 1)),
            Outcome.INCONCLUSIVE,
            False,
        ),
        (Night(0.0, first=math.log(1.02)), Outcome.PASS, False),
        (Night(0.0, first=math.nextafter(math.log(1.02), 1)), Outcome.PASS, True),
    ],
)
def test_the_limits_of_two_measurements(
    night: Night, outcome: Outcome, unconfirmed: bool
) -> None:
    found = judge_nights(0.0, [*[Night(0.0)] * 30, night])
    assert (found.outcome, found.unconfirmed) == (outcome, unconfirmed)
    assert found.first == pytest.approx(math.exp(night.first or 0.0))


def test_both_measurements_are_held_against_the_level() -> None:
    night = Night(0.55, first=0.505)
    found = judge_nights(0.5, [*[Night(0.5)] * 30, night])
    assert (found.outcome, found.unconfirmed) == (Outcome.PASS, True)
    confirmed = judge_nights(-0.5, [*[Night(-0.5)] * 30, Night(-0.45, first=-0.48)])
    assert (confirmed.outcome, confirmed.unconfirmed) == (Outcome.INCONCLUSIVE, False)


def test_a_night_at_its_limit_of_spreads_is_quiet() -> None:
    widened = 0.0048 * math.sqrt(1 + 2 / 3)
    figure = Z_LIMIT * widened
    assert figure / widened == Z_LIMIT
    before = [*map(Night, [0.0, 0.0, *[-0.05] * 20])]
    found = judge_nights(0.0, [*before, Night(figure, error=0.0048), Night(0.0)])
    assert found.level == pytest.approx(math.exp(figure / 4))


def test_a_limit_of_a_tenth_is_still_watched() -> None:
    at = _Look(0.0, 0.0, math.log1p(BLUNT), suspect=False)
    assert _outcome(at, was_suspect=True) is Outcome.PASS
    beyond = _Look(0.0, 0.0, math.nextafter(math.log1p(BLUNT), 1), suspect=False)
    assert _outcome(beyond, was_suspect=True) is Outcome.INCONCLUSIVE


def test_the_standard_error_of_a_few_pairs() -> None:
    variance = (0.01**2 + 0.0 + 0.01**2) / 2
    expected = math.sqrt(math.pi / 2 * variance / 3)
    assert standard_error([0.11, 0.12, 0.13]) == pytest.approx(expected)
    assert standard_error([]) == 0.0
