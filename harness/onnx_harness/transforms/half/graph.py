"""Read the nodes and values of a model off its protobuf.

Each value has its element type, and nothing is copied.

It is written for speed: a message is asked once for each field, types follow from the schemas by a
table, and only what no schema decides costs an inference, of that one node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

import onnx

from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.model.inference import infer_types
from onnx_harness.model.ops import STANDARD_DOMAINS
from onnx_harness.model.rewrite import sort_nodes
from onnx_harness.model.walk import subgraphs
from onnx_harness.transforms.half.casts import fold_cast, name_target
from onnx_harness.transforms.half.schemas import ASK, FIRST, FLOAT, NO_FLOAT, Rule, rules_of
from onnx_harness.transforms.half.steps import Scope, Step

# In place of an element type, all of which are positive: nothing is known, a sequence or the like,
# no value at all.
UNKNOWN, OTHER, ABSENT = 0, NO_FLOAT, -2

_A = onnx.AttributeProto
_GRAPHS = (_A.GRAPH, _A.GRAPHS)
_HOLD_GRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_BY_ATTRIBUTE = {
    _A.FLOAT: FLOAT,
    _A.FLOATS: FLOAT,
    _A.INT: onnx.TensorProto.INT64,
    _A.INTS: onnx.TensorProto.INT64,
}
_CASTS, _CASTS_LIKE = frozenset({"Cast", "CastLike"}), frozenset({"CastLike"})
_UNSORTED = "its nodes aren't in order"
_CONSTANT = Rule((ASK,))


class Unsorted(Exception):
    """A node reads what a later one makes."""


class Reading:
    """All graphs of a model.

    Every value has a name of its own: where a graph inside a node uses a name of another graph, its
    value is renamed in the model, so that a value made in one graph can be read in any graph inside
    it.

    Attributes:
        half: the type that float32 values may get.
        scopes: the graphs, outer ones first.
        makers: the step that makes a value, or the graph that has it as input or initializer; in
            order of definition.
        types: the element type of each value, or UNKNOWN or OTHER.
        initializers: the constants among the initializers, of every graph.
        sparse: the sparse initializers, of every graph.
        defaults: the initializers that are inputs as well, which a caller may override.
        constants: names of what has one value known by now, and the empty name of an input left
            out.
        sized: names of what is computed from sizes and constants alone.
        floating: the steps that read or make a float32 tensor, and those with graphs inside, before
            what is in them.
        op_types: the operators of every graph, of any domain: a rule about an operator that isn't
            here needn't look for it.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        opset: int,
        half: int,
        blocked_ops: Set[str] = frozenset(),
    ) -> None:
        """Read a model.

        Args:
            model: inner graphs may get other names, nodes out of order are put in order, each
                CastLike of a known type becomes a Cast, and the Cast of a small constant of
                doubles a Constant.
            opset: version of the standard operators.
            half: the type that float32 values may get.
            blocked_ops: operators whose nodes stay what they are.
        """
        self._casts_like = _CASTS_LIKE - blocked_ops
        self._casts = frozenset() if "Cast" in blocked_ops else _CASTS - blocked_ops
        self._model = model
        self.half = half
        self._opset = opset
        self._rules = rules_of(opset, half)
        functions = {
            (function.domain, function.name): function for function in model.functions
        }
        self._functions = functions
        # A function in the standard domain takes the place of an operator.
        names = set()
        for domain, name in functions:
            if domain in STANDARD_DOMAINS:
                names.add(name)
        self._redefined = frozenset(names)
        self._unusual = self._redefined | _HOLD_GRAPHS
        self._imports = list(model.opset_import)
        self._sorted = False
        try:
            self._start()
        except Unsorted:
            for scope in self.scopes:
                sort_nodes(scope.graph)
            self._sorted = True
            self._start()

    def _start(self) -> None:
        self.scopes: list[Scope] = []
        self.makers: dict[str, Step | Scope] = {}
        self.types: dict[str, int] = {"": ABSENT}
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.sparse: dict[str, onnx.SparseTensorProto] = {}
        self.defaults: dict[str, onnx.TensorProto] = {}
        self.constants: set[str] = {""}
        self.sized: set[str] = set()
        self.floating: list[Step] = []
        self.op_types: set[str] = set()
        self._kinds: dict[str, onnx.TypeProto] = {}
        self._declared: dict[str, onnx.TypeProto] | None = None
        self._read(self._model.graph, {})
        self._infer(self.scopes[0])

    def fresh(self, stem: str) -> str:
        """A name that no value has."""
        name, number = stem, 0
        while name in self.makers:
            number += 1
            name = f"{stem}_{number}"
        return name

    def close(self) -> None:
        """Forget the nodes, which know their graphs.

        So all of it is freed without the collector of cycles.
        """
        for scope in self.scopes:
            scope.steps.clear()

    def floats(self) -> set[str]:
        """The names of all float32 tensors."""
        return {name for name, kind in self.types.items() if kind == FLOAT}

    def has(self, operators: Set[str]) -> bool:
        """Return whether a node may be of one of those operators."""
        return not self.op_types.isdisjoint(operators)

    def floating_of(self, operators: Set[str]) -> list[Step]:
        """Return the steps of some operators among those in `floating`, in the same order."""
        if not self.has(operators):
            return []
        return [step for step in self.floating if step.op in operators]

    def stated_dims(self, name: str) -> list[int | None] | None:
        """The dimensions that the model states of a value, None for one that isn't a number.

        None where it's silent.
        """
        tensor = self.initializers.get(name)
        if tensor is not None:
            return list(tensor.dims)
        types = {value: info.type for info, value in self.scopes[0].given}
        kind = types.get(name) or self._said(name)
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        dims = kind.tensor_type.shape.dim
        return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]

    # Names.

    def _read(self, graph: onnx.GraphProto, outer: Mapping[str, str]) -> Scope:
        scope = Scope(graph)
        self.scopes.append(scope)
        rules, unusual, steps = self._rules, self._unusual, scope.steps
        op_types = self.op_types
        holders: list[Step] = []
        for index, node in enumerate(graph.node):
            op, domain = node.op_type, node.domain
            op_types.add(op)
            if domain or op in unusual:
                step = self._step_of_unusual(node, op, domain, index, scope)
                if step.rule is None:
                    holders.append(step)
            elif op == "Constant":
                step = Step(node, op, [], node.output[:], index, scope)
                step.rule = _CONSTANT
            else:
                ins, outs = node.input[:], node.output[:]
                step = Step(node, op, ins, outs, index, scope)
                step.rule = rules[op, len(ins), len(outs)]
            steps.append(step)
        names = self._define(scope, outer)
        for step in holders:
            step.bodies = [self._read(inner, names) for inner in subgraphs(step.node)]
        return scope

    def _step_of_unusual(
        self, node: onnx.NodeProto, op: str, domain: str, index: int, scope: Scope
    ) -> Step:
        """A node that isn't a standard operator, or may hold graphs.

        It gets no rule then, nor does a function.
        """
        ins, outs = node.input[:], node.output[:]
        standard = domain in STANDARD_DOMAINS and op not in self._redefined
        step = Step(node, op if standard else "", ins, outs, index, scope)
        if standard:
            if op not in _HOLD_GRAPHS:
                step.rule = (
                    _CONSTANT if op == "Constant" else self._rules[op, len(ins), len(outs)]
                )
        elif (domain, op) not in self._functions and not any(
            each.type in _GRAPHS for each in node.attribute
        ):
            opset = next(
                (each.version for each in self._imports if each.domain == domain), 1
            )
            step.rule = rules_of(opset, self.half, domain)[op, len(ins), len(outs)]
        return step

    def _define(self, scope: Scope, outer: Mapping[str, str]) -> Mapping[str, str]:
        """Enter the values of a graph.

        Returns the names that it and the graphs inside it know by another one.
        """
        graph, makers, types = scope.graph, self.makers, self.types
        inner = len(self.scopes) > 1
        infos, results = graph.input[:], graph.output[:]
        inputs = [info.name for info in infos]
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        sparse = {tensor.values.name: tensor for tensor in graph.sparse_initializer}
        makers_here = {}
        for step in scope.steps:
            for name in step.outs:
                if name:
                    makers_here[name] = step
        names = outer
        if inner and (
            outer
            or not all(map(makers.keys().isdisjoint, (inputs, tensors, sparse, makers_here)))
        ):
            names = self._rename(
                scope, outer, dict.fromkeys((*inputs, *tensors, *sparse, *makers_here))
            )
            inputs = [names.get(name, name) for name in inputs]
            tensors = {names.get(name, name): tensor for name, tensor in tensors.items()}
            sparse = {names.get(name, name): tensor for name, tensor in sparse.items()}
            makers_here = {names.get(name, name): step for name, step in makers_here.items()}
        free = inner or self._model.ir_version >= FREE_INITIALIZERS
        scope.given = list(zip(infos, inputs, strict=True))
        scope.results = results
        scope.inputs = inputs if free else [name for name in inputs if name not in tensors]
        scope.outputs = [info.name for info in results]
        makers.update(dict.fromkeys(inputs, scope))
        if tensors:
            makers.update(dict.fromkeys(tensors, scope))
            types.update({name: tensor.data_type for name, tensor in tensors.items()})
            overridden = tensors.keys() & set(inputs) if free else frozenset()
            for name, tensor in tensors.items() if overridden else ():
                (self.defaults if name in overridden else self.initializers)[name] = tensor
            if not overridden:
                self.initializers.update(tensors)
            self.constants.update(tensors.keys() - overridden)
        for name, sparse_tensor in sparse.items():
            makers[name] = scope
            types[name] = sparse_tensor.values.data_type
            self.sparse[name] = sparse_tensor
            if not free or name not in inputs:
                self.constants.add(name)
        makers.update(makers_here)
        return names

    def _rename(
        self, scope: Scope, outer: Mapping[str, str], local: Mapping[str, None]
    ) -> Mapping[str, str]:
        names = {name: new for name, new in outer.items() if name not in local}
        for name in local:
            if name in self.makers:
                names[name] = self.fresh(name)
                self.makers[names[name]] = scope
        if not names:
            return names
        for step in scope.steps:
            for values, field in (
                (step.ins, step.node.input),
                (step.outs, step.node.output),
            ):
                for index, name in enumerate(values):
                    if name in names:
                        values[index] = field[index] = names[name]
        graph = scope.graph
        for info in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            if info.name in names:
                info.name = names[info.name]
        for tensor in graph.sparse_initializer:
            if tensor.values.name in names:
                tensor.values.name = names[tensor.values.name]
        return names

    # Types.

    def _infer(self, scope: Scope) -> None:
        types, sized, constants, floating = (
            self.types,
            self.sized,
            self.constants,
            self.floating,
        )
        type_of = types.__getitem__
        inputs_given = frozenset(scope.inputs)
        # Asked once, as most models have neither.
        casts_like, casts = self.has(self._casts_like), self.has(self._casts)
        for info, name in scope.given:
            if name in inputs_given and (info.type.WhichOneof("value") or name not in types):
                self._set(name, info.type)
        for step in scope.steps:
            ins, rule = step.ins, step.rule
            if rule is _CONSTANT:
                for name in filter(None, step.outs):
                    types[name] = kind = self._constant(step)
                    constants.add(name)
                    if kind == FLOAT:
                        floating.append(step)
                continue
            try:
                types_known = [*map(type_of, ins)]
            except KeyError:
                types_known = self._late(ins)
            if casts_like and step.op == "CastLike" and types_known[1] > UNKNOWN:
                self._name_target(step, types_known[1])
                ins, rule = step.ins, step.rule
                types_known = types_known[:1]
            if casts and step.op == "Cast" and self._fold_numbers(step):
                constants.update(step.outs)
                floating.append(step)
                continue
            floats = FLOAT in types_known
            if rule is None:
                # Before what is inside it.
                floating.append(step)
                self._infer_other(step)
                continue
            unclear = UNKNOWN in types_known or OTHER in types_known
            for name, source in zip(step.outs, rule.results, strict=True):
                if not name:
                    continue
                if source > 0 or source == NO_FLOAT:
                    types[name] = kind = source
                elif source <= FIRST and types_known[FIRST - source] > 0:
                    types[name] = kind = types_known[FIRST - source]
                else:
                    kind = self._ask(step, name)
                if kind == FLOAT:
                    floats = True
                elif kind <= UNKNOWN:
                    unclear = True
            if unclear:
                step.unclear = True
            if rule.measures:
                sized.update(step.outs)
            elif sized and not sized.isdisjoint(ins):
                step.sized = all(name in sized or name in constants for name in ins)
                sized.update(step.outs if step.sized else ())
            if floats:
                floating.append(step)

    def _name_target(self, step: Step, kind: int) -> None:
        """Turn a CastLike into the Cast that it is, for all that is asked of Casts."""
        name_target(step.node, kind)
        step.op, step.ins = "Cast", step.ins[:1]
        step.rule = self._rules["Cast", 1, 1]
        self.op_types.add("Cast")

    def _fold_numbers(self, step: Step) -> bool:
        """Turn the Cast of a few constant doubles to float32 into a Constant.

        A Cast to the half type would make infinity of the lowest ones, which masks are made of.
        """
        name = step.ins[0]
        maker = self.makers.get(name)
        while isinstance(maker, Step) and maker.op == "Identity":
            name = maker.ins[0]
            maker = self.makers.get(name)
        tensor = maker.tensor if isinstance(maker, Step) else self.initializers.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.DOUBLE:
            return False
        if self._ask(step, step.outs[0]) != FLOAT or not fold_cast(step.node, tensor):
            return False
        step.op, step.ins, step.rule = "Constant", [], _CONSTANT
        step.tensor = step.node.attribute[0].t
        return True

    def _late(self, ins: list[str]) -> list[int]:
        """The types of inputs of which not all are known."""
        for name in ins:
            if name not in self.types:
                if name in self.makers and not self._sorted:
                    raise Unsorted(_UNSORTED)
                self.types[name] = UNKNOWN
        return [self.types[name] for name in ins]

    def _ask(self, step: Step, name: str) -> int:
        """The type of an output that the schema alone doesn't decide."""
        match step.op:
            case "Cast":
                to = next((each for each in step.node.attribute if each.name == "to"), None)
                kind = UNKNOWN if to is None else to.i
            case "ConstantOfShape":
                kind = next((each.t.data_type for each in step.node.attribute), FLOAT)
            case _:
                return self._infer_node(step, name)
        self.types[name] = kind
        return kind

    def _constant(self, step: Step) -> int:
        """The type of a Constant."""
        attribute = step.node.attribute[0]
        kind = attribute.type
        if kind == _A.TENSOR:
            step.tensor = tensor = attribute.t
            return int(tensor.data_type)
        if kind == _A.SPARSE_TENSOR:
            return int(attribute.sparse_tensor.values.data_type)
        return _BY_ATTRIBUTE.get(kind, onnx.TensorProto.STRING)

    def _infer_node(self, step: Step, name: str) -> int:
        """Ask onnx about this node alone, and then what the model says of its output."""
        domain = step.node.domain if not step.op else ""
        opset = self._opset
        if domain not in STANDARD_DOMAINS:
            opset = next(
                (entry.version for entry in self._imports if entry.domain == domain), 1
            )
        inferred: Mapping[str, onnx.TypeProto] = {}
        try:
            schema = onnx.defs.get_schema(step.node.op_type, opset, domain)
            kinds = {}
            for source in step.ins:
                if self.types[source] not in (UNKNOWN, ABSENT):
                    kinds[source] = self._kind(source)
            inferred = onnx.shape_inference.infer_node_outputs(
                schema,
                step.node,
                kinds,
                opset_imports=self._imports,
                ir_version=self._model.ir_version,
            )
        except Exception:
            # Inference isn't defined for every valid node, and what it raises varies.
            inferred = {}
        return self._set(name, inferred.get(name) or self._said(name))

    def _infer_other(self, step: Step) -> None:
        """Infer the types of what graphs inside a node give, or a function.

        Operators that aren't standard are inferred here, too.
        """
        inside: list[str] = []
        for body in step.bodies:
            # What the body says of its inputs goes before this. Scan 8 has one input more than its
            # body.
            if step.op == "Loop":
                self.types.update(
                    zip(
                        body.inputs,
                        (onnx.TensorProto.INT64, onnx.TensorProto.BOOL),
                        strict=False,
                    )
                )
            if step.op == "Loop" or len(step.ins) == len(body.inputs):
                first = 2 if step.op == "Loop" else 0
                for name, argument in zip(
                    body.inputs[first:], step.ins[first:], strict=False
                ):
                    self._copy(argument, name)
            self._infer(body)
            inside = body.outputs[1:] if step.op == "Loop" else body.outputs
        if step.op in ("If", "Loop", "Scan"):
            self._late(inside)
            for name, source in zip(step.outs, inside, strict=False):
                if name:
                    self._copy(source, name)
                    if self.types[name] in (UNKNOWN, ABSENT):
                        self._set(name, self._said(name))
            return
        function = self._functions.get((step.node.domain, step.node.op_type))
        if function is None:
            for name in filter(None, step.outs):
                self._infer_node(step, name)
            return
        for name, kind in zip(step.outs, self._inside(function, step), strict=False):
            if name:
                self._set(name, kind or self._said(name))

    def _inside(
        self, function: onnx.FunctionProto, step: Step
    ) -> Iterator[onnx.TypeProto | None]:
        """The types that a function of the model gives for the inputs of this call."""
        model = onnx.ModelProto(
            ir_version=self._model.ir_version, functions=self._model.functions
        )
        model.opset_import.extend(function.opset_import)
        model.graph.node.extend(function.node)
        for name, argument in zip(function.input, step.ins, strict=False):
            info = model.graph.input.add(name=name)
            if self.types[argument] not in (UNKNOWN, ABSENT):
                info.type.CopyFrom(self._kind(argument))
        kinds = {info.name: info.type for info in infer_types(model).graph.value_info}
        return (kinds.get(name) for name in function.output)

    def _copy(self, source: str, name: str) -> None:
        self.types[name] = self.types[source]
        if source in self._kinds:
            self._kinds[name] = self._kinds[source]

    def _kind(self, name: str) -> onnx.TypeProto:
        kind = self._kinds.get(name)
        return (
            onnx.helper.make_tensor_type_proto(self.types[name], None)
            if kind is None
            else kind
        )

    def _set(self, name: str, kind: onnx.TypeProto | None) -> int:
        """Enter the type of a value."""
        which = None if kind is None else kind.WhichOneof("value")
        if kind is None or which is None:
            code = UNKNOWN
        elif which == "tensor_type":
            code = kind.tensor_type.elem_type
        else:
            code, self._kinds[name] = OTHER, kind
        self.types[name] = code
        return code

    def _said(self, name: str) -> onnx.TypeProto | None:
        """Return what the model itself says of a value."""
        if self._declared is None:
            types = {}
            for scope in self.scopes:
                for info in (*scope.graph.value_info, *scope.graph.output):
                    types[info.name] = info.type
            self._declared = types
        return self._declared.get(name)
