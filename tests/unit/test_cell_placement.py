"""Where nodes are assigned and where they ran: what is recorded, and which complaint comes first."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onnx_harness import providers
from onnx_harness.cards.specs import PlacementSpec
from onnx_harness.cell import placement
from onnx_harness.cell.placement import cross_check, prove_placement
from onnx_harness.cell.state import CellEnded, Way
from onnx_harness.results.cells import PlacementRecord, Status
from onnx_harness.settings import Settings
from tests.unit.test_cell_parts import noting, task_of

ON, OFF = "CUDAExecutionProvider", "CPUExecutionProvider"
ASSIGNED = Counter({(ON, "Conv"): 5, (OFF, "Det"): 2, (ON, "Relu"): 1, (OFF, "Gather"): 3})
SIZES = Counter({(OFF, "Gather"): 3})
PROFILE: Any = SimpleNamespace(
    sizes=SIZES,
    executed=lambda: {ON: 4},
    time_share=lambda provider: (provider.name, 0.5),
    copies=3,
    inserted_casts=4,
    arithmetic=Counter({"float16": 1, "float32": 7}),
)
ARTIFACT: Any = SimpleNamespace(model=SimpleNamespace(skeleton="the skeleton"))
SPEC = PlacementSpec(
    min_share=0.7, min_time_share=0.6, max_memcpy=9, allowed_cpu_ops=("NonZero",)
)


def way_on(provider: str, placement: PlacementSpec = SPEC, **task: Any) -> Way:
    made = task_of(Path("net.onnx"), placement=placement)
    return Way(replace(made, cell=replace(made.cell, provider=provider), **task))


class Judged:
    """Stands in for the judges of a placement: notes what they're asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Any] = []
        self.short: list[str | None] = []
        monkeypatch.setattr(placement, "assignments", self._assignments)
        monkeypatch.setattr(placement, "judge_placement", self._judge)
        monkeypatch.setattr(placement, "shortfall", self._shortfall)

    def _assignments(self, session: object, provider: Any) -> Counter[tuple[str, str]]:
        self.asked.append(("assignments", session, provider.name))
        return ASSIGNED

    def _judge(self, assigned: Any, provider: Any, sizes: Any) -> Any:
        self.asked.append(("judge", assigned, provider.name, sizes))
        return SimpleNamespace(
            requested=ON,
            nodes={ON: 6},
            off_provider_ops={"Det": len(self.asked)},
            share=0.8,
        )

    def _shortfall(self, judged: Any, provider: Any, least: float | None) -> str | None:
        self.asked.append(("shortfall", judged.share, provider.name, least))
        return self.short.pop(0) if self.short else None


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Judged:
    return Judged(monkeypatch)


@pytest.mark.parametrize(
    ("provider", "demanded", "sizes", "least"),
    [
        # What may be arithmetic on shapes is given the benefit of the doubt on a device.
        ("cuda", None, ASSIGNED, 0.7),
        ("cuda", 0.0, ASSIGNED, 0.0),
        # A card can't ask less of the CPU than everything.
        ("cpu", None, Counter(), None),
        ("cpu", 0.4, Counter(), 0.4),
    ],
)
def test_a_placement_is_judged_at_its_best_and_as_it_is(
    judged: Judged, provider: str, demanded: float | None, sizes: Any, least: float | None
) -> None:
    way = way_on(provider, settings=Settings(min_placement=demanded))
    session: Any = "a session"
    assert prove_placement(way, session) is ASSIGNED
    assert judged.asked == [
        ("assignments", session, provider),
        ("judge", ASSIGNED, provider, sizes),
        ("shortfall", 0.8, provider, least),
        ("judge", ASSIGNED, provider, Counter()),
        ("shortfall", 0.8, provider, least),
    ]
    assert way.found.placement == PlacementRecord(
        ON,
        {ON: 6},
        {"Det": 4},
        0.8,
        operators={ON: {"Conv": 5, "Relu": 1}, OFF: {"Gather": 3, "Det": 2}},
    )


@pytest.mark.parametrize(
    ("best", "as_it_is", "reason"),
    [
        (None, None, None),
        (None, "short", None),
        ("short at best", "short", "short"),
        ("short at best", None, "short at best"),
    ],
)
def test_what_falls_short_at_best_ends_the_cell_with_the_whole_count(
    judged: Judged, best: str | None, as_it_is: str | None, reason: str | None
) -> None:
    judged.short = [best, as_it_is]
    session: Any = "a session"
    if reason is None:
        prove_placement(way_on("cuda"), session)
        return
    with pytest.raises(CellEnded) as ended:
        prove_placement(way_on("cuda"), session)
    assert (ended.value.status, ended.value.reason) == (Status.FAIL, reason)


