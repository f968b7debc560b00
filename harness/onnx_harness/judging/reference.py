"""The reference of a model: its input sets, and what the untouched model makes of them.

It runs on the CPU provider with graph optimizations disabled. Kept by content hash between runs.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_harness
from onnx_harness import inputs, providers
from onnx_harness.cards.card import Card
from onnx_harness.errors import DiedBefore, HarnessError, InputError, first_line
from onnx_harness.inputs import InputSet
from onnx_harness.inputs.graph.chance import random_nodes
from onnx_harness.inputs.plan.edges import UNUSUAL
from onnx_harness.inputs.recorded.data_sets import data_set_files, digest, load_data_sets
from onnx_harness.isolate import noted, risking
from onnx_harness.judging.refusal import refusal
from onnx_harness.model.custom_ops import libraries_digest
from onnx_harness.model.file import Model
from onnx_harness.names import CARD_SUFFIX
from onnx_harness.providers.running import run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.cache import Cache, source_digest, version
from onnx_harness.results.codec import as_data
from onnx_harness.settings import Settings

if TYPE_CHECKING:
    import onnxruntime as ort

FEED = "feed"
"""The beginning of the worker's note of what it risks while usual inputs are tried.

They're tried on the untouched model.
"""

# Far from the seeds that people count up from 0.
_CALIBRATION_SEED = 1_000_003
# For each that judges: what few sets leave out lies beyond the range found, and is cut off.
_SETS_TO_CALIBRATE = 4
# Runs of each unusual set of a model that draws at random: a coin that falls alike in all of them
# is no coin.
_DRAWS = 8


@dataclass(frozen=True, slots=True)
class Reference:
    """The reference that a model's cells are judged by.

    Attributes:
        sets: recorded input sets first, then generated ones, the unusual ones last.
        outputs: what the model made of each set, by output name.
        unstable: outputs that differ when the same session runs the same inputs again.
        notes: what a reader should know about the sets.
        recorded: of each recorded set, which come first, the outputs that were recorded with it, by
            name.
    """

    sets: tuple[InputSet, ...]
    outputs: tuple[dict[str, Any], ...]
    unstable: frozenset[str]
    notes: tuple[str, ...] = ()
    recorded: tuple[Mapping[str, Any], ...] = ()

    @property
    def usual(self) -> list[int]:
        """The positions of the sets that aren't unusual; never empty."""
        places: list[int] = []
        for place, input_set in enumerate(self.sets):
            if not input_set.unusual:
                places.append(place)
        return places

    @property
    def everyday(self) -> list[int]:
        """The positions of the usual sets that aren't large.

        For what is another's, and for time.
        """
        return [place for place in self.usual if not self.sets[place].large]


def recorded_files(card: Card, model: Path) -> list[Path]:
    """Every file that recorded input sets of a model are read from."""
    files: list[Path] = []
    for file in (recorded_file(card), *data_set_files(model)):
        if file.is_file():
            files.append(file)
    return files


def recorded_file(card: Card) -> Path:
    """Where a recorded input set lies.

    The model's stem with ``.npz``, beside the model or its card.
    """
    return card.path.with_name(
        card.path.name.removesuffix(CARD_SUFFIX).removesuffix(".onnx") + ".npz"
    )


def reference(
    model: Model, card: Card, settings: Settings, cache: Cache, *, unusual: bool = True
) -> Reference:
    """The model's reference, from the cache when it's there.

    Args:
        model: the untouched one.
        card: its card.
        settings: how many sets, and their seed.
        cache: the cache.
        unusual: whether unusual sets are added to the usual ones.

    Raises:
        InputError: no inputs can be invented that the model runs on, or the recorded ones don't fit
            it.
        ModelError: ONNX Runtime refuses the model itself.
    """
    recorded = recorded_file(card)
    specs = {name: spec.said() for name, spec in card.inputs.items()}
    key = cache.key(
        model.sha256,
        specs,
        hashlib.sha256(recorded.read_bytes()).hexdigest() if recorded.is_file() else None,
        digest(data_set_files(model.path)),
        settings.input_sets,
        card.suite,
        unusual,
        settings.seed,
        onnx_harness.__version__,
        version("numpy"),
        runtime_key(),
        source_digest(),
    )
    return cache.remember(
        "reference",
        key,
        lambda: _make(model, card, settings, recorded, unusual=unusual),
        as_data(Reference),
    )


def given(model: Model, recorded: Path) -> Reference:
    """The reference on the input sets of a ``.npz`` alone.

    Raises:
        InputError: the file can't be read, or doesn't fit the model.
        Exception: whatever ONNX Runtime raises about the model, as it is.
    """
    recorded_sets = inputs.load_npz_sets(recorded, model.skeleton)
    sets = [data_set.inputs for data_set in recorded_sets]
    session = open_session(
        model.path, providers.get("cpu"), purpose=Purpose.ACCURACY, level="disable"
    )
    outputs = tuple(run(session, input_set.values) for input_set in sets)
    unstable = _unstable(session, sets[0], outputs[0])
    return Reference(
        tuple(sets),
        outputs,
        unstable,
        recorded=tuple(data_set.expected for data_set in recorded_sets),
    )


