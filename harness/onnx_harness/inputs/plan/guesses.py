"""Guesses after one that failed: what its error suggests, and a ladder of sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from onnx_harness.inputs.plan import hints
from onnx_harness.inputs.plan import sizes as sizing
from onnx_harness.inputs.plan.fitting import Sizes
from onnx_harness.inputs.plan.recipe import Guess, Recipe
from onnx_harness.inputs.plan.roles import Role
from onnx_harness.inputs.plan.rule import Make

_LEAST = {
    Role.HEIGHT: 8,
    Role.WIDTH: 8,
    Role.SAMPLES: 64,
}  # sizes that a number in an error message may suggest


def learned(
    recipe: Recipe, guess: Guess, pinned: Mapping[str, int], message: str
) -> tuple[list[Guess], list[Guess]]:
    """Return guesses that an error message asks for, and those that its numbers suggest.

    Args:
        recipe: of the model.
        guess: the one that failed.
        pinned: sizes that the card settles.
        message: the error.
    """
    hint = hints.read(message)
    guesses: list[Guess] = []
    sizes_told: Sizes = {}
    for name, axes in hint.dims.items():
        dims = recipe.inputs[name].dims if name in recipe.inputs else None
        for axis, size in axes.items():
            if (
                dims is not None
                and axis < len(dims)
                and isinstance(dim := dims[axis], str)
                and dim in guess.sizes
            ):
                sizes_told[dim] = size
    if sizes_told and sizes_told.items() - guess.sizes.items():
        guesses.append(replace(guess, sizes=guess.sizes | sizes_told))
    if hint.cap is not None and (guess.cap is None or hint.cap < guess.cap):
        guesses.append(replace(guess, cap=max(0, hint.cap)))
    free = []
    for name, entry in recipe.dimensions.items():
        if name not in pinned and entry.role not in (Role.BATCH, Role.FIXED):
            free.append(name)
    suggested = []
    for number in hint.numbers[:4]:
        for name in free[:3]:
            # Pictures and sounds of a few values run often enough, and mean nothing.
            least = _LEAST.get(recipe.dimensions[name].role, 1)
            if number >= least and guess.sizes[name] != number:
                suggested.append(replace(guess, sizes=guess.sizes | {name: number}))
    return guesses, [] if sizes_told else suggested


def candidates(recipe: Recipe, start: Guess, pinned: Mapping[str, int]) -> Iterator[Guess]:
    """Sizes and constants, likeliest first, interleaved so that neither starves the other."""
    ladder = sizing.ladder(recipe.dimensions, start.sizes, pinned)
    sizes = (replace(start, sizes=step) for step in ladder)
    constants = _constants(recipe, start)
    running = [sizes, constants]
    while running:
        for source in list(running):
            guess = next(source, None)
            if guess is None:
                running.remove(source)
            else:
                yield guess


def _constants(recipe: Recipe, start: Guess) -> Iterator[Guess]:
    """Plain numbers for the inputs that nothing settles.

    All alike first, then one at a time.
    """
    doubtful = []
    for name, rule in recipe.rules.items():
        if not rule.certain and not (
            recipe.inputs[name].is_float and rule.make is not Make.CHOICES
        ):
            doubtful.append(name)
    if not doubtful:
        return
    numbers = list(dict.fromkeys([1, 0, *start.sizes.values(), 2, -1, 4, 3, 8]))
    for number in numbers:
        yield from _constant(recipe, start, doubtful, number)
    if len(doubtful) > 1:
        for name in doubtful:
            for number in numbers:
                yield from _constant(recipe, start, [name], number)


def _constant(
    recipe: Recipe, start: Guess, names: list[str], number: int
) -> Iterator[Guess]:
    ranges = []
    for name in names:
        if recipe.inputs[name].is_integer:
            ranges.append(recipe.inputs[name].integer_range)
    low = max((least for least, _ in ranges), default=-1)
    high = min((greatest for _, greatest in ranges), default=number)
    if low <= number <= high:
        yield replace(start, constants=start.constants | dict.fromkeys(names, number))
