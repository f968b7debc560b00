"""Run a model by ONNX's own reference implementation.

It's the arbiter where ONNX Runtime's CPU kernels are alone.

Some of those kernels make numbers of NaN: LSTM with biases clips its gates, and what is left of a
NaN is a bound. No other provider has to.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_harness.accuracy.measure import is_float
from onnx_harness.accuracy.values import Leaf, walk
from onnx_harness.inputs.values.sets import Array, InputSet, arrays_of
from onnx_harness.isolate import risking
from onnx_harness.model.file import Model


def has_infinities(values: InputSet) -> bool:
    """Return whether a set holds an infinity or NaN."""
    arrays = []
    for value in values.values.values():
        for array in arrays_of(value):
            arrays.append(array)
    return any(is_float(array) and not np.isfinite(array).all() for array in arrays)


def specified_instead(
    candidate: Mapping[str, Any],
    reference: Mapping[str, Any],
    model: Model,
    values: InputSet,
) -> dict[str, Any] | None:
    """Return the outputs of ONNX's reference implementation.

    It counts where it has NaN and infinity as a candidate has and others don't.

    Args:
        candidate: somebody's outputs by name.
        reference: ONNX Runtime's, on the CPU.
        model: the untouched one.
        values: the input set that they're of.

    Returns:
        Its outputs by name, in the reference's dtypes; None where it bears the reference out, or
        can't run the model.
    """
    try:
        with risking(f"onnx.reference {model.sha256[:16]}"):
            specified = _specified(model, values, list(reference))
    except Exception:  # it raises whatever numpy does, and lacks operators
        return None
    if not _alike(candidate, specified) or _alike(reference, specified):
        return None
    if not all(isinstance(value, np.ndarray) for value in specified.values()):
        return None
    specified_outputs = {}
    for name, value in specified.items():
        specified_outputs[name] = value.astype(reference[name].dtype, copy=False)
    return specified_outputs


def _specified(model: Model, values: InputSet, names: list[str]) -> dict[str, Any]:
    from onnx.reference import ReferenceEvaluator

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        arrays = ReferenceEvaluator(model.load()).run(names, dict(values.values))
    return dict(zip(names, arrays, strict=True))


def _alike(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two runs agree in where they have NaN, and where infinity of which sign."""
    for name in first:
        for leaf in walk(name, first[name], second[name]):
            if not (
                isinstance(leaf, Leaf) and _marked_alike(leaf.reference, leaf.candidate)
            ):
                return False
    return True


def _marked_alike(first: Array | None, second: Array | None) -> bool:
    if first is None or second is None or not (is_float(first) and is_float(second)):
        return True
    return first.shape == second.shape and bool(
        np.array_equal(_marks(first), _marks(second), equal_nan=True)
    )


def _marks(array: Array) -> NDArray[np.float64]:
    wide = array.astype(np.float64)
    return np.where(np.isfinite(wide), 0.0, wide)
