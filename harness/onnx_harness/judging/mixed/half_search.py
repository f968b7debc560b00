"""The nodes that a conversion to a half type keeps in float32.

Surveyed, searched for, verified on the real model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx

from onnx_harness.errors import NotApplicable
from onnx_harness.isolate import noting
from onnx_harness.judging.emulation import half_verdict
from onnx_harness.judging.mixed.account import (
    MOST_RUNS,
    RESERVED,
    Account,
    Effort,
    Mix,
    Refused,
)
from onnx_harness.judging.mixed.neighbours import moves_between, neighbours
from onnx_harness.judging.mixed.search import Found, smallest_set
from onnx_harness.judging.mixed.source import Source
from onnx_harness.judging.mixed.survey import FOUND as SURVEY
from onnx_harness.judging.mixed.survey import NodeSurvey, node_times, read, surveyed
from onnx_harness.judging.mixed.switch_session import SwitchSession
from onnx_harness.judging.mixed.target import Target
from onnx_harness.judging.standard import Standard
from onnx_harness.model.file import Model
from onnx_harness.providers.running import run
from onnx_harness.transforms.half.mixed import MixedConversion
from onnx_harness.transforms.half.schemas import FLOAT16

# Roundings that a node is worth, where there's nothing else to choose by: at least these, and at
# least these next.
_MORE_RUNS = 30  # where what is enough on one input set isn't on another
_SUSPECT = (30.0, 6.0)
_UNITS = {FLOAT16: 2.0**-11}
_BFLOAT16_UNIT = 2.0**-8
# A Cast reads and writes what its node does: of a node that only moves memory it is as much again.
_CAST_PRICE = 0.5


def find_float32(
    standard: Standard, conversion: MixedConversion, source: Source, effort: Effort
) -> Mix:
    """Find the nodes that a conversion to a half type keeps in float32.

    Args:
        standard: what the outputs are judged by.
        conversion: the conversion.
        source: its model.
        effort: what the search may cost.

    Raises:
        NotApplicable: no set of nodes is enough, or the model with switches isn't the model.
    """
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
        self._switches = SwitchSession(standard, conversion, source, self._account)
        self._target = Target(standard, conversion, source, self._account)
        self._refused = Refused()
        self._unit = _UNITS.get(conversion.half, _BFLOAT16_UNIT)
        self._corrections = 0
        self._most_runs = MOST_RUNS - RESERVED * len(self._switches.sets)

    def find(self) -> Mix:
        """Search, and verify."""
        self._switches.open_switched()
        survey: tuple[NodeSurvey, ...] = ()
        minimal = True
        plain = not self._switches.graph.labels
        if self._switches.graph.labels:
            self._leave_refused()
            self._switches.control()
            plain = self._switches.plain_passes()
        names = self._names(frozenset()) if self._refused.names else ()
        if (
            plain or not self._known_to_fail
        ):  # the switches may see a little more than the conversion does
            plain = not self._fails(names)
        if not plain:
            self._switches.refuse_hopeless()
            survey = self._survey()
            chosen_nodes = (
                self._search(survey) if self._switches.witnesses else self._suspects(survey)
            )
            minimal = chosen_nodes.minimal
            names = self._verified(chosen_nodes)
        places = []
        for place, label in enumerate(self._switches.graph.labels):
            if label in frozenset(names):
                places.append(place)
        nodes = self._switches.graph.closed(places)
        time_share = sum(survey[place].time_share for place in nodes) if survey else None
        account = self._account
        return Mix(
            names,
            len(nodes),
            len(self._switches.graph.labels),
            time_share if nodes else 0.0,
            minimal and self._refused.minimal and not self._corrections,
            self._switches.exact,
            self._corrections,
            account.sessions,
            account.runs,
            account.seconds,
            refused=self._refused,
        )

    def _leave_refused(self) -> None:
        """Find the nodes that the cell's provider refuses: they're float32 in every mix.

        Raises:
            NotApplicable: it refuses all of them.
        """
        plan = self._switches.plan()
        try:
            self._refused = self._target.refused(plan, self._late)
        finally:
            plan.close()
        places = set()
        for place, label in enumerate(self._switches.graph.labels):
            if label in self._refused.names:
                places.add(place)
        self._switches.refused = frozenset(places)
        self._most_runs += self._account.runs

    # The search.

    def _survey(self) -> tuple[NodeSurvey, ...]:
        """Survey the nodes on every usual input set, and time them on the first."""
        plan = self._switches.plan()
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
        plan = self._switches.plan()
        try:
            return read(plan, instrumented.values, losses, times, self._unit)
        finally:
            plan.close()

    def _surveyed(self, model: onnx.ModelProto) -> tuple[list[Any], dict[str, float]]:
        profile = self._source.folder / "profile"
        session = self._switches.open(self._source.openable(model), profile)
        losses: list[Any] = []
        times: dict[str, float] = {}
        for place in self._switches.sets:
            self._account.runs += 1
            with noting(f"transform: float32 search, survey {place + 1}"):
                losses.append(
                    run(session, self._standard.reference.sets[place].values)[SURVEY]
                )
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
            smallest = smallest_set(self._switches.passes, suspicion, prices, self._spent)
            if smallest is None:
                raise NotApplicable(
                    "no node in float32 makes its outputs right: they fail with all of them in it"
                )
            witnesses = len(self._switches.witnesses)
            if (
                self._switches.passes_everywhere(smallest.nodes)
                or len(self._switches.witnesses) == witnesses
            ):
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
        prices = [
            node_survey.time_share + _CAST_PRICE / len(survey) for node_survey in survey
        ]
        inner = {}
        for place, inside in self._switches.graph.inside.items():
            inner[place] = sum(prices[at] for at in inside)
        return [price + inner.get(place, 0.0) for place, price in enumerate(prices)]

    def _spent(self) -> bool:
        return self._account.runs >= self._most_runs or self._late()

    def _late(self) -> bool:
        return self._account.seconds > self._seconds

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
                of, nodes_kept = (
                    len(self._switches.graph.labels),
                    self._switches.graph.closed(nodes),
                )
                if len(nodes_kept) < of:
                    kept = (
                        f"{len(nodes_kept)} of its {of} nodes have to stay float32, and then"
                    )
                    raise NotApplicable(f"{kept} {error}") from error
                kept = "its only node" if of == 1 else f"each of its {of} nodes"
                raise NotApplicable(f"{kept} has to stay float32 ({error})") from error
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

        The value goes to another one of them and elsewhere. Refused nodes are among them.
        """
        nodes |= self._switches.refused
        plan = self._switches.plan()
        try:
            moves = moves_between(
                plan, frozenset(self._switches.graph.labels[place] for place in nodes)
            )
        finally:
            plan.close()
        places = set()
        for at in nodes:
            for place in self._switches.graph.inside.get(at, ()):
                places.add(place)
        inner = frozenset(places)
        named = [self._switches.graph.labels[place] for place in sorted(nodes - inner)]
        return tuple(dict.fromkeys((*named, *moves, *self._refused.names)))

    def _widened(self, nodes: frozenset[int]) -> frozenset[int]:
        """Return nodes, those that make what they read, and those that read what they make."""
        plan = self._switches.plan()
        try:
            return nodes | neighbours(plan, nodes)
        finally:
            plan.close()

    def _fails(self, names: tuple[str, ...]) -> str:
        """Return why the converted model with those nodes in float32 fails.

        Nothing where it passes.
        """
        self._account.sessions += 1
        self._account.runs += len(self._switches.sets)
        converted = self._conversion.converted(names)
        with (
            noting("transform: float32 search, verifying"),
            self._source.written(converted) as file,
        ):
            candidate = Model(file)
            judged = half_verdict(self._standard, candidate)
            if judged.passed:
                return self._target.departs(candidate)
        return judged.reason or "the outputs differ"
