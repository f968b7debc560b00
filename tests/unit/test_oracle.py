"""The noise floor and the ideal conversions, held against numpy and against what they must not
touch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def

from onnx_harness.accuracy.noise import Noise
from onnx_harness.inputs import InputSet
from onnx_harness.inputs.graph.chance import random_nodes
from onnx_harness.inputs.values.sets import MAGNIFIED
from onnx_harness.judging import noise_floor as floor_room
from onnx_harness.judging.float64 import WITHOUT_KERNEL, to_double, without_kernel
from onnx_harness.judging.ideal import Conversion, ideal_conversion
from onnx_harness.judging.noise_floor import NOT_NOISE, noise_floor, unusual_floor
from onnx_harness.judging.quantizing import Scheme, quantized
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.rounding import Clamp, round_through, rounded
from onnx_harness.judging.runs import nudged, open_cpu
from onnx_harness.model.file import Model
from onnx_harness.providers.running import run
from onnx_harness.results.cache import Cache

RNG = np.random.default_rng(5)
X = RNG.standard_normal((6, 16)).astype(np.float32)
W = RNG.standard_normal((16, 8)).astype(np.float32)
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
CLAMP = Clamp(1e-7, 1e4)


def value(name: str, *shape: int | str, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def built(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    **constants: Any,
) -> onnx.ModelProto:
    weights = [
        numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()
    ]
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), weights)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )


def product(weight: Any = W) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Exp", ["p"], ["y"]),
    ]
    return built(nodes, [value("x", 6, 16)], [value("y", 6, 8)], w=weight)


def referred(
    model: onnx.ModelProto, folder: Path, *feeds: dict[str, Any]
) -> tuple[Model, Reference]:
    path = folder / "model.onnx"
    onnx.save(model, path)
    session = open_cpu(path)
    sets = tuple(InputSet(f"set {index}", feed) for index, feed in enumerate(feeds))
    return Model(path), Reference(
        sets, tuple(run(session, feed) for feed in feeds), frozenset()
    )


def half(array: Any) -> Any:
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32).astype(np.float16).astype(np.float32)


def test_the_floor_of_unusual_sets_is_theirs_alone(tmp_path: Path) -> None:
    model, made = referred(product(), tmp_path, {"x": X}, {"x": 10 * X})
    made = replace(
        made,
        sets=(
            made.sets[0],
            replace(made.sets[1], unusual=f"at 10 {MAGNIFIED}", smooth=True),
        ),
    )
    kept = Cache(tmp_path / "cache")
    usual, rare = noise_floor(model, made, kept).sets[0], unusual_floor(model, made, kept)
    assert rare.sets[0] == {}
    gap = rare.sets[1]["y"]
    # Exp of ten times as much.
    assert gap.l2 / gap.norm > 3 * usual["y"].l2 / usual["y"].norm > 0
    assert not any("level" in source for source in rare.sources)
    assert rare.sources
    assert not any("can't be run" in note for note in rare.notes)


def test_a_tie_of_great_scores_on_an_unusual_set_is_noise(tmp_path: Path) -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["y"])]
    model = built(nodes, [value("x", 1, 100)], [value("y", 1, 100)])
    feeds = []
    # Two equal scores: every other draw moves both of them alike.
    for place in range(0, 32, 2):
        scores = np.zeros((1, 100), np.float32)
        scores[0, place : place + 2] = 98765.4
        feeds.append({"x": scores})
    untouched, made = referred(model, tmp_path, *feeds)
    sets = tuple(replace(each, unusual="with great ties", smooth=True) for each in made.sets)
    floor = unusual_floor(untouched, replace(made, sets=sets), Cache(tmp_path / "cache"))
    assert min(gaps["y"].greatest for gaps in floor.sets) > 1e-3


def test_the_ideal_conversion_rounds_inputs_weights_and_every_intermediate() -> None:
    y = run(open_cpu(round_through(product(), HALF, CLAMP, all_inputs=False)), {"x": X})["y"]
    p = half((half(X).astype(np.float64) @ half(W).astype(np.float64)).astype(np.float32))
    np.testing.assert_allclose(y, half(np.exp(p)), rtol=2e-3)
    assert np.array_equal(y, half(y))
    exact = run(open_cpu(product()), {"x": X})["y"]
    assert 1e-4 < np.linalg.norm(y - exact) / np.linalg.norm(exact) < 1e-2


def test_bfloat16_is_rounded_as_ml_dtypes_rounds_it() -> None:
    model = built(
        [helper.make_node("Neg", ["x"], ["y"])], [value("x", 6, 16)], [value("y", 6, 16)]
    )
    y = run(
        open_cpu(round_through(model, TensorProto.BFLOAT16, None, all_inputs=True)), {"x": X}
    )["y"]
    assert np.array_equal(y, -X.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_every_input_of_an_operator_that_takes_any_number_of_them_is_rounded() -> None:
    model = built([helper.make_node("Sum", ["a", "b", "c"], ["y"])], [value(name, 6, 16) for name in "ab"],
                  [value("y", 6, 16)], c=X)  # fmt: skip
    y = run(
        open_cpu(round_through(model, HALF, CLAMP, all_inputs=False)),
        {"a": X[::-1], "b": X[:, ::-1]},
    )["y"]
    assert np.array_equal(y, half(half(X[::-1]) + half(X[:, ::-1]) + half(X)))


def test_what_must_be_float32_is_not_rounded() -> None:
    scales = np.array([1, 1, 1.2345678, 1.2345678], np.float32)
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], mode="nearest")
    model = built([node], [value("x", 1, 1, 40, 40)], [value("y", 1, 1, "h", "w")], s=scales)
    changed = round_through(model, HALF, CLAMP, all_inputs=False)
    assert np.array_equal(numpy_helper.to_array(changed.graph.initializer[0]), scales)


def test_what_is_computed_from_shapes_is_not_rounded() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Cast", ["s"], ["f"], to=FLOAT),
        helper.make_node("Mul", ["f", "one"], ["g"]),
        helper.make_node("Cast", ["g"], ["n"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["x", "n"], ["y"]),
    ]
    model = built(nodes, [value("x", "n")], [value("y", "n")], one=np.array([1], np.float32))
    changed = round_through(model, HALF, CLAMP, all_inputs=False)
    long = np.ones(2049, np.float32)
    assert run(open_cpu(changed), {"x": long})["y"].shape == (2049,)  # 2049 isn't a float16


@pytest.mark.parametrize("inside", [False, True])
def test_what_a_scale_is_computed_from_is_not_rounded(inside: bool) -> None:
    """A target of 3001 isn't a float16: rounded, the result has another shape."""
    node = helper.make_node(
        "Resize", ["x", "", "s"], ["z" if inside else "y"], mode="nearest"
    )
    nodes = [
        helper.make_node("Cast", ["target"], ["t"], to=FLOAT),
        helper.make_node("Div", ["t", "width"], ["r"]),
        helper.make_node("Concat", ["ones", "r"], ["s"], axis=0),
    ]
    if inside:
        branches = []
        for name in ("then", "else"):
            branch = onnx.NodeProto()
            branch.CopyFrom(node)
            branch.output[0] = name
            info = value(name, 1, 1, 1, "w")
            branches.append(helper.make_graph([branch], name, [], [info]))
        nodes.append(
            helper.make_node(
                "If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1]
            )
        )
    else:
        nodes.append(node)
    model = built(
        nodes,
        [
            value("x", 1, 1, 1, 40),
            value("target", 1, kind=TensorProto.INT64),
            value("c", kind=TensorProto.BOOL),
        ],
        [value("y", 1, 1, 1, "w")],
        ones=np.ones(3, np.float32),
        width=np.float32(40),
    )
    changed = round_through(model, HALF, CLAMP, all_inputs=False)
    feed = {"x": np.ones((1, 1, 1, 40), np.float32), "target": np.array([3001])}
    assert run(open_cpu(changed), feed | {"c": np.array(True)})["y"].shape == (1, 1, 1, 3001)


