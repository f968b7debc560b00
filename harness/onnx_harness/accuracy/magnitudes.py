"""Measure an output of few elements over all usual input sets, where one set can't say its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx_harness.accuracy.measure import extent, is_float
from onnx_harness.accuracy.noise import FEW_ELEMENTS, norm_of
from onnx_harness.accuracy.values import Leaf, Value, walk


@dataclass(slots=True)
class Magnitude:
    """The magnitude of an output.

    Rows of one set are judged by the greatest of them; so are rows that happen to lie in several
    sets. A score of 0.2 beside scores of 5 is a small number, in whichever set it is.

    Attributes:
        scale: its greatest finite magnitude in any set.
        signal: the sum of its squared elements.
        size: elements.
    """

    scale: float = 0.0
    signal: float = 0.0
    size: int = 0

    def signal_of(self, size: int) -> float:
        """Return the sum of squares that so many elements have on average."""
        return self.signal / self.size * size if self.size else 0.0


def magnitudes(sets: Sequence[Mapping[str, Value]]) -> dict[str, Magnitude]:
    """Return the magnitudes of the float outputs over the sets in which they have few elements.

    A set of many elements says its own size, and nothing here: a batch of thousands of rows beside
    the others makes the sizes of those no better known, and no less.

    Args:
        sets: the reference's outputs on the usual input sets.

    Returns:
        By flattened name.
    """
    known: dict[str, Magnitude] = {}
    for outputs in sets:
        for output, value in outputs.items():
            for part in walk(output, value, value):
                if not isinstance(part, Leaf) or part.reference is None:
                    continue
                array = part.reference
                if not is_float(array) or not 0 < array.size <= FEW_ELEMENTS:
                    continue
                seen = known.setdefault(part.name, Magnitude())
                scale, _ = extent(array)
                seen.scale = max(seen.scale, scale)
                seen.signal += norm_of(array) ** 2
                seen.size += array.size
    return known
