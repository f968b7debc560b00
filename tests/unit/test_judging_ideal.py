"""The ideal conversion: what is rounded of a graph, how often it's run, and what it is kept by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.accuracy.noise import Gap, Noise
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging import ideal as room
from onnx_harness.judging.ideal import Conversion, Ideal, ideal_conversion
from onnx_harness.judging.quantizing import Scheme, quantize_through
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.rounding import Clamp, _Rewriter, round_through, rounded
from onnx_harness.judging.runs import open_cpu
from onnx_harness.model.file import Model
from onnx_harness.providers.running import run
from onnx_harness.results.cache import Cache
from tests.models import model, save

FLOAT, HALF, BHALF = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
X = np.array([0.1, -0.3, 65504, 65505, 7e4, -7e4, np.inf, -np.inf, np.nan, 1e-9], np.float32)


def half(array: Any) -> Any:
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32).astype(np.float16).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "dtype", "largest"),
    [(HALF, np.float16, 65504.0), (BHALF, ml_dtypes.bfloat16, 3.3895313892515355e38)],
)
def test_beyond_the_range_a_value_stays_where_digits_alone_are_asked_for(
    kind: int, dtype: Any, largest: float
) -> None:
    x = np.append(X, np.array([3.4e38, -3.4e38], np.float32))
    with np.errstate(over="ignore"):
        narrow = x.astype(dtype).astype(np.float32)
    beyond = np.abs(x) > largest
    assert beyond.sum() == (7 if kind == HALF else 4)
    for ranged, expected in ((True, narrow), (False, np.where(beyond, x, narrow))):
        most = None if ranged else largest
        np.testing.assert_array_equal(rounded(x, kind, None, most), expected)
        for text in ("y = Neg(x)", "y = Neg(w)"):
            made = model(f"(float[12] x) => (float[12] y) {{ {text} }}")
            if "w" in text:
                made.graph.initializer.append(numpy_helper.from_array(x, "w"))
            changed = round_through(made, kind, None, all_inputs=True, ranged=ranged)
            got = run(open_cpu(changed), {"x": x})["y"]
            np.testing.assert_array_equal(got, -expected)


def test_weights_alone_are_clamped() -> None:
    made = model(
        "(float[2] x) => (float[2] y, float[2] z) "
        "{ k = Constant <value = float[2] {9, 0.001}> () y = Mul(x, w) z = Mul(x, k) }"
    )
    made.graph.initializer.append(numpy_helper.from_array(np.array([9, 0.001], "f4"), "w"))
    changed = round_through(made, HALF, Clamp(0.5, 2.0), all_inputs=False)
    got = run(open_cpu(changed), {"x": np.array([9, 0.001], np.float32)})
    expected = half(half([9, 0.001]) * np.array([2, 0.5], np.float32))
    np.testing.assert_array_equal(got["y"], expected)
    np.testing.assert_array_equal(got["z"], expected)


def test_clamped_weights_are_float32_and_what_has_no_size_or_end_stays() -> None:
    weights = np.array([0.0, 0.1, -9, np.inf], np.float32)
    clamped = Clamp(0.5, 2.0)(weights)
    assert clamped.dtype == np.float32
    assert clamped.tolist() == [0.0, 0.5, -2.0, np.inf]


def test_whole_numbers_are_no_weights() -> None:
    made = model(
        "(int64[2] x) => (int64[2] y) "
        "{ k = Constant <value = int64[2] {2049, 4099}> () y = Add(x, k) }"
    )
    changed = round_through(made, HALF, None, all_inputs=True)
    assert changed == made
    x = np.array([1, 2])
    assert run(open_cpu(changed), {"x": x})["y"].tolist() == [2050, 4101]


def test_a_model_that_onnx_cannot_infer_is_refused() -> None:
    made = model("(float[n,2] x) => (float[n,2] y) { y = of.nobody.Neg(x) }")
    with pytest.raises(Exception, match=r"No opset import for domain of\.nobody"):
        round_through(made, HALF, None, all_inputs=True)


def lines(graph: onnx.GraphProto) -> list[str]:
    """Each node, as it's written: ``y = Op(a, b)``."""
    return [
        f"{', '.join(node.output)} = {node.op_type}({', '.join(node.input)})"
        for node in graph.node
    ]


