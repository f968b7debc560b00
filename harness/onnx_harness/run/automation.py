"""Write for machines: GitHub's annotations and job summary, and a SARIF file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from onnx_harness.errors import ResultsError
from onnx_harness.report import github, sarif, summary
from onnx_harness.report.figures import BAD
from onnx_harness.results.files import cannot_write, replace_text
from onnx_harness.run.account import Account


def on_github() -> bool:
    """Return True in a job of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


class Automation:
    """Hooks of the process that reports.

    Args:
        account: gives the run's account, or None where nothing was judged.
        sarif_file: where the failing cells go as SARIF; None writes none.
    """

    def __init__(
        self, account: Callable[[], Account | None], sarif_file: Path | None
    ) -> None:
        self._account = account
        self._sarif_file = sarif_file
        self._problems: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the files; a run whose SARIF file is lost doesn't end as a success."""
        account = self._account()
        if account is None:
            return
        if self._sarif_file is not None:
            try:
                self._write_sarif(account, self._sarif_file)
            except ResultsError as error:
                self._problems.append(str(error))
                if session.exitstatus == pytest.ExitCode.OK:
                    session.exitstatus = pytest.ExitCode.TESTS_FAILED
        step_summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if on_github() and step_summary and account.cells:
            try:
                _append(account, Path(step_summary))
            except OSError as error:
                self._problems.append(
                    f"the job's summary can't be written at {step_summary}: {error.strerror}"
                )

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the annotations, which GitHub takes from the output, and what went wrong."""
        account = self._account()
        if account is not None and on_github():
            failures = [cell for cell in account.cells if cell.status in BAD]
            for line in github.annotation_lines(failures, account.models):
                terminalreporter.ensure_newline()
                terminalreporter.write_line(line)
        for problem in self._problems:
            terminalreporter.write_line(f"onnx-harness: {problem}", red=True)

    def _write_sarif(self, account: Account, file: Path) -> None:
        value = sarif.document(account.run, account.cells, account.models)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_text(file, json.dumps(value, indent=2, allow_nan=False) + "\n")
        except OSError as error:
            raise cannot_write("the SARIF file", file, error, "--sarif") from error


def _append(account: Account, path: Path) -> None:
    text = summary.page(account.run, account.cells, account.models)
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{text}\n")
