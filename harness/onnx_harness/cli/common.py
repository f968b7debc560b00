"""The common ground of commands: the named model, the project's settings, the worker process."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.text import Text

from onnx_harness import providers
from onnx_harness.cards import fetch
from onnx_harness.cards.card import Card
from onnx_harness.cards.unlinked import may_be_linked, unlinked
from onnx_harness.cell import matrix
from onnx_harness.cell.workers import cell_worker
from onnx_harness.cli.show import error_console, text
from onnx_harness.errors import (
    HarnessError,
    ProviderError,
    TransformError,
    UsageError,
    WorkerDied,
)
from onnx_harness.isolate import Worker
from onnx_harness.names import CARD_SUFFIX
from onnx_harness.results.cache_root import cache_root
from onnx_harness.settings import OPTIONS, Settings
from onnx_harness.settings.project import nearest_settings


def add_model(
    parser: argparse.ArgumentParser,
    name: str = "model",
    help: str = "a .onnx file or a model card",
) -> None:
    """Declare a positional argument for a model."""
    parser.add_argument(name, metavar=name.upper(), type=Path, help=help)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json``."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document and nothing else"
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Declare the limits of the worker process, named as in pytest's options."""
    group = parser.add_argument_group("limits of the worker process")
    add_settings(group, "cell_timeout", "cell_memory", "trust_models", "allow_read")


def add_settings(parser: argparse._ActionsContainer, *keys: str) -> None:
    """Declare options that pytest has too, as they are declared in :mod:`onnx_harness.settings`."""
    for key in keys:
        option = OPTIONS[key]
        parser.add_argument(f"--{option.flag}", dest=key, **option.arguments)


def find_model(path: Path) -> tuple[Card, Path]:
    """Find the card of the model that was named, and its ``.onnx``.

    The card is a blank one where there is none; the model is fetched if need be.

    Raises:
        ModelError: there is no such file.
        CardError: the card can't be read.
        FetchError: what the card describes can't be had.
    """
    card = matrix.named_card(path)
    if not path.name.endswith(CARD_SUFFIX):
        return card, _without_links(path)
    console = error_console()
    if not console.is_terminal:
        return card, _without_links(fetch.materialize(card))
    with console.status(text(f"looking for {card.name}")):
        return card, _without_links(fetch.materialize(card))


def _without_links(path: Path) -> Path:
    """Return the model's path, or that of its copy without links, which a worker makes.

    What is wrong with the model is left to whoever loads it.
    """
    if not may_be_linked(path):
        return path
    settings = nearest_settings({})
    try:
        with started_worker(settings, readable=(path,)) as worker:
            plain: Path = worker.call(unlinked, path)
        # Later workers may read what is named here: no hostile model names another file.
        inside = plain.resolve().is_relative_to(cache_root().resolve())
    except (HarnessError, OSError):
        return path
    return plain if inside else path


def settings_of(args: argparse.Namespace, *keys: str) -> Settings:
    """Read the project's settings, overridden by the options named in ``keys``.

    They come from the nearest pyproject.toml upwards.

    Raises:
        UsageError: a value is out of its range, or pyproject.toml is malformed.
    """
    return nearest_settings({key: getattr(args, key) for key in keys})


@contextmanager
def started_worker(
    settings: Settings,
    environment: Mapping[str, str] | None = None,
    *,
    readable: Iterable[Path] = (),
    writable: Iterable[Path] = (),
) -> Iterator[Worker]:
    """A worker process for the block. It's ended whatever happens, Ctrl-C included.

    See `onnx_harness.cell.workers.cell_worker`.
    """
    worker = cell_worker(settings, environment, readable=readable, writable=writable)
    try:
        yield worker
    finally:
        worker.close()


class _Doing:
    """A worker's present task, read anew each time the line is drawn."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __rich__(self) -> Text:
        return text(self._worker.doing or "starting")


@contextmanager
def shown_progress(worker: Worker) -> Iterator[None]:
    """Show on a terminal, for the block, a line with what the worker is doing."""
    console = error_console()
    if not console.is_terminal:
        yield
        return
    with console.status(_Doing(worker)):
        yield


@contextmanager
def named_death(what: str) -> Iterator[None]:
    """Turn the worker's death in the block into an error that says what it died of.

    Raises:
        TransformError: the worker died; what it last noted is named.
    """
    try:
        yield
    except WorkerDied as death:
        at = f" at {death.stage}" if death.stage else ""
        raise TransformError(f"{what}: ended{at}: {death}") from None


def refuse_provider(name: str, settings: Settings) -> None:
    """Raise an error where a provider can't be used here; a worker tries it.

    Raises:
        UsageError: it can't be used, or there is none of that name.
        ProviderError: the worker that tried it died.
    """
    if name == "cpu":
        return
    from onnx_harness.providers.probe import probe, refusal

    try:
        with started_worker(settings, providers.get(name).environment) as worker:
            availability = worker.call(probe, name)
    except HarnessError as error:
        raise ProviderError(f"trying provider '{name}': {error}") from None
    if not availability.usable:
        raise UsageError(refusal(availability))
