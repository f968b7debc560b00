"""One model's weights for several graphs: written once where they're large, and never copied for a graph."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
from onnx import TensorProto

from onnx_harness.model.graph import copy_fields

# Below this a model is copied, which is quicker than a file.
_LARGE = 1 << 26
_WEIGHT = 1 << 12
_WEIGHTS = "source.weights"
_INLINE_BYTES = 1_500_000_000


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
        self._skeleton = self._externalized(model) if self.external else model

    def copy(self) -> onnx.ModelProto:
        """Return the model anew, to be changed; large weights stay in their file."""
        model = onnx.ModelProto()
        model.CopyFrom(self._skeleton)
        return model

    def openable(self, model: onnx.ModelProto) -> Path | bytes:
        """Return what a session opens: a graph made of :meth:`copy`."""
        if not self.external:
            return model.SerializeToString()
        return self._save(model, external=False)

    def saved(self, model: onnx.ModelProto) -> Path:
        """Save a model that holds its weights itself; it may be changed."""
        size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
        return self._save(model, external=size > _INLINE_BYTES)

    def _save(self, model: onnx.ModelProto, *, external: bool) -> Path:
        self._count += 1
        file = self.folder / f"{self._count}.onnx"
        if external:
            onnx.save_model(model, str(file), save_as_external_data=True, location=f"{self._count}.weights")
        else:
            file.write_bytes(model.SerializeToString())
        return file

    def _externalized(self, model: onnx.ModelProto) -> onnx.ModelProto:
        light = onnx.ModelProto()
        copy_fields(model, light, but="graph")
        copy_fields(model.graph, light.graph, but="initializer")
        with (self.folder / _WEIGHTS).open("wb") as file:
            for tensor in model.graph.initializer:
                twin = light.graph.initializer.add()
                if tensor.data_location == TensorProto.EXTERNAL or len(tensor.raw_data) < _WEIGHT:
                    twin.CopyFrom(tensor)
                    continue
                copy_fields(tensor, twin, but="raw_data")
                file.seek(64 * math.ceil(file.tell() / 64))
                twin.data_location = TensorProto.EXTERNAL
                entries = {"location": _WEIGHTS, "offset": file.tell(), "length": len(tensor.raw_data)}
                for key, value in entries.items():
                    twin.external_data.add(key=key, value=str(value))
                file.write(tensor.raw_data)
        return light
