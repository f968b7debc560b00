"""Operators that draw at random, replaced by nodes that give the same values in every run.

A seed attribute isn't enough: ONNX Runtime's generators go on from run to run of a session. Here
the values come from a table in the model. An element's place in its tensor, the node's number and
the iterations of the loops around it decide which value it takes. No value is computed, so that
every provider and every conversion takes the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.model.constants import named_constants
from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.model.inference import infer_types
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.ops import is_standard, opset_of
from onnx_harness.model.rewrite import fresh_name, replace_nodes, value_names
from onnx_harness.model.seeded_nodes import FIRST_OPSET, PERIOD, REPLACE, Refused, Writer
from onnx_harness.model.walk import graphs, reads, subgraphs, walk

DRAWING = frozenset(
    {
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
        "Dropout",
    }
)
"""The standard operators that draw at random; Dropout in training mode alone."""

_ENTRY = "onnx_harness.seeding"  # of a model's metadata

_DISTRIBUTIONS = ("normal", "uniform", "gumbel", "coin")
# A coin is a float16 number, and lies half a step from every likely probability: float16 rounds 0.9
# by 2e-4, and a comparison mustn't come out differently for that.
_COIN_STEPS = 256


@dataclass(frozen=True, slots=True)
class Seeding:
    """The nodes of a model that were replaced.

    Attributes:
        replaced: their number.
        outputs: the graph outputs that depend on them.
        left: the nodes that can't be replaced, each with the reason.
    """

    replaced: int
    outputs: tuple[str, ...]
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seeded:
    """A model whose draws are the same in every run.

    Attributes:
        model: the new one.
        seeding: what was replaced in it.
    """

    model: onnx.ModelProto
    seeding: Seeding

    @property
    def replaced(self) -> int:
        """The number of nodes that were replaced."""
        return self.seeding.replaced


def seed_model(model: onnx.ModelProto, seed: int) -> Seeded:
    """Replace the nodes of a model that draw at random.

    The new nodes give values of the same distribution, type and shape. Functions are inlined where
    one of them draws.

    Args:
        model: it stays as it is.
        seed: of the values, not negative.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(inline_functions(model) if _draws_in_functions(model) else model)
    outputs = _drawn_outputs(copy.graph)
    work = _Work(copy, seed)
    work.replace(copy.graph, ())
    work.add_tables()
    seeding = Seeding(work.number, tuple(outputs), tuple(work.left))
    _record(copy, seeding)
    return Seeded(copy, seeding)


def seeding_of(model: onnx.ModelProto) -> Seeding | None:
    """Return what `seed_model` replaced in a model, as its metadata has it; None where nothing.

    Only of a model that this package wrote is it true.
    """
    for entry in model.metadata_props:
        if entry.key == _ENTRY:
            replaced, outputs, left = json.loads(entry.value)
            return Seeding(int(replaced), tuple(map(str, outputs)), tuple(map(str, left)))
    return None


def states_seeding(model: onnx.ModelProto) -> bool:
    """Return whether a model's metadata says what was replaced, whoever wrote it."""
    return any(entry.key == _ENTRY for entry in model.metadata_props)


def _draws_in_functions(model: onnx.ModelProto) -> bool:
    return any(
        is_standard(node, *DRAWING)
        for function in model.functions
        for top in function.node
        for node in (top, *_inner(top))
    )


def _inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    for body in subgraphs(node):
        yield from walk(body)


def _drawn_outputs(graph: onnx.GraphProto) -> list[str]:
    """Return the graph outputs that depend on a drawing node."""
    drawn: set[str] = set()
    for node in graph.node:
        draws = is_standard(node, *DRAWING) or any(
            is_standard(inner, *DRAWING) for inner in _inner(node)
        )
        if draws or not drawn.isdisjoint(reads(node)):
            drawn.update(filter(None, node.output))
    return [info.name for info in graph.output if info.name in drawn]


def _record(model: onnx.ModelProto, seeding: Seeding) -> None:
    """Write what was replaced into the metadata, in the place of what a file says of itself."""
    others = [entry for entry in model.metadata_props if entry.key != _ENTRY]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    if seeding.replaced:
        value = json.dumps([seeding.replaced, seeding.outputs, seeding.left])
        model.metadata_props.add(key=_ENTRY, value=value)


