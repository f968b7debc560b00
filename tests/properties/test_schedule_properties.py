"""Shards: every cell in exactly one, whatever the order; of about the same time."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from onnx_harness.cards.card import Card, PathSource
from onnx_harness.cell.matrix import Cell
from onnx_harness.names import parse_variant
from onnx_harness.results.history_rows import Measured
from onnx_harness.run.schedule import plan_digest, shards

VARIANTS = [
    parse_variant(word) for word in ("original", "optimize", "simplify", "fp16", "fp16.io32")
]


def cells_of(models: int) -> list[Cell]:
    cards = [
        Card(Path(f"m{number}.onnx"), f"m{number}", PathSource(Path("m.onnx")))
        for number in range(models)
    ]
    return [Cell(card, variant, "cpu") for card in cards for variant in VARIANTS]


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Cell], dict[str, Measured]]:
    cells = cells_of(draw(st.integers(1, 12)))
    seconds = st.floats(0, 1000, allow_nan=False)
    past = {cell.id: Measured(draw(seconds), None) for cell in cells if draw(st.booleans())}
    return cells, past


@given(runs(), st.integers(1, 9), st.randoms())
def test_every_cell_is_in_exactly_one_shard_whatever_the_order(
    run: tuple[list[Cell], dict[str, Measured]], count: int, shuffler: random.Random
) -> None:
    cells, past = run
    parts = shards(cells, past, count)
    assert len(parts) == count
    assert sorted(cell.id for part in parts for cell in part) == sorted(
        cell.id for cell in cells
    )
    shuffled = list(cells)
    shuffler.shuffle(shuffled)
    again = shards(shuffled, dict(reversed(past.items())), count)
    assert plan_digest(again) == plan_digest(parts)


@given(st.integers(2, 8), st.integers(0, 10_000))
def test_shards_of_many_cells_take_about_the_same_time(count: int, seed: int) -> None:
    cells = cells_of(40)
    draw = random.Random(seed)
    past = {cell.id: Measured(1 + 10 * draw.random(), None) for cell in cells}
    loads = [
        sum(past[cell.id].seconds for cell in part) for part in shards(cells, past, count)
    ]
    assert max(loads) <= 1.1 * min(loads)


def test_a_model_stays_in_one_shard_unless_it_is_long() -> None:
    cells = cells_of(10)
    parts = shards(cells, {}, 2)
    first, second = parts
    other = [(*first[1:], second[0]), (first[0], *second[1:])]
    assert plan_digest(other) != plan_digest(parts)  # another plan of the same cells
    assert all(len({cell.card.name for cell in part}) == 5 for part in parts)
    past = {
        cell.id: Measured(1000.0 if cell.card.name == "m0" else 1.0, None) for cell in cells
    }
    assert all(
        any(cell.card.name == "m0" for cell in part) for part in shards(cells, past, 2)
    )
