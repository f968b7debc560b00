"""Decide what becomes float16: every value gets one type, made once for all its readers."""

from __future__ import annotations

from collections.abc import Collection

from onnx_harness.model.ops import MOVES
from onnx_harness.transforms.half.clamped_numbers import (
    steps_of_constants,
    steps_with_clamped_numbers,
)
from onnx_harness.transforms.half.exact_weights import exact_normalizations, exact_scales
from onnx_harness.transforms.half.exponentials import exponential_quotients
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.integer_products import dequantizing
from onnx_harness.transforms.half.layer_norms import layer_norms
from onnx_harness.transforms.half.long_sums import long_sums
from onnx_harness.transforms.half.means import means, reduces
from onnx_harness.transforms.half.positions import exact_steps
from onnx_harness.transforms.half.ranges import Squares, variance_notes
from onnx_harness.transforms.half.requests import Request, label
from onnx_harness.transforms.half.running_sums import FIRST_BODY_INPUT, NO_SUMS, running_sums
from onnx_harness.transforms.half.schemas import (
    EITHER,
    FLOAT,
    FLOAT16,
    SCATTERS,
    takes,
    takes_at,
)
from onnx_harness.transforms.half.steps import Step
from onnx_harness.transforms.half.weights import Rounder

_SCAN_LIKE_LOOP = 9
_SOURCES = ("Constant", "ConstantOfShape", "Cast")


