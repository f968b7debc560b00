"""Find exponentials whose logarithm or share is taken, which stay float32 up to there.

An exponential is beyond float16 above 11, though the logarithm of a sum of them (a softplus, a
log-sum-exp) or their share of it (a softmax, a tanh) is as small as what they were taken of. Where
the greatest was subtracted before, none is above 1, and float16 does.
"""

from __future__ import annotations

from onnx_harness.model.ops import MOVES
from onnx_harness.transforms.half.constants import constant_behind
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.schemas import FLOAT
from onnx_harness.transforms.half.steps import Step

_SUMS = frozenset({"Add", "Clip", "Max", "Mul", "ReduceSum", "Sub", "Sum"}) | MOVES
_GREATEST = frozenset({"Max", "ReduceMax"})
# What these give is never negative.
_POSITIVE = frozenset(
    {"Abs", "Exp", "ReduceL2", "ReduceSumSquare", "Relu", "Softplus", "Sqrt"}
)


def exponential_quotients(reading: Reading) -> set[Step]:
    """Return the exponentials whose sum a logarithm or a quotient of two sums takes, up to there.

    Args:
        reading: the graphs of the model.
    """
    sums: set[str] = set()
    members: list[Step] = []
    ends: list[Step] = []
    for step in reading.floating if "Exp" in reading.op_types else ():
        op = step.op
        if op == "Exp":
            if not _is_bounded(reading, step.ins[0]):
                members.append(step)
                sums.update(step.outs)
        elif not sums:
            continue
        elif op in ("Div", "Log") and sums.issuperset(step.ins):
            ends.append(step)
        elif op in _SUMS and _sums_only(reading, step, sums):
            members.append(step)
            sums.update(step.outs)
    stays = set(ends)
    reads = {name for step in ends for name in step.ins}
    for step in reversed(members if ends else ()):
        if not reads.isdisjoint(step.outs):
            stays.add(step)
            reads.update(step.ins)
    return stays


def _sums_only(reading: Reading, step: Step, sums: set[str]) -> bool:
    """Return whether a step takes nothing but sums of exponentials, and constants."""
    floats = [name for name in step.ins if reading.types[name] == FLOAT]
    if sums.isdisjoint(floats):
        return False
    return all(name in sums or constant_behind(reading, name) is not None for name in floats)


def _is_bounded(reading: Reading, name: str) -> bool:
    """Return whether a value can't be above zero: less its greatest, or the negative of a size."""
    maker = reading.makers.get(name)
    while isinstance(maker, Step) and maker.op in MOVES:
        maker = reading.makers.get(maker.ins[0])
    if not isinstance(maker, Step) or maker.op not in ("Neg", "Sub"):
        return False
    source = reading.makers.get(maker.ins[-1])
    while isinstance(source, Step) and source.op in MOVES:
        source = reading.makers.get(source.ins[0])
    greatest = _GREATEST if maker.op == "Sub" else _POSITIVE
    return isinstance(source, Step) and source.op in greatest
