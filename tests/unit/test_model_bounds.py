"""What a file may ask of the machine is told from its bytes, in milliseconds, and honest models
pass.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from onnx_harness.errors import ModelError
from onnx_harness.model import bounds
from onnx_harness.model.bounds import check_bounds
from onnx_harness.model.scan import scan
from tests.hostile import model as made
from tests.hostile import tensor
from tests.hostile_kinds import kinds
from tests.models import linear, model, save, with_external_data

MEMORY = 1 << 30
REFUSED = (
    "bomb",
    "functions",
    "loop",
    "depth",
    "tensor: 2^",
    "input: 2^",
    "name: a megabyte",
    "name: not UTF-8",
)
HOSTILE = dict(kinds())


def write(tmp_path: Path, kind: str) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    HOSTILE[kind](folder / "m.onnx")
    return folder / "m.onnx"


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if kind.startswith(REFUSED)])
def test_it_is_refused_in_milliseconds_with_its_limit(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    started = time.process_time()
    with pytest.raises(ModelError) as refusal:
        check_bounds(path, MEMORY)
    assert time.process_time() - started < 0.5
    words = str(refusal.value)
    own = ("--cell-memory", "--trust-models", "calls itself", "from 100 on")
    assert any(mark in words for mark in own), words
    assert len(words) < 600


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if not kind.startswith("depth")])
def test_nothing_but_a_refusal_comes_of_any_file(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    with contextlib.suppress(ModelError):
        check_bounds(path, MEMORY)


def test_there_are_as_many_kinds_as_are_known() -> None:
    assert len(HOSTILE) >= 190


@pytest.mark.parametrize(
    "kind", ["bomb: Range", "loop: 2^62 trips", "functions: a billion of nodes"]
)
def test_whoever_trusts_the_model_opens_it(tmp_path: Path, kind: str) -> None:
    check_bounds(write(tmp_path, kind), MEMORY, trusted=True)


def test_honest_models_pass(tmp_path: Path) -> None:
    for number, honest in enumerate(
        [linear(), model("(float[n,4] x) => (float[n,4] y) { y = Relu(x) }")]
    ):
        check_bounds(save(honest, tmp_path / f"{number}.onnx"), MEMORY)
    check_bounds(with_external_data(tmp_path / "ext.onnx", "w.bin"), MEMORY)


def test_what_fits_by_a_byte_passes_and_what_doesnt_is_refused(tmp_path: Path) -> None:
    shape = helper.make_node("ConstantOfShape", ["s"], ["c"])
    nodes = [
        shape,
        helper.make_node("ReduceSum", ["c"], ["t"]),
        helper.make_node("Add", ["x", "t"], ["y"]),
    ]
    path = save(made(nodes, [tensor("s", [1000])]), tmp_path / "m.onnx")
    check_bounds(path, 4000)
    with pytest.raises(
        ModelError, match="'c' of ConstantOfShape, of shape 1000, takes 4,000 bytes"
    ):
        check_bounds(path, 3999)


HUNDRED_INTEGERS = [tensor(name, list(range(50))) for name in ("c", "d")]  # of 8 bytes
ADDED = [
    helper.make_node("Add", ["c", "d"], ["e"]),
    helper.make_node("Cast", ["e"], ["f"], to=TensorProto.FLOAT),
    helper.make_node("ReduceSum", ["f"], ["y"]),
]


def test_constants_have_to_fit_together(tmp_path: Path) -> None:
    path = save(made(ADDED, HUNDRED_INTEGERS), tmp_path / "m.onnx")
    check_bounds(path, 800)
    with pytest.raises(ModelError, match="its constants together takes 800 bytes"):
        check_bounds(path, 799)


def test_inputs_and_outputs_have_to_fit_together(tmp_path: Path) -> None:
    """A constant that is listed as an input, as before IR version 4, counts once."""
    infos = [
        helper.make_tensor_value_info(name, TensorProto.INT64, [50]) for name in ("c", "x")
    ]
    nodes = [
        helper.make_node("Add", ["c", "x"], ["y"]),
        helper.make_node("Neg", ["y"], ["z"]),
    ]
    listed = made(nodes, HUNDRED_INTEGERS[:1], inputs=infos, output="y")
    for name in ("z", "w"):
        output = listed.graph.output.add()
        output.CopyFrom(infos[0])
        output.name = name
    path = save(listed, tmp_path / "m.onnx")
    check_bounds(path, 1200)  # x, y and z: nobody knows how large w is
    with pytest.raises(ModelError, match="inputs and outputs take 1,200 bytes together"):
        check_bounds(path, 1199)


def test_a_file_that_has_changed_is_looked_at_anew(tmp_path: Path) -> None:
    path = save(linear(), tmp_path / "m.onnx")
    check_bounds(path, MEMORY)
    HOSTILE["bomb: Range"](path)
    with pytest.raises(ModelError, match="asks for more memory"):
        check_bounds(path, MEMORY)


def test_what_an_initializer_holds_counts_where_it_is_listed_as_an_input(
    tmp_path: Path,
) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("s", TensorProto.INT64, [1])]
    path = save(made(nodes, [tensor("s", [1 << 40])], inputs=inputs), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="'c' of ConstantOfShape"):
        check_bounds(path, MEMORY)


def in_a_loop(
    trips: int,
    body: str,
    *,
    begins: int = 1,
    call: str = "Loop",
    functions: str = "",
) -> onnx.ModelProto:
    """A loop over ``body``, which makes ``w`` of ``v`` and ``more`` of ``go``."""
    return onnx.parser.parse_model(f"""<ir_version: 9, opset_import: ["" : 17, "my" : 1]>
    g (float[n,4] x) => (float[n,4] y) {{
        m = Constant <value = int64 {{{trips}}}> ()
        begins = Constant <value = bool {{{begins}}}> ()
        yes = Constant <value = bool {{1}}> ()
        y = {call} (m, begins, x) <body = b (int64 i, bool go, float[n,4] v)
            => (bool more, float[n,4] w) {{ {body} }}>
    }}
    {functions}""")


ON = "more = Identity (go)"
FUNCTION = """
    <domain: "my", opset_import: ["" : 17]> inner (a) => (b) {
        m = Constant <value = int64 {20000}> ()
        b = Loop (m, , a) <body = c (int64 i, bool go, float[n,4] v)
            => (bool more, float[n,4] w) { w = Relu (v)  more = Identity (go) }>
    }"""


@pytest.mark.parametrize(
    ("made", "refused"),
    [
        (in_a_loop(50_000_000, f"{ON}  w = Relu (v)"), False),
        (in_a_loop(50_000_001, f"{ON}  w = Relu (v)"), True),  # two nodes each time
        (in_a_loop(1 << 40, "more = Identity (yes)  w = Relu (v)"), True),
        (in_a_loop(1 << 40, f"{ON}  w = Relu (v)", begins=0), False),
        (
            in_a_loop(1 << 40, "more = Constant <value = bool {1}> ()  w = Relu (v)"),
            True,
        ),
        (
            in_a_loop(1 << 40, "more = Constant <value = bool {0}> ()  w = Relu (v)"),
            False,
        ),
        (in_a_loop(1 << 40, f"{ON}  w = Relu (v)", call="my.Loop"), False),
        (in_a_loop(2_000, f"{ON}  w = my.inner (v)", functions=FUNCTION), False),
        (in_a_loop(3_000, f"{ON}  w = my.inner (v)", functions=FUNCTION), True),
    ],
)
def test_a_loop_is_refused_by_the_steps_that_constants_make_it_take(
    tmp_path: Path, made: onnx.ModelProto, refused: bool
) -> None:
    path = save(made, tmp_path / "m.onnx")
    if not refused:
        check_bounds(path, MEMORY)
        return
    with pytest.raises(ModelError, match="by constants alone"):
        check_bounds(path, MEMORY)


def test_a_function_is_followed_with_what_it_is_called_on(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 17, "my" : 1]>
    g (float[n,4] x) => (float[n,4] y) {
        s = Constant <value_ints = [1099511627776]> ()
        z = my.zeros (s)  t = ReduceSum <keepdims = 0> (z)  y = Add (x, t)
    }
    <domain: "my", opset_import: ["" : 17]> zeros (shape) => (b) { b = ConstantOfShape (shape) }
    """
    path = save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="of ConstantOfShape, of shape 1099511627776"):
        check_bounds(path, MEMORY)


