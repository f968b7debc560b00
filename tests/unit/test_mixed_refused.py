"""Nodes that a provider refuses in the half type: the mixed search leaves them in float32.

The provider is a stand-in that refuses like a device: tests/providers meets real ones.
"""

from __future__ import annotations

import ast
import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.cli import USAGE, applying, main
from onnx_harness.judging.mixed import quantized, target
from onnx_harness.judging.mixed.source import Source
from onnx_harness.model.file import Model
from onnx_harness.model.ops import MOVES
from onnx_harness.names import parse_variant
from onnx_harness.providers.sessions import open_session
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.settings import Settings
from onnx_harness.transforms.fp16 import convert_in_place
from tests.models import model, save

GROUPED = """(float[n,8,6] x) => (float[n,8,6] y) {
  a = Conv(x, w)  b = Conv<group = 4>(a, grouped)  t = Tanh(b)  d = Conv<group = 4>(t, grouped)  y = Conv(d, w) }"""
SQUARE = """(float[n,8] x) => (float[n,8] y) {
  h = MatMul(x, v)  a = Mul(h, c)  b = Mul(a, a)  y = Sqrt(b) }"""
MOVED = """(float[n,8] x) => (float[n,8] y) {
  a = MatMul(x, v)  b = Transpose<perm = [1, 0]>(a)  d = Softmax<axis = 0>(b)  f = Transpose<perm = [1, 0]>(d)
  y = MatMul(f, v) }"""

Refuses = Callable[[onnx.NodeProto], bool]


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def built(text: str) -> onnx.ModelProto:
    made = model(text, opset=17)
    draw = np.random.default_rng(3)
    weights = {
        "w": draw.normal(size=(8, 8, 1)) / 4,
        "grouped": draw.normal(size=(8, 2, 1)) / 2,
        "v": np.eye(8) + draw.normal(size=(8, 8)) / 10,
        "c": np.array([1000.0]),
    }
    made.graph.initializer.extend(
        numpy_helper.from_array(value.astype("f4"), key) for key, value in weights.items()
    )
    for node in made.graph.node:
        node.name = f"make_{node.output[0]}"
    return made


def stand_in(
    monkeypatch: pytest.MonkeyPatch,
    refuses: Refuses,
    words: str = "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for "
    "{node.op_type}(11) node with name '{node.name}'",
    *,
    of_float32: bool = False,
) -> list[int]:
    """Let the CPU refuse nodes of float16 models as a device would.

    Returns:
        An element for each session that was asked for.
    """
    asked: list[int] = []

    def opened(file: Path, *arguments: Any, **options: Any) -> Any:
        proto = onnx.shape_inference.infer_shapes(onnx.load(file))
        asked.append(len(proto.graph.node))
        halves = {info.name for info in proto.graph.value_info}
        for info in proto.graph.value_info:
            if info.type.tensor_type.elem_type != onnx.TensorProto.FLOAT16:
                halves.discard(info.name)
        for node in proto.graph.node:
            in_half = of_float32 or node.output[0] in halves
            if in_half and node.op_type != "Cast" and refuses(node):
                raise RuntimeError(words.format(node=node))
        return open_session(file, *arguments, **options)

    monkeypatch.setattr(target, "open_session", opened)
    monkeypatch.setattr(target.Target, "is_asked", lambda *_: True)
    return asked


def judged(source: onnx.ModelProto, folder: Path, variant: str = "fp16.mixed") -> CellResult:
    path = save(source, folder / "m.onnx")
    cell = Cell(card_for(path), parse_variant(variant), "cpu")
    return judge(Task(cell, path, Settings(input_sets=2))).result


def kept(result: CellResult) -> list[str]:
    """The nodes that a verdict says a conversion keeps in float32."""
    for note in result.notes:
        if note.startswith("the same again: fp16.io32(node_block_list="):
            names: list[str] = ast.literal_eval(note.partition("=")[2].removesuffix(")"))
            return names
    return []


def grouped(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)


