"""Readers of what anybody may have written: whatever the bytes, an answer or the reader's own error.

``--hypothesis-profile nightly`` tries tens of thousands of files: bytes out of nothing, and real files with a few
bytes changed, cut, or said twice.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from tests.readers import (
    READERS,
    read_answer,
    read_card,
    read_model,
    read_recorded,
    recorded,
)

# zipfile raises a ValueError of its own before there is a member.
UNOPENED = base64.b64decode(
    "UEsDBC0AAAAAAAAAIQD4/////zZHFf////8AgD9QSwECLQMtAAD///8A/yEA+DdHFaAAAACgAAAABQAAAAAAAAAAAAUAAAAA"
    "AAAAAAAAAIABAAAAAHgubnB5AAAAACEAfWs6kpgAAACYAAAABQAAAAAAAAAAAAAAgAHXAAAAeS5ucHlQSwUGAAAAAAIAAgBm"
    "AAAApgEAAAAA"
)


@st.composite
def changed(draw: st.DrawFn, originals: Sequence[bytes]) -> bytes:
    """A real file with some bytes replaced, removed or repeated."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(0, 16))
        piece = draw(
            st.one_of(
                st.binary(max_size=12),
                st.sampled_from([b"\xff" * 9 + b"\x01", b"\x80" * 10, b"\x0b", b"\x00" * 8]),
                st.just(bytes(data[place : place + length]) * 3),
            )
        )
        data[place : place + length] = piece
    return bytes(data)


@given(st.one_of(changed(READERS["model"].files), st.binary(max_size=300)))
@example(b"")
@example(b"\x3a" * 200)
@example(b"\x3b" * 5000)
def test_any_bytes_are_a_model_or_a_model_error_in_time(data: bytes) -> None:
    read_model(data)


@given(
    st.one_of(
        changed(READERS["card"].files),
        st.binary(max_size=200),
        st.text(max_size=200).map(str.encode),
    )
)
@example(b"\xff\xfe")
@example(b"a = " + b"[" * 3000)
@example(b"a." * 3000 + b"b = 1")
@example(b"[model]a =\x1b{ b = 1}")
def test_any_bytes_are_a_card_or_a_card_error(data: bytes) -> None:
    read_card(data)


@given(st.one_of(changed(READERS["recorded"].files), st.binary(max_size=300)))
@example(recorded()[:100])
@example(recorded().replace(b"4), }", b"4(  }"))
@example(recorded().replace(b"PK\x01\x02-", b"PK\x01\x02-\x03\xff\xff\xff\xff\xff"))
@example(UNOPENED)
def test_any_bytes_are_recorded_inputs_or_an_input_error(data: bytes) -> None:
    read_recorded(data)


@given(st.one_of(changed(READERS["answer"].files), st.binary(max_size=200)))
@example(b"\xff" * 8)
@example((40_000).to_bytes(8, "little") + b"[" * 40_000)
def test_any_bytes_are_an_answer_or_unreadable(data: bytes) -> None:
    read_answer(data)
