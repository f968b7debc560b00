"""Readers of what anybody may have written: whatever the bytes, an answer or the reader's own error.

``--hypothesis-profile nightly`` tries tens of thousands of files: bytes out of nothing, and real files with a few
bytes changed, cut, or said twice.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from onnx_harness.cards import card as cards
from onnx_harness.errors import CardError, HarnessError, InputError, ModelError
from onnx_harness.inputs.recorded.npz import load_npz_sets
from onnx_harness.isolate.answers import UnreadableAnswer, pack, unpack
from onnx_harness.model.bounds import check_bounds
from onnx_harness.model.scan import scan
from onnx_harness.results.codec import as_data
from tests.models import linear, model, two_outputs

SECONDS = 5.0
"""What the scan of a hostile file may take."""

MODELS = [
    linear().SerializeToString(),
    two_outputs().SerializeToString(),
    model(
        "(float[n] x, bool c) => (float[n] y) { y = If (c) <then_branch = t () => (float[n] a) "
        "{ a = Neg(x) }, else_branch = e () => (float[n] b) { b = Abs(x) }> }"
    ).SerializeToString(),
]
CARD = b"""[model]
license = "MIT"
[source]
path = "m.onnx"
[inputs.x]
generator = "normal"
sizes = { n = [1, 2] }
[tolerance.y]
atol = 1e-3
[[known_failure]]
stage = "run"
reason = "why"
versions = { onnx = "1" }
"""


def recorded() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.ones((2, 4), np.float32), y=np.ones((2, 3), np.float32))
    return file.getvalue()


@st.composite
def changed(draw: st.DrawFn, originals: list[bytes]) -> bytes:
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


def in_file(data: bytes, name: str, folder: str) -> Path:
    path = Path(folder, name)
    path.write_bytes(data)
    return path


def words_of(kind: type[Exception], read: Callable[[], object]) -> str:
    """What a reader's own error says; empty where it has an answer. Any other error goes through."""
    try:
        read()
    except kind as error:
        return str(error)
    return ""


@given(st.one_of(changed(MODELS), st.binary(max_size=300)))
@example(b"")
@example(b"\x3a" * 200)
@example(b"\x3b" * 5000)
def test_any_bytes_are_a_model_or_a_model_error_in_time(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = in_file(data, "m.onnx", folder)
        started = time.process_time()
        assert "\x1b" not in words_of(ModelError, lambda: scan(path))
        assert "\x1b" not in words_of(ModelError, lambda: check_bounds(path, 1 << 30))
        assert time.process_time() - started < SECONDS


@given(st.one_of(changed([CARD]), st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
@example(b"\xff\xfe")
@example(b"a = " + b"[" * 3000)
@example(b"a." * 3000 + b"b = 1")
def test_any_bytes_are_a_card_or_a_card_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = in_file(data, "m.model.toml", folder)
        assert "\x1b" not in words_of(CardError, lambda: cards.read(path))


@given(st.one_of(changed([recorded()]), st.binary(max_size=300)))
@example(recorded()[:100])
def test_any_bytes_are_recorded_inputs_or_an_input_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = in_file(data, "m.npz", folder)
        assert "\x1b" not in words_of(InputError, lambda: load_npz_sets(path, linear()))


@given(st.one_of(changed([pack(["a", {"k": np.ones(3)}, 1.5])]), st.binary(max_size=200)))
@example(b"\xff" * 8)
@example((40_000).to_bytes(8, "little") + b"[" * 40_000)
def test_any_bytes_are_an_answer_or_unreadable(data: bytes) -> None:
    words_of(UnreadableAnswer, lambda: unpack(data))
    words_of(HarnessError, lambda: as_data(list).loads(data))
