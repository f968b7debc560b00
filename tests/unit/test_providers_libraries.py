"""Providers whose libraries or drivers are missing, on a machine that has none of them."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest

from onnx_harness.providers import Problem, cuda, get, libraries, openvino, tensorrt, webgpu
from onnx_harness.providers.libraries import (
    distribution,
    not_in_wheel,
    open_failure,
    preload,
    provider_library_failure,
)

NOT_FOUND = "libcublas.so.13: cannot open shared object file: No such file or directory"


class Driver:
    """A CUDA driver that answers as it's told."""

    def __init__(self, version: int = 13_000, code: int = 0, lost: str = "") -> None:
        self._version = version
        self._code = code
        self._lost = lost

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self._version
        return 0

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self._code

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        assert ordinal == 0
        device._obj.value = 7
        return int(self._lost == "device")

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        assert (size, device.value) == (256, 7)
        name.value = b"NVIDIA H100 80GB HBM3"
        return int(self._lost == "name")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let a driver be the machine's, and ONNX Runtime be built for a version of CUDA."""

    def installed(driver: Driver, built_for: str | None = "13.0") -> None:
        monkeypatch.setattr(ctypes, "CDLL", {"libcuda.so.1": driver}.__getitem__)
        monkeypatch.setattr(ort, "cuda_version", built_for, raising=False)

    return installed


@pytest.mark.parametrize("built_for", ["13.0", "12.8", "", None])
def test_a_driver_that_starts_is_no_problem(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch, built_for: str | None
) -> None:
    install(Driver(), built_for)
    assert cuda.driver_problem() is None
    assert cuda.device_name() == "NVIDIA H100 80GB HBM3"
    monkeypatch.delattr(ort, "cuda_version")  # as in the distribution without CUDA
    assert cuda.driver_problem() is None


def test_a_driver_that_is_older_than_the_wheel_is_named_with_both_versions(
    install: Callable[..., None],
) -> None:
    install(Driver(version=12_040), "13.1")
    assert cuda.driver_problem() == Problem(
        "the driver supports CUDA 12.4, and this onnxruntime-gpu is built for CUDA 13.1",
        cuda.DRIVER_MEND,
    )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (100, "it sees no GPU (error 100)"),
        (803, "it doesn't match the kernel's module (error 803)"),
        (999, "it reports an unknown error (error 999)"),
        (1, "cuInit failed (error 1)"),
    ],
)
def test_a_driver_that_does_not_start_says_why(
    install: Callable[..., None], code: int, words: str
) -> None:
    install(Driver(code=code))
    problem = cuda.driver_problem()
    assert problem is not None
    assert problem.reason == f"the CUDA driver doesn't start: {words}"
    assert str(problem.mend).startswith("run where `nvidia-smi` lists a GPU")


@pytest.mark.parametrize("lost", ["device", "name"])
def test_a_gpu_that_does_not_tell_its_name_has_none(
    install: Callable[..., None], lost: str
) -> None:
    install(Driver(lost=lost))
    assert cuda.device_name() is None


def test_cuda_is_diagnosed_wheel_first_then_library_then_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent, late = Problem("no wheel", "x"), Problem("no driver", "y")
    monkeypatch.setattr(cuda, "driver_problem", lambda: late)
    monkeypatch.setattr(cuda, "provider_library_failure", {"cuda": None}.__getitem__)
    monkeypatch.setattr(cuda, "not_in_wheel", lambda _: None)
    assert cuda.diagnose() is late
    monkeypatch.setattr(cuda, "provider_library_failure", {"cuda": NOT_FOUND}.__getitem__)
    assert cuda.diagnose() == Problem(
        NOT_FOUND,
        "pip install 'onnx-harness[cuda]' (brings CUDA 13 and cuDNN 9; driver r580 or newer)",
    )
    monkeypatch.setattr(
        cuda, "not_in_wheel", lambda provider: {"cuda": absent}[provider.name]
    )
    assert cuda.diagnose() is absent


def test_openvino_is_diagnosed_wheel_first_then_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = Problem("no wheel", "x")
    monkeypatch.setattr(openvino, "not_in_wheel", lambda _: None)
    monkeypatch.setattr(openvino, "provider_library_failure", {"openvino": None}.__getitem__)
    assert openvino.diagnose() is None
    monkeypatch.setattr(
        openvino, "provider_library_failure", {"openvino": "gone"}.__getitem__
    )
    mend = "pip install --force-reinstall onnxruntime-openvino"
    assert openvino.diagnose() == Problem("gone", mend)
    monkeypatch.setattr(
        openvino, "not_in_wheel", lambda provider: {"openvino": absent}[provider.name]
    )
    assert openvino.diagnose() is absent


def test_what_the_wheel_has_is_no_problem() -> None:
    assert not_in_wheel(get("cpu")) is None
    absent = not_in_wheel(get("cuda"))
    assert absent is not None
    assert "was built without CUDAExecutionProvider" in absent.reason
    assert "pip install 'onnx-harness[cuda]'" in str(absent.mend)