def test_the_bodies_of_a_branch_are_rounded_too() -> None:
    def body(name: str, weight: Any) -> onnx.GraphProto:
        node = helper.make_node("Mul", ["x", f"w_{name}"], [f"y_{name}"])
        constant = numpy_helper.from_array(weight, f"w_{name}")
        return helper.make_graph([node], name, [], [value(f"y_{name}", 6, 16)], [constant])

    weight = X[::-1].copy()
    chosen = helper.make_node(
        "If", ["c"], ["y"], then_branch=body("a", weight), else_branch=body("b", -weight)
    )
    model = built(
        [chosen], [value("x", 6, 16), value("c", kind=TensorProto.BOOL)], [value("y", 6, 16)]
    )
    session = open_cpu(round_through(model, HALF, CLAMP, all_inputs=False))
    for choice, sign in ((True, 1), (False, -1)):
        y = run(session, {"x": X, "c": np.array(choice)})["y"]
        assert np.array_equal(y, sign * half(half(X) * half(weight)))


def test_range_is_told_apart_from_digits(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "big"], ["b"]),
        helper.make_node("Div", ["b", "big"], ["y"]),
    ]
    model = built(
        nodes,
        [value("x", 6, 16)],
        [value("y", 6, 16)],
        big=np.float32(3e4) * np.ones(16, np.float32),
    )
    large = X * np.float32(100)
    noise = ideal_conversion(
        *referred(model, tmp_path, {"x": large}),
        Conversion("float16", Clamp(1e-7, 6e4)),
        Cache(tmp_path),
    )
    assert noise.range.sets[0]["y"].nonfinite > 0
    [gap] = [each["y"] for each in noise.digits.sets]
    assert gap.nonfinite == 0
    assert 0 < gap.l2 < 2e-3 * gap.norm


