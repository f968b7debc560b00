"""Small promises of a cell: places of sets, stages of notes, decoders, interfaces, what is timed with what."""

from __future__ import annotations

import contextlib
import errno
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_harness import transforms
from onnx_harness.cards.specs import GenerateSpec
from onnx_harness.cell import artifacts, checks, generation, matrix, outputs, timing
from onnx_harness.cell.matrix import expand_variants, with_distinct_names
from onnx_harness.cell.repeats import Runs
from onnx_harness.cell.session import NoKernel
from onnx_harness.cell.state import (
    CellEnded,
    Judged,
    RunNote,
    Way,
    is_of_the_machine,
    stage_of,
)
from onnx_harness.errors import InputError, ModelTooLarge, ResultsError, UsageError
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.verdict import Verdict
from onnx_harness.model.file import Model
from onnx_harness.results.cells import Stage, Status, Symptom
from onnx_harness.settings import Settings
from tests.models import model, save
from tests.unit.results_examples import cell as result_of
from tests.unit.test_cell_parts import noting, task_of

NET = Path("net.onnx")


@pytest.mark.parametrize("skipped", [(), (0,), (2, 0), (1, 2), (5,), (4, 1, 3)])
def test_a_set_s_place_is_that_in_the_whole_reference(skipped: tuple[int, ...]) -> None:
    task = replace(task_of(NET), skipped=skipped)
    kept = [place for place in range(6) if place not in skipped]
    assert [task.place(index) for index in range(len(kept))] == kept


def test_the_libraries_of_a_card_come_before_those_of_a_run() -> None:
    task = task_of(NET, custom_ops=(Path("a"), Path("b")))
    task = replace(task, settings=Settings(custom_ops=(Path("c"), Path("a"))))
    assert task.custom_ops == (Path("a"), Path("b"), Path("c"), Path("a"))


@pytest.mark.parametrize(
    ("note", "stage", "words"),
    [
        ("", Stage.LOAD, "load"),
        ("load", Stage.LOAD, "load"),
        ("compare", Stage.COMPARE, "compare"),
        ("compare: noise: again", Stage.COMPARE, "compare (noise: again)"),
        ("at risk: unusual inputs", Stage.LOAD, "load (at risk: unusual inputs)"),
        ("transform:x", Stage.LOAD, "load (transform:x)"),
    ],
)
def test_a_note_belongs_to_the_stage_that_it_begins_with(
    note: str, stage: Stage, words: str
) -> None:
    assert stage_of(note) == (stage, words)


def test_the_name_in_a_note_comes_last_and_may_be_cut() -> None:
    note = str(RunNote(12, True, "a: b"))
    assert note == "run on 12:1:a: b"
    assert RunNote.read(note[:-4]) == RunNote(12, True, "")
    assert RunNote.read("run on 3:0:x:y") == RunNote(3, False, "x:y")
    assert RunNote.read("ran on 3:0:x") is None


@pytest.mark.parametrize(
    ("error", "of_the_machine"),
    [
        *(
            (OSError(number, "x"), True)
            for number in (errno.ENOSPC, errno.EIO, errno.EMFILE)
        ),
        *((OSError(number, "x"), True) for number in (errno.ENOMEM, errno.EAGAIN)),
        *((OSError(number, "x"), True) for number in (errno.EDQUOT, errno.ENFILE)),
        (OSError(errno.ENOENT, "x"), False),
        (OSError("x"), False),
        (ValueError(errno.ENOSPC), False),
    ],
)
def test_errors_of_the_machine_say_nothing_about_a_cell(
    error: Exception, of_the_machine: bool
) -> None:
    assert is_of_the_machine(error) is of_the_machine


def test_what_is_too_large_for_the_memory_starves() -> None:
    way = Way(task_of(NET))
    for error, starved in (
        (ModelTooLarge("it is large\nmore"), True),
        (ValueError("x"), False),
    ):
        with pytest.raises(CellEnded) as ended, way.at(Stage.RUN):
            raise error
        assert ended.value.starved is starved
    for words in (OSError(errno.ENOSPC, "No space left\nmore"), InputError("no\nmore")):
        with pytest.raises(CellEnded) as ended, way.at(Stage.RUN):
            raise words
        assert ended.value.detail == ("more",)
    with pytest.raises(CellEnded) as ended, way.at(Stage.RUN):
        raise ResultsError("it's full\nmore")
    assert ended.value.detail == ("more",)
    plain = CellEnded(Status.FAIL, "why")
    assert (plain.detail, plain.symptom, plain.failing, plain.starved) == (
        (),
        None,
        (),
        False,
    )


