"""The nodes that a conversion to float16 leaves in float32: the search, the session with switches,
the transform.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from onnx_harness import transforms
from onnx_harness.cards.card import read
from onnx_harness.cards.keep_float32 import write_keep_float32
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.cli import main
from onnx_harness.errors import CardError, UsageError
from onnx_harness.judging.mixed import quantized
from onnx_harness.judging.mixed.account import MOST_RUNS
from onnx_harness.judging.mixed.search import smallest_set
from onnx_harness.judging.mixed.switches import MASK, Switched, switched
from onnx_harness.judging.simulation import simulated
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.selftest.mixed_cases import MixedCase, large_case, mixed_cases
from onnx_harness.selftest.mixed_rows import MOST_SESSIONS, workplace
from onnx_harness.settings import Settings
from onnx_harness.transforms.float16 import clamp
from onnx_harness.transforms.fp16 import convert_in_place
from onnx_harness.transforms.half.mixed import MixedConversion
from onnx_harness.transforms.half.requests import Request
from onnx_harness.transforms.half.schemas import FLOAT16
from tests.models import model, save

SQUARE = (
    "(float[n,8] x) => (float[n,8] y) { h = MatMul(x, w)  a = Mul(h, c)  b = Mul(a, a)  y = "
    "Sqrt(b) }"
)
IN_A_LOOP = """(float[n,8] x) => (float[n,8] y) {
  h = MatMul(x, w)  lift = Add(h, c)
  total = Loop (trips, go, lift) <body = body (int64 i, bool on, float[n,8] state) => (bool more, float[n,8] next) {
      next = Mul(state, step)  more = Identity(on) }>
  left = Sub(total, c)  y = Tanh(left) }"""
SUM_IN_A_LOOP = IN_A_LOOP.replace("Mul(state, step)", "Add(state, step)")


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def weighted(text: str, scale: float = 1000.0, *, named: bool = True) -> onnx.ModelProto:
    made = model(text, opset=17)
    weights = {
        "w": np.eye(8) + np.random.default_rng(3).normal(size=(8, 8)) / 10,
        "c": np.array([scale]),
    }
    weights["step"] = np.array([0.125])
    made.graph.initializer.extend(
        numpy_helper.from_array(value.astype("f4"), key) for key, value in weights.items()
    )
    made.graph.initializer.append(numpy_helper.from_array(np.array(4, np.int64), "trips"))
    made.graph.initializer.append(numpy_helper.from_array(np.array(True), "go"))
    for node in made.graph.node if named else ():
        node.name = f"make_{node.output[0]}"
    return made


def judged(path: Path, variant: str) -> CellResult:
    card = card_for(path)
    return judge(
        Task(Cell(card, parse_variant(variant), "cpu"), path, Settings(input_sets=2))
    ).result


def conversion_of(source: onnx.ModelProto) -> MixedConversion:
    limits = 1e-7, 1e4
    return MixedConversion(
        source,
        Request(True),
        limits,
        lambda array, places: clamp(array, *limits, places),
        FLOAT16,
        "fp16.io32",
    )


def with_switches(source: onnx.ModelProto) -> Switched:
    conversion = conversion_of(source)
    copied = onnx.ModelProto()
    copied.CopyFrom(source)
    plan = conversion.plan(copied, conversion.rounder())
    return switched(plan, lambda _: None)


def run(proto: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, feeds)[0])


# The search.


def needs(
    *nodes: int, seen: list[frozenset[int]] | None = None
) -> Callable[[Collection[int]], bool]:
    def passes(float32: Collection[int]) -> bool:
        if seen is not None:
            seen.append(frozenset(float32))
        return set(nodes) <= set(float32)

    return passes


def test_the_set_that_is_needed_is_found_whatever_is_suspect() -> None:
    for suspicion in (
        [1.0] * 40,
        [float(40 - place) for place in range(40)],
        [1e6 * (place in (3, 17)) for place in range(40)],
    ):
        found = smallest_set(needs(3, 17), suspicion, [1.0] * 40, lambda: False)
        assert found is not None
        assert found.nodes == {3, 17}
        assert found.minimal


def test_a_good_guess_costs_few_runs() -> None:
    seen: list[frozenset[int]] = []
    needed = (100, 300, 500, 700)
    suspicion = [1e6 if place in needed else 1.0 for place in range(1000)]
    found = smallest_set(needs(*needed, seen=seen), suspicion, [1.0] * 1000, lambda: False)
    assert found is not None
    assert found.nodes == set(needed)
    assert len(seen) <= 8


def test_of_two_that_do_the_cheaper_is_kept() -> None:
    found = smallest_set(
        lambda float32: bool({1, 2} & float32),
        [9.0] * 4,
        [1.0, 5.0, 1.0, 1.0],
        lambda: False,
    )
    assert found is not None
    assert found.nodes == {2}


def test_a_budget_ends_the_search_with_a_set_that_passes() -> None:
    seen: list[frozenset[int]] = []
    passes = needs(3, 17, seen=seen)
    found = smallest_set(passes, [1.0] * 40, [1.0] * 40, lambda: len(seen) > 3)
    assert found is not None
    assert not found.minimal
    assert {3, 17} <= found.nodes


def test_where_everything_fails_nothing_is_found() -> None:
    assert smallest_set(lambda _: False, [1.0] * 4, [1.0] * 4, lambda: False) is None


# The session with switches.


@pytest.mark.parametrize("text", [SQUARE, IN_A_LOOP, SUM_IN_A_LOOP])
def test_everything_in_float32_is_the_original_bit_for_bit(text: str) -> None:
    source = weighted(text)
    graph = with_switches(source)
    x = np.random.default_rng(0).normal(size=(3, 8)).astype("f4")
    expected = run(source, x=x)
    mixed = run(graph.model, x=x, **{MASK: graph.mask(range(len(graph.labels)))})
    assert mixed.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("text", "scale"),
    [(SQUARE, 7.0), (IN_A_LOOP, 100.0), (IN_A_LOOP, 3000.0), (SUM_IN_A_LOOP, 100.0)],
)
@pytest.mark.parametrize(
    "names", [(), ("make_h",), ("make_lift", "make_total"), ("make_b", "make_y")]
)
def test_a_mix_computes_what_the_converted_model_does_where_it_is_simulated(
    text: str, scale: float, names: tuple[str, ...]
) -> None:
    source = weighted(text, scale)
    graph = with_switches(source)
    places = [place for place, label in enumerate(graph.labels) if label in names]
    x = np.random.default_rng(0).normal(size=(3, 8)).astype("f4")
    mixed = run(graph.model, x=x, **{MASK: graph.mask(places)})
    converted = convert_in_place(
        source, keep_io_types=True, node_block_list=names, allow_missing=True
    )
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(converted)
    assert mixed.tobytes() == run(simulated(converted, skeleton), x=x).tobytes()


def test_all_inside_a_loop_that_stays_float32_does() -> None:
    graph = with_switches(weighted(IN_A_LOOP))
    loop = graph.ops.index("Loop")
    assert {graph.ops[place] for place in graph.closed([loop])} == {"Loop", "Mul"}


# The transform.


def test_it_is_bit_for_bit_what_the_list_makes_unnamed_nodes_included(
    tmp_path: Path,
) -> None:
    source = weighted(SQUARE, named=False)
    path = save(source, tmp_path / "m.onnx")
    mixed = tmp_path / "mixed.onnx"
    assert main(["transform", str(path), "--variant", "fp16.mixed", "-o", str(mixed)]) == 0
    again = convert_in_place(onnx.load(path), keep_io_types=True, node_block_list=["b", "y"])
    assert mixed.read_bytes() == again.SerializeToString()


def test_without_a_judge_it_says_who_has_one() -> None:
    with pytest.raises(
        UsageError, match=r"needs verdicts to choose by.*onnx-harness transform, or pytest"
    ):
        transforms.bind(parse_variant("fp16.mixed").steps[0])(weighted(SQUARE))


def test_what_it_keeps_is_noted(tmp_path: Path) -> None:
    result = judged(save(weighted(SQUARE), tmp_path / "m.onnx"), "fp16.mixed")
    assert result.status is Status.PASS
    keeps, again = (
        note for note in result.notes if note.startswith(("keeps ", "the same again"))
    )
    assert keeps.startswith("keeps 2 of 4 nodes in float32 (")
    assert "everything in float32 gives the original's outputs" in keeps
    assert again == "the same again: fp16.io32(node_block_list=['make_b', 'make_y'])"


def test_where_the_original_s_own_outputs_fail_that_is_the_reason(tmp_path: Path) -> None:
    text = "(float[n,8] x) => (float[n,8] y) { h = MatMul(x, w) a = Sub(h, c) y = Relu(a) }"
    result = judged(save(weighted(text, 1e4), tmp_path / "silent.onnx"), "fp16.mixed")
    assert result.status is Status.NOT_APPLICABLE
    assert result.reason is not None
    assert "since the original's own outputs don't: nothing was compared" in result.reason


def test_a_model_that_float16_is_enough_for_keeps_nothing(tmp_path: Path) -> None:
    result = judged(save(weighted(SQUARE, 2.0), tmp_path / "m.onnx"), "fp16.mixed")
    assert result.status is Status.PASS
    assert any(note.startswith("keeps none of 4 nodes in float32") for note in result.notes)


# The networks whose fewest nodes are known.


@pytest.mark.parametrize(
    "built", list(mixed_cases(quick=True))[::3], ids=lambda built: built.case.name
)
def test_a_hostile_network_keeps_the_nodes_that_it_needs(
    tmp_path: Path, built: MixedCase
) -> None:
    place = workplace(built.case, tmp_path)
    assert set(place.mix().names) == set(built.smallest)


def test_a_thousand_nodes_with_four_faults_cost_few_sessions_and_runs(
    tmp_path: Path,
) -> None:
    built = large_case()
    assert len(built.case.model.graph.node) >= 990
    mix = workplace(built.case, tmp_path).mix()
    assert set(mix.names) == set(built.smallest)
    assert (mix.sessions <= MOST_SESSIONS, mix.runs <= MOST_RUNS) == (True, True), mix


# The card.


def test_the_card_is_written_and_read(tmp_path: Path) -> None:
    path = save(weighted(SQUARE), tmp_path / "m.onnx")
    assert judged(path, "fp16.io32").status is Status.FAIL
    out = tmp_path / "out.onnx"
    assert (
        main(
            [
                "transform",
                str(path),
                "--variant",
                "fp16.mixed",
                "-o",
                str(out),
                "--write-card",
            ]
        )
        == 0
    )
    assert card_for(path).keep_float32 == ("make_b", "make_y")
    assert judged(path, "fp16.io32").status is Status.PASS


def test_what_else_a_card_says_stays(tmp_path: Path) -> None:
    card = tmp_path / "m.model.toml"
    before = (
        '[model]\nlicense = "MIT"\n\n[fp16]\nkeep_float32 = ["old",\n  "older"]\n\n'
        "[tolerance.y]\natol = 1e-3\n"
    )
    card.write_text(before)
    write_keep_float32(card, ["a", 'b"c'])
    after = read(card)
    assert (after.keep_float32, after.license) == (("a", 'b"c'), "MIT")
    assert after.tolerance["y"].atol == 1e-3
    write_keep_float32(card, [])
    assert read(card) == replace(after, keep_float32=())


def test_a_card_that_is_broken_stays_as_it_is(tmp_path: Path) -> None:
    card = tmp_path / "m.model.toml"
    card.write_text("[modle]\n")
    with pytest.raises(CardError):
        write_keep_float32(card, ["a"])
    assert card.read_text() == "[modle]\n"


def test_a_name_of_the_card_that_the_model_lacks_is_remarked_on(tmp_path: Path) -> None:
    path = save(weighted(SQUARE, 2.0), tmp_path / "m.onnx")
    write_keep_float32(tmp_path / "m.model.toml", ["nowhere"])
    result = judged(path, "fp16.io32")
    assert "node_block_list names 'nowhere', and the model has no such node" in result.notes


# Other types.


def test_bfloat16_keeps_what_eight_bits_are_too_few_for(tmp_path: Path) -> None:
    text = (
        "(float[n,8] x) => (float[n,8] y) { h = MatMul(x, w)  a = Add(h, c)  b = Sub(a, c)  y "
        "= Tanh(b) }"
    )
    path = save(weighted(text, 512.0), tmp_path / "m.onnx")
    assert judged(path, "bf16.io32").status is not Status.PASS
    result = judged(path, "bf16.mixed")
    assert result.status is Status.PASS, result
    assert any(
        note.endswith("bf16.io32(node_block_list=['make_a', 'make_b'])")
        for note in result.notes
    ), result.notes


def test_eight_bits_leave_the_nodes_in_float_that_a_ratio_needs(tmp_path: Path) -> None:
    # One channel that is a thousand times the others takes all 256 levels.
    text = """(float[n,8] x) => (float[n,8] y) {
      h = MatMul(x, w)  wide = Mul(h, spread)  near = Mul(wide, back)  y = Add(near, h) }"""
    source = weighted(text)
    spread = np.array([1000, 1, 1, 1, 1, 1, 1, 1], "f4")
    source.graph.initializer.append(numpy_helper.from_array(spread, "spread"))
    source.graph.initializer.append(numpy_helper.from_array(1 / spread, "back"))
    path = save(source, tmp_path / "m.onnx")
    assert judged(path, "int8.static").status is Status.FAIL
    result = judged(path, "int8.mixed")
    assert result.status is Status.PASS, result
    (note,) = (note for note in result.notes if note.startswith("keeps "))
    assert "nodes in float, found in" in note
    assert any(
        note.startswith("the same again: int8.static(nodes_to_exclude=[")
        for note in result.notes
    )


def test_eight_bits_are_searched_for_inside_functions_too(tmp_path: Path) -> None:
    source = model(
        """(float[n,8] x, float[8,8] w) => (float[n,8] y) { y = own.Layer (x, w) }
        <domain: "own", opset_import: ["": 17]>
        Layer (a, v) => (b) { h = MatMul(a, v)  b = Relu(h) }""",
        domains=', "own": 1',
    )
    weights = np.random.default_rng(3).normal(size=(8, 8)).astype("f4")
    source.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    del source.graph.input[1]
    result = judged(save(source, tmp_path / "m.onnx"), "int8.mixed")
    assert result.status is Status.PASS, result


def test_kernels_that_lose_more_than_the_search_sees_cost_a_node_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where products saturate: the switches of the search don't.
    shortfall = quantized._Quantizing._shortfall

    def saturating(self: quantized._Quantizing, floats: frozenset[int]) -> str:
        labels = [self._graph.labels[place] for place in floats]
        return shortfall(self, floats) if "make_r" in labels else "output y departs"

    text = "(float[n,8] x) => (float[n,8] y) { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, w) }"
    path = save(weighted(text), tmp_path / "m.onnx")
    monkeypatch.setattr(quantized._Quantizing, "_shortfall", saturating)
    result = judged(path, "int8.mixed")
    assert result.status is Status.PASS, result
    assert any("'make_r'" in note for note in result.notes), result.notes
    monkeypatch.setattr(
        quantized._Quantizing, "_shortfall", lambda *_: "output y departs by 1e-1"
    )
    result = judged(save(weighted(text, 2.0), tmp_path / "other.onnx"), "int8.mixed")
    assert result.status is Status.NOT_APPLICABLE
    assert str(result.reason).endswith("on the quantized model: output y departs by 1e-1")
