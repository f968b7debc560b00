"""Libraries of custom operators.

Native code that ONNX Runtime loads before it opens a model that uses them.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from onnx_harness.errors import ModelError

Result = TypeVar("Result")

_libraries: tuple[Path, ...] = ()


@contextmanager
def custom_operators(libraries: Sequence[Path]) -> Iterator[None]:
    """Have `register` register ``libraries`` with every session of the block, in this process."""
    global _libraries
    # A bare name would be looked for where the loader keeps its libraries.
    before, _libraries = _libraries, tuple(library.absolute() for library in libraries)
    try:
        yield
    finally:
        _libraries = before


@dataclass(frozen=True)
class WithLibraries(Generic[Result]):
    """A function that runs among `custom_operators`: what a worker is sent."""

    libraries: tuple[Path, ...]
    function: Callable[..., Result]

    def __call__(self, *args: Any) -> Result:
        """Return ``function(*args)``."""
        with custom_operators(self.libraries):
            return self.function(*args)


def register(options: Any) -> None:
    """Register the libraries with the options of a session.

    Args:
        options: an ``onnxruntime.SessionOptions``.

    Raises:
        ModelError: a library is missing, or ONNX Runtime can't load it.
    """
    for library in _libraries:
        _require(library)
        try:
            options.register_custom_ops_library(str(library))
        except Exception as error:
            # ONNX Runtime's errors have no common class below Exception.
            words = " ".join(str(error).split())
            raise ModelError(
                f"ONNX Runtime can't load the custom-operator library {library}: {words}. "
                "Mend: build it for this machine and this version of ONNX Runtime"
            ) from None
        _keep_loaded(library)


@functools.cache
def _keep_loaded(library: Path) -> object:
    """Keep a library in the process once it's there.

    ONNX Runtime unloads it with the last session, and one with state of its own
    (onnxruntime-extensions 0.15) kills the process when it's loaded again.
    """
    try:
        return ctypes.CDLL(str(library))
    except OSError:  # as before, then
        return None


def load_libraries() -> None:
    """Load the libraries now, so that a wrong one is known before anything else is done.

    Raises:
        ModelError: as `register`.
    """
    if _libraries:
        import onnxruntime

        register(onnxruntime.SessionOptions())


@contextmanager
def in_foreign_sessions() -> Iterator[None]:
    """Register the libraries with the sessions that another package opens in the block, too."""
    if not _libraries:
        yield
        return
    import onnxruntime

    plain = onnxruntime.SessionOptions

    def registered() -> Any:
        options = plain()
        register(options)
        return options

    onnxruntime.SessionOptions = registered
    try:
        yield
    finally:
        onnxruntime.SessionOptions = plain


def libraries_digest(libraries: Sequence[Path] | None = None) -> str:
    """Return SHA-256, in hexadecimal, over the libraries' bytes.

    An empty string where there are none.

    Args:
        libraries: in the order of registration; None: those of the `custom_operators` around.

    Raises:
        ModelError: one is missing or can't be read.
    """
    chosen = _libraries if libraries is None else tuple(libraries)
    if not chosen:
        return ""
    return hashlib.sha256("".join(map(_digest_of, chosen)).encode()).hexdigest()


def _digest_of(library: Path) -> str:
    _require(library)
    state = library.stat()
    return _file_digest(library, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=64)
def _file_digest(library: Path, _modified_ns: int, _size: int) -> str:
    try:
        with library.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(
            f"the custom-operator library {library} can't be read: {error.strerror}"
        ) from None


def _require(library: Path) -> None:
    if not library.is_file():
        raise ModelError(
            f"there is no custom-operator library {library}. Mend: correct custom_ops in the "
            f"card, or --custom-ops"
        )
