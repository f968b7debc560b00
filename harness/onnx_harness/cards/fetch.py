"""Fetching models: from a card to the local path of the ``.onnx`` that it describes.

What is downloaded or built goes to the user's cache by content, once: a second call, another
process or another card of the same wheel finds it there.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from onnx_harness.cards.builders import FILE, build, builder_key
from onnx_harness.cards.card import BuilderSource, Card, PathSource, WheelSource
from onnx_harness.errors import CardError, FetchError, did_you_mean
from onnx_harness.results.cache import Cache
from onnx_harness.results.cache_root import VARIABLE, cache_root
from onnx_harness.results.files import cannot_write
from onnx_harness.results.locks import lock
from onnx_harness.results.workbench import workbench

_TRY_AGAIN = (
    "then run `onnx-harness zoo fetch` again: "
    "what is already in the cache isn't fetched twice"
)
_OUT_OF_REACH = re.compile(
    r"connection|timed out|timeout|name resolution|unreachable|proxy|ssl|max retries|certificate",
    re.IGNORECASE,
)
_PIP_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")


class Progress(Protocol):
    """Told how fetching goes on; a progress bar, usually.

    Calls come from the thread that fetches, in order.
    """

    def started(self, name: str, index: int, total: int) -> None:
        """Model ``name`` is looked for, the ``index``-th of ``total`` counted from 0."""

    def received(self, name: str, bytes_done: int, bytes_total: int) -> None:
        """So much of the wheel that holds ``name`` has arrived; a total of 0 isn't known."""

    def done(self, name: str) -> None:
        """The model is there."""

    def failed(self, name: str, error: FetchError) -> None:
        """The model can't be had; the others are still fetched."""


def materialize(card: Card, *, progress: Progress | None = None) -> Path:
    """The local path of the ``.onnx`` that ``card`` describes, fetched or built if need be.

    Safe in several processes at once: one fetches, the others wait for it.

    Args:
        card: read from its file.
        progress: told of bytes that arrive.

    Raises:
        CardError: the card itself couldn't be read.
        FetchError: the model can't be had, or isn't the file that the card promises.
        ResultsError: the cache can't be written.
    """
    if card.problem:
        raise CardError(card.problem)
    match card.source:
        case PathSource() as source:
            return _from_path(card, source)
        case WheelSource() as source:
            return _from_wheel(card, source, progress)
        case BuilderSource() as source:
            return _from_builder(card, source)


def fetch_all(cards: Sequence[Card], progress: Progress | None = None) -> list[Path]:
    """Materialize every card, going on after one that fails.

    Returns:
        The models' paths, in the order of ``cards``.

    Raises:
        FetchError: one or more can't be had; the message holds a line for each.
        ResultsError: the cache can't be written.
    """
    paths: list[Path] = []
    errors: list[FetchError] = []
    for index, card in enumerate(cards):
        if progress:
            progress.started(card.name, index, len(cards))
        try:
            paths.append(materialize(card, progress=progress))
        except FetchError as error:
            errors.append(error)
            if progress:
                progress.failed(card.name, error)
        else:
            if progress:
                progress.done(card.name)
    if errors:
        count = f"{len(errors)} of {len(cards)} models can't be had:\n"
        raise FetchError(count + "\n".join(str(error) for error in errors))
    return paths


def _from_path(card: Card, source: PathSource) -> Path:
    if not source.path.is_file():
        raise FetchError(
            f"{card.name}: card {card.path} describes {source.path}, which isn't "
            f"{'a file' if source.path.exists() else 'there'}. "
            "Put the model there, or name its place in the card: [source] path = …"
        )
    if source.sha256 is not None and (actual := _file_sha256(source.path)) != source.sha256:
        raise FetchError(
            f"{card.name}: {source.path} {_other_hash(card, source.sha256, actual)}"
        )
    return source.path


def _from_wheel(card: Card, source: WheelSource, progress: Progress | None) -> Path:
    cache = workbench().cache
    entry = cache.get("zoo", source.sha256)
    if entry is None:
        wheel_key = Cache.key(source.requirement)
        with _one_process(wheel_key):
            entry = cache.get("zoo", source.sha256)
            if entry is None:
                wheel = cache.get("wheel", wheel_key) or cache.put(
                    "wheel",
                    wheel_key,
                    lambda folder: _download(card, source.requirement, folder, progress),
                )
                try:
                    entry = cache.put(
                        "zoo",
                        source.sha256,
                        lambda folder: _extract(card, source, wheel, folder),
                    )
                except FetchError:
                    # Kept, a wheel that isn't the right one would be in the way of the right one
                    # for ever.
                    shutil.rmtree(wheel, ignore_errors=True)
                    raise
    return entry / FILE


