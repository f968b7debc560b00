"""An input set that ends the process is named, and what the other sets say is still said.

The transforms come from another distribution. They mark the model, and in a worker ONNX Runtime's
``run`` dies of what the mark says: of an empty tensor, or of one that is all zeros.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onnx_harness import transforms
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import RunNote
from onnx_harness.diagnose import repro
from onnx_harness.isolate import Worker
from onnx_harness.names import extensions, parse_variant
from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings
from tests.models import linear, save
from tests.plugin.running import install

FAULTS = """
import multiprocessing, os, signal
from onnx_harness.transforms import Precision, Transform

MARK = "dies of"
FATAL = {
    "empty": lambda value: value.size == 0,
    "zeros": lambda value: value.size > 0 and not value.any(),
    "usual": lambda value: value.size > 0 and value.any(),
}

def marked(model, of="empty", wrong=False):
    entry = model.metadata_props.add()
    entry.key, entry.value = MARK, of
    if wrong:
        model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    return model

OPTIONS = {"of": str, "wrong": bool}
TRANSFORM = (
    Transform("", marked, {"deadly": {}}, OPTIONS),
    Transform("", marked, {"deadly_half": {}}, OPTIONS, precision=Precision.FP16),
)

if multiprocessing.parent_process() is not None:
    import onnxruntime as ort
    survive = ort.InferenceSession.run

    def run(session, names, feeds, *more):
        of = session.get_modelmeta().custom_metadata_map.get(MARK)
        level = session.get_session_options().graph_optimization_level
        optimized = level != ort.GraphOptimizationLevel.ORT_DISABLE_ALL and os.environ.get("DIES_OPTIMIZED_OF")
        for fatal in filter(None, (of, optimized, os.environ.get("DIES_OF"))):
            if any(FATAL[fatal](value) for value in feeds.values()):
                os.kill(os.getpid(), signal.SIGSEGV)
        return survive(session, names, feeds, *more)

    ort.InferenceSession.run = run
"""

Judge = Callable[[str], CellResult]


def _forget_transforms() -> None:
    """Those of another distribution are looked up once in a process."""
    for cached in (extensions.extensions, transforms.registry, transforms._registered):
        cached.cache_clear()


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    install(tmp_path, FAULTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    # What runs before the transform is looked up dies as well.
    monkeypatch.setattr(
        "onnx_harness.cell.workers.Worker",
        lambda *given, preload, files: Worker(
            *given, preload=(*preload, "faults"), files=files
        ),
    )
    save(linear(), tmp_path / "lin.onnx")
    _forget_transforms()
    running = Runner(Settings(input_sets=2, report_dir=tmp_path / "reports"))
    yield running
    running.close()
    _forget_transforms()


@pytest.fixture
def judge(runner: Runner, tmp_path: Path) -> Judge:
    return lambda variant: runner.judge(cell(tmp_path, variant))


def cell(folder: Path, variant: str) -> Cell:
    return Cell(card_for(folder / "lin.onnx"), parse_variant(variant), "cpu")


def test_a_crash_on_an_unusual_set_is_a_failure_that_names_it_and_tells_of_the_others(
    judge: Judge,
) -> None:
    result = judge("deadly")
    assert (result.status, result.stage, result.symptom) == (
        Status.FAIL,
        Stage.RUN,
        Symptom.CRASH,
    ), result.reason
    reason = str(result.reason)
    assert "on unusual inputs alone, on input set " in reason
    assert "with nothing in it (n = 0)" in reason
    assert "killed by SIGSEGV (signal 11)" in reason
    assert reason.endswith("on all other input sets the outputs are right")
    assert result.accuracy is not None
    assert result.accuracy.input_sets > 2


def test_a_fault_on_the_usual_sets_is_not_hidden_by_a_crash_on_an_unusual_one(
    judge: Judge,
) -> None:
    result = judge("deadly(wrong=True)")
    assert (result.status, result.stage, result.symptom) == (
        Status.FAIL,
        Stage.COMPARE,
        Symptom.WRONG_VALUES,
    )
    assert any(
        "with nothing in it (n = 0)" in note and "SIGSEGV" in note for note in result.notes
    ), result.notes


def test_of_a_narrower_type_a_crash_on_an_unusual_set_is_a_remark(judge: Judge) -> None:
    result = judge("deadly_half")
    assert result.status is Status.PASS, result
    (note,) = [note for note in result.notes if "SIGSEGV" in note]
    assert "with nothing in it (n = 0)" in note
    assert note.endswith("a narrower type needn't be usable on unusual inputs")


def test_what_the_untouched_model_dies_of_too_is_a_remark(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime dies of the untouched model where it is optimized, as in the cell.

    The reference isn't.
    """
    monkeypatch.setenv("DIES_OPTIMIZED_OF", "zeros")
    for variant in ("original", "deadly(of='zeros')"):
        result = judge(variant)
        assert result.status is Status.PASS, result
        (note,) = [note for note in result.notes if "SIGSEGV" in note]
        assert "with zeros alone" in note
        assert note.endswith(
            "the untouched model dies of it too, at the same optimization level"
        )


def test_a_crash_on_a_usual_set_names_it(judge: Judge) -> None:
    result = judge("deadly(of='usual')")
    assert (result.status, result.stage, result.symptom) == (
        Status.FAIL,
        Stage.RUN,
        Symptom.CRASH,
    )
    assert str(result.reason).startswith("during run, on input set 1 (set 0 (seed 0")


def test_what_is_kept_has_the_set_that_crashed(
    runner: Runner, judge: Judge, tmp_path: Path
) -> None:
    result = judge("deadly")
    repro.settle(runner, cell(tmp_path, "deadly"), result)
    folder = tmp_path / "reports" / repro.FOLDER / result.id
    assert [each.name for each in folder.glob("test_data_set_*")] == ["test_data_set_0"]
    shown = subprocess.run(
        [sys.executable, "-I", folder / repro.SCRIPT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "with nothing in it (n = 0)" in shown.stdout  # the real ONNX Runtime survives it
    assert "test_data_set_0" in shown.stdout


def test_unusual_inputs_that_the_untouched_model_dies_of_are_named_and_the_others_are_fed(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIES_OF", "empty")
    result = judge("original")
    assert result.status is Status.PASS, result
    assert result.notes == (
        (
            "not fed unusual inputs with nothing in it (n = 0): ONNX Runtime dies of them with the "
            "untouched model itself"
        ),
    )
    assert result.accuracy is not None
    assert result.accuracy.input_sets > 8


def test_without_judging_again_the_other_sets_say_nothing(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnx_harness.run.attempts.MOST_DEATHS", 0)
    result = judge("deadly(wrong=True)")
    assert (result.status, result.stage, result.accuracy) == (Status.FAIL, Stage.RUN, None)
    assert "with nothing in it (n = 0)" in str(result.reason)


def test_a_note_of_a_run_is_read_as_it_was_written() -> None:
    note = RunNote(7, True, "unusual: with nothing in it (b = 0): x:y")
    assert RunNote.read(str(note)) == note
    assert RunNote.read("run") is None
    assert RunNote.read("") is None
