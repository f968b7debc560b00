"""Greedy decoding of a cell's model, where its card asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnx_harness.cards.specs import GenerateSpec
from onnx_harness.cell.state import CellEnded, Subject, Way
from onnx_harness.errors import InputError, first_line
from onnx_harness.isolate import noting
from onnx_harness.judging.generation.decoder import Decoder, decoder_of
from onnx_harness.judging.generation.decoding import Decoded, decode
from onnx_harness.judging.generation.verdict import explained_by, judge_generation
from onnx_harness.judging.runs import open_cpu
from onnx_harness.judging.standard import Standard
from onnx_harness.judging.verdict import measured_yardstick
from onnx_harness.model.file import Model
from onnx_harness.results.cells import Status, Symptom
from onnx_harness.results.workbench import workbench

if TYPE_CHECKING:
    import onnxruntime as ort


def check_generation(model: Model, spec: GenerateSpec | None) -> None:
    """Check that the model is a decoder as the card says.

    Raises:
        CardError: it isn't; the message names what the card has to say.
    """
    if spec is not None:
        _decoder(model, spec)


def judge_decoding(
    way: Way,
    subject: Subject,
    opened: Callable[[], ort.InferenceSession],
    judged_by: Standard,
) -> None:
    """Judge N steps of greedy decoding beside the untouched model's, where the card asks for it.

    Args:
        way: of the cell; it takes the record and the notes.
        subject: the untouched model and its reference.
        opened: gives the candidate's session, when the reference has none any more.
        judged_by: the standard of the cell's outputs.

    Raises:
        CellEnded: a step departs.
    """
    spec = way.task.cell.card.generate
    if spec is None or not way.task.explained or subject.reference.unstable:
        return
    decoder = _decoder(subject.model, spec)
    fixed = _fixed(subject, decoder)
    key = (subject.model.sha256, spec.said(), way.found.inputs_sha256)
    expected = workbench().last(
        "generation", key, lambda: _decoded(subject.model, decoder, fixed, spec)
    )
    with noting("compare"):
        forced = expected.tokens.tolist()
        got = decode(opened(), decoder, fixed, spec.prompt, spec.steps, forced)
    noise = _noise(subject, judged_by, decoder, expected)
    outcome = judge_generation(decoder, spec, expected, got, noise)
    way.found = replace(way.found, generation=outcome.record)
    way.notes += outcome.notes
    if outcome.reason is not None:
        raise CellEnded(Status.FAIL, outcome.reason, outcome.detail, Symptom.WRONG_VALUES)


def _decoder(model: Model, spec: GenerateSpec) -> Decoder:
    defaults = {tensor.name for tensor in model.skeleton.graph.initializer}
    names = [value.name for value in model.signature.inputs if value.name not in defaults]
    return decoder_of(model.signature, names, spec)


def _fixed(subject: Subject, decoder: Decoder) -> dict[str, Any]:
    """The values of inputs that are the same in each step: the first everyday set's, of one row."""
    reference = subject.reference
    place = next(iter(reference.everyday), 0)
    shapes = {value.name: value.shape or () for value in subject.model.signature.inputs}
    fixed = {}
    for name, value in reference.sets[place].values.items():
        if name == decoder.ids.name or name in decoder.cache or name in decoder.roles:
            continue
        shape = shapes.get(name, ())
        has_batch = (
            len(shape) > 0 and not isinstance(shape[0], int) and not isinstance(value, list)
        )
        fixed[name] = value[:1] if has_batch else value
    return fixed


def _decoded(
    model: Model, decoder: Decoder, fixed: dict[str, Any], spec: GenerateSpec
) -> Decoded:
    try:
        return decode(open_cpu(model.path), decoder, fixed, spec.prompt, spec.steps)
    except Exception as error:  # ONNX Runtime's errors have no common class below Exception
        words = f"{spec.place}: " if spec.place else ""
        raise InputError(
            f"{words}generate: the untouched model can't be decoded: {first_line(error)}. Mend: "
            "see that the prompt's ids are in the vocabulary, and name ids, logits and cache"
        ) from error


def _noise(
    subject: Subject, judged_by: Standard, decoder: Decoder, expected: Decoded
) -> float | None:
    yardstick, _ = measured_yardstick(judged_by)
    if yardstick is None:
        return None
    reference = subject.reference
    usual = {place: reference.outputs[place] for place in reference.usual}
    return explained_by(yardstick, usual, decoder.logits, expected.logits)
