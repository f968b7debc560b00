"""Notes on what a worker process is doing, which its parent reads when it dies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from onnx_harness.errors import DiedBefore

STAGE_BYTES = 256
"""The longest note: a stage, and the name of an input set."""

RISK = "at risk: "
"""The beginning of a note on what `risking` does."""


_noted: Any = None
_died_of: tuple[str, ...] = ()
_at_risk = False


def take_notes(shared: Any, died_of: tuple[str, ...]) -> None:
    """Write notes from now on, in a worker.

    Args:
        shared: memory of `STAGE_BYTES` that the parent reads too.
        died_of: notes that processes of this worker died at.
    """
    global _noted, _died_of, _at_risk
    _noted, _died_of, _at_risk = shared, died_of, False


def note_stage(stage: str) -> None:
    """Say, in the worker, what is being done now: it's named if the process dies of it.

    Elsewhere, and inside `risking`, nothing: what can be done without is the whole of it.
    """
    if not _at_risk:
        _write(stage)


def _write(stage: str) -> None:
    if _noted is not None:
        _noted.value = stage.encode()[: STAGE_BYTES - 1]


def noted() -> str:
    """Return what was said last, in the worker. Elsewhere: nothing."""
    return _noted.value.decode(errors="replace") if _noted is not None else ""


@contextlib.contextmanager
def noting(stage: str) -> Iterator[None]:
    """Note ``stage`` for the block, and after it what was noted before."""
    before = noted()
    note_stage(stage)
    try:
        yield
    finally:
        note_stage(before)


@contextlib.contextmanager
def risking(what: str) -> Iterator[None]:
    """Do something, in the block, that the process may die of, and that can be done without.

    Args:
        what: is tried, in a few words that nothing else is called by.

    Raises:
        DiedBefore: a process of this worker did die of it.
    """
    global _at_risk
    note = f"{RISK}{what}"[: STAGE_BYTES - 1]
    if note in _died_of:
        raise DiedBefore("ONNX Runtime dies of it, and the process with it")
    before, inside = noted(), _at_risk
    _write(note)
    _at_risk = True
    try:
        yield
    finally:
        _at_risk = inside
        _write(before)
