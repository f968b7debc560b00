"""A cell's latency against its level: the nights that count, and the noise of each."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from onnx_harness.gate.latency import (
    _report,
    _sentence,
    comparable,
    compare_latency,
    one_a_night,
)
from onnx_harness.gate.nights import standard_error
from onnx_harness.gate.rules import Compared
from onnx_harness.results.cells import CellResult, PinnedRecord
from onnx_harness.results.gated import Nights
from onnx_harness.results.history_rows import PastCell
from onnx_harness.results.levels import Level, trimmed
from onnx_harness.results.outcome import Outcome
from tests.nights import pinned, spread_about, timed
from tests.unit.results_examples import RUN, latency

LEVEL = Level(
    trimmed(timed("original")),
    RUN.host.processor_of("cpu"),
    RUN.seed,
    "night0",
    "2026-01-02T03:00:00+00:00",
    "w",
    "y",
)


def history(*cells: CellResult) -> list[PastCell]:
    """Return a run for each cell, the first of them the accepted one."""
    runs = [replace(RUN, id=f"night{number}") for number in range(len(cells))]
    return [PastCell(run, cell) for run, cell in zip(runs, cells, strict=True)]


def test_the_accepted_night_is_not_one_of_those_after_it() -> None:
    past = history(timed("original"), timed("original", 1.01), timed("original", 1.02))
    assert comparable(LEVEL, past) == past[1:]


def test_without_the_accepted_run_the_night_that_began_then_is_not_after_it() -> None:
    past = [
        PastCell(replace(RUN, id=started, started=started), timed("original"))
        for started in (LEVEL.accepted, "2026-01-02T03:00:01+00:00")
    ]
    assert comparable(LEVEL, past) == past[1:]


@pytest.mark.parametrize(("first", "second"), [(0.001, 0.2), (0.2, 0.001)])
def test_the_noise_of_a_night_is_that_of_the_measurement_it_goes_by(
    first: float, second: float
) -> None:
    rng = np.random.default_rng(2)
    again = spread_about(1.0, second, 32, rng)
    record = pinned(
        1.05, log_ratios=spread_about(1.05, first, 16, rng), confirming_log_ratios=again
    )
    found = compare_latency(
        Compared(),
        LEVEL,
        now := timed("original", pinned=record),
        history(timed("original"), now),
    )
    assert found is not None
    spread = max(0.02, standard_error(again))
    assert found.smallest_step == pytest.approx(math.expm1(2.5 * spread * math.sqrt(3)))


@pytest.mark.parametrize(
    ("ratio", "z", "words"),
    [
        (1.05, 1.0, "its nights vary so much that a slowdown of 12% wouldn't be noticed"),
        (
            1.2,
            3.0,
            "1.200 times the pinned reference's time, and 1.000 was accepted: +20.0%",
        ),
        (1.2, 0.0, "its nights vary so much that a slowdown of 12% wouldn't be noticed"),
    ],
)
def test_a_night_that_decides_nothing_says_why(ratio: float, z: float, words: str) -> None:
    nights = Nights(Outcome.INCONCLUSIVE, ratio, level=1.0, z=z, smallest_step=0.12, count=3)
    assert _sentence(nights).startswith(words)


def gated(
    now: CellResult,
    *before: CellResult,
    level: Level = LEVEL,
    compared: Compared | None = None,
) -> tuple[list[str], Nights | None]:
    """Judge ``now`` after nights as accepted and ``before``: findings, then notes, as lines."""
    seen = compared or Compared()
    nights = compare_latency(seen, level, now, history(timed("original"), *before, now))
    lines = [f"{found.outcome} {found.what}: {found.reason}" for found in seen.findings]
    return [*lines, *seen.notes], nights


NO_VERDICT = "the run ended before it was compared with its accepted level: run again"
NOT_TIMED = "it wasn't timed with the pinned reference: "
NO_TIME = "a time or a ratio of it is {}: the clock, or whatever wrote it, is broken"
VOID = pinned(spread=0.0)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (timed("original", latency=latency(0.0)), NO_TIME.format("0.0")),
        (
            timed("original", latency=replace(latency(), baseline_median_ms=-1.0)),
            NO_TIME.format(-1.0),
        ),
        (
            timed("original", latency=replace(latency(), speedup=math.nan)),
            NO_TIME.format("nan"),
        ),
        (timed("original", pinned=pinned(median_ms=None)), NO_TIME.format(None)),
        (timed("original", pinned=pinned(pinned_median_ms=math.inf)), NO_TIME.format("inf")),
        (
            timed("original", pinned=pinned(log_ratios=(0.0, -math.inf))),
            NO_TIME.format("0.0"),
        ),
        (
            timed("original", pinned=pinned(confirming_log_ratios=(math.nan,))),
            NO_TIME.format("nan"),
        ),
        (
            timed("original", pinned=None),
            f"{NOT_TIMED}the run named none (--gate-reference), or ran under xdist",
        ),
        (
            timed("original", pinned=pinned(ratio=1.0, reason="it died"), latency=None),
            None,
        ),
        (
            timed("original", pinned=replace(pinned(), ratio=None, reason="it died")),
            f"{NOT_TIMED}it died",
        ),
        (
            timed("original", pinned=replace(pinned(), ratio=None)),
            f"{NOT_TIMED}the run named none (--gate-reference), or ran under xdist",
        ),
        (timed("original", pinned=pinned(verdict=None)), NO_VERDICT),
        (
            timed("original", pinned=VOID),
            f"tonight's readings can't be used: {VOID.verdict and VOID.verdict.reason}",
        ),
        (
            timed("original", pinned=pinned(1.1, confirming_log_ratios=())),
            "tonight's first measurement is fail, and the run ended before the second, which that "
            "requires: run again",
        ),
        (
            timed("original", pinned=pinned(model_sha256="cd" * 32)),
            "the pinned reference didn't run the model that was accepted: accept the cell again",
        ),
    ],
)
def test_a_night_that_cannot_be_judged_says_why(now: CellResult, reason: str | None) -> None:
    said, nights = gated(now)
    assert said == ([] if reason is None else [f"invalid latency: {reason}"])
    assert (nights is None) is (reason is not None)


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.nan, math.inf])
def test_an_accepted_ratio_that_is_none_is_said(ratio: float) -> None:
    broken = replace(LEVEL, cell=replace(LEVEL.cell, pinned=replace(pinned(), ratio=ratio)))
    said, nights = gated(timed("original"), level=broken)
    assert said == [f"invalid latency: the accepted ratio is {ratio}: accept the cell again"]
    assert nights is None


@pytest.mark.parametrize("record", [None, replace(pinned(), ratio=None)])
def test_a_level_without_a_reference_gates_no_latency(record: PinnedRecord | None) -> None:
    bare = replace(LEVEL, cell=replace(LEVEL.cell, pinned=record))
    assert gated(timed("original", 1.5, pinned=None), level=bare) == ([], None)


def test_where_the_settings_differ_the_latency_is_not_judged() -> None:
    compared = Compared()
    compared.void("card", "changed")
    assert gated(timed("original", 1.1), compared=compared) == (
        ["invalid card: changed"],
        None,
    )


def test_the_accepted_night_itself_needs_no_verdict() -> None:
    now = timed("original", pinned=pinned(verdict=None))
    seen = Compared()
    nights = compare_latency(seen, LEVEL, now, history(now))
    assert nights is not None
    assert (nights.outcome, nights.count, seen.findings) == (Outcome.PASS, 1, [])


SLOW = timed("original", 1.06)


def test_slow_nights_in_words() -> None:
    still = [timed("original")] * 9
    [once], nights = gated(SLOW, *still)
    assert nights is not None
    assert once == (
        "inconclusive latency: 1.060 times the pinned reference's time, and 1.000 was accepted: "
        f"+6.0% (z {nights.z:.1f}; measured again, +6.0% at first). A second night in a row would "
        "fail it"
    )
    [twice], nights = gated(SLOW, *still, SLOW)
    assert nights is not None
    assert twice == (
        "fail latency: 1.060 times the pinned reference's time, and 1.000 was accepted: +6.0%, two "
        f"nights in a row (z {nights.z:.1f}; measured again, +6.0% at first)"
    )


def test_a_slow_night_that_was_measured_once() -> None:
    nights = Nights(Outcome.FAIL, 1.1, level=1.0, z=3.04, smallest_step=0.02, count=3)
    assert _sentence(nights) == (
        "1.100 times the pinned reference's time, and 1.000 was accepted: +10.0%, two nights in a "
        "row (z 3.0)"
    )


@pytest.mark.parametrize(
    ("first", "again", "note"),
    [
        (
            1.1,
            1.0,
            "+10.0% at first, and +0.0% when measured again on fresh pairs: not a suspect night",
        ),
        (
            1.005,
            1.1,
            "+10.0% when measured again, which the first measurement (+0.5%) doesn't show: not a "
            "suspect night",
        ),
    ],
)
def test_a_slowdown_that_one_measurement_shows(
    first: float, again: float, note: str
) -> None:
    spread = 0.06 if first < again else 0.005
    now = timed("original", pinned=pinned(first, again=again, spread=spread))
    said, nights = gated(now, *[timed("original")] * 9)
    assert nights is not None
    assert (said, nights.outcome, nights.unconfirmed) == ([note], Outcome.PASS, True)


@pytest.mark.parametrize(("ratio", "said"), [(0.9, True), (0.99, False)])
def test_a_faster_night_is_worth_a_note(ratio: float, said: bool) -> None:
    told, _ = gated(timed("original", ratio), *[timed("original")] * 9)
    note = "11.1% faster than accepted: accept it, so that losing it again is noticed"
    assert told == ([note] if said else [])


def at(*hours: float | None) -> list[PastCell]:
    """Runs so many hours after the accepted night; None: at a time that can't be read."""
    runs = []
    for number, hour in enumerate(hours):
        moment = datetime(2026, 1, 3, tzinfo=UTC) + timedelta(hours=hour or 0)
        started = "once" if hour is None else moment.isoformat()
        runs.append(PastCell(replace(RUN, id=str(number), started=started), SLOW))
    return runs


