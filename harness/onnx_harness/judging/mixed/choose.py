"""The nodes that a conversion to a half type keeps in float32.

Surveyed, searched for, verified on the real model.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_harness import providers
from onnx_harness.errors import NotApplicable
from onnx_harness.isolate import noting
from onnx_harness.judging.emulation import half_verdict
from onnx_harness.judging.mixed.account import MOST_RUNS, RESERVED, UNLIMITED, Account, Effort, Mix
from onnx_harness.judging.mixed.quantized import find_floats
from onnx_harness.judging.mixed.search import Found, smallest_set
from onnx_harness.judging.mixed.source import Source
from onnx_harness.judging.mixed.survey import FOUND as SURVEY
from onnx_harness.judging.mixed.survey import NodeSurvey, node_times, read, surveyed
from onnx_harness.judging.mixed.switches import MASK, Switched, atoms_of, switched, through_moves
from onnx_harness.judging.standard import Standard
from onnx_harness.judging.verdict import verdict
from onnx_harness.model.file import Model
from onnx_harness.model.ops import MOVES
from onnx_harness.providers.running import run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.transforms.half.graph import Step
from onnx_harness.transforms.half.mixed import MixedConversion
from onnx_harness.transforms.half.plan import Plan
from onnx_harness.transforms.half.schemas import FLOAT16
from onnx_harness.transforms.quantization.mixed import QuantizedConversion

if TYPE_CHECKING:
    import onnxruntime as ort

# Roundings that a node is worth, where there's nothing else to choose by: at least these, and at
# least these next.
_MORE_RUNS = 30  # where what is enough on one input set isn't on another
_SUSPECT = (30.0, 6.0)
_UNITS = {FLOAT16: 2.0**-11}
_BFLOAT16_UNIT = 2.0**-8
# A Cast reads and writes what its node does: of a node that only moves memory it is as much again.
_CAST_PRICE = 0.5


def chooser(
    standard: Standard,
    say: Callable[[str], None],
    chosen: list[Mix] | None = None,
    effort: Effort = UNLIMITED,
) -> Callable[[MixedConversion | QuantizedConversion], Sequence[str]]:
    """Return what chooses the nodes of a conversion by verdicts.

    Args:
        standard: what the outputs are judged by.
        say: takes a remark on the result.
        chosen: gets what was found.
        effort: what the search may cost.
    """

    def choose(conversion: MixedConversion | QuantizedConversion) -> Sequence[str]:
        mix = find_mix(standard, conversion, effort)
        if chosen is not None:
            chosen.append(mix)
        for sentence in mix.sentences(conversion.spelling):
            say(sentence)
        return mix.names

    return choose


def find_mix(
    standard: Standard,
    conversion: MixedConversion | QuantizedConversion,
    effort: Effort = UNLIMITED,
) -> Mix:
    """Find the nodes that a conversion keeps in float32.

    With them the converted model is faithful and usable.

    Args:
        standard: what the outputs are judged by.
        conversion: the conversion.
        effort: what the search may cost.

    Raises:
        NotApplicable: no set of nodes makes it so, or the model with switches isn't the model.
    """
    with tempfile.TemporaryDirectory(
        prefix="onnx-harness-mixed-", ignore_cleanup_errors=True
    ) as folder:
        source = Source(conversion.model, Path(folder))
        if isinstance(conversion, QuantizedConversion):
            return find_floats(standard, conversion, source, effort)
        return _Mixing(standard, conversion, source, effort).find()


class _Mixing:
    """One search: its sessions, and what they have told."""

    def __init__(
        self, standard: Standard, conversion: MixedConversion, source: Source, effort: Effort
    ) -> None:
        self._standard = standard
        self._seconds = effort.seconds
        self._known_to_fail = effort.known_to_fail
        self._conversion = conversion
        self._source = source
        self._account = Account()
        self._sets = standard.reference.usual
        self._expected = [dict(standard.reference.outputs[place]) for place in self._sets]
        self._rounder = conversion.rounder(source.folder)
        self._unit = _UNITS.get(conversion.half, _BFLOAT16_UNIT)
        self._witnesses: list[int] = []
        self._exact = False
        self._corrections = 0
        self._most_runs = MOST_RUNS - RESERVED * len(self._sets)
        # Thousands of small nodes gain nothing by threads that wait for one another.
        self._threads = None if source.external else 1
        self._graph: Switched
        self._session: ort.InferenceSession

    def find(self) -> Mix:
        """Search, and verify."""
        self._open_switched()
        survey: tuple[NodeSurvey, ...] = ()
        chosen_nodes = Found(frozenset(), frozenset(), minimal=True)
        names: tuple[str, ...] = ()
        plain = not self._graph.labels
        if self._graph.labels:
            self._control()
            plain = self._plain_passes()
        if (
            plain or not self._known_to_fail
        ):  # the switches may see a little more than the conversion does
            plain = not self._fails(names)
        if not plain:
            survey = self._survey()
            chosen_nodes = self._search(survey) if self._witnesses else self._suspects(survey)
            names = self._verified(chosen_nodes)
        places = []
        for place, label in enumerate(self._graph.labels):
            if label in frozenset(names):
                places.append(place)
        nodes = self._graph.closed(places)
        account = self._account
        return Mix(
            names,
            len(nodes),
            len(self._graph.labels),
            sum(survey[place].time_share for place in nodes) if survey else 0.0,
            chosen_nodes.minimal and not self._corrections,
            self._exact,
            self._corrections,
            account.sessions,
            account.runs,
            account.seconds,
        )

    # The session with switches.

    def _plan(self) -> Plan:
        return self._conversion.plan(self._source.copy(), self._rounder)

    def _open_switched(self) -> None:
        plan = self._plan()
        try:
            self._graph = switched(plan, self._clamped)
        finally:
            plan.close()
        if not self._graph.labels:  # all that computes stays float32 already
            return
        self._session = self._open(self._source.openable(self._graph.model))

    def _clamped(self, tensor: onnx.TensorProto) -> onnx.TensorProto | None:
        """Return what the conversion makes of a weight that it clamps, as float32."""
        values = numpy_helper.to_array(tensor, str(self._source.folder))
        rounded = self._conversion.round(np.ascontiguousarray(values, np.float32).reshape(-1), [])
        if not rounded.raised and not rounded.lowered:
            return None
        return numpy_helper.from_array(
            rounded.array.astype(np.float32).reshape(values.shape), "clamped"
        )

    def _outputs(self, float32: Collection[int], at: int) -> dict[str, Any]:
        """Return the outputs on the usual input set at ``at`` with those nodes in float32."""
        self._account.runs += 1
        values = self._standard.reference.sets[self._sets[at]].values
        with noting(f"float32 search, run {self._account.runs}"), np.errstate(all="ignore"):
            return run(self._session, {**values, MASK: self._graph.mask(float32)})

    def _passes_on(self, float32: Collection[int], at: int) -> bool:
        return self._judged(self._outputs(float32, at), at)

    def _judged(self, outputs_made: Mapping[str, Any], at: int) -> bool:
        """Return whether outputs on one input set pass, the original's own on the others."""
        outputs: list[Mapping[str, Any]] = list(self._expected)
        outputs[at] = outputs_made
        return verdict(self._standard, outputs).passed

    def _plain_passes(self) -> bool:
        """Return whether nothing in float32 passes.

        Of the input sets on which it fails, the worst is the first witness.
        """
        everywhere = range(len(self._sets))
        outputs = [self._outputs((), at) for at in everywhere]
        failing = [at for at in everywhere if not self._judged(outputs[at], at)]
        if failing:
            worst = max(failing, key=lambda at: (_departure(outputs[at], self._expected[at]), -at))
            self._witnesses.append(worst)
        return not failing

    def _passes_everywhere(self, float32: Collection[int]) -> bool:
        """Return whether a mix passes on every usual input set.

        One on which it fails becomes a witness.
        """
        for at in sorted(range(len(self._sets)), key=lambda at: at not in self._witnesses):
            if not self._passes_on(float32, at):
                if at not in self._witnesses:
                    self._witnesses.append(at)
                return False
        return True

    def _passes(self, float32: frozenset[int]) -> bool:
        """Return whether a mix passes on the input sets that have told something yet."""
        return all(self._passes_on(float32, at) for at in self._witnesses)

    def _control(self) -> None:
        """Everything in float32 is the original: else what the switches say means nothing.

        Raises:
            NotApplicable: it isn't.
        """
        reason = self._departs()
        if (
            reason and self._threads is not None
        ):  # ONNX Runtime's LSTM gives other outputs on one thread
            self._threads = None
            self._session = self._open(self._source.openable(self._graph.model))
            reason = self._departs()
        if reason:
            raise NotApplicable(
                f"which nodes need float32 can't be found: with all of them in float32 the model "
                f"departs: {reason}"
            )

    def _departs(self) -> str:
        """Return why the outputs with everything in float32 are wrong.

        Nothing where they aren't.
        """
        everything = range(len(self._graph.labels))
        outputs = [self._outputs(everything, at) for at in range(len(self._sets))]
        self._exact = all(map(_all_same, outputs, self._expected))
        judged = None if self._exact else verdict(self._standard, outputs)
        return "" if judged is None or judged.passed else judged.reason or "the outputs differ"

    # The search.

    def _survey(self) -> tuple[NodeSurvey, ...]:
        """Survey the nodes on every usual input set, and time them on the first."""
        plan = self._plan()
        try:
            instrumented = surveyed(plan)
        finally:
            plan.close()
        losses: list[Any] = []
        times: dict[str, float] = {}
        if instrumented.values:
            # No sum of no elements, for one; ONNX Runtime's errors have no common class. A search
            # goes without.
            with contextlib.suppress(Exception):
                losses, times = self._surveyed(instrumented.model)
        plan = self._plan()
        try:
            return read(plan, instrumented.values, losses, times, self._unit)
        finally:
            plan.close()

    def _surveyed(self, model: onnx.ModelProto) -> tuple[list[Any], dict[str, float]]:
        profile = self._source.folder / "profile"
        session = self._open(self._source.openable(model), profile)
        losses: list[Any] = []
        times: dict[str, float] = {}
        for place in self._sets:
            self._account.runs += 1
            with noting(f"float32 search, survey {place + 1}"):
                losses.append(run(session, self._standard.reference.sets[place].values)[SURVEY])
            if not times:
                times = node_times(Path(session.end_profiling()))
        return losses, times

    def _search(self, survey: Sequence[NodeSurvey]) -> Found:
        """Search on the input sets that fail, and confirm on all of them.

        Raises:
            NotApplicable: no set of nodes makes the outputs right.
        """
        suspicion = [node_suspicion.suspicion for node_suspicion in survey]
        prices = self._prices(survey)
        while True:
            smallest = smallest_set(self._passes, suspicion, prices, self._spent)
            if smallest is None:
                raise NotApplicable(
                    "no node in float32 makes its outputs right: they fail with all of them in it"
                )
            witnesses = len(self._witnesses)
            if self._passes_everywhere(smallest.nodes) or len(self._witnesses) == witnesses:
                return smallest
            # What was enough for the others is where the search goes on, and it takes a little
            # longer.
            self._most_runs = max(self._most_runs, self._account.runs + _MORE_RUNS)
            suspicion = [
                node_suspicion + 1e30 * (place in smallest.nodes)
                for place, node_suspicion in enumerate(suspicion)
            ]

    def _suspects(self, survey: Sequence[NodeSurvey]) -> Found:
        """Return the suspects, where the converted model fails and its switches don't say why."""
        chosen = []
        for cut in _SUSPECT:
            places = set()
            for place, node_survey in enumerate(survey):
                if node_survey.suspicion >= cut:
                    places.add(place)
            chosen.append(frozenset(places))
        return Found(chosen[0], chosen[1], minimal=False)

    def _prices(self, survey: Sequence[NodeSurvey]) -> list[float]:
        """Return what each node costs in float32: its time, that of all inside it, and a Cast's."""
        prices = [node_survey.time_share + _CAST_PRICE / len(survey) for node_survey in survey]
        inner = {}
        for place, inside in self._graph.inside.items():
            inner[place] = sum(prices[at] for at in inside)
        return [price + inner.get(place, 0.0) for place, price in enumerate(prices)]

    def _spent(self) -> bool:
        return self._account.runs >= self._most_runs or self._account.seconds > self._seconds

    # The converted model.

    def _verified(self, searched: Found) -> tuple[str, ...]:
        """Return the names that the converted model passes with, corrected where the first don't.

        Raises:
            NotApplicable: none do.
        """
        reason = ""
        for attempt, nodes in enumerate(self._attempts(searched)):
            self._corrections = attempt
            names = self._names(nodes)
            try:
                reason = self._fails(names)
            except NotApplicable as error:  # as its weights all stay float32
                if len(self._graph.closed(nodes)) < len(self._graph.labels):
                    raise
                raise NotApplicable(
                    f"each of its {len(nodes)} nodes has to stay float32 ({error})"
                ) from error
            if not reason:
                return names
        raise NotApplicable(
            f"no choice of nodes in float32 was verified on the converted model: {reason}"
        )

    def _attempts(self, searched: Found) -> Iterator[frozenset[int]]:
        """Yield sets of nodes to try.

        They are what was found, that and its neighbours, and the larger set that the search began
        with.
        """
        yield searched.nodes
        wider = self._widened(searched.nodes)
        if wider != searched.nodes:
            yield wider
        if searched.wide not in (searched.nodes, wider):
            yield searched.wide

    def _names(self, nodes: frozenset[int]) -> tuple[str, ...]:
        """Return the names of nodes, and of those that only move a value from one of them.

        The value goes to another one of them and elsewhere.
        """
        plan = self._plan()
        try:
            moves = moves_between(plan, frozenset(self._graph.labels[place] for place in nodes))
        finally:
            plan.close()
        places = set()
        for at in nodes:
            for place in self._graph.inside.get(at, ()):
                places.add(place)
        inner = frozenset(places)
        return (*(self._graph.labels[place] for place in sorted(nodes - inner)), *moves)

    def _widened(self, nodes: frozenset[int]) -> frozenset[int]:
        """Return nodes, those that make what they read, and those that read what they make."""
        plan = self._plan()
        try:
            return nodes | neighbours(plan, nodes)
        finally:
            plan.close()

    def _fails(self, names: tuple[str, ...]) -> str:
        """Return why the converted model with those nodes in float32 fails.

        Nothing where it passes.
        """
        self._account.sessions += 1
        self._account.runs += len(self._sets)
        with noting("float32 search, verifying"):
            candidate = Model(self._source.saved(self._conversion.converted(names)))
            judged = half_verdict(self._standard, candidate)
        return "" if judged.passed else judged.reason or "the outputs differ"

    def _open(self, model: Path | bytes, profile: Path | None = None) -> ort.InferenceSession:
        self._account.sessions += 1
        return open_session(
            model,
            providers.get("cpu"),
            purpose=Purpose.ACCURACY,
            level="disable",
            threads=self._threads,
            record_placement=False,
            profile=profile,
        )