@pytest.mark.parametrize(
    ("unproven", "keeps", "expected"),
    [(True, False, Counter()), (True, True, ASSIGNED), (False, False, ASSIGNED)],
)
def test_without_a_record_nothing_is_assigned_where_no_proof_is_asked_for(
    judged: Judged,
    monkeypatch: pytest.MonkeyPatch,
    unproven: bool,
    keeps: bool,
    expected: Counter[tuple[str, str]],
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(placement, "keeps_record", noting(asked, keeps))
    way = way_on("cuda", unproven_placement=unproven)
    session: Any = "a session"
    assert prove_placement(way, session) == expected
    assert asked == ([("a session",)] if unproven else [])
    assert judged.asked[-2][1] == expected


def test_what_a_card_allows_on_the_cpu_is_the_provider_s_as_well() -> None:
    cuda, demands = placement._contract(way_on("cuda"))
    plain = providers.get("cuda")
    assert cuda == replace(plain, cpu_ops=plain.cpu_ops | {"NonZero"})
    assert demands == SPEC
    own = replace(SPEC, by_provider={"cuda": PlacementSpec(max_memcpy=1)})
    assert placement._contract(way_on("cuda", own))[1] == replace(SPEC, max_memcpy=1)
    assert placement._contract(way_on("cpu")) == (providers.get("cpu"), PlacementSpec())


@pytest.fixture
def profiled(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the readers of a profile are asked, by name, and answers that can be set."""
    asked: dict[str, Any] = {}

    def stand_in(name: str, answer: object) -> None:
        def answers(*words: object, **more: object) -> object:
            asked[name] = (words, more)
            return asked.get(f"{name} answers", answer)

        monkeypatch.setattr(placement, name, answers)

    for name, answer in (
        ("read_profile", PROFILE),
        ("computes_in_half", "the half"),
        ("precision", "mixed"),
        ("contradiction", None),
        ("breach", None),
    ):
        stand_in(name, answer)
    assert judged.asked == []
    return asked


@pytest.mark.parametrize(
    ("short", "contradiction", "breach", "reason"),
    [
        (None, None, None, None),
        ("short", "contradicted", "breached", "short"),
        (None, "contradicted", "breached", "contradicted"),
        (None, None, "breached", "breached"),
    ],
)
def test_the_profile_of_a_run_is_recorded_and_compared_with_the_record(
    judged: Judged,
    profiled: dict[str, Any],
    short: str | None,
    contradiction: str | None,
    breach: str | None,
    reason: str | None,
) -> None:
    way, file = way_on("cuda"), Path("profile.json")
    judged.short = [short]
    profiled |= {"contradiction answers": contradiction, "breach answers": breach}
    if reason is None:
        cross_check(way, ASSIGNED, file, ARTIFACT)
    else:
        with pytest.raises(CellEnded) as ended:
            cross_check(way, ASSIGNED, file, ARTIFACT)
        assert (ended.value.status, ended.value.reason) == (Status.FAIL, reason)
    cuda, _ = placement._contract(way)
    assert way.found.placement == PlacementRecord(
        ON,
        {ON: 6},
        {"Det": 1},
        0.8,
        executed={ON: 4},
        time_share=("cuda", 0.5),  # type: ignore[arg-type]
        memcpy=3,
        inserted_casts=4,
        arithmetic={"float32": 7, "float16": 1},
        precision="mixed",
        operators={ON: {"Conv": 5, "Relu": 1}, OFF: {"Gather": 3, "Det": 2}},
    )
    assert list(way.found.placement.arithmetic) == ["float32", "float16"]
    assert list(way.found.placement.operators[OFF]) == ["Gather", "Det"]
    assert judged.asked[0] == ("judge", ASSIGNED, "cuda", SIZES)
    assert profiled["read_profile"] == ((file, cuda), {})
    assert profiled["computes_in_half"] == (("the skeleton",), {})
    assert profiled["precision"] == ((PROFILE, cuda), {"wants_half": "the half"})
    if short is None:
        assert profiled["contradiction"] == ((ASSIGNED, PROFILE, cuda), {})
    if short is None and contradiction is None:
        demanded = {"min_time_share": 0.6, "max_copies": 9}
        assert profiled["breach"] == ((PROFILE, cuda), demanded)


def test_without_a_profile_there_is_nothing_to_compare(
    judged: Judged, profiled: dict[str, Any]
) -> None:
    way = way_on("cpu")
    cross_check(way, ASSIGNED, None, ARTIFACT)
    assert (way.found.placement, judged.asked, profiled) == (None, [], {})
