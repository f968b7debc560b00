"""The bench of every row of the experiment: models, seeds, runners, and a cache of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnx_harness.cards.card import Card, PathSource
from onnx_harness.cards.fetch import materialize
from onnx_harness.cell.matrix import Cell
from onnx_harness.names import parse_variant
from onnx_harness.results.cache_root import VARIABLE
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings


@dataclass(frozen=True, slots=True)
class Outcome:
    """The findings of one step.

    Attributes:
        count: how many things were judged, such as cells or faults.
        bad: of those, the ones that shouldn't be: missed or falsely failed.
        words: what a person wants to know of it; empty where all is as it should be.
        figures: further numbers of the row.
    """

    count: int
    bad: int
    words: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)


@dataclass
class Bench:
    """Models and runners.

    A runner serves one row and seed; the last one is kept until another is asked for.

    Attributes:
        cards: of the zoo, each with its model at hand.
        seeds: of the rows that are repeated over seeds.
        defects: the folder of the small models that released libraries get wrong.
        quick: rows that build their own models take a part of them.
        autocast: the Python of an environment that has nvidia-modelopt; None: it isn't compared.
    """

    cards: tuple[Card, ...]
    seeds: range
    defects: Path
    quick: bool = False
    autocast: Path | None = None
    _runner: tuple[tuple[str, int], Runner] | None = None

    def judge(
        self, row: str, seed: int, card: Card, variant: str
    ) -> tuple[Cell, CellResult]:
        """The verdict on one cell, on the CPU, before the card's known failures are looked at."""
        cell = Cell(card, parse_variant(variant), "cpu")
        return cell, self.runner(row, seed).judge(cell)

    def runner(self, row: str, seed: int) -> Runner:
        """The runner of a row and seed."""
        if self._runner is None or self._runner[0] != (row, seed):
            self.close()
            folders = [
                path for card in self.cards for path in (card.path, materialize(card))
            ]
            self._runner = ((row, seed), Runner(Settings(seed=seed), readable=folders))
        return self._runner[1]

    def close(self) -> None:
        """End the runner."""
        if self._runner is not None:
            self._runner[1].close()
            self._runner = None


def at_hand(card: Card, model: Path) -> Card:
    """The card, with its model where it was fetched to: another cache doesn't know of it."""
    return replace(card, source=PathSource(model))


@contextmanager
def own_cache() -> Iterator[Path]:
    """A cache for the block, empty at first.

    What the experiment makes is nobody else's, and goes with it.
    """
    before = os.environ.get(VARIABLE)
    with tempfile.TemporaryDirectory(prefix="onnx-harness-selftest-") as folder:
        os.environ[VARIABLE] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop(VARIABLE) if before is None else os.environ.update(
                {VARIABLE: before}
            )


def falsely_failed(cell: Cell, result: CellResult) -> str | None:
    """Why an honest cell didn't pass.

    None where it did, can't be judged, or is known to fail at that stage.

    Nor is a verdict false that calls it faithful, but not usable: what a type costs is no fault of
    the conversion.
    """
    if result.status in (Status.PASS, Status.NOT_APPLICABLE):
        return None
    outputs = list(result.accuracy.outputs.values()) if result.accuracy else []
    converted = any(output.ideal_rel_l2 is not None for output in outputs)
    if converted and all(output.faithful for output in outputs):
        return None
    expected = cell.known_failure
    if (
        expected is not None
        and result.status is Status.FAIL
        and result.stage == expected.stage
    ):
        return None
    return f"{result.id}: {result.status} at {result.stage}: {result.reason}"
