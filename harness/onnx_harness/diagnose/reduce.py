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

from onnx_harness.diagnose import bodies, moves, strings
from onnx_harness.diagnose.fault import Fault
from onnx_harness.diagnose.minimal import OutOfBudget, minimal_part
from onnx_harness.diagnose.oracle import Observer, Sign, same
from onnx_harness.diagnose.smaller_case import Array, Case, copied, part_of
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.size import byte_size

_MOST_BYTES = 1 << 29
"""Of the values of all nodes, and of a model: larger ones aren't reduced."""
_MOST_GROUPS = 64
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
        replaced: whether no weight nor input of the whole model is left in it.
    """

    case: Case
    whole: Sign
    sign: Sign
    checks: int
    seconds: float
    replaced: bool = False


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
    observer = Observer(fault)
    try:
        limit = min(_SLOW, seconds) if limit is None else limit
        whole = observer.look(case, limit)
        if whole is None or not whole.fails:
            return None
        reducer = Reducer(observer, case, whole, whole, started + seconds, limit)
        replaced = _reduced(reducer, hints, public)
    finally:
        observer.close()
    taken = time.monotonic() - started
    return Reduced(reducer.case, whole, reducer.sign, reducer.checks, taken, replaced)


def _reduced(reducer: Reducer, hints: Sequence[int], public: bool) -> bool:
    """Reduce as far as time allows; whether the weights and inputs that are left were replaced."""
    with contextlib.suppress(OutOfBudget):
        _reduce(reducer, hints)
    if not public:
        return False
    reducer.ends = max(reducer.ends, time.monotonic() + _SLOW)
    try:
        return _publish(reducer)
    except OutOfBudget:
        return False


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
        for smaller in (1, 2, 3, size // 2):
            if 0 < smaller < size and reducer.takes(moves.shrunk(reducer.case, size, smaller)):
                break


def _weights(reducer: Reducer) -> None:
    for name in moves.weights(reducer.case):
        array = moves.weight(reducer.case, name)
        if array.size and np.unique(array).size > 1:
            simpler = []
            for plain in moves.plain(array):
                if not np.array_equal(plain, array):
                    simpler.append(plain)
            reducer.first(moves.with_weight(reducer.case, name, plain) for plain in simpler)


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


def _publish(reducer: Reducer) -> bool:
    """Replace names, weights and inputs by what says nothing.

    Whether every weight and input could be.
    """
    replaced = True
    for number, name in enumerate(moves.weights(reducer.case)):
        array = moves.weight(reducer.case, name)
        if not _says_nothing(array):
            drawn = moves.replacements(array, number)
            smaller = []
            for replacement in drawn:
                smaller.append(moves.with_weight(reducer.case, name, replacement))
            replaced &= reducer.first(smaller)
    for number, (name, array) in enumerate(list(reducer.case.inputs.items())):
        if array.dtype.kind == "f" and not _says_nothing(array):
            drawn = moves.replacements(array, number)
            others = []
            for replacement in drawn:
                others.append(moves.with_input(reducer.case, name, replacement))
            replaced &= reducer.first(others)
    if strings.has_strings(reducer.case):
        replaced &= reducer.takes(strings.replaced_strings(reducer.case))
    if not reducer.takes(moves.anonymous(reducer.case)):  # where names are what it takes
        return False
    return replaced


def _says_nothing(array: Array) -> bool:
    """Return whether an array holds nothing but zeros and ones."""
    return bool(np.isin(np.abs(array), (0, 1)).all())
