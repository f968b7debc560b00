"""Mend a conversion to float16 or bfloat16 that fails.

``fp16.mixed`` or ``bf16.mixed`` in its place is tried before it is offered.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_harness
from onnx_harness import transforms
from onnx_harness.errors import DiedBefore, NotApplicable, first_line
from onnx_harness.isolate import risking
from onnx_harness.judging.card_options import with_card
from onnx_harness.judging.conversions import conversion_of
from onnx_harness.judging.emulation import half_verdict
from onnx_harness.judging.mixed.account import Effort, Mix
from onnx_harness.judging.mixed.choose import chooser
from onnx_harness.judging.mixed.source import Source
from onnx_harness.judging.reference import runtime_key
from onnx_harness.judging.standard import Standard, key_of
from onnx_harness.model.file import Model
from onnx_harness.names import Step, Variant
from onnx_harness.results.cache import source_digest
from onnx_harness.results.codec import as_json
from onnx_harness.transforms import Precision
from onnx_harness.transforms.variant import BoundVariant, bind_variant

if TYPE_CHECKING:
    import onnx

    from onnx_harness.transforms import BoundStep

_MIXED = {Precision.FP16: "fp16.mixed", Precision.BF16: "bf16.mixed"}
# A mend is a courtesy within the cell's own time limit: the search gives up nodes no longer than
# this.
_MOST_SECONDS = 20.0
# A larger model takes longer to convert and run once than a person waits for advice.
_MOST_BYTES = 1 << 28
_NAMED = 3
_LISTS = frozenset({"op_block_list", "node_block_list"})


@dataclass(frozen=True, slots=True)
class Mend:
    """A variant that passes in the place of one that fails.

    Attributes:
        spelling: as a command line takes it.
        line: on it, for the failure's message.
    """

    spelling: str
    line: str


class _NoMend(Exception):
    """There is none; its text is the line that says why. Another search may find one."""


def tried_mend(standard: Standard, variant: BoundVariant, candidate: Model) -> str:
    """Find the nodes that a conversion to a half type has to leave in float32.

    The model that it makes then is verified.

    Meant for the worker, after a cell failed by what the half type makes of its values.

    Args:
        standard: what the outputs are judged by.
        variant: the one that ran.
        candidate: the model that it made; the untouched one where it made none.

    Returns:
        A line for the failure's message: the variant that passes and what it keeps, or that none
        was found, and why.
    """
    return mend_of(standard, variant, candidate)[1]


def mend_of(
    standard: Standard, variant: BoundVariant, candidate: Model
) -> tuple[str | None, str]:
    """Return the spelling of the variant that mends such a conversion, and a line on it.

    See `tried_mend`. One that was found is kept: what fails tonight fails tomorrow.

    Returns:
        The spelling is None where no mend was found or offered.
    """

    def find() -> Mend:
        with risking(f"mend {candidate.sha256[:16]}"):
            spelling, line = _tried_mend(standard, variant, candidate)
        if spelling is None:
            raise _NoMend(line)
        return Mend(spelling, line)

    try:
        mend = standard.kept.remember(
            "mend", _key(standard, variant, candidate), find, as_json(Mend)
        )
        return mend.spelling, mend.line
    except _NoMend as none:
        return None, str(none)
    except DiedBefore as error:
        return None, f"No mend is offered: {error}"
    except NotApplicable as error:
        return None, f"No mend was found: {error}"
    except Exception as error:
        # What a transform, onnx and ONNX Runtime raise has no common class.
        return None, f"No mend is offered: {first_line(error, 160)}"


def _key(standard: Standard, variant: BoundVariant, candidate: Model) -> str:
    """Return the key of all that a mend depends on."""
    return standard.kept.key(
        standard.model.sha256,
        candidate.sha256,
        variant.variant.spelling,
        key_of(standard),
        standard.card.keep_float32,
        onnx_harness.__version__,
        runtime_key(),
        source_digest(),
    )


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
    if chain[at].name == mixed:
        return None, f"No mend is offered: {mixed} is what would be"
    if candidate.size_bytes > _MOST_BYTES or standard.model.size_bytes > 2 * _MOST_BYTES:
        return (
            None,
            f"No mend is offered: the model is too large to try one; --variant {mixed} does",
        )
    if any(step.transform.calibrated for step in chain):
        return None, "No mend is offered: the variant is calibrated as well"
    if not is_of_library(chain[at]):
        return _with_choice(standard, variant, at, mixed, known_to_fail=True)
    # A library's own conversion: ours, as it is, may be all that is missing.
    return _in_place_of_library(standard, variant, at, mixed)


def is_of_library(step: BoundStep) -> bool:
    """Return whether a step is a conversion to a half type that takes no lists, as ours do."""
    transform = step.transform
    return transform.precision in _MIXED and not transform.options.keys() >= _LISTS


def _in_place_of_library(
    standard: Standard,
    variant: BoundVariant,
    at: int,
    mixed: str,
) -> tuple[str | None, str]:
    """Return our conversion in the place of one that takes no lists.

    It has no list of nodes where it's right without one. Its inputs and outputs are of the types
    that the other one left them in, where one of ours does the same.
    """
    if variant.float_io is not None:
        plain = _plain_half(standard, variant, at, mixed.removesuffix(".mixed"))
        if plain is not None:
            return plain, _passes(plain)
    return _with_choice(standard, variant, at, mixed, known_to_fail=False)


def _with_choice(
    standard: Standard,
    variant: BoundVariant,
    at: int,
    mixed: str,
    *,
    known_to_fail: bool,
) -> tuple[str | None, str]:
    """Return the conversion that chooses what stays float32, or ours without where nothing has to.

    Args:
        standard: what the outputs are judged by.
        variant: the one that failed.
        at: the place of its conversion.
        mixed: the conversion that chooses.
        known_to_fail: it's known that something has to stay.
    """
    mended = with_card(bind_variant(_replaced(variant.variant, at, mixed)), standard.card)
    effort = Effort(_MOST_SECONDS, known_to_fail=known_to_fail)
    judging = replace(standard, float_io=None, conversion=conversion_of(mended))
    mix = _tried(judging, mended, at, effort)
    if mix.nodes == mix.of:
        return None, f"No mend was found: {mended.variant.spelling} {mix.keeps()}"
    if not known_to_fail and not mix.names:
        whole = mixed.replace("mixed", "io32")
        plain = spelled(_replaced(variant.variant, at, whole))
        return plain, _passes(plain)
    spelling = mended.variant.spelling
    words = f"mend: `--variant {quoted(spelling)}` {mix.keeps()}{named(mix.names)}"
    return spelling, words


def _plain_half(
    standard: Standard,
    variant: BoundVariant,
    at: int,
    name: str,
) -> str | None:
    """Return the variant with our conversion of that name, where that alone is right.

    It leaves inputs and outputs in the half type, as the conversion in its place does.
    """
    replacing = with_card(bind_variant(_replaced(variant.variant, at, name)), standard.card)
    if replacing.float_io != variant.float_io:
        return None
    try:
        with transforms.remarks():
            converted = _applied(standard.model.load(), replacing.steps)
        _verify(replace(standard, conversion=conversion_of(replacing)), replacing, converted)
    except NotApplicable:
        return None
    return spelled(replacing.variant)


def _passes(spelling: str) -> str:
    return f"mend: `--variant {quoted(spelling)}` passes, and has no list of nodes to keep"


def spelled(variant: Variant) -> str:
    """Return a variant as a command line takes it, where its name may be a group's as well."""
    groups: set[str] = set()
    for transform in transforms.registry().values():
        groups.update(transform.groups)
    spelling = variant.spelling
    return f"{spelling}()" if spelling in groups else spelling


