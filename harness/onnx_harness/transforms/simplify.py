"""``simplify``: what is known before a model runs is computed, and nodes that do nothing are removed.

Values keep every bit, but where a normalization or a bias goes into the weights before it: those are rounded anew.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnx_harness.transforms import Transform, detail, parse_shape, remark

if TYPE_CHECKING:
    import onnx

    from onnx_harness.model.graph import Editing

MAX_GROWTH_BYTES = 1 << 20

# Room for conditions and axes.
_THRIFTY_BYTES = 1 << 13

_log = logging.getLogger(__name__)


def simplify(
    model: onnx.ModelProto,
    max_growth_bytes: int = MAX_GROWTH_BYTES,
    overwrite_input_shapes: Sequence[str] = (),
    inline_functions: bool = False,
    in_place: bool = False,
) -> onnx.ModelProto:
    """As ``simplify_with_report``, the model alone; what each rule did is logged, and told by ``onnx-harness``."""
    simplified, report = simplify_with_report(
        model, max_growth_bytes, overwrite_input_shapes, inline_functions, in_place
    )
    told = ", ".join(f"{rule} {times:,}" for rule, times in report.items()) or "nothing to do"
    _log.info("simplify: %s", told)
    detail(f"simplify: {told}")
    return simplified


def simplify_with_report(
    model: onnx.ModelProto,
    max_growth_bytes: int = MAX_GROWTH_BYTES,
    overwrite_input_shapes: Sequence[str] = (),
    inline_functions: bool = False,
    in_place: bool = False,
) -> tuple[onnx.ModelProto, Mapping[str, int]]:
    """Infer shapes, fold what depends on constants alone, merge and remove nodes; repeat until nothing changes.

    Args:
        model: a model that passes ``onnx.checker``; it is not changed but for ``in_place``.
        max_growth_bytes: by how much the model may become larger than it was.
        overwrite_input_shapes: ``"x:1,3,224,224"`` for each input that shall take this shape alone.
        inline_functions: put the bodies of the model's functions where they are called, first, if that fits the limit.
        in_place: let ``model`` become the result, so that no weight is held twice.

    Returns:
        The simplified model, its inputs and outputs as they were but for the shapes overwritten; and how often each
        rule applied, for those that did.

    Raises:
        ValueError: ``max_growth_bytes`` is negative, or a shape can't be read, is of no input or of another rank.
        NotApplicable: the model holds what onnx-ir can't.
    """
    _check(max_growth_bytes, overwrite_input_shapes)

    from onnx_harness.model.collector import collector_paused
    from onnx_harness.model.graph import close_model, footprint, give_names, open_model, tensor_names
    from onnx_harness.model.inlining import inlined_beside
    from onnx_harness.model.types import is_consistent, skeleton_of
    from onnx_harness.transforms.simplification.shapes import overwritten

    def opened(source: onnx.ModelProto) -> Editing:
        give_names(names)
        return open_model(source)

    def closed(editing: Editing) -> onnx.ModelProto:
        result = close_model(editing, in_place)
        if result is not model:
            give_names(names)
        return result

    shapes = [parse_shape(text) for text in overwrite_input_shapes]
    with collector_paused(), overwritten(model, shapes, for_good=in_place):
        names = tensor_names(model)
        sources = [inlined_beside(model), model] if inline_functions and model.functions else [model]
        first: tuple[Editing, Mapping[str, int]] | None = None
        limit: int | None = None
        for source in sources:
            # The more is known of a graph, the more there is that inference may object to: where branches disagree,
            # after a computed shape. It isn't always right, but without its consent no model is valid.
            for inlining in (True, False):
                editing = opened(source)
                before = footprint(editing, source.graph.node)
                if limit is None:
                    whole = before if source is model else footprint(opened(model), model.graph.node)
                    limit = whole + max_growth_bytes
                report = _Rounds(editing, limit - before, inlining).run()
                nodes = (editing.skeleton or skeleton_of(editing)).graph.node
                if footprint(editing, nodes) > limit:
                    break
                first = first or (editing, report)
                if is_consistent(editing):
                    return closed(editing), report
        if first is not None and not is_consistent(opened(model)):
            return closed(first[0]), first[1]
        why = "onnx's shape inference would find it inconsistent" if first else "it would be larger than allowed"
        remark(f"left as it was: once simplified, {why}")
        return closed(opened(model)), {}


class _Rounds:
    """The rules in their order, in rounds, until one changes nothing."""

    def __init__(self, editing: Editing, budget: int, inlining: bool = True) -> None:
        from onnx_harness.model.graph import all_graphs
        from onnx_harness.transforms.simplification.folding import ConstantFolder

        self._editing = editing
        self._folder = ConstantFolder(editing)
        self._budget = budget
        self._inlining = inlining
        # What a branch that is never taken reads isn't free to go: such are to be gone before anything grows.
        self._thrifty = any(node.op_type == "If" for graph in all_graphs(editing.graph) for node in graph)

    def run(self) -> Mapping[str, int]:
        from onnx_harness.transforms.simplification import duplicates

        total: Counter[str] = Counter()
        while True:
            done = self._round()
            # What is dead makes room for nothing.
            settled = not any(times for rule, times in done.items() if rule != "remove dead")
            if settled and self._thrifty:
                self._thrifty = False
                total.update(done)
                continue
            if settled:
                # Comparing weights is slow, and makes room for nothing but more of the same.
                done["merge initializers"] = duplicates.merge_initializers(self._editing, small=False)
                done["merge nodes"] = duplicates.merge_nodes(self._editing, weighted=True)
            total.update(done)
            if settled and not done["merge initializers"] and not done["merge nodes"]:
                return {rule: times for rule, times in total.items() if times}

    def _room(self) -> int:
        return min(self._budget, _THRIFTY_BYTES) if self._thrifty else self._budget

    def _round(self) -> Counter[str]:
        from onnx_harness.model import types
        from onnx_harness.transforms.simplification import (
            bias_and_scale,
            branches,
            chains,
            clamps,
            dimensions,
            duplicates,
            no_ops,
            padding,
            pairs,
            sequences,
        )

        editing = self._editing
        done: Counter[str] = Counter()
        done["lift constants"] = no_ops.lift_constants(editing) + branches.lift_initializers(editing)
        done["inline branches"] = branches.inline_branches(editing) if self._inlining else 0
        done["remove dead"] = no_ops.remove_dead(editing)
        done["merge initializers"] = duplicates.merge_initializers(editing, small=True)
        done["merge nodes"] = duplicates.merge_nodes(editing, weighted=False)
        known = types.infer(editing)
        done["remove nops"] = no_ops.remove_nops(editing, known)
        # A condition that becomes constant here would be inlined by ONNX Runtime instead.
        if self._inlining:
            done["fold dimensions"] = no_ops.fold_sizes(editing, known) + dimensions.fold_dimensions(editing, known)
        done["fold reshapes"] = dimensions.fold_reshapes(editing, known)
        done["merge chains"] = (
            chains.merge_chains(editing, known)
            + chains.drop_empty_parts(editing, known)
            + chains.merge_concats(editing, known)
            + clamps.merge_clamps(editing, known)
        )
        done["merge pairs"] = pairs.merge_pairs(editing, known) + sequences.merge_sequences(editing, known)
        done["fold constants"], growth = self._folder.fold(known, self._room())
        self._budget -= growth
        done["fuse pads"] = padding.fuse_pads(editing, known)
        done["fuse transposes"] = chains.fuse_transposes(editing, known)
        done["fuse affine"], growth = bias_and_scale.fuse_affine(editing, known, self._room())
        self._budget -= growth
        done["fuse matmul"] = bias_and_scale.fuse_matmul_add(editing, known)
        return done


def _apply(model: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    """Simplify; the model may be changed."""
    return simplify(model, **options, in_place=True)


def _check(
    max_growth_bytes: int = MAX_GROWTH_BYTES,
    overwrite_input_shapes: Sequence[str] = (),
    inline_functions: bool = False,  # noqa: ARG001 (either value can be honoured)
) -> None:
    if max_growth_bytes < 0:
        raise ValueError(f"max_growth_bytes is {max_growth_bytes}; it says by how much a model may grow")
    for text in overwrite_input_shapes:
        parse_shape(text)


TRANSFORM = Transform(
    summary="shapes inferred, constants folded, nodes merged or removed that do nothing",
    apply=_apply,
    forms={"simplify": {}},
    options={"max_growth_bytes": int, "overwrite_input_shapes": tuple, "inline_functions": bool},
    keeps_values=True,
    input_shapes="overwrite_input_shapes",
    requires=("onnx-ir",),
    check=_check,
)
