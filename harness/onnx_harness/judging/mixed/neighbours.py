"""The nodes round those that stay float32: what they read, what reads them, what moves between."""

from __future__ import annotations

from collections.abc import Collection

from onnx_harness.judging.mixed.switches import atoms_of, through_moves
from onnx_harness.model.ops import MOVES
from onnx_harness.transforms.half.plan import Plan
from onnx_harness.transforms.half.steps import Step


def neighbours(plan: Plan, nodes: Collection[int]) -> frozenset[int]:
    """Return the places of the nodes that make what some nodes read, or read what they make."""
    atoms = atoms_of(plan)
    places_found = set()
    for step in plan.reading.floating:
        at = atoms.get(plan.label(step)) if plan.converted(step) else None
        for name in step.ins if at is not None else ():
            maker = plan.maker(through_moves(plan, name)) if name else None
            makes = atoms.get(plan.label(maker)) if isinstance(maker, Step) else None
            if at is not None and makes is not None and (at in nodes or makes in nodes):
                places_found |= {at, makes}
    return frozenset(places_found)


def moves_between(plan: Plan, labels: Collection[str]) -> tuple[str, ...]:
    """Return the names of nodes that move a float32 value to readers of both types.

    Those are float32 and the half type.

    Such a node would be of the half type for the latter's sake, and round for the former.

    Args:
        plan: of the conversion without the nodes that were chosen.
        labels: the nodes that were chosen, as a block list calls them.
    """
    if not labels:
        return ()
    single, double, moves = set[str](), set[str](), []
    floats = plan.halving.floats
    for step in plan.reading.floating:
        stays = plan.label(step) in labels or not (plan.converted(step) or step.op in MOVES)
        if step.op in MOVES and step.ins and step.ins[0] in single:
            moves.append(step)
            single.update(step.outs)
        elif stays and step.op not in ("Cast", "Constant", "ConstantOfShape"):
            single.update(name for name in step.outs if name in floats)
    for step in plan.reading.floating:
        if step.op in MOVES:
            continue
        stays = plan.label(step) in labels or not plan.converted(step)
        moves_found = []
        for name in step.ins:
            if name in floats:
                moves_found.append(f"{name} read")
        (single if stays else double).update(moves_found)
    single.update(f"{name} read" for name in plan.reading.scopes[0].outputs)
    names = []
    for step in reversed(moves):
        reads = set()
        for kind, readers in (("single", single), ("double", double)):
            if any(f"{name} read" in readers for name in step.outs):
                reads.add(kind)
        if "single" in reads:
            single.update(f"{name} read" for name in step.ins)
        if "double" in reads:
            double.update(f"{name} read" for name in step.ins)
        if len(reads) == 2:
            names.append(plan.label(step))
    return tuple(reversed(names))
