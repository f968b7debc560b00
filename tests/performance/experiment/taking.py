"""Taking the recordings of each row: what is missing, in what order, until the time is over."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from statistics import median

from onnx_harness.gate.verdicts import PART_PAIRS, confirming_pairs
from onnx_harness.latency.plan import PAIR_S
from onnx_harness.latency.statistics import PairCount, choose_pairs, pseudomedian
from tests.performance.experiment.recordings import (
    FAMILY,
    Measured,
    Recordings,
    busy_neighbour,
    in_fresh_processes,
    measure,
    undecided,
)
from tests.performance.experiment.subjects import (
    INJECTABLE,
    SPREAD,
    SUBJECTS,
    WIDTH,
    subject,
    with_work,
)

AA_TRIALS, BUSY_AA_TRIALS, WORK_TRIALS = 600, 100, 100
SPREAD_PAIRS, FRESH_PAIRS, SIZING_PAIRS = 24, 12, 24
NOISY = 0.02
BUDGET_S = 280.0
"""For the first measurement of the hundred cells that a trial is taken to be one of: 16 pairs each,
the fewest that can
fail in such a run. All rows take just under two hours then."""
EFFECTS = (0.10, 0.05, 0.03, 0.02)
ROWS = (
    "spread",
    "fresh",
    "aa",
    *(f"work {effect:.0%}" for effect in EFFECTS),
    "busy aa",
    "busy work 5%",
)

Taken = Iterator[str]
"""What has been taken, a line for each measurement; taking it is going on to the next."""


class OutOfTime(Exception):
    pass


def take(row: str, recordings: Recordings, deadline: float) -> None:
    """Take what ``row`` lacks, telling about it, until it has enough or ``deadline``."""
    steps = _steps(row, recordings)
    said = started = time.monotonic()
    for done, line in enumerate(steps, start=1):
        if time.monotonic() - said > 10 or row in ("spread", "fresh"):
            said = time.monotonic()
            print(f"  {row}: {line} ({done} measured in {said - started:.0f} s)", flush=True)
        if time.monotonic() > deadline:
            raise OutOfTime


def _steps(row: str, recordings: Recordings) -> Taken:
    if row in ("spread", "fresh"):
        return {"spread": _spread, "fresh": _fresh}[row](recordings)
    effect = float(row.rpartition(" ")[2].rstrip("%")) / 100 if "work" in row else 0.0
    count = WORK_TRIALS if effect else BUSY_AA_TRIALS if "busy" in row else AA_TRIALS
    return _trials(row, recordings, effect, count)


def chosen_pairs(recordings: Recordings) -> PairCount:
    """K, from the spread that was measured on one thread: from the noisiest of the models that
    trials are made of.
    """
    seen = [spread(each) for each in recordings.of("spread 1") if each.model in SUBJECTS]
    if not seen:
        raise SystemExit("the trials need the row `spread` first: K follows from it")
    return choose_pairs(cells=FAMILY, pair_s=2 * PAIR_S, budget_s=BUDGET_S, spread=max(seen))


def _trials(row: str, recordings: Recordings, effect: float, count: int) -> Taken:
    pairs = chosen_pairs(recordings)
    print(f"  {pairs.why}")
    if effect:
        yield from _sizes(recordings, effect)
    models = INJECTABLE if effect else SUBJECTS
    first = {(each.model, each.trial): each for each in recordings.of(row)}
    with busy_neighbour() if "busy" in row else nullcontext():
        for trial in range(count):
            name = models[trial % len(models)]
            if (name, trial) not in first:
                rows = size_of(recordings, row, name, effect) if effect else 0
                first[name, trial] = _measured(row, name, trial, rows, pairs.pairs)
                recordings.add(first[name, trial])
                yield f"trial {trial + 1} of {count}, {name}"
        doubtful = [each for each in first.values() if undecided(each)]
        yield from _confirmations(row, recordings, doubtful, confirming_pairs(pairs.pairs))


def _confirmations(
    row: str, recordings: Recordings, doubtful: list[Measured], wanted: int
) -> Taken:
    """Second measurements, when all of the row's firsts are taken, as at the end of a run.

    A part of each in turn.

    What work costs beside a model drifts within seconds: halves of one measurement agreed more than
    two measurements did. In turn, a few seconds of each, its parts are minutes apart.
    """
    taken = Counter[tuple[str, int]]()
    for each in recordings.of(row, confirming=True):
        taken[each.model, each.trial] += len(each.pairs)
    for have in range(0, wanted, PART_PAIRS):
        for each in doubtful:
            if taken[each.model, each.trial] <= have:
                pairs = min(PART_PAIRS, wanted - have)
                recordings.add(
                    _measured(
                        row,
                        each.model,
                        each.trial,
                        each.rows,
                        pairs,
                        confirming=True,
                        part=have,
                    )
                )
                yield (
                    f"trial {each.trial + 1}, {each.model}, confirmed in {have + pairs} of "
                    f"{wanted} pairs"
                )


def _measured(
    row: str,
    name: str,
    trial: int,
    rows: int,
    pairs: int,
    *,
    confirming: bool = False,
    part: int = 0,
) -> Measured:
    found = subject(name)
    variant = with_work(found.model, rows) if rows else None
    return measure(
        row,
        found,
        trial,
        variant=variant,
        rows=rows,
        pairs=pairs,
        confirming=confirming,
        part=part,
    )


def _spread(recordings: Recordings) -> Taken:
    for threads in (1, 2):
        row = f"spread {threads}"
        have = {each.model for each in recordings.of(row)}
        for name, batch in SPREAD:
            if name not in have:
                measured = measure(
                    row, subject(name, batch), 0, pairs=SPREAD_PAIRS, threads=threads
                )
                recordings.add(measured)
                yield f"{name}, {threads} threads: {spread(measured):.1%}"


def _fresh(recordings: Recordings) -> Taken:
    """The classes that are noisier than 2% within a process, in fresh ones."""
    for threads in (1, 2):
        row = f"fresh {threads}"
        have = {each.model for each in recordings.of(row)}
        noisy = {
            each.model for each in recordings.of(f"spread {threads}") if spread(each) > NOISY
        }
        for name, batch in SPREAD:
            if name in noisy - have:
                measured = in_fresh_processes(
                    row, subject(name, batch), threads, FRESH_PAIRS
                )
                recordings.add(measured)
                yield f"{name}, {threads} threads, in fresh processes: {spread(measured):.1%}"


def _sizes(recordings: Recordings, effect: float) -> Taken:
    """How many rows of products an effect takes in each model: a guess, and corrections by what it
    came to.
    """
    row = f"size {effect:.0%}"
    for name in INJECTABLE:
        tries = [each for each in recordings.of(row) if each.model == name]
        while len(tries) < sizings(effect):
            rows = (
                _next_rows(tries, effect) if tries else _first_rows(recordings, name, effect)
            )
            found = subject(name)
            variant = with_work(found.model, rows)
            measured = measure(
                row, found, len(tries), variant=variant, rows=rows, pairs=SIZING_PAIRS
            )
            tries.append(measured)
            recordings.add(measured)
            yield f"{name}, {rows} rows: {slowdown(measured):.2%} for {effect:.0%}"


def size_of(recordings: Recordings, row: str, name: str, effect: float) -> int:
    """The rows that ``effect`` takes in a model: from its sizing, and from the trials of the row
    that went before.

    What the work costs beside the model isn't the same an hour later, and a tenth of a percent less
    than the minimum effect is rightly passed. A trial has no say in its own size.
    """
    taken = [*recordings.of(f"size {effect:.0%}"), *recordings.of(row)]
    return _next_rows([each for each in taken if each.model == name], effect)


def sizings(effect: float) -> int:
    """How often the work is sized: near the minimum effect a tenth of a percent decides whether it
    should be caught.
    """
    return 4 if effect < 0.03 else 2


def _next_rows(tries: list[Measured], effect: float) -> int:
    """By proportion, from all that has been tried but the first guess.

    By the pseudomedian: in the mean one disturbed trial took a tenth off the work of all that came
    after it.
    """
    per_row = pseudomedian([slowdown(each) / each.rows for each in tries[1:] or tries])
    if per_row <= 0:
        return 2 * tries[-1].rows
    return max(1, round(effect / per_row))


def _first_rows(recordings: Recordings, name: str, effect: float) -> int:
    """By what another effect took in this model, or a guess."""
    others = [
        each
        for each in recordings.all
        if each.row.startswith("size ") and each.model == name
    ]
    return _next_rows(others, effect) if others else _guess(name, effect)


def _guess(name: str, effect: float) -> int:
    """A row is 2 x 2 x 64 x 64 floating-point operations.

    A core does some 40 of them in a nanosecond.
    """
    pilot = measure("pilot", subject(name), 0, pairs=1)
    run_ns = median(baseline for pair in pilot.pairs for baseline, _ in pair)
    return max(4, round(effect * run_ns * 40 / (4 * WIDTH * WIDTH)))


def spread(measured: Measured) -> float:
    """Standard deviation of d_k over the pairs."""
    values = measured.log_ratios
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def slowdown(measured: Measured) -> float:
    """How much longer the variant takes: 0.05 is 5%."""
    return math.expm1(-pseudomedian(measured.log_ratios))
