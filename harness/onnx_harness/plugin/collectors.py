"""Models and official cases as test modules."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from onnx_harness.errors import HarnessError
from onnx_harness.plugin.state import (
    MODULES,
    SELECTIONS,
    VARIANTS,
    settings_of,
)

if TYPE_CHECKING:
    from onnx_harness.cards.card import Card


class BackendSuite(pytest.Directory):
    """The official cases of ONNX's operators, a module each."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """A module for each case that was asked for."""
        from onnx_harness.cards import backend_suite

        try:
            cards = backend_suite.cards(self.config.stash[SELECTIONS])
        except HarnessError as error:
            raise self.CollectError(str(error)) from None
        for card in cards:
            yield CaseModule.from_parent(
                self, path=self.path / backend_suite.case_of(card), card=card
            )


class ModelModule(pytest.Module):
    """A model as a test module: the tests of ``onnx_harness.suite``, once for each of its cells."""

    def _getobj(self) -> Any:
        if self.config.pluginmanager.hasplugin("benchmark"):
            return importlib.import_module("onnx_harness.suite")
        return suite_without_benchmark()

    def card(self) -> Card:
        """The card of the model."""
        from onnx_harness.cell import matrix

        return matrix.card_or_problem(self.path)

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """The tests, cell by cell: what is known of a cell is complete before the next begins."""
        from onnx_harness.cell.matrix import Cell

        try:
            card = self.card()
            settings = settings_of(self.config)
            variants = self.config.stash[VARIANTS]
        except HarnessError as error:
            raise self.CollectError(str(error)) from None
        if self.config.stash[MODULES].setdefault(card.path, self.path) != self.path:
            return []  # a model and its card were both named, as by `pytest models/*`
        cells = []
        for provider in settings.provider:
            for variant in variants:
                cells.append(Cell(card, variant, provider))
        self.cells = cells
        by_test = list(super().collect())
        tests = len(by_test) // max(len(self.cells), 1)
        by_cell: list[Any] = []
        for cell in range(len(self.cells)):
            by_cell += by_test[cell :: len(self.cells)][:tests]
        return by_cell


class CaseModule(ModelModule):
    """A case of the suite as a test module. A case isn't timed: it takes microseconds."""

    def __init__(self, *args: Any, card: Card, **others: Any) -> None:
        super().__init__(*args, **others)
        self._card = card

    def _getobj(self) -> Any:
        return accuracy_alone()

    def card(self) -> Card:
        """The card that was made of the case."""
        return self._card


@cache
def suite_without_benchmark() -> ModuleType:
    """Return ``onnx_harness.suite`` with a ``benchmark`` of its own.

    That says why there is no other.
    """
    whole = importlib.import_module("onnx_harness.suite")
    copy = ModuleType(whole.__name__, whole.__doc__)

    @pytest.fixture
    def benchmark() -> None:
        pytest.skip("latency isn't measured: pytest-benchmark is switched off or not installed")

    vars(copy).update(
        test_accuracy=whole.test_accuracy, test_latency=whole.test_latency, benchmark=benchmark
    )
    return copy


@cache
def accuracy_alone() -> ModuleType:
    """``onnx_harness.suite`` without the rest.

    Pytest looks at all that a module holds, two thousand times here.
    """
    whole = importlib.import_module("onnx_harness.suite")
    alone = ModuleType(whole.__name__, whole.__doc__)
    vars(alone).update(test_accuracy=whole.test_accuracy)
    return alone
