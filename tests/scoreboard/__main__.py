"""``python -m tests.scoreboard FOLDER``: run the libraries on the official operator cases and on
the known defects, and write the page of what they keep right."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from onnx_harness import transforms
from onnx_harness.errors import UsageError
from onnx_harness.names import parse_variant
from onnx_harness.results.store import Results, read_results
from tests.scoreboard.board import COLUMNS, as_json, entries, page

DEFECTS = Path(__file__).parents[1] / "data" / "defects"


def main() -> int:
    """Write the page and its numbers; 0 whatever they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where index.html and scoreboard.json go")
    parser.add_argument("-k", dest="keyword", help="of the models, as pytest takes it")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    variants = [column.variant for column in COLUMNS if _is_here(column.variant)]
    operators = _run(
        args.folder / "operators", ["--onnx-backend-suite"], variants, args.keyword
    )
    models = sorted(map(str, DEFECTS.glob("*.onnx")))
    defects = _run(args.folder / "defects", models, variants, args.keyword)
    rows = entries(operators.cells, defects.cells, operators.run.versions)
    (args.folder / "scoreboard.json").write_text(
        json.dumps(as_json(rows), indent=1), "utf-8"
    )
    (args.folder / "index.html").write_text(page(rows, datetime.now(UTC)), "utf-8")
    sys.stdout.write(f"{args.folder / 'index.html'}\n")
    return 0


def _is_here(variant: str) -> bool:
    """Tell if the library of a variant is installed."""
    try:
        for step in parse_variant(variant).steps:
            transforms.bind(step)
    except UsageError:
        return False
    return True


def _run(
    folder: Path, models: list[str], variants: list[str], keyword: str | None
) -> Results:
    """Judge the models under the variants; a cell that fails is what is counted here."""
    command = [sys.executable, "-m", "pytest", "-n", "2", "-q", "--benchmark-disable"]
    command += ["--report-dir", str(folder), *models]
    for variant in variants:
        command += ["--variant", variant]
    if keyword is not None:
        command += ["-k", keyword]
    code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    if code > 1:
        raise SystemExit(
            f"the run ended with {code}, and made no results: {' '.join(command)}"
        )
    return read_results(folder / "results.json")


if __name__ == "__main__":
    sys.exit(main())
