"""The pinned reference in a run, beside an environment that is made up; and its side's answers."""

from __future__ import annotations

import gc
import math
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_harness import providers
from onnx_harness.cards.card import Card, PathSource
from onnx_harness.cell import pipeline
from onnx_harness.cell.matrix import Cell
from onnx_harness.cell.state import Judged, Task
from onnx_harness.errors import GateError
from onnx_harness.gate import lockstep, side, verdicts
from onnx_harness.gate import pinned as room
from onnx_harness.gate.pinned import Pinned
from onnx_harness.gate.slower import profile_cell
from onnx_harness.latency.plan import THREADS
from onnx_harness.model.file import Model
from onnx_harness.names import parse_variant
from onnx_harness.providers.profile_runs import RunProfiles
from onnx_harness.results.cells import PinnedRecord, Status
from onnx_harness.results.levels import FOLDER, Level, write_levels
from onnx_harness.results.operators import OperatorRecord
from onnx_harness.results.outcome import Outcome
from onnx_harness.settings import Settings
from tests.models import linear, save
from tests.nights import timed
from tests.unit.results_examples import RUN

VALUES = {"x": np.ones((2, 4), np.float32)}
VERSIONS = {"python": "3.11.7", "onnxruntime-gpu": "1.31.0"}
SHA = "ab" * 32


class Environment:
    """Both environments: what their processes were asked, and what they answer.

    Attributes:
        slow: milliseconds of a run in the pinned environment and in the one under test.
        fails: requests that end in an error.
    """

    def __init__(self, folder: Path) -> None:
        self.result = timed("original", inputs_sha256="i1")
        self.versions = VERSIONS
        self.slow = {True: 2.0, False: 1.0}
        self.fails: set[str] = set()
        self.opened: list[tuple[Any, ...]] = []
        self.started: list[tuple[Any, ...]] = []
        self.judged: list[tuple[Any, ...]] = []
        self.running = 0
        self.folder = folder

    def start(
        self, python: Path, limits: object, environment: dict[str, str], *, apart: bool
    ) -> Process:
        self.started.append((python, limits, environment, apart))
        self.running += 1
        return Process(self, apart)


class Process:
    def __init__(self, environment: Environment, pinned: bool) -> None:
        self._environment = environment
        self._pinned = pinned
        self._open = True
        # No two processes are quite as fast: readings that are all the same were replayed.
        self._pace = 1 + 1e-4 * (len(environment.started) * 7 % 17)

    def ask(self, name: str, *args: Any) -> Any:
        environment = self._environment
        assert self._open
        if name in environment.fails:
            raise GateError(f"no {name}")
        run_ms = environment.slow[self._pinned]
        if name == "versions":
            return environment.versions
        if name == "judge":
            environment.judged.append(args)
            return Judged(environment.result, Path("pinned.onnx"), "basic")
        if name == "run_block":
            return [int(run_ms * self._pace * 1e6)] * args[1]
        environment.opened.append((self._pinned, *args))
        return run_ms / 1e3

    def close(self) -> None:
        self._environment.running -= self._open
        self._open = False

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    made = Environment(tmp_path / "reference")
    monkeypatch.setattr(room, "EnvironmentProcess", made.start)
    monkeypatch.setattr(room, "core", lambda number, provider: (number, provider.name))
    (made.folder / "bin").mkdir(parents=True)
    (made.folder / "bin" / "python").touch()
    return made


def a_task(folder: Path) -> Task:
    path = folder / "net.onnx"
    card = Card(path=path, name="net", source=PathSource(path))
    return Task(Cell(card, parse_variant("original"), "cpu"), path, Settings())


def a_run(environment: Environment, *, pairs: int = 8, **settings: Any) -> Pinned:
    chosen = Settings(
        report_dir=environment.folder.parent, latency_budget=0.1, seed=RUN.seed, **settings
    )
    return Pinned(environment.folder, chosen, RUN.host, pairs)


