"""A trial that is slow isn't one that hangs: the untouched model tells them apart."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.diagnose import hangs, trial_runner
from onnx_harness.diagnose.search import diagnose
from onnx_harness.names import parse_variant
from onnx_harness.results.diagnosis import Diagnosis
from onnx_harness.settings import Settings
from onnx_harness.transforms import BoundStep, Parts, Transform
from onnx_harness.transforms.variant import bind_variant
from tests.models import linear, model, save

PASSES = tuple(f"pass_{number}" for number in range(6))
IN_A_LOOP = """(float[2,4] x) => (float[2,4] y) {
  h = MatMul(x, w)
  s = Loop (trips, go, h) <body = body (int64 i, bool on, float[2,4] state)
      => (bool more, float[2,4] next) { next = Tanh(state)  more = Identity(on) }>
  y = Add(s, h) }"""


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first limit is a fraction of a second, as if the model or the machine were slower."""
    monkeypatch.setattr(trial_runner, "_SHARE", 0.0)
    monkeypatch.setattr(trial_runner, "LEAST_SECONDS", 0.1)
    monkeypatch.setattr(trial_runner, "LEAST_HANG_SECONDS", 0.1)


def slow_model(trips: int) -> onnx.ModelProto:
    """Return a model whose run takes a few microseconds a trip."""
    made = model(IN_A_LOOP)
    weights = {
        "w": np.eye(4, dtype=np.float32),
        "trips": np.array(trips),
        "go": np.array(True),
    }
    for name, value in weights.items():
        made.graph.initializer.append(numpy_helper.from_array(value, name))
    return made


def apply(
    model: onnx.ModelProto, seconds: float, scales: bool, skipped: Sequence[str] = ()
) -> onnx.ModelProto:
    """A transform of six passes, of which one takes its time and does harm."""
    if "pass_3" in skipped:
        return model
    time.sleep(seconds)
    if scales:
        weight = model.graph.initializer[0]
        weight.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(weight) * 2, weight.name)
        )
    return model


def names(_: onnx.ModelProto, __: Mapping[str, Any]) -> Sequence[str]:
    return PASSES


def without(options: Mapping[str, Any], left: Sequence[str]) -> Mapping[str, Any]:
    return {**options, "skipped": tuple(left)}


def searched(
    path: Path,
    *,
    sleeps: float = 0.0,
    scales: bool = True,
    seconds: float = 600.0,
    known_failure: str = "",
) -> Diagnosis:
    transform = Transform(
        "",
        partial(apply, seconds=sleeps, scales=scales),
        {},
        parts=Parts("pass", names, without),
    )
    bound = bind_variant(parse_variant("original"))
    bound = replace(bound, steps=(*bound.steps, BoundStep("planted", transform, {})))
    cell = Cell(card_for(path), parse_variant("original"), "cpu")
    task = Task(cell, path, Settings(input_sets=1))
    return diagnose(task, bound=bound, seconds=seconds, known_failure=known_failure)


@pytest.mark.usefixtures("short_limits")
def test_a_slow_model_has_as_long_as_it_takes_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of 0.1 s: a busy machine stalls for a second.
    monkeypatch.setattr(hangs, "_HANGS_AFTER", 60.0)
    diagnosis = searched(save(slow_model(20_000), tmp_path / "m.onnx"))

    assert diagnosis.found
    assert diagnosis.cause.passes == ("pass_3",)
    assert "did not end" not in diagnosis.sentence
    assert any(line.startswith("slow, and no hang") for line in diagnosis.evidence)


@pytest.mark.usefixtures("short_limits")
def test_a_slow_step_of_a_cell_that_was_judged_has_as_long_as_there_is(
    tmp_path: Path,
) -> None:
    path = save(linear(), tmp_path / "m.onnx")

    diagnosis = searched(path, sleeps=1.0, known_failure="output y departs")

    assert diagnosis.cause.passes == ("pass_3",)
    assert "did not end" not in diagnosis.sentence


@pytest.mark.nightly
@pytest.mark.usefixtures("short_limits")
def test_a_step_that_ends_after_all_is_slow_and_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that it is taken for a hang at first.
    monkeypatch.setattr(hangs, "_HANGS_AFTER", 0.0)
    monkeypatch.setattr(hangs, "_LONGER", 300.0)
    path = save(linear(), tmp_path / "m.onnx")

    harmless = searched(path, sleeps=0.7, scales=False)
    harmful = searched(path, sleeps=0.7)

    assert harmless.sentence.startswith("Nothing to diagnose")
    assert harmful.cause.passes == ("pass_3",)
    for diagnosis in (harmless, harmful):
        assert any("slow, and no hang" in line for line in diagnosis.evidence)
        assert "did not end" not in diagnosis.sentence


def test_a_hang_is_confirmed_by_a_longer_limit(tmp_path: Path) -> None:
    path = save(linear(), tmp_path / "m.onnx")

    diagnosis = searched(path, sleeps=600.0, seconds=45)

    assert diagnosis.found
    assert diagnosis.cause.passes == ("pass_3",)
    assert "did not end within" in diagnosis.sentence
    assert any("the untouched model takes" in line for line in diagnosis.evidence)
    assert any(line.endswith("s either") for line in diagnosis.evidence)


@pytest.mark.usefixtures("short_limits")
def test_a_verdict_that_timed_out_had_longer_than_any_trial(tmp_path: Path) -> None:
    path = save(slow_model(8_000), tmp_path / "m.onnx")
    known_failure = "during transform, did not end within 300 s (--cell-timeout)"

    diagnosis = searched(path, sleeps=600.0, seconds=30, known_failure=known_failure)

    assert diagnosis.cause.transform == "planted"
    assert not any("the untouched model takes" in line for line in diagnosis.evidence)


@pytest.mark.usefixtures("short_limits")
def test_a_model_too_slow_for_the_budget_is_no_hang(tmp_path: Path) -> None:
    diagnosis = searched(save(slow_model(20_000), tmp_path / "m.onnx"), seconds=0.1)

    assert not diagnosis.found
    assert "nothing was narrowed down" in diagnosis.sentence
    assert "the untouched model" in diagnosis.sentence
    command = shlex.split(diagnosis.sentence.split("`")[1])
    assert command[:2] == ["onnx-harness", "diagnose"]
    assert command[3:5] == ["--variant", "original"]
    assert command[-2:] == ["--budget", "1"]
