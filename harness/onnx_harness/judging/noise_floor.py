"""The noise floor of a model.

How far its own reference moves when nothing is changed that anybody would call a change.

The reference (CPU, graph optimizations disabled) is held against itself with every float that
enters moved by one unit in its last place, under ONNX Runtime's other optimization levels, with one
thread and with two, and in float64 where ONNX Runtime has the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import TensorProto, numpy_helper

from onnx_harness.accuracy.explain import MOST_ELEMENT, MOST_L2
from onnx_harness.accuracy.noise import Gap, Noise, worst
from onnx_harness.errors import first_line
from onnx_harness.inputs.values.sets import RISING
from onnx_harness.isolate import risking
from onnx_harness.judging.exact_sums import exact_sums
from onnx_harness.judging.float64 import double_outputs
from onnx_harness.judging.inside import Inside, Run
from onnx_harness.judging.nudges import (
    as_double,
    in_double,
    nudge_constants,
    nudge_further,
    nudge_inputs,
    nudge_inside,
)
from onnx_harness.judging.picked import picked_outputs
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.runs import (
    DRAWS,
    few_elements,
    gaps_of,
    in_memory,
    kept_noise,
    nudged,
    open_cpu,
)
from onnx_harness.model.file import Model
from onnx_harness.results.cache import Cache

# A level is an optimizer: where it breaks a model, what it gives isn't noise. Of 31 outputs of the
# public zoo, none moved under any level by more than 8 times as far as under the change of last
# bits (or by more than 7e-6, where that change is none); a break moves an output by orders of
# magnitude more.
_MOST_OF_A_LEVEL = 32.0
_ALWAYS_NOISE = 1e-5

# On unusual sets, where nothing is gathered over the sets: of a Softmax over scores of 1e5 that
# nearly tie every third draw moves nothing. Only where such a set would fail a cell.
_UNUSUAL_DRAWS = 8

NOT_NOISE = "not counted as noise:"
"""The beginning of a note on a level that gives another result.

Whoever reads a verdict should know of it.
"""
_INSIDE = "the last bits inside"
RESTS_ON = "noise floor of a model that quantizes or rounds:"
"""The beginning of a note on what the floor of such a model was measured by."""
INEXACT = "judged with exact integer sums:"
"""The beginning of a note on what ONNX Runtime's integer kernels do to a quantized model.

They do it at its default settings.
"""


def noise_floor(model: Model, reference: Reference, cache: Cache) -> Noise:
    """The noise floor of a model on the usual input sets of its reference.

    From the cache when it's there.

    What can't be run (float64 without a kernel) is left out, with a note.
    """
    return kept_noise(
        "floor", model, reference, cache, [], lambda: _measured(model, reference)
    )


def unusual_floor(model: Model, reference: Reference, cache: Cache) -> Noise:
    """The same on the unusual sets, where a model may be far less steady.

    Optimization levels don't count there: one that does more than round otherwise couldn't be told
    from one that doesn't, where the model itself is beside itself. Where values lie on an edge on
    purpose, no input moves and nothing that is compared: crossing the edge is what such a set would
    catch.
    """
    return kept_noise(
        "unusual_floor",
        model,
        reference,
        cache,
        [],
        lambda: _measured_unusual(model, reference),
    )


def _measured_unusual(model: Model, reference: Reference) -> Noise:
    unusual = []
    for place, input_set in enumerate(reference.sets):
        if input_set.unusual:
            unusual.append(place)
    smooth = [place for place in unusual if reference.sets[place].smooth]
    # A gate that saturates on rising values ties, and not in float64: but no last bit breaks that
    # tie.
    free = []
    for place in unusual:
        if place in smooth or reference.sets[place].unusual == RISING:
            free.append(place)
    edged = [place for place in unusual if place not in free]
    sources: list[str] = []
    notes: list[str] = []
    inside = Inside(model, reference)
    draws = _UNUSUAL_DRAWS if inside.rounds else DRAWS
    own = _runs(
        notes,
        sources,
        {
            "the last bit of the inputs": lambda: _last_bits(
                model, reference, free, _UNUSUAL_DRAWS
            ),
            _INSIDE: lambda: inside.gaps(free, [nudge_inside] * draws),
            "the last bits of the constants": lambda: inside.gaps(
                edged, [nudge_constants] * draws
            ),
            "float64": lambda: gaps_of(in_double(model), reference, smooth, [as_double]),
        },
        len(reference.sets),
        model,
    )
    return Noise(tuple(worst(runs.values()) for runs in own), tuple(sources), tuple(notes))


def _levels(
    model: Model,
    reference: Reference,
    config: Mapping[str, str],
    step_sizes: Mapping[str, float],
    notes: list[str],
    sources: list[str],
) -> list[dict[str, dict[str, Gap]]]:
    """The gaps of ONNX Runtime's levels on the usual sets, by input set and level."""
    usual = reference.usual

    def level(name: str, threads: int, sets: Sequence[int]) -> Run:
        session = open_cpu(model.path, name, threads, config=config)
        return gaps_of(session, reference, sets, steps=step_sizes)

    measures = {
        "level basic, 1 thread": lambda: level("basic", 1, usual[::2]),
        "level extended, 2 threads": lambda: level("extended", 2, usual[1::2]),
        "level all, 1 thread": lambda: level("all", 1, usual),
    }
    return _runs(notes, sources, measures, len(reference.sets), model)


