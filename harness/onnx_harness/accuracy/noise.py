"""How far two runs of one model lie apart, small enough to be kept: what a departure is explained
by.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnx_harness.accuracy.measure import Array, extent, is_float, is_text, measure
from onnx_harness.accuracy.values import Leaf, Value, walk


@dataclass(frozen=True, slots=True)
class Gap:
    """How far an output of one run lies from the reference's, in one input set.

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
        """Whether a bound on the elements is certainly broken: even the greatest of them may not
        differ so much.
        """
        return self.nonfinite > 0 or self.changed > 0 or self.greatest > rtol * self.scale + atol

    def is_chaos(self, share: float) -> bool:
        """Whether last bits change what isn't floating-point, or an element by such a share of the
        greatest one.
        """
        return self.nonfinite > 0 or self.changed > 0 or self.greatest > share * self.scale

    def joined(self, other: Gap) -> Gap:
        """The worse of two gaps of one output in one input set, figure by figure."""
        return Gap(
            max(self.l2, other.l2),
            max(self.greatest, other.greatest),
            max(self.norm, other.norm),
            max(self.scale, other.scale),
            max(self.changed, other.changed),
            max(self.nonfinite, other.nonfinite),
            max(self.size, other.size),
            max(self.moved, other.moved),
            max(self.signs, other.signs),
        )


@dataclass(frozen=True, slots=True)
class Noise:
    """What was measured of a model, by input set and output (`pool` names them).

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
    """

    sets: tuple[dict[str, Gap], ...]
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    has_tail: bool = False
    steps: dict[str, float] = field(default_factory=dict)
    picked: tuple[str, ...] = ()

    def tail(self, sets: Sequence[int], name: str, norm: float, scale: float, size: int) -> Gap:
        """The worst gap of an output in any of some sets, as it would be in a set of other
        magnitudes.

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
        greatest = max((gap.greatest / gap.scale for gap in gaps if gap.scale > 0), default=0.0)
        return Gap(
            l2 * norm,
            greatest * scale,
            norm,
            scale,
            _share(gaps, "changed", size),
            max((gap.nonfinite for gap in gaps), default=0),
            size,
            _share(gaps, "moved", size),
            _share(gaps, "signs", size),
        )


def pool(leaf: Leaf) -> str:
    """Under which name a part of an output is measured: the scores of a map are one vector spelt
    out.
    """
    return leaf.output if leaf.in_map else leaf.name


def gaps(
    reference: Mapping[str, Value],
    other: Mapping[str, Value],
    steps: Mapping[str, float] | None = None,
) -> dict[str, Gap]:
    """The gaps of the outputs of one input set.

    Outputs of other shapes can't be compared, and are left out.

    Args:
        reference: by output.
        other: by output.
        steps: as in `Noise`; elements that move by half a step count as moved.
    """
    parts: dict[str, list[tuple[Array, Array]]] = {}
    for output, value in reference.items():
        if output not in other:
            continue
        for part in walk(output, value, other[output]):
            if not isinstance(part, Leaf) or part.reference is None or part.candidate is None:
                continue
            if part.reference.shape != part.candidate.shape:
                continue
            parts.setdefault(pool(part), []).append((part.reference, part.candidate))
    sizes = steps or {}
    return {
        name: gap_of(*_joined(pairs), step=sizes.get(name, 0.0)) for name, pairs in parts.items()
    }


def gap_of(reference: Array, other: Array, step: float = 0.0) -> Gap:
    """The gap of two arrays of one shape; ``step`` is that of their grid, 0 where they're on none."""
    found = measure(reference, other, rtol=0.0, atol=0.0)
    if not is_float(reference):
        changed = found.beyond
        greatest = 0.0 if is_text(reference) else found.max_abs
        return Gap(greatest=greatest, changed=changed, nonfinite=found.nonfinite, size=found.size)
    moved = 0 if found.equal or step == 0 else moved_elements(reference, other, step)
    scale, _ = extent(reference)
    # The signal was summed where both sides are finite, and not at all where they're equal.
    norm = _norm(reference) if found.equal or found.nonfinite else math.sqrt(found.signal)
    return Gap(
        math.sqrt(found.error),
        found.max_abs,
        norm,
        scale,
        nonfinite=found.nonfinite,
        size=found.size,
        moved=moved,
        signs=found.signed_zero,
    )


def moved_elements(reference: Array, other: Array, step: float) -> int:
    """How many elements of two float arrays of one shape differ by more than half a ``step``."""
    difference = reference.astype(np.float64) - other.astype(np.float64)
    return int(np.count_nonzero(np.abs(difference) > step / 2))


def _share(gaps: Sequence[Gap], field: str, size: int) -> int:
    """The greatest share of elements that a field of the gaps counts, in elements of ``size``,
    rounded up.
    """
    shares = [getattr(gap, field) / gap.size for gap in gaps if gap.size > 0]
    return math.ceil(max(shares, default=0.0) * size)


def _joined(pairs: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """The parts of one vector as that vector."""
    if len(pairs) == 1:
        return pairs[0]
    left, right = zip(*pairs, strict=True)
    return np.concatenate([each.reshape(-1) for each in left]), np.concatenate(
        [each.reshape(-1) for each in right]
    )


def worst(runs: Iterable[Mapping[str, Gap]]) -> dict[str, Gap]:
    """The worst gap of each output over several runs of one input set."""
    found: dict[str, Gap] = {}
    for run in runs:
        for name, gap in run.items():
            found[name] = found[name].joined(gap) if name in found else gap
    return found


def _norm(array: Array) -> float:
    flat = array.reshape(-1)
    if flat.dtype.kind == "c":
        flat = np.abs(flat)
    wide = flat.astype(np.float64)
    wide = wide[np.isfinite(wide)]
    return math.sqrt(float(np.einsum("i,i->", wide, wide)))
