"""Two results walked side by side: which leaves and which mismatches come, and in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_harness.accuracy.values import Kind, Leaf, Mismatch, kind_of, walk

ARRAY = np.array([1.0, 2.0])


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, Kind.NONE),
        ([], Kind.SEQUENCE),
        ((), Kind.SEQUENCE),
        ({}, Kind.MAP),
        (ARRAY, Kind.TENSOR),
        (np.float32(1), Kind.TENSOR),
        (np.str_("a"), Kind.TENSOR),
        (True, Kind.TENSOR),
        (1, Kind.TENSOR),
        (1.0, Kind.TENSOR),
        (1j, Kind.TENSOR),
        ("a", Kind.TENSOR),
        (b"a", Kind.TENSOR),
        (object(), Kind.OTHER),
        ({1, 2}, Kind.OTHER),
    ],
)
def test_each_value_is_of_a_kind(value: Any, kind: Kind) -> None:
    assert kind_of(value) is kind


def written(value: Any) -> list[tuple[Any, ...]]:
    """Return the leaves of a value beside itself, their arrays as dtype and list."""
    leaves = []
    for part in walk("y", value, value):
        assert isinstance(part, Leaf)
        assert part.output == "y"
        both = []
        for array in (part.reference, part.candidate):
            both.append(None if array is None else (str(array.dtype), array.tolist()))
        assert both[0] == both[1]
        leaves.append((part.name, both[0], list(part.labels)))
    return leaves


NOTHING: tuple[str, list[float]] = ("float64", [])


@pytest.mark.parametrize(
    ("value", "leaves"),
    [
        (ARRAY, [("y", ("float64", [1.0, 2.0]), [])]),
        (None, [("y", None, [])]),
        (2, [("y", ("int64", 2), [])]),
        (2.5, [("y", ("float64", 2.5), [])]),
        (True, [("y", ("bool", True), [])]),
        (np.float16(2), [("y", ("float16", 2.0), [])]),
        ("a", [("y", ("object", "a"), [])]),
        (b"a", [("y", ("object", b"a"), [])]),
        ([], [("y", NOTHING, [])]),
        ({}, [("y", NOTHING, [])]),
        ([3, None], [("y[0]", ("int64", 3), []), ("y[1]", None, [])]),
        (([1], []), [("y[0][0]", ("int64", 1), []), ("y[1]", NOTHING, [])]),
        ({"a": 1, 2: [{}]}, [("y['a']", ("int64", 1), []), ("y[2][0]", NOTHING, [])]),
        (
            [{np.int64(7): 0.5}, {np.str_("b"): None}, {"c": []}],
            [
                ("y[1]['b']", None, []),
                ("y[2]['c']", NOTHING, []),
                ("y", ("float64", [[0.5]]), ["[0][7]"]),
            ],
        ),
        (
            [{"a": 1.0, "b": 2.0}, {"b": 3.0, "a": 4.0}],
            [
                (
                    "y",
                    ("float64", [[1.0, 2.0], [3.0, 4.0]]),
                    ["[0]['a']", "[0]['b']", "[1]['b']", "[1]['a']"],
                )
            ],
        ),
        (
            [{"a": 1}, {"a": 2, "b": 3}],
            [("y", ("int64", [1, 2, 3]), ["[0]['a']", "[1]['a']", "[1]['b']"])],
        ),
        ({0: "a", 1: "bc"}, [("y", ("object", [["a", "bc"]]), ["[0]", "[1]"])]),
    ],
)
def test_a_value_is_walked_to_its_leaves(value: Any, leaves: list[tuple[Any, ...]]) -> None:
    assert written(value) == leaves


def test_the_two_sides_keep_their_places() -> None:
    [scores] = walk("y", {"a": 1, "b": 2}, {"b": 20, "a": 10})
    assert isinstance(scores, Leaf)
    assert scores.reference is not None
    assert scores.candidate is not None
    assert (scores.reference.tolist(), scores.candidate.tolist()) == ([[1, 2]], [[10, 20]])


def test_maps_whose_numbers_are_of_two_types_are_walked_value_by_value() -> None:
    parts = list(walk("y", {"a": 1, "b": 2}, {"a": 1, "b": 2.0}))
    assert [part.name for part in parts] == ["y['a']", "y['b']"]


OTHER = "of a type that can't be compared"
ABSENT = "absent (an empty optional)"


@pytest.mark.parametrize(
    ("reference", "candidate", "mismatch"),
    [
        (ARRAY, [ARRAY], ("y", "a tensor", "a sequence", True)),
        ({}, None, ("y", "a map", ABSENT, True)),
        ({1}, {1}, ("y", f"{OTHER} (set)", f"{OTHER} (set)", True)),
        (1, {1}, ("y", "a tensor", f"{OTHER} (set)", True)),
        ([1], [1, 2], ("y", "1 element", "2 elements", False)),
        ([1], [], ("y", "1 element", "0 elements", False)),
        ({"a": 1}, {}, ("y", "1 key ('a' only there)", "0 keys", False)),
        ([[1], [2]], [[1], [2, 3]], ("y[1]", "1 element", "2 elements", False)),
        ([{"a": [1]}], [{"a": [None]}], ("y[0]['a'][0]", "a tensor", ABSENT, True)),
        (
            {np.int64(1): 1, np.int64(2): 1},
            {np.int64(2): 1, np.int64(3): 1},
            ("y", "2 keys (1 only there)", "2 keys (3 only there)", False),
        ),
    ],
)
def test_where_structures_part_is_told(
    reference: Any, candidate: Any, mismatch: tuple[str, str, str, bool]
) -> None:
    parts = [part for part in walk("y", reference, candidate) if isinstance(part, Mismatch)]
    name, expected, actual, kind = mismatch
    assert parts == [Mismatch(name, "y", expected, actual, kind)]


def test_what_follows_a_mismatch_is_walked_too() -> None:
    parts = list(walk("y", [None, 1, {"a": 1}], [1, 1, {"b": 1}]))
    assert [(type(part), part.name) for part in parts] == [
        (Mismatch, "y[0]"),
        (Leaf, "y[1]"),
        (Mismatch, "y[2]"),
    ]
