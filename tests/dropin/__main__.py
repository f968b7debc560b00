"""Run a library's own tests twice: with the library, and with ours in the place of its functions.

``python -m tests.dropin onnxsim PATH`` prints how many pass, and each test that passes with the
library alone. Nothing is fetched: PATH is the library's tests, of the version that is installed.
What follows PATH goes to pytest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from tests.dropin.plugin import LIBRARIES, outcomes_file

ROOT = Path(__file__).parents[2]
PASSED = "passed"


def main() -> int:
    """Print the comparison; 1 where a test passes with the library alone."""
    parser = argparse.ArgumentParser(prog="python -m tests.dropin", description=__doc__)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("path", type=Path, help="the library's tests: a file or a folder")
    args, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        theirs = outcomes(args.path, "", rest, Path(folder))
        ours = outcomes(args.path, args.library, rest, Path(folder))
    lost = [name for name in theirs if _passes(theirs, name) and not _passes(ours, name)]
    for name in lost:
        print(f"{name}: {ours.get(name, 'not collected')}")
    for name in ours:
        if _passes(ours, name) and not _passes(theirs, name):
            print(f"{name}: passes with ours alone")
    for column, results in ((args.library, theirs), ("onnx-harness in its place", ours)):
        counts = Counter(outcome.split(":")[0] for outcome in results.values())
        print(f"{column}: {counts[PASSED]} of {len(results)} pass ({_text(counts)})")
    return 1 if lost else 0


def outcomes(path: Path, library: str, options: list[str], folder: Path) -> dict[str, str]:
    """Run tests in a process of their own.

    Args:
        path: of the tests.
        library: the one to replace; empty for none.
        options: of pytest.
        folder: for the outcomes.

    Returns:
        By the name of a test: ``passed``, ``skipped``, or ``failed`` with the first line of why.
    """
    written = outcomes_file(folder, library)
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(path.resolve()),
        "-q",
        f"--junitxml={written}",
    ]
    # In a worker, which is begun anew where a library ends it.
    command += ["-p", "tests.dropin.plugin", "-p", "no:cacheprovider", "-n", "1", *options]
    command += [f"--in-place-of={library}"] if library else []
    paths = [str(ROOT), str(ROOT / "harness"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    where = path if path.is_dir() else path.parent
    quiet = subprocess.DEVNULL
    subprocess.run(
        command, cwd=where, env=environment, stdout=quiet, stderr=quiet, check=False
    )
    if not written.exists():
        raise SystemExit(f"pytest ended without outcomes: {' '.join(command)}")
    return dict(map(_outcome, ElementTree.parse(written).iter("testcase")))


def _outcome(case: ElementTree.Element) -> tuple[str, str]:
    name = f"{case.get('classname')}::{case.get('name')}"
    for kind in ("failure", "error", "skipped"):
        found = case.find(kind)
        if found is not None:
            line = (found.get("message") or "").strip().splitlines()
            reason = line[0][:160] if line else ""
            return name, "skipped" if kind == "skipped" else f"failed: {reason}"
    return name, PASSED


def _passes(results: dict[str, str], name: str) -> bool:
    return results.get(name) == PASSED


def _text(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
