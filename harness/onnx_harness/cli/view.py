"""``onnx-harness view``: a model, or a failing cell with its original and candidate.

In Model Explorer, with the cell's figures on its nodes, where that is installed; else in Netron.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import socket
from pathlib import Path
from typing import Any

from onnx_harness import providers
from onnx_harness.cell.matrix import Cell
from onnx_harness.cli import DONE
from onnx_harness.cli.common import add_model, find_model
from onnx_harness.cli.node_data import NODE_DATA, write_of_kept, write_of_variant
from onnx_harness.cli.show import console, text
from onnx_harness.cli.transform import one_variant
from onnx_harness.diagnose.repro import FOLDER, MODEL, TRANSFORMED
from onnx_harness.errors import HarnessError, UsageError
from onnx_harness.settings.project import nearest_settings


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_model(parser, help="a .onnx file, a model card, or the id of a cell that failed")
    parser.add_argument(
        "--variant", metavar="V", help="of MODEL: make this variant and view it beside MODEL"
    )
    parser.add_argument(
        "--provider", metavar="NAME", help="that V's nodes are run on (default: cpu)"
    )
    parser.add_argument("--port", type=_port, help="to serve at (default: one that is free)")
    parser.add_argument(
        "--no-browser", action="store_true", help="only serve it; open no browser"
    )
    parser.add_argument(
        "--netron", action="store_true", help="Netron, though there is the other"
    )
    parser.add_argument(
        "--node-data",
        action="store_true",
        help="of a cell: write what Model Explorer shows on its nodes, and show nothing",
    )
    parser.add_argument(
        "--report-dir", metavar="DIR", type=Path, help="with the cell (default: reports)"
    )
    parser.epilog = (
        "Of a cell the original and the candidate are shown; a run keeps them in reports/repro/ "
        "where it fails.\n"
        "Of a cell that passes name the model and the variant: MODEL --variant V; they go to "
        f"reports/{NODE_DATA}/CELL/.\n"
        "Model Explorer colours the candidate's nodes by their errors, times, providers and "
        "precisions: its files are\n"
        "written to a folder node_data/ there, and can be opened in any Model Explorer. Ends "
        "with Ctrl-C.\n"
        "Neither viewer is part of the base installation: pip install 'onnx-harness[explorer]', "
        "or [view] for Netron"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve a model, or both of a cell, until Ctrl-C."""
    explores = not args.netron and _has("model_explorer") and _has("model_explorer_onnx")
    if not (args.node_data or explores or _has("netron")):
        raise HarnessError(
            "neither Model Explorer nor Netron is installed here. Mend: pip install "
            "'onnx-harness[explorer]', or 'onnx-harness[view]' for Netron"
        )
    folder, models = _of_variant(args) if args.variant else (None, _models(args))
    if args.node_data or explores:
        if folder is None and len(models) > 1:
            original, candidate = (path for _, path in models)
            folder = write_of_kept(args.model.name, original, candidate)
        if args.node_data and folder is None:
            raise UsageError(
                "--node-data takes the id of a failing cell, of which a run has kept both models, "
                "or a model and its --variant"
            )
        if explores and not args.node_data:
            _explore(args, models, folder)
        return DONE
    netron = importlib.import_module("netron")
    # It would tell the address once more.
    logging.getLogger("netron").setLevel(logging.WARNING)
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
    if args.provider is not None:
        raise UsageError("--provider goes with --variant: a cell's id names its provider")
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


def _of_variant(args: argparse.Namespace) -> tuple[Path, list[tuple[str, Path]]]:
    """Make a variant of a model, and return the folder of its figures and both models.

    Raises:
        UsageError: there is no such model, variant or provider.
    """
    from onnx_harness.diagnose.node_data import CANDIDATE, ORIGINAL

    card, path = find_model(args.model)
    settings = nearest_settings({})
    provider = providers.get(args.provider or "cpu").name
    cell = Cell(card, one_variant(args.variant, settings), provider)
    folder = write_of_variant(
        cell, path, args.report_dir or settings.report_dir or Path("reports")
    )
    models = [("original", folder / ORIGINAL), ("candidate", folder / CANDIDATE)]
    return folder, [(f"{title} of {cell.id}", file) for title, file in models]


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _explore(
    args: argparse.Namespace, models: list[tuple[str, Path]], folder: Path | None
) -> None:
    """Serve models in Model Explorer until Ctrl-C."""
    from onnx_harness.diagnose.node_data import CANDIDATE, FIGURES, ORIGINAL

    explorer = importlib.import_module("model_explorer")
    config = explorer.config()
    if folder is None:
        for _, path in models:
            config.add_model_from_path(str(path))
    else:
        for name in (CANDIDATE, ORIGINAL):
            config.add_model_from_path(str(folder / name))
        for figure in reversed(FIGURES):  # it shows the last one
            if (file := folder / f"{figure}.json").is_file():
                config.add_node_data_from_path(str(file), model_name=CANDIDATE)
    explorer.visualize_from_config(
        config=config,
        host="localhost",  # only this machine can reach it: a model is somebody's property
        port=args.port or _free_port(),
        extensions=["model_explorer_onnx"],
        no_open_in_browser=args.no_browser,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def _serve(netron: Any, title: str, path: Path, port: int | None, *, browse: bool) -> None:
    try:
        # Only this machine can reach it: a model is somebody's property.
        host, port = netron.start(str(path), ("localhost", port), browse=browse)
    except OSError as error:
        where = f" at port {port}" if port else ""
        raise HarnessError(
            f"Netron can't serve {path.name}{where}: {error.strerror or error}"
        ) from error
    console().print(
        text(f"{title} at http://{host}:{port} (Ctrl-C ends it)"), soft_wrap=True
    )


def _port(word: str) -> int:
    if not word.isdigit() or not 0 < int(word) < 65536:
        raise argparse.ArgumentTypeError(f"{word!r} isn't a port, 1 to 65535")
    return int(word)
