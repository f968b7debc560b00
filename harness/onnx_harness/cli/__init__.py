"""The command line ``onnx-harness``: one file a command, loaded when it is asked for."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distributions, version
from platform import python_version
from typing import Any, NoReturn

from onnx_harness.errors import HarnessError, UsageError, did_you_mean

PROGRAM = "onnx-harness"
# set by a shell that completes: eval "$(register-python-argcomplete onnx-harness)"
_COMPLETING = "_ARGCOMPLETE"

# Only the chosen command's module is imported: `--help` and `--version` answer at once.
COMMANDS = {
    "doctor": "which execution providers work here, which do not, why not, and what would mend it",
    "inspect": (
        "what a model is: opset, inputs, outputs, nodes by type, and the inputs that would "
        "be generated"
    ),
    "transform": "write the model that a variant makes of another",
    "compare": "whether one model file still computes what another one does",
    "diagnose": (
        "the cause of a failure: transform, pass, rule or node, ONNX Runtime's optimizer, input set"
    ),
    "bisect": "the release of a package since which a cell fails",
    "view": "open a model in Netron",
    "zoo": "fetch and list the models that cards describe",
    "selftest": (
        "measure how far the verdicts can be trusted, on models that are right and on "
        "models that aren't"
    ),
    "report": (
        "rebuild the report of a run, compare two runs, merge shards, export CSV, judge "
        "again by other bounds"
    ),
    "gate": "whether the latest run is as good as the accepted levels; accepting levels",
}

_DESCRIPTION = """\
Proves that a converted ONNX model is still right and runs where you ask.
The whole matrix of models, variants and providers is run by pytest:

  pytest MODEL.onnx --provider cuda

commands:
""" + "\n".join(f"  {name:10} {summary}" for name, summary in COMMANDS.items())

DONE, NEGATIVE, USAGE, INTERRUPTED = 0, 1, 2, 130
UNDONE = 5
"""Of commands whose 1 is a verdict: the work couldn't be done, so there is none.

(3 and 4 are `gate`'s verdicts.)
"""
_FIRST_COLUMN = re.compile(r"\s+(\S+\s{2,})?")
_EXIT_CODES = f"""\
exit codes:
  {DONE}    done; the answer is yes
  {NEGATIVE}    the answer is no (B departs from A, the CPU provider doesn't work, …), or the work
       failed
  {USAGE}    usage: an unknown command, option, variant or provider, a malformed card or
       pyproject.toml
  {INTERRUPTED}  interrupted by Ctrl-C
"""


class _Help(argparse.HelpFormatter):
    """Fills paragraphs to the terminal's width.

    Indented lines keep their place and hang below their second column.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        blocks: list[str] = []
        for line in text.splitlines():
            first = _FIRST_COLUMN.match(line)
            if (
                blocks
                and blocks[-1]
                and line
                and first is None
                and not blocks[-1].startswith(" ")
            ):
                blocks[-1] += f" {line}"
            else:
                blocks.append(line)
        filled = []
        for block in blocks:
            column = _FIRST_COLUMN.match(block)
            hang = " " * len(column[0]) if column else ""
            filled.append(
                textwrap.fill(
                    block, width, initial_indent=indent, subsequent_indent=indent + hang
                )
            )
        return "\n".join(filled)


class _Parser(argparse.ArgumentParser):
    """Says "did you mean" for a misspelt command or option.

    Only whole option names count: an abbreviation in somebody's script may be ambiguous tomorrow.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": _Help, "allow_abbrev": False, **options})

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """As argparse does, but an unknown option is told by the parser that doesn't know it."""
        namespace_read, unread = super().parse_known_args(args, namespace)
        unknown = []
        for word in unread:
            if word.startswith("--") and word != "--":
                unknown.append(word.partition("=")[0])
        if unknown:
            options = []
            for word in self._option_string_actions:
                if word.startswith("--"):
                    options.append(word)
            self.error(
                f"there is no option {unknown[0]}. {did_you_mean(unknown[0], options, most=20)}"
            )
        return namespace_read, unread

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = (
                (action.metavar or action.dest)
                if isinstance(action.metavar, str)
                else action.dest
            )
            raise argparse.ArgumentError(
                None,
                f"there is no {what.lower()} '{value}'. "
                f"{did_you_mean(str(value), map(str, action.choices))}",
            )

    def error(self, message: str) -> NoReturn:
        """Usage on standard error, then the error; exit code 2."""
        self.print_usage(sys.stderr)
        fail(message)
        raise SystemExit(USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after the program's name; None takes the process's own.

    Returns:
        The exit code: 0 done, 1 a negative answer or failed work, 2 usage, 130 interrupted. Where 1
        is a verdict (`gate`, `compare`), failed work is 5.

    Raises:
        SystemExit: argparse's way out, after ``--help`` (0) and on a usage error (2).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    undone = NEGATIVE
    try:
        args = _parse(words)
        undone = getattr(args, "undone", NEGATIVE)
        return int(args.run(args))
    except HarnessError as error:
        fail(str(error))
        return USAGE if isinstance(error, UsageError) else undone
    except KeyboardInterrupt:
        fail("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left; the interpreter must not find that out a second time
        # when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return undone
    except Exception:
        if undone == NEGATIVE:
            raise
        # The interpreter would end with 1, which a script takes for a verdict.
        traceback.print_exc()
        return undone


def fail(message: str) -> None:
    """One error on standard error.

    It may quote a model's names, so nothing in it is taken as markup.
    """
    from onnx_harness.cli.show import error_console, labelled

    error_console().print(
        f"{PROGRAM}: ", labelled("error: ", "bold red", message), sep="", soft_wrap=True
    )


def _parse(words: list[str]) -> argparse.Namespace:
    parser = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [-h] [--version] COMMAND ...",
        description=_DESCRIPTION,
        epilog=f"{_EXIT_CODES}\n{PROGRAM} COMMAND --help tells a command's options.",
    )
    parser.add_argument(
        "--version", action="store_true", help="show the versions that results depend on"
    )
    # The description lists them: argparse's own list is out of line by the longest name.
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", prog=PROGRAM, help=argparse.SUPPRESS
    )
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name, description=f"{summary[0].upper()}{summary[1:]}."
        )
        if name == chosen or _COMPLETING in os.environ:
            importlib.import_module(f"onnx_harness.cli.{name}").declare(command)
            command.epilog = (
                f"{command.epilog}\n\n{_EXIT_CODES}" if command.epilog else _EXIT_CODES
            )
    if _COMPLETING in os.environ:
        _complete(parser)
    args = parser.parse_args(words)
    if args.version:
        args.run = _version
    elif args.command is None:
        parser.error(f"name a command: {', '.join(COMMANDS)}")
    return args


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell's question for completions, where argcomplete is installed.

    It doesn't return then.
    """
    with contextlib.suppress(ImportError):
        import argcomplete

        argcomplete.autocomplete(parser)


def _version(_: argparse.Namespace) -> int:
    from onnx_harness.cli.show import console

    versions = []
    for distribution in distributions():
        if (distribution.name or "").startswith("onnxruntime"):
            versions.append(f"{distribution.name} {distribution.version}")
    runtimes = sorted(versions)
    parts = [
        f"onnx {_version_of('onnx')}",
        *(runtimes or ["no onnxruntime"]),
        f"Python {python_version()}",
    ]
    console().print(
        f"{PROGRAM} {_version_of(PROGRAM)} ({', '.join(parts)})",
        soft_wrap=True,
        highlight=False,
    )
    return DONE


def _version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(not installed)"
