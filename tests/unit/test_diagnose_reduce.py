"""The smallest model that still fails: planted faults in larger models, and what is written of
them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.diagnose import bodies, handout, renaming
from onnx_harness.diagnose.search import diagnose
from onnx_harness.diagnose.smaller_case import Case
from onnx_harness.model.walk import walk
from onnx_harness.mutation.planting import atlas_of, choose, planted
from onnx_harness.names import parse_variant
from onnx_harness.results.diagnosis import Diagnosis
from onnx_harness.settings import Settings
from onnx_harness.transforms import BoundStep, Parts, Transform
from onnx_harness.transforms.variant import bind_variant
from tests.models import model, save

PASSES = ("harmless", "harmful")
DEEP = 12


def deep(layers: range = range(DEEP)) -> onnx.ModelProto:
    """Return layers of a product, a bias and a Tanh, by their numbers."""
    rng = np.random.default_rng(3)
    lines, before = [], "x"
    weights: dict[str, Any] = {}
    for number in layers:
        weights[f"secret_w{number}"] = rng.normal(size=(6, 6)).astype("f4") / 2
        weights[f"secret_b{number}"] = rng.normal(size=6).astype("f4")
        after = "y" if number == layers[-1] else f"h{number}"
        lines.append(
            f"p{number} = MatMul({before}, secret_w{number})  s{number} = Add(p{number}, "
            f"secret_b{number})"
        )
        lines.append(f"{after} = Tanh(s{number})")
        before = after
    made = model(f"(float[n,6] x) => (float[n,6] y) {{ {'  '.join(lines)} }}")
    made.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in weights.items()
    )
    return made


def harm(made: onnx.ModelProto, how: str, skipped: Sequence[str] = ()) -> onnx.ModelProto:
    """Do harm where a bias is added to a product that is deep in the model, or alone in a part of
    it.
    """
    if "harmful" in skipped:
        return made
    readers = {name: node for node in made.graph.node for name in node.input}
    pairs = [node for node in made.graph.node if node.op_type == "MatMul"]
    pairs = [node for node in pairs if readers.get(node.output[0], node).op_type == "Add"]
    chosen = next((node for node in pairs if node.output[0] in ("p7", "v0", "v1")), None)
    if chosen is None:
        return made
    if how == "raise":
        raise RuntimeError("planted")
    if how == "die":
        os.abort()
    if how == "hang":
        time.sleep(30)
    adder = readers[chosen.output[0]]
    adder.op_type = "Sub"
    return made


def names(_: onnx.ModelProto, __: Mapping[str, Any]) -> Sequence[str]:
    return PASSES


def without(options: Mapping[str, Any], left: Sequence[str]) -> Mapping[str, Any]:
    return {**options, "skipped": tuple(left)}


def harmful(how: str) -> BoundStep:
    transform = Transform(
        "", partial(harm, how=how), {}, parts=Parts("pass", names, without)
    )
    return BoundStep("planted", transform, {})


def diagnosed(path: Path, variant: str, *steps: BoundStep, **options: Any) -> Diagnosis:
    bound = bind_variant(parse_variant(variant))
    task = Task(
        Cell(card_for(path), parse_variant(variant), "cpu"), path, Settings(input_sets=1)
    )
    return diagnose(task, bound=replace(bound, steps=(*bound.steps, *steps)), **options)


def script(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script isolated: no path of this repository, no site's own, and nothing of ours to
    import.
    """
    command = [sys.executable, "-I", str(folder / handout.SCRIPT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("values", "outputs depart"),
        ("raise", "planted"),
        ("die", "SIGABRT"),
        # A minute of waiting.
        pytest.param("hang", "did not end", marks=pytest.mark.nightly),
    ],
)
def test_a_planted_pass_is_shown_by_two_of_36_nodes(
    tmp_path: Path, how: str, words: str
) -> None:
    folder = tmp_path / "repro"
    path = save(deep(), tmp_path / "m.onnx")

    diagnosis = diagnosed(path, "original", harmful(how), folder=folder, seconds=60)

    assert diagnosis.cause.passes == ("harmful",)
    assert diagnosis.smallest is not None, diagnosis.evidence
    assert Path(diagnosis.smallest.path) == folder
    assert words in (folder / handout.ISSUE).read_text("utf-8")
    if how == "hang":  # a hang takes its time in each check
        assert diagnosis.smallest.nodes < 36
        return
    assert diagnosis.smallest.nodes == 2
    made = onnx.load(folder / handout.MODEL)
    assert [node.op_type for node in made.graph.node] == ["MatMul", "Add"]
    with np.load(folder / handout.INPUTS) as inputs:
        assert sum(array.size for array in inputs.values()) <= 2
    if how == "values":
        again = diagnosed(folder / handout.MODEL, "original", harmful(how))
        # The cause at the end is that at the start.
        assert again.cause.passes == ("harmful",)
        assert script(folder, "--control").returncode == 0
        assert script(folder).returncode == 1


