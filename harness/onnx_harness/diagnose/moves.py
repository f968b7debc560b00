"""Changes that make a case smaller.

Each gives a case of its own, which a check takes or refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnx_harness.diagnose.smaller_case import (
    Array,
    Case,
    Values,
    copied,
    pruned,
    redeclared,
)
from onnx_harness.model.ops import STANDARD_DOMAINS, TYPE_ATTRIBUTES
from onnx_harness.model.walk import walk

_MOST_SIZES = 6
# Opsets to try, oldest first: with 13 axes became inputs, 17 is what most exporters write.
_OPSETS = (13, 17)


def duplicate(case: Case) -> Case:
    """Return a case whose models may be changed."""
    counterpart = None if case.other is None else copied(case.other)
    return Case(copied(case.model), dict(case.inputs), counterpart)


def bypasses(case: Case, values: Values) -> Iterator[Case]:
    """Give the case without one of its nodes.

    What read its output reads an input of the same type and shape.
    """
    if case.other is not None:
        return
    outputs = {info.name for info in case.model.graph.output}
    for at, node in enumerate(case.model.graph.node):
        if (
            len(node.output) != 1
            or node.output[0] in outputs
            or node.output[0] not in values
        ):
            continue
        after = values[node.output[0]]
        for name in node.input:
            before = values.get(name)
            if before is None or (before.dtype, before.shape) != (after.dtype, after.shape):
                continue
            changed = duplicate(case)
            del changed.model.graph.node[at]
            for reader in walk(changed.model.graph):
                for place, read in enumerate(reader.input):
                    if read == node.output[0]:
                        reader.input[place] = name
            yield pruned(changed)
            break


def branches(case: Case, values: Values) -> Iterator[Case]:
    """Give the case with the branch of an If that is taken in its place."""
    if case.other is not None:
        return
    for at, node in enumerate(case.model.graph.node):
        if node.op_type != "If" or node.input[0] not in values:
            continue
        branch = (
            "then_branch" if bool(values[node.input[0]].reshape(-1)[0]) else "else_branch"
        )
        body = next(attribute.g for attribute in node.attribute if attribute.name == branch)
        changed = duplicate(case)
        graph = changed.model.graph
        renamed = {
            info.name: name for info, name in zip(body.output, node.output, strict=True)
        }
        inner = [copy_node(step, renamed) for step in body.node]
        nodes = [*graph.node[:at], *inner, *graph.node[at + 1 :]]
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(body.initializer)
        yield pruned(changed)


def copy_node(node: onnx.NodeProto, renamed: Mapping[str, str]) -> onnx.NodeProto:
    """Return a copy of a node that reads and gives values by other names."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for names in (copy.input, copy.output):
        for place, name in enumerate(names):
            names[place] = renamed.get(name, name)
    return copy


def attributes(case: Case) -> Iterator[Case]:
    """Give the case without one attribute, whose default takes its place."""
    for at, node in enumerate(case.model.graph.node):
        for number, attribute in enumerate(node.attribute):
            if attribute.HasField("g") or node.op_type == "Constant":
                continue
            changed = duplicate(case)
            del changed.model.graph.node[at].attribute[number]
            if changed.other is not None:
                twin = next(
                    (
                        each
                        for each in changed.other.graph.node
                        if list(each.output) == list(node.output)
                    ),
                    None,
                )
                if twin is None:
                    continue
                remaining = []
                for each in twin.attribute:
                    if each.name != attribute.name:
                        remaining.append(each)
                del twin.attribute[:]
                twin.attribute.extend(remaining)
            yield changed


def sizes(case: Case) -> list[int]:
    """Return the sizes of dimensions that can shrink, the largest first."""
    sizes_found = set()
    for array in case.inputs.values():
        for size in array.shape:
            if size > 1:
                sizes_found.add(size)
    for tensor in case.model.graph.initializer:
        sizes_found.update(size for size in tensor.dims if size > 1)
    return sorted(sizes_found, reverse=True)[:_MOST_SIZES]


def shrunk(case: Case, size: int, indices: Sequence[int]) -> Case:
    """Return the case with some indices of every dimension of a size, in order.

    The integers that say so change, too.
    """
    changed = duplicate(case)
    inputs = {name: _sliced(array, size, indices) for name, array in changed.inputs.items()}
    for model in changed.models:
        for tensor in model.graph.initializer:
            _put(tensor, _sliced(numpy_helper.to_array(tensor), size, indices))
    return redeclared(changed, inputs)


def first_axis(case: Case) -> Iterator[Case]:
    """Give the case with the first axis of all its inputs cut to one element.

    What models call the batch.
    """
    inputs = {}
    for name, array in case.inputs.items():
        inputs[name] = array[:1] if array.ndim and array.shape[0] > 1 else array
    if any(inputs[name].shape != array.shape for name, array in case.inputs.items()):
        yield redeclared(duplicate(case), inputs)


