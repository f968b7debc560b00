"""The search for float32 nodes from its first look to its end, on stand-ins for what it asks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_harness.errors import NotApplicable
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging.mixed import half_search
from onnx_harness.judging.mixed.account import UNLIMITED, Account, Effort, Mix, Refused
from onnx_harness.judging.mixed.half_search import find_float32
from onnx_harness.judging.mixed.search import Found
from onnx_harness.judging.mixed.survey import FOUND, NodeSurvey
from onnx_harness.transforms.half.schemas import BFLOAT16, FLOAT16

LABELS = ("a", "b", "c", "d", "e")
Fails = Callable[[str], str]


def nothing_fails(_: str) -> str:
    """Why the converted model with some nodes in float32 fails."""
    return ""


def without(needed: str, words: str = "y departs") -> Fails:
    """Fail unless nodes are float32."""
    return lambda names: "" if set(needed) <= set(names) else words


@dataclass
class Bench:
    """A stand-in for the switches, the provider and the converted model.

    Attributes:
        needs: by input set, the nodes that a mix needs in float32.
        fails: the converted model; what raises is no conversion.
        departs: on the provider.
        refused: what the provider refuses.
        inside: the nodes inside others.
        moves: the nodes that move values between, by the nodes in float32.
        around: the neighbours of nodes.
        suspicion: of each node.
        survey_fails: whether the survey can't be run.
        values: how many values a survey measures.
        seconds: of each run.
    """

    needs: Sequence[str] = ("", "", "")
    fails: Fails = nothing_fails
    departs: Fails = nothing_fails
    refused: Refused = field(default_factory=Refused)
    refusal_runs: int = 0
    labels: tuple[str, ...] = LABELS
    inside: dict[int, frozenset[int]] = field(default_factory=dict)
    moves: dict[str, tuple[str, ...]] = field(default_factory=dict)
    around: dict[str, str] = field(default_factory=dict)
    suspicion: Sequence[float] = (1.0, 500.0, 1.0, 40.0, 1.0)
    survey_fails: bool = False
    values: int = 3
    half: int = FLOAT16
    seconds: float = 0.0
    effort: Effort = UNLIMITED
    log: list[Any] = field(default_factory=list)
    closed: int = 0
    planned: int = 0
    read: list[Any] = field(default_factory=list)
    timed: list[Any] = field(default_factory=list)

    def of(self, places: Collection[int]) -> str:
        return "".join(self.labels[place] for place in sorted(places))

    def check(self, plan: object) -> None:
        """Insist on a fresh plan that isn't closed yet."""
        assert isinstance(plan, Switches)
        assert self.planned == self.closed + 1

    def asked(self, kind: str) -> list[Any]:
        return [what for of, what in self.log if of == kind]


class Switches:
    """As SwitchSession."""

    def __init__(self, bench: Bench, account: Account) -> None:
        self._bench = bench
        self._account = account
        self.sets = [0, 1, 3]
        self.witnesses: list[int] = []
        self.exact = True
        self.refused: frozenset[int] = frozenset()
        self.graph: Any = None

    def open_switched(self) -> None:
        bench = self._bench

        def closed(places: Sequence[int]) -> frozenset[int]:
            more = set(places)
            for place in places:
                more |= bench.inside.get(place, frozenset())
            return frozenset(more)

        self.graph = SimpleNamespace(labels=bench.labels, inside=bench.inside, closed=closed)
        self._account.sessions += 1

    def plan(self) -> Any:
        self._bench.planned += 1
        return self

    def close(self) -> None:
        self._bench.closed += 1

    def open(self, model: Any, profile: Path) -> Any:
        assert model == ("instrumented",)
        assert profile == Path("folder/profile")
        self._account.sessions += 1
        if self._bench.survey_fails:
            raise RuntimeError("no sum of no elements")

        def end() -> str:
            self._bench.log.append(("profile", len(self._bench.asked("survey"))))
            return "profile.json"

        return SimpleNamespace(end_profiling=end)

    def control(self) -> None:
        self._bench.log.append(("control", None))

    def refuse_hopeless(self) -> None:
        self._bench.log.append(("hopeless", None))

    def _on(self, float32: Collection[int], at: int) -> bool:
        self._account.runs += 1
        names = self._bench.of(self.refused.union(float32))
        self._bench.log.append(("run", f"{names}{at}"))
        return set(self._bench.needs[at]) <= set(names)

    def plain_passes(self) -> bool:
        failing = [at for at in range(3) if not self._on((), at)]
        self.witnesses += failing[:1]
        return not failing

    def passes(self, float32: Collection[int]) -> bool:
        return all(self._on(float32, at) for at in self.witnesses)

    def passes_everywhere(self, float32: Collection[int]) -> bool:
        for at in range(3):
            if not self._on(float32, at):
                self.witnesses += [] if at in self.witnesses else [at]
                return False
        return True


