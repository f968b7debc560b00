"""Calls of a model's own functions replaced by what the functions hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx
import onnx.inliner

from onnx_harness.model.messages import copy_fields
from onnx_harness.model.ops import STANDARD_DOMAINS
from onnx_harness.model.walk import subgraphs

_Key = tuple[str, str]


def inline_functions(model: onnx.ModelProto, kept: Collection[str] = ()) -> onnx.ModelProto:
    """Inline the functions of a model, except those whose name is in ``kept``.

    A function that imports other versions of the operators than the model does is inlined where
    each operator in it is the same in both; else it stays a call too.

    Args:
        model: of any size, and it stays as it is. Its weights don't pass through the inliner, which
            takes no more than 2 GB; they are copied once.
        kept: names of functions.

    Returns:
        The model itself when it has no function to inline, or else a new one.
    """
    versions = _versions(model)
    foreign = [function for function in model.functions if _is_foreign(function, versions)]
    calls = {_key(function) for function in foreign}
    chosen = []
    for function in model.functions:
        if function.name not in kept and _key(function) not in calls:
            chosen.append(_key(function))
    if not chosen:
        return model
    light = onnx.ModelProto()
    copy_fields(model, light, but="graph")
    copy_fields(model.graph, light.graph, but="initializer")
    listed = {info.name for info in model.graph.input}
    for tensor in model.graph.initializer:
        # As inputs, so that no name inside a function is taken for theirs.
        if tensor.name not in listed:
            info = onnx.helper.make_tensor_value_info(
                tensor.name, tensor.data_type, tensor.dims
            )
            light.graph.input.append(info)
    _agree(light, versions, calls)
    inlined = onnx.inliner.inline_selected_functions(light, chosen)
    del inlined.graph.input[len(model.graph.input) :]
    inlined.graph.initializer.extend(model.graph.initializer)
    present = {_key(function) for function in inlined.functions}
    for function in _with_callees(foreign, model.functions):
        if _key(function) not in present:
            inlined.functions.append(function)
    return inlined


def _key(function: onnx.FunctionProto) -> _Key:
    return function.domain, function.name


def _domain(name: str) -> str:
    return "" if name in STANDARD_DOMAINS else name


def _versions(model: onnx.ModelProto) -> dict[str, int]:
    """Return the version of each domain that a model imports, or the first function that does."""
    versions = {_domain(entry.domain): entry.version for entry in model.opset_import}
    for function in model.functions:
        for entry in function.opset_import:
            versions.setdefault(_domain(entry.domain), entry.version)
    return versions


def _is_foreign(function: onnx.FunctionProto, versions: dict[str, int]) -> bool:
    """Return whether a function means other operators than the model would with the same words."""
    for entry in function.opset_import:
        domain = _domain(entry.domain)
        version = versions[domain]
        if entry.version == version:
            continue
        if domain or not _are_same(function.node, entry.version, version):
            return True
    return False


def _are_same(nodes: Iterable[onnx.NodeProto], first: int, second: int) -> bool:
    """Return whether the standard operators of nodes are the same in two versions."""
    for node in nodes:
        if node.domain in STANDARD_DOMAINS:
            try:
                before = onnx.defs.get_schema(node.op_type, first)
                after = onnx.defs.get_schema(node.op_type, second)
            except onnx.defs.SchemaError:
                return False
            if before.since_version != after.since_version:
                return False
        if not all(_are_same(body.node, first, second) for body in subgraphs(node)):
            return False
    return True


def _agree(model: onnx.ModelProto, versions: dict[str, int], foreign: set[_Key]) -> None:
    """Take foreign functions out, and give the others the model's versions, as the inliner asks."""
    functions = [function for function in model.functions if _key(function) not in foreign]
    for function in functions:
        for entry in function.opset_import:
            entry.version = versions[_domain(entry.domain)]
    if len(functions) < len(model.functions):
        copies = []
        for function in functions:
            copies.append(onnx.FunctionProto())
            copies[-1].CopyFrom(function)
        del model.functions[:]
        model.functions.extend(copies)


def _with_callees(
    functions: Collection[onnx.FunctionProto],
    functions_of_model: Iterable[onnx.FunctionProto],
) -> list[onnx.FunctionProto]:
    """Return functions and those that they call, directly or not."""
    by_key = {_key(function): function for function in functions_of_model}
    reached: dict[_Key, onnx.FunctionProto] = {}
    waiting = list(functions)
    while waiting:
        function = waiting.pop()
        if _key(function) in reached:
            continue
        reached[_key(function)] = function
        for called in _called(function.node):
            if called in by_key:
                waiting.append(by_key[called])
    return list(reached.values())


def _called(nodes: Iterable[onnx.NodeProto]) -> set[_Key]:
    called: set[_Key] = set()
    for node in nodes:
        called.add((node.domain, node.op_type))
        for body in subgraphs(node):
            called |= _called(body.node)
    return called
