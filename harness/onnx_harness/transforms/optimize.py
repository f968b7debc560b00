"""``optimize``: the passes of onnxoptimizer that onnx-simplifier is built on.

The model is checked before and after.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnx_harness.errors import NotApplicable, did_you_mean
from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.transforms import Parts, Transform
from onnx_harness.transforms.sparse import refuse_sparse

if TYPE_CHECKING:
    import onnx
    from google.protobuf.message import Message

PASSES = (
    "eliminate_deadend",
    "eliminate_nop_dropout",
    "eliminate_nop_cast",
    "eliminate_nop_monotone_argmax",
    "eliminate_nop_pad",
    "extract_constant_to_initializer",
    "eliminate_unused_initializer",
    "eliminate_nop_transpose",
    "eliminate_nop_flatten",
    "eliminate_identity",
    "fuse_add_bias_into_conv",
    "fuse_consecutive_concats",
    "fuse_consecutive_log_softmax",
    "fuse_consecutive_reduce_unsqueeze",
    "fuse_consecutive_squeezes",
    "fuse_consecutive_transposes",
    "fuse_matmul_add_bias_into_gemm",
    "fuse_pad_into_conv",
    "fuse_transpose_into_gemm",
    "eliminate_duplicate_initializer",
)
FUSE_BN = "fuse_bn_into_conv"

# A protobuf message holds at most this many bytes, and onnxoptimizer takes a model as one message.
MAX_BYTES = 2**31 - 1
_REFUSED = re.compile(r"no supported data type: (\d+)")
LARGER = "Mend: `simplify` takes a model of any size, and has a rule for what most passes do"


def optimize(
    model: onnx.ModelProto,
    skip_fuse_bn: bool = False,
    skipped_optimizers: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """Run onnxoptimizer over ``PASSES`` and ``fuse_bn_into_conv`` until nothing changes.

    Args:
        model: a model that passes ``onnx.checker``, but for outputs without a shape; its doc
            strings are stripped in place.
        skip_fuse_bn: keep batch normalization apart from the convolution before it.
        skipped_optimizers: passes to leave out, from ``PASSES`` and ``fuse_bn_into_conv``.

    Returns:
        The optimized model, checked again.

    Raises:
        NotApplicable: the model is over 2 GB, more than onnxoptimizer takes.
        RuntimeError: the model has tensors of a type that onnxoptimizer lacks.
        ValueError: ``skipped_optimizers`` names a pass that isn't in the list.
        onnx.checker.ValidationError: the model is invalid, or has become so.
        onnx.shape_inference.InferenceError: the optimized model's types contradict each other, the
        model's don't.
    """
    passes = chosen_passes(skip_fuse_bn, skipped_optimizers)
    refuse_unread(model)

    import onnx
    import onnxoptimizer

    from onnx_harness.model.label_keys import with_key_types
    from onnx_harness.model.rewrite import unlist_constants
    from onnx_harness.model.unread_defaults import unread_defaults

    _check(model)
    unread = unread_defaults(model)
    was_consistent = _is_consistent(model)
    strip_doc_strings(model)
    with refused_types():
        optimized: onnx.ModelProto = onnxoptimizer.optimize(
            model, list(passes), fixed_point=True
        )
    # onnxoptimizer raises an older version and leaves the constants listed, inputs that a caller
    # may set from then on.
    if model.ir_version < FREE_INITIALIZERS:
        unlist_constants(optimized.graph)
        optimized.ir_version = max(optimized.ir_version, FREE_INITIALIZERS)
    if unread is not None:
        unread.put_back(optimized.graph)
    _restore_types(optimized, model)
    _check(optimized)
    if was_consistent:
        # Types too: ONNX Runtime doesn't load a model whose types contradict each other.
        onnx.checker.check_model(with_key_types(optimized), full_check=True)
    return optimized


def _check(model: onnx.ModelProto) -> None:
    """Check a model, but for outputs without a shape, which ONNX Runtime takes.

    Raises:
        onnx.checker.ValidationError: the model is invalid.
    """
    import onnx

    types = [info.type.tensor_type for info in model.graph.output]
    shapeless = [kind for kind in types if kind.elem_type and not kind.HasField("shape")]
    for kind in shapeless:
        kind.shape.SetInParent()
    try:
        onnx.checker.check_model(model)
    finally:
        for kind in shapeless:
            kind.ClearField("shape")


def _restore_types(optimized: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Give values back the types that onnxoptimizer drops: those of sequences and maps."""
    graph, result = model.graph, optimized.graph
    infos = (*graph.input, *graph.value_info, *graph.output)
    types = {info.name: info.type for info in infos}
    for infos_left in (result.input, result.output, result.value_info):
        for info in list(infos_left):
            if info.type.WhichOneof("value") is not None:
                continue
            if info.name in types:
                info.type.CopyFrom(types[info.name])
            else:
                infos_left.remove(info)


