"""Planted faults: each is caught, by the check that is there for it, and by no other.

A test that only asks whether a fault is caught would still pass if its check were dead and another
happened to notice. So each fault is compared twice: as it is, and with its check taken out, when
nothing else may notice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnx_harness.accuracy.compare as subject
from onnx_harness.accuracy.explain import Yardstick
from onnx_harness.accuracy.noise import Noise, gap_of
from onnx_harness.accuracy.tolerance import choose
from onnx_harness.cards.card import ToleranceSpec
from onnx_harness.transforms import Precision
from tests import comparing

Outputs = dict[str, Any]
RNG = np.random.default_rng(7)
EIGHTHS = (RNG.integers(-40, 40, (4, 8)) / 8).astype(np.float32)  # exact in float16
X = RNG.standard_normal((4, 8)).astype(np.float32)
WEIGHT = RNG.standard_normal((8, 6)).astype(np.float32)
BIAS = RNG.standard_normal(6).astype(np.float32)


def layer(weight: Any = WEIGHT, bias: Any = BIAS) -> Any:
    return np.maximum(X @ weight + bias, np.float32(0))


def healthy() -> Outputs:
    mask = np.array([-np.inf, 0.0, 1.0], np.float32)
    return {"y": layer(), "mask": mask, "label": np.array([3, 1]), "word": np.array(["a", "b"], object),
            "probs": [{"cat": 0.25, "dog": 0.75}], "boxes": [EIGHTHS, EIGHTHS[:2]]}  # fmt: skip


def with_output(**changed: Any) -> Outputs:
    return {**healthy(), **changed}


def wrong_weight() -> Outputs:
    weight = WEIGHT.copy()
    weight[2, 3] *= 1.05
    return with_output(y=layer(weight))


def without(name: str) -> Outputs:
    return {key: value for key, value in healthy().items() if key != name}


def with_nan() -> Outputs:
    y = layer()
    y[1, 2] = math.nan
    return with_output(y=y)


FAULTS: dict[str, tuple[str, Callable[[], Outputs]]] = {
    "a wrong weight": ("check_elements", wrong_weight),
    "a dropped bias": ("check_elements", lambda: with_output(y=layer(bias=np.float32(0)))),
    "permuted channels": ("check_elements", lambda: with_output(y=np.ascontiguousarray(layer()[:, ::-1]))),
    "a removed Relu": ("check_elements", lambda: with_output(y=X @ WEIGHT + BIAS)),
    "another class": ("check_elements", lambda: with_output(label=np.array([3, 2]))),
    "another word": ("check_elements", lambda: with_output(word=np.array(["a", "c"], object))),
    "another score in a "
    "map": ("check_elements", lambda: with_output(probs=[{"cat": 0.3, "dog": 0.75}])),
    "a NaN": ("check_nonfinite", with_nan),
    "minus infinity become the lowest float": (
        "check_nonfinite", lambda: with_output(mask=np.array([-3.4028235e38, 0, 1], np.float32)),
    ),
    "infinity with the other sign": (
        "check_nonfinite", lambda: with_output(mask=np.array([np.inf, 0, 1], np.float32)),
    ),
    "a zero with the other sign": (
        "check_signed_zero", lambda: with_output(mask=np.array([-np.inf, -0.0, 1], np.float32)),
    ),
    "another shape": ("check_shape", lambda: with_output(y=layer().reshape(6, 4))),
    "a squeezed dimension": ("check_shape", lambda: with_output(y=layer().reshape(1, 4, 6))),
    "a shorter output": ("check_shape", lambda: with_output(y=layer()[:3])),
    "another dtype": ("check_dtype", lambda: with_output(y=layer().astype(np.float64))),
    "float16 nobody asked "
    "for": ("check_dtype", lambda: with_output(boxes=[EIGHTHS.astype(np.float16), EIGHTHS[:2]])),
    "a missing output": ("check_names", lambda: without("label")),
    "a new output": ("check_names", lambda: with_output(more=X)),
    "a renamed output": ("check_names", lambda: {**without("label"), "label_2": healthy()["label"]}),
    "a tensor for a sequence": ("check_kind", lambda: with_output(boxes=EIGHTHS)),
    "nothing for a tensor": ("check_kind", lambda: with_output(y=None)),
    "a shorter sequence": ("check_length", lambda: with_output(boxes=[EIGHTHS])),
    "another key": ("check_length", lambda: with_output(probs=[{"cat": 0.25, "wolf": 0.75}])),
}  # fmt: skip


def compare(candidate: Outputs, precision: Precision = Precision.FP32) -> subject.Comparison:
    tolerance = choose(precision, None, None)
    sets = [healthy(), candidate]
    return comparing.compare(
        [healthy()] * 2, sets, lambda _: tolerance, set_names=["the first", "the second"]
    )


def take_out(monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    monkeypatch.setattr(
        subject, check, lambda *_, **__: [] if check == "check_names" else None
    )


def test_nothing_is_found_where_nothing_is_planted() -> None:
    assert compare(healthy()).passed


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_where_it_is(fault: str) -> None:
    comparison = compare(FAULTS[fault][1]())
    assert not comparison.passed
    assert {failure.input_set for failure in comparison.failures} == {
        "input set 2 of 2 (the second)"
    }


@pytest.mark.parametrize("fault", FAULTS)
def test_without_its_check_a_planted_fault_goes_unseen(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, plant = FAULTS[fault]
    candidate = plant()
    if fault == "a shorter output":
        # Unequal sizes can't be paired, so without the check there's nothing left to measure.
        assert candidate["y"].size != healthy()["y"].size
    take_out(monkeypatch, check)
    assert compare(candidate).passed


def test_noise_beyond_what_was_asked_is_caught_by_its_check_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    candidate = with_output(y=layer(WEIGHT + np.float32(0.5)))
    assert [failure.check for failure in compare(candidate, Precision.INT8).failures] == [
        "sqnr"
    ]
    take_out(monkeypatch, "check_sqnr")
    assert compare(candidate, Precision.INT8).passed


TASK_BOUNDS: dict[str, tuple[str, ToleranceSpec]] = {
    "another direction": ("check_cosine", ToleranceSpec(cosine=0.9999)),
    "another class in a row": ("check_agreement", ToleranceSpec(top_k=1)),
}


@pytest.mark.parametrize("fault", TASK_BOUNDS)
def test_a_tasks_own_bound_is_caught_by_its_check_alone(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, spec = TASK_BOUNDS[fault]
    tolerance = choose(Precision.FP32, spec, None)

    def compared(y: Any) -> subject.Comparison:
        return comparing.compare(
            [{"y": layer()}], [{"y": y}], lambda _: tolerance, set_names=["one"]
        )

    assert compared(layer() * np.float32(1.5)).passed, "neither asks for a scale"
    changed = np.ascontiguousarray(layer()[:, ::-1])
    assert [f"check_{failure.check}" for failure in compared(changed).failures] == [check]
    assert any("would pass with" in line for line in compared(changed).lines())
    take_out(monkeypatch, check)
    assert compared(changed).passed


def test_a_change_within_the_tolerance_is_caught_where_noise_does_not_explain_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    y = layer()
    moved = y * np.float32(
        1 + 5e-5
    )  # half of the default rtol, hundreds of units in the last place
    tolerance = choose(Precision.FP32, None, None)

    def compared(yardstick: Yardstick | None) -> subject.Comparison:
        return comparing.compare(
            [{"y": y}],
            [{"y": moved}],
            lambda _: tolerance,
            set_names=["one"],
            yardstick=yardstick,
        )

    assert compared(None).passed
    quiet = Yardstick(Noise(({"y": gap_of(y, np.nextafter(y, np.float32(9)))},)))
    comparison = compared(quiet)
    assert [failure.check for failure in comparison.failures] == ["faithful"]
    assert (comparison.faithful, comparison.usable) == (False, True)
    take_out(monkeypatch, "check_faithful")
    assert compared(quiet).passed


def test_another_choice_within_every_bound_is_caught_by_its_check_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = np.tile(np.array([0.5 + 2e-3, 0.5 - 2e-3], np.float32), (200, 1))
    swapped = scores.copy()
    swapped[:4] = scores[:4, ::-1]  # 2% of rows, by less than float16's bound
    tolerance = choose(Precision.FP16, None, None)
    ideal = Noise(({"y": gap_of(scores, scores + np.float32(5e-4))},))
    yardstick = Yardstick(ideal, ideal, ideal, "float16")

    def compared(y: Any) -> subject.Comparison:
        return comparing.compare(
            [{"y": scores}],
            [{"y": y}],
            lambda _: tolerance,
            set_names=["one"],
            yardstick=yardstick,
        )

    assert [failure.check for failure in compared(swapped).failures] == ["agreement"]
    assert "chooses otherwise along axis 1 in 4 of 200 rows" in str(
        compared(swapped).reason()
    )
    assert compared(np.concatenate([swapped[2:], scores[:2]])).passed, "1% of rows may"
    take_out(monkeypatch, "check_choices")
    assert compared(swapped).passed


def test_every_check_has_a_fault_that_only_it_catches() -> None:
    checks = {name for name in vars(subject) if name.startswith("check_")}
    bounds = {check for check, _ in TASK_BOUNDS.values()}
    assert {check for check, _ in FAULTS.values()} | bounds | {
        "check_sqnr",
        "check_faithful",
        "check_choices",
    } == checks


@pytest.mark.parametrize("share", [1.0, 1.0001])
def test_the_default_tolerance_is_neither_looser_nor_tighter_than_it_says(
    share: float,
) -> None:
    y = layer().astype(np.float64)
    at = np.unravel_index(np.argmax(np.abs(y)), y.shape)
    candidate = y.copy()
    candidate[at] -= share * 0.999999 * (1e-4 + 1e-5) * abs(y[at])
    tolerance = choose(Precision.FP32, None, None)
    comparison = comparing.compare(
        [{"y": y}], [{"y": candidate}], lambda _: tolerance, set_names=["one"]
    )
    assert comparison.passed == (share == 1.0)
