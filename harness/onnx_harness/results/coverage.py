"""Records of what the inputs of a model reach, and of planted faults that are noticed."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_harness.results.known import KnownRecord as KnownRecord


@dataclass(frozen=True, slots=True)
class Reached:
    """The number of things of a kind that the inputs reach, of all that the model has."""

    reached: int
    total: int


@dataclass(frozen=True, slots=True)
class CoverageRecord:
    """The places that the input sets of a cell reach, of those by which its model decides.

    Attributes:
        kinds: by kind: ``leaves`` of trees, ``thresholds`` of trees with rows next to them on
            either side, ``keys`` of tables, ``words`` (the n-grams of vocabularies); ``sides of
            comparisons`` and ``branches`` of If, two each, and ``inputs that matter``, whose value
            changes an output. What a model hasn't got is missing.
        notes: what couldn't be followed back to an input, a sentence each.
    """

    kinds: dict[str, Reached]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FaultCount:
    """Faults of one kind, as in :class:`SensitivityRecord`."""

    planted: int
    caught: int
    equivalent: int


@dataclass(frozen=True, slots=True)
class SensitivityRecord:
    """The fate of the faults that were planted in the transformed model.

    Attributes:
        planted: faults, each in a copy of its own.
        caught: those that made the cell fail.
        broken: of the caught, those that ONNX Runtime didn't even open or run.
        equivalent: those that change nothing beyond noise on the verdict's input sets and on
            others.
        missed: the rest, a sentence each.
        score: caught / (planted - equivalent); None when nothing was left to catch.
        smallest_change: the smallest relative change of a single weight that was seen to be caught;
            None when none was, up to twice the weight.
        smallest_change_of: that weight.
        kinds: the counts by kind of fault.
        seconds: that all of it took.
    """

    planted: int
    caught: int
    broken: int
    equivalent: int
    missed: tuple[str, ...]
    score: float | None
    smallest_change: float | None
    smallest_change_of: str | None
    kinds: dict[str, FaultCount]
    seconds: float