def accepted(environment: Environment, ratio: float, **more: Any) -> None:
    """Accept a level with a ratio of what the environment would record."""
    record = PinnedRecord(VERSIONS, Status.PASS, threads=THREADS, model_sha256=SHA)
    record = replace(record, ratio=ratio, log_ratios=(math.log(ratio),) * 8)
    cell = replace(environment.result, pinned=replace(record, **more), latency=None)
    level = Level(cell, RUN.host.cpu, RUN.seed, "night", "2026-11-29", "me", "why")
    folder = environment.folder.parent / FOLDER
    folder.mkdir()
    write_levels(folder, {level.key: level})


TESTED = Judged(timed("original", inputs_sha256="i1"), Path("tested.onnx"), "all")


def recorded(
    environment: Environment, run: Pinned, judged: Judged = TESTED, values: Any = VALUES
) -> PinnedRecord:
    return run.record(a_task(environment.folder.parent), judged, values)


def test_the_environment_is_started_apart_with_what_the_providers_need(
    environment: Environment,
) -> None:
    run = a_run(environment, provider=("cpu", "tensorrt"))
    assert run.check() == VERSIONS
    [(python, limits, variables, apart)] = environment.started
    assert (python, apart) == (environment.folder / "bin" / "python", True)
    assert variables == providers.get("tensorrt").environment
    assert limits == Settings().limits
    run.close()
    run.close()
    assert environment.running == 0


@pytest.mark.parametrize(
    ("versions", "fails", "words"),
    [
        ({"python": "3.11.7", "numpy": "2.0"}, set(), "has no ONNX Runtime"),
        (VERSIONS, {"versions"}, "doesn't work: .*python: no versions"),
    ],
)
def test_an_environment_that_cannot_judge_is_refused_and_ended(
    environment: Environment, versions: dict[str, str], fails: set[str], words: str
) -> None:
    environment.versions, environment.fails = versions, fails
    with pytest.raises(
        GateError, match=f"{words}.* Make it anew: onnx-harness gate reference"
    ):
        a_run(environment).check()
    assert environment.running == 0


def test_a_cell_is_judged_on_the_accepted_model_and_timed_in_both(
    environment: Environment,
) -> None:
    accepted(environment, 0.5, model_sha256="cd" * 32)
    run = a_run(environment)
    record = recorded(environment, run)
    [(task, sha256, store)] = environment.judged
    assert task == a_task(environment.folder.parent)
    assert (sha256, store) == ("cd" * 32, environment.folder / "onnx-harness-models")
    assert record.ratio == pytest.approx(0.5, rel=0.01)
    assert record.ratio_ci95 == pytest.approx((0.5, 0.5), rel=0.01)
    assert record.log_ratios == pytest.approx([math.log(0.5)] * 8, abs=0.01)
    assert (record.median_ms, record.pinned_median_ms) == pytest.approx((1.0, 2.0), rel=0.01)
    assert record.samples >= 8
    assert (record.status, record.threads, record.versions) == (
        Status.PASS,
        THREADS,
        VERSIONS,
    )
    assert (record.graph, record.accuracy) == (
        environment.result.graph,
        environment.result.accuracy,
    )
    assert record.model_sha256 == SHA
    assert record.reason is None
    assert len(environment.opened) == 16
    for place, (pinned, model, level, provider, threads, values, stays_on) in enumerate(
        environment.opened
    ):
        assert (model, level) == (
            (Path("pinned.onnx"), "basic") if pinned else (Path("tested.onnx"), "all")
        )
        assert (provider, threads, values) == ("cpu", THREADS, VALUES)
        assert stays_on == (place // 2, "cpu")
    firsts = [pinned for pinned, *_ in environment.opened[::2]]
    assert sorted(firsts) == [False] * 4 + [True] * 4
    assert environment.running == 1  # the one that judges
    [judging, *timing] = environment.started
    assert judging[3]
    assert sum(apart for *_, apart in timing) == 8


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": Status.FAIL, "reason": "it differs"}, "it differs"),
        (
            {"inputs_sha256": "i2"},
            "the two environments make different inputs from the same seed",
        ),
        ({"inputs_sha256": "i2", "model_sha256": "ef" * 32}, None),
    ],
)
def test_a_cell_is_timed_where_both_pass_on_the_same_inputs(
    environment: Environment, change: dict[str, Any], reason: str | None
) -> None:
    environment.result = replace(environment.result, **change)
    record = recorded(environment, a_run(environment))
    assert record.reason == reason
    assert (record.ratio is None) is (reason is not None)