def search(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> Mix:
    sets = tuple(InputSet(str(place), {"x": np.array(place)}) for place in range(4))
    standard: Any = SimpleNamespace(reference=SimpleNamespace(sets=sets))

    class Clocked(Account):
        @property
        def seconds(self) -> float:
            return bench.seconds * self.runs

    def converted(names: tuple[str, ...]) -> str:
        assert isinstance(names, tuple)
        bench.log.append(("converted", "".join(names)))
        return "".join(names)

    conversion: Any = SimpleNamespace(half=bench.half, converted=converted)

    @contextmanager
    def written(names: str) -> Iterator[str]:
        yield names

    source: Any = SimpleNamespace(
        folder=Path("folder"), written=written, openable=lambda model: (model,)
    )

    def switch_session(*arguments: Any) -> Switches:
        assert arguments[:3] == (standard, conversion, source)
        return Switches(bench, arguments[3])

    def target(*arguments: Any) -> Any:
        assert arguments[:3] == (standard, conversion, source)

        def refused(plan: Switches, late: Callable[[], bool]) -> Refused:
            bench.check(plan)
            bench.log.append(("late", late()))
            arguments[3].runs += bench.refusal_runs
            return bench.refused

        return SimpleNamespace(refused=refused, departs=bench.departs)

    def half_verdict(of: Any, names: str) -> Any:
        assert of is standard
        words = bench.fails(names)
        return SimpleNamespace(passed=not words, reason=None if words == "?" else words)

    def surveyed(plan: Switches) -> Any:
        bench.check(plan)
        values = tuple(range(bench.values))
        return SimpleNamespace(model="instrumented", values=values)

    def run(session: Any, values: Any) -> Any:
        assert session.end_profiling
        at = int(values["x"])
        bench.log.append(("survey", at))
        return {FOUND: f"losses {at}", "y": None}

    def read(plan: Switches, values: Any, losses: Any, times: Any, unit: float) -> Any:
        bench.check(plan)
        bench.read.append((values, losses, times, unit))
        shares = [0.1 * (place + 1) for place in range(len(bench.labels))]
        return tuple(
            NodeSurvey(1.0, 1.0, 1.0, suspicion, share)
            for suspicion, share in zip(bench.suspicion, shares, strict=True)
        )

    def node_times(path: Path) -> dict[str, float]:
        bench.timed.append(path)
        return {"a": 1.0}

    def moves_between(plan: Switches, names: Collection[str]) -> tuple[str, ...]:
        bench.check(plan)
        assert isinstance(names, frozenset)
        return bench.moves.get("".join(sorted(names)), ())

    def neighbours(plan: Switches, nodes: Collection[int]) -> frozenset[int]:
        bench.check(plan)
        around = bench.around.get(bench.of(nodes), "")
        return frozenset(map(bench.labels.index, around))

    @contextmanager
    def noting(words: str) -> Iterator[None]:
        bench.log.append(("note", words))
        yield

    for name, stand_in in {
        "Account": Clocked,
        "SwitchSession": switch_session,
        "Target": target,
        "half_verdict": half_verdict,
        "surveyed": surveyed,
        "run": run,
        "read": read,
        "node_times": node_times,
        "moves_between": moves_between,
        "neighbours": neighbours,
        "noting": noting,
        "Model": lambda names: names,
    }.items():
        monkeypatch.setattr(half_search, name, stand_in)
    mix = find_float32(standard, conversion, source, bench.effort)
    assert bench.planned == bench.closed
    return mix


def mix(names: str, of: int = 5, **changes: Any) -> Mix:
    given: dict[str, Any] = {
        "nodes": len(names),
        "time_share": sum(0.1 * (LABELS.index(name) + 1) for name in names) or 0.0,
        "minimal": True,
        "exact": True,
        "corrections": 0,
        "seconds": 0.0,
    } | changes
    given["time_share"] = pytest.approx(given["time_share"])
    return Mix(tuple(names), of=of, **given)


VERIFYING = "transform: float32 search, verifying"


def test_a_model_that_converts_as_it_is_is_not_surveyed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    # Three sets by the switches, and the converted model on as many.
    assert search(monkeypatch, bench) == mix("", sessions=2, runs=6)
    assert bench.asked("converted") == [""]
    assert bench.asked("run") == ["0", "1", "2"]
    assert [of for of, _ in bench.log] == [
        "late",
        "control",
        "run",
        "run",
        "run",
        "converted",
        "note",
    ]
    assert bench.asked("note") == [VERIFYING]
    assert bench.read == []


@pytest.mark.parametrize("known_to_fail", [False, True])
def test_a_model_without_nodes_to_switch_is_verified_alone(
    monkeypatch: pytest.MonkeyPatch, known_to_fail: bool
) -> None:
    bench = Bench(labels=(), effort=Effort(known_to_fail=known_to_fail))
    assert search(monkeypatch, bench) == mix("", of=0, sessions=2, runs=3)
    assert [of for of, _ in bench.log] == ["converted", "note"]


def test_what_a_set_needs_is_searched_for_and_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(needs=("", "b", ""), fails=without("b"), seconds=2.0)
    got = search(monkeypatch, bench)
    # Of runs: 3 with nothing in float32, 3 of the model as it is, 3 of the survey, 1 with b, 3 to
    # confirm, 3 to verify. Of sessions: the switches, the survey, two models.
    assert got == mix("b", sessions=4, runs=16, seconds=32.0)
    assert bench.asked("run") == ["0", "1", "2", "b1", "b0", "b1", "b2"]
    assert bench.asked("converted") == ["", "b"]
    assert bench.asked("survey") == [0, 1, 3]
    assert bench.asked("profile") == [1]  # the first set's times alone
    assert bench.timed == [Path("profile.json")]
    assert bench.read == [
        ((0, 1, 2), ["losses 0", "losses 1", "losses 3"], {"a": 1.0}, 2.0**-11)
    ]
    assert bench.asked("note") == [
        VERIFYING,
        *(f"transform: float32 search, survey {at}" for at in (1, 2, 4)),
        VERIFYING,
    ]
    assert len(bench.asked("hopeless")) == 1


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({"survey_fails": True}, ((0, 1, 2), [], {})),
        ({"values": 0}, ((), [], {})),
    ],
)
def test_a_survey_that_cannot_be_made_is_gone_without(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], read: tuple[Any, ...]
) -> None:
    bench = Bench(needs=("b",) * 3, fails=without("b"), half=BFLOAT16, **changes)
    assert search(monkeypatch, bench).names == ("b",)
    assert bench.read == [(*read, 2.0**-8)]
    assert bench.asked("survey") == []


