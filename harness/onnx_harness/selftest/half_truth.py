"""Decide by ONNX's reference implementation whether float16 answers a model right.

Nothing of the harness's own simulation takes part.

The converted file is run operator by operator in numpy's float16, and compared with the original in
float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from onnx_harness.accuracy.tolerance import choose
from onnx_harness.transforms import Precision

CLEARLY_RIGHT, CLEARLY_WRONG = 0.3, 3.0
"""Shares of the documented bound.

Between them the answer is left open, since float16 differs between processors.
"""


class Truth(Enum):
    """An answer of float16."""

    RIGHT = "right"
    WRONG = "wrong"
    OPEN = "open"


def truth(
    original: onnx.ModelProto, converted: onnx.ModelProto, feeds: Sequence[Mapping[str, Any]]
) -> Truth:
    """Return whether the converted model is right on all feeds, or wrong on one.

    Args:
        original: float32.
        converted: the same with float16 inside, its inputs and outputs float32.
        feeds: values by input name.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        expected = [ReferenceEvaluator(original).run(None, dict(feed)) for feed in feeds]
        actual = [ReferenceEvaluator(converted).run(None, dict(feed)) for feed in feeds]
    shares = []
    for wides, halves in zip(expected, actual, strict=True):
        for wide, half in zip(wides, halves, strict=True):
            shares.append(error_share(wide, half))
    worst = max(shares)
    if worst < CLEARLY_RIGHT:
        return Truth.RIGHT
    return Truth.WRONG if worst > CLEARLY_WRONG else Truth.OPEN


def error_share(expected: Any, actual: Any) -> float:
    """Return the worst element's error as a share of what FP16 is allowed by default.

    Infinite for a new NaN or Inf.
    """
    if np.asarray(expected).dtype.kind in "biu":  # an index is right or wrong
        return 0.0 if np.array_equal(expected, actual) else float("inf")
    wide = np.asarray(expected, np.float64)
    half = np.asarray(actual, np.float64)
    if (
        wide.shape != half.shape
        or np.isnan(half).any()
        or (np.isinf(half) != np.isinf(wide)).any()
    ):
        return float("inf")
    finite = np.isfinite(wide)
    if not finite.any():
        return 0.0
    scale = float(np.abs(wide[finite]).max())
    rtol, atol = choose(Precision.FP16, spec=None, override=None).bounds(scale)
    allowed = rtol * np.abs(wide[finite]) + atol
    error = np.abs(wide[finite] - half[finite])
    return float((error / np.maximum(allowed, np.finfo(np.float64).tiny)).max())