def _download(card: Card, requirement: str, folder: Path, progress: Progress | None) -> None:
    """Have pip put the wheel into ``folder``.

    Its index, proxy and credentials are the user's own settings.
    """
    what = f"{card.name}: wheel {requirement} can't be downloaded"
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            f"{what}: pip isn't installed for {sys.executable}. "
            f"Mend: {Path(sys.executable).name} -m ensurepip, or install 'onnx-harness[dev]'; "
            f"{_TRY_AGAIN}"
        )
    said: list[str] = []
    # Without a network, pip's five retries would cost 8 s a wheel; who has chosen a number keeps
    # it.
    environment = {"PIP_RETRIES": "2", **os.environ}
    with subprocess.Popen(
        _pip_download(requirement, folder),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            if numbers := _PIP_PROGRESS.match(line):
                if progress:
                    progress.received(card.name, int(numbers[1]), int(numbers[2]))
            elif line.strip():
                said.append(line.strip())
    if pip.returncode == 0 and len(list(folder.glob("*.whl"))) == 1:
        return
    error = FetchError(
        f"{what}. {_cause(said)}; pip's last line was: {said[-1] if said else '(nothing)'}\n"
        "Mend: check the network and pip's settings (`pip config list`, PIP_INDEX_URL), or put "
        "the wheel into a folder "
        f"that PIP_FIND_LINKS names; {_TRY_AGAIN}"
    )
    error.add_note("\n".join(said))
    raise error


def _pip_download(requirement: str, folder: Path) -> list[str]:
    """Return the command line that has pip put a wheel into ``folder``."""
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps"]
    # A file is taken out of the wheel; nothing of it is run, so it doesn't matter which Python it
    # is for.
    command += ["--only-binary", ":all:", "--ignore-requires-python"]
    command += ["--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar", "raw" if _pip_version() >= (24, 1) else "off"]
    return [*command, "--dest", str(folder), requirement]


def _cause(said: Sequence[str]) -> str:
    """Return what pip's lines say of why it failed."""
    if _OUT_OF_REACH.search("\n".join(said)):
        return "The package registry is out of reach"
    if any("from versions: none" in line for line in said):
        return "The package registry is out of reach, or has no such package"
    return "pip refused"


def _pip_version() -> tuple[int, ...]:
    parts = []
    for part in importlib.metadata.version("pip").split(".")[:2]:
        if part.isdigit():
            parts.append(int(part))
    return tuple(parts)


def _extract(card: Card, source: WheelSource, wheel: Path, folder: Path) -> None:
    """Copy the one member under a name of ours.

    So nothing in the archive can choose where it lands.
    """
    file = next(wheel.glob("*.whl"))
    try:
        with zipfile.ZipFile(file) as archive:
            if source.member not in archive.namelist():
                models = []
                for name in archive.namelist():
                    if name.endswith(".onnx"):
                        models.append(name)
                suggestion = "It holds no .onnx at all."
                if models:
                    suggestion = did_you_mean(source.member, models)
                raise FetchError(
                    f"{card.name}: wheel {source.requirement} holds no {source.member!r}, which "
                    f"card {card.path} "
                    f"names. "
                    f"{suggestion}"
                )
            with archive.open(source.member) as member, (folder / FILE).open("wb") as copy:
                shutil.copyfileobj(member, copy, 1 << 20)
    except zipfile.BadZipFile as error:
        raise FetchError(
            f"{card.name}: {file.name} isn't a whole wheel ({error}); {_TRY_AGAIN}"
        ) from None
    if (actual := _file_sha256(folder / FILE)) != source.sha256:
        where = f"{source.member} of wheel {source.requirement}"
        raise FetchError(f"{card.name}: {where} {_other_hash(card, source.sha256, actual)}")


def cached(card: Card) -> Path | None:
    """Where the ``.onnx`` of a card is already, without fetching or building anything.

    None when it isn't.

    Raises:
        FetchError: the builder file that the card names can't be read.
    """
    match card.source:
        case PathSource(path, _):
            return path if path.is_file() else None
        case WheelSource(_, _, sha256):
            key = sha256
        case BuilderSource() as source:
            key = builder_key(card, source)
    entry = workbench().cache.get("zoo", key)
    return entry / FILE if entry else None


def _from_builder(card: Card, source: BuilderSource) -> Path:
    cache = workbench().cache
    key = builder_key(card, source)
    entry = cache.get("zoo", key)
    if entry is None:
        with _one_process(key):
            entry = cache.get("zoo", key) or cache.put(
                "zoo", key, lambda folder: build(card, source, folder)
            )
    return entry / FILE


@contextlib.contextmanager
def _one_process(key: str) -> Iterator[None]:
    """Hold everybody else who wants ``key`` until this block is left, or this process dies."""
    path = cache_root() / "locks" / key
    try:
        path.parent.mkdir(exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise cannot_write("The cache", path, error, f"${VARIABLE}") from error
    with file:
        with contextlib.suppress(
            OSError
        ):  # Without locks, two may fetch the same thing; the cache keeps one.
            lock(file.fileno(), wait=True)
        yield


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _other_hash(card: Card, promised: str, actual: str) -> str:
    return (
        f"isn't the file that card {card.path} promises: its sha256 is {actual}, but should be "
        f"{promised}. "
        "If the model was changed on purpose, write its new hash into the card"
    )
