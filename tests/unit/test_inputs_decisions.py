"""Inputs that reach what a model decides by: leaves, thresholds, keys, words, constants."""

from __future__ import annotations

import itertools
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from onnx_harness import inputs
from onnx_harness.inputs import InputSet
from onnx_harness.inputs.decisions import points as points_module
from onnx_harness.inputs.decisions import trees, vocabulary
from onnx_harness.inputs.decisions.coverage import coverage
from onnx_harness.inputs.decisions.cuts import Grid, cut, direction
from onnx_harness.inputs.decisions.ensembles import Mode, read
from onnx_harness.inputs.decisions.packing import Pins, pack
from onnx_harness.inputs.decisions.space import Asked
from onnx_harness.inputs.decisions.trees import Forest, forest_of, forest_rows, visited
from onnx_harness.inputs.plan.recipe import recipe_for
from tests.forests import ML, forest, forest_5, set_attribute, words
from tests.models import model as text_model

GREATER = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT", "BRANCH_GTE")


def generated(model: onnx.ModelProto) -> list[InputSet]:
    session = ort.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [info.name for info in model.graph.output]
    runs = lambda values: dict(zip(names, session.run(names, values), strict=True))  # noqa: E731
    return inputs.generate(model, {}, try_run=runs, unusual=True)


def tells_apart(
    model: onnx.ModelProto, other: onnx.ModelProto, sets: list[InputSet]
) -> bool:
    """Whether two models differ on some of the sets."""
    one, two = (
        ort.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"])
        for each in (model, other)
    )
    return any(
        not np.array_equal(left, right, equal_nan=left.dtype.kind == "f")
        for each in sets
        for left, right in zip(
            one.run(None, each.values), two.run(None, each.values), strict=True
        )
    )


def forest_in(model: onnx.ModelProto) -> Forest:
    found = forest_of(model, recipe_for(model, {}))
    assert found is not None
    return found


def reached(asked: Asked, forest: Forest, rows: Any) -> tuple[Any, Any]:
    """The features of rows, and the leaves that they end in."""
    features = asked.features(forest.slots, rows)
    roots = asked.ensemble.roots
    return features, asked.ensemble.leaf_of(
        features, np.broadcast_to(roots, (len(rows), len(roots)))
    )


SCALED = (
    helper.make_node(
        "Scaler",
        ["x"],
        ["features"],
        domain=ML,
        offset=[0.3, -1, 7, 0],
        scale=[2.0, -0.7, 1, 9],
    ),
)
CAST = (helper.make_node("Cast", ["x"], ["features"], to=TensorProto.FLOAT),)
FORESTS = {
    "plain": forest(),
    "greater and less": forest(modes=GREATER, seed=1),
    "equalities of whole numbers": forest(
        modes=("BRANCH_EQ", "BRANCH_NEQ", "BRANCH_LEQ"), whole=True, seed=2
    ),
    "doubles": forest(elem_type=TensorProto.DOUBLE, seed=3),
    "doubles made floats": forest(elem_type=TensorProto.DOUBLE, before=CAST, seed=4),
    "integers made floats": forest(
        elem_type=TensorProto.INT64, before=CAST, modes=GREATER, seed=5
    ),
    "scaled": forest(before=SCALED, seed=6),
    "missing values": forest(missing=True, seed=7),
    "a sigmoid behind": forest(post_transform="LOGISTIC", seed=8),
    "many small trees": forest(trees=40, depth=2, seed=9),
    "version 5": forest_5([5.0, 1.0, -2.5]),
    "a set of values": forest_5([5.0], [1.0, 3.0]),
}


