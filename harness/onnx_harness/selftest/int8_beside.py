"""The row of ``int8.mixed`` compared with onnxruntime's own measure of a quantization's errors.

``onnxruntime.quantization.qdq_loss_debug`` gives the error of each activation and weight, and
chooses nothing. So its errors rank the nodes, the worst of them stay float, and how many is
bisected: on the same networks, with the same verdict as its bound.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from onnx_harness import transforms
from onnx_harness.errors import NotApplicable
from onnx_harness.judging.mixed.account import Mix
from onnx_harness.judging.mixed.choose import find_mix
from onnx_harness.judging.mixed.quantized import shortfall
from onnx_harness.judging.reference import calibration_sets
from onnx_harness.judging.runs import open_cpu
from onnx_harness.names import parse_variant
from onnx_harness.providers.running import run
from onnx_harness.results.workbench import workbench
from onnx_harness.selftest.bench import Bench, Outcome
from onnx_harness.selftest.half_case import HalfCase
from onnx_harness.selftest.int8_cases import int8_cases
from onnx_harness.selftest.mixed_rows import Workplace, workplace
from onnx_harness.selftest.table import Row, Step, compared_sides, some_and_none_bad
from onnx_harness.settings import Settings
from onnx_harness.transforms.quantization.mixed import QuantizedConversion

VARIANT = "int8.mixed"


@dataclass(slots=True)
class Ranking:
    """A search by a ranking of the nodes.

    Attributes:
        names: of the nodes that it keeps in float; None where none are enough, or it ended in an
            error.
        runs: of a model, an input set each.
    """

    names: tuple[str, ...] | None = None
    runs: int = 0


@dataclass(slots=True)
class Trials:
    """Quantizations with some nodes in float, judged.

    Attributes:
        place: the network and what its outputs are judged by.
        conversion: the quantization and what it has to reach.
        runs: of quantized models, an input set each.
    """

    place: Workplace
    conversion: QuantizedConversion
    runs: int = 0
    _results: dict[tuple[str, ...], bool] = field(default_factory=dict)

    @property
    def sets(self) -> list[Mapping[str, Any]]:
        """The inputs that the verdict rests on."""
        reference = self.place.standard.reference
        return [reference.sets[at].values for at in reference.usual]

    def passes(self, names: Sequence[str]) -> bool:
        """Return whether the quantized model reaches the goal with those nodes in float."""
        key = tuple(names)
        if key not in self._results:
            self._results[key] = self._judged(key)
        return self._results[key]

    def _judged(self, names: tuple[str, ...]) -> bool:
        try:
            quantized = self.conversion.quantize(names)
        except NotApplicable:  # nothing is left to quantize: it is the float model
            return True
        session = open_cpu(quantized, "all")
        outputs = [run(session, values) for values in self.sets]
        self.runs += len(outputs)
        return not shortfall(self.place.standard, self.conversion, outputs)


def ranked(trials: Trials, folder: Path) -> Ranking:
    """Have the library measure, and keep as few of the worst nodes in float as are enough."""
    ranking = Ranking()
    # What the library raises varies: then nothing is found.
    with contextlib.suppress(Exception):
        order = _order(trials, folder)
        ranking.runs = 2 * len(trials.sets)
        count = _fewest(trials, order)
        ranking.names = None if count is None else tuple(order[:count])
    ranking.runs += trials.runs
    return ranking


def _fewest(trials: Trials, order: Sequence[str]) -> int | None:
    """Return how many of the first are enough: doubled until they are, then bisected."""
    low, high = -1, 0
    while not trials.passes(order[:high]):
        if high == len(order):
            return None
        low, high = high, min(max(1, 2 * high), len(order))
    while high - low > 1:
        middle = (low + high) // 2
        if trials.passes(order[:middle]):
            high = middle
        else:
            low = middle
    return high


def _order(trials: Trials, folder: Path) -> list[str]:
    """Return the nodes that can stay float, the one with the worst error first.

    A node's error is the worst of what it reads and gives, each value quantized by itself.
    """
    from onnxruntime.quantization import qdq_loss_debug as debug

    conversion = trials.conversion
    models = {"float": conversion.model, "quantized": conversion.quantize(())}
    activations = {}
    for name, model in models.items():
        onnx.save(model, folder / f"{name}.onnx")
        augmented = folder / f"{name}_augmented.onnx"
        debug.modify_model_output_intermediate_tensors(folder / f"{name}.onnx", augmented)
        activations[name] = debug.collect_activations(str(augmented), iter(trials.sets))
    matches = debug.create_activation_matching(
        activations["quantized"], activations["float"]
    )
    ratios = {}
    for name, errors in debug.compute_activation_error(matches).items():
        ratios[name] = errors["qdq_err"]
    files = [str(folder / f"{name}.onnx") for name in models]
    ratios |= debug.compute_weight_error(debug.create_weight_matching(*files))
    worst = {}
    for node in conversion.model.graph.node:
        if (
            node.name
            and node.op_type in conversion.ops
            and node.name not in conversion.left_out
        ):
            values = (*node.input, *node.output)
            worst[node.name] = min(ratios.get(value, math.inf) for value in values)
    return sorted(worst, key=lambda name: worst[name])


def judge(case: HalfCase) -> Outcome:
    """Search with both, and quantize with what each found."""
    compared: list[tuple[Mix, Trials, Ranking]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = workplace(case, folder, VARIANT)

        def choose(conversion: QuantizedConversion) -> Sequence[str]:
            mix = find_mix(place.standard, conversion)
            trials = Trials(place, conversion)
            compared.append((mix, trials, ranked(trials, folder)))
            return mix.names

        samples = calibration_sets(place.model, place.card, Settings(), workbench().cache)
        step = transforms.bind(parse_variant(VARIANT).steps[0])
        try:
            with transforms.remarks():
                step(
                    place.model.load(), [inputs.values for inputs in samples], choose=choose
                )
        except NotApplicable as error:
            return Outcome(1, 1, (f"{case.name}: refused: {error}",))
        ((mix, trials, ranking),) = compared
        right = trials.passes(mix.names)
    return _outcome(case.name, mix, right, ranking)


def _outcome(name: str, mix: Mix, right: bool, ranking: Ranking) -> Outcome:
    figures = {
        "nodes": mix.nodes,
        "runs": mix.runs,
        "right": float(right),
        "other_nodes": len(ranking.names or ()),
        "other_runs": ranking.runs,
        "other_right": float(ranking.names is not None),
    }
    words = []
    if ranking.names is not None and len(ranking.names) < mix.nodes:
        words.append(f"{name}: {mix.nodes} nodes, and {len(ranking.names)} are enough")
    if not right:
        words.append(f"{name}: what was found doesn't reach the goal")
    return Outcome(1, int(bool(words)), tuple(words), figures)


def _steps(bench: Bench) -> Iterator[Step]:
    for case in int8_cases(quick=bench.quick):
        yield Step(case.name, partial(judge, case))


def _figure(outcomes: Sequence[Outcome]) -> str:
    sides = (("here", ""), ("qdq_loss_debug's order, bisected", "other_"))
    return compared_sides(outcomes, sides)


INT8_BESIDE = Row(
    "int8-beside",
    "int8.mixed and the order of qdq_loss_debug: right, float nodes, runs",
    "all right, never more nodes",
    _steps,
    _figure,
    some_and_none_bad,
)