def pair(source: str, target: str, narrow: str | None = None) -> list[str]:
    between = narrow or f"{target}/rounded"
    return [f"{between} = Cast({source})", f"{target} = Cast({between})"]


SCALED = (
    "(float[1,1,2,2] x, float[4] s, int64[1] i) => (float[n,1,2,2] y) "
    '{ a = Neg(x) y = Resize <mode = "nearest"> (a, , s) }'
)


def test_inputs_are_rounded_where_an_operator_takes_the_type_or_all_are() -> None:
    names = {False: ["x"], True: ["x", "s"]}
    for every, inputs in names.items():
        changed = round_through(model(SCALED), HALF, None, all_inputs=every)
        fed = [f"{name}/rounded" for name in inputs]
        expected = []
        for name, fresh in zip(inputs, fed, strict=True):
            expected += pair(name, fresh, f"{fresh}/rounded")
        scale = "s/rounded" if every else "s"
        assert lines(changed.graph) == [
            *expected,
            "a/rounded = Neg(x/rounded)",
            *pair("a/rounded", "a", "a/rounded_1"),
            f"y/rounded = Resize(a, , {scale})",
            *pair("y/rounded", "y", "y/rounded_1"),
        ]
        casts = [
            node.attribute[0].i for node in changed.graph.node if node.op_type == "Cast"
        ]
        assert casts == [HALF, FLOAT] * (len(casts) // 2)
        assert [info.name for info in changed.graph.input] == ["x", "s", "i"]


def test_what_follows_an_operator_whose_type_onnx_does_not_infer_is_rounded() -> None:
    """The conversion knows that a regressor gives float32, and narrows what follows."""
    made = model(
        """(float[n,2] x) => (float[n,1] z) {
          p = ai.onnx.ml.LinearRegressor <coefficients = [1.0, 2.0]> (x)
          a = Neg(p)  y = ai.onnx.ml.ZipMap <classlabels_int64s = [0, 1]> (a)  z = Exp(a)
        }""",
        domains=', "ai.onnx.ml": 1',
    )
    narrowed = lines(round_through(made, HALF, None, all_inputs=False).graph)
    for name in "paz":
        assert f"{name}/rounded_1 = Cast({name}/rounded)" in narrowed
    assert not any(line.startswith("y/") for line in narrowed)


def test_a_size_that_is_reckoned_with_is_not_rounded() -> None:
    made = model(
        "(float[n] x) => (float[n] y) { s = Shape(x) f = Cast <to = 1> (s) g = Mul(f, f) "
        "y = Div(x, g) }"
    )
    changed = round_through(made, HALF, None, all_inputs=False)
    assert lines(changed.graph)[2:6] == [
        "s = Shape(x/rounded)",
        "f = Cast(s)",
        "g = Mul(f, f)",
        "y/rounded = Div(x/rounded, g)",
    ]


def test_the_standard_domain_may_be_spelt_out() -> None:
    plain = round_through(model(SCALED), HALF, None, all_inputs=False)
    made = model(SCALED)
    made.opset_import[0].domain = "ai.onnx"
    spelt = round_through(made, HALF, None, all_inputs=False)
    assert lines(spelt.graph) == lines(plain.graph)


def test_a_name_that_is_there_already_is_left_to_its_owner() -> None:
    made = model("(float[2] x) => (float[2] y) { z = Neg(x) y = Abs(z) }")
    made.graph.node[0].output[0] = made.graph.node[1].input[0] = "y/rounded"
    changed = round_through(made, HALF, None, all_inputs=False)
    x = np.array([0.1, 0.7], np.float32)
    np.testing.assert_array_equal(run(open_cpu(changed), {"x": x})["y"], half(x))


def test_a_constant_that_is_listed_as_an_input_is_rounded_where_it_is() -> None:
    made = model("(float[2] x, float[2] w) => (float[2] y) { y = Mul(x, w) }")
    made.graph.initializer.append(numpy_helper.from_array(np.array([0.1, 0.7], "f4"), "w"))
    changed = round_through(made, HALF, None, all_inputs=True)
    assert [line for line in lines(changed.graph) if "Mul" in line] == [
        "y/rounded = Mul(x/rounded, w)"
    ]
    np.testing.assert_array_equal(
        numpy_helper.to_array(changed.graph.initializer[0]), half([0.1, 0.7])
    )
    assert changed.graph.initializer[0].name == "w"


NESTED = (
    "(float[2] x, int64 n, bool c) => (float[2] y) { yes = Constant <value = bool {1}> () "
    "u = Loop (n, yes, x) <body = b (int64 i, bool go, float[2] v) => (bool on, float[2] r) "
    "{ on = Identity(go) d = Mul(v, x) r = Neg(d) }> "
    "y = If (c) <then_branch = t () => (float[2] p) { e = Add(u, x) p = Sqrt(e) }, "
    "else_branch = o () => (float[2] q) { q = Loop (n, yes, u) "
    "<body = k (int64 j, bool g, float[2] x) => (bool f, float[2] s) "
    "{ f = Identity(g) s = Mul(x, x) }> }> }"
)


def test_bodies_are_rounded_in_their_own_types_and_read_what_is_rounded_around_them() -> (
    None
):
    changed = round_through(model(NESTED), HALF, None, all_inputs=False)
    nodes = {node.output[0]: node for node in changed.graph.node}
    assert nodes["u/rounded"].input[:] == ["n", "yes", "x/rounded"]
    loop = nodes["u/rounded"].attribute[0].g
    assert lines(loop)[1] == "d/rounded = Mul(v, x/rounded)"
    assert len(loop.node) == 7
    branch, other = (attribute.g for attribute in nodes["y/rounded"].attribute)
    assert lines(branch)[0] == "e/rounded = Add(u, x/rounded)"
    inner = other.node[0].attribute[0].g
    # Its own x, of a type that nobody states outside, isn't the one around it.
    assert lines(inner)[1] == "s/rounded_1 = Mul(x, x)" or lines(inner)[1].endswith(
        "= Mul(x, x)"
    )
    assert [info.name for info in inner.input] == ["j", "g", "x"]
    x = np.array([0.1, 0.7], np.float32)
    feeds: dict[str, Any] = {"x": x, "n": np.array(1)}
    u = half(-half(half(x) * half(x)))
    for choice, expected in ((True, half(np.sqrt(half(u + half(x))))), (False, half(u * u))):
        got = run(open_cpu(changed), {**feeds, "c": np.array(choice)})["y"]
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("op", "index", "takes", "domain", "opset"),
    [
        ("Add", 0, True, "", 17),
        ("Add", 1, True, "ai.onnx", 17),
        ("Sum", 7, True, "", 17),
        ("Gather", 0, True, "", 17),
        ("Gather", 1, False, "", 17),
        ("Gather", 1, False, "ai.onnx", 17),
        ("Gather", 5, False, "", 17),
        ("Resize", 1, True, "", 17),
        ("Resize", 2, False, "", 17),
        ("Resize", 1, False, "", 10),
        ("Constant", 0, False, "", 17),
        ("Gather", 1, True, "of.ours", 17),
        ("Nobody", 0, True, "", 17),
        ("TreeEnsembleRegressor", 0, False, "ai.onnx.ml", 17),
        ("TreeEnsemble", 0, True, "ai.onnx.ml", 17),
    ],
)
def test_an_operator_s_schema_says_which_inputs_may_be_float16(
    op: str, index: int, takes: bool, domain: str, opset: int
) -> None:
    opsets = {"": opset} | ({"ai.onnx.ml": 5} if op == "TreeEnsemble" else {})
    node = helper.make_node(op, ["a"], ["b"], domain=domain)
    assert _Rewriter(HALF, None, opsets, None)._takes(node, index) is takes


