"""Models and official cases as test modules."""

from __future__ import annotations

import contextlib
import gc
import importlib
from collections.abc import Iterable, Iterator
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from onnx_harness.errors import HarnessError
from onnx_harness.plugin.state import MODULES, SELECTIONS, VARIANTS, settings_of

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
        return tests_alone(benchmark=self.config.pluginmanager.hasplugin("benchmark"))

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
        with _without_collection():
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


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Create tests without looking for garbage meanwhile.

    Nothing of them is garbage before the run ends, and each look goes through all of them.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@cache
def tests_alone(*, benchmark: bool) -> ModuleType:
    """``onnx_harness.suite`` without what isn't a test.

    Pytest looks at all that a module holds, once for each model.

    Args:
        benchmark: whether there is pytest-benchmark's fixture. Otherwise the module has one of its
            own, which says why latency isn't measured.
    """
    alone = accuracy_alone()
    whole = importlib.import_module("onnx_harness.suite")
    both = ModuleType(alone.__name__, alone.__doc__)
    vars(both).update(test_accuracy=whole.test_accuracy, test_latency=whole.test_latency)
    if not benchmark:
        vars(both).update(benchmark=_no_benchmark)
    return both


@pytest.fixture(name="benchmark")
def _no_benchmark() -> None:
    pytest.skip("latency isn't measured: pytest-benchmark is switched off or not installed")


@cache
def accuracy_alone() -> ModuleType:
    """``onnx_harness.suite`` with the accuracy alone."""
    whole = importlib.import_module("onnx_harness.suite")
    alone = ModuleType(whole.__name__, whole.__doc__)
    vars(alone).update(test_accuracy=whole.test_accuracy)
    return alone
