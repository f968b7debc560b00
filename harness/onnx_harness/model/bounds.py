"""Limit what a model file may ask of the machine, by its bytes, before a library opens it.

A file of a kilobyte can stand for a value of a terabyte, for a graph of a billion nodes, or for a
loop that never ends; ONNX Runtime would find that out for minutes, once for each variant. Here it
takes milliseconds.
"""

from __future__ import annotations

import stat
from collections import ChainMap
from collections.abc import MutableMapping
from pathlib import Path

from onnx_harness.errors import ModelError, ModelTooLarge
from onnx_harness.model.ops import STANDARD_DOMAINS
from onnx_harness.model.scan import scan
from onnx_harness.model.scanned import (
    Scan,
    ScannedFunction,
    ScannedGraph,
    ScannedNode,
    ScannedTensor,
)
from onnx_harness.model.static_shapes import UNKNOWN, Static, result_of

MOST_NAME_BYTES = 1 << 16
MOST_GRAPHS_DEEP = 32
MOST_DIMENSIONS = 64  # numpy's own limit
MOST_WINDOW = 1 << 31
"""Of the elements that a kernel covers, its steps and its padding: more than any tensor's side."""

MOST_NODES = 3_000_000
"""Of a graph whose functions are written out.

The largest models that anybody exports have some 100,000.
"""

MOST_STEPS = 100_000_000
"""Nodes that loops with a constant trip count run in all.

Minutes of nothing but ONNX Runtime's own overhead.
"""

MOST_FOLLOWED = 200_000
"""Nodes whose shapes are followed.

Larger graphs are checked without them: they aren't small files.
"""

_passed: set[tuple[Path, int, int, int]] = set()

_GROUPED = frozenset({"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv"})
_WINDOW = ("kernel_shape", "dilations", "strides", "pads")

LIFT = "--trust-models lifts this limit"
_Values = MutableMapping[str, Static]


def check_bounds(path: Path, memory_bytes: int, *, trusted: bool = False) -> None:
    """See that opening the model can't exhaust the machine, as far as its bytes tell.

    Args:
        path: the ``.onnx``.
        memory_bytes: that a value may take.
        trusted: nothing is checked.

    Raises:
        ModelError: the file can't be read, or asks for more; the message names the limit and the
            option that lifts it.
    """
    if trusted:
        return
    try:
        status = path.stat()
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path} isn't a file")  # a pipe or a device would be read for ever
    state = (path, status.st_mtime_ns, status.st_size, memory_bytes)
    if state not in _passed:
        _Checked(path.name, scan(path), memory_bytes).check()
        _passed.add(state)


