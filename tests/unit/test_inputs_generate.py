"""Input sets made from the graph alone: bounds, sizes, control values, and the search where a guess
fails.
"""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser

from onnx_harness import inputs
from onnx_harness.cards.card import InputSpec
from onnx_harness.errors import InputError, UsageError
from onnx_harness.inputs import InputSet
from onnx_harness.inputs.graph.demand import Demand, Kind
from onnx_harness.inputs.graph.signature import Input
from onnx_harness.inputs.graph.walk import Findings
from onnx_harness.inputs.plan.roles import Role
from onnx_harness.inputs.plan.rules import rule_for
from onnx_harness.inputs.plan.sizes import Dimension, neighbours
from onnx_harness.inputs.values.sets import Value


def model_of(signature: str, body: str, opset: int = 21) -> onnx.ModelProto:
    """``signature`` and ``body`` in ONNX's text format."""
    return parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}]> g ({signature}) {{ {body} }}'
    )


def array(each: InputSet, name: str) -> np.ndarray:
    value = each.values[name]
    assert isinstance(value, np.ndarray)
    return value


def shapes(sets: list[InputSet], name: str) -> list[tuple[int, ...]]:
    return [array(each, name).shape for each in sets]


def test_a_model_without_inputs_gets_one_empty_set() -> None:
    model = model_of(") => (float[1] y", "y = Constant <value_floats = [1.0]> ()")
    assert [each.values for each in inputs.generate(model, {}, count=4)] == [{}]


def test_each_dynamic_dimension_takes_two_sizes_and_equal_names_stay_equal() -> None:
    model = model_of(
        "float[n, t, 8] a, float[n, t, 8] b) => (float[n, t, 8] y", "y = Add(a, b)"
    )
    sets = inputs.generate(model, {})
    assert shapes(sets, "a") == shapes(sets, "b")
    assert all(len({shape[axis] for shape in shapes(sets, "a")}) >= 2 for axis in (0, 1))
    assert {shape[0] for shape in shapes(sets, "a")} >= {1, 2}


def test_a_letter_behind_the_batch_is_no_batch() -> None:
    """Sound of N samples beside its lengths: N isn't what it is in NCHW."""
    model = model_of(
        "float[batch, N] waveforms, int64[batch] lens) => (float[batch, N] y, int64[batch] k",
        "",
    )
    model.graph.node.extend(
        parser.parse_graph(
            "g (float[b,n] x) => (float[b,n] y) { y = Relu(waveforms) k = Abs(lens) }"
        ).node
    )
    assert min(shape[1] for shape in shapes(inputs.generate(model, {}), "waveforms")) >= 9
    assert {shape[0] for shape in shapes(inputs.generate(model, {}), "waveforms")} >= {1, 2}


def test_a_sum_of_dimensions_is_the_sum_of_their_sizes() -> None:
    model = model_of(
        "float[n, past] p, float[n, seq] x) => (float[n, q] y",
        "y = Concat <axis = 1> (p, x)",
    )
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("m", TensorProto.FLOAT, ["n", "past + seq"])
    )
    for each in inputs.generate(model, {}):
        assert (
            array(each, "m").shape[1]
            == array(each, "p").shape[1] + array(each, "x").shape[1]
        )


def test_fixed_zero_sized_dimensions_are_kept() -> None:
    model = model_of("float[2, 0] x) => (float[2, 0] y", "y = Relu(x)")
    assert shapes(inputs.generate(model, {}), "x") == [(2, 0)] * 4


def test_an_input_with_a_default_is_left_alone() -> None:
    model = model_of("float[2] x, float[2] w = {1, 2}) => (float[2] y", "y = Add(x, w)")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(2, np.float32), "w"))
    assert list(inputs.generate(model, {})[0].values) == ["x"]