def neighbours(plan: Plan, nodes: Collection[int]) -> frozenset[int]:
    """Return the places of the nodes that make what some nodes read, or read what they make."""
    atoms = atoms_of(plan)
    places_found = set()
    for step in plan.reading.floating:
        at = atoms.get(plan.label(step)) if plan.converted(step) else None
        for name in step.ins if at is not None else ():
            maker = plan.maker(through_moves(plan, name)) if name else None
            makes = atoms.get(plan.label(maker)) if isinstance(maker, Step) else None
            if at is not None and makes is not None and (at in nodes or makes in nodes):
                places_found |= {at, makes}
    return frozenset(places_found)


def moves_between(plan: Plan, labels: Collection[str]) -> tuple[str, ...]:
    """Return the names of nodes that move a float32 value to readers of both types.

    Those are float32 and the half type.

    Such a node would be of the half type for the latter's sake, and round for the former.

    Args:
        plan: of the conversion without the nodes that were chosen.
        labels: the nodes that were chosen, as a block list calls them.
    """
    if not labels:
        return ()
    single, double, moves = set[str](), set[str](), []
    floats = plan.halving.floats
    for step in plan.reading.floating:
        stays = plan.label(step) in labels or not (plan.converted(step) or step.op in MOVES)
        if step.op in MOVES and step.ins and step.ins[0] in single:
            moves.append(step)
            single.update(step.outs)
        elif stays and step.op not in ("Cast", "Constant", "ConstantOfShape"):
            single.update(name for name in step.outs if name in floats)
    for step in plan.reading.floating:
        if step.op in MOVES:
            continue
        stays = plan.label(step) in labels or not plan.converted(step)
        moves_found = []
        for name in step.ins:
            if name in floats:
                moves_found.append(f"{name} read")
        (single if stays else double).update(moves_found)
    single.update(f"{name} read" for name in plan.reading.scopes[0].outputs)
    names = []
    for step in reversed(moves):
        reads = set()
        for kind, readers in (("single", single), ("double", double)):
            if any(f"{name} read" in readers for name in step.outs):
                reads.add(kind)
        if "single" in reads:
            single.update(f"{name} read" for name in step.ins)
        if "double" in reads:
            double.update(f"{name} read" for name in step.ins)
        if len(reads) == 2:
            names.append(plan.label(step))
    return tuple(reversed(names))


def _all_same(outputs: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    return all(_same(outputs.get(name), value) for name, value in expected.items())


def _departure(outputs: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """The greatest relative L2 distance of a float output.

    Infinite where one isn't finite any more.
    """
    gaps = [0.0]
    for name, value in expected.items():
        actual = outputs.get(name)
        if (
            isinstance(value, np.ndarray)
            and isinstance(actual, np.ndarray)
            and value.dtype.kind == "f"
        ):
            wide, half = value.astype(np.float64), actual.astype(np.float64)
            finite = np.isfinite(wide)
            if wide.shape != half.shape or not np.isfinite(half[finite]).all():
                return math.inf
            whole = float(np.linalg.norm(wide[finite])) or 1.0
            gaps.append(float(np.linalg.norm(half[finite] - wide[finite])) / whole)
    return max(gaps)


def _same(value: Any, expected: Any) -> bool:
    if isinstance(value, np.ndarray) and isinstance(expected, np.ndarray):
        return value.shape == expected.shape and value.tobytes() == expected.tobytes()
    return bool(value == expected)