BODIES = (
    "<then_branch = t () => (float p) { p = Neg(x) }, "
    "else_branch = e () => (float q) { q = Neg(x) }>"
)


@pytest.mark.parametrize(
    ("body", "shaped"),
    [
        ("s = Shape(x)", {"s"}),
        ("s = Size(x)", {"s"}),
        ("s = Shape(x) f = Cast <to = 1> (s) g = Mul(f, w)", {"s", "f", "g"}),
        ("s = Shape(x) f = Cast <to = 1> (s) g = Mul(f, x)", {"s", "f"}),
        ("k = Constant <value_float = 2.0> () l = Neg(k)", set()),
        ("s = Shape(x) l = Add(s, w) m = Neg(w) n = Mul(l, m)", {"s", "l", "n"}),
        (f"s = Shape(x) k = If (c) {BODIES}", {"s"}),
        (f"s = Shape(x) k = If (s) {BODIES}", {"s"}),
        (f"s = Shape(x) k = If (w) {BODIES} l = Mul(k, s)", {"s"}),
        ("g = Mul(around, w) h = Clip(around, , w)", {"g", "h"}),
        ("g = Mul(around, x)", set()),
    ],
)  # fmt: skip
def test_what_follows_from_shapes_and_constants_alone(body: str, shaped: set[str]) -> None:
    made = model(f"(float[2] x, bool c) => (float[2] y) {{ {body} y = Neg(x) }}")
    made.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "w"))
    rewriter = _Rewriter(HALF, None, {"": 17}, None)
    assert rewriter._shaped(made.graph, frozenset({"around"})) == shaped


