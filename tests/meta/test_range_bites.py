"""Float16 that would overflow, on a provider that computes it in float32: caught though every
output is right here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.judging import judge as judge_module
from onnx_harness.judging import overflow
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.settings import Settings
from tests.models import model, save

# Up to 3 times 200: the square is far beyond float16, its root is not.
NORM = "(float[n,8] x) => (float[n,8] y) { big = Mul(x, c)  square = Mul(big, big)  y = Sqrt(square) }"
# 1 / (1 + exp(x)) is right where the exponential is infinite.
SIGMOID = (
    "(float[n,8] x) => (float[n,8] y) { big = Mul(x, c)  e = Exp(big)  d = Add(e, one)  y = "
    "Reciprocal(d) }"
)
BRANCHES = """(float[n,8] x) => (float[n,8] y) {
  zero = Constant<value_float = 0.0>() first = ReduceMax<keepdims = 0>(x) chosen = Less(CONDITION)
  y = If(chosen) <
    then_branch = then () => (float[n,8] a) { b = Mul(x, c)  s = Mul(b, b)  a = Sqrt(s) },
    else_branch = else () => (float[n,8] d) { e = Mul(x, c)  t = Mul(e, e)  u = Neg(t)  v = Abs(u)  d = Sqrt(v) }
  > }"""
LOOP = """(float[n,8] x) => (float[n,8] y) {
  trips = Constant<value_int = 3>() go = Constant<value = bool {1}>()
  y = Loop(trips, go, x) <
    body = body (int64 i, bool before, float[n,8] v) => (bool after, float[n,8] w) {
      after = Identity(before)  b = Mul(v, c)  s = Mul(b, b)  r = Sqrt(s)  w = Div(r, c) }
  > }"""


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def judged(
    folder: Path,
    text: str,
    variant: str = "fp16.io32",
    *,
    scale: float = 200.0,
    opset: int = 17,
) -> CellResult:
    made = model(text, opset=opset)
    for name, value in (("c", scale), ("one", 1.0)):
        if name in text.replace("e = Neg", ""):
            made.graph.initializer.append(
                numpy_helper.from_array(np.array([value], np.float32), name)
            )
    for graph in (
        made.graph,
        *(a.g for node in made.graph.node for a in node.attribute if a.HasField("g")),
    ):
        for node in graph.node:
            node.name = f"make_{node.output[0]}"
    card = card_for(save(made, folder / "net.onnx"))
    return judge(
        Task(Cell(card, parse_variant(variant), "cpu"), card.path, Settings(input_sets=3))
    ).result


def test_an_overflow_that_the_cpu_hides_is_caught_with_its_node_and_its_mend(
    tmp_path: Path,
) -> None:
    result = judged(tmp_path, NORM)
    assert (result.status, result.stage) == (Status.FAIL, Stage.COMPARE)
    assert result.accuracy is not None
    assert result.accuracy.outputs["y"].nonfinite == 0  # the outputs of this run are right
    assert str(result.reason).startswith(
        "float16 overflows unseen, since this provider computes it in float32: 'square' (Mul "
        "'make_square') reaches "
    )
    assert "and float16 ends at 65504" in str(result.reason)
    assert result.detail[0].startswith(
        "where float16 computes: faithful, but not usable: output y: "
    )
    assert result.detail[-1].startswith("mend: `--variant fp16.mixed` keeps 2 of ")
    assert result.placement is not None
    assert result.placement.precision == "emulated"


@pytest.mark.parametrize(
    ("text", "worst"),
    [
        (
            (
                "less = Neg(big)  square = Mul(big, less)  double = Add(square, square)  z = "
                "Abs(double)  y = Sqrt(z)"
            ),
            "double",
        ),
        (
            "square = Mul(big, big)  size = Abs(big)  less = Sub(square, size)  y = Sqrt(less)",
            "square",
        ),
    ],
)
def test_of_several_overflows_the_greatest_is_named(
    tmp_path: Path, text: str, worst: str
) -> None:
    text = "(float[n,8] x) => (float[n,8] y) { big = Mul(x, c)  " + text + " }"
    failed, warned = judged(tmp_path, text), judged(tmp_path, text, scale=20.0)
    first = (
        str(failed.reason).split("computes it in float32: ")[1].split(" in input set ")[0]
    )
    assert first.startswith(f"'{worst}' (")
    assert first.replace(" reaches ", ": ") in failed.detail
    assert (
        f"float16 would overflow at 10 times the usual magnitude: '{worst}' ("
        in "\n".join(warned.notes)
    )


def test_its_mend_mends_it(tmp_path: Path) -> None:
    assert (
        judged(tmp_path, NORM, "fp16.io32(node_block_list=['make_square', 'make_y'])").status
        is Status.PASS
    )


def test_without_the_check_it_goes_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_module, "judge_half", lambda *verdicts: verdicts[-1])
    assert judged(tmp_path, NORM).status is Status.PASS


def test_what_fits_is_no_overflow_and_an_fp32_variant_has_no_range(tmp_path: Path) -> None:
    honest = judged(tmp_path, NORM, scale=0.5)
    assert (honest.status, honest.notes) == (Status.PASS, ())
    plain = judged(tmp_path, NORM, "original")
    assert plain.status is Status.PASS
    assert plain.placement is not None
    assert plain.placement.precision == "float32"


def test_an_overflow_of_which_nothing_comes_is_told_and_not_failed(tmp_path: Path) -> None:
    result = judged(tmp_path, SIGMOID, scale=30.0)
    assert result.status is Status.PASS
    (note,) = (note for note in result.notes if "overflow" in note)
    assert note.startswith(
        "2 float16 values overflow, unseen where float32 computes and without consequence"
    )
    assert "'e' (Exp 'make_e') reaches" in note or "'d' (Add 'make_d') reaches" in note


@pytest.mark.parametrize(("scale", "factor"), [(20.0, 10), (2.0, 100)])
def test_what_overflows_at_larger_inputs_alone_is_told_with_how_much_larger(
    tmp_path: Path, scale: float, factor: int
) -> None:
    result = judged(tmp_path, NORM, scale=scale)
    assert result.status is Status.PASS
    assert (
        f"float16 would overflow at {factor} times the usual magnitude: 'square' (Mul "
        f"'make_square') reaches" in ("\n".join(result.notes))
    )


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize(
    ("text", "value"),
    [
        (BRANCHES.replace("CONDITION", "zero, first"), "'s' (Mul 'make_s')"),
        (BRANCHES.replace("CONDITION", "first, zero"), "'t' (Mul 'make_t')"),
        (LOOP, "'s' (Mul 'make_s')"),
    ],
)
def test_an_overflow_inside_a_branch_or_a_loop_is_caught(
    tmp_path: Path, text: str, value: str, opset: int
) -> None:
    result = judged(tmp_path, text, opset=opset)
    assert (result.status, result.stage) == (Status.FAIL, Stage.COMPARE)
    assert f"computes it in float32: {value} reaches" in str(result.reason)


def test_the_second_time_it_is_known_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = judged(tmp_path, NORM)
    monkeypatch.setattr(overflow, "_watch_run", lambda *_: pytest.fail("it was run again"))
    assert judged(tmp_path, NORM).reason == first.reason


def test_the_model_that_is_judged_is_not_touched(tmp_path: Path) -> None:
    judged(tmp_path, NORM)
    (made,) = (tmp_path / "cache").rglob("transformed/*/*/model.onnx")
    names = [node.name for node in onnx.load(made).graph.node]
    assert not any("onnx_harness" in name for name in names)
