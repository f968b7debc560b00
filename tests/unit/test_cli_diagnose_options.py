"""Every option of ``diagnose`` and ``bisect`` arrives where it counts: none can be ignored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_harness.cell.state import Task
from onnx_harness.cli import main
from onnx_harness.diagnose import releases, search
from onnx_harness.diagnose.findings import Findings
from onnx_harness.diagnose.trials import Question
from onnx_harness.results.diagnosis import Diagnosis
from tests.models import linear, save

FOUND, NONE, USAGE = 0, 1, 2
SETTINGS: list[tuple[str, str, Callable[[Any], object], object]] = [
    ("--input-sets", "7", lambda settings: settings.input_sets, 7),
    ("--seed", "11", lambda settings: settings.seed, 11),
    ("--min-placement", "0.25", lambda settings: settings.min_placement, 0.25),
    ("--custom-ops", "mine.so", lambda settings: settings.custom_ops[0].name, "mine.so"),
    ("--cell-timeout", "17", lambda settings: settings.limits.seconds, 17),
    ("--cell-memory", "2G", lambda settings: settings.limits.memory_bytes, 2_000_000_000),
]


class Recorder:
    """Stands for the search: keeps what it was asked, and finds nothing."""

    def __init__(
        self,
        question: Question,
        seconds: float,
        *,
        folder: Path | None = None,
        public: bool = False,
    ) -> None:
        self.question, self.seconds, self.folder, self.public = (
            question,
            seconds,
            folder,
            public,
        )
        self.findings = Findings()
        self.started_after = 0

    def run(self) -> Diagnosis:
        return Diagnosis("Nothing is known.")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Recorder]:
    """Return the searches that the command has started, in a folder with a model and a file."""
    recorders: list[Recorder] = []

    def start(*args: Any, **options: Any) -> Recorder:
        recorders.append(Recorder(*args, **options))
        return recorders[-1]

    monkeypatch.setattr(search, "Search", start)
    prepare(monkeypatch, tmp_path)
    return recorders


@pytest.fixture
def bisected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Task, str]]:
    """Return what the command has bisected: the cell and the package."""
    pairs: list[tuple[Task, str]] = []

    def bisect(task: Task, package: str) -> Diagnosis:
        pairs.append((task, package))
        return Diagnosis("It fails since 1.2.", found=True)

    monkeypatch.setattr(releases, "bisect", bisect)
    prepare(monkeypatch, tmp_path)
    return pairs


def prepare(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("onnx_harness.cli.diagnose.refuse_provider", lambda *_: None)
    save(linear(), folder / "m.onnx")
    save(linear(), folder / "zoo" / "net.onnx")
    (folder / "mine.so").write_bytes(b"")
    np.savez(folder / "mine.npz", x=np.ones((2, 4), np.float32))


@pytest.mark.parametrize(
    ("option", "word", "read", "value"), SETTINGS, ids=[setting[0] for setting in SETTINGS]
)
def test_settings_arrive(
    asked: list[Recorder],
    bisected: list[tuple[Task, str]],
    option: str,
    word: str,
    read: Callable[[Any], object],
    value: object,
) -> None:
    words = ["m.onnx", "--variant", "optimize", option, word]

    assert main(["diagnose", *words]) == NONE
    assert main(["bisect", *words]) == FOUND

    assert read(asked[0].question.task.settings) == value
    assert read(bisected[0][0].settings) == value


def test_a_tolerance_arrives_in_both_parts(
    asked: list[Recorder], bisected: list[tuple[Task, str]]
) -> None:
    words = ["m.onnx", "--variant", "optimize", "--rtol", "0.5", "--atol", "0.25"]

    main(["diagnose", *words])
    main(["bisect", *words])

    for settings in (asked[0].question.task.settings, bisected[0][0].settings):
        assert (settings.rtol, settings.atol) == (0.5, 0.25)


def test_what_is_diagnosed_is_what_was_named(
    asked: list[Recorder], bisected: list[tuple[Task, str]]
) -> None:
    words = [
        "m.onnx",
        "--variant",
        "simplify",
        "--provider",
        "openvino",
        "--inputs",
        "mine.npz",
    ]

    main(["diagnose", *words])
    main(["bisect", *words])

    assert [step.name for step in asked[0].question.bound.changing] == ["simplify"]
    for task in (asked[0].question.task, bisected[0][0]):
        assert task.cell.id == "m-simplify-openvino"
        assert task.recorded == Path("mine.npz")


def test_a_cell_is_looked_for_where_models_says(
    asked: list[Recorder],
    bisected: list[tuple[Task, str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in ("diagnose", "bisect"):
        assert main([command, "net-optimize-cpu"]) == USAGE
        assert "there is no model 'net' in models" in capsys.readouterr().err
        assert main([command, "net-optimize-cpu", "--models", "zoo"]) != USAGE

    for task in (asked[0].question.task, bisected[0][0]):
        assert task.model.parent.name == "zoo"


def test_the_search_has_its_budget_and_its_folder(asked: list[Recorder]) -> None:
    words = ["diagnose", "m.onnx", "--variant", "optimize"]

    main(words)
    main([*words, "--budget", "7.5", "--repro", "shown", "--public"])
    main([*words, "--no-repro"])
    main(["diagnose", "m.onnx", "zoo/net.onnx", "--float16-io"])

    assert [recorder.seconds for recorder in asked] == [60, 7.5, 60, 60]
    folders = [recorder.folder for recorder in asked]
    assert folders[1:3] == [Path("shown"), None]
    assert str(folders[0]).endswith("repro/m-optimize-cpu")
    assert [recorder.public for recorder in asked] == [False, True, False, False]
    assert [recorder.question.float16_io for recorder in asked] == [
        False,
        False,
        False,
        True,
    ]
    assert asked[3].question.candidate == Path("zoo/net.onnx")


def test_the_package_is_onnxruntime_unless_it_is_named(
    bisected: list[tuple[Task, str]],
) -> None:
    main(["bisect", "m.onnx", "--variant", "optimize"])
    main(["bisect", "m.onnx", "--variant", "optimize", "--package", "onnxoptimizer"])

    assert [package for _, package in bisected] == ["onnxruntime", "onnxoptimizer"]


def test_two_models_have_no_release(
    bisected: list[tuple[Task, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bisect", "m.onnx"]) == USAGE  # without a variant there is no cell
    assert "--variant" in capsys.readouterr().err
    assert not bisected


@pytest.mark.usefixtures("asked", "bisected")
def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("diagnose", "bisect"):
        words = [command, "m.onnx", "--variant", "optimize"]
        main(words)
        assert not capsys.readouterr().out.startswith("{")
        main([*words, "--json"])
        assert set(json.loads(capsys.readouterr().out)) == {
            *("sentence", "cause", "smallest", "mend", "spent")
        }


def test_a_narrow_tolerance_makes_a_failure_of_last_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = linear()
    other.graph.initializer[0].raw_data = (
        np.frombuffer(other.graph.initializer[0].raw_data, np.float32) * np.float32(1 + 2e-7)
    ).tobytes()
    words = [str(save(linear(), tmp_path / "a.onnx")), str(save(other, tmp_path / "b.onnx"))]
    words += ["--input-sets=1", "--no-repro", "--json"]

    assert main(["diagnose", *words]) == NONE
    assert "Nothing to diagnose" in capsys.readouterr().out

    main(["diagnose", *words, "--rtol=1e-10", "--atol=1e-10"])
    assert "beyond the tolerance" in json.loads(capsys.readouterr().out)["sentence"]


def test_a_package_is_searched_before_the_cause(
    asked: list[Recorder],
    bisected: list[tuple[Task, str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["diagnose", "m.onnx", "--variant", "optimize"]
    start = search.Search

    def counted(*args: Any, **options: Any) -> Any:
        recorder: Any = start(*args, **options)
        recorder.started_after = len(bisected)
        return recorder

    monkeypatch.setattr(search, "Search", counted)

    main(words)
    assert bisected == []
    main([*words, "--package", "onnxoptimizer"])
    assert main(["diagnose", "m.onnx", "zoo/net.onnx", "--package", "onnx"]) == USAGE

    [(task, package)] = bisected
    assert asked[1].started_after == 1  # its budget begins then
    assert (task.cell.id, package) == ("m-optimize-cpu", "onnxoptimizer")
    assert asked[1].findings.evidence == ["It fails since 1.2."]
    assert "--package is for a cell" in capsys.readouterr().err


@pytest.mark.usefixtures("bisected")
def test_a_release_that_is_found_is_added_to_the_issue_once(tmp_path: Path) -> None:
    words = ["bisect", "m.onnx", "--variant", "optimize"]
    page = tmp_path / "reports" / "repro" / "m-optimize-cpu" / "ISSUE.md"
    assert main(words) == FOUND  # without a page there is nothing to add to
    page.parent.mkdir(parents=True)
    page.write_text("# A fault\n\n## Cause\n\nIt.\n", encoding="utf-8")

    for _ in range(2):
        assert main(words) == FOUND

    text = page.read_text("utf-8")
    assert (
        text
        == "# A fault\n\n## Cause\n\nIt.\n\n## First bad release\n\nIt fails since 1.2.\n"
    )