@pytest.mark.parametrize(
    ("judged", "values"), [(replace(TESTED, artifact=None), VALUES), (TESTED, None)]
)
def test_a_cell_without_a_model_or_inputs_to_time_is_judged_alone(
    environment: Environment, judged: Judged, values: Any
) -> None:
    record = recorded(environment, a_run(environment), judged, values)
    assert (record.status, record.ratio, environment.opened) == (Status.PASS, None, [])


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ("judge", "in the reference environment: no judge"),
        ("open_model", "in lockstep with the reference environment: no open_model"),
    ],
)
def test_what_goes_wrong_in_the_reference_ends_no_run(
    environment: Environment, request_: str, reason: str
) -> None:
    run = a_run(environment)
    environment.fails = {request_}
    record = recorded(environment, run)
    assert (record.reason, record.ratio) == (reason, None)
    assert record.status is (Status.ERROR if request_ == "judge" else Status.PASS)
    environment.fails = set()
    # In a fresh process.
    assert recorded(environment, run).ratio == pytest.approx(0.5, rel=0.01)
    run.close()
    assert environment.running == 0


@pytest.mark.parametrize(
    ("accepted_ratio", "outcome"),
    [(0.5, Outcome.PASS), (0.4, Outcome.FAIL), (0.6, Outcome.PASS)],
)
def test_the_ratio_is_compared_with_the_accepted_one(
    environment: Environment, accepted_ratio: float, outcome: Outcome
) -> None:
    accepted(environment, accepted_ratio)
    run = a_run(environment)
    recorded(environment, run)
    [(name, record)] = run.decide().items()
    assert name == "net-original-cpu"
    assert record.verdict is not None
    assert (record.verdict.outcome, record.verdict.accepted) == (outcome, accepted_ratio)
    assert run.doubtful() == ([name] if outcome is Outcome.FAIL else [])


@pytest.mark.parametrize(
    "change", [{"threads": 99}, {"versions": {"onnxruntime-gpu": "1.0"}}]
)
def test_a_level_that_means_something_else_decides_nothing(
    environment: Environment, change: dict[str, Any]
) -> None:
    accepted(environment, 0.5, **change)
    run = a_run(environment)
    recorded(environment, run)
    assert (run.decide(), run.doubtful()) == ({}, [])


def test_without_a_level_nothing_is_decided(environment: Environment) -> None:
    run = a_run(environment)
    recorded(environment, run)
    assert (run.decide(), environment.judged[0][1]) == ({}, "")


@pytest.mark.parametrize(("now_ms", "slower"), [(1.0, True), (0.8, False)])
def test_a_second_measurement_is_taken_in_parts_and_names_operators_where_it_fails(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, now_ms: float, slower: bool
) -> None:
    monkeypatch.setattr(verdicts, "CONFIRMING_PAIRS", 20)
    operators = OperatorRecord((), 16)
    profiled: list[tuple[Any, ...]] = []

    def profiles(start: Callable[[int, bool], Any], seed: int) -> OperatorRecord:
        for pinned in (True, False):
            process, seconds = start(3, pinned)
            process.close()
            profiled.append((seed, seconds))
        return operators

    monkeypatch.setattr(room, "profile_cell", profiles)
    accepted(environment, 0.4)
    run = a_run(environment)
    recorded(environment, run)
    run.decide()
    environment.opened.clear()
    environment.slow = {True: 2.0, False: now_ms}
    assert run.again("net-original-cpu", VALUES) is None
    assert len(environment.opened) == 2 * verdicts.PART_PAIRS
    record = run.again("net-original-cpu", VALUES)
    assert record is not None
    assert record.confirming_log_ratios == pytest.approx(
        [math.log(now_ms / 2)] * 20, abs=0.01
    )
    assert record.log_ratios == pytest.approx([math.log(0.5)] * 8, abs=0.01)
    assert all(values is VALUES for *_, values, _ in environment.opened)
    cores = [stays_on for *_, stays_on in environment.opened[:40:2]]
    assert cores == [(number, "cpu") for number in range(20)]
    assert record.verdict is not None
    assert (record.verdict.outcome is Outcome.FAIL) is slower
    assert record.operators == (operators if slower else None)
    if slower:
        assert profiled == [(RUN.seed, 2e-3), (RUN.seed, 1e-3)]
        how = ("cpu", THREADS, VALUES, (3, "cpu"))
        assert environment.opened[40:] == [
            (True, Path("pinned.onnx"), "basic", *how),
            (False, Path("tested.onnx"), "all", *how),
        ]
    assert environment.running == 1


