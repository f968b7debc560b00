"""The public zoo's builders: the same model every time, and outputs that depend on the input."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_harness import inputs
from onnx_harness.cards import card, fetch
from onnx_harness.selftest.half_truth import Truth, truth
from onnx_harness.transforms.fp16 import convert_float_to_float16

MODELS = Path(__file__).parents[2] / "models"


def build(name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(cache))
    return fetch.materialize(card.read(MODELS / f"{name}.model.toml"))


BUILT = (
    *("bn_cnn", "transformer_block", "loop", "external_data", "shufflenet", "squeezenet"),
    *("map_points", "pressure_variance", "quiet_log_mel", "harmonic_source", "pcm_power"),
    *("massive_activations", "log_partition", "unscaled_attention"),
    *("qdq_cnn", "weight_only_int8", "weight_only_int4", "lstm_dynamic"),
    "decoder_growing_cache",
    "decoder_static_cache",
    "decoder_grouped_queries",
    "grouped_query_attention",
    "prompt_segmentation",
    "detector_nms",
    "graph_network",
    "diffusion_block",
    "legacy_opset7",
)


@pytest.mark.parametrize("name", BUILT)
def test_a_built_model_is_the_same_every_time_and_listens_to_its_input(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, again = (
        build(name, tmp_path / cache, monkeypatch) for cache in ("first", "second")
    )
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == {
        file.name: file.read_bytes() for file in again.parent.iterdir()
    }
    model = onnx.load(path, load_external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(feed: dict[str, Any]) -> Any:
        return session.run(None, feed)[0]

    specs = card.read(MODELS / f"{name}.model.toml").inputs
    outputs = [
        run(given.values).ravel()
        for given in inputs.generate(model, specs, count=3, try_run=run)
    ]
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


def test_an_external_data_model_holds_its_weights_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build("external_data", tmp_path, monkeypatch)
    assert path.with_suffix(".data").stat().st_size > 100 * path.stat().st_size


def test_a_vocoder_draws_noise_and_its_loudness_does_not_depend_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build("noise_vocoder", tmp_path, monkeypatch)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    mel = {"mel": np.ones((1, 20, 6), np.float32)}
    (sound, loudness), (again, as_loud) = session.run(None, mel), session.run(None, mel)
    assert not np.array_equal(sound, again)
    assert np.array_equal(loudness, as_loud)


def test_a_text_classifier_tells_good_from_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = onnxruntime.InferenceSession(build("text_classifier", tmp_path, monkeypatch))
    labels, _ = text.run(None, {"text": np.array(["a good film", "a dull film"], object)})
    assert labels.tolist() == [1, 0]


@pytest.mark.parametrize("name", ["map_points", "pcm_power"])
def test_float16_breaks_what_the_card_says_it_breaks(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = card.read(MODELS / f"{name}.model.toml")
    original = onnx.load(build(name, tmp_path, monkeypatch))
    feeds = [
        chosen.values for chosen in inputs.generate(original, described.inputs, count=2)
    ]
    converted = convert_float_to_float16(
        onnx.load(build(name, tmp_path, monkeypatch)), keep_io_types=True
    )
    assert truth(original, converted, feeds) is Truth.WRONG
