"""Find sums that are scaled to a mean at once."""

from __future__ import annotations

import onnx

from onnx_harness.transforms.half.constants import constant_behind
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.schemas import SCATTERS
from onnx_harness.transforms.half.steps import Step

_ADDS_UP = SCATTERS | {"ReduceSum"}


def means(reading: Reading, long_sums: set[Step]) -> set[Step]:
    """Sums that are scaled to a mean at once, and what scales them.

    The sum overflows in float16, not the mean.
    """
    sums = {step.outs[0]: step for step in long_sums}
    for step in reading.floating_of(_ADDS_UP):
        if step.op == "ReduceSum" or reduces(step.node):
            sums[step.outs[0]] = step
    readers: dict[str, list[tuple[Step, int]]] = {name: [] for name in sums}
    for step in reading.floating if sums else ():
        for index, name in enumerate(step.ins):
            if name in sums:
                readers[name].append((step, index))
    once = ((sums[name], *reader[0]) for name, reader in readers.items() if len(reader) == 1)
    scaled: set[Step] = set()
    for made, reader, index in once:
        if _scales(reading, reader, index):
            for step in (made, reader):
                scaled.add(step)
    return scaled


def _scales(reading: Reading, step: Step, index: int) -> bool:
    """Return whether a node divides its input at ``index``, or multiplies it by a constant."""
    if step.op == "Div":
        return index == 0
    factor = step.ins[1 - index] if step.op == "Mul" else ""
    return bool(factor) and (
        factor in reading.defaults or constant_behind(reading, factor) is not None
    )


def reduces(node: onnx.NodeProto) -> bool:
    """Return whether a scatter adds to what is there, or the like."""
    reductions = (
        attribute.s for attribute in node.attribute if attribute.name == "reduction"
    )
    return any(reduction != b"none" for reduction in reductions)