@pytest.mark.nightly
def test_a_pass_that_hangs_is_shown_by_fewer_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnx_harness.diagnose.trial_runner.LEAST_HANG_SECONDS", 0.5)
    folder = tmp_path / "repro"
    path = save(deep(range(6, 9)), tmp_path / "m.onnx")

    diagnosis = diagnosed(path, "original", harmful("hang"), folder=folder, seconds=60)

    assert diagnosis.cause.passes == ("harmful",)
    assert diagnosis.smallest is not None, diagnosis.evidence
    assert diagnosis.smallest.nodes < 9
    assert "did not end" in (folder / handout.ISSUE).read_text("utf-8")


def test_a_library_is_called_by_the_script_itself(tmp_path: Path) -> None:
    """A Pad by zeros goes into a MaxPool, which pads with minus infinity: onnxoptimizer 0.4.2."""
    made = model(
        """(float[1,2,9,9] x) => (float[1,2,8,8] y) <int64[8] p = {0,0,1,1,0,0,0,0}>
        { a = Relu(x)  n = Neg(a)  b = Pad(n, p)  c = MaxPool <kernel_shape = [3,3]> (b)  y = Sigmoid(c) }"""
    )
    folder = tmp_path / "repro"

    diagnosis = diagnosed(
        save(made, tmp_path / "m.onnx"), "pass.fuse_pad_into_pool", folder=folder
    )

    assert diagnosis.smallest is not None, diagnosis.evidence
    assert diagnosis.smallest.nodes == 2
    assert "import onnxoptimizer" in (folder / handout.SCRIPT).read_text("utf-8")
    assert "onnx_harness" not in (folder / handout.SCRIPT).read_text("utf-8")
    assert script(folder).returncode == 1
    # A release of the library in which the fault is mended.
    (folder / "onnxoptimizer.py").write_text(
        "def optimize(model, *_, **__):\n    return model\n"
    )
    command = [sys.executable, str(folder / handout.SCRIPT)]
    mended = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env={}
    )
    assert mended.returncode == 0, mended.stdout + mended.stderr


def test_float16_is_shown_as_hardware_computes_it(tmp_path: Path) -> None:
    made = model(
        """(float[n,64] x) => (float[n,64] y) <float big = {300.0}>
        { a = Tanh(x)  c = Mul(a, big)  m = ReduceMean <axes = [1]> (c)  s = Add(c, big)
          q = Mul(s, s)  r = Sqrt(q)  u = Sub(r, s)  k = Add(u, a)  y = Sigmoid(k) }"""
    )
    folder = tmp_path / "repro"

    diagnosis = diagnosed(
        save(made, tmp_path / "m.onnx"), "fp16.io32", folder=folder, seconds=120
    )

    assert diagnosis.smallest is not None, diagnosis.evidence
    assert diagnosis.smallest.nodes <= 3
    shown = script(folder)
    assert shown.returncode == 1, shown.stdout + shown.stderr
    assert "float16 makes inf of it" in shown.stdout
    assert script(folder, "--control").returncode == 0
    assert diagnosis.mend is not None, diagnosis.evidence
    assert diagnosis.mend.verified
    assert diagnosis.mend.variant.startswith("fp16.mixed")


def test_of_two_models_the_node_at_fault_is_left(tmp_path: Path) -> None:
    path = save(deep(), tmp_path / "m.onnx")
    atlas = atlas_of(path)
    fault = choose(atlas, 3, 0)[2]
    candidate = save(planted(atlas, fault), tmp_path / "candidate.onnx")
    folder = tmp_path / "repro"

    diagnosis = diagnosed(path, "original", candidate=candidate, folder=folder)

    assert diagnosis.smallest is not None, diagnosis.evidence
    assert diagnosis.smallest.nodes <= 3
    assert script(folder).returncode == 1
    assert script(folder, handout.MODEL).returncode == 0


def test_what_is_public_has_other_names_and_other_weights(tmp_path: Path) -> None:
    path = save(deep(), tmp_path / "secret_project.onnx")
    folder = tmp_path / "repro"

    diagnosis = diagnosed(path, "optimize", harmful("values"), folder=folder, public=True)

    assert diagnosis.smallest is not None, diagnosis.evidence
    made = onnx.load(folder / handout.MODEL)
    mine = {tensor.name for tensor in deep().graph.initializer} | {"x", "y", "p7", "s7"}
    shown = {name for node in made.graph.node for name in (*node.input, *node.output)}
    assert not mine & shown
    assert "secret_project" not in (folder / handout.ISSUE).read_text("utf-8")
    for tensor in made.graph.initializer:
        array = numpy_helper.to_array(tensor)
        telling = array[~np.isin(np.abs(array), (0, 1))]
        assert not any(
            np.isin(telling, numpy_helper.to_array(old)).any()
            for old in deep().graph.initializer
        )


