"""Trace columns of a value back to the columns of the model's inputs.

What is done to each on the way is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_harness.inputs.graph.attributes import attribute, label
from onnx_harness.inputs.graph.scopes import Scope
from onnx_harness.inputs.graph.signature import Container, Input
from onnx_harness.inputs.graph.tables import ML, default_of, is_open, keys_of, values_of

_MOST_COLUMNS = 1 << 16
_MOST_DEPTH = 200


class NotTraced(Exception):
    """The columns can't be followed back; the message is the end of a sentence."""


@dataclass(frozen=True)
class Map:
    """The step that a node makes with the values of one column.

    Attributes:
        kind: ``cast``, ``scale``, ``add``, ``rsub``, ``mul``, ``div``, ``impute``, ``binarize``,
            ``onehot`` or ``lookup``.
        numbers: its constants.
        dtype: of the result.
        table: for ``lookup``: key to value; for ``onehot``: the category alone.
        keys: all that the node tells apart, for ``lookup`` and ``onehot``.
        is_open: whether it takes what isn't among the keys.
    """

    kind: str
    numbers: tuple[float, ...] = ()
    dtype: str = "float32"
    table: tuple[tuple[Any, float], ...] = ()
    keys: tuple[Any, ...] = ()
    is_open: bool = True

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """The values behind it, computed as ONNX Runtime does: in the type of the result."""
        kind = np.dtype(self.dtype)
        with np.errstate(all="ignore"):
            match self.kind:
                case "cast":
                    return np.asarray(values.astype(kind))
                case "scale":
                    offset, scale = (kind.type(number) for number in self.numbers)
                    return np.asarray((values.astype(kind) - offset) * scale)
                case "add" | "rsub" | "mul" | "div":
                    return np.asarray(
                        _ARITHMETIC[self.kind](values, kind.type(self.numbers[0]))
                    )
                case "impute":
                    replaced, imputed = self.numbers
                    lacking = np.isnan(values) if np.isnan(replaced) else values == replaced
                    return np.where(lacking, kind.type(imputed), values)
                case "binarize":
                    return np.asarray(values > kind.type(self.numbers[0])).astype(kind)
                case _:
                    table = dict(self.table)
                    default = self.numbers[0]
                    return np.asarray(
                        [table.get(value, default) for value in values.tolist()], kind
                    )


_ARITHMETIC: dict[str, Any] = {
    "add": np.add,
    "rsub": lambda values, number: number - values,
    "mul": np.multiply,
    "div": np.divide,
}


@dataclass(frozen=True)
class Column:
    """One column: where its values come from and what becomes of them.

    Attributes:
        source: the input.
        place: which element of the input's row.
        maps: in order; empty where the values arrive as they are.
    """

    source: str
    place: int
    maps: tuple[Map, ...] = ()

    @property
    def slot(self) -> tuple[str, int]:
        """The input's column."""
        return self.source, self.place

    def then(self, step: Map) -> Column:
        """The column behind one more step."""
        return replace(self, maps=(*self.maps, step))

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return what arrives for values of the input's column."""
        for step in self.maps:
            values = step.apply(values)
        return values


def trace(scope: Scope, inputs: Mapping[str, Input], name: str) -> list[Column]:
    """The columns of a value of rows, ``[n, F]`` or ``[n]``, in order.

    Args:
        scope: the main graph.
        inputs: of the model.
        name: of the value.

    Raises:
        NotTraced: something on the way isn't done column by column, or isn't known here.
    """
    return _Tracer(scope, inputs).columns(name, 0)


