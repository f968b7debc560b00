"""``int8.dynamic``, ``int8.static``.

Weights and activations in 8 bits, through onnxruntime.quantization.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness.errors import NotApplicable, did_you_mean
from onnx_harness.model.custom_ops import in_foreign_sessions
from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.model.ops import imports_standard, is_standard, opset_of
from onnx_harness.transforms import Precision, Transform, remark
from onnx_harness.transforms.optimize import MAX_BYTES
from onnx_harness.transforms.parts import node_parts
from onnx_harness.transforms.quantization.options import extra_options as read_options

if TYPE_CHECKING:
    import onnx

# What each mode can quantize; written down because collection must not import onnxruntime. A test
# compares them.
DYNAMIC_OPS = (
    "Attention",
    "Conv",
    "EmbedLayerNormalization",
    "Gather",
    "LSTM",
    "MatMul",
    "Transpose",
)
STATIC_OPS = (
    "Add",
    "ArgMax",
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "CumSum",
    "EmbedLayerNormalization",
    "Flatten",
    "Gather",
    "GatherElements",
    "Gemm",
    "GlobalAveragePool",
    "InstanceNormalization",
    "LayerNormalization",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Mul",
    "Pad",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Split",
    "Squeeze",
    "TopK",
    "Transpose",
    "Unsqueeze",
    "Where",
)
# A softmax shares 1 among its classes. Its range is fixed at 0 to 1, in steps of 1/255: among a
# thousand classes most probabilities are less than half a step and become 0 (a shufflenet keeps 0.3
# dB with it, 21.6 dB without).
DEFAULT_OP_TYPES_TO_EXCLUDE = ("Softmax",)

TYPES = {"int8": "QInt8", "uint8": "QUInt8"}
CALIBRATIONS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}

# A DequantizeLinear with an axis, which a scale for each channel needs, came with opset 13, one
# that gives float16 with
# 19. 11 is the first opset that onnxruntime.quantization doesn't convert itself.
_OPSET, _OPSET_PER_CHANNEL, _OPSET_FLOAT16 = 11, 13, 19
# In dynamic quantization these hand quantized values on under other names.
_HANDING_ON = ("EmbedLayerNormalization", "Gather", "Transpose")
_ERROR = 3  # ONNX Runtime's severity


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

    Returns:
        The quantized model, its inputs and outputs as before.

    Raises:
        NotApplicable: nothing can be quantized, the model is quantized already, holds float16, or
            is over 2 GB.
        ValueError: no node has a name that was given, or ``per_channel`` meets a weight of three
            dimensions.
    """
    types = _chosen(op_types_to_quantize, op_types_to_exclude, DYNAMIC_OPS)
    _refuse(model, types, float16_since=None)
    _refuse_unknown_nodes(model, nodes_to_quantize, nodes_to_exclude)
    _prepare(model, _OPSET)
    excluded = [*nodes_to_exclude, *_left_alone(model, dynamic=True)]
    if per_channel:
        _refuse_stacked_weights(model, types, excluded, nodes_to_quantize)
        _untie(model)

    def quantize(source: Path, target: Path) -> None:
        from onnxruntime import quantization

        quantization.quantize_dynamic(
            source,
            target,
            op_types_to_quantize=types,
            per_channel=per_channel,
            reduce_range=reduce_range,
            weight_type=quantization.QuantType[TYPES[weight_type.lower()]],
            nodes_to_quantize=list(nodes_to_quantize),
            nodes_to_exclude=excluded,
            # What onnx can't infer the type of, such as what a Scaler gives, is float: a model with
            # float16 is refused.
            extra_options={"DefaultTensorType": 1, **read_options(extra_options)},
        )

    return _through_files(model, quantize, types)


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

    Returns:
        The quantized model, its inputs and outputs as before.

    Raises:
        NotApplicable: nothing can be quantized, the model is quantized already, holds float16 in an
            opset below 19, takes no inputs, or is over 2 GB.
        ValueError: there are no samples, or no node has a name that was given.
    """
    if not samples:
        raise ValueError("static quantization is calibrated on input sets, and got none")
    types = _chosen(op_types_to_quantize, op_types_to_exclude, STATIC_OPS)
    _refuse(model, types, float16_since=_OPSET_FLOAT16)
    _refuse_unknown_nodes(model, nodes_to_quantize, nodes_to_exclude)
    _prepare(model, _OPSET_PER_CHANNEL if per_channel else _OPSET)
    excluded = [*nodes_to_exclude, *_left_alone(model, dynamic=False)]
    if per_channel:
        _untie(model)
    feeds = _feeds(model, samples)

    def quantize(source: Path, target: Path) -> None:
        from onnxruntime import quantization

        quantization.quantize_static(
            source,
            target,
            _Samples(feeds),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=types,
            per_channel=per_channel,
            reduce_range=reduce_range,
            activation_type=quantization.QuantType[TYPES[activation_type.lower()]],
            weight_type=quantization.QuantType[TYPES[weight_type.lower()]],
            nodes_to_quantize=list(nodes_to_quantize),
            nodes_to_exclude=excluded,
            calibrate_method=quantization.CalibrationMethod[CALIBRATIONS[calibration.lower()]],
            calibration_providers=["CPUExecutionProvider"],
            # One set at a time: the library stacks those that it gets together, and their shapes
            # may differ.
            extra_options={
                "CalibStridedMinMax": 1,
                "ActivationSymmetric": activation_type == "int8",
                **read_options(extra_options),
            },
        )

    return _through_files(model, quantize, types)


class _Samples:
    """The samples as the CalibrationDataReader of onnxruntime.quantization."""

    def __init__(self, feeds: Sequence[Mapping[str, Any]]) -> None:
        self._feeds = feeds
        self.set_range(0, len(feeds))

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._rest = iter(self._feeds[start_index:end_index])

    def get_next(self) -> Mapping[str, Any] | None:
        return next(self._rest, None)


def _refuse(model: onnx.ModelProto, types: Sequence[str], float16_since: int | None) -> None:
    """Raise NotApplicable for what the library can't quantize, or would break.

    Args:
        model: the model.
        types: the operators chosen.
        float16_since: the opset from which on values may be float16; None where they never may.
    """
    import onnx

    from onnx_harness.model.size import byte_size
    from onnx_harness.model.walk import walk
    from onnx_harness.transforms.quantization.nodes import is_of_its_domain, is_quantized

    size = byte_size(model)
    if size > MAX_BYTES:
        raise NotApplicable(
            f"onnxruntime.quantization takes models up to 2 GB and this one has "
            f"{size / 2**30:.1f} GB"
        )
    before = next((node.op_type for node in walk(model.graph) if is_quantized(node)), None)
    if before is not None:
        raise NotApplicable(f"the model is quantized already: it holds {before}")
    kinds = {*types, "Gemm"} if "MatMul" in types else set(types)
    if not any(node.op_type in kinds and is_of_its_domain(node) for node in model.graph.node):
        raise NotApplicable(_nothing(types))
    opset = opset_of(model)
    if float16_since is None or opset < float16_since:
        halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
        if any(tensor.data_type in halves for tensor in model.graph.initializer):
            where = (
                "from float16 at all"
                if float16_since is None
                else f"from float16 below opset {float16_since}"
            )
            raise NotApplicable(
                f"the model holds float16 tensors, and nothing is quantized {where}"
            )


def _refuse_unknown_nodes(
    model: onnx.ModelProto, included: Sequence[str], excluded: Sequence[str]
) -> None:
    """Raise ValueError for a name that no node has: one without is named by its first output."""
    from onnx_harness.transforms.quantization.nodes import name_by_output, refuse_unknown_nodes

    name_by_output(model.graph)
    refuse_unknown_nodes(model.graph, "nodes_to_quantize", included)
    refuse_unknown_nodes(model.graph, "nodes_to_exclude", excluded)


def _left_alone(model: onnx.ModelProto, dynamic: bool) -> list[str]:
    """The names of nodes that are never quantized; those without one get one."""
    from onnx_harness.transforms.quantization.nodes import captured, name_nodes, never_quantized

    outputs = set(never_quantized(model.graph, static=not dynamic))
    if dynamic:  # the library gives what these hand on another name, and looks into no body
        inside = captured(model.graph)
        names = set()
        for node in model.graph.node:
            if node.op_type in _HANDING_ON:
                for name in node.output:
                    if name in inside:
                        names.add(name)
        outputs |= names
    return name_nodes(model.graph, outputs)


def _refuse_stacked_weights(
    model: onnx.ModelProto, types: Sequence[str], excluded: Sequence[str], included: Sequence[str]
) -> None:
    """Raise ValueError for a MatMul whose weight has more than two dimensions.

    ONNX Runtime has one scale for it.
    """
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node if "MatMul" in types else ():
        chosen = node.name not in excluded and (not included or node.name in included)
        if node.op_type == "MatMul" and chosen and ranks.get(node.input[1], 0) > 2:
            mend = (
                f"nodes_to_exclude=['{node.name}'], or"
                if node.name
                else "give it a name to exclude it by, or"
            )
            raise ValueError(
                f"per_channel: MatMul '{node.name or node.output[0]}' has a weight of "
                f"{ranks[node.input[1]]} "
                "dimensions, and ONNX Runtime's MatMulInteger takes a scale for each channel of "
                "two. "
                f"Mend: {mend} no per_channel"
            )


def _untie(model: onnx.ModelProto) -> None:
    """Give Gathers tables of their own where they share them with products.

    A product would have a scale for each channel of the same matrix.
    """
    from onnx_harness.transforms.quantization.nodes import tied_tables, untie

    untie(model.graph, tied_tables(model.graph))


def _remark_tied(tied: Mapping[str, Sequence[str]]) -> None:
    for name, products in tied.items():
        remark(
            f"'{name}' is the table of a Gather and a factor of "
            f"{' and '.join(sorted(set(products)))}: both read "
            "the same levels of 8 bits"
        )


def _nothing(types: Sequence[str]) -> str:
    named = (
        f"{', '.join(types[:6])} or {len(types) - 6} more" if len(types) > 7 else ", ".join(types)
    )
    return (
        f"there is nothing to quantize: outside the bodies of If, Loop and Scan no {named} "
        f"works on float tensors"
    )


def _prepare(model: onnx.ModelProto, opset: int) -> None:
    """Bring a model into the form in which the library finds its weights."""
    from onnx_harness.model.inlining import inline_functions
    from onnx_harness.model.rewrite import lift_constants, unlist_constants

    if model.functions:  # which the library would leave out
        model.CopyFrom(inline_functions(model))
    _convert(model, opset)
    graph = model.graph
    if (
        model.ir_version < FREE_INITIALIZERS
    ):  # constants there, but defaults of inputs in any later version
        unlist_constants(graph)
        model.ir_version = FREE_INITIALIZERS
    lift_constants(graph)


def _convert(model: onnx.ModelProto, opset: int) -> None:
    import onnx

    before = opset_of(model)
    if not imports_standard(model) or before >= opset:
        return
    _forget_unused_fillings(model)
    converted = onnx.version_converter.convert_version(model, opset)
    try:
        onnx.checker.check_model(converted)
    except onnx.checker.ValidationError as error:
        # Graphs inside nodes stay as they were, of the older opset.
        reason = str(error).strip().splitlines()[0]
        raise NotApplicable(
            f"onnx's version converter doesn't bring the model from opset {before} to {opset}: "
            f"{reason}"
        ) from None
    model.CopyFrom(converted)


def _forget_unused_fillings(model: onnx.ModelProto) -> None:
    """Remove the value of a Pad that copies elements, which the converter would keep."""
    for node in model.graph.node:
        if node.op_type != "Pad" or not is_standard(node):
            continue
        copies = any(each.name == "mode" and each.s != b"constant" for each in node.attribute)
        for index in reversed(range(len(node.attribute))):
            if copies and node.attribute[index].name == "value":
                del node.attribute[index]


def _feeds(model: onnx.ModelProto, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The samples as the model takes them, which a step before this one may have changed."""
    import numpy as np
    import onnx

    types = {info.name: info.type.tensor_type.elem_type for info in model.graph.input}
    half = set()
    for name, kind in types.items():
        if kind == onnx.TensorProto.FLOAT16:
            half.add(name)
    feeds = []
    for sample in samples:
        feed = {}
        for name, value in sample.items():
            if name in types:
                is_narrowed = name in half and value.dtype == np.float32
                feed[name] = value.astype(np.float16) if is_narrowed else value
        feeds.append(feed)
    if not all(feeds):
        raise NotApplicable("the model takes no inputs: there is nothing to calibrate it on")
    return feeds


