"""One output's distance from the reference, gathered over the input sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

from onnx_harness.accuracy.explain import MOST_L2, Bound
from onnx_harness.accuracy.failures import Check, OutputFailure, Question
from onnx_harness.accuracy.magnitudes import Magnitude
from onnx_harness.accuracy.measure import (
    Array,
    Measured,
    is_float,
    is_text,
    real_parts,
    same_bits,
)
from onnx_harness.accuracy.sketch import Sketch
from onnx_harness.accuracy.tolerance import Tolerance
from onnx_harness.results.cells import Departure, OutputAccuracy

# Sums of one and the same numbers in another order, as other sizes cause them, differ by a few last
# bits.
_ULPS = 16
# Of a type with few bits that many steps are larger than its numbers, and only one is rounding: the
# sums were float32 before.
_MOST_OF_SCALE = 0.125


@dataclass(slots=True)
class Total:
    """The worst figures so far of one flattened output, and whether comparing it could have failed.

    Attributes:
        mismatched: in some set it couldn't be compared: missing, or another kind, dtype or shape.
        absent: in some set it's an absent optional on both sides.
        greatest_atol: over the sets; what a single atol for all of them would have to be.
        usual_scale: its greatest finite magnitude over the usual input sets so far.
        magnitude: what its sets of few elements say together; None where they hold many.
        forgiven: elements that aren't floating-point and differ, and how many the ideal conversion
            changes, in the set with most of them; None where none was let pass for that.
    """

    tolerance: Tolerance
    mismatched: bool = False
    absent: bool = False
    greatest_atol: float = 0.0
    usual_scale: float = 0.0
    forgiven: tuple[int, int] | None = None
    magnitude: Magnitude | None = None
    _max_abs: float | None = None
    _max_rel: float | None = None
    _rel_l2: float | None = 0.0
    _cosine: float | None = None
    _sqnr_db: float | None = None
    _nonfinite: int = 0
    _minimum: float = 0.0
    _bounds: tuple[float, float] | None = None
    _seen: int = 0
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _labels: Sequence[str] = ()
    _first: Array | None = None
    _widest: Array | None = None
    _differs: bool = False
    _moves: bool = False
    _empty: int = 0
    _constant: int = 0
    _nowhere_finite: int = 0
    _explained: bool = False
    _exact: bool = True
    _noise: bool = True
    _faithful: bool = True
    _usable: bool = True
    _floor: float | None = None
    _ideal: float | None = None
    _factor: float | None = None
    _sketch: Sketch | None = None

    def see(
        self,
        reference: Array,
        scale: float,
        constant: bool,
        sizes: str | None = None,
        labels: Sequence[str] = (),
    ) -> None:
        """Look at the reference's tensor in one more set: does it say anything?

        Args:
            reference: the tensor.
            scale: its greatest finite magnitude.
            constant: whether all of its elements are alike.
            sizes: the shapes of the inputs; None where they aren't known. Where they're equal and
                the output's shape isn't, its shape follows what the inputs hold.
            labels: of its elements: keys of maps that follow the inputs are a trace of them.
        """
        self._labels = self._labels or labels
        self._moves |= any(
            first != now for first, now in zip(self._labels, labels, strict=False)
        )
        if sizes is not None:
            self._moves |= self._shapes.setdefault(sizes, reference.shape) != reference.shape
        self._seen += 1
        if self._first is None or self._first.size == 0:
            self._first = reference  # nothing overlaps with what is empty
        elif not self._moves:
            self._differs = self._differs or not same_bits(self._first, reference)
            # The first set is often the smallest: what a rare class says outside of it shows beside
            # a larger one.
            self._moves = self._differs and any(
                _reacts(seen, reference)
                for seen in (self._first, self._widest)
                if seen is not None
            )
        if self._widest is None or reference.size > self._widest.size:
            self._widest = reference
        self._empty += reference.size == 0
        self._constant += constant and reference.size > 1
        self._nowhere_finite += (
            scale == 0
            and reference.size > 0
            and is_float(reference)
            and not _any_finite(reference)
        )

    def add(
        self,
        reference: Array,
        departure: Measured,
        problems: Sequence[OutputFailure],
        bound: Bound | None,
    ) -> None:
        """Add the figures of one more set.

        Those are the checks that failed in it, and what explains its departure.
        """
        # That a departure isn't explained is another question than which tolerance would do.
        hopeless = any(
            problem.minimum_tolerance is None
            for problem in problems
            if problem.check is not Check.FAITHFUL
        )
        if bound is not None:
            self._explain(reference, departure, problems, bound)
        elif problems:
            self._usable = False
        self._nonfinite += departure.nonfinite
        if self._sketch is not None and departure.sketch is not None:
            self._sketch.join(departure.sketch)
        self._sketch = self._sketch or departure.sketch
        self.greatest_atol = max(self.greatest_atol, departure.atol)
        by_norm = is_float(reference) and not self.tolerance.elementwise
        minimum = departure.rel_l2 if by_norm else departure.minimum_tolerance
        minimum = math.inf if hopeless or minimum is None else minimum
        if self._bounds is None or minimum > self._minimum:
            self._minimum = minimum
            self._bounds = (
                self._norm_bounds() if by_norm else (departure.rtol, departure.atol)
            )
        if departure.finite == 0 or is_text(reference):
            return
        self._max_abs = _worst(self._max_abs, departure.max_abs)
        self._max_rel = _worst(self._max_rel, departure.max_rel)
        # A relative error that doesn't exist in one set is worse than any that does.
        self._rel_l2 = (
            None
            if self._rel_l2 is None or departure.rel_l2 is None
            else max(self._rel_l2, departure.rel_l2)
        )
        self._cosine = _least(self._cosine, departure.cosine)
        self._sqnr_db = _least(self._sqnr_db, departure.sqnr_db)

    def refute(self) -> None:
        """Take back that its flips are noise: there are too many of them."""
        self._faithful = self._noise = False

    def accuracy(self, vacuous: str | None) -> OutputAccuracy:
        """The record of this output."""
        measured = self._max_abs is not None
        minimum = (
            self._minimum if not self.mismatched and math.isfinite(self._minimum) else None
        )
        rtol, atol = self._bounds or (self.tolerance.rtol, self.tolerance.atol or 0.0)
        return OutputAccuracy(
            max_abs=_finite(self._max_abs),
            max_rel=_finite(self._max_rel),
            rel_l2=self._rel_l2 if measured else None,
            cosine=self._cosine,
            sqnr_db=self._sqnr_db,
            nonfinite=self._nonfinite,
            minimum_tolerance=minimum,
            rtol=rtol,
            atol=atol,
            vacuous=vacuous,
            departure=self._departure,
            floor_rel_l2=self._floor,
            ideal_rel_l2=self._ideal,
            factor=_finite(self._factor),
            faithful=self._faithful and not self.mismatched if self._explained else None,
            usable=self._usable and not self.mismatched if self._explained else None,
            errors=None if self._sketch is None else self._sketch.record(),
        )

    @property
    def _departure(self) -> Departure | None:
        if not self._explained:
            return None
        if self.mismatched:
            return Departure.CHANGE
        if self._exact:
            return Departure.EXACT
        return Departure.NOISE if self._noise else Departure.CHANGE

    def _explain(
        self,
        reference: Array,
        departure: Measured,
        problems: Sequence[OutputFailure],
        bound: Bound,
    ) -> None:
        self._explained = True
        self._exact = self._exact and departure.equal
        questions = {problem.question for problem in problems}
        self._faithful = self._faithful and Question.FAITHFUL not in questions
        self._usable = self._usable and Question.USABLE not in questions
        if not is_float(reference):
            self._noise = self._noise and departure.equal
            changed = round(bound.most_changed / MOST_L2)
            if departure.beyond and changed and not problems:
                most = departure.beyond, changed
                self.forgiven = max(self.forgiven or most, most)
            return
        self._noise = self._noise and (departure.equal or bound.is_noise(departure))
        if bound.norm > 0:
            self._floor = _worst(self._floor, bound.floor.l2 / bound.factor / bound.norm)
            if bound.ideal is not None:
                self._ideal = _worst(self._ideal, bound.ideal.l2 / bound.norm)
        self._factor = _worst(self._factor, bound.times(departure))

    def vacuous(self, input_sets: int, inputs_differ: bool) -> str | None:
        """Why comparing this output couldn't have failed, as a predicate; None if it could."""
        everywhere = "in every input set" if input_sets > 1 else "in the one input set"
        if self._seen == 0:
            return f"is absent {everywhere}" if self.absent else None
        if self._empty == self._seen:
            # An element of a sequence that only one set is long enough for says nothing of the
            # others.
            return f"is empty {everywhere}" if self._seen >= input_sets else None
        if self._nowhere_finite == self._seen:
            return f"is NaN or infinite throughout {everywhere}"
        if self._seen > 1 and not self._moves and inputs_differ:
            if not self._differs:
                return f"is identical for all {self._seen} input sets"
            if self._first is not None and not is_float(self._first):
                return f"differs in nothing but its size over all {self._seen} input sets"
            return f"moves by less than its own resolution over all {self._seen} input sets"
        if self._constant == self._seen:
            return f"has one and the same value throughout {everywhere}"
        return None

    def inert(self, inputs_differ: bool, input_sets: int) -> bool:
        """Decide whether the inputs leave no trace in this output.

        It's absent, empty, never moving, or nowhere finite in one set.

        With inputs that are all alike there's nothing that it could react to, and it isn't called
        inert. Infinities whose sign follows the inputs are a trace. That a sequence is long enough
        for an element in one set alone is a matter of sizes, and none.

        Args:
            inputs_differ: whether the input sets do.
            input_sets: how many there are.
        """
        if not inputs_differ or self.mismatched:
            return False
        if self._seen > 1:
            return not self._moves
        if self._seen == 1 < input_sets and not self.absent:
            return True
        return self._empty == self._seen or self._nowhere_finite == self._seen

    def _norm_bounds(self) -> tuple[float, float]:
        """A demand in decibels as what it is: a bound on the relative L2 error, 10^(-dB/20)."""
        return 10 ** (-(self.tolerance.sqnr_db or 0.0) / 20), 0.0


