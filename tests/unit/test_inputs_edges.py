"""Unusual input sets: which there are, what they keep to, and which are left out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, numpy_helper

from onnx_harness import inputs
from onnx_harness.cards.card import InputSpec
from onnx_harness.inputs import InputSet
from onnx_harness.providers.running import run
from tests.models import model

RELU = "(float[n,4] x) => (float[n,4] y) { y = Relu(x) }"


def unusual(
    made: ModelProto, specs: dict[str, InputSpec] | None = None, seed: int = 0
) -> dict[str, InputSet]:
    """The unusual sets of a model by their words."""
    options = ort.SessionOptions()
    # As the reference is run.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    sets = inputs.generate(
        made,
        specs or {},
        seed=seed,
        try_run=lambda values: run(session, values),
        unusual=True,
    )
    return {each.unusual: each for each in sets if each.unusual}


def x_of(each: InputSet, name: str = "x") -> np.ndarray:
    value = each.values[name]
    assert isinstance(value, np.ndarray)
    return value


def test_a_float_signal_is_swept_in_magnitude_sign_and_kind() -> None:
    sets = unusual(model(RELU))
    tenfold = x_of(sets["at 10 times the usual magnitude"])
    np.testing.assert_allclose(
        x_of(sets["at 100 times the usual magnitude"]), tenfold * 10, rtol=1e-6
    )
    np.testing.assert_allclose(
        x_of(sets["at a hundredth of the usual magnitude"]), tenfold / 1000, rtol=1e-6
    )
    assert (x_of(sets["with negative values alone"]) < 0).all()
    assert not x_of(sets["with zeros alone"]).any()
    magnitudes = np.abs(x_of(sets["with magnitudes from 1e-6 to 1e5"]))
    assert magnitudes.max() < 1e5
    assert magnitudes.max() / magnitudes.min() > 100
    assert (magnitudes % 1 != 0).all()  # whole numbers stay where last bits are moved
    assert x_of(sets["with -inf alone"]).max() == -np.inf
    assert all(
        each.name.startswith(f"unusual: {words} (seed 0, ") for words, each in sets.items()
    )


def test_sizes_of_one_and_of_zero_are_tried() -> None:
    sets = unusual(model("(float[n,t,4] x) => (float[n,t,4] y) { y = Relu(x) }"))
    assert x_of(sets["with every free dimension 1"]).shape == (1, 1, 4)
    assert x_of(sets["with nothing in it (n = 0)"]).shape[0] == 0
    assert x_of(sets["with nothing in it (t = 0)"]).shape[1] == 0


def test_usual_sets_are_the_same_with_and_without_unusual_ones() -> None:
    made = model(RELU)
    with_them = inputs.generate(made, {}, try_run=lambda _: None, unusual=True)
    without = inputs.generate(made, {}, try_run=lambda _: None)
    assert [each.digest() for each in with_them[:4]] == [each.digest() for each in without]
    assert not any(each.unusual for each in without)


@pytest.mark.parametrize(
    ("spec", "low", "high"),
    [
        (InputSpec(low=-6, high=4), -6, 4),
        (InputSpec(low=0), 0, np.inf),
        (InputSpec(generator="audio"), -1, 1),
        (InputSpec(generator="normal"), -8, 8),
        (InputSpec(generator="uniform", high=3), 0, 3),
    ],
    ids=["range", "floor", "span", "noise", "span and ceiling"],
)
def test_unusual_values_stay_within_what_the_card_allows(
    spec: InputSpec, low: float, high: float
) -> None:
    sets = unusual(model(RELU), {"x": spec})
    assert sets
    for words, each in sets.items():
        values = x_of(each)
        assert ((values >= low) & (values <= high)).all(), words
        assert np.isfinite(values).all(), words


def test_an_input_that_the_card_describes_gets_no_infinities_though_it_has_no_bounds() -> (
    None
):
    sets = unusual(model(RELU), {"x": InputSpec(shapes=((2, 4),))})
    assert "with zeros alone" in sets
    assert all(np.isfinite(x_of(made)).all() for made in sets.values())


UNDEFINED = "with values that have no logarithm or root"


ROOT = "r = Sqrt(x) y = IsNaN(r)"
TABLE = "k = Constant <value_ints = [-1, 1, 2, 3]> () c = Cast <to = 7> (x) y = Equal(c, k)"


@pytest.mark.parametrize(
    ("body", "spec", "leaves"),
    [
        (ROOT, None, True),
        (ROOT, InputSpec(shapes=((2, 4),)), False),
        (TABLE, None, False),  # beyond its values nothing is undefined
    ],
    ids=["a root", "a root, and a card", "a table"],
)
def test_only_bounds_that_are_domains_are_left(
    body: str, spec: InputSpec | None, leaves: bool
) -> None:
    sets = unusual(
        model(f"(float[n,4] x) => (bool[n,4] y) {{ {body} }}"),
        {} if spec is None else {"x": spec},
    )
    assert "with negative values alone" in sets or "with zeros alone" in sets
    assert (UNDEFINED in sets) == leaves


def test_the_domain_of_a_root_is_left_on_purpose_where_no_number_shows_it() -> None:
    left = x_of(unusual(model(f"(float[n,4] x) => (bool[n,4] y) {{ {ROOT} }}"))[UNDEFINED])
    assert (left < 0).any()
    assert (left > 0).any()
    shown = "r = Sqrt(x) a = IsNaN(r) y = Cast <to = 1> (a)"
    made = model(f"(float[n,4] x) => (float[n,4] y) {{ {shown} }}")
    assert UNDEFINED not in unusual(made)


@pytest.mark.parametrize(("op_type", "asks"), [("IsInf", False), ("IsNaN", True)])
def test_nan_is_fed_to_who_asks_for_it(op_type: str, asks: bool) -> None:
    sets = unusual(model(f"(float[n,4] x) => (bool[n,4] y) {{ y = {op_type}(x) }}"))
    assert ("with NaN in the first half" in sets) == asks


def test_an_infinity_that_the_inputs_hold_may_come_out() -> None:
    assert "with inf in the first half" in unusual(model(RELU))


def test_a_bound_of_the_card_goes_before_that_of_its_generator() -> None:
    sets = unusual(model(RELU), {"x": InputSpec(generator="uniform", high=3)})
    assert x_of(sets["at 100 times the usual magnitude"]).max() == 3


def test_sizes_that_the_card_fixes_stay() -> None:
    sets = unusual(model(RELU), {"x": InputSpec(shapes=((2, 4),))})
    assert {x_of(each).shape for each in sets.values()} == {(2, 4)}


def reshaped() -> ModelProto:
    return model(
        "(float[n,4] x, int64[1] d) => (float[?,?] y) "
        "{ zero = Constant <value_ints = [0]> () s = Concat <axis = 0> (zero, d) y = Reshape(x, "
        "s) }"
    )


def test_there_is_one_set_of_a_kind() -> None:
    sets = inputs.generate(reshaped(), {}, try_run=lambda _: None, unusual=True)
    words = [each.unusual for each in sets if each.unusual]
    assert len(words) == len(set(words))


def test_values_that_the_card_fixes_stay() -> None:
    sets = unusual(model(RELU), {"x": InputSpec(values=(3,))})
    assert all((x_of(each) == 3).all() for each in sets.values())


def test_a_set_on_which_the_reference_overflows_is_left_out() -> None:
    # exp(100 z) is infinite for some z, exp(10 z) isn't.
    sets = unusual(model("(float[n,4] x) => (float[n,4] y) { y = Exp(x) }"))
    assert "at 10 times the usual magnitude" in sets
    assert "at 100 times the usual magnitude" not in sets
    assert "with magnitudes from 1e-6 to 1e5" not in sets


def test_infinities_that_become_nan_are_left_out() -> None:
    sets = unusual(model("(float[n,4] x) => (float[n,4] y) { y = Softmax(x) }"))
    assert "with -inf in the first half" in sets
    assert "with inf in the first half" not in sets
    assert "with -inf alone" not in sets


def test_free_integers_become_large_and_bounded_ones_do_not() -> None:
    free = unusual(model("(int64[n,64] x) => (int64[n,64] y) { y = Neg(x) }"))
    assert np.abs(x_of(free["with large integers"])).max() > 2**31
    bounded = unusual(
        model("(int64[n,4] x, float[9,2] w) => (float[n,4,2] y) { y = Gather(w, x) }")
    )
    assert "with large integers" not in bounded
    counted = x_of(bounded["with negative indices"])
    assert counted.min() < 0
    assert counted.min() >= -9
    assert counted.max() <= 8


def test_indices_are_counted_from_the_end_where_they_are_indices() -> None:
    signature = "(int64[n,64] x, float[9] w) => (float[?] y)"
    counted = unusual(model(f"{signature} {{ y = Gather(w, x) }}"))["with negative indices"]
    assert (x_of(counted).min(), x_of(counted).max()) == (-9, 8)
    shifted = "two = Constant <value_int = 2> () a = Add(x, two) y = Gather(w, a)"
    assert "with negative indices" not in unusual(model(f"{signature} {{ {shifted} }}"))


def test_the_greatest_integers_but_one_are_among_the_large_ones() -> None:
    sets = unusual(model("(int32[n,64] x) => (int32[n,64] y) { y = Identity(x) }"))
    assert x_of(sets["with large integers"]).max() == 2**31 - 2


def test_large_integers_fit_their_type() -> None:
    for kind in ("int32", "uint8", "int8", "uint64"):
        sets = unusual(model(f"({kind}[n,4] x) => ({kind}[n,4] y) {{ y = Identity(x) }}"))
        assert x_of(sets["with large integers"]).dtype == kind


def of_large_weights() -> ModelProto:
    weights = np.zeros((4, 1 << 17), np.float32)
    made = model("(float[n,4] x) => (float[n,k] y) { y = MatMul(x, w) }")
    made.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    return made


def of_many_nodes() -> ModelProto:
    nodes = "  ".join(f"x{place + 1} = Relu(x{place})" for place in range(300))
    return model(f"(float[n,4] x0) => (float[n,4] y) {{ {nodes}  y = Relu(x300) }}")


def of_large_inputs() -> ModelProto:
    return model(f"(float[1,{(1 << 16) + 1}] x) => (float[?,?] y) {{ y = Relu(x) }}")


@pytest.mark.parametrize("made", [of_large_weights, of_many_nodes, of_large_inputs])
def test_models_that_take_long_get_the_sweep_alone(made: Callable[[], ModelProto]) -> None:
    assert set(unusual(made())) == {
        "at 100 times the usual magnitude",
        "at 10 times the usual magnitude",
    }


def test_what_a_reshape_is_asked_for_is_found_again_where_there_is_nothing() -> None:
    empty = unusual(reshaped())["with nothing in it (n = 0)"]
    # -1 can't be told from nothing, so another number has to stand there.
    assert x_of(empty, "d")[0] != -1


def test_unusual_sets_follow_the_seed() -> None:
    one, other = unusual(model(RELU), seed=1), unusual(model(RELU), seed=2)
    words = "at 10 times the usual magnitude"
    assert one[words].digest() != other[words].digest()
    assert one[words].digest() == unusual(model(RELU), seed=1)[words].digest()


def test_truth_values_stay_truth_values() -> None:
    assert set(unusual(model("(bool[n,4] x) => (bool[n,4] y) { y = Not(x) }"))) <= {
        "with every free dimension 1",
        "with nothing in it (n = 0)",
    }