class _Tracer:
    def __init__(self, scope: Scope, inputs: Mapping[str, Input]) -> None:
        self.scope = scope
        self.inputs = inputs
        self.known: dict[str, list[Column]] = {}

    def columns(self, name: str, depth: int) -> list[Column]:
        if name not in self.known:
            self.known[name] = self._columns(name, depth)
        return self.known[name]

    def _columns(self, name: str, depth: int) -> list[Column]:
        if name in self.inputs:
            return self._of_input(self.inputs[name])
        node = self.scope.producers.get(name)
        if node is None or depth > _MOST_DEPTH:
            raise NotTraced(f"'{name}' isn't computed from an input")
        maker = _MAKERS.get((node.domain.replace("ai.onnx.ml", ML), node.op_type))
        if maker is None:
            raise NotTraced(f"{label(node)} can't be inverted")
        columns = list(maker(self, node, depth + 1))
        if len(columns) > _MOST_COLUMNS:
            raise NotTraced(f"{label(node)} has more than {_MOST_COLUMNS:,} columns")
        return columns

    def _of_input(self, entry: Input) -> list[Column]:
        dims = entry.dims
        if (
            entry.container is not Container.TENSOR
            or dims is None
            or not dims
            or len(dims) > 3
        ):
            raise NotTraced(f"the shape of input '{entry.name}' isn't that of rows")
        width = entry.row_size
        if width is None:
            raise NotTraced(f"the width of input '{entry.name}' isn't fixed")
        if not 0 < width <= _MOST_COLUMNS:
            raise NotTraced(f"input '{entry.name}' has {width:,} columns")
        return [Column(entry.name, place) for place in range(width)]

    def constant(self, name: str, what: str) -> NDArray[Any]:
        value = self.scope.constant(name)
        if value is None:
            raise NotTraced(f"{what} isn't a constant whose values are at hand")
        return np.asarray(value)

    def kind(self, column: Column) -> np.dtype[Any]:
        """The type of a column's values."""
        return (
            np.dtype(column.maps[-1].dtype)
            if column.maps
            else self.inputs[column.source].dtype
        )


_Made = Iterator[Column] | Sequence[Column]


def _same(tracer: _Tracer, node: onnx.NodeProto, depth: int) -> _Made:
    return tracer.columns(node.input[0], depth)


def _reshaped(tracer: _Tracer, node: onnx.NodeProto, depth: int) -> _Made:
    """Rows stay rows where the number of columns does; else they are other rows."""
    before = tracer.columns(node.input[0], depth)
    dims = tracer.scope.shape(node.output[0])
    if node.op_type == "Reshape":
        target = tracer.scope.constant(node.input[1])
        dims = None if target is None else tuple(int(size) for size in target.reshape(-1))
    elif node.op_type == "Flatten":
        dims = (None, len(before)) if int(attribute(node, "axis", 1)) == 1 else None
    sizes = [size if isinstance(size, int) else -1 for size in (dims or ())[1:]]
    width = int(np.prod(sizes)) if sizes else 1
    if dims is None or (width != len(before) and -1 not in sizes):
        raise NotTraced(f"{label(node)} may make other rows")
    return before


def _cast(tracer: _Tracer, node: onnx.NodeProto, depth: int) -> _Made:
    to = int(attribute(node, "to", 0))
    kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(to))
    if kind.kind not in "iuf":
        raise NotTraced(f"{label(node)} makes no numbers")
    columns = []
    for column in tracer.columns(node.input[0], depth):
        columns.append(column.then(Map("cast", dtype=kind.name)))
    return columns


def _concat(tracer: _Tracer, node: onnx.NodeProto, depth: int) -> _Made:
    if node.op_type == "Concat" and int(attribute(node, "axis", 0)) not in (1, -1):
        raise NotTraced(f"{label(node)} joins rows")
    columns = []
    for name in node.input:
        for column in tracer.columns(name, depth):
            columns.append(column)
    return columns


def _picked(tracer: _Tracer, node: onnx.NodeProto, depth: int) -> _Made:
    before = tracer.columns(node.input[0], depth)
    if node.op_type == "Gather" and int(attribute(node, "axis", 0)) not in (1, -1):
        raise NotTraced(f"{label(node)} picks rows")
    places = tracer.constant(node.input[1], f"the index of {label(node)}").reshape(-1)
    if any(not -len(before) <= place < len(before) for place in places):
        raise NotTraced(f"{label(node)} picks columns that aren't there")
    return [before[int(place)] for place in places]


def _sliced(tracer: _Tracer, node: onnx.NodeProto, depth: int) -> _Made:
    before = tracer.columns(node.input[0], depth)
    if len(node.input) > 1:
        parts = []
        for name in node.input[1:]:
            parts.append(tracer.constant(name, f"a bound of {label(node)}").reshape(-1))
    else:
        parts = [
            np.asarray(attribute(node, name, ())) for name in ("starts", "ends", "axes")
        ]
    if (
        any(len(part) != 1 for part in parts[:2])
        or len(parts) < 3
        or int(parts[2][0]) not in (1, -1)
    ):
        raise NotTraced(f"{label(node)} cuts rows")
    step = int(parts[3][0]) if len(parts) > 3 else 1
    return before[slice(int(parts[0][0]), int(parts[1][0]), step)]


