"""Follow an input through a graph: which of its sizes and values an operator demands, and which not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from onnx_harness.inputs.graph.demand import Kind
from onnx_harness.inputs.graph.walk import Findings
from onnx_harness.inputs.plan import sizes
from onnx_harness.inputs.plan.recipe import recipe_for

WEIGHTS = {
    "seven": (7,),
    "w73": (7, 3),
    "w37": (3, 7),
    "row": (2, 5),
    "w25": (2, 5),
    "kernel": (6, 4, 3, 3),
    "short": (6, 4, 15),
    "long": (6, 4, 16),
    "lstm": (1, 8, 7),
    "hidden": (1, 8, 2),
    "table": (9, 2),
    "volume": (4, 9, 5),
    "words": (30, 8),
    "places": (20, 8),
    "kinds": (10, 8),
    "norm": (8,),
    "wide": (6, 4, 3, 100),
}


def findings_of(graph: str, name: str, functions: str = "") -> Findings:
    """What is found of an input; a graph's weights are initializers by their names."""
    model = parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 17, "my" : 1]> g {graph} {functions}'
    )
    for domain, version in (("com.microsoft", 1), ("", 23 if "newest" in graph else 17)):
        entry = next((each for each in model.opset_import if each.domain == domain), None)
        (entry or model.opset_import.add()).CopyFrom(
            onnx.helper.make_opsetid(domain, version)
        )
    for weight, shape in WEIGHTS.items():
        if weight in graph:
            model.graph.initializer.append(
                onnx.numpy_helper.from_array(np.ones(shape, np.float32), weight)
            )
    return recipe_for(model, {}).findings[name]


SCALED = "BatchNormalization (r, seven, seven, seven, seven)"


@pytest.mark.parametrize(
    ("dims", "nodes", "sizes"),
    [
        ("a,b", "y = MatMul (x, w73)", {1: 7}),
        ("a,b", "r = Transpose (x)  y = MatMul (r, w73)", {0: 7}),
        ("a,b", "r = Transpose <perm = [1, 0]> (x)  y = MatMul (r, w73)", {0: 7}),
        ("a,b", "y = Gemm (x, w73)", {1: 7}),
        ("a,b", "y = Gemm <transA = 1> (x, w73)", {0: 7}),
        ("a,b", "y = Gemm <transB = 1> (x, w37)", {1: 7}),
        (
            "a,1,c",
            f"m = Constant <value_ints = [-2]> ()  r = Squeeze (x, m)  y = {SCALED}",
            {2: 7},
        ),
        (
            "a,b",
            f"m = Constant <value_ints = [-1]> ()  r = Unsqueeze (x, m)  y = {SCALED}",
            {1: 7},
        ),
        # Two rows are made of one: the first axis of the sum is none of x.
        ("a", "r = Add (x, row)  y = Gemm <transA = 1> (r, w25)", {}),
        ("a,b", "r = Add (x, row)  y = Gemm <transA = 1> (r, w25)", {0: 2}),
        ("a,b,c,d", "y = Conv <group = 2> (x, kernel)", {1: 8}),
        ("a,b,c", "y = LSTM <hidden_size = 2> (x, lstm, hidden)", {2: 7}),
    ],
)
def test_a_weight_fixes_the_axis_that_comes_to_it(
    dims: str, nodes: str, sizes: dict[int, int]
) -> None:
    found = findings_of(f"(float[{dims}] x) => (float[?] y) {{ {nodes} }}", "x")
    assert {axis.axis: axis.size for axis in found.axes if axis.size} == sizes


def test_a_kernel_reaches_as_far_as_its_dilation() -> None:
    nodes = "y = Conv <dilations = [1, 4], strides = [2, 5]> (x, kernel)"
    found = findings_of(f"(float[a,b,c,d] x) => (float[?] y) {{ {nodes} }}", "x")
    sliding = {axis.axis: (axis.at_least, axis.step) for axis in found.axes if axis.at_least}
    assert sliding == {2: (3, 2), 3: (9, 5)}
    assert not found.is_signal
    for weight, is_signal in (("short", False), ("long", True)):
        graph = f"(float[a,b,c] x) => (float[?] y) {{ y = Conv (x, {weight}) }}"
        assert findings_of(graph, "x").is_signal == is_signal


