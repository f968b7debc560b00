"""Sizes for dynamic dimensions.

A first choice by role, then a ladder of others to climb, then ORT's own hints.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from onnx_harness.inputs.graph.demand import Kind
from onnx_harness.inputs.graph.shapes import Relation
from onnx_harness.inputs.graph.signature import Input, addends, free_names
from onnx_harness.inputs.graph.walk import AxisDemand, Findings
from onnx_harness.inputs.plan.fitting import Sizes, broken, fitted, spoken
from onnx_harness.inputs.plan.roles import Role, role_of

# Three sizes that sets take turns with. Images: multiples of 32, which is what five halvings leave
# whole; height and width differ so that mixing them up shows. Sound: one second and half of one at
# 16 kHz, and an odd length.
_PREFERRED: dict[Role, tuple[int, ...]] = {
    Role.BATCH: (1, 2, 3),
    Role.HEIGHT: (128, 160, 96),
    Role.WIDTH: (192, 128, 224),
    Role.SAMPLES: (16_000, 8_000, 12_345),
    Role.SEQUENCE: (16, 24, 9),
    Role.PAST: (8, 12, 5),
    Role.OTHER: (8, 12, 5),
}
# Where to look when those don't run: usual image sides, frame lengths, transform sizes, then
# anything small.
_LADDER: dict[Role, tuple[int, ...]] = {
    Role.BATCH: (1, 2, 4, 8),
    Role.HEIGHT: (32, 48, 64, 224, 256, 28, 299, 320, 512, 640, 16, 8, 4, 1),
    Role.WIDTH: (320, 192, 64, 224, 256, 28, 299, 32, 512, 640, 16, 8, 4, 1),
    Role.SAMPLES: (
        576,
        512,
        288,
        256,
        1024,
        1536,
        400,
        640,
        320,
        4096,
        32_000,
        48_000,
        80_000,
        160,
        128,
        64,
    ),
    Role.SEQUENCE: (
        32,
        64,
        8,
        4,
        128,
        256,
        512,
        576,
        288,
        1024,
        77,
        1,
        2,
        16_000,
        50,
        100,
        3000,
    ),
    Role.PAST: (1, 4, 16, 0, 32),
    Role.OTHER: (1, 2, 3, 4, 16, 32, 64, 10, 100, 128, 224, 256, 512, 1024, 16_000),
}
# Whose sizes change first where sizes have to fit together.
_WILLING = (
    Role.OTHER,
    Role.PAST,
    Role.SEQUENCE,
    Role.WIDTH,
    Role.HEIGHT,
    Role.SAMPLES,
    Role.BATCH,
)
_SETS = 3


@dataclass(frozen=True, slots=True)
class Dimension:
    """One dynamic dimension, and what there is to try for it.

    Attributes:
        name: as :class:`Input` has it.
        role: what it seems to mean.
        preferred: set k takes ``preferred[k % n]``.
        ladder: further sizes, likeliest first.
        why: the sizes and the reason, for ``inspect``.
    """

    name: str
    role: Role
    preferred: tuple[int, ...]
    ladder: tuple[int, ...]
    why: str


def plan(
    inputs: Mapping[str, Input],
    findings: Mapping[str, Findings],
    relations: Sequence[Relation],
) -> dict[str, Dimension]:
    """Plan every dynamic dimension of the inputs, with its role and its candidates.

    Candidates fit together set by set.

    Args:
        inputs: of the model.
        findings: about each of them.
        relations: between their sizes.
    """
    dimensions = {name: _dimension(name, inputs, findings) for name in free_names(inputs)}
    preferences = [preferred(dimensions, index) for index in range(_SETS)]
    sets = [fit(relations, dimensions, preference, ()) for preference in preferences]
    alike = []
    for name in dimensions:
        if len({input_set[name] for input_set in sets}) == 1:
            alike.append(name)
    # Where all sets came to the same size, the second and the third are asked for twice and three
    # times that.
    for index, fitted_sizes in enumerate(sets[1:] if relations else (), 1):
        more = fit(
            relations,
            dimensions,
            fitted_sizes | {name: fitted_sizes[name] * (index + 1) for name in alike},
            (),
        )
        if all(more[name] >= fitted_sizes[name] for name in alike) and len(
            broken(relations, more)
        ) <= len(broken(relations, fitted_sizes)):
            sets[index] = more
    explained = {}
    for name, entry in dimensions.items():
        if entry.role is Role.FIXED:
            explained[name] = replace(entry, why=f"{entry.preferred[0]}: {entry.why}")
            continue
        sizes = tuple(input_set[name] for input_set in sets)
        why = (
            f"{', '.join(map(str, dict.fromkeys(sizes)))}: "
            f"{entry.why}{spoken(name, relations, sets, preferences)}"
        )
        explained[name] = replace(entry, preferred=sizes, why=why)
    return explained


def fit(
    relations: Sequence[Relation],
    dimensions: Mapping[str, Dimension],
    preferred_sizes: Sizes,
    pinned: Collection[str],
) -> Sizes:
    """The sizes next to ``preferred_sizes`` that fit together.

    ``pinned`` ones, and those that a weight fixes, stay.
    """
    free = [
        name
        for name, entry in dimensions.items()
        if name not in pinned and entry.role is not Role.FIXED
    ]
    return fitted(
        relations,
        preferred_sizes,
        sorted(free, key=lambda name: _WILLING.index(dimensions[name].role)),
    )


def preferred(dimensions: Mapping[str, Dimension], index: int) -> Sizes:
    """The sizes that set ``index`` takes if they run."""
    sizes = {}
    for name, entry in dimensions.items():
        sizes[name] = entry.preferred[index % len(entry.preferred)]
    return sizes


def ladder(
    dimensions: Mapping[str, Dimension], base: Sizes, pinned: Mapping[str, int]
) -> Iterator[Sizes]:
    """Other assignments, likeliest first.

    Every role a rung at once, then each role alone, then each name alone.
    """
    free = {}
    for name, entry in dimensions.items():
        if name not in pinned and entry.role is not Role.FIXED:
            free[name] = entry
    climbing = {}
    for name, entry in free.items():
        if entry.role is not Role.BATCH:
            climbing[name] = entry
    for rung in range(max((len(entry.ladder) for entry in climbing.values()), default=0)):
        yield base | {
            name: entry.ladder[min(rung, len(entry.ladder) - 1)]
            for name, entry in climbing.items()
        }
    for role in dict.fromkeys(entry.role for entry in free.values()):
        for rung in range(
            max(len(entry.ladder) for entry in free.values() if entry.role is role)
        ):
            yield base | {
                name: entry.ladder[min(rung, len(entry.ladder) - 1)]
                for name, entry in free.items()
                if entry.role is role
            }
    for name, entry in free.items():
        yield from (base | {name: size} for size in entry.ladder[:8])


def neighbours(size: int, entry: Dimension) -> list[int]:
    """Sizes to try in place of one that runs.

    The other preferred ones if it is one, else what lies near it.
    """
    if entry.role is Role.FIXED:
        return []
    near = [
        size + 32,
        size // 2,
        size * 2,
        size + size // 2,
        size - size // 8,
        size + 1,
    ]
    others = [*near, *entry.preferred]
    if size in entry.preferred:
        others = [*entry.preferred, *near]
    others = list(dict.fromkeys(others))
    return [neighbour for neighbour in others if neighbour > 0 and neighbour != size]


def _dimension(
    name: str, inputs: Mapping[str, Input], findings: Mapping[str, Findings]
) -> Dimension:
    places = [
        (entry, axis)
        for entry in inputs.values()
        for axis, dim in enumerate(entry.dims or ())
        if isinstance(dim, str) and name in (dim, *addends(dim))
    ]
    entry, axis = places[0]
    demands = []
    for place, at in places:
        for demand in findings[place.name].axes:
            if demand.axis == at:
                demands.append(demand)
    fixed = [demand for demand in demands if demand.size is not None]
    if fixed and fixed[0].size is not None:
        return Dimension(name, Role.FIXED, (fixed[0].size,), (fixed[0].size,), fixed[0].why)
    meant = [demand.meaning for demand in demands if demand.meaning is not None]
    widest = max(len(place.dims or ()) for place, _ in places)
    role = (
        Role(meant[0])
        if meant
        else role_of(name, entry, axis, inputs, findings[entry.name], widest)
    )
    boxes = _counts_boxes(places, findings)
    if boxes or (role is Role.BATCH and _is_pointed_at(name, places, findings)):
        role = Role.OTHER
    sizes, rungs = _PREFERRED[role], _LADDER[role]
    sliding = [demand for demand in demands if demand.at_least is not None]
    if sliding:
        sizes, rungs = (
            _long_enough(sizes, sliding),
            (*rungs[:4], *_by_stride(sliding[0]), *rungs[4:]),
        )
    most = min(
        (demand.at_most for demand in demands if demand.at_most is not None), default=0
    )
    if most:
        # Half of the cache at most, so that there is another half to begin the writing in.
        sizes = tuple(dict.fromkeys((1, max(most // 2, 1), max(most // 3, 1))))
        rungs = tuple(rung for rung in rungs if rung <= most)
    return Dimension(name, role, sizes, tuple(dict.fromkeys(rungs)) or sizes, _WORDS[role])


def _counts_boxes(places: list[tuple[Input, int]], findings: Mapping[str, Findings]) -> bool:
    """Return whether the axis before the corners counts boxes.

    They are more than 3, and so few that thresholds decide and not the greatest number.
    """
    return any(
        axis == len(entry.dims or ()) - 2 and demand.kind is Kind.BOXES
        for entry, axis in places
        for demand in findings[entry.name].demands
    )


def _is_pointed_at(
    name: str, places: list[tuple[Input, int]], findings: Mapping[str, Findings]
) -> bool:
    """Return whether a first axis counts what another input points at, such as nodes of a graph.

    They are more than 3.
    """
    own = {entry.name for entry, _ in places}
    return any(
        demand.kind is Kind.BOUND and demand.dim == name
        for other, finding in findings.items()
        if other not in own
        for demand in finding.demands
    )


def _long_enough(sizes: tuple[int, ...], sliding: list[AxisDemand]) -> tuple[int, ...]:
    """The sizes, stretched where a kernel wouldn't fit in."""
    least = max(demand.at_least or 1 for demand in sliding)
    return sizes if min(sizes) >= least else tuple(least + size for size in sizes)


def _by_stride(demand: AxisDemand) -> tuple[int, ...]:
    """Sizes that give a sliding kernel 4, 8 and 3 places, and just one."""
    kernel = demand.at_least or 1
    return (
        tuple(kernel + demand.step * (places - 1) for places in (4, 8, 3, 1))
        if demand.step > 1
        else ()
    )


_WORDS: dict[Role, str] = {
    Role.BATCH: "it is taken for the batch",
    Role.HEIGHT: "it is taken for a height",
    Role.WIDTH: "it is taken for a width",
    Role.SAMPLES: "it is taken for samples of sound",
    Role.SEQUENCE: "it is taken for the length of a sequence",
    Role.PAST: "it is taken for the length of what came before",
    Role.OTHER: "nothing says what it means",
}
