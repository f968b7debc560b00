"""What explains a departure from the reference: the model's noise, or what a type costs it. Nothing else does."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field, replace

import ml_dtypes

from onnx_harness.accuracy.measure import Array, Measured, is_float
from onnx_harness.accuracy.noise import Gap, Noise

# How many times as far as what explains it an output may depart. Honest variants of 13 models of the public zoo, with
# seeds 2 to 7, departed 2.8 times as far at most; `onnx-harness selftest honest fp16` counts those that fail. Relative
# L2 is a mean, and steady; the greatest difference of an element is an extreme, and of an output of one element both
# are one draw.
MOST_L2 = 4.0
MOST_ELEMENT = 8.0

# A sum in another order moves by a unit in the last place of the output even where nothing that was run for the floor
# did, so none is judged below: two such units in the mean, and four in the worst element.
_ULPS_L2 = 2.0
_ULPS_ELEMENT = 4.0
_FLOAT32_ULP = 2.0**-23


@dataclass(frozen=True, slots=True)
class Bound:
    """What explains an output in one input set.

    Attributes:
        floor: the noise.
        ideal: what the type costs; None where the variant's arithmetic is float32.
        range: what the type costs with its range: other than ``ideal`` where values overflow.
        type: what the arithmetic is called, for people.
        norm: ||reference||.
        factor: how many times the measured noise ``floor`` is.
    """

    floor: Gap
    ideal: Gap | None = None
    range: Gap | None = None
    type: str = "float32"
    norm: float = 0.0
    factor: float = 1.0

    @property
    def l2(self) -> float:
        """The L2 difference that is explained, before any factor."""
        return max(self.floor.l2, self.ideal.l2 if self.ideal else 0.0)

    @property
    def greatest(self) -> float:
        """The difference of one element that is explained, before any factor."""
        return max(self.floor.greatest, self.ideal.greatest if self.ideal else 0.0)

    @property
    def explained_by(self) -> str:
        """What explains it, as a clause: ``ideal float16 does``."""
        return "the untouched model's own noise does" if self.ideal is None else f"ideal {self.type} does"

    def explains(self, found: Measured) -> bool:
        """Whether a departure is no more than noise and the type together account for."""
        return self.times(found) <= MOST_L2 and found.max_abs <= MOST_ELEMENT * self.greatest

    def is_noise(self, found: Measured) -> bool:
        """Whether a departure is no more than noise."""
        return (
            found.nonfinite == 0
            and found.error <= (MOST_L2 * self.floor.l2) ** 2
            and found.max_abs <= MOST_ELEMENT * self.floor.greatest
        )

    def times(self, found: Measured) -> float:
        """The L2 difference in units of what is explained."""
        l2 = math.sqrt(found.error)
        return 0.0 if l2 == 0 else l2 / self.l2 if self.l2 > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What explains the departures of a cell's outputs.

    Attributes:
        floor: of the model.
        ideal: the ideal conversion's gaps; None where the variant's arithmetic is float32.
        range: the same with the type's range.
        type: what the variant's arithmetic is called, for people.
        factor: of the provider: kernels that sum in other orders make more noise.
        usual: the input sets that say what is typical, from 0; all where empty.
    """

    floor: Noise
    ideal: Noise | None = None
    range: Noise | None = None
    type: str = "float32"
    factor: float = 1.0
    usual: tuple[int, ...] = ()
    _typical: dict[tuple[int, str], tuple[float, float]] = field(default_factory=dict)

    def with_noise(self, more: Noise) -> Yardstick:
        """With noise that was measured on further input sets."""
        sets = tuple(more.sets[index] or each for index, each in enumerate(self.floor.sets))
        return replace(self, floor=replace(self.floor, sets=sets))

    def bound(self, index: int, name: str, reference: Array, scale: float) -> Bound:
        """What explains the output ``name`` (as `pool` names it) in the input set ``index``.

        Args:
            index: of the input set, from 0.
            name: of the output.
            reference: its dtype counts.
            scale: the greatest finite magnitude in it.
        """
        ulp = max(_FLOAT32_ULP, _ulp(reference))
        known = self.floor.sets[index].get(name) or (self.ideal and self.ideal.sets[index].get(name))
        norm = known.norm if known else scale * math.sqrt(reference.size)
        noise = self._gap(self.floor, index, name, norm, scale)
        floor = replace(
            noise,
            l2=self.factor * max(noise.l2, _ULPS_L2 * ulp * norm),
            greatest=self.factor * max(noise.greatest, _ULPS_ELEMENT * ulp * scale),
        )
        ideal, ranged = self.ideal, self.range
        return Bound(
            floor,
            None if ideal is None else self._gap(ideal, index, name, norm, scale),
            None if ranged is None else self._gap(ranged, index, name, norm, scale),
            self.type,
            norm,
            self.factor,
        )

    def _gap(self, noise: Noise, index: int, name: str, norm: float, scale: float) -> Gap:
        """The gap in this set, or what is typical of all sets where that is more.

        One set is one draw: an output of few elements may have come out right by chance.
        """
        own = noise.sets[index].get(name, Gap())
        l2, greatest = self._typical_of(noise, name)
        return replace(own, l2=max(own.l2, l2 * norm), greatest=max(own.greatest, greatest * scale))

    def _typical_of(self, noise: Noise, name: str) -> tuple[float, float]:
        """The median over the sets, relative to the norm and the scale of the reference in each."""
        key = (id(noise), name)
        if key not in self._typical:
            told = [noise.sets[index] for index in self.usual] if self.usual else noise.sets
            seen = [each[name] for each in told if name in each and each[name].norm > 0]
            self._typical[key] = (
                statistics.median([gap.l2 / gap.norm for gap in seen]) if seen else 0.0,
                statistics.median([gap.greatest / gap.scale for gap in seen]) if seen else 0.0,
            )
        return self._typical[key]


def _ulp(array: Array) -> float:
    """The distance from 1 to the next number of the array's type."""
    if not is_float(array) or array.dtype.kind == "c":
        return _FLOAT32_ULP
    return float(ml_dtypes.finfo(array.dtype).eps)  # type: ignore[no-untyped-call]
