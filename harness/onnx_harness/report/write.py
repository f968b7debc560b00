"""Writing the reports of a run beside its results."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from onnx_harness.report.background import NOTHING, Background
from onnx_harness.report.figures import ModelHeader
from onnx_harness.results.cells import CellResult
from onnx_harness.results.files import cannot_write, replace_text
from onnx_harness.results.run import RunInfo

SUMMARY = "summary.md"
GITIGNORE = ".gitignore"
_IGNORED = """\
# Written by onnx-harness: what a run makes isn't for the repository, but for the accepted levels.
*
!README.md
!baselines/
!baselines/**
"""
REPORT = "report.html"


def write_reports(
    report_dir: Path,
    run: RunInfo,
    cells: Sequence[CellResult],
    models: Mapping[str, ModelHeader],
    background: Background = NOTHING,
) -> None:
    """Write summary.md and report.html, each whole or not at all.

    Cheap enough to be called after every model.

    Args:
        report_dir: where to.
        run: that they are about.
        cells: its cells.
        models: what is known of the models, by name.
        background: what is known beside the run.

    Raises:
        ResultsError: one of them can't be written; the older one is untouched.
    """
    ignored = report_dir / GITIGNORE
    if not ignored.exists():
        with contextlib.suppress(OSError):  # what matters is said of the files that follow
            replace_text(ignored, _IGNORED)
    # Templates take a while to import, which a session that only collects needn't wait for.
    from onnx_harness.report import html, summary

    for name, page in ((SUMMARY, summary.page), (REPORT, html.page)):
        path = report_dir / name
        try:
            replace_text(path, page(run, cells, models, background))
        except OSError as error:
            raise cannot_write(name, path, error, "--report-dir") from error
