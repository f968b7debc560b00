"""The rules of ``simplify`` in their order, in rounds, until one changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import partial

from onnx_harness.model import types
from onnx_harness.model.graph import Editing, all_graphs
from onnx_harness.transforms.simplification import (
    bias_and_scale,
    branches,
    chains,
    clamps,
    concats,
    constants,
    detours,
    dimensions,
    duplicates,
    idle,
    no_ops,
    padding,
    pairs,
    pieces,
    products,
    ranks,
    scalars,
    scale_before,
    sequences,
)
from onnx_harness.transforms.simplification.folding import ConstantFolder
from onnx_harness.transforms.simplification.rule_names import RULES

# Room for conditions and axes.
_THRIFTY_BYTES = 1 << 13

FUSE_NORMALIZATIONS = "fuse normalizations"
FOLDING = ("fold constants", "fold dimensions")
INLINING = ("inline branches", "fold dimensions")
# Rules that are tried again once nothing else applies.
_LAST = ("merge initializers", "merge nodes", "merge products")
# What a pass of onnxoptimizer does here. Those that aren't listed do what no rule does.
_RULE_OF_PASS = {
    "eliminate_common_subexpression": "merge nodes",
    "eliminate_consecutive_idempotent_ops": "merge chains",
    "eliminate_deadend": "remove dead",
    "eliminate_duplicate_initializer": "merge initializers",
    "eliminate_identity": "remove nops",
    "eliminate_if_with_const_cond": "inline branches",
    "eliminate_shape_gather": "fold dimensions",
    "eliminate_shape_op": "fold dimensions",
    "eliminate_slice_after_shape": "fold dimensions",
    "eliminate_unused_initializer": "remove dead",
    "extract_constant_to_initializer": "lift constants",
    "fuse_add_bias_into_conv": "fuse affine",
    "fuse_bn_into_conv": FUSE_NORMALIZATIONS,
    "fuse_concat_into_reshape": "fold reshapes",
    "fuse_consecutive_concats": "merge chains",
    "fuse_consecutive_reduce_unsqueeze": "merge pairs",
    "fuse_consecutive_slices": "merge chains",
    "fuse_consecutive_squeezes": "merge chains",
    "fuse_consecutive_transposes": "merge chains",
    "fuse_consecutive_unsqueezes": "merge chains",
    "fuse_matmul_add_bias_into_gemm": "fuse matmul",
    "fuse_pad_into_conv": "fuse pads",
    "fuse_pad_into_pool": "fuse pads",
    "fuse_qkv": "merge products",
    "fuse_transpose_into_gemm": "fuse transposes",
    "rewrite_where": "merge pairs",
}


_PAIRS = (
    pairs.merge_pairs,
    sequences.merge_sequences,
    pieces.merge_pieces,
    detours.narrow_operands,
    detours.undo_reshapes,
)


class RuleFailed(Exception):
    """A rule raised what it shouldn't have; the graph is spoilt."""

    def __init__(self, rule: str, why: str) -> None:
        super().__init__(f"{rule}: {why}")
        self.rule = rule
        self.why = why


def rule_of(name: str) -> str | None:
    """The rule of that name, or that does what the pass of onnxoptimizer of that name does.

    None without any.
    """
    if name in RULES:
        return name
    return "remove nops" if name.startswith("eliminate_nop_") else _RULE_OF_PASS.get(name)


class Rounds:
    """The rules in their order, in rounds, until one changes nothing.

    Args:
        editing: the graph.
        budget: bytes by which it may grow.
        skipped: rules to leave out.
    """

    def __init__(self, editing: Editing, budget: int, skipped: Collection[str] = ()) -> None:
        self._editing = editing
        self._folder = ConstantFolder(editing)
        self._budget = budget
        self._skipped = frozenset(skipped)
        # What a branch that is never taken reads isn't free to go: such are to be gone before
        # anything grows.
        self._thrifty = any(
            node.op_type == "If" for graph in all_graphs(editing.graph) for node in graph
        )

    def run(self) -> Mapping[str, int]:
        """Apply the rules; how often each did, for those that did.

        Raises:
            RuleFailed: a library raised in one of them.
        """
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
                self._apply(
                    done,
                    "merge initializers",
                    lambda: duplicates.merge_initializers(self._editing, False),
                )
                self._apply(
                    done,
                    "merge nodes",
                    lambda: duplicates.merge_nodes(self._editing, weighted=True),
                )
                # Each alone may take in what comes after, which is fewer nodes still.
                self._apply(
                    done,
                    "merge products",
                    lambda: self._spend(
                        *products.merge_products(self._editing, self._room())
                    ),
                )
            total.update(done)
            if settled and not any(done[rule] for rule in _LAST):
                return {rule: times for rule, times in total.items() if times}

    def _round(self) -> Counter[str]:
        editing = self._editing
        done: Counter[str] = Counter()

        def apply(rule: str, *functions: Callable[[], int]) -> None:
            for function in functions:
                self._apply(done, rule, function)

        apply(
            "lift constants",
            lambda: constants.lift_constants(editing),
            lambda: branches.lift_initializers(editing),
        )
        apply("inline branches", lambda: branches.inline_branches(editing))
        apply("remove dead", lambda: no_ops.remove_dead(editing))
        apply(
            "merge initializers", lambda: duplicates.merge_initializers(editing, small=True)
        )
        apply("merge nodes", lambda: duplicates.merge_nodes(editing, weighted=False))
        known = types.infer(editing)
        apply("inline branches", lambda: ranks.drop_impossible_branches(editing, known))
        apply(
            "remove nops",
            lambda: no_ops.remove_nops(editing, known),
            lambda: idle.remove_idle(editing, known),
        )
        apply(
            "fold dimensions",
            lambda: no_ops.fold_sizes(editing, known),
            lambda: dimensions.fold_dimensions(editing, known),
        )
        apply("fold reshapes", lambda: dimensions.fold_reshapes(editing, known))
        apply(
            "merge chains",
            lambda: chains.merge_chains(editing, known),
            lambda: concats.drop_empty_parts(editing, known),
            lambda: concats.merge_concats(editing, known),
            lambda: clamps.merge_clamps(editing, known),
        )
        apply("merge pairs", *(partial(merge, editing, known) for merge in _PAIRS))
        apply(
            "fold constants",
            lambda: scalars.make_limits_scalars(editing),
            lambda: self._spend(*self._folder.fold(known, self._room())),
        )
        apply("fuse pads", lambda: padding.fuse_pads(editing, known))
        apply("fuse transposes", lambda: chains.fuse_transposes(editing, known))
        normalizes = FUSE_NORMALIZATIONS not in self._skipped
        apply(
            "fuse affine",
            lambda: self._spend(
                *bias_and_scale.fuse_affine(editing, known, self._room(), normalizes)
            ),
            lambda: scale_before.fuse_scales_before(editing, known),
        )
        apply("fuse matmul", lambda: bias_and_scale.fuse_matmul_add(editing, known))
        return done

    def _apply(self, done: Counter[str], rule: str, function: Callable[[], int]) -> None:
        if rule in self._skipped:
            return
        try:
            done[rule] += function()
        except (
            Exception
        ) as error:  # whatever a library raises about a model that its checker lets pass
            raise RuleFailed(rule, f"{type(error).__name__}: {error}") from error

    def _spend(self, times: int, growth: int) -> int:
        self._budget -= growth
        return times

    def _room(self) -> int:
        return min(self._budget, _THRIFTY_BYTES) if self._thrifty else self._budget
