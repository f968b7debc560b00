"""What a worker says is data: values come back as they were, and nothing is run to read them."""

from __future__ import annotations

import json
import math
import pickle
import struct
from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_harness.errors import ModelError, WorkerTimedOut
from onnx_harness.isolate.answers import UnreadableAnswer, pack, unpack
from tests.unit.results_examples import cell, full_latency

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
)


@given(VALUES)
def test_values_come_back_as_they_were(value: object) -> None:
    assert unpack(pack(value)) == value


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.zeros((0, 4), np.float32),
        np.array(3.0),
        np.array(["ab", "c"]),
        np.array(["ab", b"c", None], dtype=object),
        np.ones(3, ml_dtypes.bfloat16),
        np.ones(3, ">f4"),
    ],
)
def test_arrays_come_back_with_their_type_and_can_be_written(array: np.ndarray) -> None:
    again = unpack(pack(array))
    assert again.dtype == array.dtype
    assert np.array_equal(again, array)
    assert again.flags.writeable


def test_records_and_the_rest_come_back() -> None:
    record = cell(latency=full_latency())
    for value in (
        record,
        Path("/x"),
        Counter({("a", "b"): 2}),
        {(1, 2): frozenset({3})},
        np.float32(2.5),
    ):
        again = unpack(pack(value))
        assert again == value
        assert type(again) is type(value)
    assert math.isnan(unpack(pack(math.nan)))


def test_errors_come_back_as_theirs_and_foreign_ones_by_name() -> None:
    death = unpack(pack(WorkerTimedOut("slow", "run")))
    assert (type(death), death.what, death.stage) == (WorkerTimedOut, "slow", "run")
    assert isinstance(unpack(pack(ModelError("no"))), ModelError)
    assert isinstance(unpack(pack(KeyError("k"))), KeyError)
    foreign = unpack(pack(pickle.PicklingError("what it said")))
    assert isinstance(foreign, RuntimeError)
    assert (type(foreign).__name__, str(foreign)) == ("PicklingError", "what it said")


def answer(document: object, blocks: bytes = b"") -> bytes:
    head = json.dumps(document).encode()
    return struct.pack("<Q", len(head)) + head + blocks


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (Path("owned"), "owned")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        pickle.dumps(Bomb()),
        answer({"!": "record", "t": "subprocess:Popen", "v": {"args": ["touch", "owned"]}}),
        answer({"!": "record", "t": "onnx_harness.isolate:os", "v": {}}),
        answer({"!": "record", "t": "onnx_harness.isolate:subprocess.Popen", "v": {}}),
        answer({"!": "enum", "t": "builtins:eval", "v": "1"}),
        answer({"!": "error", "t": "onnx_harness.isolate:Worker", "v": [], "words": ""})[
            :30
        ],
        answer({"!": "tuple", "t": "onnx_harness.isolate:Path", "v": []}),
        answer({"!": "array", "d": "O", "s": [1], "n": 8, "scalar": False}, bytes(8)),
        answer({"!": "array", "d": "<f4", "s": [1 << 40], "n": 1 << 42, "scalar": False}),
        answer({"!": "array", "d": "system", "s": [1], "n": 8, "scalar": False}, bytes(8)),
        answer({"!": "_block", "v": 1}),
        answer({"!": "nothing"}),
        answer({"no": "tag"}),
        answer([[[[]]]])[:-1],
        struct.pack("<Q", 40000) + b"[" * 40000,
    ],
)
def test_what_isnt_an_answer_is_refused_and_nothing_is_run(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnreadableAnswer):
        unpack(data)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_data_cant_be_said() -> None:
    with pytest.raises(TypeError, match="isn't data"):
        pack(lambda: None)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_refused(data: bytes) -> None:
    try:
        unpack(data)
    except UnreadableAnswer:
        return
