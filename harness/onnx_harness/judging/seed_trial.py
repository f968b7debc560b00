"""The mend of a model that draws at random: a seed in its card, tried before it is offered."""

from __future__ import annotations

import pickle

import onnx

import onnx_harness
from onnx_harness.cards.card import Card
from onnx_harness.judging.reference import Reference, runtime_key
from onnx_harness.judging.runs import open_cpu
from onnx_harness.model.file import Model
from onnx_harness.model.seeding import seed_model
from onnx_harness.names import CARD_SUFFIX
from onnx_harness.providers.running import run
from onnx_harness.results.cache import Cache, source_digest
from onnx_harness.results.codec import as_data

_WITHOUT_DRAWING = (
    "Mend: where an input scales what is drawn, hold it at 0 in the model's card: "
    "[inputs.NAME] values = [0]; or export the model without drawing"
)
# A trial holds a model three times, and the worker's memory is limited.
_MOST_BYTES = 1 << 29


def seed_mend(model: Model, reference: Reference, card: Card, cache: Cache) -> str:
    """Return the mend of a model that draws at random, in a sentence or two.

    The seed is offered where it was tried, and two runs of the model gave the same bits.

    Args:
        model: the untouched model.
        reference: its input sets; the first one is run.
        card: of the model.
        cache: keeps the outcome of the trial.
    """
    if card.random_seed is not None:
        return _WITHOUT_DRAWING
    key = cache.key(
        model.sha256,
        reference.sets[0].digest(),
        onnx_harness.__version__,
        onnx.__version__,
        runtime_key(),
        source_digest(),
    )
    trial = cache.remember(
        "seed_trial", key, lambda: {"steady": _is_steady(model, reference)}, as_data(dict)
    )
    if not trial["steady"]:
        return _WITHOUT_DRAWING
    name = card.path.name.removesuffix(CARD_SUFFIX).removesuffix(".onnx") + CARD_SUFFIX
    place = "the model's card" if card.path.name == name else f"{name} next to the model"
    return (
        f"Mend: `[random] seed = 0` in {place}. That was tried: the model then gives the same "
        f"values in each run, and all its outputs can be judged"
    )


def _is_steady(model: Model, reference: Reference) -> bool:
    """Decide whether the seeded model gives the same bits in two runs of a session."""
    try:
        if model.size_bytes > _MOST_BYTES:
            return False
        seeded = seed_model(model.load(), 0)
        if not seeded.replaced:
            return False
        session = open_cpu(seeded.model)
        values = reference.sets[0].values
        first, second = (pickle.dumps(run(session, values)) for _ in range(2))
    except Exception:  # whatever onnx and ONNX Runtime raise: then it isn't offered
        return False
    return first == second
