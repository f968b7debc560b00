"""What a model gives by ONNX's own reference implementation: the arbiter where ONNX Runtime's CPU
kernels are alone.

Some of those kernels make numbers of NaN: LSTM with biases clips its gates, and what is left of a NaN is a bound. No
other provider has to.
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
    """Whether a set holds an infinity or NaN."""
    arrays = [array for value in values.values.values() for array in arrays_of(value)]
    return any(is_float(array) and not np.isfinite(array).all() for array in arrays)


def specified_instead(
    candidate: Mapping[str, Any], reference: Mapping[str, Any], model: Model, values: InputSet
) -> dict[str, Any] | None:
    """What ONNX's reference implementation gives, where it has NaN and infinity as a candidate has
    and others don't.

    Args:
        candidate: somebody's outputs by name.
        reference: ONNX Runtime's, on the CPU.
        model: the untouched one.
        values: the input set that they're of.

    Returns:
        Its outputs by name, in the reference's dtypes; None where it bears the reference out, or can't run the model.
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
    return {
        name: value.astype(reference[name].dtype, copy=False) for name, value in specified.items()
    }


def _specified(model: Model, values: InputSet, names: list[str]) -> dict[str, Any]:
    from onnx.reference import ReferenceEvaluator

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        made = ReferenceEvaluator(model.load()).run(names, dict(values.values))
    return dict(zip(names, made, strict=True))


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs agree in where they have NaN, and where infinity of which sign."""
    return all(
        isinstance(leaf, Leaf) and _marked_alike(leaf.reference, leaf.candidate)
        for name in one
        for leaf in walk(name, one[name], other[name])
    )


def _marked_alike(one: Array | None, other: Array | None) -> bool:
    if one is None or other is None or not (is_float(one) and is_float(other)):
        return True
    return one.shape == other.shape and bool(
        np.array_equal(_marks(one), _marks(other), equal_nan=True)
    )


def _marks(array: Array) -> NDArray[np.float64]:
    wide = array.astype(np.float64)
    return np.where(np.isfinite(wide), 0.0, wide)
