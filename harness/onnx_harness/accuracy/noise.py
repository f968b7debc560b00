"""How far two runs of one model lie apart, small enough to be kept: what a departure is explained by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
    """

    l2: float = 0.0
    greatest: float = 0.0
    norm: float = 0.0
    scale: float = 0.0
    changed: int = 0
    nonfinite: int = 0
    size: int = 0

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
        )


@dataclass(frozen=True, slots=True)
class Noise:
    """What was measured of a model, by input set and output (`pool` names them).

    Attributes:
        sets: in the order of the reference's.
        sources: what was run, for people.
        notes: what couldn't be measured, and why.
    """

    sets: tuple[dict[str, Gap], ...]
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def pool(leaf: Leaf) -> str:
    """Under which name a part of an output is measured: the scores of a map are one vector spelt out."""
    return leaf.output if leaf.in_map else leaf.name


def gaps(reference: Mapping[str, Value], other: Mapping[str, Value]) -> dict[str, Gap]:
    """The gaps of the outputs of one input set. Outputs of other shapes can't be compared, and are left out."""
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
    return {name: gap_of(*_joined(pairs)) for name, pairs in parts.items()}


def gap_of(reference: Array, other: Array) -> Gap:
    """The gap of two arrays of one shape."""
    found = measure(reference, other, rtol=0.0, atol=0.0)
    if not is_float(reference):
        changed = found.beyond
        greatest = 0.0 if is_text(reference) else found.max_abs
        return Gap(greatest=greatest, changed=changed, nonfinite=found.nonfinite, size=found.size)
    scale, _ = extent(reference)
    # The signal was summed where both sides are finite, and not at all where they're equal.
    norm = _norm(reference) if found.equal or found.nonfinite else math.sqrt(found.signal)
    return Gap(math.sqrt(found.error), found.max_abs, norm, scale, 0, found.nonfinite, found.size)


def _joined(pairs: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """The parts of one vector as that vector."""
    if len(pairs) == 1:
        return pairs[0]
    left, right = zip(*pairs, strict=True)
    return np.concatenate([each.reshape(-1) for each in left]), np.concatenate([each.reshape(-1) for each in right])


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