def test_the_clamp_is_what_it_says() -> None:
    weights = np.array(
        [0.0, -0.0, 1e-9, -1e-9, 1.0, 3e4, -3e4, np.inf, -np.inf, np.nan], np.float32
    )
    expected = np.array(
        [0.0, -0.0, 1e-7, -1e-7, 1.0, 1e4, -1e4, np.inf, -np.inf, np.nan], np.float32
    )
    np.testing.assert_array_equal(CLAMP(weights), expected)
    assert np.signbit(CLAMP(weights)[1])
    np.testing.assert_array_equal(rounded(weights, HALF, CLAMP), half(expected))


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("signed", [True, False])
def test_a_quantized_weight_has_as_many_levels_as_8_bits_have(
    axis: int | None, signed: bool
) -> None:
    scheme = Scheme(frozenset(), static=False, signed_weights=signed)
    levels = quantized(W, scheme, axis)
    rows = [levels.reshape(-1)] if axis is None else list(levels)
    for row, exact in zip(rows, [W.reshape(-1)] if axis is None else list(W), strict=True):
        step = (
            np.abs(exact).max() / 127
            if signed
            else (max(exact.max(), 0) - min(exact.min(), 0)) / 255
        )
        assert len(np.unique(row)) <= 256
        assert np.abs(row - exact).max() <= step * 0.501


def test_static_ranges_come_from_the_reference_and_dynamic_ones_from_the_run(
    tmp_path: Path,
) -> None:
    model, reference = referred(product(), tmp_path, {"x": X}, {"x": X * np.float32(0.5)})
    errors = {}
    for static in (True, False):
        scheme = Scheme(frozenset({"MatMul"}), static)
        noise = ideal_conversion(
            model, reference, Conversion("int8", scheme=scheme), Cache(tmp_path)
        ).digits
        errors[static] = [each["y"].l2 / each["y"].norm for each in noise.sets]
        assert all(1e-3 < error < 0.2 for error in errors[static])
    # A range for both sets is too wide for the smaller.
    assert errors[True][1] > errors[False][1]


