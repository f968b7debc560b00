"""State that is fed back: which inputs it is found for, and the set that is made of the model's own
output.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto

from onnx_harness import inputs
from onnx_harness.cards.card import InputSpec
from onnx_harness.inputs.plan.feedback import states
from onnx_harness.inputs.plan.recipe import recipe_for
from onnx_harness.providers.running import run
from tests.models import model

RECURRENT = (
    "(float[n,4] x, float[n,4] state) => (float[n,4] y, float[n,4] stateN) { stateN = "
    "Add(x, state) y = Neg(x) }"
)


def pairs(made: ModelProto, specs: dict[str, InputSpec] | None = None) -> dict[str, str]:
    return states(made, recipe_for(made, specs or {}))


@pytest.mark.parametrize(
    ("taken", "given"),
    [
        ("state", "stateN"),
        ("h", "hn"),
        ("h0", "h0_out"),
        ("past_key", "present_key"),
        ("prevCache", "newCache"),
        ("past_key_values.0.key", "present.0.key"),
        ("past_key_values.0.value", "present.0.value"),
        ("past", "present"),
        ("in_state", "out_state"),
    ],
)
def test_the_two_ends_of_a_state_are_found_by_name_type_and_shape(
    taken: str, given: str
) -> None:
    made = model(
        "(float[n,4] a, float[n,4] b) => (float[n,4] c, float[n,4] d) { c = Relu(a) d = Add(a, b) }"
    )
    made.graph.input[1].name = made.graph.node[1].input[1] = taken
    made.graph.output[1].name = made.graph.node[1].output[0] = given
    assert pairs(made) == {taken: given}


def test_another_shape_type_or_name_is_no_state() -> None:
    assert pairs(model("(float[n,4] x) => (float[n,4] y) { y = Relu(x) }")) == {}
    other_shape = (
        "(float[n,4] h) => (float[n,5] hn) { w = Constant <value_floats = [1.0]> () hn "
        "= Mul(h, w) }"
    )
    assert pairs(model(other_shape)) == {}
    assert (
        pairs(model("(float[n,4] h) => (double[n,4] hn) { hn = Cast <to = 11> (h) }")) == {}
    )


@pytest.mark.parametrize(
    ("dims", "outputs", "found"),
    [
        ("1,4", "float[1,4] stateN", {"state": "stateN"}),
        ("n,4", "float[1,4] stateN", {"state": "stateN"}),  # what it gives is of one size
        ("n,4", "float[1,n,4] stateN", {}),
        ("n,4", "float[4] stateN", {}),
        ("n,4", "float[n,4] stateN, float[n,4] new_state", {}),  # it could be either
    ],
)
def test_a_state_is_found_where_one_output_fits(
    dims: str, outputs: str, found: dict[str, str]
) -> None:
    made = model(f"(float[{dims}] state) => ({outputs}) {{ stateN = Relu(state) }}")
    assert pairs(made) == found


def test_a_state_that_the_model_refuses_is_not_fed_back() -> None:
    made = model(RECURRENT)

    def attempt(values: dict[str, inputs.Value]) -> dict[str, object]:
        if np.shape(values["state"]) == (1, 4) and np.all(np.asarray(values["state"]) == 7):
            raise ValueError("not again")
        return {"y": values["x"], "stateN": np.full((1, 4), 7, np.float32)}

    sets = inputs.generate(made, {}, try_run=attempt, unusual=True)
    assert not any(each.name.startswith("fed back") for each in sets)


def test_the_set_holds_the_models_own_output_of_a_run_that_began_with_zeros() -> None:
    made = model(RECURRENT)
    session = ort.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    fed: list[dict[str, inputs.Value]] = []

    def attempt(values: dict[str, inputs.Value]) -> dict[str, object]:
        fed.append(values)
        return run(session, values)

    sets = inputs.generate(made, {}, try_run=attempt, unusual=True)
    back = next(each for each in sets if each.name.startswith("fed back"))
    assert back.name == "fed back (seed 0, state from stateN 1x4)"
    assert not back.unusual
    before = next(values for values in fed if not np.any(values["state"]))
    np.testing.assert_array_equal(back.values["state"], before["x"])
    assert np.any(back.values["x"] != before["x"])


@pytest.mark.parametrize("together", ["p + t", "total"])
def test_a_state_that_grows_takes_the_size_that_it_has_grown_to(together: str) -> None:
    made = model(
        "(float[1,t] x, float[1,p] past, float[1,total] m) => (float[1,q] present) "
        "{ both = Concat <axis = 1> (past, x) present = Add(both, m) }"
    )
    made.graph.input[2].type.tensor_type.shape.dim[1].dim_param = together
    session = ort.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    sets = inputs.generate(
        made, {}, try_run=lambda values: run(session, values), unusual=True
    )
    back = next(each for each in sets if each.name.startswith("fed back")).values
    assert np.shape(back["past"])[1] > np.shape(sets[0].values["past"])[1]
    assert np.shape(back["m"])[1] == np.shape(back["past"])[1] + np.shape(back["x"])[1]


def test_what_the_card_says_of_a_state_goes_first() -> None:
    made = model(RECURRENT)
    assert pairs(made, {"state": InputSpec(generator="zeros")}) == {}


def test_inspect_says_where_the_state_comes_from() -> None:
    told = {each.name: each.sentence for each in inputs.describe(model(RECURRENT), {})}
    assert (
        "In a further set it is the output 'stateN' of a run before, which began with zeros."
        in told["state"]
    )
    assert "Unusual sets scale it by 10 and 100." in told["x"]
    bounded = {
        each.name: each.sentence
        for each in inputs.describe(model(RECURRENT), {"x": InputSpec(low=0, high=3)})
    }
    assert (
        "Unusual sets scale it by 10 and 100, kept to at least 0 and at most 3."
        in bounded["x"]
    )
