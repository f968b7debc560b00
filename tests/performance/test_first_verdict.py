"""What a new user waits for: the first verdict with the wheel, and an ordinary run with the plugin."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.models import model, save
from tests.performance.conftest import Note

pytestmark = pytest.mark.performance

ROOT = Path(__file__).parents[2]
PAIRS = 8


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel") / "installed"
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    command = [sys.executable, "-m", "pip", "install", *options, str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=120)
    return folder


def run_seconds(installed: Path, folder: Path, words: Sequence[str]) -> float:
    """Return how long pytest takes in a repository, from a cold cache of ours."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    environment["ONNX_HARNESS_CACHE"] = str(folder / "cache")
    # Users have bytecode from their second run on.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", *words]
    run = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    assert run.returncode == 0, run.stdout + run.stderr
    return seconds


def test_the_first_verdict_on_a_small_model(
    installed: Path, tmp_path: Path, note_number: Note
) -> None:
    made = model("(float[n,16] x) => (float[n,40] y) { h = MatMul(x, w)  y = Relu(h) }")
    weights = np.random.default_rng(0).normal(size=(16, 40)).astype(np.float32)
    made.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    file = save(made, tmp_path / "model.onnx")
    assert 2_500 < len(onnx.load(file).SerializeToString()) < 3_500

    seconds = run_seconds(installed, tmp_path, ["model.onnx"])

    note_number(
        "first verdict: seconds for a 3 kB model, default variants", seconds, at_most=10
    )
    assert seconds <= 10


def test_an_ordinary_run_takes_no_longer_with_the_plugin(
    installed: Path, tmp_path: Path, note_number: Note
) -> None:
    """Pairs of runs in turn; the median of their differences."""
    (tmp_path / "test_ours.py").write_text("def test_ours():\n    pass\n", "utf-8")
    plain = ["-p", "no:cacheprovider", "test_ours.py"]
    differences = []
    for number in range(PAIRS):
        took = {}
        for switched_off in (number % 2 == 0, number % 2 == 1):
            words = ["-p", "no:onnx_harness", *plain] if switched_off else plain
            took[switched_off] = run_seconds(installed, tmp_path, words)
        differences.append(took[False] - took[True])

    more = statistics.median(differences)

    note_number("ordinary pytest: seconds more with the plugin", more, at_most=0.15)
    assert more <= 0.15
