"""Mend a cell that ends before its values are compared: what is offered was judged, and passes.

A library's conversion may raise, make no valid model, or one that no session takes. In its place
this package's own is judged, as a cell is. Of a step of this package, the passes or rules are
looked for that it has to leave out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from onnx_harness.cell import artifacts
from onnx_harness.cell.int8_mends import int8_mend_of
from onnx_harness.cell.state import CellEnded, Judged, Subject, Task, Way
from onnx_harness.errors import DiedBefore, UsageError, first_line
from onnx_harness.isolate import risking
from onnx_harness.judging.mends import is_of_library, mend_of, quoted, spelled
from onnx_harness.judging.mixed.search import smallest_set
from onnx_harness.names import Step, Variant, parse_variant
from onnx_harness.results.cache import Cache
from onnx_harness.results.cells import Stage, Status, Symptom
from onnx_harness.transforms import BoundStep, Precision
from onnx_harness.transforms.ort import LEVELS, PREFIX

_HALVES = frozenset({Precision.FP16, Precision.BF16})
_BEFORE_VALUES = (Stage.TRANSFORM, Stage.CHECK, Stage.SESSION, Stage.RUN)
_MADE_ALREADY = (Stage.SESSION, Stage.RUN)
_OF_SESSION = (*_MADE_ALREADY, Stage.COMPARE)
_SIMPLIFY, _SKIPPED, _PEERS = "simplify", "skipped_optimizers", "peers"
_MOST_BYTES = 1 << 28  # a larger model takes longer than a person waits for advice
_MOST_SECONDS = 20.0  # after these no further variant is tried
_NAMED = 5


# The spelling of a variant that passes, and a line on it.
Found = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Offer:
    """A variant to judge.

    Attributes:
        variant: the chain.
        why: what a reader should know of it.
    """

    variant: Variant
    why: str

    def found(self) -> Found:
        """Return it as what was found."""
        spelling = spelled(self.variant)
        return spelling, f"mend: `--variant {quoted(spelling)}` {self.why}"


def tried_early_mend(
    way: Way, subject: Subject, cache: Cache, judge: Callable[[Task], Judged]
) -> str:
    """Return a line on a variant that passes where a cell fails before its values are compared.

    Meant for the worker, after the failure. See `early_mend_of`.
    """
    return early_mend_of(way, subject, cache, judge)[1]


def early_mend_of(
    way: Way, subject: Subject, cache: Cache, judge: Callable[[Task], Judged]
) -> tuple[str | None, str]:
    """Return the spelling of a variant that passes where a cell fails, and a line on it.

    Args:
        way: the cell, at the stage that it ended at.
        subject: its model.
        cache: the cache.
        judge: judges a cell, and looks for no mend of that.

    Returns:
        The spelling is None where none was found; the line is empty where nothing was tried.
    """
    card = way.task.cell.card
    if card.suite or not way.task.explained or subject.model.size_bytes > _MOST_BYTES:
        return None, ""
    variant = way.task.cell.variant
    try:
        with risking(f"mend at {way.stage} {variant.spelling} {subject.model.sha256[:16]}"):
            return _Mending(way, subject, cache, judge).find()
    except DiedBefore as error:
        return None, f"No mend is offered: {error}"
    except Exception as error:  # what a library raises has no common class
        return None, f"No mend is offered: {first_line(error, 160)}"


def may_be_mended(way: Way, end: CellEnded) -> bool:
    """Return whether a cell's end is one that another variant may not have."""
    if end.status is Status.NOT_APPLICABLE:  # for want of kernels of the type
        return way.stage is Stage.SESSION and way.bound.precision in _HALVES
    # What was asked for in vain is mended by asking otherwise.
    asked_in_vain = isinstance(end.__cause__, UsageError)
    if end.status is not Status.FAIL or end.starved or asked_in_vain:
        return False
    if way.stage in _BEFORE_VALUES:
        return True
    wrong = end.symptom in (Symptom.WRONG_VALUES, Symptom.CHANGED_TYPES)
    # Of narrower types, the compare stage has mends of its own.
    return way.stage is Stage.COMPARE and wrong and way.bound.precision is Precision.FP32


