"""Weights rounded to float16 when they are written, and the account of what the clamp did to them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from harness.transforms.float16 import Clamped, clamp

# Below this many elements there is little memory to save by waiting.
_SMALL = 1 << 14
# A note that lists every tensor of a large model would be read by nobody.
_NAMED = 5


class Rounder:
    """Rounds tensors to float16 between two limits, and remembers which it clamped."""

    def __init__(self, min_positive_val: float, max_finite_val: float) -> None:
        """Take the limits of `harness.transforms.float16.clamp`."""
        self._limits = min_positive_val, max_finite_val
        self._clamped: dict[str, Clamped] = {}

    @property
    def largest(self) -> float:
        """The largest finite magnitude that passes unchanged."""
        return self._limits[1]

    def rounded(self, tensor: ir.TensorProtocol, name: str, wait: bool = True) -> ir.TensorProtocol:
        """The tensor in float16; a large one is made when it is asked for, and until then only its source takes memory.

        Args:
            tensor: of any float type.
            name: of what the account calls it.
            wait: whether it may be made later. In an attribute it would be made again each time that onnx-ir looks
                whether it is a tensor.
        """

        def make() -> ir.TensorProtocol:
            result = clamp(tensor.numpy(), *self._limits)
            if result.raised or result.lowered:
                # The numbers alone: the array would stay in memory as long as the account.
                self._clamped[name] = Clamped(
                    np.empty(0, np.float16), result.raised, result.lowered, result.smallest, result.largest
                )
            if isinstance(tensor, ir.ExternalTensor):
                tensor.release()  # its pages would count as ours
            return ir.Tensor(result.array, name=tensor.name)

        if not wait or tensor.size <= _SMALL:
            return make()
        return ir.LazyTensor(make, ir.DataType.FLOAT16, ir.Shape(tensor.shape.numpy()), name=tensor.name)

    def remarks(self) -> Iterator[str]:
        """What was clamped, a sentence each: the tensors that lost most, the others summed up."""
        low, high = self._limits
        clipped = sorted(
            ((each.lowered, name, each.largest or 0.0) for name, each in self._clamped.items() if each.lowered),
            key=lambda each: (-each[0], each[1]),
        )
        for count, name, largest in clipped[:_NAMED]:
            yield f"{_weights(count)} of '{name}' {_were(count)} clipped at {high:g}; the largest was {largest:.4g}"
        rest = clipped[_NAMED:]
        if rest:
            count, largest = sum(each[0] for each in rest), max(each[2] for each in rest)
            yield (
                f"{_weights(count)} of {len(rest)} more tensors {_were(count)} clipped at {high:g}; "
                f"the largest was {largest:.4g}"
            )
        raised = [each for each in self._clamped.values() if each.raised]
        if raised:
            count, smallest = sum(each.raised for each in raised), min(each.smallest or low for each in raised)
            tensors = f"{len(raised)} tensor{'s' * (len(raised) > 1)}"
            yield f"{_weights(count)} of {tensors} {_were(count)} raised to {low:g}; the smallest was {smallest:.4g}"


def _weights(count: int) -> str:
    return f"{count:,} weight{'s' * (count != 1)}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
