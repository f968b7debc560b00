"""State that is fed back: an input that a user fills with an output of the run before."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from onnx_harness.inputs.graph.signature import Container, Input
from onnx_harness.inputs.plan.recipe import Guess, Recipe
from onnx_harness.inputs.values.sets import InputSet, Value, shape_text

# Multiples of 4: of the signals that sets take turns with, the structured one.
_FIRST, _SECOND = 60, 64
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
# What tells the two ends of a state apart, and nothing else: state and stateN,
# past_key_values.0.key and present.0.key.
_BEFORE = (
    "past",
    "prev",
    "previous",
    "old",
    "last",
    "initial",
    "init",
    "in",
    "input",
    "cur",
    "current",
)
_AFTER = ("present", "next", "new", "final", "out", "output", "n")
_ENDS = frozenset((*_BEFORE, *_AFTER, "values"))


def states(model: onnx.ModelProto, recipe: Recipe) -> dict[str, str]:
    """The inputs that take an output of the run before, with that output.

    Of one type and shape, and alike by name.

    An input of which the card says something is left to the card.
    """
    outputs = {}
    for info in model.graph.output:
        if info.type.HasField("tensor_type"):
            outputs[info.name] = info.type.tensor_type
    pairs: dict[str, str] = {}
    for name, entry in recipe.inputs.items():
        if (
            entry.container is not Container.TENSOR
            or not entry.is_float
            or not entry.dims
            or name in recipe.specs
        ):
            continue
        fitting = []
        for output, kind in outputs.items():
            if _fits(entry, kind) and _stem(output) == _stem(name):
                fitting.append(output)
        if len(fitting) == 1 and fitting[0] != name:
            pairs[name] = fitting[0]
    return pairs


def fed_back(
    recipe: Recipe,
    pairs: Mapping[str, str],
    seed: int,
    base: Guess,
    attempt: Callable[[dict[str, Value]], Any],
) -> InputSet | None:
    """A set whose state is what the model gave in a run before, which began with zeros.

    None where that doesn't run.

    Args:
        recipe: of the model.
        pairs: from :func:`states`.
        seed: of the run.
        base: what the first set ran with.
        attempt: runs the reference: its outputs by name, or None.
    """
    first = recipe.values(_FIRST, seed, base)
    first |= {name: np.zeros_like(first[name]) for name in pairs}
    outputs = attempt(first)
    if not isinstance(outputs, Mapping) or not all(
        isinstance(outputs.get(output), np.ndarray) for output in pairs.values()
    ):
        return None
    state: dict[str, Value] = {name: outputs[output] for name, output in pairs.items()}
    sizes, pinned = dict(base.sizes), recipe.pinned(0)
    given_sizes = dict(pinned)
    for name, value in state.items():
        for dim, size in zip(recipe.inputs[name].dims or (), np.shape(value), strict=False):
            if isinstance(dim, str) and dim in sizes:
                given_sizes.setdefault(dim, size)
    # A mask over past and present grows with the past.
    sizes = recipe.fit(sizes | given_sizes, given_sizes)
    values = recipe.values(_SECOND, seed, replace(base, sizes=sizes)) | state
    if attempt(values) is None:
        return None
    backs = []
    for name, output in pairs.items():
        backs.append(f"{name} from {output} {shape_text(np.shape(outputs[output]))}")
    sentence = ", ".join(backs)
    return InputSet(f"fed back (seed {seed}, {sentence})", values)


def _fits(entry: Input, kind: onnx.TypeProto.Tensor) -> bool:
    if kind.elem_type != entry.elem_type:
        return False
    if not kind.HasField("shape"):
        return True
    dims = kind.shape.dim
    fixed = [
        dim.dim_value if dim.WhichOneof("value") == "dim_value" else None for dim in dims
    ]
    mine = entry.dims or ()
    return len(fixed) == len(mine) and all(
        theirs is None or not isinstance(own, int) or theirs == own
        for theirs, own in zip(fixed, mine, strict=True)
    )


def _stem(name: str) -> frozenset[str]:
    """Return what two names of one state share.

    ``h`` for h and hn, ``state`` for state and stateN, nothing for past.
    """
    parts = [part.lower() for part in _PARTS.findall(name.replace("key_values", ""))]
    parts = [part[0] if part in ("hn", "cn") else part for part in parts]
    return frozenset(part for part in parts if part not in _ENDS)
