"""CUDA on a real GPU: run by `make test-cuda`, on a machine that has one. Needs .venv-cuda."""

import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper

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
from onnx_harness.providers.sessions import Purpose, open_session, provider_options
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.settings import Settings
from tests.providers.small_models import Watched, build, cnn, with_determinant

pytestmark = pytest.mark.providers

CUDA, CPU = get("cuda"), get("cpu")
IMAGE = np.random.default_rng(1).normal(size=(1, 3, 32, 32)).astype(np.float32)


def products(size: int, count: int = 1) -> bytes:
    """A chain of square matrix products."""
    weights = np.random.default_rng(0).normal(0, size**-0.5, (size, size)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", [f"x{index}" if index else "x", "w"], [f"x{index + 1}"])
        for index in range(count)
    ]
    return build(nodes, {"x": [size, size]}, [f"x{count}"], {"w": weights})


def test_it_is_usable_here() -> None:
    found = probe("cuda")
    assert (found.usable, found.reason) == (True, None)


@pytest.mark.parametrize("purpose", Purpose)
def test_the_pinned_options_are_the_session_s(purpose: Purpose) -> None:
    session = open_session(cnn(), CUDA, purpose=purpose)
    told = session.get_provider_options()["CUDAExecutionProvider"]
    wanted = provider_options(CUDA, purpose)
    assert {name: told[name] for name in wanted} == wanted


def test_a_cnn_lies_on_the_device_and_its_shape_arithmetic_may_lie_on_the_cpu() -> None:
    session = open_session(cnn(layers=2), CUDA, purpose=Purpose.ACCURACY)
    found = placement(session, CUDA)
    assert (found.requested, found.share, found.off_provider_ops) == (
        "CUDAExecutionProvider",
        1.0,
        {},
    )
    # Two Conv, two Relu and the pooling at least.
    assert found.nodes["CUDAExecutionProvider"] >= 5
    assert shortfall(found, CUDA) is None
    reference = open_session(cnn(layers=2), CPU, purpose=Purpose.ACCURACY, level="disable")
    expected = reference.run(None, {"image": IMAGE})[0]
    np.testing.assert_allclose(
        session.run(None, {"image": IMAGE})[0], expected, rtol=1e-4, atol=1e-5
    )


def test_what_is_judged_and_timed_is_float32_and_not_tensorfloat32() -> None:
    values = np.random.default_rng(1).normal(size=(1024, 1024)).astype(np.float32)
    model = products(1024)
    weights = np.random.default_rng(0).normal(0, 1024**-0.5, (1024, 1024)).astype(np.float32)
    exact = values.astype(np.float64) @ weights.astype(np.float64)

    def error(session: ort.InferenceSession) -> float:
        return float(np.abs(session.run(None, {"x": values})[0] - exact).max())

    for purpose in Purpose:
        assert error(open_session(model, CUDA, purpose=purpose)) < 1e-4
    default = ort.InferenceSession(model, providers=["CUDAExecutionProvider"])
    assert error(default) > 1e-4, (
        "TensorFloat-32 is no longer what this GPU does by default: nothing is proved"
    )


def judged(
    folder: Path, model: bytes, *, variant: str = "original", asks: str = ""
) -> CellResult:
    (folder / "model.onnx").write_bytes(model)
    (folder / "model.model.toml").write_text(asks)
    cell = Cell(read(folder / "model.model.toml"), parse_variant(variant), "cuda")
    return judge(Task(cell, folder / "model.onnx", Settings(input_sets=1))).result


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def test_an_operator_it_lacks_shows_in_the_placement(tmp_path: Path) -> None:
    session = open_session(with_determinant(), CUDA, purpose=Purpose.ACCURACY)
    found = placement(session, CUDA)
    assert found.off_provider_ops == {"Det": 1}
    assert shortfall(found, CUDA) is not None
    fails = judged(tmp_path, with_determinant())
    assert (fails.status, fails.stage) == (Status.FAIL, Stage.PLACEMENT)