class Halving:
    """Decides which float32 values of a model are made in a half type.

    It also decides in which type each node reads them.

    Attributes:
        half: the half type.
        floats: names of all values that are float32 in the model.
        halves: of those, the ones made in the half type.
        flexible: of those, the ones that can be made in either type.
        casts: the model's own Casts, but for those that stay as they are.
        read_half: names of what is read in the half type, among others.
        read_float: names of what is read in float32, among others.
        notes: what whoever uses the result should know.
    """

    def __init__(
        self,
        reading: Reading,
        opset: int,
        rounder: Rounder,
        request: Request,
        blocked_ops: Collection[str],
        blocked_nodes: Collection[str],
    ) -> None:
        """Take what was read.

        Nothing is decided yet, and nothing will be changed but what steps and scopes want.

        Args:
            reading: the graphs of the model.
            opset: version of the standard operators.
            rounder: knows the half type, and what it would clip.
            request: what the caller asks for.
            blocked_ops: standard operators that stay float32.
            blocked_nodes: names of nodes that stay float32.
        """
        self._reading = reading
        self._opset = opset
        self._types = reading.types
        self._rounder = rounder
        self._request = request
        self._keep_io_types = (
            request.keep_io_types
            if isinstance(request.keep_io_types, bool)
            else frozenset(request.keep_io_types)
        )
        self._blocked_ops = blocked_ops
        self._blocked_nodes = blocked_nodes
        scaling, totals = dequantizing(reading)
        self._kept = exact_steps(reading, blocked_ops, totals)
        self.notes: list[str] = []
        if request.op_block_list is None and rounder.half == FLOAT16:
            squares = Squares(reading)
            sums = long_sums(reading, rounder)
            self._kept |= means(reading, sums) | scaling | squares.stays | sums
            self._kept |= exponential_quotients(reading)
            self._kept |= steps_with_clamped_numbers(reading, rounder) | steps_of_constants(
                reading, rounder
            )
            self.notes += variance_notes(squares.variances)
        self._sums = running_sums(reading) if "CumSum" in blocked_ops else NO_SUMS
        self._kept |= self._sums.steps
        self._exact = exact_normalizations(reading, rounder) | exact_scales(reading, rounder)
        self._movers: list[Step] = []
        self.half = rounder.half
        self.floats = reading.floats()
        self.halves: set[str] = set()
        self.flexible: dict[str, None] = {}
        self.casts: list[Step] = []
        self.read_half: set[str] = set()
        self.read_float: set[str] = set()

    def decide(self) -> None:
        """Decide everything."""
        for name in self._reading.scopes[0].inputs:
            if self.outside(name) != FLOAT:
                self.halves.add(name)
        constants = (*self._reading.initializers, *self._reading.sparse)
        self.flexible.update((name, None) for name in constants if name in self.floats)
        self._decide_nodes()
        self._keep_layer_norms()
        requested = self._outputs_wanted()
        self.halves &= self.floats
        self._spare_detours({name for name, want in requested if want != FLOAT})
        read_exact = self._note_reads(requested)
        # Where readers differ it will be made twice.
        for name in self.flexible:
            is_exact = name in self.read_float or name in read_exact
            if name in self.read_half and not is_exact:
                self.halves.add(name)
        if self._request.force_initializers:
            self.halves.update(name for name in constants if name in self.floats)

    def computes_in_half(self) -> bool:
        """Return whether a node reads or makes what was float32 in the half type.

        Casts and constants aside.
        """
        for step in self._reading.floating:
            if step.op in _SOURCES:
                continue
            if self._reads_half(step) or not self.halves.isdisjoint(step.outs):
                return True
        return False

    def _reads_half(self, step: Step) -> bool:
        wants = step.want if isinstance(step.want, tuple) else (step.want,) * len(step.ins)
        places = zip(step.ins, wants, strict=True)
        return any(want == self.half and name in self.floats for name, want in places)

    def outside(self, name: str) -> int:
        """Return the type in which the caller gives or takes an input or output of the model.

        It was float32.
        """
        keeps = (
            self._keep_io_types
            if isinstance(self._keep_io_types, bool)
            else name in self._keep_io_types
        )
        return FLOAT if keeps else self.half

    def _blocks(self, step: Step) -> bool:
        return (
            (step.op or step.node.op_type) in self._blocked_ops
            or step.scope.blocked
            or step in self._kept
            or (bool(self._blocked_nodes) and label(step.node) in self._blocked_nodes)
        )

    def _decide_nodes(self) -> None:
        half, halves = self.half, self.halves
        blocked_ops, movers = self._blocked_ops, self._movers
        exceptions = self._kept | self._exact
        by_name = bool(self._blocked_nodes)
        for step in self._reading.floating:
            rule = step.rule
            # As `_decide` would, in a fraction of its time: most nodes are of this kind.
            if rule is not None and rule.alone and step.op and not by_name:
                blocked = step.op in blocked_ops or step.scope.blocked or step in exceptions
                if not (step.sized or step.unclear or blocked):
                    step.want = half
                    halves.update(step.outs)
                    if step.op in MOVES:
                        movers.append(step)
            else:
                self._decide(step)

    def _decide(self, step: Step) -> None:
        """Decide the types in which a node reads and makes what was float32."""
        if step.bodies:
            self._decide_with_bodies(step)
            return
        stays = self._blocks(step)
        if not stays and step.op in _SOURCES and takes(step.op, self._opset, self.half):
            self._enter_source(step)
        rule = step.rule
        if rule is None or stays or step.sized or rule.inputs == FLOAT == rule.outputs:
            return
        if rule.inputs == EITHER:
            step.want = EITHER
            return
        # Sequences and what nothing is known about can't be cast.
        if step.unclear or (
            rule.unbound
            and any(self._types[step.outs[index]] == FLOAT for index in rule.unbound)
        ):
            return
        if step in self._exact or (step.op in SCATTERS and reduces(step.node)):
            return
        step.want = rule.inputs
        if step.op in self._request.force_inputs:
            step.want = self._with_forced(step)
        if isinstance(rule.outputs, tuple):
            for name, want in zip(step.outs, rule.outputs, strict=True):
                if want not in (FLOAT, EITHER):
                    self.halves.add(name)
        elif rule.outputs != FLOAT:
            self.halves.update(step.outs)
        if step.op in MOVES:
            self._movers.append(step)

    def _keep_layer_norms(self) -> None:
        """Let a layer normalization stay float32 where what it normalizes is float32.

        See `layer_norms`.
        """
        for source, steps in layer_norms(self._reading):
            if source in self.floats and source not in self.halves:
                for step in steps:
                    self._stay(step)

    def _with_forced(self, step: Step) -> tuple[int, ...]:
        """Return the types in which a node reads its inputs.

        Some of them are the half type because the caller wants it.
        """
        wants = (
            [step.want] * len(step.ins) if isinstance(step.want, int) else list(step.want)
        )
        for place in self._request.force_inputs[step.op]:
            if place < len(wants) and takes_at(step.op, self._opset, self.half, place):
                wants[place] = self.half
        return tuple(wants)

    def _enter_source(self, step: Step) -> None:
        """Enter what a Constant, a ConstantOfShape or a Cast makes.

        It counts if it can be made in either type.
        """
        (result, *_) = step.outs
        if step.op == "Cast":
            self.casts.append(step)
            source = self._types[step.ins[0]]
            if self._types[result] == FLOAT and source not in (FLOAT, self.half):
                self.flexible[result] = None
        elif self._types[result] == FLOAT and (
            step.tensor is not None or not _is_sparse(step)
        ):
            self.flexible[result] = None

    def _decide_with_bodies(self, step: Step) -> None:
        # What goes round a loop or comes out of a branch has one type wherever it passes. Scan 8
        # counts differently.
        is_convertible = step.op in ("If", "Loop") or (
            step.op == "Scan" and self._opset >= _SCAN_LIKE_LOOP
        )
        is_convertible = is_convertible and takes(step.op, self._opset, self.half)
        stays = self._blocks(step) or not is_convertible or not self._knows_alike(step)
        want = FLOAT if stays else self.half
        step.want = want
        for body in step.bodies:
            body.want = want
            body.blocked = stays
        if stays:
            return
        sums = self._sums.inputs(step)
        if sums:
            step.want = tuple(
                FLOAT if place in sums else want for place in range(len(step.ins))
            )
        exact = self._sums.outputs(step)
        self.halves.update(
            name for place, name in enumerate(step.outs) if place not in exact
        )
        for body in step.bodies:
            body.exact = self._sums.body_outputs(step)
            first = FIRST_BODY_INPUT[step.op]
            for place, name in enumerate(body.inputs):
                if place >= first and place not in sums:
                    self.halves.add(name)

    def _knows_alike(self, step: Step) -> bool:
        """Return whether each value has the same type inside the node as outside."""
        skipped = 1 if step.op == "Loop" else 0
        pairs = []
        for body in step.bodies:
            for pair in zip(step.outs, body.outputs[skipped:], strict=False):
                pairs.append(pair)
        first = FIRST_BODY_INPUT[step.op]
        for body in step.bodies if step.op != "If" else ():
            pairs += zip(step.ins[first:], body.inputs[first:], strict=False)
        return all(
            self._types[outer] == self._types[inner] for outer, inner in pairs if outer
        )

    def _outputs_wanted(self) -> list[tuple[str, int]]:
        """Of each graph's float32 outputs, the names and the types in which they are wanted."""
        main, *inner = self._reading.scopes
        requested = [(name, self.outside(name)) for name in main.outputs]
        for scope in inner:
            for place, name in enumerate(scope.outputs):
                requested.append((name, scope.wanted(place)))
        return [(name, want) for name, want in requested if name in self.floats]

    def _spare_detours(self, names_wanted: set[str]) -> None:
        """Let what only moves values stay float32 between float32 and float32.

        Float16 would round there for nothing.

        A constant that is only moved is as its readers want it: between two, the one that mustn't
        lose decides.

        Args:
            names_wanted: outputs of graphs that are wanted in the half type.
        """
        fixed = self._moves_of_constants()
        if not fixed and not any(self._reads_only_float(step) for step in self._movers):
            return
        exact: set[str] = set()
        for step in self._reading.floating:
            if step in self._kept or step in self._exact:
                exact.update(step.ins)
            if isinstance(step.want, tuple):
                for name, want in zip(step.ins, step.want, strict=True):
                    if want == self.half:
                        names_wanted.add(name)
            elif step.want == self.half and step.op not in MOVES:
                names_wanted.update(step.ins)
        for step in reversed(self._movers):
            if step in fixed and not exact.isdisjoint(step.outs):
                exact.update(step.ins)
                self._stay(step)
            elif not names_wanted.isdisjoint(step.outs):
                names_wanted.update(step.ins)
        for step in self._movers:
            if names_wanted.isdisjoint(step.outs) and (
                step in fixed or self._reads_only_float(step)
            ):
                self._stay(step)

    def _stay(self, step: Step) -> None:
        step.want = FLOAT
        self.halves.difference_update(step.outs)

    def _moves_of_constants(self) -> set[Step]:
        """The movers that move nothing but constants."""
        constants, moved = self._reading.constants, set[str]()
        steps: set[Step] = set()
        for step in self._movers:
            if all(name in constants or name in moved for name in step.ins):
                steps.add(step)
                moved.update(step.outs)
        return steps

    def _reads_only_float(self, step: Step) -> bool:
        if not self.halves.isdisjoint(step.ins):
            return False
        constants = self._reading.constants
        return any(name in self.floats and name not in constants for name in step.ins)

    def _note_reads(self, requested: list[tuple[str, int]]) -> set[str]:
        """Note what is read in which type.

        Returns what is read as it is, and mustn't be rounded for that.
        """
        read_half, read_float = self.read_half, self.read_float
        read_exact: set[str] = set()
        for step in self._reading.floating:
            want = step.want
            if want == self.half:
                read_half.update(step.ins)
            elif want == FLOAT:
                read_float.update(step.ins)
            elif step.op == "Cast":
                # It may go on to double: a constant isn't rounded in between.
                read_exact.update(step.ins)
            elif isinstance(want, tuple):
                for name, element_type in zip(step.ins, want, strict=True):
                    (read_float if element_type == FLOAT else read_half).add(name)
        for name, element_type in requested:
            (read_float if element_type == FLOAT else read_half).add(name)
        return read_exact


def _is_sparse(step: Step) -> bool:
    return step.op == "Constant" and step.node.attribute[0].HasField("sparse_tensor")
