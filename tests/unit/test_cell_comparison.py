"""Two models, or a model and outputs from elsewhere, compared without a worker."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.cell import comparison as room
from onnx_harness.cell import given_outputs
from onnx_harness.cell.comparison import (
    RUNNING_B,
    Pair,
    compare_models,
    excuse_for,
    is_emulated,
    pair_reference,
    pair_standard,
)
from onnx_harness.cell.given_outputs import (
    compare_with_outputs,
    compare_with_snapshot,
    output_names,
    usual_inputs,
    write_snapshot,
)
from onnx_harness.cell.matrix import card_for
from onnx_harness.cell.state import RunNote
from onnx_harness.errors import InputError, ModelError
from onnx_harness.judging.rounding import Clamp
from onnx_harness.model.file import Model
from onnx_harness.providers import get
from onnx_harness.providers.running import run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.workbench import workbench
from onnx_harness.settings import Settings
from onnx_harness.transforms import Precision
from onnx_harness.transforms.float16 import MAX_FINITE_VAL, MIN_POSITIVE_VAL
from tests.models import linear, model, save

SETTINGS = Settings(input_sets=2)
TWO = "(float[n,4] x, float[n,4] z) => (float[n,4] y, float[n,4] w) { y = Neg(x) w = Add(x, z) }"


def pair(
    folder: Path, a: onnx.ModelProto, b: onnx.ModelProto | None = None, **more: Any
) -> Pair:
    path = save(a, folder / "a.onnx")
    other = save(b or a, folder / "b.onnx")
    made = Pair(
        path, other, card_for(path), "cpu", None, float16_io=False, settings=SETTINGS
    )
    return replace(made, **more)


def shifted(by: float) -> onnx.ModelProto:
    made = linear()
    [b] = [tensor for tensor in made.graph.initializer if tensor.name == "b"]
    b.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(b) + np.float32(by), "b"))
    return made


def test_a_copy_computes_the_same_and_both_sides_are_described(tmp_path: Path) -> None:
    asked = pair(tmp_path, linear())
    outcome = compare_models(asked)
    assert (outcome.reason, outcome.interface, outcome.failures, outcome.lines) == (
        None,
        (),
        (),
        (),
    )
    assert outcome.a is not None
    assert outcome.b is not None
    read = Model(asked.a)
    assert (outcome.a.path.name, outcome.b.path.name) == ("a.onnx", "b.onnx")
    for side in (outcome.a, outcome.b):
        assert (side.sha256, side.bytes, side.opset) == (read.sha256, read.size_bytes, 17)
    assert (outcome.precision, outcome.emulated) == (Precision.FP32, False)
    assert len(outcome.input_sets) > outcome.unusual_sets > 0
    # Two usual ones, one of many rows.
    assert len(outcome.input_sets) - outcome.unusual_sets == 3
    assert outcome.placement is not None
    assert outcome.placement.share == 1.0
    assert outcome.accuracy is not None
    assert list(outcome.accuracy.outputs) == ["y"]
    assert outcome.accuracy.input_sets == len(outcome.input_sets)
    assert asked.files == (asked.a, asked.b, asked.card.path)
    assert replace(asked, recorded=tmp_path).files[3:] == (tmp_path,)
    libraries = (tmp_path / "one.so",), (tmp_path / "two.so",)
    card = replace(asked.card, custom_ops=libraries[0])
    settings = replace(SETTINGS, custom_ops=libraries[1])
    assert (
        replace(asked, card=card, settings=settings).custom_ops
        == libraries[0] + libraries[1]
    )


def test_a_model_that_departs_is_told_with_its_lines(tmp_path: Path) -> None:
    outcome = compare_models(pair(tmp_path, linear(), shifted(0.1)))
    assert str(outcome.reason).startswith("not faithful: output y departs")
    assert {failure.output for failure in outcome.failures} == {"y"}
    assert outcome.lines
    assert outcome.accuracy is not None
    close = pair(tmp_path, linear(), shifted(3e-7))
    assert compare_models(close).reason is None
    strict = replace(SETTINGS, rtol=0.0, atol=1e-12)
    assert compare_models(replace(close, settings=strict)).reason is not None


NEG = "(float[n,4] x) => (float[n,4] y) { y = Neg(x) }"


@pytest.mark.parametrize(
    ("b", "reason"),
    [
        (NEG.replace("x", "u"), r"B doesn't take what A takes, so it wasn't run: input"),
        (NEG.replace("y", "u"), r"u"),
        (
            NEG.replace("Neg", "NoSuchOperator"),
            r"B can't be opened on cpu: \S.*NoSuchOperator",
        ),
        (
            "(float[n,4] x) => (float[n,4] y) { i = Constant<value = int64[1] {99}>() "
            "g = Gather<axis = 1>(x, i) s = Sub(g, g) n = Neg(x) y = Add(n, s) }",
            r"^B doesn't run on A's inputs: \S.*",
        ),
    ],
)
def test_what_keeps_b_from_being_compared_is_the_reason(
    tmp_path: Path, b: str, reason: str
) -> None:
    outcome = compare_models(pair(tmp_path, model(NEG), model(b)))
    assert outcome.a is not None
    assert re.search(reason, str(outcome.reason))


def test_another_shape_of_the_output_is_a_difference_that_is_said(tmp_path: Path) -> None:
    b = model("(float[n,4] x) => (float[n,k] y) { y = Neg(x) }")
    outcome = compare_models(pair(tmp_path, model(NEG), b))
    assert len(outcome.interface) == (outcome.reason is not None)
    if outcome.interface:
        assert outcome.reason == f"the interface differs: {outcome.interface[0]}"


HALF = "(float[n,4] x) => (float[n,4] y) { h = Cast<to = 10>(x) s = Mul(h, h) y = Cast<to = 1>(s) }"
HALF_IO = "(float16[n,4] x) => (float16[n,4] y) { y = Mul(x, x) }"
SQUARE = "(float[n,4] x) => (float[n,4] y) { y = Mul(x, x) }"


def test_float16_is_judged_on_the_usual_sets_and_known_to_be_emulated(
    tmp_path: Path,
) -> None:
    outcome = compare_models(pair(tmp_path, model(SQUARE), model(HALF)))
    assert outcome.reason is None
    assert (outcome.precision, outcome.unusual_sets) == (Precision.FP16, 0)
    assert outcome.emulated
    asked = pair(tmp_path, model(SQUARE), model(HALF_IO))
    refused = compare_models(asked)
    assert str(refused.reason).startswith("B doesn't take what A takes")
    allowed = compare_models(replace(asked, float16_io=True))
    assert (allowed.reason, allowed.interface) == (None, ())


def test_float16_that_both_have_is_no_arithmetic_beyond_a(tmp_path: Path) -> None:
    outcome = compare_models(pair(tmp_path, model(HALF)))
    assert (outcome.reason, outcome.precision) == (None, Precision.FP32)
    assert outcome.emulated
    assert outcome.unusual_sets > 0


DRAWN = "(float[n,4] x) => (float[n,4] y) { y = RandomNormalLike(x) }"
HALF_DRAWN = (
    "(float[n,4] x) => (float[n,4] y, float[n,4] z) { y = RandomNormalLike(x) z = Neg(x) }"
)
STILL = "(float[n,4] x) => (float[n,4] y, float[n,4] z) { y = Mul(x, x) z = Neg(x) }"


@pytest.mark.parametrize("most", [10**9, 0])
def test_what_is_drawn_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    with pytest.raises(ModelError, match="there is nothing to compare: "):
        compare_models(pair(tmp_path, model(DRAWN)))
    monkeypatch.setattr(room, "MOST_BYTES", most)
    opened: list[Any] = []
    opens = open_session

    def spy(*words: Any, **more: Any) -> Any:
        opened.append(more.get("config"))
        return opens(*words, **more)

    monkeypatch.setattr(room, "open_session", spy)
    assert compare_models(pair(tmp_path, model(HALF_DRAWN))).reason is None
    again = len(opened)
    assert (again > 1) == (most == 0)
    made_constant = compare_models(pair(tmp_path, model(HALF_DRAWN), model(STILL)))
    assert str(made_constant.reason).startswith(
        "drawn at random by the untouched model, and the"
    )
    assert (made_constant.accuracy, made_constant.failures) == (None, ())


def test_what_the_worker_is_at_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[str] = []
    bounded: list[tuple[Any, ...]] = []
    monkeypatch.setattr(room, "note_stage", stages.append)
    monkeypatch.setattr(
        room,
        "check_bounds",
        lambda path, memory, trusted: bounded.append((path, memory, trusted)),
    )
    noted: list[str] = []

    class Noting:
        def __init__(self, words: str) -> None:
            noted.append(words)

        __enter__ = __exit__ = lambda *_: None

    monkeypatch.setattr(room, "noting", Noting)
    settings = replace(SETTINGS, trust_models=True, cell_memory=12345)
    asked = pair(tmp_path, linear(), settings=settings)
    whole = compare_models(asked)
    assert stages == ["reading", "running A", RUNNING_B, "measuring A's noise"]
    assert bounded == [(path, 12345, True) for path in (asked.a, asked.b)]
    notes = [RunNote.read(words) for words in noted]
    assert [note and (note.place, note.name) for note in notes] == list(
        enumerate(whole.input_sets)
    )
    assert sum(bool(note and note.unusual) for note in notes) == whole.unusual_sets
    noted.clear()
    last = len(whole.input_sets) - 2
    skipping = compare_models(replace(asked, skipped=(last,)))
    assert len(skipping.input_sets) == len(whole.input_sets) - 1
    places = [note and note.place for note in map(RunNote.read, noted)]
    assert places == [place for place in range(last + 2) if place != last]


def test_a_shortfall_of_placement_is_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def short(placed: Any, provider: Any, least: Any) -> str:
        asked.append((placed.share, provider.name, least))
        return "too little"

    monkeypatch.setattr(room, "shortfall", short)
    settings = replace(SETTINGS, min_placement=0.5)
    outcome = compare_models(pair(tmp_path, linear(), settings=settings))
    assert outcome.reason == "B doesn't run where it was asked to: too little"
    assert asked == [(1.0, "cpu", 0.5)]
    assert outcome.placement is not None
    missing = compare_models(pair(tmp_path, linear(), provider="cuda"))
    assert str(missing.reason).startswith("B can't be opened on cuda: ")


@pytest.mark.parametrize(
    ("arithmetic", "float16_io", "kind", "clamp"),
    [
        (Precision.FP32, False, None, None),
        (Precision.INT8, False, None, None),
        (Precision.FP16, True, "float16", Clamp(MIN_POSITIVE_VAL, MAX_FINITE_VAL)),
        (Precision.BF16, False, "bfloat16", None),
    ],
)
def test_b_is_held_to_the_documented_conversion_of_its_arithmetic(
    tmp_path: Path,
    arithmetic: Precision,
    float16_io: bool,
    kind: str | None,
    clamp: Clamp | None,
) -> None:
    asked = pair(
        tmp_path,
        linear(),
        float16_io=float16_io,
        settings=replace(SETTINGS, rtol=0.1, atol=0.2),
    )
    read = Model(asked.a)
    answers = pair_reference(asked, read)
    standard = pair_standard(asked, read, answers, arithmetic)
    assert standard.model is read
    assert standard.reference is answers
    assert (standard.card, standard.precision) == (asked.card, arithmetic)
    assert standard.float_io == ("float16" if float16_io else None)
    assert (standard.provider, standard.exact) == ("cpu", False)
    assert standard.override == asked.settings.tolerance_override
    assert standard.kept is workbench().cache
    assert standard.explained is (arithmetic is not Precision.INT8)
    conversion = standard.conversion
    assert (conversion and conversion.type) == kind
    if conversion is not None:
        assert (conversion.clamp, conversion.all_inputs) == (clamp, float16_io)


def test_a_run_is_emulated_where_its_profile_says_so(tmp_path: Path) -> None:
    path = save(model(HALF), tmp_path / "h.onnx")
    for profile, half, emulated in (
        (tmp_path / "p", True, True),
        (tmp_path / "q", False, False),
        (None, True, False),
    ):
        session = open_session(path, get("cpu"), purpose=Purpose.ACCURACY, profile=profile)
        run(session, {"x": np.ones((1, 4), np.float32)})
        assert is_emulated(session, get("cpu"), half=half) is emulated


def test_a_death_on_an_unusual_set_is_excused_by_a_narrower_type_or_by_a_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = pair(tmp_path, model(SQUARE), model(HALF))
    assert excuse_for(half, 0) == "a narrower type needn't be usable on unusual inputs"
    plain = pair(tmp_path, model(SQUARE))
    fed: list[Any] = []
    monkeypatch.setattr(room, "run", lambda session, values: fed.append((session, values)))
    assert excuse_for(plain, 3) == ""
    [(session, values)] = fed
    assert session.get_providers() == ["CPUExecutionProvider"]
    expected = pair_reference(plain, Model(plain.a)).sets[3].values
    np.testing.assert_array_equal(values["x"], expected["x"])


def test_an_error_of_a_says_that_it_is_a_s(tmp_path: Path) -> None:
    broken = model(NEG.replace("Neg", "NoSuchOperator"))
    asked = pair(tmp_path, broken)
    with pytest.raises(ModelError, match=r"^A \(a\.onnx\): .*NoSuchOperator"):
        pair_reference(asked, Model(asked.a))
    fine = pair(tmp_path, model(NEG), recorded=tmp_path / "m.npz")
    np.savez(tmp_path / "m.npz", q=np.ones(3, np.float32))
    with pytest.raises(InputError, match=r"^A \(a\.onnx\): "):
        pair_reference(fine, Model(fine.a))
    gather = model(
        "(float[n,4] x, int64[1] i) => (float[n,1] y) { y = Gather<axis = 1>(x, i) }"
    )
    lost = pair(tmp_path, gather, recorded=tmp_path / "m.npz")
    np.savez(tmp_path / "m.npz", x=np.ones((2, 4), np.float32), i=np.array([99]))
    with pytest.raises(ModelError, match=r"^A \(a\.onnx\) doesn't run itself: \S.*"):
        pair_reference(lost, Model(lost.a))


def test_both_are_called_by_their_letters(tmp_path: Path) -> None:
    asked = pair(tmp_path, linear(), shifted(1.0))
    asked = replace(asked, a=save(linear(), tmp_path / "one.onnx"), b=asked.a)
    first, second = room._models(asked)
    assert [(each.path, each.name) for each in (first, second)] == [
        (asked.a, "a"),
        (asked.b, "b"),
    ]


@pytest.mark.parametrize(
    ("b", "loops", "profiled"),
    [(NEG, False, True), (NEG, True, False), (HALF, True, True), (HALF, False, True)],
)
def test_a_loop_is_profiled_where_float16_has_to_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, b: str, loops: bool, profiled: bool
) -> None:
    opened: list[dict[str, Any]] = []

    def opens(*words: Any, **more: Any) -> Any:
        opened.append({**more, "provider": words[1].name})
        return open_session(*words, **more)

    monkeypatch.setattr(room, "open_session", opens)
    monkeypatch.setattr(room, "has_loops", lambda _: loops)
    compare_models(pair(tmp_path, model(NEG), model(b)))
    [more] = opened
    assert (more["profile"] is not None) is profiled
    assert (more["purpose"], more["provider"]) == (Purpose.ACCURACY, "cpu")


def test_recorded_inputs_are_what_both_are_run_on(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", x=np.full((3, 4), 7, np.float32))
    asked = pair(tmp_path, model(NEG), recorded=tmp_path / "m.npz")
    outcome = compare_models(asked)
    assert (outcome.reason, len(outcome.input_sets), outcome.unusual_sets) == (None, 1, 0)
    [values] = usual_inputs(asked)
    assert values["x"].tolist() == [[7.0] * 4] * 3


# outputs from elsewhere


def test_inputs_and_outputs_are_named_in_the_graph_s_order(tmp_path: Path) -> None:
    asked = pair(tmp_path, model(TWO))
    sets = usual_inputs(asked)
    assert [list(values) for values in sets] == [["x", "z"]] * 2
    assert output_names(asked.a) == ["y", "w"]


def right(values: dict[str, Any]) -> dict[str, Any]:
    return {"y": -values["x"], "w": values["x"] + values["z"]}


@pytest.mark.parametrize("provider", ["cpu", "copy"])
def test_outputs_of_a_framework_are_held_against_the_model_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    asked = pair(tmp_path, model(TWO), provider=provider)
    levels: list[str] = []
    opens = open_session

    def spy(path: Path, provider: Any, **more: Any) -> Any:
        levels.append(more["level"])
        return opens(path, provider, **more)

    monkeypatch.setattr(given_outputs, "open_session", spy)
    monkeypatch.setattr(
        given_outputs,
        "providers",
        SimpleNamespace(get=lambda name: get("cpu") if name else None),
    )
    sets = usual_inputs(asked)
    same = compare_with_outputs(asked, [right(values) for values in sets])
    assert (same.reason, same.failures, same.lines) == (None, (), ())
    assert len(same.input_sets) == 2
    assert same.accuracy is not None
    assert set(same.accuracy.outputs) == {"y", "w"}
    answers = replace(pair_reference(asked, Model(asked.a)), notes=("a note",))
    assert same.notes == ()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(given_outputs, "pair_reference", lambda *_: answers)
        noted = compare_with_outputs(asked, [right(values) for values in sets])
        assert (noted.reason, noted.notes) == (None, ("a note",))
    wrong = [right(values) for values in sets]
    wrong[1]["w"] = wrong[1]["w"] + 1
    other = compare_with_outputs(asked, wrong)
    assert str(other.reason).startswith("output w: ")
    assert [failure.output for failure in other.failures] == ["w"]
    assert other.lines
    with pytest.raises(InputError, match="there is nothing to compare"):
        compare_with_outputs(asked, [{} for _ in sets])
    assert levels == ([] if provider == "cpu" else ["all"] * 4)


def test_a_snapshot_is_what_the_model_computes_now_and_is_held_against_it(
    tmp_path: Path,
) -> None:
    asked = pair(tmp_path, model(TWO))
    folder = tmp_path / "deep" / "golden"
    assert write_snapshot(asked, folder) == 2
    stale = folder / "test_data_set_9"
    stale.mkdir()
    (stale / "input_0.pb").write_bytes(b"")
    assert write_snapshot(asked, folder) == 2
    names = ["input_0.pb", "input_1.pb", "output_0.pb", "output_1.pb"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "test_data_set_0",
        "test_data_set_1",
    ]
    for number, values in enumerate(usual_inputs(asked)):
        files = folder / f"test_data_set_{number}"
        assert sorted(path.name for path in files.iterdir()) == names
        read = [onnx.load_tensor(files / name) for name in names]
        assert [tensor.name for tensor in read] == ["x", "z", "y", "w"]
        arrays = [values["x"], values["z"], *right(values).values()]
        for tensor, array in zip(read, arrays, strict=True):
            np.testing.assert_array_equal(numpy_helper.to_array(tensor), array)
    same = compare_with_snapshot(asked, folder)
    assert (same.reason, len(same.input_sets), same.lines) == (None, 2, ())
    assert same.accuracy is not None
    golden = folder / "test_data_set_1" / "output_1.pb"
    tensor = onnx.load_tensor(golden)
    moved = numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, "w")
    golden.write_bytes(moved.SerializeToString())
    changed = compare_with_snapshot(asked, folder)
    assert str(changed.reason).startswith(
        "the golden outputs (got) aren't what the model computes now (reference): not faithful: output w "
    )
    assert changed.lines
    near = numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(1e-7), "w")
    golden.write_bytes(near.SerializeToString())
    assert compare_with_snapshot(asked, folder).reason is None
    strict = replace(SETTINGS, rtol=0.0, atol=1e-12)
    assert compare_with_snapshot(replace(asked, settings=strict), folder).reason is not None
    with pytest.raises(InputError):
        compare_with_snapshot(pair(tmp_path, model(NEG)), folder)


def test_a_value_is_written_as_what_it_is(tmp_path: Path) -> None:
    tensors = [np.ones(2, np.float32), np.zeros(3, np.float32)]
    for value in (tensors, np.float32(2.5)):
        message = given_outputs._message(value, "name")
        assert message.name == "name"
        if isinstance(message, onnx.TensorProto):
            assert numpy_helper.to_array(message).tolist() == 2.5
        else:
            got = numpy_helper.to_list(message)
            assert [array.tolist() for array in got] == [array.tolist() for array in tensors]
    given_outputs._write(
        tmp_path, "output", ["a", "gone", "b"], {"b": tensors[0], "a": tensors[1]}
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output_0.pb", "output_2.pb"]
