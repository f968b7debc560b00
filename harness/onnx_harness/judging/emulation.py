"""Judge what emulated float16 hides: the outputs on hardware that computes in float16."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnx_harness.accuracy.failures import listed
from onnx_harness.errors import NotApplicable, first_line
from onnx_harness.judging.half_range import (
    computes_in_half,
    computes_in_narrow,
    rounded,
    watch,
)
from onnx_harness.judging.half_runs import NARROW, float32_inputs, in_type_of, open_simulated
from onnx_harness.judging.overflow import (
    by_value,
    judge_overflows,
    judge_range,
    overflowing,
    overflows_of,
)
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.simulation import simulated, unknown_types
from onnx_harness.judging.standard import Standard
from onnx_harness.judging.verdict import Verdict, verdict
from onnx_harness.model.file import Model
from onnx_harness.providers.running import run
from onnx_harness.results.cache import Cache
from onnx_harness.results.cells import NOT_SIMULATED, Status, Symptom

if TYPE_CHECKING:
    import onnx


def judge_half(standard: Standard, candidate: Model, emulated: Verdict) -> Verdict:
    """Judge a model that asks for float16 and was computed in float32.

    It's judged by what float16 would have made of it.

    A variant that converts to float16 is run once more with every float16 value rounded as it's
    made, and the outputs are held to what the cell's are held to: see
    :func:`onnx_harness.judging.simulation.simulated`. Where the run in float32 gave wrong values
    and float16 doesn't, float16 decides. A model that asked for float16 before it was converted has
    no reference in float32 to hold that against, and is judged by its range alone.

    Args:
        standard: what the outputs are held to.
        candidate: the model that was judged.
        emulated: what is to be said of its outputs, computed in float32.

    Returns:
        What is to be said of the model. The distances are those of the outputs that decide; those
        of both runs are kept beside them.
    """
    if not emulated.passed and not emulated.of_values:
        return emulated
    half, notes = _simulate(standard, candidate)
    outcome = _decided(standard, candidate, emulated, half, (*emulated.notes, *notes))
    return replace(
        outcome,
        emulated=emulated.comparison,
        simulated=None if half is None else half.comparison,
    )


def _decided(
    standard: Standard,
    candidate: Model,
    emulated: Verdict,
    half: Verdict | None,
    notes: tuple[str, ...],
) -> Verdict:
    """The verdict of the run in float32, of the simulated one, or of what overflows.

    See :func:`judge_half`.
    """
    if not emulated.passed:
        if half is None or not half.passed:
            return replace(emulated, notes=notes)
        why = (
            f"float16 as hardware computes it is right, and decides. In float32, as computed "
            f"here: {emulated.reason}"
        )
        return replace(half, notes=(*half.notes, why))
    ranged = judge_range(standard, candidate, half)
    notes += ranged.notes
    if ranged.reason is not None:
        outcome = Verdict(
            Status.FAIL,
            emulated.comparison,
            ranged.reason,
            ranged.detail,
            notes,
            Symptom.WRONG_VALUES,
        )
        return replace(outcome, failing=ranged.failing)
    if half is None or half.passed:
        return replace(emulated, notes=notes)
    return replace(
        half, reason=f"float16 as hardware computes it departs: {half.reason}", notes=notes
    )


def half_as_hardware(
    original: Model, reference: Reference, candidate: Model, cache: Cache
) -> onnx.ModelProto | None:
    """Return the model that float16 is judged by where a provider computed it in float32.

    Args:
        original: the untouched model.
        reference: its input sets.
        candidate: the model that was judged; it asks for float16.
        cache: the cache.

    Returns:
        The simulated model, or where float16 isn't simulated the one with its overflowing values
        rounded; its float16 inputs and outputs are float32, and it has to run with ONNX Runtime's
        optimizations disabled. None where there is neither.
    """
    if not computes_in_half(original.skeleton):
        return simulated(candidate.load(), candidate.skeleton)
    usual = []
    for overflow in overflows_of(candidate, reference.sets, cache):
        if not reference.sets[overflow.input_set].unusual:
            usual.append(overflow)
    return (
        rounded(watch(candidate.load(), candidate.skeleton).model, list(by_value(usual)))
        if usual
        else None
    )


def judge_simulated(standard: Standard, candidate: Model) -> Verdict:
    """Judge a model that the provider can't run, by a simulated run alone.

    The provider has no kernels of its type.

    Args:
        standard: what the outputs are held to.
        candidate: the model; it asks for bfloat16 or float16.

    Raises:
        NotApplicable: it can't be simulated either.
    """
    why = _not_simulated(standard)
    if why is None:
        try:
            outcome = verdict(standard, _simulated_outputs(standard, candidate))
        except Exception as error:  # what onnx and ONNX Runtime raise has no common class
            why = first_line(error)
        else:
            notes = (*outcome.notes, *_not_rounded(candidate))
            return replace(outcome, notes=notes, simulated=outcome.comparison)
    raise NotApplicable(f"it could not be simulated: {why}")


def half_verdict(standard: Standard, candidate: Model) -> Verdict:
    """Judge a model where float16 computes, whatever this provider computes it in.

    Args:
        standard: what the outputs are held to.
        candidate: the model; it asks for float16.

    Raises:
        Exception: whatever onnx and ONNX Runtime raise of a model that can't be simulated.
    """
    if _not_simulated(standard) is None:
        return verdict(standard, _simulated_outputs(standard, candidate))
    places = overflowing(standard, candidate)
    return (
        judge_overflows(standard, candidate, [place.value for place in places])
        if places
        else Verdict(Status.PASS)
    )


def _simulate(
    standard: Standard, candidate: Model
) -> tuple[Verdict | None, tuple[str, ...]]:
    """Judge the outputs that float16 gives, or say why that can't be done."""
    why = _not_simulated(standard)
    if why is None:
        try:
            return verdict(standard, _simulated_outputs(standard, candidate)), _not_rounded(
                candidate
            )
        except Exception as error:  # what onnx and ONNX Runtime raise has no common class
            why = first_line(error, 160)
    return None, (f"{NOT_SIMULATED}: {why}",)


