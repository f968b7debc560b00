"""What a verdict says of itself, what it is held to, and the one judge that every door asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.accuracy.compare import Comparison
from onnx_harness.accuracy.failures import Check
from onnx_harness.cards.card import ToleranceSpec
from onnx_harness.judging import verdict as room
from onnx_harness.judging.judge import judge_outputs
from onnx_harness.judging.standard import Standard, standard, tolerances
from onnx_harness.judging.verdict import Verdict, session_config
from onnx_harness.model.file import Model
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import Status, Symptom
from onnx_harness.settings import Settings
from onnx_harness.transforms import Precision
from onnx_harness.transforms.variant import bind_variant
from tests.models import model, save
from tests.unit.test_judging_verdict import NEG, failing, held_to, said


@pytest.mark.parametrize(
    ("symptom", "comparison", "of_values"),
    [
        (Symptom.WRONG_VALUES, None, True),
        (Symptom.VACUOUS, said(failing()), False),
        (Symptom.CHANGED_TYPES, None, False),
        (Symptom.CHANGED_TYPES, said(failing(Check.SHAPE)), True),
        (Symptom.CHANGED_TYPES, said(failing(Check.DTYPE)), False),
        (None, said(failing(Check.SHAPE)), False),
    ],
)
def test_a_verdict_is_of_values_where_what_was_computed_is_wrong(
    symptom: Symptom | None, comparison: Comparison | None, of_values: bool
) -> None:
    assert Verdict(Status.FAIL, comparison, symptom=symptom).of_values is of_values


def test_a_verdict_points_at_the_sets_where_outputs_are_worst() -> None:
    comparison = said(failing(at=4), failing(at=None), failing(at=1), failing(at=4))
    assert Verdict(Status.FAIL, comparison).worst_sets == (1, 4)
    assert Verdict(Status.FAIL, comparison, failing=(3, 2)).worst_sets == (3, 2)
    assert Verdict(Status.FAIL).worst_sets == Verdict(Status.PASS, said()).worst_sets == ()
    assert [Verdict(status).passed for status in (Status.PASS, Status.FAIL)] == [True, False]


@pytest.mark.parametrize(
    ("variant", "config"), [("simplify", {"a": "1"}), ("int8.dynamic", {})]
)
def test_a_variant_that_quantizes_answers_for_its_own_kernels(
    variant: str, config: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def sums(*words: Any) -> Mapping[str, str]:
        asked.append(words)
        return {"a": "1"}

    monkeypatch.setattr(room, "exact_sums", sums)
    subject = held_to(tmp_path).model
    candidate = model(NEG)
    found = session_config(subject, bind_variant(parse_variant(variant)), candidate)
    assert found == config
    assert asked == ([(subject.skeleton, candidate)] if config else [])


# what it's held to


@pytest.mark.parametrize(
    ("suite", "variant", "exact"),
    [("onnx", "simplify", True), ("", "simplify", False), ("onnx", "fp16.io32", False)],
)
def test_a_standard_is_what_the_variant_the_card_and_the_settings_say(
    suite: str, variant: str, exact: bool, tmp_path: Path
) -> None:
    held = held_to(tmp_path)
    card = replace(held.card, suite=suite)
    bound = replace(bind_variant(parse_variant(variant)), level="basic", float_io="float16")
    settings = Settings(rtol=0.5, atol=0.25)
    found = standard(held.model, held.reference, card, bound, "webgpu", settings, held.kept)
    half = variant != "simplify"
    assert found == Standard(
        held.model,
        held.reference,
        card,
        Precision.FP16 if half else Precision.FP32,
        found.conversion,
        "float16",
        "webgpu",
        exact,
        (0.5, 0.25),
        held.kept,
        level="basic",
    )
    assert (found.conversion is not None) is half


KINDS = (
    "(float[2] x) => (float[2] y, float16[2] h, float8e4m3fn[2] e, uint8[2] u, int64[1] a) "
    "{ y = Neg(x) h = Cast <to = 10> (x) e = Cast <to = 17> (x) u = Cast <to = 2> (x) "
    "a = ArgMax <axis = -1> (y) }"
)


def test_the_tolerance_of_an_output_hangs_on_its_type_and_on_what_reads_it(
    tmp_path: Path,
) -> None:
    made = model(KINDS, opset=19)
    held = replace(held_to(tmp_path), model=Model(save(made, tmp_path / "k.onnx")))
    bounds = {name: tolerances(held)(name) for name in "yheua"}
    assert [bounds[name].rtol for name in "yheua"] == [1e-4, 1e-2, 1e-2, 1e-4, 1e-4]
    assert [bounds[name].sqnr_db for name in "yheua"] == [None, 40.0, None, None, None]
    assert [bounds[name].axis for name in "yheua"] == [-1, None, None, None, None]
    assert [bounds[name].are_levels for name in "yheua"] == [
        False,
        False,
        False,
        True,
        False,
    ]
    brain = tolerances(replace(held, precision=Precision.BF16))
    assert [brain(name).rtol for name in "yh"] == [8e-2, 8e-2]
    assert [brain(name).sqnr_db for name in "he"] == [25.0, None]
    stated = tolerances(replace(held, override=(0.5, 0.25), exact=True))
    assert [(stated(name).rtol, stated(name).atol) for name in "yhe"] == [(0.5, 0.25)] * 3
    exact = tolerances(replace(held, exact=True))
    assert [exact(name).rtol for name in "yhe"] == [1e-6, 2.0**-10, 2.0**-3]
    assert [exact(name).axis for name in "yh"] == [None, None]
    assert tolerances(held)("unknown").rtol == 1e-4
    carded = replace(held.card, tolerance={"y": ToleranceSpec(rtol=0.25)})
    assert [tolerances(replace(held, card=carded))(name).rtol for name in "yu"] == [
        0.25,
        1e-4,
    ]


# the one judge


@pytest.mark.parametrize("emulated", [True, False])
def test_what_a_provider_emulates_is_judged_by_what_float16_makes_of_it_too(
    emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def judges(*words: Any) -> str:
        asked.append(words)
        return f"verdict {len(asked)}"

    monkeypatch.setattr("onnx_harness.judging.judge.verdict", judges)
    monkeypatch.setattr("onnx_harness.judging.judge.judge_half", judges)
    words: list[Any] = ["standard", ["outputs"], "candidate", dict]
    found: Any = judge_outputs(*words[:3], emulated=emulated, again=words[3])
    assert found == ("verdict 2" if emulated else "verdict 1")
    half = [("standard", "candidate", "verdict 1")] if emulated else []
    assert asked == [("standard", ["outputs"], words[3]), *half]
    judge_outputs(*words[:3], emulated=False)
    assert asked[-1] == ("standard", ["outputs"], None)