def test_what_is_used_of_the_type_is_told_here_and_for_bodies() -> None:
    made = model(
        "(float[2] x, float[4] s, bool c) => (float[2] y) { h = Shape(x) f = Cast <to = 1> (h) "
        "g = Mul(f, w) r = Resize(x, , s) k = If (c) <then_branch = t () => (float p) { z = Neg(v) "
        "p = Abs(z) }, else_branch = e () => (float q) { q = Identity(u) }> "
        "n = Exp(x) l = Gather(x, i) }"
    )
    made.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "w"))
    rewriter = _Rewriter(HALF, None, {"": 17}, None)
    shaped = frozenset(rewriter._shaped(made.graph, frozenset()))
    assert rewriter._wanted(made.graph, shaped) == {"x", "p", "q", "v", "z", "u"}
    assert rewriter._wanted(made.graph, frozenset()) == set("xpqvzufwh")


@pytest.mark.parametrize(
    ("opset", "kind", "converted"),
    [(12, BHALF, 13), (12, HALF, 12), (13, BHALF, 13), (14, BHALF, 14)],
)
def test_a_model_older_than_bfloat16_is_brought_to_its_version(
    opset: int, kind: int, converted: int
) -> None:
    made = model("(float[2] x) => (float[2] y) { y = Neg(x) }", opset=opset)
    changed = round_through(made, kind, None, all_inputs=False)
    assert changed.opset_import[0].version == converted
    x = np.array([0.1, 0.7], np.float32)
    dtype = np.float16 if kind == HALF else ml_dtypes.bfloat16
    got = run(open_cpu(changed), {"x": x})["y"]
    np.testing.assert_array_equal(got, -x.astype(dtype).astype(np.float32))


# what it is measured by


def subject(folder: Path) -> tuple[Model, Reference]:
    text = "(float[n,8] x) => (float[n,8] y) { y = Mul(x, w) }"
    made = model(text)
    made.graph.initializer.append(numpy_helper.from_array(np.full(8, 0.7, "f4"), "w"))
    path = save(made, folder / "m.onnx")
    x = np.linspace(-1, 1, 80, dtype=np.float32).reshape(10, 8)
    sets = tuple(
        InputSet(str(at), {"x": x * np.float32(at + 1)}, "odd" if at == 1 else "")
        for at in range(3)
    )
    session = open_cpu(path)
    return Model(path), Reference(
        sets, tuple(run(session, each.values) for each in sets), frozenset()
    )


KIND = frozenset({"MatMul", "Mul"})
CONVERSIONS = {
    "half": Conversion("float16", Clamp(1e-7, 1e4)),
    "brain": Conversion("bfloat16", Clamp(1e-7, 1e4)),
    "clamp": Conversion("float16", Clamp(1e-7, 0.69)),
    "inputs": Conversion("float16", Clamp(1e-7, 1e4), all_inputs=True),
    "dynamic": Conversion("int8", scheme=Scheme(KIND, static=False)),
    "static": Conversion("int8", scheme=Scheme(KIND, static=True)),
    "blocks": Conversion("int4", scheme=Scheme(KIND, static=False, block=4)),
}


