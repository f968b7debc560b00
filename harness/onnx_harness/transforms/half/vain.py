"""Refuse a conversion that leaves nearly all float32 weights as they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping

from onnx_harness.errors import NotApplicable
from onnx_harness.model.ops import MOVES
from onnx_harness.transforms import remark
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.requests import label
from onnx_harness.transforms.half.schemas import FLOAT
from onnx_harness.transforms.half.steps import Step
from onnx_harness.transforms.half.weights import Rounder

# A model of fewer elements has no weights to speak of: what it computes is all that can be
# converted.
_WEIGHTS = 1 << 10
LEAST_SHARE = 0.1
_NAMED_READERS = 3


def refuse_vain(reading: Reading, rounder: Rounder, blocked_nodes: Collection[str]) -> None:
    """Refuse a conversion that leaves nine tenths of the float32 weights as they are.

    A pass would say nothing. Weights that only the nodes of ``node_block_list`` read don't count:
    their caller asked for these one by one, or a search found that they have to stay. Then a remark
    says how few weights are converted.

    Args:
        reading: the model, rewritten.
        rounder: holds the weights that will be converted.
        blocked_nodes: the list.

    Raises:
        NotApplicable: fewer than a tenth of the weights that count would be converted.
    """
    tensors = []
    for tensor in reading.initializers.values():
        if tensor.data_type == FLOAT:
            tensors.append(tensor)
    tensors += [step.tensor for step in reading.floating if step.tensor is not None]
    total = sum(math.prod(tensor.dims) for tensor in tensors)
    if total < _WEIGHTS:
        return
    waiting = rounder.waiting
    if waiting >= LEAST_SHARE * total:
        return
    left = _left_float32(reading, rounder)
    readers = _readers(reading, left)
    counted = total
    for name in left if blocked_nodes else ():
        if _only_for(name, readers, blocked_nodes):
            counted -= left[name]
    if counted < _WEIGHTS or waiting >= LEAST_SHARE * counted:
        remark(
            f"{waiting / total:.0%} of the float32 weights are converted: the nodes in "
            f"node_block_list keep the others"
        )
        return
    operators: Counter[str] = Counter()
    for name in left:
        operators.update(step.node.op_type for step in readers.get(name, ()))
    which = ", ".join(name for name, _ in operators.most_common(_NAMED_READERS))
    raise NotApplicable(
        f"{waiting / counted:.0%} of the float32 weights would be converted, which says nothing of "
        f"the others: they stay float32 for {which or 'nobody'}"
    )


def _left_float32(reading: Reading, rounder: Rounder) -> dict[str, int]:
    """Return the number of elements of each constant that isn't converted, by its name."""
    rounded = rounder.sources
    sizes = {}
    for name, tensor in reading.initializers.items():
        if tensor.data_type == FLOAT and id(tensor) not in rounded:
            sizes[name] = math.prod(tensor.dims)
    for step in reading.floating:
        if step.tensor is not None and id(step.tensor) not in rounded:
            sizes[step.outs[0]] = math.prod(step.tensor.dims)
    return sizes


def _readers(reading: Reading, left: Mapping[str, int]) -> dict[str, list[Step]]:
    """Return the steps that read each value which is a weight, or a weight that was moved."""
    followed = set(left)
    readers: dict[str, list[Step]] = {}
    for step in reading.floating:
        for name in followed.intersection(step.ins):
            readers.setdefault(name, []).append(step)
            if step.op in MOVES:
                followed.update(step.outs)
    return readers


def _only_for(
    name: str, readers: Mapping[str, list[Step]], blocked_nodes: Collection[str]
) -> bool:
    """Return whether all that read a value, moved or not, are nodes of the list."""
    steps = readers.get(name, ())
    for step in steps:
        if label(step.node) in blocked_nodes:
            continue
        if step.op not in MOVES:
            return False
        if not all(_only_for(moved, readers, blocked_nodes) for moved in step.outs):
            return False
    return bool(steps)
