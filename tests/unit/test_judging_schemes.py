"""What variants are read as, what quantized nodes read, and what a decoder is fed in a step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_harness.accuracy.noise import Gap, Noise
from onnx_harness.accuracy.tolerance import Tolerance
from onnx_harness.cards.card import Card, PathSource
from onnx_harness.cards.specs import GenerateSpec
from onnx_harness.errors import CardError
from onnx_harness.judging import recorded
from onnx_harness.judging.conversions import conversion_of
from onnx_harness.judging.generation import decoder as decoders
from onnx_harness.judging.generation.decoder import Role
from onnx_harness.judging.generation.decoding import _counted, _State
from onnx_harness.judging.quantizing import (
    Scheme,
    _channel_axis,
    quantize_through,
    quantized,
    watch,
    watched,
)
from onnx_harness.judging.rounding import Clamp
from onnx_harness.judging.runs import open_cpu
from onnx_harness.model.file import Model, ValueType
from onnx_harness.names import parse_variant
from onnx_harness.providers.running import run
from onnx_harness.settings import Settings
from onnx_harness.transforms.bf16 import MAX_FINITE_VAL as LARGEST_BFLOAT16
from onnx_harness.transforms.quantization.operators import (
    DEFAULT_OP_TYPES_TO_EXCLUDE,
    DYNAMIC_OPS,
    STATIC_OPS,
)
from onnx_harness.transforms.variant import bind_variant
from tests.models import model, save
from tests.unit.test_transforms_int8 import weighted

EXCLUDED = frozenset(DEFAULT_OP_TYPES_TO_EXCLUDE)
DYNAMIC, MATMUL = frozenset(DYNAMIC_OPS), frozenset({"MatMul"})


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("int4", Scheme(MATMUL, static=False, signed_weights=False, block=32)),
        (
            "int4(symmetric=True, block_size=16, nodes_to_exclude=['n'])",
            Scheme(MATMUL, static=False, never=frozenset("n"), block=16),
        ),
        ("int8.dynamic", Scheme(DYNAMIC, static=False)),
        ("int8.static", Scheme(frozenset(STATIC_OPS) - EXCLUDED, static=True)),
        (
            "int8.dynamic(per_channel=True, reduce_range=True, weight_type='uint8')",
            Scheme(DYNAMIC, False, per_channel=True, signed_weights=False, narrow=True),
        ),
        (
            "int8.dynamic(op_types_to_quantize=['MatMul', 'Gather'], nodes_to_quantize=['a'], "
            "nodes_to_exclude=['b', 'c'])",
            Scheme(
                frozenset({"MatMul", "Gather"}),
                False,
                only=frozenset("a"),
                never=frozenset("bc"),
            ),
        ),
        (
            "int8.static(op_types_to_exclude=['Add'], activation_type='int8')",
            Scheme(frozenset(STATIC_OPS) - {"Add"}, True, signed_activations=True),
        ),
        (
            "int8.static(op_types_to_quantize=['MatMul'], extra_options=['WeightSymmetric=false', "
            "'ActivationSymmetric=true'])",
            Scheme(MATMUL, True, signed_weights=False, signed_activations=True),
        ),
    ],
)
def test_a_quantization_is_read_off_its_options(text: str, scheme: Scheme) -> None:
    conversion = conversion_of(bind_variant(parse_variant(text)))
    assert conversion is not None
    assert conversion.scheme == scheme
    assert conversion.type == ("int4" if scheme.block else "int8")


@pytest.mark.parametrize(
    ("text", "kind", "clamp", "all_inputs"),
    [
        ("fp16(min_positive_val=0.5, max_finite_val=8.0)", "float16", Clamp(0.5, 8.0), True),
        ("fp16.io32(max_finite_val=8.0)", "float16", Clamp(1e-7, 8.0), False),
        ("bf16()", "bfloat16", Clamp(0.0, LARGEST_BFLOAT16), True),
        ("simplify+bf16.io32", "bfloat16", Clamp(0.0, LARGEST_BFLOAT16), False),
        ("simplify", None, None, None),
    ],
)
def test_the_limits_of_a_clamp_are_read_off_its_options(
    text: str, kind: str | None, clamp: Clamp | None, all_inputs: bool | None
) -> None:
    conversion = conversion_of(bind_variant(parse_variant(text)))
    assert (conversion and conversion.type) == kind
    if conversion is not None:
        assert (conversion.clamp, conversion.all_inputs) == (clamp, all_inputs)


@pytest.mark.parametrize("name", ["min_positive_val", "max_finite_val"])
def test_a_limit_that_is_no_number_is_refused(name: str) -> None:
    bound = bind_variant(parse_variant("fp16()"))
    options: dict[str, Any] = {"min_positive_val": 0.5, "max_finite_val": 8.0, name: "1"}
    [step] = bound.steps
    with pytest.raises(TypeError, match="the limits of fp16's clamp are numbers"):
        conversion_of(replace(bound, steps=(replace(step, options=options),)))


RNG = np.random.default_rng(3)
W = RNG.standard_normal((4, 3)).astype(np.float32) * np.array([1, 5, 25], np.float32)
PRODUCTS = (
    "agraph (float[N,4] x, int64[N] i) => (float[N,3] y, float[N,3] z, float[N,3] g) "
    "{ y = MatMul(x, w) z = Gemm<transB = 1>(x, v, b) g = Gather(t, i) }"
)


def with_weights() -> onnx.ModelProto:
    made = weighted(PRODUCTS, w=(4, 3), v=(3, 4), b=(3,), t=(5, 3))
    for tensor in made.graph.initializer:
        values = {"w": W, "v": W.T, "b": W[0], "t": np.tile(W[:1], (5, 1)) + np.eye(5, 3)}
        array = np.ascontiguousarray(values[tensor.name], np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return made


def constants(made: onnx.ModelProto) -> dict[str, Any]:
    """What each node reads that is constant, by its operator and the place."""
    by_name = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer
    }
    for node in made.graph.node:
        if node.op_type == "Constant":
            by_name[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return {
        f"{node.op_type} {place}": by_name[name]
        for node in made.graph.node
        for place, name in enumerate(node.input)
        if name in by_name and node.op_type in {"MatMul", "Gemm", "Gather"}
    }


OPS = frozenset({"MatMul", "Gemm", "Gather"})


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_each_node_reads_its_weights_in_the_levels_that_are_its(
    static: bool, per_channel: bool, signed: bool
) -> None:
    scheme = Scheme(
        OPS,
        static,
        per_channel=per_channel,
        signed_weights=signed,
        signed_activations=not signed,
    )
    plain = constants(with_weights())
    read = constants(quantize_through(with_weights(), scheme, {}))
    assert read.keys() == plain.keys()
    table = replace(scheme, signed_weights=not signed)
    expected = {
        "MatMul 1": quantized(plain["MatMul 1"], scheme, -1 if per_channel else None),
        "Gemm 1": quantized(plain["Gemm 1"], scheme, 0 if per_channel else None),
        "Gemm 2": plain["Gemm 2"],
        "Gather 0": quantized(plain["Gather 0"], table, None),
    }
    for place, array in expected.items():
        np.testing.assert_array_equal(read[place], array, err_msg=place)
    assert not np.array_equal(read["MatMul 1"], plain["MatMul 1"])


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({}, "mn"),
        ({"only": frozenset("m")}, "m"),
        ({"never": frozenset("m")}, "n"),
        ({"only": frozenset("m"), "never": frozenset("m")}, ""),
        ({"ops": frozenset({"Gemm"})}, ""),
    ],
)
def test_a_scheme_takes_nodes_by_operator_and_name(
    options: dict[str, Any], taken: str
) -> None:
    scheme = replace(Scheme(MATMUL, static=False), **options)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], [f"{name}_out"], name=name) for name in "mn"
    ]
    assert "".join(node.name for node in nodes if scheme.takes(node)) == taken
    assert not any(scheme.takes(node, frozenset({"m_out", "n_out"})) for node in nodes)


@pytest.mark.parametrize(
    ("static", "block", "takes"), [(False, 0, True), (True, 0, False), (False, 16, False)]
)
def test_a_gemm_is_a_product_where_the_library_makes_it_one(
    static: bool, block: int, takes: bool
) -> None:
    gemm = helper.make_node("Gemm", ["x", "w"], ["y"])
    assert Scheme(MATMUL, static, block=block).takes(gemm) is takes


def test_ranges_are_watched_where_they_are_fixed_beforehand() -> None:
    made = with_weights()
    scheme = Scheme(OPS, static=True)
    assert watched(made, Scheme(OPS, static=False)) == []
    names = watched(made, scheme)
    assert names == ["x", "y", "z", "g"]
    outputs = watch(made, names)
    feeds = {"x": np.array([[1, -2, 3, 0.5]], np.float32), "i": np.array([2])}
    got = run(open_cpu(made), feeds)
    for name, (least, most) in outputs.items():
        array = feeds["x"] if name == "x" else got[name]
        assert (got[least], got[most]) == (array.min(), array.max())
        assert got[least].shape == got[most].shape == ()
    declared = [info.type.tensor_type for info in made.graph.output[-2:]]
    assert all(kind.HasField("shape") and not kind.shape.dim for kind in declared)


@pytest.mark.parametrize(
    ("op_type", "attributes", "axis"),
    [
        ("Conv", {}, 0),
        ("MatMul", {}, -1),
        ("Gemm", {}, -1),
        ("Gemm", {"transB": 0}, -1),
        ("Gemm", {"transB": 1}, 0),
        ("Gemm", {"transA": 1}, -1),
        ("ConvTranspose", {}, 0),
    ],
)
def test_the_channels_of_a_weight(
    op_type: str, attributes: dict[str, Any], axis: int
) -> None:
    assert _channel_axis(helper.make_node(op_type, ["x", "w"], ["y"], **attributes)) == axis


def test_activations_are_rounded_where_their_ranges_are_fixed() -> None:
    text = "(float[n,4] x) => (float[n,4] y, float[n,4] r) { y = Mul(x, x) r = Relu(x) }"
    scheme = Scheme(frozenset({"Mul"}), static=True)
    ranges = {"x": (-1.0, 4.1), "y": (0.0, 10.2)}
    x = np.array([[-3.0, 0.013, 2.5, 9.0]], np.float32)
    got = run(open_cpu(quantize_through(model(text), scheme, ranges)), {"x": x})
    read = np.clip(np.round(x / 0.02), -50, 205) * 0.02
    np.testing.assert_allclose(
        got["y"], np.clip(np.round(read**2 / 0.04), 0, 255) * 0.04, atol=1e-5
    )
    # The library rounds a value where it's made: who else reads it reads its levels.
    np.testing.assert_allclose(got["r"], np.maximum(read, 0), atol=1e-5)
    free = run(open_cpu(quantize_through(model(text), scheme, {})), {"x": x})
    np.testing.assert_array_equal(free["y"], x * x)
    signed = quantize_through(model(text), replace(scheme, signed_activations=True), ranges)
    step = 4.1 / 127
    half = np.clip(np.round(x / step), -128, 127) * step
    got = run(open_cpu(signed), {"x": x})
    np.testing.assert_allclose(got["r"], np.maximum(half, 0), atol=1e-5)


# generation


def value(
    *shape: int | str | None, kind: str = "tensor(int64)", name: str = "v"
) -> ValueType:
    return ValueType(name, kind, shape)


@pytest.mark.parametrize(
    ("role", "shape", "past", "count", "expected"),
    [
        (Role.MASK, (1, "n"), 2, 1, [[1, 1, 1]]),
        (Role.MASK, (1, 5), 2, 1, [[1, 1, 1, 0, 0]]),
        (Role.KINDS, (1, "n"), 2, 3, [[0, 0, 0]]),
        (Role.KINDS, (2, 1, "n"), 0, 1, [[[0]], [[0]]]),
        (Role.POSITIONS, (1, "n"), 2, 3, [[2, 3, 4]]),
        (Role.POSITIONS, (3, 1, "n"), 2, 2, [[[2, 3]]] * 3),
        (Role.POSITIONS, (1, 1), 2, 3, [[2]]),
        (Role.POSITIONS, (1,), 2, 3, [2]),
        (Role.POSITIONS, (), 2, 3, 2),
        (Role.POSITIONS, ("n",), 0, 2, [0, 1]),
        (Role.TOTAL, (1,), 2, 3, [5]),
        (Role.LAST, ("b", 1), 2, 3, [[4]]),
        (Role.PAST, (), 2, 3, 2),
        (Role.HAS_PAST, (1,), 0, 3, [0]),
        (Role.HAS_PAST, (1,), 1, 3, [1]),
        (Role.HAS_PAST, (1,), 7, 3, [1]),
    ],
)
def test_inputs_that_count_tokens(
    role: Role, shape: tuple[Any, ...], past: int, count: int, expected: Any
) -> None:
    got = _counted(role, value(*shape), past, count, None)
    assert got.tolist() == expected
    assert got.dtype == np.int64


def test_a_mask_of_a_cache_of_a_fixed_size_has_a_place_for_each() -> None:
    mask = value(1, "n")
    assert _counted(Role.MASK, mask, 1, 1, 4).tolist() == [[1, 1, 0, 0]]
    assert _counted(Role.MASK, replace(mask, shape=(1, 3)), 1, 1, 4).tolist() == [[1, 1, 0]]


@pytest.mark.parametrize("kind", ["tensor(float16)", "tensor(int32)", "tensor(bool)"])
def test_what_is_fed_has_the_type_that_the_session_takes(kind: str) -> None:
    session: Any = SimpleNamespace(
        get_inputs=lambda: [
            SimpleNamespace(name="v", type=kind),
            SimpleNamespace(name="s", type="?"),
        ]
    )
    decoder: Any = SimpleNamespace(empty={"v": (1, 0)})
    texts = np.array(["a"])
    listed = [np.ones(1)]
    state = _State(session, decoder, {"v": np.array([1.0, 1e9]), "s": texts})
    dtype = {
        "tensor(float16)": np.float16,
        "tensor(int32)": np.int32,
        "tensor(bool)": np.bool_,
    }[kind]
    assert state._fixed["v"].dtype == state._cache["v"].dtype == dtype
    assert state._fixed["s"] is texts
    assert state._cast("v", listed) is listed
    assert state._cast("v", state._fixed["v"]) is state._fixed["v"]


FLOATS = "tensor(float)"


@pytest.mark.parametrize(
    ("given", "output", "alike"),
    [
        (value("b", 4, kind=FLOATS), value("b", "n", kind=FLOATS), True),
        (value("b", 4, kind=FLOATS), value("b", 4, 4, kind=FLOATS), False),
        (value("b", 4, kind=FLOATS), value("b", 4), False),
        (value("b", 4, kind=FLOATS), ValueType("o", FLOATS, None), True),
        (value("b", 4), ValueType("o", FLOATS, None), False),
    ],
)
def test_what_is_fed_back_has_the_type_and_rank_of_its_input(
    given: ValueType, output: ValueType, alike: bool
) -> None:
    assert decoders._alike(given, output) is alike


SPEC = GenerateSpec(prompt=(1,), steps=1)
INPUTS = {"tokens": value(1, "n", name="tokens"), "more": value(1, "n", name="more")}
OUTPUTS = {"up": value(1, "n", 9, kind=FLOATS), "down": value(1, "n", 9, kind=FLOATS)}


@pytest.mark.parametrize("place", ["", "card.toml"])
@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (
            lambda spec: decoders._check_names(replace(spec, ids="token"), INPUTS, OUTPUTS),
            "the model has no input 'token'. Did you mean 'tokens'?",
        ),
        (
            lambda spec: decoders._check_names(replace(spec, logits="u"), INPUTS, OUTPUTS),
            "the model has no output 'u'.",
        ),
        (
            lambda spec: decoders._check_names(
                replace(spec, cache={"tokens": "dow"}), INPUTS, OUTPUTS
            ),
            "the model has no output 'dow'. Did you mean 'down'?",
        ),
        (
            lambda spec: decoders._check_names(
                replace(spec, cache={"mor": "down"}), INPUTS, OUTPUTS
            ),
            "the model has no input 'mor'. Did you mean 'more'?",
        ),
        (
            lambda spec: decoders._ids(
                {"a": INPUTS["more"], "b": INPUTS["more"]}, {}, {}, spec
            ),
            'no input is certain to take the tokens. Mend: ids = "INPUT"',
        ),
        (
            lambda spec: decoders._logits(OUTPUTS, {}, spec),
            'no output is certain to be the logits. Mend: logits = "OUTPUT"',
        ),
        (
            lambda spec: decoders._takes_any(value(1, 4, name="tokens"), spec),
            "input 'tokens' takes 4 tokens at once, and no single one",
        ),
        (
            lambda spec: decoders._roles({"attention_mask": value(1, 2, 3)}, {}, spec),
            "input 'attention_mask' is a mask of 3 axes, and 2 are known",
        ),
    ],
)
def test_what_a_decoder_lacks_is_told_with_the_key_that_says_it(
    ask: Any, words: str, place: str
) -> None:
    with pytest.raises(CardError) as told:
        ask(replace(SPEC, place=place))
    assert str(told.value).startswith(
        f"{place}: generate: {words}" if place else f"generate: {words}"
    )


def test_what_is_certain_is_chosen() -> None:
    assert decoders._ids({"t": INPUTS["tokens"]}, {}, {}, SPEC) is INPUTS["tokens"]
    assert decoders._ids(INPUTS, {"more": ()}, {}, SPEC) is INPUTS["tokens"]  # type: ignore[dict-item]
    assert decoders._ids(INPUTS, {}, {"tokens": "x"}, SPEC) is INPUTS["more"]
    assert decoders._ids(INPUTS, {}, {}, replace(SPEC, ids="more")) is INPUTS["more"]
    assert decoders._logits(OUTPUTS, {"i": "up"}, SPEC) == "down"
    assert decoders._logits({**OUTPUTS, "logits": OUTPUTS["up"]}, {}, SPEC) == "logits"
    assert decoders._logits(OUTPUTS, {}, replace(SPEC, logits="up")) == "up"
    assert [decoders._takes_any(value(1, size), SPEC) for size in ("n", None, 1)] == [
        True,
        True,
        False,
    ]
    assert decoders._takes_any(ValueType("v", "", None), SPEC)
    decoders._check_names(
        replace(SPEC, ids="more", logits="up", cache={"tokens": "down"}), INPUTS, OUTPUTS
    )


# bounds of recorded outputs


@pytest.mark.parametrize(
    ("kind", "noise", "changes"),
    [
        ("float", None, {"rtol": recorded._RTOL, "k": recorded._SHARE}),
        ("float16", None, {}),
        ("float", Gap(greatest=3.0, scale=4.0), {"atol": 3.0 * recorded._NOISES}),
        ("float16", Gap(greatest=3.0, scale=4.0), {"atol": 3.0 * recorded._NOISES}),
    ],
)
def test_recorded_outputs_are_bounded_by_kind_and_noise(
    tmp_path: Path, kind: str, noise: Gap | None, changes: dict[str, float]
) -> None:
    text = f"({kind}[2] x) => ({kind}[2] y) {{ y = Neg(x) }}"
    path = save(model(text), tmp_path / "m.onnx")
    card = Card(path=path, name="m", source=PathSource(path))
    measured = None if noise is None else Noise(({}, {"y": noise}))
    bound = recorded._tolerances(Model(path), card, Settings(), measured)("y")
    assert not bound.signed_zero
    for name, expected in changes.items():
        assert getattr(bound, name) == expected, name
    half = kind == "float16"
    assert (bound.rtol == recorded._RTOL) is not half
    chosen = recorded._tolerances(
        Model(path), card, Settings(rtol=0.5, atol=0.25), measured
    )("y")
    assert (chosen.rtol, chosen.atol) == (0.5, 0.25)
    suite = recorded._tolerances(Model(path), replace(card, suite="s"), Settings(), measured)
    assert suite("y") == recorded._SUITE
    assert isinstance(bound, Tolerance)


def test_a_noise_below_the_default_bound_changes_nothing() -> None:
    default = Tolerance(rtol=0.0, atol=5.0)
    quiet = Noise(({"y": Gap(greatest=1e-9, scale=1.0)},))
    assert recorded._above(quiet, "y", default).atol == 5.0
    assert recorded._above(quiet, "z", default) is default