class _Mending:
    """The variants that are tried for one cell, the likeliest first."""

    def __init__(
        self, way: Way, subject: Subject, cache: Cache, judge: Callable[[Task], Judged]
    ) -> None:
        self._way = way
        self._subject = subject
        self._cache = cache
        self._judge = judge
        self._started = time.monotonic()
        self._failures: list[str] = []

    def find(self) -> tuple[str | None, str]:
        """Return the first that passes, or what was tried in vain."""
        searches = (
            self._of_half,
            self._of_int8,
            self._of_peers,
            self._of_level,
            self._of_parts,
        )
        for search in searches:
            if self._is_late():
                break
            mend = search()
            if mend is not None:
                return mend
        if not self._failures:
            return None, ""
        return None, f"No mend was found: {'; '.join(dict.fromkeys(self._failures))}"

    def _of_half(self) -> Found | None:
        """Another conversion to a half type."""
        converting = [step for step in self._steps if step.transform.precision in _HALVES]
        made = self._way.stage in _MADE_ALREADY
        if not converting or not (made or any(map(is_of_library, converting))):
            return None
        standard = artifacts.judged_by(self._way, self._subject, self._cache)
        return self._verified(*mend_of(standard, self._way.bound, self._subject.model))

    def _of_int8(self) -> Found | None:
        """Another quantization."""
        precisions = {step.transform.precision for step in self._steps}
        if Precision.INT8 not in precisions or not precisions.isdisjoint(_HALVES):
            return None
        return self._verified(*int8_mend_of(self._way, self._subject, self._cache))

    def _verified(self, spelling: str | None, words: str) -> Found | None:
        """Return a variant that passes when it's judged as a cell; else nothing."""
        if spelling is None:
            if words:
                self._failures.append(words.partition(": ")[2])
            return None
        if self._passes(parse_variant(spelling)):
            return spelling, words
        return None

    def _of_peers(self) -> Found | None:
        """``simplify`` in the place of another library's optimizer."""
        for offer in self._in_place_of_peers():
            if self._passes(offer.variant):
                return offer.found()
        return None

    def _in_place_of_peers(self) -> Iterator[_Offer]:
        steps = self._way.bound.variant.steps
        for place, step in enumerate(self._steps):
            if (
                step.transform.precision is Precision.FP32
                and _PEERS in step.transform.groups
            ):
                chain = (*steps[:place], Step(_SIMPLIFY), *steps[place + 1 :])
                yield _Offer(
                    Variant("", chain), f"passes: {_SIMPLIFY} in the place of {step.name}"
                )

    def _of_level(self) -> Found | None:
        """The highest level of ONNX Runtime's that is right, where its optimizer is at fault."""
        if (
            self._way.stage not in _OF_SESSION
            or self._way.bound.precision is not Precision.FP32
        ):
            return None
        lower = LEVELS[: LEVELS.index(self._way.bound.level)]
        if not lower or not self._passes(self._at_level(lower[0]), noted=False):
            return None
        for level in reversed(lower):
            variant = self._at_level(level)
            if level == lower[0] or self._passes(variant, noted=False):
                why = f"passes: ONNX Runtime's optimizations above '{level}' are off"
                return _Offer(variant, why).found()
        return None

    def _at_level(self, level: str) -> Variant:
        steps = self._way.bound.variant.steps
        changing = tuple(step for step in steps if not step.name.startswith(PREFIX))
        return Variant("", (*changing, Step(f"{PREFIX}{level}")))

    def _of_parts(self) -> Found | None:
        """A step of ours without the passes or rules that it fails by."""
        for place, step in enumerate(self._steps):
            if _SKIPPED not in step.transform.options or step.transform.parts is None:
                continue
            model = self._subject.model.load()
            names = tuple(step.transform.parts.names(model, step.options))
            left_out = self._least_left_out(place, names)
            if left_out:
                why = f"passes: without {', '.join(left_out[:_NAMED])}"
                if len(left_out) > _NAMED:
                    why += f" and {len(left_out) - _NAMED} more"
                return _Offer(self._without(place, left_out), why).found()
        return None

    def _least_left_out(self, place: int, names: Sequence[str]) -> tuple[str, ...]:
        """Return the fewest parts of a step without which the cell passes; none if it doesn't."""

        def passes(chosen: frozenset[int]) -> bool:
            left_out = tuple(names[at] for at in sorted(chosen))
            return self._passes(self._without(place, left_out), noted=False)

        equal = [1.0] * len(names)
        searched = None
        if names:
            searched = smallest_set(passes, equal, equal, self._is_late)
        if searched is None:
            name = self._steps[place].name
            self._failures.append(f"{name} fails whatever it leaves out")
            return ()
        return tuple(names[at] for at in sorted(searched.nodes))

    def _without(self, place: int, left_out: tuple[str, ...]) -> Variant:
        steps = self._way.bound.variant.steps
        written = dict(steps[place].options)
        already = written.get(_SKIPPED, ())
        if not isinstance(already, tuple):
            already = ()
        options = {**written, _SKIPPED: (*already, *left_out)}
        step = replace(steps[place], options=tuple(sorted(options.items())))
        return Variant("", (*steps[:place], step, *steps[place + 1 :]))

    def _passes(self, variant: Variant, *, noted: bool = True) -> bool:
        """Judge a variant as a cell is."""
        task = self._way.task
        task = replace(task, cell=replace(task.cell, variant=variant))
        result = self._judge(task).result
        if result.status is Status.PASS:
            return True
        words = f"{spelled(variant)}: {result.reason}"
        if result.status is Status.FAIL:
            words = f"{spelled(variant)} fails too, at {result.stage}"
        if noted:
            self._failures.append(words)
        return False

    @property
    def _steps(self) -> tuple[BoundStep, ...]:
        return self._way.bound.steps

    def _is_late(self) -> bool:
        return time.monotonic() - self._started > _MOST_SECONDS
