"""Find sums of more terms than float16 can count, however they're spelt."""

from __future__ import annotations

import math

import onnx

from onnx_harness.transforms.half.constants import constant_behind, few_numbers
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.steps import Step
from onnx_harness.transforms.half.weights import Rounder

# Float16 tells 2048 steps apart: a sum of more terms loses those that are added last where it's
# kept in float16, and a few times more terms bring it near to 65504.
_MANY_TERMS = 4096
# Elements of a constant whose numbers are read, 4 MB: weights of large models are larger, and
# reading all of theirs would take as long as rounding them.
_READ = 1 << 20
_SUMS = frozenset(
    {"ReduceL1", "ReduceLogSum", "ReduceLogSumExp", "ReduceSum", "ReduceSumSquare"}
)


def long_sums(reading: Reading, rounder: Rounder) -> set[Step]:
    """Return the sums of more than 4,096 terms, as far as the model says how many they have.

    A product with a constant matrix of ones is a sum as well, by MatMul or by Einsum, and so is an
    Einsum of one value that leaves an axis out.

    Args:
        reading: the graphs of the model.
        rounder: knows the numbers of constants.
    """
    sums = reading.floating_of(_SUMS)
    steps = {step for step in sums if _terms(reading, step) > _MANY_TERMS}
    for step in reading.floating_of({"MatMul"}):
        if any(_adds_rows(reading, step, place, rounder) for place in (0, 1)):
            steps.add(step)
    for step in reading.floating_of({"Einsum"}):
        if _einsum_terms(reading, step, rounder) > _MANY_TERMS:
            steps.add(step)
    return steps


def _adds_rows(reading: Reading, step: Step, place: int, rounder: Rounder) -> bool:
    """Return whether a MatMul sums many rows or columns, as its input at a place is all ones."""
    ones = constant_behind(reading, step.ins[place])
    if ones is None or max(ones.dims, default=0) <= _MANY_TERMS:
        return False
    dims = reading.stated_dims(step.ins[place]) or list(ones.dims)
    inner = dims[-1] if place == 0 or len(dims) == 1 else dims[-2]
    return inner is not None and inner > _MANY_TERMS and _is_ones(ones, rounder)


def _einsum_terms(reading: Reading, step: Step, rounder: Rounder) -> int:
    """Return how many terms an Einsum adds up to one; 0 where it multiplies values."""
    equations = [attribute.s.decode() for attribute in step.node.attribute]
    inputs, arrow, result = equations[0].replace(" ", "").partition("->")
    letters = inputs.split(",")
    if not arrow or "." in inputs or len(letters) != len(step.ins):
        return 0
    constants = [constant_behind(reading, name) for name in step.ins]
    if constants.count(None) != 1:
        return 0
    sizes: dict[str, int] = {}
    for name, axes in zip(step.ins, letters, strict=True):
        dims = reading.stated_dims(name) or []
        for axis, size in zip(axes, dims, strict=False):
            if size is not None and axis not in result:
                sizes[axis] = size
    terms = math.prod(sizes.values()) if sizes else 0
    if terms <= _MANY_TERMS:
        return 0
    all_ones = all(_is_ones(tensor, rounder) for tensor in constants if tensor is not None)
    return terms if all_ones else 0


def _is_ones(tensor: onnx.TensorProto, rounder: Rounder) -> bool:
    return math.prod(tensor.dims) <= _READ and rounder.is_ones(tensor)


def _terms(reading: Reading, step: Step) -> int:
    """Return how many terms a reduction adds up to one; 0 where the model doesn't say."""
    dims = reading.stated_dims(step.ins[0])
    if dims is None:
        return 0
    axes = []
    for attribute in step.node.attribute:
        if attribute.name == "axes":
            axes.append(list(attribute.ints))
    if not axes and len(step.ins) > 1 and step.ins[1]:
        axes = [[int(axis) for axis in few_numbers(reading, step.ins[1])]]
        if not axes[0]:
            return 0
    reduced = [dims[axis] for axis in axes[0]] if axes else dims
    return 0 if None in reduced else math.prod(size for size in reduced if size is not None)
