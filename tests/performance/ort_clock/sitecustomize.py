"""Put on PYTHONPATH: in every process, how long ONNX Runtime itself worked, kept in a file of
``$ORT_CLOCK``.

Session creations and runs are timed where they enter ONNX Runtime's own Python layer. The file
holds their seconds and their number as four doubles, and outlives the process, however it ends.
"""

import importlib.abc
import importlib.machinery
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

MODULE = "onnxruntime.capi.onnxruntime_inference_collection"


class _Clock(importlib.abc.MetaPathFinder):
    """Patches the one module once it has been executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        loader: Any = spec and spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _patch(module.InferenceSession)

        loader.exec_module = exec_module
        return spec


def _patch(session: Any) -> None:
    with (Path(os.environ["ORT_CLOCK"]) / f"{os.getpid()}.clock").open("w+b") as file:
        file.write(bytes(32))
        file.flush()
        kept = mmap.mmap(file.fileno(), 32)
    totals = [0.0, 0.0, 0.0, 0.0]
    busy = False

    def timed(function: Callable[..., Any], place: int) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal busy
            if busy:  # run_with_iobinding and the like may call one another
                return function(*args, **kwargs)
            busy = True
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                totals[place] += time.perf_counter() - started
                totals[place + 1] += 1
                struct.pack_into("4d", kept, 0, *totals)
                busy = False

        return wrapper

    session.__init__ = timed(session.__init__, 0)
    session.run = timed(session.run, 2)
    session.run_with_iobinding = timed(session.run_with_iobinding, 2)


if "ORT_CLOCK" in os.environ:
    sys.meta_path.insert(0, _Clock())