@pytest.mark.parametrize("name", [name for name in FORESTS if name != "a sigmoid behind"])
def test_an_ensemble_is_read_as_onnx_runtime_reads_it(name: str) -> None:
    found = forest_in(FORESTS[name])
    rows = np.concatenate([forest_rows(found, 0).leaves, forest_rows(found, 0).edges])
    _, leaves = reached(found.asked[0], found, rows)
    sums = found.asked[0].ensemble.weights[leaves].sum(axis=1)[:, 0]
    x = np.zeros(
        (len(rows), FORESTS[name].graph.input[0].type.tensor_type.shape.dim[1].dim_value)
    )
    for number, slot in enumerate(found.slots):
        x[:, slot.place] = rows[:, number]
    session = ort.InferenceSession(
        FORESTS[name].SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (got,) = session.run(None, {"x": x.astype(found.slots[0].dtype)})
    np.testing.assert_allclose(got[:, 0], sums, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FORESTS)
def test_every_leaf_that_can_be_is_visited(name: str) -> None:
    found = forest_in(FORESTS[name])
    rows = forest_rows(found, 0)
    _, leaves = reached(found.asked[0], found, np.concatenate([rows.leaves, rows.edges]))
    everything = found.asked[0].ensemble.leaves
    assert len(np.unique(leaves)) >= len(everything) - rows.unreachable


@pytest.mark.parametrize(
    "name", ["plain", "greater and less", "doubles", "scaled", "many small trees"]
)
def test_a_row_lies_on_each_side_of_each_threshold(name: str) -> None:
    found = forest_in(FORESTS[name])
    (asked,) = found.asked
    rows = forest_rows(found, 0).edges
    features, _ = reached(asked, found, rows)
    ensemble = asked.ensemble
    missed = []
    for branch in ensemble.branches:
        column = asked.columns[ensemble.feature[branch]]
        assert column is not None
        sides = np.asarray([asked.below[branch], asked.above[branch]])
        images = column.apply(sides.astype(found.slots[asked.slot[branch]].dtype))
        missed += [branch] * bool(
            set(images.tolist()) - set(features[:, ensemble.feature[branch]].tolist())
        )
    # A threshold outside the box of its branch leaves one of the sides unreachable.
    assert len(missed) <= forest_rows(found, 0).unreachable


@pytest.mark.parametrize(
    "name", ["plain", "greater and less", "doubles", "missing values", "many small trees"]
)
def test_every_threshold_moved_by_a_unit_in_the_last_place_is_told(name: str) -> None:
    model = FORESTS[name]
    sets = generated(model)
    ensemble = read(model.graph.node[-1])
    assert ensemble is not None
    missed = 0
    for at in ensemble.branches.tolist():
        for towards in (np.float32(-np.inf), np.float32(np.inf)):
            moved = float(np.nextafter(np.float32(ensemble.split[at]), towards))
            missed += not tells_apart(
                model, set_attribute(model, "nodes_values", at, moved), sets
            )
    assert missed <= 2 * forest_rows(forest_in(model), 0).unreachable


def test_a_row_of_a_large_forest_serves_many_of_its_trees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(points_module, "_FEW_WALKS", 0)
    found = forest_in(forest(trees=60, depth=6, features=40, seed=11))
    rows = forest_rows(found, 0)
    branches = found.branches
    made = InputSet(
        "rows", {"x": np.concatenate([rows.leaves, rows.edges]).astype(np.float32)}
    )
    reached_of = visited(found, [made])
    assert len(rows.leaves) < len(found.asked[0].ensemble.leaves) / 4
    assert len(rows.edges) < branches / 2  # three of each branch where each row serves one
    assert all(count >= total - rows.unreachable for count, total in reached_of.values())


def test_boxes_without_a_common_point_get_rows_of_their_own() -> None:
    least, greatest = np.zeros(2), np.full(2, 9.0)
    low, high = np.array([[0.0, 0], [4, 0], [0, 5]]), np.array([[3.0, 9], [9, 9], [9, 9]])
    packed = pack(low, high, least, greatest)
    assert packed.row.tolist() == [0, 1, 0]
    assert packed.low.tolist() == [[0, 5], [4, 0]]
    assert packed.high.tolist() == [[3, 9], [9, 9]]


def test_a_pinned_slot_holds_one_threshold_and_only_boxes_that_hold_both_of_its_sides() -> (
    None
):
    least, greatest = np.zeros(2), np.full(2, 9.0)
    low, high = np.tile(least, (4, 1)), np.tile(greatest, (4, 1))
    low[3, 0] = 4.0  # a box that begins between the two sides of the first threshold
    pins = Pins(np.array([0, 0, 0, 1]), np.array([3.0, 3, 6, 2]), np.array([4.0, 4, 7, 3]))
    packed = pack(low, high, least, greatest, pins)
    assert packed.row.tolist() == [0, 0, 1, 1]
    assert packed.low[:, 0].tolist() == [3, 6]
    assert packed.pinned.tolist() == [[True, False], [True, True]]


def test_rows_times_trees_are_bounded_and_the_coverage_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = forest(trees=60, depth=6, features=40, seed=11)
    monkeypatch.setattr(trees, "MOST_WALKS", 60 * 100)
    monkeypatch.setattr(trees, "_LEAST_ROWS", 1)
    sets = generated(model)
    deciding = [each for each in sets if each.poised]
    assert sum(len(next(iter(each.values.values()))) for each in deciding) <= 100
    assert "thresholds" in coverage(model, recipe_for(model, {}), sets).low()


def test_a_branch_that_is_less_instead_of_at_most_is_told() -> None:
    model = FORESTS["plain"]
    sets = generated(model)
    ensemble = read(model.graph.node[0])
    assert ensemble is not None
    missed = [
        at
        for at in ensemble.branches.tolist()
        if not tells_apart(
            model, set_attribute(model, "nodes_modes", at, b"BRANCH_LT"), sets
        )
    ]
    assert len(missed) <= forest_rows(forest_in(model), 0).unreachable


def test_rows_that_a_last_bit_decides_on_are_in_sets_that_say_so() -> None:
    sets = generated(forest(rows="n"))
    named = {each.name.split(" (")[0]: each for each in sets}
    assert not named["every leaf"].unusual
    assert named["unusual: with features on the thresholds of its trees"].poised


def test_a_batch_of_one_gets_a_set_for_each_row_up_to_a_bound() -> None:
    made = generated(forest(rows=1, depth=5))
    sets = [each for each in made if each.name.startswith(("every leaf", "unusual: with f"))]
    assert 65 <= len(sets) <= 128
    assert all(np.shape(each.values["x"]) == (1, 4) for each in sets)


def test_a_card_that_bounds_a_feature_is_kept_to() -> None:
    from onnx_harness.cards.card import InputSpec

    model = forest(seed=11)
    recipe = recipe_for(model, {"x": InputSpec(low=-1.0, high=1.0)})
    found = forest_of(model, recipe)
    assert found is not None
    rows = forest_rows(found, 0)
    assert np.abs(np.concatenate([rows.leaves, rows.edges])).max() <= 1.0


def test_columns_that_are_mixed_are_said_not_to_be_followed() -> None:
    mixed = (helper.make_node("Softmax", ["x"], ["features"]),)
    assert forest_in(forest(before=mixed)).notes == (
        (
            "no rows are made for the thresholds of TreeEnsembleRegressor 'y': Softmax 'features' "
            "can't be inverted"
        ),
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64"])
def test_a_cut_is_the_last_number_below(dtype: str) -> None:
    grid = Grid(np.dtype(dtype))
    thresholds = np.asarray([-7.3, 0.0, 1e-3, 2.5, 100.0])
    for strict in (False, True):
        below = cut(grid, lambda values: values, 1, thresholds, strict=strict)
        above = grid.step(below, 1)
        assert ((below < thresholds) if strict else (below <= thresholds)).all()
        assert ((above >= thresholds) if strict else (above > thresholds)).all()


def test_a_falling_function_is_cut_where_it_falls_below() -> None:
    grid = Grid(np.dtype("float32"))

    def falling(values: Any) -> Any:
        return (values - np.float32(0.3)) * np.float32(-2.5)

    assert direction(grid, falling) == -1
    below = cut(grid, falling, -1, np.asarray([1.0]), strict=False)
    assert (
        falling(below.astype("f4"))[0] > 1.0 >= falling(grid.step(below, 1).astype("f4"))[0]
    )


def encoder(**attributes: Any) -> onnx.ModelProto:
    node = helper.make_node("OneHotEncoder", ["x"], ["y"], domain=ML, **attributes)
    kind = TensorProto.STRING if "cats_strings" in attributes else TensorProto.INT64
    return words([node], {"x": (kind, ["n"])}, len(next(iter(attributes.values()))))


def test_each_category_is_fed_and_one_that_is_none() -> None:
    model = encoder(cats_strings=["amber", "beryl", "coral", "dusk", "ember"])
    held = {
        text for each in generated(model) if not each.unusual for text in each.values["x"]
    }
    assert {"amber", "beryl", "coral", "dusk", "ember", "(none of these)"} <= held


def test_a_table_that_takes_no_others_gets_none() -> None:
    model = encoder(cats_int64s=[3, 14, 15], zeros=0)
    held = {
        int(number) for each in generated(model) for number in np.ravel(each.values["x"])
    }
    assert held == {3, 14, 15}


def test_columns_with_tables_of_their_own_get_keys_of_their_own() -> None:
    nodes = [
        helper.make_node("ArrayFeatureExtractor", ["x", "first"], ["a"], domain=ML),
        helper.make_node("ArrayFeatureExtractor", ["x", "second"], ["b"], domain=ML),
        helper.make_node(
            "OneHotEncoder", ["a"], ["p"], domain=ML, cats_strings=["u", "v"], zeros=0
        ),
        helper.make_node(
            "OneHotEncoder", ["b"], ["q"], domain=ML, cats_strings=["w", "x", "y"], zeros=0
        ),
        helper.make_node("Concat", ["p", "q"], ["r"], axis=2),
        helper.make_node("Squeeze", ["r", "axis"], ["y"]),
    ]
    model = words(nodes, {"x": (TensorProto.STRING, ["n", 2])}, 5)
    constants = {"first": [0], "second": [1], "axis": [1]}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(values), name)
        for name, values in constants.items()
    )
    pairs = {
        tuple(row)
        for each in generated(model)
        for row in np.asarray(each.values["x"]).tolist()
    }
    assert {first for first, _ in pairs} == {"u", "v"}
    assert {second for _, second in pairs} == {"w", "x", "y"}


