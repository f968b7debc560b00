"""Names of a case replaced by names that say nothing, and what else a model says of itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import onnx
from google.protobuf.message import Message

from onnx_harness.diagnose.case_data import all_graphs, all_nodes
from onnx_harness.diagnose.fault import Fault
from onnx_harness.diagnose.moves import duplicate
from onnx_harness.diagnose.smaller_case import Case
from onnx_harness.names import OptionValue

GRAPH, UNKNOWN = "reduced", "unknown"
# Of every message: they say something to a person, and nothing to ONNX Runtime.
_REMARKS = frozenset(
    {
        "doc_string",
        "metadata_props",
        "denotation",
        "producer_name",
        "producer_version",
        "model_version",
        "training_info",
        "quantization_annotation",
        "configuration",
        "device_configurations",
        "external_data",
    }
)
# Domains whose operators ONNX Runtime has itself: their names are nobody's.
_OPEN_DOMAINS = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        "ai.onnx.training",
        "com.microsoft",
        "com.microsoft.experimental",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
    }
)


@dataclass(frozen=True, slots=True)
class Names:
    """New names by old ones; those that stay aren't in it.

    Attributes:
        values: of inputs, initializers, outputs and what nodes give.
        nodes: of nodes.
        dimensions: of dimensions without a size.
        words: of graphs, functions, their domains and their attributes.
    """

    values: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)
    dimensions: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)

    @property
    def old(self) -> list[str]:
        """The names that are replaced, without those that are called so already."""
        groups = (self.values, self.nodes, self.dimensions, self.words)
        names: dict[str, None] = {}
        for group in groups:
            names.update({old: None for old, new in group.items() if old != new})
        return list(names)


def new_names(
    case: Case,
    stay: Collection[str] = (),
) -> Names:
    """Return new names for all that has one, but for some that stay.

    ``x0`` for inputs, ``w0`` for weights, ``y0`` for outputs, ``v0`` for other values, ``Add_0``
    for a node, ``d0`` for a dimension, ``F0`` for a function. A node without a name gets none.
    """
    names = Names()
    fresh = _Fresh(stay)
    for model in case.models:
        for letter, group in _values(model):
            for name in group:
                fresh.add(names.values, name, letter)
    for model in case.models:
        for node in all_nodes(model):
            custom = any(node.op_type == function.name for function in model.functions)
            fresh.add(names.nodes, node.name, "Call_" if custom else f"{node.op_type}_")
        for shape in _messages(model, onnx.TensorShapeProto.Dimension):
            fresh.add(names.dimensions, shape.dim_param, "d")
        for graph in all_graphs(model):
            names.words.update({} if graph.name in ("", *stay) else {graph.name: GRAPH})
        for function in model.functions:
            if function.domain not in _OPEN_DOMAINS:
                fresh.add(names.words, function.domain, "domain")
            fresh.add(names.words, function.name, "F")
            fresh.add(names.words, function.overload, "overload")
            for name in (
                *function.attribute,
                *(entry.name for entry in function.attribute_proto),
            ):
                fresh.add(names.words, name, "a")
    return names


class _Fresh:
    """Gives out names with a prefix and a number."""

    def __init__(
        self,
        stay: Collection[str],
    ) -> None:
        self._stay = set(stay)
        self._numbers: dict[str, Iterator[int]] = {}

    def add(
        self,
        names: dict[str, str],
        name: str,
        prefix: str,
    ) -> None:
        if not name or name in names or name in self._stay:
            return
        numbers = self._numbers.setdefault(prefix, count())
        new = next(
            f"{prefix}{number}"
            for number in numbers
            if f"{prefix}{number}" not in self._stay
        )
        names[name] = new


def renamed_case(
    case: Case,
    names: Names,
    *,
    typed: bool = False,
    remarks: bool = False,
) -> Case:
    """Return the case under new names.

    Args:
        case: stays as it is.
        names: as `new_names` gives them.
        typed: keep the declared types of inner values, under their new names.
        remarks: keep what the models say of themselves: documentation, metadata, the producer.
    """
    changed = duplicate(case)
    for model in changed.models:
        if not remarks:
            _clear_remarks(model)
            _drop_unused_domains(model)
        for graph in all_graphs(model):
            if not typed:
                graph.ClearField("value_info")
        _rename(model, names)
    inputs = {names.values.get(name, name): array for name, array in case.inputs.items()}
    return Case(changed.model, inputs, changed.other)


def renamed_fault(
    fault: Fault,
    names: Names,
) -> Fault:
    """Return a fault whose parts and options name nodes and values as the renamed case does."""
    step = fault.step
    if step is None:
        return fault
    parts = fault.parts
    if step.transform.parts is not None and step.transform.parts.kind == "node":
        # A part that the case lost stays one: without any, all of the step would be at fault.
        parts = tuple(names.nodes.get(name, UNKNOWN) for name in parts)
    options = {key: _option(key, value, names) for key, value in step.options.items()}
    return replace(fault, step=replace(step, options=options), parts=parts)


def foreign_operators(case: Case) -> list[str]:
    """Return the operators that are neither ONNX's, nor ONNX Runtime's, nor functions."""
    operators = set()
    for model in case.models:
        functions = {(function.domain, function.name) for function in model.functions}
        for node in all_nodes(model):
            known_domain = node.domain in _OPEN_DOMAINS
            if not known_domain and (node.domain, node.op_type) not in functions:
                operators.add(f"{node.domain}.{node.op_type}")
    return sorted(operators)


def has_remarks(case: Case) -> bool:
    """Return whether a model of the case says something of itself that isn't needed."""
    for model in case.models:
        for message in _messages(model, Message):
            if any(entry.name in _REMARKS for entry, _ in message.ListFields()):
                return True
    return False


