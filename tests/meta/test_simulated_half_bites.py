"""Float16 that is right as float32 computes it and wrong in itself, and the other way round:
float16 decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_harness
from onnx_harness.cell import artifacts
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.judging import emulation, simulation
from onnx_harness.judging import judge as judge_module
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import NOT_SIMULATED, CellResult, Stage, Status, Symptom
from onnx_harness.settings import Settings
from tests.models import model, save

DECIDES = (
    "float16 as hardware computes it is right, and decides. In float32, as computed here: "
)
DEPARTS = "float16 as hardware computes it departs: "
LOWEST = np.finfo(np.float32).min
RANDOM = np.random.default_rng(8)


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(
        op, inputs.split(), [output], name=f"make_{output}", **attributes
    )


def net(
    nodes: Iterable[onnx.NodeProto], kind: int = TensorProto.FLOAT, **weights: Any
) -> onnx.ModelProto:
    """``y`` of ``x``, both of 4 rows of 64."""
    x, y = (helper.make_tensor_value_info(name, kind, [4, 64]) for name in "xy")
    constants = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()
    ]
    graph = helper.make_graph(list(nodes), "net", [x], [y], constants)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )


def centred() -> onnx.ModelProto:
    """x - mean(x)."""
    return net([node("ReduceMean", "x", "m", axes=[1], keepdims=1), node("Sub", "x m", "y")])


def deviation() -> onnx.ModelProto:
    """The root of E[x^2] - E[x]^2, for every element."""
    return net(
        [
            node("Mul", "x x", "square"),
            node("ReduceMean", "square", "squares", axes=[1], keepdims=1),
            node("ReduceMean", "x", "m", axes=[1], keepdims=1),
            node("Mul", "m m", "mean_square"),
            node("Sub", "squares mean_square", "v"),
            node("Abs", "v", "size"),
            node("Sqrt", "size", "root"),
            node("Mul", "root ones", "y"),
        ],
        ones=np.ones((1, 64), np.float32),
    )


def masked() -> onnx.ModelProto:
    """A softmax whose second row is masked altogether with the lowest float32, which a conversion
    makes -10000.
    """
    mask = np.zeros((4, 64), np.float32)
    mask[0, 32:] = mask[1] = LOWEST
    return net([node("Mul", "x scale", "s"), node("Add", "s mask", "scores"), node("Softmax", "scores", "y")],
               scale=np.float32(0.7), mask=mask)  # fmt: skip


def sifted() -> onnx.ModelProto:
    """Places where x is above 0, or where adding 1e-9, which a conversion makes 1e-7, shows."""
    return model("""(float[4,64] x) => (int64[m,2] y) {
      one = Constant<value_float = 1.0>()  tiny = Constant<value_float = 1e-9>()
      size = Abs(x)  b = Add(size, one)  c = Add(b, tiny)  shows = Greater(c, b)
      zero = Sub(x, x)  above = Greater(x, zero)  either = Or(shows, above)
      at = NonZero(either)  y = Transpose<perm = [1, 0]>(at) }""")


def harmless() -> onnx.ModelProto:
    weights = RANDOM.normal(size=(64, 64)).astype(np.float32) / 8
    return net([node("MatMul", "x w", "h"), node("Tanh", "h", "y")], w=weights)


def judged(
    folder: Path,
    made: onnx.ModelProto,
    around: float = 0.0,
    spread: float = 1.0,
    variant: str = "fp16.io32",
) -> CellResult:
    """The cell on x about ``around``, recorded beside the model, and on no generated input."""
    path = save(made, folder / "net.onnx")
    dtype = (
        np.float16
        if made.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
        else np.float32
    )
    np.savez(
        path.with_suffix(".npz"),
        x=(around + spread * RANDOM.normal(size=(4, 64))).astype(dtype),
    )
    card = card_for(path)
    return judge(
        Task(Cell(card, parse_variant(variant), "cpu"), card.path, Settings(input_sets=1))
    ).result


@pytest.mark.parametrize(
    ("made", "around", "spread"),
    [(centred(), 300.0, 0.02), (deviation(), 20.0, 0.1)],
    ids=["centred", "deviation"],
)
def test_digits_lost_in_a_difference_of_large_numbers_are_seen(
    tmp_path: Path, made: onnx.ModelProto, around: float, spread: float
) -> None:
    result = judged(tmp_path, made, around, spread)
    assert (result.status, result.stage, result.symptom) == (
        Status.FAIL,
        Stage.COMPARE,
        Symptom.WRONG_VALUES,
    )
    assert str(result.reason).startswith(f"{DEPARTS}faithful, but not usable: output y: ")
    assert result.placement is not None
    assert result.placement.precision == "emulated"
    assert result.accuracy is not None  # of the outputs that fail
    assert result.accuracy.outputs["y"].usable is False
    assert result.accuracy_simulated == result.accuracy
    assert result.accuracy_emulated is not None
    assert result.accuracy_emulated.outputs["y"].usable is True


def test_without_the_rounding_they_go_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "with_rounded", lambda node, _: [node])
    assert judged(tmp_path, centred(), 300.0, 0.02).status is Status.PASS


def test_a_mask_that_float32_alone_sees_through_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = judged(tmp_path, masked())
    assert result.status is Status.PASS
    (note,) = (note for note in result.notes if note.startswith(DECIDES))
    assert "output y" in note.removeprefix(DECIDES)
    assert result.accuracy is not None
    assert result.accuracy.outputs["y"].usable is True
    monkeypatch.setattr(judge_module, "judge_half", lambda *verdicts: verdicts[-1])
    assert judged(tmp_path, masked()).status is Status.FAIL


def test_a_number_of_rows_that_float32_alone_makes_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = judged(tmp_path, sifted(), 0.0, 0.5)
    assert result.status is Status.PASS, result
    (note,) = (note for note in result.notes if note.startswith(DECIDES))
    assert "output y: has shape" in note
    monkeypatch.setattr(judge_module, "judge_half", lambda *verdicts: verdicts[-1])
    assert judged(tmp_path, sifted(), 0.0, 0.5).symptom is Symptom.CHANGED_TYPES


@pytest.mark.filterwarnings(
    "ignore:overflow encountered in cast"
)  # an unusual input, beyond float16
@pytest.mark.parametrize("variant", ["fp16.io32", "fp16()"])
def test_a_harmless_model_passes_without_a_word(tmp_path: Path, variant: str) -> None:
    result = judged(tmp_path, harmless(), variant=variant)
    assert (result.status, result.notes) == (Status.PASS, ())


def test_what_is_wrong_both_ways_fails_as_it_was_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = artifacts.transformed

    def broken(*args: Any) -> Any:
        artifact = convert(*args)
        graph = onnx.load(artifact.model.path)
        next(each for each in graph.graph.node if each.op_type == "Tanh").op_type = "Sigmoid"
        onnx.save(graph, artifact.model.path)
        return artifact

    monkeypatch.setattr(artifacts, "transformed", broken)
    result = judged(tmp_path, harmless())
    assert result.status is Status.FAIL
    assert str(result.reason).startswith("not faithful: output y")


def test_a_simulation_that_can_not_be_run_is_told_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> onnx.ModelProto:
        raise ValueError("no such type\nand more")

    monkeypatch.setattr(emulation, "simulated", refuses)
    result = judged(tmp_path, harmless())
    assert (result.status, result.notes) == (
        Status.PASS,
        (f"{NOT_SIMULATED}: no such type",),
    )


def test_a_model_that_asks_for_float16_itself_is_no_reference_for_float16(
    tmp_path: Path,
) -> None:
    made = net([node("Mul", "x x", "y")], TensorProto.FLOAT16)
    result = judged(tmp_path, made, variant="original")
    assert result.status is Status.PASS
    assert [note for note in result.notes if note.startswith(NOT_SIMULATED)] == [
        f"{NOT_SIMULATED}: the untouched model asks for it too, and so its reference was computed "
        f"in float32"
    ]


@pytest.mark.parametrize(("offset", "passes"), [(0.0, True), (9000.0, False)])
def test_indices_that_float16_takes_from_others_are_of_no_use(
    offset: float, passes: bool
) -> None:
    """The type explains each wrong index, since the ideal conversion has it too.

    The user is told all the same.
    """
    ranking = model(
        "(float[16,32] x) => (int64[16] y) { moved = Add(x, offset)  y = ArgMax<axis = 1, "
        "keepdims = 0>(moved) }"
    )
    ranking.graph.initializer.append(
        numpy_helper.from_array(np.array(offset, np.float32), "offset")
    )
    verdict = onnx_harness.verify(ranking, variant="fp16.io32")
    assert bool(verdict) is passes, verdict.report()
    assert passes or "as the type itself makes them" in verdict.report()


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("s = Sigmoid(x) m = Mul(s, most) b = Cast<to = 2>(m) y = Transpose(b)", True),
        ("m = Add(x, far) c = ArgMax<axis = 1>(m) y = Cast<to = 2>(c)", False),
    ],
    ids=["picture", "classes"],
)
def test_a_level_of_a_picture_may_be_the_next_one_and_a_class_may_not(
    text: str, passes: bool
) -> None:
    """The type moves more than one in a hundred of either."""
    made = model(f"(float[64,96] x) => (uint8[a,b] y) {{ {text} }}")
    for name, value in (("most", 255.0), ("far", 9000.0)):
        made.graph.initializer.append(
            numpy_helper.from_array(np.array(value, np.float32), name)
        )
    verdict = onnx_harness.verify(made, variant="fp16.io32")
    assert bool(verdict) is passes, verdict.report()
    assert passes or "as the type itself makes them" in verdict.report()
