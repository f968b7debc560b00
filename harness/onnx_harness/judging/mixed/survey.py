"""Survey what each node of a float32 model would lose in a half type by itself.

It takes one instrumented run an input set.

Beside every node of the main graph stands its twin, which reads the same values rounded. So a
node's own error is told from the error that it inherits, in the one session that also tells the
range of what it gives and the time it takes. Errors travel: what a subtraction that cancels reads
has to be exact too. So each node is also given the factor by which what follows makes its error
larger.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.judging.mixed.switches import atoms_of, through_moves
from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.transforms.half.plan import Plan
from onnx_harness.transforms.half.schemas import FLOAT
from onnx_harness.transforms.half.steps import Step

FOUND = "onnx_harness_survey"
_PREFIX = "onnx_harness_surveyed"
# What a node makes of one rounding of what it reads, within this factor, is what rounding is about.
_AMPLIFIES = 4.0
# Where an input that rounds to zero makes an infinity, no factor is known: larger than any that is.
_WITHOUT_BOUND = 1e6
_LEAST, _MOST = 1e-6, 1e12
_TINY = 1e-37  # what is all zeros isn't moved
# A node in a body isn't measured. It's looked at after what is suspect, and before what isn't.
_UNMEASURED = 8.0


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A model with one more output, ``FOUND``.

    Four numbers for each value that a node would make in the half type.

    They are the sums of squares of what rounding its inputs moves it by, of what rounding itself
    moves it by, and of its elements; and its greatest magnitude.

    Attributes:
        model: runs in float32.
        values: places of nodes, of which each four numbers tell, in order.
    """

    model: onnx.ModelProto
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NodeSurvey:
    """The survey's knowledge of a node.

    Attributes:
        inherits: the relative L2 error of what it gives where its inputs are rounded; NaN where it
            isn't measured.
        rounds: where what it gives is rounded; infinite where that overflows.
        greatest: the greatest magnitude of what it gives.
        suspicion: how much of the final error may be its own, in roundings: 1 is a node that does
            no more.
        time_share: of the time of all nodes that can be switched.
    """

    inherits: float
    rounds: float
    greatest: float
    suspicion: float
    time_share: float

    @property
    def overflows(self) -> bool:
        """Return whether what it gives is beyond the half type."""
        return math.isinf(self.rounds)


def surveyed(plan: Plan) -> Surveyed:
    """Put twins beside the nodes of the main graph.

    Args:
        plan: the conversion; its model is changed.
    """
    return _Instrument(plan).write()


