"""Read off a variant what it converts to: the limits of a clamp, what is quantized."""

from __future__ import annotations

from onnx_harness.judging.ideal import Conversion
from onnx_harness.judging.quantizing import Scheme
from onnx_harness.judging.rounding import Clamp
from onnx_harness.transforms import BoundStep, Precision
from onnx_harness.transforms.bf16 import MAX_FINITE_VAL as LARGEST_BFLOAT16
from onnx_harness.transforms.float16 import MAX_FINITE_VAL, MIN_POSITIVE_VAL
from onnx_harness.transforms.quantization.operators import (
    DEFAULT_OP_TYPES_TO_EXCLUDE,
    DYNAMIC_OPS,
    STATIC_OPS,
)
from onnx_harness.transforms.quantization.options import extra_options
from onnx_harness.transforms.variant import BoundVariant

_LIMITS = {"min_positive_val": MIN_POSITIVE_VAL, "max_finite_val": MAX_FINITE_VAL}
"""The limits of a conversion to float16 for magnitudes of weights.

They are its options, with what all of them do by default.
"""


def conversion_of(bound: BoundVariant) -> Conversion | None:
    """The conversion that a variant is; None where its arithmetic stays float32.

    What a step documents about it is read in its options: limits of a clamp, operators that are
    quantized.
    """
    step = bound.conversion
    if step is None:
        return None
    if bound.precision is Precision.INT8:
        scheme = _scheme(step)
        return Conversion("int4" if scheme.block else "int8", scheme=scheme)
    all_inputs = bound.float_io is not None
    if bound.precision is not Precision.FP16:
        return Conversion("bfloat16", Clamp(0.0, LARGEST_BFLOAT16), all_inputs)
    least, most = (step.options.get(name, limit) for name, limit in _LIMITS.items())
    if not (isinstance(least, float) and isinstance(most, float)):
        raise TypeError(
            f"the limits of {step.name}'s clamp are numbers, and {least!r} and {most!r} aren't"
        )
    return Conversion("float16", Clamp(least, most), all_inputs)


def _scheme(step: BoundStep) -> Scheme:
    static = step.transform.calibrated
    if step.name == "int4":
        return Scheme(
            frozenset({"MatMul"}),
            static=False,
            signed_weights=bool(step.options.get("symmetric", False)),
            never=_texts(step.options.get("nodes_to_exclude", ())),
            block=int(str(step.options.get("block_size", 32))),
        )

    def names(option: str, default: tuple[str, ...] = ()) -> frozenset[str]:
        return _texts(step.options.get(option, default))

    extra = extra_options(tuple(names("extra_options")))
    included = names("op_types_to_quantize") or frozenset(
        STATIC_OPS if static else DYNAMIC_OPS
    )
    excluded = names("op_types_to_exclude", DEFAULT_OP_TYPES_TO_EXCLUDE if static else ())
    return Scheme(
        included - excluded,
        static,
        per_channel=bool(step.options.get("per_channel", False)),
        signed_weights=extra.get(
            "WeightSymmetric", step.options.get("weight_type", "int8") == "int8"
        ),
        signed_activations=extra.get(
            "ActivationSymmetric", step.options.get("activation_type", "uint8") == "int8"
        ),
        narrow=bool(step.options.get("reduce_range", False)),
        only=names("nodes_to_quantize"),
        never=names("nodes_to_exclude"),
    )


def _texts(value: object) -> frozenset[str]:
    return frozenset(value if isinstance(value, tuple) else ())
