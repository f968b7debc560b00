"""Build a model with the builder that its card names, and say what the result depends on."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from onnx_harness.cards.card import BuilderSource, Card
from onnx_harness.errors import FetchError, did_you_mean
from onnx_harness.results.cache import Cache

BUILD_SECONDS = 600.0
"""A builder that needs longer is taken for one that hangs."""
FILE = "model.onnx"
# Runs in a process of its own, because a builder is somebody's code on libraries that may crash.
_CALL_BUILDER = """
import importlib.util, pathlib, sys
file, function, out = sys.argv[1:]
spec = importlib.util.spec_from_file_location("builder", file)
module = sys.modules["builder"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
getattr(module, function)(pathlib.Path(out))
"""


def builder_key(card: Card, source: BuilderSource) -> str:
    """Return what the result of a builder depends on."""
    try:
        text = source.file.read_bytes()
    except OSError as error:
        raise FetchError(
            f"{card.name}: builder file {source.file}, which card {card.path} names, can't be "
            f"read: {error.strerror}"
        ) from None
    imports = _check_builder(card, source, text)
    return Cache.key(hashlib.sha256(text).hexdigest(), source.function, _versions(imports))


def _check_builder(card: Card, source: BuilderSource, text: bytes) -> frozenset[str]:
    """See that the function is there, without running anything.

    Returns:
        Names of the modules that the file imports, beyond the standard library.
    """
    try:
        functions, imports = _contents(text)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise FetchError(
            f"{card.name}: builder file {source.file} isn't Python: {error.args[0]}, line {line}"
        ) from None
    if source.function not in functions:
        hint = did_you_mean(
            source.function, [name for name in functions if not name.startswith("_")]
        )
        raise FetchError(
            f"{card.name}: builder file {source.file} has no function '{source.function}'. {hint}"
        )
    return imports


@functools.cache  # cards share their builders' file
def _contents(text: bytes) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the functions of a builder file, and the modules that it imports.

    Those of the standard library are left out.
    """
    tree = ast.parse(text)
    functions = tuple(node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return functions, frozenset(names - sys.stdlib_module_names)


@functools.cache
def _packages() -> Mapping[str, list[str]]:
    """Import package to distributions.

    It reads every file list of the environment: once is enough.
    """
    return importlib.metadata.packages_distributions()


@functools.cache
def _versions(modules: frozenset[str]) -> dict[str, str]:
    """Distribution name to version, for what a builder imports.

    With another version it may build another model.
    """
    versions = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for module in sorted(modules):
        try:  # most are called as what they hold
            versions[module] = importlib.metadata.version(module)
        except importlib.metadata.PackageNotFoundError:
            for name in _packages().get(module, []):
                versions[name] = importlib.metadata.version(name)
    return versions


def build(card: Card, source: BuilderSource, folder: Path) -> None:
    """Run the builder in a process of its own, and let it write the model into ``folder``."""
    what = f"{card.name}: builder {source.file.name}:{source.function}"
    command = [
        sys.executable,
        "-P",
        "-B",
        "-c",
        _CALL_BUILDER,
        str(source.file),
        source.function,
        str(folder / FILE),
    ]
    try:
        run = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise FetchError(f"{what} was ended after {BUILD_SECONDS:.0f} s") from None
    last = (run.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if run.returncode < 0:
        number = -run.returncode
        name = (
            signal.Signals(number).name
            if number in set(signal.Signals)
            else "an unknown signal"
        )
        raise FetchError(
            f"{what} was killed by {name} (signal {number}); its last line was: {last}"
        )
    if run.returncode:
        mend = (
            ". Mend: pip install 'onnx-harness[zoo]' has what the public zoo's builders need"
        )
        error = FetchError(
            f"{what} failed: {last}{mend if last.startswith('ModuleNotFoundError') else ''}"
        )
        error.add_note(run.stderr)
        raise error
    if not (folder / FILE).is_file():
        raise FetchError(
            f"{what} wrote no model. It's called with the path that it must write the .onnx to"
        )
