"""``onnx-harness gate init``: the first files of a gate."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from onnx_harness import providers
from onnx_harness.cli import DONE
from onnx_harness.cli.common import settings_of
from onnx_harness.cli.show import console, text
from onnx_harness.errors import UsageError
from onnx_harness.gate import scaffold


def begin(args: argparse.Namespace) -> int:
    """Write the first files of a gate."""
    provider = providers.get(args.provider).name
    reports = settings_of(args, "report_dir").report_dir or Path("reports")
    models = args.models or ["models"]
    missing = [model for model in models if not Path(model).exists()]
    if missing:
        raise UsageError(
            f"there is no {missing[0]} here. Name what pytest is to judge: a folder, .onnx files "
            f"or cards"
        )
    scaffolding = scaffold.plan(
        models, provider, reports, gitlab=args.gitlab, root=Path.cwd()
    )
    scaffold.write(scaffolding)
    out = console()
    for path in scaffolding.files:
        out.print(text(f"wrote {os.path.relpath(path)}"), soft_wrap=True)
    if scaffolding.omitted:
        names = ", ".join(scaffolding.omitted)
        out.print(
            text(
                f"not in the lock file, since they come from a folder or an address: {names}"
            ),
            soft_wrap=True,
        )
    commands = scaffolding.commands
    lines = [
        "a night:",
        f"  {commands.reference}",
        f"  {commands.matrix}",
        f"  {commands.gate}",
        "the first night, before the third, once you have looked at the run:",
        f'  {commands.accept} --why "the first night"',
        (
            f"then commit the files above and the accepted levels, and have git ignore "
            f"{scaffold.REFERENCE}"
        ),
    ]
    for line in lines:
        out.print(text(line), soft_wrap=True)
    return DONE
