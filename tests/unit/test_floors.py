"""Collection is cheap: what it imports brings none of the heavy libraries."""

import subprocess
import sys

import pytest

HEAVY = ("onnx", "onnxruntime", "onnxoptimizer", "onnxconverter_common", "onnx_ir", "numpy", "scipy", "hypothesis")


def heavy_after(statement: str) -> list[str]:
    script = f"import sys\n{statement}\nprint(*(set({HEAVY!r}) & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return sorted(run.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import harness.plugin",
        "import harness.settings",
        "import harness.matrix; harness.matrix.expand_variants(['all'], {})",
        "import harness.cards",
        "import harness.transforms; assert len(harness.transforms.registry()) > 20",
        "import harness.providers; assert 'cuda' in harness.providers.registry()",
        "import harness.model",
        "import harness.isolate",
        "import harness.results.cells",
    ],
)
def test_nothing_heavy_is_imported_by(statement: str) -> None:
    assert heavy_after(statement) == []


def test_a_heavy_import_would_be_seen() -> None:
    assert heavy_after("import onnx") == ["numpy", "onnx"]