@pytest.mark.parametrize("name", ["onnxruntime-gpu", ""])
def test_the_distribution_is_named_with_its_version(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(ort, "package_name", name, raising=False)
    assert distribution() == f"{name or 'onnxruntime'} {ort.__version__}"


def test_a_library_is_opened_and_a_missing_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "libprovider.so"
    failure = open_failure(library)
    assert str(failure).startswith(
        "libprovider.so is not in the installed distribution of ONNX Runtime (onnxruntime "
    )
    library.write_text("no library")
    assert str(open_failure(library)).startswith("libprovider.so can't be loaded: ")

    def lacks(name: str) -> None:
        assert name == str(library)
        raise OSError(NOT_FOUND)

    monkeypatch.setattr(ctypes, "CDLL", lacks)
    assert open_failure(library) == (
        "libprovider.so needs libcublas.so.13, which is not on this machine"
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert open_failure(library) is None


def test_the_bridge_is_opened_before_the_provider_and_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "capi"
    folder.mkdir()
    bridge, library = (
        folder / f"libonnxruntime_providers_{stem}.so" for stem in ("shared", "cuda")
    )
    opened: list[tuple[object, ...]] = []
    monkeypatch.setattr(ort, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(ctypes, "CDLL", lambda *words: opened.append(words))
    assert str(provider_library_failure("cuda")).startswith(f"{library.name} is not in the")
    library.touch()
    assert provider_library_failure("cuda") is None
    assert opened[1:] == [(str(bridge), ctypes.RTLD_GLOBAL), (str(library),)]

    def refuses(*_: object) -> None:
        raise OSError("broken")

    monkeypatch.setattr(ctypes, "CDLL", refuses)
    assert str(provider_library_failure("cuda")).startswith(f"{bridge.name} is not in the")


def test_libraries_of_a_wheel_are_opened_in_order_and_missing_ones_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("second.so", "broken.so", "first.so"):
        (tmp_path / name).touch()
    opened: list[str] = []

    def opens(path: str, mode: int) -> None:
        assert mode == ctypes.RTLD_GLOBAL
        if path.endswith("broken.so"):
            raise OSError("broken")
        opened.append(Path(path).name)

    monkeypatch.setattr(ctypes, "CDLL", opens)
    wheel = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    specs = {"wheel": wheel, "flat": SimpleNamespace(submodule_search_locations=None)}
    monkeypatch.setattr(libraries, "find_spec", specs.get)
    for package in ("nothing", "flat", "wheel"):
        preload(package, ("first.so", "missing.so", "broken.so", "second.so"))
    assert opened == ["first.so", "second.so"]


def test_tensorrt_s_libraries_are_opened_after_cuda_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(cuda, "load", lambda: opened.append("cuda"))
    monkeypatch.setattr(tensorrt, "preload", lambda *words: opened.append(words))
    tensorrt.load()
    names = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
    assert opened == ["cuda", ("tensorrt_libs", names)]


@pytest.mark.parametrize(
    ("failures", "mend"),
    [
        ({"cuda": "needs libcuda.so.1"}, cuda.DRIVER_MEND),
        (
            {"cuda": "needs libcudnn.so.9", "tensorrt": "needs libnvinfer.so.10"},
            "pip install 'onnx-harness[tensorrt]' (brings CUDA 13 and cuDNN 9; driver r580 or "
            "newer)",
        ),
        (
            {"tensorrt": "needs libnvinfer.so.10"},
            "pip install 'onnx-harness[tensorrt]' (brings TensorRT 10)",
        ),
    ],
)
def test_tensorrt_names_what_brings_the_missing_library(
    monkeypatch: pytest.MonkeyPatch, failures: dict[str, str], mend: str
) -> None:
    absent, late = Problem("no wheel", "x"), Problem("no driver", "y")
    monkeypatch.setattr(
        tensorrt, "not_in_wheel", lambda provider: {"tensorrt": None}[provider.name]
    )
    monkeypatch.setattr(tensorrt, "provider_library_failure", failures.get)
    assert tensorrt.diagnose() == Problem(next(iter(failures.values())), mend)
    monkeypatch.setattr(tensorrt, "provider_library_failure", lambda _: None)
    monkeypatch.setattr(cuda, "driver_problem", lambda: late)
    assert tensorrt.diagnose() is late
    monkeypatch.setattr(tensorrt, "not_in_wheel", lambda _: absent)
    assert tensorrt.diagnose() is absent


def test_webgpu_needs_its_package_and_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    package = {"onnxruntime_ep_webgpu": object()}
    devices = [SimpleNamespace(ep_name="CPUExecutionProvider")]
    monkeypatch.setattr(ort, "get_ep_devices", lambda: devices)
    monkeypatch.setattr(webgpu, "find_spec", lambda _: None)
    mend = "pip install 'onnx-harness[webgpu]'"
    assert webgpu.diagnose() == Problem(
        "the plugin package onnxruntime-ep-webgpu isn't installed", mend
    )
    monkeypatch.setattr(webgpu, "find_spec", package.__getitem__)
    problem = webgpu.diagnose()
    assert problem is not None
    assert problem.reason == "its library found no GPU with a Vulkan driver"
    for name in (
        "libvulkan1",
        " VK_DRIVER_FILES ",
        " ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1",
    ):
        assert name in f"{problem.mend} "
    devices.append(SimpleNamespace(ep_name="WebGpuExecutionProvider"))
    assert webgpu.diagnose() is None


def test_webgpu_s_library_is_registered_once_and_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registered: list[object] = []

    def registers(*words: object) -> None:
        sys.stdout.write("found 1 adapter")
        registered.append(words)

    package = SimpleNamespace(get_library_path=lambda: "libwebgpu.so")
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_webgpu", package)
    monkeypatch.setattr(ort, "register_execution_provider_library", registers)
    load = webgpu.load.__wrapped__
    monkeypatch.setattr(webgpu, "find_spec", {"onnxruntime_ep_webgpu": None}.__getitem__)
    load()
    assert registered == []
    monkeypatch.setattr(webgpu, "find_spec", {"onnxruntime_ep_webgpu": object()}.__getitem__)
    load()
    assert registered == [("webgpu", "libwebgpu.so")]
    assert capsys.readouterr().out == ""


def test_cuda_s_libraries_are_opened_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ort, "preload_dlls", lambda: sys.stdout.write("no CUDA"))
    cuda.load()
    assert capsys.readouterr().out == ""