def test_a_model_that_is_known_to_fail_is_not_converted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Effort(known_to_fail=True)
    bench = Bench(needs=("b", "", ""), fails=without("b"), effort=known)
    assert search(monkeypatch, bench).names == ("b",)
    assert bench.asked("converted") == ["b"]
    # But for where the switches pass: they may see less than the conversion does.
    bench = Bench(fails=without("b"), effort=known)
    search(monkeypatch, bench)
    assert bench.asked("converted")[0] == ""


def test_where_switches_see_nothing_the_suspects_are_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    suspicion = (29.0, 30.0, 5.9, 40.0, 6.0)
    bench = Bench(fails=without("bd"), suspicion=suspicion)
    assert search(monkeypatch, bench) == mix("bd", minimal=False, sessions=4, runs=12)
    assert bench.asked("converted") == ["", "bd"]
    bench = Bench(fails=without("abde"), suspicion=suspicion)
    got = search(monkeypatch, bench)
    assert got == mix("abde", minimal=False, corrections=1, sessions=5, runs=15)
    assert bench.asked("converted") == ["", "bd", "abde"]
    bench = Bench(fails=without("c"), suspicion=suspicion)
    with pytest.raises(
        NotApplicable, match="was verified on the converted model: y departs"
    ):
        search(monkeypatch, bench)