def test_each_part_has_a_seed_and_a_share_of_the_budget(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "CONFIRMING_PAIRS", 20)
    asked: list[tuple[int, float, int]] = []
    measures = lockstep.measure

    def measured(open_pair: Any, *, pairs: int, seconds: float, seed: int) -> Any:
        asked.append((pairs, round(seconds, 6), seed))
        return measures(open_pair, pairs=pairs, seconds=seconds, seed=seed)

    monkeypatch.setattr(room, "measure", measured)
    accepted(environment, 0.4)
    run = a_run(environment)
    recorded(environment, run)
    run.decide()
    assert run.again("net-original-cpu", VALUES) is None
    environment.fails = {"open_profiled"}
    assert run.again("net-original-cpu", VALUES) is not None
    assert asked == [
        (8, 0.2, RUN.seed),
        (12, 0.3, RUN.seed + 1),
        (8, 0.2, RUN.seed + 1 + 12),
    ]


def test_a_profile_that_fails_ends_its_process(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "CONFIRMING_PAIRS", 8)
    accepted(environment, 0.4)
    run = a_run(environment)
    recorded(environment, run)
    run.decide()
    environment.fails = {"open_profiled"}
    record = run.again("net-original-cpu", VALUES)
    assert record is not None
    assert record.operators is not None
    assert record.operators.reason == "no open_profiled"
    assert environment.running == 1


def slower_order(seed: int, slow: bool = True) -> tuple[list[bool], OperatorRecord, int]:
    """In which order the sides of each pair were opened, the record, and what was left open."""
    opened: list[bool] = []
    running: list[int] = []

    class Profiled:
        def __init__(self, is_pinned: bool) -> None:
            self._pinned = is_pinned
            self._open = True
            running.append(1)

        def ask(self, name: str, *words: int) -> Any:
            if name == "run_block":
                assert words == (0, 1)
                return [1]
            assert name == "finish_profile"
            took = 100.0 if self._pinned or not slow else 200.0 + len(opened)
            return RunProfiles(
                {"gru": "GRU"}, tuple({"gru": took + run} for run in range(40))
            )

        def close(self) -> None:
            if self._open:
                running.pop()
            self._open = False

    def start(number: int, is_pinned: bool) -> tuple[Any, float]:
        assert number == len(opened) // 2
        opened.append(is_pinned)
        return Profiled(is_pinned), 1e-3

    return opened, profile_cell(start, seed, pairs=8), len(running)


def test_operators_are_compared_over_pairs_opened_in_random_order() -> None:
    opened, record, left_open = slower_order(3)
    assert (record.pairs, record.reason, left_open) == (8, None, 0)
    [slower] = record.slower
    assert (slower.name, slower.op_type) == ("gru", "GRU")
    assert slower.before_ms < slower.after_ms
    firsts = opened[::2]
    assert sorted(firsts) == [False] * 4 + [True] * 4
    assert slower_order(3)[0] == opened
    assert any(slower_order(seed)[0] != opened for seed in range(9))
    assert slower_order(3, slow=False)[1].slower == ()


# The side's own answers, in this process.


@pytest.fixture
def on_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, set[int]]]]:
    """The cores that the process was told to stay on."""
    told: list[tuple[int, set[int]]] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda *words: told.append(words))
    yield told
    gc.enable()


@pytest.mark.parametrize("core", [None, 5])
def test_a_side_opens_a_model_runs_it_and_stays_on_its_core(
    tmp_path: Path, on_core: list[tuple[int, set[int]]], core: int | None
) -> None:
    model = save(linear(), tmp_path / "net.onnx")
    seconds = side.open_model(model, "all", "cpu", 1, VALUES, core)
    assert 0 < seconds < 5
    assert on_core == ([] if core is None else [(0, {5})])
    assert not gc.isenabled()
    assert len(side.run_block(0, 3)) == 3


