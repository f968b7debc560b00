"""A change-point pass over a cell's nights: when its level moved. Advice, no verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

FEWEST_NIGHTS = 8
"""Below this two means of 3 nights or more can't be told from the nights' own spread."""
FEWEST_IN_A_LEVEL = 3
LEAST_SPREAD = 0.0025
"""A quarter of the 1% that nights were measured to spread by: equal ratios have no spread."""
NORMAL_PER_MAD = 1.4826
"""Standard deviation of normal values whose median absolute deviation is 1."""
MISSING = (
    "the nights in which levels moved aren't named: pip install 'onnx-harness[gate]' (it brings "
    "ruptures)"
)


def available() -> bool:
    """Tell if the library that finds them is installed."""
    try:
        import ruptures  # noqa: F401
    except ImportError:
        return False
    return True


def change_points(ratios: Sequence[float]) -> list[int]:
    """Return the positions of the nights at which the level of ``ratios`` moved.

    A position is that of the first night at the new level.

    Exact segmentation into constant means (PELT: Killick, Fearnhead and Eckley, Optimal detection
    of changepoints with a linear computational cost, 2012) by the library ruptures. The penalty of
    a further segment is twice the BIC's, 4 s^2 ln(n), with s the nights' spread as their successive
    differences show it: advice should be rare.
    """
    if len(ratios) < FEWEST_NIGHTS:
        return []
    import numpy as np
    import ruptures

    values = np.log(np.asarray(ratios, dtype=np.float64))
    differences = np.abs(np.diff(values))
    # A difference of two nights varies by sqrt(2) times as much as a night does.
    night_spread = float(np.median(differences)) * NORMAL_PER_MAD / math.sqrt(2)
    spread = max(night_spread, LEAST_SPREAD)
    penalty = 4 * spread**2 * math.log(len(values))
    search = ruptures.Pelt(model="l2", min_size=FEWEST_IN_A_LEVEL, jump=1).fit(values)
    ends = search.predict(pen=penalty)
    return [int(end) for end in ends[:-1]]