def test_each_conversion_is_kept_by_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, answers = subject(tmp_path)
    keys: dict[str, list[Any]] = {}

    def kept(kind: str, *words: Any) -> Noise:
        model_, reference, cache, details, make = words
        assert (model_, reference, cache, kind) == (made, answers, "cache", "ideal")
        keys.setdefault(name, []).append(details)
        found: Noise = make()
        return found

    monkeypatch.setattr(room, "kept_noise", kept)
    cache: Any = "cache"
    ideals: dict[str, Ideal] = {}
    for name, conversion in CONVERSIONS.items():
        ideals[name] = ideal_conversion(made, answers, conversion, cache)
        assert ideals[name].digits == ideals[name].range
        assert ideals[name].digits.sources == (f"ideal {conversion.type}",)
        assert ideals[name].digits.sets[1] == {}
    for name, wide in (("calibrated", 1.0), ("narrowly calibrated", 0.25)):
        x = answers.sets[2].values["x"]
        sets = [InputSet("c", {"x": x * np.float32(wide)})]  # type: ignore[operator]
        ideals[name] = ideal_conversion(made, answers, CONVERSIONS["static"], cache, sets)
    assert all(len(details) == 1 for details in keys.values())
    texts = {str(details) for details in keys.values()}
    assert len(texts) == len(keys) == 9
    errors = {name: ideal.digits.sets[2]["y"].l2 for name, ideal in ideals.items()}
    assert errors["calibrated"] == errors["static"]
    del errors["calibrated"], errors["inputs"]
    assert len(set(errors.values())) == len(errors)
    assert errors["narrowly calibrated"] > 4 * errors["static"]
    assert 0 < errors["half"] < errors["brain"] < errors["clamp"]


def test_where_values_overflow_digits_are_measured_without_a_range_or_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, answers = subject(tmp_path)
    asked: list[Any] = []

    def through(
        graph: onnx.ModelProto, kind: int, clamp: Any, **more: Any
    ) -> onnx.ModelProto:
        asked.append((kind, clamp, more))
        if more["ranged"]:
            graph.graph.initializer[0].CopyFrom(
                numpy_helper.from_array(np.zeros(8, "f4"), "w")
            )
        return graph

    monkeypatch.setattr(room, "round_through", through)
    cache = Cache(tmp_path / "cache")
    limited = Conversion("bfloat16", Clamp(0.25, 8.0), all_inputs=True)
    found = ideal_conversion(made, answers, limited, cache)
    more = {"all_inputs": True}
    assert asked == [
        (BHALF, Clamp(0.25, 8.0), {**more, "ranged": True}),
        (BHALF, Clamp(0.25, float("inf")), {**more, "ranged": False}),
    ]
    assert found.digits.sets[0]["y"].l2 == 0.0
    assert found.range.sets[0]["y"].l2 == found.range.sets[0]["y"].norm > 0
    asked.clear()
    unlimited = ideal_conversion(made, answers, Conversion("float16"), cache)
    assert asked == [
        (HALF, None, {"all_inputs": False, "ranged": ranged}) for ranged in (True, False)
    ]
    assert unlimited.digits != unlimited.range
    asked.clear()
    assert ideal_conversion(made, answers, limited, Cache(tmp_path / "cache")) == found
    assert asked == []


@pytest.mark.parametrize(
    ("sets", "overflows"),
    [
        (({},), False),
        (({"y": Gap(l2=0.05, norm=1.0)},), False),
        (({"y": Gap(l2=0.0501, norm=1.0)},), True),
        (({"y": Gap(l2=1.0, norm=100.0)},), False),
        (({"y": Gap(nonfinite=1)},), True),
        (({"y": Gap()}, {"z": Gap(), "y": Gap(l2=1.0, norm=1.0)}), True),
        (({"y": Gap(changed=9)},), False),
    ],
)
def test_more_than_digits_is_lost(sets: tuple[dict[str, Gap], ...], overflows: bool) -> None:
    assert room._overflows(Noise(sets)) is overflows


