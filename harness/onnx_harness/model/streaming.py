"""A model whose large weights stay in its external data while a transform changes it.

Protobuf gives memory back only with the whole message: a transform that makes smaller weights of
larger ones holds both, unless it reads those one at a time from where they lie.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import onnx

from onnx_harness.errors import ModelError
from onnx_harness.model.file import Model, external_tensors, least_bytes

_SMALL_BYTES = 1 << 20
"""A smaller tensor is read with the model: transforms look at the numbers of some."""

_folder: ContextVar[Path | None] = ContextVar("folder of external weights", default=None)


def weights_folder() -> Path | None:
    """The folder of the weights that are still external; None where none are."""
    return _folder.get()


@contextlib.contextmanager
def streamed(model: Model) -> Iterator[onnx.ModelProto]:
    """Load a model but for its large external weights, for the length of the block.

    Raises:
        ModelError: as `Model.load`.
    """
    from onnx.external_data_helper import load_external_data_for_tensor

    _ = model.external_files  # they're there, and inside the model's folder
    folder = model.path.parent.resolve()
    try:
        light = onnx.load_model(str(model.path), load_external_data=False)
        for tensor in external_tensors(light):
            if least_bytes(tensor) < _SMALL_BYTES:
                load_external_data_for_tensor(tensor, str(folder))
                _forget_place(tensor)
    except Exception as error:  # protobuf and onnx raise types of their own
        raise ModelError(f"{model.path.name} can't be loaded: {error}") from error
    token = _folder.set(folder)
    try:
        yield light
    finally:
        _folder.reset(token)


def complete(model: onnx.ModelProto) -> None:
    """Read the weights that are external still, in a block of `streamed`; elsewhere do nothing."""
    from onnx.external_data_helper import load_external_data_for_tensor

    folder = weights_folder()
    if folder is None:
        return
    for tensor in external_tensors(model):
        load_external_data_for_tensor(tensor, str(folder))
        _forget_place(tensor)


def _forget_place(tensor: onnx.TensorProto) -> None:
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]
