"""Infer what is certain about a graph's values before it runs.

Those are element types, and shapes as far as they are static.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx import TensorProto

from onnx_harness.model import rounded_pools
from onnx_harness.model.constants import named_constants
from onnx_harness.model.graph import Editing
from onnx_harness.model.inference import infer_types
from onnx_harness.model.label_keys import with_key_types
from onnx_harness.model.ops import is_standard
from onnx_harness.model.rewrite import fresh_name, value_names
from onnx_harness.model.stand_ins import with_stand_ins
from onnx_harness.model.walk import graphs, subgraphs, walk

# A shape or an index list is read by shape inference; weights are only ever asked for their shape.
_READ_BY_INFERENCE = 1024
# Before, inference gives the output of an If the dimensions that one branch knows, whatever the
# other one's are.
_UNITES_BRANCHES = 11
_OPAQUE = "onnx_harness.opaque"


@dataclass(frozen=True, slots=True)
class Fact:
    """The type of a tensor.

    Attributes:
        dtype: its element type.
        shape: its dimensions, None for one that isn't static; None when not even the rank is
            certain.
        symbols: a name for each dimension that isn't static, the same where two are always equal.
    """

    dtype: int
    shape: tuple[int | None, ...] | None
    symbols: tuple[str | None, ...] | None = None

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """The shape, when every dimension is static."""
        if self.shape is None or None in self.shape:
            return None
        return tuple(dim for dim in self.shape if dim is not None)

    @property
    def dimensions(self) -> tuple[int | str | None, ...] | None:
        """Each dimension's size, or else its name; None for one of which nothing is known."""
        if self.shape is None:
            return None
        symbols = self.symbols or (None,) * len(self.shape)
        dimensions = []
        for size, symbol in zip(self.shape, symbols, strict=True):
            dimensions.append(symbol if size is None else size)
        return tuple(dimensions)


def infer(editing: Editing) -> Mapping[str, Fact]:
    """The facts about the tensors of the main graph and of branches in it, by name.

    Of other bodies, types alone.

    They follow from the graph's inputs, whose declared dimensions ONNX Runtime enforces, and from
    its operators. What the model says of other values is left out of it: declared shapes can be
    false.
    """
    inferred = _inferred(editing)
    facts: dict[str, Fact] = {}
    for info in (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input):
        if (
            info.type.WhichOneof("value") == "tensor_type"
            and info.type.tensor_type.elem_type
        ):
            facts[info.name] = _fact(info.type.tensor_type)
    for inner, certain in _bodies(inferred.graph, certain=True):
        for info in (*inner.value_info, *inner.output, *inner.input):
            if (
                info.type.WhichOneof("value") == "tensor_type"
                and info.type.tensor_type.elem_type
            ):
                fact = _fact(info.type.tensor_type)
                facts[info.name] = fact if certain else Fact(fact.dtype, None)
    for name, value in editing.graph.initializers.items():
        if value.const_value is not None and not value.is_graph_input():
            facts[name] = Fact(
                value.const_value.dtype.value, tuple(value.const_value.shape.numpy())
            )
    return facts


def is_consistent(editing: Editing, *, follow_sizes: bool = True) -> bool:
    """Decide whether strict inference finds nothing wrong with the graph.

    It's the inference of ``onnx.checker`` and ONNX Runtime.

    Precondition: the graph is as it was when its facts were last inferred, if they were.

    Args:
        editing: the graph.
        follow_sizes: also where sizes are computed through branches. The checker doesn't, and ONNX
            Runtime less far.
    """
    skeleton = editing.skeleton or skeleton_of(editing)
    for info, declared in zip(
        skeleton.graph.output, editing.model.graph.output, strict=True
    ):
        info.CopyFrom(declared)
    # ONNX Runtime follows the values of shapes too, which makes a difference where branches
    # disagree.
    branches = follow_sizes and any(node.op_type == "If" for node in walk(skeleton.graph))
    try:
        for data_prop in (False, True) if branches else (False,):
            onnx.shape_inference.infer_shapes(
                with_key_types(skeleton),
                check_type=True,
                strict_mode=True,
                data_prop=data_prop,
            )
    except Exception:  # what it raises varies
        return False
    return True


