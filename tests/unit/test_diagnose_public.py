"""A smallest model that is to be published says nothing of the model that it is of."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.cli import diagnose as command
from onnx_harness.diagnose import handout, pair_weights
from onnx_harness.diagnose.fault import Fault
from onnx_harness.diagnose.oracle import Observer
from onnx_harness.diagnose.publish import publish
from onnx_harness.diagnose.redraw import replacements, says_nothing
from onnx_harness.diagnose.reduce import Reduced, Reducer, smallest
from onnx_harness.diagnose.search import diagnose
from onnx_harness.diagnose.smaller_case import Case
from onnx_harness.model.walk import walk
from onnx_harness.names import parse_variant
from onnx_harness.results.diagnosis import Diagnosis, Smallest
from onnx_harness.settings import Settings
from onnx_harness.transforms import BoundStep, Transform
from onnx_harness.transforms.variant import bind_variant
from tests.leaks import confidential, leaks
from tests.models import model, save


def confidential_case() -> Case:
    values = np.linspace(-1.37, 2.61, 8, dtype="f4").reshape(2, 4)
    return Case(confidential(), {"secret_in": values, "go": np.array(True)})


def subtract(made: onnx.ModelProto) -> onnx.ModelProto:
    """Make every Add a Sub, in bodies too."""
    for node in walk(made.graph):
        if node.op_type == "Add":
            node.op_type = "Sub"
    return made


def fault_of(apply: Any) -> Fault:
    return Fault(BoundStep("planted", Transform("", apply, {}), {}), (), "disable")


def published(case: Case, fault: Fault, folder: Path | None = None) -> tuple[str, ...]:
    """Publish a case as it is, without making it smaller, and write its folder if there is one."""
    observer = Observer(fault)
    whole = observer.look(case, 20)
    assert whole is not None
    assert whole.fails
    reducer = Reducer(observer, case, whole, whole, time.monotonic() + 60, 20)
    try:
        stays = publish(reducer)
    finally:
        reducer.observer.close()
    if folder is None:
        return stays
    shown = Reduced(reducer.case, whole, reducer.sign, 1, 1.0, reducer.observer.fault, stays)
    handout.write(folder, shown.fault, shown, "")
    return stays


def dense(*, changed: tuple[int, ...] | None = None) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    made = model(
        """(float[4,16] secret_in) => (float[4,8] secret_out) {
        [secret_a] inner_a = MatMul(secret_in, secret_w1)
        [secret_r] inner_r = Relu(inner_a)  [secret_b] secret_out = MatMul(inner_r, secret_w2) }"""
    )
    for name, shape in (("secret_w1", (16, 32)), ("secret_w2", (32, 8))):
        array = rng.normal(size=shape).astype("f4") / 4
        if changed is not None and name == "secret_w1":
            array[changed] += 2
        made.graph.initializer.append(numpy_helper.from_array(array, name))
    return made


def diagnosed(path: Path, variant: str, folder: Path, **options: Any) -> Diagnosis:
    variant_read = parse_variant(variant)
    task = Task(Cell(card_for(path), variant_read, "cpu"), path, Settings(input_sets=1))
    bound = bind_variant(variant_read)
    return diagnose(task, bound=bound, folder=folder, public=True, **options)


def test_whatever_a_model_holds_is_replaced(tmp_path: Path) -> None:
    folder, case = tmp_path / "repro", confidential_case()

    stays = published(case, fault_of(subtract), folder)

    assert stays == ()
    assert case.model == confidential()  # which a diagnosis goes on with
    assert leaks(folder, confidential()) == []
    onnx.checker.check_model(onnx.load(folder / handout.MODEL))


def test_weights_in_which_two_models_differ_are_replaced_and_small(tmp_path: Path) -> None:
    path = save(dense(), tmp_path / "a.onnx")
    other = save(dense(changed=(3, 4)), tmp_path / "b.onnx")
    folder = tmp_path / "repro"

    diagnosis = diagnosed(path, "original", folder, candidate=other)

    assert diagnosis.smallest is not None, diagnosis.evidence
    assert diagnosis.smallest.kept == ()
    assert leaks(folder, dense(), dense(changed=(3, 4))) == []
    made = onnx.load(folder / handout.MODEL)
    assert sum(int(np.prod(tensor.dims)) for tensor in made.graph.initializer) <= 4
    assert any("smallest model: 1 of 3 nodes" in line for line in diagnosis.evidence)


def test_nodes_that_a_conversion_is_at_fault_on_lose_their_names(tmp_path: Path) -> None:
    """Sub loses in float16 what two values of 1,000 have in common."""
    made = model(
        """(float[4,16] secret_in) => (float[4,16] secret_out) <float secret_off = {1000.37}> {
        [secret_up] inner_a = Add(secret_in, secret_off)
        [secret_down] secret_out = Sub(inner_a, secret_off) }"""
    )
    folder = tmp_path / "repro"

    diagnosis = diagnosed(save(made, tmp_path / "m.onnx"), "fp16.io32", folder)

    assert diagnosis.smallest is not None, diagnosis.evidence
    assert not any(line.startswith("names") for line in diagnosis.smallest.kept)
    assert not [line for line in leaks(folder, made) if ": name" in line]


def test_what_the_failure_needs_is_listed() -> None:
    made = model(
        """(float[2,4] x) => (float[2,4] y) <float[4] secret_w = {3.25, 4.75, 7.125, 9.5}>
        { [secret_node] y = Add(x, secret_w) }"""
    )
    case = Case(made, {"x": np.ones((2, 4), np.float32)})

    def pick(changed: onnx.ModelProto) -> onnx.ModelProto:
        node, array = (
            changed.graph.node[0],
            numpy_helper.to_array(changed.graph.initializer[0]),
        )
        return (
            subtract(changed)
            if node.name == "secret_node" and array[2] == 7.125
            else changed
        )

    stays = published(case, fault_of(pick))

    assert stays == ("names: 'secret_node'", "weight w0: 1 of 4 values (float32)")


def test_the_command_warns_of_what_stays(capsys: pytest.CaptureFixture[str]) -> None:
    smallest_model = Smallest(
        "repro", 1, 9, ("names: 'secret_node'", "weight w0: 1 of 4 values")
    )

    command._warn(Diagnosis("", smallest=smallest_model))

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(
        "warning: repro still has of the original: names: 'secret_node'"
    )
    assert "weight w0: 1 of 4 values" in captured.err


def test_of_a_pair_one_place_is_left_that_differs() -> None:
    first, second = dense(), dense(changed=(3, 4))
    inputs = {"secret_in": np.linspace(0.1, 1, 64, dtype="f4").reshape(4, 16)}
    case = Case(first, inputs, second)
    assert pair_weights.places(case, "secret_w1") == [3 * 32 + 4]

    reduced = smallest(Fault(None, (), "disable"), case, 30)

    assert reduced is not None
    (name,) = pair_weights.differing(reduced.case)
    assert len(pair_weights.places(reduced.case, name)) == 1


@pytest.mark.parametrize(
    "array",
    [
        np.array([0.3, -2000, np.inf], np.float32),
        np.array([3, 900, -4], np.int64),
        np.array([True, False] * 20),
        np.array([3, -7, 5]).astype(ml_dtypes.int4),
        np.array([3, 60000], np.float16),
        np.array([1 + 2j, 3j], np.complex64),
        np.array([0, 2**64 - 1], np.uint64),
    ],
    ids=lambda array: array.dtype.name,
)
def test_a_replacement_has_the_type_and_the_shape_and_is_another(array: np.ndarray) -> None:
    drawn = [one.array for one in replacements(array, 0)]

    assert drawn
    for other in drawn:
        assert (other.dtype, other.shape) == (array.dtype, array.shape)
        assert not np.array_equal(other, array)
    assert not says_nothing(array)
    again = [one.array for one in replacements(array, 0)]
    assert [other.tobytes() for other in again] == [other.tobytes() for other in drawn]


def test_masks_say_something_and_flags_do_not() -> None:
    assert says_nothing(np.array([0, 0, 1, 1], np.int64))
    assert says_nothing(np.ones((4, 4), np.float32))
    assert not says_nothing(np.tile([1.0, -1.0], 20))
    assert not says_nothing(np.array([2.0], np.float32))