def test_a_function_that_nobody_calls_may_not_call_itself_either(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 17, "my" : 1]>
    g (float[n,4] x) => (float[n,4] y) { y = Relu (x) }
    <domain: "my", opset_import: ["" : 17, "my" : 1]> f (a) => (b) { b = my.f (a) }
    """
    path = save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="calls itself"):
        check_bounds(path, MEMORY)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"group": 0}, "a Conv whose group is 0"),
        ({"group": 1}, ""),
        ({"pads": [0, -(1 << 31)]}, ""),
        ({"pads": [0, -(1 << 31) - 1]}, "whose pads is 2,147,483,649"),
        ({"dilations": [(1 << 31) + 1]}, "whose dilations is 2,147,483,649"),
    ],
)
def test_the_window_of_a_kernel_is_looked_at(
    tmp_path: Path, attributes: dict[str, Any], words: str
) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    path = save(made([node]), tmp_path / "m.onnx")
    if not words:
        check_bounds(path, MEMORY)
        return
    with pytest.raises(ModelError, match=words):
        check_bounds(path, MEMORY)


def test_a_loop_whose_condition_may_end_it_passes(tmp_path: Path) -> None:
    text = """(float[n,4] x) => (float[n,4] y) {
        m = Constant <value = int64 {9223372036854775807}> ()
        yes = Constant <value = bool {1}> ()
        y = Loop (m, yes, x) <body = b (int64 i, bool go, float[n,4] v) => (bool more, float[n,4] w) {
            w = Relu (v)  s = ReduceSum <keepdims = 0> (w)  z = Constant <value = float {9.0}> ()  more = Less (s, z)
        }>
    }"""
    check_bounds(save(model(text), tmp_path / "m.onnx"), MEMORY)


def test_part_of_a_shape_isnt_the_whole_of_it(tmp_path: Path) -> None:
    text = """(float[64,64,64] x) => (float[64,64,64] y) {
        first = Shape <start = 0, end = 1> (x)  rest = Shape <start = 1> (x)
        shape = Concat <axis = 0> (first, rest)  z = Expand (x, shape)  y = Relu (z)
    }"""
    check_bounds(save(model(text), tmp_path / "m.onnx"), 2 * 64**3 * 4)  # x and y


def test_a_reshaped_value_keeps_its_size(tmp_path: Path) -> None:
    text = """(float[64,64,64] x) => (float[1] y) {
        flat = Flatten (x)  target = Constant <value_ints = [64, -1]> ()  two = Reshape (x, target)
        sum = Add (flat, two)  all = ReduceSum (sum)  one = Constant <value_ints = [1]> ()  y = Reshape (all, one)
    }"""
    check_bounds(save(model(text), tmp_path / "m.onnx"), 64**3 * 4)


def test_the_scan_reads_what_onnx_wrote(tmp_path: Path) -> None:
    path = save(linear(), tmp_path / "m.onnx")
    found, parsed = scan(path), onnx.load(path)
    assert [node.op for node in found.graph.nodes] == [
        node.op_type for node in parsed.graph.node
    ]
    assert {name: each.dims for name, each in found.graph.tensors.items()} == {
        each.name: [*each.dims] for each in parsed.graph.initializer
    }
    assert found.graph.inputs["x"] == (
        TensorProto.FLOAT,
        None,
    )  # one of its dimensions is no number


def test_a_limit_that_nobody_checks_would_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MOST_STEPS", 1 << 70)
    check_bounds(write(tmp_path, "loop: 2^62 trips"), MEMORY)
