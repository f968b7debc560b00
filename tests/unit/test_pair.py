"""Comparing two models where ONNX Runtime dies of an unusual input set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_harness import compare
from onnx_harness.cell import comparison
from onnx_harness.cell.comparison import Pair
from onnx_harness.cell.matrix import card_for
from onnx_harness.cell.state import RunNote
from onnx_harness.errors import ModelError, WorkerCrashed
from onnx_harness.run import pair as pairs
from onnx_harness.settings import Settings
from tests.models import save


def gru() -> onnx.ModelProto:
    """A model that ONNX Runtime 1.2x ends the process for where its sequence is empty."""
    rng = np.random.default_rng(4)
    node = helper.make_node(
        "GRU", ["x", "w", "r"], ["", "h"], hidden_size=4, linear_before_reset=0
    )
    weights = {"w": (1, 12, 3), "r": (1, 12, 4)}
    graph = helper.make_graph(
        [node],
        "recurrent",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["t", "n", 3])],
        [helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, "n", 4])],
        [
            numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
            for name, shape in weights.items()
        ],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )


def test_a_copy_of_a_model_that_dies_of_an_empty_sequence_is_a_copy(tmp_path: Path) -> None:
    a, b = (save(gru(), tmp_path / f"{name}.onnx") for name in "ab")
    assert compare(a, b)


class Dying:
    """Stands in for the worker: dies at the given notes, one call after another."""

    def __init__(self, stages: list[str], excuse: str | Exception = "") -> None:
        self.stages, self.excuse = stages, excuse
        self.skipped: list[tuple[int, ...]] = []

    def call(self, _: object, pair: Pair, *place: int) -> object:
        if place:
            if isinstance(self.excuse, Exception):
                raise self.excuse
            return self.excuse
        self.skipped.append(pair.skipped)
        if self.stages:
            raise WorkerCrashed("the worker process was killed", self.stages.pop(0))
        return comparison.PairOutcome()


def pair_of(tmp_path: Path) -> Pair:
    card = card_for(save(gru(), tmp_path / "a.onnx"))
    return Pair(
        tmp_path / "a.onnx", tmp_path / "b.onnx", card, "cpu", None, False, Settings()
    )


UNUSUAL = str(RunNote(17, True, "unusual: with nothing in it"))


@pytest.mark.parametrize(
    ("stages", "excuse", "skipped", "reason"),
    [
        (["at risk: unusual inputs"], "", [(), ()], None),
        ([UNUSUAL], "a narrower type", [(), (17,)], None),
        ([UNUSUAL], WorkerCrashed("it died"), [(), (17,)], None),
        ([UNUSUAL], "", [()], "running B on unusual: with nothing in it"),
        ([UNUSUAL], ValueError("refused"), [()], "running B on unusual: with nothing in it"),
        ([str(RunNote(0, False, "set 0"))], "an excuse", [()], "running B on set 0"),
        (["at risk: x"] * 9, "", [()] * 9, ModelError),
        (["reading"], "", [()], ModelError),
    ],
)
def test_what_a_death_says_of_b(
    stages: list[str],
    excuse: str | Exception,
    skipped: list[tuple[int, ...]],
    reason: str | type[Exception] | None,
    tmp_path: Path,
) -> None:
    worker = Dying(stages, excuse)
    if isinstance(reason, type):
        with pytest.raises(reason, match="can't be compared"):
            pairs.compared_by(worker.call, pair_of(tmp_path))
    else:
        outcome = pairs.compared_by(worker.call, pair_of(tmp_path))
        assert (outcome.reason or "").startswith(reason or "") is True
        assert (outcome.reason is None) == (reason is None)
        assert len(outcome.notes) == sum(bool(places) for places in skipped)
    assert worker.skipped == skipped
