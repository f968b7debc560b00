"""The check of a reduction, in the fork that it may end.

It runs the model as it is with optimizations off, then with each part of the fault taken away, then
with the fault. A line of JSON tells of each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from onnx_harness.diagnose.fault import Fault
from onnx_harness.diagnose.forked import Say
from onnx_harness.diagnose.smaller_case import Case, copied
from onnx_harness.errors import named as named_error
from onnx_harness.isolate.answers import pack, unpack
from onnx_harness.judging.half_range import computes_in_half
from onnx_harness.judging.simulation import simulated
from onnx_harness.model.label_keys import with_key_types
from onnx_harness.providers.sessions import LEVELS
from onnx_harness.results.cells import Stage

# What is right departs by less than this: the order of additions in float32.
_RIGHT = 1e-5
_RIGHT_SHARE = 0.1


def answer(fault: Fault, question: bytes, say: Say) -> None:
    """Check a case, or compute its values.

    Args:
        fault: to apply.
        question: the packed case, and whether its values are asked for.
        say: takes lines of JSON, or the packed values.
    """
    parts = unpack(question)
    model = onnx.ModelProto.FromString(parts["model"].tobytes())
    counterpart = (
        None
        if parts["other"] is None
        else onnx.ModelProto.FromString(parts["other"].tobytes())
    )
    case = Case(model, parts["inputs"], counterpart)
    if not parts["values"]:
        _look(fault, case, say)
        return
    try:
        outputs = run_once(model, case.inputs, "disable", fault=fault)
    except Exception:  # sequences among them, or an operator that can't be watched
        outputs = {}
    values = {}
    for name, value in outputs.items():
        if _is_numbers(value):
            values[name] = value
    say(pack(values))


def _look(fault: Fault, case: Case, say: Say) -> None:
    def tell(**line: Any) -> None:
        say(json.dumps(line).encode() + b"\n")

    try:
        expected = run_once(case.model, case.inputs, "disable", fault=fault)
    except Exception:  # no model any more
        return
    if not expected or not all(_is_numbers(value) for value in expected.values()):
        return
    right, controlled = 0.0, True
    for off in _controls(fault):
        seen = _seen(fault, case, expected, off, lambda **_: None)
        right = max(right, seen["gap"] if seen["stage"] in ("compare", "done") else math.inf)
        controlled = controlled and seen["stage"] == "done"
    tell(controlled=controlled, right=right)
    tell(**_seen(fault, case, expected, None, tell))


def _controls(fault: Fault) -> list[tuple[str, ...]]:
    """Return the sets of what is taken away: each part at fault by itself, or the whole."""
    if fault.runtime:
        return [(name,) for name in fault.optimizers] or [()]
    return [(name,) for name in fault.parts[:4]]


def _seen(
    fault: Fault,
    case: Case,
    expected: Mapping[str, Any],
    off: tuple[str, ...] | None,
    tell: Any,
) -> dict[str, Any]:
    """Return the line on one run.

    With the fault where ``off`` is None, else without what it names.
    """
    stage = Stage.TRANSFORM
    try:
        tell(stage=stage.value)
        candidate = fault.applied(case, off or ())
        stage = Stage.CHECK
        tell(stage=stage.value)
        words = _changed(case.model, candidate, fault)
        if words:
            return _line(stage, words[0], math.inf, words[1])
        stage = Stage.SESSION
        tell(stage=stage.value)
        disabled, level = fault.disabled, fault.level
        if fault.runtime and off is not None:
            disabled, level = (*disabled, *off), level if off else "disable"
        outputs = run_once(candidate, case.inputs, level, disabled, tell=tell, fault=fault)
    except Exception as error:  # what libraries raise has no common base
        if isinstance(error, _Runs):
            stage, error = Stage.RUN, error.error
        return _line(stage, type(error).__name__, math.inf, named_error(error))
    return _compared(expected, outputs, fault)


def _compared(
    expected: Mapping[str, Any], outputs: Mapping[str, Any], fault: Fault
) -> dict[str, Any]:
    gap, manner = distance(expected, outputs)
    bound = _RIGHT if not fault.halves else 2.0**-9
    if gap <= bound:
        return _line(Stage.DONE, "", gap, "")
    return _line(Stage.COMPARE, manner, gap, f"outputs depart by {gap:.2g}")


def _line(stage: Stage, manner: str, gap: float, reason: str) -> dict[str, Any]:
    return {"stage": stage.value, "manner": manner, "gap": gap, "reason": reason}


class _Runs(Exception):
    """A session was opened, and its run raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def run_once(
    model: onnx.ModelProto,
    inputs: Mapping[str, Any],
    level: str,
    disabled: tuple[str, ...] = (),
    *,
    fault: Fault,
    tell: Any = None,
) -> dict[str, Any]:
    """Open a session on the CPU and run it.

    Float16 is computed as hardware does where the step converts to it.
    """
    import onnxruntime as ort

    if fault.halves and computes_in_half(model):
        model, level = simulated(copied(model), model), "disable"
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[level])
    options.intra_op_num_threads = fault.threads or 1
    for key, entry in fault.config:
        options.add_session_config_entry(key, entry)
    session = ort.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=list(disabled),
    )
    if tell is not None:
        tell(stage=Stage.RUN.value)
    try:
        feeds = {
            info.name: _as_type(inputs[info.name], info.type)
            for info in session.get_inputs()
        }
        names = [info.name for info in session.get_outputs()]
        return dict(zip(names, session.run(None, feeds), strict=True))
    except Exception as error:
        raise _Runs(error) from error


