"""A mend is tried before it is offered: what is offered passes, and where nothing passes nothing
is.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.judging import mends
from onnx_harness.judging.mixed import half_search
from onnx_harness.judging.mixed.switches import Switched
from onnx_harness.judging.verdict import Verdict
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Status, Symptom
from onnx_harness.settings import Settings
from tests.models import model, save

# The second product overflows; in float32 its maximum does as it's handed on to the quotients,
# which bring it back.
THERE_AND_BACK = """(float[n,8] x) => (float[n,8] y) {
  h = MatMul(x, w)  big = Mul(h, c)  far = Mul(big, c)  most = ReduceMax<axes = [1], keepdims = 1>(far)
  near = Div(most, c)  scale = Div(near, c)  y = Add(h, scale) }"""
CENTRED = """(float[n,8] x) => (float[n,8] y) {
  h = MatMul(x, w)  far = Add(h, c)  m = ReduceMean<axes = [1], keepdims = 1>(far)  d = Sub(far, m)  y = Tanh(d) }"""
# What computes the mean of squares stays float32 by itself in our conversion, and in no other.
MEAN_SQUARE = """(float[n,8] x) => (float[n,8] y) {
  h = MatMul(x, w)  far = Mul(h, c)  s = Mul(far, far)  m = ReduceMean<axes = [1], keepdims = 1>(s)
  r = Sqrt(m)  y = Div(far, r) }"""
# The places of what is above a number: float16 ties there, and so their number is another.
SPOKEN = """(float[n,8] x) => (int64[m,2] y) {
  h = MatMul(x, w)  b = Tanh(h)  r = MatMul(b, w)  far = Add(r, c)  g = Greater(far, c)
  at = NonZero(g)  y = Transpose<perm = [1, 0]>(at) }"""
# What a wide product gives is far beyond float16; divided, it's back, and most nodes can have it.
WIDE = """(float[n,40] x) => (float[n,40] y) {
  a = Mul(x, c)  b = MatMul(a, w)  d = Div(b, c)  e = Mul(d, v)  y = Tanh(e) }"""
SHARE = re.compile(
    r"\d% of the float32 weights are converted: the nodes in node_block_list keep"
)
# The product itself is what overflows, and there is nothing else.
PRODUCT = (
    "(float[n,8] x) => (float[n,8] y) { s = Mul(x, c)  b = MatMul(s, w)  y = Mul(b, b) }"
)


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def weighted(text: str, scale: float, *, named: bool = False) -> onnx.ModelProto:
    made = model(text, opset=17)
    weights = {
        "w": np.eye(8) + np.random.default_rng(3).normal(size=(8, 8)) / 10,
        "c": np.array([scale]),
    }
    made.graph.initializer.extend(
        numpy_helper.from_array(value.astype("f4"), key) for key, value in weights.items()
    )
    for node in made.graph.node if named else ():
        node.name = f"make_{node.output[0]}"
    return made


def with_wide_product(text: str = WIDE) -> onnx.ModelProto:
    made = model(text, opset=17)
    draw = np.random.default_rng(3)
    weights = {
        "w": 3 * draw.normal(size=(40, 40)),
        "v": draw.normal(size=40) / 20,
        "c": np.array([9000.0]),
    }
    made.graph.initializer.extend(
        numpy_helper.from_array(value.astype("f4"), key) for key, value in weights.items()
    )
    return made


def judged(path: Path, variant: str) -> CellResult:
    card = card_for(path)
    return judge(
        Task(Cell(card, parse_variant(variant), "cpu"), card.path, Settings(input_sets=2))
    ).result


def offered(result: CellResult) -> tuple[str, int, int]:
    """The variant that a failure's last line offers, the nodes that it keeps in float32, and of how
    many.
    """
    found = re.fullmatch(
        (
            r'mend: `--variant "?([^"`]+)"?` keeps (\d+) of (\d+) nodes in float32 \(\d+\.\d% of '
            r"the "
            r"time\)(?:: .+)?"
        ),
        result.detail[-1],
    )
    assert found is not None, result.detail
    return found[1], int(found[2]), int(found[3])


@pytest.mark.filterwarnings(
    "ignore:overflow encountered in cast"
)  # an unusual input, beyond float16
@pytest.mark.parametrize(
    ("text", "variant", "offer", "keeps"),
    [
        (THERE_AND_BACK, "fp16.io32", "fp16.mixed", 3),
        (THERE_AND_BACK, "fp16()", "fp16.mixed", 3),
        (
            THERE_AND_BACK,
            "optimize+fp16.io32(op_block_list=['Add'])",
            "optimize+fp16.mixed(op_block_list=['Add'])",
            3,
        ),
        (CENTRED, "fp16.io32", "fp16.mixed", 3),
        (CENTRED, "bf16.io32", "bf16.mixed", 3),
    ],
)
def test_what_is_offered_passes(
    tmp_path: Path, text: str, variant: str, offer: str, keeps: int
) -> None:
    path = save(weighted(text, 1000.0), tmp_path / "m.onnx")
    result = judged(path, variant)
    assert result.status is Status.FAIL, result
    assert offered(result)[:2] == (offer, keeps)
    assert judged(path, offer).status is Status.PASS


@pytest.mark.parametrize("variant", ["fp16.io32", "fp16()"])
def test_another_number_of_rows_is_mended(tmp_path: Path, variant: str) -> None:
    path = save(weighted(SPOKEN, 3000.0), tmp_path / "m.onnx")
    result = judged(path, variant)
    assert result.symptom is Symptom.CHANGED_TYPES, result
    assert "has shape" in str(result.reason)
    assert offered(result) == ("fp16.mixed", 2, 5)
    assert judged(path, "fp16.mixed").status is Status.PASS


def test_less_than_what_is_offered_fails(tmp_path: Path) -> None:
    path = save(weighted(THERE_AND_BACK, 1000.0), tmp_path / "m.onnx")
    names = listed(judged(path, "fp16.mixed"))
    assert judged(path, f"fp16.io32(node_block_list={names!r})").status is Status.PASS
    for name in names:
        fewer = [other for other in names if other != name]
        assert judged(path, f"fp16.io32(node_block_list={fewer!r})").status is Status.FAIL


def listed(result: CellResult) -> list[str]:
    """The nodes that the notes of a passing cell say it keeps in float32."""
    assert result.status is Status.PASS, result
    (note,) = (note for note in result.notes if note.startswith("the same again: "))
    return list(ast.literal_eval(note.split("node_block_list=")[1].removesuffix(")")))


def test_few_nodes_with_names_are_named(tmp_path: Path) -> None:
    text = (
        "(float[n,8] x) => (float[n,8] y) { h = MatMul(x, w)  a = Mul(h, c)  b = Mul(a, a)  y "
        "= Sqrt(b) }"
    )
    path = save(weighted(text, 1000.0, named=True), tmp_path / "m.onnx")
    failed = judged(path, "fp16.io32")
    assert offered(failed)[:2] == ("fp16.mixed", 2)
    assert failed.detail[-1].endswith(": 'make_b', 'make_y'")
    assert listed(judged(path, "fp16.mixed")) == ["make_b", "make_y"]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_mend_that_keeps_nearly_all_weights_in_float32_is_one(tmp_path: Path) -> None:
    path = save(with_wide_product(), tmp_path / "m.onnx")
    result = judged(path, "fp16.io32")
    assert result.status is Status.FAIL, result
    assert offered(result) == ("fp16.mixed", 2, 5)
    mixed = judged(path, "fp16.mixed")
    assert listed(mixed) == ["b", "d"]
    again = judged(path, "fp16.io32(node_block_list=['b', 'd'])")
    assert again.status is Status.PASS
    for passing in (mixed, again):  # once, though several models were tried
        assert len([note for note in passing.notes if SHARE.match(note)]) == 1, passing.notes


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_mend_that_converts_too_few_of_the_other_weights_says_so(tmp_path: Path) -> None:
    text = WIDE.replace("y = Tanh(e)", "f = Tanh(e)  g = Gemm(x, u)  y = Add(f, g)")
    made = with_wide_product(text)
    weights = np.random.default_rng(4).normal(size=(40, 40)) / 40
    made.graph.initializer.append(numpy_helper.from_array(weights.astype("f4"), "u"))
    path = save(made, tmp_path / "m.onnx")
    assert judged(path, "fp16.io32(op_block_list=['Gemm'])").detail[-1] == (
        "No mend was found: 2 of its 6 nodes have to stay float32, and then 2% of the float32 "
        "weights would be converted, which says nothing of the others: they stay float32 for "
        "MatMul, Gemm"
    )


def test_where_all_would_stay_float32_nothing_is_offered(tmp_path: Path) -> None:
    path = save(weighted(PRODUCT, 1e5), tmp_path / "m.onnx")
    assert judged(path, "fp16.io32").detail[-1].startswith("No mend was found: ")


def test_a_mend_that_fails_its_verification_is_not_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(weighted(THERE_AND_BACK, 1000.0), tmp_path / "m.onnx")
    monkeypatch.setattr(
        half_search, "half_verdict", lambda *_: Verdict(Status.FAIL, reason="it is wrong")
    )
    line = judged(path, "fp16.io32").detail[-1]
    assert line == (
        "No mend was found: no choice of nodes in float32 was verified on the converted model: "
        "it is wrong"
    )


def test_switches_that_do_not_round_are_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(weighted(THERE_AND_BACK, 1000.0), tmp_path / "m.onnx")
    monkeypatch.setattr(
        Switched, "mask", lambda self, _: np.zeros(len(self.conditions), bool)
    )
    assert (
        len(listed(judged(path, "fp16.mixed"))) >= 3
    )  # by its survey, and verified on the converted model
    monkeypatch.setattr(
        half_search, "half_verdict", lambda *_: Verdict(Status.FAIL, reason="it is wrong")
    )
    assert (
        judged(path, "fp16.io32")
        .detail[-1]
        .startswith("No mend was found: no choice of nodes")
    )


def test_a_session_that_is_not_the_model_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(weighted(THERE_AND_BACK, 1000.0), tmp_path / "m.onnx")
    monkeypatch.setattr(
        Switched, "mask", lambda self, _: np.ones(len(self.conditions), bool)
    )
    assert (
        "with all of them in float32 the model departs"
        in judged(path, "fp16.io32").detail[-1]
    )


@pytest.mark.parametrize("peer", ["fp16.onnxmltools.io32", "fp16.onnxmltools()"])
def test_a_library_without_block_lists_is_mended_by_the_conversion_that_has_them(
    tmp_path: Path, peer: str
) -> None:
    path = save(weighted(THERE_AND_BACK, 1000.0), tmp_path / "m.onnx")
    failed = judged(path, peer)
    assert failed.status is Status.FAIL, failed
    assert offered(failed)[:2] == ("fp16.mixed", 3)


@pytest.mark.parametrize(
    ("peer", "offer"),
    [
        ("fp16.onnxmltools.io32", "fp16.io32"),
        ("fp16.onnxmltools()", "fp16()"),
        ("ort.basic+fp16.onnxmltools.io32", "ort.basic+fp16.io32"),
    ],
)
def test_where_the_library_is_at_fault_and_not_float16_no_node_has_to_be_kept(
    tmp_path: Path, peer: str, offer: str
) -> None:
    path = save(weighted(MEAN_SQUARE, 1000.0), tmp_path / "m.onnx")
    failed = judged(path, peer)
    assert failed.status is Status.FAIL, failed
    said = f'"{offer}"' if "(" in offer else offer
    assert failed.detail[-1] == (
        f"mend: `--variant {said}` passes, and has no list of nodes to keep"
    )
    assert judged(path, offer).status is Status.PASS


def test_a_conversion_of_ours_that_fails_is_not_offered_in_a_library_s_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(weighted(MEAN_SQUARE, 1000.0), tmp_path / "m.onnx")
    wrong = Verdict(Status.FAIL, reason="it is wrong")
    monkeypatch.setattr(mends, "half_verdict", lambda *_: wrong)
    monkeypatch.setattr(half_search, "half_verdict", lambda *_: wrong)
    assert judged(path, "fp16.onnxmltools()").detail[-1].startswith("No mend was found: ")
