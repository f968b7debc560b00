"""The life of a worker process: it confines itself, then answers the calls of its parent."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from onnx_harness.errors import explain_denials
from onnx_harness.isolate.answers import pack
from onnx_harness.isolate.confine import leave_network, limit_resources, renew_time
from onnx_harness.isolate.landlock import Rules, restrict
from onnx_harness.isolate.limits import Limits
from onnx_harness.isolate.notes import take_notes

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LARGE = ("numpy", "onnx", "onnxruntime")


def serve(
    pipe: Connection,
    stage: Any,
    died_of: tuple[str, ...],
    log: str,
    environment: dict[str, str],
    preload: tuple[str, ...],
    limits: Limits,
    rules: Rules | None,
    parent: int,
    tied: bool,
) -> None:
    """The life of the process: say hello, then answer calls until the parent hangs up."""
    take_notes(stage, died_of)
    _begin(log, environment, tied)
    limit_resources(limits.seconds, limits.memory_bytes)
    # Libraries start threads when they are imported, and each thread is confined by itself. Only
    # where imports have to write bytecode first do they come first.
    early = () if all(map(_has_bytecode, (*_LARGE, *preload))) else (*_LARGE, *preload)
    _import(early)
    leave_network()  # where it can't, the doctor says so
    if rules is not None and restrict(rules) is None:  # as there
        explain_denials()
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    _import(preload)
    pipe.send_bytes(b"hello")  # what a call may take doesn't count the imports
    while True:
        try:
            task = pipe.recv_bytes()
        except EOFError:
            return
        try:
            renew_time(limits.seconds)
            function, args = pickle.loads(task)
            answer = pack([function(*args)])
        except Exception as error:
            answer = pack([error, "".join(traceback.format_exception(error))])
        pipe.send_bytes(answer)


def _begin(log: str, environment: dict[str, str], tied: bool) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; what it ends is for the parent
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ.update(environment)
    # Libraries print; a crash's last words matter, a table torn by progress lines doesn't help
    # anybody.
    with open(log, "ab") as file:  # noqa: PTH123 - a Path has nothing to add to a descriptor
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - pytest may have left others
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    if tied:
        # A library that hangs while it holds the interpreter's lock would keep the thread below
        # from running.
        with contextlib.suppress(OSError, AttributeError, TypeError):  # Linux alone has it
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _import(modules: tuple[str, ...]) -> None:
    for module in modules:
        # Whoever needs it meets the error again, where it can be told.
        with contextlib.suppress(Exception):
            importlib.import_module(module)


def _has_bytecode(module: str) -> bool:
    """Return whether importing a module would compile nothing, or couldn't keep it anyway."""
    if sys.dont_write_bytecode:
        return True
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)  # of a module within, it would import those above
    if (
        spec is None
        or not spec.submodule_search_locations
        or not sys.implementation.cache_tag
    ):
        return True
    file = Path(spec.submodule_search_locations[0], *rest)
    source = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    compiled = Path(importlib.util.cache_from_source(str(source)))
    folder = compiled.parent if compiled.parent.exists() else source.parent
    return compiled.exists() or not source.exists() or not os.access(folder, os.W_OK)


def _leave_with(parent: int) -> None:
    """Leave when the parent is gone: killed outright, it can't end its worker itself."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