def test_grouped_convolutions_that_are_refused_stay_float32_and_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = stand_in(monkeypatch, grouped)
    result = judged(built(GROUPED), tmp_path)
    assert result.status is Status.PASS, result
    assert kept(result) == ["make_b", "make_d"]
    (said,) = [note for note in result.notes if "refuses" in note]
    assert said == (
        "provider 'cpu' refuses float16 in 'make_b', 'make_d': [ONNXRuntimeError] : 9 : "
        "NOT_IMPLEMENTED : Could not find an implementation for Conv(11) node with name 'make_b'"
    )
    assert any(
        note.startswith("keeps 2 of 5 nodes in float32, found in") for note in result.notes
    )
    # Refused, the original, its two grouped nodes in float32, and once to verify.
    assert len(asked) == 4


@pytest.mark.parametrize(
    "words",
    ["no kernel for Conv in this form", "exception 3 in module 7", "Program Conv needs f16"],
)
def test_where_the_provider_names_no_node_it_is_searched_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str
) -> None:
    asked = stand_in(monkeypatch, grouped, words)
    result = judged(built(GROUPED), tmp_path)
    assert result.status is Status.PASS, result
    assert kept(result) == ["make_b", "make_d"]
    assert len(asked) <= target._MOST_SESSIONS


def test_what_is_refused_and_what_overflows_are_both_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = judged(built(SQUARE), tmp_path)
    stand_in(monkeypatch, lambda node: node.op_type == "MatMul")
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "another"))
    result = judged(built(SQUARE), tmp_path)
    assert result.status is Status.PASS, result
    assert kept(plain) == ["make_b", "make_y"]
    assert kept(result) == ["make_h", "make_b", "make_y"]


def test_a_move_that_is_refused_stays_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, lambda node: node.op_type == "Transpose")
    source = built(MOVED)
    result = judged(source, tmp_path)
    assert result.status is Status.PASS, result
    names = kept(result)
    assert {"make_b", "make_f"} <= set(names)
    operators = {node.name: node.op_type for node in source.graph.node}
    assert {operators[name] for name in names} <= MOVES | {"Softmax"}


def test_a_provider_that_refuses_every_node_is_no_place_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, lambda _: True, "Program {node.op_type} requires f16")
    result = judged(built(GROUPED), tmp_path)
    assert result.status is Status.NOT_APPLICABLE
    assert result.reason == (
        "provider 'cpu' refuses float16 in each of its 5 nodes: Program Conv requires f16"
    )


def test_a_model_that_the_provider_does_not_run_at_all_is_no_refusal_of_float16(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = stand_in(monkeypatch, grouped, of_float32=True)
    result = judged(built(GROUPED), tmp_path)
    assert kept(result) == []
    assert len(asked) == 2  # and none more is spent on it


def test_what_the_provider_leaves_to_the_cpu_in_float16_alone_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, lambda _: False)
    sessions: list[Path] = []
    opened = target.Target._opened

    def noted(self: target.Target, candidate: Any) -> Any:
        sessions.append(candidate.path)
        return opened(self, candidate)

    def off_provider(_: target.Target, __: Any) -> Counter[str]:
        """Two Tanh in float16, and one of them in float32 as well."""
        proto = onnx.shape_inference.infer_shapes(onnx.load(sessions[-1]))
        halves = {
            info.name: info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
            for info in proto.graph.value_info
        }
        counts: Counter[str] = Counter()
        for node in proto.graph.node:
            in_half = halves.get(node.output[0], False)
            counts["Tanh"] += node.op_type == "Tanh" and (in_half or node.name == "make_d")
        return +counts

    monkeypatch.setattr(target.Target, "_opened", noted)
    monkeypatch.setattr(target.Target, "_off_provider", off_provider)
    text = (
        "(float[n,8] x) => (float[n,8] y) { a = MatMul(x, v)  b = Tanh(a)  d = Tanh(b)  "
        "y = MatMul(d, v) }"
    )
    result = judged(built(text), tmp_path)
    assert result.status is Status.PASS, result
    assert any("it leaves Tanh to the CPU" in note for note in result.notes)
    assert set(kept(result)) == {"make_b", "make_d"}


def test_a_list_makes_the_same_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, grouped)
    path = save(built(GROUPED), tmp_path / "m.onnx")
    cell = Cell(card_for(path), parse_variant("fp16.mixed"), "cpu")
    made = judge(Task(cell, path, Settings(input_sets=2))).artifact
    assert made is not None
    listed = convert_in_place(
        onnx.load(path), keep_io_types=True, node_block_list=["make_b", "make_d"]
    )
    assert made.read_bytes() == listed.SerializeToString()


