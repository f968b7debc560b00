"""The error for a model that nothing runs on: what was tried, and what would settle it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from onnx_harness.errors import (
    DiedBefore,
    HarnessError,
    InputError,
    ModelError,
    ModelTooLarge,
)
from onnx_harness.inputs.plan import hints
from onnx_harness.inputs.plan.fitting import broken
from onnx_harness.inputs.plan.recipe import Recipe
from onnx_harness.inputs.values.sets import Value, arrays_of, number_text, shape_text


def feed_shapes(values: Mapping[str, Value]) -> str:
    """Return the shape of every input of a feed, and the value of one of a single element."""
    parts = []
    for name, value in values.items():
        first = next(arrays_of(value))
        tail = f" = {number_text(first)}" if first.size == 1 else ""
        parts.append(f"{name} {shape_text(first.shape)}{tail}")
    return ", ".join(parts)


def nothing_runs(
    recipe: Recipe, index: int, *, tried: int, examples: Sequence[str], message: str
) -> str:
    """Return what was tried, what the reference said last, and what would settle it."""
    pinned = recipe.pinned(index)
    open_axes = {}
    for name, entry in recipe.inputs.items():
        open_axes[name] = any(
            isinstance(dim, str) and dim not in pinned for dim in entry.dims or ()
        )
    doubtful = []
    for name in recipe.inputs:
        if open_axes[name] or not recipe.rules[name].certain:
            doubtful.append(name)
    names = []
    for name in doubtful:
        names.append(
            f"'{name}' ({recipe.inputs[name].type_name} {recipe.inputs[name].shape_text()}: "
            f"{recipe.rules[name].why})"
        )
    described = "; ".join(names)
    named = ", ".join(f"'{name}'" for name in recipe.specs)
    said = f"the model doesn't run on what its card says of {named}" if named else ""
    unsure = (
        f"couldn't invent {described}"
        if doubtful
        else "every input is settled by the graph or its card"
    )
    unmet = broken(recipe.relations, recipe.first_guess(index).sizes)
    unmet_sentence = (
        f"No sizes were found that the graph asks for: {unmet[0].why}. " if unmet else ""
    )
    return (
        f"no inputs were found that the model runs on (set {index}): {said or unsure}"
        f"{f', and {unsure}' if said and doubtful else ''}. "
        f"Tried {tried} feeds, among them {' | '.join(examples)}. "
        f"{unmet_sentence}ONNX Runtime's last message: {hints.shortened(message)}\n"
        "Settle it in the model's card:\n"
        + "".join(
            f"  {line}\n"
            for name in (doubtful or recipe.inputs)
            for line in _card_lines(recipe, name, open_axes)
        )
        + "or put a recorded input set, a .npz whose keys are the input names, beside the model "
        "with its stem."
    )


# "Failed to allocate memory for requested buffer of size 4398046511104"; Tile says it in advance.
_BYTES = re.compile(r"(?:requested buffer of size|would require more than) (\d+)")


def no_inputs(
    words: str, complaints: Sequence[Exception], *, decided_by_inputs: bool
) -> HarnessError:
    """Return the error for a model that ran on no feed: its own, where each ended in one way.

    Args:
        words: by :func:`nothing_runs`.
        complaints: what each feed ended with.
        decided_by_inputs: other values might do: an input of integers may be a size.
    """
    if decided_by_inputs or not complaints:
        return InputError(words)
    asked = [_BYTES.search(str(complaint)) for complaint in complaints]
    sizes = [int(match[1]) for match in asked if match is not None]
    if len(sizes) == len(complaints):
        return ModelTooLarge(
            f"the model asks for more memory than there is, on every feed that was tried: "
            f"{min(sizes):,} bytes at once\n{words}"
        )
    if all(isinstance(complaint, DiedBefore) for complaint in complaints):
        return ModelError(
            f"ONNX Runtime dies of every feed that was tried, and the process with it\n{words}"
        )
    return InputError(words)


def _card_lines(recipe: Recipe, name: str, open_axes: Mapping[str, bool]) -> list[str]:
    """The lines of a card that would settle one input, for a person to put the right numbers in."""
    entry, rule = recipe.inputs[name], recipe.rules[name]
    is_bare = name.replace("_", "").isalnum() and name.isascii()  # TOML quotes other keys
    lines = [f"[inputs.{name if is_bare else json.dumps(name)}]"]
    if open_axes[name]:
        lines.append(
            f"shapes = [{[dim if isinstance(dim, int) else 1 for dim in entry.dims or ()]}]  # "
            f"what it takes"
        )
    if entry.is_string:
        lines.append('values = ["…"]')
    elif not rule.certain or entry.is_integer:
        lines.append("values = [0]  # or low = …, high = …")
    elif not open_axes[name]:
        lines.append('generator = "uniform"  # or low = …, high = …')
    return lines