def test_the_floor_is_measured_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, reference = referred(product(), tmp_path, {"x": X}, {"x": -X})
    floor = noise_floor(model, reference, Cache(tmp_path))
    assert "the last bit of the inputs" in floor.sources
    assert "float64" in floor.sources
    for each in floor.sets:
        assert 0 < each["y"].l2 < 1e-5 * each["y"].norm
    monkeypatch.setattr(floor_room, "_measured", None)
    assert noise_floor(model, reference, Cache(tmp_path)) == floor


def test_a_level_that_breaks_the_model_is_no_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, reference = referred(product(), tmp_path, {"x": X})
    floor = floor_with_levels_of(
        product(W * np.float32(1.01)), model, reference, tmp_path, monkeypatch
    )
    assert any(note.startswith(NOT_NOISE) and "y" in note for note in floor.notes)
    assert floor.sets[0]["y"].l2 < 1e-5 * floor.sets[0]["y"].norm


@pytest.mark.parametrize(
    ("breaks", "op_type"),
    [("to NaN", "ArgMax"), ("to other classes", "ArgMax"), ("to NaN", "IsNaN")],
)
def test_a_level_that_gives_nan_or_other_classes_is_no_noise(
    breaks: str, op_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [*product().graph.node, helper.make_node(op_type, ["p"], ["z"])]
    outputs = [value("y", 6, 8), value("z", 1, 8, kind=TensorProto.INT64)]
    if op_type == "IsNaN":  # no step: its bits move with nothing but NaN
        outputs[1] = value("z", 6, 8, kind=TensorProto.BOOL)
    hole = W.copy()
    hole[0, 0] = np.nan
    wrong = hole if breaks == "to NaN" else -W
    honest, broken = (
        built(nodes, [value("x", 6, 16)], outputs, w=weight) for weight in (W, wrong)
    )
    model, reference = referred(honest, tmp_path, {"x": X})
    floor = floor_with_levels_of(broken, model, reference, tmp_path, monkeypatch)
    assert floor.sets[0]["y"].nonfinite == floor.sets[0]["z"].changed == 0
    assert any(
        note.startswith(NOT_NOISE) and "y, z is another result" in note
        for note in floor.notes
    )


def floor_with_levels_of(
    broken: onnx.ModelProto,
    model: Model,
    reference: Reference,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Noise:
    """The floor of a model whose optimization levels all give what ``broken`` does."""
    path = folder / "broken.onnx"
    onnx.save(broken, path)

    def breaks(
        source: Any, level: str = "disable", threads: int | None = None, **_: Any
    ) -> Any:
        return open_cpu(source if level == "disable" else path, level, threads)

    monkeypatch.setattr(floor_room, "open_cpu", breaks)
    return noise_floor(
        model, reference, Cache(folder / hashlib.sha256(path.read_bytes()).hexdigest())
    )


def test_what_float64_cannot_run_is_noted_and_left_out(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    weight = RNG.standard_normal((2, 1, 3)).astype(np.float32)
    model = built([node], [value("x", 1, 1, 16)], [value("y", 1, 2, 14)], w=weight)
    floor = noise_floor(
        *referred(model, tmp_path, {"x": X.reshape(-1)[:16].reshape(1, 1, 16)}),
        Cache(tmp_path),
    )
    assert "float64" not in floor.sources
    assert any(
        note.startswith("float64 can't be run: ") and "Conv" in note for note in floor.notes
    )


def test_a_model_without_float_inputs_has_its_weights_moved(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["w", "i"], ["y"])
    model = built([node], [value("i", 3, kind=TensorProto.INT64)], [value("y", 3, 8)], w=W)
    floor = noise_floor(
        *referred(model, tmp_path, {"i": np.array([0, 5, 9])}), Cache(tmp_path)
    )
    assert floor.sets[0]["y"].l2 > 0


def test_whole_numbers_are_not_nudged() -> None:
    mixed = np.array([0.0, 1.0, 0.3, -2.0, np.nan, np.inf], np.float32)
    moved = nudged(mixed, np.random.default_rng(0))
    assert np.flatnonzero(moved != mixed).tolist() == [2, 4]  # a NaN isn't equal to itself
    assert abs(moved[2] - mixed[2]) == np.spacing(np.float32(0.3))
    mask = np.array([0.0, 1.0], np.float32)
    assert nudged(mask, np.random.default_rng(0)) is mask
    assert nudged([mask], np.random.default_rng(0))[0] is mask


def test_unstable_outputs_are_left_out(tmp_path: Path) -> None:
    model, reference = referred(product(), tmp_path, {"x": X})
    unstable = Reference(reference.sets, reference.outputs, frozenset({"y"}))
    floor: Noise = noise_floor(model, unstable, Cache(tmp_path))
    assert floor.sets == ({},)


def test_operators_without_a_float64_kernel_are_found_beforehand() -> None:
    def of(op: str) -> onnx.ModelProto:
        return built(
            [helper.make_node(op, ["x"], ["y"])], [value("x", 6, 16)], [value("y", 6, 16)]
        )

    listed = get_all_opkernel_def()
    kinds = {"tensor(float)": set[str](), "tensor(double)": set[str]()}
    for kernel in listed:
        if kernel.provider == "CPUExecutionProvider" and not kernel.domain:
            for kind, names in kinds.items():
                if any(kind in taken for taken in kernel.type_constraints.values()):
                    names.add(kernel.op_name)
    assert kinds["tensor(float)"] - kinds["tensor(double)"] == WITHOUT_KERNEL
    assert without_kernel(of("Erf")) == ["Erf"]
    assert without_kernel(of("Tanh")) == []


def test_a_model_in_float64_computes_the_same() -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], value_floats=[0.1] * 8),
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "c"], ["q"]),
        helper.make_node("Shape", ["q"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["z"]),
        helper.make_node("Sub", ["q", "z"], ["y"]),
    ]
    model = built(nodes, [value("x", 6, 16)], [value("y", 6, 8)], w=W)
    exact = run(open_cpu(model), {"x": X})["y"]
    to_double(model)
    y = run(open_cpu(model), {"x": X.astype(np.float64)})["y"]
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, exact, rtol=1e-4, atol=1e-6)
    assert not np.array_equal(y, exact)


