"""Figures of a cell node by node, in files that Google's Model Explorer lays over a graph.

Each file is a ``GraphNodeData`` of ``model_explorer.node_data_builder``: values by the names of
nodes, and colours for them (https://github.com/google-ai-edge/model-explorer/wiki).
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx

from onnx_harness import providers
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.diagnose.bench import bench_of, name_nodes
from onnx_harness.diagnose.trials import Question, Trial
from onnx_harness.diagnose.values import value_errors
from onnx_harness.errors import HarnessError, words_of
from onnx_harness.model.file import Model
from onnx_harness.model.saving import save
from onnx_harness.names import Variant
from onnx_harness.providers.profile_runs import NodeRun, read_nodes
from onnx_harness.providers.running import feeds_for, run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.settings import Settings
from onnx_harness.transforms.variant import bind_variant

ORIGINAL, CANDIDATE = "original.onnx", "candidate.onnx"
"""The two models in the folder; each of their nodes has a name, by which it is found."""
FIGURES = ("error", "own_error", "time_us", "placement", "precision")
"""The files in the folder, without their ending: the most wanted first."""

_UNTOUCHED = "original"
_LARGEST = 1e30  # in the place of an error that isn't finite, which JSON can't say
# Colours of errors that are at most so great, the same for every cell: the order of additions, what
# float16 costs, what a bound of float16 allows, more.
_ERROR_COLOURS = (
    (1e-6, "#ffffff"),
    (1e-3, "#ffffbf"),
    (1e-2, "#fdae61"),
    (_LARGEST, "#d73027"),
)
# White where there is nothing, red where the value is the greatest.
_GRADIENT = [{"stop": 0, "bgColor": "#ffffff"}, {"stop": 1, "bgColor": "#d73027"}]
_COLOURS = ("#a6cee3", "#fdbf6f", "#b2df8a", "#cab2d6", "#fb9a99", "#ffff99")


def write_node_data(
    original: Path, candidate: Path, folder: Path, provider: str, settings: Settings
) -> list[str]:
    """Write a cell's two models with named nodes, and a file for each figure of a node.

    Meant for the worker. ``error.json`` and ``own_error.json`` hold relative L2 errors of the
    nodes' outputs on the first input set; ``time_us.json``, ``placement.json`` and
    ``precision.json`` what one run of the candidate says, at ONNX Runtime's default level: a node
    that was fused into another one isn't in them.

    Args:
        original: the untouched model.
        candidate: what was made of it.
        folder: to write to; it is made.
        provider: the execution provider that the candidate runs on.
        settings: how many input sets there are, and from which seed.

    Returns:
        Remarks: which figures can't be had, and why.

    Raises:
        OSError: the folder can't be written.
        HarnessError: a model can't be read, or no inputs can be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    models = {}
    for name, path in ((ORIGINAL, original), (CANDIDATE, candidate)):
        models[name] = Model(path).load()
        name_nodes(models[name].graph)
        save(models[name], folder / name, weights=f"{name}.weights")
    remarks: list[str] = []
    with tempfile.TemporaryDirectory(prefix="onnx-harness-nodes-") as scratch:
        cell = Cell(card_for(original), Variant(_UNTOUCHED), provider)
        question = Question(
            Task(cell, original, settings),
            bind_variant(cell.variant),
            Path(scratch),
            folder / CANDIDATE,
            float16_io=True,
        )
        data: dict[str, dict[str, Any]] = {}
        try:
            data |= _errors(question, models[CANDIDATE].graph)
        except Exception as error:  # whatever cutting and running a graph raises
            remarks.append(f"errors of nodes can't be had: {words_of(error)}")
        try:
            ran = _profiled(question, Path(scratch))
            data |= _figures(_of_graph(ran, models[CANDIDATE].graph))
        except Exception as error:  # a provider that isn't here, a model that it doesn't run
            remarks.append(f"times of nodes can't be had: {words_of(error)}")
    if not data:
        raise HarnessError(f"{candidate} has no figures node by node: {'; '.join(remarks)}")
    for name, figures in data.items():
        text = json.dumps({"name": name.replace("_", " "), **figures}, allow_nan=False)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return remarks