def _scaler(tracer: _Tracer, node: onnx.NodeProto, depth: int) -> _Made:
    before = tracer.columns(node.input[0], depth)
    entries = []
    for name, fill in _SCALER:
        entries.append(_spread(attribute(node, name, ()), len(before), fill))
    offset, scale = entries
    pairs = zip(before, offset, scale, strict=True)
    scaled = []
    for column, o, s in pairs:
        scaled.append(
            column.then(Map("scale", (float(np.float32(o)), float(np.float32(s)))))
        )
    return scaled


_SCALER = (("offset", 0.0), ("scale", 1.0))


def _spread(values: Sequence[float], count: int, fill: float) -> list[float]:
    if len(values) == 0:
        return [fill] * count
    if len(values) not in (1, count):
        raise NotTraced("a list of constants doesn't fit the columns")
    return list(values) * (count if len(values) == 1 else 1)


def _imputer(tracer: _Tracer, node: onnx.NodeProto, depth: int) -> _Made:
    before = tracer.columns(node.input[0], depth)
    whole = len(attribute(node, "imputed_value_int64s", ())) > 0
    kind = "int64s" if whole else "floats"
    replaced = attribute(node, f"replaced_value_{kind[:-1]}", 0)
    imputed = _spread(attribute(node, f"imputed_value_{kind}", ()), len(before), 0.0)
    dtype = "int64" if whole else "float32"
    pairs = zip(before, imputed, strict=True)
    filled = []
    for column, value in pairs:
        filled.append(column.then(Map("impute", (float(replaced), float(value)), dtype)))
    return filled


def _binarizer(tracer: _Tracer, node: onnx.NodeProto, depth: int) -> _Made:
    step = Map("binarize", (float(attribute(node, "threshold", 0.0)),))
    return [column.then(step) for column in tracer.columns(node.input[0], depth)]


def _arithmetic(tracer: _Tracer, node: onnx.NodeProto, depth: int) -> _Made:
    op = node.op_type
    slot = 0 if tracer.scope.constant(node.input[0]) is None else 1
    numbers = tracer.constant(node.input[1 - slot], f"the other side of {label(node)}")
    before = tracer.columns(node.input[slot], depth)
    if numbers.ndim > 1 and numbers.size != numbers.shape[-1]:
        raise NotTraced(f"{label(node)} does something else to each row")
    if op == "Div" and slot == 1:
        raise NotTraced(f"{label(node)} can't be inverted")
    kind = "rsub" if op == "Sub" and slot == 1 else {"Sub": "add"}.get(op, op.lower())
    values = [float(number) for number in numbers.reshape(-1)]
    pairs = zip(before, _spread(values, len(before), 0.0), strict=True)
    sign = -1.0 if op == "Sub" and slot == 0 else 1.0
    shifted = []
    for column, number in pairs:
        shifted.append(column.then(Map(kind, (sign * number,), tracer.kind(column).name)))
    return shifted


def _one_hot(tracer: _Tracer, node: onnx.NodeProto, depth: int) -> _Made:
    keys = keys_of(node)
    open_ = is_open(node)
    encoded = []
    for column in tracer.columns(node.input[0], depth):
        for key in keys:
            encoded.append(
                column.then(Map("onehot", (0.0,), "float32", ((key, 1.0),), keys, open_))
            )
    return encoded


def _lookup(tracer: _Tracer, node: onnx.NodeProto, depth: int) -> _Made:
    keys, values, default = keys_of(node), values_of(node), default_of(node)
    if len(keys) != len(values) or not keys or isinstance(values[0], str):
        raise NotTraced(f"{label(node)} gives no numbers")
    kind = "int64" if isinstance(values[0], int) else "float32"
    table = tuple(zip(keys, (float(value) for value in values), strict=True))
    step = Map("lookup", (float(default),), kind, table, keys)
    return [column.then(step) for column in tracer.columns(node.input[0], depth)]


_MAKERS: dict[tuple[str, str], Any] = {
    **{("", op): _same for op in ("Identity", "Dropout")},
    **{("", op): _reshaped for op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze")},
    **{("", op): _arithmetic for op in ("Add", "Sub", "Mul", "Div")},
    ("", "Cast"): _cast,
    ("", "Concat"): _concat,
    (ML, "FeatureVectorizer"): _concat,
    ("", "Gather"): _picked,
    (ML, "ArrayFeatureExtractor"): _picked,
    ("", "Slice"): _sliced,
    (ML, "Scaler"): _scaler,
    (ML, "Imputer"): _imputer,
    (ML, "Binarizer"): _binarizer,
    (ML, "OneHotEncoder"): _one_hot,
    (ML, "LabelEncoder"): _lookup,
    (ML, "CategoryMapper"): _lookup,
    ("", "StringNormalizer"): _same,
}