def _through_files(
    model: onnx.ModelProto, quantize: Callable[[Path, Path], None], types: Sequence[str]
) -> onnx.ModelProto:
    """Quantize from file to file, in a folder that goes afterwards.

    That is all that the library can do.
    """
    import onnx

    from onnx_harness.model.rewrite import sort_nodes
    from onnx_harness.transforms.quantization.nodes import captured, is_quantized, tied_tables

    tied = tied_tables(model.graph)
    inside = captured(model.graph)
    floats = [tensor for tensor in model.graph.initializer if tensor.name in inside]
    with tempfile.TemporaryDirectory(prefix="int8-") as name, quiet():
        source, target = Path(name) / "model.onnx", Path(name) / "quantized.onnx"
        onnx.save_model(model, source)
        quantize(source, target)
        quantized = onnx.load_model(target)
    if not any(is_quantized(node) for node in quantized.graph.node):
        raise NotApplicable(_nothing(types))
    _remark_tied(tied)
    present = {tensor.name for tensor in quantized.graph.initializer}
    tensors = []
    for tensor in floats:
        if tensor.name not in present:
            tensors.append(tensor)
    quantized.graph.initializer.extend(tensors)
    sort_nodes(quantized.graph)
    entries = []
    for entry in quantized.metadata_props:
        if entry.key != "onnx.infer":  # the library's note to itself
            entries.append(entry)
    quantized.ClearField("metadata_props")
    quantized.metadata_props.extend(entries)
    return quantized


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the library from printing, and from configuring the root logger.

    It logs and configures when it's imported.
    """
    root, silent = logging.getLogger(), logging.NullHandler()
    disabled = root.manager.disable
    root.addHandler(silent)  # without any, logging.warning() would add one that stays
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import onnxruntime

            onnxruntime.set_default_logger_severity(_ERROR)  # of the sessions that calibrate
            with in_foreign_sessions():
                yield
    finally:
        logging.disable(disabled)
        root.removeHandler(silent)


def _chosen(
    included: Sequence[str], excluded: Sequence[str], candidates: Sequence[str]
) -> list[str]:
    types = [name for name in included or candidates if name not in excluded]
    if not types:  # the library would take an empty list for all of them
        raise NotApplicable("every operator that could be quantized is excluded")
    return types


def _check_dynamic(**options: Any) -> None:
    _check_options(options, DYNAMIC_OPS)


def check_static(**options: Any) -> None:
    """Raise ValueError for an option of static quantization that can't be honoured."""
    _check_options(options, STATIC_OPS)


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
            if name not in known_types:
                hint = did_you_mean(name, known_types, most=40)
                raise ValueError(
                    f"{option}: '{name}' is no operator that can be quantized so. {hint}"
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
