"""The verdict by itself: on real models, whose outputs are then changed on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_harness.cell.matrix import card_for
from onnx_harness.judging.conversions import conversion_of
from onnx_harness.judging.reference import Reference, reference
from onnx_harness.judging.standard import Standard, standard
from onnx_harness.judging.verdict import Verdict, verdict
from onnx_harness.model.file import Model
from onnx_harness.names import parse_variant
from onnx_harness.results.cache import Cache
from onnx_harness.results.cells import Status, Symptom
from onnx_harness.settings import Settings
from onnx_harness.transforms.variant import BoundVariant, bind_variant
from tests.models import linear, model, save


def held_to(model: onnx.ModelProto, folder: Path, variant: str, **settings: Any) -> Standard:
    card = card_for(save(model, folder / "model.onnx"))
    subject, kept, chosen = Model(card.path), Cache(folder), Settings(**settings)
    return standard(
        subject,
        reference(subject, card, chosen, kept),
        card,
        bound(variant),
        "cpu",
        chosen,
        kept,
    )


def bound(spelling: str) -> BoundVariant:
    return bind_variant(parse_variant(spelling))


def outputs(
    made: Reference, error: float, elements: int | None = None
) -> list[dict[str, Any]]:
    """The reference's outputs with noise of a relative size, in all elements or in the first few."""
    generator = np.random.default_rng(1)
    changed = []
    for each in made.outputs:
        y = each["y"].copy()
        flat = y.reshape(-1)[:elements]
        flat += (
            error * np.abs(y).max(initial=0) * generator.choice([-1, 1], flat.shape)
        ).astype(np.float32)
        changed.append({**each, "y": y})
    return changed


@pytest.mark.parametrize(
    ("variant", "faithful", "unfaithful"),
    [("simplify", 1e-7, 5e-5), ("fp16.io32", 3e-4, 9e-3), ("int8.dynamic", 3e-3, 0.15)],
)
def test_an_error_that_the_bound_lets_pass_fails_where_nothing_explains_it(
    tmp_path: Path, variant: str, faithful: float, unfaithful: float
) -> None:
    held = held_to(linear(), tmp_path, variant, rtol=1.0, atol=10.0)
    assert verdict(held, outputs(held.reference, faithful)).passed
    found = verdict(held, outputs(held.reference, unfaithful))
    assert (found.status, found.symptom) == (Status.FAIL, Symptom.WRONG_VALUES)
    assert str(found.reason).startswith("not faithful: output y departs by ")
    assert found.comparison is not None
    assert (found.comparison.faithful, found.comparison.usable) == (False, True)


def test_where_nothing_has_to_be_explained_the_bound_alone_decides(tmp_path: Path) -> None:
    held = replace(
        held_to(linear(), tmp_path, "fp16.io32", rtol=1.0, atol=10.0), explained=False
    )
    found = verdict(held, outputs(held.reference, 9e-3))
    assert found.passed
    assert found.comparison is not None
    assert found.comparison.faithful is None


def test_one_wrong_element_is_caught_though_the_mean_is_good(tmp_path: Path) -> None:
    held = held_to(linear(), tmp_path, "fp16.io32", rtol=1.0, atol=10.0)
    found = verdict(held, outputs(held.reference, 9e-3, elements=1))
    assert str(found.reason).startswith("not faithful: ")


def test_a_conversion_that_is_not_made_is_not_measured() -> None:
    assert conversion_of(bound("simplify+optimize")) is None
    assert conversion_of(bound("original")) is None


@pytest.mark.parametrize(
    ("variant", "type", "least", "most", "all_inputs"),
    [
        ("fp16", "float16", 1e-7, 1e4, True),
        ("simplify+fp16.io32", "float16", 1e-7, 1e4, False),
        ("fp16.io32(max_finite_val=65504)", "float16", 1e-7, 65504.0, False),
        ("fp16.onnxmltools.io32", "float16", 1e-7, 1e4, False),
    ],
)
def test_the_ideal_conversion_is_what_the_variant_documents(
    variant: str, type: str, least: float, most: float, all_inputs: bool
) -> None:
    found = conversion_of(bound(variant))
    assert found is not None
    assert found.clamp is not None
    assert (found.type, found.clamp.least, found.clamp.most, found.all_inputs) == (
        type,
        least,
        most,
        all_inputs,
    )


def test_the_scheme_of_a_quantization_is_read_in_its_options() -> None:
    dynamic, static = (
        conversion_of(bound("int8.dynamic")),
        conversion_of(bound("int8.static")),
    )
    assert dynamic is not None
    assert static is not None
    assert dynamic.scheme is not None
    assert static.scheme is not None
    assert (dynamic.scheme.static, static.scheme.static) == (False, True)
    assert "Softmax" not in static.scheme.ops
    narrow = conversion_of(
        bound(
            "int8.static(per_channel=True,reduce_range=True,op_types_to_quantize=('Conv',))"
        )
    )
    assert narrow is not None
    assert narrow.scheme is not None
    assert (narrow.scheme.ops, narrow.scheme.per_channel, narrow.scheme.narrow) == (
        frozenset({"Conv"}),
        True,
        True,
    )


