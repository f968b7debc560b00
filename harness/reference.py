"""The reference of a model: its input sets, and what the untouched model makes of them.

It runs on the CPU provider with graph optimizations disabled. Kept by content hash between runs.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness import inputs, providers
from harness.cards import Card
from harness.errors import HarnessError, InputError, ModelError
from harness.inputs import InputSet
from harness.model import Model
from harness.names import CARD_SUFFIX
from harness.providers.sessions import Purpose, open_session
from harness.results.cache import Cache
from harness.settings import Settings

if TYPE_CHECKING:
    import onnxruntime as ort

_FILE = "reference.pickle"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a model's cells are judged against.

    Attributes:
        sets: recorded input sets first, then generated ones.
        outputs: what the model made of each set, by output name.
        unstable: outputs that differ when the same session runs the same inputs again.
        notes: what a reader should know about the sets.
    """

    sets: tuple[InputSet, ...]
    outputs: tuple[dict[str, Any], ...]
    unstable: frozenset[str]
    notes: tuple[str, ...] = ()


def recorded_file(card: Card) -> Path:
    """Where a recorded input set lies: the model's stem with ``.npz``, beside the model or its card."""
    return card.path.with_name(card.path.name.removesuffix(CARD_SUFFIX).removesuffix(".onnx") + ".npz")


def reference(model: Model, card: Card, settings: Settings, kept: Cache) -> Reference:
    """The model's reference, from the cache when it's there.

    Raises:
        InputError: no inputs can be invented that the model runs on, or the recorded ones don't fit it.
        ModelError: ONNX Runtime refuses the model itself.
    """
    recorded = recorded_file(card)
    specs = {name: asdict(spec) for name, spec in card.inputs.items()}
    key = kept.key(
        model.sha256,
        specs,
        hashlib.sha256(recorded.read_bytes()).hexdigest() if recorded.is_file() else None,
        settings.input_sets,
        settings.seed,
        harness.__version__,
        version("numpy"),
        runtime_version(),
        source_digest("inputs"),
        Path(__file__).read_text(encoding="utf-8"),
    )
    made: list[Reference] = []

    def write(folder: Path) -> None:
        made.append(_make(model, card, settings, recorded))
        with (folder / _FILE).open("wb") as file:
            pickle.dump(made[0], file, protocol=pickle.HIGHEST_PROTOCOL)

    folder = kept.get_or_put("reference", key, write)
    if made:
        return made[0]
    with (folder / _FILE).open("rb") as file:
        loaded: Reference = pickle.load(file)  # our own cache, which only its owner can write
    return loaded


def run(session: ort.InferenceSession, values: Mapping[str, Any]) -> dict[str, Any]:
    """Run ``session`` on what it takes of ``values``; outputs by name."""
    taken = {info.name: values[info.name] for info in session.get_inputs() if info.name in values}
    names = [info.name for info in session.get_outputs()]
    return dict(zip(names, session.run(names, taken), strict=True))


@cache
def source_digest(room: str) -> str:
    """Hash of the source of a room of this package: what it made is stale once it changes."""
    digest = hashlib.sha256()
    for file in sorted((Path(__file__).parent / room).glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


@cache
def runtime_version() -> str:
    """Which ONNX Runtime this is, whatever distribution brought it."""
    import onnxruntime

    return str(onnxruntime.__version__)


def _make(model: Model, card: Card, settings: Settings, recorded: Path) -> Reference:
    try:
        session = open_session(model.path, providers.get("cpu"), purpose=Purpose.ACCURACY, level="disable")
    except HarnessError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no common class below Exception
        raise ModelError(_refused(error)) from error
    sets: list[InputSet] = []
    if recorded.is_file():
        sets += inputs.load_npz(recorded, model.skeleton)
    notes: tuple[str, ...] = ()
    try:
        sets += inputs.generate(
            model.skeleton,
            card.inputs,
            count=settings.input_sets,
            seed=settings.seed,
            try_run=lambda values: run(session, values) and None,
        )
    except InputError as error:
        if not sets:
            raise
        notes = (f"judged on the recorded inputs alone: {error}",)
    outputs = tuple(_answer(session, each) for each in sets)
    again = run(session, sets[0].values)
    unstable = frozenset(name for name, value in again.items() if not _same(value, outputs[0][name]))
    return Reference(tuple(sets), outputs, unstable, notes)


def _refused(error: Exception) -> str:
    words = str(error).strip().splitlines()[0]
    mend = ""
    if "not a registered function/op" in words:
        mend = ". Mend: export the model with standard operators; libraries of custom ones aren't loaded"
    elif "opset" in words.lower():
        mend = " Mend: a newer ONNX Runtime, or the model in an older opset (onnx.version_converter)"
    return f"ONNX Runtime {runtime_version()} can't open the untouched model, so nothing can be judged: {words}{mend}"


def _answer(session: ort.InferenceSession, each: InputSet) -> dict[str, Any]:
    try:
        return run(session, each.values)
    except Exception as error:  # a recorded set: generated ones have been tried
        words = str(error).strip().splitlines()[0]
        raise InputError(f"the untouched model doesn't run on {each.name}: {words}. Record it again.") from error


def _same(one: Any, other: Any) -> bool:
    """Bit for bit, sequences and maps included."""
    return pickle.dumps(one) == pickle.dumps(other)
