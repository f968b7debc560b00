"""Decode greedily: run a decoder step by step and feed its cache back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from onnx_harness.judging.generation.decoder import Decoder, Role, of_encoder
from onnx_harness.model.file import ValueType
from onnx_harness.providers.running import run

if TYPE_CHECKING:
    import onnxruntime as ort

_DTYPES: Mapping[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bfloat16)": ml_dtypes.bfloat16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """The steps of a decoder.

    Attributes:
        logits: of each step, in float32: (steps, vocabulary).
        seconds: that each step took; the first one's include the whole prompt.
    """

    logits: NDArray[np.float32]
    seconds: tuple[float, ...]

    @property
    def tokens(self) -> NDArray[np.int64]:
        """The token that each step picks: (steps,)."""
        tokens: NDArray[np.int64] = np.argmax(self.logits, axis=1).astype(np.int64)
        return tokens


def decode(
    session: ort.InferenceSession,
    decoder: Decoder,
    fixed: Mapping[str, Any],
    prompt: Sequence[int],
    steps: int,
    forced: Sequence[int] | None = None,
) -> Decoded:
    """Decode greedily.

    Args:
        session: of the decoder, or of what was made of it.
        decoder: its interface, before any transform.
        fixed: the values of inputs that are the same in each step; others in it don't count.
        prompt: the tokens that it begins with.
        steps: how many tokens it picks.
        forced: the tokens that are fed, whatever it picks; None: those that it picks.

    Raises:
        Exception: whatever ONNX Runtime raises.
    """
    state = _State(session, decoder, fixed)
    logits: list[NDArray[np.float32]] = []
    seconds: list[float] = []
    fed = list(prompt)
    for step in range(steps):
        started = time.perf_counter()
        row = state.feed(fed)
        seconds.append(time.perf_counter() - started)
        logits.append(row)
        picked = int(np.argmax(row))
        fed = [picked if forced is None else forced[step]]
    return Decoded(np.stack(logits), tuple(seconds))


class _State:
    """A decoder on its way: its cache, and how many tokens are in it."""

    def __init__(
        self, session: ort.InferenceSession, decoder: Decoder, fixed: Mapping[str, Any]
    ) -> None:
        self._session = session
        self._decoder = decoder
        self._types = {info.name: _DTYPES.get(info.type) for info in session.get_inputs()}
        self._fixed = {name: self._cast(name, value) for name, value in fixed.items()}
        self._history: list[int] = []
        self._cache = {
            name: np.zeros(shape, self._types.get(name) or np.float32)
            for name, shape in decoder.empty.items()
        }

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Feed tokens, and return the logits after the last of them: (vocabulary,)."""
        decoder = self._decoder
        if not decoder.cache:
            tokens, self._history = [*self._history, *tokens], []
        at_once = [list(tokens)] if decoder.whole else [[token] for token in tokens]
        *first, last = at_once
        for chunk in first:
            self._run(chunk)
        return self._run(last)

    def _run(self, tokens: list[int]) -> NDArray[np.float32]:
        decoder, past = self._decoder, len(self._history)
        rank = len(decoder.ids.shape or (None, None))
        ids = np.array(tokens).reshape((1,) * (rank - 1) + (-1,))
        feeds: dict[str, Any] = {**self._fixed, decoder.ids.name: ids, **self._cache}
        for name, (role, value) in decoder.roles.items():
            feeds[name] = _counted(role, value, past, len(tokens), decoder.places)
        outputs = run(self._session, {name: self._cast(name, feeds[name]) for name in feeds})
        self._history += tokens
        for name, output in decoder.cache.items():
            if not (past and of_encoder(name)):
                self._cache[name] = outputs[output]
        logits = np.asarray(outputs[decoder.logits])
        # A copy of the last row alone: a view would keep the rows of the whole prompt.
        row: NDArray[np.float32] = logits.reshape(-1, logits.shape[-1])[-1].astype(
            np.float32
        )
        return row

    def _cast(self, name: str, value: Any) -> Any:
        dtype = self._types.get(name)
        if dtype is None or not isinstance(value, np.ndarray) or value.dtype == dtype:
            return value
        with np.errstate(over="ignore"):  # what a half type doesn't hold is infinite in it
            return value.astype(dtype)


def _counted(
    role: Role, value: ValueType, past: int, count: int, places: int | None
) -> NDArray[Any]:
    """The value of an input that counts tokens, in a step that feeds ``count`` after ``past``."""
    shape, total = value.shape or (), past + count
    sizes = [size if isinstance(size, int) else 1 for size in shape]
    if role is Role.MASK:
        length = shape[-1]
        room = length if isinstance(length, int) else places or total
        return (np.arange(room) < total).astype(np.int64).reshape(1, -1)
    if role is Role.KINDS:
        return np.zeros((*sizes[:-1], count), np.int64)
    if role is Role.POSITIONS:
        positions = np.arange(past, total)
        if not shape or shape[-1] == 1:  # of the first one that is fed
            return np.full(sizes, past, np.int64)
        return np.broadcast_to(positions, (*sizes[:-1], count)).astype(np.int64)
    number = {
        Role.TOTAL: total,
        Role.LAST: total - 1,
        Role.PAST: past,
        Role.HAS_PAST: int(past > 0),
    }[role]
    return np.full(sizes, number, np.int64)
