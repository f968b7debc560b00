"""``onnx-harness view``: a model in Netron."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging

from onnx_harness.cli import DONE
from onnx_harness.cli.common import add_model, find_model
from onnx_harness.cli.show import console, text
from onnx_harness.errors import HarnessError


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_model(parser)
    parser.add_argument("--port", type=_port, help="to serve at (default: one that is free)")
    parser.add_argument("--no-browser", action="store_true", help="only serve it; open no browser")
    parser.epilog = "Ends with Ctrl-C. Netron isn't part of the base installation: pip install 'onnx-harness[view]'"
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve a model until Ctrl-C."""
    if importlib.util.find_spec("netron") is None:
        raise HarnessError("Netron isn't installed here. Mend: pip install 'onnx-harness[view]'")
    card, path = find_model(args.model)
    netron = importlib.import_module("netron")
    logging.getLogger("netron").setLevel(logging.WARNING)  # it would tell the address once more
    try:
        # Only this machine can reach it: a model is somebody's property.
        host, port = netron.start(str(path), ("localhost", args.port), browse=not args.no_browser)
    except OSError as error:
        where = f" at port {args.port}" if args.port else ""
        raise HarnessError(f"Netron can't serve {path.name}{where}: {error.strerror or error}") from error
    console().print(text(f"{card.name} at http://{host}:{port} (Ctrl-C ends it)"), soft_wrap=True)
    netron.wait()
    return DONE


def _port(word: str) -> int:
    if not word.isdigit() or not 0 < int(word) < 65536:
        raise argparse.ArgumentTypeError(f"{word!r} isn't a port, 1 to 65535")
    return int(word)
