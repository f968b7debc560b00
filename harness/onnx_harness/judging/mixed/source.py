"""One model's weights for several graphs.

Written once where they're large, and never copied for a graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import onnx

from onnx_harness.model.saving import externalized, save

# Below this a model is copied, which is quicker than a file.
_LARGE = 1 << 26
_WEIGHT = 1 << 12
_SUFFIX = ".weights"
_WEIGHTS = f"source{_SUFFIX}"


class Source:
    """A model, and graphs that are made of it.

    Attributes:
        folder: where large weights lie, and where a graph's file has to.
    """

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        """Write large weights to the folder.

        Args:
            model: it isn't changed.
            folder: empty.
        """
        self.folder = folder
        self._count = 0
        size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
        self.external = size >= _LARGE
        self._skeleton = (
            externalized(model, folder / _WEIGHTS, _WEIGHT) if self.external else model
        )

    def copy(self) -> onnx.ModelProto:
        """Return the model anew, to be changed; large weights stay in their file."""
        model = onnx.ModelProto()
        model.CopyFrom(self._skeleton)
        return model

    def openable(self, model: onnx.ModelProto) -> Path | bytes:
        """Return what a session opens: a graph made of :meth:`copy`."""
        if not self.external:
            return bytes(model.SerializeToString())
        return self.saved(model)

    @contextlib.contextmanager
    def written(self, model: onnx.ModelProto) -> Iterator[Path]:
        """Save a model for the block: a search tries dozens, and each may be gigabytes."""
        file = self.saved(model)
        try:
            yield file
        finally:
            for left_over in (file, file.with_suffix(_SUFFIX)):
                left_over.unlink(missing_ok=True)

    def saved(self, model: onnx.ModelProto) -> Path:
        """Save a model, whether its weights lie in the folder or in itself."""
        self._count += 1
        file = self.folder / f"{self._count}.onnx"
        save(model, file, weights=f"{self._count}{_SUFFIX}")
        return file
