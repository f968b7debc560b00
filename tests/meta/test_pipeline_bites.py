"""Planted faults, taken through the whole way of a cell: each ends where it's caught, and only its
checks catch it.

Each fault is listed with the checks that see it, in the order of the stages. It's judged with all
of them in place, then with the first taken out, and so on: it ends one stage further each time, and
at last it passes.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_harness import transforms
from onnx_harness.accuracy import compare
from onnx_harness.cell import artifacts, checks
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.settings import Settings
from onnx_harness.transforms import Transform
from tests.models import linear, save, two_outputs

Change = Callable[[onnx.ModelProto], object]

INTERFACE = (Stage.CHECK, checks, "interface_changes")
CHECKER = (Stage.CHECK, artifacts, "checker_says")


def comparing(name: str) -> tuple[Stage, Any, str]:
    return (Stage.COMPARE, compare, f"check_{name}")


# A change of values that noise doesn't explain is seen twice over: it isn't faithful, and here not
# usable either.
VALUES = [comparing("faithful"), comparing("elements")]


def weights(change: Callable[[Any, Any], tuple[Any, Any]]) -> Change:
    """A change of the weight and the bias of ``linear``."""

    def apply(model: onnx.ModelProto) -> None:
        arrays = [numpy_helper.to_array(each).copy() for each in model.graph.initializer]
        for each, array in zip(model.graph.initializer, change(*arrays), strict=True):
            each.CopyFrom(
                numpy_helper.from_array(np.ascontiguousarray(array, np.float32), each.name)
            )

    return apply


def wrong_weight(w: Any, b: Any) -> tuple[Any, Any]:
    w[2, 1] *= 1.05
    return w, b


def one_nan(w: Any, b: Any) -> tuple[Any, Any]:
    b[1] = np.nan
    return w, b


def after_the_end(
    op: str, output: onnx.ValueInfoProto, *more: onnx.TensorProto, **attributes: Any
) -> Change:
    """One more node behind ``y``, which gives what's declared as ``output``.

    ``more`` are inputs of it.
    """

    def apply(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "inner"
        inputs = ["inner", *(each.name for each in more)]
        model.graph.node.append(helper.make_node(op, inputs, [output.name], **attributes))
        model.graph.initializer.extend(more)
        model.graph.output[0].CopyFrom(output)

    return apply


def declared(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


FIRST_AXIS = helper.make_tensor("axes", TensorProto.INT64, [1], [0])


def weight_among_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(declared("b", TensorProto.FLOAT, 3))


def outputs_swapped(model: onnx.ModelProto) -> None:
    up, down = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend([down, up])


def nodes_unsorted(model: onnx.ModelProto) -> None:
    product, add = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([add, product])


def negative_zeros(model: onnx.ModelProto) -> None:
    """Relu(x) as max(x, 0) * sign(x): equal, but for the sign of its zeros."""
    model.graph.node.remove(model.graph.node[0])
    zero = numpy_helper.from_array(np.zeros((), np.float32), "zero")
    model.graph.initializer.append(zero)
    model.graph.node.extend(
        [
            helper.make_node("Max", ["x", "zero"], ["most"]),
            helper.make_node("Mul", ["most", "sign"], ["up"]),
        ]
    )
    model.graph.node.insert(0, helper.make_node("Sign", ["x"], ["sign"]))


FAULTS: dict[str, tuple[Callable[[], onnx.ModelProto], Change, list[tuple[Stage, Any, str]]]] = {
    "a wrong weight": (linear, weights(wrong_weight), VALUES),
    "a dropped bias": (linear, weights(lambda w, b: (w, 0 * b)), VALUES),
    "a permuted output": (linear, weights(lambda w, b: (w[:, ::-1], b[::-1])), VALUES),
    "a NaN": (linear, weights(one_nan), [comparing("nonfinite")]),
    "zeros with the other sign": (two_outputs, negative_zeros, [comparing("signed_zero")]),
    "a renamed output": (
        linear, after_the_end("Identity", declared("z", TensorProto.FLOAT, "n", 3)), [INTERFACE, comparing("names")],
    ),
    "another dtype": (
        linear,
        after_the_end("Cast", declared("y", TensorProto.DOUBLE, "n", 3), to=TensorProto.DOUBLE),
        [INTERFACE, comparing("dtype")],
    ),
    "another rank": (
        linear,
        after_the_end("Unsqueeze", declared("y", TensorProto.FLOAT, 1, "n", 3), FIRST_AXIS),
        [INTERFACE, comparing("shape")],
    ),
    "outputs in another order": (two_outputs, outputs_swapped, [INTERFACE]),
    "a weight that became an input": (linear, weight_among_inputs, [INTERFACE]),
    "an invalid graph that ONNX Runtime tolerates": (linear, nodes_unsorted, [CHECKER]),
}  # fmt: skip


class Bench:
    """Judges a model after a change of it, without a worker.

    Unless ``keep`` is set, with nothing kept from before.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch, self._runs = folder, monkeypatch, 0

    def judge(
        self, model: onnx.ModelProto, change: Change, *, keep: bool = False
    ) -> CellResult:
        @functools.wraps(change)
        def apply(model: onnx.ModelProto) -> onnx.ModelProto:
            change(model)
            return model

        planted = Transform("a planted fault", apply, {"planted": {}})
        self._monkeypatch.setitem(
            cast("dict[str, Transform]", transforms.registry()), "planted", planted
        )
        self._runs += not keep
        self._monkeypatch.setenv(
            "ONNX_HARNESS_CACHE", str(self._folder / f"cache{self._runs}")
        )
        card = card_for(save(model, self._folder / "model.onnx"))
        return judge(
            Task(
                Cell(card, parse_variant("planted"), "cpu"),
                card.path,
                Settings(input_sets=2),
            )
        ).result

    def take_out(self, room: Any, check: str) -> None:
        nothing: Any = [] if check in ("interface_changes", "check_names") else None
        self._monkeypatch.setattr(room, check, lambda *_, **__: nothing)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


