"""Mend a quantization that fails: variants of it are tried before one is offered.

Without VNNI an x86 processor adds two products of uint8 and int8 in 16 bits, and what doesn't fit
saturates: results are then far from what the quantization itself costs, and weights of 7 bits mend
it (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html). Channels of
different sizes share a scale badly: one for each mends that. Else ``int8.mixed`` looks for the
nodes that have to stay float; of a dynamic quantization, one node at a time is left out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness import providers, transforms
from onnx_harness.cell import artifacts
from onnx_harness.cell.state import Subject, Way
from onnx_harness.errors import NotApplicable
from onnx_harness.isolate import risking
from onnx_harness.judging.judge import judge_outputs
from onnx_harness.judging.mends import named, quoted
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

if TYPE_CHECKING:
    import onnx

_MIXED, _STATIC, _DYNAMIC = "int8.mixed", "int8.static", "int8.dynamic"
_EXCLUDED = "nodes_to_exclude"
# The options that cost least, and what a reader should know of each.
_SWITCHES = {
    "reduce_range": (
        "passes: weights of 7 bits, whose products don't saturate on processors without VNNI"
    ),
    "per_channel": "passes: a scale for each output channel of a weight",
}
# The operators whose weights cost a dynamic quantization its digits, and how many nodes are tried.
_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_MOST_NODES = 12
_MOST_BYTES = 1 << 28  # a larger model takes longer than a person waits for advice
_MOST_SECONDS = 20.0  # for the search of nodes
# Of a cell's time: no further mend is begun then, since a timeout would take the verdict away. The
# library's time grows with the square of the nodes: a network of 1,100 takes 20 s each time.
_MOST_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A variant to try.

    Attributes:
        variant: the chain.
        why: what a reader should know of it, where it chooses no nodes itself.
        node: the one that it leaves out; empty for other candidates.
    """

    variant: Variant
    why: str = ""
    node: str = ""


def tried_int8_mend(way: Way, subject: Subject, cache: Cache) -> str:
    """Return a line on the first variant of a quantization that passes, or that none does.

    Meant for the worker, after a cell failed by the values of its outputs.
    """
    return int8_mend_of(way, subject, cache)[1]


def int8_mend_of(way: Way, subject: Subject, cache: Cache) -> tuple[str | None, str]:
    """Return the spelling of the variant that mends a quantization, and a line on it.

    See `tried_int8_mend`.

    Returns:
        The spelling is None where no mend was found; the line is empty where none was tried.
    """
    if subject.model.size_bytes > _MOST_BYTES:
        return None, "No mend is offered: the model is too large to try one"
    started = time.monotonic()
    tried: list[_Candidate] = []
    reason = ""
    for candidate in _candidates(way, subject):
        most = _MOST_SECONDS
        if not candidate.node:
            most = max(most, _MOST_SHARE * way.task.settings.cell_timeout)
        if time.monotonic() - started > most:
            break
        tried.append(candidate)
        variant = candidate.variant
        try:
            with risking(f"mend {variant.spelling} {subject.model.sha256[:16]}"):
                words = _passes(way, subject, cache, variant)
        except NotApplicable as error:
            reason = str(error)
            continue
        except Exception:  # whatever a library raises: then it's no mend
            continue
        if words is not None:
            why = words or candidate.why
            return variant.spelling, f"mend: `--variant {quoted(variant.spelling)}` {why}"
    return None, _not_found(tried, reason)


def _not_found(tried: Sequence[_Candidate], reason: str) -> str:
    """Return what was tried in vain, in a sentence; empty where nothing was."""
    spellings = [candidate.variant.spelling for candidate in tried if not candidate.node]
    nodes = len(tried) - len(spellings)
    if not tried:
        return ""
    words = f"none of {', '.join(spellings)} passes"
    if nodes:
        words += f", nor what leaves out one node ({nodes} tried)"
    return f"No mend was found: {words}{f' ({reason})' if reason else ''}"


def _candidates(way: Way, subject: Subject) -> Iterator[_Candidate]:
    """The variants to try, the cheapest first."""
    places = []
    for place, step in enumerate(way.bound.steps):
        if step.transform.precision is Precision.INT8:
            places.append(place)
    if len(places) != 1:
        return
    steps, place = way.bound.variant.steps, places[0]
    quantizer, written = way.bound.steps[place], steps[place]

    def instead(step: Step) -> Variant:
        return Variant("", (*steps[:place], step, *steps[place + 1 :]))

    for option, why in _SWITCHES.items():
        if option in quantizer.transform.options and not quantizer.options.get(option):
            yield _Candidate(instead(_with(written, option, True)), why)
    if written.name == _STATIC:
        yield _Candidate(instead(Step(_MIXED, written.options)))
    if written.options:
        yield _Candidate(
            instead(Step(written.name)), "passes: with the options that it has by itself"
        )
    if written.name != _DYNAMIC or place > 0:  # a step before may rename nodes
        return
    listed = quantizer.options.get(_EXCLUDED)
    excluded = listed if isinstance(listed, tuple) else ()
    for name in _products(subject.model.skeleton.graph)[:_MOST_NODES]:
        if name not in excluded:
            without = _with(written, _EXCLUDED, (*excluded, name))
            yield _Candidate(instead(without), f"passes: '{name}' stays float", name)


def _with(step: Step, option: str, value: bool | tuple[str, ...]) -> Step:
    """Return a step with one option more."""
    return Step(step.name, tuple(sorted({**dict(step.options), option: value}.items())))


def _products(graph: onnx.GraphProto) -> list[str]:
    """Return the names of products; one without is named by its first output, as in the option."""
    return [node.name or node.output[0] for node in graph.node if node.op_type in _PRODUCTS]


def _passes(way: Way, subject: Subject, cache: Cache, variant: Variant) -> str | None:
    """Judge a variant; None where it fails.

    Returns:
        What it keeps in float, where it chooses nodes; else empty.
    """
    task = replace(way.task, cell=replace(way.task.cell, variant=variant))
    standard = artifacts.judged_by(Way(task), subject, cache)
    bound = bind_variant(variant)
    samples = calibration_sets(
        subject.model, task.cell.card, task.settings, cache, task.recorded
    )
    mixes: list[Mix] = []
    effort = Effort(_MOST_SECONDS, known_to_fail=True)
    choose = chooser(standard, lambda _: None, mixes, effort)
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
    return f"{mixes[0].keeps()}{named(mixes[0].names)}" if mixes else ""
