"""The row of quantized models.

Copies of the zoo in 8 bits, through variants that change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from onnx_harness.cards.card import Card
from onnx_harness.cards.fetch import materialize
from onnx_harness.cell.matrix import Cell
from onnx_harness.cell.pipeline import place_of_artifact
from onnx_harness.cell.state import Task
from onnx_harness.cell.workers import cell_worker
from onnx_harness.errors import WorkerCrashed, first_line
from onnx_harness.isolate.notes import RISK
from onnx_harness.names import CARD_SUFFIX, ORIGINAL, parse_variant
from onnx_harness.results.cells import Status, Symptom
from onnx_harness.run.attempts import MOST_DEATHS
from onnx_harness.selftest.bench import Bench, Outcome, at_hand, falsely_failed
from onnx_harness.selftest.table import Row, Step, bad, none_bad, summed, total
from onnx_harness.settings import Settings

COPIES = ("int8.static(reduce_range=True)", "int8.dynamic(reduce_range=True)")
"""Conversions of the copies.

Weights of 7 bits: those of 8 saturate in ONNX Runtime's kernels without VNNI, which is a
real departure, and none of the variant's."""

QUICK = (ORIGINAL, "simplify")
FULL = (*QUICK, "ort.disable", "ort.basic", "ort.extended", "optimize")
SEED = 0


def _steps(bench: Bench) -> Iterator[Step]:
    variants = QUICK if bench.quick else FULL
    for card in bench.cards:
        for copy in COPIES:
            key = f"{card.name}, {copy}, {' '.join(variants)}"
            yield Step(key, partial(_judge_copy, bench, card, copy, variants))


def _judge_copy(
    bench: Bench, card: Card, conversion: str, variants: Sequence[str]
) -> Outcome:
    try:
        model = _quantized(card, conversion)
    except (
        Exception
    ) as error:  # whatever the library raises: without a copy there is nothing to judge
        return Outcome(0, 0, (f"{card.name}: no copy by {conversion}: {first_line(error)}",))
    name = f"{card.name}.{conversion.partition('(')[0]}"
    # Known failures are the original's: a copy in 8 bits has the same operators around it. What was
    # stated of the original's digits isn't: nobody stated it of 8 bits.
    copy = replace(
        at_hand(card, model),
        name=name,
        path=card.path.with_name(f"{name}{CARD_SUFFIX}"),
        tolerance={},
    )
    results = [bench.judge("quantized", SEED, copy, variant) for variant in variants]
    if results[0][1].symptom is Symptom.VACUOUS and _reacts(bench, card):
        # The same inputs move the original: the verdict on the copy is right, and on no variant.
        return Outcome(0, 0, (f"{name}: the copy doesn't react to its inputs any more",))
    reasons = [falsely_failed(*result) for result in results]
    words = tuple(reason for reason in reasons if reason is not None)
    return Outcome(len(variants), len(words), words, {"copies": 1})


def _reacts(bench: Bench, card: Card) -> bool:
    return bench.judge("quantized", SEED, card, ORIGINAL)[1].status is Status.PASS


def _quantized(card: Card, conversion: str) -> Path:
    """Return the copy, made in a process of its own: quantization runs the model."""
    settings = Settings(seed=SEED)
    task = Task(Cell(card, parse_variant(conversion), "cpu"), materialize(card), settings)
    with closing(cell_worker(settings, readable=(task.model, card.path))) as worker:
        for _ in range(MOST_DEATHS):
            try:
                return worker.call(place_of_artifact, task)[0]
            except WorkerCrashed as death:
                if not death.stage.startswith(RISK):
                    raise
        # What it died of before it isn't fed again.
        return worker.call(place_of_artifact, task)[0]


def figure(outcomes: Sequence[Outcome]) -> str:
    """Return the counts in words."""
    return f"{bad(outcomes)} of {total(outcomes):,} cells over {summed(outcomes, 'copies')} copies"


QUANTIZED = Row(
    "quantized",
    "copies of the zoo in 8 bits, through honest variants: falsely failed",
    "0",
    _steps,
    figure,
    none_bad,
)
