"""The search for nodes that stay float: which sets are tried, what it says, where its files lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.judging.mixed import source
from onnx_harness.judging.mixed.account import Mix, Refused
from onnx_harness.judging.mixed.search import Found, smallest_set
from onnx_harness.judging.mixed.source import Source
from tests.models import model

Places = Sequence[int]


class Oracle:
    """Passes with the nodes that are needed, and notes what it was asked."""

    def __init__(self, *needed: int, most: int = 10_000) -> None:
        self.needed = set(needed)
        self.asked: list[list[int]] = []
        self._most = most

    def __call__(self, places: frozenset[int]) -> bool:
        self.asked.append(sorted(places))
        return self.needed <= places

    def spent(self) -> bool:
        return len(self.asked) >= self._most


def found(nodes: Places, wide: Places, *, minimal: bool = True) -> Found:
    return Found(frozenset(nodes), frozenset(wide), minimal)


RANKED = [1e5, 300.0, 299.0, 30.0, 29.0, 6.0, 5.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("oracle", "expected", "asked"),
    [
        (Oracle(0), found([0], [0]), [[0]]),
        (Oracle(1), found([1], [0, 1]), [[0], [0, 1], [0], [1]]),
        (
            Oracle(2),
            found([2], range(4)),
            [[0], [0, 1], [0, 1, 2, 3], [0, 1, 2], [0], [0, 1], [0, 2], [2]],
        ),
        (Oracle(10), None, [[0], [0, 1], [0, 1, 2, 3], list(range(6)), list(range(10))]),
        (Oracle(1, most=2), found([0, 1], [0, 1], minimal=False), [[0], [0, 1]]),
        (Oracle(1, most=3), found([0, 1], [0, 1], minimal=False), [[0], [0, 1], [0]]),
    ],
)
def test_the_likeliest_are_tried_first_and_given_back_last(
    oracle: Oracle, expected: Found | None, asked: list[Places]
) -> None:
    got = smallest_set(oracle, RANKED, [1.0] * 10, oracle.spent)
    assert (got, oracle.asked) == (expected, asked)


def sizes(oracle: Oracle) -> list[int]:
    return [len(places) for places in oracle.asked]


@pytest.mark.parametrize(
    ("count", "suspect", "needed", "most", "tried"),
    [
        # The whole, then halves, until no more than six are in doubt.
        (40, 0, 39, 99, [40, 20, 30]),
        (40, 0, 3, 99, [40, 20, 10, 5]),
        (13, 0, 3, 99, [13, 6]),
        (7, 0, 6, 99, [7, 3]),
        (6, 0, 3, 99, [6]),
        (40, 0, 3, 1, [40]),
        (40, 0, 3, 2, [40, 20]),
        # Of a long ranking half as many as the last that fails may be in doubt.
        (150, 100, 149, 99, [100, 150]),
        (151, 100, 149, 99, [100, 151, 125]),
        (113, 100, 110, 99, [100, 113]),
    ],
)
def test_a_prefix_is_bisected_while_more_is_in_doubt_than_thinning_costs(
    count: int, suspect: int, needed: int, most: int, tried: list[int]
) -> None:
    oracle = Oracle(needed, most=most)
    suspicion = [7.0] * suspect + [1.0] * (count - suspect)
    got = smallest_set(oracle, suspicion, [1.0] * count, oracle.spent)
    assert got is not None
    assert sizes(oracle)[: len(tried)] == tried
    first = sizes(oracle)[len(tried) :][:1]
    assert first in ([], [len(got.wide) - max(1, len(got.wide) // 4)])


def test_pieces_grow_while_they_can_be_given_back_and_halve_where_not() -> None:
    oracle = Oracle(2, 23)
    got = smallest_set(oracle, [7.0] * 24, [1.0] * 24, oracle.spent)
    assert got == found([2, 23], range(24))
    thinned = [18, 21, 23, 23, 21, 17, 9, 1, 5, 1, 3, 4, 2, 3, 3, 2]
    assert sizes(oracle) == [24, 12, 18, *thinned]


@pytest.mark.parametrize(
    ("suspicion", "price", "order"),
    [
        # The dearest of equals is given up first; of equal prices the last.
        ([7.0] * 4, [1.0, 5.0, 1.0, 2.0], [1, 3, 2, 0]),
        # Of another magnitude the least suspect, whatever it costs; 7 and 9 are of one.
        ([7000.0, 8.0, 70.0, 9.0], [9.0, 1.0, 5.0, 2.0], [3, 1, 2, 0]),
        ([9.4, 9.6, 8.0, 9.0], [1.0, 9.0, 1.0, 1.0], [3, 2, 0, 1]),
    ],
)
def test_equals_are_given_up_by_their_price(
    suspicion: list[float], price: list[float], order: list[int]
) -> None:
    tried: list[set[int]] = []

    def passes(places: frozenset[int]) -> bool:
        tried.append(set(range(4)) - places)
        return len(places) == 4

    got = smallest_set(passes, suspicion, price, lambda: False)
    assert got == found(range(4), range(4))
    assert [each for each in tried if len(each) == 1] == [{place} for place in order]


def test_between_equals_of_the_ranking_the_cheapest_is_tried_first() -> None:
    oracle = Oracle(3)
    smallest_set(oracle, [7.0, 300.0, 300.0, 300.0], [1.0, 9.0, 2.0, 1.0], oracle.spent)
    assert oracle.asked[:1] == [[1, 2, 3]]
    oracle = Oracle(1, 2)
    smallest_set(oracle, [1.0] * 30, [float(-place) for place in range(30)], oracle.spent)
    assert oracle.asked[1] == list(range(15, 30))


# What it says.


def mix(**changes: Any) -> Mix:
    given: dict[str, Any] = {
        "names": ("a", "b"),
        "nodes": 3,
        "of": 412,
        "time_share": 0.008,
        "minimal": True,
        "exact": True,
        "corrections": 0,
        "sessions": 2,
        "runs": 15,
        "seconds": 1.0,
    }
    return Mix(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "keeps 3 of 412 nodes in float32 (0.8% of the time)"),
        ({"time_share": None, "kind": "float"}, "keeps 3 of 412 nodes in float"),
        ({"nodes": 0}, "keeps none of 412 nodes in float32"),
        ({"nodes": 0, "of": 0}, "keeps none of 0 nodes in float32"),
        ({"of": 3}, "keeps all 3 nodes in float32, so that nothing is gained"),
    ],
)
def test_what_a_mix_keeps(changes: dict[str, Any], words: str) -> None:
    assert mix(**changes).keeps() == words


FOUND_IN = (
    "found in 15 runs of 2 sessions and verified on the converted model; everything in"
)
SMALLER = "; a smaller set may do: the budget ended the search"


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        (
            {},
            [
                f"{mix().keeps()}, {FOUND_IN} float32 gives the original's outputs bit for bit",
                "the same again: fp16.io32(node_block_list=['a', 'b'])",
            ],
        ),
        (
            {"minimal": False, "exact": False, "kind": "float", "time_share": None},
            [
                f"keeps 3 of 412 nodes in float, {FOUND_IN} float gives the original's outputs"
                f"{SMALLER}",
                "the same again: fp16.io32(nodes_to_exclude=['a', 'b'])",
            ],
        ),
        (
            {"minimal": False, "names": (), "nodes": 0},
            [
                f"keeps none of 412 nodes in float32, {FOUND_IN} float32 gives the original's "
                "outputs bit for bit"
            ],
        ),
        (
            {
                "names": (),
                "refused": Refused(("a", "b", "c"), "no kernel", "cuda", "float16"),
            },
            [
                f"{mix().keeps()}, {FOUND_IN} float32 gives the original's outputs bit for bit",
                "provider 'cuda' refuses float16 in 'a', 'b', 'c': no kernel",
            ],
        ),
        (
            {"names": (), "refused": Refused(tuple("abcde"), "no", "cuda", "bfloat16")},
            [
                f"{mix().keeps()}, {FOUND_IN} float32 gives the original's outputs bit for bit",
                "provider 'cuda' refuses bfloat16 in 'a', 'b', 'c' and 2 more: no",
            ],
        ),
    ],
)
def test_what_a_reader_should_know_of_a_mix(
    changes: dict[str, Any], sentences: list[str]
) -> None:
    assert list(mix(**changes).sentences("fp16.io32")) == sentences


# Its files.


def weighty(*bytes_each: int) -> onnx.ModelProto:
    made = model("(float[n] x) => (float[n] y) { y = Relu(x) }")
    for place, size in enumerate(bytes_each):
        value = np.arange(size // 4, dtype=np.float32)
        made.graph.initializer.append(numpy_helper.from_array(value, f"w{place}"))
    return made


def test_a_small_model_is_copied_and_handed_over_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = weighty(400, 600)
    monkeypatch.setattr(source, "_LARGE", 1001)
    small = Source(made, tmp_path)
    assert (small.external, small.folder) == (False, tmp_path)
    assert small.openable(small.copy()) == made.SerializeToString()
    small.copy().graph.ClearField("node")
    assert small.copy() == made
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(source, "_LARGE", 1000)
    assert Source(made, tmp_path).external


def test_the_weights_of_a_large_model_are_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_LARGE", 8000)
    made = weighty(8000, 4000)
    large = Source(made, tmp_path)
    kept = large.copy()
    # Up to a page a weight stays in the model.
    assert [tensor.data_location for tensor in kept.graph.initializer] == [
        onnx.TensorProto.EXTERNAL,
        onnx.TensorProto.DEFAULT,
    ]
    assert kept.graph.initializer[0].external_data[0].value == "source.weights"
    file = large.openable(kept)
    assert file == tmp_path / "1.onnx"
    loaded = onnx.load(str(file))
    assert loaded.graph.initializer[0].raw_data == made.graph.initializer[0].raw_data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.onnx", "source.weights"]


def test_what_is_written_for_a_block_is_gone_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[tuple[str, str]] = []

    def save(proto: onnx.ModelProto, file: Path, *, weights: str) -> None:
        saved.append((file.name, weights))
        onnx.save(proto, str(file))
        file.with_name(weights).write_bytes(b"weights")

    monkeypatch.setattr(source, "save", save)
    held = Source(weighty(4), tmp_path)
    with held.written(held.copy()) as file:
        assert onnx.load(str(file)) == held.copy()
        assert held.saved(held.copy()).name == "2.onnx"
        with pytest.raises(ValueError, match="within"), held.written(held.copy()):
            raise ValueError("within")
    assert saved == [
        ("1.onnx", "1.weights"),
        ("2.onnx", "2.weights"),
        ("3.onnx", "3.weights"),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.onnx", "2.weights"]
    with held.written(held.copy()) as file:
        file.unlink()
        file.with_suffix(".weights").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.onnx", "2.weights"]
