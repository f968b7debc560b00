"""Mend a quantization that fails: variants of it are tried before one is offered.

Without VNNI an x86 processor adds two products of uint8 and int8 in 16 bits, and what doesn't fit
saturates: results are then far from what the quantization itself costs, and weights of 7 bits mend
it (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html). Else
``int8.mixed`` looks for the nodes that have to stay float.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from onnx_harness import providers, transforms
from onnx_harness.cell import artifacts
from onnx_harness.cell.state import Subject, Way
from onnx_harness.isolate import risking
from onnx_harness.judging.judge import judge_outputs
from onnx_harness.judging.mends import quoted
from onnx_harness.judging.mixed.account import Effort, Mix
from onnx_harness.judging.mixed.choose import chooser
from onnx_harness.judging.reference import calibration_sets
from onnx_harness.judging.verdict import session_config
from onnx_harness.model.file import Model
from onnx_harness.model.saving import save
from onnx_harness.names import Step, Variant
from onnx_harness.providers.running import feeds_for, run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.cache import Cache
from onnx_harness.transforms import Precision
from onnx_harness.transforms.variant import bind_variant

_MIXED, _STATIC = "int8.mixed", "int8.static"
_MOST_BYTES = 1 << 28  # a larger model takes longer than a person waits for advice
_MOST_SECONDS = 20.0  # for the search of nodes


def tried_int8_mend(way: Way, subject: Subject, cache: Cache) -> str:
    """Return a line on the first variant of a quantization that passes; empty if none does.

    Meant for the worker, after a cell failed by the values of its outputs.
    """
    return int8_mend_of(way, subject, cache)[1]


def int8_mend_of(way: Way, subject: Subject, cache: Cache) -> tuple[str | None, str]:
    """Return the spelling of the variant that mends a quantization, and a line on it.

    See `tried_int8_mend`.

    Returns:
        None and an empty line where none was found.
    """
    if subject.model.size_bytes > _MOST_BYTES:
        return None, ""
    for variant, why in _candidates(way):
        try:
            with risking(f"mend {variant.spelling} {subject.model.sha256[:16]}"):
                words = _passes(way, subject, cache, variant)
        except Exception:  # whatever a library raises: then it's no mend
            continue
        if words is not None:
            line = f"mend: `--variant {quoted(variant.spelling)}` {words or why}"
            return variant.spelling, line
    return None, ""


def _candidates(way: Way) -> Iterator[tuple[Variant, str]]:
    """The variants to try, each with what a reader should know of it."""
    places = []
    for place, step in enumerate(way.bound.steps):
        if step.transform.precision is Precision.INT8:
            places.append(place)
    if len(places) != 1:
        return
    steps, place = way.bound.variant.steps, places[0]
    quantizer, written = way.bound.steps[place], steps[place]
    options = dict(written.options)
    if "reduce_range" in quantizer.transform.options and not quantizer.options.get("reduce_range"):
        fewer_bits = Step(written.name, tuple(sorted({**options, "reduce_range": True}.items())))
        yield (
            Variant("", (*steps[:place], fewer_bits, *steps[place + 1 :])),
            "passes: weights of 7 bits, whose products don't saturate on processors without VNNI",
        )
    if written.name == _STATIC:
        mixed = Step(_MIXED, written.options)
        yield Variant("", (*steps[:place], mixed, *steps[place + 1 :])), ""


def _passes(way: Way, subject: Subject, cache: Cache, variant: Variant) -> str | None:
    """Judge a variant; None where it fails.

    Returns:
        What it keeps in float, where it chooses nodes; else empty.
    """
    task = replace(way.task, cell=replace(way.task.cell, variant=variant))
    standard = artifacts.judged_by(Way(task), subject, cache)
    bound = bind_variant(variant)
    samples = calibration_sets(subject.model, task.cell.card, task.settings, cache, task.recorded)
    mixes: list[Mix] = []
    choose = chooser(standard, lambda _: None, mixes, Effort(_MOST_SECONDS, known_to_fail=True))
    model = subject.model.load()
    with transforms.remarks():  # they were told when the cell's own model was made
        for step in bound.changing:
            model = step(model, [input_set.values for input_set in samples], choose)
    with tempfile.TemporaryDirectory(
        prefix="onnx-harness-mend-", ignore_cleanup_errors=True
    ) as folder:
        file = Path(folder) / "model.onnx"
        save(model, file)
        candidate = Model(file, subject.model.name)
        session = open_session(
            file,
            providers.get(task.cell.provider),
            purpose=Purpose.ACCURACY,
            level=bound.level,
            config=session_config(subject.model, bound, candidate.skeleton),
        )
        sets = subject.reference.sets
        outputs = [run(session, feeds_for(session, input_set.values)) for input_set in sets]
        if not judge_outputs(standard, outputs, candidate, emulated=False).passed:
            return None
    return mixes[0].keeps() if mixes else ""
