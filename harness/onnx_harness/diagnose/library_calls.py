"""Write a step of the chain as a call of the library that does it.

It's for scripts that don't have this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_harness.diagnose.fault import Fault


@dataclass(frozen=True, slots=True)
class Call:
    """A library's call.

    Attributes:
        distribution: to install.
        fault: lines that give the model with the fault, from ``model``.
        control: lines that give it with the fault taken away.
    """

    distribution: str
    fault: tuple[str, ...]
    control: tuple[str, ...] = ("return model",)


def library_call(fault: Fault) -> Call | None:
    """Return the call; None for a step of this package's own, and for ONNX Runtime's faults."""
    if fault.step is None or fault.halves:
        return None
    name = fault.step.name
    if name.startswith("pass."):
        return _optimizer([name.removeprefix("pass.")])
    maker = _CALLS.get(name)
    return None if maker is None else maker(fault.step.options, fault.parts)


def _optimizer(passes: Sequence[str], fixed_point: bool = False) -> Call:
    more = ", fixed_point=True" if fixed_point else ""
    lines = (
        "import onnxoptimizer",
        f"return onnxoptimizer.optimize(model, {list(passes)!r}{more})",
    )
    return Call("onnxoptimizer", lines)


def _optimize(_: Mapping[str, Any], parts: Sequence[str]) -> Call | None:
    return _optimizer(parts, fixed_point=True) if parts else None


def _default_passes(_: Mapping[str, Any], parts: Sequence[str]) -> Call:
    return _optimizer(parts) if parts else Call("onnxoptimizer", _PLAIN["onnxoptimizer"])


def _other(distribution: str, *_: object) -> Call:
    return Call(distribution, _PLAIN[distribution])


_PLAIN: Mapping[str, tuple[str, ...]] = {
    "onnxoptimizer": ("import onnxoptimizer", "return onnxoptimizer.optimize(model)"),
    "onnxsim": (
        "import onnxsim",
        "simplified, valid = onnxsim.simplify(model)",
        'assert valid, "onnxsim could not validate the simplified model"',
        "return simplified",
    ),
    "onnxslim": ("import onnxslim", "return onnxslim.slim(model)"),
    "onnxscript": (
        "import onnxscript.optimizer",
        "return onnxscript.optimizer.optimize(model)",
    ),
}

_CALLS: Mapping[str, Callable[[Mapping[str, Any], Sequence[str]], Call | None]] = {
    "optimize": _optimize,
    "optimize.nobn": _optimize,
    "onnxoptimizer": _default_passes,
    "onnxsim": lambda *_: _other("onnxsim"),
    "onnxslim": lambda *_: _other("onnxslim"),
    "onnxscript": lambda *_: _other("onnxscript"),
}
