"""The rows of the experiment: what each is made of, and what is to be reached."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from onnx_harness.cards.card import Card
from onnx_harness.cards.fetch import materialize
from onnx_harness.cell.matrix import DEFAULT, Cell, card_beside, card_for
from onnx_harness.errors import UsageError
from onnx_harness.mutation import sensitivity
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import Status
from onnx_harness.run.runner import Runner
from onnx_harness.selftest.bench import Bench, Outcome, falsely_failed, own_cache
from onnx_harness.selftest.cause_cost import COST
from onnx_harness.selftest.cause_rows import CAUSES, CAUSES_OF_DEFECTS
from onnx_harness.selftest.half_rows import HALF
from onnx_harness.selftest.int8_beside import INT8_BESIDE
from onnx_harness.selftest.mixed_beside import MIXED_BESIDE
from onnx_harness.selftest.mixed_rows import MIXED
from onnx_harness.selftest.observer_rows import OBSERVED
from onnx_harness.selftest.quantized_rows import QUANTIZED
from onnx_harness.selftest.slower_rows import SLOWER
from onnx_harness.selftest.smallest_rows import SMALLEST
from onnx_harness.selftest.table import Row, Step, bad, none_bad, summed, total
from onnx_harness.selftest.tree_rows import TREES
from onnx_harness.selftest.vocabulary_rows import VOCABULARIES
from onnx_harness.settings import Settings

HONEST = (
    *("ort.disable", "ort.basic", "ort.extended", "ort.layout", "ort.all"),
    *("simplify", "optimize", "simplify+optimize"),
)
"""Variants that change nothing: what fails of them, but for what a card knows, fails falsely."""

HONEST_FP16 = ("fp16", "fp16.io32", "simplify+fp16.io32")

SMALLEST_OF_DEFECTS = 42 / 44


# a) Inputs, with the cards ignored.


def _invented(bench: Bench) -> Iterator[Step]:
    for card in bench.cards:
        yield Step(
            card.name,
            lambda card=card: _invent(bench, replace(card, inputs={}, vacuous={})),  # type: ignore[misc]
        )


def _invent(bench: Bench, card: Card) -> Outcome:
    _, result = bench.judge("inputs", 0, card, "ort.disable")
    if result.accuracy is None:
        return Outcome(1, 1, (f"{card.name}: {result.reason}",))
    outputs = result.accuracy.outputs
    silent = {}
    for name, output in outputs.items():
        if output.vacuous:
            silent[name] = output.vacuous
    words = tuple(f"{card.name}: {name} {why}" for name, why in silent.items())
    return Outcome(1, 0, words, {"outputs": len(outputs), "vacuous": len(silent)})


def _told_of_inputs(outcomes: Sequence[Outcome]) -> str:
    outputs, silent = summed(outcomes, "outputs"), summed(outcomes, "vacuous")
    models = f"{total(outcomes) - bad(outcomes)} of {total(outcomes)} models"
    return f"{models}; {outputs - silent:,} of {outputs:,} outputs react, {silent} reported"


# b) Seeded faults: measured by --sensitivity.


def _faults(bench: Bench) -> Iterator[Step]:
    for card in bench.cards:
        yield Step(card.name, lambda card=card: _planted(bench, card))  # type: ignore[misc]


def _planted(bench: Bench, card: Card) -> Outcome:
    cell = Cell(card, parse_variant("simplify"), "cpu")
    # However long it takes: the experiment wants every model's faults, and not a minute's.
    result = sensitivity.examine(bench.runner("faults", 0), cell, seconds=math.inf)
    measured = result.sensitivity
    if measured is None:
        return Outcome(
            1,
            1,
            (f"{card.name}: {result.status} at {result.stage}: {result.reason}",),
            {"models": 1},
        )
    to_catch = measured.planted - measured.equivalent
    missed = tuple(f"{card.name}: missed: {fault}" for fault in measured.missed)
    return Outcome(
        to_catch,
        to_catch - measured.caught,
        missed,
        {"models": 1, "equivalent": measured.equivalent},
    )


def _told_of_faults(outcomes: Sequence[Outcome]) -> str:
    caught = total(outcomes) - bad(outcomes)
    return (
        f"{caught:,} of {total(outcomes):,} over {summed(outcomes, 'models')} models "
        f"({caught / max(1, total(outcomes)):.1%}); {summed(outcomes, 'equivalent')} equivalent "
        f"ones excluded"
    )


# c) The defects of released libraries, without the inputs that are known to show them.


def _defects(bench: Bench) -> Iterator[Step]:
    index = bench.defects / "index.json"
    if not index.is_file():
        raise UsageError(
            f"there is no {index}: run this in the repository, or name the folder with --defects"
        )
    for case in json.loads(index.read_text(encoding="utf-8")):
        name, variant = case["name"], case["variant"]
        yield Step(name, partial(_defect, bench, name, variant))


def _defect(bench: Bench, name: str, variant: str) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(shutil.copy(bench.defects / f"{name}.onnx", folder))
        if (card := card_beside(bench.defects / alone.name)).is_file():
            shutil.copy(card, folder)
        _, untouched = bench.judge("defects", 0, card_for(alone), "ort.disable")
        _, result = bench.judge("defects", 0, card_for(alone), variant)
    # A failure only counts where the same inputs pass without the library.
    if untouched.status is not Status.PASS:
        return Outcome(
            1, 1, (f"{name}: the untouched model: {untouched.status}: {untouched.reason}",)
        )
    if result.status is not Status.FAIL:
        return Outcome(1, 1, (f"{name}: {variant}: {result.status}",))
    return Outcome(1, 0)


# d) and e) Honest variants over many seeds.


def _honest(row: str, variants: Sequence[str]) -> Callable[[Bench], Iterator[Step]]:
    def steps(bench: Bench) -> Iterator[Step]:
        for seed in bench.seeds:
            for card in bench.cards:
                yield Step(
                    f"{card.name}, seed {seed}",
                    lambda card=card, seed=seed: judged(bench, card, seed),  # type: ignore[misc]
                )

    def judged(bench: Bench, card: Card, seed: int) -> Outcome:
        words = [
            falsely_failed(*bench.judge(row, seed, card, variant)) for variant in variants
        ]
        false = tuple(f"seed {seed}: {word}" for word in words if word is not None)
        return Outcome(len(variants), len(false), false)

    return steps


def _told_of_false(outcomes: Sequence[Outcome]) -> str:
    return f"{bad(outcomes)} of {total(outcomes):,} cells"


# f) What all of this costs.


def _cost(bench: Bench) -> Iterator[Step]:
    for card in bench.cards:
        yield Step(card.name, lambda card=card: _priced(card))  # type: ignore[misc]


def _priced(card: Card) -> Outcome:
    """Seconds of the default variants' accuracy from a cold cache, with and without.

    The order favours neither.
    """
    seconds = {True: [0.0], False: [0.0]}
    for plain in (True, False, False, True):
        seconds[plain].append(_taken(card, plain=plain))
    return Outcome(
        1, 0, (), {"with": sum(seconds[False]) / 2, "without": sum(seconds[True]) / 2}
    )


def _taken(card: Card, *, plain: bool) -> float:
    with own_cache():
        runner = Runner(Settings(), plain=plain, readable=[card.path, materialize(card)])
        try:
            runner.warm()
            started = time.perf_counter()
            for variant in DEFAULT:
                runner.judge(Cell(card, parse_variant(variant), "cpu"))
            return time.perf_counter() - started
        finally:
            runner.close()


def _ratio(outcomes: Sequence[Outcome]) -> float:
    return sum(outcome.figures["with"] for outcome in outcomes) / sum(
        outcome.figures["without"] for outcome in outcomes
    )


def _told_of_cost(outcomes: Sequence[Outcome]) -> str:
    keys = []
    for key in ("with", "without"):
        keys.append(sum(outcome.figures[key] for outcome in outcomes))
    spent, before = keys
    return (
        f"{_ratio(outcomes):.2f}x over {total(outcomes)} models ({spent:.1f} s, {before:.1f} s "
        f"without)"
    )


ROWS = {
    row.name: row
    for row in (
        Row(
            "inputs",
            "models of the zoo, their cards ignored: valid inputs invented",
            "all; each output reacts or is reported",
            _invented,
            _told_of_inputs,
            none_bad,
        ),
        Row(
            "faults",
            ("seeded faults caught, equivalent ones excluded"),
            "99%",
            _faults,
            _told_of_faults,
            lambda found: bad(found) <= 0.01 * total(found),
        ),
        Row(
            "defects",
            ("defects of released libraries without their inputs: called a failure"),
            "42 of 44",
            _defects,
            lambda found: f"{total(found) - bad(found)} of {total(found)}",
            lambda found: total(found) - bad(found) >= SMALLEST_OF_DEFECTS * total(found),
        ),
        Row(
            "honest",
            "honest variants (ort levels, simplify, optimize) falsely failed",
            "0",
            _honest("honest", HONEST),
            _told_of_false,
            none_bad,
        ),
        Row(
            "fp16",
            "honest FP16 falsely called unfaithful",
            "0",
            _honest("fp16", HONEST_FP16),
            _told_of_false,
            none_bad,
        ),
        HALF,
        QUANTIZED,
        MIXED,
        MIXED_BESIDE,
        INT8_BESIDE,
        TREES,
        VOCABULARIES,
        CAUSES,
        CAUSES_OF_DEFECTS,
        SMALLEST,
        COST,
        OBSERVED,
        SLOWER,
        Row(
            "cost",
            ("the accuracy stage from a cold cache, beside itself without all this"),
            "at most 2x",
            _cost,
            _told_of_cost,
            lambda found: _ratio(found) <= 2.0,
        ),
    )
}
