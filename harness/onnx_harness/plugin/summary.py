"""The account of a run on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from onnx_harness.plugin.state import RUNNER, settings_of

if TYPE_CHECKING:
    from onnx_harness.run.account import Account

_LOG_WIDTH = 120


def show_account(
    terminal: pytest.TerminalReporter, config: pytest.Config, account: Account
) -> None:
    """Show the table of the cells, and what is to be said of them."""
    from onnx_harness.report.github import inert
    from onnx_harness.results.cache_root import fallback_note

    terminal.section("onnx-harness", sep="=")
    width = config.get_terminal_writer().fullwidth
    # A log has no width of its own: it gets every column.
    if not terminal.isatty():
        width = max(width, _LOG_WIDTH)
    runner = config.stash.get(RUNNER, None)
    # A cell process that follows another one meets the same full disk: it's told once.
    unkept = next(iter(runner.warnings), None) if runner is not None else None
    for note in filter(None, (fallback_note(), unkept)):
        terminal.write_line(f"onnx-harness: {note}", yellow=True)
    details = config.option.tbstyle == "no"  # else FAILURES has them, each once
    quiet = terminal.verbosity < 0
    worst_first = settings_of(config).worst_first
    lines = account.lines(width=width, quiet=quiet, details=details, worst_first=worst_first)
    for line in lines:
        markup = {line.style: True} if line.style else {}
        terminal.write_line(inert(line.text), **markup)
