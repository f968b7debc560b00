"""``simplify``: constants folded and nodes that do nothing removed, with every remaining value as it was to the bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.transforms import Transform

if TYPE_CHECKING:
    import onnx

MAX_GROWTH_BYTES = 1 << 20


def simplify(model: onnx.ModelProto, max_growth_bytes: int = MAX_GROWTH_BYTES) -> onnx.ModelProto:
    """Infer shapes, fold what depends on constants alone, remove what does nothing; repeat until nothing changes.

    Args:
        model: a model that passes ``onnx.checker``; it is not changed.
        max_growth_bytes: by how much folding may make the model larger than it was.

    Returns:
        The simplified model, its inputs and outputs as they were.

    Raises:
        ValueError: ``max_growth_bytes`` is negative.
        NotApplicable: the model holds what onnx-ir can't.
    """
    _check(max_growth_bytes)

    from harness.transforms.surgery import rules
    from harness.transforms.surgery.editing import close_model, open_model
    from harness.transforms.surgery.facts import infer
    from harness.transforms.surgery.folding import ConstantFolder

    editing = open_model(model)
    folder = ConstantFolder(editing)
    budget = max_growth_bytes
    while True:
        changes = rules.lift_constants(editing) + rules.remove_dead(editing)
        facts = infer(editing)
        changes += rules.remove_nops(editing, facts) + rules.fold_shapes(editing, facts)
        folded, growth = folder.fold(facts, budget)
        budget -= growth
        if not changes + folded:
            return close_model(editing)


def _check(max_growth_bytes: int = MAX_GROWTH_BYTES) -> None:
    if max_growth_bytes < 0:
        raise ValueError(f"max_growth_bytes is {max_growth_bytes}; it says by how much a model may grow")


TRANSFORM = Transform(
    summary="shapes inferred, constants folded, nodes that do nothing removed",
    apply=simplify,
    forms={"simplify": {}},
    options={"max_growth_bytes": int},
    requires=("onnx-ir",),
    check=_check,
)
