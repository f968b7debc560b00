"""Ask the untouched model about its own reference.

It says what it draws, what it declares, and where it isn't steady.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnx_harness import providers
from onnx_harness.accuracy.explain import MOST_ELEMENT
from onnx_harness.accuracy.failures import listed
from onnx_harness.accuracy.noise import Noise
from onnx_harness.accuracy.tolerance import Tolerance
from onnx_harness.inputs.graph.chance import random_nodes
from onnx_harness.judging.reference import Reference
from onnx_harness.model.file import Model

# Eight times the noise of an element is what it's held to (MOST_ELEMENT). Where that is a quarter
# of the greatest element, no fault could be told from it.
_CHAOS = 0.25 / MOST_ELEMENT
# Runs of a candidate whose model draws at random: a coin that falls alike in all of them is no
# coin.
DRAWS = 8


def made_constant(
    model: Model,
    reference: Reference,
    provider: str,
    first: Mapping[str, Any],
    again: Callable[[], Mapping[str, Any]] | None,
) -> list[str]:
    """Return the outputs that operators of the untouched model draw at random.

    The candidate doesn't draw them.

    Kernels of other providers may take a seed for what it isn't on the CPU, the start of each run:
    none is asked.
    """
    skeleton, unstable = model.skeleton, reference.unstable
    drawn = set()
    for name in unstable & first.keys():
        if random_nodes(skeleton, {name}):
            drawn.add(name)
    if again is None or not drawn or providers.get(provider).noise_factor > 1:
        return []
    for _ in range(DRAWS - 1):
        if not drawn:
            break
        rerun = again()
        drawn = {
            name for name in drawn if name in rerun and _is_same(first[name], rerun[name])
        }
    return sorted(drawn)


def false_shapes(model: Model, reference: Reference) -> list[str]:
    """Remark on each output of the untouched model with a false shape.

    It comes out in another shape than it is declared with.
    """
    remarks = []
    for value in model.signature.outputs:
        if value.shape is None:
            continue
        for outputs in reference.outputs:
            shape = getattr(outputs.get(value.name), "shape", None)
            if shape is not None and not _fits(value.shape, shape):
                remarks.append(
                    f"output {value.name} is declared as {_shape_text(value.shape)} and comes out "
                    f"as "
                    f"{_shape_text(shape)}: the model's declaration is false, and whoever relies "
                    f"on it goes wrong"
                )
                break
    return remarks


def unsteady(
    reference: Reference, steadiness: Noise, tolerance_for: Callable[[str], Tolerance]
) -> dict[int, bool]:
    """Return the unusual input sets on which the reference itself isn't within the bounds.

    Each comes with whether it can still judge.

    Args:
        reference: its outputs.
        steadiness: how far last bits move the untouched model on each unusual set.
        tolerance_for: the bounds of an output.
    """
    found: dict[int, bool] = {}
    for place, gaps in enumerate(steadiness.sets):
        for name, gap in gaps.items():
            output = next(
                (each for each in reference.outputs[place] if is_of(name, each)), name
            )
            if gap.beyond(*tolerance_for(output).bounds(gap.scale)):
                found[place] = found.get(place, True) and not gap.is_chaos(_CHAOS)
    return found


def said_of(reference: Reference, unsteady: Mapping[int, bool]) -> list[str]:
    """Remarks on unusual input sets that judge less than others, or nothing."""
    remarks = []
    for judges, words in (
        (
            False,
            (
                "judges nothing, since last bits alone make the untouched model give something "
                "else "
                "there"
            ),
        ),
        (True, "held to the untouched model's own noise, which is beyond the bound there"),
    ):
        names = []
        for place, judged in unsteady.items():
            if judged is judges:
                names.append(reference.sets[place].unusual)
        if names:
            remarks.append(f"{words}: {listed(sorted(names))}")
    return remarks


def _is_same(first: Any, second: Any) -> bool:
    """Bit for bit, sequences and maps included."""
    return pickle.dumps(first) == pickle.dumps(second)


def _fits(declared: Sequence[int | str | None], shape: Sequence[int]) -> bool:
    if len(declared) != len(shape):
        return False
    pairs = zip(declared, shape, strict=True)
    return all(not isinstance(size, int) or size == actual for size, actual in pairs)


def _shape_text(shape: Sequence[int | str | None]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def is_of(name: str, output: str) -> bool:
    """Return whether a compared value is a graph output, or nested in it; ``*`` is every output."""
    return output == "*" or name == output or name.startswith(f"{output}[")
