"""The cell's own provider, asked whether it runs a converted model, and which nodes it refuses.

A provider may have no kernel of the half type for an operator, or none for one form of it, such as
a grouped convolution. It says so when the session is opened, or when the node runs first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from onnx_harness import providers
from onnx_harness.errors import NotApplicable, first_line
from onnx_harness.isolate import noting
from onnx_harness.judging.exact_sums import exact_sums
from onnx_harness.judging.mixed.account import Account, Refused
from onnx_harness.judging.mixed.search import smallest_set
from onnx_harness.judging.mixed.source import Source
from onnx_harness.judging.standard import Standard
from onnx_harness.judging.verdict import verdict
from onnx_harness.model.file import Model
from onnx_harness.model.ops import MOVES, STANDARD_DOMAINS
from onnx_harness.providers.placement import keeps_record, placement
from onnx_harness.providers.running import feeds_for, run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.transforms.half.mixed import MixedConversion
from onnx_harness.transforms.half.plan import Plan
from onnx_harness.transforms.half.schemas import FLOAT16
from onnx_harness.transforms.half.steps import Step

if TYPE_CHECKING:
    import onnxruntime as ort

# Sessions on the provider: each takes a conversion as well. Network families have 10 to 25 kinds of
# nodes, and a provider that says which node it refuses needs one session for each refused kind.
_MOST_SESSIONS = 24
_QUOTED = re.compile(r"'([^']+)'|\(([^()]+)\)")
_WORD = re.compile(r"\w+")
_MOST_LETTERS = 240
_POINTED_TO, _MOVED = 1e6, 0.5

# Names of nodes of one kind: the provider has a kernel for all of them or for none.
Kind = tuple[str, ...]


class Target:
    """The provider of a cell, which converted models are tried on.

    Attributes:
        provider: it.
        half: the half type, in words.
    """

    def __init__(
        self,
        standard: Standard,
        conversion: MixedConversion,
        source: Source,
        account: Account,
    ) -> None:
        """Nothing is opened before it is asked for.

        Args:
            standard: names the provider, and has the input sets.
            conversion: the conversion.
            source: its model.
            account: counts sessions and runs.
        """
        self.provider = providers.get(standard.provider)
        self._standard = standard
        self._conversion = conversion
        self._source = source
        self._account = account
        self.half = "float16" if conversion.half == FLOAT16 else "bfloat16"
        self._sessions = 0
        self._works = True
        self._untouched: Counter[str] | None = None

    def is_asked(self, plan: Plan) -> bool:
        """Return whether the provider may refuse the half type.

        ONNX Runtime puts Casts round each standard operator that its CPU provider lacks in float16.
        In bfloat16 it doesn't, and nobody asks the CPU to compute in it: that is simulated.
        """
        if self.provider.fallback:
            return True
        if self.half != "float16":
            return False
        return any(
            step.node.domain not in STANDARD_DOMAINS for step in plan.reading.floating
        )

    def refused(self, plan: Plan, spent: Callable[[], bool]) -> Refused:
        """Find the nodes that the provider refuses in the half type.

        Args:
            plan: of the conversion with no node chosen.
            spent: whether the search's time is.

        Raises:
            NotApplicable: it refuses all of them.
        """
        if not self.is_asked(plan):
            self._works = False  # the cell's own session is enough
            return Refused()
        words = self.refusal(())
        if not words:
            return Refused()
        self._off_provider_untouched()
        if not self._works:
            return Refused()
        return _Refusals(self, kinds_of(plan), operators_of(plan), spent).find(words)

    def departs(self, candidate: Model) -> str:
        """Return why a converted model isn't right on the provider; empty where it is.

        Args:
            candidate: the converted model; it runs on every usual input set.
        """
        if not self._works:
            return ""
        try:
            outputs = self._runs(self._opened(candidate), self._standard.reference.usual)
        except Exception as error:
            # ONNX Runtime's errors have no common class below Exception.
            return (
                f"provider '{self.provider.name}' doesn't run it: {first_line(error, 160)}"
            )
        judged = verdict(self._standard, outputs)
        if judged.passed:
            return ""
        return f"on provider '{self.provider.name}', {judged.reason or 'the outputs differ'}"

    def nothing_left(self, count: int, words: str) -> NotApplicable:
        """Return the error of a provider that refuses every node."""
        each = "its only node" if count == 1 else f"each of its {count} nodes"
        name = self.provider.name
        return NotApplicable(
            f"provider '{name}' refuses {self.half} in {each}: {gist(words)}"
        )

    def refusal(self, names: Collection[str]) -> str:
        """Return what the provider says against the model with those nodes in float32.

        Empty where it runs it.
        """
        try:
            converted = self._conversion.converted(tuple(names))
        except NotApplicable:  # nothing is left to refuse
            return ""
        with self._source.written(converted) as file:
            return self._says(Model(file))

    @property
    def exhausted(self) -> bool:
        """Return whether as many sessions were opened as a search may take."""
        return self._sessions >= _MOST_SESSIONS

    def _says(self, candidate: Model) -> str:
        try:
            session = self._opened(candidate)
            self._runs(session, self._standard.reference.usual[:1])
        except Exception as error:
            # ONNX Runtime's errors have no common class below Exception.
            return str(error).strip() or type(error).__name__
        elsewhere = self._off_provider(session)
        if elsewhere:
            elsewhere -= self._off_provider_untouched()
        return f"it leaves {', '.join(elsewhere)} to the CPU" if elsewhere else ""

    def _off_provider_untouched(self) -> Counter[str]:
        """Count what the provider leaves to the CPU of the model as it was before the conversion.

        That is no refusal of the half type, nor is it where that model doesn't run either.
        """
        if self._untouched is None:
            self._untouched = Counter()
            try:
                with self._source.written(self._source.copy()) as file:
                    session = self._opened(Model(file))
                    self._runs(session, self._standard.reference.usual[:1])
                    self._untouched = self._off_provider(session)
            except Exception:  # ONNX Runtime's errors have no common class below Exception
                self._works = False
        return self._untouched

    def _off_provider(self, session: ort.InferenceSession) -> Counter[str]:
        """Count the nodes by operator that a session runs elsewhere than on its provider."""
        if not self.provider.fallback or not keeps_record(session):
            return Counter()
        elsewhere = Counter(placement(session, self.provider).off_provider_ops)
        del elsewhere["Cast"]  # the conversion's own
        return elsewhere

    def _opened(self, candidate: Model) -> ort.InferenceSession:
        self._sessions += 1
        self._account.sessions += 1
        with self._noting():
            return open_session(
                candidate.path,
                self.provider,
                purpose=Purpose.ACCURACY,
                level=self._standard.level,
                config=exact_sums(self._standard.model.skeleton, candidate.skeleton),
            )

    def _runs(
        self, session: ort.InferenceSession, places: Iterable[int]
    ) -> list[dict[str, Any]]:
        outputs = []
        for place in places:
            self._account.runs += 1
            values = self._standard.reference.sets[place].values
            with self._noting():
                outputs.append(run(session, feeds_for(session, values)))
        return outputs

    def _noting(self) -> AbstractContextManager[None]:
        return noting(f"transform: float32 search, on provider {self.provider.name}")


class _Refusals:
    """The search for the kinds of nodes that a provider refuses."""

    def __init__(
        self,
        target: Target,
        kinds: list[Kind],
        operators: dict[str, str],
        spent: Callable[[], bool],
    ) -> None:
        self._target = target
        self._kinds = kinds
        self._operators = operators
        self._out_of_time = spent
        self._tried: dict[frozenset[int], str] = {}

    def find(self, words: str) -> Refused:
        """Find them.

        Args:
            words: what the provider says against the model with no node in float32.
        """
        first, sure = words, set[int]()
        chosen: set[int] = set()
        while words and not self._spent():
            named, alike = self._pointed_to(words)
            sure |= named
            new = (named or alike) - chosen
            if not new:
                new = alike - chosen
            if not new:
                break
            chosen |= new
            words = self._says(frozenset(chosen))
        if words:
            chosen, minimal = self._without_words(chosen)
        else:
            chosen, minimal = self._thinned(chosen, sure)
        names = self._names(chosen)
        every = self._computing(self._operators)
        if len(self._computing(names)) == len(every):
            raise self._target.nothing_left(len(every), first)
        target = self._target
        return Refused(
            names,
            gist(first),
            target.provider.name,
            target.half,
            minimal,
        )

    def _names(self, places: Iterable[int]) -> tuple[str, ...]:
        """Return the names of the nodes of some kinds."""
        names: list[str] = []
        for place in sorted(places):
            names += self._kinds[place]
        return tuple(names)

    def _computing(self, names: Iterable[str]) -> list[str]:
        """Return the names of the nodes that do more than move values."""
        computing = []
        for name in names:
            if self._operators[name] not in MOVES:
                computing.append(name)
        return computing

    def _pointed_to(self, words: str) -> tuple[set[int], set[int]]:
        """Return the kinds of which the words name a node, and those of a named operator."""
        quoted = set[str]()
        for match in _QUOTED.findall(words):
            quoted.update(match)
        operators = set(_WORD.findall(words))
        named, alike = set(), set()
        # What ONNX Runtime makes of a node is called by it: 'product/MatMulAddFusion'.
        for name in tuple(quoted):
            quoted.add(name.rpartition("/")[0])
        for place, kind in enumerate(self._kinds):
            if quoted.intersection(kind):
                named.add(place)
            if self._operators[kind[0]] in operators:
                alike.add(place)
        return named, alike

    def _without_words(self, chosen: set[int]) -> tuple[set[int], bool]:
        """Search where the provider doesn't say which node it is."""
        suspicion = []
        for place, kind in enumerate(self._kinds):
            guess = _MOVED if self._operators[kind[0]] in MOVES else 1.0
            suspicion.append(_POINTED_TO if place in chosen else guess)
        prices = [float(len(kind)) for kind in self._kinds]
        searched = smallest_set(
            lambda places: not self._says(places), suspicion, prices, self._spent
        )
        if searched is None:  # some node that is no choice
            return set(range(len(self._kinds))), True
        return set(searched.nodes), searched.minimal

    def _thinned(self, chosen: set[int], sure: set[int]) -> tuple[set[int], bool]:
        """Give back kinds that share no more than an operator with what was refused."""
        for place in sorted(chosen - sure):
            if len(chosen) == 1:
                break
            if self._spent():
                return chosen, False
            if not self._says(frozenset(chosen - {place})):
                chosen = chosen - {place}
        return chosen, True

    def _says(self, places: frozenset[int]) -> str:
        if places not in self._tried:
            names = self._names(places)
            self._tried[places] = self._target.refusal(names)
        return self._tried[places]

    def _spent(self) -> bool:
        return self._target.exhausted or self._out_of_time()


