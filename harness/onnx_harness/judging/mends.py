"""Mend a conversion to float16 or bfloat16 that fails.

``fp16.mixed`` or ``bf16.mixed`` in its place is tried before it is offered.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness import transforms
from onnx_harness.errors import DiedBefore, NotApplicable, first_line
from onnx_harness.isolate import risking
from onnx_harness.judging.card_options import with_card
from onnx_harness.judging.conversions import conversion_of
from onnx_harness.judging.emulation import half_verdict
from onnx_harness.judging.mixed.account import Effort, Mix
from onnx_harness.judging.mixed.choose import chooser
from onnx_harness.judging.mixed.source import Source
from onnx_harness.judging.standard import Standard
from onnx_harness.model.file import Model
from onnx_harness.names import Step, Variant
from onnx_harness.transforms import Precision
from onnx_harness.transforms.variant import BoundVariant, bind_variant

if TYPE_CHECKING:
    import onnx

    from onnx_harness.transforms import BoundStep

_MIXED = {Precision.FP16: "fp16.mixed", Precision.BF16: "bf16.mixed"}
# A mend is a courtesy within the cell's own time limit: the search gives up nodes no longer than
# this.
_MOST_SECONDS = 20.0
_MOST_BYTES = (
    1 << 28
)  # a larger model takes longer to convert and run once than a person waits for advice
_NAMED = 3
_LISTS = frozenset({"op_block_list", "node_block_list"})


def tried_mend(standard: Standard, variant: BoundVariant, candidate: Model) -> str:
    """Find the nodes that a conversion to a half type has to leave in float32.

    The model that it makes then is verified.

    Meant for the worker, after a cell failed by what the half type makes of its values.

    Args:
        standard: what the outputs are judged by.
        variant: the one that ran.
        candidate: the model that it made.

    Returns:
        A line for the failure's message: the variant that passes and what it keeps, or that none
        was found, and why.
    """
    return mend_of(standard, variant, candidate)[1]


def mend_of(standard: Standard, variant: BoundVariant, candidate: Model) -> tuple[str | None, str]:
    """Return the spelling of the variant that mends such a conversion, and a line on it.

    See `tried_mend`.

    Returns:
        The spelling is None where no mend was found or offered.
    """
    try:
        with risking(f"mend {candidate.sha256[:16]}"):
            return _tried_mend(standard, variant, candidate)
    except DiedBefore as error:
        return None, f"No mend is offered: {error}"
    except NotApplicable as error:
        return None, f"No mend was found: {error}"
    except Exception as error:  # what a transform, onnx and ONNX Runtime raise has no common class
        return None, f"No mend is offered: {first_line(error, 160)}"


def _tried_mend(
    standard: Standard, variant: BoundVariant, candidate: Model
) -> tuple[str | None, str]:
    chain = list(variant.steps)
    halving = []
    for place, step in enumerate(chain):
        if step.transform.precision in _MIXED:
            halving.append(place)
    if not halving:
        return (
            None,
            (
                "No mend is offered: no step of the variant converts to a half type, the model "
                "asks for it itself"
            ),
        )
    at = halving[0]
    mixed = _MIXED[chain[at].transform.precision]
    if not chain[at].transform.options.keys() >= _LISTS:
        return (
            None,
            (
                f"No mend is offered: {chain[at].name} takes no list of what stays float32, as "
                f"{mixed.replace('mixed', 'io32')} does"
            ),
        )
    if chain[at].name == mixed:
        return None, f"No mend is offered: {mixed} is what would be"
    if candidate.size_bytes > _MOST_BYTES or standard.model.size_bytes > 2 * _MOST_BYTES:
        return (
            None,
            f"No mend is offered: the model is too large to try one; --variant {mixed} does",
        )
    if any(step.transform.calibrated for step in chain):
        return None, "No mend is offered: the variant is calibrated as well"
    mended = with_card(bind_variant(_mended(variant.variant, at, mixed)), standard.card)
    mix = _tried(replace(standard, float_io=None, conversion=conversion_of(mended)), mended, at)
    if mix.nodes == mix.of:
        return None, f"No mend was found: {mended.variant.spelling} {mix.keeps()}"
    spelling = mended.variant.spelling
    return spelling, f"mend: `--variant {quoted(spelling)}` {mix.keeps()}{named(mix.names)}"


def _mended(variant: Variant, at: int, mixed: str) -> Variant:
    """Return the variant with the conversion at a place replaced by the one that chooses."""
    step = variant.steps[at]
    allowed = transforms.registry()[mixed].options
    options_allowed = []
    for name, value in step.options:
        if name in allowed:
            options_allowed.append((name, value))
    options = tuple(options_allowed)
    return Variant("", (*variant.steps[:at], Step(mixed, options), *variant.steps[at + 1 :]))


def _tried(standard: Standard, variant: BoundVariant, at: int) -> Mix:
    """Return what the variant's conversion keeps, verified at the end of its chain.

    Raises:
        NotApplicable: nothing was found, or what follows the conversion undoes it.
    """
    mixes: list[Mix] = []
    chain = variant.steps
    with transforms.remarks():  # they were told when the cell's own model was made
        before = _applied(standard.model.load(), chain[:at])
        choose = chooser(standard, lambda _: None, mixes, Effort(_MOST_SECONDS, known_to_fail=True))
        converted = chain[at](before, choose=choose)
        after = _applied(converted, chain[at + 1 :])
    if any(not step.transform.session for step in chain[at + 1 :]):
        with tempfile.TemporaryDirectory(
            prefix="onnx-harness-mend-", ignore_cleanup_errors=True
        ) as folder:
            source = Source(after, Path(folder))
            judged = half_verdict(standard, Model(source.saved(after)))
        if not judged.passed:
            raise NotApplicable(f"{variant.variant.spelling} fails all the same: {judged.reason}")
    return mixes[0]


def _applied(model: onnx.ModelProto, steps: Sequence[BoundStep]) -> onnx.ModelProto:
    """Return the model as those of the steps make it that aren't options of the session."""
    for step in steps:
        if not step.transform.session:
            model = step(model)
    return model


def named(names: Sequence[str]) -> str:
    """Return the first of the nodes that stay, as the end of a sentence."""
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f": {', '.join(repr(name) for name in names[:_NAMED])}{more}"


def quoted(spelling: str) -> str:
    """Return a variant as a shell takes it."""
    return f'"{spelling}"' if "(" in spelling else spelling
