"""``simplify``: what is known before a model runs is computed.

Nodes that do nothing are removed.

Values keep every bit, but where a normalization or a bias goes into the weights before it: those
are rounded anew. Rewrites that would change more stay out, such as those of a MatMul whose bias is
computed, of a Softmax and a Log, or of what only an ArgMax reads.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness.errors import did_you_mean
from onnx_harness.transforms import Parts, Transform, detail, parse_shape
from onnx_harness.transforms.passes import NAMES as PASSES
from onnx_harness.transforms.simplification.rule_names import RULES

if TYPE_CHECKING:
    import onnx

MAX_GROWTH_BYTES = 1 << 20

Shapes = Sequence[str] | Mapping[str, Sequence[int]]

_log = logging.getLogger(__name__)


def simplify(
    model: onnx.ModelProto | str | Path,
    max_growth_bytes: int = MAX_GROWTH_BYTES,
    overwrite_input_shapes: Shapes = (),
    inline_functions: bool = True,
    in_place: bool = False,
    *,
    skip_fuse_bn: bool = False,
    skipped_optimizers: Sequence[str] | None = None,
    skip_constant_folding: bool = False,
    unused_output: Sequence[str] | None = None,
    check_n: int = 0,
) -> onnx.ModelProto:
    """As ``simplify_with_report``, the model alone.

    What each rule did is logged, and printed by ``onnx-harness``.

    Args:
        model: as there, or the path of its file.
        max_growth_bytes: as there.
        overwrite_input_shapes: as there.
        inline_functions: as there.
        in_place: as there.
        skip_fuse_bn: as there.
        skipped_optimizers: as there.
        skip_constant_folding: as there.
        unused_output: names of outputs that the result shall not have.
        check_n: on how many drawn inputs to compare the result with the original, within rtol 1e-4
            and atol 1e-5.

    Raises:
        ValueError: as there; ``unused_output`` names no output, or all; or ``check_n`` found a
            difference.
    """
    from onnx_harness.transforms.simplification import drop_in

    if check_n < 0:
        raise ValueError(
            f"check_n is {check_n}; it says how often to compare the result with the original"
        )
    source = drop_in.loaded(model)
    is_ours = in_place or source is not model
    whole = drop_in.without_outputs(source, unused_output or (), is_ours)
    simplified, report = simplify_with_report(
        whole,
        max_growth_bytes,
        overwrite_input_shapes,
        inline_functions,
        in_place and not check_n,
        skip_fuse_bn=skip_fuse_bn,
        skipped_optimizers=skipped_optimizers,
        skip_constant_folding=skip_constant_folding,
    )
    _tell(report)
    if check_n:
        shapes = _parsed(overwrite_input_shapes)
        wrong = drop_in.differences(whole, simplified, check_n, shapes)
        if wrong:
            raise ValueError(f"the simplified model doesn't hold: {'; '.join(wrong)}")
    return simplified


def _tell(report: Mapping[str, int]) -> None:
    """Log how often each rule applied."""
    applied = ", ".join(f"{rule} {times:,}" for rule, times in report.items())
    changes = applied or "nothing to do"
    _log.info("simplify: %s", changes)
    detail(f"simplify: {changes}")


def simplify_as_onnxsim(
    model: onnx.ModelProto | str | Path,
    check_n: int = 0,
    perform_optimization: bool = True,
    skip_fuse_bn: bool = False,
    overwrite_input_shapes: Shapes | None = None,
    test_input_shapes: Mapping[str, Sequence[int]] | None = None,
    skipped_optimizers: Sequence[str] | None = None,
    skip_constant_folding: bool = False,
    skip_shape_inference: bool = False,  # noqa: ARG001 (in onnxsim's order; without effect here)
    input_data: Mapping[str, Any] | None = None,
    dynamic_input_shape: bool = False,  # noqa: ARG001
    custom_lib: str | None = None,
    include_subgraph: bool = False,  # noqa: ARG001
    unused_output: Sequence[str] | None = None,
    *,
    check_rtol: float = 1e-4,
    check_atol: float = 1e-5,
    inline_functions: bool = True,
    output_path: str | None = None,
    max_growth_bytes: int = MAX_GROWTH_BYTES,
    **others: Any,
) -> tuple[onnx.ModelProto, bool]:
    """Simplify as ``onnxsim.simplify`` is called, for code that follows it with ``assert ok``.

    The arguments are onnxsim's, in its order, and ``max_growth_bytes``. ``skip_shape_inference``,
    ``dynamic_input_shape`` and ``include_subgraph`` have no effect. ``others`` is what else onnxsim
    takes, as long as it asks for nothing that isn't done here.

    Returns:
        The simplified model, and whether it passes the full checker and a comparison asked for.

    Raises:
        ValueError: an argument can't be honoured, or the original doesn't run on drawn inputs.
        TypeError: there's no such argument.
    """
    from onnx_harness.model.custom_ops import custom_operators
    from onnx_harness.model.saving import save
    from onnx_harness.transforms.simplification import drop_in
    from onnx_harness.transforms.simplification.rounds import FOLDING

    drop_in.refuse_unknown(others)
    source = drop_in.loaded(model)
    whole = drop_in.without_outputs(source, unused_output or (), source is not model)
    skipped = [*(skipped_optimizers or ())]
    if not perform_optimization:
        skipped += [rule for rule in RULES if rule not in FOLDING]
    shapes = overwrite_input_shapes or ()
    drawn = (test_input_shapes or {}, input_data or {})
    sample = drop_in.Sample(*drawn, check_rtol, check_atol)
    with custom_operators([Path(custom_lib)] if custom_lib else []):
        simplified, _ = simplify_with_report(
            whole, max_growth_bytes, shapes, inline_functions,
            skip_fuse_bn=skip_fuse_bn, skipped_optimizers=skipped,
            skip_constant_folding=skip_constant_folding,
        )  # fmt: skip
        if output_path is not None:
            save(simplified, Path(output_path))
        return simplified, drop_in.holds(whole, simplified, check_n, _parsed(shapes), sample)


def simplify_with_report(
    model: onnx.ModelProto,
    max_growth_bytes: int = MAX_GROWTH_BYTES,
    overwrite_input_shapes: Shapes = (),
    inline_functions: bool = True,
    in_place: bool = False,
    *,
    skip_fuse_bn: bool = False,
    skipped_optimizers: Sequence[str] | None = None,
    skip_constant_folding: bool = False,
) -> tuple[onnx.ModelProto, Mapping[str, int]]:
    """Infer shapes, fold what depends on constants alone, merge and remove nodes.

    Repeat until nothing changes.

    A rule in which a library raises is left out, and a model that onnx-ir can't read is left as it
    was; both are remarked, as is a model that grows by more than 1%.

    Args:
        model: a model that passes ``onnx.checker``; it is not changed but for ``in_place``.
        max_growth_bytes: by how much the model may become larger than it was.
        overwrite_input_shapes: ``"x:1,3,224,224"`` for each input that shall take this shape alone,
            or a shape by the name of the input.
        inline_functions: put the bodies of the model's functions where they are called, first, if
            that fits the limit; not of those in a domain that ONNX Runtime has kernels for.
        in_place: let ``model`` become the result, so that no weight is held twice.
        skip_fuse_bn: keep batch normalization apart from the convolution before it.
        skipped_optimizers: rules to leave out, by the names that the report gives them, or passes
            of onnxoptimizer: of those, the rule that does what the pass does.
        skip_constant_folding: compute nothing beforehand.

    Returns:
        The simplified model, its inputs and outputs as they were but for the shapes overwritten;
        and how often each rule applied, for those that did.

    Raises:
        ValueError: ``max_growth_bytes`` is negative, a rule isn't known, or a shape can't be read,
            is of no input or of another rank.
        NotApplicable: the model holds what onnx-ir can't.
    """
    _check(
        max_growth_bytes,
        overwrite_input_shapes,
        inline_functions,
        skip_fuse_bn,
        skipped_optimizers,
    )

    from onnx_harness.model.collector import collector_paused
    from onnx_harness.transforms.simplification.attempts import Attempts
    from onnx_harness.transforms.simplification.shapes import overwritten

    skipped = _skipped(skipped_optimizers or (), skip_fuse_bn, skip_constant_folding)
    shapes = _parsed(overwrite_input_shapes)
    with collector_paused(), overwritten(model, shapes, for_good=in_place):
        attempts = Attempts(model, max_growth_bytes, in_place, forgets_shapes=bool(shapes))
        return attempts.run(skipped, inline_functions)


def _skipped(
    optimizers: Sequence[str], skip_fuse_bn: bool, skip_constant_folding: bool
) -> set[str]:
    """Return the rules to leave out."""
    from onnx_harness.transforms.simplification.rounds import (
        FOLDING,
        FUSE_NORMALIZATIONS,
        rule_of,
    )

    skipped = set()
    for rule in map(rule_of, optimizers):
        if rule is not None:
            skipped.add(rule)
    if skip_fuse_bn:
        skipped.add(FUSE_NORMALIZATIONS)
    if skip_constant_folding:
        skipped.update(FOLDING)
    return skipped


def _parsed(shapes: Shapes) -> list[tuple[str, tuple[int, ...]]]:
    """The shapes by name, however they're written."""
    if isinstance(shapes, Mapping):
        return [(name, tuple(int(size) for size in dims)) for name, dims in shapes.items()]
    return [parse_shape(text) for text in shapes]


