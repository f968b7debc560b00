"""``int4``: constant factors of MatMul in 4 bits, in blocks (MatMulNBits).

It goes through onnxruntime.quantization.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness.errors import NotApplicable
from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.transforms import Precision, Transform
from onnx_harness.transforms.optimize import MAX_BYTES
from onnx_harness.transforms.quantization.library import aliased, quiet
from onnx_harness.transforms.quantization.preparing import inline, present_nodes
from onnx_harness.transforms.sparse import refuse_sparse

if TYPE_CHECKING:
    import onnx

# A MatMulNBits takes powers of 2 from 16 on (ONNX Runtime's docs/ContribOperators.md).
LEAST_BLOCK, MOST_BLOCK = 16, 256
# 0: as ONNX Runtime chooses; 1: float32, 2: float16, 3: bfloat16, 4: int8 activations.
ACCURACY_LEVELS = range(5)


def quantize_weights(
    model: onnx.ModelProto,
    block_size: int = 32,
    symmetric: bool = False,
    accuracy_level: int = 0,
    nodes_to_exclude: Sequence[str] = (),
    allow_missing: bool = False,
) -> onnx.ModelProto:
    """Store constant matrices that a MatMul multiplies by in 4 bits; activations stay as they are.

    Args:
        model: the model; it may be changed.
        block_size: how many weights of a column share a scale: 16, 32, 64, 128 or 256.
        symmetric: scales without a zero point.
        accuracy_level: the least arithmetic, from 0 (ONNX Runtime's choice) and 1 (float32) to 4
            (int8 activations).
        nodes_to_exclude: names of nodes to leave out.
        allow_missing: names that no node has do no harm, for settings that models share.

    Returns:
        The quantized model, its inputs and outputs as before.

    Raises:
        NotApplicable: no MatMul has a constant matrix that isn't float64, the model is quantized
            already, or is over 2 GB.
        ValueError: no node has a name that was given, and none may be missing.
    """
    from onnx_harness.model.rewrite import sort_nodes
    from onnx_harness.model.walk import walk
    from onnx_harness.transforms.quantization.nodes import is_quantized

    inline(model)
    _refuse(model)
    _, excluded = present_nodes(model, (), nodes_to_exclude, allow_missing)
    _make_initializers(model)
    excluded += _products_of_doubles(model)
    with quiet(), aliased(model) as aliases:
        quantized = _run_library(
            model,
            block_size=block_size,
            is_symmetric=symmetric,
            accuracy_level=accuracy_level or None,
            nodes_to_exclude=[aliases.of_node(name) for name in excluded],
        )
        aliases.take_back(quantized)
    if not any(is_quantized(node) for node in walk(quantized.graph)):
        raise NotApplicable(
            "there is nothing to quantize: no MatMul has a constant matrix of float32 or float16"
        )
    sort_nodes(quantized.graph)
    return quantized


def _run_library(model: onnx.ModelProto, **arguments: Any) -> onnx.ModelProto:
    """Return what ONNX Runtime's quantizer makes of the model, by way of a file."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(model, bits=4, **arguments)
    quantizer.process()
    with tempfile.TemporaryDirectory(prefix="int4-") as folder:
        target = Path(folder) / "quantized.onnx"
        quantizer.model.save_model_to_file(str(target), False)
        return onnx.load_model(target)


def _refuse(model: onnx.ModelProto) -> None:
    """Raise NotApplicable for a model that is too large or quantized already."""
    from onnx_harness.model.size import byte_size
    from onnx_harness.model.walk import walk
    from onnx_harness.transforms.quantization.nodes import is_quantized

    if byte_size(model) > MAX_BYTES:
        raise NotApplicable("onnxruntime.quantization takes models up to 2 GB")
    refuse_sparse(model, "onnxruntime.quantization", "Mend: make them dense first")
    before = next((node.op_type for node in walk(model.graph) if is_quantized(node)), None)
    if before is not None:
        raise NotApplicable(f"the model is quantized already: it holds {before}")


def _products_of_doubles(model: onnx.ModelProto) -> list[str]:
    """Return the names of the main graph's MatMuls by float64, which MatMulNBits doesn't take."""
    import onnx

    doubles = set()
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.DOUBLE:
            doubles.add(tensor.name)
    products = (node for node in model.graph.node if node.op_type == "MatMul")
    return [node.name for node in products if not doubles.isdisjoint(node.input)]


def _make_initializers(model: onnx.ModelProto) -> None:
    """Make initializers of all constants, which aren't inputs."""
    from onnx_harness.model.rewrite import (
        bypass_identities,
        lift_constants,
        unlist_constants,
    )

    if model.ir_version < FREE_INITIALIZERS:
        unlist_constants(model.graph)
        model.ir_version = FREE_INITIALIZERS
    lift_constants(model.graph)
    bypass_identities(model.graph)


def _check(
    block_size: int = 32,
    symmetric: bool = False,  # noqa: ARG001 (either value can be honoured)
    accuracy_level: int = 0,
    nodes_to_exclude: Sequence[str] = (),  # noqa: ARG001
    allow_missing: bool = False,  # noqa: ARG001
) -> None:
    if block_size < LEAST_BLOCK or block_size > MOST_BLOCK or block_size & (block_size - 1):
        raise ValueError(f"block_size is {block_size}; it is 16, 32, 64, 128 or 256")
    if accuracy_level not in ACCURACY_LEVELS:
        raise ValueError(f"accuracy_level is {accuracy_level}; it is 0 to 4")


TRANSFORM = Transform(
    summary="constant matrices in blocks of 4 bits (MatMulNBits)",
    apply=quantize_weights,
    forms={"int4": {}},
    options={
        "block_size": int,
        "symmetric": bool,
        "accuracy_level": int,
        "nodes_to_exclude": tuple,
        "allow_missing": bool,
    },
    precision=Precision.INT8,
    check=_check,
    most_bytes=MAX_BYTES,
)
