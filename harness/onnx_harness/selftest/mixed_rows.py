"""The row of mixed precision: networks that float16 breaks, whose fewest float32 nodes are known.

The networks are built with them, or they are small, and every smaller choice is converted and
judged.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import onnx

from onnx_harness import transforms
from onnx_harness.cards.card import Card, PathSource
from onnx_harness.errors import NotApplicable
from onnx_harness.judging.emulation import half_verdict
from onnx_harness.judging.mixed.account import MOST_RUNS, Mix
from onnx_harness.judging.mixed.choose import chooser
from onnx_harness.judging.reference import reference
from onnx_harness.judging.standard import Standard, standard
from onnx_harness.model.file import Model
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import Status
from onnx_harness.results.workbench import workbench
from onnx_harness.selftest.bench import Bench, Outcome
from onnx_harness.selftest.half_case import HalfCase
from onnx_harness.selftest.half_cases import half_cases
from onnx_harness.selftest.mixed_cases import MixedCase, large_case, mixed_cases
from onnx_harness.selftest.table import Row, Step, bad, summed, total
from onnx_harness.settings import Settings
from onnx_harness.transforms.variant import bind_variant

VARIANT = "fp16.mixed"
MOST_SESSIONS = 4
MOST_NODES = 1.05
"""Float32 nodes as a share of the fewest, over all networks."""
LARGE = 800
"""Nodes of a network whose cost is looked at."""
_MOST_CHOICES = 400


@dataclass(slots=True)
class Workplace:
    """A case as a file, and what its outputs are judged by.

    Attributes:
        case: the model and its inputs.
        card: its card.
        model: the file.
        standard: what the outputs are judged by.
    """

    case: HalfCase
    card: Card
    model: Model
    standard: Standard

    def mix(self) -> Mix:
        """Search, and return what is found.

        Raises:
            NotApplicable: nothing is.
        """
        mixes: list[Mix] = []
        with transforms.remarks():
            step = transforms.bind(parse_variant(VARIANT).steps[0])
            step(self.model.load(), choose=chooser(self.standard, lambda _: None, mixes))
        return mixes[0]

    def passes_with(self, names: Sequence[str]) -> bool:
        """Return whether the model passes, converted with those nodes in float32 and simulated."""
        step = transforms.bind(
            parse_variant(f"fp16.io32(node_block_list={list(names)!r})").steps[0]
        )
        with transforms.remarks(), tempfile.TemporaryDirectory() as folder:
            try:
                converted = step(self.model.load())
            except NotApplicable:  # nothing is left to convert
                return False
            path = Path(folder) / "made.onnx"
            onnx.save(converted, path)
            return half_verdict(self.standard, Model(path)).passed


def workplace(case: HalfCase, folder: Path, variant: str = VARIANT) -> Workplace:
    """Write a case to a folder and make its reference, and what that variant is judged by."""
    path = folder / f"{case.name}.onnx"
    onnx.save(case.model, path)
    card = replace(Card(path, case.name, source=PathSource(path)), inputs=case.specs)
    model, settings, cache = Model(path, card.name), Settings(), workbench().cache
    answers = reference(model, card, settings, cache, unusual=False)
    bound = bind_variant(parse_variant(variant))
    return Workplace(
        case, card, model, standard(model, answers, card, bound, "cpu", settings, cache)
    )


def _steps(bench: Bench) -> Iterator[Step]:
    for built in (*mixed_cases(quick=bench.quick), large_case()):
        yield Step(built.case.name, _in_folder(built.case, partial(_built, bench, built)))
    for case in () if bench.quick else half_cases():
        yield Step(case.name, _in_folder(case, partial(_small, bench)))


def _in_folder(
    case: HalfCase, measure: Callable[[Workplace], Outcome]
) -> Callable[[], Outcome]:
    def step() -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            return measure(workplace(case, Path(folder)))

    return step


def _built(bench: Bench, built: MixedCase, place: Workplace) -> Outcome:
    """A network that says which nodes it needs.

    All of them are, and with no more than these it passes.
    """
    for left_out in built.smallest:
        if place.passes_with([name for name in built.smallest if name != left_out]):
            return Outcome(
                1,
                1,
                (
                    f"{place.case.name}: passes without {left_out}: what is known of it is wrong",
                ),
            )
    outcome = _found(bench, place, lambda _: len(built.smallest), built.causes)
    if len(place.case.model.graph.node) < LARGE:
        return outcome
    figures = {}
    for name in ("sessions", "runs", "seconds"):
        figures[f"large_{name}"] = outcome.figures.get(name, 0)
    words = outcome.words
    if figures["large_sessions"] > MOST_SESSIONS or figures["large_runs"] > MOST_RUNS:
        words += (
            (
                f"{place.case.name}: {figures['large_sessions']:g} sessions, "
                f"{figures['large_runs']:g} runs"
            ),
        )
    return Outcome(1, min(1, len(words)), words, outcome.figures | figures)


def _small(bench: Bench, place: Workplace) -> Outcome:
    """A model of few nodes: every smaller choice is converted and judged."""
    if place.passes_with(()):
        return Outcome(0, 0)
    labels = [node.name for node in place.case.model.graph.node if node.name]
    return _found(bench, place, lambda mix: _fewest(place, labels, mix), (place.case.kind,))


def _fewest(place: Workplace, labels: Sequence[str], mix: Mix) -> int:
    by_size = []
    for size in range(len(mix.names)):
        by_size.append(itertools.combinations(labels, size))
    choices = itertools.chain.from_iterable(by_size)
    for names in itertools.islice(choices, _MOST_CHOICES):
        if place.passes_with(names):
            return len(names)
    return mix.nodes


def _found(
    bench: Bench, place: Workplace, fewest: Callable[[Mix], int], causes: Sequence[str]
) -> Outcome:
    """Search, and judge the list that is said to make the same again, as any cell is."""
    name = place.case.name
    try:
        mix = place.mix()
    except NotApplicable as error:
        if place.passes_with([node.name for node in place.case.model.graph.node]):
            return Outcome(1, 1, (f"{name}: refused: {error}",))
        return Outcome(
            1, 0, (), {"refused": 1}
        )  # with all of it in float32 there is nothing left to convert
    variant = f"fp16.io32(node_block_list={list(mix.names)!r})"
    _, result = bench.judge("mixed", 0, place.card, variant)
    fewest_nodes = fewest(mix)
    words = []
    if result.status is not Status.PASS:
        words.append(
            f"{name}: {variant}: {result.status} at {result.stage}: {result.reason}"
        )
    if mix.nodes > MOST_NODES * fewest_nodes:
        words.append(
            f"{name}: {mix.keeps()}, and {fewest_nodes} are enough: {', '.join(mix.names)}"
        )
    figures = {
        "nodes": mix.nodes,
        "fewest": fewest_nodes,
        "runs": mix.runs,
        "sessions": mix.sessions,
        "seconds": mix.seconds,
        "most_runs": mix.runs,
        **{f"cause {cause}": 1 for cause in causes},
    }
    return Outcome(1, int(result.status is not Status.PASS), tuple(words), figures)


def figure(outcomes: Sequence[Outcome]) -> str:
    """Return the counts in words."""
    nodes, fewest = summed(outcomes, "nodes"), summed(outcomes, "fewest")
    causes = set()
    for outcome in outcomes:
        for name in outcome.figures:
            if name.startswith("cause "):
                causes.add(name)
    runs = max((round(outcome.figures.get("runs", 0)) for outcome in outcomes), default=0)
    large = [summed(outcomes, f"large_{name}") for name in ("sessions", "runs", "seconds")]
    refused = summed(outcomes, "refused")
    return (
        f"{total(outcomes) - bad(outcomes) - refused} of {total(outcomes)} of {len(causes)} "
        f"causes pass, {refused} "
        f"refused rightly; {nodes} float32 nodes, {fewest} known; at most {runs} runs; "
        f"1,000 nodes: {large[0]} sessions, {large[1]} runs, {large[2]} s"
    )


def reached(outcomes: Sequence[Outcome]) -> bool:
    """Return whether all pass, with hardly more nodes than are needed."""
    return bad(outcomes) == 0 and summed(outcomes, "nodes") <= MOST_NODES * summed(
        outcomes, "fewest"
    )


MIXED = Row(
    "mixed",
    "models that float16 breaks, mended by fp16.mixed",
    (
        "all pass simulated; float32 nodes at most 1.05x the fewest; 4 sessions and 60 runs at "
        "1,000 nodes"
    ),
    _steps,
    figure,
    reached,
)