@pytest.mark.parametrize(
    ("signature", "body", "least", "greatest"),
    [
        ("int64[n, 4] i, float[9, 2] w", "y = Gather(w, i)", 0, 8),
        ("int64[n, 4] i, float[2, 7] w", "y = Gather <axis = 1> (w, i)", 0, 6),
        (
            "int32[n, 4] i, float[9, 2] w",
            "a = Cast <to = 7> (i) b = Identity(a) y = Gather(w, b)",
            0,
            8,
        ),
        (
            "int64[n, 4] i, float[9] w",
            "two = Constant <value_int = 2> () a = Add(i, two) y = Gather(w, a)",
            -2,
            6,
        ),
        (
            "int64[n, 4] i, float[9] w",
            "o = Constant <value_int = 8> () a = Sub(o, i) y = Gather(w, a)",
            0,
            8,
        ),
        (
            "int64[n, 4] i, float[30] w",
            "two = Constant <value_int = 2> () three = Constant <value_int = 3> () "
            "a = Add(i, two) b = Mul(a, three) y = Gather(w, b)",
            -2,
            7,
        ),
        ("float[n, 4] i, float[9, 2] w", "a = Cast <to = 7> (i) y = Gather(w, a)", 0, 8),
        ("int64[3, 4] i, float[3, 5] w", "y = GatherElements <axis = 1> (w, i)", 0, 4),
        ("int64[n, 2] i, float[5, 9] w", "y = GatherND(w, i)", 0, 4),
        (
            "int64[n] i, float[2] v",
            "d = Constant <value_int = 6> () y = OneHot(i, d, v)",
            0,
            5,
        ),
    ],
)
def test_integers_stay_within_what_they_index(
    signature: str, body: str, least: int, greatest: int
) -> None:
    model = model_of(f"{signature}) => (float[?] y", body)
    values = np.concatenate(
        [array(each, "i").ravel() for each in inputs.generate(model, {}, count=12)]
    )
    assert values.min() >= least
    assert values.max() <= greatest
    assert values.max() - values.min() >= (greatest - least) // 2


def test_a_bound_is_seen_inside_a_branch() -> None:
    model = model_of(
        "bool c, int64[4] i, float[9] w) => (float[4] y",
        "y = If (c) <then_branch = t () => (float[4] p) { p = Gather(w, i) }, "
        "else_branch = e () => (float[4] q) { q = Cast <to = 1> (i) }>",
    )
    sets = inputs.generate(model, {})
    assert all(array(each, "i").min() >= 0 and array(each, "i").max() <= 8 for each in sets)
    assert {bool(array(each, "c")) for each in sets} == {True, False}


def test_an_index_into_a_dynamic_dimension_follows_its_size() -> None:
    model = model_of(
        "float[n, t] x, int64[3] i) => (float[n, 3] y", "y = Gather <axis = 1> (x, i)"
    )
    for each in inputs.generate(model, {}):
        assert array(each, "i").max() < array(each, "x").shape[1]


def test_a_divisor_of_integers_is_never_zero() -> None:
    model = model_of("int32[64] x, int32[64] d) => (int32[64] y", "y = Div(x, d)")
    assert all((array(each, "d") != 0).all() for each in inputs.generate(model, {}, count=8))


def test_a_number_compared_with_a_constant_takes_both_sides() -> None:
    model = model_of(
        "int64 sr, float[2] x) => (float[2] y, bool b",
        "r = Constant <value_int = 16000> () b = Equal(sr, r) y = Relu(x)",
    )
    assert [int(array(each, "sr")) for each in inputs.generate(model, {})] == [
        16000,
        8000,
        16000,
        8000,
    ]


def test_thresholds_take_the_scale_of_the_table_they_are_compared_with() -> None:
    model = model_of(
        "float f) => (bool[3] y",
        "t = Constant <value_floats = [50.0, 100.0, 2000.0]> () y = GreaterOrEqual(t, f)",
    )
    assert float(array(inputs.generate(model, {})[0], "f")) == 50.0


def test_inputs_that_become_axes_or_a_shape_are_valid_as_such() -> None:
    model = model_of(
        "float[4, 4] x, int64[2] a, int64[3] s) => (float[n] y, float[n] z",
        "y = ReduceSum(x, a) z = Reshape(x, s)",
    )
    first = inputs.generate(model, {})[0]
    assert array(first, "a").tolist() == [0, 1]
    assert array(first, "s").tolist() == [-1, 1, 1]


def test_masks_are_zeros_and_ones_and_never_empty() -> None:
    model = model_of(
        "int64[n, t] attention_mask) => (float[n, t] y", "y = Cast <to = 1> (attention_mask)"
    )
    sets = inputs.generate(model, {})
    assert all({*array(each, "attention_mask").ravel()} <= {0, 1} for each in sets)
    assert all(array(each, "attention_mask").any(axis=1).all() for each in sets)
    assert any((array(each, "attention_mask") == 0).any() for each in sets)


