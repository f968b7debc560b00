"""Layer normalizations that are spelt out, of which ONNX Runtime makes one operator.

It takes a Cast before one for the Cast that brings a half type to float32, and drops it: where the
Cast goes the other way, the operator that it makes has inputs of two types, and the session can't
be created (seen in ONNX Runtime 1.32).
"""

from __future__ import annotations

from typing import NamedTuple

from onnx_harness.model.ops import MOVES
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.steps import Step

# What follows the subtraction of the mean: the variance, its root, the quotient, scale and bias.
_FOLLOWS = (
    ("Pow", "Mul"),
    ("ReduceMean",),
    ("Add",),
    ("Sqrt",),
    ("Div",),
    ("Mul",),
    ("Add",),
)


class LayerNorm(NamedTuple):
    """A layer normalization: the value that it normalizes, and its steps.

    The value is the one before what only moves it.
    """

    source: str
    steps: list[Step]


def layer_norms(reading: Reading) -> list[LayerNorm]:
    """Return the layer normalizations that are spelt out, in the order of the graph.

    Args:
        reading: the graphs of the model.
    """
    if "ReduceMean" not in reading.op_types:
        return []
    centred = []
    for step in reading.floating_of({"Sub"}):
        if (mean := _mean_subtracted(reading, step)) is not None:
            centred.append((step, mean))
    if not centred:
        return []
    readers: dict[str, list[Step]] = {}
    for step in reading.floating:
        for name in step.ins:
            readers.setdefault(name, []).append(step)
    chains = [(mean, _chain(step, readers)) for step, mean in centred]
    return [
        LayerNorm(_origin(reading, mean.ins[0]), [mean, *chain])
        for mean, chain in chains
        if len(chain) > 1
    ]


def _mean_subtracted(reading: Reading, step: Step) -> Step | None:
    """Return the step that makes the mean which a step subtracts from the same values.

    It's None where the step subtracts no such mean.
    """
    maker = reading.makers.get(step.ins[1])
    if (
        not isinstance(maker, Step)
        or maker.op != "ReduceMean"
        or maker.ins[0] != step.ins[0]
    ):
        return None
    return maker


def _origin(reading: Reading, name: str) -> str:
    """Return the value of which another one holds elements."""
    maker = reading.makers.get(name)
    while isinstance(maker, Step) and maker.op in MOVES:
        name = maker.ins[0]
        maker = reading.makers.get(name)
    return name


def _chain(centring: Step, readers: dict[str, list[Step]]) -> list[Step]:
    """Return the steps from the subtraction to the sum with the bias.

    The subtraction alone where one isn't there.
    """
    chain = [centring]
    for ops in _FOLLOWS:
        followers = []
        for step in readers.get(chain[-1].outs[0], ()):
            if step.op in ops:
                followers.append(step)
        if not followers:
            return [centring]
        chain.append(followers[0])
    return chain
