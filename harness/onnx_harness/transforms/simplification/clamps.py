"""Chains of Clip, Relu, Min and Max with constant bounds, made one.

A Clip and a Relu leave what equals a bound. A Min and a Max may give the bound instead, which -0
and a bound of +0 tell apart. All four hand a NaN on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification.constants import constant_array, new_constant
from onnx_harness.transforms.simplification.no_ops import Facts, fact_of

_CLAMPS = ("Clip", "Relu", "Min", "Max")
# Since these versions a Clip has its bounds as inputs, Min and Max broadcast, and a Clip and a Relu
# have no list of buffers to reuse.
_BOUNDS_ARE_INPUTS, _BROADCASTS, _SINCE = 11, 8, 6
# Before, ONNX Runtime's Clip is of float32 alone.
_CLIPPED = np.dtype("f4")
_CLIPS_INTEGERS = 12
_DTYPES = tuple(
    np.dtype(code) for code in ("f2", "f4", "f8", "i1", "i4", "i8", "u1", "u4", "u8")
)

_BOUNDS = ("min", "max")

Number = Any


@dataclass(frozen=True, slots=True)
class _Clamp:
    """The interval that a node clamps to: ``low <= x <= high``, None where a side is open."""

    source: ir.Value
    low: Number | None
    high: Number | None

    def of(self, number: Number | None) -> Number | None:
        """A bound of an earlier clamp, after this one."""
        if number is not None and self.low is not None and number < self.low:
            return self.low
        if number is not None and self.high is not None and number > self.high:
            return self.high
        return number


def merge_clamps(editing: Editing, facts: Facts) -> int:
    """Let the second of two clamps do the work of both. The first stays for other readers.

    Precondition: bounds are constants of one element, none is NaN, and the two ranges have a value
    in common.
    """
    if editing.opset < _SINCE:
        return 0
    merged = 0
    for graph in all_graphs(editing.graph):
        for node in list(graph):
            if editing.is_standard(node, *_mergeable(editing)):
                merged += _merge(editing, node, facts)
    return merged


def _mergeable(editing: Editing) -> tuple[str, ...]:
    """Return the operators that can be one with others in the model's opset."""
    return _CLAMPS if editing.opset >= _BROADCASTS else ("Clip", "Relu")


def _merge(editing: Editing, node: ir.Node, facts: Facts) -> bool:
    fact = fact_of(node.outputs[0], facts)
    if fact is None:
        return False
    dtype = ir.DataType(fact.dtype).numpy()
    if dtype not in _DTYPES or (editing.opset < _BOUNDS_ARE_INPUTS and dtype != _CLIPPED):
        return False
    outer = _clamp_of(node, facts, dtype)
    first = outer.source.producer() if outer is not None else None
    if (
        outer is None
        or first is None
        or not editing.is_standard(first, *_mergeable(editing))
    ):
        return False
    inner = _clamp_of(first, facts, dtype)
    if inner is None or not _overlap(inner, outer):
        return False
    unsure = _gives_signed_zero(first, inner, dtype) or _gives_signed_zero(
        node, outer, dtype
    )
    if unsure and not _is_never_negative_zero(editing, inner.source, (inner, outer)):
        return False
    low = outer.low if inner.low is None else outer.of(inner.low)
    high = outer.high if inner.high is None else outer.of(inner.high)
    clamp = _Clamp(inner.source, low, high)
    op_type = _operator_of(clamp, dtype)
    if op_type is None or (
        op_type == "Clip" and dtype.kind != "f" and editing.opset < _CLIPS_INTEGERS
    ):
        return False
    _rewrite(editing, node, clamp, op_type, dtype)
    return True


def _operator_of(clamp: _Clamp, dtype: np.dtype) -> str | None:
    """The operator that clamps so and leaves a zero its sign; None without any."""
    if clamp.low is not None and clamp.high is not None:
        return "Clip"
    bound = clamp.high if clamp.low is None else clamp.low
    if dtype.kind != "f" or bound != 0:
        return "Min" if clamp.low is None else "Max"
    return "Relu" if clamp.low is not None and not np.signbit(bound) else None


