"""A model in memory to a file, whatever its size; the model stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import TensorProto, numpy_helper

from onnx_harness.model.file import INLINE_BYTES
from onnx_harness.model.messages import copy_fields
from onnx_harness.model.size import byte_size
from onnx_harness.model.unchanged import Unchanged
from onnx_harness.model.walk import walk

WEIGHTS = "weights.bin"
# Smaller tensors stay in the model: shapes and axes, which are read without the weights.
_LEAST_BYTES = 1024
_PAGE = 4096  # where a tensor begins, so that a runtime can map the file


def save(
    model: onnx.ModelProto,
    file: Path,
    *,
    inline_bytes: int = INLINE_BYTES,
    weights: str = WEIGHTS,
    unchanged: Unchanged | None = None,
) -> bool:
    """Write a model, and its weights to another file in the same folder where the model is large.

    Args:
        model: it stays as it is, unlike with ``onnx.save_model``, which takes large weights out of
            it.
        file: where to.
        inline_bytes: a model that takes more gets the second file.
        weights: the name of that file, which is overwritten.
        unchanged: weights that needn't be written, since they lie in a file that can be shared.

    Returns:
        Whether there is a second file.

    Raises:
        OSError: a file can't be written.
        Exception: what protobuf raises of a model that is above 2 GiB without its weights.
    """
    if byte_size(model) <= inline_bytes:
        onnx.save_model(model, str(file))
        return False
    light = externalized(model, file.with_name(weights), unchanged=unchanged)
    onnx.save_model(light, str(file))
    return True


def externalized(
    model: onnx.ModelProto,
    weights: Path,
    least_bytes: int = _LEAST_BYTES,
    unchanged: Unchanged | None = None,
) -> onnx.ModelProto:
    """Write the large tensors of a model to a file, and return the model with references to it.

    Args:
        model: it stays as it is.
        weights: the file, in the folder where the returned model has to be saved.
        least_bytes: smaller tensors stay in the model.
        unchanged: as in `save`.
    """
    light = onnx.ModelProto()
    copy_fields(model, light, but="graph")
    copy_fields(model.graph, light.graph, but="initializer")
    with weights.open("wb") as out:
        for tensor in model.graph.initializer:
            _put(
                tensor,
                light.graph.initializer.add(),
                out,
                weights.name,
                least_bytes,
                unchanged,
            )
        for tensor in _in_nodes(light):
            moved = TensorProto()
            _put(tensor, moved, out, weights.name, least_bytes)
            tensor.CopyFrom(moved)
    return light


def _in_nodes(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield the tensors that attributes of a node hold, and the initializers of bodies."""
    for node in walk(model.graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for body in (attribute.g, *attribute.graphs):
                yield from body.initializer


def _put(
    tensor: TensorProto,
    target: TensorProto,
    out: BinaryIO,
    weights: str,
    least_bytes: int,
    unchanged: Unchanged | None = None,
) -> None:
    """Write the data of a large tensor to a file, and say in ``target`` where it lies.

    Copy any other tensor.
    """
    is_text = tensor.data_type == TensorProto.STRING
    if (
        is_text
        or tensor.data_location == TensorProto.EXTERNAL
        or tensor.ByteSize() < least_bytes
    ):
        target.CopyFrom(tensor)
        return
    # Numbers in lists (float_data and the like) have no place in such a file.
    raw = (
        tensor
        if tensor.HasField("raw_data")
        else numpy_helper.from_array(numpy_helper.to_array(tensor))
    )
    data = raw.raw_data
    place = None if unchanged is None else unchanged.place(tensor, data)
    if place is None:
        out.write(b"\0" * (-out.tell() % _PAGE))
        place = {"location": weights, "offset": str(out.tell()), "length": str(len(data))}
        out.write(data)
    target.name, target.doc_string, target.data_type = (
        tensor.name,
        tensor.doc_string,
        tensor.data_type,
    )
    target.dims.extend(tensor.dims)
    target.metadata_props.extend(tensor.metadata_props)
    target.data_location = TensorProto.EXTERNAL
    for key, value in place.items():
        target.external_data.add(key=key, value=value)