def test_many_dynamic_dimensions_do_not_multiply_to_gigabytes() -> None:
    model = model_of("float[h, h, h, h, h] x) => (float[h, h, h, h, h] y", "y = Relu(x)")
    made = inputs.generate(model, {}, count=2)
    assert all(array(each, "x").nbytes <= 2**26 for each in made)
    assert len(set(shapes(made, "x"))) >= 2


def test_a_scalar_stays_a_scalar() -> None:
    model = model_of("float x) => (float y", "y = Relu(x)")
    assert shapes(inputs.generate(model, {}), "x") == [()] * 4


def test_a_weight_fixes_the_size_of_a_dynamic_dimension() -> None:
    model = model_of(
        "float[n, k] x, float[7, 3] w = {0}) => (float[n, 3] y", "y = MatMul(x, w)"
    )
    model.graph.initializer.append(
        onnx.TensorProto(name="w", data_type=1, dims=[7, 3])
    )  # its data was stripped
    assert {shape[1] for shape in shapes(inputs.generate(model, {}), "x")} == {7}


@pytest.mark.parametrize(
    "kind",
    ["float16", "bfloat16", "float", "double", "int8", "uint8", "int64", "uint64", "bool"],
)
def test_every_type_is_made_in_its_own_dtype(kind: str) -> None:
    model = model_of(f"{kind}[3, 4] x) => ({kind}[3, 4] y", "y = Identity(x)")
    made = array(inputs.generate(model, {})[1], "x")
    expected = onnx.helper.tensor_dtype_to_np_dtype(
        model.graph.input[0].type.tensor_type.elem_type
    )
    assert made.dtype == expected


def test_strings_are_objects() -> None:
    model = model_of("string[5] x) => (string[5] y", "y = Identity(x)")
    assert all(isinstance(text, str) for text in array(inputs.generate(model, {})[0], "x"))


def test_a_sequence_is_a_list_of_arrays() -> None:
    model = model_of(
        "seq(float[2]) x) => (float[n] y", "y = ConcatFromSequence <axis = 0> (x)"
    )
    value = inputs.generate(model, {})[0].values["x"]
    assert isinstance(value, list)
    assert [item.shape for item in value] == [(2,), (2,)]


@pytest.mark.parametrize("kind", ["complex64", "int4"])
def test_types_that_cannot_be_fed_are_refused_by_name(kind: str) -> None:
    model = model_of(f"{kind}[2] x) => ({kind}[2] y", "y = Identity(x)")
    with pytest.raises(InputError, match=rf"'x' is of type {kind}"):
        inputs.generate(model, {})


def test_set_names_say_what_is_in_them() -> None:
    model = model_of("float[1, 3, h, w] x) => (float[1, 3, h, w] y", "y = Relu(x)")
    names = [each.name for each in inputs.generate(model, {}, seed=7)]
    assert names[0] == "set 0 (seed 7, page-like, 1x3x128x192)"
    assert names[1] == "set 1 (seed 7, normal noise, 1x3x160x128)"


def test_the_digest_tells_contents_apart_and_ignores_the_name() -> None:
    one = InputSet("a", {"x": np.array(["ab", "c"], object)})
    same = InputSet("b", {"x": np.array(["ab", "c"], object)})
    other = InputSet("a", {"x": np.array(["a", "bc"], object)})
    assert one.digest() == same.digest()
    assert one.digest() != other.digest()
    assert (
        InputSet("a", {"x": np.zeros(2)}).digest()
        != InputSet("a", {"x": np.zeros((2, 1))}).digest()
    )


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (1, -1)])
def test_counts_and_seeds_out_of_range_are_usage_errors(count: int, seed: int) -> None:
    with pytest.raises(UsageError):
        inputs.generate(
            model_of("float x) => (float y", "y = Relu(x)"), {}, count=count, seed=seed
        )


class Picky:
    """Stands for a runtime that takes only some sizes."""

    def __init__(self, accepted: dict[str, set[int]], message: str = "it failed") -> None:
        self.accepted = accepted
        self.message = message
        self.runs = 0

    def __call__(self, values: dict[str, Value]) -> None:
        self.runs += 1
        for name, sizes in self.accepted.items():
            value = values[name]
            assert isinstance(value, np.ndarray)
            if value.shape[-1] not in sizes:
                raise RuntimeError(self.message)


SPOKEN = ("float[n, audio_samples] x) => (float[n, audio_samples] y", "y = Relu(x)")