@pytest.mark.parametrize(
    ("kind", "unit"),
    [("float16", 2**-11), ("bfloat16", 2**-8), ("int8", 2**-8), ("int4", 2**-8)],
)
def test_few_elements_are_rounded_otherwise_too(kind: str, unit: float) -> None:
    x = np.full(1000, 0.75, np.float32)
    values: dict[str, Any] = {"x": x, "n": np.array([2])}
    for size, count in ((65, 1), (64, 3)):
        answers = Reference((), ({"y": np.zeros(size, "f4")},), frozenset())
        draws = room._draws(Conversion(kind), answers)
        assert len(draws) == count
        assert draws[0](values, np.random.default_rng(0)) is values
        for draw in draws[1:]:
            moved = draw(values, np.random.default_rng(3))
            assert list(moved) == ["x", "n"]
            assert moved["n"] is values["n"]
            shares = np.abs(moved["x"] / x - 1)
            assert 0.9 * unit < shares.max() <= unit * (1 + 1e-3)


def test_an_ideal_conversion_is_run_on_usual_sets_in_each_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, answers = subject(tmp_path)
    few = replace(answers, outputs=({"y": np.zeros(3, "f4")},) * 3)
    asked: list[Any] = []

    def gaps_of(session: Any, *words: Any) -> Any:
        assert session.get_outputs()[0].name == "y"
        asked.append(words)
        return [(0, {"y": Gap(l2=1.0)}), (2, {})]

    monkeypatch.setattr(room, "gaps_of", gaps_of)
    cache = Cache(tmp_path / "cache")
    found = ideal_conversion(made, few, CONVERSIONS["half"], cache)
    assert found.digits.sets == ({"y": Gap(l2=1.0)}, {}, {})
    # Nothing but digits: 1.0 of a norm of 0 is more, and so it's run without a range too.
    assert [(*words[:2], len(words[2])) for words in asked] == [(few, [0, 2], 3)] * 2


def test_ranges_are_those_of_all_sets_where_they_end(tmp_path: Path) -> None:
    text = "(float[n,2] x) => (float[n,2] y) { a = Mul(x, x) l = Log(x) y = Mul(l, l) }"
    made = Model(save(model(text), tmp_path / "m.onnx"))
    sets = [
        InputSet(str(at), {"x": np.array([row], np.float32)})
        for at, row in enumerate(([1, 2], [0.5, 1], [1, 1.5]))
    ]
    scheme = Scheme(frozenset({"Mul"}), static=True)
    found = room._ranges(made, sets, scheme)
    assert {name: found[name] for name in "xa"} == {"x": (0.5, 2.0), "a": (0.25, 4.0)}
    assert list(found) == ["x", "a", "l", "y"]
    assert found["l"] == pytest.approx((np.log(0.5), np.log(2)))
    endless = room._ranges(
        made, [*sets, InputSet("0", {"x": np.zeros((1, 2), np.float32)})], scheme
    )
    assert endless.keys() == {"x", "a"}
    assert endless["x"] == (0.0, 2.0)
    still = room._ranges(made, [InputSet("1", {"x": np.ones((1, 2), np.float32)})], scheme)
    assert still == {"x": (1.0, 1.0), "a": (1.0, 1.0), "l": (0.0, 0.0), "y": (0.0, 0.0)}
    for none in (Scheme(frozenset({"Mul"}), static=False), Scheme(frozenset(), static=True)):
        assert room._ranges(made, sets, none) == {}


def test_ranges_and_levels_are_those_of_what_functions_hold(tmp_path: Path) -> None:
    """The conversion inlines functions, so the ideal of one has to quantize inside them too."""
    made = model(
        "(float[n,2] x) => (float[n,2] y) { y = own.Half (x) } "
        '<domain: "own", opset_import: ["": 17]> '
        "Half (a) => (b) { h = Mul(a, a) b = Neg(h) }",
        domains=', "own": 1',
    )
    kept = Model(save(made, tmp_path / "m.onnx"))
    sets = [InputSet("0", {"x": np.array([[1.0, 2.0]], np.float32)})]
    scheme = Scheme(frozenset({"Mul"}), static=True)
    ranges = room._ranges(kept, sets, scheme)
    assert sorted(ranges.values()) == [(1.0, 2.0), (1.0, 4.0)]
    changed = quantize_through(made, scheme, ranges)
    assert [node.op_type for node in changed.graph.node].count("QuantizeLinear") == 2
