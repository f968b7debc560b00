"""Running pytest as its users do: in a process and a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 300  # a guard: a run takes some seconds, on a busy machine a hundred
# it imports Hypothesis at the end of every run, which takes longer than the run
LEAN = "-p no:hypothesispytest"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run of pytest ended."""

    code: int
    told: str
    folder: Path

    @property
    def cells(self) -> dict[str, dict[str, Any]]:
        """The cells of ``reports/results.json`` by id."""
        return read_cells(self.folder)


def read_cells(folder: Path) -> dict[str, dict[str, Any]]:
    """The cells of ``reports/results.json`` in ``folder`` by id; none while there is no such file."""
    file = folder / "reports" / "results.json"
    if not file.is_file():
        return {}
    return {cell["id"]: cell for cell in json.loads(file.read_text("utf-8"))["cells"]}


def start_pytest(
    folder: Path, *args: str | Path, wrap: Sequence[str] = (), **options: Any
) -> subprocess.Popen[str]:
    """Begin ``pytest *args`` in ``folder``, its output in one pipe."""
    command = [
        *wrap,
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        *map(str, args),
    ]
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_XDIST", "GITHUB_"))
    }
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = inherited | {
        "PYTEST_ADDOPTS": LEAN,
        "PYTHONPATH": os.pathsep.join(paths),
        "COLUMNS": "200",
    }
    environment["ONNX_HARNESS_CACHE"] = str(folder / ".cache")
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def run_pytest(
    folder: Path,
    *args: str | Path,
    wrap: Sequence[str] = (),
    preexec: Callable[[], None] | None = None,
) -> Ended:
    """Run ``pytest *args`` in ``folder`` to its end."""
    with start_pytest(folder, *args, wrap=wrap, preexec_fn=preexec) as process:
        try:
            told, _ = process.communicate(timeout=SECONDS)
        except BaseException:
            process.kill()
            raise
    return Ended(process.returncode, told, folder)


def install(folder: Path, source: str) -> None:
    """Make a distribution in ``folder`` whose module ``faults`` declares transforms by the entry
    point.
    """
    (folder / "faults.py").write_text(source, "utf-8")
    info = folder / "faults-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: faults\nVersion: 1\n", "utf-8"
    )
    (info / "entry_points.txt").write_text(
        "[onnx_harness.transforms]\nfaults = faults\n", "utf-8"
    )


def made_reference(folder: Path) -> None:
    """A reference environment that is this one."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', "utf-8")
    python.chmod(0o755)
