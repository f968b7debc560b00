"""Input shapes that the user knows better than the model says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx

from onnx_harness.errors import did_you_mean
from onnx_harness.model.graph import Editing, all_graphs, open_model
from onnx_harness.model.types import Fact, infer


@contextmanager
def overwritten(
    model: onnx.ModelProto,
    shapes: Sequence[tuple[str, tuple[int, ...]]],
    for_good: bool = False,
) -> Iterator[None]:
    """Let inputs of the model have these shapes.

    Until the end of the block, or, if nothing is raised in it, for good.

    Its outputs are declared with what follows from them.

    Raises:
        ValueError: a shape is of no input, or of another rank than declared.
    """
    inputs = {info.name: info for info in model.graph.input}
    changed = [
        *(inputs[name] for name, _ in shapes if name in inputs),
        *(model.graph.output if shapes else ()),
    ]
    before = [onnx.TypeProto.FromString(info.type.SerializeToString()) for info in changed]
    done = False
    try:
        for name, dims in shapes:
            _overwrite(inputs, name, dims)
        if shapes:
            _declare_outputs(model)
        yield
        done = for_good
    finally:
        for info, kind in zip(changed, before, strict=True) if not done else ():
            info.type.CopyFrom(kind)


def forget_shapes(editing: Editing) -> None:
    """Drop the declared shapes of what is computed: they belong to the inputs' old ones."""
    for graph in all_graphs(editing.graph):
        values = []
        for node in graph:
            for value in node.outputs:
                values.append(value)
        for value in values if graph is editing.graph else [*values, *graph.inputs]:
            value.shape = None


def _declare_outputs(model: onnx.ModelProto) -> None:
    """Declare the dimensions of outputs that are known.

    A size that doesn't follow from the inputs may be false now.
    """
    facts: Mapping[str, Fact] = infer(open_model(model))
    for info in model.graph.output:
        tensor = info.type.tensor_type
        fact = facts.get(info.name)
        if info.type.WhichOneof("value") != "tensor_type" or not tensor.HasField("shape"):
            continue
        if fact is None or fact.shape is None:
            sizes: tuple[int | None, ...] = (None,) * len(tensor.shape.dim)
        else:
            sizes = fact.shape
        if len(sizes) != len(tensor.shape.dim):
            tensor.shape.Clear()
            for _ in sizes:
                tensor.shape.dim.add()
        for dim, size in zip(tensor.shape.dim, sizes, strict=True):
            if size is not None:
                dim.dim_value = size
            elif dim.HasField("dim_value"):
                dim.Clear()


def _overwrite(
    inputs: dict[str, onnx.ValueInfoProto], name: str, dims: tuple[int, ...]
) -> None:
    if name not in inputs:
        raise ValueError(
            f"overwrite_input_shapes names {name!r}, which is no input of the "
            f"model.{did_you_mean(name, list(inputs))}"
        )
    kind = inputs[name].type
    if kind.WhichOneof("value") != "tensor_type":
        raise ValueError(f"overwrite_input_shapes names {name!r}, which is no tensor")
    if kind.tensor_type.HasField("shape") and len(kind.tensor_type.shape.dim) != len(dims):
        rank = len(kind.tensor_type.shape.dim)
        raise ValueError(
            f"overwrite_input_shapes gives {name!r} {len(dims)} dimensions; the model says {rank}"
        )
    kind.tensor_type.shape.Clear()
    for size in dims:
        kind.tensor_type.shape.dim.add().dim_value = size
