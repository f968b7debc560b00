"""What travels between a worker and its parent: every kind of data, and errors of anybody's."""

from __future__ import annotations

import array
import collections
import enum
import json
import math
import struct
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnx_harness.accuracy.explain import Yardstick
from onnx_harness.accuracy.noise import Gap, Noise
from onnx_harness.errors import ModelError, UsageError, WorkerCrashed, WorkerTimedOut
from onnx_harness.isolate.answers import UnreadableAnswer, pack, unpack
from onnx_harness.isolate.limits import Limits
from onnx_harness.transforms import Precision
from onnx_harness.transforms.half.layer_norms import LayerNorm


class Word(str):
    __slots__ = ()


class Count(int):
    pass


class Share(float):
    pass


class Several(list[int]):
    pass


class Packed(list[bytes]):
    pass


class Colour(enum.IntEnum):
    RED = 3


NAMED = LayerNorm(*range(len(LayerNorm._fields)))


@pytest.mark.parametrize(
    ("value", "again"),
    [
        (None, None),
        (True, True),
        (False, False),
        (0, 0),
        (-(1 << 70), -(1 << 70)),
        (0.1, 0.1),
        (-0.0, -0.0),
        (math.inf, math.inf),
        (-math.inf, -math.inf),
        ("ß\ud800\x00", "ß\ud800\x00"),
        (Word("a"), "a"),
        (Count(3), 3),
        (Count(1 << 70), 1 << 70),
        (Share(0.5), 0.5),
        (Several([1, 2]), [1, 2]),
        (Packed([b"a"]), [b"a"]),
        ({b"key": b"item"}, {b"key": b"item"}),
        (collections.Counter([b"key"]), collections.Counter([b"key"])),
        (Limits(b"a", (b"b", np.float32(1))), None),  # type: ignore[arg-type]
        ([], []),
        ((), ()),
        ((1, (2, [3])), (1, (2, [3]))),
        ({}, {}),
        (
            {1: "a", "1": "b", (2, 3): None, None: 4},
            {1: "a", "1": "b", (2, 3): None, None: 4},
        ),
        ({"!": "int", "v": "7"}, {"!": "int", "v": "7"}),
        (collections.OrderedDict(a=1), {"a": 1}),
        ({3, 4}, frozenset({3, 4})),
        (frozenset(), frozenset()),
        (collections.Counter("aab"), collections.Counter("aab")),
        (b"", b""),
        (bytearray(b"ab"), b"ab"),
        (Path("a/b"), Path("a/b")),
        (Precision.FP16, Precision.FP16),
        (Limits(1.5, 7), Limits(1.5, 7)),
        (NAMED, NAMED),
        ([Limits(1.5, 7), {"a": (Precision.INT8, b"x", np.float32(2))}], None),
    ],
)
def test_data_comes_back_as_the_plain_type_that_it_is(value: Any, again: Any) -> None:
    expected = value if again is None else again
    come = unpack(pack(value))
    assert come == expected
    assert type(come) is type(expected)
    if isinstance(expected, float):
        assert math.copysign(1, come) == math.copysign(1, expected)


def test_the_order_of_a_dict_and_the_count_of_a_counter_are_kept() -> None:
    assert list(unpack(pack({"b": 1, "a": 2}))) == ["b", "a"]
    assert unpack(pack(collections.Counter({"a": 0, "b": -2}))) == {"a": 0, "b": -2}


def test_fields_that_a_record_makes_itself_come_back_too() -> None:
    made = Yardstick(Noise(({"y": Gap(l2=1.0, norm=2.0, scale=1.0)},)))
    made.bound(0, "y", np.ones(3), 1.0)  # which it remembers in such fields
    come = unpack(pack(made))
    assert come._typical
    assert (come, come._typical) == (made, made._typical)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[1.5, math.nan], [math.inf, -0.0]], dtype)
        for dtype in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16, np.complex64)
    ]
    + [
        np.array([[True, False]]),
        np.array([1, 2], ">i2"),
        np.array([3, 4], ml_dtypes.int4),
        np.array([0.5], ml_dtypes.float8_e4m3fn),
        np.arange(24).reshape(2, 3, 4).T,
        np.array(5),
        np.zeros((2, 0, 3)),
        np.array([["a", "bcd"]]),
        np.array([b"a"]),
        np.array([["a", None], [b"b", 3]], object),
        np.zeros((0, 2), object),
        np.array(["2020-01-01"], "datetime64[D]"),
    ],
)
def test_an_array_keeps_its_type_its_shape_and_its_bits(values: Any) -> None:
    [come, after] = unpack(pack([values, b"after"]))
    assert (come.dtype, come.shape, after) == (values.dtype, values.shape, b"after")
    assert type(come) is np.ndarray
    if values.dtype == object:
        assert come.tolist() == values.tolist()
    else:
        assert come.tobytes() == values.tobytes()
    come[...] = come  # it's writable, and no part of the message


