"""``int8.dynamic``, ``int8.static``.

Weights and activations in 8 bits, through onnxruntime.quantization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness.errors import NotApplicable, did_you_mean
from onnx_harness.transforms import Precision, Transform
from onnx_harness.transforms.optimize import MAX_BYTES
from onnx_harness.transforms.parts import node_parts
from onnx_harness.transforms.quantization.aliases import Aliases
from onnx_harness.transforms.quantization.library import Samples, feeds_of, through_files
from onnx_harness.transforms.quantization.operators import (
    DEFAULT_OP_TYPES_TO_EXCLUDE,
    DYNAMIC_OPS,
    FLOAT16_SINCE,
    STATIC_OPS,
)
from onnx_harness.transforms.quantization.options import (
    dynamic_options,
    refuse_unread,
    static_options,
)
from onnx_harness.transforms.quantization.options import extra_options as read_options
from onnx_harness.transforms.quantization.preparing import (
    inline,
    left_alone,
    prepare,
    present_nodes,
    refuse,
    refuse_stacked_weights,
    untie,
)

if TYPE_CHECKING:
    import onnx


TYPES = {"int8": "QInt8", "uint8": "QUInt8"}
CALIBRATIONS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}

# A DequantizeLinear with an axis, which a scale for each channel needs, came with opset 13. 11 is
# the first opset that onnxruntime.quantization doesn't convert itself.
_OPSET, _OPSET_PER_CHANNEL = 11, 13


def quantize_dynamic(
    model: onnx.ModelProto,
    per_channel: bool = False,
    reduce_range: bool = False,
    weight_type: str = "int8",
    op_types_to_quantize: Sequence[str] = (),
    op_types_to_exclude: Sequence[str] = (),
    nodes_to_quantize: Sequence[str] = (),
    nodes_to_exclude: Sequence[str] = (),
    extra_options: Sequence[str] | Mapping[str, Any] = (),
    allow_missing: bool = False,
) -> onnx.ModelProto:
    """Quantize constant weights to 8 bits now, and activations to uint8 as the model runs.

    The bodies of If, Loop and Scan stay as they are.

    Args:
        model: the model; it may be changed. Constant nodes of the main graph become initializers.
        per_channel: a scale for each output channel of a weight.
        reduce_range: weights of 7 bits, for processors without VNNI, whose products of uint8 and
            int8 saturate.
        weight_type: ``int8`` or ``uint8``.
        op_types_to_quantize: operators of ``DYNAMIC_OPS``; all of them when empty. A Gemm counts as
            a MatMul.
        op_types_to_exclude: operators to leave out of those.
        nodes_to_quantize: names of nodes; all of them when empty.
        nodes_to_exclude: names of nodes to leave out of those.
        extra_options: of onnxruntime.quantization: ``"WeightSymmetric=false"``, or a value by name.
        allow_missing: nodes that the model doesn't have, and operators that can't be quantized, do
            no harm in the four lists, for settings that models share.

    Returns:
        The quantized model, its inputs and outputs as before.

    Raises:
        NotApplicable: nothing can be quantized, the model is quantized already, holds float16, or
            is over 2 GB.
        ValueError: no node has a name that was given, or ``per_channel`` meets a weight of three
            dimensions.
    """
    types = _chosen(op_types_to_quantize, op_types_to_exclude, DYNAMIC_OPS)
    inline(model)
    refuse(model, types, float16_since=None)
    nodes_to_quantize, nodes_to_exclude = present_nodes(
        model, nodes_to_quantize, nodes_to_exclude, allow_missing
    )
    prepare(model, _OPSET)
    excluded = [*nodes_to_exclude, *left_alone(model, dynamic=True)]
    if per_channel:
        refuse_stacked_weights(model, types, excluded, nodes_to_quantize)
        untie(model)
    # What onnx can't infer the type of, such as what a Scaler gives, is float.
    extra = {"DefaultTensorType": 1, **dynamic_options(extra_options)}

    def quantize(source: Path, target: Path, aliases: Aliases) -> None:
        from onnxruntime import quantization

        quantization.quantize_dynamic(
            source,
            target,
            op_types_to_quantize=types,
            per_channel=per_channel,
            reduce_range=reduce_range,
            weight_type=quantization.QuantType[TYPES[weight_type.lower()]],
            nodes_to_quantize=[aliases.of_node(name) for name in nodes_to_quantize],
            nodes_to_exclude=[aliases.of_node(name) for name in excluded],
            extra_options=extra,
        )

    return through_files(model, quantize, types, excluded)


def quantize_static(
    model: onnx.ModelProto,
    samples: Sequence[Mapping[str, Any]],
    per_channel: bool = False,
    reduce_range: bool = False,
    weight_type: str = "int8",
    activation_type: str = "uint8",
    calibration: str = "minmax",
    op_types_to_quantize: Sequence[str] = (),
    op_types_to_exclude: Sequence[str] = DEFAULT_OP_TYPES_TO_EXCLUDE,
    nodes_to_quantize: Sequence[str] = (),
    nodes_to_exclude: Sequence[str] = (),
    extra_options: Sequence[str] | Mapping[str, Any] = (),
    allow_missing: bool = False,
) -> onnx.ModelProto:
    """Quantize weights and activations to 8 bits.

    Activations get the ranges that they have on ``samples``.

    QuantizeLinear and DequantizeLinear (QDQ) are put around operators, which a provider may then
    fuse. The bodies of If, Loop and Scan stay as they are.

    Args:
        model: the model; it may be changed. Constant nodes of the main graph become initializers.
        samples: input sets, a value by input name in each. float32 is cast where the model takes
            float16.
        per_channel: a scale for each output channel of a weight. A model of an opset below 13 is
            converted to 13.
        reduce_range: weights of 7 bits, for processors without VNNI, whose products of uint8 and
            int8 saturate.
        weight_type: ``int8`` or ``uint8``.
        activation_type: ``uint8``, or ``int8`` for ranges that are symmetric, as TensorRT wants
            them.
        calibration: how a range follows from what was seen: one of ``CALIBRATIONS``.
        op_types_to_quantize: operators of ``STATIC_OPS``; all of them when empty.
        op_types_to_exclude: operators to leave out of those.
        nodes_to_quantize: names of nodes; all of them when empty.
        nodes_to_exclude: names of nodes to leave out of those.
        extra_options: of onnxruntime.quantization: ``"WeightSymmetric=false"``, or a value by name.
        allow_missing: nodes that the model doesn't have, and operators that can't be quantized, do
            no harm in the four lists, for settings that models share.

    Returns:
        The quantized model, its inputs and outputs as before.

    Raises:
        NotApplicable: nothing can be quantized, the model is quantized already, holds float16 in an
            opset below 19, takes no inputs, or is over 2 GB, or an extra option takes a library
            that isn't installed.
        ValueError: there are no samples, no node has a name that was given, or an extra option
            has no effect.
    """
    if not samples:
        raise ValueError("static quantization is calibrated on input sets, and got none")
    own = static_options(extra_options, calibration)
    types = _chosen(op_types_to_quantize, op_types_to_exclude, STATIC_OPS)
    inline(model)
    refuse(model, types, float16_since=FLOAT16_SINCE)
    nodes_to_quantize, nodes_to_exclude = present_nodes(
        model, nodes_to_quantize, nodes_to_exclude, allow_missing
    )
    prepare(model, _OPSET_PER_CHANNEL if per_channel else _OPSET)
    excluded = [*nodes_to_exclude, *left_alone(model, dynamic=False)]
    if per_channel:
        untie(model)
    feeds = feeds_of(model, samples)

    def quantize(source: Path, target: Path, aliases: Aliases) -> None:
        from onnxruntime import quantization

        from onnx_harness.transforms.quantization.unbounded import Unbounded, run_bounded

        aliased_feeds = [
            {aliases.of_value(name): value for name, value in feed.items()} for feed in feeds
        ]

        def run_library(unbounded: Unbounded) -> None:
            quantization.quantize_static(
                source,
                target,
                Samples(aliased_feeds),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=types,
                per_channel=per_channel,
                reduce_range=reduce_range,
                activation_type=quantization.QuantType[TYPES[activation_type.lower()]],
                weight_type=quantization.QuantType[TYPES[weight_type.lower()]],
                nodes_to_quantize=[aliases.of_node(name) for name in nodes_to_quantize],
                nodes_to_exclude=[
                    *(aliases.of_node(name) for name in excluded),
                    *unbounded.nodes,
                ],
                calibrate_method=quantization.CalibrationMethod[
                    CALIBRATIONS[calibration.lower()]
                ],
                calibration_providers=["CPUExecutionProvider"],
                # One set at a time: the library stacks those that it gets together, and their
                # shapes may differ.
                extra_options={
                    "CalibStridedMinMax": 1,
                    "ActivationSymmetric": activation_type == "int8",
                    "TensorQuantOverrides": unbounded.overrides(),
                    **own,
                },
            )

        run_bounded(run_library, source, target, aliased_feeds, aliases)

    return through_files(model, quantize, types, excluded)


def _chosen(
    included: Sequence[str], excluded: Sequence[str], candidates: Sequence[str]
) -> list[str]:
    chosen = [name for name in included or candidates if name in candidates]
    if not chosen:
        raise NotApplicable(
            "no operator that op_types_to_quantize names can be quantized so"
        )
    types = [name for name in chosen if name not in excluded]
    if not types:  # the library would take an empty list for all of them
        raise NotApplicable("every operator that could be quantized is excluded")
    return types


def _check_dynamic(**options: Any) -> None:
    _check_options(options, DYNAMIC_OPS)


def check_static(**options: Any) -> None:
    """Raise ValueError for an option of static quantization that can't be honoured."""
    _check_options(options, STATIC_OPS)
    refuse_unread(
        read_options(options.get("extra_options", ())),
        str(options.get("calibration", "minmax")),
    )


