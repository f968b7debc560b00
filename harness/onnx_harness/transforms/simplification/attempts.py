"""Try ``simplify`` in steps that ask for less and less.

They end where its result is valid and no larger than allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx

from onnx_harness.errors import NotApplicable
from onnx_harness.model.graph import (
    Editing,
    close_model,
    footprint,
    give_names,
    open_model,
    tensor_names,
)
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.ops import STANDARD_DOMAINS
from onnx_harness.model.types import conflicting_outputs, is_consistent, skeleton_of
from onnx_harness.transforms import remark
from onnx_harness.transforms.simplification.dimensions import hiding_shapes
from onnx_harness.transforms.simplification.functions import fold_functions
from onnx_harness.transforms.simplification.rounds import (
    FOLDING,
    INLINING,
    Rounds,
    RuleFailed,
)
from onnx_harness.transforms.simplification.rule_names import RULES
from onnx_harness.transforms.simplification.shapes import forget_shapes

# A model that grows by more than this share of its size says so.
_REMARKED_GROWTH = 0.01

# Functions of these stand for operators that a runtime has kernels of: a call is more than its
# body.
_RUNTIME_DOMAINS = (*STANDARD_DOMAINS, "ai.onnx.ml", "com.microsoft")

_ATTEMPTS = ("know all", "hide shapes", "know less")

Result = tuple[onnx.ModelProto, Mapping[str, int]]


class Attempts:
    """The ways of simplifying one model.

    Args:
        model: the model.
        max_growth_bytes: by how much it may become larger.
        in_place: let it become the result.
        forgets_shapes: what it declares of computed values is no longer so.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        max_growth_bytes: int,
        in_place: bool,
        forgets_shapes: bool,
    ) -> None:
        self._model = model
        self._growth = max_growth_bytes
        self._in_place = in_place
        self._forgets_shapes = forgets_shapes
        self._names = tensor_names(model)

    def run(self, skipped: Collection[str], inlines: bool) -> Result:
        """Simplify without the ``skipped`` rules, and without those in which a library raises."""
        left_out = set(skipped)
        while True:
            try:
                return self._placed(self._simplified(left_out, inlines))
            except RuleFailed as failure:
                if failure.rule in left_out:
                    return self._unchanged(str(failure))
                left_out.add(failure.rule)
                remark(f"simplify's rule '{failure.rule}' was left out: {failure.why}")
            except NotApplicable:
                raise
            except (
                Exception
            ) as error:  # what onnx-ir raises about a model that the checker lets pass
                return self._unchanged(
                    f"onnx-ir can't hold the model ({type(error).__name__}: {error})"
                )

    def _placed(self, result: Result) -> Result:
        """Return the result, in the model itself where that is to become it.

        Inlining its functions has made another one.
        """
        model, report = result
        if not self._in_place or model is self._model:
            return result
        self._model.CopyFrom(model)
        return self._model, report

    def _simplified(self, skipped: set[str], inlines: bool) -> Result:
        model = self._model
        sources = [model]
        if inlines and model.functions:
            kept = set()
            for function in model.functions:
                if function.domain in _RUNTIME_DOMAINS:
                    kept.add(function.name)
            sources = [inline_functions(model, kept), model]
        tried: list[tuple[Editing, Mapping[str, int]]] = []
        # Opening a small model takes as long as all rules together: the first attempt takes this.
        untouched = self._opened(model)
        size = footprint(untouched, model.graph.node)
        ready = [untouched] if sources == [model] else []
        limit = size + self._growth
        for source in sources:
            # The more is known of a graph, the more there is that inference may object to: where
            # branches disagree, after a computed shape. It isn't always right, but without its
            # consent no model is valid.
            opaque: frozenset[str] = frozenset()
            for attempt in _ATTEMPTS:
                if attempt == "hide shapes" and not opaque:
                    continue
                editing = ready.pop() if ready else self._opened(source)
                editing.opaque = opaque if attempt == "hide shapes" else frozenset()
                before = footprint(editing, source.graph.node)
                fewer = INLINING if attempt == "know less" else ()
                report = Rounds(editing, limit - before, {*skipped, *fewer}).run()
                nodes = (editing.skeleton or skeleton_of(editing)).graph.node
                after = footprint(editing, nodes)
                if after > limit:
                    break
                tried.append((editing, report))
                if is_consistent(editing):
                    return self._finished(editing, report, size, after, skipped)
                opaque = hiding_shapes(self._opened(source), conflicting_outputs(editing))
        if tried and not is_consistent(self._opened(model)):
            # Nothing is lost, as long as who takes the model takes the result.
            is_taken = is_consistent(self._opened(model), follow_sizes=False)
            for editing, report in tried:
                if not is_taken or is_consistent(editing, follow_sizes=False):
                    return self._closed(editing), report
        why = (
            "onnx's shape inference would find it inconsistent"
            if tried
            else "it would be larger than allowed"
        )
        return self._unchanged(f"once simplified, {why}", through_ir=True)

    def _finished(
        self,
        editing: Editing,
        report: Mapping[str, int],
        before: int,
        after: int,
        skipped: Collection[str],
    ) -> Result:
        result = self._closed(editing)
        room = before + self._growth - after
        if result.functions and not set(FOLDING) <= set(skipped):
            size = sum(function.ByteSize() for function in result.functions)
            folded = fold_functions(result, room, _simplify_constants)
            after += sum(function.ByteSize() for function in result.functions) - size
            report = {**report, "fold functions": folded} if folded else report
        if after > before * (1 + _REMARKED_GROWTH):
            remark(
                f"the model grew from {before:,} to {after:,} bytes; max_growth_bytes bounds that"
            )
        return result, report

    def _unchanged(self, why: str, through_ir: bool = False) -> Result:
        remark(f"left as it was: {why}")
        if through_ir:
            return self._closed(self._opened(self._model)), {}
        give_names(self._names)
        if self._in_place:
            return self._model, {}
        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        return copy, {}

    def _opened(self, source: onnx.ModelProto) -> Editing:
        give_names(self._names)
        editing = open_model(source)
        if self._forgets_shapes:
            forget_shapes(editing)
        return editing

    def _closed(self, editing: Editing) -> onnx.ModelProto:
        result = close_model(editing, self._in_place)
        if result is not self._model:
            give_names(self._names)
        return result


def _simplify_constants(model: onnx.ModelProto, budget: int) -> onnx.ModelProto:
    """Simplify a model without inputs: within the budget, nothing but constants is left."""
    editing = open_model(model)
    Rounds(
        editing, budget, [rule for rule in RULES if rule.startswith(("merge", "fuse"))]
    ).run()
    return close_model(editing)