def test_only_the_timed_runs_of_a_block_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    monkeypatch.setattr(side, "_running", [lambda: runs.append(1)])
    times = side.run_block(2, 3)
    assert (len(times), len(runs)) == (3, 5)
    assert all(0 < time < 1e9 for time in times)


def test_a_side_profiles_a_model(
    tmp_path: Path, on_core: list[tuple[int, set[int]]]
) -> None:
    model = save(linear(), tmp_path / "net.onnx")
    assert 0 < side.open_profiled(model, "all", "cpu", 1, VALUES, 2) < 5
    side.run_block(0, 3)
    assert len(side.finish_profile().runs) == 5
    assert on_core == [(0, {2})]


def test_a_side_judges_the_accepted_model_and_says_which_that_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(linear(), tmp_path / "net.onnx")
    task = replace(a_task(tmp_path), model=path)
    judged: list[Task] = []

    def judges(given: Task) -> Judged:
        judged.append(given)
        return Judged(timed("original"), level="basic")

    monkeypatch.setattr(pipeline, "judge", judges)
    own = Model(path).sha256
    first = side.judge(task, "", tmp_path / "store")
    assert (first.result.model_sha256, first.level) == (own, "basic")
    path.write_bytes(path.read_bytes() + b"\x32\x01x")  # another doc string
    again = side.judge(task, own, tmp_path / "store")
    assert again.result.model_sha256 == own
    assert [given.model for given in judged] == [path, tmp_path / "store" / own / "net.onnx"]


def test_a_side_answers_until_the_other_end_hangs_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails() -> None:
        raise ValueError("no versions")

    monkeypatch.setattr(
        side, "_ANSWERS", {"double": lambda number: 2 * number, "fails": fails}
    )
    ours, theirs = Pipe()
    thread = threading.Thread(target=side.serve, args=(os.dup(theirs.fileno()),))
    theirs.close()
    thread.start()
    assert _asked(ours, "double", 21) == (True, 42)
    succeeded, words = _asked(ours, "fails")
    assert (succeeded, "no versions" in words) == (False, True)
    ours.close()
    thread.join(10)
    assert not thread.is_alive()


def _asked(pipe: Connection, name: str, *args: object) -> Any:
    pipe.send((name, args))
    assert pipe.poll(10)
    return pipe.recv()


def test_every_request_has_its_answer() -> None:
    assert dict(side._ANSWERS) == {
        name: getattr(side, name)
        for name in (
            "note_in",
            "versions",
            "judge",
            "open_model",
            "run_block",
            "open_profiled",
            "finish_profile",
        )
    }


def test_a_side_says_which_versions_it_has() -> None:
    assert side.versions()["onnxruntime"]


def test_an_environment_that_was_checked_is_not_checked_again(
    environment: Environment,
) -> None:
    chosen = Settings(latency_budget=0.1, seed=RUN.seed)
    run = Pinned(environment.folder, chosen, RUN.host, 8)
    assert run.check() == VERSIONS
    environment.versions = {"onnxruntime": "2"}
    assert recorded(environment, run, TESTED, None).versions == VERSIONS
    assert (run.decide(), run.doubtful()) == ({}, [])
    run.close()


@pytest.mark.parametrize(("family", "counted"), [(None, 1), (120, 120)])
def test_a_part_decides_for_the_cells_of_the_whole_run(
    environment: Environment, family: int | None, counted: int
) -> None:
    accepted(environment, 1.0)
    chosen = Settings(
        report_dir=environment.folder.parent, latency_budget=0.1, seed=RUN.seed
    )
    run = Pinned(environment.folder, chosen, RUN.host, 16, family=family)
    recorded(environment, run)
    assert run.has_levels
    run.decide()
    assert [decision.family for decision in run._firsts.values()] == [counted]


def test_nothing_is_doubtful_before_anything_was_decided(environment: Environment) -> None:
    assert a_run(environment).doubtful() == []


def test_both_sides_are_timed_on_as_many_threads_as_the_record_says(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "THREADS", 2)
    assert recorded(environment, a_run(environment)).threads == 2
    assert {threads for _, _, _, _, threads, *_ in environment.opened} == {2}
