"""The smallest model that fails as a large one does, and for the same cause.

Runs in the worker, which forks.

Nodes go first, by delta debugging: those left out are replaced by the values that they gave. Then
follow branches, dimensions, attributes, weights, inputs, types and opsets; each change stays where
a check passes, see :mod:`onnx_harness.diagnose.oracle`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_harness.diagnose import bodies, moves, pair_weights
from onnx_harness.diagnose.fault import Fault
from onnx_harness.diagnose.minimal import OutOfBudget, minimal_part
from onnx_harness.diagnose.oracle import Observer, Sign, same
from onnx_harness.diagnose.publish import publish
from onnx_harness.diagnose.smaller_case import Array, Case, copied, part_of
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.size import byte_size

_MOST_BYTES = 1 << 29
"""Of the values of all nodes, and of a model: larger ones aren't reduced."""
_MOST_GROUPS = 64
_MOST_INDICES = 64  # of an axis that a search goes through, and so many of its trials
_ROUNDS = 2
_SLOW = 20.0


@dataclass(frozen=True, slots=True)
class Reduced:
    """The smallest case.

    Attributes:
        case: the model and its input.
        whole: what was seen of the whole model.
        sign: what was seen of the smallest.
        checks: that it took.
        seconds: that they took.
        fault: the cause, under the names of the smallest case.
        kept: what is left in it of the whole model's names, weights and inputs, a line each, where
            they were to be replaced.
    """

    case: Case
    whole: Sign
    sign: Sign
    checks: int
    seconds: float
    fault: Fault
    kept: tuple[str, ...] = ()


@dataclass(slots=True)
class Reducer:
    """The state of a reduction.

    Attributes:
        case: the smallest so far.
        sign: what was seen of it.
        whole: what was seen of the whole.
    """

    observer: Observer
    case: Case
    whole: Sign
    sign: Sign
    ends: float
    limit: float
    checks: int = 1

    def takes(self, case: Case | None) -> bool:
        """Check a case, and keep it where it fails as the whole does.

        Raises:
            OutOfBudget: there is no time left.
        """
        sign = self._checked(case)
        if case is None or sign is None:
            return False
        self.case, self.sign = case, sign
        return True

    def takes_with(self, case: Case, fault: Fault) -> bool:
        """Check a case with another fault, and keep both where it fails as the whole does.

        Raises:
            OutOfBudget: there is no time left.
        """
        before, self.observer = self.observer, Observer(fault)
        fails = False
        try:
            fails = self.takes(case)
        finally:
            unused = before if fails else self.observer
            unused.close()
            if not fails:
                self.observer = before
        return fails

    def fails(self, case: Case | None) -> bool:
        """Check a case without keeping it."""
        return self._checked(case) is not None

    def _checked(self, case: Case | None) -> Sign | None:
        if time.monotonic() >= self.ends:
            raise OutOfBudget
        if case is None:
            return None
        self.checks += 1
        sign = self.observer.look(case, self.limit)
        return sign if same(self.whole, sign, self.observer.fault.halves) else None

    def first(self, cases: Iterable[Case]) -> bool:
        """Keep the first of the cases that fails; whether there is one."""
        return any(self.takes(case) for case in cases)

    def all(self, cases: Callable[[], Iterable[Case]]) -> None:
        """Keep one after another of the cases that fail."""
        while self.first(cases()):
            pass


def smallest(
    fault: Fault,
    case: Case,
    seconds: float,
    *,
    public: bool = False,
    limit: float | None = None,
    hints: Sequence[int] = (),
) -> Reduced | None:
    """Find the smallest case that fails for the same cause.

    Args:
        fault: the cause.
        case: the whole.
        seconds: that it may take.
        public: replace names, weights and inputs.
        limit: seconds after which a check counts as hanging.
        hints: positions of nodes that are suspected: they are tried first.

    Returns:
        The smallest case found in time; None where the whole doesn't fail in a check, or is too
        large.
    """
    started = time.monotonic()
    if sum(byte_size(model) for model in case.models) > _MOST_BYTES:
        return None
    case = Case(inline_functions(copied(case.model)), case.inputs, case.other)
    limit = min(_SLOW, seconds) if limit is None else limit
    whole = _first_look(case, fault, limit)
    if whole is None or not whole.fails:
        return None
    reducer = Reducer(Observer(fault), case, whole, whole, started + seconds, limit)
    stays: tuple[str, ...] = ()
    try:
        with contextlib.suppress(OutOfBudget):
            _reduce(reducer, hints)
        if public:
            reducer.ends = max(reducer.ends, time.monotonic() + _SLOW)
            stays = publish(reducer)
    finally:
        reducer.observer.close()
    taken = time.monotonic() - started
    return Reduced(
        reducer.case,
        whole,
        reducer.sign,
        reducer.checks,
        taken,
        reducer.observer.fault,
        stays,
    )


def _first_look(case: Case, fault: Fault, limit: float) -> Sign | None:
    observer = Observer(fault)
    try:
        return observer.look(case, limit)
    finally:
        observer.close()