def conflicting_outputs(editing: Editing) -> list[str]:
    """The outputs of the model whose declared shape can't be.

    It isn't what follows from the inputs.
    """
    facts = infer(editing)
    conflicting = []
    for info in editing.model.graph.output:
        fact = facts.get(info.name)
        if fact is None or fact.shape is None or not info.type.tensor_type.HasField("shape"):
            continue
        declared = _fact(info.type.tensor_type).shape or ()
        pairs = zip(declared, fact.shape, strict=False)
        if len(declared) != len(fact.shape) or any(
            None not in pair and pair[0] != pair[1] for pair in pairs
        ):
            conflicting.append(info.name)
    return conflicting


def _inferred(editing: Editing) -> onnx.ModelProto:
    editing.skeleton = skeleton = skeleton_of(editing)
    source = _with_certain_slices(_with_own_constants(with_stand_ins(skeleton)))
    source, inferred = _with_rounded_pools(source, editing.opset)
    if editing.opset < _UNITES_BRANCHES and _hide_branches(source.graph, inferred.graph):
        editing.skeleton = None
        source.opset_import.add(domain=_OPAQUE, version=1)
        _, inferred = _with_rounded_pools(source, editing.opset)
    return inferred


def _with_rounded_pools(
    source: onnx.ModelProto, opset: int
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Infer, anew as long as a pool of another size than before is met.

    Returns the model that was inferred, and the same with types and shapes.
    """
    inferred = infer_types(source, follow_sizes=True)
    while opset < rounded_pools.RIGHT_SINCE:
        floored = rounded_pools.with_floored_pools(source, inferred)
        if floored is None:
            break
        source, inferred = floored, infer_types(floored, follow_sizes=True)
    return source, inferred


def _with_own_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or one in which each inner graph holds the constants that it reads.

    Inference doesn't look up the values of constants outside of the graph that reads them, such as
    the axes of an Unsqueeze in a branch.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    if not constants or not any(subgraphs(node) for node in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for inner in graphs(copy.graph):
        if inner is copy.graph:
            continue
        read = {name for node in inner.node for name in node.input} & constants.keys()
        inner.initializer.extend(constants[name] for name in sorted(read))
    return copy


def _with_certain_slices(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or one in which axes and steps of a Slice that may be anything are a list.

    Where not even their rank is known, onnx infers as though the Slice had none (1.23: the axes are
    the first ones, the steps 1). Of a list that it can't read it tells the rank alone.
    """
    if not any(_open_slots(graph) for graph in graphs(model.graph)):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    name = fresh_name("axes_or_steps", value_names(copy.graph))
    copy.graph.input.append(
        onnx.helper.make_tensor_value_info(name, TensorProto.INT64, [None])
    )
    for graph in graphs(copy.graph):
        for node, slot in _open_slots(graph):
            node.input[slot] = name
    return copy


def _open_slots(graph: onnx.GraphProto) -> list[tuple[onnx.NodeProto, int]]:
    """Return each Slice of a graph, bodies left out, with an input whose value isn't a constant."""
    slices = [
        node for node in graph.node if is_standard(node, "Slice") and len(node.input) > 3
    ]
    if not slices:
        return []
    constants = {name for name, _ in named_constants(graph)}
    found = []
    for node in slices:
        for slot in range(3, len(node.input)):
            if node.input[slot] and node.input[slot] not in constants:
                found.append((node, slot))
    return found


def _hide_branches(graph: onnx.GraphProto, inferred: onnx.GraphProto) -> int:
    """Make each If an operator that inference doesn't know: its outputs keep their type alone.

    Returns how many.
    """
    infos = {info.name: info for info in (*inferred.value_info, *inferred.output)}
    hidden = 0
    for node, same in zip(graph.node, inferred.node, strict=True):
        if not is_standard(node, "If"):
            for body, same_body in zip(subgraphs(node), subgraphs(same), strict=True):
                hidden += _hide_branches(body, same_body)
            continue
        node.domain = _OPAQUE
        hidden += 1
        for info in (infos[name] for name in node.output if name in infos):
            graph.value_info.add().CopyFrom(info)
            _forget_shape(graph.value_info[-1].type)
    return hidden


def _fact(tensor: onnx.TypeProto.Tensor) -> Fact:
    if not tensor.HasField("shape"):
        return Fact(tensor.elem_type, None)
    facts = []
    for dim in tensor.shape.dim:
        facts.append(dim.dim_value if dim.WhichOneof("value") == "dim_value" else None)
    dims = tuple(facts)
    static = tuple(None if dim is not None and dim < 0 else dim for dim in dims)
    return Fact(
        tensor.elem_type, static, tuple(dim.dim_param or None for dim in tensor.shape.dim)
    )


def skeleton_of(editing: Editing) -> onnx.ModelProto:
    """Return the model with its large initializers replaced by inputs of their shape.

    No shape is declared but the inputs'.
    """
    model = onnx.ModelProto()
    # Before version 4 every initializer would have to be an input.
    model.ir_version = max(editing.model.ir_version, 4)
    model.opset_import.extend(editing.model.opset_import)
    model.functions.extend(editing.model.functions)
    graph = model.graph
    graph.name = "skeleton"
    for node in editing.graph:
        ir.serde.serialize_node_into(graph.node.add(), node)
    for inner in graphs(graph):
        inner.ClearField("value_info")
        for info in (*inner.input, *inner.output):
            _forget_shape(info.type)
    true_inputs = {value.name for value in editing.graph.inputs}
    for info in editing.model.graph.input:
        if info.name not in true_inputs:
            continue
        graph.input.add().CopyFrom(info)
        _name_dimensions(graph.input[-1])
        # The runtime checks what it is fed against this, and perhaps not a default.
        if info.name in editing.graph.initializers:
            _forget_shape(graph.input[-1].type)
    for info in editing.model.graph.output:
        graph.output.add().CopyFrom(info)
        _forget_shape(graph.output[-1].type)
    for name, value in editing.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or value.is_graph_input():
            continue
        if tensor.size <= _READ_BY_INFERENCE:
            ir.serde.serialize_tensor_into(graph.initializer.add(), tensor)
            graph.initializer[-1].name = name
        else:
            _set_shape(graph.input.add(name=name).type.tensor_type, tensor)
    for info in graph.output:
        constant = editing.graph.initializers.get(info.name)
        if constant is None or constant.is_graph_input():
            continue
        if constant.const_value is not None:
            _set_shape(info.type.tensor_type, constant.const_value)
    return model


def _set_shape(kind: onnx.TypeProto.Tensor, tensor: ir.TensorProtocol) -> None:
    kind.elem_type = tensor.dtype.value
    kind.shape.SetInParent()
    for size in tensor.shape.numpy():
        kind.shape.dim.add(dim_value=size)


def _name_dimensions(info: onnx.ValueInfoProto) -> None:
    """Give each dimension that isn't static a name of its own.

    That two share a declared one, nobody enforces.
    """
    if info.type.WhichOneof("value") == "tensor_type" and info.type.tensor_type.HasField(
        "shape"
    ):
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            if dim.WhichOneof("value") != "dim_value" or dim.dim_value < 0:
                dim.dim_param = f"{info.name}[{axis}]"


def _bodies(graph: onnx.GraphProto, certain: bool) -> Iterator[tuple[onnx.GraphProto, bool]]:
    """The graphs inside, and whether each runs as inferred.

    A branch does, a loop's body is inferred for one turn.
    """
    for node in graph.node:
        for inner in subgraphs(node):
            sure = certain and is_standard(node, "If")
            yield inner, sure
            yield from _bodies(inner, sure)


def _forget_shape(kind: onnx.TypeProto) -> None:
    match kind.WhichOneof("value"):
        case "tensor_type":
            kind.tensor_type.ClearField("shape")
        case "sequence_type":
            _forget_shape(kind.sequence_type.elem_type)
        case "optional_type":
            _forget_shape(kind.optional_type.elem_type)
