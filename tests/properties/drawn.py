"""Drawn models through the transforms: ``python -m tests.properties.drawn 100000``.

Each number is a model of ``onnx_harness.fuzz``. ``simplify`` has to keep its values, the
conversions to float16 and bfloat16 and dynamic int8 have to give a valid model of the same
interface; float16 has to run. A crash of a library ends one process, and is counted.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnxruntime import GraphOptimizationLevel

from onnx_harness.errors import NotApplicable
from onnx_harness.fuzz.models import feeds, random_model
from onnx_harness.model.walk import walk
from onnx_harness.transforms import remarks
from onnx_harness.transforms.bf16 import convert_float_to_bfloat16
from onnx_harness.transforms.fp16 import convert_float_to_float16
from onnx_harness.transforms.int8 import quantize_dynamic
from onnx_harness.transforms.quantization.library import quiet
from onnx_harness.transforms.simplify import simplify_with_report
from tests.properties.test_simplify_properties import (
    BATCHES,
    REASSOCIATE,
    Array,
    assert_same,
    outputs,
    session,
)

# A file system in memory: dynamic int8 goes through files, and making a folder on a disk and
# removing it takes as long as all else.
_MEMORY = Path("/dev/shm")
# How many models go by between two collections of garbage: the collector takes a sixth of the time.
_BETWEEN_COLLECTIONS = 100
# How many models go by between two lines about how far it is.
_BETWEEN_LINES = 1000
# As in the properties: most models stay small, so that what breaks can be read.
_LARGEST = 25

# Operators that make a whole step of a difference in the last bit.
_STEPS = frozenset(
    {"ArgMax", "ArgMin", "Cast", "Ceil", "Floor", "QuantizeLinear", "Round", "TopK"}
)


def main() -> int:
    """Print how many models went through, and each that broke; 1 if one did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="models to draw")
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="stop after so long"
    )
    args = parser.parse_args()
    started, number = time.monotonic(), args.first
    total: Counter[str] = Counter()
    last = args.first + args.count
    while number < last and time.monotonic() - started < args.seconds:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        deadline = started + args.seconds
        process = multiprocessing.Process(
            target=_serve, args=(theirs, number, last, deadline)
        )
        process.start()
        theirs.close()
        number = _collect(ours, total, number)
        process.join()
        if process.exitcode and number < last:
            print(f"{number}: the process ended with {process.exitcode}", flush=True)
            total["crashed"] += 1
            number += 1
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(total.items()))
    print(f"{number - args.first:,} models in {time.monotonic() - started:.0f} s: {counts}")
    return 1 if total["broken"] else 0


def _collect(source: Connection, total: Counter[str], number: int) -> int:
    """Count outcomes until the process ends; return the number of the first without one."""
    while True:
        try:
            outcomes, lines = source.recv()
        except EOFError:
            return number
        total.update(outcomes)
        number += 1
        if number % _BETWEEN_LINES == 0:
            print(f"{number:,}: go on from here with --first {number}", flush=True)
        for line in lines:
            print(line, flush=True)


def _serve(results: Connection, first: int, last: int, deadline: float) -> None:
    warnings.simplefilter("ignore")
    gc.disable()
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        tempfile.tempdir = folder
        for number in range(first, last):
            if time.monotonic() > deadline:
                return
            results.send(judged(number))
            if number % _BETWEEN_COLLECTIONS == 0:
                gc.collect()


