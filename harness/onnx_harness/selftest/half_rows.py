"""The row of models whose float16 answer is known: false passes and false failures, by kind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from onnx_harness import inputs, transforms
from onnx_harness.cards.card import Card, PathSource
from onnx_harness.errors import NothingConverted
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.selftest.bench import Bench, Outcome
from onnx_harness.selftest.half_case import HalfCase
from onnx_harness.selftest.half_cases import half_cases
from onnx_harness.selftest.half_truth import Truth, truth
from onnx_harness.selftest.table import Row, Step, none_bad, summed, total

VARIANT = "fp16.io32"
SEED = 0
FALSE_PASS, FALSE_FAILURE = "false passes", "false failures"


def _steps(bench: Bench) -> Iterator[Step]:
    by_kind: dict[str, list[HalfCase]] = {}
    for case in half_cases(quick=bench.quick):
        by_kind.setdefault(case.kind, []).append(case)
    for kind, cases in by_kind.items():
        key = f"{kind}, quick" if bench.quick else kind
        yield Step(key, lambda cases=cases: _judge_kind(bench, cases))  # type: ignore[misc]


def _judge_kind(bench: Bench, cases: Sequence[HalfCase]) -> Outcome:
    figures = dict.fromkeys(
        (*(side.value for side in Truth), FALSE_PASS, FALSE_FAILURE), 0.0
    )
    words = []
    for case in cases:
        answer, result = _answer_and_verdict(bench, case)
        figures[answer.value] += 1
        mistake = mistaken(answer, result)
        if mistake is not None:
            figures[mistake] += 1
            words.append(
                f"{mistake}: {result.id}: {result.status} at {result.stage}: {result.reason}"
            )
    decided = figures[Truth.RIGHT.value] + figures[Truth.WRONG.value]
    return Outcome(round(decided), len(words), tuple(words), figures)


def _answer_and_verdict(bench: Bench, case: HalfCase) -> tuple[Truth, CellResult]:
    """Return the answer by ONNX's reference implementation, and the verdict of the cell.

    Both are of the same inputs.
    """
    sets = inputs.generate(case.model, case.specs, count=4, seed=SEED)
    converted = onnx.ModelProto()
    converted.CopyFrom(case.model)
    try:
        with transforms.remarks():
            for step in parse_variant(VARIANT).steps:
                converted = transforms.bind(step)(converted)
    except NothingConverted:
        # The rules keep each node in float32: there is no float16 answer.
        answer = Truth.OPEN
    else:
        answer = truth(case.model, converted, [chosen.values for chosen in sets])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{case.name}.onnx"
        onnx.save(case.model, path)
        card = replace(Card(path, case.name, source=PathSource(path)), inputs=case.specs)
        _, result = bench.judge("half", SEED, card, VARIANT)
    return answer, result


def mistaken(answer: Truth, result: CellResult) -> str | None:
    """Return which mistake a verdict is; None for a right one, and where the answer is open.

    A model that fails before its outputs are compared isn't caught by what it answers.
    """
    caught = result.status is Status.FAIL and result.stage is Stage.COMPARE
    if answer is Truth.WRONG and not caught:
        return FALSE_PASS
    if answer is Truth.RIGHT and result.status is not Status.PASS:
        return FALSE_FAILURE
    return None


def figure(outcomes: Sequence[Outcome]) -> str:
    """Return the counts in words."""
    sides = ", ".join(f"{summed(outcomes, side.value)} {side.value}" for side in Truth)
    mistakes = ", ".join(
        f"{name} {summed(outcomes, name)}" for name in (FALSE_PASS, FALSE_FAILURE)
    )
    return f"{total(outcomes)} in {len(outcomes)} kinds ({sides}): {mistakes}"


HALF = Row(
    "half",
    "models whose float16 answer is known",
    "0 false passes, 0 false failures",
    _steps,
    figure,
    none_bad,
)
