"""Declarations of providers, and what a session on one is held to.

On the CPU provider, with the CPU distribution.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

from onnx_harness.errors import ProviderError, UsageError
from onnx_harness.providers import Provider, _declared, get, registry
from onnx_harness.providers.binding import bound_runner, has_transfers
from onnx_harness.providers.placement import placement
from onnx_harness.providers.sessions import (
    LEVELS,
    THREADS,
    Purpose,
    open_session,
    prepare,
    provider_options,
)
from tests.providers.small_models import Watched, build, cnn, with_determinant

CPU, CUDA = get("cpu"), get("cuda")
# Every distribution for the CPU has it, and it executes no operator of the standard.
AZURE = replace(CPU, name="azure", ort_name="AzureExecutionProvider")
IMAGE = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)


def test_the_five_providers_are_declared() -> None:
    assert {name: provider.ort_name for name, provider in registry().items()} == {
        "cpu": "CPUExecutionProvider",
        "cuda": "CUDAExecutionProvider",
        "openvino": "OpenVINOExecutionProvider",
        "tensorrt": "TensorrtExecutionProvider",
        "webgpu": "WebGpuExecutionProvider",
    }


def test_an_unknown_provider_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'cuda'"):
        get("cudda")


def test_a_module_without_a_declaration_declares_none() -> None:
    modules = (
        SimpleNamespace(),
        SimpleNamespace(PROVIDER="cpu"),
        SimpleNamespace(PROVIDER=CPU),
    )
    assert [list(_declared(module)) for module in modules] == [[], [], [(("cpu",), CPU)]]


def test_declarations_import_no_onnxruntime() -> None:
    code = (
        "import pkgutil, sys, importlib, onnx_harness.providers as rooms\n"
        "rooms.registry()\n"
        "for info in pkgutil.iter_modules(rooms.__path__): "
        "importlib.import_module(f'{rooms.__name__}.{info.name}')\n"
        "print([name for name in ('onnxruntime', 'onnx', 'numpy') if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert told.strip() == "[]"


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_fp32_is_never_tf32(name: str, purpose: Purpose) -> None:
    provider = get(name)
    switched_off = (
        provider_options(provider, purpose).get("use_tf32") == "0"
        or provider.environment.get("NVIDIA_TF32_OVERRIDE") == "0"
    )
    assert switched_off


def test_tensorrt_leaves_the_rest_to_cuda() -> None:
    assert get("tensorrt").fallback[0] == CUDA.ort_name


@pytest.mark.parametrize("level", LEVELS)
def test_every_optimization_level_opens(level: str) -> None:
    session = open_session(cnn(), CPU, purpose=Purpose.ACCURACY, level=level)
    chosen = session.get_session_options().graph_optimization_level
    assert chosen == getattr(ort.GraphOptimizationLevel, LEVELS[level])


@pytest.mark.parametrize("asked", [False, True])
def test_a_session_gets_what_was_asked_for_and_else_the_defaults(
    asked: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[tuple[Any, ...]] = []

    def opens(model: Any, options: Any, **others: Any) -> SimpleNamespace:
        opened.append((model, options, others))
        return SimpleNamespace(get_providers=lambda: [CPU.ort_name])

    monkeypatch.setattr(ort, "InferenceSession", opens)
    monkeypatch.delenv(THREADS, raising=False)
    more: dict[str, Any] = {
        "level": "basic",
        "threads": 3,
        "allow_spinning": False,
        "record_placement": False,
        "external_data": tmp_path,
        "profile": tmp_path / "profile",
        "config": {"session.disable_prepacking": "1"},
        "disabled": ["ConstantFolding"],
        "optimized": tmp_path / "optimized.onnx",
        "verbose": True,
    }
    fallen = replace(CPU, fallback=("OtherExecutionProvider",), accuracy_options={"a": "1"})
    open_session(tmp_path, fallen, purpose=Purpose.ACCURACY, **more if asked else {})
    [(model, options, others)] = opened
    assert model == str(tmp_path)
    level = ort.GraphOptimizationLevel
    assert options.graph_optimization_level == (
        level.ORT_ENABLE_BASIC if asked else level.ORT_ENABLE_ALL
    )
    assert (options.log_severity_level, options.intra_op_num_threads) == (
        (1, 3) if asked else (4, 0)
    )
    assert options.inter_op_num_threads == 1
    assert options.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    entry = options.get_session_config_entry
    assert entry("session.intra_op.allow_spinning") == str(int(not asked))
    assert entry("session.record_ep_graph_assignment_info") == str(int(not asked))
    assert options.enable_profiling is asked
    if asked:
        folder = "session.model_external_initializers_file_folder_path"
        assert (entry(folder), entry("session.disable_prepacking")) == (str(tmp_path), "1")
        assert options.profile_file_prefix == str(more["profile"])
    assert options.optimized_model_filepath == (str(more["optimized"]) if asked else "")
    assert others == {
        "providers": [(CPU.ort_name, {"a": "1"}), "OtherExecutionProvider"],
        "enable_fallback": 0,
        "disabled_optimizers": {"ConstantFolding"} if asked else set(),
    }


def test_an_unknown_level_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="Did you mean 'basic'"):
        open_session(cnn(), CPU, purpose=Purpose.ACCURACY, level="basics")


def test_a_file_opens_as_bytes_do(tmp_path: Path) -> None:
    file = tmp_path / "cnn.onnx"
    file.write_bytes(cnn())
    feeds = {"image": IMAGE}
    from_file, from_bytes = (
        open_session(model, CPU, purpose=Purpose.LATENCY).run(None, feeds)[0]
        for model in (file, cnn())
    )
    np.testing.assert_array_equal(from_file, from_bytes)


def test_threads_and_spinning_are_what_was_asked() -> None:
    session = open_session(
        cnn(), CPU, purpose=Purpose.LATENCY, threads=1, allow_spinning=False
    )
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_threads_reach_a_provider_with_a_pool_of_its_own() -> None:
    openvino = get("openvino")
    assert provider_options(openvino, Purpose.LATENCY, 2)["num_of_threads"] == "2"
    assert "num_of_threads" not in provider_options(openvino, Purpose.LATENCY)


def test_a_provider_that_the_wheel_lacks_is_refused() -> None:
    with pytest.raises(
        ProviderError,
        match=r"built without CUDAExecutionProvider.*Mend: .*onnx-harness\[cuda\]",
    ):
        open_session(cnn(), CUDA, purpose=Purpose.ACCURACY)


def test_a_session_that_quietly_opens_elsewhere_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What ONNX Runtime does when a provider's library fails to load: the wheel has it, the session
    # doesn't.
    monkeypatch.setattr(
        ort,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    quiet = replace(CUDA, name="quiet", load=lambda: None, diagnose=lambda: None)
    with (
        pytest.warns(UserWarning, match="not in available provider names"),
        pytest.raises(
            ProviderError,
            match="'quiet' was asked for, but ONNX Runtime would run on CPUExecutionProvider",
        ),
    ):
        open_session(cnn(), quiet, purpose=Purpose.ACCURACY)


def test_a_provider_that_comes_second_in_a_session_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        ort.InferenceSession, "get_providers", lambda _: [CPU.ort_name, AZURE.ort_name]
    )
    with pytest.raises(
        ProviderError,
        match="'azure' was asked for, but ONNX Runtime would run on CPUExecutionProvider",
    ):
        open_session(cnn(), AZURE, purpose=Purpose.ACCURACY)


@pytest.mark.parametrize(
    ("purpose", "deterministic"), [(Purpose.ACCURACY, True), (Purpose.LATENCY, False)]
)
def test_kernels_are_deterministic_where_numbers_are_judged(
    purpose: Purpose, deterministic: bool
) -> None:
    options = open_session(cnn(), CPU, purpose=purpose).get_session_options()
    assert options.use_deterministic_compute is deterministic


def test_a_session_that_fails_to_open_is_not_tried_on_another_provider(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    def fail(_: object, providers: list[tuple[str, object]], *_options: object) -> None:
        tried.append(providers[0][0])
        raise RuntimeError("the device is lost")

    monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", fail)
    monkeypatch.setattr(
        ort.InferenceSession, "_fallback_providers", [(CPU.ort_name, {})], raising=False
    )
    with pytest.raises(RuntimeError, match="the device is lost"):
        open_session(cnn(), AZURE, purpose=Purpose.ACCURACY)
    assert tried == [AZURE.ort_name]


def test_a_run_that_fails_on_a_provider_is_not_repeated_on_another() -> None:
    class Failing(Watched):
        def run(self, *_: object) -> None:
            raise EPFail("the device is lost")

    session = open_session(cnn(), AZURE, purpose=Purpose.ACCURACY)
    session._sess = Failing(session._sess)
    with pytest.raises(EPFail, match="the device is lost"):
        session.run(None, {"image": IMAGE})


def test_a_provider_is_loaded_once_per_process_and_its_variables_are_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[str] = []
    monkeypatch.setenv("ONNX_HARNESS_TEST", "from the shell")
    provider = Provider(
        name="counted",
        ort_name=CPU.ort_name,
        extra="cpu",
        summary="",
        environment={"ONNX_HARNESS_TEST": "pinned"},
        load=lambda: loaded.append("counted"),
    )
    prepare(provider)
    prepare(provider)
    assert (loaded, os.environ["ONNX_HARNESS_TEST"]) == (["counted"], "pinned")


def test_without_a_record_there_is_no_placement() -> None:
    session = open_session(cnn(), CPU, purpose=Purpose.LATENCY, record_placement=False)
    with pytest.raises(ProviderError, match="can't be proven"):
        placement(session, CPU)


def test_on_the_cpu_every_node_is_on_the_cpu() -> None:
    found = placement(open_session(with_determinant(), CPU, purpose=Purpose.ACCURACY), CPU)
    assert (found.nodes, found.off_provider_ops, found.share) == (
        {"CPUExecutionProvider": 3},
        {},
        1.0,
    )


def test_a_graph_that_folds_away_is_nobodys_failure() -> None:
    from onnx import helper

    nodes = [helper.make_node("Add", ["one", "one"], ["two"])]
    model = build(nodes, {}, ["two"], {"one": np.ones(2, np.float32)})
    found = placement(open_session(model, CPU, purpose=Purpose.ACCURACY), CPU)
    assert (found.nodes, found.share) == ({}, 1.0)


def test_on_the_cpu_a_plain_run_is_timed() -> None:
    session = Watched(open_session(cnn(), CPU, purpose=Purpose.LATENCY))
    bound_runner(session, CPU, {"image": IMAGE})()
    assert session.bindings == []
    with pytest.raises(Exception, match=r"[Rr]equired inputs"):
        bound_runner(session, CPU, {})()


@pytest.mark.parametrize("device_bound", [True, False])
def test_a_bound_run_computes_what_a_plain_one_does(device_bound: bool) -> None:
    # Any device but the CPU's takes the way of devices; the CPU stands in for one.
    session = Watched(open_session(cnn(), CPU, purpose=Purpose.LATENCY))
    device = replace(
        CPU,
        name="device",
        ort_name="AnyExecutionProvider",
        device_bound=device_bound,
        device="any",
    )
    bound_runner(session, device, {"image": IMAGE})()
    (binding,) = session.bindings
    np.testing.assert_array_equal(
        binding.copy_outputs_to_cpu()[0], session.run(None, {"image": IMAGE})[0]
    )


DEVICE = SimpleNamespace(name="Device", mem_type=ort.OrtMemType.DEFAULT)
PINNED = SimpleNamespace(name="DevicePinned", mem_type=ort.OrtMemType.CPU_OUTPUT)
HOST = SimpleNamespace(name="Cpu", mem_type=ort.OrtMemType.DEFAULT)


def bindings(
    monkeypatch: pytest.MonkeyPatch, provider: str, made_on: SimpleNamespace
) -> dict[str, str]:
    """Where a run's input and output are bound, when ONNX Runtime says that its output is made
    ``made_on``.
    """
    bound: dict[str, str] = {}

    class Binding:
        def bind_cpu_input(self, name: str, _: object) -> None:
            bound[name] = "cpu"

        def bind_ortvalue_input(self, name: str, value: str) -> None:
            bound[name] = value

        def bind_output(self, name: str, device: str) -> None:
            bound[name] = device

    session = Watched(open_session(cnn(), CPU, purpose=Purpose.LATENCY))
    monkeypatch.setattr(session, "io_binding", Binding)
    monkeypatch.setattr(session, "get_input_memory_infos", lambda: [DEVICE], raising=False)
    monkeypatch.setattr(session, "get_output_memory_infos", lambda: [made_on], raising=False)
    monkeypatch.setattr(
        ort.OrtValue, "ortvalue_from_numpy", lambda _array, device, index: [device][index]
    )
    bound_runner(session, get(provider), {"image": IMAGE})
    return bound


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [("cuda", "cuda", "cuda"), ("tensorrt", "cuda", "cuda"), ("webgpu", "webgpu", "cpu")],
)
def test_outputs_stay_on_the_device_only_where_a_run_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, name: str, inputs: str, outputs: str
) -> None:
    assert bindings(monkeypatch, name, DEVICE) == {"image": inputs, "scores": outputs}


@pytest.mark.parametrize("made_on", [HOST, PINNED])
def test_outputs_that_are_made_in_host_memory_stay_there(
    monkeypatch: pytest.MonkeyPatch, made_on: SimpleNamespace
) -> None:
    assert bindings(monkeypatch, "cuda", made_on) == {"image": "cuda", "scores": "cpu"}


def test_text_stays_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    text = SimpleNamespace(name="scores", type="tensor(string)")
    monkeypatch.setattr(Watched, "get_outputs", lambda _: [text], raising=False)
    assert bindings(monkeypatch, "cuda", DEVICE) == {"image": "cuda", "scores": "cpu"}


def test_a_provider_without_a_memory_of_its_own_is_run_plainly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert bindings(monkeypatch, "openvino", HOST) == {}
    session = open_session(cnn(), CPU, purpose=Purpose.LATENCY)
    having = [
        name
        for name in ("cpu", "openvino", "webgpu", "cuda", "tensorrt")
        if has_transfers(session, get(name))
    ]
    assert having == ["webgpu", "cuda", "tensorrt"]


def test_outputs_that_arent_tensors_are_never_bound() -> None:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x", "x"], ["both"])],
        "sequence",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_sequence_value_info("both", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    session = Watched(open_session(model, CPU, purpose=Purpose.LATENCY))
    bound_runner(session, get("webgpu"), {"x": np.ones(2, np.float32)})()
    assert session.bindings == []