@pytest.mark.parametrize(
    ("layout", "meant"), [(0, {0: "sequence", 1: "batch"}), (1, {0: "batch", 1: "sequence"})]
)
def test_the_axes_of_a_recurrence_mean_something(layout: int, meant: dict[int, str]) -> None:
    nodes = f"y = LSTM <hidden_size = 2, layout = {layout}> (x, lstm, hidden)"
    found = findings_of(f"(float[a,b,c] x) => (float[?] y) {{ {nodes} }}", "x")
    assert {axis.axis: axis.meaning for axis in found.axes if axis.meaning} == meant


LOOP = """m = Constant <value_int = 3> ()  t = Constant <value = bool {1}> ()
    z = Constant <value_ints = [0]> ()"""
CALLED = """<domain: "my", opset_import: ["" : 17]> picked (from, at) => (p) { p = Gather (from, at) }"""


@pytest.mark.parametrize(
    ("nodes", "kind"),
    [
        ("y = Gather (table, i)", Kind.BOUND),
        ("y = my.picked (table, i)", Kind.BOUND),
        ("p, q = Split (i)  y = Gather (table, q)", Kind.BOUND),
        (
            f"""{LOOP} e = Loop (m, t, i) <body = b (int64 k, bool go, int64[n] v)
                => (bool more, int64[n] w) {{ more = Identity (go)  w = Identity (v) }}>
            y = Gather (table, e)""",
            Kind.BOUND,
        ),
        (  # it's an index in the second step
            f"""{LOOP} e, f, y = Loop (m, t, z, i) <body = b (int64 k, bool go, int64[n] v, int64[n] u)
                => (bool more, int64[n] w, int64[n] x, float[n,2] g) {{
                    more = Identity (go)  w = Identity (u)  x = Identity (u)  g = Gather (table, v) }}>""",
            Kind.BOUND,
        ),
        (  # on one way it is halved, on the other it isn't
            """c = Constant <value = bool {1}> ()  two = Constant <value_int = 2> ()
            k = Identity (i)  j = Div (i, two)  a = Where (c, k, j)  y = Gather (table, a)""",
            Kind.BOUND,
        ),
        (
            "two = Constant <value_int = 2> ()  j = Div (i, two)  y = Gather (table, j)",
            Kind.LOOSE,
        ),
        (
            "two = Constant <value_int = 2> ()  j = Div (two, i)  y = Gather (table, j)",
            Kind.NONZERO,
        ),
        (
            "two = Constant <value_int = 2> ()  h = Div (i, two)  j = Div (two, h)  y = Gather (table, j)",
            Kind.NONZERO,
        ),
        ("a = Cast <to = 1> (i)  y = Sin (a)", Kind.ANGLE),
    ],
)
def test_a_demand_is_found_behind_what_leads_to_it(nodes: str, kind: Kind) -> None:
    graph = f"(int64[n] i) => (float[?] y) {{ {nodes} }}"
    found = findings_of(graph, "i", CALLED if "my." in nodes else "")
    assert kind in {demand.kind for demand in found.demands}


