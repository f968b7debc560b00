"""Outputs that say one thing on every input set, as a class that is nearly always the same does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

TRIES = 16
"""Further sets that are tried where all outputs hold one number.

Of a class that a token in 16 has, 64 show it.
"""

Extremes = tuple[Any, Any]


def extremes(outputs: Any) -> list[Extremes | None]:
    """Return the least and greatest number of each output.

    None for an output that isn't a tensor of numbers.

    Args:
        outputs: by name; whatever isn't a mapping has no outputs.
    """
    values = outputs.values() if isinstance(outputs, Mapping) else ()
    return [_extremes(value) for value in values]


def says_one_thing(seen: Sequence[list[Extremes | None]]) -> bool:
    """Return whether each output holds a single number, the same on all sets ``seen``."""
    if not seen or not seen[0]:
        return False
    first = seen[0]
    single = all(entry is not None and entry[0] == entry[1] for entry in first)
    return single and all(later == first for later in seen[1:])


def _extremes(value: Any) -> Extremes | None:
    if not isinstance(value, np.ndarray) or value.size == 0 or value.dtype.kind not in "biuf":
        return None
    return value.min(), value.max()
