"""Small models, each with something that float16 may be too coarse or too narrow for.

Built with seeds, by kind.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx_harness.selftest import half_arithmetic, half_networks
from onnx_harness.selftest.half_case import HalfCase

KINDS = (*half_arithmetic.KINDS, *half_networks.KINDS)
"""Makers of the cases of a kind each."""

_QUICK_EVERY = 5


def half_cases(*, quick: bool = False) -> Iterator[HalfCase]:
    """Yield every case, kind by kind.

    ``quick``: the gentlest and the harshest of every fifth kind.
    """
    for index, cases in enumerate(KINDS):
        of_kind = list(cases())
        if not quick:
            yield from of_kind
        elif index % _QUICK_EVERY == 0:
            yield from (of_kind[0], of_kind[-1])
