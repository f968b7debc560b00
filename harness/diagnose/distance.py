"""How far the outputs of two runs of one model lie apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.accuracy.measure import Array, extent, is_float, measure
from harness.accuracy.values import Leaf, Value, walk


@dataclass(frozen=True, slots=True)
class Gap:
    """How far one output lies from another run's.

    Attributes:
        l2: the norm of the difference, over the elements that are finite on both sides.
        greatest: the greatest absolute difference of an element.
        norm: of the output that it is measured from.
        scale: the greatest finite magnitude in that.
        changed: something differs that has no distance: kinds, shapes, integers, text, NaN or infinity.
    """

    l2: float = 0.0
    greatest: float = 0.0
    norm: float = 0.0
    scale: float = 0.0
    changed: bool = False

    def joined(self, other: Gap) -> Gap:
        """The worse of two, figure by figure."""
        return Gap(
            max(self.l2, other.l2),
            max(self.greatest, other.greatest),
            max(self.norm, other.norm),
            max(self.scale, other.scale),
            self.changed or other.changed,
        )


def gaps(one: Mapping[str, Value], other: Mapping[str, Value]) -> dict[str, Gap]:
    """The gaps of the outputs of ``one``, nested ones flattened."""
    found: dict[str, Gap] = {}
    for output, value in one.items():
        for part in walk(output, value, other.get(output)):
            if isinstance(part, Leaf) and part.reference is not None and part.candidate is not None:
                found[part.name] = _gap(part.reference, part.candidate)
            else:
                found[part.name] = Gap(changed=not isinstance(part, Leaf))
    return found


def worst(runs: Iterable[Mapping[str, Gap]]) -> dict[str, Gap]:
    """The worst gap of each output over several runs."""
    found: dict[str, Gap] = {}
    for run in runs:
        for name, gap in run.items():
            found[name] = found[name].joined(gap) if name in found else gap
    return found


def typical(sets: Sequence[Mapping[str, Gap]]) -> list[dict[str, Gap]]:
    """The noise of several input sets, where in none it's less than it usually is for outputs of that size.

    One set's noise is one draw of it, and where numbers happen to be exact it's none at all. The least that an output
    gets is the median over the sets of its noise relative to its size.
    """
    relative: dict[str, list[tuple[float, float]]] = {}
    for found in sets:
        for name, gap in found.items():
            if gap.norm > 0 and not gap.changed:
                relative.setdefault(name, []).append((gap.l2 / gap.norm, gap.greatest / gap.scale))
    usual = {name: [statistics.median(column) for column in zip(*each, strict=True)] for name, each in relative.items()}

    def at_least(name: str, gap: Gap) -> Gap:
        l2, greatest = usual.get(name, (0.0, 0.0))
        return replace(gap, l2=max(gap.l2, l2 * gap.norm), greatest=max(gap.greatest, greatest * gap.scale))

    return [{name: at_least(name, gap) for name, gap in found.items()} for found in sets]


def _gap(one: Array, other: Array) -> Gap:
    if one.shape != other.shape or one.dtype != other.dtype:
        return Gap(changed=True)
    found = measure(one, other, rtol=0.0, atol=0.0)
    if not is_float(one):
        return Gap(changed=not found.equal and found.beyond > 0)
    scale, _ = extent(one)
    # Of equal outputs the sums aren't taken; a norm is never less than the greatest element.
    norm = max(scale, 0.0 if found.equal else math.sqrt(found.signal))
    return Gap(math.sqrt(found.error), found.max_abs, norm, scale, found.nonfinite > 0)
