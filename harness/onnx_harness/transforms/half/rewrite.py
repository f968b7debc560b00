"""The decisions of `halving` written to the protobuf.

Weights, Casts where types meet, and who reads what.

On the protobuf itself: an editable graph of onnx-ir costs 0.1 to 0.2 ms a node to make and to write
back, several times what the whole conversion takes. Most nodes aren't touched: their values change
type, and no message says so. What is made in the half type under its own name: weights, Constants,
ConstantOfShapes and Casts of the model.
"""

from __future__ import annotations

import onnx

from onnx_harness.model.constants import constant_tensor
from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.model.rewrite import fresh_name
from onnx_harness.transforms.half.casts import _to, cast
from onnx_harness.transforms.half.decide import Halving
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.schemas import BFLOAT16, DOUBLE, EITHER, FLOAT, FLOAT16
from onnx_harness.transforms.half.steps import Scope, Step
from onnx_harness.transforms.half.weights import Rounder

_SUFFIXES: dict[int, str] = {FLOAT: "float", FLOAT16: "float16", BFLOAT16: "bfloat16"}


class Rewiring:
    """Changes the graphs of one model."""

    def __init__(
        self, model: onnx.ModelProto, reading: Reading, halving: Halving, rounder: Rounder
    ) -> None:
        """Take what was decided; nothing is changed yet.

        Args:
            model: the model, as it was read.
            reading: its graphs.
            halving: what was decided about them.
            rounder: rounds weights, when its `Rounder.flush` is called.
        """
        self._model = model
        self._reading = reading
        self._types = reading.types
        self._rounder = rounder
        self._half = halving.half
        self._outside = halving.outside
        self._floats = halving.floats
        self._halves = halving.halves
        self._flexible = halving.flexible
        self._casts = halving.casts
        self._needed = ((halving.read_half & halving.floats) - halving.halves) | (
            halving.read_float & halving.halves
        )
        # The float16 value that a Cast of the model made a float32 value of; what a Cast to the
        # half type was made of.
        self._widened: dict[str, str] = {}
        self._same: dict[str, str] = {}
        # The model's own Casts to double that are cast on.
        self._doubled: list[Step] = []
        self._views: dict[str, str] = {}
        self._inside: dict[str, str] = {}
        self._inserted: list[tuple[Scope, int, onnx.NodeProto]] = []
        self._node_names: set[str] | None = None

    def write(self) -> None:
        """Change the graphs, but for the weights: `Rounder.flush` makes them."""
        for name in self._flexible:
            if name in self._halves:
                self._remake(name)
        for name, tensor in self._reading.defaults.items():
            if name in self._halves:
                self._rounder.add(tensor, tensor, name)
        self._find_same()
        self._move_outputs_inside()
        # In the order of definition, not of a set.
        for name in [name for name in self._reading.makers if name in self._needed]:
            self._view(name)
        self._rewire()
        for scope in self._reading.scopes:
            self._end(scope)
        self._state_contributed()
        self._write_nodes(self._casts_of_nobody())

    def _remake(self, name: str) -> None:
        """Let what makes the value make it in the half type."""
        maker = self._reading.makers[name]
        if isinstance(maker, Scope):
            tensor = self._weight(name)
            self._rounder.add(tensor, tensor, name)
        elif maker.tensor is not None:
            self._rounder.add(maker.tensor, maker.tensor, name)
        else:
            self._retype(maker.node, name)

    def _weight(self, name: str) -> onnx.TensorProto:
        """The initializer of a name; of a sparse one, its values."""
        sparse = self._reading.sparse.get(name)
        return self._reading.initializers[name] if sparse is None else sparse.values

    def _retype(self, node: onnx.NodeProto, name: str, at_once: bool = False) -> None:
        if node.op_type == "Cast":
            next(
                attribute for attribute in node.attribute if attribute.name == "to"
            ).CopyFrom(_to(self._half))
            return
        if node.op_type == "Constant":
            tensor = constant_tensor(node)
            assert tensor is not None
        elif node.attribute:
            tensor = node.attribute[0].t
        else:
            tensor = onnx.TensorProto(data_type=FLOAT, dims=[1], float_data=[0.0])
        if not node.attribute or node.attribute[0].type != onnx.AttributeProto.TENSOR:
            del node.attribute[:]
            node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=tensor)
        tensor = node.attribute[0].t
        self._rounder.add(tensor, tensor, name, at_once)

    def _find_same(self) -> None:
        """Find what the model's own Casts make that is the same again by now.

        Those between float32 and the half type, and those from double back to what it was made of:
        of an input of the model, ONNX Runtime loses such a value where an inner graph reads it.
        """
        for step in self._casts:
            source, result = step.ins[0], step.outs[0]
            maker = self._reading.makers.get(source)
            if (
                self._types[source] == DOUBLE
                and isinstance(maker, Step)
                and maker.op == "Cast"
            ):
                self._doubled.append(maker)
                source = maker.ins[0]
                source = self._same.get(source, source)
            source = self._widened.get(source, source)
            if self._types[source] != self._half and source not in self._halves:
                continue
            if self._types[result] == self._half or result in self._halves:
                self._same[result] = source
            elif result in self._floats:
                self._widened[result] = source

    def _move_outputs_inside(self) -> None:
        """Rename outputs of the model that are made in another type than is wanted.

        The copy gets their name.
        """
        main = self._reading.scopes[0]
        outputs = set()
        for name in main.outputs:
            if name in self._floats and self._native(name) != self._outside(name):
                outputs.add(name)
        # In the order of definition: the copy of a Cast's result looks for the copy of what it
        # read, which may be an output too and has to have got its name by then.
        moved = [name for name in self._reading.makers if name in outputs]
        for name in moved:
            self._inside[name] = self._name(f"{name}_inside", main)
            maker = self._reading.makers[name]
            if isinstance(maker, Step):
                index = maker.outs.index(name)
                maker.node.output[index] = maker.outs[index] = self._inside[name]
            else:
                self._weight(name).name = self._inside[name]
        for name in moved:
            self._view(name, name)

    def _native(self, name: str) -> int:
        return self._half if name in self._halves else FLOAT

    def _view(self, name: str, as_output: str = "") -> str:
        """Return what to read for a value in the type that it isn't made in.

        A copy made once for all readers, if need be.

        Args:
            name: of the value.
            as_output: the name of the model's output that has to be in that type, if any.
        """
        if name not in self._views:
            self._views[name] = self._made(name, as_output)
        return self._views[name]

    def _made(self, name: str, as_output: str) -> str:
        dtype = FLOAT if name in self._halves else self._half
        maker = self._reading.makers[name]
        if dtype != FLOAT:
            there = ""
            if name in self._widened:
                there = self._current(self._widened[name])
            elif (
                isinstance(maker, Step)
                and maker.op == "Cast"
                and maker.ins[0] in self._floats
            ):
                there = self._view(maker.ins[0])
            if there and as_output:
                self._append_identity(self._reading.scopes[0], there, as_output)
            if there:
                return there
            if name in self._flexible:
                return self._twin(name, as_output)
        view = as_output or self._name(f"{name}_{_SUFFIXES[dtype]}", maker)
        self._insert_after(maker, cast(self._current(name), view, dtype))
        return view

    def _twin(self, name: str, as_output: str) -> str:
        """A second one of a value that can be made in either type, in the half type."""
        maker = self._reading.makers[name]
        view = as_output or self._name(f"{name}_{_SUFFIXES[self._half]}", maker)
        if isinstance(maker, Scope):
            source = self._weight(name)
            if name in self._reading.sparse:
                sparse = maker.graph.sparse_initializer.add()
                sparse.CopyFrom(self._reading.sparse[name])
                target = sparse.values
                target.name = view
            else:
                target = maker.graph.initializer.add(name=view, dims=source.dims)
            self._rounder.add(source, target, name)
        else:
            node = onnx.NodeProto()
            node.CopyFrom(maker.node)
            node.output[0] = view
            self._retype(node, name, at_once=True)  # what is inserted is a copy
            self._insert_after(maker, node)
        return view

    def _name(self, stem: str, maker: Step | Scope) -> str:
        name = self._reading.fresh(stem)
        self._reading.makers[name] = maker if isinstance(maker, Scope) else maker.scope
        return name

    def _current(self, name: str) -> str:
        """Return what the value is called by now, in the type in which it is made."""
        while name in self._same:
            name = self._same[name]
        return self._inside.get(name, name)

    def _insert_after(self, maker: Step | Scope, node: onnx.NodeProto) -> None:
        if isinstance(maker, Step):
            self._insert(maker.scope, maker.index + 1, node)
        else:
            self._insert(maker, 0, node)

    def _append_identity(self, scope: Scope, source: str, name: str) -> None:
        node = onnx.NodeProto(op_type="Identity", input=[source], output=[name])
        self._insert(scope, len(scope.steps), node)

    def _insert(self, scope: Scope, index: int, node: onnx.NodeProto) -> None:
        if self._node_names is None:
            steps = (step for scope_ in self._reading.scopes for step in scope_.steps)
            self._node_names = {step.node.name for step in steps}
        node.name = fresh_name(node.output[0], self._node_names)
        self._inserted.append((scope, index, node))

    # Who reads what.

    def _rewire(self) -> None:
        """Let every node read its values in the type that it wants."""
        touched = {*self._views, *self._inside, *self._same, *self._widened}
        if not touched:
            return
        for scope in self._reading.scopes:
            for step in scope.steps:
                if touched.isdisjoint(step.ins):
                    continue
                for index, name in enumerate(step.ins):
                    if name in touched:
                        want = step.want if isinstance(step.want, int) else step.want[index]
                        new = self._as_wanted(name, want)
                        if new != name:
                            step.ins[index] = step.node.input[index] = new

    def _as_wanted(self, name: str, want: int) -> str:
        """Return what to read for a value in a type."""
        if name in self._floats:
            if want == EITHER:
                name = self._widened.get(name, name)
            elif want != self._native(name):
                return self._view(name)
        return self._current(name)

    def _end(self, scope: Scope) -> None:
        """Write the types and names that a graph states."""
        graph, main = scope.graph, scope is self._reading.scopes[0]
        for info, name in (*scope.given, *((info, info.name) for info in graph.value_info)):
            # An output's name may be that of a copy by now.
            if (name in self._halves) != (name in self._inside):
                self._state(info, self._half)
        written: set[str] = set()
        for place, (info, name) in enumerate(zip(scope.results, scope.outputs, strict=True)):
            if name not in self._floats:
                continue
            want = self._outside(name) if main else scope.wanted(place)
            self._state(info, want)
            if main:
                continue
            view = self._as_wanted(name, want)
            if view != name and (view in written or not self._is_of(view, scope)):
                source, view = view, self._name(f"{name}_output", scope)
                self._append_identity(scope, source, view)
            written.add(view)
            if view != name:
                info.name = view
        if main and self._model.ir_version < FREE_INITIALIZERS:
            self._list_initializers(scope)

    def _state_contributed(self) -> None:
        """State the types of what other operators than the standard's give.

        Onnx can't infer them, nor what follows.
        """
        steps = []
        for step in self._reading.floating:
            if step.rule is not None and not step.rule.inferred:
                steps.append(step)
        if not steps:
            return
        graphs = {step.scope for step in steps}
        stated = {
            info.name
            for scope in graphs
            for info in (*scope.graph.value_info, *scope.graph.output)
        }
        original = {new: name for name, new in self._inside.items()}
        for step in steps:
            for name in step.outs:
                before = original.get(name, name)
                if before in self._floats and name not in stated:
                    info = step.scope.graph.value_info.add(name=name)
                    info.type.tensor_type.elem_type = self._native(before)

    def _is_of(self, name: str, scope: Scope) -> bool:
        maker = self._reading.makers[name]
        return (maker if isinstance(maker, Scope) else maker.scope) is scope

    def _state(self, info: onnx.ValueInfoProto, dtype: int) -> None:
        tensor = info.type.tensor_type  # of another type it's an empty one, and stays so
        if tensor.elem_type in (FLOAT, self._half):
            tensor.elem_type = dtype

    def _list_initializers(self, scope: Scope) -> None:
        """List every initializer as an input, as the version demands: no caller sees these."""
        graph = scope.graph
        listed: set[str] = set()
        for info, name in scope.given:
            if name in self._inside:
                info.name = self._inside[name]
            listed.add(self._inside.get(name, name))
        for tensor in graph.initializer:
            if tensor.name not in listed:
                halved = (tensor.name in self._halves) != (tensor.name in self._inside)
                dtype = self._half if halved else tensor.data_type or self._half
                graph.input.append(
                    onnx.helper.make_tensor_value_info(tensor.name, dtype, list(tensor.dims))
                )

    def _casts_of_nobody(self) -> list[Step]:
        """The model's own Casts whose readers have all found what they want elsewhere."""
        doubled = {step.outs[0]: step for step in self._doubled}
        views = {*self._same, *self._widened, *self._inside.values(), *doubled}
        unused: list[Step] = []
        casts = [step for step in self._casts if not views.isdisjoint(step.outs)]
        casts += [step for step in doubled.values() if step not in casts]
        while casts:
            read: set[str] = set()
            for scope in self._reading.scopes:
                for step in scope.steps:
                    if not views.isdisjoint(step.ins):
                        read.update(step.ins)
            for _, _, node in self._inserted:
                read.update(node.input)
            for scope in self._reading.scopes:
                read.update(info.name for info in scope.graph.output)
            dead = [step for step in casts if step.outs[0] not in read]
            if not dead:
                break
            unused += dead
            for step in dead:
                step.ins = []
            casts = [step for step in casts if step.ins]
        return unused

    def _write_nodes(self, removed: list[Step]) -> None:
        """Insert what was made before the node that had its place, and remove nodes.

        From the end, so places hold.
        """
        edits: list[tuple[Scope, int, onnx.NodeProto | None]] = []
        for step in removed:
            edits.append((step.scope, step.index, None))
        # Of two in one place, the later may read the earlier.
        edits += reversed(self._inserted)
        for scope, index, node in sorted(edits, key=lambda edit: -edit[1]):
            if node is None:
                del scope.graph.node[index]
            else:
                scope.graph.node.insert(index, node)