class _Checked:
    """One file on its way through the checks."""

    def __init__(self, name: str, scan: Scan, memory_bytes: int) -> None:
        self._name, self._scan, self._memory = name, scan, memory_bytes
        functions = {}
        for function in scan.functions:
            functions[(function.domain or "", function.name)] = function
        self._functions = functions
        self._sizes: dict[tuple[str, str], int] = {}
        self._followed = 0

    def check(self) -> None:
        """Raise for the first limit that the file doesn't keep."""
        self._check_names()
        if self._scan.deepest > MOST_GRAPHS_DEEP:
            raise self._refused(
                f"nests graphs {self._scan.deepest} deep; at most {MOST_GRAPHS_DEEP} are taken. "
                f"{LIFT}"
            )
        self._check_tensors()
        count = self._expanded(self._scan.graph, ())
        if count > MOST_NODES:
            raise self._refused(
                f"stands for {_many(count)} nodes when its functions are written out; at most "
                f"{MOST_NODES:,} are "
                f"taken. {LIFT}"
            )
        for function in self._scan.functions:
            self._expanded(function.body, ((function.domain, function.name),))
        outputs = self._follow(self._scan.graph, {}, 1)
        self._check_ends(outputs)

    def _check_names(self) -> None:
        if self._scan.misspelt is not None:
            raise self._refused(
                f"has a name that isn't UTF-8: {self._scan.misspelt!r}. {LIFT}"
            )
        if self._scan.longest_name > MOST_NAME_BYTES:
            raise self._refused(
                f"has a name of {self._scan.longest_name:,} bytes; at most {MOST_NAME_BYTES:,} "
                f"are taken. {LIFT}"
            )

    def _check_tensors(self) -> None:
        if self._scan.highest_rank > MOST_DIMENSIONS:
            raise self._refused(
                f"has a tensor of {self._scan.highest_rank:,} dimensions or more; numpy takes at "
                f"most {MOST_DIMENSIONS}"
            )
        total = 0
        for tensor in self._scan.tensors:
            size = Static(tuple(tensor.dims), None, tensor.kind).bytes or 0
            self._check_size(
                size, f"tensor '{tensor.name[:80]}' of shape {_shape(tensor.dims)}"
            )
            total += size
        self._check_size(total, "its constants together")

    def _check_size(self, size: int, what: str) -> None:
        if size > self._memory:
            raise self._refused(
                f"asks for more memory than there is: {what} takes {_many(size)} bytes, and the "
                f"limit is "
                f"{self._memory:,} (--cell-memory)",
                ModelTooLarge,
            )

    def _check_ends(self, outputs: list[Static]) -> None:
        """Check that inputs and outputs fit together: a run holds all of them at once."""
        graph = self._scan.graph
        total = 0
        for output in outputs:
            total += output.bytes or 0
        for name, (kind, dims) in graph.inputs.items():
            if dims is None or name in graph.tensors:
                continue
            size = Static(tuple(dims), None, kind).bytes
            total += size or 0
        if total > self._memory:
            raise self._refused(
                f"asks for more memory than there is: its inputs and outputs take {_many(total)} "
                f"bytes together, and the limit is {self._memory:,} (--cell-memory)",
                ModelTooLarge,
            )

    def _expanded(self, graph: ScannedGraph, inside: tuple[tuple[str, str], ...]) -> int:
        """Count the nodes a graph stands for, those of its subgraphs and functions included."""
        count = 0
        for node in graph.nodes:
            count += 1 + sum(self._expanded(body, inside) for body in node.graphs.values())
            function = self._function(node)
            if function is not None:
                count += self._expanded_function(function, inside)
        return count

    def _expanded_function(
        self, function: ScannedFunction, inside: tuple[tuple[str, str], ...]
    ) -> int:
        key = (function.domain, function.name)
        if key in inside:
            raise self._refused(
                f"has a function that calls itself: '{function.name[:80]}'. ONNX allows none"
            )
        if len(inside) > 4 * MOST_GRAPHS_DEEP:
            raise self._refused(
                f"has functions that call one another more than {len(inside)} deep. {LIFT}"
            )
        if key not in self._sizes:
            self._sizes[key] = self._expanded(function.body, (*inside, key))
        return self._sizes[key]

    def _function(self, node: ScannedNode) -> ScannedFunction | None:
        return self._functions.get((node.domain, node.op))

    def _follow(self, graph: ScannedGraph, outer: _Values, times: int) -> list[Static]:
        """Follow the shapes that constants decide; return what is known of the graph's outputs.

        Args:
            graph: whose nodes are followed.
            outer: what is known outside, by name.
            times: how often the graph runs.
        """
        values: _Values = ChainMap({}, outer) if outer else {}
        for name, tensor in graph.tensors.items():
            listed = None if tensor.values is None else tuple(tensor.values)
            values[name] = Static(tuple(tensor.dims), listed, tensor.kind)
        for name, (kind, dims) in graph.inputs.items():
            if dims is not None and name not in values:
                values[name] = Static(tuple(dims), None, kind)
                self._check_size(
                    values[name].bytes or 0, f"input '{name[:80]}' of shape {_shape(dims)}"
                )
        for node in graph.nodes:
            self._followed += 1
            if self._followed > MOST_FOLLOWED:
                return []
            self._follow_node(node, values, times)
        return [values.get(name, UNKNOWN) for name in graph.outputs]

    def _follow_node(self, node: ScannedNode, values: _Values, times: int) -> None:
        inputs = [values.get(name, UNKNOWN) for name in node.inputs]
        self._check_attributes(node)
        function = self._function(node)
        if function is not None:
            outputs = self._follow(_with_inputs(function.body, inputs), {}, times)
            values.update(zip(node.outputs, outputs, strict=False))
            return
        inner = times * self._trips(node, inputs, values)
        for body in node.graphs.values():
            if inner > 1 and inner * max(len(body.nodes), 1) > MOST_STEPS:
                raise self._refused(
                    f"runs the {len(body.nodes):,} nodes in its {node.op} {_many(inner)} times, "
                    f"by constants alone; at "
                    f"most {MOST_STEPS:,} steps are taken. {LIFT}"
                )
            self._follow(body, values, inner)
        if not node.outputs:
            return
        result = result_of(node, inputs)
        values[node.outputs[0]] = result
        shape = _shape(result.dims or ())
        what = f"value '{node.outputs[0][:80]}' of {node.op}, of shape {shape},"
        self._check_size(result.bytes or 0, what)

    def _check_attributes(self, node: ScannedNode) -> None:
        for name in _WINDOW:
            if any(abs(number) > MOST_WINDOW for number in node.numbers.get(name, ())):
                most = max(map(abs, node.numbers[name]))
                raise self._refused(
                    f"has a {node.op} whose {name} is {most:,}; at most {MOST_WINDOW:,} are "
                    f"taken. {LIFT}"
                )
        is_grouped = node.op in _GROUPED and node.domain in STANDARD_DOMAINS
        if is_grouped and (group := node.numbers.get("group", [1])[0]) < 1:
            raise self._refused(
                f"has a {node.op} whose group is {group:,}; ONNX takes 1 and more"
            )

    def _trips(self, node: ScannedNode, inputs: list[Static], values: _Values) -> int:
        """Return how often a Loop surely runs its body; 1 where its condition may end it."""
        if (
            node.op != "Loop"
            or node.domain not in STANDARD_DOMAINS
            or "body" not in node.graphs
        ):
            return 1
        body = node.graphs["body"]
        begins = len(node.inputs) < 2 or not node.inputs[1] or _is_true(inputs[1])
        if not begins or not _stays_true(body, values):
            return 1
        if not node.inputs or not node.inputs[0]:
            return MOST_STEPS + 1  # no trip count, and a condition that never changes
        trips = inputs[0].values
        return max(trips[0], 1) if trips else 1

    def _refused(self, why: str, kind: type[ModelError] = ModelError) -> ModelError:
        return kind(f"{self._name} {why}")


