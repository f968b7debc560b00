"""Measure how far two runs of one model lie apart, which explains a departure.

The figures are small enough to be stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnx_harness.accuracy.measure import Array, extent, is_float, measure
from onnx_harness.accuracy.values import Leaf, Value, walk

FEW_ELEMENTS = 64
"""An output of at most so many elements in an input set is one draw there.

One run may come out right by chance, and the whole output next to zero by chance.
"""


@dataclass(frozen=True, slots=True)
class Gap:
    """The distance of an output of one run from the reference's, in one input set.

    Attributes:
        l2: ||other - reference||, over the elements that are finite on both sides.
        greatest: the greatest absolute difference of an element.
        norm: ||reference||.
        scale: the greatest finite magnitude in the reference.
        changed: elements of an output that isn't floating-point which differ.
        nonfinite: elements that are NaN or infinite on one side, and not the same on the other.
        size: elements.
        moved: elements of an output on a grid (see `Noise.steps`) that lie on another of its
            points.
        signs: zeros with another sign.
    """

    l2: float = 0.0
    greatest: float = 0.0
    norm: float = 0.0
    scale: float = 0.0
    changed: int = 0
    nonfinite: int = 0
    size: int = 0
    moved: int = 0
    signs: int = 0

    def beyond(self, rtol: float, atol: float) -> bool:
        """Decide whether a bound on the elements is certainly broken.

        It is where even the greatest of them may not differ so much.
        """
        return (
            self.nonfinite > 0
            or self.changed > 0
            or self.greatest > rtol * self.scale + atol
        )

    def is_chaos(self, share: float) -> bool:
        """Decide whether last bits change what isn't floating-point, or an element by a share.

        The share is of the greatest element.
        """
        return self.nonfinite > 0 or self.changed > 0 or self.greatest > share * self.scale

    def joined(self, gap: Gap) -> Gap:
        """The worse of two gaps of one output in one input set, figure by figure."""
        return Gap(
            max(self.l2, gap.l2),
            max(self.greatest, gap.greatest),
            max(self.norm, gap.norm),
            max(self.scale, gap.scale),
            max(self.changed, gap.changed),
            max(self.nonfinite, gap.nonfinite),
            max(self.size, gap.size),
            max(self.moved, gap.moved),
            max(self.signs, gap.signs),
        )


@dataclass(frozen=True, slots=True)
class Noise:
    """The noise measured of a model, by input set and flattened output.

    Attributes:
        sets: in the order of the reference's.
        sources: what was run, for people.
        notes: what couldn't be measured, and why.
        has_tail: the model quantizes or rounds: most draws of its last bits do nothing, and few do
            much. What one set shows is then possible in any other.
        steps: the distance of neighbouring values of each output that is a step function, by
            output.
        picked: outputs that are picked out of a table: where nothing moved them, nothing explains a
            last bit.
        double: float64 outputs that no narrower float has a part in.
    """

    sets: tuple[dict[str, Gap], ...]
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    has_tail: bool = False
    steps: dict[str, float] = field(default_factory=dict)
    picked: tuple[str, ...] = ()
    double: tuple[str, ...] = ()

    def tail(
        self, sets: Sequence[int], name: str, norm: float, scale: float, size: int
    ) -> Gap:
        """Return the worst gap of an output in any of some sets.

        It's given as it would be in a set of other magnitudes.

        Args:
            sets: which, from 0; all where empty.
            name: of the output.
            norm: ||reference|| in that set.
            scale: the greatest finite magnitude there.
            size: elements there.
        """
        chosen = [self.sets[index] for index in sets] if sets else self.sets
        gaps = [measured[name] for measured in chosen if name in measured]
        l2 = max((gap.l2 / gap.norm for gap in gaps if gap.norm > 0), default=0.0)
        tails = []
        for gap in gaps:
            if gap.scale > 0:
                tails.append(gap.greatest / gap.scale)
        greatest = max(tails, default=0.0)
        few = (
            [gap for gap in gaps if 0 < gap.size <= FEW_ELEMENTS]
            if size <= FEW_ELEMENTS
            else []
        )
        root = max((gap.l2 / math.sqrt(gap.size) for gap in few), default=0.0)
        return Gap(
            max(l2 * norm, root * math.sqrt(size)),
            max(greatest * scale, max((gap.greatest for gap in few), default=0.0)),
            norm,
            scale,
            _share(gaps, "changed", size),
            max((gap.nonfinite for gap in gaps), default=0),
            size,
            _share(gaps, "moved", size),
            _share(gaps, "signs", size),
        )


def gaps(
    reference: Mapping[str, Value],
    rerun: Mapping[str, Value],
    steps: Mapping[str, float] | None = None,
) -> dict[str, Gap]:
    """The gaps of the outputs of one input set.

    Outputs of other shapes can't be compared, and are left out.

    Args:
        reference: by output.
        rerun: by output.
        steps: as in `Noise`; elements that move by half a step count as moved.
    """
    sizes = steps or {}
    gaps_by_output: dict[str, Gap] = {}
    for output, value in reference.items():
        if output not in rerun:
            continue
        for part in walk(output, value, rerun[output]):
            if not isinstance(part, Leaf):
                continue
            if part.reference is None or part.candidate is None:
                continue
            if part.reference.shape == part.candidate.shape:
                step = sizes.get(part.name, 0.0)
                gaps_by_output[part.name] = gap_of(part.reference, part.candidate, step=step)
    return gaps_by_output


def gap_of(reference: Array, rerun: Array, step: float = 0.0) -> Gap:
    """Return the gap of two arrays of one shape.

    ``step`` is that of their grid, 0 where they're on none.
    """
    departure = measure(reference, rerun, rtol=0.0, atol=0.0)
    if not is_float(reference):
        return Gap(greatest=departure.max_abs, changed=departure.beyond, size=departure.size)
    moved = 0 if departure.equal or step == 0 else moved_elements(reference, rerun, step)
    scale, _ = extent(reference)
    # The signal was summed where both sides are finite, and not at all where they're equal.
    norm = (
        norm_of(reference)
        if departure.equal or departure.nonfinite
        else math.sqrt(departure.signal)
    )
    return Gap(
        math.sqrt(departure.error),
        departure.max_abs,
        norm,
        scale,
        nonfinite=departure.nonfinite,
        size=departure.size,
        moved=moved,
        signs=departure.signed_zero,
    )


def moved_elements(reference: Array, rerun: Array, step: float) -> int:
    """Count the elements of two float arrays that differ by more than half a ``step``."""
    difference = reference.astype(np.float64) - rerun.astype(np.float64)
    return int(np.count_nonzero(np.abs(difference) > step / 2))


def _share(gaps: Sequence[Gap], field: str, size: int) -> int:
    """Return the greatest share of elements that a field of the gaps counts.

    It's in elements of ``size``, rounded up.
    """
    shares = [getattr(gap, field) / gap.size for gap in gaps if gap.size > 0]
    return math.ceil(max(shares, default=0.0) * size)


def worst(runs: Iterable[Mapping[str, Gap]]) -> dict[str, Gap]:
    """The worst gap of each output over several runs of one input set."""
    worst_gaps: dict[str, Gap] = {}
    for run in runs:
        for name, gap in run.items():
            worst_gaps[name] = worst_gaps[name].joined(gap) if name in worst_gaps else gap
    return worst_gaps


def norm_of(array: Array) -> float:
    """Return the L2 norm of an array's finite elements."""
    flat = array.ravel()
    if flat.dtype.kind == "c":
        flat = np.abs(flat)
    wide = flat.astype(np.float64)
    wide = wide[np.isfinite(wide)]
    return math.sqrt(float(np.einsum("i,i->", wide, wide)))
