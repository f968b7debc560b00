"""How fast the clamp is beside the library that it stands in for, and how much memory it takes.

Ratios of one run.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnxconverter_common import float16 as library

from onnx_harness.transforms.float16 import convert_np_to_float16
from tests.performance.conftest import Note

pytestmark = pytest.mark.performance

Singles = npt.NDArray[np.float32]

VALUES = 20_000_000  # 80 MB of float32
ROUNDS = 5
ORDINARY, ADVERSARIAL = 20, 8
EXTRA_MEMORY = 0.05


def weights(rng: np.random.Generator) -> Singles:
    return rng.normal(0, 0.05, VALUES).astype(np.float32)


def any_bits(rng: np.random.Generator) -> Singles:
    return rng.integers(0, 1 << 32, VALUES, np.uint32).view(np.float32)


def every_kind(rng: np.random.Generator) -> Singles:
    kinds = [
        np.nan,
        np.inf,
        -np.inf,
        0,
        -0.0,
        1e-40,
        -1e-40,
        1e-8,
        3e38,
        1e5,
        -1e5,
        6e-6,
        7e4,
        1e-7,
        1e4,
        1,
    ]
    return np.array(kinds, np.float32)[rng.integers(0, len(kinds), VALUES)]


def seconds(convert: Callable[[Singles], Any], array: Singles) -> float:
    """Of the processor, in all threads: other work on the machine takes turns with this one and
    isn't counted.
    """
    started = time.process_time()
    convert(array)
    return time.process_time() - started


@pytest.mark.filterwarnings(
    "ignore:the float32 number:UserWarning", "ignore::RuntimeWarning:onnxconverter_common"
)
@pytest.mark.parametrize(
    ("kind", "least"),
    [(weights, ORDINARY), (any_bits, ADVERSARIAL), (every_kind, ADVERSARIAL)],
    ids=lambda each: str(getattr(each, "__name__", each)),
)
def test_the_clamp_is_many_times_faster_than_the_library(
    kind: Callable[[np.random.Generator], Singles],
    least: int,
    capsys: pytest.CaptureFixture[str],
    note_number: Note,
) -> None:
    array = kind(np.random.default_rng(0))
    convert_np_to_float16(array[:100_000])  # ONNX Runtime is loaded
    rounds = [
        (
            seconds(convert_np_to_float16, array),
            seconds(library.convert_np_to_float16, array),
        )
        for _ in range(ROUNDS)
    ]
    ours, theirs = (median(column) for column in zip(*rounds, strict=True))
    ratio = median(library_s / ours_s for ours_s, library_s in rounds)
    gigabytes = array.nbytes / 1e9
    with capsys.disabled():
        print(
            f"\n  clamp, 80 MB of {kind.__name__:<10}  ours {gigabytes / ours:5.2f} GB/s   "
            f"onnxconverter_common {gigabytes / theirs:5.3f} GB/s   {ratio:5.1f} times (at least "
            f"{least})"
        )
    words = {
        "weights": "ordinary weights",
        "any_bits": "random bits",
        "every_kind": "every special kind",
    }[kind.__name__]
    note_number(f"clamp: times the library's throughput, {words}", ratio, at_least=least)
    assert ratio >= least


MEASURE_MEMORY = """
import sys
from pathlib import Path
import numpy as np
from onnx_harness.transforms.float16 import convert_np_to_float16

def resident(line):  # VmHWM is the peak; getrusage's may be that of the process before this one
    return int(Path("/proc/self/status").read_text().split(line + ":")[1].split()[0]) * 1024

rng, size = np.random.default_rng(0), int(sys.argv[1])
if sys.argv[2] == "weights":
    array = rng.standard_normal(size, np.float32)
else:
    array = rng.integers(0, 1 << 32, size, np.uint32).view(np.float32)
if sys.argv[3] == "backwards":
    array = array[::-1]
convert_np_to_float16(array[: 1 << 18])  # what it needs is loaded
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
before = resident("VmRSS")
result = convert_np_to_float16(array)
print((resident("VmHWM") - before - result.nbytes) / (array.nbytes + result.nbytes))
"""


@pytest.mark.parametrize("order", ["forwards", "backwards"])
@pytest.mark.parametrize("kind", ["weights", "any_bits"])
def test_the_clamp_takes_no_memory_beside_input_and_output(
    kind: str, order: str, capsys: pytest.CaptureFixture[str], note_number: Note
) -> None:
    command = [sys.executable, "-c", MEASURE_MEMORY, str(VALUES), kind, order]
    extra = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    with capsys.disabled():
        print(
            f"\n  clamp, 80 MB of {kind:<10}  {order}: {extra:.1%} of memory beside input and "
            f"output"
        )
    note_number("clamp: memory beside input and output", extra, at_most=EXTRA_MEMORY)
    assert extra <= EXTRA_MEMORY
