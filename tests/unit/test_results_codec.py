"""Records as JSON and back: each type of a field, what is no value of it, and how that is told."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

import numpy as np
import pytest

from onnx_harness.errors import ResultsError
from onnx_harness.results.codec import as_data, as_json, decode, encode, line_of


class Word(StrEnum):
    """Two words."""

    ONE = "one"
    TWO = "two"


class Level(IntEnum):
    """A number by inheritance."""

    HIGH = 3


@dataclass(frozen=True)
class Inner:
    """A record in a record."""

    x: int
    y: float | None = None


@dataclass(frozen=True)
class Record:
    """A field of each kind."""

    whole: int
    number: float
    text: str
    truth: bool
    word: Word
    maybe: float | None
    endless: tuple[int, ...]
    two: tuple[float, str]
    numbers: dict[str, float]
    inner: Inner | None
    several: tuple[Inner, ...] = ()
    named: dict[str, Inner] = field(default_factory=dict)
    may_be_text: str | None = "nothing"


VALUE: dict[str, Any] = {
    "whole": 1,
    "number": 1.5,
    "text": "é",
    "truth": True,
    "word": "two",
    "maybe": None,
    "endless": [1, 2, 3],
    "two": [0.5, "b"],
    "numbers": {"k": 0.5},
    "inner": {"x": 4, "y": None},
    "several": [{"x": 5, "y": 0.5}],
    "named": {"n": {"x": 6, "y": None}},
    "may_be_text": None,
}
RECORD = Record(
    whole=1,
    number=1.5,
    text="é",
    truth=True,
    word=Word.TWO,
    maybe=None,
    endless=(1, 2, 3),
    two=(0.5, "b"),
    numbers={"k": 0.5},
    inner=Inner(4),
    several=(Inner(5, 0.5),),
    named={"n": Inner(6)},
    may_be_text=None,
)


def test_a_record_is_its_fields_in_order_and_comes_back() -> None:
    assert encode(RECORD) == VALUE
    assert list(encode(RECORD)) == list(VALUE)
    assert decode(Record, VALUE, "r") == RECORD
    assert line_of(RECORD) == json.dumps(VALUE)
    assert line_of(RECORD).isascii()
    codec = as_json(Record)
    assert (codec.suffix, codec.dumps(RECORD)) == ("json", json.dumps(VALUE).encode())
    assert codec.loads(codec.dumps(RECORD)) == RECORD
    with pytest.raises(ResultsError, match=r"^Record should be an object, and is \[\]$"):
        codec.loads(b"[]")
    data = as_data(dict)
    assert (data.suffix, data.loads(data.dumps({"a": 1}))) == ("data", {"a": 1})
    with pytest.raises(ResultsError, match=r"^it holds no dict$"):
        data.loads(as_data(list).dumps([1]))
    with pytest.raises(ResultsError, match=r"\w"):
        data.loads(b"nothing of the kind")


def test_what_is_not_said_is_as_it_is_by_itself_and_what_is_unknown_is_passed_over() -> None:
    least = {name: VALUE[name] for name in list(VALUE)[:10]}
    record = decode(Record, {**least, "later": 1}, "r")
    assert (record.several, record.named, record.may_be_text) == ((), {}, "nothing")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (3, 3),
        ("x", "x"),
        (0.5, 0.5),
        (math.nan, None),
        (math.inf, None),
        (-math.inf, None),
        (Word.ONE, "one"),
        (Level.HIGH, 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.float64("nan"), None),
        (np.float32("inf"), None),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        ((1, (2.5, Word.TWO)), [1, [2.5, "two"]]),
        ([np.float32(0.5), math.nan], [0.5, None]),
        ({3: math.inf, Word.ONE: (1,)}, {"3": None, "one": [1]}),
        (Inner(1, math.nan), {"x": 1, "y": None}),
    ],
)
def test_a_value_is_written_in_json_s_own_types(value: object, plain: object) -> None:
    written = encode(value)
    assert written == plain
    assert type(written) is type(plain)
    assert json.loads(json.dumps(written)) == plain


def test_what_has_no_form_is_named_with_its_type() -> None:
    with pytest.raises(TypeError, match=r"^complex has no JSON form: 1j$"):
        encode([1j])
    with pytest.raises(TypeError, match=r"^set has no JSON form"):
        line_of({"a": {1}})


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("number", 2, 2.0),
        ("maybe", 2, 2.0),
        ("maybe", 0.5, 0.5),
        ("numbers", {"a": 1, "b": 0.5}, {"a": 1.0, "b": 0.5}),
        ("two", [1, "b"], (1.0, "b")),
        ("endless", [], ()),
        ("inner", None, None),
        ("inner", {"x": 1}, Inner(1)),
        ("named", {}, {}),
    ],
)
def test_a_whole_number_may_stand_for_a_number(
    name: str, value: object, read: object
) -> None:
    got = getattr(decode(Record, {**VALUE, name: value}, "r"), name)
    assert got == read
    assert repr(got) == repr(read)


def test_a_number_that_json_cannot_say_is_none_of_them() -> None:
    record = decode(Record, {**VALUE, "number": None, "numbers": {"k": None}}, "r")
    assert math.isnan(record.number)
    assert math.isnan(record.numbers["k"])
    assert decode(Record, {**VALUE, "maybe": None}, "r").maybe is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("whole", "1", "r.whole should be a whole number, and is '1'"),
        ("whole", True, "r.whole should be a whole number, and is True"),
        ("whole", 1.0, "r.whole should be a whole number, and is 1.0"),
        ("whole", None, "r.whole should be a whole number, and is None"),
        ("number", "1", "r.number should be a number, and is '1'"),
        ("number", True, "r.number should be a number, and is True"),
        ("maybe", True, "r.maybe should be a number, and is True"),
        ("text", 1, "r.text should be text, and is 1"),
        ("text", None, "r.text should be text, and is None"),
        ("may_be_text", 1, "r.may_be_text should be text, and is 1"),
        ("truth", 1, "r.truth should be true or false, and is 1"),
        ("word", "three", "r.word should be one of one, two, and is 'three'"),
        ("word", 1, "r.word should be one of one, two, and is 1"),
        ("endless", 1, "r.endless should be a list, and is 1"),
        ("endless", {}, "r.endless should be a list, and is {}"),
        ("endless", [1, "2"], "r.endless[1] should be a whole number, and is '2'"),
        ("two", [0.5], "r.two should be a list, and is [0.5]"),
        ("two", [0.5, "b", 1], "r.two should be a list, and is [0.5, 'b', 1]"),
        ("two", [0.5, 1], "r.two[1] should be text, and is 1"),
        ("two", ["a", "b"], "r.two[0] should be a number, and is 'a'"),
        ("numbers", [], "r.numbers should be an object, and is []"),
        ("numbers", {"k": "x"}, "r.numbers['k'] should be a number, and is 'x'"),
        ("inner", [], "r.inner should be an object, and is []"),
        ("inner", {}, "r.inner.x is missing"),
        ("inner", {"x": "1"}, "r.inner.x should be a whole number, and is '1'"),
        ("several", [{"x": 1}, {}], "r.several[1].x is missing"),
        ("named", {"n": {"x": 1.5}}, "r.named['n'].x should be a whole number, and is 1.5"),
        ("truth", "x" * 58, f"r.truth should be true or false, and is '{'x' * 58}'"),
        ("truth", "x" * 59, f"r.truth should be true or false, and is '{'x' * 58}…"),
    ],
)
def test_another_value_is_refused_with_its_place(
    name: str, value: object, words: str
) -> None:
    with pytest.raises(ResultsError) as refused:
        decode(Record, {**VALUE, name: value}, "r")
    assert str(refused.value) == words


@pytest.mark.parametrize("name", list(VALUE)[:10])
def test_a_field_that_is_needed_is_missed(name: str) -> None:
    value = {key: item for key, item in VALUE.items() if key != name}
    with pytest.raises(ResultsError, match=rf"^cells\[3\]\.{name} is missing$"):
        decode(Record, value, "cells[3]")
