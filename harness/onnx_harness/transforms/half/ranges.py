"""Find what stays float32 for the range of its numbers.

It's squares, their roots, floors below float16.

A square overflows above 255 and vanishes below 2.4e-4, though the root of it, or what is divided by
the root, is as large as what was squared. So a norm and what it normalizes stay float32. A layer
normalization as it's spelt, over centred values, doesn't: ONNX Runtime fuses it to one operator,
which computes in float32 inside.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from onnx_harness.model.ops import MOVES
from onnx_harness.transforms.half.constants import constant_behind, few_numbers
from onnx_harness.transforms.half.floors import floor_comparison
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.schemas import FLOAT
from onnx_harness.transforms.half.steps import Step

_SUMS_SQUARES = frozenset({"ReduceL2", "ReduceSumSquare"})
_SQUARES = _SUMS_SQUARES | {"Pow"}
_AVERAGES = frozenset({"GlobalAveragePool", "ReduceMean"})
_ADDS_UP = frozenset(
    {"Add", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "Sum"}
)
# From a square to the sum of its neighbours lie these, as in a response normalization.
_SPREADS = MOVES | {"Pad"}
# How many operators a constant exponent may be computed by.
_DEPTH = 3
_TO_A_ROOT = frozenset({"Abs", "Add", "Clip", "Div", "Max", "Mul", "Reciprocal"}) | MOVES
_ROOTS = frozenset({"Pow", "Sqrt"})


class Squares:
    """The squares of a model, and what is made of them.

    Attributes:
        stays: the steps that stay float32.
        variances: the steps that subtract the square of a mean from the mean of squares.
    """

    def __init__(self, reading: Reading) -> None:
        """Look through the graphs of a model.

        Args:
            reading: the graphs.
        """
        self._reading = reading
        # Of squares, and what is computed of them and constants.
        self._sums: set[str] = set()
        self._rooted: set[str] = set()
        self._members: set[Step] = set()
        self._ends: set[Step] = set()
        self.variances: list[Step] = []
        for step in reading.floating if _may_square(reading) else ():
            self._follow(step)
        self.stays = self._keep_back() if self._ends else set()

    def _follow(self, step: Step) -> None:
        op = step.op
        if op in _SUMS_SQUARES:
            self._enter(step, rooted=op == "ReduceL2")
        elif op in _ADDS_UP:
            self._follow_sum(step)
        elif self._sums:
            if op == "Sub":
                if self._is_variance(step):
                    self.variances.append(step)
            elif op in _TO_A_ROOT or op in _ROOTS:
                self._follow_root(step)
            elif op == "Where":
                comparison = floor_comparison(self._reading, step)
                if comparison is not None:
                    self._members.add(comparison)
                    self._follow_root(step)

    def _enter(self, step: Step, *, rooted: bool) -> None:
        self._members.add(step)
        self._sums.update(step.outs)
        if rooted:
            self._rooted.update(step.outs)
            self._ends.add(step)

    def _follow_sum(self, step: Step) -> None:
        """Enter a sum whose terms are all squares of what isn't centred.

        A sum of a norm and an epsilon goes on.
        """
        terms = self._floats(step)
        squares = [self._square(name) for name in terms]
        if terms and all(square is not None for square in squares):
            for square in squares:
                self._members.update(square or ())
            self._enter(step, rooted=False)
        elif self._sums and step.op == "Add":
            self._follow_root(step)

    def _follow_root(self, step: Step) -> None:
        floats = self._floats(step)
        of_sums = [name for name in floats if name in self._sums]
        if not of_sums:
            return
        if all(name in self._sums or self._is_constant(name) for name in floats):
            self._enter(
                step, rooted=step.op in _ROOTS or not self._rooted.isdisjoint(of_sums)
            )
        elif (step.op == "Mul" and not self._rooted.isdisjoint(of_sums)) or (
            step.op == "Div" and step.ins[1] in self._rooted
        ):
            self._members.add(step)
            self._ends.add(step)

    def _keep_back(self) -> set[Step]:
        """Return what normalizes or takes a root, and all from the squares to there."""
        stays: set[Step] = set()
        reads: set[str] = set()
        for step in reversed(self._reading.floating):
            if step in self._ends or (
                step in self._members and not reads.isdisjoint(step.outs)
            ):
                stays.add(step)
                reads.update(step.ins)
        return stays

    def _floats(self, step: Step) -> list[str]:
        return [name for name in step.ins if self._reading.types[name] == FLOAT]

    def _is_constant(self, name: str, depth: int = _DEPTH) -> bool:
        if constant_behind(self._reading, name) is not None:
            return True
        maker = self._reading.makers.get(name)
        if not isinstance(maker, Step) or not depth or not maker.ins:
            return False
        return all(self._is_constant(source, depth - 1) for source in maker.ins)

    def _maker(self, name: str) -> Step | None:
        """The step that computes a value, before what only moves it."""
        maker = self._reading.makers.get(name)
        while isinstance(maker, Step) and maker.op in MOVES:
            maker = self._reading.makers.get(maker.ins[0])
        return maker if isinstance(maker, Step) else None

    def _square(self, name: str) -> list[Step] | None:
        """The step that squares what isn't centred to give a value, and what moves that.

        None where there's no such step.
        """
        maker = self._reading.makers.get(name)
        steps = []
        while isinstance(maker, Step) and maker.op in _SPREADS:
            steps.append(maker)
            maker = self._reading.makers.get(maker.ins[0])
        if not isinstance(maker, Step) or not self._squares(maker):
            return None
        base = self._maker(maker.ins[0])
        if base is not None and base.op == "Sub":
            means = (self._maker(side) for side in base.ins)
            if any(mean is not None and mean.op in _AVERAGES for mean in means):
                return None
        return [*steps, maker]

    def _squares(self, step: Step) -> bool:
        """Return whether a step gives squares, or powers as large."""
        if step.op == "Mul":
            return step.ins[0] == step.ins[1]
        if step.op != "Pow":
            return False
        exponents = few_numbers(self._reading, step.ins[1])
        return bool(exponents) and min(exponents) > 1

    def _is_variance(self, step: Step) -> bool:
        first, second = (self._maker(name) for name in step.ins)
        if (
            first is None
            or second is None
            or step.ins[0] not in self._sums
            or not self._squares(second)
        ):
            return False
        mean = self._maker(second.ins[0])
        return mean is not None and mean.op in _AVERAGES


def _may_square(reading: Reading) -> bool:
    """Return whether there's an operator of a model that squares."""
    if reading.has(_SQUARES):
        return True
    return any(step.ins[:1] == step.ins[1:] for step in reading.floating_of({"Mul"}))


def variance_notes(steps: list[Step]) -> Iterator[str]:
    """Yield a sentence for each variance that is the difference of squares.

    The tensor, the node and the mend.
    """
    for step in steps:
        node: onnx.NodeProto = step.node
        mend = (
            f"node_block_list=['{node.name}'] and those of what it reads"
            if node.name
            else "op_block_list"
        )
        named = f" '{node.name}'" if node.name else ""
        yield (
            f"'{step.outs[0]}' (Sub{named}) is a variance spelt as a difference of squares, which "
            f"cancel in float16 "
            f"where the mean is large beside the deviation; to keep it: {mend}"
        )