def _clamp_of(node: ir.Node, facts: Facts, dtype: np.dtype) -> _Clamp | None:
    source = node.inputs[0] if node.inputs else None
    if source is None:
        return None
    if node.op_type == "Relu":
        return _Clamp(source, dtype.type(0), None)
    if node.op_type == "Clip":
        return _clip(node, source, dtype)
    if len(node.inputs) != 2:
        return None
    for value, other in (tuple(node.inputs), tuple(reversed(node.inputs))):
        bound, fact = constant_array(other), fact_of(value, facts)
        if bound is None or value is None or bound.size != 1 or bound.dtype != dtype:
            continue
        if (
            fact is None
            or fact.shape is None
            or bound.ndim > len(fact.shape)
            or (bound != bound).any()
        ):
            continue
        number = bound.reshape(-1)[0]
        return (
            _Clamp(value, number, None)
            if node.op_type == "Max"
            else _Clamp(value, None, number)
        )
    return None


def _clip(node: ir.Node, source: ir.Value, dtype: np.dtype) -> _Clamp | None:
    # Without a bound of its own a Clip has the least or greatest finite value: an infinity doesn't
    # pass it.
    limits: npt.NDArray[Any] = _limits(dtype)
    bounds: list[Number] = []
    if any(name in node.attributes for name in _BOUNDS):
        return _clip_of_attributes(node, source, dtype)
    for index in (1, 2):
        given = node.inputs[index] if len(node.inputs) > index else None
        bound = constant_array(given)
        if given is not None and (
            bound is None
            or bound.size != 1
            or bound.dtype != dtype
            or (bound != bound).any()
        ):
            return None
        bounds.append(limits[index - 1] if bound is None else bound.reshape(-1)[0])
    return _Clamp(source, bounds[0], bounds[1]) if bounds[0] <= bounds[1] else None


def _clip_of_attributes(node: ir.Node, source: ir.Value, dtype: np.dtype) -> _Clamp | None:
    """Return the interval of a Clip as opsets below 11 write it."""
    bounds: list[Number] = []
    for name, limit in zip(_BOUNDS, _limits(dtype), strict=True):
        attribute = node.attributes.get(name)
        if attribute is not None and (attribute.is_ref() or np.isnan(attribute.as_float())):
            return None
        bounds.append(limit if attribute is None else dtype.type(attribute.as_float()))
    return _Clamp(source, bounds[0], bounds[1]) if bounds[0] <= bounds[1] else None


def _limits(dtype: np.dtype) -> npt.NDArray[Any]:
    info: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return np.array([info.min, info.max], dtype)


def _overlap(inner: _Clamp, outer: _Clamp) -> bool:
    if inner.low is not None and outer.high is not None and inner.low > outer.high:
        return False
    return inner.high is None or outer.low is None or outer.low <= inner.high


def _gives_signed_zero(node: ir.Node, clamp: _Clamp, dtype: np.dtype) -> bool:
    """Return whether it's a Min or Max that may change the sign of a zero.

    Which, depends on the order and the place.
    """
    return (
        dtype.kind == "f" and node.op_type in ("Min", "Max") and 0 in (clamp.low, clamp.high)
    )


def _is_never_negative_zero(
    editing: Editing, source: ir.Value, clamps: Sequence[_Clamp]
) -> bool:
    """Return whether neither the source nor a bound is -0.

    A sum with a constant that isn't 0 rounds to +0 where it is 0.
    """
    node = source.producer()
    if node is None or not editing.is_standard(node, "Add", "Sub"):
        return False
    if any(
        bound == 0 and np.signbit(bound)
        for clamp in clamps
        for bound in (clamp.low, clamp.high)
        if bound is not None
    ):
        return False
    constants = [constant_array(value) for value in node.inputs]
    return any(
        array is not None and array.size and (array != 0).all() for array in constants
    )


def _rewrite(
    editing: Editing, node: ir.Node, clamp: _Clamp, op_type: str, dtype: np.dtype
) -> None:
    bounds = [clamp.low, clamp.high]
    if op_type == "Clip":
        least, greatest = _limits(dtype)
        bounds = [
            None if clamp.low == least else clamp.low,
            None if clamp.high == greatest else clamp.high,
        ]
    elif op_type == "Relu":
        bounds = []
    else:
        bounds = [bound for bound in bounds if bound is not None]
    node.op_type = op_type
    node.attributes.clear()
    if op_type == "Clip" and editing.opset < _BOUNDS_ARE_INPUTS:
        for name, bound in zip(_BOUNDS, bounds, strict=True):
            if bound is not None:
                node.attributes[name] = ir.AttrFloat32(name, float(bound))
        bounds = []
    node.resize_inputs(1 + len(bounds))
    node.replace_input_with(0, clamp.source)
    for index, bound in enumerate(bounds, start=1):
        stem = f"{node.outputs[0].name}_bound"
        constant = (
            None if bound is None else new_constant(editing, stem, np.array(bound, dtype))
        )
        node.replace_input_with(index, constant)
