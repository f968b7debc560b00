"""WebGPU on a software Vulkan device. Needs .venv-webgpu and SwiftShader."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from onnx_harness.cards.card import read
from onnx_harness.cell.matrix import Cell
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.latency import collect
from onnx_harness.latency.plan import Plan
from onnx_harness.latency.sessions import timed_session
from onnx_harness.names import parse_variant
from onnx_harness.providers import get
from onnx_harness.providers.binding import bound_runner
from onnx_harness.providers.contradiction import contradiction
from onnx_harness.providers.placement import assignments, placement, shortfall
from onnx_harness.providers.probe import probe
from onnx_harness.providers.profile import read_profile
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.settings import Settings
from tests.models import save
from tests.providers.small_models import (
    Watched,
    cnn,
    halved,
    with_determinant,
    with_infinities_marked,
)

pytestmark = pytest.mark.providers

WEBGPU, CPU = get("webgpu"), get("cpu")
IMAGE = np.random.default_rng(1).normal(size=(1, 3, 32, 32)).astype(np.float32)


def test_it_is_usable_here() -> None:
    found = probe("webgpu")
    assert (found.usable, found.reason) == (True, None)


def test_a_cnn_lies_on_the_device_and_its_shape_arithmetic_may_lie_on_the_cpu() -> None:
    session = open_session(cnn(layers=2), WEBGPU, purpose=Purpose.ACCURACY)
    found = placement(session, WEBGPU)
    assert (found.requested, found.share, found.off_provider_ops) == (
        "WebGpuExecutionProvider",
        1.0,
        {},
    )
    assert (
        found.nodes["WebGpuExecutionProvider"] >= 5
    )  # two Conv, two Relu and the pooling at least
    assert shortfall(found, WEBGPU) is None
    reference = open_session(cnn(layers=2), CPU, purpose=Purpose.ACCURACY, level="disable")
    expected = reference.run(None, {"image": IMAGE})[0]
    np.testing.assert_allclose(
        session.run(None, {"image": IMAGE})[0], expected, rtol=1e-4, atol=1e-5
    )


def test_an_operator_it_lacks_shows_in_the_placement() -> None:
    session = open_session(with_determinant(), WEBGPU, purpose=Purpose.ACCURACY)
    found = placement(session, WEBGPU)
    assert found.off_provider_ops == {"Det": 1}
    assert found.nodes["CPUExecutionProvider"] == 1
    assert shortfall(found, WEBGPU) is not None
    assert shortfall(found, WEBGPU, 0.5) is None


def judged(folder: Path, asks: str) -> CellResult:
    """The verdict on a product, a determinant that only the CPU has, and a ReLU."""
    (folder / "det.onnx").write_bytes(with_determinant())
    (folder / "det.model.toml").write_text(f"[placement]\n{asks}\n")
    cell = Cell(read(folder / "det.model.toml"), parse_variant("original"), "webgpu")
    return judge(Task(cell, folder / "det.onnx", Settings(input_sets=1))).result


def test_copies_between_memories_are_counted_and_a_card_can_bound_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    found = judged(tmp_path, 'allowed_cpu_ops = ["Det"]\nmax_memcpy = 2')
    assert (found.status, found.reason) == (Status.PASS, None)
    record = found.placement
    assert record is not None
    # To the host for the determinant, and back: the record of assignments knows of neither.
    assert (record.memcpy, record.share) == (2, 1.0)
    assert record.executed == {"CPUExecutionProvider": 1, "WebGpuExecutionProvider": 2}
    assert record.time_share is not None
    assert 0.5 < record.time_share < 1
    assert record.precision == "float32"
    too_many = judged(tmp_path, 'allowed_cpu_ops = ["Det"]\nmax_memcpy = 1')
    assert (too_many.status, too_many.stage) == (Status.FAIL, Stage.PLACEMENT)
    assert (
        "2 nodes copy between the memory of WebGpuExecutionProvider and the host's"
        in str(too_many.reason)
    )
    assert str(too_many.reason).endswith("the card allows 1; op types elsewhere: Det")
    assert (
        judged(tmp_path, 'allowed_cpu_ops = ["Det"]\nmin_time_share = 1').status
        is Status.FAIL
    )
    assert judged(tmp_path, "min_share = 0.9").status is Status.FAIL


def test_a_record_that_hides_what_ran_on_the_cpu_is_contradicted_by_the_profile(
    tmp_path: Path,
) -> None:
    session = open_session(
        with_determinant(), WEBGPU, purpose=Purpose.ACCURACY, profile=tmp_path / "profile"
    )
    assigned = assignments(session, WEBGPU)
    matrices = np.random.default_rng(1).normal(size=(2, 2, 3, 3)).astype(np.float32)
    session.run(None, {"a": matrices[0], "b": matrices[1]})
    profile = read_profile(Path(session.end_profiling()), WEBGPU)
    assert contradiction(assigned, profile, WEBGPU) is None
    hidden = assigned.copy()
    hidden["WebGpuExecutionProvider", "Det"] = hidden.pop(("CPUExecutionProvider", "Det"))
    assert contradiction(hidden, profile, WEBGPU) == (
        "the record of assignments puts 1 node on WebGpuExecutionProvider that ran on "
        "CPUExecutionProvider: Det x1"
    )


def test_fusion_on_the_device_is_no_contradiction(tmp_path: Path) -> None:
    session = open_session(
        cnn(layers=2), WEBGPU, purpose=Purpose.ACCURACY, profile=tmp_path / "profile"
    )
    assigned = assignments(session, WEBGPU)
    session.run(None, {"image": IMAGE})
    profile = read_profile(Path(session.end_profiling()), WEBGPU)
    assert (
        profile.nodes["WebGpuExecutionProvider", "Relu"]
        < assigned["WebGpuExecutionProvider", "Relu"]
    )
    assert contradiction(assigned, profile, WEBGPU) is None
    assert profile.copies == 0


def test_a_timed_run_waits_for_the_device() -> None:
    session = Watched(
        open_session(cnn(channels=16, layers=4), WEBGPU, purpose=Purpose.LATENCY)
    )
    feeds = {"image": IMAGE}
    run = bound_runner(session, WEBGPU, feeds)
    run()  # the first compiles shaders
    (binding,) = session.bindings
    np.testing.assert_allclose(
        binding.copy_outputs_to_cpu()[0], session.run(None, feeds)[0], rtol=1e-5
    )

    def best_of_three(target: object) -> float:
        assert callable(target)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            target()
            times.append(time.perf_counter() - start)
        return min(times)

    # A plain run returns arrays in host memory, so it can't be over before the device is. A run
    # that didn't wait would take a thousandth of it.
    assert best_of_three(run) > 0.4 * best_of_three(lambda: session.run(None, feeds))


def test_its_inputs_lie_on_the_device_beforehand_and_its_outputs_are_read_back() -> None:
    session = Watched(open_session(cnn(), WEBGPU, purpose=Purpose.LATENCY))
    assert {info.name for info in session.get_input_memory_infos()} == {"WebGPU_Buf"}
    bound_runner(session, WEBGPU, {"image": IMAGE})()
    (binding,) = session.bindings
    (output,) = binding.get_outputs()
    assert output.device_name() == "cpu"
    np.testing.assert_allclose(
        output.numpy(), session.run(None, {"image": IMAGE})[0], rtol=1e-5
    )


def test_it_is_timed_with_and_without_transfers() -> None:
    sets = [{"image": IMAGE}, {"image": IMAGE[..., ::-1].copy()}]
    recording = collect(
        baseline=lambda: timed_session(cnn(), WEBGPU, sets),
        variant=lambda: timed_session(cnn(), WEBGPU, sets),
        planner=lambda _: Plan(pairs=2, iterations=2, warmup=1),
        seed=0,
    )
    assert (
        [len(pair) for pair in recording.readings]
        == [len(pair) for pair in recording.end_to_end]
        == [2, 2]
    )
    assert recording.input_sets == 2


def test_without_a_device_it_is_refused_with_the_reason() -> None:
    hidden = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("VK_", "ORT_WEBGPU"))
    }
    code = "from onnx_harness.providers.probe import probe, refusal; print(refusal(probe('webgpu')))"
    told = subprocess.run(
        [sys.executable, "-c", code], env=hidden, capture_output=True, text=True, check=True
    ).stdout
    assert "no GPU with a Vulkan driver" in told
    assert "Mend: install libvulkan1" in told


def test_the_library_is_registered_once_and_the_process_ends_well() -> None:
    code = (
        "from onnx_harness.providers import get; from onnx_harness.providers.probe import probe\n"
        "assert probe('webgpu').usable and probe('webgpu').usable; get('webgpu').load()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_device_without_a_half_type_is_told_from_one_that_lacks_a_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SwiftShader has no float16, and the CPU behind it takes IsInf alone in bfloat16."""
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    path = save(with_infinities_marked(), tmp_path / "m.onnx")
    none = halved(path, "fp16.mixed", "webgpu")
    assert none.status is Status.NOT_APPLICABLE
    assert "provider 'webgpu' refuses float16 in each of its 3 nodes: " in str(none.reason)
    plain = halved(path, "bf16.io32", "webgpu")
    assert plain.reason == "provider 'webgpu' has no Gemm in bfloat16", plain
    offer = "mend: `--variant bf16.mixed` keeps 2 of 3 nodes in float32: 'make_a', 'make_y'"
    assert (plain.status, plain.detail) == (Status.NOT_APPLICABLE, (offer,))
    some = halved(path, "bf16.mixed", "webgpu")
    assert some.status is Status.PASS, some
    assert any(note.startswith("keeps 2 of 3 nodes in float32") for note in some.notes)
