"""Models that quantize or round: what their last bits do is no fault, and a fault is caught all the
same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_harness import transforms
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.judging import inside as inside_room
from onnx_harness.judging import noise_floor as floor_room
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.settings import Settings
from onnx_harness.transforms import Transform
from tests.models import model, save

QDQ = (
    "(float[n,64] x) => (float[n,64] y) {"
    " xq = QuantizeLinear(x, sx, zx) xd = DequantizeLinear(xq, sx, zx)"
    " wd = DequantizeLinear <axis = 1> (wq, sw, zw) m = MatMul(xd, wd)"
    " mq = QuantizeLinear(m, sm, zx) md = DequantizeLinear(mq, sm, zx) y = Relu(md) }"
)
ROUND = "(float[n,64] x) => (float[n,64] y) { r = Round(x) m = MatMul(r, w) y = Round(m) }"


def holding(graph: str, **constants: Any) -> onnx.ModelProto:
    made = model(graph)
    made.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    return made


def quantized(seed: int = 2) -> onnx.ModelProto:
    """A product between quantizers. No two of its weights saturate in a sum of 16 bits."""
    return holding(
        QDQ,
        sx=np.float32(0.02),
        zx=np.uint8(128),
        wq=np.random.default_rng(seed).integers(-60, 60, (64, 64)).astype(np.int8),
        sw=np.full(64, 0.003, np.float32),
        zw=np.zeros(64, np.int8),
        sm=np.float32(0.03),
    )


def rounding() -> onnx.ModelProto:
    """Sums of tenths, which end in halves often, and are rounded."""
    return holding(
        ROUND, w=(np.random.default_rng(3).integers(-9, 9, (64, 64)) / 10).astype(np.float32)
    )


def changed(
    made: onnx.ModelProto, name: str, change: Callable[[Any], Any]
) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(made)
    for tensor in copy.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(
                numpy_helper.from_array(np.asarray(change(array.copy()), array.dtype), name)
            )
    return copy


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CellResult]:
    """Judges a model that a transform has put in the place of another, or an untouched one."""
    caches = itertools.count()

    def run(
        right: onnx.ModelProto,
        wrong: onnx.ModelProto | None = None,
        variant: str = "original",
    ) -> CellResult:
        # What a transform made is kept by its name and version, and this one is another each time;
        # so is the noise, which some tests measure otherwise.
        monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / f"cache {next(caches)}"))
        if wrong is not None:
            planted = Transform("a planted fault", lambda _: wrong, {"planted": {}})
            monkeypatch.setitem(
                cast("dict[str, Transform]", transforms.registry()), "planted", planted
            )
            variant = "planted"
        card = card_for(save(right, tmp_path / "model.onnx"))
        return judge(
            Task(Cell(card, parse_variant(variant), "cpu"), card.path, Settings())
        ).result

    return run


@pytest.mark.parametrize("variant", ["original", "ort.disable", "ort.basic", "ort.extended"])
@pytest.mark.parametrize("build", [quantized, rounding])
def test_an_untouched_model_that_rounds_passes_at_every_level(
    build: Callable[[], onnx.ModelProto], variant: str, judged: Callable[..., CellResult]
) -> None:
    result = judged(build(), variant=variant)
    assert result.status is Status.PASS, (result.reason, result.detail, result.notes)
    assert any(note.startswith(floor_room.RESTS_ON) for note in result.notes)


# Of 150 drawn so, these round an element of one set or two the other way at another level of ONNX
# Runtime, where no draw of their last bits did.
@pytest.mark.parametrize("variant", ["original", "ort.extended"])
@pytest.mark.parametrize("seed", [112, 144, 156, 190])
def test_one_flip_of_one_element_is_no_fault(
    seed: int, variant: str, judged: Callable[..., CellResult]
) -> None:
    result = judged(quantized(seed), variant=variant)
    assert result.status is Status.PASS, (result.reason, result.detail, result.notes)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("{ y = Round(x) }", "{ h = Add(x, half) y = Floor(h) }"),
        (
            "{ r = Round(x) m = MatMul(r, w) y = Round(m) }",
            "{ h = Add(x, half) r = Floor(h) m = MatMul(r, w) y = Round(m) }",
        ),
    ],
    ids=["the output itself", "before a product"],
)
def test_another_rule_for_ties_is_caught_on_the_set_of_ties(
    right: str, wrong: str, judged: Callable[..., CellResult]
) -> None:
    head = "(float[n,64] x) => (float[n,64] y) "
    held = {
        "half": np.float32(0.5),
        "w": np.random.default_rng(3).standard_normal((64, 64)).astype(np.float32),
    }
    result = judged(holding(head + right, **held), holding(head + wrong, **held))
    assert result.status is Status.FAIL, result


def test_one_step_of_one_element_is_caught_where_values_lie_on_an_edge(
    judged: Callable[..., CellResult],
) -> None:
    # The first element is one step off wherever its input is whole, which is so in no usual set.
    graph = (
        "(float[n,64] x) => (float[n,64] y) "
        "{ f = Floor(x) e = Equal(f, x) c = Cast <to = 1> (e) p = Mul(c, first) r = Round(x) y = "
        "Sub(r, p) }"
    )
    first = np.zeros(64, np.float32)
    first[0] = 1
    right = holding("(float[n,64] x) => (float[n,64] y) { y = Round(x) }")
    result = judged(right, holding(graph, first=first))
    assert result.status is Status.FAIL, result
    assert "on unusual inputs alone" in str(result.reason)


def negated_column(array: Any) -> Any:
    array[:, 7] = -array[:, 7]
    return array


FAULTS = {
    "the scale of the input": (quantized, "sx", lambda array: array * np.float32(1.01)),
    "the scale of the product": (quantized, "sm", lambda array: array * np.float32(1.01)),
    "the scale of a weight": (quantized, "sw", lambda array: array * np.float32(1.01)),
    "a zero point": (quantized, "zx", lambda array: array + 1),
    "a zero point of the weights": (quantized, "zw", lambda array: array + 1),
    "a column of quantized weights": (quantized, "wq", negated_column),
    "all weights": (rounding, "w", lambda array: array * np.float32(1.1)),
    "a column of weights": (rounding, "w", negated_column),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_model_that_rounds_is_caught(
    fault: str, judged: Callable[..., CellResult]
) -> None:
    build, name, change = FAULTS[fault]
    right = build()
    result = judged(right, changed(right, name, change))
    assert result.status is Status.FAIL, result


def test_without_the_draws_inside_an_untouched_model_would_fail(
    judged: Callable[..., CellResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside_room, "has_steps", lambda _: False)
    assert judged(
        rounding(),
        changed(rounding(), "w", lambda array: np.nextafter(array, np.float32(9))),
    ).status is (Status.FAIL)


def test_a_class_that_last_bits_decide_may_change_and_others_may_not(
    judged: Callable[..., CellResult],
) -> None:
    # Twins: which of columns 0 and 1 is the greatest hangs on last bits.
    graph = (
        "(float[n,64] x) => (int64[n,1] y) { m = MatMul(x, w) y = ArgMax <axis = 1> (m) }"
    )
    weight = np.random.default_rng(4).standard_normal((64, 16)).astype(np.float32)
    weight[:, 1] = weight[:, 0] = 3 * weight[:, 0]
    right = holding(graph, w=weight)
    nudged = changed(right, "w", lambda array: np.nextafter(array, np.float32(9)))
    assert judged(right).status is Status.PASS
    assert judged(right, nudged).status is Status.PASS
    result = judged(right, changed(right, "w", lambda array: array[:, ::-1]))
    assert result.status is Status.FAIL


DRAWN = (
    "(float[n,64] x) => (float[n,64] y, float[n,64] z) { r = RandomNormalLike(x) y = Add(x, "
    "r) z = Relu(x) }"
)


def test_a_random_output_that_becomes_constant_is_a_change(
    judged: Callable[..., CellResult],
) -> None:
    still = "(float[n,64] x) => (float[n,64] y, float[n,64] z) { y = Mul(x, k) z = Relu(x) }"
    result = judged(model(DRAWN), holding(still, k=np.float32(1.5)))
    assert result.status is Status.FAIL
    assert (
        "drawn at random by the untouched model, and the same in each of 8 runs here: y"
        in str(result.reason)
    )
    assert judged(model(DRAWN), model(DRAWN)).status is Status.PASS


def test_a_declared_shape_that_is_false_is_said(judged: Callable[..., CellResult]) -> None:
    made = model("(float[n,64] x) => (float[n,64] y) { y = Relu(x) }")
    made.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3])
    )
    result = judged(made)
    assert any(
        note.startswith("output y is declared as [n, 3] and comes out as [")
        for note in result.notes
    ), result
    assert not any("declared as" in note for note in judged(quantized()).notes)