@pytest.mark.parametrize(
    ("kind", "nodes", "not_asked"),
    [
        (
            "int64[n]",
            "f = Cast <to = 1> (i)  g = Sqrt (f)  "
            "j = Cast <to = 7> (g)  y = Gather (table, j)",
            Kind.LOOSE,
        ),
        ("int64[n]", "a = Mod (i, i)  f = Cast <to = 1> (a)  y = Sin (f)", Kind.ANGLE),
        ("float[n]", "y = Sin (i)", Kind.ANGLE),
        (
            "int64[n]",
            "z = Constant <value_int = 0> ()  c = Constant <value_int = 5> ()  "
            "a = Clip (i, z, c)  y = Gather (table, a)",
            Kind.LOOSE,
        ),
        (
            "int64[1]",
            "k = Constant <value_ints = [100]> ()  a = Div (k, i)  s = Constant <value_ints = [7]> ()  "
            "b = Less (a, s)  y = Cast <to = 1> (b)",
            Kind.CHOICE,
        ),
    ],
)
def test_a_demand_ends_where_something_else_is_made_of_it(
    kind: str, nodes: str, not_asked: Kind
) -> None:
    found = findings_of(f"({kind} i) => (float[?] y) {{ {nodes} }}", "i")
    assert not_asked not in {demand.kind for demand in found.demands}


def test_the_axes_of_what_a_loop_stacks_are_others() -> None:
    """Each step's value is a row of a new first axis."""
    nodes = f"""{LOOP} e, r = Loop (m, t, x) <body = b (int64 k, bool go, float[a,b] v)
        => (bool more, float[a,b] w, float[a,b] g) {{
            more = Identity (go)  w = Identity (v)  g = Identity (v) }}>  y = {SCALED}"""
    assert not findings_of(f"(float[a,b] x) => (float[?] y) {{ {nodes} }}", "x").axes


EMBEDDED = (
    "com.microsoft.EmbedLayerNormalization (a, b, words, places, kinds, norm, norm, m, p)"
)
SEVEN = "seven_of = Constant <value_floats = [7.0]> ()"


@pytest.mark.parametrize(
    ("inputs", "nodes", "name", "demand"),
    [
        (
            "float[a,b,7] x, int32[b] i",
            "y = LSTM <hidden_size = 2> (x, lstm, hidden, , i)",
            "i",
            (Kind.LENGTH, None, None, "a"),
        ),
        (
            "float[a,t] x, int64[a] i",
            "y = ReverseSequence <time_axis = 1, batch_axis = 0> (x, i)",
            "i",
            (Kind.LENGTH, None, None, "t"),
        ),
        (
            "int64[n] i",
            "y = com.microsoft.GatherBlockQuantized <gather_axis = 1> (table, i, row)",
            "i",
            (Kind.BOUND, 0, 1, None),
        ),
        (
            "int64[4,2] i",
            "y = GatherND <batch_dims = 1> (volume, i)",
            "i",
            (Kind.BOUND, 0, 4, None),
        ),
        ("int64[n,1] i", "y = GatherND (volume, i)", "i", (Kind.BOUND, 0, 3, None)),
        (
            "float[a,b,c,d] newest, int64[a,b] i",
            "y = RotaryEmbedding (newest, words, places, i)",
            "i",
            (Kind.BOUND, 0, 29, None),
        ),
        (
            "float[a,b,c] x, int64[a,b] i",
            "y = com.microsoft.RotaryEmbedding (x, i, words, places)",
            "i",
            (Kind.BOUND, 0, 29, None),
        ),
        (
            "float[a,b,c] x, int32[a,b] i",
            "y = com.microsoft.Attention <num_heads = 1> (x, w73, seven, i)",
            "i",
            (Kind.MASK, None, None, None),
        ),
        (
            "float[1,3,16,20] x, float[n,4] i, int64[n] j",
            "y = RoiAlign <spatial_scale = 0.5> (x, i, j)",
            "i",
            (Kind.BOXES, 0, 31, None),
        ),
        (
            "float[1,3,h,w] x, float[n,4] i, int64[n] j",
            "y = RoiAlign (x, i, j)",
            "i",
            (Kind.BOXES, 0, None, "h"),
        ),
        (
            "float[1,3,h,w] x, float[n,4] i, int64[n] j",
            "y = RoiAlign <spatial_scale = 0.5> (x, i, j)",
            "i",
            (Kind.BOXES, 0, None, None),
        ),
        (
            "float[1,n,4] i, float[1,c,n] s",
            "y = NonMaxSuppression (i, s)",
            "i",
            (Kind.BOXES, 0, 1, None),
        ),
        *(
            (
                "int32[n,t] a, int32[n,t] b, int32[n,t] m, int32[n,t] p",
                f"y = {EMBEDDED}",
                name,
                demand,
            )
            for name, demand in (
                ("a", (Kind.BOUND, 0, 29, None)),
                ("b", (Kind.BOUND, 0, 9, None)),
                ("p", (Kind.BOUND, 0, 19, None)),
                ("m", (Kind.MASK, None, None, None)),
            )
        ),
        ("float[n] i", "y = Log (i)", "i", (Kind.BOUND, 1e-3, None, None)),
    ],
)
def test_an_operator_demands_what_its_arguments_have_to_be(
    inputs: str,
    nodes: str,
    name: str,
    demand: tuple[Kind, float | None, float | None, str | None],
) -> None:
    found = findings_of(f"({inputs}) => (float[?] y) {{ {nodes} }}", name)
    assert demand in [(each.kind, each.low, each.high, each.dim) for each in found.demands]


