"""Turn a card's words on every conversion into options of the steps that convert."""

from __future__ import annotations

from dataclasses import replace

from onnx_harness.cards.card import Card
from onnx_harness.names import OptionValue
from onnx_harness.transforms import BoundStep, Precision
from onnx_harness.transforms.variant import BoundVariant

_NODES = "node_block_list"


def with_card(bound: BoundVariant, card: Card) -> BoundVariant:
    """Return a variant whose conversions to float16 leave in float32 what the card says.

    Those of a suite's case are done even where nothing is converted.

    Args:
        bound: the variant.
        card: the model's.
    """
    if card.suite:
        # One operator, of integers perhaps: that its conversion leaves it right is the question.
        bound = replace(bound, steps=tuple(map(even_in_vain, bound.steps)))
    if not card.keep_float32:
        return bound
    return replace(
        bound, steps=tuple(_with_nodes(step, card.keep_float32) for step in bound.steps)
    )


def takes_nodes(step: BoundStep) -> bool:
    """Decide whether a step converts to float16 and takes a list of nodes to leave in float32."""
    return step.transform.precision is Precision.FP16 and _NODES in step.transform.options


def even_in_vain(step: BoundStep) -> BoundStep:
    """Return a step that also converts where nothing is to be converted."""
    transform = step.transform
    if (
        transform.precision not in (Precision.FP16, Precision.BF16)
        or transform.parts is None
    ):
        return step
    return replace(step, options=dict(transform.parts.without(step.options, ())))


def _with_nodes(step: BoundStep, names: tuple[str, ...]) -> BoundStep:
    if not takes_nodes(step):
        return step
    own = step.options.get(_NODES, ())
    listed = tuple(dict.fromkeys((*(own if isinstance(own, tuple) else ()), *names)))
    # What comes before the conversion may have taken nodes away: it remarks on those that it
    # doesn't find.
    options: dict[str, OptionValue] = {**step.options, _NODES: listed, "allow_missing": True}
    return replace(step, options=options)
