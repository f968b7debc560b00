"""The fixtures for tests of one's own and the questions behind them, without a worker process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_harness.cell import given_outputs
from onnx_harness.cell.comparison import PairOutcome
from onnx_harness.errors import InputError, ModelError, ProviderError, UsageError
from onnx_harness.names import parse_variant
from onnx_harness.providers.probe import Availability
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.run import own_tests, verification
from onnx_harness.run.own_tests import OnnxSnapshot, OnnxVerify, OwnTest, choices_of
from onnx_harness.run.verification import Question, Verdict, verdict_of
from onnx_harness.settings import Settings
from tests.models import linear, save
from tests.unit.results_examples import cell as result_of


class Runner:
    """Answers in the place of a worker."""

    def __init__(self, answers: Mapping[Any, Any] | None = None) -> None:
        self.settings = Settings(provider=("openvino", "cpu"), seed=3)
        self.given: Path | None = None
        self.answers = answers or {}
        self.asked: list[Settings] = []

    def apart(self, settings: Settings, recorded: Path | None) -> Runner:
        assert recorded is None
        self.asked.append(settings)
        return self

    def call(self, function: Callable[..., Any], *words: Any) -> Any:
        answer = self.answers[function]
        return answer(*words) if callable(answer) else answer


def own_test(
    kept: list[CellResult], folder: Path = Path(), **defaults: str
) -> tuple[OwnTest, Runner]:
    config = SimpleNamespace(invocation_params=SimpleNamespace(dir=folder), rootpath=folder)
    node: Any = SimpleNamespace(
        name="test_it", nodeid="a.py::test_it", path=folder / "test_a.py", config=config
    )
    runner: Any = Runner()
    return OwnTest(node, runner, kept.append, defaults), runner


# what comes of a verdict


def test_each_question_of_a_test_has_an_id_of_its_own() -> None:
    kept: list[CellResult] = []
    test, runner = own_test(kept)
    for result in (result_of(), result_of(), result_of("simplify"), result_of()):
        assert test.ask(lambda _, result=result: result, {"seed": 5})  # type: ignore[misc]
    assert [each.id for each in kept] == [
        "net-original-cpu",
        "net.2-original-cpu",
        "net-simplify-cpu",
        "net.3-original-cpu",
    ]
    assert [each.model for each in kept] == ["net", "net.2", "net", "net.3"]
    assert {settings.seed for settings in runner.asked} == {5}


@pytest.mark.parametrize("status", [Status.FAIL, Status.ERROR, Status.NOT_APPLICABLE])
def test_what_is_no_pass_is_recorded_and_says_how_to_run_it_alone(status: Status) -> None:
    kept: list[CellResult] = []
    test, _ = own_test(kept)
    skips = status is Status.NOT_APPLICABLE
    outcome = pytest.skip.Exception if skips else pytest.fail.Exception
    with pytest.raises(outcome, match="it is off"):
        test.ask(lambda _: result_of(status=status, reason="it is off"), {})
    [result] = kept
    assert result.detail == (() if skips else ("alone: pytest a.py::test_it",))


def test_what_cant_be_judged_fails_and_isnt_recorded() -> None:
    def refuses(_: object) -> CellResult:
        raise ModelError("there is no model")

    kept: list[CellResult] = []
    test, _ = own_test(kept)
    with pytest.raises(pytest.fail.Exception, match="there is no model"):
        test.ask(refuses, {})
    assert kept == []


# what is asked


def test_the_call_goes_before_the_marker_and_that_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save(linear(), tmp_path / "net.onnx")
    asked: list[Question] = []

    def answers(question: Question, _: object) -> CellResult:
        asked.append(question)
        return result_of()

    monkeypatch.setattr(own_tests, "answer", answers)
    marked, _ = own_test([], variant="fp16", provider="cuda")
    plain, _ = own_test([])
    for test, call in (
        (plain, {}),
        (marked, {}),
        (marked, {"variant": "optimize", "provider": "cpu"}),
    ):
        OnnxVerify(test)(model, **call)
    assert [(each.variant, each.provider) for each in asked] == [
        ("simplify", "openvino"),
        ("fp16", "cuda"),
        ("optimize", "cpu"),
    ]
    assert {each.name for each in asked} == {"net.test_it"}


def test_a_snapshot_has_a_folder_by_its_file_its_test_and_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def answers(question: Question, _: object, folder: Path, *, update: bool) -> CellResult:
        asked.append((question.provider, folder.relative_to(tmp_path), update))
        return result_of()

    monkeypatch.setattr(own_tests, "snapshot", answers)
    model = save(linear(), tmp_path / "net.onnx")
    test, _ = own_test([], tmp_path)
    OnnxSnapshot(test, update=False)(model)
    OnnxSnapshot(test, update=True)(model, name="another", provider="cpu")
    folder = Path("__onnx_snapshots__/test_a/test_it")
    assert asked == [("openvino", folder, False), ("cpu", folder / "another", True)]


def test_lists_of_a_marker_make_each_combination() -> None:
    mark = pytest.mark.onnx(variant=["fp16", "simplify"], provider=("cpu", "cuda")).mark
    assert [tuple(choice.values()) for choice in choices_of(mark)] == [
        ("fp16", "cpu"),
        ("fp16", "cuda"),
        ("simplify", "cpu"),
        ("simplify", "cuda"),
    ]
    assert choices_of(pytest.mark.onnx().mark) == [{}]


# the answers


def test_a_report_says_a_thing_once() -> None:
    verdict = Verdict(Status.FAIL, "y is off by 3", detail=("y is off", "more"), subject="m")
    assert verdict.report() == "m: fail: y is off by 3\n  more"
    assert replace(verdict, reason="it is off").report() == (
        "m: fail: it is off\n  y is off\n  more"
    )
    noted = replace(result_of(notes=("a note",)), accuracy=None)
    assert verdict_of(noted).report() == "net-original-cpu: pass\n  note: a note"


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (3, None),
        ([1, 2], {"a": 1, "b": 2}),
        ((1, 2), {"a": 1, "b": 2}),
        ([1], None),
        ([1, 2, 3], None),
        ({"b": 2}, {"b": 2}),
        ({}, None),
        ({"a": 1, "c": 2}, None),
    ],
)
def test_what_a_callable_gives_is_held_to_the_outputs_by_name(
    returned: Any, expected: dict[str, int] | None
) -> None:
    if expected is None:
        with pytest.raises(InputError, match="the callable gave"):
            verification._by_name(returned, ["a", "b"])
        return
    by_name = verification._by_name(returned, ["a", "b"])
    assert {name: value.item() for name, value in by_name.items()} == expected


def test_a_group_that_has_a_variant_of_its_name_means_that() -> None:
    runner: Any = Runner()
    assert verification._one_variant("fp16", runner) == parse_variant("fp16")
    with pytest.raises(UsageError, match="'default' is a group of variants; name one"):
        verification._one_variant("default", runner)


def test_golden_outputs_take_the_place_of_those_that_were_there(tmp_path: Path) -> None:
    golden, made = tmp_path / "golden", tmp_path / "made"
    for number in range(3):
        (golden / f"test_data_set_{number}").mkdir(parents=True)
    (golden / "notes.txt").write_text("of somebody")

    def writes(_: object, folder: Path) -> int:
        (folder / "test_data_set_0").mkdir(parents=True)
        (folder / "test_data_set_0" / "output_0.pb").write_bytes(b"new")
        return 1

    runner: Any = Runner({given_outputs.write_snapshot: writes})
    runner.given = made
    pair: Any = None
    assert verification._write_snapshot(pair, runner, golden) == 1
    files = sorted(str(file.relative_to(golden)) for file in golden.rglob("*"))
    assert files == ["notes.txt", "test_data_set_0", "test_data_set_0/output_0.pb"]


@pytest.mark.parametrize("as_reference", [False, True])
def test_a_callable_gets_the_inputs_in_the_models_order(
    tmp_path: Path, as_reference: bool
) -> None:
    compared: list[Any] = []
    outcome = PairOutcome(a=SimpleNamespace(sha256="ab"))  # type: ignore[arg-type]

    def compares(pair: Any, outputs: Any) -> Any:
        compared.append((pair.float16_io, pair.provider, outputs))
        return outcome

    runner: Any = Runner(
        {
            given_outputs.usual_inputs: [{"z": 1, "a": 2}, {"z": 3, "a": 4}],
            given_outputs.output_names: ["y"],
            given_outputs.compare_with_outputs: compares,
        }
    )
    counterpart = {
        "reference" if as_reference else "candidate": lambda z, a: np.array(10 * z + a)
    }
    path = save(linear(), tmp_path / "net.onnx")
    question = Question(path, float16_io=True, **counterpart)  # type: ignore[arg-type]
    result = verification.answer(question, runner)
    [(float16_io, provider, outputs)] = compared
    assert (float16_io, provider) == (True, "cpu")
    assert [each["y"].item() for each in outputs] == [12, 34]
    assert (result.variant, result.model_sha256) == (*counterpart, "ab")
    assert result.status is Status.PASS


def test_a_provider_that_cant_be_used_is_refused_before_anything_runs() -> None:
    runner: Any = Runner()
    runner.probe = lambda name: Availability(
        name, usable=False, reason="no such device", mend=None
    )
    with pytest.raises(ProviderError, match="no such device"):
        verification.answer(Question("net.onnx", provider="openvino"), runner)


@pytest.mark.parametrize("as_reference", [False, True])
def test_what_is_right_is_named_by_the_word_it_is_given_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_reference: bool
) -> None:
    pairs: list[Any] = []

    def compares(pair: Any) -> PairOutcome:
        pairs.append((pair.a.name, pair.b.name))
        return PairOutcome(reason="it is off")

    monkeypatch.setattr(verification, "compare_pair", compares)
    model, other = (save(linear(), tmp_path / f"{name}.onnx") for name in ("model", "other"))
    runner: Any = Runner()
    word = "reference" if as_reference else "candidate"
    question = Question(model, **{word: other})  # type: ignore[arg-type]
    result = verification.answer(question, runner)
    names = ("model.onnx", "other.onnx")
    assert pairs == [names[::-1] if as_reference else names]
    assert (result.variant, result.status) == (word, Status.FAIL)
