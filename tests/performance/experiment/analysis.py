"""The table: what the recordings say, replayed through the decision as it is now."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np
from scipy.stats import binomtest, mannwhitneyu, ttest_ind

from onnx_harness.latency.statistics import (
    ALPHA,
    CONFIRMING_PAIRS,
    MINIMUM_EFFECT,
    Decision,
    Outcome,
    confirm,
    decide,
    decide_run,
    needs_confirmation,
    pseudomedian,
    speedup_interval,
)
from tests.performance.experiment.recordings import FAMILY, Measured, Recordings
from tests.performance.experiment.subjects import INJECTABLE, SUBJECTS, TWO_MS
from tests.performance.experiment.taking import (
    AA_TRIALS,
    BUSY_AA_TRIALS,
    NOISY,
    WORK_TRIALS,
    spread,
)

RESAMPLED = 30_000
Trial = tuple[Measured, Measured | None]


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table. ``reached`` is None while there are too few trials to say."""

    what: str
    asked: str
    measured: str
    trials: str
    reached: bool | None

    def text(self) -> str:
        said = {True: "yes", False: "NO", None: "not enough trials yet"}[self.reached]
        return f"{self.what:<58} {self.asked:>16}  {self.measured:<42} {self.trials:>13}  {said}"


def table(recordings: Recordings, *further: Callable[[], Line]) -> Iterator[str]:
    """The lines to print; ``further`` are rows that rest on no recordings."""
    yield from _spreads(recordings)
    yield ""
    yield (
        Line("what", "to reach", "measured [95% bounds]", "trials", True)
        .text()
        .rpartition("  ")[0]
        + "  reached"
    )
    lines = []
    for line in _lines(recordings):  # one by one: resampling takes a minute
        lines.append(line)
        yield line.text()
    for each in further:
        lines.append(each())
        yield lines[-1].text()
    yield ""
    yield (
        f"{sum(line.reached is True for line in lines)} of {len(lines)} reached; alpha {ALPHA} "
        f"over {FAMILY} cells"
    )
    numbers = sorted({len(each.pairs) for each in recordings.of("aa")})
    chosen = ", ".join(map(str, numbers)) or "?"
    yield f"K = {chosen}, then {CONFIRMING_PAIRS} or more; minimum effect {MINIMUM_EFFECT:.0%}"


def _spreads(recordings: Recordings) -> Iterator[str]:
    yield "Spread of d_k over fresh pairs (standard deviation):"
    fresh = {
        (each.row[-1], each.model): each
        for each in (*recordings.of("fresh 1"), *recordings.of("fresh 2"))
    }
    for threads in (1, 2):
        for each in recordings.of(f"spread {threads}"):
            cost = median(baseline for pair in each.pairs for baseline, _ in pair) / 1e6
            text = (
                f"  {each.model:<20} {cost:8.3f} ms  {threads} threads  {spread(each):6.2%}"
            )
            text += f"  {len(each.pairs)} pairs x {len(each.pairs[0])} iterations"
            apart = fresh.get((str(threads), each.model))
            if apart is not None:
                text += (
                    f"; in fresh processes {spread(apart):.2%} ({len(apart.pairs)} pairs)"
                )
            elif spread(each) > NOISY:
                text += "; above 2%: the row `fresh` measures it in fresh processes"
            yield text


def _lines(recordings: Recordings) -> Iterator[Line]:
    alike, busy = recordings.trials("aa"), recordings.trials("busy aa")
    models = len({first.model for first, _ in alike})
    fresh, again = in_runs(alike), resampled(alike) if len(alike) >= AA_TRIALS else []
    yield _none(f"A/A: FAIL ({models} models)", fresh, AA_TRIALS, models >= 6)
    yield _none("A/A resampled: FAIL", again, RESAMPLED)
    yield _caught(recordings, "work 10%", 0.99)
    yield _caught(recordings, "work 5%", 0.99)
    yield _caught(recordings, "work 3%", 0.95)
    yield _caught(recordings, "work 2%", 0.90)
    yield _caught(recordings, "busy work 5%", 0.99)
    yield _none("busy neighbour, A/A: FAIL", in_runs(busy), BUSY_AA_TRIALS)
    yield from _interval(alike)
    yield _cost(recordings)
    yield from _peers(recordings, alike, [*fresh, *again])