def judged(number: int) -> tuple[list[str], list[str]]:
    """What became of one model: outcomes, and a line for each that is broken."""
    random = Random(number)
    model = random_model(random, random.randint(1, _LARGEST))
    inputs = feeds(Random(number), 2)
    try:
        onnx.checker.check_model(model, full_check=True)
        answers = outputs(session(model), inputs)
    except Exception:
        # What the checker, inference and ONNX Runtime raise has no common base.
        return ["not valid"], []
    if answers is None:
        return ["not valid"], []
    outcomes, lines = [], []
    for check in (_simplified, _float16, _bfloat16, _int8):
        try:
            with remarks():  # what they say is nobody's to read
                check(number, _copy(model))
            outcomes.append(f"right ({check.__name__[1:]})")
        except NotApplicable:
            outcomes.append(f"not applicable ({check.__name__[1:]})")
        except Exception as error:  # also what an assertion raises
            outcomes.append("broken")
            place = traceback.extract_tb(error.__traceback__)[-1]
            message = " ".join(str(error).split())[:200]
            lines.append(
                f"{number} {check.__name__[1:]}: {type(error).__name__} in {place.name}: {message}"
            )
    return outcomes, lines


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _simplified(number: int, model: onnx.ModelProto) -> None:
    with remarks() as noted:
        result, report = simplify_with_report(model)
    if REASSOCIATE & report.keys() and any(
        node.op_type in _STEPS for node in walk(model.graph)
    ):
        # One rounding more, and a step behind it is another one: the other rules keep each bit.
        result, report = simplify_with_report(model, skipped_optimizers=sorted(REASSOCIATE))
    assert not [note for note in noted if "left out" in note or "onnx-ir" in note], noted
    onnx.checker.check_model(result, full_check=True)
    # ONNX Runtime's Where may make +0 of the -0 that it chooses: without the node it stays -0.
    unsigned = any(node.op_type == "Where" for node in walk(model.graph))
    before, after = session(_without_idle_pools(model)), session(result)
    for batch in BATCHES:
        inputs = feeds(Random(number + batch), batch)
        expected = outputs(before, inputs)
        if expected is None:
            continue
        got = outputs(after, inputs)
        assert got is not None, "the simplified model doesn't run"
        if any(map(_differ, expected, got)) and not _is_defined(model, inputs):
            continue
        for one, other in zip(expected, got, strict=True):
            if unsigned and one.dtype.kind == "f":
                one[one == 0], other[other == 0] = 0, 0
            assert_same(one, other, exactly=not REASSOCIATE & report.keys())


def _differ(one: Array, other: Array) -> bool:
    return not np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _is_defined(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> bool:
    """Whether onnx's reference takes these sizes.

    Without elements ONNX Runtime doesn't look whether sizes agree: its Concat of (0, 2) and (1, 6)
    gives a row of whatever lies in memory.
    """
    try:
        ReferenceEvaluator(model).run(None, dict(inputs))
    except Exception:  # what it raises has no common base
        return False
    return True


def _without_idle_pools(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model in which a pool of single elements is the Identity that it is.

    ONNX Runtime's MaxPool begins with the lowest number, which it gives instead of NaN and -inf;
    its AveragePool begins with +0, which it gives instead of -0.
    """
    result = _copy(model)
    for node in walk(result.graph):
        values = {a.name: list(a.ints) for a in node.attribute}
        ones = values.get("kernel_shape", [0]) + values.get("strides", [1])
        alone = set(ones) == {1} and not any(values.get("pads", []))
        pool = node.op_type in ("AveragePool", "MaxPool") and not node.domain
        if pool and alone and len(node.output) == 1:
            node.op_type = "Identity"
            node.ClearField("attribute")
    return result


def _float16(number: int, model: onnx.ModelProto) -> None:
    result = convert_float_to_float16(_copy(model), keep_io_types=True)
    _check_interface(model, result)
    inputs = feeds(Random(number), 2)
    got = outputs(session(result), inputs)
    if got is None:
        # Unoptimized, ONNX Runtime (1.32) loses a Cast of a double that only a branch reads. And it
        # reuses memory by the sizes of pools with ceil_mode that onnx infers, which can be wrong.
        level = GraphOptimizationLevel.ORT_ENABLE_BASIC
        got = outputs(session(result, level, reuse=False), inputs)
    assert got is not None, "the converted model doesn't run"


def _bfloat16(number: int, model: onnx.ModelProto) -> None:  # noqa: ARG001 (one signature)
    _check_interface(model, convert_float_to_bfloat16(_copy(model), keep_io_types=True))


def _int8(number: int, model: onnx.ModelProto) -> None:
    with quiet():
        result = quantize_dynamic(_copy(model))
    _check_interface(model, result)
    got = outputs(session(result), feeds(Random(number), 2))
    assert got is not None, "the quantized model doesn't run"


def _check_interface(model: onnx.ModelProto, result: onnx.ModelProto) -> None:
    onnx.checker.check_model(result)
    names: Callable[[onnx.ModelProto], list[str]] = lambda each: [  # noqa: E731
        info.name for info in each.graph.output
    ]
    assert names(result) == names(model)
    types = [
        [info.type.tensor_type.elem_type for info in each.graph.output]
        for each in (model, result)
    ]
    np.testing.assert_array_equal(types[0], types[1])


if __name__ == "__main__":
    sys.exit(main())
