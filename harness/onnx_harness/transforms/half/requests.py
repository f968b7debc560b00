"""Compare a caller's request with the model: names that it doesn't have are refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import onnx

from onnx_harness.errors import UsageError, did_you_mean
from onnx_harness.model.walk import walk
from onnx_harness.transforms.half.schemas import DEFAULT_OP_BLOCK_LIST


@dataclass(frozen=True, slots=True)
class Request:
    """The request of a conversion.

    Attributes:
        keep_io_types: leave the inputs and outputs of the model float32: all, or those of these
            names.
        op_block_list: operators and functions that stay float32; None for ``DEFAULT_OP_BLOCK_LIST``
            and what is kept for its range.
        node_block_list: names of nodes that stay float32; a node without one goes by its first
            output.
        allow_missing: names of operators and nodes that the model doesn't have do no harm.
        force_initializers: constants become the half type for readers in float32 too.
        force_inputs: places of inputs, by operator, that become the half type where the schema
            allows it, though they would stay float32.
        refuse_vain: a conversion that leaves nearly all weights as they are doesn't apply.
    """

    keep_io_types: bool | Collection[str] = False
    op_block_list: Collection[str] | None = None
    node_block_list: Collection[str] | None = None
    allow_missing: bool = False
    force_initializers: bool = False
    force_inputs: Mapping[str, Collection[int]] = field(default_factory=dict)
    refuse_vain: bool = False

    def check(self, model: onnx.ModelProto, functions: Collection[str]) -> None:
        """Refuse names that the model doesn't have.

        Args:
            model: its functions inlined.
            functions: names of the functions that it had, and of their nodes and operators.

        Raises:
            UsageError: a name of an operator, a node, an input or an output is none of the model's.
        """
        if not isinstance(self.keep_io_types, bool):
            infos = (*model.graph.input, *model.graph.output)
            _refuse_missing(
                "keep_io_types",
                "input or output",
                self.keep_io_types,
                {info.name for info in infos},
            )
        if self.allow_missing:
            return
        if not (self.op_block_list or self.node_block_list or self.force_inputs):
            return
        nodes = list(walk(model.graph))
        operators = {node.op_type for node in nodes}.union(functions)
        _refuse_missing("force_fp16_inputs", "operator", self.force_inputs, operators)
        operators.update(_listed_by_default(self.op_block_list or ()))
        _refuse_missing("op_block_list", "operator", self.op_block_list or (), operators)
        names = {label(node) for node in nodes}.union(functions)
        _refuse_missing("node_block_list", "node", self.node_block_list or (), names)

    def missing_nodes(self, model: onnx.ModelProto, functions: Collection[str]) -> list[str]:
        """Return the names of nodes that the model doesn't have, and that do no harm.

        Args:
            model: its functions inlined.
            functions: as for `check`.
        """
        if not self.node_block_list:
            return []
        names = {label(node) for node in walk(model.graph)}.union(functions)
        nodes: list[str] = []
        for name in self.node_block_list:
            if name and name not in names:
                nodes.append(name)
        return nodes


def label(node: onnx.NodeProto) -> str:
    """Return what a block list calls a node: its name, or its first output where it has none."""
    return node.name or next(filter(None, node.output), "")


def _refuse_missing(
    option: str, kind: str, names: Collection[str], existing: Collection[str]
) -> None:
    missing = []
    for name in names:
        if name and name not in existing:
            missing.append(name)
    if missing:
        listed = ", ".join(f"'{name}'" for name in missing)
        mend = (
            ""
            if option == "keep_io_types"
            else " allow_missing=True lets names be that a model doesn't have."
        )
        raise UsageError(
            f"{option}: the model has no {kind} {listed}. "
            f"{did_you_mean(missing[0], existing)}{mend}"
        )


def _listed_by_default(operators: Collection[str]) -> Iterator[str]:
    """Yield the operators of each default list that is wholly in a list: ``[*DEFAULT, "Mul"]``.

    No model has them all, and who adds to such a list hasn't misspelt them.
    """
    names = set(operators)
    if len(names) < len(DEFAULT_OP_BLOCK_LIST):
        return
    from onnxconverter_common import float16  # it takes a while, and few lists are that long

    for default in (DEFAULT_OP_BLOCK_LIST, float16.DEFAULT_OP_BLOCK_LIST):
        if names.issuperset(default):
            yield from default


def names_of_functions(model: onnx.ModelProto) -> set[str]:
    """Return the names of a model's functions, and of the nodes and operators in them."""
    names = {function.name for function in model.functions}
    for function in model.functions:
        for node in function.node:
            names.update((node.name, node.op_type))
    return names - {""}
