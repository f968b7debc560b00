"""Models and inputs that a caller has in memory, as files for the worker process."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness.errors import InputError

if TYPE_CHECKING:
    import onnx

    ModelLike = str | os.PathLike[str] | onnx.ModelProto
    InputsLike = str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]]

_INLINE_BYTES = 1_500_000_000  # protobuf holds at most 2 GiB in a file


@contextlib.contextmanager
def files_of(
    model: ModelLike, inputs: InputsLike | None, within: Path | None = None
) -> Iterator[tuple[Path, Path | None]]:
    """Yield the files that a worker process reads: the model's, and that of the given inputs.

    Args:
        model: a file, or a model in memory.
        inputs: a file, or values in memory.
        within: a folder that the worker reads already, for what is in memory.
    """
    with tempfile.TemporaryDirectory(prefix="onnx-harness-", dir=within) as scratch:
        folder = Path(scratch)
        yield (
            _model_file(model, folder),
            None if inputs is None else _inputs_file(inputs, folder),
        )


def _model_file(model: ModelLike, folder: Path) -> Path:
    if isinstance(model, str | os.PathLike):
        return Path(model)
    from onnx_harness.model.saving import save

    file = folder / "model.onnx"
    save(model, file)
    return file


def _inputs_file(inputs: InputsLike, folder: Path) -> Path:
    if isinstance(inputs, str | os.PathLike):
        file = Path(inputs)
        if not file.is_file():
            raise InputError(f"there is no file {file}")
        return file
    import numpy as np

    from onnx_harness.inputs.recorded.npz import save_npz
    from onnx_harness.inputs.values.sets import InputSet

    groups = [inputs] if isinstance(inputs, Mapping) else list(inputs)
    sets = []
    for number, group in enumerate(groups):
        values = {}
        for name, value in group.items():
            values[name] = value if _is_sequence(value) else np.asarray(value)
        sets.append(InputSet(f"given {number}", values))
    file = folder / "inputs.npz"
    save_npz(file, sets)
    return file


def _is_sequence(value: Any) -> bool:
    """Return whether a value is for an input that takes a sequence of tensors.

    A list of numbers is one tensor.
    """
    import numpy as np

    return isinstance(value, list) and all(isinstance(item, np.ndarray) for item in value)
