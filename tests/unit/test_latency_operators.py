"""The operators that got slower, from recorded profiles: no test of its own takes any time."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from onnx_harness.errors import ProviderError
from onnx_harness.latency.operators import ProfiledPair, middle_mean, slower_operators
from onnx_harness.latency.profiled import profile_pairs
from onnx_harness.providers.profile_runs import RunProfiles, read_runs
from onnx_harness.results.operators import OperatorRecord, SlowerOperator

TIMES_US = {"conv_0": 240.0, "gru_3": 1400.0, "conv_1": 310.0, "tanh": 22.0}


def profiles(
    rng: random.Random, factors: Mapping[str, float], *, runs: int = 20, spread: float = 0.03
) -> RunProfiles:
    """Profiles of one session: times spread about those above, in whole microseconds.

    The session as a whole is disturbed, too.
    """
    disturbed = rng.lognormvariate(0, 0.01)
    recorded = []
    for _ in range(runs):
        run = {}
        for name, factor in factors.items():
            time_us = TIMES_US.get(name, 100.0) * factor * disturbed
            run[name] = float(round(time_us * rng.lognormvariate(0, spread)))
        recorded.append(run)
    return RunProfiles({name: name.split("_")[0] for name in factors}, tuple(recorded))


def recorded_pairs(
    slowdowns: Mapping[str, float], *, seed: int = 0, pairs: int = 16
) -> list[ProfiledPair]:
    rng = random.Random(seed)
    equal = dict.fromkeys(TIMES_US, 1.0)
    return [
        ProfiledPair(profiles(rng, equal), profiles(rng, {**equal, **slowdowns}))
        for _ in range(pairs)
    ]


def test_the_operator_that_takes_a_tenth_longer_is_named_with_its_times() -> None:
    [operator] = slower_operators(recorded_pairs({"gru_3": 1.1}))

    assert (operator.name, operator.op_type) == ("gru_3", "gru")
    assert operator.before_ms == pytest.approx(1.4, rel=0.02)
    assert operator.after_ms == pytest.approx(1.54, rel=0.02)
    assert operator.ratio_ci95 is not None
    low, high = operator.ratio_ci95
    assert 1.07 < low < 1.1 < high < 1.13
    assert operator.share > 0.9


def test_a_tenth_in_any_operator_is_named_and_equal_sessions_name_none() -> None:
    for seed in range(20):
        assert slower_operators(recorded_pairs({}, seed=seed)) == ()
        slowed = slower_operators(recorded_pairs({"conv_1": 1.1}, seed=seed))
        assert [operator.name for operator in slowed] == ["conv_1"]


def test_several_are_named_the_one_that_adds_most_first() -> None:
    slower = slower_operators(recorded_pairs({"conv_0": 1.5, "gru_3": 1.2}))

    assert [operator.name for operator in slower] == ["gru_3", "conv_0"]
    assert sum(operator.share for operator in slower) == pytest.approx(1.0, abs=0.05)


def test_an_operator_that_is_new_has_no_interval() -> None:
    rng = random.Random(1)
    equal = dict.fromkeys(TIMES_US, 1.0)
    pairs = [
        ProfiledPair(profiles(rng, equal), profiles(rng, {**equal, "transpose_9": 1.0}))
        for _ in range(16)
    ]

    [operator] = slower_operators(pairs)

    assert (operator.name, operator.before_ms) == ("transpose_9", 0.0)
    assert operator.ratio_ci95 is None


def test_what_became_faster_as_a_whole_names_none() -> None:
    assert slower_operators(recorded_pairs({"gru_3": 0.8, "conv_0": 1.2})) == ()


def test_too_few_pairs_name_none() -> None:
    assert slower_operators(recorded_pairs({"gru_3": 1.5}, pairs=5)) == ()


def test_the_middle_mean_leaves_out_both_ends() -> None:
    assert middle_mean([1.0, 2.0, 3.0, 1000.0]) == 2.5


def event(name: str, op_type: str, index: int, took_us: int) -> str:
    details = {
        "op_name": op_type,
        "node_index": str(index),
        "provider": "CPUExecutionProvider",
    }
    record = {"cat": "Node", "name": f"{name}_kernel_time", "dur": took_us, "args": details}
    return json.dumps(record) + ","


def run_ends() -> str:
    return json.dumps({"cat": "Session", "name": "model_run", "dur": 1, "args": {}}) + ","


def test_a_profile_is_read_by_run_and_node(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    first = [
        event("a", "Conv", 4, 10),
        event("loop", "Loop", 5, 99),
        event("in", "Add", 0, 1),
    ]
    second = [event("a", "Conv", 4, 12), event("in", "Add", 0, 2), event("in", "Add", 0, 3)]
    file.write_text("\n".join(["[", *first, run_ends(), *second, run_ends(), "]"]), "utf-8")

    read = read_runs(file)

    assert read.runs == ({"a": 10.0, "in": 1.0}, {"a": 12.0, "in": 5.0})
    assert read.op_types == {"a": "Conv", "in": "Add"}


def test_nameless_nodes_are_called_after_their_operators(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    events = [
        event("Add_7", "Add", 7, 1),
        event("", "Mul", 8, 2),
        event("Add_12", "Add", 12, 3),
    ]
    file.write_text("\n".join(["[", *events, run_ends(), "]"]), "utf-8")

    assert read_runs(file).runs == ({"Add_0": 1.0, "Mul_0": 2.0, "Add_1": 3.0},)


def test_a_profile_without_a_run_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text("[\n]", "utf-8")

    with pytest.raises(ProviderError, match="it holds no run"):
        read_runs(file)


class Side:
    """A side that counts its runs."""

    def __init__(self, log: list[str], name: str) -> None:
        self._log, self._name, self._runs = log, name, 2

    def run(self) -> None:
        self._log.append(self._name)
        self._runs += 1

    def finish(self) -> RunProfiles:
        return RunProfiles(
            {"a": "Add"}, tuple({"a": float(run)} for run in range(self._runs))
        )


def test_both_sides_run_in_turn_as_often_and_warm_up_runs_do_not_count() -> None:
    log: list[str] = []

    pairs = profile_pairs(
        lambda *_: (Side(log, "baseline"), Side(log, "variant"), 0.01), pairs=4, seconds=0.2
    )

    assert log.count("baseline") == log.count("variant") == 40
    assert all({log[at], log[at + 1]} == {"baseline", "variant"} for at in range(0, 80, 2))
    assert all(len(pair.baseline.runs) == len(pair.variant.runs) == 10 for pair in pairs)
    assert pairs[0].baseline.runs[0] == {"a": 2.0}


def test_a_record_is_a_sentence() -> None:
    operator = SlowerOperator("GRU_3", "GRU", 1.4, 2.1, (1.47, 1.53), 0.97)

    assert (
        str(OperatorRecord((operator,), 16))
        == "slower operators: GRU_3: 1.4 -> 2.1 ms [+47%, +53%], 97% of the slowdown"
    )
    assert str(OperatorRecord((), 16)) == (
        "no operator stands out in 16 pairs of profiled sessions"
    )
    assert str(OperatorRecord(reason="it died")) == (
        "which operator got slower isn't known: it died"
    )
