"""Find what stays float32 by where it comes from and where it goes.

It's positions, timesteps, counts, angles, sizes, indices.

An integer above 2048 isn't a float16, and an angle of 300 is off by 0.1 there: what the cosine
makes of it is wrong, however many digits its readers need. So what is computed from integers stays
float32 up to the operator that bounds it or that brings it together with activations, and so does
what a size, an index or an angle is computed from. All of it is small beside the weights and
activations of a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx

from onnx_harness.model.ops import MOVES
from onnx_harness.transforms.half.constants import constant_behind, few_numbers
from onnx_harness.transforms.half.floors import floor_comparison, floors
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.masks import masks
from onnx_harness.transforms.half.schemas import COMPUTES_EACH, FLOAT, REDUCES
from onnx_harness.transforms.half.steps import Step

_P = onnx.TensorProto
# Those of 8 bits are all float16 numbers.
_WIDE_INTEGERS = frozenset({_P.INT16, _P.UINT16, _P.INT32, _P.UINT32, _P.INT64, _P.UINT64})
_SMALLEST_NORMAL = 2.0**-14
_FLOORED_THROUGH = frozenset({"Add", "Clip", "Div", "Max", "Mul", "Sub"})
_INDICES = frozenset({_P.INT32, _P.INT64, _P.UINT32, _P.UINT64})
_COUNTS = frozenset({"Range", "CumSum"})
# These give one of the numbers that they take, or its sign: in float32 they'd tell no more than in
# float16.
_SELECTS = frozenset(
    {"Abs", "Ceil", "Floor", "Max", "Min", "Neg", "Relu", "Round", "Sign", "Where"}
)
_COMPARES = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_CARRIES = COMPUTES_EACH | REDUCES | MOVES | _COMPARES | {"Pad", "Trilu"}
_BOUNDS = frozenset(
    {"Atan", "Cos", "Erf", "HardSigmoid", "Sigmoid", "Sin", "Softmax", "Softsign", "Tanh"}
)
_PERIODIC = frozenset({"Cos", "Sin", "Tan"})
_PRODUCTS = frozenset({"Einsum", "Gemm", "MatMul"})
# Inputs that are scales, sizes or coordinates.
_COORDINATES = {
    "AffineGrid": (0,),
    "GridSample": (1,),
    "MaxRoiPool": (1,),
    "NonMaxSuppression": (0, 1),
    "Range": (0, 1, 2),
    "Resize": (1, 2),
    "RoiAlign": (1,),
    "Upsample": (1,),
}
_WHOLE = frozenset({"Ceil", "Floor", "Round"})
# What decides an index, and what reads scales in float32 whatever is blocked.
_ALWAYS_EXACT = frozenset({"ArgMax", "ArgMin", "Resize", "Upsample"})
# Without one of these no step has to be exact, but for remainders and what is computed from sizes.
_STARTS = _COUNTS | _PERIODIC | _ALWAYS_EXACT | {*_COORDINATES, "Cast", "Log", "Mod", "TopK"}
_TAKES_INDICES = frozenset(
    {"Gather", "GatherElements", "GatherND", "OneHot", "ScatterElements", "ScatterND"}
)
# A Cast, a Constant and the like are made in the type that their readers want.
_MADE_IN_EITHER = frozenset(
    {"", "Cast", "Constant", "ConstantOfShape", "If", "Loop", "Scan", "SequenceMap"}
)
# What these read are activations: the search for what an index is computed from ends there.
_WEIGHS = frozenset(
    {"Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "LayerNormalization", "MatMul", "RNN"}
)
# Elements of a constant matrix that is worth float32: a router of 64 experts, a mel filter bank,
# the frequencies of random Fourier features. In float32 it takes a quarter of a megabyte.
SMALL_MATRIX = 1 << 16


def exact_steps(
    reading: Reading, blocked_ops: Iterable[str], totals: Iterable[str]
) -> set[Step]:
    """Return the steps that stay float32 for what they compute.

    Args:
        reading: the graphs of the model.
        blocked_ops: operators that stay float32: what Range and CumSum give is a count where they
            do.
        totals: names of integers that are sums of products, and no counts.
    """
    if not _may_need_exact(reading):
        return set()
    return _Exact(reading, frozenset(blocked_ops), frozenset(totals)).steps()


def _may_need_exact(reading: Reading) -> bool:
    """Return whether there's an operator that counts, measures, or needs counts as they are.

    All that follows is found from one of these.
    """
    if reading.has(_STARTS) or ("Sub" in reading.op_types and reading.has(_WHOLE)):
        return True
    return bool(reading.sized) and any(step.sized for step in reading.floating)


class _Exact:
    """Decides which steps compute counts, positions, angles, sizes and indices.

    Attributes:
        counted: names of float32 values that are computed from integers, and perhaps constants.
        fixed: names of what is computed from constants alone.
        stays: the steps that stay float32, but for those that only move values.
        exact_reads: names of what is read in float32 as it was made.
    """

    def __init__(
        self, reading: Reading, blocked_ops: frozenset[str], totals: frozenset[str]
    ) -> None:
        self._reading = reading
        self._types = reading.types
        self._sources = _COUNTS & blocked_ops
        self._reads_exactly = _ALWAYS_EXACT | (
            (_COORDINATES.keys() | {"TopK"}) & blocked_ops
        )
        self._totals = totals
        self._masked: set[str] = set()
        self.counted: set[str] = set()
        self.fixed: set[str] = set(reading.constants)
        self.stays: set[Step] = set()
        self.exact_reads: set[str] = set()

    def steps(self) -> set[Step]:
        """Return the steps that stay float32."""
        ends: list[Step] = []
        angles: list[Step] = []
        logarithms: list[Step] = []
        remainders: list[Step] = []
        for step in self._reading.floating:
            self._follow(step)
            to_index = step.op == "Cast" and self._types[step.outs[0]] in _INDICES
            if to_index or step.op in self._reads_exactly:
                ends.append(step)
            elif step.op in _PERIODIC and step not in self.stays:
                angles.append(step)
            elif step.op == "Log" and self._is_floored(step.ins[0]):
                logarithms.append(step)
            elif self._is_remainder(step):
                self.stays.add(step)
                remainders.append(step)
        if angles:
            self._keep_angles(angles)
        if ends or logarithms or remainders:
            self._keep_ends([*ends, *remainders], logarithms)
        if self.stays or self.exact_reads:
            self._keep_sources()
        return self.stays

    def _floats(self, step: Step) -> list[str]:
        types = self._types
        return [name for name in step.ins if types[name] == FLOAT]

    # From integers on.

    def _follow(self, step: Step) -> None:
        """Note a step that computes from integers or from constants alone."""
        if step.rule is None:
            return
        op, fixed, counted = step.op, self.fixed, self.counted
        if op == "Cast":
            self._follow_cast(step)
        elif step.sized and self._masks(step):
            step.sized = False
            self._masked.update(step.outs)
        elif op in self._sources or step.sized:
            counted.update(name for name in step.outs if self._types[name] == FLOAT)
        elif counted and op in _BOUNDS and step.ins[0] in counted:
            self.stays.add(step)
        elif counted and op in _CARRIES and self._computes_from_counts(step):
            counted.update(step.outs)
            if op not in MOVES:
                self.stays.add(step)
        elif op and step.ins and fixed.issuperset(step.ins):
            fixed.update(step.outs)

    def _follow_cast(self, step: Step) -> None:
        source, result = step.ins[0], step.outs[0]
        if self._types[result] != FLOAT:
            if source in self.counted:
                self.exact_reads.add(source)
        elif source in self.fixed:
            self.fixed.add(result)
        elif self._types[source] in _WIDE_INTEGERS:
            if source not in self._totals:
                self.counted.add(result)
        elif source in self.counted:
            self.counted.add(result)

    def _computes_from_counts(self, step: Step) -> bool:
        counted, fixed = self.counted, self.fixed
        if counted.isdisjoint(step.ins):  # as of nearly every step
            return False
        floats = self._floats(step)
        if counted.isdisjoint(floats) or not all(
            name in counted or name in fixed for name in floats
        ):
            return False
        return not self._masks(step)

    def _masks(self, step: Step) -> bool:
        """Return whether a step makes a mask of the lowest numbers, or moves one."""
        return not self._masked.isdisjoint(step.ins) or masks(self._reading, step)

    # Back from angles, sizes and indices.

    def _keep_angles(self, angles: list[Step]) -> None:
        """Keep sines and cosines of what no weights but a frequency's have touched.

        Inputs, integers and constants.
        """
        near = self.counted | self.fixed
        for name in self._reading.scopes[0].inputs:
            if self._types[name] == FLOAT:
                near.add(name)
        for step in self._reading.floating:
            if step.rule is None:
                continue
            if step.op == "Cast" and self._types[step.outs[0]] == FLOAT:
                if self._types[step.ins[0]] != FLOAT or step.ins[0] in near:
                    near.update(step.outs)
            elif (step.op in _CARRIES or step.op in _PRODUCTS) and near.issuperset(
                self._floats(step)
            ):
                near.update(step.outs)
        for step in angles:
            if near.issuperset(step.ins):
                self.stays.add(step)
                self._keep_back(step.ins, near)

    def _keep_back(self, names: Iterable[str], near: set[str]) -> None:
        """Keep what makes those values of others ``near``."""
        todo = list(names)
        while todo:
            name = todo.pop()
            maker = self._reading.makers.get(name)
            if name not in near or not isinstance(maker, Step) or maker in self.stays:
                continue
            self.exact_reads.add(name)
            if maker.op in _CARRIES or maker.op in _PRODUCTS:
                if maker.op not in MOVES:
                    self.stays.add(maker)
                todo += self._floats(maker)

    def _keep_ends(self, ends: list[Step], logarithms: list[Step]) -> None:
        """Keep what coordinates, indices and logarithms come from.

        It's kept back to the operators that weigh activations.
        """
        weighed = set()
        for step in self._reading.floating:
            if step.op in _WEIGHS:
                weighed.update(step.ins)
        indices: set[str] = set()
        if any(step.op in ("ArgMax", "ArgMin") for step in ends):
            indices = self._indices()
        for step in ends:
            if step.op in ("Cast", "Mod", "Sub"):
                self._keep_elementwise(step.ins, weighed, chosen=False)
            elif step.op in _COORDINATES:
                places = _COORDINATES[step.op]
                names = [name for place, name in enumerate(step.ins) if place in places]
                self._keep_elementwise(names, weighed, chosen=False)
            elif step.op == "TopK":
                self._keep_elementwise(step.ins[:1], weighed, chosen=True)
            elif step.outs[0] in indices and self._keep_elementwise(
                step.ins[:1], weighed, chosen=True
            ):
                self.stays.add(step)
        for step in logarithms:
            self.stays.add(step)
            self._keep_elementwise(step.ins, weighed, chosen=True, deep=True)

    def _keep_elementwise(
        self, names: Iterable[str], weighed: set[str], *, chosen: bool, deep: bool = False
    ) -> bool:
        """Keep what computes those values element by element; whether there was anything.

        Args:
            names: of the values.
            weighed: names of activations, where the search ends.
            chosen: a choice is made by them: a small matrix product, as a router's, decides it as
                well.
            deep: what goes into that product, as a spectrum does into a mel filter bank, is no less
                delicate.
        """
        todo = [name for name in names if self._types[name] == FLOAT]
        some = False
        while todo:
            name = todo.pop()
            maker = self._reading.makers.get(name)
            if not isinstance(maker, Step) or maker.rule is None or name in weighed:
                continue
            if maker in self.stays:
                some = True
            elif maker.op in MOVES or (maker.op in _SELECTS and not deep):
                self.exact_reads.add(name)
                todo += self._floats(maker)
            elif maker.op in _CARRIES or maker.op in _BOUNDS:
                some = True
                self.stays.add(maker)
                self.exact_reads.add(name)
                todo += self._floats(maker)
                comparison = floor_comparison(self._reading, maker)
                if comparison is not None:
                    self.stays.add(comparison)
            elif chosen and maker.op in ("Gemm", "MatMul") and self._is_small(maker):
                some = True
                self.stays.add(maker)
                if deep:
                    todo += self._floats(maker)
                    weighed = weighed.difference(maker.ins)
        return some

    def _is_floored(self, name: str, depth: int = 3) -> bool:
        """Decide whether a number that float16 holds badly keeps a value above zero."""
        maker = self._reading.makers.get(name)
        if not isinstance(maker, Step) or not depth:
            return False
        numbers = floors(self._reading, maker)
        is_floor = bool(numbers)
        if maker.op in ("Add", "Clip", "Max"):
            for source in maker.ins[-2:]:
                numbers += few_numbers(self._reading, source)
            for attribute in maker.node.attribute:
                if attribute.name == "min":
                    numbers.append(attribute.f)
        if any(0 < number < _SMALLEST_NORMAL for number in numbers):
            return True
        if maker.op not in _FLOORED_THROUGH and maker.op not in MOVES and not is_floor:
            return False
        return any(self._is_floored(source, depth - 1) for source in self._floats(maker))

    def _is_remainder(self, step: Step) -> bool:
        """Return whether a step gives what is left of a number beside a whole one.

        The digits that the whole number takes are those that float16 doesn't have.
        """
        if step.op == "Mod":
            return self._types[step.outs[0]] == FLOAT
        if step.op != "Sub":
            return False
        maker = self._reading.makers.get(step.ins[1])
        return isinstance(maker, Step) and maker.op in _WHOLE and maker.ins[0] == step.ins[0]

    def _is_small(self, step: Step) -> bool:
        tensors = [constant_behind(self._reading, name) for name in step.ins[:2]]
        constants = (tensor for tensor in tensors if tensor is not None)
        return any(math.prod(tensor.dims) <= SMALL_MATRIX for tensor in constants)

    def _indices(self) -> set[str]:
        """Return the names of integers that are used as indices."""
        indices: set[str] = set()
        for scope in reversed(self._reading.scopes):
            for step in reversed(scope.steps):
                if step.op in _TAKES_INDICES:
                    indices.update(step.ins[1:2] if step.op != "OneHot" else step.ins[:1])
                elif not indices.isdisjoint(step.outs):
                    indices.update(step.ins)
        return indices

    # What they read.

    def _keep_sources(self) -> None:
        """Keep what computes the constants and counts that are read by what stays.

        What moves them is kept, too.
        """
        reads, exact = self.exact_reads, self._made_exactly()
        for step in reversed(self._reading.floating):
            if step in self.stays:
                reads.update(self._floats(step))
            elif (
                step.op not in _MADE_IN_EITHER
                and not reads.isdisjoint(step.outs)
                and exact.issuperset(step.outs)
            ):
                reads.update(self._floats(step))
                self.stays.add(step)

    def _made_exactly(self) -> set[str]:
        """Return the names of values that are made exactly.

        They're constants, counts, inputs, what the steps that stay give, and what is moved of
        these.
        """
        exact = self.counted | self.fixed | set(self._reading.scopes[0].inputs)
        for step in self._reading.floating:
            moves = step.op in MOVES or step.op in _SELECTS
            if step in self.stays or (moves and not exact.isdisjoint(self._floats(step))):
                exact.update(step.outs)
        return exact