@pytest.mark.parametrize(
    "scalar",
    [np.float32(2.5), np.int64(-3), np.bool_(True), np.float16(1), ml_dtypes.bfloat16(0.5)],
)
def test_a_number_of_numpy_s_stays_one(scalar: Any) -> None:
    come = unpack(pack(scalar))
    assert (type(come), come) == (type(scalar), scalar)


def local_error() -> type[Exception]:
    class Own(Exception):
        pass

    return Own


class Picky(Exception):
    def __init__(self, one: int, *, other: int) -> None:
        super().__init__(f"{one} and {other}")


@pytest.mark.parametrize(
    ("error", "kind", "words", "arguments"),
    [
        (ValueError("no", 3), ValueError, "('no', 3)", ("no", 3)),
        (KeyError("k"), KeyError, "'k'", ("k",)),
        (OSError(2, "gone"), FileNotFoundError, "[Errno 2] gone", (2, "gone")),
        (UsageError("no"), UsageError, "no", ("no",)),
        (WorkerCrashed("what", "where"), WorkerCrashed, None, None),
        (ValueError(print), ValueError, str(print), (str(print),)),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
            UnicodeDecodeError,
            "'utf-8' codec can't decode byte 0xff in position 0: why",
            ("utf-8", b"\xff", 0, 1, "why"),
        ),
    ],
)
def test_errors_of_python_and_of_this_package_come_back(
    error: Exception,
    kind: type[Exception],
    words: str | None,
    arguments: tuple[Any, ...] | None,
) -> None:
    come = unpack(pack(error))
    assert type(come) is kind
    assert str(come) == (str(error) if words is None else words)
    if arguments is not None:
        assert come.args == arguments


@pytest.mark.parametrize(
    ("error", "name", "module"),
    [
        (Picky(1, other=2), "Picky", __name__),
        (local_error()("x"), "Own", __name__),
        (json.JSONDecodeError("bad", "doc", 0), "JSONDecodeError", "json.decoder"),
    ],
)
def test_somebody_else_s_error_comes_back_by_name_as_a_runtime_error(
    error: Exception, name: str, module: str
) -> None:
    come = unpack(pack(error))
    assert isinstance(come, RuntimeError)
    assert (type(come).__name__, type(come).__module__) == (name, module)
    assert come.args == (str(error),)
    assert type(come).__mro__[1] is RuntimeError


def said(document: object, blocks: bytes = b"") -> Any:
    head = json.dumps(document).encode()
    return unpack(struct.pack("<Q", len(head)) + head + blocks)


def error_of(kind: str, words: object = "w", values: object = ()) -> dict[str, object]:
    return {"!": "error", "t": kind, "v": list(values), "words": words}  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("builtins:int", "int"),
        ("builtins:print", "print"),
        ("builtins:KeyboardInterrupt", "KeyboardInterrupt"),
        ("builtins:nothing", "nothing"),
        ("a.b:C.D", "D"),
        ("a.b:not a name", "Exception"),
        ("a.b", "Exception"),
        (f"a:{'x' * 200}", "x" * 80),
        ("onnx_harness.isolate.limits:Limits", "Limits"),
    ],
)
def test_what_calls_itself_an_error_runs_none_of_its_code(kind: str, name: str) -> None:
    come = said(error_of(kind, words=3, values=[1]))
    assert isinstance(come, RuntimeError)
    assert (type(come).__name__, come.args) == (name, ("3",))
    assert type(come).__module__ == kind.partition(":")[0]
    assert len(type(said(error_of(f"{'m' * 200}:E"))).__module__) == 80


