"""``onnx-harness view``: a model in Netron, or a failing cell with its original and candidate."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
from pathlib import Path
from typing import Any

from onnx_harness.cli import DONE
from onnx_harness.cli.common import add_model, find_model
from onnx_harness.cli.show import console, text
from onnx_harness.diagnose.repro import FOLDER, MODEL, TRANSFORMED
from onnx_harness.errors import HarnessError, UsageError
from onnx_harness.settings import nearest_settings


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_model(parser, help="a .onnx file, a model card, or the id of a cell that failed")
    parser.add_argument("--port", type=_port, help="to serve at (default: one that is free)")
    parser.add_argument("--no-browser", action="store_true", help="only serve it; open no browser")
    parser.add_argument(
        "--report-dir", metavar="DIR", type=Path, help="with the cell (default: reports)"
    )
    parser.epilog = (
        "Of a cell the original and the candidate are shown, each at an address of its own; a run "
        "keeps them in\n"
        "reports/repro/ where it fails. Ends with Ctrl-C. Netron isn't part of the base "
        "installation:\n"
        "pip install 'onnx-harness[view]'"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve a model, or both of a cell, until Ctrl-C."""
    if importlib.util.find_spec("netron") is None:
        raise HarnessError("Netron isn't installed here. Mend: pip install 'onnx-harness[view]'")
    models = _models(args)
    netron = importlib.import_module("netron")
    logging.getLogger("netron").setLevel(logging.WARNING)  # it would tell the address once more
    for place, (title, path) in enumerate(models):
        port = args.port and args.port + place
        _serve(netron, title, path, port, browse=not args.no_browser)
    netron.wait()
    return DONE


def _models(args: argparse.Namespace) -> list[tuple[str, Path]]:
    """Return what to show, titles and files.

    One model, or the original and the candidate of a cell.

    Raises:
        UsageError: the cell has no folder.
    """
    if args.model.exists() or args.model.suffix in {".onnx", ".toml"}:
        card, path = find_model(args.model)
        return [(card.name, path)]
    reports = args.report_dir or nearest_settings({}).report_dir or Path("reports")
    cell = args.model.name
    folder = reports / FOLDER / cell
    if not (folder / TRANSFORMED).is_file():
        raise UsageError(
            f"there is no file {args.model}, and no failing cell of that id in "
            f"{reports / FOLDER}. Of a cell that "
            "passes, write the candidate with `onnx-harness transform MODEL --variant V -o OUT` "
            "and view that"
        )
    models = [("candidate", folder / TRANSFORMED)]
    if (folder / MODEL).is_file():  # a large one stays where it was
        models.insert(0, ("original", folder / MODEL))
    return [(f"{title} of {cell}", path) for title, path in models]


def _serve(netron: Any, title: str, path: Path, port: int | None, *, browse: bool) -> None:
    try:
        # Only this machine can reach it: a model is somebody's property.
        host, port = netron.start(str(path), ("localhost", port), browse=browse)
    except OSError as error:
        where = f" at port {port}" if port else ""
        raise HarnessError(
            f"Netron can't serve {path.name}{where}: {error.strerror or error}"
        ) from error
    console().print(text(f"{title} at http://{host}:{port} (Ctrl-C ends it)"), soft_wrap=True)


def _port(word: str) -> int:
    if not word.isdigit() or not 0 < int(word) < 65536:
        raise argparse.ArgumentTypeError(f"{word!r} isn't a port, 1 to 65535")
    return int(word)