def _table(distribution: str, seed: int) -> npt.NDArray[np.float32]:
    """Return the values of a table: evenly spaced quantiles of a distribution, shuffled.

    So few values have the mean and the spread of the whole distribution. None is at the end of an
    interval, where a model may take a logarithm.
    """
    from scipy import special  # which every process of a run would wait for

    generator = np.random.default_rng([seed, _DISTRIBUTIONS.index(distribution)])
    shares = generator.permutation((np.arange(PERIOD) + 0.5) / PERIOD)
    match distribution:
        case "normal":
            values = special.ndtri(shares)
        case "gumbel":
            values = -np.log(-np.log(shares))
        case "coin":
            values = (np.floor(shares * _COIN_STEPS) + 0.5) / _COIN_STEPS
        case _:
            values = shares
    return np.asarray(values, np.float32)


@dataclass(slots=True)
class _Work:
    """A model whose nodes are being replaced.

    Attributes:
        number: of nodes replaced so far.
        left: those that can't be replaced, each with the reason.
        tables: names of the tables in use, by distribution.
    """

    model: onnx.ModelProto
    seed: int
    number: int = 0
    left: list[str] = field(default_factory=list)
    tables: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(init=False)
    types: dict[str, int] = field(init=False)
    fixed: dict[str, TensorProto] = field(init=False)

    def __post_init__(self) -> None:
        self.taken = value_names(self.model.graph)
        self.types = _element_types(self.model)
        self.fixed = {}
        for inner in graphs(self.model.graph):
            self.fixed.update(named_constants(inner))

    @property
    def opset(self) -> int:
        return opset_of(self.model)

    def table(self, distribution: str) -> str:
        if distribution not in self.tables:
            name = fresh_name(f"seeded_{distribution}", self.taken)
            self.tables[distribution] = name
        return self.tables[distribution]

    def add_tables(self) -> None:
        """Put the tables in use into the main graph, where bodies can read them too."""
        for distribution, name in self.tables.items():
            tensor = numpy_helper.from_array(_table(distribution, self.seed), name)
            self.model.graph.initializer.append(tensor)
            if self.model.ir_version < FREE_INITIALIZERS:
                info = helper.make_tensor_value_info(name, TensorProto.FLOAT, [PERIOD])
                self.model.graph.input.append(info)

    def replace(self, graph: onnx.GraphProto, iterations: tuple[str, ...]) -> None:
        """Replace the drawing nodes of a graph and of those inside it.

        Args:
            graph: to change.
            iterations: names of the iteration numbers of the loops around it, outermost first.
        """
        nodes: list[onnx.NodeProto] = []
        changed = False
        for node in graph.node:
            for body in subgraphs(node):
                is_loop = is_standard(node, "Loop") and body.input
                around = (*iterations, body.input[0].name) if is_loop else iterations
                self.replace(body, around)
            instead = self._instead_of(node, iterations)
            nodes += [node] if instead is None else instead
            changed = changed or instead is not None
        if changed:
            replace_nodes(graph, nodes)

    def _instead_of(
        self, node: onnx.NodeProto, iterations: tuple[str, ...]
    ) -> list[onnx.NodeProto] | None:
        """Return the nodes that take a node's place; None where it stays."""
        if not is_standard(node, *DRAWING) or _is_idle(node, self.fixed):
            return None
        label = node.name or node.output[0]
        writer = Writer(self, node, iterations)
        try:
            if self.opset < FIRST_OPSET:
                raise Refused(f"needs opset {FIRST_OPSET}, and the model has {self.opset}")
            REPLACE[node.op_type](writer)
        except Refused as refused:
            self.left.append(f"{node.op_type} '{label}' {refused}")
            return None
        self.number += 1
        return writer.nodes


def _is_idle(node: onnx.NodeProto, fixed: dict[str, TensorProto]) -> bool:
    """Return whether a Dropout never trains: its input says so, or it has none."""
    if node.op_type != "Dropout":
        return False
    training = node.input[2] if len(node.input) > 2 else ""
    if not training:
        return True
    return training in fixed and not numpy_helper.to_array(fixed[training]).any()


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element types of a model's tensors, as far as they can be inferred."""
    types: dict[str, int] = {}
    for inner in graphs(infer_types(model).graph):
        for info in (*inner.input, *inner.output, *inner.value_info):
            if info.type.tensor_type.elem_type:
                types[info.name] = info.type.tensor_type.elem_type
        for tensor in inner.initializer:
            types[tensor.name] = tensor.data_type
    return types
