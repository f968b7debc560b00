"""The sabotage suite of the gate, run by pytest and counted: the one row that nothing is recorded
for.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from tests.performance.experiment.analysis import Line

META = Path(__file__).parents[2] / "meta"
SUITE = (META / "test_gate_nights_bite.py", META / "test_gate_bites.py")
CASES = 15


def sabotage(suite: Sequence[Path] = SUITE) -> Line:
    """Each case ends in another code than 0 with a reason, and spoils no history: so its test says."""
    with TemporaryDirectory() as folder:
        report = Path(folder, "junit.xml")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            *map(str, suite),
        ]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if not report.is_file():
            raise SystemExit(f"the sabotage suite didn't run:\n{ended.stdout}{ended.stderr}")
        counted = ElementTree.parse(report).getroot()[0].attrib
    run = int(counted["tests"]) - int(counted["skipped"])
    wrong = int(counted["failures"]) + int(counted["errors"])
    reached = wrong == 0 if run >= CASES or wrong else None
    return Line(
        "sabotage: cases that the gate ends as it should",
        "all",
        f"{run - wrong}",
        f"{run} of {CASES}",
        reached,
    )
