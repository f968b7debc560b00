"""Find the values of a model that are float16 or bfloat16.

ONNX's inference and ONNX Runtime's schemas of its own tell.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import onnx
from onnx import TensorProto

from onnx_harness.model.inference import infer_types
from onnx_harness.model.ops import is_standard
from onnx_harness.model.size import byte_size
from onnx_harness.model.walk import graphs, subgraphs
from onnx_harness.transforms.half.contrib import schema

NARROW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
"""Element types that are narrower than float32."""

# Each round types what follows from the one before: as many as there are ONNX Runtime's own
# operators in a row.
_MOST_ROUNDS = 64

_MOST_BYTES_KEPT = 1 << 20

_IS_TYPE: Mapping[int, str] = {
    number: f"tensor({name.lower()})"
    for name, number in TensorProto.DataType.items()
    if name != "UNDEFINED"
}
_NUMBERS = {name: number for number, name in _IS_TYPE.items()}


def typed(skeleton: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with the element types of its values, as far as they are known.

    ONNX's inference ends at an operator that it doesn't know. Where ONNX Runtime's schema says that
    an output has the type of an input, or always the same one, inference goes on behind it.

    A cell asks of one model several times: the result is shared, and has to stay as it is.

    Args:
        skeleton: its functions are inlined; it's left as it is.
    """
    if byte_size(skeleton) > _MOST_BYTES_KEPT:
        return _typed(skeleton)
    return _typed_of(skeleton.SerializeToString())


@functools.lru_cache(maxsize=4)
def _typed_of(content: bytes) -> onnx.ModelProto:
    return _typed(onnx.ModelProto.FromString(content))


def _typed(skeleton: onnx.ModelProto) -> onnx.ModelProto:
    opsets = {entry.domain: entry.version for entry in skeleton.opset_import}
    inferred = infer_types(skeleton, required=True)
    for _ in range(_MOST_ROUNDS):
        if not _type_foreign(inferred.graph, opsets, {}):
            break
        inferred = infer_types(inferred, required=True)
    return inferred


def narrow_by_graph(skeleton: onnx.ModelProto) -> list[dict[str, int]]:
    """Return the float16 and bfloat16 values of each graph with their types.

    Graphs come in the order of `walk.graphs`.

    Branches may use one name for different types.

    Args:
        skeleton: its functions are inlined.
    """
    entries: list[dict[str, int]] = []
    for graph in graphs(typed(skeleton).graph):
        kinds = {}
        for name, kind in types_in(graph).items():
            if kind in NARROW:
                kinds[name] = kind
        entries.append(kinds)
    return entries


def types_in(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the element types of a graph's tensors, those inside its nodes left out."""
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type:
            types[info.name] = info.type.tensor_type.elem_type
    return types


def _type_foreign(
    graph: onnx.GraphProto, opsets: Mapping[str, int], outer: Mapping[str, int]
) -> int:
    """Add the types of outputs of ONNX Runtime's own operators, inside nodes too.

    How many there were to add.
    """
    own = types_in(graph)
    types = {**outer, **own}
    added = 0
    for node in graph.node:
        for body in subgraphs(node):
            added += _type_foreign(body, opsets, types)
        if is_standard(node):
            continue
        for index, name in enumerate(node.output):
            kind = (
                _output_type(node, index, opsets.get(node.domain, 1), types)
                if name and name not in own
                else None
            )
            if kind is not None:
                own[name] = types[name] = kind
                graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, None))
                added += 1
    return added


def _of_onnx(node: onnx.NodeProto, opset: int) -> onnx.defs.OpSchema | None:
    """Return onnx's schema, such as an ai.onnx.ml operator's: older ones infer nothing."""
    try:
        return onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return None


def _output_type(
    node: onnx.NodeProto, index: int, opset: int, types: Mapping[str, int]
) -> int | None:
    """The element type of an output by its schema; None where that says nothing."""
    operator = schema(node.op_type, opset, node.domain) or _of_onnx(node, opset)
    if operator is None or not operator.outputs:
        return None
    formal = operator.outputs[min(index, len(operator.outputs) - 1)]
    if len(formal.types) == 1:
        return _NUMBERS.get(next(iter(formal.types)))
    for slot, name in enumerate(node.input):
        parameter = (
            operator.inputs[min(slot, len(operator.inputs) - 1)] if operator.inputs else None
        )
        if (
            name in types
            and parameter is not None
            and _variable(parameter) == _variable(formal)
        ):
            return types[name]
    return None


def _variable(formal: onnx.defs.OpSchema.FormalParameter) -> str:
    """The name of a parameter's type.

    ONNX Runtime's schemas spell that attribute otherwise than onnx's.
    """
    return str(getattr(formal, "typeStr", "") or getattr(formal, "type_str", ""))
