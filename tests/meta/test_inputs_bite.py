"""Faults that usual signals don't show: each is caught by the unusual inputs that are there for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import onnx
import pytest
from onnx import helper

from onnx_harness import transforms
from onnx_harness.accuracy.noise import Noise
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.inputs.plan import edges
from onnx_harness.judging import verdict
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings
from onnx_harness.transforms import Transform
from tests.models import model, save

F = "(float[n,4] x) => (float[?,?] y) "
C = "Constant <value_float = "
# The model, a wrong one in its place, and the inputs that tell them apart.
FAULTS = {
    "a clamp at 90": (
        F + "{ y = Relu(x) }",
        F + "{ b = " + C + "90.0> () r = Relu(x) y = Min(r, b) }",
        "at 100 times",
    ),
    "an epsilon of 1e-7": (
        F
        + "{ s = Mul(x, x) m = ReduceMean(s) e = "
        + C
        + "1e-12> () p = Add(m, e) r = Sqrt(p) y = Div(x, r) }",
        F
        + "{ s = Mul(x, x) m = ReduceMean(s) e = "
        + C
        + "1e-7> () p = Add(m, e) r = Sqrt(p) y = Div(x, r) }",
        "at a hundredth",
    ),
    "a least norm of 1e-4": (
        F
        + "{ n = ReduceL2 <axes = [1]> (x) e = "
        + C
        + "1e-8> () m = Max(n, e) y = Div(x, m) }",
        F
        + "{ n = ReduceL2 <axes = [1]> (x) e = "
        + C
        + "1e-4> () m = Max(n, e) y = Div(x, m) }",
        "at a millionth",
    ),
    "a floor where it rounds": (
        F + "{ a = Abs(x) y = Round(a) }",
        F + "{ h = " + C + "0.5> () a = Abs(x) s = Add(a, h) y = Floor(s) }",
        "with ties",
    ),
    "the lowest number for -inf": (
        F + "{ y = ReduceMax <axes = [1]> (x) }",
        F + "{ l = " + C + "-3e38> () m = ReduceMax <axes = [1]> (x) y = Max(m, l) }",
        "with -inf alone",
    ),
    "a zero in the maximum": (
        "(float[n,64] x) => (float[?,?] y) { y = ReduceMax <axes = [1]> (x) }",
        "(float[n,64] x) => (float[?,?] y) { z = "
        + C
        + "0.0> () m = ReduceMax <axes = [1]> (x) y = Max(m, z) }",
        "with negative values alone",
    ),
    "the sign of a zero": (
        F + "{ z = " + C + "0.0> () o = " + C + "1.0> () p = Add(x, z) y = Div(o, p) }",
        F + "{ o = " + C + "1.0> () y = Div(o, x) }",
        "with zeros of either sign",
    ),
    "the greatest before it saturates": (
        "(float[n,4] x) => (int64[?,?] y) { s = Sigmoid(x) y = ArgMax <axis = 1> (s) }",
        "(float[n,4] x) => (int64[?,?] y) { y = ArgMax <axis = 1> (x) }",
        "with large values that rise",
    ),
    "the greatest of what has no root": (
        "(float[n,4] x) => (int64[?,?] y) { s = Sqrt(x) y = ArgMax <axis = 1> (s) }",
        "(float[n,4] x) => (int64[?,?] y) { y = ArgMax <axis = 1> (x) }",
        "with values that have no logarithm or root",
    ),
    "integers through float32": (
        "(int64[n,64] x) => (int64[n,64] y) { y = Neg(x) }",
        (
            "(int64[n,64] x) => (int64[n,64] y) { f = Cast <to = 1> (x) m = Neg(f) y = Cast <to = "
            "7> "
            "(m) }"
        ),
        "with large integers",
    ),
    "negative indices cut off": (
        "(int64[n,64] x, float[9,2] w) => (float[n,64,2] y) { y = Gather(w, x) }",
        "(int64[n,64] x, float[9,2] w) => (float[n,64,2] y) "
        "{ z = Constant <value_int = 0> () p = Max(x, z) y = Gather(w, p) }",
        "with negative indices",
    ),
    "an empty batch": (
        F + "{ s = Shape(x) y = Reshape <allowzero = 1> (x, s) }",
        F + "{ s = Constant <value_ints = [0, -1]> () y = Reshape(x, s) }",
        "with nothing in it",
    ),
}


def judged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, right: str, wrong: str, *, unusual: bool
) -> CellResult:
    """The verdict on a transform that puts ``wrong`` in the place of ``right``."""

    def change(_: onnx.ModelProto) -> onnx.ModelProto:
        return model(wrong)

    planted = Transform("a planted fault", change, {"planted": {}})
    monkeypatch.setitem(
        cast("dict[str, Transform]", transforms.registry()), "planted", planted
    )
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(folder / "cache"))
    card = card_for(save(model(right), folder / "model.onnx"))
    return judge(
        Task(
            Cell(card, parse_variant("planted"), "cpu"),
            card.path,
            Settings(),
            unusual=unusual,
        )
    ).result


@pytest.mark.parametrize("fault", FAULTS)
def test_unusual_inputs_show_what_usual_ones_do_not(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong, words = FAULTS[fault]
    usual = judged(tmp_path / "usual", monkeypatch, right, wrong, unusual=False)
    assert (usual.status, usual.reason) == (Status.PASS, None)
    caught = judged(tmp_path / "unusual", monkeypatch, right, wrong, unusual=True)
    assert caught.status is Status.FAIL, caught
    if caught.stage is Stage.COMPARE:
        assert str(caught.reason).startswith("on unusual inputs alone, ")
    # Those that are there for it do so alone.
    monkeypatch.setattr(edges, "_candidates", only(words))
    assert (
        judged(tmp_path / "alone", monkeypatch, right, wrong, unusual=True).status
        is Status.FAIL
    )


# At 100 times the magnitude the last bit of x moves this by 0.004, of 1.
UNSTEADY = F + "{ k = " + C + "1000.0> () a = Mul(x, k) y = Cos(a) }"


@pytest.mark.parametrize(
    ("variant", "status"),
    [
        (
            "{ k = "
            + C
            + "10.0> () l = "
            + C
            + "100.0> () b = Mul(x, k) a = Mul(b, l) y = Cos(a) }",
            Status.PASS,
        ),
        (
            "{ m = "
            + C
            + "90.0> () c = Min(x, m) k = "
            + C
            + "1000.0> () a = Mul(c, k) y = Cos(a) }",
            Status.FAIL,
        ),
    ],
    ids=["rounded otherwise", "a clamp at 90"],
)
def test_where_the_model_itself_is_unsteady_noise_is_no_fault_and_a_fault_is_no_noise(
    variant: str, status: Status, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = judged(tmp_path, monkeypatch, UNSTEADY, F + variant, unusual=True)
    assert found.status is status, found
    if status is Status.FAIL:
        assert str(found.reason).startswith("on unusual inputs alone, ")
    # Without having measured how steady it is there, nobody could tell the two apart.
    monkeypatch.setattr(
        verdict, "unusual_floor", lambda *_: Noise(tuple({} for _ in range(50)))
    )
    assert (
        judged(tmp_path / "blind", monkeypatch, UNSTEADY, F + variant, unusual=True).status
        is Status.FAIL
    )


def only(words: str) -> Callable[..., Iterator[Any]]:
    original = edges._candidates

    def candidates(*args: Any) -> Iterator[Any]:
        return (found for found in original(*args) if found[0].words.startswith(words))

    return candidates


def test_dying_of_unusual_inputs_is_no_verdict_on_a_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 10,000 rounds of a loop for each unit of the sum: instant as a rule, and for ever at 1e5.
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    made = model(
        "(float[n,4] x) => (float[n,4] y) { a = Abs(x) s = ReduceSum <keepdims = 0> (a) "
        "k = Constant <value_float = 10000.0> () m = Mul(s, k) trips = Cast <to = 7> (m) }"
    )
    body = model(
        "(int64 i, bool c, float[n,4] v) => (bool d, float[n,4] w) { d = Identity(c) w = "
        "Identity(v) }"
    ).graph
    made.graph.node.append(helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body))
    card = card_for(save(made, tmp_path / "loop.onnx"))
    runner = Runner(Settings(input_sets=1, cell_timeout=20))
    try:
        runner.warm()
        result = runner.judge(Cell(card, parse_variant("ort.disable"), "cpu"))
    finally:
        runner.close()
    assert result.status is Status.PASS, result
    assert any(
        note.startswith("fed usual inputs alone: on unusual ones, ") for note in result.notes
    ), result.notes


def deadly(rows: int) -> onnx.ModelProto:
    """Adds up all rows but the first ``rows``: ONNX Runtime 1.32 dies of a Scan along axis 1 over
    nothing.
    """
    made = model(
        "(float[n,2,4] x) => (float[?,?] y, float[?,?,?] z) { t = Transpose <perm = [1, 0, 2]> (x) "
        f"a = Constant <value_ints = [{rows}]> () e = Constant <value_ints = [1000]> () "
        "i = Constant <value_ints = [1]> () s = Slice(t, a, e, i) first = ReduceMax <axes = [0], "
        "keepdims = 0> (x) }"
    )
    body = model(
        "(float[2,4] u, float[2,4] v) => (float[2,4] w, float[2,4] o) { w = Add(u, v) o = "
        "Identity(w) }"
    ).graph
    scan = helper.make_node("Scan", ["first", "s"], ["y", "z"], body=body, num_scan_inputs=1)
    scan.attribute.extend(
        helper.make_attribute(f"scan_{way}_axes", [1]) for way in ("input", "output")
    )
    made.graph.node.append(scan)
    return made


def run_on(
    made: onnx.ModelProto, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> CellResult:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(folder / "cache"))
    card = card_for(save(made, folder / "deadly.onnx"))
    runner = Runner(Settings())
    try:
        return runner.judge(Cell(card, parse_variant("original"), "cpu"))
    finally:
        runner.close()


def test_the_search_for_inputs_outlives_feeds_that_end_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_on(deadly(1), tmp_path, monkeypatch)  # one row is what it's fed first
    assert found.status is Status.PASS, found
    monkeypatch.setattr("onnx_harness.run.attempts.MOST_DEATHS", 0)
    died = run_on(deadly(1), tmp_path / "at once", monkeypatch)
    assert (died.status, died.stage) == (Status.FAIL, Stage.LOAD)
    assert "killed by SIG" in str(died.reason)


def test_a_model_that_every_feed_ends_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = run_on(deadly(1000), tmp_path, monkeypatch)
    assert (died.status, died.stage) == (Status.FAIL, Stage.LOAD)
    assert "ONNX Runtime dies of every feed that was tried" in str(died.reason)
