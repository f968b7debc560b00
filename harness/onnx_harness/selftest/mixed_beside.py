"""The row of mixed precision compared with onnxconverter_common's search, and with AutoCast.

On the same networks, with the same verdict as its bound.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from onnx_harness.errors import NotApplicable
from onnx_harness.judging.verdict import verdict
from onnx_harness.selftest import autocast
from onnx_harness.selftest.bench import Bench, Outcome
from onnx_harness.selftest.mixed_cases import MixedCase, mixed_cases
from onnx_harness.selftest.mixed_rows import LARGE, Workplace, workplace
from onnx_harness.selftest.table import Row, Step, compared_sides, some_and_none_bad, summed


@dataclass(slots=True)
class _Search:
    """What onnxconverter_common's search did.

    Attributes:
        names: of the nodes that it kept in float32; None where it ended in an error.
        runs: of the model.
    """

    names: tuple[str, ...] | None = None
    runs: int = 0
    tried: list[tuple[str, ...]] = field(default_factory=list)


def searched(place: Workplace) -> _Search:
    """Have onnxconverter_common search, by our verdict on one input set."""
    from onnxconverter_common import auto_mixed_precision, float16

    search = _Search()
    reference = place.standard.reference
    at = reference.usual[0]
    outputs = list(reference.outputs[at])

    def validates(_: Sequence[Any], found: Sequence[Any]) -> bool:
        answers = [dict(answer) for answer in reference.outputs]
        answers[at] = dict(zip(outputs, found, strict=True))
        return bool(verdict(place.standard, answers).passed)

    def convert(model: Any, *args: Any, **options: Any) -> Any:
        search.tried.append(tuple(options["node_block_list"]))
        search.runs += 1
        return convert_once(model, *args, **options)

    convert_once = float16.convert_float_to_float16
    feeds = dict(reference.sets[at].values)
    with (
        mock.patch.object(float16, "convert_float_to_float16", convert),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(Exception),  # what it raises varies: then nothing is found
    ):
        auto_mixed_precision.auto_convert_mixed_precision(
            place.model.load(), feeds, validate_fn=validates, keep_io_types=True
        )
        search.names = search.tried[-1]
    return search


def judge(built: MixedCase, python: Path | None = None) -> Outcome:
    """Search with both, and convert what each found.

    Args:
        built: the network.
        python: of an environment with nvidia-modelopt, whose AutoCast is compared as well.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = workplace(built.case, Path(folder))
        try:
            mix = place.mix()
        except NotApplicable as error:
            return Outcome(1, 1, (f"{built.case.name}: refused: {error}",))
        other = searched(place)
        is_right = other.names is not None and _passes(place, other.names)
        figures = {
            "nodes": mix.nodes,
            "runs": mix.runs,
            "right": float(_passes(place, mix.names)),
            "other_nodes": len(other.names or ()),
            "other_runs": other.runs,
            "other_right": float(is_right),
        }
        if python is not None:
            figures |= _of_autocast(python, place)
    more = is_right and mix.nodes > len(other.names or ())
    words = f"{built.case.name}: {mix.nodes} nodes, and {len(other.names or ())} are enough"
    return Outcome(1, int(more or not figures["right"]), (words,) * more, figures)


def _of_autocast(python: Path, place: Workplace) -> dict[str, float]:
    converted = autocast.convert(python, place)
    if converted is None:
        return {"autocast": 1, "autocast_errors": 1}
    return {
        "autocast": 1,
        "autocast_right": float(converted.right),
        "autocast_nodes": converted.nodes,
        "autocast_runs": 1,
    }


def _passes(place: Workplace, names: Sequence[str]) -> bool:
    try:
        return place.passes_with(names)
    except NotApplicable:  # with all of it in float32 nothing is converted
        return False


def _steps(bench: Bench) -> Iterator[Step]:
    for built in mixed_cases(quick=bench.quick):
        if len(built.case.model.graph.node) < LARGE:
            key = (
                built.case.name if bench.autocast is None else f"{built.case.name}, AutoCast"
            )
            yield Step(key, partial(judge, built, bench.autocast))


def _figure(outcomes: Sequence[Outcome]) -> str:
    sides = [("here", ""), ("auto_convert_mixed_precision", "other_")]
    if summed(outcomes, "autocast"):
        sides.append(("AutoCast", "autocast_"))
    return compared_sides(outcomes, sides)


MIXED_BESIDE = Row(
    "mixed-beside",
    "fp16.mixed and onnxconverter_common's search: right, float32 nodes, runs",
    "all right, never more nodes",
    _steps,
    _figure,
    some_and_none_bad,
)
