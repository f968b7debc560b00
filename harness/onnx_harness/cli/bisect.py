"""``onnx-harness bisect``: the release of a package since which a cell fails."""

from __future__ import annotations

import argparse

from onnx_harness.cli import DONE, NEGATIVE
from onnx_harness.cli.common import settings_of
from onnx_harness.cli.diagnose import KEYS, declare_subject, named_task, repro_folder, show
from onnx_harness.cli.show import write_json
from onnx_harness.errors import UsageError


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "what",
        metavar="CELL | MODEL",
        nargs=1,
        help="a cell's id, or a model with --variant",
    )
    parser.add_argument(
        "--package", metavar="NAME", default="onnxruntime", help="(default: onnxruntime)"
    )
    declare_subject(parser)
    parser.epilog = (
        "Releases come from pip's own index, up to the installed one, each into an environment of "
        "its own in the\n"
        "cache. Exits with 0 when the first bad release was found, with 1 when there is none."
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search over the releases of a package."""
    settings = settings_of(args, *KEYS)
    task, candidate = named_task(args, settings)
    if candidate is not None:
        raise UsageError(
            "a cell or a model with --variant has a first bad release; two models have none"
        )

    from onnx_harness.diagnose.handout import tell_release
    from onnx_harness.diagnose.releases import bisect

    diagnosis = bisect(task, args.package)
    if diagnosis.found:
        tell_release(repro_folder(task, candidate), diagnosis.sentence)
    if args.json:
        write_json(diagnosis.as_json())
    else:
        show(diagnosis)
    return DONE if diagnosis.found else NEGATIVE
