"""``onnx-harness zoo``: the models that cards describe."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

import onnx_harness
from onnx_harness.cards import card as cards
from onnx_harness.cards import fetch as zoo
from onnx_harness.cards.card import BuilderSource, Card, PathSource, WheelSource
from onnx_harness.cli import DONE
from onnx_harness.cli.common import add_json
from onnx_harness.cli.show import console, size, table, text, write_json
from onnx_harness.errors import FetchError, UsageError, did_you_mean
from onnx_harness.names import CARD_SUFFIX

COMMANDS = {
    "fetch": "fetch or build the models, so that a run finds them in the cache",
    "list": "name, licence and source of each model, and whether it's in the cache",
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands and their options."""
    commands = parser.add_subparsers(
        dest="subcommand", metavar="COMMAND", required=True, title="commands"
    )
    parsers = {}
    for name, summary in COMMANDS.items():
        parsers[name] = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
        )
        parsers[name].add_argument(
            "paths",
            metavar="PATH",
            nargs="*",
            type=Path,
            default=[default_folder()],
            help="cards, and folders of cards (default: models, or else the public zoo)",
        )
    parsers["fetch"].add_argument(
        "-q", "--quiet", action="store_true", help="say nothing but what went wrong"
    )
    parsers["fetch"].set_defaults(run=fetch)
    add_json(parsers["list"])
    parsers["list"].set_defaults(run=show)


def fetch(args: argparse.Namespace) -> int:
    """Materialize every card."""
    chosen = find_cards(args.paths)
    if args.quiet:
        zoo.fetch_all(chosen)
        return DONE
    out = console()
    with _progress(out, len(chosen)) as progress:
        zoo.fetch_all(chosen, progress)
    noun = "model is" if len(chosen) == 1 else "models are"
    out.print(text(f"{len(chosen)} {noun} ready", "green"))
    return DONE


def show(args: argparse.Namespace) -> int:
    """List the cards."""
    chosen = find_cards(args.paths)
    places = [_place(card) for card in chosen]
    if args.json:
        write_json(
            [_as_json(card, *place) for card, place in zip(chosen, places, strict=True)]
        )
        return DONE
    out = console()
    rows = []
    for card, (state, file) in zip(chosen, places, strict=True):
        rows.append(
            (
                card.name,
                card.license or "-",
                _short_source(card),
                text(state, "green" if file else "dim"),
            )
        )
    out.print(table([("model", "whole"), "licence", "source", ("", "whole")], rows))
    return DONE


def default_folder() -> Path:
    """Return ``models`` where there is one, or else the folder of the public zoo's cards."""
    here = Path("models")
    if here.is_dir():
        return here
    package = Path(onnx_harness.__file__).parent
    installed, checkout = package / "zoo", package.parents[1] / "models"
    return next((folder for folder in (installed, checkout) if folder.is_dir()), here)


def find_cards(paths: Sequence[Path]) -> list[Card]:
    """The cards that were named, each once, those of a folder and its subfolders by path.

    Raises:
        UsageError: a path isn't there, isn't a card, or holds none; or a card is malformed.
    """
    files: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            found = sorted(path.rglob(f"*{CARD_SUFFIX}"))
            found = [
                file
                for file in found
                if not any(part.startswith(".") for part in file.relative_to(path).parts)
            ]
            if not found:
                raise UsageError(f"there is no model card (NAME{CARD_SUFFIX}) in {path}")
        elif path.is_file() and path.name.endswith(CARD_SUFFIX):
            found = [path]
        elif path.is_file():
            raise UsageError(
                f"{path} isn't a model card: its name doesn't end in {CARD_SUFFIX}"
            )
        else:
            near = (
                sorted(file.name for file in path.parent.glob(f"*{CARD_SUFFIX}"))
                if path.parent.is_dir()
                else []
            )
            raise UsageError(
                f"there is no folder or file "
                f"{path}.{' ' + did_you_mean(path.name, near) if near else ''}"
            )
        files |= {file.resolve(): file for file in found}
    return [cards.read(file) for file in files.values()]


def _source(card: Card) -> str:
    match card.source:
        case WheelSource(requirement, member, _):
            return f"wheel {requirement}: {member}"
        case BuilderSource(file, function):
            return f"built by {file.name}:{function}"
        case PathSource(path, _):
            return str(path)


def _short_source(card: Card) -> str:
    match card.source:
        case WheelSource(requirement, _, _):
            return requirement
        case BuilderSource(file, function):
            return f"{file.name}:{function}"
        case PathSource(path, _):
            return path.name


def _place(card: Card) -> tuple[str, Path | None]:
    """In words whether the model is there, and where the ``.onnx`` is."""
    file = zoo.cached(card)
    match card.source:
        case WheelSource():
            return ("cached" if file else "to fetch"), file
        case BuilderSource():
            return ("built" if file else "to build"), file
        case PathSource():
            return ("there" if file else "missing"), file


def _as_json(card: Card, state: str, file: Path | None) -> dict[str, object]:
    return {
        "name": card.name,
        "license": card.license or None,
        "summary": card.summary or None,
        "card": card.path,
        "source": _source(card),
        "state": state,
        "path": file,
    }


@contextmanager
def _progress(out: Console, total: int) -> Iterator[zoo.Progress]:
    """Bars on a terminal, a line a model elsewhere."""
    if not out.is_terminal:
        yield _Lines(out)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
    )
    with Progress(
        *columns, TextColumn("{task.fields[now]}", markup=False), console=out, transient=True
    ) as bars:
        yield _Bars(bars, bars.add_task("models", total=total, now=""))


class _Bars:
    """One bar for the models; what is arriving is told beside it."""

    def __init__(self, bars: Progress, models: TaskID) -> None:
        self._bars = bars
        self._models = models

    def started(self, name: str, index: int, total: int) -> None:
        self._bars.update(self._models, completed=index, total=total, now=text(name).plain)

    def received(self, name: str, bytes_done: int, bytes_total: int) -> None:
        of = f" of {size(bytes_total)}" if bytes_total else ""
        self._bars.update(self._models, now=text(f"{name}, {size(bytes_done)}{of}").plain)

    def done(self, name: str) -> None:
        self._bars.update(self._models, advance=1, now=text(name).plain)

    def failed(self, name: str, error: FetchError) -> None:
        del error  # told at the end, with the others
        self._bars.update(self._models, advance=1, now="")
        self._bars.console.print(text(f"{name}: failed", "red"))


class _Lines:
    """Lines that a log file can show: what is being fetched, and what became of each model."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._said = ""
        self._number = ""

    def started(self, name: str, index: int, total: int) -> None:
        self._said = ""
        self._number = f"{index + 1:>{len(str(total))}}/{total} {name}"

    def received(self, name: str, bytes_done: int, bytes_total: int) -> None:
        if self._said != name and bytes_done < bytes_total:
            self._said = name
            self._line(f"fetching {size(bytes_total)}")

    def done(self, name: str) -> None:
        self._line("fetched" if self._said == name else "ready")

    def failed(self, name: str, error: FetchError) -> None:
        del name, error  # told at the end, with the others
        self._line("failed")

    def _line(self, what: str) -> None:
        self._out.print(text(f"{self._number}: {what}"), soft_wrap=True)