def _sliced(array: Array, size: int, indices: Sequence[int]) -> Array:
    # Shapes, ends, repeats.
    if array.dtype == np.int64 and array.ndim == 1 and array.size <= 8:
        array = np.where(array == size, len(indices), array)
    for axis, length in enumerate(array.shape):
        if length == size:
            array = np.take(array, list(indices), axis)
    return np.ascontiguousarray(array).reshape(array.shape)


def _put(tensor: onnx.TensorProto, array: Array) -> None:
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def plain(array: Array, smooth: bool = False) -> Iterator[Array]:
    """Give simpler arrays of a type and shape, the simplest first: a single value, or a few."""
    yield np.ones_like(array)
    yield np.zeros_like(array)
    if array.size and not smooth:
        yield np.full_like(array, array.reshape(-1)[int(np.abs(array).argmax())])
        yield np.sign(array)
        yield np.rint(array)
        yield (
            array.astype(np.float16).astype(array.dtype)
            if np.abs(array).max() < 6e4
            else array
        )


def weights(case: Case) -> list[str]:
    """Return the names of the numeric weights with more than one value left.

    Both models share them.
    """
    names = []
    others: dict[str, bytes] = {}
    if case.other is not None:
        others = {}
        for tensor in case.other.graph.initializer:
            others[tensor.name] = tensor.SerializeToString()
    for tensor in case.model.graph.initializer:
        shared = case.other is None or others.get(tensor.name) == tensor.SerializeToString()
        if shared and tensor.data_type in (
            TensorProto.FLOAT,
            TensorProto.DOUBLE,
            TensorProto.FLOAT16,
        ):
            names.append(tensor.name)
    return names


def weight(case: Case, name: str) -> Array:
    """Return a weight of the case."""
    return numpy_helper.to_array(
        next(tensor for tensor in case.model.graph.initializer if tensor.name == name)
    )


def with_weight(case: Case, name: str, array: Array) -> Case:
    """Return the case with another weight."""
    changed = duplicate(case)
    for model in changed.models:
        for tensor in model.graph.initializer:
            if tensor.name == name:
                _put(tensor, array)
    return changed


def with_input(case: Case, name: str, array: Array) -> Case:
    """Return the case with another input."""
    return Case(case.model, {**case.inputs, name: array}, case.other)


def as_weight(case: Case, name: str) -> Case:
    """Return the case with an input turned into a weight."""
    changed = duplicate(case)
    for model in changed.models:
        if any(info.name == name for info in model.graph.input):
            model.graph.initializer.append(numpy_helper.from_array(case.inputs[name], name))
            left = [info for info in model.graph.input if info.name != name]
            del model.graph.input[:]
            model.graph.input.extend(left)
    inputs = {}
    for input_name, array in case.inputs.items():
        if input_name != name:
            inputs[input_name] = array
    return Case(changed.model, inputs, changed.other)


def only(array: Array, places: Sequence[int]) -> Array:
    """Return an array that is zero but for some elements."""
    flat = np.zeros_like(array).reshape(-1)
    flat[list(places)] = array.reshape(-1)[list(places)]
    return flat.reshape(array.shape)


def in_float32(case: Case) -> Iterator[Case]:
    """Give the case with all that is double or float16 in float32."""
    from onnx_harness.model.rewrite import retype

    for kind in (TensorProto.DOUBLE, TensorProto.FLOAT16):
        numpy_type = np.float64 if kind == TensorProto.DOUBLE else np.float16
        if not any(array.dtype == numpy_type for array in case.inputs.values()):
            continue
        changed = duplicate(case)
        for model in changed.models:
            for tensor in model.graph.initializer:
                if tensor.data_type == kind:
                    _put(tensor, numpy_helper.to_array(tensor).astype(np.float32))
            for info in (*model.graph.input, *model.graph.output):
                retype(info.type, kind, TensorProto.FLOAT)
            for node in model.graph.node:
                for attribute in node.attribute:
                    if attribute.name in TYPE_ATTRIBUTES and attribute.i == kind:
                        attribute.i = TensorProto.FLOAT
        inputs = {}
        for name, array in changed.inputs.items():
            inputs[name] = array.astype(np.float32) if array.dtype == numpy_type else array
        yield Case(changed.model, inputs, changed.other)


def tidy(case: Case) -> Case:
    """Return the case without the opsets that no node needs, and without remarks."""
    used = {
        *STANDARD_DOMAINS,
        *(node.domain for model in case.models for node in walk(model.graph)),
    }
    changed = duplicate(case)
    for model in changed.models:
        chosen = [entry for entry in model.opset_import if entry.domain in used]
        del model.opset_import[:]
        model.opset_import.extend(chosen)
        for node in walk(model.graph):
            node.ClearField("doc_string")
            node.ClearField("metadata_props")
    return pruned(changed)


def opsets(case: Case) -> Iterator[Case]:
    """Give the case with older opsets of ONNX's own domain, the oldest first."""
    for number in _OPSETS:
        older = duplicate(case)
        entries = []
        for model in older.models:
            for entry in model.opset_import:
                if entry.domain in STANDARD_DOMAINS:
                    entries.append(entry)
        if all(entry.version > number for entry in entries):
            for entry in entries:
                entry.version = number
            yield older