def vectorizer(
    kind: int, pool: list[Any], counts: list[int], dims: list[Any]
) -> onnx.ModelProto:
    name = "pool_strings" if kind == TensorProto.STRING else "pool_int64s"
    total = counts[1] + (len(pool) - counts[1]) // 2
    node = helper.make_node(
        "TfIdfVectorizer", ["x"], ["y"], mode="TF", min_gram_length=1, max_gram_length=2, max_skip_count=0,
        ngram_counts=counts, ngram_indexes=list(range(total)), **cast(Any, {name: pool}),
    )  # fmt: skip
    return words([node], {"x": (kind, dims)}, total)


@pytest.mark.parametrize("dims", [["n", "c"], ["n", 6]])
def test_each_word_and_each_pair_of_a_vocabulary_is_fed(dims: list[Any]) -> None:
    model = vectorizer(TensorProto.STRING, ["a", "b", "c", "a", "b", "c", "a"], [0, 3], dims)
    session = ort.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    counts = sum(
        np.asarray(session.run(None, each.values)[0]).reshape(-1, 5).sum(axis=0)
        for each in generated(model)
    )
    assert (counts > 0).all()


def test_a_tensor_that_is_compared_with_a_whole_constant_holds_it() -> None:
    model = text_model(
        "(float[n,6] x) => (float[n,6] y) { k = Constant <value_float = 2.0> () b = Equal(x, k) y "
        "= Cast <to = 1> (b) }"
    )
    assert all(
        2.0 in np.asarray(each.values["x"]) for each in inputs.generate(model, {}, count=4)
    )


