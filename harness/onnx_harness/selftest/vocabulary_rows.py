"""The row of vocabularies: entries swapped or scaled in what models look up.

They're judged as a variant's outputs are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from onnx_harness.selftest.bench import Bench, Outcome
from onnx_harness.selftest.planted import Bench as Planted
from onnx_harness.selftest.table import Row, Step, bad, none_bad, summed, total
from onnx_harness.selftest.vocabularies import Lookup, lookups, mistakes


def _steps(bench: Bench) -> Iterator[Step]:
    for model in lookups(quick=bench.quick):
        key = f"{model.name}, quick" if bench.quick else model.name
        yield Step(key, lambda model=model: judge_lookup(model))  # type: ignore[misc]


def judge_lookup(model: Lookup) -> Outcome:
    """Judge a model, and each mistake in what it looks up."""
    right = model.build(model.tables)
    with tempfile.TemporaryDirectory() as folder:
        planted = Planted.of(model.name, right, Path(folder))
        untouched = planted.judge(right)
        if not untouched.passed:
            return Outcome(1, 1, (f"{model.name}: untouched: {untouched.reason}",))
        count = 0
        missed = []
        for words, wrong in mistakes(model):
            count += 1
            if planted.judge(wrong).passed:
                missed.append(f"{model.name}: missed: {words}")
    return Outcome(count, len(missed), tuple(missed), {"models": 1})


def figure(outcomes: Sequence[Outcome]) -> str:
    """Return the counts in words."""
    return (
        f"{total(outcomes) - bad(outcomes):,} of {total(outcomes):,} over "
        f"{summed(outcomes, 'models')} models"
    )


VOCABULARIES = Row(
    "vocabularies",
    "two words or categories swapped, one of their weights scaled: caught",
    "100%",
    _steps,
    figure,
    none_bad,
)