@pytest.mark.parametrize(
    ("kind", "number", "rtol"),
    [
        ("float", 1, 1e-4),
        ("float16", 10, 1e-2),
        ("bfloat16", 16, 1e-2),
        ("float8e4m3fn", 17, 1e-2),
        ("float8e5m2", 19, 1e-2),
    ],
)
def test_an_output_of_a_coarse_type_is_not_judged_by_the_rule_of_float32(
    tmp_path: Path, kind: str, number: int, rtol: float
) -> None:
    text = f"(float[n,4] x) => ({kind}[n,4] y) {{ y = Cast<to = {number}>(x) }}"
    bounds = held_to(model(text, opset=19), tmp_path, "original")
    comparison = verdict(bounds, bounds.reference.outputs).comparison
    assert comparison is not None
    assert comparison.record.outputs["y"].rtol == rtol


def test_the_sign_of_a_zero_is_judged_except_where_the_inputs_saturate(
    tmp_path: Path,
) -> None:
    bounds = held_to(linear(), tmp_path, "simplify")
    original = bounds.reference
    sets = original.sets
    places = [
        original.usual[-1],
        *(place for place, inputs in enumerate(sets) if inputs.saturates),
    ]
    assert len(places) > 1
    for place in places:
        below, above = outputs(original, 0.0), outputs(original, 0.0)
        below[place]["y"][0, 0], above[place]["y"][0, 0] = -0.0, 0.0
        negative = replace(bounds, reference=replace(original, outputs=tuple(below)))
        assert verdict(negative, above).passed is sets[place].saturates


def random_model() -> onnx.ModelProto:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"], name="sampler"),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])
    graph = helper.make_graph(nodes, "g", [x], [y])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )


def test_a_model_that_draws_at_random_is_refused_with_its_node_named(tmp_path: Path) -> None:
    held = held_to(random_model(), tmp_path, "simplify")
    found: Verdict = verdict(held, held.reference.outputs)
    assert (found.status, found.symptom) == (Status.NOT_APPLICABLE, Symptom.UNSTABLE)
    assert "RandomNormalLike 'sampler'" in str(found.reason)


def recurrent() -> onnx.ModelProto:
    """An LSTM with biases and a state from outside: ONNX Runtime's CPU kernel makes numbers of NaN
    in its gates.
    """
    rng = np.random.default_rng(0)
    made = model(
        "(float[1,1,4] x, float[1,1,8] h, float[1,1,8] c) => (float[1,1,8] y, float[1,1,4] z)"
        " { all, y = LSTM <hidden_size = 8> (x, w, r, b, , h, c)  z = Tanh(x) }"
    )
    shapes = {"w": (1, 32, 4), "r": (1, 32, 8), "b": (1, 64)}
    made.graph.initializer.extend(
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    )
    return made


def by_specification(held: Standard) -> list[dict[str, Any]]:
    evaluator = ReferenceEvaluator(held.model.load())
    with np.errstate(all="ignore"):
        return [
            dict(zip("yz", evaluator.run(["y", "z"], dict(each.values)), strict=True))
            for each in held.reference.sets
        ]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_where_the_reference_alone_makes_numbers_of_nan_another_provider_need_not(
    tmp_path: Path,
) -> None:
    held = held_to(recurrent(), tmp_path, "original")
    candidate = by_specification(held)
    odd = [
        place
        for place, (mine, right) in enumerate(
            zip(candidate, held.reference.outputs, strict=True)
        )
        if np.isnan(mine["y"]).any() and np.isfinite(right["y"]).all()
    ]
    assert odd, "ONNX Runtime's LSTM lets NaN through now: nothing is left to forgive"
    found = verdict(replace(held, provider="cuda"), candidate)
    assert found.passed
    assert any("kernels make numbers of NaN" in note for note in found.notes)
    assert not verdict(held, candidate).passed, "on the CPU a change is a change"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_neither_the_reference_nor_the_specification_bears_out_stays_a_failure(
    tmp_path: Path,
) -> None:
    held = replace(held_to(recurrent(), tmp_path, "original"), provider="cuda")
    candidate = by_specification(held)
    for each in candidate:
        each["y"][np.isnan(each["y"])] = np.inf
    assert not verdict(held, candidate).passed
    other = by_specification(held)
    for each in other:
        if np.isnan(each["y"]).any():
            each["z"] = np.where(np.isfinite(each["z"]), 0.5, each["z"])
    assert not verdict(held, other).passed, "what is no NaN is compared all the same"
    lost = by_specification(held)
    lost[0]["y"] = np.full_like(lost[0]["y"], np.nan)
    assert not verdict(held, lost).passed, "a usual set is never forgiven"