def test_the_search_climbs_to_a_size_that_runs_and_varies_it_where_it_can() -> None:
    picky = Picky({"x": {512, 544}})
    sets = inputs.generate(model_of(*SPOKEN), {}, try_run=picky)
    assert {shape[1] for shape in shapes(sets, "x")} == {512, 544}
    assert {shape[0] for shape in shapes(sets, "x")} >= {1, 2}


def test_a_size_that_cannot_vary_stays() -> None:
    sets = inputs.generate(model_of(*SPOKEN), {}, try_run=Picky({"x": {512}}))
    assert {shape[1] for shape in shapes(sets, "x")} == {512}


def test_an_expected_size_in_the_message_is_taken_at_its_word() -> None:
    message = (
        "Got invalid dimensions for input: x for the following indices\n index: 1 Got: "
        "16000 Expected: 1234\n"
    )
    picky = Picky({"x": {1234}}, message)
    sets = inputs.generate(model_of(*SPOKEN), {}, count=1, try_run=picky)
    assert shapes(sets, "x") == [(1, 1234)]
    assert picky.runs == 2


def test_a_bound_in_the_message_caps_doubtful_integers() -> None:
    def run(values: dict[str, Value]) -> None:
        if np.max(np.asarray(values["i"])) > 3:
            raise RuntimeError(
                "indices element out of data bounds, idx=9 must be within the inclusive range "
                "[-4,3]"
            )

    model = model_of("int64[32] i) => (int64[32] y", "y = Neg(i)")
    assert array(inputs.generate(model, {}, try_run=run)[0], "i").max() <= 3


def test_a_bound_that_a_second_message_lowers_caps_again() -> None:
    def run(values: dict[str, Value]) -> None:
        for most in (10, 3):
            if np.max(np.asarray(values["i"])) > most:
                raise RuntimeError(f"idx=99 must be within the inclusive range [-9,{most}]")

    model = model_of("int64[32] i) => (int64[32] y", "y = Neg(i)")
    made = array(inputs.generate(model, {}, try_run=run)[0], "i")
    # Not a plain number throughout, which is what the search would come to without the bound.
    assert set(made.tolist()) == {0, 1, 2, 3}


HUGE = 20_000_000
HUGE_MESSAGE = (
    f"Got invalid dimensions for input: x for the following indices\n index: 1 Got: "
    f"16000 Expected: {HUGE}\n"
)


def test_a_size_beyond_all_reason_is_not_tried_unless_the_card_asks_for_it() -> None:
    model = model_of(
        "uint8[n, audio_samples] x) => (uint8[n, audio_samples] y", "y = Identity(x)"
    )
    with pytest.raises(InputError):
        inputs.generate(model, {}, count=1, try_run=Picky({"x": {HUGE}}, HUGE_MESSAGE))
    asked = {"x": InputSpec(shapes=((1, HUGE),))}
    sets = inputs.generate(model, asked, count=1, try_run=Picky({"x": {HUGE}}))
    assert shapes(sets, "x") == [(1, HUGE)]


@pytest.mark.parametrize("kind", ["uint8", "int8", "bool"])
def test_numbers_that_a_type_does_not_hold_are_not_tried(kind: str) -> None:
    model = model_of(
        f"{kind}[audio_samples] x) => ({kind}[audio_samples] y", "y = Identity(x)"
    )
    with pytest.raises(InputError, match="it failed"):
        inputs.generate(model, {}, count=1, try_run=Picky({"x": set()}))


@pytest.mark.parametrize(
    ("size", "near"),
    [(1, [33, 2, 8, 12]), (2, [34, 1, 4, 3, 8, 12]), (8, [12, 40, 4, 16, 7, 9])],
)
def test_the_neighbours_of_a_size_are_sizes_and_others(size: int, near: list[int]) -> None:
    dimension = Dimension("n", Role.OTHER, (8, 12), (1, 2), "")
    assert neighbours(size, dimension) == near


@pytest.mark.parametrize("elem_type", [onnx.TensorProto.INT64, onnx.TensorProto.FLOAT])
@pytest.mark.parametrize("turned", [1, -1])
def test_of_several_bounds_the_tightest_counts(elem_type: int, turned: int) -> None:
    demands = (
        Demand(Kind.BOUND, "one", -30, 9.5),
        Demand(Kind.BOUND, "another", -2.5, 30),
        Demand(Kind.BOUND, "a third"),
    )[::turned]
    rule = rule_for(Input("x", elem_type, (4,)), Findings(demands), None)
    whole = elem_type == onnx.TensorProto.INT64
    assert (rule.low, rule.high) == ((-2, 9) if whole else (-2.5, 9.5))


