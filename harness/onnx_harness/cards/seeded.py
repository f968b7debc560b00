"""The file of a model that is judged: without links, and without nodes that draw at random.

A card's ``[random] seed`` asks for the latter. The copy is put into the cache, once for a content
and a seed.
"""

from __future__ import annotations

from pathlib import Path

import onnx

import onnx_harness
from onnx_harness.cards.specs import Card
from onnx_harness.cards.unlinked import data_sets_of, link_data_sets, unlinked
from onnx_harness.errors import HarnessError, ModelError, first_line
from onnx_harness.model.file import Model
from onnx_harness.model.saving import save
from onnx_harness.model.seeding import seed_model, seeding_of, states_seeding
from onnx_harness.results.cache import Cache, source_digest
from onnx_harness.results.workbench import workbench

KIND = "seeded"
_NOTHING = "nothing"  # the file that says so, of a model that draws nothing


def judged_file(path: Path, card: Card) -> Path:
    """Return a path to the model that a card's cells are judged on.

    Meant to run in the worker, since it parses the model.

    Args:
        path: of the untouched model.
        card: its card.

    Raises:
        ModelError: the card's seed can't be honoured. What else is wrong with the model is left to
            whoever loads it.
        ResultsError: with a seed, the cache can't be written.
    """
    plain = unlinked(path)
    if card.random_seed is None:
        return plain
    try:
        _ = Model(plain).sha256
    except ModelError:
        return plain
    try:
        return _seeded(plain, card.random_seed)
    except HarnessError:
        raise
    except Exception as error:  # what onnx and protobuf raise has no common class
        raise ModelError(
            f"[random] seed of card {card.path} can't be honoured: {first_line(error)}"
        ) from error


def seed_note(model: onnx.ModelProto, card: Card) -> str:
    """Return what a reader should know about the model's seed; nothing without one."""
    if card.random_seed is None:
        return ""
    seeding = seeding_of(model)
    if seeding is None:
        return "[random] seed in the card has no effect: no operator of the model draws at random"
    count = (
        "1 operator draws" if seeding.replaced == 1 else f"{seeding.replaced} operators draw"
    )
    note = (
        f"{count} at random, and the model is judged with the same values in each run ([random] "
        f"seed = {card.random_seed} in the card): whether a variant still draws isn't judged"
    )
    left = "; ".join(seeding.left)
    return f"{note}. Still drawn, since it can't be replaced: {left}" if left else note


def _seeded(path: Path, seed: int) -> Path:
    key = Cache.key(
        Model(path).sha256,
        path.name,
        seed,
        data_sets_of(path),
        onnx_harness.__version__,
        onnx.__version__,
        source_digest(),
    )
    entry = workbench().cache.get_or_put(
        KIND, key, lambda folder: _write(path, seed, folder)
    )
    return path if (entry / _NOTHING).is_file() else entry / path.name


def _write(path: Path, seed: int, folder: Path) -> None:
    model = Model(path).load()
    seeded = seed_model(model, seed)
    if not seeded.replaced and not states_seeding(model):
        (folder / _NOTHING).touch()
        return
    save(seeded.model, folder / path.name)
    link_data_sets(path, folder)
