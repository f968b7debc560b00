"""The row of trees: every mistake of one unit in five forests, judged as outputs are."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from onnx_harness.inputs.decisions.trees import forest_of, forest_rows
from onnx_harness.inputs.plan.recipe import recipe_for
from onnx_harness.selftest import forests
from onnx_harness.selftest.bench import Bench, Outcome
from onnx_harness.selftest.forests import Shape, built, grown, mistakes
from onnx_harness.selftest.planted import Bench as Planted
from onnx_harness.selftest.table import Row, Step, bad, summed, total

MOST_SECONDS = 1.0
"""For the rows of 10,000 branches."""
_BRANCHES = 10_000
_SECONDS, _ASKED = "seconds", "branches"


def _steps(bench: Bench) -> Iterator[Step]:
    for shape in forests.QUICK if bench.quick else forests.FULL:
        key = f"{shape.name}, {shape.trees} trees of depth {shape.depth}"
        yield Step(key, lambda shape=shape: judge_forest(shape))  # type: ignore[misc]
    yield Step("time for rows", price_rows)


def judge_forest(shape: Shape) -> Outcome:
    """Judge a forest, and each mistake in it."""
    trees = grown(shape)
    with tempfile.TemporaryDirectory() as folder:
        planted = Planted.of(shape.name, built(shape, trees), Path(folder))
        untouched = planted.judge(built(shape, trees))
        if not untouched.passed:
            return Outcome(1, 1, (f"{shape.name}: untouched: {untouched.reason}",))
        count = 0
        missed = []
        for mistake in mistakes(shape, trees):
            count += 1
            if planted.judge(built(shape, trees, mistake)).passed:
                missed.append(
                    f"{shape.name}: missed: {mistake.kind}, tree node {mistake.at}"
                )
    return Outcome(count, len(missed), tuple(missed), {"forests": 1})


def price_rows() -> Outcome:
    """Measure what making the rows of a forest of about 10,000 branches takes."""
    model = built(forests.LARGE, grown(forests.LARGE))
    recipe = recipe_for(model, {})
    # The processor's time: a busy machine doesn't make it longer.
    started = time.process_time()
    forest = forest_of(model, recipe)
    assert forest is not None
    forest_rows(forest, seed=0)
    return Outcome(
        0, 0, (), {_SECONDS: time.process_time() - started, _ASKED: forest.branches}
    )


def seconds(outcomes: Sequence[Outcome]) -> float:
    """Return the seconds for 10,000 branches."""
    spent = sum(outcome.figures.get(_SECONDS, 0.0) for outcome in outcomes)
    return spent * _BRANCHES / max(1, summed(outcomes, _ASKED))


def figure(outcomes: Sequence[Outcome]) -> str:
    """Return the counts in words."""
    caught = total(outcomes) - bad(outcomes)
    return (
        f"{caught:,} of {total(outcomes):,} over {summed(outcomes, 'forests')} forests; "
        f"{seconds(outcomes):.2f} s for 10,000 branches"
    )


TREES = Row(
    "trees",
    (
        "a threshold or a single tree's leaf moved by one unit in the last place, <= for <, a "
        "leaf of many by 1e-4: caught"
    ),
    "100%, 1 s for 10,000 branches",
    _steps,
    figure,
    lambda outcomes: bad(outcomes) == 0 and seconds(outcomes) <= MOST_SECONDS,
)
