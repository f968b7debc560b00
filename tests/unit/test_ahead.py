"""One cell ahead: what is judged before it's asked for, and what waits for it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.cards.card import Card, PathSource
from onnx_harness.cell.matrix import Cell
from onnx_harness.names import parse_variant
from onnx_harness.run.ahead import Ahead

CARD = Card(Path("m.onnx"), "m", PathSource(Path("m.onnx")))
CELLS = [
    Cell(CARD, parse_variant(variant), "cpu")
    for variant in ("original", "optimize", "simplify", "fp16", "bf16", "ort.all")
]
MOST_SECONDS = 20.0


class Judge:
    """Judges when it may; says what it is at, and whether two were ever at it at once."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may = {cell.id: threading.Event() for cell in CELLS}
        self.fails: dict[str, BaseException] = {}
        self._alone = threading.Lock()

    def __call__(self, cell: Cell) -> Any:
        assert self._alone.acquire(blocking=False), "two at once"
        try:
            self.begun.append(cell.id)
            assert self.may[cell.id].wait(MOST_SECONDS)
            if cell.id in self.fails:
                raise self.fails[cell.id]
            return f"verdict on {cell.id}"
        finally:
            self._alone.release()

    def allow(self, *cells: Cell) -> None:
        for cell in cells:
            self.may[cell.id].set()


@pytest.fixture
def judge() -> Judge:
    return Judge()


def verdict(cell: Cell) -> Any:
    return f"verdict on {cell.id}"


def ids(*cells: Cell) -> list[str]:
    return [cell.id for cell in cells]


def test_the_next_cell_is_begun_when_one_is_asked_for_and_no_other(judge: Judge) -> None:
    first, second, third, *_ = CELLS
    ahead = Ahead(CELLS, judge)
    assert judge.begun == []
    judge.allow(first, second)
    assert ahead.take(first) == verdict(first)
    ahead.settle()
    assert judge.begun == ids(first, second)  # nobody has asked for the second: no third
    judge.allow(third)
    assert ahead.take(second) == verdict(second)
    ahead.settle()
    assert judge.begun == ids(first, second, third)


def test_all_are_judged_once_in_their_order(judge: Judge) -> None:
    judge.allow(*CELLS)
    ahead = Ahead(CELLS, judge)
    assert [ahead.take(cell) for cell in CELLS] == [verdict(cell) for cell in CELLS]
    assert judge.begun == ids(*CELLS)


def test_cells_that_are_asked_for_in_another_order_are_judged_once_each(
    judge: Judge,
) -> None:
    first, second, third, fourth, fifth, sixth = CELLS
    judge.allow(*CELLS)
    ahead = Ahead(CELLS, judge)
    for cell in (first, third, fifth, second, fourth, sixth):
        assert ahead.take(cell) == verdict(cell)
    ahead.settle()
    assert sorted(judge.begun) == sorted(ids(*CELLS))


def test_the_cell_after_one_that_was_passed_over_waits_too(judge: Judge) -> None:
    first, second, third, fourth, fifth, _ = CELLS
    judge.allow(first, second, third, fourth)
    ahead = Ahead(CELLS, judge)
    ahead.take(first)
    ahead.take(fourth)  # the fifth is begun, and takes its time
    taken: list[Any] = []
    other = threading.Thread(target=lambda: taken.append(ahead.take(second)), daemon=True)
    other.start()
    other.join(0.1)
    assert judge.begun == ids(first, second, fourth, fifth)  # and not the third
    judge.allow(fifth)
    other.join(MOST_SECONDS)
    ahead.settle()
    assert taken == [verdict(second)]
    assert judge.begun == ids(first, second, fourth, fifth, third)


def test_what_is_asked_for_out_of_turn_waits_for_the_cell_that_is_judged(
    judge: Judge,
) -> None:
    first, second, _, fourth, *_ = CELLS
    ahead = Ahead(CELLS, judge)
    judge.allow(first, fourth)
    ahead.take(first)
    taken: list[Any] = []
    other = threading.Thread(target=lambda: taken.append(ahead.take(fourth)), daemon=True)
    other.start()
    other.join(0.1)
    assert judge.begun == ids(first, second)
    judge.allow(second)
    other.join(MOST_SECONDS)
    assert taken == [verdict(fourth)]


def test_who_needs_the_worker_waits_for_the_cell_that_has_it(judge: Judge) -> None:
    first, second, *_ = CELLS
    ahead = Ahead(CELLS, judge)
    judge.allow(first)
    ahead.take(first)
    threads = [each for each in threading.enumerate() if each.name == "onnx-harness-ahead"]
    assert threads
    assert all(each.daemon for each in threads)  # a run that ends doesn't wait for it
    settled = threading.Event()

    def settle() -> None:
        ahead.settle()
        settled.set()

    threading.Thread(target=settle, daemon=True).start()
    assert not settled.wait(0.1)
    judge.allow(second)
    assert settled.wait(MOST_SECONDS)


def test_the_cell_that_is_judged_does_not_wait_for_itself() -> None:
    asked: list[str] = []

    def judge(cell: Cell) -> Any:
        ahead.settle()  # as whoever asks the worker does
        asked.append(cell.id)
        return verdict(cell)

    ahead = Ahead(CELLS, judge)
    for cell in CELLS:
        ahead.take(cell)
    assert asked == ids(*CELLS)


@pytest.mark.parametrize("error", [OSError("it fell"), SystemExit("it fell")])
def test_what_judging_raises_reaches_whoever_asks(
    judge: Judge, error: BaseException
) -> None:
    first, second, third, *_ = CELLS
    judge.allow(*CELLS)
    judge.fails = {second.id: error}
    ahead = Ahead(CELLS, judge)
    ahead.take(first)
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            ahead.take(second)
        except BaseException as fault:
            raised.append(fault)

    other = threading.Thread(target=ask, daemon=True)
    other.start()
    other.join(MOST_SECONDS)
    assert raised == [error]
    assert ahead.take(third) == verdict(third)


def test_nothing_is_begun_behind_a_verdict_that_the_worker_has_more_to_do_for(
    judge: Judge,
) -> None:
    first, second, third, fourth, *_ = CELLS
    judge.allow(*CELLS)
    ahead = Ahead(CELLS, judge, lambda judged: judged != verdict(second))
    for cell in (first, second):
        ahead.take(cell)
    ahead.settle()
    assert judge.begun == ids(first, second)
    ahead.take(third)
    ahead.settle()
    assert judge.begun == ids(first, second, third, fourth)
