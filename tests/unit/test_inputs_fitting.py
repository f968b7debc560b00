"""Sizes of dynamic dimensions that follow from the graph: multiples, least lengths, branches that
have to agree.
"""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import parser

from onnx_harness import inputs
from onnx_harness.errors import InputError
from onnx_harness.inputs.graph.shapes import Relation, Sort
from onnx_harness.inputs.plan.fitting import fitted, holds, telling
from onnx_harness.inputs.plan.recipe import recipe_for
from onnx_harness.inputs.plan.roles import Role
from onnx_harness.inputs.values.sets import Value


def model_of(graph: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> g {graph}')


def weights(model: onnx.ModelProto, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(rng.normal(size=shape).astype("f4"), name)
        )
    return model


class Counted:
    """ONNX Runtime, and how often it was asked."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.session = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        self.runs = 0

    def __call__(self, values: dict[str, Value]) -> list[object]:
        self.runs += 1
        return list(self.session.run(None, values))


UNET = """(float[n,1,h,w] x) => (float[n,1,h,w] y) {
    a = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
    b = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
    c = MaxPool <kernel_shape = [5, 5], strides = [5, 5]> (b)
    d = ConvTranspose <strides = [5, 5]> (c, five)
    e = Concat <axis = 1> (d, b)
    f = ConvTranspose <strides = [4, 4]> (e, four)
    y = Add(f, x)
}"""
WINDOWS = """(float[n,h,w,4] x) => (float[n,a,b,c] y) {
    shape = Shape(x)
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    seven = Constant <value_ints = [7]> ()
    four = Constant <value_ints = [4]> ()
    batch = Gather(shape, zero)
    height = Gather(shape, one)
    width = Gather(shape, two)
    rows = Div(height, seven)
    columns = Div(width, seven)
    cut = Concat <axis = 0> (batch, rows, seven, columns, seven, four)
    windows = Reshape(x, cut)
    y = ReduceMax <axes = [2, 4], keepdims = 0> (windows)
}"""
FEW = {
    "a U-Net whose poolings leave remainders": weights(
        model_of(UNET), five=(1, 1, 5, 5), four=(2, 1, 4, 4)
    ),
    "windows of 7": model_of(WINDOWS),
    "a vector cut into matrices": model_of("""(float[n] x) => (float[m,4,16] y) {
        shape = Constant <value_ints = [-1, 4, 16]> ()  y = Reshape(x, shape)
    }"""),
    "frames of 441 samples": model_of("""(float[1,samples] audio) => (float[1,m,441] y) {
        shape = Constant <value_ints = [1, -1, 441]> ()  y = Reshape(audio, shape)
    }"""),
    "blocks of 5": model_of("(float[n,1,h,w] x) => (float[n,25,a,b] y) { y = SpaceToDepth "
                            "<blocksize = 5> (x) }"),
    "a length that has to agree behind a stride": weights(
        model_of("""(float[1,1,samples] audio, float[1,1,frames] pitch) => (float[1,1,frames] y) {
            a = Conv <strides = [4], pads = [2, 2]> (audio, w)  y = Add(a, pitch)
        }"""),
        w=(1, 1, 8),
    ),
    "lengths that have to agree at an Add alone": model_of(
        "(float[n,a,8] x, float[n,b,8] y) => (float[n,a,8] z) { z = Add(x, y) }"
    ),
    "a mask as long as past and present": model_of("""
        (float[n,2,past,4] old, float[n,2,t,4] new, float[n,1,1,total] mask) => (float[n,2,1,total] y) {
            all = Concat <axis = 2> (old, new)
            row = ReduceSum <keepdims = 0> (all, last)
            one = Constant <value_ints = [2]> ()
            level = Unsqueeze(row, one)
            y = Add(level, mask)
        }"""),
    "kernels that need room": weights(
        model_of("""(float[n,1,t] x) => (float[n,1,m] y) {
            a = Conv <dilations = [16]> (x, w)
            b = Conv <dilations = [32]> (a, w)
            y = MaxPool <kernel_shape = [30], strides = [30]> (b)
        }"""),
        w=(1, 1, 7),
    ),
    "an image whose features are all weighted": weights(
        model_of("""(float[n,1,h,w] x) => (float[n,3] y) {
            a = MaxPool <kernel_shape = [4, 4], strides = [4, 4]> (x)  b = Flatten(a)  y = Gemm(b, weight)
        }"""),
        weight=(289, 3),
    ),
    "frames of a transform": model_of("""(float[b,n,1] signal) => (float[b,f,201,2] y) {
        step = Constant <value_int = 160> ()  length = Constant <value_int = 400> ()  y = STFT(signal, step, , length)
    }"""),
    "boxes and their "
    "scores": model_of("""(float[1,boxes,4] x, float[1,2,scores] s) => (int64[k,3] y) {
        most = Constant <value_ints = [3]> ()  y = NonMaxSuppression(x, s, most)
    }"""),
    "letters of an Einsum": model_of(
        """(float[b,i,8] x, float[c,h,8] y) => (float[b,i,h] z) { z = Einsum <equation = "bid,bjd->bij"> (x, y) }"""
    ),
    "half of an axis": model_of("(float[n,c] x) => (float[n,d] y) { a, b, d = Split <axis = 1> "
                                "(x)  y = Add(a, b) }"),
}  # fmt: skip
FEW["a mask as long as past and present"].graph.initializer.append(
    onnx.numpy_helper.from_array(np.array([3]), "last")
)


@pytest.mark.parametrize("name", FEW)
def test_the_first_guess_of_every_set_runs(name: str) -> None:
    run = Counted(FEW[name])
    inputs.generate(FEW[name], {}, count=3, try_run=run)
    assert run.runs == 3


@pytest.mark.parametrize(
    "name", sorted(FEW.keys() - {"an image whose features are all weighted"})
)
def test_every_dimension_takes_different_sizes(name: str) -> None:
    recipe = recipe_for(FEW[name], {})
    for entry in recipe.dimensions.values():
        assert len(set(entry.preferred)) >= 2, entry.why


def test_dimensions_that_agree_are_equal_and_no_broadcast_of_one() -> None:
    for each in inputs.generate(
        FEW["a length that has to agree behind a stride"], {}, count=3
    ):
        audio, pitch = (np.shape(each.values[name])[2] for name in ("audio", "pitch"))
        assert pitch == audio // 4 > 1


def test_what_the_card_pins_pulls_the_others_along() -> None:
    from onnx_harness.cards.card import InputSpec

    model = FEW["a length that has to agree behind a stride"]
    for each in inputs.generate(model, {"pitch": InputSpec(shapes=((1, 1, 50),))}, count=2):
        assert 200 <= np.shape(each.values["audio"])[2] <= 203


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "a vector cut into matrices",
            "in multiples of 64, since it is brought into the shape [-1, 4, 16] in Reshape",
        ),
        ("a U-Net whose poolings leave remainders", "in multiples of 20, since "),
        (
            "blocks of 5",
            "in multiples of 5, since blocks of 5 are cut out of it in SpaceToDepth 'y'",
        ),
        (
            "lengths that have to agree at an Add alone",
            "chosen together with b, since the inputs have to agree in Add",
        ),
        (
            "kernels that need room",
            "at least 318, since a kernel of 30 has to find room in MaxPool 'y'",
        ),
    ],
)
def test_the_reason_of_a_size_is_told(name: str, sentence: str) -> None:
    assert sentence in inputs.describe(FEW[name], {})[0].sentence


def test_a_relation_that_every_size_fulfils_is_left_out() -> None:
    always = Relation(Sort.EQUAL, "n", "n", "")
    never = Relation(Sort.MULTIPLE, "n", 7, "")
    assert telling([always, never, never]) == [never]


def test_sizes_next_to_the_wanted_ones_are_taken_and_pinned_ones_kept() -> None:
    step, pair = Relation(Sort.MULTIPLE, "n", 7, ""), Relation(Sort.EQUAL, "n", "m", "")
    assert fitted([step, pair], {"n": 20, "m": 16}, ["m", "n"]) == {"n": 21, "m": 21}
    assert fitted([pair], {"n": 20, "m": 8}, ["n"]) == {"n": 8, "m": 8}


def test_what_cannot_be_fulfilled_is_left_as_near_as_it_gets() -> None:
    one, other = Relation(Sort.EQUAL, "n", 3, ""), Relation(Sort.EQUAL, "n", 5, "")
    sizes = fitted([one, other], {"n": 20}, ["n"])
    assert sum(bool(holds(relation, sizes)) for relation in (one, other)) == 1


def test_a_node_that_contradicts_its_operator_tells_nothing() -> None:
    model = model_of("(float[n] x) => (float[n] y) { y = Transpose <perm = [4]> (x) }")
    model.graph.node.append(onnx.helper.make_node("Conv", ["x"], ["z"]))
    assert recipe_for(model, {}).relations == ()


def test_sizes_are_followed_through_the_models_own_functions() -> None:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[n] x) => (float[m,4,16] y) { y = own.cut(x) }
        <domain: "own", opset_import: ["": 17]>
        cut (x) => (y) { shape = Constant <value_ints = [-1, 4, 16]> ()  y = Reshape(x, shape) }""")
    run = Counted(model)
    inputs.generate(model, {}, count=3, try_run=run)
    assert run.runs == 3
    model.functions[0].node[1].input[0] = "nowhere"
    assert recipe_for(model, {}).relations == ()


