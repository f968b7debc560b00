"""Keep the inputs that have a default and that no node reads.

PyTorch once listed every initializer as an input, counters of batches among them. Libraries drop
those, and a caller that sets one is refused from then on.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.model.walk import reads


@dataclass(frozen=True, slots=True)
class UnreadDefaults:
    """Inputs with a default that no node reads, each with that default.

    Attributes:
        order: the names of all inputs of the model that has them.
        inputs: what they are.
        defaults: their values, in the order of ``inputs``.
    """

    order: tuple[str, ...]
    inputs: tuple[onnx.ValueInfoProto, ...]
    defaults: tuple[onnx.TensorProto, ...]

    def put_back(self, graph: onnx.GraphProto) -> None:
        """Give a graph those back that it lacks; its inputs keep the model's order."""
        present = {info.name for info in graph.input}
        tensors = {tensor.name for tensor in graph.initializer}
        for info, default in zip(self.inputs, self.defaults, strict=True):
            if info.name in present:
                continue
            graph.input.append(info)
            if info.name not in tensors:
                graph.initializer.append(default)
        places = {name: place for place, name in enumerate(self.order)}
        infos = sorted(graph.input, key=lambda info: places.get(info.name, len(places)))
        graph.ClearField("input")
        graph.input.extend(infos)


def unread_defaults(model: onnx.ModelProto) -> UnreadDefaults | None:
    """Return what of a model's inputs only a caller could miss; None where there's nothing.

    Below IR version 4 an initializer has to be listed, and is no input.
    """
    if model.ir_version < FREE_INITIALIZERS:
        return None
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    read = {info.name for info in model.graph.output}
    for node in model.graph.node:
        read.update(reads(node))
    unread = [
        info for info in model.graph.input if info.name in tensors and info.name not in read
    ]
    if not unread:
        return None
    copies, defaults = [], []
    for info in unread:
        copy, default = onnx.ValueInfoProto(), onnx.TensorProto()
        copy.CopyFrom(info)
        default.CopyFrom(tensors[info.name])
        copies.append(copy)
        defaults.append(default)
    order = tuple(info.name for info in model.graph.input)
    return UnreadDefaults(order, tuple(copies), tuple(defaults))
