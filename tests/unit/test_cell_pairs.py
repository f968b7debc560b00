"""Two models, or one and outputs from elsewhere: what their sessions and judges are given."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_harness.cell import comparison, given_outputs
from onnx_harness.cell.comparison import compare_models
from onnx_harness.cell.given_outputs import (
    compare_with_outputs,
    compare_with_snapshot,
    usual_inputs,
    write_snapshot,
)
from onnx_harness.judging.standard import Standard
from onnx_harness.model.file import Model
from onnx_harness.providers.sessions import open_session
from onnx_harness.results.workbench import workbench
from onnx_harness.transforms import Precision
from tests.models import linear, model
from tests.unit.test_cell_comparison import HALF, NEG, SQUARE, pair

RECORDED = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)


def recorded(folder: Path) -> Path:
    np.savez(folder / "given.npz", x=RECORDED)
    return folder / "given.npz"


def spied(monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> list[Any]:
    """Note what a function is asked, and let it do what it does."""
    asked: list[Any] = []
    function = getattr(place, name)

    def spy(*words: Any, **more: Any) -> Any:
        asked.append((words, more))
        return function(*words, **more)

    monkeypatch.setattr(place, name, spy)
    return asked


def test_b_s_session_avoids_the_kernels_that_saturate_in_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = {"session.a_key": "1"}
    asked: list[Any] = []

    def exact_sums(*models: Any) -> dict[str, str]:
        asked.append(models)
        return sums

    monkeypatch.setattr(comparison, "exact_sums", exact_sums)
    folders = spied(monkeypatch, tempfile, "TemporaryDirectory")
    opened = spied(monkeypatch, comparison, "open_session")
    measured = spied(monkeypatch, comparison, "is_emulated")
    judged = spied(monkeypatch, comparison, "judge_outputs")
    reads = comparison.pair_reference
    monkeypatch.setattr(
        comparison,
        "pair_reference",
        lambda *words: replace(reads(*words), notes=("a note",)),
    )
    asked_pair = pair(tmp_path, model(SQUARE), model(HALF), recorded=recorded(tmp_path))
    outcome = compare_models(asked_pair)
    assert (outcome.reason, outcome.emulated, outcome.notes[0]) == (None, True, "a note")
    [(a, b)] = asked
    assert [len(each.graph.node) for each in (a, b)] == [1, 3]
    [((path, _), options)] = opened
    assert (path, options["config"]) == (asked_pair.b, sums)
    assert options["profile"] is not None
    # On Windows a file that is still mapped can't be removed: that costs no verdict.
    assert [more["ignore_cleanup_errors"] for _, more in folders] == [True]
    [((_, provider), half)] = measured
    assert (provider.name, half) == ("cpu", {"half": True})
    [((standard, outputs, candidate), more)] = judged
    assert isinstance(standard, Standard)
    assert standard.precision is Precision.FP16
    assert (len(outputs), candidate.path, more["emulated"]) == (1, asked_pair.b, True)
    np.testing.assert_allclose(more["again"]()["y"], RECORDED**2)


def test_a_framework_s_outputs_and_golden_ones_are_compared_with_a(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = spied(monkeypatch, given_outputs, "Model")
    judged_files = spied(monkeypatch, given_outputs, "judged_file")
    asked = pair(tmp_path, model(NEG), linear(), recorded=recorded(tmp_path))
    [values] = usual_inputs(asked)
    np.testing.assert_array_equal(values["x"], RECORDED)
    outcome = compare_with_outputs(asked, [{"y": -RECORDED}])
    assert (outcome.reason, len(outcome.input_sets)) == (None, 1)
    assert write_snapshot(asked, tmp_path / "golden") == 1
    judged = spied(monkeypatch, given_outputs, "judge_outputs")
    same = compare_with_snapshot(asked, tmp_path / "golden")
    assert same.reason is None
    assert models == [((asked.a, "a"), {})] * 4
    assert judged_files == [((asked.a, asked.card), {})] * 4
    [((standard, outputs, candidate), more)] = judged
    assert more == {"emulated": False}
    assert candidate is standard.model
    assert isinstance(candidate, Model)
    np.testing.assert_array_equal(outputs[0]["y"], -RECORDED)
    reference = standard.reference
    np.testing.assert_array_equal(reference.sets[0].values["x"], RECORDED)
    np.testing.assert_array_equal(reference.outputs[0]["y"], -RECORDED)
    assert (reference.unstable, len(reference.sets)) == (frozenset(), 1)
    assert replace(standard, reference=None) == Standard(
        candidate,
        None,  # type: ignore[arg-type]
        asked.card,
        Precision.FP32,
        conversion=None,
        float_io=None,
        provider="cpu",
        exact=False,
        override=asked.settings.tolerance_override,
        kept=workbench().cache,
    )


def test_the_untouched_model_is_run_as_its_reference_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = pair(tmp_path, model(NEG))
    opened: list[Any] = []

    def opens(path: Path, provider: Any, **more: Any) -> Any:
        opened.append((path, provider, more))
        return open_session(path, given_outputs.providers.get("cpu"), **more)  # type: ignore[attr-defined]

    monkeypatch.setattr(given_outputs, "open_session", opens)
    for provider, level in (("cpu", "disable"), ("cuda", "all")):
        sets = [{"x": RECORDED}, {"x": 2 * RECORDED}]
        outputs = given_outputs._outputs(Model(asked.a), provider, sets)
        for output, values in zip(outputs, sets, strict=True):
            np.testing.assert_array_equal(output["y"], -values["x"])
        path, on, more = opened[-1]
        assert (path, on.name, more["level"]) == (asked.a, provider, level)
        assert more["purpose"].name == "ACCURACY"