def _option(
    key: str,
    value: OptionValue,
    names: Names,
) -> Any:
    """Return an option's value; lists of operators have ``op_`` in their name, and stay."""
    if "op_" in key or not isinstance(value, (tuple, list)):
        return value
    return tuple(_entry(entry, names) for entry in value)


def _entry(
    entry: Any,
    names: Names,
) -> Any:
    """Return an entry of a list: the name of a node or of a value, or ``name:further``."""
    if not isinstance(entry, str):
        return entry
    for group in (names.nodes, names.values):
        if entry in group:
            return group[entry]
    name, colon, further = entry.rpartition(":")
    return f"{names.values[name]}:{further}" if colon and name in names.values else entry


def _values(model: onnx.ModelProto) -> Iterator[tuple[str, list[str]]]:
    graph = model.graph
    yield "x", [info.name for info in graph.input]
    yield "w", [tensor.name for tensor in graph.initializer]
    yield "w", [sparse.values.name for sparse in graph.sparse_initializer]
    yield "y", [info.name for info in graph.output]
    for body in all_graphs(model):
        yield "v", [info.name for info in body.input]
        yield "v", [tensor.name for tensor in body.initializer]
        yield "v", [sparse.values.name for sparse in body.sparse_initializer]
        yield "v", [info.name for info in (*body.output, *body.value_info)]
    for function in model.functions:
        yield "v", [*function.input, *function.output]
        yield "v", [info.name for info in function.value_info]
    for node in all_nodes(model):
        yield "v", [*node.input, *node.output]


def _messages(
    message: Any,
    kind: Any,
) -> Iterator[Any]:
    """Yield a message and every message inside it that is of a kind."""
    if isinstance(message, kind):
        yield message
    for entry, value in message.ListFields():
        if entry.message_type is None:
            continue
        for inner in value if hasattr(value, "extend") else (value,):
            yield from _messages(inner, kind)


def _clear_remarks(model: onnx.ModelProto) -> None:
    model.ClearField("domain")
    model.DiscardUnknownFields()
    for message in list(_messages(model, Message)):
        for entry, _ in message.ListFields():
            if entry.name in _REMARKS:
                message.ClearField(entry.name)


def _drop_unused_domains(model: onnx.ModelProto) -> None:
    used = {node.domain for node in all_nodes(model)} | {
        function.domain for function in model.functions
    }
    entries = []
    for entry in model.opset_import:
        if entry.domain in _OPEN_DOMAINS or entry.domain in used:
            entries.append(entry)
    del model.opset_import[:]
    model.opset_import.extend(entries)


def _rename(
    model: onnx.ModelProto,
    names: Names,
) -> None:
    functions = {(function.domain, function.name) for function in model.functions}
    _rename_nodes(model, names, functions)
    for graph in all_graphs(model):
        _put(graph, "name", names.words)
        for info in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            _put(info, "name", names.values)
        for sparse in graph.sparse_initializer:
            _put(sparse.values, "name", names.values)
    for tensor in _unread_names(model):
        tensor.name = ""
    for dimension in _messages(model, onnx.TensorShapeProto.Dimension):
        if dimension.dim_param:
            _put(dimension, "dim_param", names.dimensions)
    for function in model.functions:
        _rename_function(function, names)
    for entry in (*model.opset_import, *_imports(model)):
        _put(entry, "domain", names.words)


def _rename_nodes(
    model: onnx.ModelProto, names: Names, functions: Collection[tuple[str, str]]
) -> None:
    for node in all_nodes(model):
        _put(node, "name", names.nodes)
        for group in (node.input, node.output):
            for place, name in enumerate(group):
                group[place] = names.values.get(name, name)
        calls = (node.domain, node.op_type) in functions
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                _put(attribute, "ref_attr_name", names.words)
            if calls:
                _put(attribute, "name", names.words)
        if calls:
            for entry in ("op_type", "domain", "overload"):
                _put(node, entry, names.words)


def _rename_function(
    function: onnx.FunctionProto,
    names: Names,
) -> None:
    for entry in ("name", "domain", "overload"):
        _put(function, entry, names.words)
    for group in (function.input, function.output):
        for place, name in enumerate(group):
            group[place] = names.values.get(name, name)
    for place, name in enumerate(function.attribute):
        function.attribute[place] = names.words.get(name, name)
    for attribute in function.attribute_proto:
        _put(attribute, "name", names.words)
    for info in function.value_info:
        _put(info, "name", names.values)


def _unread_names(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors whose names nothing reads."""
    for graph in all_graphs(model):
        yield from (sparse.indices for sparse in graph.sparse_initializer)
    for node in all_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from _messages(attribute.sparse_tensor, onnx.TensorProto)
            for sparse in attribute.sparse_tensors:
                yield from _messages(sparse, onnx.TensorProto)


def _imports(model: onnx.ModelProto) -> Iterator[onnx.OperatorSetIdProto]:
    for function in model.functions:
        yield from function.opset_import


def _put(
    message: Any,
    entry: str,
    names: Mapping[str, str],
) -> None:
    name = getattr(message, entry)
    if name in names:
        setattr(message, entry, names[name])
