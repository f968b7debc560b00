"""Last bits inside a model: what moves them, by how much, and which models need it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.accuracy.noise import Gap
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging import noise_floor as floor_room
from onnx_harness.judging.inside import Inside
from onnx_harness.judging.last_bits import (
    AMOUNT,
    EDGES,
    NOTHING,
    ONE_UNIT,
    has_steps,
    steps,
    with_last_bits,
)
from onnx_harness.judging.noise_floor import INEXACT, NOT_NOISE, RESTS_ON, noise_floor
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.runs import open_cpu
from onnx_harness.model.file import Model
from onnx_harness.providers.running import run
from onnx_harness.results.cache import Cache
from tests.models import model, save

F = "(float[n,64] x) => (float[n,64] y) "
C = "Constant <value_float = "
QDQ = (
    "(float[n,64] x, float s, uint8 z) => (float[n,64] y) "
    "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Relu(d) }"
)


def quantized(step: float = 0.05) -> onnx.ModelProto:
    """A pair of a quantizer and a dequantizer, the scale a constant."""
    made = model(QDQ)
    del made.graph.input[1:]
    for name, value in (("s", np.float32(step)), ("z", np.uint8(128))):
        made.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    return made


def moved(
    made: onnx.ModelProto, x: Any, amount: Any = ONE_UNIT, edges: Any = ONE_UNIT
) -> Any:
    return run(open_cpu(with_last_bits(made)), {"x": x, AMOUNT: amount, EDGES: edges})["y"]


@pytest.mark.parametrize("opset", [17, 22, 23])
def test_a_constant_moves_by_one_unit_in_its_last_place_and_whole_numbers_stay(
    opset: int,
) -> None:
    made = model(F + "<float[64] w> { y = Add(x, w) }")
    made.opset_import[0].version = opset
    values = np.linspace(-3, 3, 64, dtype=np.float32)
    values[::8] = np.round(values[::8])
    made.graph.initializer.append(numpy_helper.from_array(values, "w"))
    y = moved(made, np.zeros((1, 64), np.float32))[0]
    units = np.abs(y - values) / np.spacing(np.abs(values))
    whole = values == np.round(values)
    assert np.all(units[whole] == 0)
    assert np.all(units[~whole] == 1)
    up = np.sign(y - values)[~whole] > 0
    assert 0.2 < up.mean() < 0.8


def test_a_constant_that_is_listed_as_an_input_moves_and_an_input_stays() -> None:
    made = model(F + "<float[64] w> { y = Add(x, w) }")
    values = np.linspace(0.1, 2.9, 64, dtype=np.float32)
    made.graph.initializer.append(numpy_helper.from_array(values, "w"))
    made.graph.input.append(
        onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [64])
    )
    assert np.all(moved(made, np.zeros((1, 64), np.float32))[0] != values)


def test_a_float16_moves_by_a_unit_of_its_own() -> None:
    made = model(F + "{ h = Cast <to = 10> (x) y = Cast <to = 1> (h) }")
    x = np.linspace(-3, 3, 64, dtype=np.float32)[None]
    x[0, ::8] = np.round(x[0, ::8])
    half = x.astype(np.float16)
    units = np.abs(moved(made, x) - half) / np.spacing(np.abs(half)).astype(np.float32)
    whole = half == np.round(half)
    assert np.all(units[whole] == 0)
    assert np.all((units[~whole] >= 1) & (units[~whole] <= 2))
    np.testing.assert_array_equal(moved(made, x, NOTHING, NOTHING), half)


def test_without_an_amount_nothing_moves() -> None:
    x = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    np.testing.assert_array_equal(
        moved(quantized(), x, NOTHING, NOTHING), run(open_cpu(quantized()), {"x": x})["y"]
    )


def test_what_a_step_function_reads_moves_inside_a_branch_too() -> None:
    made = model(
        "(float[n,64] x, bool c) => (float[n,64] y) { y = If(c) <then_branch = g () => "
        "(float[n,64] u) "
        f"{{ h = {C}0.1> () t = Mul(x, h) u = Floor(t) }}, else_branch = k () => (float[n,64] v) "
        f"{{ v = Neg(x) }}> }}"
    )
    # 30 * 0.1 is 3, or less where the last bit of 0.1 is.
    x = np.full((1, 64), 30.0, np.float32)
    session = open_cpu(with_last_bits(made))
    feeds = {"x": x, "c": np.array(True), AMOUNT: ONE_UNIT, EDGES: ONE_UNIT}
    assert {
        float(value) for _ in range(8) for value in run(session, feeds)["y"].reshape(-1)
    } == {
        2.0,
        3.0,
    }


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("{ y = Relu(x) }", False),
        ("{ y = Round(x) }", True),
        ("{ i = Cast <to = 7> (x) y = Cast <to = 1> (i) }", True),
        (f"{{ k = {C}0.3> () b = Greater(x, k) y = Cast <to = 1> (b) }}", True),
        (
            "{ s = Shape(x) f = Cast <to = 1> (s) i = Cast <to = 7> (f) y = Reshape(x, i) }",
            True,
        ),
        ("{ s = Shape(x) y = Reshape(x, s) }", False),
        ("{ h = Cast <to = 10> (x) y = Cast <to = 1> (h) }", True),
    ],
)
def test_models_with_a_step_function_are_told_from_others(body: str, expected: bool) -> None:
    assert has_steps(model(F + body)) is expected


def test_the_step_of_an_output_is_that_of_its_last_quantizer() -> None:
    assert steps(quantized(0.25)) == {"y": 0.25}
    assert steps(model(F + "{ r = Round(x) y = Relu(r) }")) == {"y": 1.0}
    assert steps(model(F + "{ r = Round(x) y = Exp(r) }")) == {}


def referred(made: onnx.ModelProto, folder: Path, *arrays: Any) -> tuple[Model, Reference]:
    path = save(made, folder / "model.onnx")
    session = open_cpu(path)
    sets = tuple(InputSet(f"set {index}", {"x": x}) for index, x in enumerate(arrays))
    return Model(path), Reference(
        sets, tuple(run(session, each.values) for each in sets), frozenset()
    )


def test_the_floor_of_a_quantizer_counts_steps_and_elements(tmp_path: Path) -> None:
    # Halves of a step: which way they fall hangs on the last bit of the scale.
    x = (np.arange(-32, 32, dtype=np.float32).reshape(1, 64) + np.float32(0.5)) * np.float32(
        0.05
    )
    steady = x + np.float32(0.01)
    floor = noise_floor(
        *referred(quantized(), tmp_path, x, steady), Cache(tmp_path / "cache")
    )
    assert floor.has_tail
    assert floor.steps == {"y": pytest.approx(0.05)}
    flipping, still = (gaps["y"] for gaps in floor.sets)
    assert flipping.greatest == pytest.approx(0.05, rel=1e-3)
    assert 0 < flipping.moved < 64
    assert (still.moved, still.greatest < 1e-5) == (0, True)
    assert any(note.startswith(f"{RESTS_ON} 16 draws") for note in floor.notes)
    assert not any(note.startswith(NOT_NOISE) for note in floor.notes)


@pytest.mark.parametrize(("units", "noise"), [(8, True), (4000, False)])
def test_a_level_that_rounds_a_few_units_further_off_is_noise(
    units: int, noise: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A few units above halves of a step: the last bits of scale and input move none over.
    halves = (np.arange(0, 64, dtype=np.float32).reshape(1, 64) + np.float32(0.5)) * 0.05
    x = (halves * (1 + (units - 5) * 2.0**-23)).astype(np.float32)
    made = referred(quantized(), tmp_path, x)
    path = save(quantized(0.05 * (1 + units * 2.0**-23)), tmp_path / "level.onnx")

    def levels(source: Any, level: str = "disable", *_: Any, **__: Any) -> Any:
        return open_cpu(source if level == "disable" else path)

    monkeypatch.setattr(floor_room, "open_cpu", levels)
    floor = noise_floor(*made, Cache(tmp_path / "cache"))
    assert (floor.sets[0]["y"].moved > 0) == noise
    assert any(note.startswith(NOT_NOISE) for note in floor.notes) != noise


def test_draws_go_on_while_they_show_something_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_, made = referred(quantized(), tmp_path, *[np.zeros((1, 64), np.float32)] * 4)

    def draws(*departures: float) -> int:
        rounds = iter(departures)

        def gaps(*_: Any) -> Any:
            return [(0, {"y": Gap(l2=next(rounds), norm=1.0, size=1)})]

        inside = Inside(model_, made)
        monkeypatch.setattr(inside, "gaps", gaps)
        assert dict(inside.drawn(range(4)))[0]["y"].l2 == max(departures)
        return inside.draws

    assert draws(1e-7, 1e-7) == 8
    assert draws(1e-7, 1e-2, 1e-7, 1e-7) == 16
    assert draws(1e-7, 1e-2, 2e-2, *[1e-7] * 3) == 24


def test_one_set_is_drawn_as_often_as_many_sets_together(tmp_path: Path) -> None:
    floor = noise_floor(
        *referred(quantized(), tmp_path, np.zeros((1, 64), np.float32)),
        Cache(tmp_path / "cache"),
    )
    assert any(note.startswith(f"{RESTS_ON} 32 draws") for note in floor.notes)


def test_a_model_that_never_rounds_is_drawn_as_before(tmp_path: Path) -> None:
    made = model(F + "{ y = Exp(x) }")
    floor = noise_floor(
        *referred(made, tmp_path, np.full((1, 64), 0.3, np.float32)),
        Cache(tmp_path / "cache"),
    )
    assert not floor.has_tail
    assert "the last bits inside" not in floor.sources


def test_terms_of_a_sum_move_by_themselves_behind_a_quantizer() -> None:
    made = model(
        "(float[n,64] x, float s, uint8 z) => (float[n,1] y) "
        "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = MatMul(d, ones) }"
    )
    del made.graph.input[1:]
    for name, value in (
        ("s", np.float32(0.05)),
        ("z", np.uint8(128)),
        ("ones", np.ones((64, 1), np.float32)),
    ):
        made.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    # Terms that cancel: a common scale's last bit leaves the sum at nothing.
    x = np.tile(np.array([1.23, -1.23], np.float32), 32)[None]
    assert moved(made, x, NOTHING, NOTHING) == 0
    assert moved(made, x, edges=NOTHING) != 0


def test_a_note_says_what_integer_kernels_cost_and_which_options_avoid_them(
    tmp_path: Path,
) -> None:
    made = model("""(float[64,64] x) => (float[64,64] y) <float s = {0.02}, uint8 z = {128},
        float t = {0.0005}, uint8 u = {0}> {
            xq = QuantizeLinear(x, s, z)  xd = DequantizeLinear(xq, s, z)  h = Softmax(xd)
            hq = QuantizeLinear(h, t, u)  y = DequantizeLinear(hq, t, u)
    }""")
    x = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    floor = noise_floor(*referred(made, tmp_path, x), Cache(tmp_path))
    (note,) = [note for note in floor.notes if note.startswith(INEXACT)]
    assert note.endswith(
        "session.disable_quant_qdq = 1 and session.qdq_matmulnbits_accuracy_level = 1"
    )
