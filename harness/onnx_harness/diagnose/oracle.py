"""The check of a reduction.

Whether a small model fails as the large one did, and for the same cause.

A check runs the model as it is with optimizations off, then with the fault, then with each part of
the fault taken
away: it counts where the second departs as the large one did, and the third doesn't. All of it
happens in a fork.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx

from onnx_harness.diagnose.fork_server import ForkServer
from onnx_harness.diagnose.forked import Say, manner_of
from onnx_harness.diagnose.smaller_case import Case, copied
from onnx_harness.errors import named as named_error
from onnx_harness.isolate.answers import pack, unpack
from onnx_harness.judging.half_range import computes_in_half
from onnx_harness.judging.simulation import simulated
from onnx_harness.providers.sessions import LEVELS
from onnx_harness.results.cells import Stage
from onnx_harness.transforms import BoundStep, Precision, remarks

# A part of a model may depart more or less than the whole: by a tenth of it, or by a tenth of its
# norm, it is at fault.
_SHARE, _LARGE = 0.1, 0.1
# Float16 rounds everything a little: there, half of what the whole model departs by.
_SHARE_OF_HALF = 0.5
# What is right departs by less than this: the order of additions in float32.
_RIGHT = 1e-5
_RIGHT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Fault:
    """The cause to keep, as a check applies it.

    Attributes:
        step: of the chain; None where the fault is ONNX Runtime's, or another model is compared.
        parts: of the step that are at fault together; empty: all of it is.
        level: ONNX Runtime's level.
        disabled: its optimizers that are left out.
        optimizers: its optimizers at fault together.
        threads: of a session; None leaves that to ONNX Runtime.
        config: further entries of the session's configuration.
    """

    step: BoundStep | None
    parts: tuple[str, ...]
    level: str
    disabled: tuple[str, ...] = ()
    optimizers: tuple[str, ...] = ()
    threads: int | None = None
    config: tuple[tuple[str, str], ...] = ()

    @property
    def runtime(self) -> bool:
        """Return whether ONNX Runtime's optimizer is at fault."""
        return self.level != "disable"

    def applied(self, case: Case, off: tuple[str, ...] = ()) -> onnx.ModelProto:
        """Return the model that the fault makes, without some of the parts at fault."""
        if case.other is not None:
            return copied(case.other)
        model = copied(case.model)
        if self.step is None:
            return model
        step, parts = self.step, self.step.transform.parts
        if parts is not None and self.parts:
            chosen = set(self.parts) - set(off)
            names = []
            for name in parts.names(model, step.options):
                if name not in chosen:
                    names.append(name)
            excluded = tuple(names)
            step = (
                replace(step, options=parts.without(step.options, excluded)) if excluded else step
            )
        samples = [case.inputs] if step.transform.calibrated else []
        with remarks():
            return step(model, samples)

    @property
    def halves(self) -> bool:
        """Return whether the step converts to float16, which is judged as hardware computes it."""
        return self.step is not None and self.step.transform.precision is Precision.FP16


@dataclass(frozen=True, slots=True)
class Sign:
    """The sign that a check saw.

    Attributes:
        stage: where it ended.
        manner: of the exception or the death; ``values`` or ``not finite`` where outputs depart.
        gap: relative L2 distance of the outputs; infinite where shapes or what is finite differ.
        right: the same with the fault taken away.
        controlled: whether that was right.
        reason: in words.
    """

    stage: Stage
    manner: str = ""
    gap: float = 0.0
    right: float = 0.0
    controlled: bool = True
    reason: str = ""

    @property
    def fails(self) -> bool:
        """Return whether something is at fault."""
        return self.stage is not Stage.DONE


class Observer:
    """Looks at cases in a fork, which a case may end."""

    def __init__(self, fault: Fault) -> None:
        """The fault is part of the process before it is forked: it needn't be data."""
        self.fault = fault
        self._server = ForkServer(partial(_answer, fault))

    def look(self, case: Case, seconds: float) -> Sign | None:
        """Look at a case.

        Returns:
            What was seen; None where the model itself doesn't run, or has nothing to compare.
        """
        end = self._server.ask(_packed(case), seconds)
        lines = [json.loads(line) for line in end.said.decode().splitlines()]
        controls = next((line for line in lines if "controlled" in line), None)
        if controls is None:
            return None
        last = lines[-1]
        right, controlled = controls["right"], controls["controlled"]
        if "manner" in last:
            return Sign(
                Stage(last["stage"]), last["manner"], last["gap"], right, controlled, last["reason"]
            )
        if not end.in_time:
            words = f"the process did not end within {seconds:.3g} s"
            return Sign(Stage(last["stage"]), "hang", math.inf, right, controlled, words)
        return Sign(
            Stage(last["stage"]), "death", math.inf, right, controlled, manner_of(end.status)
        )

    def compute(self, case: Case, seconds: float) -> dict[str, Any]:
        """Return every tensor of numbers that the main graph of a case computes, by name."""
        model = copied(case.model)
        names = []
        for node in model.graph.node:
            for name in node.output:
                if name:
                    names.append(name)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        end = self._server.ask(_packed(Case(model, case.inputs), values=True), seconds)
        values: dict[str, Any] = dict(unpack(end.said)) if end.said and end.in_time else {}
        return values

    def close(self) -> None:
        """End the fork."""
        self._server.close()


def _packed(case: Case, *, values: bool = False) -> bytes:
    counterpart = None if case.other is None else _as_array(case.other)
    return pack(
        {
            "model": _as_array(case.model),
            "other": counterpart,
            "inputs": dict(case.inputs),
            "values": values,
        }
    )


def _as_array(model: onnx.ModelProto) -> Any:
    return np.frombuffer(model.SerializeToString(), np.uint8)


def _answer(fault: Fault, question: bytes, say: Say) -> None:
    parts = unpack(question)
    model = onnx.ModelProto.FromString(parts["model"].tobytes())
    counterpart = (
        None if parts["other"] is None else onnx.ModelProto.FromString(parts["other"].tobytes())
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


def same(whole: Sign, part: Sign | None, half: bool) -> bool:
    """Return whether a part fails as the whole did.

    It's right with the fault taken away where the whole is.
    """
    if part is None or not part.fails or part.stage is not whole.stage:
        return False
    # What isn't finite may be hidden behind a Sigmoid: a part that lacks it shows the same.
    spread = (whole.manner, part.manner) == ("values", "not finite")
    if part.manner != whole.manner and not spread:
        return False
    if whole.controlled and not part.controlled:
        return False
    if whole.manner != "values":
        return True
    return part.gap >= least_gap(whole, half)


def least_gap(whole: Sign, half: bool) -> float:
    """Return the distance from which on outputs count as departing."""
    return _SHARE_OF_HALF * whole.gap if half else min(_SHARE * whole.gap, _LARGE)


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
    fault: Fault, case: Case, expected: Mapping[str, Any], off: tuple[str, ...] | None, tell: Any
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
        feeds = {info.name: _as_type(inputs[info.name], info.type) for info in session.get_inputs()}
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
    names = [[info.name for info in graph.output] for graph in (model.graph, candidate.graph)]
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
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # ValidationError, InferenceError, and what protobuf raises
        return named_error(error)
    return None
