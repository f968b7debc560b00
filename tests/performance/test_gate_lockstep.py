"""The lockstep against itself, and against work that was added.

Run with -s on a quiet machine: it prints the table.

Both environments are this one, so a ratio other than 1 is noise, and its spread from night to night
is what the two-nights rule has to live with.
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from statistics import median, stdev

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.gate.lockstep import Timed, core, measure
from onnx_harness.gate.process import EnvironmentProcess
from onnx_harness.isolate import Limits
from onnx_harness.providers import get
from tests.models import model, save

pytestmark = pytest.mark.performance

NIGHTS = 6
PAIRS = 16
CPU = get("cpu")
SECONDS = 3.0
ADDED = 0.05
LIMITS = Limits(300.0, 16 << 30)


def chain(width: int, layers: int, *, more: int = 0) -> onnx.ModelProto:
    """``layers`` products of 64 rows; ``more`` of them appended."""
    names = ["x", *(f"h{layer}" for layer in range(layers + more - 1)), "y"]
    body = " ".join(f"{after} = MatMul({before}, w)" for before, after in pairwise(names))
    made = model(f"(float[64,{width}] x) => (float[64,{width}] y) {{ {body} }}")
    weight = np.random.default_rng(0).normal(size=(width, width)) / math.sqrt(width)
    made.graph.initializer.append(numpy_helper.from_array(weight.astype("f4"), "w"))
    return made


def night(tested: Path, pinned: Path, width: int, seed: int) -> float:
    """ln(ratio) of one measurement."""
    values = {"x": np.random.default_rng(1).normal(size=(64, width)).astype("f4")}

    def open_pair(
        stack: ExitStack, number: int, tested_first: bool
    ) -> tuple[Timed, Timed, float]:
        order = (False, True) if tested_first else (True, False)
        sides = {
            there: stack.enter_context(
                EnvironmentProcess(Path(sys.executable), LIMITS, {}, apart=there)
            )
            for there in order
        }
        taken = [
            sides[there].ask(
                "open_model",
                pinned if there else tested,
                "all",
                "cpu",
                1,
                values,
                core(number, CPU),
            )
            for there in order
        ]
        return sides[False], sides[True], median(taken)

    return median(measure(open_pair, pairs=PAIRS, seconds=SECONDS, seed=seed).log_ratios)


@pytest.mark.parametrize(("width", "layers"), [(64, 20), (256, 20), (512, 20)])
def test_the_lockstep_sees_added_work_and_nothing_else(
    width: int, layers: int, tmp_path: Path
) -> None:
    plain = save(chain(width, layers), tmp_path / "plain.onnx")
    slower = save(chain(width, layers, more=round(ADDED * layers)), tmp_path / "slower.onnx")
    started = time.perf_counter()
    equal = [night(plain, plain, width, seed) for seed in range(NIGHTS)]
    took = (time.perf_counter() - started) / NIGHTS
    added = [night(slower, plain, width, seed) for seed in range(NIGHTS)]
    print(f"\n{layers} products of 64x{width}: {took:.1f} s a cell")
    print(
        f"  against itself {math.expm1(median(equal)):+.2%}, nightly spread {stdev(equal):.2%}"
    )
    print(
        f"  {ADDED:.0%} of work added {math.expm1(median(added)):+.2%}, nightly spread "
        f"{stdev(added):.2%}"
    )
    assert abs(median(equal)) < 0.01
    assert median(added) == pytest.approx(math.log1p(ADDED), abs=0.02)