def _measured(model: Model, reference: Reference) -> Noise:
    usual, count = reference.usual, len(reference.sets)
    sources: list[str] = []
    notes: list[str] = []
    inside, exact = Inside(model, reference), exact_sums(model.skeleton)
    rounds = inside.rounds
    # Twice the reference's own work, not five times: the levels that few ask for are run on every
    # second usual set.
    measures: dict[str, Callable[[], Run]] = {
        "the last bit of the inputs": lambda: _last_bits(model, reference, usual),
        "float64": lambda: gaps_of(
            in_double(model), reference, usual, [as_double], inside.steps
        ),
    }
    if rounds:
        measures[_INSIDE] = lambda: inside.drawn(usual)
    own = _runs(notes, sources, measures, count, model)
    floor = Noise(tuple(worst(runs.values()) for runs in own), has_tail=rounds)
    if inside.draws:
        notes.append(
            f"{RESTS_ON} {inside.draws} draws of the last bits of its constants and of what it "
            f"rounds, "
            f"on each of {len(usual)} input sets"
        )

    if rounds and not inside.draws:
        why = next((note for note in notes if note.startswith(_INSIDE)), "")
        notes.append(f"{RESTS_ON} its inputs and ONNX Runtime's levels alone. {why}")

    levels = _levels(model, reference, exact, inside.steps, notes, sources)
    if inside.draws:
        floor = _further(floor, levels, inside, usual)
    for index, runs in enumerate(levels):
        for source, run in runs.items():
            odd = _changes(run, floor, usual, index, rounds)
            if odd:
                notes.append(
                    f"{NOT_NOISE} under {source}, {', '.join(odd)} is another result"
                )
            own[index][source] = {name: gap for name, gap in run.items() if name not in odd}
    if exact:
        notes += _inexact(model, reference, floor)
    return Noise(
        tuple(worst(runs.values()) for runs in own),
        tuple(sources),
        tuple(dict.fromkeys(notes)),
        rounds,
        inside.steps,
        picked_outputs(model.skeleton),
        () if rounds else double_outputs(model.skeleton),
    )


def _further(
    floor: Noise,
    levels: Sequence[Mapping[str, Mapping[str, Gap]]],
    inside: Inside,
    usual: Sequence[int],
) -> Noise:
    """Return the floor with what further moves do on the sets where a level does more than it.

    A value that lies a few units from the middle of a step falls to either side, and draws of one
    unit don't show it. These tell whether the level's departure is noise, and count as none
    themselves.
    """
    sets = []
    for index, runs in enumerate(levels):
        if any(_changes(run, floor, usual, index, rounds=True) for run in runs.values()):
            sets.append(index)
    gaps_by_set = dict(inside.gaps(sets, [nudge_further] * _UNUSUAL_DRAWS))
    found = []
    for index, gaps in enumerate(floor.sets):
        found.append(worst([gaps, gaps_by_set.get(index, {})]))
    return replace(floor, sets=tuple(found))