@pytest.mark.parametrize(
    ("hours", "counted"),
    [
        ((0, 4, 8), [0, 1, 2]),
        ((0, 3.99, 7.98), [0, 2]),
        ((0, 3, 6, 9), [1, 3]),
        ((8, 4, 0), [0, 1, 2]),
        ((0, None, 1), [0, 1, 2]),
        ((0, 1, None), [1, 2]),
        ((), []),
    ],
)
def test_the_latest_run_of_each_night_counts(
    hours: tuple[float | None, ...], counted: list[int]
) -> None:
    runs = at(*hours)
    assert one_a_night(runs, timedelta(hours=4)) == [runs[place] for place in counted]
    assert one_a_night(runs, timedelta(0)) == runs


@pytest.mark.parametrize(
    ("hours", "ratio", "noted"),
    [((20, 21), 1.2, True), ((20, 25), 1.2, False), ((1, 2), 1.0, False)],
)
def test_runs_of_one_night_are_said_where_that_decides(
    hours: tuple[float, ...], ratio: float, noted: bool
) -> None:
    accepted = PastCell(replace(RUN, id="night0"), timed("original"))
    runs = [replace(run, cell=timed("original", ratio)) for run in at(*hours)]
    seen = Compared()
    past = [accepted, *runs]
    nights = compare_latency(seen, LEVEL, runs[-1].cell, past, timedelta(hours=1.5))
    assert nights is not None
    note = (
        "runs less than 1.5 hours apart are one night, of which the latest counts (--same-night "
        "counts each)"
    )
    assert seen.notes == ([note] if noted else [])


def test_a_night_that_is_faster_by_just_the_smallest_step_is_not_worth_a_note() -> None:
    assert math.log(2.0) == math.log1p(1.0)
    for step, notes in ((1.0, 0), (0.999, 1)):
        seen = Compared()
        _report(
            seen, Nights(Outcome.PASS, 0.5, level=1.0, z=0.0, smallest_step=step, count=3)
        )
        assert len(seen.notes) == notes
