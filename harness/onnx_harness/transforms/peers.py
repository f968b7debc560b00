"""Libraries of others as their documentation calls them, nothing mended.

``skipped`` names what a library leaves out; only a diagnosis says it. Each library then runs by the
options that it has for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

from onnx_harness.errors import NotApplicable
from onnx_harness.transforms import Apply, Parts, Precision, Transform
from onnx_harness.transforms.parts import inner_node_parts, node_parts

if TYPE_CHECKING:
    import onnx

_FOLDING, _INFERENCE, _INLINING = "constant folding", "shape inference", "function inlining"
# What onnxslim calls its stages.
_SLIM_STAGES = (
    "constant_folding",
    "dead_node_elimination",
    "subexpression_elimination",
    "weight_tying",
)

# How the library begins what it says of a model that it takes for one in float16.
_REFUSES = "already converted to float16"
_FLOAT, _FLOAT16 = 1, 10  # of TensorProto


def optimize_as_documented(
    model: onnx.ModelProto, skipped: Sequence[str] = ()
) -> onnx.ModelProto:
    """``onnxoptimizer.optimize(model)``: every fusing and eliminating pass, once."""
    import onnxoptimizer

    optimized: onnx.ModelProto
    if skipped:
        passes = [name for name in _default_passes() if name not in skipped]
        optimized = onnxoptimizer.optimize(model, passes)
    else:
        optimized = onnxoptimizer.optimize(model)
    return optimized


def simplify_as_documented(
    model: onnx.ModelProto, skipped: Sequence[str] = ()
) -> onnx.ModelProto:
    """``onnxsim.simplify(model)``.

    Raises:
        RuntimeError: the library says that its own result doesn't hold.
    """
    import onnxsim

    options: dict[str, Any] = {}
    if skipped:
        passes = [name for name in skipped if name not in (_FOLDING, _INFERENCE)]
        options = {
            "skipped_optimizers": passes,
            "skip_constant_folding": _FOLDING in skipped,
            "skip_shape_inference": _INFERENCE in skipped,
        }
    simplified: onnx.ModelProto
    simplified, valid = onnxsim.simplify(model, **options)
    # The documentation follows the call with: assert check, "Simplified ONNX model could not be
    # validated".
    if not valid:
        raise RuntimeError("onnxsim could not validate the simplified model")
    return simplified


def slim_as_documented(
    model: onnx.ModelProto, skipped: Sequence[str] = ()
) -> onnx.ModelProto:
    """``onnxslim.slim(model)``."""
    import onnxslim

    options: dict[str, Any] = {}
    if skipped:
        stages = [name for name in skipped if name in _SLIM_STAGES]
        patterns = [name for name in skipped if name not in _SLIM_STAGES]
        options = {"skip_optimizations": stages, "skip_fusion_patterns": patterns}
    slimmed: onnx.ModelProto = onnxslim.slim(model, **options)
    return slimmed


def optimize_by_script(
    model: onnx.ModelProto, skipped: Sequence[str] = ()
) -> onnx.ModelProto:
    """``onnxscript.optimizer.optimize(model)``."""
    import onnxscript.optimizer

    if not skipped:
        return onnxscript.optimizer.optimize(model)

    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass
    from onnxscript import rewriter

    rules = [rule for name, rule in _script_rules().items() if name not in skipped]
    opened = ir.serde.deserialize_model(model)
    # The library has no option for its rules, and its pass takes no empty list of them.
    changed: tuple[str, Any] = ("_DEFAULT_REWRITE_RULES", tuple(rules))
    if not rules:
        changed = ("RewritePass", lambda _: RemoveUnusedNodesPass())
    with mock.patch.object(rewriter, *changed):
        onnxscript.optimizer.optimize_ir(
            opened,
            should_fold=lambda _: False if _FOLDING in skipped else None,
            onnx_shape_inference=_INFERENCE not in skipped,
            inline=_INLINING not in skipped,
        )
    return ir.serde.serialize_model(opened)


def convert_to_float16_as_documented(
    model: onnx.ModelProto, **options: Any
) -> onnx.ModelProto:
    """Call ``convert_float_to_float16(model)``, with ``keep_io_types=True`` for the form ``io32``.

    onnxmltools 1.16 has only a stub left in its own place, which points at onnxconverter-common, a
    dependency of it.

    Raises:
        NotApplicable: the model is one in float16, which the library refuses. A model that holds a
            Cast to float16 it refuses as well: that's a fault of its own.
    """
    from onnxconverter_common.float16 import convert_float_to_float16

    try:
        converted: onnx.ModelProto = convert_float_to_float16(model, **options)
    except ValueError as error:
        if _REFUSES in str(error) and _is_float16(model):
            raise NotApplicable(
                "the model is float16 already, and the library refuses to convert it again"
            ) from error
        raise
    return converted


def _is_float16(model: onnx.ModelProto) -> bool:
    """Return whether a model has weights, or else inputs, in float16 and none in float32."""
    weights = {tensor.data_type for tensor in model.graph.initializer}
    inputs = {info.type.tensor_type.elem_type for info in model.graph.input}
    types = weights if weights & {_FLOAT, _FLOAT16} else inputs
    return _FLOAT16 in types and _FLOAT not in types


def _default_passes() -> list[str]:
    import onnxoptimizer

    return list(onnxoptimizer.get_fuse_and_elimination_passes())


def _sim_parts() -> list[str]:
    return [*_default_passes(), _FOLDING, _INFERENCE]  # onnxsim is built on onnxoptimizer


def _slim_parts() -> list[str]:
    import onnxslim.core.pattern.registry as registry

    return [*_SLIM_STAGES, *registry.DEFAULT_FUSION_PATTERNS]


def _script_parts() -> list[str]:
    return [_INLINING, _FOLDING, _INFERENCE, *_script_rules()]


def _script_rules() -> dict[str, Any]:
    """The rewrite rules of onnxscript by name; those without one are numbered."""
    from onnxscript import rewriter

    rules: Sequence[Any] = getattr(rewriter, "_DEFAULT_REWRITE_RULES", ())
    entries: dict[str, Any] = {}
    for at, rule in enumerate(rules):
        entries[getattr(rule, "name", None) or f"rewrite rule {at}"] = rule
    return entries


def _named(names: Callable[[], Sequence[str]], *_: object) -> Sequence[str]:
    return names()


def _without(options: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    return {**options, "skipped": tuple(names)}


def _peer(
    distribution: str,
    summary: str,
    apply: Apply,
    kind: str,
    names: Callable[[], Sequence[str]],
) -> Transform:
    return Transform(
        summary=summary,
        apply=apply,
        forms={distribution: {}},
        requires=(distribution,),
        groups=("peers",),
        parts=Parts(kind, partial(_named, names), _without),
    )


_HALF_SUMMARY = "onnxconverter-common's float16 conversion as released"

TRANSFORM = (
    _peer(
        "onnxoptimizer",
        "onnxoptimizer as released, with its default passes",
        optimize_as_documented,
        "pass",
        _default_passes,
    ),
    _peer(
        "onnxsim", "onnx-simplifier as released", simplify_as_documented, "pass", _sim_parts
    ),
    _peer("onnxslim", "OnnxSlim as released", slim_as_documented, "pass", _slim_parts),
    _peer(
        "onnxscript",
        "ONNX Script's optimizer as released",
        optimize_by_script,
        "rule",
        _script_parts,
    ),
    Transform(
        summary=_HALF_SUMMARY,
        apply=convert_to_float16_as_documented,
        forms={"fp16.onnxmltools": {}},
        requires=("onnxconverter-common",),
        precision=Precision.FP16,
        parts=node_parts("node_block_list"),
        float_io="float16",
        groups=("fp16", "peers"),
    ),
    Transform(
        summary=f"{_HALF_SUMMARY}, float32 inputs and outputs kept",
        apply=convert_to_float16_as_documented,
        forms={"fp16.onnxmltools.io32": {"keep_io_types": True}},
        requires=("onnxconverter-common",),
        precision=Precision.FP16,
        parts=inner_node_parts("node_block_list"),
        groups=("fp16", "peers"),
    ),
)