def test_a_card_s_options_reach_the_steps_of_a_variant(tmp_path: Path) -> None:
    way = Way(task_of(tmp_path / "net.onnx", "fp16.io32", keep_float32=("Softmax",)))
    [step] = way.bound.steps
    assert "Softmax" in str(step.options)


# decoders


def test_a_decoder_is_fed_by_what_has_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(generation, "decoder_of", noting(asked, "a decoder"))
    named = [SimpleNamespace(name=name) for name in ("ids", "w", "mask")]
    signature = SimpleNamespace(inputs=named)
    graph = SimpleNamespace(
        initializer=[SimpleNamespace(name="w"), SimpleNamespace(name="v")]
    )
    made: Any = SimpleNamespace(signature=signature, skeleton=SimpleNamespace(graph=graph))
    spec = GenerateSpec((7,), 3)
    generation.check_generation(made, spec)
    assert asked == [(signature, ["ids", "mask"], spec)]
    decoder: Any = "a decoder"
    assert generation._decoder(made, spec) is decoder


@pytest.mark.parametrize("yardstick", [None, "a yardstick"])
def test_the_noise_of_decoding_is_that_of_the_usual_sets(
    monkeypatch: pytest.MonkeyPatch, yardstick: str | None
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(generation, "measured_yardstick", lambda by: (yardstick, by))
    monkeypatch.setattr(generation, "explained_by", noting(asked, 0.25))
    sets = tuple(InputSet("s", {}, unusual=word) for word in ("", "odd", ""))
    outputs: Any = ({"y": 0}, {"y": 1}, {"y": 2})
    subject: Any = SimpleNamespace(reference=Reference(sets, outputs, frozenset()))
    decoder: Any = SimpleNamespace(logits="the logits")
    expected: Any = SimpleNamespace(logits="its logits")
    standard: Any = "the standard"
    noise = generation._noise(subject, standard, decoder, expected)
    if yardstick is None:
        assert (noise, asked) == (None, [])
        return
    assert noise == 0.25
    usual = {0: {"y": 0}, 2: {"y": 2}}
    assert asked == [(yardstick, usual, "the logits", "its logits")]


def test_the_untouched_model_is_decoded_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(generation, "open_cpu", lambda path: ("opened", path))
    monkeypatch.setattr(generation, "decode", noting(asked, "decoded"))
    made: Any = SimpleNamespace(path=NET)
    decoder: Any = "a decoder"
    decoded: object = generation._decoded(made, decoder, {"a": 1}, GenerateSpec((7,), 3))
    assert decoded == "decoded"
    assert asked == [(("opened", NET), "a decoder", {"a": 1}, (7,), 3)]


@pytest.mark.parametrize(
    ("shape", "row"), [(("n", 3), (1, 3)), (("n",), (1,)), ((2,), (2,))]
)
def test_what_is_the_same_in_each_step_is_a_row_of_the_first_set_where_all_are_large(
    shape: tuple[Any, ...], row: tuple[int, ...]
) -> None:
    large = replace(InputSet("large", {"b": np.zeros((2, 3)[: len(shape)])}), large=True)
    declared = SimpleNamespace(inputs=[SimpleNamespace(name="b", shape=shape)])
    subject: Any = SimpleNamespace(
        reference=Reference((large, large), ({}, {}), frozenset()),
        model=SimpleNamespace(signature=declared),
    )
    decoder: Any = SimpleNamespace(ids=SimpleNamespace(name="ids"), cache={}, roles={})
    assert generation._fixed(subject, decoder)["b"].shape == row


# the check of what a step made


def test_the_check_compares_interfaces_as_the_variant_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    differences = ["the first", "the second", "the third"]
    monkeypatch.setattr(checks, "interface_changes", noting(asked, differences))
    monkeypatch.setattr(artifacts, "checker_says", lambda _: pytest.fail("it was asked"))
    way = Way(task_of(tmp_path / "net.onnx", "fp16"))
    way._bound = replace(way.bound, fixed_shapes={"x": (1, 2)})
    sets = (InputSet("s", {"z": np.zeros(3)}), InputSet("s", {"x": np.zeros((1, 2))}))
    subject: Any = SimpleNamespace(
        model=SimpleNamespace(signature="before"),
        reference=Reference(sets, ({}, {}), frozenset()),
    )
    artifact: Any = SimpleNamespace(
        transformed=True, check=None, model=SimpleNamespace(signature="after")
    )
    with pytest.raises(CellEnded) as ended:
        checks.check_artifact(way, subject, artifact)
    assert asked == [("before", "after", "float16", {"x": (1, 2)})]
    found = ended.value
    assert (found.status, found.symptom) == (Status.FAIL, Symptom.CHANGED_TYPES)
    assert found.reason == "the model's interface changed: the first"
    assert found.detail == ("the second", "the third")


# the comparison


@pytest.mark.parametrize("simulated", [False, True])
def test_what_passes_is_held_to_the_recorded_outputs_as_well(
    monkeypatch: pytest.MonkeyPatch, simulated: bool
) -> None:
    passed = Verdict(Status.PASS)
    recorded: list[Any] = []
    monkeypatch.setattr(artifacts, "judged_by", lambda *_: "the standard")
    monkeypatch.setattr(outputs, "judge_outputs", lambda *_, **__: passed)
    monkeypatch.setattr(outputs, "judge_simulated", lambda *_: passed)
    monkeypatch.setattr(outputs, "_judge_recorded", noting(recorded, None))
    way, runs = Way(task_of(NET)), Runs([{}], [], dict, None)
    subject: Any = "the subject"
    artifact: Any = SimpleNamespace(model="the model")
    cache: Any = "the cache"
    if simulated:
        outputs.compare_simulated(way, subject, artifact, NoKernel("Mul"), cache)
    else:
        outputs.compare(way, subject, artifact, runs, cache)
    assert recorded == [(way, subject)]


# what a run asks for


def test_every_library_that_is_missing_is_named_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nowhere(name: str) -> str:
        if name in ("onnxslim", "onnxsim"):
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(matrix, "version", nowhere)
    with pytest.raises(UsageError) as refused:
        expand_variants(["onnxslim+onnxsim+onnxslim"], {})
    assert str(refused.value).startswith(
        "variant 'onnxslim+onnxsim+onnxslim' needs onnxslim and"
    )
    assert str(refused.value).endswith(
        "not installed here. Mend: pip install onnxslim onnxsim"
    )


def test_what_could_not_be_loaded_is_said_where_a_name_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transforms, "left_out", lambda: ("'mine' was left out: why.",))
    with pytest.raises(UsageError, match=r"group 'mine'\. .*'mine' was left out: why\.$"):
        expand_variants(["mine"], {})