def verdict(trial: Trial, first: Decision | None = None) -> Outcome:
    """What the gate says of a cell in the end: alone in its second measurement, one of a hundred in
    its first.
    """
    taken, again = trial
    first = first or decide_run({0: taken.log_ratios}, family=FAMILY)[0]
    if not needs_confirmation(first):
        return first.outcome
    assert again is not None
    return confirm(first, decide(again.log_ratios)).outcome


def in_runs(trials: Sequence[Trial]) -> list[Outcome]:
    """The verdicts on trials, taken together in runs of a hundred cells."""
    found: list[Outcome] = []
    for at in range(0, len(trials), FAMILY):
        run = dict(enumerate(trials[at : at + FAMILY]))
        firsts = decide_run(
            {key: first.log_ratios for key, (first, _) in run.items()}, family=FAMILY
        )
        found += [verdict(run[key], firsts[key]) for key in run]
    return found


def resampled(trials: Sequence[Trial]) -> list[Outcome]:
    """The same on cells whose session pairs are drawn from all that were recorded of a model."""
    pools: dict[str, list[float]] = defaultdict(list)
    for pair in trials:
        for each in pair:
            if each is not None:
                pools[each.model] += each.log_ratios
    pairs = min(len(first.pairs) for first, _ in trials)
    names, rng = sorted(pools), np.random.default_rng(0)
    found: list[Outcome] = []
    for _ in range(RESAMPLED // FAMILY):
        cells = {key: names[key % len(names)] for key in range(FAMILY)}
        firsts = decide_run(
            {
                key: rng.choice(pools[name], pairs, replace=False).tolist()
                for key, name in cells.items()
            }
        )
        for key, first in firsts.items():
            if needs_confirmation(first):
                again = rng.choice(
                    pools[cells[key]], CONFIRMING_PAIRS, replace=False
                ).tolist()
                first = confirm(first, decide(again))
            found.append(first.outcome)
    return found


def _none(what: str, found: Sequence[Outcome], needed: int, also: bool = True) -> Line:
    failed, count = found.count(Outcome.FAIL), len(found)
    others = Counter(found)
    text = f"{failed} {bounds(failed, count)}" if count else "-"
    if others[Outcome.INCONCLUSIVE] or others[Outcome.INVALID]:
        text += f", {others[Outcome.INCONCLUSIVE]} inconclusive, {others[Outcome.INVALID]} invalid"
    enough = count >= needed and also
    return Line(
        what,
        "0",
        text,
        f"{count:,} of {needed:,}",
        None if not enough and not failed else failed == 0,
    )


def _caught(recordings: Recordings, row: str, least: float) -> Line:
    trials = recordings.trials(row)
    found = [verdict(trial) for trial in trials]
    caught, count = found.count(Outcome.FAIL), len(found)
    text = "-"
    if count:
        sizes = [
            math.expm1(-pseudomedian(values))
            for name in sorted({first.model for first, _ in trials})
            if (
                values := [
                    value
                    for first, _ in trials
                    if first.model == name
                    for value in first.log_ratios
                ]
            )
        ]
        text = f"{caught / count:.1%} {bounds(caught, count)}, work {min(sizes):.1%}-{max(sizes):.1%}"
    what = (
        row.replace("busy work", "busy neighbour,").replace("work ", "work of ") + " caught"
    )
    enough = count >= WORK_TRIALS
    return Line(
        what,
        f"{least:.0%}",
        text,
        f"{count} of {WORK_TRIALS}",
        caught >= least * count if enough else None,
    )


def _interval(alike: Sequence[Trial]) -> Iterator[Line]:
    """Coverage of the 95% interval and bias, where the truth is known: 1 among equals."""
    firsts = [first.log_ratios for first, _ in alike]
    intervals = [speedup_interval(values) for values in firsts]
    covered = sum(1 for each in intervals if each and each[0] <= 1 <= each[1])
    count = len(firsts)
    enough = count >= AA_TRIALS
    text = f"{covered / count:.1%} {bounds(covered, count)}" if count else "-"
    reached = 0.93 <= covered / count <= 0.97 if enough else None
    yield Line(
        "95% interval, A/A: coverage", "93-97%", text, f"{count} of {AA_TRIALS}", reached
    )
    text, reached = "-", None
    if count > 1:
        estimates = [100 * math.expm1(pseudomedian(values)) for values in firsts]
        error = 1.96 * float(np.std(estimates, ddof=1)) / math.sqrt(count)
        bias = fmean(estimates)
        text = f"{bias:+.3f} points [{bias - error:+.3f}, {bias + error:+.3f}]"
        reached = abs(bias) <= 0.2 if enough else None
    yield Line(
        "95% interval, A/A: bias", "0.2 points", text, f"{count} of {AA_TRIALS}", reached
    )


def _cost(recordings: Recordings) -> Line:
    """Of a cell of about 2 ms, its confirmation included where there was one."""
    rows = ("aa", *(f"work {effect}" for effect in ("10%", "5%", "3%", "2%")))
    trials = [
        trial for row in rows for trial in recordings.trials(row) if trial[0].model == TWO_MS
    ]
    seconds = [first.seconds + (again.seconds if again else 0.0) for first, again in trials]
    times = [baseline for first, _ in trials for pair in first.pairs for baseline, _ in pair]
    text = "-"
    if seconds:
        text = (
            f"{max(seconds):.1f} s at most, median {median(seconds):.1f} s, of "
            f"{median(times) / 1e6:.1f} ms"
        )
    needed = 20
    reached = max(seconds) <= 10 if len(seconds) >= needed else None
    return Line(
        "cost of a cell of 2 ms, confirmation included",
        "10 s",
        text,
        f"{len(seconds)} of {needed}",
        reached,
    )


def _times(taken: Measured, side: int) -> list[int]:
    return [reading[side] for pair in taken.pairs for reading in pair]


def _slower_by(
    figure: Callable[[Sequence[int]], float],
) -> Callable[[list[int], list[int]], bool]:
    return lambda saved, now: figure(now) > 1.05 * figure(saved)


PEERS: dict[str, Callable[[list[int], list[int]], bool]] = {
    "compare-fail min:5%": _slower_by(min),
    "compare-fail median:5%": _slower_by(median),
    "compare-fail mean:5%": _slower_by(fmean),
    "Mann-Whitney p < .05": lambda saved, now: bool(
        mannwhitneyu(now, saved, alternative="greater").pvalue < 0.05
    ),
    "Welch p < .05": lambda saved, now: bool(
        ttest_ind(now, saved, equal_var=False, alternative="greater").pvalue < 0.05
    ),
}


def _peers(
    recordings: Recordings, alike: Sequence[Trial], ours: Sequence[Outcome]
) -> Iterator[Line]:
    """Others on the same recordings, as they are used: a run that was saved, and one that comes
    later.

    Theirs is the rate of false alarms that was seen; ours the one that isn't ruled out by ``ours``,
    the verdicts on equals, resampled ones among them.
    """
    saved_by = {(first.model, first.trial // len(SUBJECTS)): first for first, _ in alike}
    later = [
        (saved_by.get((first.model, first.trial // len(SUBJECTS) - 1)), first)
        for first, _ in alike
    ]
    equals = [
        (_times(saved, 0), _times(now, 1)) for saved, now in later if saved is not None
    ]
    slowed = []
    for first, _ in recordings.trials("work 5%"):
        saved = saved_by.get((first.model, first.trial // len(INJECTABLE)))
        if saved is not None:
            slowed.append((_times(saved, 0), _times(first, 1)))
    most = (
        binomtest(ours.count(Outcome.FAIL), len(ours)).proportion_ci(method="exact").high
        if ours
        else 1.0
    )
    caught = [verdict(trial) for trial in recordings.trials("work 5%")]
    power = caught.count(Outcome.FAIL) / len(caught) if caught else 0.0
    enough = len(alike) >= AA_TRIALS and len(slowed) >= WORK_TRIALS
    for name, flags in PEERS.items():
        text = "-"
        reached = None
        if equals:
            false = sum(flags(saved, now) for saved, now in equals)
            rate = false / len(equals)
            text = f"{rate:.1%} {bounds(false, len(equals))} false alarms"
            if slowed:
                theirs = sum(flags(saved, now) for saved, now in slowed) / len(slowed)
                text += f", {theirs:.0%} at 5%"
                reached = (rate >= 10 * most and power >= theirs) if enough else None
        asked = "10x ours, <= pow."
        yield Line(f"beside {name}", asked, text, f"{len(equals)} + {len(slowed)}", reached)


def bounds(count: int, of: int) -> str:
    """The exact 95% interval of a share, by Clopper and Pearson."""
    interval = binomtest(count, of).proportion_ci(method="exact")
    return f"[{interval.low:.1%}, {interval.high:.1%}]"