class _Instrument:
    """Writes the twins and what measures them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._half: dict[str, str] = {}
        self._added: dict[int, list[onnx.NodeProto]] = {}
        self._start: list[onnx.NodeProto] = []
        self._parts: list[str] = []
        self._values: list[int] = []
        self._count = 0
        self._flat = f"{_PREFIX}_flat"

    def write(self) -> Surveyed:
        plan = self._plan
        atoms = atoms_of(plan)
        main = plan.reading.scopes[0]
        for step in main.steps:
            if not step.bodies and plan.label(step) in atoms and plan.converted(step):
                self._twin(step, atoms[plan.label(step)])
        graph = plan.model.graph
        nodes = list(self._start)
        for step in main.steps:
            step.node.name = plan.label(step)  # which the profile tells of it
            nodes.append(step.node)
            nodes += self._added.get(step.index, ())
        if self._parts:
            nodes.append(helper.make_node("Concat", self._parts, [FOUND], axis=0))
            graph.initializer.append(
                numpy_helper.from_array(np.array([-1], np.int64), self._flat)
            )
            graph.output.append(
                helper.make_tensor_value_info(FOUND, FLOAT, [len(self._parts)])
            )
            plan.model.ir_version = max(plan.model.ir_version, FREE_INITIALIZERS)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        graph.ClearField("node")
        graph.node.extend(copies)
        return Surveyed(plan.model, tuple(self._values))

    def _twin(self, step: Step, atom: int) -> None:
        after = self._added.setdefault(step.index, [])
        twin = onnx.NodeProto()
        twin.CopyFrom(step.node)
        twin.name = self._name()
        for place in self._plan.half_inputs(step):
            twin.input[place] = self._rounded_input(step.ins[place])
        for place, name in enumerate(twin.output):
            twin.output[place] = self._name() if name else ""
        after.append(twin)
        for place in self._plan.half_outputs(step):
            exact = self._node("Reshape", [step.node.output[place], self._flat], after)
            flat_twin = self._node("Reshape", [twin.output[place], self._flat], after)
            magnitudes = self._node("Abs", [exact], after)
            self._parts += [
                self._apart(exact, flat_twin, after),
                self._apart(exact, self._rounded(exact, after), after),
                self._node("ReduceSumSquare", [exact], after),
                self._node("ReduceMax", [magnitudes], after),
            ]
            self._values.append(atom)

    def _rounded_input(self, name: str) -> str:
        if name not in self._half:
            maker = self._plan.maker(name)
            target = (
                self._added.setdefault(maker.index, [])
                if isinstance(maker, Step)
                else self._start
            )
            self._half[name] = self._rounded(name, target)
        return self._half[name]

    def _apart(self, exact: str, rounded: str, after: list[onnx.NodeProto]) -> str:
        """Add the squared distance of two vectors."""
        return self._node(
            "ReduceSumSquare", [self._node("Sub", [rounded, exact], after)], after
        )

    def _rounded(self, name: str, target: list[onnx.NodeProto]) -> str:
        half = self._node("Cast", [name], target, to=self._plan.halving.half)
        return self._node("Cast", [half], target, to=TensorProto.FLOAT)

    def _node(
        self,
        op: str,
        inputs: Sequence[str],
        target: list[onnx.NodeProto],
        to: int | None = None,
    ) -> str:
        name = self._name()
        target.append(helper.make_node(op, inputs, [name], name=name))
        if to is not None:
            target[-1].attribute.append(helper.make_attribute("to", to))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"{_PREFIX}_{self._count}"


def read(
    plan: Plan,
    values: Sequence[int],
    runs: Sequence[npt.NDArray[np.float32]],
    times: Mapping[str, float],
    unit: float,
) -> tuple[NodeSurvey, ...]:
    """Return what is known of each node that can be switched, in the order of their places.

    Args:
        plan: a fresh one of the same conversion.
        values: of :class:`Surveyed`.
        runs: what the model gave as ``FOUND`` on each input set; none where it couldn't be run.
        times: seconds by what a block list calls a node, from a profile.
        unit: half the distance of two neighbours of the half type, relative to the lower one.
    """
    atoms = atoms_of(plan)
    worst = _worst(len(atoms), values, runs)
    inherits, rounds, greatest = worst
    suspicion = _suspicion(plan, atoms, inherits, rounds, unit)
    shares = _time_shares(plan, atoms, times)
    node_surveys = []
    for place in range(len(atoms)):
        node_surveys.append(
            NodeSurvey(
                inherits[place],
                rounds[place],
                greatest[place],
                suspicion[place],
                shares[place],
            )
        )
    return tuple(node_surveys)


def _worst(
    count: int, values: Sequence[int], runs: Sequence[npt.NDArray[np.float32]]
) -> tuple[list[float], list[float], list[float]]:
    """The worst of each node over its values and the input sets.

    What isn't a number is infinite.
    """
    columns = [[math.nan] * count for _ in range(3)]
    for run in runs:
        inputs, itself, whole, greatest = run.astype(np.float64).reshape(-1, 4).T
        with np.errstate(all="ignore"):
            shares = [
                np.sqrt(moved / np.maximum(whole, _TINY)) for moved in (inputs, itself)
            ]
        table = np.nan_to_num(
            np.stack([*shares, greatest], axis=1), nan=np.inf, posinf=np.inf
        )
        for atom, row in zip(values, table.tolist(), strict=True):
            for column, number in zip(columns, row, strict=True):
                column[atom] = (
                    number if math.isnan(column[atom]) else max(column[atom], number)
                )
    return columns[0], columns[1], columns[2]


def _suspicion(
    plan: Plan,
    atoms: Mapping[str, int],
    inherits: Sequence[float],
    rounds: Sequence[float],
    unit: float,
) -> list[float]:
    """Return how many roundings each node may be worth at the outputs.

    From the outputs backwards.
    """
    factors = dict.fromkeys(plan.reading.scopes[0].outputs, 1.0)
    suspicion = [_UNMEASURED] * len(atoms)
    for step in reversed(plan.reading.floating):
        label = plan.label(step)
        if label not in atoms or not plan.converted(step):
            # What only moves values, and what stays float32, hands on how exact its readers want
            # them.
            factor = _wanted(step.outs, factors)
            for name in step.ins:
                factors[name] = max(factors.get(name, 0.0), factor)
            continue
        atom = atoms[label]
        after = _wanted(step.outs, factors)
        own = []
        for number in (inherits[atom], rounds[atom]):
            if not math.isnan(number):
                own.append(number)
        if own:
            suspicion[atom] = min(_MOST**2, max(unit, *own) * after / unit)
        read = []
        for name in _half_reads(plan, step):
            read.append((name, _rounding(plan, name, atoms, rounds, unit)))
        grown = min(
            _MOST,
            after * _factor(inherits[atom], max((moved for _, moved in read), default=unit)),
        )
        for name, moved in read:
            # That a value is infinite is its maker's doing, and says nothing about how exact it has
            # to be.
            factors[name] = max(
                factors.get(name, 0.0), after if math.isinf(moved) else grown
            )
    return suspicion


def _wanted(names: Sequence[str], factors: Mapping[str, float]) -> float:
    """By what the error of some values grows, at most, up to the outputs; 1 for what is one."""
    return max((factors.get(name, 1.0) for name in names if name), default=1.0)


def _half_reads(plan: Plan, step: Step) -> list[str]:
    return [step.ins[place] for place in plan.half_inputs(step)]


def _rounding(
    plan: Plan, name: str, atoms: Mapping[str, int], rounds: Sequence[float], unit: float
) -> float:
    """By what rounding moves a value that is read, relative to it.

    As measured, or as it does on average.
    """
    maker = plan.maker(through_moves(plan, name))
    atom = atoms.get(plan.label(maker)) if isinstance(maker, Step) else None
    if atom is None or math.isnan(rounds[atom]):
        return unit / 2
    return rounds[atom]


def _factor(inherits: float, moved: float) -> float:
    """By what a node makes the relative error of what it reads larger or smaller.

    1 where it's about what it was.

    Args:
        inherits: the error of what it gives where its inputs are rounded.
        moved: the error of these.
    """
    if math.isnan(inherits) or math.isinf(moved) or not moved:
        return 1.0
    if math.isinf(inherits):
        return _WITHOUT_BOUND
    factor = max(_LEAST, inherits / moved)
    return factor if not 1 / _AMPLIFIES <= factor <= _AMPLIFIES else 1.0


def _time_shares(
    plan: Plan, atoms: Mapping[str, int], times: Mapping[str, float]
) -> list[float]:
    seconds = [0.0] * len(atoms)
    for step in plan.reading.floating:
        label = plan.label(step)
        if label in atoms:
            seconds[atoms[label]] += times.get(label, 0.0)
    whole = math.fsum(seconds)
    return [second / whole if whole else 1 / len(atoms) for second in seconds]


def node_times(profile: Path) -> dict[str, float]:
    """Return the seconds that each named node took, over all runs of ONNX Runtime's profile."""
    times: dict[str, float] = {}
    for line in profile.read_text(encoding="utf-8").splitlines():
        if (
            _PREFIX in line or "_kernel_time" not in line
        ):  # reading all of it takes longer than the run
            continue
        event = json.loads(line.strip().rstrip(","))
        key = event["name"].removesuffix("_kernel_time")
        times[key] = times.get(key, 0.0) + event["dur"] * 1e-6
    return times