def test_copies_between_memories_are_counted_and_a_card_can_bound_them(
    tmp_path: Path,
) -> None:
    allowed = '[placement]\nallowed_cpu_ops = ["Det"]\n'
    found = judged(tmp_path, with_determinant(), asks=f"{allowed}max_memcpy = 2\n")
    assert (found.status, found.reason) == (Status.PASS, None)
    record = found.placement
    assert record is not None
    assert (record.memcpy, record.share) == (2, 1.0)
    assert record.executed == {"CPUExecutionProvider": 1, "CUDAExecutionProvider": 2}
    too_many = judged(tmp_path, with_determinant(), asks=f"{allowed}max_memcpy = 1\n")
    assert (too_many.status, too_many.stage) == (Status.FAIL, Stage.PLACEMENT)


def test_float16_is_computed_in_float16(tmp_path: Path) -> None:
    found = judged(tmp_path, cnn(channels=8, layers=3), variant="fp16.io32")
    assert (found.status, found.reason) == (Status.PASS, None)
    assert found.placement is not None
    assert found.placement.precision == "float16"


def test_a_record_that_hides_what_ran_on_the_cpu_is_contradicted_by_the_profile(
    tmp_path: Path,
) -> None:
    session = open_session(
        with_determinant(), CUDA, purpose=Purpose.ACCURACY, profile=tmp_path / "profile"
    )
    assigned = assignments(session, CUDA)
    matrices = np.random.default_rng(1).normal(size=(2, 2, 3, 3)).astype(np.float32)
    session.run(None, {"a": matrices[0], "b": matrices[1]})
    profile = read_profile(Path(session.end_profiling()), CUDA)
    assert contradiction(assigned, profile, CUDA) is None
    hidden = assigned.copy()
    hidden["CUDAExecutionProvider", "Det"] = hidden.pop(("CPUExecutionProvider", "Det"))
    assert contradiction(hidden, profile, CUDA) is not None


def best_of_five(target: object) -> float:
    assert callable(target)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        target()
        times.append(time.perf_counter() - start)
    return min(times)


def test_a_timed_run_waits_for_the_device_and_leaves_its_outputs_there() -> None:
    size, count = 4096, 20
    model = products(size, count)
    session = Watched(open_session(model, CUDA, purpose=Purpose.LATENCY))
    feeds = {"x": np.ones((size, size), np.float32)}
    run = bound_runner(session, CUDA, feeds)
    run()
    (binding,) = session.bindings
    (output,) = binding.get_outputs()
    assert output.device_name() == "cuda"
    np.testing.assert_allclose(
        output.numpy(), session.run(None, feeds)[0], rtol=1e-3, atol=1e-3
    )
    # No GPU computes float32 at 1e15 operations a second: a run that didn't wait would seem to.
    assert best_of_five(run) > 2 * size**3 * count / 1e15
    assert best_of_five(run) > 0.4 * best_of_five(lambda: session.run(None, feeds))


def test_transfers_are_timed_apart() -> None:
    big = cnn(layers=1)
    sets = [
        {"image": np.zeros((8, 3, 1024, 1024), np.float32)},
        {"image": np.ones((8, 3, 1024, 1024), np.float32)},
    ]
    recording = collect(
        baseline=lambda: timed_session(big, CUDA, sets),
        variant=lambda: timed_session(big, CUDA, sets),
        planner=lambda _: Plan(pairs=2, iterations=4, warmup=5),
        seed=0,
    )
    assert (
        [len(pair) for pair in recording.readings]
        == [len(pair) for pair in recording.end_to_end]
        == [4, 4]
    )
    bound, whole = (
        min(min(one) for pair in taken for one in pair)
        for taken in (recording.readings, recording.end_to_end)
    )
    # 100 MB go to the device: at 50 GB/s that's 2 ms, and the convolution itself takes less.
    assert whole > bound + 1e6