def _check_options(options: Mapping[str, Any], known_types: Sequence[str]) -> None:
    """Raise ValueError for a value that can't be honoured."""
    allowed = {"weight_type": TYPES, "activation_type": TYPES, "calibration": CALIBRATIONS}
    for option, choices in allowed.items():
        if option in options and str(options[option]).lower() not in choices:
            raise ValueError(
                f"{option} '{options[option]}' isn't known. "
                f"{did_you_mean(options[option], choices)}"
            )
    for option in ("op_types_to_quantize", "op_types_to_exclude"):
        for name in options.get(option, ()):
            if name not in known_types and not options.get("allow_missing"):
                hint = did_you_mean(name, known_types, most=40)
                raise ValueError(
                    f"{option}: '{name}' is no operator that can be quantized so. {hint} "
                    f"allow_missing=True lets it be."
                )
    read_options(options.get("extra_options", ()))
    if options.get("activation_type") == "int8" and options.get("weight_type") == "uint8":
        raise ValueError(
            "onnxruntime.quantization has no activations in int8 with weights in uint8"
        )


_OPTIONS: dict[str, type] = {
    "per_channel": bool,
    "reduce_range": bool,
    "weight_type": str,
    "op_types_to_quantize": tuple,
    "op_types_to_exclude": tuple,
    "nodes_to_quantize": tuple,
    "nodes_to_exclude": tuple,
    "extra_options": tuple,
    "allow_missing": bool,
}
STATIC_OPTIONS: dict[str, type] = {**_OPTIONS, "activation_type": str, "calibration": str}

TRANSFORM = (
    Transform(
        summary="weights in 8 bits, activations quantized as the model runs",
        apply=quantize_dynamic,
        forms={"int8.dynamic": {}},
        options=_OPTIONS,
        precision=Precision.INT8,
        most_bytes=MAX_BYTES,
        groups=("int8",),
        check=_check_dynamic,
        parts=node_parts("nodes_to_exclude"),
    ),
    Transform(
        summary="weights and activations in 8 bits (QDQ), calibrated on input sets of their own",
        apply=quantize_static,
        forms={"int8.static": {}},
        options=STATIC_OPTIONS,
        precision=Precision.INT8,
        most_bytes=MAX_BYTES,
        groups=("int8",),
        check=check_static,
        parts=node_parts("nodes_to_exclude"),
        calibrated=True,
    ),
)