def _reduce(reducer: Reducer, hints: Sequence[int]) -> None:
    _nodes(reducer, hints)
    while reducer.first(_without_bodies(reducer)):
        _nodes(reducer, ())
    for _ in range(_ROUNDS):
        before = reducer.case
        reducer.all(lambda: moves.bypasses(reducer.case, _values(reducer)))
        _each(reducer, bodies.bypasses)
        _dimensions(reducer)
        _each(reducer, moves.attributes)
        _weights(reducer)
        _inputs(reducer)
        reducer.first(moves.in_float32(reducer.case))
        if reducer.case is before:
            break
    reducer.first([moves.tidy(reducer.case)])
    reducer.first(moves.opsets(reducer.case))


def _without_bodies(reducer: Reducer) -> Iterator[Case]:
    """Yield the case with a branch in the place of its If, an iteration in that of its loop."""
    yield from moves.branches(reducer.case, _values(reducer))
    yield from bodies.unrolled(reducer.case)


def _each(reducer: Reducer, cases: Callable[[Case], Iterable[Case]]) -> None:
    """Keep what fails among the changes of the case, each tried once."""
    refused = 0
    while True:
        tried = list(cases(reducer.case))[refused:]
        for case in tried:
            if reducer.takes(case):
                break
            refused += 1
        else:
            return


def _values(reducer: Reducer) -> dict[str, Array]:
    """Return what the case computes, its inputs and its weights, by name."""
    case = reducer.case
    weights = {}
    for tensor in case.model.graph.initializer:
        weights[tensor.name] = onnx.numpy_helper.to_array(tensor)
    return {**weights, **reducer.observer.compute(case, _SLOW), **case.inputs}


def _nodes(reducer: Reducer, hints: Sequence[int]) -> None:
    """Reduce the nodes to a set that fails, and doesn't without any one of its members."""
    if reducer.case.other is not None:
        return
    model = reducer.case.model
    if len(model.graph.node) < 2:
        return
    values = _values(reducer)
    cases: dict[tuple[int, ...], Case | None] = {}

    def fails(chosen: tuple[int, ...]) -> bool:
        cases[chosen] = part_of(model, chosen, values) if chosen else None
        return reducer.takes(cases[chosen])

    guesses = [tuple(sorted(hints))] if hints else []
    minimal_part(range(len(model.graph.node)), fails, passes_empty=True, guesses=guesses)


def _dimensions(reducer: Reducer) -> None:
    reducer.first(moves.first_axis(reducer.case))
    for size in moves.sizes(reducer.case):
        original = reducer.case
        few = (
            moves.shrunk(original, size, range(count)) for count in (1, 2, 3) if count < size
        )
        if not reducer.first(few) and not _indices(reducer, size):
            reducer.takes(moves.shrunk(original, size, range(size // 2)))


def _indices(reducer: Reducer, size: int) -> bool:
    """Leave the indices of an axis that matter, whichever they are; whether any could go."""
    if size > _MOST_INDICES:
        return False
    original, trials = reducer.case, 0

    def fails(chosen: tuple[int, ...]) -> bool:
        nonlocal trials
        trials += 1
        if trials > _MOST_INDICES:
            raise OutOfBudget
        return reducer.takes(moves.shrunk(original, size, chosen))

    minimal_part(range(size), fails, passes_empty=True)
    return reducer.case is not original


def _weights(reducer: Reducer) -> None:
    for name in moves.weights(reducer.case):
        array = moves.weight(reducer.case, name)
        if array.size and np.unique(array).size > 1:
            simpler = []
            for plain in moves.plain(array):
                if not np.array_equal(plain, array):
                    simpler.append(plain)
            reducer.first(moves.with_weight(reducer.case, name, plain) for plain in simpler)
    for name in pair_weights.differing(reducer.case):
        _pair(reducer, name)


def _pair(reducer: Reducer, name: str) -> None:
    """Reduce a weight in which two models differ: the places first, then the values."""
    original = reducer.case
    if reducer.takes(pair_weights.differing_at(original, name, ())):
        return
    places = pair_weights.places(original, name)
    groups = np.array_split(np.array(places), min(len(places), _MOST_GROUPS))

    def fails(chosen: tuple[int, ...]) -> bool:
        differing = [int(place) for number in chosen for place in groups[number]]
        return reducer.takes(pair_weights.differing_at(original, name, differing))

    minimal_part(range(len(groups)), fails, passes_empty=True)
    reducer.first(pair_weights.simpler(reducer.case, name))


def _inputs(reducer: Reducer) -> None:
    """Leave one element of the inputs where that is enough, in plain numbers where that is."""
    for name, array in list(reducer.case.inputs.items()):
        if array.dtype.kind != "f" or not array.size:
            continue
        if reducer.first(
            moves.with_input(reducer.case, name, plain) for plain in _plain_inputs(array)
        ):
            array = reducer.case.inputs[name]
        places = [int(place) for place in np.flatnonzero(array.reshape(-1))]
        if 1 < len(places) <= _MOST_GROUPS:
            _elements(reducer, name, array, places)


def _plain_inputs(array: Array) -> list[Array]:
    if np.unique(array).size <= 1:
        return []
    return list(moves.plain(array))[1:5]


def _elements(reducer: Reducer, name: str, array: Array, places: Sequence[int]) -> None:
    def fails(chosen: tuple[int, ...]) -> bool:
        return reducer.takes(moves.with_input(reducer.case, name, moves.only(array, chosen)))

    minimal_part(places, fails)
