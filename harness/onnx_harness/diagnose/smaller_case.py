"""A model with one input set, as a reduction changes it.

What is cut out of it, and the values where it was cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_harness.model.cut import cut
from onnx_harness.model.walk import reads

Array = np.ndarray[Any, np.dtype[Any]]
Values = Mapping[str, Array]
# Of a model: they say where it comes from, and a part doesn't come from there.
_REMARKS = ("producer_version", "domain", "model_version", "doc_string", "metadata_props")


@dataclass(frozen=True, slots=True)
class Case:
    """The case that a check judges.

    Attributes:
        model: that is right as it is, run with optimizations off.
        inputs: an array by name of the model's inputs.
        other: the model that should compute the same; None where a step makes it of ``model``.
    """

    model: onnx.ModelProto
    inputs: Values
    other: onnx.ModelProto | None = None

    @property
    def models(self) -> tuple[onnx.ModelProto, ...]:
        """The model, and the other one where there is one."""
        return (self.model,) if self.other is None else (self.model, self.other)

    @property
    def nodes(self) -> int:
        """Nodes of the main graph, Constants left out: they are weights in another place."""
        return sum(node.op_type != "Constant" for node in self.model.graph.node)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def part_of(
    model: onnx.ModelProto,
    chosen: Sequence[int],
    values: Values,
    outputs: Sequence[str] = (),
) -> Case | None:
    """Return some nodes of a model as a case of their own.

    Args:
        model: it stays as it is.
        chosen: positions of nodes of the main graph, in order.
        values: what the model computes, by name: the inputs of the part are taken from them.
        outputs: of the part; empty: those values of its nodes that no other of its nodes reads.

    Returns:
        The case; a value that doesn't depend on the model's inputs is a weight of it. None where
        the part reads or gives a value that isn't known.
    """
    graph = model.graph
    nodes = [graph.node[at] for at in chosen]
    gives = {name for node in nodes for name in node.output if name}
    reads_inside = {name for node in nodes for name in reads(node) if name}
    inner = {name for node in nodes for name in _inner_names(node)}
    weights = {tensor.name for tensor in graph.initializer}
    ends = [name for name in outputs if name in gives]
    ends = ends or [
        name for node in nodes for name in node.output if name not in reads_inside | {""}
    ]
    starts = sorted(reads_inside - gives - weights - inner)
    if any(name not in values for name in (*starts, *ends)):
        return None
    types = {name: info_of(name, values[name]) for name in starts}
    types.update({name: output_of(name, values[name]) for name in ends})
    part = cut(model, starts, ends, types)
    for field in _REMARKS:
        part.ClearField(field)
    declared, varying = {info.name for info in graph.input}, _varying(graph)
    fixed = [name for name in starts if name not in declared and name not in varying]
    part.graph.initializer.extend(
        numpy_helper.from_array(values[name], name) for name in fixed
    )
    inputs = {name: values[name] for name in starts if name not in fixed}
    part.graph.ClearField("input")
    part.graph.input.extend(types[name] for name in inputs)
    return Case(part, inputs)


def info_of(name: str, value: Array) -> onnx.ValueInfoProto:
    """Return the declaration of an input with the type and the shape of an array."""
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
    )


def output_of(name: str, value: Array) -> onnx.ValueInfoProto:
    """Return the declaration of an output with the type and the rank of an array."""
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name, kind, [None] * value.ndim)


def redeclared(case: Case, inputs: Values) -> Case:
    """Return a case with other arrays, its models' inputs declared with their shapes and types."""
    models = []
    for model in case.models:
        for info in model.graph.input:
            if info.name in inputs:
                info.CopyFrom(info_of(info.name, inputs[info.name]))
        model.graph.ClearField("value_info")
        for info in model.graph.output:
            for dimension in info.type.tensor_type.shape.dim:
                dimension.Clear()
        models.append(model)
    return Case(models[0], inputs, models[1] if case.other is not None else None)


def pruned(case: Case) -> Case:
    """Return a case without weights and inputs that nothing reads; the models are changed."""
    used: set[str] = set()
    for model in case.models:
        read = set()
        for node in model.graph.node:
            for name in reads(node):
                read.add(name)
        read |= {info.name for info in model.graph.output}
        _keep(model.graph.initializer, read)
        used |= read
    for model in case.models:
        _keep(model.graph.input, used)
    inputs = {name: value for name, value in case.inputs.items() if name in used}
    return Case(case.model, inputs, case.other)


def _keep(messages: Any, names: set[str]) -> None:
    chosen = [message for message in messages if message.name in names]
    if len(chosen) < len(messages):
        del messages[:]
        messages.extend(chosen)


def _varying(graph: onnx.GraphProto) -> set[str]:
    """Return the values that depend on an input of the graph, or on chance."""
    varying = {info.name for info in graph.input}
    for node in graph.node:
        if node.op_type.startswith("Random") or not varying.isdisjoint(reads(node)):
            varying.update(node.output)
    return varying


def _inner_names(node: onnx.NodeProto) -> set[str]:
    """Return the names that the bodies of a node make themselves."""
    names: set[str] = set()
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            names.update(info.name for info in body.input)
            names.update(tensor.name for tensor in body.initializer)
            for inner in body.node:
                names.update(inner.output)
                names |= _inner_names(inner)
    return names
