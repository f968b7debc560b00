"""Timing in lockstep: with sides that are made up, and with a process of this environment."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from onnx_harness.errors import GateError, UsageError
from onnx_harness.gate import process
from onnx_harness.gate.lockstep import Timed, core, measure, plan
from onnx_harness.gate.process import EnvironmentProcess, python_of
from onnx_harness.isolate import Limits
from onnx_harness.providers import get
from tests.models import linear, save

LIMITS = Limits(60.0, 8 << 30)
PAIRS = 8


class Machine:
    """Two sides on a machine whose speed drifts, on which whoever runs first of a turn is slower."""

    def __init__(
        self, tested_ms: float, pinned_ms: float, *, first: float = 1.0, drift: float = 0.0
    ) -> None:
        self.rng = np.random.default_rng(0)
        self.cost = (tested_ms * 1e6, pinned_ms * 1e6)
        self.first, self.drift = first, drift
        self.asked: list[str] = []
        self.speed, self.blocks = 1.0, 0
        self.opened: list[bool] = []

    def open_pair(
        self, stack: ExitStack, number: int, tested_first: bool
    ) -> tuple[Timed, Timed, float]:
        assert number == len(self.opened)
        self.opened.append(tested_first)
        stack.callback(self.asked.append, "close")
        return (
            _Made(self, "tested", self.cost[0]),
            _Made(self, "pinned", self.cost[1]),
            max(self.cost[0] / 1e9, 1e-6),
        )


class _Made:
    def __init__(self, machine: Machine, name: str, cost: float) -> None:
        self.machine, self.name, self.cost = machine, name, cost

    def ask(self, name: str, *args: object) -> list[int]:
        machine = self.machine
        _, timed = args
        assert isinstance(timed, int)
        assert name == "run_block"
        slower = machine.first if machine.blocks % 2 == 0 else 1.0
        machine.blocks += 1
        machine.speed *= 1 + machine.drift
        machine.asked.append(self.name)
        noise = machine.rng.normal(scale=0.02, size=timed)
        return [int(self.cost * slower * machine.speed * math.exp(value)) for value in noise]


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="elsewhere no process can be kept on a core"
)
def test_both_sides_stay_on_one_core_where_one_thread_does_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", {0: {5, 2, 7}}.__getitem__)
    assert [core(number, get("cpu")) for number in range(4)] == [2, 5, 7, 2]
    assert [core(number, get("cuda")) for number in range(2)] == [2, 5]
    assert core(0, get("tensorrt")) == 2
    assert core(0, get("webgpu")) is None, (
        "a device in software computes on threads of its own"
    )


def test_the_ratio_is_that_of_the_sides_whatever_the_machine_does() -> None:
    machine = Machine(2.1, 2.0, first=1.2, drift=0.001)
    found = measure(machine.open_pair, pairs=PAIRS, seconds=3.0, seed=1)
    assert len(found.log_ratios) == PAIRS
    assert float(np.median(found.log_ratios)) == pytest.approx(math.log(1.05), abs=0.005)
    assert found.samples > 100


def test_either_side_goes_first_half_of_the_time() -> None:
    machine = Machine(2.0, 2.0)
    measure(machine.open_pair, pairs=PAIRS, seconds=3.0, seed=2)
    assert sum(machine.opened) == PAIRS // 2
    turns = [name for name in machine.asked if name != "close"]
    assert turns[::2].count("tested") == turns[::2].count("pinned")
    assert machine.asked.count("close") == PAIRS


def test_a_clock_that_stands_still_is_noticed() -> None:
    with pytest.raises(GateError, match="clock moved by 0 ns"):
        measure(Machine(0.0, 2.0).open_pair, pairs=PAIRS, seconds=1.0, seed=0)


@pytest.mark.parametrize("run_s", [1e-5, 1e-4, 1e-3, 4e-3, 6e-3, 0.05, 2.0])
def test_a_plan_has_an_even_number_of_turns_and_keeps_its_time_where_it_can(
    run_s: float,
) -> None:
    untimed, timed, turns = plan(run_s, 0.375)
    assert turns % 2 == 0
    assert turns >= 4
    assert timed >= 1
    took = 2 * turns * (untimed + timed) * run_s
    assert took <= 0.375 or turns == 4


@pytest.fixture
def side() -> EnvironmentProcess:
    return EnvironmentProcess(Path(sys.executable), LIMITS, {}, apart=True)


def test_a_process_opens_a_model_and_times_it(
    side: EnvironmentProcess, tmp_path: Path
) -> None:
    model = save(linear(), tmp_path / "net.onnx")
    with side:
        assert side.ask("versions")["onnxruntime"]
        values = {"x": np.ones((2, 4), np.float32)}
        assert side.ask("open_model", model, "all", "cpu", 1, values, None) > 0
        times = side.ask("run_block", 1, 5)
        assert len(times) == 5
        assert min(times) > 0


def test_what_goes_wrong_in_a_process_is_told(
    side: EnvironmentProcess, tmp_path: Path
) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with side:
        with pytest.raises(GateError, match=r"InvalidProtobuf|Fail"):
            side.ask("open_model", tmp_path / "bad.onnx", "all", "cpu", 1, {}, None)
        side._process.kill()
        with pytest.raises(GateError, match="died of signal 9"):
            side.ask("versions")


def test_a_process_that_takes_too_long_or_too_much_is_given_up(tmp_path: Path) -> None:
    model = save(linear(), tmp_path / "net.onnx")
    opening = (
        "open_model",
        model,
        "all",
        "cpu",
        1,
        {"x": np.ones((2, 4), np.float32)},
        None,
    )
    with (
        EnvironmentProcess(
            Path(sys.executable), Limits(0.01, 8 << 30), {}, apart=True
        ) as side,
        pytest.raises(GateError, match="did not answer within"),
    ):
        side.ask(*opening)
    with (
        EnvironmentProcess(
            Path(sys.executable), Limits(60, 1 << 20), {}, apart=True
        ) as side,
        pytest.raises(GateError, match="more memory"),
    ):
        side.ask(*opening)


def test_an_environment_without_an_interpreter_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="onnx-harness gate reference"):
        python_of(tmp_path)


@pytest.mark.parametrize("apart", [True, False])
def test_a_process_gets_no_input_no_folder_and_the_variables_that_it_needs(
    monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    started: list[tuple[list[str], dict[str, Any]]] = []

    class SizeOf:
        def __init__(self, rss: int) -> None:
            self.rss = rss

        def memory_info(self) -> SizeOf:
            return self

    def gone(_: int) -> None:
        raise psutil.NoSuchProcess(7)

    class Started:
        returncode = -11
        pid = 77

        def __init__(self, command: list[str], **options: Any) -> None:
            started.append((command, options))

        def kill(self) -> None: ...

        def wait(self, *_: float) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Started)
    for name in process._NOT_INHERITED:
        monkeypatch.setenv(name, "theirs")
    monkeypatch.setenv("KEPT", "yes")
    with EnvironmentProcess(Path("python"), LIMITS, {"ADDED": "1"}, apart=apart) as made:
        made._log.write(b"one\ntwo \n")
        sizes = {made._process.pid: 5}
        monkeypatch.setattr(psutil, "Process", lambda pid: SizeOf(sizes[pid]))
        assert made._memory_bytes() == 5
        monkeypatch.setattr(psutil, "Process", gone)
        assert made._memory_bytes() == 0
        assert str(made._gone()) == "the process died of signal 11; it last said: two"
    [(command, options)] = started
    assert command[:3] == ["python", "-P", "-c"]
    assert options["stdin"] == subprocess.DEVNULL
    assert options["stdout"] is options["stderr"]
    assert options["pass_fds"] == [int(command[-1])]
    variables = options["env"]
    assert (variables["KEPT"], variables["ADDED"]) == ("yes", "1")
    assert (
        "theirs" in [variables.get(name) for name in process._NOT_INHERITED]
    ) is not apart


def test_a_process_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"nowhere can't be started: No such file"):
        EnvironmentProcess(tmp_path / "nowhere", LIMITS, {}, apart=True)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "hung up"),
        (-9, "died of signal 9"),
        (0, "left with exit code 0"),
        (3, "left with exit code 3"),
    ],
)
def test_how_a_process_ended_in_words(code: int | None, words: str) -> None:
    assert process._manner(code) == words


@pytest.mark.parametrize(
    ("run_s", "seconds", "expected"),
    [
        (0.005, 10.0, (0, 1, 60)),
        (0.00499, 10.0, (1, 1, 60)),
        (0.001, 0.2, (1, 4, 20)),
        (0.001, 0.21, (1, 4, 20)),
        (0.001, 0.22, (1, 4, 22)),
        (0.0005, 0.009 * 6, (1, 8, 6)),
        (0.0001, 0.1, (1, 8, 54)),
        (0.0001, 0.12, (1, 8, 60)),
        (0.002, 0.001, (1, 2, 4)),
        (2.0, 0.375, (0, 1, 4)),
        (0.01, 0.1, (0, 1, 4)),
        (0.01, 0.12, (0, 1, 6)),
    ],
)
def test_a_plan_in_figures(
    run_s: float, seconds: float, expected: tuple[int, int, int]
) -> None:
    assert plan(run_s, seconds + 1e-9) == expected


class Steady:
    """A side whose runs take the times that are given, over and over; it keeps what was asked."""

    def __init__(self, times: list[int], asked: list[tuple[object, ...]]) -> None:
        self._times, self._asked = times, asked

    def ask(self, name: str, *args: object) -> list[int]:
        self._asked.append((name, *args))
        return self._times


def test_readings_are_medians_and_a_pair_gets_its_share_of_the_seconds() -> None:
    asked: list[tuple[object, ...]] = []
    numbers: list[int] = []

    def open_pair(stack: ExitStack, number: int, first: bool) -> tuple[Timed, Timed, float]:
        assert isinstance(first, bool)
        stack.callback(numbers.append, -number)
        numbers.append(number)
        slower = 2 if number == 3 else 1
        tested_ns = [slower * time for time in (2_000_000, 9_000_000, 3_000_000, 3_000_000)]
        pinned_ns = [slower * time for time in (1_000_000, 8_000_000, 2_000_000, 2_000_000)]
        return Steady(tested_ns, asked), Steady(pinned_ns, asked), 0.001

    found = measure(open_pair, pairs=4, seconds=0.404, seed=0)
    assert found.log_ratios == pytest.approx([math.log(3 / 2)] * 4)
    assert (found.median_ms, found.pinned_median_ms) == (3.0, 2.0)
    assert found.samples == 4 * 10 * 4
    assert asked == [("run_block", 1, 4)] * (2 * 4 * 10)
    assert numbers == [0, 0, 1, -1, 2, -2, 3, -3]


def test_the_seed_decides_which_side_is_opened_first() -> None:
    orders = []
    for seed in (0, 0, *range(1, 9)):
        machine = Machine(2.0, 2.0)
        measure(machine.open_pair, pairs=PAIRS, seconds=0.1, seed=seed)
        orders.append((machine.opened, machine.asked))
    assert orders[0] == orders[1]
    assert any(order != orders[0] for order in orders)


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ([1, 1, 1], "moved by 1 ns"),
        ([1, 1, 1, 1, 1], "moved by 1 ns"),
        ([5, 0, 5, 5], "moved by 0 ns"),
        ([5, -3, 5, 5], "moved by -3 ns"),
        ([], "moved by 0 ns"),
    ],
)
def test_times_that_are_none_or_too_few_are_told(times: list[int], words: str) -> None:
    def open_pair(*_: object) -> tuple[Timed, Timed, float]:
        return Steady([1, 1, 1, 1], []), Steady(times, []), 0.001

    with pytest.raises(GateError, match=words):
        measure(open_pair, pairs=1, seconds=0.1, seed=0)


def test_a_run_may_take_a_nanosecond() -> None:
    def open_pair(*_: object) -> tuple[Timed, Timed, float]:
        return Steady([1] * 4, []), Steady([1] * 4, []), 0.001

    assert measure(open_pair, pairs=2, seconds=0.1, seed=0).log_ratios == (0.0, 0.0)