def _replaced(variant: Variant, at: int, name: str) -> Variant:
    """Return the variant with the conversion at a place replaced by the one of that name."""
    step = variant.steps[at]
    allowed = transforms.registry()[name].options
    options_allowed = []
    for option, value in step.options:
        if option in allowed:
            options_allowed.append((option, value))
    options = tuple(options_allowed)
    return Variant("", (*variant.steps[:at], Step(name, options), *variant.steps[at + 1 :]))


def _tried(
    standard: Standard,
    variant: BoundVariant,
    at: int,
    effort: Effort,
) -> Mix:
    """Return what the variant's conversion keeps, verified at the end of its chain.

    Raises:
        NotApplicable: nothing was found, or what follows the conversion undoes it.
    """
    mixes: list[Mix] = []
    chain = variant.steps
    with transforms.remarks():  # they were told when the cell's own model was made
        before = _applied(standard.model.load(), chain[:at])
        choose = chooser(standard, lambda _: None, mixes, effort)
        converted = chain[at](before, choose=choose)
        after = _applied(converted, chain[at + 1 :])
    if any(not step.transform.session for step in chain[at + 1 :]):
        _verify(standard, variant, after)
    return mixes[0]


def _verify(standard: Standard, variant: BoundVariant, made: onnx.ModelProto) -> None:
    """Judge what a variant made.

    Raises:
        NotApplicable: it fails.
    """
    with tempfile.TemporaryDirectory(
        prefix="onnx-harness-mend-", ignore_cleanup_errors=True
    ) as folder:
        judged = half_verdict(standard, Model(Source(made, Path(folder)).saved(made)))
    if not judged.passed:
        raise NotApplicable(
            f"{variant.variant.spelling} fails all the same: {judged.reason}"
        )


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
