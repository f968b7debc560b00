"""The peak memory of what is done with a large model: rows of ``make scale --big GIGABYTES``.

The model is a residual chain of MatMuls whose weights lie in a sparse file: it takes no room on the
disk, and a process that holds its weights holds all their bytes.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import onnx
import psutil
from onnx import TensorProto, helper

WIDTH = 4096
BYTES = WIDTH * WIDTH * 4
"""Of one weight: 64 MiB."""

Row = tuple[str, str, str]


def big_model(folder: Path, gigabytes: float) -> Path:
    """Write a model whose external data are so large, most of them a hole in their file.

    Args:
        folder: where to.
        gigabytes: 2**30 bytes each.
    """
    count = max(1, round(gigabytes * 2**30 / BYTES))
    nodes, weights = [], []
    current = "x"
    for number in range(count):
        weight = TensorProto(
            name=f"w{number}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH]
        )
        weight.data_location = TensorProto.EXTERNAL
        place = {
            "location": "weights.bin",
            "offset": str(number * BYTES),
            "length": str(BYTES),
        }
        for key, value in place.items():
            weight.external_data.add(key=key, value=value)
        weights.append(weight)
        nodes.append(helper.make_node("MatMul", [current, weight.name], [f"m{number}"]))
        # what simplification removes, so that it has something to do
        nodes.append(helper.make_node("Identity", [f"m{number}"], [f"i{number}"]))
        nodes.append(helper.make_node("Add", [current, f"i{number}"], [f"x{number}"]))
        current = f"x{number}"
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "big",
        [info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [info(current, TensorProto.FLOAT, ["n", WIDTH])],
        weights,
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    path = folder / "big.onnx"
    onnx.save_model(made, str(path))
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(count * BYTES)
        # Some numbers in each, so that a product is made, and others than in the one before: ONNX
        # Runtime packs equal weights once.
        for number in range(count):
            file.seek(number * BYTES)
            file.write(struct.pack("<f", (1 + number) * 2.0**-12) * 1024)
    return path


def peak_bytes(command: list[str], folder: Path) -> tuple[int, float, str]:
    """Run a command; the most memory that its processes held together, its seconds, its last words.

    Pages of the model's file that a process has only mapped count, as they do for a person who
    reads ``top``.
    """
    started = time.monotonic()
    with (folder / "said.txt").open("w+") as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
        )
        peak = _watched(process)
        said.seek(0)
        lines = said.read().strip().splitlines()
    words = next((line for line in lines if "error:" in line), lines[-1] if lines else "")
    words = f"exit code {process.returncode}: {words.strip()}" if process.returncode else ""
    return peak, time.monotonic() - started, words


def _watched(process: subprocess.Popen[str]) -> int:
    peak, ended = 0, threading.Event()
    root = psutil.Process(process.pid)
    while not ended.is_set():
        total = 0
        try:
            for each in (root, *root.children(recursive=True)):
                try:
                    total += each.memory_info().rss
                except psutil.Error:
                    continue
        except psutil.Error:
            pass
        peak = max(peak, total)
        if process.poll() is not None:
            ended.set()
        ended.wait(0.02)
    return peak


def rows(gigabytes: float, only: str = "") -> Iterator[Row]:
    """The rows of a model of that size, of which ``only`` names some."""
    commands = [
        ("hash", 1.1, [sys.executable, "-c", _HASH]),
        ("inspect", 1.1, _cli("inspect", "big.onnx")),
        (
            "transform simplify",
            1.3,
            _cli("transform", "big.onnx", "--variant", "simplify", "-o"),
        ),
        (
            "transform fp16",
            1.3,
            _cli("transform", "big.onnx", "--variant", "fp16.io32", "-o"),
        ),
        (
            "transform simplify+fp16",
            1.3,
            _cli("transform", "big.onnx", "--variant", "simplify+fp16.io32", "-o"),
        ),
        (
            "transform optimize",
            1.3,
            _cli("transform", "big.onnx", "--variant", "optimize", "-o"),
        ),
        ("compare with itself", 1.1, _cli("compare", "big.onnx", "big.onnx")),
        ("time beside itself", 1.1, [sys.executable, "-c", _TIME]),
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = big_model(folder, gigabytes)
        size = model.stat().st_size + (folder / "weights.bin").stat().st_size
        os.environ["ONNX_HARNESS_CACHE"] = str(folder / "cache")
        for what, limit, command in commands:
            if only not in what:
                continue
            own = (
                [*command, str(folder / "out" / "out.onnx")]
                if command[-1] == "-o"
                else command
            )
            (folder / "out").mkdir(exist_ok=True)
            peak, seconds, words = peak_bytes(own, folder)
            for file in (folder / "out").iterdir():
                file.unlink()
            yield (
                f"{gigabytes:g} GB, {what}: peak memory / model",
                f"{peak / size:.2f} in {seconds:.0f} s",
                f"{limit:g}",
            )
            if words:
                yield f"  {words}", "", ""


_TIME = """
from dataclasses import replace
from pathlib import Path
import numpy
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Judged, Task
from onnx_harness.cell.timing import time_cell
from onnx_harness.latency.plain import PlainRounds
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import GraphChange
from onnx_harness.settings import Settings
from tests.unit.results_examples import cell
path = Path("big.onnx").absolute()
size = sum(file.stat().st_size for file in (path, path.with_name("weights.bin")))
result = replace(cell(), graph=GraphChange(1, 1, size, size, 0.0))
task = Task(Cell(card_for(path), parse_variant("original"), "cpu"), path, Settings())
sets = [{"x": numpy.ones((1, 4096), numpy.float32)}]
assert time_cell(task, Judged(result, path, "all"), sets, PlainRounds()).pairs == 3
"""
_HASH = """
from pathlib import Path
from onnx_harness.model.file import Model
print(Model(Path("big.onnx")).sha256)
"""


def _cli(command: str, *words: str) -> list[str]:
    limit = [] if command == "inspect" else ["--cell-timeout", "3600"]
    return [sys.executable, "-m", "onnx_harness", command, *limit, *words]
