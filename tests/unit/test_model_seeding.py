"""Operators that draw at random, replaced by what gives the same values in every run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from onnx_harness.cards.card import read
from onnx_harness.cards.seeded import judged_file, seed_note
from onnx_harness.judging.runs import open_cpu
from onnx_harness.model.file import Model
from onnx_harness.model.seeded_nodes import PERIOD
from onnx_harness.model.seeding import seed_model, seeding_of
from tests.models import model, save

Array = npt.NDArray[Any]


def outputs(made: onnx.ModelProto, **values: Array) -> Mapping[str, Array]:
    """Run a model twice in a session; the runs have to give the same bits."""
    session = open_cpu(made)
    names = [info.name for info in made.graph.output]
    first, second = (session.run(names, values) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    return dict(zip(names, first, strict=True))


def seeded(text: str, seed: int = 0, **options: Any) -> onnx.ModelProto:
    made = seed_model(model(text, **options), seed)
    assert made.replaced
    onnx.checker.check_model(made.model, full_check=True)
    return made.model


LARGE = np.ones((200, 300), np.float32)


@pytest.mark.parametrize("opset", [9, 10, 11, 13, 17, 22])
def test_normal_values_have_their_mean_and_spread(opset: int) -> None:
    text = "(float[n,m] x) => (float[n,m] y) { y = RandomNormalLike<mean = 3.0, scale = 0.5>(x) }"
    y = outputs(seeded(text, opset=opset), x=LARGE)["y"]
    assert y.shape == LARGE.shape
    assert y.dtype == np.float32
    assert y.mean() == pytest.approx(3, abs=0.01)
    assert y.std() == pytest.approx(0.5, rel=0.02)


def test_uniform_values_fill_their_interval() -> None:
    text = "(float x) => (double[90,99] y) { y = RandomUniform<dtype = 11, shape = [90, 99], low = -2.0, high = 6.0>() }"
    y = outputs(seeded(text), x=np.array(0, np.float32))["y"]
    assert y.dtype == np.float64
    assert -2 < y.min() < -1.99
    assert 5.99 < y.max() < 6
    assert y.mean() == pytest.approx(2, abs=0.1)


def test_coins_fall_as_often_as_their_probability_says() -> None:
    text = "(float[n,m] x) => (bool[n,m] y) { y = Bernoulli<dtype = 9>(x) }"
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        y = outputs(seeded(text), x=np.full((200, 300), share, np.float32))["y"]
        assert y.mean() == pytest.approx(share, abs=0.01)


def test_classes_are_drawn_as_often_as_their_probability_says() -> None:
    text = "(float[n,3] x) => (int64[n,500] y) { y = Multinomial<dtype = 7, sample_size = 500>(x) }"
    shares = np.array([0.1, 0.3, 0.6])
    logits = np.log(np.tile(shares, (40, 1))).astype(np.float32)
    y = outputs(seeded(text), x=logits)["y"]
    # A table has 509 values: three standard errors of so many draws.
    assert np.bincount(y.ravel()) / y.size == pytest.approx(shares, abs=0.04)


def test_dropout_drops_its_share_and_scales_the_others_where_it_trains() -> None:
    text = (
        "(float[n,m] x, float ratio, bool train) => (float[n,m] y, bool[n,m] mask) "
        "{ y, mask = Dropout(x, ratio, train) }"
    )
    made, ratio = seeded(text), np.array(0.25, np.float32)
    trained = outputs(made, x=LARGE, ratio=ratio, train=np.array(True))
    assert trained["mask"].mean() == pytest.approx(0.75, abs=0.01)
    np.testing.assert_allclose(trained["y"], trained["mask"] / 0.75, rtol=1e-6)
    at_rest = outputs(made, x=LARGE, ratio=ratio, train=np.array(False))
    np.testing.assert_array_equal(at_rest["y"], LARGE)
    assert at_rest["mask"].all()


def test_a_dropout_that_never_trains_stays() -> None:
    text = "(float[n] x) => (float[n] y) { t = Constant<value = bool {0}>() y = Dropout(x, , t) }"
    assert seed_model(model(text), 0).replaced == 0


def test_nodes_iterations_and_seeds_differ_and_shapes_may_be_anything() -> None:
    text = """(float[n,m] x, float s) => (float[n,m] a, float[n,m] b, float[k,n,m] c, float d) {
        a = RandomNormalLike(x) b = RandomNormalLike(x) d = RandomNormalLike(s)
        trips = Constant<value = int64 {3}>() go = Constant<value = bool {1}>()
        c = Loop<body = inner (int64 i, bool on) => (bool still, float[n,m] e) {
            still = Identity(on) e = RandomNormalLike(x) }>(trips, go) }"""
    feed = {"x": LARGE[:20, :30], "s": np.array(1, np.float32)}
    found, others = outputs(seeded(text), **feed), outputs(seeded(text, seed=1), **feed)
    draws = [found["a"], found["b"], *found["c"], others["a"]]
    for place, draw in enumerate(draws):
        for other in draws[:place]:
            assert abs(np.corrcoef(draw.ravel(), other.ravel())[0, 1]) < 0.2
    assert found["d"].shape == ()
    for shape in ((0, 4), (4, 0), (1, PERIOD + 3)):
        x = np.zeros(shape, np.float32)
        assert outputs(seeded(text), x=x, s=feed["s"])["a"].shape == shape


def test_a_function_that_draws_is_inlined_for_each_call() -> None:
    made = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["" : 17, "my" : 1]>
        g (float[n,m] x) => (float[n,m] a, float[n,m] b) { a = my.noise(x) b = my.noise(x) }
        <domain: "my", opset_import: ["" : 17]> noise (x) => (y) { y = RandomNormalLike(x) }""")
    found = outputs(seed_model(made, 0).model, x=LARGE)
    assert not np.array_equal(found["a"], found["b"])