def _with_inputs(body: ScannedGraph, inputs: list[Static]) -> ScannedGraph:
    """A function's body with what is known of its arguments, as constants of a graph of its own."""
    tensors = {}
    for name, value in zip(body.inputs, inputs, strict=False):
        if value.dims is not None:
            tensors[name] = ScannedTensor(
                name,
                list(value.dims),
                value.kind,
                None if value.values is None else list(value.values),
            )
    return ScannedGraph(body.nodes, tensors, {}, body.outputs, body.depth)


def _is_true(value: Static) -> bool:
    return bool(value.values) and all(value.values or ())


def _stays_true(body: ScannedGraph, outer: _Values) -> bool:
    """Decide whether a Loop body's condition is the one that it got, or a constant true."""
    name = body.outputs[0] if body.outputs else ""
    producers = {}
    for node in body.nodes:
        for output in node.outputs:
            producers[output] = node
    got = [*body.inputs][1] if len(body.inputs) > 1 else ""
    for _ in range(len(body.nodes) + 1):
        if name == got:
            return True
        if name in body.tensors:
            values = body.tensors[name].values
            return bool(values) and all(values or ())
        producer = producers.get(name)
        if producer is None:
            return _is_true(outer.get(name, UNKNOWN))
        if producer.op == "Constant":
            return _is_true(result_of(producer, []))
        if producer.op != "Identity" or not producer.inputs:
            return False
        name = producer.inputs[0]
    return False


def _shape(dims: tuple[int, ...] | list[int]) -> str:
    shown = "x".join(str(dim) for dim in dims[:8])
    return f"{shown}{'x…' if len(dims) > 8 else ''}" or "()"


def _many(count: int) -> str:
    return f"{count:,}" if count < 1 << 80 else "more than 10^24"
