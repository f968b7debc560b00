"""Input shapes that the user knows better than the model says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx

from onnx_harness.errors import did_you_mean


@contextmanager
def overwritten(
    model: onnx.ModelProto, shapes: Sequence[tuple[str, tuple[int, ...]]], for_good: bool = False
) -> Iterator[None]:
    """Let inputs of the model have these shapes: until the end of the block, or, if nothing is raised in it, for good.

    Raises:
        ValueError: a shape is of no input, or of another rank than declared.
    """
    inputs = {info.name: info for info in model.graph.input}
    before = {name: onnx.TypeProto() for name, _ in shapes if name in inputs}
    for name, kept in before.items():
        kept.CopyFrom(inputs[name].type)
    done = False
    try:
        for name, dims in shapes:
            _overwrite(inputs, name, dims)
        yield
        done = for_good
    finally:
        for name, kept in before.items() if not done else ():
            inputs[name].type.CopyFrom(kept)


def _overwrite(inputs: dict[str, onnx.ValueInfoProto], name: str, dims: tuple[int, ...]) -> None:
    if name not in inputs:
        raise ValueError(
            f"overwrite_input_shapes names {name!r}, which is no input of the model.{did_you_mean(name, list(inputs))}"
        )
    kind = inputs[name].type
    if kind.WhichOneof("value") != "tensor_type":
        raise ValueError(f"overwrite_input_shapes names {name!r}, which is no tensor")
    if kind.tensor_type.HasField("shape") and len(kind.tensor_type.shape.dim) != len(dims):
        rank = len(kind.tensor_type.shape.dim)
        raise ValueError(f"overwrite_input_shapes gives {name!r} {len(dims)} dimensions; the model says {rank}")
    kind.tensor_type.shape.Clear()
    for size in dims:
        kind.tensor_type.shape.dim.add().dim_value = size
