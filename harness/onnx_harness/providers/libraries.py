"""Shared libraries that providers of ONNX Runtime load when they are used, and missing ones."""

from __future__ import annotations

import contextlib
import ctypes
import re
from importlib.util import find_spec
from pathlib import Path

from onnx_harness.providers import Problem, Provider

# glibc's wording, from dlopen.
_NOT_FOUND = re.compile(
    r"(?P<library>\S+): cannot open shared object file: No such file or directory"
)


def install_command(provider: Provider) -> str:
    """Return the command that installs a provider where there is no ONNX Runtime yet."""
    return f"pip install 'onnx-harness[{provider.extra}]'"


def not_in_wheel(provider: Provider) -> Problem | None:
    """Return the problem of an ONNX Runtime that was built without ``provider``, or None."""
    import onnxruntime as ort

    if provider.ort_name in ort.get_available_providers():
        return None
    return Problem(
        f"the installed distribution of ONNX Runtime ({distribution()}) was built without "
        f"{provider.ort_name}",
        # They share one import package: installed together, files of one overwrite the other's.
        f"in an environment of its own, {install_command(provider)} (the distributions of ONNX "
        "Runtime exclude one another)",
    )


def distribution() -> str:
    """Return the imported ONNX Runtime's distribution and version: ``onnxruntime-gpu 1.31.1``."""
    import onnxruntime as ort

    name = getattr(ort, "package_name", "") or "onnxruntime"
    return f"{name} {ort.__version__}"


def open_failure(path: Path) -> str | None:
    """Return the reason why the shared library at ``path`` can't be opened, or None when it can.

    Returns:
        A clause such as ``libonnxruntime_providers_cuda.so needs libcublasLt.so.13, which is not on
        this machine``.
    """
    if not path.exists():
        installed = f"the installed distribution of ONNX Runtime ({distribution()})"
        return f"{path.name} is not in {installed}"
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        absent = _NOT_FOUND.search(str(error))
        if absent is None:
            return f"{path.name} can't be loaded: {error}"
        return f"{path.name} needs {absent['library']}, which is not on this machine"
    return None


def provider_library_failure(stem: str) -> str | None:
    """Return the reason why ``libonnxruntime_providers_<stem>.so`` can't be opened, or None.

    The bridge library goes first and with global symbols, as ONNX Runtime itself does it: without
    it, the provider's library fails on an unresolved symbol whatever else is there.
    """
    import onnxruntime as ort

    folder = Path(ort.__file__).parent / "capi"
    bridge = folder / "libonnxruntime_providers_shared.so"
    try:
        ctypes.CDLL(str(bridge), ctypes.RTLD_GLOBAL)
    except OSError:
        return open_failure(bridge)
    return open_failure(folder / f"libonnxruntime_providers_{stem}.so")


def preload(package: str, names: tuple[str, ...]) -> None:
    """Open shared libraries of a wheel, so that those which link to them find them loaded.

    A library that isn't there or can't be opened is passed over: the provider's own library then
    names it.

    Args:
        package: the top-level package whose folder holds them; it isn't imported.
        names: file names, those that others link to first.
    """
    spec = find_spec(package)
    if spec is None:
        return
    for folder in spec.submodule_search_locations or []:
        for name in names:
            path = Path(folder) / name
            if path.exists():
                with contextlib.suppress(OSError):
                    ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
