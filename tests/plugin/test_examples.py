"""The examples run as they stand, each in a copy of its folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from onnx_harness.cli import main
from onnx_harness.gate.scaffold import GITHUB_FILE
from onnx_harness.results.store import Results, read_results
from tests.models import model, save
from tests.plugin.running import made_reference, run_pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def copy_of(name: str, folder: Path) -> Path:
    return Path(
        shutil.copytree(
            EXAMPLES / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    )


def test_own_tests(tmp_path: Path) -> None:
    folder = copy_of("own_tests", tmp_path)
    first = run_pytest(folder, "-k", "last_time")
    assert first.code == pytest.ExitCode.TESTS_FAILED
    assert "Mend: run this test once with --onnx-update" in first.told
    assert "During handling" not in first.told
    written = run_pytest(folder, "--onnx-update", "--report-dir=reports")
    assert written.code == pytest.ExitCode.OK, written.told
    golden = (
        folder
        / "__onnx_snapshots__/test_model/test_outputs_are_those_of_last_time/test_data_set_0"
    )
    assert {file.name for file in golden.iterdir()} == {"input_0.pb", "output_0.pb"}
    assert set(written.cells) == {
        "net.test_conversions_are_right_simplify-simplify-cpu",
        "net.test_conversions_are_right_fp16.io32-fp16.io32-cpu",
        "net.test_on_inputs_of_ones_own-simplify-cpu",
        "net.test_outputs_are_those_of_last_time-snapshot-cpu",
    }
    source = (folder / "test_model.py").read_text("utf-8")
    assert run_pytest(folder, "-k", "last_time").code == pytest.ExitCode.OK
    (folder / "test_model.py").write_text(
        source.replace("{1, 2, 3, 4}", "{1, 2, 3, 4.001}"), "utf-8"
    )
    changed = run_pytest(folder, "-k", "last_time")
    assert changed.code == pytest.ExitCode.TESTS_FAILED
    assert "output y" in changed.told


def test_export(tmp_path: Path) -> None:
    folder = copy_of("export", tmp_path)
    assert run_pytest(folder).code == pytest.ExitCode.OK
    file = folder / "test_export.py"
    file.write_text(
        file.read_text("utf-8").replace(
            "return np.tanh(x @ WEIGHT)", "return np.tanh(x @ WEIGHT) * 1.01"
        )
    )
    ended = run_pytest(folder)
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    assert "beyond the tolerance" in ended.told
    file.write_text(file.read_text("utf-8").replace("* 1.01", "/ nothing"))
    ended = run_pytest(folder)
    assert "NameError: name 'nothing' is not defined" in ended.told
    assert "verification.py" not in ended.told  # the forward's own frames, and no others


@pytest.mark.nightly
def test_export_torch(tmp_path: Path) -> None:
    pytest.importorskip(
        "torch", reason="torch isn't installed here: `make test-extras` has it"
    )
    folder = copy_of("export_torch", tmp_path)
    right = run_pytest(folder)
    assert right.code == pytest.ExitCode.OK, right.told
    assert "3 models, 3 cells on cpu: 3 pass" in right.told
    file = folder / "test_export.py"
    text = file.read_text("utf-8")
    file.write_text(text.replace(".numpy()\n", ".numpy() * 1.01\n"), "utf-8")
    wrong = run_pytest(folder, "-k", "pytorch")
    assert wrong.code == pytest.ExitCode.TESTS_FAILED
    assert "beyond the tolerance" in wrong.told


def test_transform(tmp_path: Path) -> None:
    folder = copy_of("transform", tmp_path)
    save(
        model("(float[n] x) => (float[n] y) { a = Neg(x)  y = Neg(a) }"), folder / "net.onnx"
    )
    cells = ["net.onnx", "--variant=double_negation(limit=3)", "-k=accuracy"]
    assert run_pytest(folder, *cells).code == pytest.ExitCode.OK
    file = folder / "double_negation.py"
    file.write_text(
        file.read_text("utf-8").replace("    return model", "    return model.grpah"),
        "utf-8",
    )
    ended = run_pytest(folder, *cells)
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    assert "double_negation.py" in ended.told
    assert "in remove: return model.grpah" in ended.told


def test_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its workflow is what `gate init` writes; a night goes as that says."""
    folder = copy_of("gate", tmp_path)
    monkeypatch.chdir(folder)
    workflow = folder / GITHUB_FILE
    committed = workflow.read_text("utf-8")
    workflow.unlink()
    assert main(["gate", "init"]) == 0
    assert _without_version(workflow.read_text("utf-8")) == _without_version(committed)
    [night] = [
        line.split()[1:]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("  pytest")
    ]
    made_reference(folder / ".reference")
    # Without latency, whose pairs of fresh processes take half a minute: tests/meta has runs with
    # it.
    ended = run_pytest(folder, *night, "--variant=original", "-k=accuracy")
    assert ended.code == pytest.ExitCode.OK, ended.told
    place = ["--provider", "cpu", "--report-dir", "reports"]
    assert main(["gate", "accept", "--all", *place, "--why", "the first night"]) == 0
    assert main(["gate", *place]) == 0


