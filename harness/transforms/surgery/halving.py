"""Float16 conversion: every value gets one type, and Casts only where that isn't the type its reader wants."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import onnx_ir as ir

from harness.transforms.surgery.casting import FLOAT, FLOAT16, MOVES, Typing, Want, kept, typing_of
from harness.transforms.surgery.clamping import Rounder
from harness.transforms.surgery.editing import Editing, all_graphs, inner_graphs
from harness.transforms.surgery.facts import infer_dtypes
from harness.transforms.surgery.rules import constant_tensor, remove_dead

_DTYPES = {Want.FLOAT32: FLOAT, Want.FLOAT16: FLOAT16}
_SUFFIXES: dict[int, str] = {FLOAT: "float", FLOAT16: "float16"}
_FIRST_BODY_INPUT = {"If": 0, "Loop": 2, "Scan": 0}


class Halver:
    """Converts one graph, and the graphs inside it, to float16."""

    def __init__(
        self,
        editing: Editing,
        rounder: Rounder,
        keep_io_types: bool | Collection[str],
        blocks: Callable[[ir.Node], bool],
    ) -> None:
        """Look at the graph; nothing is changed yet.

        Args:
            editing: the graph.
            rounder: rounds weights.
            keep_io_types: float32 inputs and outputs stay float32: all, none, or those of these names.
            blocks: says which nodes stay float32.
        """
        self._editing = editing
        self._rounder = rounder
        self._keep_io_types = keep_io_types
        self._blocks = blocks
        self._dtypes = infer_dtypes(editing)
        self._native: dict[ir.Value, int] = {}
        self._typings: dict[ir.Node, Typing] = {}
        self._wanted_outputs: dict[ir.Graph, tuple[Want, ...]] = {}
        self._made_here: set[ir.Value] = set()
        self._views: dict[tuple[ir.Value, int], ir.Value] = {}
        self._node_names = {node.name for graph in all_graphs(editing.graph) for node in graph}
        self._of_shapes = _computed_from_shapes(editing)

    @property
    def has_float32(self) -> bool:
        """Whether there is anything to convert."""
        return FLOAT in self._dtypes.values()

    def convert(self) -> set[str]:
        """Convert the graph; returns the names of inputs and outputs that have become float16."""
        graph = self._editing.graph
        for value in graph.inputs:
            self._settle(value, self._outside(value))
            if value.is_initializer() and value.const_value is not None and self._native.get(value) == FLOAT16:
                value.const_value = self._halved(value.const_value, value.name)
        self._wanted_outputs[graph] = tuple(self._outside(value) for value in graph.outputs)
        interface = [value for value in (*graph.inputs, *graph.outputs) if self._is_float(value)]
        changed = {value.name for value in interface if value.name and self._outside(value) is Want.FLOAT16}
        self._decide(graph, blocked=False)
        graphs = list(all_graphs(graph))
        self._spare_detours([node for each in graphs for node in each])
        for each in graphs:
            self._rewire(each)
        self._remove_casts_to_the_same(graphs)
        remove_dead(self._editing)
        return changed

    def _outside(self, value: ir.Value) -> Want:
        """The type in which the caller gives or takes an input or output of the model that was float32."""
        keeps = self._keep_io_types if isinstance(self._keep_io_types, bool) else value.name in self._keep_io_types
        return Want.FLOAT32 if keeps else Want.FLOAT16

    def _is_float(self, value: ir.Value | None) -> bool:
        return value is not None and self._dtypes.get(value) == FLOAT

    def _settle(self, value: ir.Value, want: Want) -> None:
        """Decide the type in which a value that was float32 is made."""
        if self._is_float(value):
            self._native[value] = _DTYPES[want]
            value.type = ir.TensorType(ir.DataType(_DTYPES[want]))

    def _decide(self, graph: ir.Graph, blocked: bool) -> None:
        """Decide the typing of each node in the graph and in those inside it."""
        for node in graph:
            stays = blocked or self._blocks(node) or self._has_large_statistics(node)
            stays = stays or any(value in self._of_shapes for value in node.outputs)
            inner = list(inner_graphs(node))
            if inner:
                self._decide_with_bodies(node, inner, stays)
                continue
            self._typings[node] = kept(node) if stays else typing_of(self._editing, node, self._dtypes)
            for value, want in zip(node.outputs, self._typings[node].outputs, strict=True):
                self._settle(value, want)

    def _has_large_statistics(self, node: ir.Node) -> bool:
        """Whether it's a normalization whose running statistics the clamp would cut, as they are or as they may be.

        Trained models have variances of 1e8, and a clipped one isn't a small error: it scales a whole channel.
        """
        if not self._editing.is_standard(node, "BatchNormalization"):
            return False
        held = [_constant_of(value) for value in node.inputs[1:]]
        return any(tensor is None or np.abs(tensor.numpy()).max(initial=0) > self._rounder.largest for tensor in held)

    def _decide_with_bodies(self, node: ir.Node, bodies: list[ir.Graph], stays: bool) -> None:
        # What goes round a loop or comes out of a branch has one type wherever it passes. Scan 8 counts differently.
        known = self._editing.is_standard(node, "If", "Loop") or (
            self._editing.is_standard(node, "Scan") and self._editing.opset >= 9
        )
        want = Want.FLOAT16 if known and not stays and self._knows_alike(node, bodies) else Want.FLOAT32
        self._typings[node] = Typing((want,) * len(node.inputs), (want,) * len(node.outputs))
        for value in node.outputs:
            self._settle(value, want)
        for body in bodies:
            for value in body.inputs[_FIRST_BODY_INPUT.get(node.op_type, 0) :]:
                self._settle(value, want)
            self._wanted_outputs[body] = (want,) * len(body.outputs)
            self._decide(body, blocked=want is Want.FLOAT32)

    def _knows_alike(self, node: ir.Node, bodies: list[ir.Graph]) -> bool:
        """Whether the type of each value is as well known inside the node as outside."""
        skipped = 1 if node.op_type == "Loop" else 0
        pairs = [pair for body in bodies for pair in zip(node.outputs, body.outputs[skipped:], strict=False)]
        for body in bodies if node.op_type != "If" else ():
            first = _FIRST_BODY_INPUT[node.op_type]
            pairs += [(o, i) for o, i in zip(node.inputs[first:], body.inputs[first:], strict=False) if o is not None]
        return all((outer in self._dtypes) == (inner in self._dtypes) for outer, inner in pairs if outer.name)

    def _spare_detours(self, nodes: list[ir.Node]) -> None:
        """Let what only moves values stay float32 between float32 and float32, where float16 would round for nothing.

        Args:
            nodes: of all graphs, outer graphs first.
        """
        wanted = {
            value
            for graph, wants in self._wanted_outputs.items()
            for value, want in zip(graph.outputs, wants, strict=True)
            if want is Want.FLOAT16
        }
        moving = {node for node in nodes if self._editing.is_standard(node, *MOVES)}
        for node in reversed(nodes):
            if node in moving and wanted.isdisjoint(node.outputs):
                continue
            reads = zip(node.inputs, self._typings[node].inputs, strict=True)
            wanted.update(value for value, want in reads if value is not None and want is Want.FLOAT16)
        for node in nodes:
            if node not in moving or not wanted.isdisjoint(node.outputs):
                continue
            read = [value for value in node.inputs if value is not None and self._is_float(value)]
            natives = {self._native.get(value, FLOAT) for value in read if _constant_of(value) is None}
            if natives == {FLOAT}:
                self._typings[node] = kept(node)
                for value in node.outputs:
                    self._settle(value, Want.FLOAT32)

    def _remove_casts_to_the_same(self, graphs: list[ir.Graph]) -> None:
        """Pass by the model's own Casts to float16 of what is float16 by now."""
        for node in (node for graph in graphs for node in graph if self._editing.is_standard(node, "Cast")):
            (value, *_), (result,) = node.inputs, node.outputs
            if value is None or self._dtypes.get(result) != FLOAT16:
                continue
            if self._native.get(value, self._dtypes.get(value)) == FLOAT16:
                for reader, index in list(result.uses()):
                    reader.replace_input_with(index, value)

    def _rewire(self, graph: ir.Graph) -> None:
        """Let every node and output of the graph read its values in the type that it wants."""
        for node in list(graph):
            for index, (value, want) in enumerate(zip(node.inputs, self._typings_of(node).inputs, strict=True)):
                if value is None or not self._is_float(value):
                    continue
                if want is not Want.EITHER:
                    node.replace_input_with(index, self._view(value, _DTYPES[want]))
                elif self._widened(value) is not None:
                    node.replace_input_with(index, self._view(value, FLOAT16))
        for index, (value, want) in enumerate(zip(graph.outputs, self._wanted_outputs[graph], strict=True)):
            if not self._is_float(value) or self._native.get(value, FLOAT) == _DTYPES[want]:
                continue
            view = self._view(value, _DTYPES[want])
            if view not in self._made_here or view.is_graph_output():
                # It has a name of its own already.
                copy = self._node("Identity", [view], {}, self._editing.fresh_name(f"{value.name}_output"))
                graph.append(copy)
                view = copy.outputs[0]
            name = value.name
            assert name is not None
            if graph is self._editing.graph:
                value.name = self._editing.fresh_name(f"{name}_inside")
                view.name = name
            view.type, view.shape = ir.TensorType(ir.DataType(_DTYPES[want])), value.shape
            graph.outputs[index] = view

    def _typings_of(self, node: ir.Node) -> Typing:
        # The Casts put in meanwhile read what they were made to read.
        return self._typings.get(node) or Typing((Want.EITHER,) * len(node.inputs), ())

    def _view(self, value: ir.Value, dtype: int) -> ir.Value:
        """The value in a type: itself, or else a copy made once for all its readers."""
        if self._native.get(value, FLOAT) == dtype:
            return value
        key = (value, dtype)
        if key not in self._views:
            self._views[key] = self._made(value, dtype)
        return self._views[key]

    def _made(self, value: ir.Value, dtype: int) -> ir.Value:
        name = self._editing.fresh_name(f"{value.name}_{_SUFFIXES[dtype]}")
        producer = value.producer()
        if dtype == FLOAT16 and producer is None and value.is_initializer() and value.const_value is not None:
            if not value.is_graph_input():
                return self._weight(value, value.const_value, name)
        elif dtype == FLOAT16 and producer is not None:
            source = self._widened(value)
            if source is not None:
                return source
            source = producer.inputs[0] if self._editing.is_standard(producer, "Cast") else None
            if source is not None and self._is_float(source):
                return self._view(source, FLOAT16)
            copy = self._retyped(producer, name)
            if copy is not None:
                self._insert_after(producer, copy)
                return copy.outputs[0]
        cast = self._node("Cast", [value], {"to": dtype}, name)
        if producer is not None:
            self._insert_after(producer, cast)
        else:
            home = value.graph
            assert isinstance(home, ir.Graph)
            first = next(iter(home), None)
            home.append(cast) if first is None else home.insert_before(first, cast)
        return cast.outputs[0]

    def _widened(self, value: ir.Value) -> ir.Value | None:
        """The float16 value that the model's own Casts to float32 make this one of, or None."""
        producer = value.producer()
        if producer is None or not self._editing.is_standard(producer, "Cast"):
            return None
        source = producer.inputs[0]
        if source is None or self._dtypes.get(source) == FLOAT16:
            return source
        if not self._is_float(source):
            return None
        return source if self._native.get(source) == FLOAT16 else self._widened(source)

    def _retyped(self, producer: ir.Node, name: str) -> ir.Node | None:
        """A copy of a node that can make float16 as well as float32, making float16; None when it can't."""
        if self._editing.is_standard(producer, "Constant"):
            tensor = constant_tensor(producer)
            return None if tensor is None else self._node("Constant", [], self._halved_value(tensor, producer), name)
        if self._editing.is_standard(producer, "ConstantOfShape"):
            held = producer.attributes.get("value")
            filler = held.as_tensor() if held is not None else ir.tensor(np.zeros(1, np.float32))
            return self._node("ConstantOfShape", producer.inputs, self._halved_value(filler, producer), name)
        if self._editing.is_standard(producer, "Cast") and not self._is_float(producer.inputs[0]):
            return self._node("Cast", producer.inputs, {"to": FLOAT16}, name)
        return None

    def _weight(self, value: ir.Value, tensor: ir.TensorProtocol, name: str) -> ir.Value:
        half = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT16), shape=value.shape)
        half.const_value = self._halved(tensor, value.name)
        half.const_value.name = name
        home = value.graph
        assert isinstance(home, ir.Graph)
        home.register_initializer(half)
        self._made_here.add(half)
        return half

    def _halved(self, tensor: ir.TensorProtocol, name: str | None) -> ir.TensorProtocol:
        return self._rounder.rounded(tensor, name or "")

    def _halved_value(self, tensor: ir.TensorProtocol, producer: ir.Node) -> dict[str, object]:
        return {"value": self._rounder.rounded(tensor, producer.outputs[0].name or "", wait=False)}

    def _node(self, op_type: str, inputs: object, attributes: dict[str, object], name: str) -> ir.Node:
        unique, number = name, 0
        while unique in self._node_names:
            number += 1
            unique = f"{name}_{number}"
        self._node_names.add(unique)
        node = ir.node(op_type, inputs, attributes, outputs=[ir.Value(name=name)], name=unique)  # type: ignore[arg-type]
        self._made_here.update(node.outputs)
        return node

    def _insert_after(self, producer: ir.Node, node: ir.Node) -> None:
        home = producer.graph
        assert isinstance(home, ir.Graph)
        home.insert_after(producer, node)


def _constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    if value is None or value.is_graph_input():
        return None
    producer = value.producer()
    if producer is not None:
        return constant_tensor(producer) if producer.op_type == "Constant" and producer.domain == "" else None
    return value.const_value


def _computed_from_shapes(editing: Editing) -> set[ir.Value]:
    """Values computed from shapes and constants alone: sizes, exact in float32 and worth next to nothing in float16."""
    derived: set[ir.Value] = set()
    constants: set[ir.Value] = set()
    for graph in all_graphs(editing.graph):
        constants.update(value for value in graph.initializers.values() if not value.is_graph_input())
        for node in graph:
            if editing.is_standard(node, "Constant"):
                constants.update(node.outputs)
                continue
            inputs = [value for value in node.inputs if value is not None]
            computed = any(value in derived for value in inputs) and all(
                value in derived or value in constants for value in inputs
            )
            if editing.is_standard(node, "Shape", "Size") or (computed and not list(inner_graphs(node))):
                derived.update(node.outputs)
    return derived
