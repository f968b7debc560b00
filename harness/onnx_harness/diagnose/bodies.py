"""Changes that make the bodies of loops smaller: see `onnx_harness.diagnose.moves`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_harness.diagnose.moves import copy_node, duplicate
from onnx_harness.diagnose.smaller_case import Case, pruned
from onnx_harness.model.ops import is_standard, opset_of
from onnx_harness.model.rewrite import fresh_name, value_names
from onnx_harness.model.walk import graphs, subgraphs, walk

_AXES_ARE_INPUTS = 13


def unrolled(case: Case) -> Iterator[Case]:
    """Yield the case with one iteration in the place of a Loop or a Scan."""
    if case.other is not None:
        return
    for at, node in enumerate(case.model.graph.node):
        if not is_standard(node, "Loop", "Scan"):
            continue
        changed = duplicate(case)
        _Unrolling(changed.model, at).write()
        yield pruned(changed)


class _Unrolling:
    """Writes a first iteration into the main graph."""

    def __init__(self, model: onnx.ModelProto, at: int) -> None:
        self._model, self._graph, self._at = model, model.graph, at
        self._node = model.graph.node[at]
        self._body = next(iter(subgraphs(self._node)))
        self._taken = value_names(model.graph)
        self._before: list[onnx.NodeProto] = []
        self._after: list[onnx.NodeProto] = []

    def write(self) -> None:
        """Replace the node."""
        if self._node.op_type == "Loop":
            read, given, carried = self._loop()
        else:
            read, given, carried = self._scan()
        renamed = {
            info.name: name
            for info, name in zip(self._body.input, read, strict=False)
            if name
        }
        inner = []
        for node in self._body.node:
            for name in filter(None, node.output):
                renamed[name] = fresh_name(name, self._taken)
            inner.append(_copy(node, renamed))
        for tensor in self._body.initializer:
            renamed[tensor.name] = tensor.name
        for place, (name, result) in enumerate(zip(given, self._node.output, strict=False)):
            value = renamed.get(name, name)
            if result and place < carried:
                self._after.append(helper.make_node("Identity", [value], [result]))
            elif result:
                self._stack(value, result)
        self._graph.initializer.extend(self._body.initializer)
        nodes = list(self._graph.node)
        nodes[self._at : self._at + 1] = [*self._before, *inner, *self._after]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self._graph.node[:]
        self._graph.node.extend(copies)

    def _loop(self) -> tuple[Sequence[str], Sequence[str], int]:
        """Return what the body reads, what it gives, and how many of these are carried."""
        number = self._weight(np.array(0, np.int64))
        condition = self._weight(np.array(True))
        read = [number, condition, *self._node.input[2:]]
        given = [info.name for info in self._body.output[1:]]
        return read, given, len(self._body.input) - 2

    def _scan(self) -> tuple[Sequence[str], Sequence[str], int]:
        scanned = helper.get_node_attr_value(self._node, "num_scan_inputs")
        carried = len(self._node.input) - scanned
        axes = self._integers("scan_input_axes", scanned)
        directions = self._integers("scan_input_directions", scanned)
        read = list(self._node.input[:carried])
        for name, axis, backward in zip(
            self._node.input[carried:], axes, directions, strict=True
        ):
            part = fresh_name(f"{name}_part", self._taken)
            index = self._weight(np.array(-1 if backward else 0, np.int64))
            self._before.append(helper.make_node("Gather", [name, index], [part], axis=axis))
            read.append(part)
        return read, [info.name for info in self._body.output], carried

    def _integers(self, attribute: str, count: int) -> Sequence[int]:
        for entry in self._node.attribute:
            if entry.name == attribute:
                return list(entry.ints)
        return [0] * count

    def _stack(self, value: str, result: str) -> None:
        """Give a value of the iteration as the only one of a scan output."""
        if opset_of(self._model) < _AXES_ARE_INPUTS:
            self._after.append(helper.make_node("Unsqueeze", [value], [result], axes=[0]))
            return
        axes = self._weight(np.array([0], np.int64))
        self._after.append(helper.make_node("Unsqueeze", [value, axes], [result]))

    def _weight(self, array: np.ndarray) -> str:
        name = fresh_name("unrolled", self._taken)
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name


def _copy(node: onnx.NodeProto, renamed: Mapping[str, str]) -> onnx.NodeProto:
    """Return a copy of a node that reads and gives values by other names, inside it too."""
    copy = copy_node(node, renamed)
    for body in subgraphs(copy):
        for graph in graphs(body):
            for inner in graph.node:
                for place, name in enumerate(inner.input):
                    inner.input[place] = renamed.get(name, name)
            for info in graph.output:
                info.name = renamed.get(info.name, info.name)
    return copy


def bypasses(case: Case) -> Iterator[Case]:
    """Yield the case without one node of a body: what read its output reads one of its inputs.

    Nothing is known of types and shapes inside: a check refuses what doesn't fit.
    """
    if case.other is not None:
        return
    for number, body in enumerate(_bodies(case.model)):
        given = {info.name for info in body.output}
        for at, node in enumerate(body.node):
            if (
                len(node.output) != 1
                or node.output[0] in given
                or node.op_type == "Constant"
            ):
                continue
            for name in dict.fromkeys(filter(None, node.input)):
                changed = duplicate(case)
                _bypass(_bodies(changed.model)[number], at, name)
                yield pruned(changed)


def _bodies(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    return list(graphs(model.graph))[1:]


def _bypass(body: onnx.GraphProto, at: int, name: str) -> None:
    result = body.node[at].output[0]
    del body.node[at]
    for reader in walk(body):
        for place, read in enumerate(reader.input):
            if read == result:
                reader.input[place] = name