def test_action(tmp_path: Path) -> None:
    """The action's own script judges the example's models."""
    folder = copy_of("action", tmp_path)
    job = yaml.safe_load((folder / ".github/workflows/models.yml").read_text("utf-8"))[
        "jobs"
    ]["models"]
    [step] = [step for step in job["steps"] if "onnx-harness" in step.get("uses", "")]
    action = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
    assert step["with"].keys() <= action["inputs"].keys()
    inputs = {name: given["default"] for name, given in action["inputs"].items()} | step[
        "with"
    ]
    words = [
        *inputs["models"].split(),
        "--provider",
        inputs["provider"],
        "--report-dir",
        inputs["report-dir"],
    ]
    ended = run_pytest(folder, *words, *inputs["args"].split())
    assert ended.code == pytest.ExitCode.OK, ended.told
    assert ended.cells.keys() == {"net-simplify-cpu"}


def test_shards_of_a_slurm_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task of the array takes its part; the parts make one run."""
    folder = copy_of("shards", tmp_path)
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(
        "PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    few = [
        "--variant=original",
        "--variant=simplify",
        "-k=accuracy",
        "-p",
        "no:hypothesispytest",
    ]

    def task(array: str, part: str) -> Results:
        """One of two tasks; Slurm keeps both numbers of one that it starts again."""
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", array)
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", part)
        monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
        ended = subprocess.run(
            ["sh", "shard.sh", *few], cwd=folder, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert f"shards/{array}/{part}/summary.md" in ended.stdout
        return read_results(folder / "shards" / array / part)

    first, _ = task("4711", "1"), task("4711", "2")
    again = task("4711", "1")
    assert again.cells == first.cells  # with their seconds: nothing was judged again
    _merge_shards(folder, monkeypatch, "shards/4711")
    night = task("4712", "1")
    assert not {cell.id for cell in night.cells} - {"net-original-cpu", "net-simplify-cpu"}
    verdicts = sorted((folder / "shards/4712/1/verdicts").rglob("*.json"))
    assert len(verdicts) == len(night.cells)
    assert night.cells[0].seconds != first.cells[0].seconds  # judged anew, not taken over


def test_shards_of_a_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the jobs of the workflow do it, in two parts instead of four."""
    folder = copy_of("shards", tmp_path)
    jobs = yaml.safe_load((folder / ".github/workflows/models.yml").read_text("utf-8"))[
        "jobs"
    ]
    parts = jobs["shard"]["strategy"]["matrix"]["part"]
    [command] = [
        step["run"]
        for step in jobs["shard"]["steps"]
        if step.get("run", "").startswith("pytest")
    ]
    assert f"${{{{ matrix.part }}}}/{len(parts)}" in command
    for part in ("1", "2"):
        words = command.replace(f"${{{{ matrix.part }}}}/{len(parts)}", f"{part}/2").split()[
            1:
        ]
        words[words.index("reports")] = f"shards/{part}"
        ended = run_pytest(folder, *words, "--variant=original", "--variant=simplify")
        assert ended.code == pytest.ExitCode.OK, ended.told
    [merging] = [
        step["run"]
        for step in jobs["report"]["steps"]
        if "report --merge" in step.get("run", "")
    ]
    assert merging == "onnx-harness report --merge shards/* -o reports"
    _merge_shards(folder, monkeypatch, "shards")


def _merge_shards(folder: Path, monkeypatch: pytest.MonkeyPatch, parts: str) -> None:
    monkeypatch.chdir(folder)
    assert main(["report", "--merge", f"{parts}/1", f"{parts}/2", "-o", "reports"]) == 0
    whole = read_results(folder / "reports")
    assert [cell.id for cell in whole.cells] == ["net-original-cpu", "net-simplify-cpu"]
    assert {shard[:3] for shard in whole.run.shards} == {"1/2", "2/2"}


def _without_version(workflow: str) -> str:
    return re.sub(r'python-version: "[\d.]+"', "", workflow)


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        ("varient='simplify'", "has no argument 'varient'. Did you mean 'variant'?"),
        ("variant=3", "takes a string or a list of strings, and not 3"),
    ],
)
def test_a_marker_that_cannot_be_honoured_is_refused(
    pytester: pytest.Pytester, mark: str, words: str
) -> None:
    pytester.makepyfile(
        f"import pytest\n\n@pytest.mark.onnx({mark})\ndef test_it(onnx_verify): pass\n"
    )
    result = pytester.runpytest_inprocess()
    assert result.ret != pytest.ExitCode.OK
    assert words in result.stdout.str() + result.stderr.str()