@pytest.mark.parametrize("build", [linear, two_outputs])
def test_nothing_is_found_where_nothing_is_planted(
    bench: Bench, build: Callable[[], onnx.ModelProto]
) -> None:
    result = bench.judge(build(), lambda _: None)
    assert (result.status, result.stage, result.reason) == (Status.PASS, Stage.DONE, None)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_by_each_of_its_checks_and_by_no_other(
    bench: Bench, fault: str
) -> None:
    build, change, checks = FAULTS[fault]
    for stage, room, check in checks:
        result = bench.judge(build(), change)
        assert (result.status, result.stage) == (Status.FAIL, stage), result.reason
        assert result.reason
        bench.take_out(room, check)
    result = bench.judge(build(), change)
    assert (result.status, result.stage) == (Status.PASS, Stage.DONE), result.reason


def test_what_a_fault_did_to_the_outputs_is_recorded(bench: Bench) -> None:
    result = bench.judge(linear(), weights(wrong_weight))
    assert result.accuracy is not None
    figures = result.accuracy.outputs["y"]
    assert figures.minimum_tolerance is not None
    assert figures.minimum_tolerance > figures.rtol
    assert any("would pass with rtol" in line for line in result.detail)


def test_nothing_is_computed_after_the_stage_that_failed(bench: Bench) -> None:
    result = bench.judge(linear(), weight_among_inputs)
    assert (result.placement, result.accuracy) == (None, None)
    assert result.reason == "the model's interface changed: input 'b' is new"


def test_an_exception_ends_the_cell_in_the_transform(bench: Bench) -> None:
    def raises(_: onnx.ModelProto) -> None:
        raise ZeroDivisionError("no\nsecond line is lost")

    result = bench.judge(linear(), raises)
    assert (result.status, result.stage, result.reason) == (
        Status.FAIL,
        Stage.TRANSFORM,
        "ZeroDivisionError: no",
    )
    said, *frames = result.detail
    assert said == "second line is lost"
    assert any("in raises" in frame for frame in frames)  # of whoever wrote the transform


def test_a_graph_that_nobody_can_open_fails_before_it_is_run(bench: Bench) -> None:
    def unknown_operator(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "Frobnicate"

    assert bench.judge(linear(), unknown_operator).stage is Stage.CHECK
    bench.take_out(artifacts, "checker_says")
    result = bench.judge(linear(), unknown_operator)
    assert (result.status, result.stage) == (Status.FAIL, Stage.SESSION)
    assert "Frobnicate" in str(result.reason)


def test_a_transform_that_was_edited_is_applied_again(bench: Bench, tmp_path: Path) -> None:
    def written(body: str) -> Change:
        file = tmp_path / "mine.py"
        file.write_text(f"def change(model):\n    {body}\n")
        spec = importlib.util.spec_from_file_location("mine", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return cast("Change", module.change)

    assert bench.judge(linear(), written("pass"), keep=True).status is Status.PASS
    edited = written("model.graph.initializer[0].raw_data = bytes(48)")
    assert bench.judge(linear(), edited, keep=True).status is Status.FAIL


@pytest.mark.parametrize(
    ("shapes", "status"),
    [("[[3, 4]]", Status.PASS), ("[[2, 4], [3, 4]]", Status.NOT_APPLICABLE)],
)
def test_a_variant_that_fixes_a_shape_is_judged_on_inputs_of_that_shape(
    shapes: str, status: Status, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    save(linear(), tmp_path / "model.onnx")
    (tmp_path / "model.model.toml").write_text(f"[inputs.x]\nshapes = {shapes}\n")
    card = card_for(tmp_path / "model.model.toml")
    variant = parse_variant("simplify(overwrite_input_shapes=['x:3,4'])")

    result = judge(
        Task(Cell(card, variant, "cpu"), tmp_path / "model.onnx", Settings())
    ).result

    assert result.status is status, result
    if status is Status.NOT_APPLICABLE:
        assert "Mend: shapes = [[3, 4]] under [inputs.x]" in str(result.reason)
