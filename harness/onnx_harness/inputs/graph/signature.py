"""Read what a graph declares about its inputs: names, types, dimensions.

Dimensions that are one and the same are told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import onnx

from onnx_harness.errors import InputError

# Exporters write these where they know no name: two of them aren't promised to be equal.
_ANONYMOUS = frozenset({"", "?", "-1", "none", "unk", "unknown", "dynamic"})
_REFUSED_TYPES: dict[int, str] = {
    onnx.TensorProto.COMPLEX64: "complex numbers aren't accepted by ONNX Runtime as inputs",
    onnx.TensorProto.COMPLEX128: "complex numbers aren't accepted by ONNX Runtime as inputs",
    **dict.fromkeys(
        (
            getattr(onnx.TensorProto, name)
            for name in ("INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1")
            if hasattr(onnx.TensorProto, name)
        ),
        (
            "ONNX Runtime takes no input of less than 8 bits an element from Python; feed it 8 "
            "bits "
            "and add a Cast"
        ),
    ),
    onnx.TensorProto.UNDEFINED: "the graph declares no element type for it",
}

Dim = int | str


class Container(StrEnum):
    """The container of an input's values."""

    TENSOR = "tensor"
    SEQUENCE = "sequence"


@dataclass(frozen=True, slots=True)
class Input:
    """One input that a feed must hold.

    Attributes:
        name: in the graph.
        elem_type: ``onnx.TensorProto.DataType`` of its elements.
        dims: a fixed size, or the name of a dynamic dimension; equal names are equal sizes. None:
            rank unknown.
        container: a tensor, or a sequence of tensors of that type.
        labels: what a person would call each dimension: the dim_param, or ``?`` where it has none.
    """

    name: str
    elem_type: int
    dims: tuple[Dim, ...] | None
    container: Container = Container.TENSOR
    labels: tuple[str, ...] | None = None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The numpy dtype of its elements; ml_dtypes' where numpy has none, object for strings."""
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.elem_type))

    @property
    def type_name(self) -> str:
        """``float``, ``int64``, ``bfloat16`` …, in ONNX's words."""
        return str(onnx.TensorProto.DataType.Name(self.elem_type)).lower()

    @property
    def is_string(self) -> bool:
        """Return whether its elements are texts."""
        return self.elem_type == onnx.TensorProto.STRING

    @property
    def is_bool(self) -> bool:
        """Return whether its elements are truth values."""
        return self.elem_type == onnx.TensorProto.BOOL

    @property
    def is_integer(self) -> bool:
        """Return whether its elements are integers."""
        return "int" in self.type_name

    @property
    def is_float(self) -> bool:
        """Return whether its elements are floating-point numbers of any width."""
        return not (self.is_string or self.is_bool or self.is_integer)

    @property
    def integer_range(self) -> tuple[int, int]:
        """Least and greatest value of its type, which is one of numpy's integers."""
        bits = self.dtype.itemsize * 8
        return (
            (0, 2**bits - 1)
            if self.dtype.kind == "u"
            else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        )

    @property
    def row_size(self) -> int | None:
        """Return how many elements each entry of the first axis has.

        None where that isn't fixed.
        """
        size = 1
        for dim in self.dims[1:] if self.dims else ("?",):
            if isinstance(dim, str):
                return None
            size *= dim
        return size

    def shape_text(self) -> str:
        """``[batch, 3, ?, ?]``, or ``[any rank]``."""
        return "[any rank]" if self.labels is None else f"[{', '.join(self.labels)}]"


def read_inputs(model: onnx.ModelProto) -> dict[str, Input]:
    """The inputs that a feed must hold, in the graph's order.

    Those with an initializer have a default.

    Raises:
        InputError: an input is a map, a sparse tensor, complex, or has no type.
    """
    defaults = default_names(model)
    inputs_by_name: dict[str, Input] = {}
    for info in model.graph.input:
        if info.name not in defaults:
            inputs_by_name[info.name] = _read(info)
    return inputs_by_name


def default_names(model: onnx.ModelProto) -> set[str]:
    """Names of the initializers, dense and sparse: what a feed may leave out."""
    sparse = {tensor.values.name for tensor in model.graph.sparse_initializer}
    return sparse | {tensor.name for tensor in model.graph.initializer}


def evaluate(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The size of a dimension; ``past + sequence`` is the sum of its parts.

    Raises:
        KeyError: a name has no size.
    """
    if isinstance(dim, int):
        return dim
    if dim in sizes:
        return sizes[dim]
    parts = addends(dim)
    if len(parts) < 2:
        raise KeyError(dim)
    return sum(int(part) if part.isdigit() else sizes[part] for part in parts)


def addends(dim: str) -> list[str]:
    """``past + sequence`` taken apart; a plain name is itself."""
    return [part.strip() for part in dim.split("+")] if "+" in dim else [dim]


def free_names(inputs: Mapping[str, Input]) -> list[str]:
    """The names of the dynamic dimensions whose sizes have to be chosen, in order of appearance."""
    names: dict[str, None] = {}
    for entry in inputs.values():
        for dim in entry.dims or ():
            if isinstance(dim, str):
                parts = []
                for part in addends(dim):
                    if not part.isdigit():
                        parts.append(part)
                names.update(dict.fromkeys(parts))
    return list(names)


def _read(info: onnx.ValueInfoProto) -> Input:
    kind, container = info.type, Container.TENSOR
    while (which := kind.WhichOneof("value")) in ("optional_type", "sequence_type"):
        if which == "sequence_type":
            if container is Container.SEQUENCE:
                raise InputError(
                    f"input '{info.name}' is a sequence of sequences, which ONNX Runtime doesn't "
                    f"accept"
                )
            container = Container.SEQUENCE
        # An optional is always given: leaving it out would leave what depends on it untested.
        kind = (
            kind.optional_type.elem_type
            if which == "optional_type"
            else kind.sequence_type.elem_type
        )
    if which != "tensor_type":
        what = {"map_type": "a map", "sparse_tensor_type": "a sparse tensor"}.get(
            str(which), "of no declared type"
        )
        raise InputError(
            f"input '{info.name}' is {what}: no values are generated for that. "
            "Give the model a tensor input instead, or leave this input to an initializer"
        )
    tensor = kind.tensor_type
    if (reason := _REFUSED_TYPES.get(tensor.elem_type)) is not None:
        raise InputError(
            f"input '{info.name}' is of type {_type_name(tensor.elem_type)}: {reason}"
        )
    if not tensor.HasField("shape"):
        return Input(info.name, tensor.elem_type, None, container)
    pairs = [_dim(info.name, axis, dim) for axis, dim in enumerate(tensor.shape.dim)]
    dims = tuple(dim for dim, _ in pairs)
    labels = tuple(label for _, label in pairs)
    return Input(info.name, tensor.elem_type, dims, container, labels)


def _dim(name: str, axis: int, dim: onnx.TensorShapeProto.Dimension) -> tuple[Dim, str]:
    which = dim.WhichOneof("value")
    if which == "dim_value" and dim.dim_value >= 0:
        return int(dim.dim_value), str(dim.dim_value)
    if which == "dim_param" and dim.dim_param.strip().lower() not in _ANONYMOUS:
        return dim.dim_param.strip(), dim.dim_param
    return f"{name}[{axis}]", "?"


def _type_name(elem_type: int) -> str:
    return str(onnx.TensorProto.DataType.Name(elem_type)).lower()