def calibration_sets(
    model: Model, card: Card, settings: Settings, cache: Cache, recorded: Path | None = None
) -> list[InputSet]:
    """Input sets to calibrate a step on.

    The recorded ones, and generated ones that no cell is judged on.

    Args:
        model: the untouched one.
        card: its card.
        settings: how many sets, and their seed.
        cache: the cache.
        recorded: a ``.npz`` whose input sets are used instead of all others: ranges of invented
            ones say nothing about what the caller runs the model on.

    Raises:
        InputError, ModelError: as :func:`reference`.
    """
    if recorded is not None:
        return [
            data_set.inputs for data_set in inputs.load_npz_sets(recorded, model.skeleton)
        ]
    others = replace(
        settings,
        seed=settings.seed + _CALIBRATION_SEED,
        input_sets=_SETS_TO_CALIBRATE * settings.input_sets,
    )
    answers = reference(model, card, others, cache, unusual=False)
    return [answers.sets[place] for place in answers.everyday]


@cache
def runtime_version() -> str:
    """Return which ONNX Runtime this is, whatever distribution brought it."""
    import onnxruntime

    return str(onnxruntime.__version__)


def runtime_key() -> str:
    """Return what cache keys call the runtime.

    Its version, and the custom operators that its sessions get.

    Raises:
        ModelError: a library of custom operators is missing or can't be read.
    """
    return f"{runtime_version()}{libraries_digest()}"


def _make(
    model: Model, card: Card, settings: Settings, recorded: Path, *, unusual: bool
) -> Reference:
    try:
        session = open_session(
            model.path, providers.get("cpu"), purpose=Purpose.ACCURACY, level="disable"
        )
    except HarnessError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no common class below Exception
        raise refusal(error, model.skeleton, runtime_version()) from error
    recorded_sets = load_data_sets(model.path, model.skeleton)
    if recorded.is_file():
        recorded_sets += inputs.load_npz_sets(recorded, model.skeleton)
    sets = [recorded_set.inputs for recorded_set in recorded_sets]
    notes: tuple[str, ...] = ()
    tried = _Tried(session, model.sha256)
    try:
        # A case of a suite is judged on the suite's own inputs.
        sets += (
            []
            if card.suite and sets
            else _generated(model, card, settings, tried, unusual=unusual)
        )
    except InputError as error:
        if not sets:
            raise
        notes = (f"judged on the recorded inputs alone: {error}",)
    outputs = tuple(_answer(session, input_set, tried) for input_set in sets)
    descriptions = []
    for what in tried.fatal:
        descriptions.append(
            f"not fed {what}: ONNX Runtime dies of them with the untouched model itself"
        )
    notes += tuple(descriptions)
    unstable = _unstable(session, sets[0], outputs[0])
    # What is drawn on unusual inputs alone, or falls alike twice there, is no variant's fault. A
    # Dropout seldom trains.
    if any(
        not name.startswith("Dropout")
        for name in random_nodes(model.skeleton, outputs[0].keys())
    ):
        steady = []
        for place, input_set in enumerate(sets):
            if not input_set.unusual or _is_steady(session, input_set, unstable):
                steady.append(place)
        sets, outputs = (
            [sets[place] for place in steady],
            tuple(outputs[place] for place in steady),
        )
    return Reference(
        tuple(sets),
        outputs,
        unstable,
        notes,
        tuple(recorded_set.expected for recorded_set in recorded_sets),
    )


def _unstable(
    session: ort.InferenceSession, input_set: InputSet, outputs: dict[str, Any]
) -> frozenset[str]:
    """The outputs that are others when the same inputs run again."""
    again = run(session, input_set.values)
    names = set()
    for name, value in again.items():
        if not _same(value, outputs[name]):
            names.add(name)
    return frozenset(names)


def _is_steady(
    session: ort.InferenceSession, input_set: InputSet, unstable: frozenset[str]
) -> bool:
    """Decide whether no output but the known ones is another in any of several runs."""
    first = run(session, input_set.values)
    return all(_unstable(session, input_set, first) <= unstable for _ in range(_DRAWS))


class _Tried:
    """Runs feeds and remembers what came out: the sets that generation keeps needn't be run again.

    Attributes:
        fatal: the unusual inputs that a worker has died of, in words; they aren't fed again.
    """

    def __init__(self, session: ort.InferenceSession, sha256: str) -> None:
        self._session = session
        self._sha256 = sha256
        self._count = 0
        self.fatal: dict[str, None] = {}
        # The feed is kept with its outputs: another object can't take its identity.
        self._known: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}

    def __call__(self, values: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        stage = noted()
        unusual = stage.startswith(UNUSUAL)
        try:
            with risking(
                f"{stage if unusual else f'{FEED} {self._count}'} {self._sha256[:16]}"
            ):
                outputs = run(self._session, values)
        except DiedBefore:
            if unusual:
                self.fatal[stage] = None
            raise
        self._known[id(values)] = (values, outputs)
        return outputs

    def outputs_of(self, values: dict[str, Any]) -> dict[str, Any] | None:
        tried = self._known.get(id(values))
        return None if tried is None else tried[1]


def _generated(
    model: Model, card: Card, settings: Settings, tried: _Tried, *, unusual: bool
) -> list[InputSet]:
    return inputs.generate(
        model.skeleton,
        card.inputs,
        count=settings.input_sets,
        seed=settings.seed,
        try_run=tried,
        unusual=unusual,
    )


def _answer(
    session: ort.InferenceSession, input_set: InputSet, tried: _Tried
) -> dict[str, Any]:
    if (outputs := tried.outputs_of(input_set.values)) is not None:
        return outputs
    try:
        return run(session, input_set.values)
    except Exception as error:  # a recorded set: generated ones have been tried
        words = first_line(error)
        raise InputError(
            f"the untouched model doesn't run on {input_set.name}: {words}. Record it again."
        ) from error


def _same(first: Any, second: Any) -> bool:
    """Bit for bit, sequences and maps included."""
    return pickle.dumps(first) == pickle.dumps(second)