def _as_type(value: Any, kind: str) -> Any:
    narrow = {"tensor(float16)": np.float16, "tensor(float)": np.float32}.get(kind)
    return value.astype(narrow) if narrow is not None and value.dtype.kind == "f" else value


def _is_numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf"


def distance(expected: Mapping[str, Any], outputs: Mapping[str, Any]) -> tuple[float, str]:
    """Return the greatest relative L2 distance of the outputs, and ``values`` or ``not finite``."""
    greatest, manner = 0.0, "values"
    for name, right in expected.items():
        value = outputs.get(name)
        if value is None or not _is_numbers(value) or value.shape != right.shape:
            return math.inf, "shape"
        a, b = right.astype(np.float64), value.astype(np.float64)
        finite = np.isfinite(a) & np.isfinite(b)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return math.inf, "not finite"
        norm = float(np.linalg.norm(a[finite]))
        gap = float(np.linalg.norm(b[finite] - a[finite]))
        greatest = max(greatest, gap / norm if norm else min(gap, 1.0))
    return greatest, manner


def _changed(
    model: onnx.ModelProto, candidate: onnx.ModelProto, fault: Fault
) -> tuple[str, str] | None:
    """Return the kind and the words of what is wrong with a model that a step made.

    The model isn't run yet.
    """
    if fault.step is None:
        return None
    if _checker_says(model) is None and (words := _checker_says(candidate)) is not None:
        return "invalid", words
    names = [
        [info.name for info in graph.output] for graph in (model.graph, candidate.graph)
    ]
    if names[0] != names[1]:
        return "interface", f"outputs {names[0]} became {names[1]}"
    for before, after in zip(model.graph.output, candidate.graph.output, strict=True):
        ranks = [len(info.type.tensor_type.shape.dim) for info in (before, after)]
        if ranks[0] != ranks[1] and after.type.tensor_type.HasField("shape"):
            return (
                "interface",
                f"output '{before.name}' of rank {ranks[0]} is declared with rank {ranks[1]}",
            )
    return None


def _checker_says(model: onnx.ModelProto) -> str | None:
    try:
        onnx.checker.check_model(with_key_types(model), full_check=True)
    except Exception as error:  # ValidationError, InferenceError, and what protobuf raises
        return named_error(error)
    return None
