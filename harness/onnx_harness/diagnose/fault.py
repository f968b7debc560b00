"""The cause that a reduction keeps, as a check applies it to a model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx

from onnx_harness.diagnose.smaller_case import Case, copied
from onnx_harness.transforms import BoundStep, Precision, remarks


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
                replace(step, options=parts.without(step.options, excluded))
                if excluded
                else step
            )
        samples = [case.inputs] if step.transform.calibrated else []
        with remarks():
            return step(model, samples)

    @property
    def halves(self) -> bool:
        """Return whether the step converts to float16, which is judged as hardware computes it."""
        return self.step is not None and self.step.transform.precision is Precision.FP16