def test_the_whole_cell_is_kept_beside_it_and_the_document_says_where_it_is(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "repro"
    folder.mkdir()
    (folder / "README.md").write_text("the whole cell")

    diagnosis = diagnosed(
        save(deep(), tmp_path / "m.onnx"), "original", harmful("values"), folder=folder
    )

    assert (folder / handout.WHOLE / "README.md").read_text() == "the whole cell"
    assert (folder / handout.ISSUE).is_file()
    document = json.loads(json.dumps(diagnosis.as_json()))
    assert set(document["smallest"]) == {"path", "nodes", "checks", "kept"}
    assert document["mend"] is None


def test_an_if_gives_way_to_the_branch_that_is_taken(tmp_path: Path) -> None:
    made = model(
        """(float[n,6] x) => (float[n,6] y) <bool go = {1}>
        { h = Tanh(x)  y = If (go) <
            then_branch = yes () => (float[n,6] t) { p7 = MatMul(h, w)  t = Add(p7, b) },
            else_branch = no () => (float[n,6] e) { e = Neg(h) }> }"""
    )
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(6, 6)), "b": rng.normal(size=6)}
    made.graph.initializer.extend(
        numpy_helper.from_array(array.astype("f4"), name) for name, array in weights.items()
    )
    folder = tmp_path / "repro"

    diagnosis = diagnosed(
        save(made, tmp_path / "m.onnx"), "original", in_bodies(), folder=folder
    )

    assert diagnosis.smallest is not None, diagnosis.evidence
    assert "If" not in {
        node.op_type for node in onnx.load(folder / handout.MODEL).graph.node
    }


def in_bodies() -> BoundStep:
    return BoundStep("planted", Transform("", subtract, {}), {})


def subtract(made: onnx.ModelProto) -> onnx.ModelProto:
    """Make every Add a Sub, in bodies too."""
    for node in walk(made.graph):
        if node.op_type == "Add":
            node.op_type = "Sub"
    return made


def test_names_are_replaced_and_no_body_is_made_up() -> None:
    made = model(
        "(float[1,1,4,4] x) => (float[1,1,2,2] y) { y = MaxPool <kernel_shape = [3,3]> (x) }"
    )

    whole = Case(made, {"x": np.ones((1, 1, 4, 4), np.float32)})
    changed = renaming.renamed_case(whole, renaming.new_names(whole))

    onnx.checker.check_model(changed.model, full_check=True)
    (attribute,) = changed.model.graph.node[0].attribute
    assert not attribute.HasField("g")
    assert list(changed.inputs) == ["x0"]


LOOP = """(float[4] x) => (float[4] y, float[m,4] rows) {
    count = Constant<value = int64 {3}>()  go = Constant<value = bool {1}>()
    before = Tanh(x)
    y, rows = Loop(count, go, before) <body = body (int64 i, bool c, float[4] state)
        => (bool c_out, float[4] state_out, float[4] row) {
        c_out = Identity(c)  a = Sin(state)  b = Neg(a)  state_out = Add(b, x)  row = Mul(state_out, b) }>
    }"""
SCAN = """(float[3,4] x, float[4] s) => (float[4] y, float[3,4] rows) {
    y, rows = Scan(s, x) <num_scan_inputs = 1, body = body (float[4] state, float[4] part)
        => (float[4] state_out, float[4] row) {
        a = Sin(part)  b = Neg(a)  state_out = Add(state, b)  row = Mul(state_out, b) }>
    }"""


@pytest.mark.parametrize("text", [LOOP, SCAN], ids=["Loop", "Scan"])
def test_a_loop_gives_way_to_one_iteration(tmp_path: Path, text: str) -> None:
    path, folder = save(model(text), tmp_path / "m.onnx"), tmp_path / "repro"

    diagnosis = diagnosed(path, "original", in_bodies(), folder=folder)

    assert diagnosis.smallest is not None, diagnosis.evidence
    reduced = onnx.load(folder / handout.MODEL)
    assert [node.op_type for node in reduced.graph.node] == ["Add"]


@pytest.mark.parametrize("text", [LOOP, SCAN], ids=["Loop", "Scan"])
def test_one_iteration_computes_what_the_loop_computes_first(text: str) -> None:
    whole = model(text)
    rng = np.random.default_rng(0)
    shapes = {"x": (4,)} if text is LOOP else {"x": (3, 4), "s": (4,)}
    inputs = {
        name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()
    }
    if text is LOOP:
        whole.graph.node[0].attribute[0].t.CopyFrom(numpy_helper.from_array(np.array(1)))

    [case] = bodies.unrolled(Case(whole, inputs))

    [rows] = list(ReferenceEvaluator(whole).run(["rows"], inputs))
    [unrolled] = list(ReferenceEvaluator(case.model).run(["rows"], inputs))
    np.testing.assert_allclose(unrolled, rows[:1], rtol=1e-6)


def test_a_body_that_has_to_stay_loses_its_nodes() -> None:
    whole = model(LOOP)

    left = [
        [node.op_type for node in case.model.graph.node[-1].attribute[0].g.node]
        for case in bodies.bypasses(Case(whole, {}))
    ]

    assert ["Identity", "Neg", "Add", "Mul"] in left
    assert ["Identity", "Sin", "Add", "Mul"] in left
