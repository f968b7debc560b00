"""``onnx-harness gate``: the latest run against the accepted levels."""

from __future__ import annotations

import argparse
import getpass
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

from onnx_harness.cli import DONE, NEGATIVE, UNDONE
from onnx_harness.cli.common import add_json, settings_of
from onnx_harness.cli.gate_init import begin
from onnx_harness.cli.show import console, error_console, text, write_json
from onnx_harness.errors import ResultsError, UsageError
from onnx_harness.gate import environment, models
from onnx_harness.gate.accept import accept
from onnx_harness.gate.decide import MAX_AGE, gate
from onnx_harness.gate.nights import BETWEEN_NIGHTS
from onnx_harness.report.gate import issue, lines, page
from onnx_harness.results.codec import encode
from onnx_harness.results.files import cannot_write, replace_text
from onnx_harness.results.gated import Finding, GateReport
from onnx_harness.results.history import FILE_NAME, History
from onnx_harness.results.levels import FOLDER, LOCK_NAME, Level, read_levels, sole_writer
from onnx_harness.results.outcome import Outcome

JSON, MARKDOWN = "gate.json", "gate.md"
"""Beside the history: the latest verdict."""
INCONCLUSIVE, INVALID = 3, 4
WIDE = 1.04
"""An interval of more than 2% to either side."""
_CODES = {
    Outcome.PASS: DONE,
    Outcome.FAIL: NEGATIVE,
    Outcome.INCONCLUSIVE: INCONCLUSIVE,
    Outcome.INVALID: INVALID,
}