def test_elements_of_a_further_set_lie_on_what_they_are_ordered_by() -> None:
    model = text_model(
        "(float[n,6] x) => (float[n,6] y) { k = Constant <value_float = 0.3> () b = Less(x, k) y "
        "= Cast <to = 1> (b) }"
    )
    other = text_model(
        "(float[n,6] x) => (float[n,6] y) "
        "{ k = Constant <value_float = 0.3> () b = LessOrEqual(x, k) y = Cast <to = 1> (b) }"
    )
    assert tells_apart(model, other, generated(model))


def test_a_bound_goes_before_a_count() -> None:
    model = text_model(
        "(int64[s] p) => (float[s,2] y) "
        "<float[5,2] w = {0,1,2,3,4,5,6,7,8,9}, int64[5] r = {0,1,2,3,4}, int64[1] one = {1}>"
        "{ rows = Gather(w, p) u = Unsqueeze(p, one) later = Greater(r, u) f = Cast <to = 1> "
        "(later)"
        "  more = MatMul(f, w) y = Add(rows, more) }"
    )
    held = [
        int(number)
        for each in inputs.generate(model, {})
        for number in np.ravel(each.values["p"])
    ]
    assert min(held) >= 0
    assert max(held) <= 4


def test_modes_are_numbered_as_in_version_5() -> None:
    assert list(range(7)) == [
        Mode.LEQ,
        Mode.LT,
        Mode.GTE,
        Mode.GT,
        Mode.EQ,
        Mode.NEQ,
        Mode.MEMBER,
    ]


def test_positions_end_with_the_last_row_of_their_table_in_every_second_set() -> None:
    model = text_model(
        "(int64[n,s] position_ids, float[3000,2] w) => (float[?,?,2] y) { y = Gather(w, "
        "position_ids) }"
    )
    del model.graph.input[1]
    table = np.zeros((3000, 2), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(table, "w"))
    usual = [each for each in generated(model) if each.name.startswith("set ")]
    ends = [
        (int(np.min(held)), int(np.max(held)))
        for held in (np.asarray(e.values["position_ids"]) for e in usual)
    ]
    assert [low for low, _ in ends[::2]] == [0, 0]
    assert [high for _, high in ends[1::2]] == [2999, 2999]


def test_things_that_are_pointed_at_are_more_than_a_batch() -> None:
    model = text_model(
        "(float[n,3] nodes, int64[e] at) => (float[e,3] y) { y = Gather(nodes, at) }"
    )
    assert all(
        np.shape(each.values["nodes"])[0] > 3 for each in inputs.generate(model, {}, count=3)
    )


@pytest.mark.parametrize("size", [None, 3, 8, 40])
def test_any_two_words_are_apart_in_some_set_of_one_row(size: int | None) -> None:
    ngrams = [(f"w{number}",) for number in range(24)]
    sets = [set(words) for words in vocabulary._apart(ngrams, size)]
    assert all(len(words) <= (size or 24) for words in sets)
    for one, other in itertools.combinations([word for (word,) in ngrams], 2):
        assert any((one in words) != (other in words) for words in sets)