def test_a_set_that_still_fails_is_searched_on_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(needs=("b", "", "be"), fails=without("be"))
    got = search(monkeypatch, bench)
    assert (got.names, got.minimal) == (("b", "e"), True)
    runs = bench.asked("run")
    # b is enough for the first set; on the third it isn't, and the search goes on from it.
    assert runs[3:8] == ["b0", "b0", "b1", "b2", "b0"]
    assert runs[-3:] == ["be0", "be1", "be2"]


def test_a_search_that_learns_nothing_new_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(needs=("b", "", ""), fails=without("b"))
    asked: list[Any] = []

    def everywhere(_: Switches, nodes: Collection[int]) -> bool:
        asked.append(bench.of(nodes))
        return False

    monkeypatch.setattr(Switches, "passes_everywhere", everywhere)
    assert search(monkeypatch, bench).names == ("b",)
    assert asked == ["b"]


def test_all_in_float32_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(needs=("b?", "", ""), fails=without("b"))
    with pytest.raises(NotApplicable) as raised:
        search(monkeypatch, bench)
    assert str(raised.value) == (
        "no node in float32 makes its outputs right: they fail with all of them in it"
    )


# The budget.


def mixing(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> Any:
    """A search that was made and not begun."""
    made: list[Any] = []

    class Kept(half_search._Mixing):
        def find(self) -> Mix:
            made.append(self)
            self._switches.open_switched()
            return mix("", sessions=0, runs=0)

    monkeypatch.setattr(half_search, "_Mixing", Kept)
    search(monkeypatch, bench)
    return made[0]


def test_runs_and_time_end_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    made = mixing(monkeypatch, Bench(effort=Effort(110.0), seconds=2.0))
    made._account.runs = 53
    assert not made._spent()
    made._account.runs = 54  # of 60, two for each set are for the end
    assert made._spent()
    assert not made._late()
    made._account.runs = 55
    assert not made._late()
    made._account.runs = 56
    assert made._late()
    made._most_runs = 99
    assert made._spent()


def test_what_it_took_to_ask_the_provider_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Effort(seconds=-1.0)
    refused = Refused(("b", "m", "z"), "no kernel", "npu", "float16", minimal=False)
    bench = Bench(refused=refused, refusal_runs=7, effort=late, moves={"b": ("z", "n")})
    got = search(monkeypatch, bench)
    names = ("b", "z", "n", "m")
    assert got == Mix(names, 1, 5, None, False, True, 0, 2, 13, 0.0, refused=refused)
    assert bench.asked("late") == [True]
    assert bench.asked("run") == ["b0", "b1", "b2"]
    assert bench.asked("converted") == ["bznm"]
    made = mixing(monkeypatch, Bench(refused=refused, refusal_runs=7))
    made._leave_refused()
    assert (made._most_runs, made._switches.refused) == (61, {1})


@pytest.mark.parametrize(("runs", "most"), [(53, 83), (10, 54)])
def test_further_rounds_of_a_search_may_take_longer(
    monkeypatch: pytest.MonkeyPatch, runs: int, most: int
) -> None:
    made = mixing(monkeypatch, Bench())
    made._switches.witnesses = [0]
    seen: list[Any] = []

    def smallest_set(passes: Any, suspicion: Any, prices: Any, spent: Any) -> Found:
        assert passes == made._switches.passes
        assert prices == pytest.approx([0.3] * 5)
        seen.append((suspicion, made._most_runs, spent()))
        made._account.runs = runs
        return Found(frozenset({1}), frozenset({1, 3}), len(seen) > 1)

    def everywhere(nodes: frozenset[int]) -> bool:
        assert nodes == {1}
        if len(seen) < 2:
            made._switches.witnesses.append(2)
        return len(seen) == 2

    monkeypatch.setattr(half_search, "smallest_set", smallest_set)
    monkeypatch.setattr(made._switches, "passes_everywhere", everywhere)
    survey = [
        NodeSurvey(1.0, 1.0, 1.0, suspicion, 0.2) for suspicion in (1.0, 2.0, 3.0, 4.0, 5.0)
    ]
    assert made._search(survey) == Found(frozenset({1}), frozenset({1, 3}), True)
    assert seen == [
        ([1.0, 2.0, 3.0, 4.0, 5.0], 54, False),
        ([1.0, 1e30, 3.0, 4.0, 5.0], most, False),
    ]


def test_a_node_costs_its_time_a_cast_and_what_is_inside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = mixing(monkeypatch, Bench(inside={1: frozenset({2, 3})}))
    survey = [NodeSurvey(1.0, 1.0, 1.0, 1.0, share) for share in (0.1, 0.2, 0.3, 0.4, 0.0)]
    cast = half_search._CAST_PRICE / 5
    assert made._prices(survey) == pytest.approx(
        [0.1 + cast, 0.9 + 3 * cast, 0.3 + cast, 0.4 + cast, cast]
    )


# The converted model.


@pytest.mark.parametrize(
    ("around", "wide", "attempts"),
    [
        ("", "b", ["b"]),
        ("", "bd", ["b", "bd"]),
        ("ac", "bd", ["b", "abc", "bd"]),
        ("d", "bd", ["b", "bd"]),
        ("ac", "b", ["b", "abc"]),
    ],
)
def test_what_was_found_its_neighbours_and_the_larger_set_are_tried(
    monkeypatch: pytest.MonkeyPatch, around: str, wide: str, attempts: list[str]
) -> None:
    bench = Bench(around={"b": around}, fails=lambda _: "?")
    made = mixing(monkeypatch, bench)
    places = frozenset(map(LABELS.index, wide))
    with pytest.raises(NotApplicable) as raised:
        made._verified(Found(frozenset({1}), places, True))
    assert bench.asked("converted") == attempts
    assert str(raised.value) == (
        "no choice of nodes in float32 was verified on the converted model: the outputs differ"
    )
    assert made._corrections == len(attempts) - 1
    assert (made._account.sessions, made._account.runs) == (
        1 + len(attempts),
        3 * len(attempts),
    )


@pytest.mark.parametrize(
    ("labels", "nodes", "words"),
    [
        (
            LABELS,
            {1},
            "2 of its 5 nodes have to stay float32, and then nothing is converted",
        ),
        (
            LABELS,
            {0, 1, 2, 3, 4},
            "each of its 5 nodes has to stay float32 (nothing is converted)",
        ),
        (("a",), {0}, "its only node has to stay float32 (nothing is converted)"),
    ],
)
def test_a_conversion_of_nothing_says_what_has_to_stay(
    monkeypatch: pytest.MonkeyPatch, labels: tuple[str, ...], nodes: set[int], words: str
) -> None:
    def fails(_: str) -> str:
        raise NotApplicable("nothing is converted")

    bench = Bench(labels=labels, fails=fails, inside={1: frozenset({2})})
    made = mixing(monkeypatch, bench)
    with pytest.raises(NotApplicable) as raised:
        made._verified(Found(frozenset(nodes), frozenset(nodes), True))
    assert str(raised.value) == words


def test_the_names_are_those_of_the_graph_then_moves_then_what_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moves: dict[str, tuple[str, ...]] = {"bcd": ("n", "a"), "abcd": ("d", "n")}
    bench = Bench(inside={1: frozenset({2})}, moves=moves)
    made = mixing(monkeypatch, bench)
    assert made._names(frozenset({3, 2, 1})) == ("b", "d", "n", "a")
    made._refused = Refused(("d", "m", "a"))
    made._switches.refused = frozenset({0})
    assert made._names(frozenset({1, 2, 3})) == ("a", "b", "d", "n", "m")


@pytest.mark.parametrize(
    ("fails", "departs", "reason"),
    [
        ("", "", ""),
        ("y departs", "unasked", "y departs"),
        ("?", "unasked", "the outputs differ"),
        ("", "it departs there", "it departs there"),
    ],
)
def test_a_converted_model_passes_here_and_on_the_provider(
    monkeypatch: pytest.MonkeyPatch, fails: str, departs: str, reason: str
) -> None:
    words = {"ab": (fails, departs)}
    bench = Bench(fails=lambda names: words[names][0], departs=lambda names: words[names][1])
    assert mixing(monkeypatch, bench)._fails(("a", "b")) == reason


def test_nodes_inside_one_that_stays_float32_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(needs=("b", "", ""), fails=without("b"), inside={1: frozenset({2, 3})})
    got = search(monkeypatch, bench)
    assert (got.names, got.nodes, got.of) == (("b",), 3, 5)
    assert got.time_share == pytest.approx(0.2 + 0.3 + 0.4)


def test_a_correction_is_no_smallest_set(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(needs=("b", "", ""), fails=without("bc"), around={"b": "c"})
    got = search(monkeypatch, bench)
    assert (got.names, got.minimal, got.corrections) == (("b", "c"), False, 1)
