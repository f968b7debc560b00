"""The readers of what anybody may have written, and real files of theirs to begin with."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader of files that may be hostile.

    Attributes:
        read: takes any bytes; an error that isn't the reader's own goes through.
        files: real ones.
    """

    read: Callable[[bytes], None]
    files: Sequence[bytes]


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


def read_model(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = in_file(data, "m.onnx", folder)
        started = time.process_time()
        assert "\x1b" not in words_of(ModelError, lambda: scan(path))
        assert "\x1b" not in words_of(ModelError, lambda: check_bounds(path, 1 << 30))
        assert time.process_time() - started < SECONDS


def read_card(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = in_file(data, "m.model.toml", folder)
        assert "\x1b" not in words_of(CardError, lambda: cards.read(path))


def read_recorded(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = in_file(data, "m.npz", folder)
        assert "\x1b" not in words_of(InputError, lambda: load_npz_sets(path, linear()))


def read_answer(data: bytes) -> None:
    words_of(UnreadableAnswer, lambda: unpack(data))
    words_of(HarnessError, lambda: as_data(list).loads(data))


READERS: Mapping[str, Reader] = {
    "model": Reader(read_model, MODELS),
    "card": Reader(read_card, [CARD]),
    "recorded": Reader(read_recorded, [recorded()]),
    "answer": Reader(read_answer, [pack(["a", {"k": np.ones(3)}, 1.5])]),
}


def read_no_long_file(data: bytes) -> None:
    if len(data) > 3:
        raise ValueError("more than three bytes")


PLANTED = Reader(read_no_long_file, [b"abc"])
"""A reader with a mistake, which a search finds."""