def test_an_error_that_cannot_be_built_is_told_in_words() -> None:
    come = said(error_of("builtins:UnicodeDecodeError", "its words"))
    assert (type(come), str(come)) == (RuntimeError, "UnicodeDecodeError: its words")
    own = said(error_of("onnx_harness.errors:WorkerTimedOut", "its words"))
    assert (type(own), str(own)) == (RuntimeError, "WorkerTimedOut: its words")
    assert type(said(error_of("onnx_harness.errors:ModelError", "w", ["no"]))) is ModelError
    deep = said(error_of("onnx_harness.isolate.answers:UnreadableAnswer", "w", ["no"]))
    assert type(deep) is UnreadableAnswer
    built = said(error_of("onnx_harness.errors:WorkerTimedOut", "w", ["slow", "run"]))
    assert (type(built), built.stage) == (WorkerTimedOut, "run")


@pytest.mark.parametrize(
    ("document", "blocks", "value"),
    [
        ({"!": "int", "v": "9" * 500}, b"", int("9" * 400)),
        ({"!": "bytes", "n": 2}, b"ab", b"ab"),
        ({"!": "bytes", "n": 0}, b"", b""),
        ([{"!": "bytes", "n": 1}, {"!": "bytes", "n": 1}], b"ab", [b"a", b"b"]),
        ({"!": "tuple", "t": "", "v": [1]}, b"", (1,)),
        ({"!": "path", "v": "x"}, b"", Path("x")),
        ({"!": "counter", "v": [["a", 2]]}, b"", collections.Counter(a=2)),
    ],
)
def test_documents_are_read(document: object, blocks: bytes, value: Any) -> None:
    come = said(document, blocks)
    assert (come, type(come)) == (value, type(value))


@pytest.mark.parametrize(
    ("document", "blocks"),
    [
        ({"!": "bytes", "n": 3}, b"ab"),
        ([{"!": "bytes", "n": 2}, {"!": "bytes", "n": 1}], b"ab"),
        ({"!": "array", "d": "<f4", "s": [1], "n": 3, "scalar": False}, b"abc"),
        ({"!": "array", "d": "<f4", "s": [2], "n": 4, "scalar": False}, b"abcd"),
        (
            {"!": "record", "t": "onnx_harness.isolate.limits:Limits", "v": {"seconds": 1}},
            b"",
        ),
        (
            {"!": "record", "t": "onnx_harness.isolate.limits:Limits", "v": {"nothing": 1}},
            b"",
        ),
        ({"!": "enum", "t": "onnx_harness.transforms:Precision", "v": "nothing"}, b""),
        ({"!": "enum", "t": "onnx_harness_other.transforms:Precision", "v": "fp16"}, b""),
        ({"!": "dict", "v": [[[], 1]]}, b""),
        ({"!": "__init__"}, b""),
    ],
)
def test_what_does_not_fit_together_is_refused(document: object, blocks: bytes) -> None:
    with pytest.raises(UnreadableAnswer):
        said(document, blocks)


def test_a_refusal_is_short() -> None:
    for document in ({"!": "x" * 900}, {"!": "enum", "t": f"{'x' * 900}:y", "v": 1}):
        with pytest.raises(UnreadableAnswer) as caught:
            said(document)
        assert len(str(caught.value)) == 200


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (print, "builtins.builtin_function_or_method"),
        (object(), "builtins.object"),
        (PurePosixPath("a"), "pathlib.PurePosixPath"),
        (local_error, "builtins.function"),
        ([1, {"a": (range(3),)}], "builtins.range"),
        (memoryview(b"a"), "builtins.memoryview"),
        (array.array("i", [1]), "array.array"),
        (np.dtype(np.int8), "numpy.dtypes.Int8DType"),
    ],
)
def test_what_is_no_data_does_not_travel(value: object, name: str) -> None:
    with pytest.raises(TypeError) as caught:
        pack(value)
    assert str(caught.value) == f"{name} can't travel from a worker: it isn't data"


def test_an_enumeration_of_somebody_else_s_is_not_read() -> None:
    with pytest.raises(UnreadableAnswer, match="a type of another package"):
        unpack(pack(Colour.RED))
