"""The files that a worker process may open: its environment's, and those that its calls name.

What a call names is what its arguments hold as `pathlib.Path`: its parent asks for these, whatever
the model says. A process can't be given more files once it is confined, so that a call that names
others gets a new one.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from types import FunctionType
from typing import Any

from onnx_harness.isolate.landlock import CHANGE, DEVICE, READ, RUN, Right, Rules

VARIABLE = "ONNX_HARNESS_ALLOW_READ"
"""Paths that workers may read too, as ``--allow-read`` names them; ``/`` confines none."""

# Beside a model lie its weights, beside a card recorded inputs, beside a library what it needs.
_WITH_NEIGHBOURS = {".onnx", ".ort", ".toml", ".so", ".dylib", ".dll"}
_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/nix",
    "/gnu",
    "/sys",
)
_CONFIGURATION = (
    "ld.so.cache",
    "ld.so.preload",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "timezone",
    "locale.alias",
    "locale.conf",
    "default/locale",
    "OpenCL",
    "vulkan",
    "glvnd",
    "nvidia",
    "nvidia-container-runtime",
    "alternatives",
    "os-release",
    "mime.types",
    "pki/fips",
)
# Not all of /proc: an administrator's process reads the environment of every other one there.
_OF_THE_KERNEL = (
    "cpuinfo",
    "meminfo",
    "stat",
    "vmstat",
    "zoneinfo",
    "loadavg",
    "uptime",
    "version",
    "filesystems",
    "devices",
    "modules",
    "driver",
    "sys",
)
_DEVICES = (
    "null",
    "zero",
    "full",
    "random",
    "urandom",
    "tty",
    "dri",
    "kfd",
    "accel",
    "dxg",
)
_DEVICE_FAMILIES = (
    "nvidia*",
    "nvhost*",
    "nvmap",
    "mali*",
    "hisi*",
    "davinci*",
)
# Lists of folders and files that libraries are loaded from.
_VARIABLES = (
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "DYLD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDNN_PATH",
    "TENSORRT_HOME",
    "INTEL_OPENVINO_DIR",
    "ROCM_PATH",
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_ADD_DRIVER_FILES",
    "VK_LAYER_PATH",
    "OCL_ICD_VENDORS",
    "TZDIR",
)


class Files:
    """Paths that a worker may open beyond its environment. They grow by what calls name.

    Args:
        readable: files and folders to read; a model's stands for its folder.
        writable: folders to change.
        allowed: what the user lets every worker read; ``/`` confines none.
        store_of: the folder that a model's path leads into, where it is a link.
    """

    def __init__(
        self,
        readable: Iterable[Path] = (),
        writable: Iterable[Path] = (),
        allowed: Iterable[Path] = (),
        store_of: Callable[[Path], Path | None] = lambda _path: None,
    ) -> None:
        self._readable: dict[Path, None] = {}
        self._writable = {folder.absolute(): None for folder in writable}
        self._modules: dict[Path, None] = {}
        self._roots: Mapping[Path, None] = {}
        # By path that was asked for: which file was there.
        self._known: dict[Path, tuple[int, int]] = {}
        self._known_modules: set[Path] = set()
        self._store_of = store_of
        self._allowed = {path.absolute(): None for path in (*allowed, *allowed_paths())}
        self.include(readable)

    def include(self, paths: Iterable[Path], modules: Iterable[Path] = ()) -> bool:
        """Let the worker read more; returns whether any of it is new.

        Args:
            paths: files and folders.
            modules: files of modules, which the environment may hold already.
        """
        count = len(self._readable) + len(self._modules)
        roots = self._roots or package_roots()
        for path in map(Path.absolute, paths):
            identity = _identity(path)
            if identity is None or self._known.get(path) != identity:
                self._add(path, roots)
            if identity is not None:
                self._known[path] = identity
        for module in modules:
            if module not in self._known_modules and not _is_below(module, roots):
                self._modules[module] = None
            self._known_modules.add(module)
        return len(self._readable) + len(self._modules) > count

    def change(self, folder: Path) -> None:
        """Let processes that are started from now on change a folder."""
        self._writable[folder.absolute()] = None

    def rules(self) -> Rules | None:
        """Return the rules of a process that is started now; None: it may open everything."""
        if Path("/") in self._allowed:
            return None
        self._roots = package_roots()
        rules = [*_environment_rules(), *_each(self._roots, RUN), *_each(self._modules, RUN)]
        for folder in self._readable:
            rules += _store_rules(folder)
        return (*rules, *_each(self._allowed, READ), *_each(self._writable, CHANGE))

    def _add(self, path: Path, roots: Iterable[Path]) -> None:
        if _is_below(path, self._writable):
            return
        places = [path.resolve()]
        if path.suffix in _WITH_NEIGHBOURS and path.is_file():
            places = [path.parent, path.resolve().parent]
            store = self._store_of(path)
            if store is not None:
                places.append(store)
        for place in places:
            # A library's own examples lie below its package.
            open_already = (*self._readable, *self._writable, *self._allowed, *roots)
            if not _is_below(place, open_already):
                self._readable[place] = None


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells the file that a path leads to from others; None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def allowed_paths() -> list[Path]:
    """Return the paths that the environment lets every worker read."""
    words = os.environ.get(VARIABLE, "").split(os.pathsep)
    return [Path(word).absolute() for word in words if word]


def pickled(value: object) -> tuple[bytes, list[Path], list[Path]]:
    """Return a value's pickle, the paths that it holds, and the files of modules that it names.

    Raises:
        TypeError, AttributeError, pickle.PicklingError: it can't travel.
    """
    paths: dict[Path, None] = {}
    modules: dict[Path, None] = {}

    class Reader(pickle.Pickler):
        def persistent_id(self, item: Any) -> None:
            if isinstance(item, PurePath):
                paths[Path(item)] = None
            elif isinstance(item, type | FunctionType):
                file = getattr(sys.modules.get(item.__module__), "__file__", None)
                if file:
                    modules[Path(file).absolute()] = None

    stream = io.BytesIO()
    Reader(stream, pickle.HIGHEST_PROTOCOL).dump(value)
    return stream.getvalue(), list(paths), list(modules)


def _environment_rules() -> list[tuple[str, int]]:
    rules = _each(map(Path, _SYSTEM), RUN)
    rules += _each((Path("/etc", name) for name in _CONFIGURATION), READ)
    rules += _each((Path("/proc", name) for name in _OF_THE_KERNEL), READ)
    rules += [("/proc/self", int(DEVICE)), ("/dev/shm", int(CHANGE))]
    rules += _each(_devices(), DEVICE)
    for name in _VARIABLES:
        for word in os.environ.get(name, "").replace(os.pathsep, "\n").split("\n"):
            if word and not _holds_home(Path(word)):
                rules.append((word, int(RUN)))
    # What the driver has compiled for a device; without it each process compiles anew.
    compiled = os.environ.get("CUDA_CACHE_PATH") or "~/.nv"
    return [*rules, (os.path.expanduser(compiled), int(CHANGE))]  # noqa: PTH111 - may have no home


def _devices() -> Iterator[Path]:
    for name in _DEVICES:
        yield Path("/dev", name)
    for pattern in _DEVICE_FAMILIES:
        yield from Path("/dev").glob(pattern)


def package_roots() -> Mapping[Path, None]:
    """Return the folders that Python imports from, and those of what is imported already."""
    roots: dict[Path, None] = {}
    prefixes = {
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
        *sysconfig.get_paths().values(),
    }
    for word in (*prefixes, *sys.path):
        folder = Path(word or os.curdir).absolute()
        if not _holds_home(folder):
            roots[folder] = None
            roots[folder.resolve()] = None
    # A package that is installed for editing needn't lie below any of them.
    for name, module in list(sys.modules.items()):
        if "." not in name:
            for word in list(getattr(module, "__path__", None) or ()):
                if not _is_below(Path(word), roots):
                    roots[Path(word)] = None
    return roots


def _store_rules(folder: Path) -> list[tuple[str, int]]:
    """Return the rules for what a model's folder holds.

    Of a folder that has the user's own in it, hidden files and folders stay closed.
    """
    if not folder.is_dir():
        return [(str(folder), int(READ))]
    rules = []
    if _holds_home(folder):
        for entry in os.scandir(folder):
            if not entry.name.startswith("."):
                rules.append((entry.path, int(READ)))
        return rules
    return [(str(folder), int(READ))]


def _holds_home(folder: Path) -> bool:
    """Return whether a folder is the user's own, or one above it."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - who has no home gets a "~" back
    return home.is_absolute() and home.resolve().is_relative_to(folder.absolute().resolve())


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    above = {path, *path.parents}
    return not above.isdisjoint(folders)


def _each(paths: Iterable[Path], right: Right) -> list[tuple[str, int]]:
    return [(str(path), int(right)) for path in paths]
