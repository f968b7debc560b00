"""The standard for the outputs of a cell: reference, tolerances, the arithmetic of the variant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from onnx_harness import providers
from onnx_harness.accuracy.tolerance import Tolerance, choose, same_values, spec_for
from onnx_harness.cards.card import Card
from onnx_harness.inputs import InputSet
from onnx_harness.judging.choices import choice_axes, level_outputs
from onnx_harness.judging.conversions import conversion_of
from onnx_harness.judging.ideal import Conversion
from onnx_harness.judging.reference import Reference
from onnx_harness.model.file import Model
from onnx_harness.results.cache import Cache
from onnx_harness.settings import Settings
from onnx_harness.transforms import Precision
from onnx_harness.transforms.variant import BoundVariant


@dataclass(frozen=True, slots=True)
class Standard:
    """The standard for the outputs of a cell. One serves for any number of candidates.

    Attributes:
        model: the untouched one.
        reference: its input sets, and what it makes of them.
        card: its tolerances.
        precision: the arithmetic that the variant leaves behind.
        conversion: what the variant converts to; None where its arithmetic stays float32.
        float_io: the dtype that float32 outputs may have become; None: none may change.
        provider: the name of the execution provider that the candidate runs on.
        exact: whether the variant declares that it keeps values, and the model is a single operator
            that shows it.
        override: (rtol, atol) of the command line.
        kept: where what is measured once for a model is kept.
        explained: whether a departure has to be explained, beside being within the bounds.
        calibration: the input sets that the variant is calibrated on; none where it isn't, or where
            nobody knows.
        level: ONNX Runtime's optimization level for the candidate's sessions.
    """

    model: Model
    reference: Reference
    card: Card
    precision: Precision
    conversion: Conversion | None
    float_io: str | None
    provider: str
    exact: bool
    override: tuple[float, float] | None
    kept: Cache
    explained: bool = True
    calibration: tuple[InputSet, ...] = ()
    level: str = "all"


def standard(
    model: Model,
    reference: Reference,
    card: Card,
    bound: BoundVariant,
    provider: str,
    settings: Settings,
    cache: Cache,
) -> Standard:
    """Return what the cell of a variant on ``provider`` is held to."""
    return Standard(
        model,
        reference,
        card,
        bound.precision,
        conversion_of(bound),
        bound.float_io,
        provider,
        bool(card.suite) and bound.keeps_values,
        settings.tolerance_override,
        cache,
        level=bound.level,
    )


def key_of(standard: Standard) -> list[object]:
    """Return all that a choice of nodes by verdicts depends on beside the model and the step."""
    sets = []
    for place in standard.reference.usual:
        sets.append(standard.reference.sets[place].digest())
    return [
        *sets,
        standard.provider,
        repr(standard.card.tolerance),
        repr(standard.override),
        standard.explained,
        standard.level if providers.get(standard.provider).fallback else "",
    ]


def tolerances(standard: Standard) -> Callable[[str], Tolerance]:
    """Return what gives the tolerance of an output by its name."""
    kinds = {value.name: value.kind for value in standard.model.signature.outputs}
    axes = choice_axes(standard.model.skeleton)
    levels = level_outputs(standard.model.skeleton)

    def tolerance_for(output: str) -> Tolerance:
        spec = spec_for(standard.card.tolerance, output)
        # A float16 output can't be closer than float16 is fine, whatever the transform left behind.
        kind = kinds.get(output, "")
        if standard.exact and standard.override is None:
            return same_values(kind)
        half = standard.precision is Precision.FP32 and (
            "float16" in kind or "float8" in kind
        )
        rule = Precision.FP16 if half else standard.precision
        tolerance = choose(rule, spec=spec, override=standard.override)
        if tolerance.by_default and "float8" in kind:
            tolerance = replace(
                tolerance, sqnr_db=None
            )  # one rounding of such a type leaves 20 to 30 dB
        return replace(tolerance, axis=axes.get(output), are_levels=output in levels)

    return tolerance_for