def test_when_nothing_runs_the_error_says_what_would_settle_it() -> None:
    with pytest.raises(InputError) as caught:
        inputs.generate(
            model_of(*SPOKEN), {}, try_run=Picky({"x": set()}, "no kernel likes it")
        )
    text = str(caught.value)
    assert "'x' (float [n, audio_samples]" in text
    assert "no kernel likes it" in text
    assert "[inputs.x]" in text
    assert ".npz" in text


def test_an_input_of_unknown_rank_is_searched_for() -> None:
    model = model_of("float x) => (float y", "y = Relu(x)")
    model.graph.input[0].type.tensor_type.ClearField("shape")

    def run(values: dict[str, Value]) -> None:
        if np.asarray(values["x"]).ndim != 3:
            raise RuntimeError("rank")

    assert array(inputs.generate(model, {}, try_run=run)[0], "x").ndim == 3


def test_sets_that_onnx_runtime_runs_are_found_without_a_card() -> None:
    ort = pytest.importorskip("onnxruntime")
    model = model_of(
        "float[n, t] x, int64[n, t] i, int64 k) => (float[n, m] y",
        """
        shape = Constant <value_ints = [-1, 32]> ()
        axes = Constant <value_ints = [0]> ()
        table = Constant <value_floats = [1.0, 2.0, 3.0]> ()
        looked = Gather(table, i)
        sum = Add(x, looked)
        cut = Reshape(sum, shape)
        many = Unsqueeze(k, axes)
        best, where = TopK(cut, many)
        y = Identity(best)
        """,
    )
    session = ort.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    sets = inputs.generate(model, {}, try_run=lambda values: session.run(None, values))
    assert len({shape[1] for shape in shapes(sets, "x")}) >= 2


def test_every_input_is_explained_in_a_sentence() -> None:
    model = model_of(
        "int64[n, 4] ids, float[9, 2] w) => (float[n, 4, 2] y",
        "y = Gather <axis = 0> (w, ids)",
    )
    explained = {each.name: each for each in inputs.describe(model, {})}
    assert explained["ids"].dtype == "int64"
    assert explained["ids"].shape == "[n, 4]"
    assert "0 to 8: it indexes the 9 entries of axis 0 of 'w'" in explained["ids"].sentence
    assert "axis 0 takes 1, 2, 3" in explained["ids"].sentence


def test_what_a_call_brings_into_a_function_is_no_constant_of_its_body() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[N] x, int64[1] k) => (float[N] y, float[1] z) { y, z = own.f <alpha = 2.0> (x, k) }
        <domain: "own", opset_import: ["": 17]>
        f <alpha> (x, k) => (y, z) {
            a = Constant <value_float: float = @alpha> ()
            y = Add (x, a)
            z = Gather (y, k)
        }"""
    )
    assert {"x", "k"} == {*inputs.generate(model, {}, count=1)[0].values}


def test_where_every_output_says_one_thing_a_set_is_looked_for_on_which_one_does_not() -> (
    None
):
    """As a class that is nearly always the same: a table of 40 tokens, three of which give a 1."""
    marks = ",".join("1" if token in (5, 17, 30) else "0" for token in range(40))
    made = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (int64[batch] x) => (int64[batch] y)
        <int64[40] table = {{{marks}}}> {{ y = Gather(table, x) }}"""
    )
    table = np.array(marks.split(","), np.int64)
    for seed in range(8):
        sets = inputs.generate(
            made,
            {},
            count=4,
            seed=seed,
            try_run=lambda values: {"y": table[np.asarray(values["x"])]},
        )
        assert len(sets) == 4
        assert (
            len(
                np.unique(
                    np.concatenate([table[np.asarray(each.values["x"])] for each in sets])
                )
            )
            == 2
        )


def test_what_never_reacts_keeps_its_sets() -> None:
    made = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) { y = Sub(x, x) }'
    )
    silent = inputs.generate(made, {}, try_run=lambda values: {"y": 0 * values["x"]})
    assert [each.name for each in silent] == [
        each.name for each in inputs.generate(made, {}, try_run=lambda _: None)
    ]


