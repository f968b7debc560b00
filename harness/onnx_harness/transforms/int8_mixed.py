"""``int8.mixed``: static quantization, but for the nodes that cost the outputs too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnx_harness.transforms import Precision, Transform
from onnx_harness.transforms.int8 import STATIC_OPTIONS, check_static, quantize_static
from onnx_harness.transforms.quantization.operators import (
    DEFAULT_OP_TYPES_TO_EXCLUDE,
    STATIC_OPS,
)

if TYPE_CHECKING:
    import onnx

    from onnx_harness.transforms.quantization.mixed import Choose

SQNR_DB = 15.0
"""The least ratio of signal to noise, as the bound of every int8 variant."""


def quantize_mixed(
    model: onnx.ModelProto,
    samples: Sequence[Mapping[str, Any]],
    choose: Choose,
    sqnr_db: float = SQNR_DB,
    agreement: float = 0.0,
    **options: Any,
) -> onnx.ModelProto:
    """Quantize as ``int8.static`` does, but for the nodes that have to stay float.

    Args:
        model: the model; it may be changed. Its functions are inlined. A node without a name is
            named by its first output.
        samples: as `quantize_static`.
        choose: chooses the nodes.
        sqnr_db: the least ratio of signal to quantization noise of every float output, in dB.
        agreement: the least share of rows of each float output whose greatest element is the
            original's: the top-1 agreement of a classifier. 0: it isn't looked at.
        options: as `quantize_static`; what is chosen is added to ``nodes_to_exclude``.

    Raises:
        NotApplicable: as `quantize_static`, or no choice is enough.
        ValueError: as there.
    """
    from onnx_harness.transforms.quantization.mixed import QuantizedConversion
    from onnx_harness.transforms.quantization.nodes import name_by_output
    from onnx_harness.transforms.quantization.preparing import inline

    inline(model)
    name_by_output(model.graph)
    own = tuple(options.pop("nodes_to_exclude", ()))

    def quantized(names: Sequence[str]) -> onnx.ModelProto:
        copied = type(model)()
        copied.CopyFrom(model)
        return quantize_static(copied, samples, nodes_to_exclude=(*own, *names), **options)

    excluded = options.get("op_types_to_exclude", DEFAULT_OP_TYPES_TO_EXCLUDE)
    ops = frozenset(options.get("op_types_to_quantize", ()) or STATIC_OPS).difference(
        excluded
    )
    chosen = choose(
        QuantizedConversion(
            model, quantized, ops, frozenset(own), sqnr_db, agreement, "int8.static"
        )
    )
    return quantized(chosen)


def _check(sqnr_db: float = SQNR_DB, agreement: float = 0.0, **options: Any) -> None:
    if not 0 <= agreement <= 1:
        raise ValueError(f"agreement is {agreement:g}, but a share lies between 0 and 1")
    if sqnr_db != sqnr_db:
        raise ValueError("sqnr_db isn't a number")
    check_static(**options)


TRANSFORM = Transform(
    # In no group but `all`: what a search costs is asked for.
    summary="as int8.static, but for the nodes that have to stay float, which are searched for",
    apply=quantize_mixed,
    forms={"int8.mixed": {}},
    options={**STATIC_OPTIONS, "sqnr_db": float, "agreement": float},
    precision=Precision.INT8,
    calibrated=True,
    chosen=True,
    check=_check,
)
