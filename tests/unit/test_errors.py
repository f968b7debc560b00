"""Errors in a line."""

from __future__ import annotations

from onnx_harness.errors import ModelError, first_line, named, words_of


def test_an_error_without_words_is_called_by_its_type() -> None:
    assert first_line(ValueError("  ")) == first_line(ValueError()) == "ValueError"
    assert named(ValueError()) == "ValueError, without a message"


def test_an_error_is_its_first_line_with_its_type_where_it_is_not_ours() -> None:
    assert first_line(ValueError("\nwrong\nand more")) == "wrong"
    assert (
        words_of(ValueError("wrong\nand more"))
        == named(ValueError("wrong"))
        == "ValueError: wrong"
    )
    assert words_of(ModelError("no model\nat all")) == "no model"


def test_a_long_line_is_cut() -> None:
    assert first_line(ValueError("x" * 300), 160) == "x" * 159 + "…"
    assert first_line(ValueError("x" * 160), 160) == "x" * 160


def raised_from(words: str, cause: BaseException) -> ValueError:
    error = ValueError(words)
    error.__cause__ = cause
    return error


def test_what_an_error_was_raised_from_follows_where_it_does_not_say_so() -> None:
    root = KeyError("w")
    assert (
        named(raised_from("a pass failed", raised_from("graph", root)))
        == "ValueError: a pass failed (KeyError: 'w')"
    )
    assert named(raised_from("a pass failed: 'w'", root)) == "ValueError: a pass failed: 'w'"
    assert named(raised_from("a pass failed", KeyError())) == "ValueError: a pass failed"


def test_errors_that_were_raised_from_one_another_in_a_circle_come_to_an_end() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__ = first
    assert named(first) == "ValueError: first"
    first.__cause__, second.__cause__ = second, first
    assert named(first) == "ValueError: first (KeyError: 'second')"


def test_an_address_is_left_out() -> None:
    words = "the '<passes.Inline object at 0x7f137cc515d0>' pass failed"
    assert named(ValueError(words)) == "ValueError: the '<passes.Inline>' pass failed"
