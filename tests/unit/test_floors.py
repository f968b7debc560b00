"""Collection is cheap: what it imports brings none of the heavy libraries."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HEAVY = ("onnx", "onnxruntime", "onnxoptimizer", "onnxconverter_common", "onnx_ir", "numpy", "scipy", "hypothesis")


def heavy_after(statement: str) -> list[str]:
    script = f"import sys\n{statement}\nprint(*(set({HEAVY!r}) & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return sorted(run.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import onnx_harness.plugin",
        "import onnx_harness.settings",
        "import onnx_harness.cell.matrix; onnx_harness.cell.matrix.expand_variants(['all'], {})",
        "import onnx_harness.cards.card",
        "import onnx_harness.transforms; assert len(onnx_harness.transforms.registry()) > 20",
        "import onnx_harness.providers; assert 'cuda' in onnx_harness.providers.registry()",
        "import onnx_harness.model.file",
        "import onnx_harness.isolate",
        "import onnx_harness.results.cells",
    ],
)
def test_nothing_heavy_is_imported_by(statement: str) -> None:
    assert heavy_after(statement) == []


def test_a_heavy_import_would_be_seen() -> None:
    assert heavy_after("import onnx") == ["numpy", "onnx"]


def test_the_floors_that_contributors_read_are_those_of_the_contract() -> None:
    root = Path(__file__).parents[2]
    contract = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0]
    rows = re.findall(r"^\| (`[a-z_` ]+`) \|", (root / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE)
    assert contract["exhaustive"]
    assert [re.findall(r"\w+", row) for row in rows] == [layer.split(" | ") for layer in contract["layers"]]
