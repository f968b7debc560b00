"""Inputs that show a change of one constant, where usual noise wouldn't."""

from __future__ import annotations

import itertools

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, numpy_helper

from onnx_harness.accuracy.compare import ComparedSet, compare
from onnx_harness.accuracy.tolerance import Tolerance
from onnx_harness.inputs.values.sets import shapes_of
from onnx_harness.providers.running import run
from tests.models import model
from tests.unit.test_inputs_decisions import generated, tells_apart

# A graph, a piece of it, and what stands there in the other model.
PAIRS = {
    "a label among integers": (
        "(int64[n] x) => (bool[n] y) <int64 k={513}> { y = Equal(x, k) }",
        ("{513}", "{514}"),
    ),
    "a threshold of integers": (
        "(int64[n] x) => (bool[n] y) <int64 k={2000}> { y = Greater(x, k) }",
        ("{2000}", "{2001}"),
    ),
    "a bit": (
        "(int64[n] x) => (int64[n] y) <int64 k={4096}> { y = BitwiseAnd(x, k) }",
        ("{4096}", "{8192}"),
    ),
    "the beginning of an hour": (
        "(int64[n] x) => (int64[n] y) <int64 d={86400}, int64 h={3600}>"
        "{ r = Mod(x, d) y = Div(r, h) }",
        ("{3600}", "{3601}"),
    ),
    "the threshold of the last column": (
        "(float[n,3] x) => (bool[n,3] y) <float[3] k={1.0, 20.0, 300.0}> { y = Less(x, k) }",
        ("300.0", "310.0"),
    ),
    "a threshold in an attribute": (
        "(float[n,8] x) => (float[n,8] y) { y = Shrink<lambd = 20.0>(x) }",
        ("20.0", "21.0"),
    ),
    "what stands in for NaN": (
        "(float[n,8] x) => (float[n,8] y) <float z={0.0}>"
        "{ d = Add(x, x) m = IsNaN(d) y = Where(m, z, x) }",
        ("{0.0}", "{1.0}"),
    ),
    "a pattern": (
        '(string[n] x) => (bool[n] y) { y = RegexFullMatch<pattern = "[a-z]+@[a-z]+[.]com">(x) }',
        ("[.]com", "[.]org"),
    ),
    "a delimiter": (
        '(string[n] x) => (string[n,m] y, int64[n] k) { y, k = StringSplit<delimiter = ",">(x) }',
        ('","', '";"'),
    ),
    "how often a text is split": (
        "(string[n] x) => (string[n,m] y, int64[n] k) { y, k = StringSplit<maxsplit = 4>(x) }",
        ("= 4", "= 5"),
    ),
    "a score that is enough": (
        "(float[1,n,4] b, float[1,1,n] s) => (int64[m,3] y)"
        "<int64 m={100}, float i={0.5}, float k={0.25}> { y = NonMaxSuppression(b, s, m, i, k) }",
        ("{0.25}", "{0.26}"),
    ),
    "what overflows before it is divided": (
        "(int32[n] x) => (int32[n] y) <int32 k={2}> { d = Mul(x, k) y = Div(d, k) }",
        ("Div(d, k)", "Identity(x)"),
    ),
    "how often at most": (
        "(int64 n, float[4] x) => (int64[?] y) <int64 z={0}, int64 one={1}, int64 k={100}>"
        "{ m = Min(n, k) y = Range(z, m, one) }",
        ("{100}", "{101}"),
    ),
    "a class that there is none of": (
        "(int64[n] x) => (float[n,5] y) <int64 d={5}, float[2] v={0.5, 2}, int64 m={4}>"
        "{ i = Identity(x) y = OneHot(i, d, v) }",
        ("Identity(x)", "Min(x, m)"),
    ),
    "the last place of a cache": (
        "(float[1,64,4] c, float[1,1,4] v, int64[1,1,1] p) => (float[1,64,4] y)"
        "<int64[3] s={1, 1, 4}, int64 k={62}>"
        "{ m = Identity(p) e = Expand(m, s) y = ScatterElements<axis = 1>(c, e, v) }",
        ("Identity(p)", "Min(p, k)"),
    ),
    "the sign of a remainder": (
        "(int64[n] x) => (int64[n] y) <int64 d={86400}, int64 h={3}, int64 w={7}>"
        "{ q = Div(x, d) p = Add(q, h) y = Mod<fmod = 0>(p, w) }",
        ("= 0", "= 1"),
    ),
    "what is true without being 1": (
        "(float[n,8] x) => (bool[n,8] y) { r = Identity(x) y = Cast<to = 9>(r) }",
        ("Identity(x)", "Floor(x)"),
    ),
    "a class that is ignored": (
        "(float[n,3] x, int64[n] t) => (float y)"
        "{ y = SoftmaxCrossEntropyLoss<ignore_index = 2>(x, t) }",
        ("= 2", "= -1"),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_constant_that_is_another_shows(name: str) -> None:
    text, (was, becomes) = PAIRS[name]
    assert text.count(was) == 1
    one, other = model(text, opset=21), model(text.replace(was, becomes), opset=21)
    assert tells_apart(one, other, generated(one))


def test_positions_that_become_angles_go_far_in_usual_sets() -> None:
    text = (
        "(int64[1,n] x) => (float[1,n,2] y) <float[1,2] f={0.0001, 1.0}, int64[1] a={2}>"
        "{ r = Cast<to = 1>(x) u = Unsqueeze(r, a) p = MatMul(u, f) s = Cos(p) y = Round(s) }"
    )
    one, other = model(text, opset=21), model(text.replace("{0.0001", "{0.0004"), opset=21)
    assert tells_apart(one, other, [each for each in generated(one) if not each.unusual])


@pytest.mark.parametrize(
    ("inputs_in_order", "domain"),
    [("x, p, c, s", "com.microsoft."), ("x, c, s, p", "")],
)
def test_positions_of_a_rotary_embedding_stay_in_its_tables(
    inputs_in_order: str, domain: str
) -> None:
    table = ", ".join(str(number / 40) for number in range(20))
    made = model(
        f"(float[1,2,n,8] x, int64[1,n] p) => (float[1,2,n,8] y) <float[5,4] c={{{table}}},"
        f" float[5,4] s={{{table}}}> {{ y = {domain}RotaryEmbedding({inputs_in_order}) }}",
        opset=23,
        domains=', "com.microsoft": 1',
    )
    positions = [np.ravel(each.values["p"]).tolist() for each in generated(made)]
    assert set(itertools.chain(*positions)) == set(range(5))


def test_lengths_of_an_attention_are_those_of_its_sequences() -> None:
    weights = ", ".join(str((number % 7 - 3) / 10) for number in range(48))
    biases = ", ".join(["0"] * 12)
    made = model(
        f"(float[b,n,4] x, int32[b] m) => (float[b,n,4] y) <float[4,12] w={{{weights}}},"
        f" float[12] c={{{biases}}}> {{ y = com.microsoft.Attention<num_heads = 2>(x, w, c, m) }}",
        domains=', "com.microsoft": 1',
    )
    for each in generated(made):
        if not each.unusual:
            lengths = np.asarray(each.values["m"])
            assert lengths.min() >= 1
            assert lengths[0] == np.shape(each.values["x"])[1]


@pytest.mark.parametrize("written", ["s", "3"])
def test_a_step_is_written_where_it_fits_and_attended_to(written: str) -> None:
    """A cache of fixed size: where the step goes, and how much of it counts (opset 24)."""
    step = f"float[b,2,{written},8]"
    made = model(
        f"({step} q, {step} k, {step} v, float[b,2,16,8] c, float[b,2,16,8] d, int64[b] at,"
        f" int64[b] n) => ({step} y) {{ keys = TensorScatter <axis = 2> (c, k, at)"
        " values = TensorScatter (d, v, at)  y = Attention(q, keys, values, , , , n) }",
        opset=24,
    )
    usual = [each.values for each in generated(made) if not each.unusual]
    places = [np.asarray(values["at"], np.int64) for values in usual]
    lengths = [np.shape(values["k"])[2] for values in usual]
    assert all((place >= 0).all() for place in places)
    assert any((place > 0).any() for place in places)
    assert all(
        (place + length <= 16).all() for place, length in zip(places, lengths, strict=True)
    )
    counts = np.concatenate([np.ravel(values["n"]) for values in usual])
    assert (counts.min() >= 1, counts.max()) == (True, 16)
    assert not _inert(made)


@pytest.mark.parametrize(
    "text",
    [
        "(int64 n) => (int64[m] y) <int64 a={0}, int64 s={2}> { y = Range(a, n, s) }",
        "(int64 n) => (float[m] y) { y = HammingWindow<periodic = 0>(n) }",
        "(bool[n] a, bool[n] b, bool[n] c, bool[n] d) => (bool[n] y)"
        "{ p = And(a, b) q = And(p, c) y = And(q, d) }",
    ],
)
def test_what_follows_a_size_or_is_rarely_true_reacts(text: str) -> None:
    assert not _inert(model(text, opset=21))


def test_a_shape_that_follows_an_input_s_shape_is_no_reaction() -> None:
    """What grows with an input says nothing about what the input holds."""
    text = "(float[n] x) => (int64[n] y) { z = Sub(x, x) y = Cast<to = 7>(z) }"
    assert _inert(model(text, opset=21)) == {"y"}


def _inert(made: ModelProto) -> frozenset[str]:
    """The outputs that nothing is known of, the model compared with itself."""
    session = ort.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    compared = []
    for each in generated(made):
        if not each.unusual:
            outputs = run(session, each.values)
            sizes = str(shapes_of(each))
            compared.append(ComparedSet(each.name, outputs, outputs, sizes=sizes))
    return compare(compared, lambda _: Tolerance(0.0, 0.0)).inert


@pytest.mark.parametrize(
    ("kind", "kernel", "name", "is_sound"),
    [
        ("int16", 16, "x", True),
        ("int16", 3, "pcm", True),
        ("int16", 3, "x", False),
        ("int32", 16, "x", False),
    ],
)
def test_sound_of_16_bits_is_loud_and_long(
    kind: str, kernel: int, name: str, is_sound: bool
) -> None:
    taps = ", ".join(["0.1"] * kernel)
    made = model(
        f"({kind}[b,l] {name}) => (float[b,1,m] y) <float[1,1,{kernel}] w={{{taps}}}, int64[1] a={{1}}>"
        f"{{ f = Cast<to = 1>({name}) u = Unsqueeze(f, a) y = Conv(u, w) }}"
    )
    usual = [np.asarray(each.values[name]) for each in generated(made) if not each.unusual]
    loud = max(int(np.abs(value.astype(np.int64)).max()) for value in usual)
    assert all(value.dtype == kind for value in usual)
    assert (loud > 15_000) == is_sound
    assert (usual[0].shape[1] >= 8_000) == is_sound


def test_every_word_shows_though_its_table_is_large_and_a_maximum_hides_some() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(4000, 100)).astype(np.float32)
    changed = table.copy()
    changed[1470] = -changed[1470]
    models = []
    for values in (table, changed):
        made = model(
            "(int64[n,24] x) => (float[n,100] y)"
            "{ e = Gather(t, x) y = ReduceMax<axes = [1], keepdims = 0>(e) }"
        )
        made.graph.initializer.append(numpy_helper.from_array(values, "t"))
        models.append(made)
    sets = generated(models[0])
    assert tells_apart(models[0], models[1], sets)
    assert sum("every index" in each.name for each in sets) == 1
    [rows] = [each.values["x"] for each in sets if "every index" in each.name]
    assert len(rows) == 500
    assert (np.bincount(np.asarray(rows).reshape(-1)) == 3).all()
