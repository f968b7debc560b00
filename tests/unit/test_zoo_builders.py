"""The public zoo's builders: the same model every time, and outputs that depend on the input."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_harness import inputs
from onnx_harness.cards import card, fetch

MODELS = Path(__file__).parents[2] / "models"


def build(name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(cache))
    return fetch.materialize(card.read(MODELS / f"{name}.model.toml"))


@pytest.mark.parametrize("name", ["bn_cnn", "transformer_block", "loop", "external_data", "shufflenet", "squeezenet"])
def test_a_built_model_is_the_same_every_time_and_listens_to_its_input(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, again = (build(name, tmp_path / cache, monkeypatch) for cache in ("first", "second"))
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == {
        file.name: file.read_bytes() for file in again.parent.iterdir()
    }
    model = onnx.load(path, load_external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(feed: dict[str, Any]) -> Any:
        return session.run(None, feed)[0]

    specs = card.read(MODELS / f"{name}.model.toml").inputs
    outputs = [run(given.values).ravel() for given in inputs.generate(model, specs, count=3, try_run=run)]
    assert all(np.isfinite(output).all() and np.ptp(output) > 0 for output in outputs)
    least = min(output.size for output in outputs)
    assert not np.allclose(outputs[0][:least], outputs[1][:least], rtol=1e-2)


def test_weights_of_the_light_architectures_are_initializers_and_not_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(build("shufflenet", tmp_path, monkeypatch))
    assert [value.name for value in model.graph.input] == ["gpu_0/data_0"]
    assert "ConstantOfShape" not in {node.op_type for node in model.graph.node}
    assert all(tensor.raw_data for tensor in model.graph.initializer)


def test_an_external_data_model_holds_its_weights_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build("external_data", tmp_path, monkeypatch)
    assert path.with_suffix(".data").stat().st_size > 100 * path.stat().st_size
