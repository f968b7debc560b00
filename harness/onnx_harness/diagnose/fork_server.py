"""A process forked for many questions: where one is its death, the next is asked of a new fork.

A fork costs tens of milliseconds where a process is large, and a question about a tiny model a few.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
import time
from collections.abc import Callable
from types import TracebackType

from onnx_harness.diagnose.forked import Ended, Say, die_with_parent, wait_briefly

_SIZE = struct.Struct("<Q")
_CHUNK = 1 << 16


class ForkServer:
    """Answers questions in a fork of this process.

    It has to have no sessions open when it is forked.
    """

    def __init__(self, answer: Callable[[bytes, Say], None]) -> None:
        """Nothing is forked before the first question.

        Args:
            answer: takes a question and a function that hands bytes back. What it raises ends the
                fork.
        """
        self._answer = answer
        self._child = 0
        self._to_child = self._from_child = -1

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def ask(self, question: bytes, seconds: float) -> Ended:
        """Return what came back, and how the fork ended where it did."""
        if not self._child:
            self._start()
        ends = time.monotonic() + seconds
        with contextlib.suppress(BrokenPipeError):
            _write(self._to_child, _SIZE.pack(len(question)) + question)
        said = b""
        while True:
            head, in_time = _read(self._from_child, _SIZE.size, ends)
            if len(head) < _SIZE.size:
                return Ended(said, in_time, self._reap(in_time))
            (length,) = _SIZE.unpack(head)
            if length == 0:
                return Ended(said, True, 0)
            part, in_time = _read(self._from_child, length, ends)
            said += part
            if len(part) < length:
                return Ended(said, in_time, self._reap(in_time))

    def close(self) -> None:
        """End the fork."""
        if self._child:
            self._reap(False)

    def _start(self) -> None:
        question_pipe, answered = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.close(question_pipe[1])
            os.close(answered[0])
            self._live(question_pipe[0], answered[1])
        os.close(question_pipe[0])
        os.close(answered[1])
        self._child, self._to_child, self._from_child = child, question_pipe[1], answered[0]

    def _live(self, questions: int, answered: int) -> None:
        """The life of the fork: it never returns."""
        code = 1
        try:
            die_with_parent()
            while len(head := _read(questions, _SIZE.size)[0]) == _SIZE.size:
                question, _ = _read(questions, _SIZE.unpack(head)[0])
                self._answer(
                    question, lambda data: _write(answered, _SIZE.pack(len(data)) + data)
                )
                _write(answered, _SIZE.pack(0))
            code = 0
        finally:
            os._exit(code)

    def _reap(self, ended: bool) -> int:
        """Wait for the fork, killing it where it doesn't end by itself; its status."""
        os.close(self._to_child)
        os.close(self._from_child)
        if not (ended and wait_briefly(self._child)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        return status


def _write(pipe: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(pipe, view) :]


def _read(pipe: int, length: int, ends: float | None = None) -> tuple[bytes, bool]:
    """Return so many bytes, and whether that was in time.

    They're fewer where the other end is closed or time is over.
    """
    parts: list[bytes] = []
    while length:
        if ends is not None:
            remaining = ends - time.monotonic()
            if remaining <= 0 or not select.select([pipe], [], [], remaining)[0]:
                return b"".join(parts), False
        part = os.read(pipe, min(length, _CHUNK))
        if not part:
            break
        parts.append(part)
        length -= len(part)
    return b"".join(parts), True
