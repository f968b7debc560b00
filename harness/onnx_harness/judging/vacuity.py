"""Tell a comparison that couldn't have failed."""

from __future__ import annotations

from onnx_harness.accuracy.compare import Comparison
from onnx_harness.accuracy.failures import listed
from onnx_harness.inputs.graph.reach import empty_outputs, reached_outputs
from onnx_harness.judging.standard import Standard
from onnx_harness.judging.untouched import is_of


def proves_nothing(
    standard: Standard, comparison: Comparison
) -> tuple[str | None, tuple[str, ...]]:
    """Say why a comparison in which nothing failed couldn't have failed.

    The second item is remarks on what the card accepts.

    Outputs that can't depend on what the inputs hold (there are no inputs, nothing but their shapes
    goes in, or nothing comes out by its shape) are as they have to be, and a case of a suite has
    but one input set.
    """
    card, outputs = standard.card, comparison.record.outputs
    remarks = []
    for name, why in card.vacuous.items():
        mine = [output for output in outputs if is_of(output, name)]
        if mine and not comparison.inert.issuperset(mine):
            remarks.append(
                f"the card's [vacuous] lists {name}, which does react to the inputs: remove the "
                f"line"
            )
        elif mine:
            remarks.append(
                f"accepted by the card: {name} says nothing about the inputs, {why}"
            )
    if card.suite or len(comparison.inert) < len(outputs):
        return None, tuple(remarks)
    reached = reached_outputs(standard.model.skeleton) - empty_outputs(
        standard.model.skeleton
    )
    judged = []
    for name in sorted(comparison.inert):
        if any(is_of(name, output) for output in reached) and not any(
            is_of(name, each) for each in card.vacuous
        ):
            judged.append(name)
    if not judged:
        return None, tuple(remarks)
    reason = (
        f"nothing was compared that could have failed: no output reacts to the inputs "
        f"({listed(judged)}). Put a "
        "recorded input set, a .npz whose keys are the input names, beside the model with its "
        "stem; "
        f'or accept it in the card: [vacuous] {judged[0]} = "why"'
    )
    return reason, tuple(remarks)
