"""Explain a departure from the reference: by the model's noise, or by what a type costs it.

Nothing else does.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import ml_dtypes

from onnx_harness.accuracy.measure import Array, Measured, is_float
from onnx_harness.accuracy.noise import FEW_ELEMENTS, Gap, Noise

# How many times as far as what explains it an output may depart. Honest variants of 13 models of
# the public zoo, with seeds 2 to 7, departed 2.8 times as far at most; `onnx-harness selftest
# honest fp16` counts those that fail. Relative L2 is a mean, and steady; the greatest difference of
# an element is an extreme, and of an output of one element both are one draw.
MOST_L2 = 4.0
MOST_ELEMENT = 8.0
# The same for steps of a quantizer. They are no extreme of a normal error: what flips, flips to the
# next level, and only what passes further quantizers goes on from there. Twice as far as in any
# draw, no honest variant went.
MOST_STEPS = 2.0
# A scale's own last bits are in it.
_ONE_STEP = 1.001

# A sum in another order moves by a unit in the last place of the output even where nothing that was
# run for the floor did, so none is judged below: two such units in the mean, and four in the worst
# element.
_ULPS_L2 = 2.0
_ULPS_ELEMENT = 4.0
_FLOAT32_ULP = 2.0**-23


@dataclass(frozen=True, slots=True)
class Bound:
    """The explanation of an output in one input set.

    Attributes:
        floor: the noise.
        ideal: what the type costs; None where the variant's arithmetic is float32.
        range: what the type costs with its range: other than ``ideal`` where values overflow.
        type: what the arithmetic is called, for people.
        norm: ||reference||.
        factor: how many times the measured noise ``floor`` is.
        tail: the noise of the input set where it was greatest; None where each set speaks for
            itself.
        step: the distance of neighbouring values of an output that is a step function; 0: it's
            none.
    """

    floor: Gap
    ideal: Gap | None = None
    range: Gap | None = None
    type: str = "float32"
    norm: float = 0.0
    factor: float = 1.0
    tail: Gap | None = None
    step: float = 0.0

    @property
    def l2(self) -> float:
        """The L2 difference that is explained, before any factor."""
        return max(self.floor.l2, self.ideal.l2 if self.ideal else 0.0)

    @property
    def greatest(self) -> float:
        """The difference of one element that is explained, before any factor."""
        return max(self.floor.greatest, self.ideal.greatest if self.ideal else 0.0)

    @property
    def leaves_nothing(self) -> bool:
        """Decide whether the ideal conversion's error is as large as the output itself.

        A multiple of such an error says nothing of the conversion.
        """
        return self.ideal is not None and self.ideal.l2 >= self.norm > 0

    @property
    def explained_by(self) -> str:
        """The explanation as a clause: ``ideal float16 does``."""
        return (
            "the untouched model's own noise does"
            if self.ideal is None
            else f"ideal {self.type} does"
        )

    def explains(self, departure: Measured, moved: int) -> bool:
        """Decide whether a departure is no more than noise and the type together account for.

        Args:
            departure: the departure.
            moved: its elements that lie on another point of the grid, where ``step`` isn't 0.
        """
        if (
            self.times(departure) > MOST_L2
            or departure.max_abs > self._most_times * self.greatest
        ):
            return False
        return not self.on_grid or moved <= MOST_L2 * self.floor.moved

    def happens(self, departure: Measured, moved: int) -> bool:
        """Decide whether a departure is a flip.

        It is where the noise does no less in some other input set, which is rare.

        One element that lies one step off is what a grid has for a last bit, whether or not any
        draw showed it.
        """
        if self.tail is None or departure.nonfinite:
            return False
        if self.on_grid and moved <= 1 and departure.max_abs <= _ONE_STEP * self.step:
            return True
        within = math.sqrt(departure.error) <= MOST_L2 * self.tail.l2
        within = within and departure.max_abs <= self._most_times * self.tail.greatest
        return within and (not self.on_grid or moved <= MOST_L2 * self.tail.moved)

    @property
    def on_grid(self) -> bool:
        """A departure is counted in steps. What a type costs isn't."""
        return self.step > 0 and self.ideal is None

    @property
    def _most_times(self) -> float:
        return MOST_STEPS if self.on_grid else MOST_ELEMENT

    def is_noise(self, departure: Measured) -> bool:
        """Decide whether a departure is no more than noise."""
        gaps = [gap for gap in (self.floor, self.tail) if gap is not None]
        return departure.nonfinite == 0 and any(_is_within(departure, gap) for gap in gaps)

    @property
    def most_changed(self) -> float:
        """The number of elements that aren't floating-point and may change."""
        return MOST_L2 * max(self.floor.changed, self.ideal.changed if self.ideal else 0)

    def times(self, departure: Measured) -> float:
        """The L2 difference in units of what is explained."""
        l2 = math.sqrt(departure.error)
        if l2 == 0:
            return 0.0
        return l2 / self.l2 if self.l2 > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The explanation of the departures of a cell's outputs.

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
    # Of one object each: a yardstick that is made out of another one has other noise.
    _typical: dict[tuple[int, str], tuple[float, float]] = field(
        default_factory=dict, init=False
    )
    _absolute: dict[tuple[int, str], tuple[float, float]] = field(
        default_factory=dict, init=False
    )

    def with_noise(self, more: Noise) -> Yardstick:
        """With noise that was measured on further input sets."""
        sets = tuple(more.sets[index] or gaps for index, gaps in enumerate(self.floor.sets))
        return replace(self, floor=replace(self.floor, sets=sets))

    def on(self, places: Sequence[int]) -> Yardstick:
        """The same for a comparison on some of the input sets.

        Args:
            places: their positions, from 0. All sets that say what is typical are among them.
        """
        if list(places) == list(range(len(self.floor.sets))):
            return self

        def chosen(noise: Noise | None) -> Noise | None:
            return (
                None
                if noise is None
                else replace(noise, sets=tuple(noise.sets[at] for at in places))
            )

        floor = replace(self.floor, sets=tuple(self.floor.sets[at] for at in places))
        position = {place: at for at, place in enumerate(places)}
        return replace(
            self,
            floor=floor,
            usual=tuple(position[place] for place in self.usual),
            ideal=chosen(self.ideal),
            range=chosen(self.range),
        )

    def bound(self, index: int, name: str, reference: Array, scale: float) -> Bound:
        """Explain the output ``name`` (flattened) in the input set ``index``.

        Args:
            index: of the input set, from 0.
            name: of the output.
            reference: its dtype counts.
            scale: the greatest finite magnitude in it.
        """
        # What other providers compute of float64 is often float32.
        is_double = name in self.floor.double and self.factor <= 1
        ulp = max(0.0 if is_double else _FLOAT32_ULP, _ulp(reference))
        typical = self.floor.sets[index].get(name) or (
            self.ideal and self.ideal.sets[index].get(name)
        )
        norm = typical.norm if typical else scale * math.sqrt(reference.size)
        noise = self._gap(self.floor, index, name, norm, scale, reference.size)
        if name in self.floor.picked and self.ideal is None and self.factor <= 1:
            ulp = 0.0
        floor = replace(
            noise,
            norm=norm,
            scale=scale,
            l2=self.factor * max(noise.l2, _ULPS_L2 * ulp * norm),
            greatest=self.factor * max(noise.greatest, _ULPS_ELEMENT * ulp * scale),
        )
        ideal, ranged = self.ideal, self.range
        return Bound(
            floor,
            None
            if ideal is None
            else self._gap(ideal, index, name, norm, scale, reference.size),
            None
            if ranged is None
            else self._gap(ranged, index, name, norm, scale, reference.size),
            self.type,
            norm,
            self.factor,
            self._tail(name, floor, reference.size),
            self.floor.steps.get(name, 0.0),
        )

    def _tail(self, name: str, floor: Gap, size: int) -> Gap | None:
        """The noise of the set where it was greatest, and at least ``floor``."""
        if not self.floor.has_tail:
            return None
        tail = self.floor.tail(self.usual, name, floor.norm, floor.scale, size)
        enlarged = replace(
            tail, l2=self.factor * tail.l2, greatest=self.factor * tail.greatest
        )
        return enlarged.joined(floor)

    def _gap(
        self, noise: Noise, index: int, name: str, norm: float, scale: float, size: int
    ) -> Gap:
        """The gap in this set, or what is typical of all sets where that is more.

        One set is one draw: an output of few elements may have come out right by chance. What is
        typical is relative to the output's size, and of few elements absolute too: a score that
        happens to be 0.2 has the error of those that are 5.
        """
        own = noise.sets[index].get(name, Gap())
        if noise is self.floor and noise.has_tail:
            return own
        l2, greatest = self._typical_of(noise, name)
        l2, greatest = max(own.l2, l2 * norm), max(own.greatest, greatest * scale)
        if size <= FEW_ELEMENTS:
            root, most = self._absolute_of(noise, name)
            l2, greatest = max(l2, root * math.sqrt(size)), max(greatest, most)
        return replace(own, l2=l2, greatest=greatest)

    def _absolute_of(self, noise: Noise, name: str) -> tuple[float, float]:
        """Return the median over the sets of few elements: per element in L2, and in the worst."""
        key = (id(noise), name)
        if key not in self._absolute:
            seen = self._seen(noise, name)
            few = [gap for gap in seen if 0 < gap.size <= FEW_ELEMENTS]
            self._absolute[key] = (
                statistics.median([gap.l2 / math.sqrt(gap.size) for gap in few])
                if few
                else 0.0,
                statistics.median([gap.greatest for gap in few]) if few else 0.0,
            )
        return self._absolute[key]

    def _seen(self, noise: Noise, name: str) -> list[Gap]:
        """Return the gaps of an output in the sets that say what is typical."""
        measured = [noise.sets[index] for index in self.usual] if self.usual else noise.sets
        return [gaps[name] for gaps in measured if name in gaps]

    def _typical_of(self, noise: Noise, name: str) -> tuple[float, float]:
        """The median over the sets, relative to the norm and the scale of the reference in each.

        The greatest where the model rounds: what flips in one set stays as it is in another by
        chance.
        """
        key = (id(noise), name)
        if key not in self._typical:
            usual_sets = (
                [noise.sets[index] for index in self.usual] if self.usual else noise.sets
            )
            seen = []
            for gaps in usual_sets:
                if name in gaps and gaps[name].norm > 0:
                    seen.append(gaps[name])
            middle: Callable[[list[float]], float] = (
                max if self.floor.has_tail else statistics.median
            )
            self._typical[key] = (
                middle([gap.l2 / gap.norm for gap in seen]) if seen else 0.0,
                middle([gap.greatest / gap.scale for gap in seen]) if seen else 0.0,
            )
        return self._typical[key]


def _ulp(array: Array) -> float:
    """The distance from 1 to the next number of the array's type."""
    if not is_float(array):
        return _FLOAT32_ULP
    return float(ml_dtypes.finfo(array.dtype).eps)  # type: ignore[no-untyped-call]


def _is_within(departure: Measured, gap: Gap) -> bool:
    """Decide whether a departure is no more than a gap that noise makes."""
    within_l2 = departure.error <= (MOST_L2 * gap.l2) ** 2
    return within_l2 and departure.max_abs <= MOST_ELEMENT * gap.greatest