def test_where_no_sizes_fit_the_failure_says_what_asks_for_them() -> None:
    model = model_of("""(float[n,4] x) => (float[m] y) {
        shape = Constant <value_ints = [7]> ()  y = Reshape(x, shape)
    }""")
    with pytest.raises(
        InputError,
        match=r"No sizes were found .*: it is brought into the shape \[7\] in Reshape 'y'",
    ):
        inputs.generate(model, {}, try_run=Counted(model))


def test_boxes_lie_within_the_picture_with_the_lesser_corner_first() -> None:
    model = model_of("""(float[n,2,h,w] x, float[k,4] boxes, int64[m] at) => (float[k,2,3,3] y) {
        y = RoiAlign <output_height = 3, output_width = 3> (x, boxes, at)
    }""")
    run = Counted(model)
    for each in inputs.generate(model, {}, count=3, try_run=run):
        boxes = np.asarray(each.values["boxes"], np.float64)
        assert boxes.min() >= 0
        assert boxes.max() <= max(np.shape(each.values["x"])[2:])
        assert (boxes[:, :2] <= boxes[:, 2:]).all()
    assert run.runs == 3


def test_a_short_name_is_no_batch_where_none_is() -> None:
    recipe = recipe_for(
        model_of("(float[b,n] x, float[n] past) => (float[b,n] y) { y = Add(x, past) }"), {}
    )
    assert (recipe.dimensions["b"].role, recipe.dimensions["n"].role) == (
        Role.BATCH,
        Role.SEQUENCE,
    )


def test_a_cache_grows_along_an_axis_that_is_no_height() -> None:
    recipe = recipe_for(
        model_of("(float[b,2,p,8] cache) => (float[b,2,p,8] y) { y = Relu(cache) }"), {}
    )
    assert recipe.dimensions["p"].role is Role.PAST


def test_the_first_axis_of_a_recurrent_layer_is_time() -> None:
    model = model_of(
        "(float[T,N,3] x, int32[N] lens) => (float[T,1,N,4] y) { y = LSTM <hidden_size = 4> (x, "
        "w, r, , lens) }"
    )
    weights(model, w=(1, 16, 3), r=(1, 16, 4))
    first = inputs.generate(model, {}, count=1, try_run=Counted(model))[0]
    assert np.shape(first.values["x"]) == (16, 1, 3)