def test_what_cannot_be_replaced_is_named_with_its_reason() -> None:
    made = seed_model(
        model("(float[n] x) => (float[n] y) { y = RandomNormalLike(x) }", opset=8), 0
    )
    assert made.seeding.left == ("RandomNormalLike 'y' needs opset 9, and the model has 8",)
    assert made.replaced == 0


def test_the_model_says_which_outputs_its_draws_reach_and_believes_no_one_else() -> None:
    text = "(float[n] x) => (float[n] y, float[n] z) { r = RandomNormalLike(x) y = Add(x, r) z = Neg(x) }"
    drawing = model(text)
    drawing.metadata_props.add(key="onnx_harness.seeding", value="not JSON")
    seeding = seeding_of(seed_model(drawing, 0).model)
    assert seeding is not None
    assert (seeding.replaced, seeding.outputs) == (1, ("y",))
    steady = model("(float[n] x) => (float[n] y) { y = Neg(x) }")
    steady.metadata_props.add(key="onnx_harness.seeding", value="not JSON")
    assert seeding_of(seed_model(steady, 0).model) is None


def card_in(folder: Path, text: str, made: onnx.ModelProto) -> tuple[Path, Any]:
    (folder / "net.model.toml").write_text(text)
    return save(made, folder / "net.onnx"), read(folder / "net.model.toml")


def test_a_card_with_a_seed_is_judged_on_another_file_and_says_so(tmp_path: Path) -> None:
    drawing = model("(float[n] x) => (float[n] y) { r = RandomNormalLike(x) y = Add(x, r) }")
    path, card = card_in(tmp_path, "[random]\nseed = 7\n", drawing)
    (tmp_path / "test_data_set_0").mkdir()
    file = judged_file(path, card)
    assert file != path
    assert (file.parent / "test_data_set_0").is_dir()
    assert judged_file(path, card) == file
    assert seed_note(Model(file).skeleton, card).startswith(
        "1 operator draws at random, and"
    )


def test_equal_models_in_two_places_keep_their_own_recorded_sets(tmp_path: Path) -> None:
    drawing = model("(float[n] x) => (float[n] y) { r = RandomNormalLike(x) y = Add(x, r) }")
    folders = []
    for number in range(2):
        folder = tmp_path / f"place{number}"
        (folder / f"test_data_set_{number}").mkdir(parents=True)
        folders.append(judged_file(*card_in(folder, "[random]\nseed = 7\n", drawing)).parent)
    recorded = [[file.name for file in folder.glob("test_data_set_*")] for folder in folders]
    assert recorded == [["test_data_set_0"], ["test_data_set_1"]]


def test_a_seed_that_has_no_effect_is_said(tmp_path: Path) -> None:
    steady = model("(float[n] x) => (float[n] y) { y = Neg(x) }")
    path, card = card_in(tmp_path, "[random]\nseed = 7\n", steady)
    assert judged_file(path, card) == path
    assert "has no effect" in seed_note(steady, card)
    path, card = card_in(tmp_path, "", steady)
    assert (judged_file(path, card), seed_note(steady, card)) == (path, "")
