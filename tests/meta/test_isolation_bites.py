"""Transforms that crash, hang or eat memory: a verdict on their cell, and the run goes on.

They come from another distribution, by the entry point, as a user's own would.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import pytest
from onnx import helper

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Judged
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings
from tests.models import linear, model, save
from tests.plugin.running import install

FAULTS = """
import ctypes, os, signal, sys, time
from onnx_harness.transforms import Transform

def crash(model):
    ctypes.string_at(0)

def abort(model):
    os.abort()

def divide(model):
    os.kill(os.getpid(), signal.SIGFPE)

def leave(model):
    sys.exit(3)

def vanish(model):
    os._exit(0)

def hang(model):
    time.sleep(9)
    return model

def eat(model):
    eaten = bytearray(b"x") * (900 << 20)
    time.sleep(1)
    return model

TRANSFORM = tuple(
    Transform("a fault", apply, {apply.__name__: {}}) for apply in (crash, abort, divide, leave, vanish, hang, eat)
)
"""

DEATHS = {
    "crash": "the worker process was killed by SIGSEGV (signal 11)",
    "abort": "the worker process was killed by SIGABRT (signal 6)",
    "divide": "the worker process was killed by SIGFPE (signal 8)",
    "leave": "the worker process left with exit code 3",
    "vanish": "the worker process left with exit code 0",
}
CODES = {"crash": -11, "abort": -6, "divide": -8, "leave": 3, "vanish": 0}

Run = Callable[[str], CellResult]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a model, on the path with the faults."""
    folder = tmp_path_factory.mktemp("faults")
    install(folder, FAULTS)
    save(linear(), folder / "lin.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("ONNX_HARNESS_CACHE", str(folder / "cache"))
        yield folder


@contextlib.contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Run]:
    """A run on the model in ``folder``: a function from variant to verdict."""
    runner = Runner(Settings(**{"input_sets": 1, "cell_timeout": 60.0} | settings))
    card = card_for(folder / "lin.onnx")
    try:
        yield lambda variant: runner.judge(Cell(card, parse_variant(variant), "cpu"))
    finally:
        runner.close()


@pytest.fixture(scope="module")
def run(faulty: Path) -> Iterator[Run]:
    """One run for all the faults."""
    with running(faulty) as run:
        yield run


@pytest.mark.parametrize("fault", DEATHS)
def test_a_death_is_a_verdict_with_its_manner_and_its_stage(fault: str, run: Run) -> None:
    result = run(fault)
    assert (result.status, result.stage) == (Status.FAIL, Stage.TRANSFORM)
    assert str(result.reason).startswith(f"during transform, {DEATHS[fault]}")


@pytest.mark.parametrize("fault", DEATHS)
def test_without_a_worker_the_run_would_have_died(fault: str, faulty: Path) -> None:
    command = [
        sys.executable,
        "-c",
        f"import faults; faults.{fault}(None); print('survived')",
    ]
    died = subprocess.run(command, cwd=faulty, capture_output=True, text=True, check=False)
    assert (died.returncode, died.stdout) == (CODES[fault], "")


def test_the_run_goes_on_after_each_death(run: Run) -> None:
    for fault, next_one in (
        ("crash", "optimize"),
        ("vanish", "simplify"),
        ("leave", "ort.disable"),
    ):
        assert run(f"optimize+{fault}").status is Status.FAIL
        assert run(next_one).status is Status.PASS


def test_a_hang_is_ended_at_its_limit_and_the_run_goes_on(faulty: Path) -> None:
    with running(faulty, cell_timeout=6.0) as hurried:
        result = hurried("hang")
        assert (result.status, result.stage) == (Status.FAIL, Stage.TRANSFORM)
        assert result.reason == "during transform, did not end within 6 s (--cell-timeout)"
        assert hurried("original").status is Status.PASS


def test_eaten_memory_is_stopped_at_its_limit_and_the_run_goes_on(faulty: Path) -> None:
    with running(faulty, cell_memory=600 << 20) as lean:
        result = lean("eat")
        assert (result.status, result.stage) == (Status.FAIL, Stage.TRANSFORM)
        assert "more than the limit of 600.0 MiB (--cell-memory)" in str(result.reason)
        assert lean("original").status is Status.PASS


@pytest.mark.parametrize("fault", ["hang", "eat"])
def test_without_its_limit_the_fault_passes(fault: str, run: Run) -> None:
    assert run(fault).status is Status.PASS


def test_an_interpreter_that_does_not_start_is_the_machines_fault_and_no_cells(
    faulty: Path,
) -> None:
    python = spawn.get_executable()
    with running(faulty) as broken:
        try:
            spawn.set_executable("/bin/false")
            result = broken("original")
        finally:
            spawn.set_executable(python)
        assert (result.status, result.symptom) == (Status.ERROR, Symptom.ENVIRONMENT)
        assert str(result.reason).startswith("the worker process can't be started: ")
        assert broken("optimize").status is Status.PASS


def test_a_load_that_fails_is_judged_once_for_all_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small file that takes all the time there is would take it once for every variant."""
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    endless = model(
        "(float[n,4] x) => (float[n,4] y) { trips = Constant<value_int = 9000000000>() }"
    )
    body = model(
        "(int64 i, bool c, float[n,4] v) => (bool d, float[n,4] w) { d = Identity(c) w = Neg(v) }"
    ).graph
    endless.graph.node.append(helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body))
    save(endless, tmp_path / "lin.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"this is no model")
    runner = Runner(Settings(input_sets=1, cell_timeout=10.0))
    asked: list[str] = []
    judge = runner._attempts._judge

    def counted(cell: Cell) -> Judged:
        asked.append(cell.id)
        return judge(cell)

    monkeypatch.setattr(runner._attempts, "_judge", counted)
    try:
        runner.warm()
        for name in ("lin", "broken"):
            card = card_for(tmp_path / f"{name}.onnx")
            first, second = (
                runner.judge(Cell(card, parse_variant(each), "cpu"))
                for each in ("original", "simplify")
            )
            assert (first.stage, first.status is not Status.PASS) == (Stage.LOAD, True)
            assert (second.id, second.variant) == (f"{name}-simplify-cpu", "simplify")
            assert (second.status, second.stage, second.reason) == (
                first.status,
                first.stage,
                first.reason,
            )
    finally:
        runner.close()
    assert asked == ["lin-original-cpu", "broken-original-cpu"]
