"""The numbers that a case holds, each array with a place by which it is replaced.

They are its inputs, and the initializers and attributes of the main graph, of bodies and of
functions. Strings are for :mod:`onnx_harness.diagnose.strings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from onnx_harness.diagnose.moves import duplicate
from onnx_harness.diagnose.smaller_case import Array, Case
from onnx_harness.model.walk import graphs

_INPUTS = -1
# Integer attributes that hold data; any other is an axis, a size or the like.
_INTEGER_ENDINGS = ("value_int", "value_ints", "_int64", "_int64s")


@dataclass(frozen=True, slots=True)
class Place:
    """The place of an array.

    Attributes:
        owner: 0 for the model, 1 for the other one, -1 for the inputs.
        number: position among the arrays of its owner.
    """

    owner: int
    number: int


@dataclass(frozen=True, slots=True)
class Data:
    """An array of a case.

    Attributes:
        place: of the array.
        label: of the array, for a person.
        key: the same for the array in the same role of the other model.
        array: the values.
    """

    place: Place
    label: str
    key: tuple[str, ...]
    array: Array


@dataclass(frozen=True, slots=True)
class _Holder:
    """A field of a model: a tensor, or an attribute with numbers of its own."""

    label: str
    key: tuple[str, ...]
    field: TensorProto | AttributeProto

    def read(self) -> Array:
        if isinstance(self.field, TensorProto):
            return numpy_helper.to_array(self.field)
        name = _NUMBERS[self.field.type]
        kind = np.float32 if name in ("f", "floats") else np.int64
        return np.asarray(getattr(self.field, name), kind)

    def write(
        self,
        array: Array,
    ) -> None:
        if isinstance(self.field, TensorProto):
            kind = helper.tensor_dtype_to_np_dtype(self.field.data_type)
            self.field.CopyFrom(numpy_helper.from_array(array.astype(kind), self.field.name))
            return
        name = _NUMBERS[self.field.type]
        if array.ndim == 0:
            setattr(self.field, name, array.item())
            return
        values = getattr(self.field, name)
        del values[:]
        values.extend(array.tolist())


_NUMBERS: Mapping[int, str] = {
    AttributeProto.FLOAT: "f",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INT: "i",
    AttributeProto.INTS: "ints",
}


def data_of(case: Case) -> list[Data]:
    """Return every array of numbers of a case; their places stay when arrays are replaced."""
    arrays = []
    for number, (name, array) in enumerate(case.inputs.items()):
        if array.dtype.kind not in "OUS":
            arrays.append(
                Data(Place(_INPUTS, number), f"input {name}", ("input", name), array)
            )
    for owner, model in enumerate(case.models):
        for number, holder in enumerate(_holders(model)):
            arrays.append(
                Data(Place(owner, number), holder.label, holder.key, holder.read())
            )
    return arrays


def with_data(
    case: Case,
    arrays: Mapping[Place, Array],
) -> Case:
    """Return a case with other arrays of the same shapes in some places, cast to their types."""
    changed = duplicate(case)
    inputs = dict(case.inputs)
    for number, name in enumerate(case.inputs):
        inputs[name] = arrays.get(Place(_INPUTS, number), inputs[name])
    for owner, model in enumerate(changed.models):
        for number, holder in enumerate(_holders(model)):
            array = arrays.get(Place(owner, number))
            if array is not None:
                holder.write(array)
    return Case(changed.model, inputs, changed.other)


def all_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yield the main graph and every body, those of functions included."""
    yield from graphs(model.graph)
    for function in model.functions:
        for node in function.node:
            for attribute in node.attribute:
                for body in (
                    *([attribute.g] if attribute.HasField("g") else ()),
                    *attribute.graphs,
                ):
                    yield from graphs(body)


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield every node of the main graph, of bodies and of functions."""
    for graph in all_graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def all_tensors(
    model: onnx.ModelProto,
) -> Iterator[tuple[str, tuple[str, ...], TensorProto]]:
    """Yield the label, the key and the message of every tensor; keys as in :class:`Data`."""
    for graph in all_graphs(model):
        for tensor in graph.initializer:
            yield f"weight {tensor.name}", ("weight", tensor.name), tensor
        for sparse in graph.sparse_initializer:
            yield from _sparse_parts(f"weight {sparse.values.name}", ("weight",), sparse)
    for label, key, attribute in all_attributes(model):
        if attribute.HasField("t"):
            yield label, key, attribute.t
        for number, tensor in enumerate(attribute.tensors):
            yield label, (*key, str(number)), tensor
        if attribute.HasField("sparse_tensor"):
            yield from _sparse_parts(label, key, attribute.sparse_tensor)
        for number, sparse in enumerate(attribute.sparse_tensors):
            yield from _sparse_parts(label, (*key, str(number)), sparse)


def all_attributes(
    model: onnx.ModelProto,
) -> Iterator[tuple[str, tuple[str, ...], AttributeProto]]:
    """Yield the label, the key and the message of every attribute; keys as in :class:`Data`."""
    for node in all_nodes(model):
        for attribute in node.attribute:
            yield (
                f"attribute {attribute.name} of {node.name or node.op_type}",
                ("attribute", *node.output, attribute.name),
                attribute,
            )
    for function in model.functions:
        for attribute in function.attribute_proto:
            label = f"attribute {attribute.name} of {function.name}"
            yield label, ("function", function.name, attribute.name), attribute


def _sparse_parts(
    label: str, key: tuple[str, ...], sparse: onnx.SparseTensorProto
) -> Iterator[tuple[str, tuple[str, ...], TensorProto]]:
    yield label, (*key, "values", sparse.values.name), sparse.values
    yield f"indices of {label}", (*key, "indices", sparse.values.name), sparse.indices


def _holders(model: onnx.ModelProto) -> Iterator[_Holder]:
    for label, key, tensor in all_tensors(model):
        if tensor.data_type not in (TensorProto.STRING, TensorProto.UNDEFINED):
            yield _Holder(label, key, tensor)
    for label, key, attribute in all_attributes(model):
        if attribute.ref_attr_name:
            continue
        whole = attribute.type in (AttributeProto.INT, AttributeProto.INTS)
        if whole and not attribute.name.endswith(_INTEGER_ENDINGS):
            continue
        if attribute.type in _NUMBERS:
            yield _Holder(label, key, attribute)


def flat_with(
    array: Array,
    original: Array,
    places: Array,
) -> Array:
    """Return an array with the original's values in some places of its flat form."""
    mixed = np.array(array).reshape(-1)
    mixed[places] = original.reshape(-1)[places]
    return mixed.reshape(array.shape)