def _reacts(first: Array, second: Array) -> bool:
    """Decide whether an output moves between two input sets by more than its own resolution.

    That is _ULPS steps of its dtype, or one where they're too large.

    What grows with an input's size says nothing about its values, so arrays of different sizes are
    held against each other where they overlap.
    """
    if first.ndim != second.ndim:
        return True
    overlap = tuple(slice(min(pair)) for pair in zip(first.shape, second.shape, strict=True))
    first_overlap, second_overlap = first[overlap], second[overlap]
    if not is_float(first_overlap):
        return not same_bits(first_overlap, second_overlap)
    first_wide = real_parts(first_overlap.ravel()).astype(np.float64)
    second_wide = real_parts(second_overlap.ravel()).astype(np.float64)
    for is_kind in (np.isnan, np.isposinf, np.isneginf):
        if (is_kind(first_wide) != is_kind(second_wide)).any():
            return True
    finite = np.isfinite(first_wide)
    if not finite.any():
        return False
    first_finite, second_finite = first_wide[finite], second_wide[finite]
    scale = np.abs([first_finite, second_finite]).max()
    step = _step(first_overlap)
    resolution = min(_ULPS * step, max(_MOST_OF_SCALE, step))
    return bool(np.abs(first_finite - second_finite).max() > resolution * scale)


def _step(array: Array) -> float:
    """The distance from 1 to the next number of the array's dtype."""
    return float(ml_dtypes.finfo(array.real.dtype).eps)  # type: ignore[no-untyped-call]


def _any_finite(array: Array) -> bool:
    return bool(np.isfinite(real_parts(array.ravel())).any())


def _worst(previous: float | None, new: float | None) -> float | None:
    if previous is None or new is None:
        return new if previous is None else previous
    return max(previous, new)


def _least(previous: float | None, new: float | None) -> float | None:
    if previous is None or new is None:
        return new if previous is None else previous
    return min(previous, new)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