@pytest.mark.parametrize(
    ("inputs", "nodes", "not_asked"),
    [
        (
            "float[1,n,4] i, float[1,c,n] s",
            "y = NonMaxSuppression <center_point_box = 1> (i, s)",
            {Kind.BOXES},
        ),
        (  # its mask is added to the scores
            "float[a,1,b,c] newest, float[b,b] i",
            "y = Attention (newest, newest, newest, i)",
            {Kind.MASK, Kind.LENGTH},
        ),
        (  # two single numbers are a switch
            "float[1] i",
            f"{SEVEN}  b = Less (i, seven_of)  y = Cast <to = 1> (b)",
            {Kind.UPPER, Kind.LOWER},
        ),
    ],
)
def test_what_looks_like_a_demand_may_be_none(
    inputs: str, nodes: str, not_asked: set[Kind]
) -> None:
    found = findings_of(f"({inputs}) => (float[?] y) {{ {nodes} }}", "i")
    assert not not_asked & {demand.kind for demand in found.demands}


def dimensions_of(graph: str) -> dict[str, sizes.Dimension]:
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> g {graph}')
    for weight in ("kernel", "wide"):
        if weight in graph:
            model.graph.initializer.append(
                onnx.numpy_helper.from_array(np.ones(WEIGHTS[weight], np.float32), weight)
            )
    return dict(recipe_for(model, {}).dimensions)


def test_sizes_are_long_enough_for_the_longest_kernel() -> None:
    nodes = "z = Conv <strides = [1, 5]> (x, kernel)  y = Conv (x, wide)"
    dimensions = dimensions_of(f"(float[n,4,h,w] x) => (float[?] y) {{ {nodes} }}")
    assert min(dimensions["w"].preferred) >= 100
    assert min(dimensions["h"].preferred) < 100
    by_stride = {3 + 5 * (places - 1) for places in (4, 8, 3, 1)}
    assert by_stride <= set(dimensions["w"].ladder)


def test_what_is_pinned_stays_on_the_ladder_and_the_batch_stays_at_first() -> None:
    dimensions = dimensions_of("(float[n,t,k] x) => (float[?] y) { y = Relu (x) }")
    base = sizes.preferred(dimensions, 0)
    rungs = list(sizes.ladder(dimensions, base, {"t": base["t"]}))
    assert {rung["t"] for rung in rungs} == {base["t"]}
    assert rungs[0]["n"] == base["n"]
    assert rungs[0]["k"] != base["k"]
    assert {rung["n"] for rung in rungs} > {base["n"]}


def test_boxes_are_more_than_a_batch() -> None:
    nodes = "y = NonMaxSuppression (x, s)"
    dimensions = dimensions_of(
        f"(float[1,boxes,4] x, float[1,1,boxes] s) => (int64[?,3] y) {{ {nodes} }}"
    )
    assert min(dimensions["boxes"].preferred) > 3