def test_boxes_of_a_suppression_overlap_in_all_degrees() -> None:
    made = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[1,40,4] b, float[1,1,40] s) => (int64[n,3] y) {
        y = NonMaxSuppression(b, s) }"""
    )
    boxes = np.asarray(inputs.generate(made, {})[0].values["b"], np.float64).reshape(
        20, 2, 4
    )
    first, second = boxes[:, 0], boxes[:, 1]
    shared = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(
        first[:, :2], second[:, :2]
    )
    common = np.prod(np.maximum(shared, 0), axis=1)
    areas = [np.prod(corners[:, 2:] - corners[:, :2], axis=1) for corners in (first, second)]
    overlaps = common / (areas[0] + areas[1] - common)
    assert (np.diff(boxes.reshape(-1, 2, 2), axis=1) >= 0).all()
    assert np.histogram(overlaps, [0.5, 0.6, 0.7, 0.8, 1.01])[0].all()


QUIET = parser.parse_model(
    '<ir_version: 8, opset_import: ["" : 17]> g (float[n,8] x) => (float[n,2] y) { y = Relu(x) }'
)


def saturated(values: dict[str, Any], least: float) -> dict[str, Any]:
    """A class for all that stays below ``least``, and a softmax that says so."""
    chosen = (np.abs(values["x"]).max(axis=1) > least).astype(np.float32)
    return {"y": np.stack([1 - chosen, chosen], axis=1)}


@pytest.mark.parametrize(
    ("least", "times"), [(0.5, 1), (6, 4), (25, 16), (100, 64), (1e4, 1)]
)
def test_where_noise_has_one_answer_louder_signals_are_looked_for(
    least: float, times: int
) -> None:
    sets = inputs.generate(QUIET, {}, try_run=lambda values: saturated(values, least))
    answers = [saturated(each.values, least)["y"][:, 1].max() for each in sets]
    assert len(sets) == 4
    assert sets[0].name == inputs.generate(QUIET, {})[0].name
    loud = [each.name for each in sets if f" times {times}, " in each.name]
    assert bool(loud) is (times > 1)
    if times > 1:
        assert len(loud) == 3
        assert (answers[0], max(answers)) == (0, 1)


def test_a_bounded_signal_gets_no_louder() -> None:
    bounded = {"x": InputSpec(low=-1.0, high=1.0)}
    sets = inputs.generate(QUIET, bounded, try_run=lambda values: saturated(values, 1e4))
    assert max(np.abs(each.values["x"]).max() for each in sets) <= 1
    assert not [each.name for each in sets if "times" in each.name]


SPELT_OUT = (
    "c = Cast<to = 7>(low) p = Mul({0}) up = Not(low) d = Cast<to = 7>(up) q = Mul(d, i) "
    "w = Add(p, q)"
)


@pytest.mark.parametrize(
    "choice", ["w = Where(low, a, i)", SPELT_OUT.format("c, a"), SPELT_OUT.format("a, c")]
)
def test_an_index_that_counts_from_the_end_where_it_is_negative_stays_within_its_table(
    choice: str,
) -> None:
    """As Keras 3 has it, in the words of tf2onnx too, which knows no Where of integers."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[n,64] x) => (float[n,64,4] y)
        <int64[1] size = {{100}}, int64[1] none = {{0}}, float[100,4] table> {{
            i = Cast<to = 7>(x)  low = Less(i, none)  a = Add(i, size)  {choice}
            y = Gather(table, w)
        }}"""
    )
    table = np.zeros((100, 4), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(table, "table"))
    seen = np.concatenate(
        [np.ravel(each.values["x"]) for each in inputs.generate(model, {})]
    )
    assert seen.min() >= 0
    assert 90 <= seen.max() <= 99


@pytest.mark.parametrize("other", ["c = Cast<to = 7>(i)", "c = Cast<to = 7>(half) "])
def test_a_product_with_what_is_no_truth_value_says_nothing_of_an_index(other: str) -> None:
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (int64[n,64] i, float[n,64] half)
        => (float[n,64,4] y) <float[100,4] table> {{ {other} w = Mul(c, i) y = Gather(table, w) }}"""
    )
    model.graph.initializer.append(
        numpy_helper.from_array(np.zeros((100, 4), np.float32), "table")
    )
    seen = np.concatenate(
        [np.ravel(each.values["i"]) for each in inputs.generate(model, {})]
    )
    assert seen.max() < 90