def _is_consistent(model: onnx.ModelProto) -> bool:
    """Return whether the full checker passes the model.

    Where it doesn't, that isn't onnxoptimizer's doing.
    """
    import onnx

    from onnx_harness.model.label_keys import with_key_types

    try:
        onnx.checker.check_model(with_key_types(model), full_check=True)
    except Exception:  # what the checker and inference raise has no common base
        return False
    return True


def chosen_passes(
    skip_fuse_bn: bool = False, skipped_optimizers: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The passes that ``optimize`` runs with these options.

    Raises:
        ValueError: ``skipped_optimizers`` names a pass that isn't in the list.
    """
    passes = (*PASSES, *(() if skip_fuse_bn else (FUSE_BN,)))
    for name in skipped_optimizers or ():
        if name not in (*PASSES, FUSE_BN):
            suggestion = did_you_mean(name, (*PASSES, FUSE_BN), most=30)
            raise ValueError(
                f"skipped_optimizers: '{name}' isn't one of the passes that optimize runs. "
                f"{suggestion}"
            )
    names = []
    for name in passes:
        if name not in (skipped_optimizers or ()):
            names.append(name)
    return tuple(names)


def strip_doc_strings(message: Message) -> None:
    """Clear every ``doc_string`` in ``message`` and in the messages that it holds.

    What ``onnx.helper.strip_doc_string`` is for; onnx 1.23 reads ``FieldDescriptor.label``, which
    protobuf 7 removed.
    """
    from google.protobuf.message import Message

    for field, value in message.ListFields():
        if field.name == "doc_string":
            message.ClearField("doc_string")
        elif field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                strip_doc_strings(inner)


def refuse_unread(model: onnx.ModelProto) -> None:
    """Raise NotApplicable for a model over 2 GB, or with weights that the library can't read."""
    from onnx_harness.model.size import byte_size

    size = byte_size(model)
    if size > MAX_BYTES:
        raise NotApplicable(
            f"onnxoptimizer takes models up to 2 GB and this one has {size / 2**30:.1f} GB. "
            f"{LARGER}"
        )
    refuse_sparse(model, "onnxoptimizer", "Mend: `simplify` takes them")


@contextlib.contextmanager
def refused_types() -> Iterator[None]:
    """Say which type of tensor onnxoptimizer (0.4.2) fails on.

    Raises:
        RuntimeError: the library's own, in words.
    """
    import onnx

    try:
        yield
    except RuntimeError as error:
        found = _REFUSED.search(str(error))
        if found is None:
            raise
        name = onnx.TensorProto.DataType.Name(int(found[1])).lower()
        raise RuntimeError(
            f"onnxoptimizer can't compare tensors of {name}, and the model has some ({error}). "
            f"Mend: `simplify` takes them, and has a rule for what most passes do"
        ) from error


def _apply(model: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    # onnx's checker rejects what ONNX Runtime writes into the standard domain: such a model is as
    # it should be, and onnxoptimizer has no part in it.
    import onnx

    try:
        _check(model)
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().splitlines()[0]
        raise NotApplicable(
            f"onnxoptimizer takes what onnx's checker passes, and it rejects the model: {reason}. "
            f"`simplify` doesn't ask it"
        ) from error
    return optimize(model, **options)


# It's pickled by its own name, and explained as `optimize` is.
_apply.__doc__ = optimize.__doc__


def _parts(_: onnx.ModelProto, options: Mapping[str, Any]) -> Sequence[str]:
    return chosen_passes(**options)


def _without(options: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    return {
        **options,
        "skipped_optimizers": (*options.get("skipped_optimizers", ()), *names),
    }


TRANSFORM = Transform(
    summary="onnxoptimizer with the passes of onnx-simplifier, until nothing changes",
    apply=_apply,
    forms={"optimize": {}, "optimize.nobn": {"skip_fuse_bn": True}},
    options={"skip_fuse_bn": bool, "skipped_optimizers": tuple},
    requires=("onnxoptimizer",),
    check=chosen_passes,
    parts=Parts("pass", _parts, _without),
    most_bytes=MAX_BYTES,
    larger=LARGER,
)