def write_variant_data(
    cell: Cell, original: Path, folder: Path, settings: Settings
) -> list[str]:
    """Make a cell's candidate and write it as `write_node_data` does. Meant for the worker.

    Args:
        cell: of whose variant and provider the figures are.
        original: the untouched model.
        folder: to write to; it is made.
        settings: how many input sets there are, and from which seed.

    Returns:
        Remarks: which figures can't be had, and why.

    Raises:
        HarnessError: as `write_node_data`, or a step failed.
    """
    with tempfile.TemporaryDirectory(prefix="onnx-harness-nodes-") as scratch:
        bound = bind_variant(cell.variant)
        bench = bench_of(Question(Task(cell, original, settings), bound, Path(scratch)))
        candidate = bench.model(len(bound.changing), ()).path
        return write_node_data(original, candidate, folder, cell.provider, settings)


def _errors(question: Question, graph: onnx.GraphProto) -> dict[str, dict[str, Any]]:
    """Return the data of both errors, by the nodes of a graph."""
    trial = Trial(0, "disable", question.task.cell.provider)
    errors = value_errors(question, trial, 0)
    own: dict[str, float] = {}
    whole: dict[str, float] = {}
    for node in graph.node:
        made = [errors[name] for name in node.output if name in errors]
        if made:
            own[node.name] = max(own_error for own_error, _ in made)
            whole[node.name] = max(error for _, error in made)
    return {"error": _coloured(whole), "own_error": _coloured(own)}


def _coloured(errors: Mapping[str, float]) -> dict[str, Any]:
    """Return node data of errors."""
    results = {}
    for name, error in errors.items():
        results[name] = {"value": error if math.isfinite(error) else _LARGEST}
    thresholds = [{"value": most, "bgColor": colour} for most, colour in _ERROR_COLOURS]
    return {"results": results, "thresholds": thresholds}


def _profiled(question: Question, scratch: Path) -> Mapping[str, NodeRun]:
    """Return the nodes of the candidate as its second run on the first input set went."""
    assert question.candidate is not None
    provider = providers.get(question.task.cell.provider)
    session = open_session(
        question.candidate, provider, purpose=Purpose.ACCURACY, profile=scratch / "profile"
    )
    values = bench_of(question).standard.reference.sets[0].values
    for _ in range(2):  # the first one sets things up
        run(session, feeds_for(session, values))
    return read_nodes(Path(session.end_profiling()))


def _of_graph(nodes: Mapping[str, NodeRun], graph: onnx.GraphProto) -> dict[str, NodeRun]:
    """Leave out the nodes that ONNX Runtime put in, such as Casts and fused ones."""
    return {node.name: nodes[node.name] for node in graph.node if node.name in nodes}


def _figures(nodes: Mapping[str, NodeRun]) -> dict[str, dict[str, Any]]:
    return {
        "time_us": _numbers({name: node.microseconds for name, node in nodes.items()}),
        "placement": _words({name: node.provider for name, node in nodes.items()}),
        "precision": _words({name: node.precision for name, node in nodes.items()}),
    }


def _numbers(values: Mapping[str, float]) -> dict[str, Any]:
    """Return node data of numbers, redder the greater they are."""
    results = {name: {"value": value} for name, value in values.items()}
    return {"results": results, "gradient": _GRADIENT}


def _words(values: Mapping[str, str]) -> dict[str, Any]:
    """Return node data of words, a colour for each."""
    colours = dict(zip(_distinct(values.values()), _COLOURS, strict=False))
    results = {}
    for name, value in values.items():
        results[name] = {"value": value, "bgColor": colours.get(value, _COLOURS[-1])}
    return {"results": results, "showExpandedSummaryOnGroupNode": True}


def _distinct(words: Iterable[str]) -> list[str]:
    return sorted(set(words))