def _changes(
    run: Mapping[str, Gap], floor: Noise, usual: Sequence[int], index: int, rounds: bool
) -> list[str]:
    """Return the outputs of a level's run on a set that are another result."""
    names = []
    for name, gap in run.items():
        if _is_change(gap, _own(floor, usual, index, name), rounds):
            names.append(name)
    return sorted(names)


def _own(floor: Noise, usual: Sequence[int], index: int, name: str) -> Gap | None:
    """The model's own noise on a set; where it rounds, that of the set where it was greatest."""
    gap = floor.sets[index].get(name)
    if gap is None or not floor.has_tail:
        return gap
    return floor.tail(usual, name, gap.norm, gap.scale, gap.size).joined(gap)


def _inexact(model: Model, reference: Reference, floor: Noise) -> list[str]:
    """Remark where ONNX Runtime's integer kernels depart from a quantized model.

    They depart at its default settings.
    """
    usual = reference.usual
    try:
        gaps_by_name = dict(gaps_of(open_cpu(model.path, "all", 1), reference, usual[:1]))[
            usual[0]
        ]
    except Exception:  # what can't be run has been noted beside the levels
        return []
    far = {
        name: gap.l2 / gap.norm
        for name, gap in gaps_by_name.items()
        if gap.norm > 0
        and _is_change(gap, _own(floor, usual, usual[0], name), floor.has_tail)
    }
    if not far:
        return []
    name = max(far, key=lambda output: far[output])
    options = exact_sums(model.skeleton).items()
    return [
        f"{INEXACT} at its default settings ONNX Runtime moves {name} by {far[name]:.1e} "
        "(relative L2) on this processor. Its integer kernels saturate there (uint8 x int8 without "
        "VNNI), quantize more than the model does, or round more coarsely (QLinearSoftmax), which "
        "is no evidence against the model. Mend: the session options "
        + " and ".join(f"{option} = {value}" for option, value in sorted(options))
    ]


def _runs(
    notes: list[str],
    sources: list[str],
    runs: Mapping[str, Callable[[], Run]],
    sets: int,
    model: Model,
) -> list[dict[str, dict[str, Gap]]]:
    """The gaps of each source by input set; what fails is noted."""
    gaps_by_set: list[dict[str, dict[str, Gap]]] = [{} for _ in range(sets)]
    for source, start in runs.items():
        try:
            with risking(f"{source} {model.sha256[:16]}"):
                for index, gaps in start():
                    gaps_by_set[index][source] = gaps
            sources.append(source)
        except Exception as error:
            # ONNX Runtime's errors have no common class below Exception.
            notes.append(f"{source} can't be run: {first_line(error, 160)}")
    return gaps_by_set


def _is_change(gap: Gap, own: Gap | None, rounds: bool) -> bool:
    """Return whether a level does something else than round otherwise.

    Where the model itself rounds, its last bits do what a level does, and it's held to them.
    """
    least = own or Gap()
    if gap.nonfinite or gap.changed > MOST_L2 * least.changed:
        return True
    if rounds:
        return gap.l2 > max(
            MOST_L2 * least.l2, _ALWAYS_NOISE * gap.norm
        ) or gap.greatest > max(MOST_ELEMENT * least.greatest, _ALWAYS_NOISE * gap.scale)
    return gap.l2 > max(
        _MOST_OF_A_LEVEL * least.l2, _ALWAYS_NOISE * gap.norm
    ) and gap.greatest > max(_MOST_OF_A_LEVEL * least.greatest, _ALWAYS_NOISE * gap.scale)


def _last_bits(
    model: Model, reference: Reference, sets: Sequence[int], fewest_draws: int = 1
) -> Run:
    """The reference with its float inputs moved by one unit in the last place.

    With its weights, where none moves.
    """
    generator = np.random.default_rng(0)
    values = []
    for index in sets:
        for value in reference.sets[index].values.values():
            values.append(value)
    if any(nudged(value, generator) is not value for value in values):
        draws = [nudge_inputs] * max(fewest_draws, DRAWS if few_elements(reference) else 1)
        return gaps_of(open_cpu(model.path), reference, sets, draws)
    changed = in_memory(model)
    for tensor in changed.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = nudged(numpy_helper.to_array(tensor), generator)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return gaps_of(open_cpu(changed), reference, sets)
