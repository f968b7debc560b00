"""The facts about the models that a report names: size, license, place."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from onnx_harness.cards.card import Card
from onnx_harness.cell import matrix
from onnx_harness.errors import HarnessError
from onnx_harness.names import is_model_file
from onnx_harness.report.figures import ModelHeader
from onnx_harness.results.store import Results


def headers_of(results: Results) -> dict[str, ModelHeader]:
    """Return what is known about the models.

    From the cells, and from the cards that the run's command names.
    """
    named = {card.name: (path, card) for path, card in _cards(results.run.command)}
    headers: dict[str, ModelHeader] = {}
    for cell in results.cells:
        path, card = named.get(cell.model, (None, None))
        size = cell.graph.bytes_before if cell.graph else None
        spdx = card.license if card else ""
        headers[cell.model] = ModelHeader(spdx, size, cell.opset, str(path) if path else "")
    return headers


def _cards(command: str) -> list[tuple[Path, Card]]:
    """Return the cards of the models that a command names, as far as they are still there."""
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    cards: list[tuple[Path, Card]] = []
    for word in words:
        path = Path(word.partition("::")[0])
        with contextlib.suppress(HarnessError, OSError, ValueError):
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                if file.is_file() and is_model_file(file):
                    cards.append((file, matrix.card_for(file)))
    return cards