def test_a_provider_that_says_another_thing_each_time_ends_the_search(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    number = iter(range(10_000))
    stand_in(monkeypatch, lambda _: True, "error")
    monkeypatch.setattr(
        target.Target, "refusal", lambda self, names: _counted(self, next(number), names)
    )
    result = judged(built(GROUPED), tmp_path)
    assert result.status is Status.NOT_APPLICABLE
    assert next(number) <= 2 * target._MOST_SESSIONS


def _counted(asked: target.Target, number: int, names: Any) -> str:
    asked._sessions += 1
    return f"error {number}" if len(names) < 5 else ""


def test_no_trial_leaves_its_weights_behind(tmp_path: Path) -> None:
    source = built(SQUARE)
    weights = source.graph.initializer[2]
    weights.CopyFrom(
        numpy_helper.from_array(np.ones((1 << 12, 1 << 12), np.float32), weights.name)
    )
    held = Source(source, tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert before == ["source.weights"]
    with held.written(held.copy()) as file:
        assert Model(file).load().graph.initializer[2].dims == [1 << 12, 1 << 12]
    with contextlib.suppress(KeyError), held.written(source) as file:
        assert file.is_file()
        raise KeyError
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_transform_chooses_by_the_provider_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    def noted(self: target.Target, *_: Any) -> bool:
        names.append(self.provider.name)
        return False

    monkeypatch.setattr(target.Target, "is_asked", noted)
    path = save(built(GROUPED), tmp_path / "m.onnx")
    steps = parse_variant("fp16.mixed").steps
    arguments = (
        path,
        steps,
        tmp_path / "out.onnx",
        1 << 20,
        card_for(path),
        Settings(input_sets=1),
    )
    applying.apply(*arguments, provider="openvino")
    assert names == ["openvino"]


@pytest.mark.parametrize(
    ("variant", "provider", "words"),
    [
        (
            "fp16.io32",
            "cpu",
            "no step of 'fp16.io32' chooses by verdicts: --provider has no effect",
        ),
        ("fp16.mixed", "openvin", "there is no execution provider 'openvin'"),
        ("fp16.mixed", "cuda", "can't be used here"),
    ],
)
def test_transform_refuses_a_provider_that_it_cannot_ask(
    variant: str,
    provider: str,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, out = save(built(GROUPED), tmp_path / "m.onnx"), tmp_path / "out.onnx"
    command = ["transform", str(path), "--variant", variant, "-o", str(out)]
    assert main([*command, "--provider", provider]) == USAGE
    assert words in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_a_quantized_model_is_verified_on_the_cells_provider(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A stand-in refuses the quantized product that reads 'a', when it's opened to be verified."""
    opened_on: list[str] = []

    def opened(model: Any, provider: Any, *arguments: Any, **options: Any) -> Any:
        if options["level"] == "all":
            opened_on.append(provider.name)
            nodes = onnx.load(model).graph.node
            reads = {
                name for node in nodes if node.op_type == "MatMul" for name in node.input
            }
            if "a_DequantizeLinear_Output" in reads:
                raise RuntimeError("no kernel for the product")
        return open_session(model, provider, *arguments, **options)

    monkeypatch.setattr(quantized, "open_session", opened)
    text = "(float[n,8] x) => (float[n,8] y) { h = MatMul(x, v)  a = Tanh(h)  y = MatMul(a, v) }"
    result = judged(built(text), tmp_path, "int8.mixed")
    assert result.status is Status.PASS, result
    assert any("keeps 1 of 2 nodes in float" in note for note in result.notes), result.notes
    assert any("['make_y']" in note for note in result.notes), result.notes
    assert set(opened_on) == {"cpu"}


def test_a_quantized_model_that_a_provider_never_runs_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def opened(model: Any, provider: Any, *arguments: Any, **options: Any) -> Any:
        if options["level"] == "all":
            raise RuntimeError("no kernel at all")
        return open_session(model, provider, *arguments, **options)

    monkeypatch.setattr(quantized, "open_session", opened)
    text = "(float[n,8] x) => (float[n,8] y) { h = MatMul(x, v)  a = Tanh(h)  y = MatMul(a, v) }"
    result = judged(built(text), tmp_path, "int8.mixed")
    assert result.status is Status.NOT_APPLICABLE
    assert str(result.reason).endswith("provider 'cpu' doesn't run it: no kernel at all")
