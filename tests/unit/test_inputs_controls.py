"""Control values: every comparison with a constant goes both ways, whatever stands before it."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import parser

from onnx_harness import inputs
from onnx_harness.inputs.graph.controls import Act, Step, forward
from onnx_harness.inputs.graph.demand import Kind
from onnx_harness.inputs.plan.recipe import recipe_for
from onnx_harness.inputs.values.sets import Value


def model_of(graph: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> g {graph}')


def fed(model: onnx.ModelProto, name: str, count: int = 4) -> list[float]:
    return [
        np.asarray(each.values[name]).reshape(-1)[0].item()
        for each in inputs.generate(model, {}, count=count)
    ]


CHAINS = {
    "nothing": "b = Equal(s, k)",
    "Mod": "m = Constant <value_int = 7> ()  a = Mod(s, m)  b = Equal(a, k)",
    "Mod of zero": (
        "z = Constant <value_int = 0> ()  m = Constant <value_int = 7> ()  a = Mod(s, "
        "m)  b = Equal(a, z)"
    ),
    "Div": "m = Constant <value_int = 8000> ()  a = Div(s, m)  b = Equal(a, k)",
    "Div and Mod": (
        "m = Constant <value_int = 10> ()  a = Div(s, m)  c = Mod(a, m)  b = Equal(k, c)"
    ),
    "Cast and Unsqueeze": (
        "t = Cast <to = 1> (s)  u = Unsqueeze(t, zeros)  f = Cast <to = 1> (k)  b = Equal(u, f)"
    ),
    "Where": "n = Neg(k)  low = Less(s, k)  a = Where(low, s, k)  b = Less(s, k)",
    "shifts and Abs": "a = Add(s, k)  c = Abs(a)  b = Equal(c, k)",
    "Max": "a = Max(s, k)  b = Equal(a, k)",
    "Clip": "h = Constant <value_int = 9> ()  a = Clip(s, k, h)  b = Greater(a, k)",
    "a product, less": "a = Mul(s, k)  b = Less(k, a)",
    "taken from": "m = Constant <value_int = 5> ()  a = Sub(k, s)  b = Equal(a, m)",
    "scaled, then shifted": (
        "m = Constant <value_int = 2> ()  n = Constant <value_int = 9> ()  a = Mul(s, m)  "
        "c = Add(a, k)  b = Equal(c, n)"
    ),
    "at most": "b = LessOrEqual(s, k)",
    "at least, other way round": "b = GreaterOrEqual(k, s)",
}


@pytest.mark.parametrize("steps", CHAINS)
def test_a_comparison_holds_in_one_set_and_not_in_another(steps: str) -> None:
    model = model_of(
        f"(int64 s) => (bool b) {{ k = Constant <value_int = 3> ()  {CHAINS[steps]} }}"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "zeros"))
    session = ort.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    answers = [
        bool(np.all(session.run(None, each.values)[0]))
        for each in inputs.generate(model, {}, count=4)
    ]
    assert set(answers) == {True, False}


def test_a_fraction_is_compared_both_ways_within_its_scale() -> None:
    model = model_of(
        "(float[1] p) => (bool[1] b) { k = Constant <value_floats = [0.5]> ()  b = Greater(p, k) }"
    )
    assert fed(model, "p", 2) == [1.0, 0.5]


def test_a_rate_that_is_divided_is_halved_for_the_other_side() -> None:
    model = model_of(
        f"(int64 s) => (bool b) {{ k = Constant <value_int = 2> ()  {CHAINS['Div']} }}"
    )
    assert fed(model, "s") == [16000, 8000, 16000, 8000]
    assert (
        "what Div makes of it is compared with 2 in Equal 'b'"
        in inputs.describe(model, {})[0].sentence
    )


def test_of_a_remainder_the_number_itself_is_fed() -> None:
    """16000 says more about a rate than 0 does."""
    model = model_of(
        "(int64 s) => (bool b) { z = Constant <value_int = 0> ()  "
        "k = Constant <value_int = 16000> ()  a = Mod(s, k)  b = Equal(a, z) }"
    )
    assert fed(model, "s", 2) == [16000, 8000]


def test_a_switch_is_fed_zero_and_one() -> None:
    for number in (0, 1):
        model = model_of(
            f"(int64 s) => (bool b) {{ k = Constant <value_int = {number}> ()  b = Equal(s, k) }}"
        )
        assert set(fed(model, "s")) == {0, 1}


def test_a_number_whose_magnitude_counts_may_be_negative_before_that() -> None:
    model = model_of(
        "(uint8 s) => (bool b) { k = Constant <value_int = 5> ()  m = Constant <value_int = 8> ()  "
        "t = Cast <to = 7> (s)  a = Sub(k, t)  c = Abs(a)  b = Equal(c, m) }"
    )
    assert 13 in fed(model, "s")


@pytest.mark.parametrize("steps", ["c = Add(a, i)  b = Less(c, k)", "b = Less(a, i)"])
def test_an_infinite_constant_asks_for_nothing(steps: str) -> None:
    model = model_of(
        f"(float s) => (bool b) {{ k = Constant <value = float {{3}}> ()  a = Mul(s, k)  {steps} }}"
    )
    infinity = onnx.numpy_helper.from_array(np.array(np.inf, np.float32), "i")
    model.graph.initializer.append(infinity)
    assert Kind.CHOICE not in {
        demand.kind for demand in recipe_for(model, {}).findings["s"].demands
    }


@pytest.mark.parametrize(
    "steps",
    [
        "c = Constant <value_int = 5> ()  a = Min(i, c)",
        "t = Cast <to = 9> (i)  a = Cast <to = 7> (t)",
    ],
)
def test_what_is_moved_into_a_range_neednt_lie_in_it(steps: str) -> None:
    model = model_of(
        f"(int64[n, 4] i, float[9, 2] w) => (float[?] y) {{ {steps}  y = Gather(w, a) }}"
    )
    demands = recipe_for(model, {}).findings["i"].demands
    assert Kind.BOUND not in {demand.kind for demand in demands}


def test_values_that_a_type_cannot_hold_are_not_tried() -> None:
    model = model_of(
        "(uint8 s) => (bool b) { k = Constant <value = uint8 {0}> ()  b = Less(s, k) }"
    )
    assert all(0 <= value <= 255 for value in fed(model, "s"))


@pytest.mark.parametrize("kind", ["int64", "float"])
def test_elements_of_a_vector_of_options_are_controls_of_themselves(kind: str) -> None:
    model = model_of(f"""({kind}[3] options) => (bool b, bool c) {{
        one = Constant <value_int = 1> ()
        last = Constant <value_int = -1> ()
        seven = Constant <value = {kind} {{7}}> ()
        mode = Gather(options, one)
        b = Equal(mode, seven)
        level = Gather(options, last)
        c = Less(level, seven)
    }}""")
    session = ort.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    answers = [
        tuple(map(bool, session.run(None, each.values)))
        for each in inputs.generate(model, {}, count=4)
    ]
    assert len(set(answers)) == 4
    told = inputs.describe(model, {})[0].sentence
    assert "Element 1 holds 7" in told
    assert "Element 2 holds 6" in told


def test_two_controls_do_not_go_in_step() -> None:
    model = model_of("(bool p, bool q) => (bool r) { r = And(p, q) }")
    both = list(zip(fed(model, "p"), fed(model, "q"), strict=True))
    assert set(both) == {(False, False), (False, True), (True, False), (True, True)}
    assert {q for _, q in both[:2]} == {True, False}


@pytest.mark.parametrize(
    ("steps", "value", "after"),
    [
        ([Step(Act.DIVIDE, 4)], -7, -1),  # towards zero, as ONNX Runtime divides integers
        ([Step(Act.REAL), Step(Act.DIVIDE, 4)], 7, 1.75),
        ([Step(Act.REAL), Step(Act.DIVIDE, 4), Step(Act.WHOLE)], 7, 1),
        ([Step(Act.REAL), Step(Act.WHOLE), Step(Act.DIVIDE, 4)], 7, 1),
        ([Step(Act.FROM, 10), Step(Act.SCALE, 2)], 3, 14),
        ([Step(Act.TRUTH)], 5, 1),
        ([Step(Act.AT_LEAST, 2), Step(Act.AT_MOST, 6)], 9, 6),
    ],
)
def test_steps_are_followed_forwards(steps: list[Step], value: float, after: float) -> None:
    assert forward(tuple(steps), value, whole=True) == after


@pytest.mark.parametrize(
    "source",
    ["limit = Gather(shape, one)  count = Range(zero, limit, one)", "count = Identity(six)"],
)
def test_lengths_that_a_count_is_compared_with_are_those_of_what_is_counted(
    source: str,
) -> None:
    model = model_of(
        f"""(float[n, t] x, int64[n] valid) => (bool[n, t] y) {{
            one = Constant <value_int = 1> ()
            zero = Constant <value_int = 0> ()
            six = Constant <value_ints = [0, 1, 2, 3, 4, 5]> ()
            axes = Constant <value_ints = [1]> ()
            shape = Shape(x)
            {source}
            column = Unsqueeze(valid, axes)
            y = Less(count, column)
        }}"""
    )
    for each in inputs.generate(model, {}):
        steps = 6 if "six" in source else np.shape(each.values["x"])[1]
        valid = np.asarray(each.values["valid"])
        assert valid.max() == steps
        assert valid.min() >= 1


def test_an_index_that_is_one_less_is_a_length() -> None:
    model = model_of("""(float[n, t] x, int64[n, 1] last) => (float[n, 1] y) {
        one = Constant <value_int = 1> ()  place = Sub(last, one)  y = GatherElements <axis = 1> (x, place)
    }""")
    for each in inputs.generate(model, {}):
        assert np.asarray(each.values["last"]).max() == np.shape(each.values["x"])[1]


def test_a_float_mask_is_zeros_and_ones() -> None:
    model = model_of("""(float[n, t] scores, float[n, t] keep) => (float[n, t] y) {
        one = Constant <value_float = 1.0> ()
        far = Constant <value_float = -10000.0> ()
        rest = Sub(one, keep)
        bias = Mul(rest, far)
        sum = Add(scores, bias)
        y = Softmax(sum)
    }""")
    for each in inputs.generate(model, {}):
        assert {*np.asarray(each.values["keep"]).ravel()} <= {0.0, 1.0}


def test_sizes_of_images_are_sizes() -> None:
    model = model_of(
        "(int64[n, 2] orig_target_sizes, float[n, 2] im_shape, float[n, 2] scale_factor) => "
        "(float[n, 2] y) "
        "{ a = Cast <to = 1> (orig_target_sizes)  b = Add(a, im_shape)  y = Div(b, scale_factor) }"
    )
    for each in inputs.generate(model, {}):
        values: dict[str, Value] = each.values
        assert np.min(np.asarray(values["orig_target_sizes"])) >= 32
        assert np.min(np.asarray(values["im_shape"])) >= 32
        assert np.min(np.asarray(values["scale_factor"])) >= 0.5


@pytest.mark.parametrize(
    ("op_type", "where"),
    [("Less", "some elements of a further set"), ("Equal", "some elements")],
)
def test_the_reason_says_which_elements_hold_a_constant(op_type: str, where: str) -> None:
    model = model_of(
        f"(float[n,3] x) => (bool[n,3] y) <float k = {{8.0}}> {{ y = {op_type}(x, k) }}"
    )
    why = recipe_for(model, {}).rules["x"].why
    assert f" Constants in {where}: it is compared with 8 in {op_type}" in why


@pytest.mark.parametrize(
    ("kind", "nodes", "values"),
    [
        ("float", "y = ThresholdedRelu (x)", {1.0}),
        ("float", "y = ThresholdedRelu <alpha = 2.5> (x)", {2.5}),
        ("float", "y = Shrink (x)", {0.5, -0.5}),
        ("float", "y = Shrink <lambd = 2.0> (x)", {2.0, -2.0}),
        ("int64", "k = Constant <value_int = 8> ()  y = Less (x, k)", {7, 8, 9}),
        ("float", "k = Constant <value_float = 8.0> ()  y = Less (x, k)", {8.0}),
        # A quotient of fractions decides nothing; that of integers has a step at each multiple.
        ("float", "k = Constant <value_float = 8.0> ()  y = Div (x, k)", set()),
        ("int64", "k = Constant <value_int = 8> ()  y = Div (x, k)", {7, 8, 9}),
        # What comes to the comparison is never 8.
        (
            "float",
            "m = Constant <value_float = 5.0> ()  k = Constant <value_float = 8.0> ()  "
            "a = Min (x, m)  y = Less (a, k)",
            set(),
        ),
    ],
)
def test_elements_hold_what_an_operator_decides_by(
    kind: str, nodes: str, values: set[float]
) -> None:
    rule = recipe_for(model_of(f"({kind}[n,3] x) => (float[?] y) {{ {nodes} }}"), {}).rules[
        "x"
    ]
    assert {*rule.salient, *rule.edges} == values
