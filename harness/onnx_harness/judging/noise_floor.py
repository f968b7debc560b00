"""The noise floor of a model: how far its own reference moves when nothing is changed that anybody would call a change.

The reference (CPU, graph optimizations disabled) is held against itself with every float that enters moved by one unit
in its last place, under ONNX Runtime's other optimization levels, with one thread and with two, and in float64 where
ONNX Runtime has the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from onnx_harness.accuracy.noise import Gap, Noise, worst
from onnx_harness.errors import NotApplicable
from onnx_harness.isolate import risking
from onnx_harness.judging.float64 import to_double, without_kernel
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.runs import DRAWS, few_elements, first_line, gaps_of, kept_noise, nudged, open_cpu
from onnx_harness.model.file import Model
from onnx_harness.results.cache import Cache

# A level is an optimizer: where it breaks a model, what it gives isn't noise. Of 31 outputs of the public zoo, none
# moved under any level by more than 8 times as far as under the change of last bits (or by more than 7e-6, where that
# change is none); a break moves an output by orders of magnitude more.
_MOST_OF_A_LEVEL = 32.0
_ALWAYS_NOISE = 1e-5

NOT_NOISE = "not counted as noise:"
"""How a note begins on a level that gives another result, which whoever reads a verdict should know."""

_Run = Iterable[tuple[int, dict[str, Gap]]]


def noise_floor(model: Model, reference: Reference, kept: Cache) -> Noise:
    """The noise floor of a model on the usual input sets of its reference; from the cache when it's there.

    What can't be run (float64 without a kernel) is left out, with a note.
    """
    return kept_noise("floor", model, reference, kept, [], lambda: _measured(model, reference))


def unusual_floor(model: Model, reference: Reference, kept: Cache) -> Noise:
    """The same on the smooth ones of the unusual sets, where a model may be far less steady.

    Optimization levels don't count there: one that does more than round otherwise couldn't be told from one that
    doesn't, where the model itself is beside itself.
    """
    return kept_noise("unusual_floor", model, reference, kept, [], lambda: _measured_unusual(model, reference))


def _measured_unusual(model: Model, reference: Reference) -> Noise:
    sets = [place for place, each in enumerate(reference.sets) if each.smooth]
    sources: list[str] = []
    notes: list[str] = []
    own = _runs(notes, sources, {
        "the last bit of the inputs": lambda: _last_bits(model, reference, sets),
        "float64": lambda: gaps_of(_double(model), reference, sets, [_as_double]),
    }, len(reference.sets), model)  # fmt: skip
    return Noise(tuple(worst(runs.values()) for runs in own), tuple(sources), tuple(notes))


def _measured(model: Model, reference: Reference) -> Noise:
    usual, count = reference.usual, len(reference.sets)
    sources: list[str] = []
    notes: list[str] = []
    # Twice the reference's own work, not five times: the levels that few ask for are run on every second usual set.
    own = _runs(notes, sources, {
        "the last bit of the inputs": lambda: _last_bits(model, reference, usual),
        "float64": lambda: gaps_of(_double(model), reference, usual, [_as_double]),
    }, count, model)  # fmt: skip
    levels = _runs(notes, sources, {
        "level basic, 1 thread": lambda: gaps_of(open_cpu(model.path, "basic", 1), reference, usual[::2]),
        "level extended, 2 threads": lambda: gaps_of(open_cpu(model.path, "extended", 2), reference, usual[1::2]),
        "level all, 1 thread": lambda: gaps_of(open_cpu(model.path, "all", 1), reference, usual),
    }, count, model)  # fmt: skip
    floor = [worst(runs.values()) for runs in own]
    for index, runs in enumerate(levels):
        for source, found in runs.items():
            odd = sorted(name for name, gap in found.items() if _is_change(gap, floor[index].get(name)))
            if odd:
                notes.append(f"{NOT_NOISE} under {source}, {', '.join(odd)} is another result")
            quiet = {name: gap for name, gap in found.items() if name not in odd}
            own[index][source] = quiet
    return Noise(tuple(worst(runs.values()) for runs in own), tuple(sources), tuple(dict.fromkeys(notes)))


def _runs(
    notes: list[str], sources: list[str], runs: Mapping[str, Callable[[], _Run]], sets: int, model: Model
) -> list[dict[str, dict[str, Gap]]]:
    """The gaps of each source by input set; what fails is noted."""
    found: list[dict[str, dict[str, Gap]]] = [{} for _ in range(sets)]
    for source, start in runs.items():
        try:
            with risking(f"{source} {model.sha256[:16]}"):
                for index, gaps in start():
                    found[index][source] = gaps
            sources.append(source)
        except Exception as error:  # ONNX Runtime's errors have no common class below Exception
            notes.append(f"{source} can't be run: {first_line(error)}")
    return found


def _is_change(gap: Gap, own: Gap | None) -> bool:
    """Whether a level does something else than round otherwise."""
    if gap.nonfinite or gap.changed:
        return True
    least = own or Gap()
    return (
        gap.l2 > max(_MOST_OF_A_LEVEL * least.l2, _ALWAYS_NOISE * gap.norm)
        and gap.greatest > max(_MOST_OF_A_LEVEL * least.greatest, _ALWAYS_NOISE * gap.scale)
    )  # fmt: skip


def _last_bits(model: Model, reference: Reference, sets: Sequence[int]) -> _Run:
    """The reference with its float inputs moved by one unit in the last place; with its weights, where none moves."""
    generator = np.random.default_rng(0)
    values = (value for index in sets for value in reference.sets[index].values.values())
    if any(nudged(value, generator) is not value for value in values):
        draws = [_nudge] * (DRAWS if few_elements(reference) else 1)
        return gaps_of(open_cpu(model.path), reference, sets, draws)
    changed = model.load()
    for tensor in changed.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = nudged(numpy_helper.to_array(tensor), generator)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return gaps_of(open_cpu(changed), reference, sets)


def _nudge(values: Mapping[str, Any], generator: np.random.Generator) -> dict[str, Any]:
    return {name: nudged(value, generator) for name, value in values.items()}


def _double(model: Model) -> Any:
    lacking = without_kernel(model.skeleton)
    if lacking:
        raise NotApplicable(f"ONNX Runtime has no kernel of float64 for {', '.join(lacking)}")
    changed = model.load()
    to_double(changed)
    return open_cpu(changed)


def _as_double(values: Mapping[str, Any], _: np.random.Generator) -> dict[str, Any]:
    def wide(value: Any) -> Any:
        if isinstance(value, list):
            return [wide(each) for each in value]
        return value.astype(np.float64) if value.dtype == np.float32 else value

    return {name: wide(value) for name, value in values.items()}
