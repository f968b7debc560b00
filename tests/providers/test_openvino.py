"""OpenVINO on the CPU device. Needs .venv-openvino."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_harness.cli import main
from onnx_harness.errors import ProviderError
from onnx_harness.providers import get
from onnx_harness.providers.binding import bound_runner
from onnx_harness.providers.contradiction import contradiction
from onnx_harness.providers.placement import assignments, placement, shortfall
from onnx_harness.providers.probe import probe
from onnx_harness.providers.profile import Profile, precision, read_profile
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.cells import Stage, Status
from onnx_harness.transforms.fp16 import convert_float_to_float16
from tests.models import save
from tests.providers.small_models import (
    Watched,
    cnn,
    halved,
    with_determinant,
    with_infinities_marked,
)

pytestmark = pytest.mark.providers

OPENVINO, CPU = get("openvino"), get("cpu")
IMAGE = np.random.default_rng(1).normal(size=(2, 3, 16, 16)).astype(np.float32)


def test_it_is_usable_here() -> None:
    found = probe("openvino")
    assert (found.usable, found.reason) == (True, None)
    assert found.details["distribution"].startswith("onnxruntime-openvino ")


@pytest.mark.parametrize("purpose", Purpose)
def test_a_cnn_lies_on_it_and_is_computed_in_fp32(purpose: Purpose) -> None:
    session = open_session(cnn(layers=3), OPENVINO, purpose=purpose, threads=1)
    found = placement(session, OPENVINO)
    assert set(found.nodes) == {"OpenVINOExecutionProvider"}
    assert (found.share, found.off_provider_ops) == (1.0, {})
    reference = open_session(cnn(layers=3), CPU, purpose=Purpose.ACCURACY, level="disable")
    expected = reference.run(None, {"image": IMAGE})[0]
    # bfloat16 keeps 8 bits: it would be off by about 4e-3.
    np.testing.assert_allclose(
        session.run(None, {"image": IMAGE})[0], expected, rtol=1e-4, atol=1e-5
    )


def test_an_operator_it_lacks_shows_in_the_placement() -> None:
    session = open_session(with_determinant(), OPENVINO, purpose=Purpose.ACCURACY)
    found = placement(session, OPENVINO)
    # It also leaves subgraphs that are too small to be worth compiling.
    assert found.off_provider_ops == {"Det": 1, "MatMul": 1}
    assert shortfall(found, OPENVINO) is not None


def test_an_unusable_device_is_refused_and_not_run_on_the_cpu() -> None:
    absent = replace(
        OPENVINO, accuracy_options={**OPENVINO.accuracy_options, "device_type": "GPU"}
    )
    with pytest.raises(ProviderError, match="would run on CPUExecutionProvider"):
        open_session(cnn(), absent, purpose=Purpose.ACCURACY)


def test_without_a_memory_of_its_own_a_plain_run_is_timed() -> None:
    session = Watched(open_session(cnn(), OPENVINO, purpose=Purpose.LATENCY))
    bound_runner(session, OPENVINO, {"image": IMAGE})()
    assert session.bindings == []


def test_float16_is_emulated_and_what_is_compiled_is_told_by_its_declaration(
    tmp_path: Path,
) -> None:
    half = convert_float_to_float16(
        onnx.load_from_string(cnn()), keep_io_types=True
    ).SerializeToString()
    session = open_session(
        half, OPENVINO, purpose=Purpose.ACCURACY, profile=tmp_path / "profile"
    )
    assigned = assignments(session, OPENVINO)
    session.run(None, {"image": IMAGE})
    profile = read_profile(Path(session.end_profiling()), OPENVINO)
    assert (profile.compiled, profile.executed()) == (1, {"OpenVINOExecutionProvider": 1})
    assert assigned.total() > 5
    assert contradiction(assigned, profile, OPENVINO) is None
    assert precision(profile, OPENVINO, wants_half=True) == "emulated"
    elsewhere = Profile(
        Counter({("CPUExecutionProvider", op): count for (_, op), count in assigned.items()})
    )
    assert "that ran on CPUExecutionProvider" in str(
        contradiction(assigned, elsewhere, OPENVINO)
    )


@pytest.mark.parametrize(
    ("plain", "mixed", "keeps"),
    [
        ("fp16.io32", "fp16.mixed", "keeps 1 of 3"),
        ("bf16.io32", "bf16.mixed", "keeps 2 of 3"),
    ],
)
def test_nodes_that_it_refuses_in_a_half_type_stay_float32(
    plain: str, mixed: str, keeps: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO 2025.4 makes a cyclic graph of this model in float16; it has no bfloat16 at all."""
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    path = save(with_infinities_marked(), tmp_path / "m.onnx")
    refused = halved(path, plain, "openvino")
    assert refused.stage is Stage.SESSION
    assert refused.detail[-1].startswith(f"mend: `--variant {mixed}` {keeps}"), (
        refused.detail
    )
    result = halved(path, mixed, "openvino")
    assert result.status is Status.PASS, result
    assert any(note.startswith(keeps) for note in result.notes), result.notes
    assert any(
        re.match(r"provider 'openvino' refuses b?float16 in 'make_a'", note)
        for note in result.notes
    )


def test_transform_writes_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    path = save(with_infinities_marked(), tmp_path / "m.onnx")
    for provider, opens in (("cpu", False), ("openvino", True)):
        out = tmp_path / f"{provider}.onnx"
        command = ["transform", str(path), "--variant", "fp16.mixed", "-o", str(out)]
        assert main([*command, "--provider", provider]) == 0
        if opens:
            open_session(out, OPENVINO, purpose=Purpose.ACCURACY)
            continue
        with pytest.raises(Exception, match="not acyclic"):
            open_session(out, OPENVINO, purpose=Purpose.ACCURACY)
