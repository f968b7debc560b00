"""A variant with its steps looked up.

What it asks for and what it leaves behind, found out once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx_harness.names import Variant
from onnx_harness.transforms import BoundStep, Precision, bind, parse_shape
from onnx_harness.transforms.ort import level_of


@dataclass(frozen=True, slots=True)
class BoundVariant:
    """A chain of steps with their transforms.

    Attributes:
        variant: what was asked for.
        steps: its steps with their transforms and all their options, in order.
        level: ONNX Runtime's graph optimization level for its sessions.
        precision: the arithmetic that it leaves behind: the loosest that a step declares.
        float_io: the dtype that float32 inputs and outputs may have become; None: none may change.
        keeps_values: each step that changes the model declares that it keeps values, and there is
            one.
        fixed_shapes: the shapes that options of its steps give to inputs, by name.
    """

    variant: Variant
    steps: tuple[BoundStep, ...]
    level: str
    precision: Precision
    float_io: str | None
    keeps_values: bool
    fixed_shapes: Mapping[str, tuple[int, ...]]

    @property
    def changing(self) -> tuple[BoundStep, ...]:
        """The steps that change the model; the others are options of the session."""
        return tuple(step for step in self.steps if not step.transform.session)

    @property
    def conversion(self) -> BoundStep | None:
        """The step that leaves the variant's arithmetic behind; None where that stays float32."""
        if self.precision is Precision.FP32:
            return None
        return next(
            step for step in self.steps if step.transform.precision is self.precision
        )


def bind_variant(variant: Variant) -> BoundVariant:
    """Look a variant's steps up.

    Raises:
        UsageError: there's no such step or option, a value is of the wrong type, or two steps ask
            for an optimization level each.
    """
    steps = tuple(bind(step) for step in variant.steps)
    transforms = [step.transform for step in steps]
    changing = [transform for transform in transforms if not transform.session]
    dtypes = [transform.float_io for transform in transforms if transform.float_io]
    order = list(Precision)
    return BoundVariant(
        variant,
        steps,
        level_of(variant.steps),
        max(
            (transform.precision for transform in transforms),
            key=order.index,
            default=Precision.FP32,
        ),
        dtypes[-1] if dtypes else None,
        bool(changing) and all(transform.keeps_values for transform in changing),
        _fixed_shapes(steps),
    )


def _fixed_shapes(steps: tuple[BoundStep, ...]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for step in steps:
        texts = step.options.get(step.transform.input_shapes or "", ())
        shapes.update(map(parse_shape, texts if isinstance(texts, tuple) else ()))
    return shapes
