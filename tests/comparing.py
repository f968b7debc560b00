"""A comparison of outputs that are listed set by set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnx_harness.accuracy import compare as comparing
from onnx_harness.accuracy.compare import ComparedSet, Comparison
from onnx_harness.accuracy.tolerance import Tolerance


def compare(
    reference: Sequence[Mapping[str, Any]],
    candidate: Sequence[Mapping[str, Any]],
    tolerance_for: Callable[[str], Tolerance],
    *,
    set_names: Sequence[str],
    unusual: Sequence[bool] = (),
    saturated: Sequence[bool] = (),
    edged: Sequence[bool] = (),
    **options: Any,
) -> Comparison:
    """Compare as :func:`onnx_harness.accuracy.compare.compare` does.

    Args:
        reference: the outputs that are right, of each set.
        candidate: the others.
        tolerance_for: the tolerance of an output.
        set_names: of the sets.
        unusual: which sets are; those that aren't said are none.
        saturated: likewise.
        edged: likewise.
        options: of the comparison.
    """
    sets = []
    for place, (name, right, other) in enumerate(
        zip(set_names, reference, candidate, strict=True)
    ):
        flags: dict[str, Any] = {
            word: place < len(values) and values[place]
            for word, values in (
                ("unusual", unusual),
                ("saturated", saturated),
                ("edged", edged),
            )
        }
        sets.append(ComparedSet(name, right, other, **flags))
    return comparing.compare(sets, tolerance_for, **options)