def _apply(model: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    """Simplify; the model may be changed."""
    return simplify(model, **options, in_place=True)


def _check(
    max_growth_bytes: int = MAX_GROWTH_BYTES,
    overwrite_input_shapes: Shapes = (),
    inline_functions: bool = True,  # noqa: ARG001 (either value can be honoured)
    skip_fuse_bn: bool = False,  # noqa: ARG001
    skipped_optimizers: Sequence[str] | None = None,
    skip_constant_folding: bool = False,  # noqa: ARG001
) -> None:
    if max_growth_bytes < 0:
        raise ValueError(
            f"max_growth_bytes is {max_growth_bytes}; it says by how much a model may grow"
        )
    _parsed(overwrite_input_shapes)
    names = (*RULES, *PASSES)
    for name in skipped_optimizers or ():
        if name not in names:
            hint = did_you_mean(name, names, most=20)
            raise ValueError(
                f"skipped_optimizers: '{name}' is no rule of simplify and no pass of "
                f"onnxoptimizer. {hint}"
            )


def _parts(model: onnx.ModelProto, options: Mapping[str, Any]) -> Sequence[str]:  # noqa: ARG001
    from onnx_harness.transforms.simplification.rounds import rule_of

    skipped = {rule_of(name) for name in options.get("skipped_optimizers", ())}
    return tuple(rule for rule in RULES if rule not in skipped)


def _without(options: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    return {
        **options,
        "skipped_optimizers": (*options.get("skipped_optimizers", ()), *names),
    }


TRANSFORM = Transform(
    summary="shapes inferred, constants folded, nodes merged or removed that do nothing",
    apply=_apply,
    forms={"simplify": {}},
    options={
        "max_growth_bytes": int,
        "overwrite_input_shapes": tuple,
        "inline_functions": bool,
        "skip_fuse_bn": bool,
        "skipped_optimizers": tuple,
        "skip_constant_folding": bool,
    },
    keeps_values=True,
    input_shapes="overwrite_input_shapes",
    requires=("onnx-ir",),
    check=_check,
    parts=Parts("rule", _parts, _without),
)