_EPILOG = f"""\
verdicts, and the exit codes of `onnx-harness gate`:
  {DONE}    PASS: every cell is as it was accepted
  {NEGATIVE}    FAIL: a cell vanished, newly fails, is slower for two nights, less accurate, larger,
       or placed elsewhere
  {INCONCLUSIVE}    INCONCLUSIVE: slower for one night, which the next decides; or too
       noisy to be seen
  {INVALID}    INVALID: not comparable: no tonight's run, a damaged history, another
       processor, seed, card or reference, or a run of some of the accepted cells
  {UNDONE}    no verdict: a file can't be read or written, or the reference environment can't be
       made
A run has the gravest verdict of its cells: FAIL, then INVALID, then INCONCLUSIVE.

latency: a run with --gate-reference measures a second time what isn't shown to be as fast as
accepted. A night counts as slow only if both measurements say so; it's INVALID where the second is
missing, or nothing can rest on the readings.
Nights are at least {BETWEEN_NIGHTS // timedelta(hours=1)} hours apart: of runs that are closer,
the latest counts.
"""


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options, and the subcommands that move things."""
    parser.epilog = _EPILOG
    _add_place(parser)
    add_json(parser)
    parser.add_argument(
        "--all", action="store_true", dest="everything", help="list the cells that pass, too"
    )
    parser.add_argument(
        "--max-age",
        type=_hours,
        metavar="HOURS",
        default=MAX_AGE,
        help="of the run (default: 20)",
    )
    parser.add_argument(
        "--same-night",
        action="store_true",
        help="runs within hours of each other count as nights, too",
    )
    parser.add_argument(
        "--summary",
        type=Path,
        metavar="FILE",
        help="append Markdown to it: $GITHUB_STEP_SUMMARY",
    )
    parser.add_argument(
        "--issue",
        type=Path,
        metavar="FILE",
        help="where not PASS, write the text of an issue to it",
    )
    parser.set_defaults(run=judge, undone=UNDONE)
    commands = parser.add_subparsers(dest="subcommand", metavar="COMMAND", title="commands")
    _declare_accept(commands)
    _declare_reference(commands)
    _declare_init(commands)


def _declare_accept(commands: Commands) -> None:
    summary = "make the latest run's state the accepted level; accept a lock file for the reference"
    moving = commands.add_parser(
        "accept", help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    moving.add_argument(
        "cells", metavar="CELL", nargs="*", help="ids of cells of the latest run"
    )
    moving.add_argument(
        "--all",
        action="store_true",
        dest="everything",
        help="every cell of it; others are forgotten",
    )
    moving.add_argument(
        "--why", required=True, metavar="TEXT", help="the reason, for those who come after"
    )
    moving.add_argument(
        "--by",
        metavar="NAME",
        default=None,
        help="who accepts (default: the user, $GITHUB_ACTOR)",
    )
    moving.add_argument(
        "--lock",
        type=Path,
        metavar="FILE",
        help="the versions that the reference is made of from now on",
    )
    moving.add_argument(
        "--reference",
        type=Path,
        metavar="PATH",
        help="make the reference environment from them there",
    )
    _add_place(moving)
    moving.set_defaults(run=move)


def _declare_reference(commands: Commands) -> None:
    summary = (
        "make the pinned reference environment from the accepted lock file, "
        "unless it's up to date"
    )
    making = commands.add_parser(
        "reference", help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    making.add_argument(
        "path", metavar="PATH", type=Path, help="folder of the virtual environment"
    )
    making.add_argument(
        "--lock",
        metavar="NAME",
        default=LOCK_NAME,
        help=f"in baselines/ (default: {LOCK_NAME})",
    )
    _add_place(making)
    making.set_defaults(run=make_reference)


def _declare_init(commands: Commands) -> None:
    summary = (
        "begin a gate in this repository: the lock file, a nightly workflow, the commands "
        "of a night"
    )
    beginning = commands.add_parser(
        "init", help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    beginning.add_argument(
        "models",
        metavar="MODEL",
        nargs="*",
        help="folders, .onnx files, cards (default: models)",
    )
    beginning.add_argument(
        "--gitlab", action="store_true", help="a pipeline for GitLab (default: for GitHub)"
    )
    beginning.add_argument(
        "--provider", metavar="NAME", default="cpu", help="execution provider (default: cpu)"
    )
    beginning.add_argument(
        "--report-dir", type=Path, metavar="DIR", help="where runs write (default: reports)"
    )
    beginning.set_defaults(run=begin)


def judge(args: argparse.Namespace) -> int:
    """Judge the latest run."""
    folder = _folder(args)
    try:
        levels = read_levels(folder / FOLDER)
        with _history(folder) as history:
            between = timedelta(0) if args.same_night else BETWEEN_NIGHTS
            report = gate(
                history,
                levels,
                only=args.provider,
                max_age=args.max_age,
                between_nights=between,
            )
    except ResultsError as error:
        finding = Finding(Outcome.INVALID, "history", str(error))
        report = GateReport(Outcome.INVALID, None, (finding,), ())
    if folder.is_dir():
        _write(folder / JSON, json.dumps(encode(report), indent=2, allow_nan=False) + "\n")
        _write(folder / MARKDOWN, page(report))
    if args.summary is not None:
        _append(args.summary, page(report))
    if args.issue is not None and report.outcome is not Outcome.PASS:
        _write(args.issue, issue(report))
    if args.json:
        write_json(encode(report))
        return _CODES[report.outcome]
    out = console()
    for line in lines(report, everything=args.everything):
        out.print(text(line.text, line.style), soft_wrap=True)
    return _CODES[report.outcome]


def move(args: argparse.Namespace) -> int:
    """Accept cells, a lock file, or both."""
    folder = _folder(args)
    if args.cells and args.everything:
        raise UsageError("name the cells, or take --all of them")
    if not (args.cells or args.everything or args.lock or args.reference):
        raise UsageError(
            "name the cells whose levels move (or --all), or a lock file (--lock)"
        )
    who = args.by or os.environ.get("GITHUB_ACTOR") or getpass.getuser()
    out = console()
    lock = folder / FOLDER / LOCK_NAME
    if args.lock is not None:
        environment.read_lock(args.lock)
        with sole_writer(folder / FOLDER):
            lock = environment.keep_lock(args.lock, folder / FOLDER)
        out.print(
            text(
                f"accepted {lock}: cells that were accepted beside other versions have to be "
                f"accepted anew"
            )
        )
    if args.reference is not None:
        _make(args.reference, lock)
    if args.cells or args.everything:
        with _history(folder) as history:
            moved = accept(
                history,
                folder / FOLDER,
                args.cells,
                who=who,
                why=args.why,
                only=args.provider,
            )
        for level in moved:
            out.print(text(f"accepted {level.cell.id}{_figures(level)}"), soft_wrap=True)
        out.print(text(f"{len(moved)} of {FOLDER}/ in {folder}: commit it"))
    return DONE


def make_reference(args: argparse.Namespace) -> int:
    """Make the reference environment."""
    _make(args.path, _folder(args) / FOLDER / args.lock)
    hashes = set()
    for level in read_levels(_folder(args) / FOLDER).values():
        for sha256 in (
            level.cell.model_sha256,
            level.cell.pinned.model_sha256 if level.cell.pinned else "",
        ):
            hashes.add(sha256)
    models.forget(args.path / models.FOLDER, hashes)
    return DONE


def _make(path: Path, lock: Path) -> None:
    err = error_console()
    err.print(
        text(f"{path}: holding it against {lock}; making it takes minutes"), soft_wrap=True
    )
    is_new = environment.make(path, lock)
    err.print(text(f"{path}: made" if is_new else f"{path}: up to date"), soft_wrap=True)


def _figures(level: Level) -> str:
    pinned = level.cell.pinned
    if pinned is None or pinned.ratio is None:
        return (
            f": {level.cell.status}, without latency: the run named no pinned reference, or "
            f"couldn't time beside it"
        )
    sentence = f": {level.cell.status}, {pinned.ratio:.3f} of the reference's time"
    low, high = pinned.ratio_ci95 or (pinned.ratio, pinned.ratio)
    if high / low > WIDE:
        sentence += f" [{low:.3f}, {high:.3f}]; a quieter night would make a better level"
    return sentence


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--provider",
        action="append",
        metavar="NAME",
        default=[],
        help="cells of it only, repeatable (default: all)",
    )
    parser.add_argument(
        "--report-dir",
        type=Path,
        metavar="DIR",
        help="where runs write (default: the project's)",
    )


def _folder(args: argparse.Namespace) -> Path:
    folder = settings_of(args, "report_dir").report_dir
    if folder is None:
        raise UsageError(
            "which reports? Name their folder: --report-dir DIR, or report_dir in pyproject.toml"
        )
    return folder


def _history(folder: Path) -> History:
    path = folder / FILE_NAME
    if not path.is_file():
        raise ResultsError(
            f"there is no history {path}: run pytest with --report-dir {folder} first"
        )
    if path.stat().st_size == 0:
        raise ResultsError(
            f"the history {path} is empty: it was cut short. Restore a copy, or remove it"
        )
    return History(path)


def _hours(word: str) -> timedelta:
    try:
        hours = float(word)
    except ValueError:
        hours = -1.0
    if not 0 < hours < 1e6:
        raise argparse.ArgumentTypeError(f"{word!r} isn't a number of hours")
    return timedelta(hours=hours)


def _append(path: Path, markdown: str) -> None:
    try:
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{markdown}\n")
    except OSError as error:
        raise cannot_write("the summary", path, error, "--summary") from error


def _write(path: Path, content: str) -> None:
    try:
        replace_text(path, content)
    except OSError as error:
        raise cannot_write(path.name, path, error, "--report-dir, --issue") from error
