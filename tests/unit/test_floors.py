"""Collection is cheap: what it imports brings none of the heavy libraries."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import onnx_harness

HEAVY = (
    "onnx",
    "onnxruntime",
    "onnxoptimizer",
    "onnxconverter_common",
    "onnx_ir",
    "numpy",
    "scipy",
    "hypothesis",
)


def heavy_after(statement: str) -> list[str]:
    script = f"import sys\n{statement}\nprint(*(set({HEAVY!r}) & sys.modules.keys()))"
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
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
    contract = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"][
        "importlinter"
    ]["contracts"][0]
    rows = re.findall(
        r"^\| (`[a-z_` ]+`) \|", (root / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE
    )
    assert contract["exhaustive"]
    assert [re.findall(r"\w+", row) for row in rows] == [
        layer.split(" | ") for layer in contract["layers"]
    ]


PACKAGE = Path(onnx_harness.__file__).parent


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    files = {
        file.relative_to(PACKAGE.parent).with_suffix(""): file
        for file in PACKAGE.rglob("*.py")
    }
    return {
        ".".join(name.parts).removesuffix(".__init__"): file for name, file in files.items()
    }


def imported(tree: ast.AST) -> Iterator[str]:
    """What a module imports, inside functions too; what is there for types alone isn't imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            yield from imported(node)


def imports(names: dict[str, Path]) -> dict[str, set[str]]:
    graph = {}
    for name, file in names.items():
        found = imported(ast.parse(file.read_text("utf-8")))
        targets = {
            target if target in names else target.rpartition(".")[0] for target in found
        }
        graph[name] = (targets & names.keys()) - {
            name,
            "onnx_harness",
        }  # the face, which imports when it's asked
    return graph


def test_no_files_import_one_another_not_even_inside_functions() -> None:
    # Raises CycleError, with the circle.
    graphlib.TopologicalSorter(imports(modules())).prepare()


def test_a_circle_hidden_in_a_function_would_be_seen(tmp_path: Path) -> None:
    for name, other in (("one", "two"), ("two", "one")):
        (tmp_path / f"{name}.py").write_text(f"def late():\n    from {other} import thing\n")
    graph = imports({name: tmp_path / f"{name}.py" for name in ("one", "two")})
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph).prepare()
