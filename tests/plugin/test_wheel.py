"""The wheel in a repository that has a package called ``harness`` of its own."""

import os
import subprocess
import sys
from pathlib import Path

from onnx import TensorProto, helper, save

ROOT = Path(__file__).parents[2]


def test_a_repository_with_a_package_called_harness_runs_its_own_tests_and_models(
    tmp_path: Path,
) -> None:
    installed = tmp_path / "installed"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run(
        [*command, "--target", str(installed), str(ROOT)], check=True, timeout=120
    )
    assert (installed / "onnx_harness" / "report" / "templates" / "report.html.j2").is_file()
    repository = tmp_path / "repository"
    (repository / "harness").mkdir(parents=True)
    (repository / "harness" / "__init__.py").write_text("WHOSE = 'ours'\n", "utf-8")
    (repository / "test_ours.py").write_text(
        "import harness, onnx_harness\n\n"
        "def test_whose():\n"
        f"    assert harness.WHOSE == 'ours' and "
        f"onnx_harness.__file__.startswith({str(installed)!r})\n",
        "utf-8",
    )
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])], "net", info[:1], info[1:]
    )
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        repository / "net.onnx",
    )
    pytest_command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--benchmark-skip",
    ]
    run = subprocess.run(
        [*pytest_command, "test_ours.py", "net.onnx", "--variant", "original"],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout
