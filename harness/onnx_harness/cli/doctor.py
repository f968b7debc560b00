"""``onnx-harness doctor``: which execution providers work here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from platform import python_version

from rich.console import Console, Group
from rich.table import Table

from onnx_harness import providers, transforms
from onnx_harness.cli import DONE, NEGATIVE
from onnx_harness.cli.common import add_json, settings_of, started_worker
from onnx_harness.cli.show import (
    console,
    error_console,
    facts,
    indented,
    labelled,
    text,
    write_json,
)
from onnx_harness.errors import WorkerDied, WorkerNotStarted, words_of
from onnx_harness.isolate.confine import files_are_left, limits_are_set, network_is_left
from onnx_harness.providers import Problem
from onnx_harness.providers.probe import Availability, conflict, probe
from onnx_harness.settings import Settings

DEFAULT_PROVIDER = "cpu"

_KEPT = {
    "network_kept": "keeps the network",
    "files_kept": "may read any file",
    "limits_kept": "has no limits of its own on files, processes and the processor's time",
}
"""What the process that opens models should give up, by the key in JSON."""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="show each provider's options and libraries",
    )
    add_json(parser)
    parser.set_defaults(cell_timeout=None, run=run)
    parser.epilog = (
        "Each provider is tried in a process of its own: a session on a small model has to open, "
        "to own the node\n"
        f"and to compute it rightly. Exit code 0 when '{DEFAULT_PROVIDER}' works and no two "
        f"distributions of ONNX\n"
        "Runtime share this environment; 1 otherwise."
    )


def run(args: argparse.Namespace) -> int:
    """Probe every provider."""
    settings = settings_of(args, "cell_timeout")
    problem = conflict()
    availabilities: list[Availability] = []
    err = error_console()
    for name in providers.registry():
        if err.is_terminal and not args.json:
            with err.status(text(f"trying {name}")):
                availabilities.append(_probe(name, settings))
        else:
            availabilities.append(_probe(name, settings))
    versions = _versions()
    kept = {
        "network_kept": _kept(network_is_left, settings),
        "files_kept": "allow_read names /",
        "limits_kept": _kept(limits_are_set, settings),
    }
    if Path("/") not in settings.allow_read:
        kept["files_kept"] = _kept(files_are_left, settings)
    if args.json:
        document = {
            "versions": versions,
            "conflict": asdict(problem) if problem else None,
            **kept,
            "left_out": [*transforms.left_out(), *providers.left_out()],
            "providers": {
                availability.name: _as_json(availability) for availability in availabilities
            },
        }
        write_json(document)
    else:
        _show(console(), availabilities, problem, versions, verbose=args.verbose)
        for key, why in kept.items():
            if why is not None:
                sentence = f"models are opened in a process that {_KEPT[key]}: {why}"
                console().print(labelled("note: ", "yellow", sentence), soft_wrap=True)
    works = any(
        availability.usable
        for availability in availabilities
        if availability.name == DEFAULT_PROVIDER
    )
    return DONE if works and problem is None else NEGATIVE


def _probe(name: str, settings: Settings) -> Availability:
    """Try one provider in a worker of its own.

    Libraries of two providers may not bear each other.
    """
    try:
        with started_worker(settings, providers.get(name).environment) as worker:
            return worker.call(probe, name)
    except WorkerDied as death:
        return Availability(name, usable=False, reason=f"trying it, {death}")
    # a provider of another package may raise anything; the others are still of interest
    except Exception as error:
        return Availability(
            name, usable=False, reason=f"trying it failed: {words_of(error)}"
        )


def _kept(question: Callable[[], str | None], settings: Settings) -> str | None:
    """Why the process that opens models keeps what it should give up, or None: it doesn't."""
    try:
        with started_worker(settings) as worker:
            return worker.call(question)
    except (WorkerDied, WorkerNotStarted, RuntimeError) as error:
        return words_of(error)


def _as_json(availability: Availability) -> dict[str, object]:
    fields = asdict(availability)
    return {"summary": providers.get(fields.pop("name")).summary, **fields}


def _versions() -> dict[str, str]:
    prefixes = ("onnxruntime", "ort-nightly", "onnx-harness")
    installed = {}
    for distribution in distributions():
        if distribution.name:
            installed[distribution.name] = distribution.version
    return {"python": python_version()} | {
        name: version
        for name, version in sorted(installed.items())
        if name == "onnx" or name.startswith(prefixes)
    }


def _show(
    out: Console,
    availabilities: list[Availability],
    problem: Problem | None,
    versions: dict[str, str],
    *,
    verbose: bool,
) -> None:
    out.print(
        text(", ".join(f"{name} {version}" for name, version in versions.items()), "dim")
    )
    if problem:
        out.print()
        out.print(labelled("conflict: ", "bold red", f"{problem.reason}."))
        out.print(labelled("mend: ", "bold", problem.mend or ""))
    out.print()
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for availability in availabilities:
        if availability.usable:
            grid.add_row(
                text(availability.name),
                text("works", "green"),
                text(providers.get(availability.name).summary),
            )
        else:
            said = [text(f"{availability.reason}.")]
            if availability.mend:
                said.append(labelled("mend: ", "bold", availability.mend))
            grid.add_row(text(availability.name), text("can't be used", "red"), Group(*said))
        if verbose and availability.details:
            grid.add_row("", "", facts(availability.details))
    out.print(indented(grid))
    for sentence in (*transforms.left_out(), *providers.left_out()):
        out.print()
        out.print(labelled("left out: ", "bold yellow", sentence), soft_wrap=True)
    working = []
    for availability in availabilities:
        if availability.usable:
            working.append(availability.name)
    out.print()
    out.print(
        text(
            f"{len(working)} of {len(availabilities)} providers can be used "
            f"here{': ' if working else ''}"
            f"{', '.join(working)}"
        )
    )
