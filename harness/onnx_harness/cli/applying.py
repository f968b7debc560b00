"""Run a variant's steps on a model and write what they make, in the worker."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness import transforms
from onnx_harness.cards.card import Card
from onnx_harness.cell import matrix
from onnx_harness.cli.writing import Written, write
from onnx_harness.errors import (
    InputError,
    NotApplicable,
    NothingConverted,
    TransformError,
    words_of,
)
from onnx_harness.isolate import note_stage
from onnx_harness.judging.card_options import even_in_vain, with_card
from onnx_harness.model.bounds import check_bounds
from onnx_harness.model.custom_ops import load_libraries
from onnx_harness.model.file import Model, node_count
from onnx_harness.model.size import byte_size
from onnx_harness.names import Step, Variant
from onnx_harness.results.workbench import workbench
from onnx_harness.settings import Settings
from onnx_harness.transforms import BoundStep
from onnx_harness.transforms.variant import BoundVariant, bind_variant

if TYPE_CHECKING:
    import onnx

    from onnx_harness.judging.mixed.account import Mix


_LARGE_BYTES = 1 << 30
"""A message never gives memory back: of a larger one, a step that makes half would hold both."""


def apply(
    path: Path,
    steps: tuple[Step, ...],
    out: Path,
    inline_bytes: int,
    card: Card | None = None,
    settings: Settings | None = None,
    said: Path | None = None,
    provider: str = "cpu",
) -> Written:
    """Run the steps and write what they make. Meant for the worker.

    Args:
        path: the model.
        steps: the chain, session steps left out.
        out: the file to write.
        inline_bytes: above it, weights go to a file of their own.
        card: the model's, for the inputs that calibrated steps need.
        settings: how many of those, and from which seed.
        said: how an error calls the file that is written, where it isn't its place yet.
        provider: whose verdicts nodes are chosen by.

    Raises:
        ModelError: the model can't be read, or doesn't run where calibration needs it to.
        InputError: no inputs can be had for calibration.
        TransformError: a step failed or doesn't apply, or the result can't be written.
    """
    before = Model(path)
    note_stage("load")
    load_libraries()
    if settings is not None:
        check_bounds(path, settings.cell_memory, trusted=settings.trust_models)
    card = card or matrix.card_for(path)
    bound = with_card(bind_variant(Variant("", steps)), card)
    samples: list[dict[str, Any]] = []
    if any(step.transform.calibrated for step in bound.steps):
        samples = _samples(before, card, settings)
    choose: Callable[..., Any] | None = None
    mixes: list[Mix] = []
    if any(step.transform.chosen for step in bound.steps):
        choose = _chooser(before, bound, card, settings or Settings(), provider, mixes)
    nodes = node_count(before.skeleton.graph)
    chain = list(zip(steps, bound.steps, strict=True))
    with transforms.details() as did, transforms.remarks() as remarks:
        model, seconds = _applied(before, chain, samples, choose, out.parent)
    note_stage("write")
    external = write(model, out, min(inline_bytes, before.inline_bytes), said)
    return Written(
        nodes,
        node_count(model.graph),
        before.size_bytes,
        Model(out, "written").size_bytes,
        seconds,
        external,
        tuple(dict.fromkeys((*card.keep_float32, *mixes[-1].names))) if mixes else None,
        tuple(did),
        tuple(remarks),
    )


def _applied(
    before: Model,
    bound: Sequence[tuple[Step, BoundStep]],
    samples: Sequence[Mapping[str, Any]],
    choose: Callable[..., Any] | None,
    folder: Path,
) -> tuple[onnx.ModelProto, float]:
    """Return the product of the steps, and the seconds that they took.

    Whoever holds the model before them holds its weights too, so nobody does. What a step made of a
    large model is set aside in ``folder`` where the next reads weights one at a time.
    """
    step, first = bound[0]
    with contextlib.ExitStack() as source:
        try:
            model = source.enter_context(first.opened(before))
        except NotApplicable as error:
            raise _not_applicable(step, before, error) from None
        started = time.perf_counter()
        for step, run_step in bound:
            if run_step is not first and run_step.transform.streams and _is_large(model):
                # Where there's no room it stays in memory.
                with contextlib.suppress(OSError):
                    aside = _set_aside(model, source.enter_context(_scratch(folder)))
                    model = source.enter_context(run_step.opened(aside))
            note_stage(f"step {step.name}")
            try:
                try:
                    model = run_step(model, samples, choose)
                except NothingConverted:
                    # No verdict on it means anything, but the file asked for is right.
                    model = even_in_vain(run_step)(model, samples, choose)
            except NotApplicable as error:
                raise _not_applicable(step, before, error) from None
            except Exception as error:  # whatever a library raises
                raise TransformError(
                    f"step '{step}' failed on {before.path.name}: {words_of(error)}. Nothing was "
                    f"written."
                ) from None
    return model, time.perf_counter() - started


def _is_large(model: onnx.ModelProto) -> bool:
    return byte_size(model) > _LARGE_BYTES


def _scratch(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a folder beside what will be written: there is room for as much."""
    return tempfile.TemporaryDirectory(
        prefix=".aside-", dir=folder, ignore_cleanup_errors=True
    )


def _set_aside(model: onnx.ModelProto, folder: str) -> Model:
    """Write a model that a step has made, so that its weights leave memory."""
    from onnx_harness.model.saving import save

    note_stage("set aside")
    file = Path(folder) / "model.onnx"
    save(model, file, inline_bytes=0)
    return Model(file)


def _not_applicable(step: Step, before: Model, error: NotApplicable) -> NotApplicable:
    return NotApplicable(
        f"step '{step}' doesn't apply to {before.path.name}: {error}. Nothing was written."
    )


def _samples(
    model: Model, card: Card | None, settings: Settings | None
) -> list[dict[str, Any]]:
    """The input sets that pytest would calibrate on."""
    from onnx_harness.judging.reference import calibration_sets

    note_stage("inputs")
    card = card or matrix.card_for(model.path)
    try:
        input_sets = calibration_sets(model, card, settings or Settings(), workbench().cache)
    except InputError as error:
        raise InputError(
            f"nothing was written, for there are no inputs to calibrate on: {error}"
        ) from None
    return [input_set.values for input_set in input_sets]


def _chooser(
    model: Model,
    bound: BoundVariant,
    card: Card,
    settings: Settings,
    provider: str,
    mixes: list[Mix],
) -> Callable[..., Any]:
    """Return what chooses by the verdicts that pytest would give on a provider."""
    from onnx_harness.judging.mixed.choose import chooser
    from onnx_harness.judging.reference import reference
    from onnx_harness.judging.standard import standard

    note_stage("inputs")
    cache = workbench().cache
    try:
        answers = reference(model, card, settings, cache)
    except InputError as error:
        raise InputError(
            f"nothing was written, for there are no inputs to judge on: {error}"
        ) from None
    judging = standard(model, answers, card, bound, provider, settings, cache)
    return chooser(judging, transforms.remark, mixes)