def test_models_of_a_run_that_lie_elsewhere_are_told_from_those_of_a_folder(
    tmp_path: Path,
) -> None:
    text = "(float[2] x) => (float[2] y) { y = Neg(x) }"
    names = ("one/model.onnx", "one/deep/model.onnx", "far/model.onnx")
    paths = [save(model(text), tmp_path / name) for name in names]
    cards = [task_of(path).cell.card for path in (paths[0], paths[2])]
    named = with_distinct_names(cards, [tmp_path / "one", tmp_path / "nowhere"])
    assert [(path, card.name) for path, card in named.items()] == [
        (paths[0], "one.model"),
        (paths[2], "far.model"),
    ]


# times


@pytest.mark.parametrize(("more", "turns"), [(0, False), (1, True)])
def test_large_models_are_timed_in_turn_with_their_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int, turns: bool
) -> None:
    entered: list[Any] = []

    @contextlib.contextmanager
    def custom_operators(libraries: Any) -> Any:
        entered.append(libraries)
        yield

    measured: list[Any] = []
    openers: list[Any] = []
    monkeypatch.setattr(timing, "custom_operators", custom_operators)
    monkeypatch.setattr(timing, "measure", lambda *_, **more: measured.append(more))
    monkeypatch.setattr(timing, "taking_turns", noting(openers, ("first", "second")))
    path = save(model("(float[2] x) => (float[2] y) { y = Neg(x) }"), tmp_path / "net.onnx")
    task = task_of(path, custom_ops=(Path("ops.so"),))
    judged = Judged(result_of(), path)
    graph = judged.result.graph
    assert graph is not None
    size = graph.bytes_before + graph.bytes_after
    monkeypatch.setattr(timing, "LARGE_BYTES", size - more)
    timing.time_cell(task, judged, [], "a fixture")
    [given] = measured
    assert (len(openers) == 1, given["baseline"] == "first") == (turns, turns)
    assert (given["variant"] == "second") is turns
    assert entered == [(Path("ops.so"),)]
    assert Model(path).size_bytes < size