def _not_rounded(candidate: Model) -> tuple[str, ...]:
    """A remark on the operators that give float16 and whose types nobody knows.

    They stay float32.
    """
    ops = unknown_types(candidate.skeleton)
    why = "neither ONNX nor ONNX Runtime says of what type it is"
    return (
        (f"not rounded in the simulated float16, since {why}: what {listed(ops)} gives",)
        if ops
        else ()
    )


def _not_simulated(standard: Standard) -> str | None:
    """Why float16 can't be held against the reference, which has to be computed in float32.

    None where it can.
    """
    if computes_in_narrow(standard.model.skeleton):
        return "the untouched model asks for it too, and so its reference was computed in float32"
    if standard.conversion is None or standard.conversion.type not in NARROW:
        return f"it isn't all that the variant leaves behind ({standard.precision.value})"
    return None


def _simulated_outputs(standard: Standard, candidate: Model) -> list[dict[str, Any]]:
    """The outputs of the usual input sets, which are the first, as float16 gives them."""
    session = open_simulated(
        simulated(candidate.load(), candidate.skeleton),
        candidate.size_bytes,
        level="disable",
    )
    names = {number: name for name, number in NARROW.items()}
    kinds = {}
    for info in candidate.skeleton.graph.input:
        kinds[info.name] = names.get(info.type.tensor_type.elem_type, "")
    outputs = []
    for place in standard.reference.usual:
        expected = standard.reference.outputs[place]
        values = float32_inputs(standard.reference.sets[place].values, kinds)
        outputs.append(
            {
                name: in_type_of(value, expected.get(name))
                for name, value in run(session, values).items()
            }
        )
    return outputs