def test_the_random_nodes_behind_an_output_are_named() -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["r"], name="noise"),
        helper.make_node("RandomUniformLike", ["x"], ["u"]),
        helper.make_node("Dropout", ["x"], ["d"], name="drop"),
        helper.make_node("Add", ["r", "d"], ["y"]),
        helper.make_node("Add", ["x", "u"], ["z"]),
    ]
    model = built(
        nodes, [value("x", 6, 16)], [value("y", 6, 16), value("z", 6, 16), value("d", 6, 16)]
    )
    assert random_nodes(model, {"y"}) == ["RandomNormalLike 'noise'"]
    assert random_nodes(model, {"z"}) == ["RandomUniformLike (which gives 'u')"]
    assert random_nodes(model, {"d"}) == ["Dropout 'drop'"]


def test_static_ranges_are_those_of_the_calibration(tmp_path: Path) -> None:
    """What lies beyond them is cut off, as the quantized model cuts it off."""
    model, reference = referred(product(), tmp_path, {"x": X})
    conversion = Conversion("int8", scheme=Scheme(frozenset({"MatMul"}), static=True))
    errors = []
    for share in (1.0, 0.25):
        sets = [InputSet("calibration", {"x": X * np.float32(share)})]
        noise = ideal_conversion(model, reference, conversion, Cache(tmp_path), sets).digits
        errors.append(noise.sets[0]["y"].l2 / noise.sets[0]["y"].norm)
    own = ideal_conversion(model, reference, conversion, Cache(tmp_path)).digits.sets[0]["y"]
    assert errors[0] == own.l2 / own.norm < 0.05
    assert errors[1] > 0.3
