"""``onnx-harness inspect``: what a model is, and what it would be fed with."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import Console

from onnx_harness.cards.card import Card
from onnx_harness.cli import DONE, NEGATIVE
from onnx_harness.cli.common import (
    add_json,
    add_limits,
    add_model,
    add_settings,
    find_model,
    named_death,
    settings_of,
    started_worker,
)
from onnx_harness.cli.show import (
    console,
    facts,
    indented,
    labelled,
    shape,
    size,
    table,
    text,
    write_json,
)
from onnx_harness.errors import HarnessError, ModelError
from onnx_harness.isolate import note_stage
from onnx_harness.model.bounds import check_bounds
from onnx_harness.model.custom_ops import WithLibraries, load_libraries
from onnx_harness.model.file import Model, Signature
from onnx_harness.model.ops import is_standard
from onnx_harness.model.walk import subgraphs
from onnx_harness.settings import Settings

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class GeneratedInput:
    """The values that one input would be fed with, and why."""

    name: str
    type: str
    shape: str
    why: str


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that a model's file states about itself.

    Attributes:
        sha256: over the file and its external data; None when that can't be read.
        bytes: of both; of the file alone when the external data can't be read.
        opsets: version by domain; the standard one is ``ai.onnx``.
        nodes: count by operator, subgraphs and functions included; operators of other domains as
            ``domain:Op``.
        graphs: the main graph and all subgraphs.
        functions: of the model's own.
        external: location and bytes of each file with external data.
        generated: what would be generated.
        coverage: by kind (leaves, keys …): how many of them that would reach, and how many there
            are.
        remarks: which of them can't be followed back to an input, and what only a run can count.
        problems: what is wrong with the model, a sentence each.
    """

    sha256: str | None
    bytes: int
    ir_version: int
    producer: str
    opsets: dict[str, int]
    signature: Signature
    nodes: dict[str, int]
    graphs: int
    functions: int
    external: dict[str, int]
    generated: tuple[GeneratedInput, ...]
    coverage: dict[str, tuple[int, int]]
    remarks: tuple[str, ...]
    problems: tuple[str, ...]


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_model(parser)
    add_json(parser)
    add_settings(parser, "custom_ops")
    add_limits(parser)
    parser.epilog = (
        "No weights are loaded. What can be told is told even when external data is missing or no "
        "inputs can be\n"
        "generated; the exit code is then 1."
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Inspect a model."""
    settings = settings_of(
        args, "custom_ops", "cell_timeout", "cell_memory", "trust_models", "allow_read"
    )
    card, path = find_model(args.model)
    # Type inference is native code that a broken model can crash.
    reader = started_worker(settings, readable=(path, card.path))
    with reader as worker, named_death(f"{path.name}: reading the model"):
        facts = worker.call(
            WithLibraries((*card.custom_ops, *settings.custom_ops), look),
            path,
            card,
            settings,
        )
    if args.json:
        write_json(_as_json(facts, card, path))
    else:
        _show(console(), facts, card, path)
    return NEGATIVE if facts.problems else DONE


def look(path: Path, card: Card, settings: Settings) -> Facts:
    """Read a model without its weights. Meant for the worker.

    Raises:
        ModelError: it isn't an ONNX model.
    """
    note_stage("reading")
    check_bounds(path, settings.cell_memory, trusted=settings.trust_models)
    model = Model(path, card.name)
    skeleton = model.skeleton
    problems: list[str] = []
    try:
        load_libraries()
    except ModelError as error:
        problems.append(str(error))
    sha256, total, external = None, path.stat().st_size, {}
    try:
        folder = path.parent.resolve()
        sizes = {}
        for file in model.external_files:
            sizes[file.relative_to(folder).as_posix()] = file.stat().st_size
        external = sizes
        sha256, total = model.sha256, model.size_bytes
    except ModelError as error:
        problems.append(str(error))
    note_stage("choosing inputs")
    generated: tuple[GeneratedInput, ...] = ()
    coverage: dict[str, tuple[int, int]] = {}
    remarks: tuple[str, ...] = ()
    try:
        generated = _generated(skeleton, card)
        coverage, remarks = _reached(skeleton, card)
    except HarnessError as error:
        problems.append(str(error))
    nodes: Counter[str] = Counter()
    graphs = 0
    for inside in _graphs(skeleton):
        graphs += 1
        nodes.update(_operator(node) for node in inside)
    return Facts(
        sha256=sha256,
        bytes=total,
        ir_version=skeleton.ir_version,
        producer=f"{skeleton.producer_name} {skeleton.producer_version}".strip(),
        opsets={entry.domain or "ai.onnx": entry.version for entry in skeleton.opset_import},
        signature=model.signature,
        nodes=dict(sorted(nodes.items(), key=lambda item: (-item[1], item[0]))),
        graphs=graphs - len(skeleton.functions),
        functions=len(skeleton.functions),
        external=external,
        generated=generated,
        coverage=coverage,
        remarks=remarks,
        problems=tuple(problems),
    )


def _generated(skeleton: onnx.ModelProto, card: Card) -> tuple[GeneratedInput, ...]:
    from onnx_harness.inputs import describe

    descriptions = describe(skeleton, card.inputs)
    generated_inputs = []
    for description in descriptions:
        generated_inputs.append(
            GeneratedInput(
                description.name, description.dtype, description.shape, description.sentence
            )
        )
    return tuple(generated_inputs)


def _reached(
    skeleton: onnx.ModelProto, card: Card
) -> tuple[dict[str, tuple[int, int]], tuple[str, ...]]:
    from onnx_harness.inputs import reached
    from onnx_harness.judging.influence import to_be_counted

    seen, later = reached(skeleton, card.inputs), to_be_counted(skeleton)
    return seen.kinds, (*seen.notes, later) if later else seen.notes


def _graphs(model: onnx.ModelProto) -> Iterator[Sequence[onnx.NodeProto]]:
    """The nodes of each graph: the main one, all subgraphs, the model's functions."""
    waiting = [model.graph.node, *(function.node for function in model.functions)]
    while waiting:
        nodes = waiting.pop()
        yield nodes
        bodies = []
        for node in nodes:
            for body in subgraphs(node):
                bodies.append(body.node)
        waiting += bodies


def _operator(node: onnx.NodeProto) -> str:
    return node.op_type if is_standard(node) else f"{node.domain}:{node.op_type}"


def _as_json(facts: Facts, card: Card, path: Path) -> dict[str, object]:
    head: dict[str, object] = {
        "name": card.name,
        "path": str(path),
        "license": card.license or None,
        "summary": card.summary or None,
    }
    body = asdict(facts)
    return (
        head
        | {
            "inputs": body["signature"]["inputs"],
            "outputs": body.pop("signature")["outputs"],
        }
        | body
    )


def _show(out: Console, stated: Facts, card: Card, path: Path) -> None:
    out.print(text(card.name, "bold"))
    rows: dict[str, object] = {"summary": card.summary} if card.summary else {}
    rows["file"] = path
    if card.license:
        rows["licence"] = card.license
    rows["size"] = f"{size(stated.bytes)} ({stated.bytes:,} bytes)"
    rows["sha256"] = stated.sha256 or "unknown: the external data can't be read"
    opsets = ", ".join(f"{domain} {version}" for domain, version in stated.opsets.items())
    rows["opsets"] = opsets or "none"
    rows["IR version"] = stated.ir_version
    if stated.producer:
        rows["producer"] = stated.producer
    if stated.external:
        rows["external"] = ", ".join(
            f"{name} ({size(count)})" for name, count in stated.external.items()
        )
    out.print(facts(rows))

    _show_inputs(out, stated)
    if stated.coverage or stated.remarks:
        _heading(out, "reached", "by sets that are made on purpose, if they run")
        counts = [
            (kind, f"{count:,} of {total:,}")
            for kind, (count, total) in stated.coverage.items()
        ]
        out.print(indented(table(["of", "reached"], counts)))
        for remark in stated.remarks:
            out.print(indented(text(remark, "yellow")), soft_wrap=True)
    _heading(out, "outputs")
    outputs = []
    for output in stated.signature.outputs:
        outputs.append((output.name, output.kind or "?", shape(output.shape)))
    out.print(indented(table(["name", "type", "shape"], outputs)))

    _heading(out, "nodes", _node_count(stated))
    cells = [
        labelled(f"{number:>5,} ", "cyan", name) for name, number in stated.nodes.items()
    ]
    out.print(indented(Columns(cells, column_first=True, padding=(0, 3))))
    for problem in stated.problems:
        out.print()
        out.print(labelled("problem: ", "bold red", problem))


def _show_inputs(out: Console, stated: Facts) -> None:
    inputs = stated.signature.inputs
    _heading(out, "inputs", "" if inputs else "none")
    if inputs:
        why = {value.name: value.why for value in stated.generated}
        default = "has a default" if stated.generated else "unknown"
        rows = []
        for value in inputs:
            fed = why.get(value.name, default)
            rows.append((value.name, value.kind or "?", shape(value.shape), fed))
        out.print(indented(table(["name", "type", "shape", "would be fed with"], rows)))


def _node_count(stated: Facts) -> str:
    """Return how many nodes there are, and in how many graphs and functions."""
    places = []
    if stated.graphs > 1:
        places.append(f"{stated.graphs} graphs")
    if stated.functions:
        places.append(f"{stated.functions} function{'s' if stated.functions > 1 else ''}")
    total = f"{sum(stated.nodes.values()):,}"
    return f"{total} in {' and '.join(places)}" if places else total


def _heading(out: Console, word: str, remark: str = "") -> None:
    out.print()
    out.print(labelled(word, "bold", f"  {remark}" if remark else ""))