def gist(words: str) -> str:
    """Return a line of what a provider says: of several the last, which says what is wrong."""
    line = words.strip().splitlines()[-1].strip()
    if len(line) <= _MOST_LETTERS:
        return line
    return f"{line[: _MOST_LETTERS - 1]}…"


def kinds_of(plan: Plan) -> list[Kind]:
    """Return the names of nodes that a conversion puts in the half type, by kind.

    Nodes of a kind have the same operator, attributes, and ranks of weights.
    """
    kinds: dict[tuple[object, ...], list[str]] = {}
    for step in _in_half(plan):
        kinds.setdefault(_kind(plan, step), []).append(plan.label(step))
    return [tuple(dict.fromkeys(names)) for names in kinds.values()]


def operators_of(plan: Plan) -> dict[str, str]:
    """Return the operators of those nodes by name."""
    return {plan.label(step): step.node.op_type for step in _in_half(plan)}


def _in_half(plan: Plan) -> list[Step]:
    steps = []
    for step in plan.reading.floating:
        moves = step.op in MOVES and bool(plan.half_outputs(step))
        if moves or plan.converted(step):
            steps.append(step)
    return steps


def _kind(plan: Plan, step: Step) -> tuple[object, ...]:
    attributes = []
    for attribute in step.node.attribute:
        if not attribute.HasField("g"):
            attributes.append(attribute.SerializeToString(deterministic=True))
    ranks = []
    for name in step.ins:
        weight = plan.reading.initializers.get(name)
        ranks.append(None if weight is None else len(weight.dims))
    return (step.node.domain, step.node.op_type, *sorted(attributes), *ranks)
