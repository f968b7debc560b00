"""WebGPU behind ONNX Runtime, from its plugin library: GPUs of any maker, by way of Vulkan."""

from __future__ import annotations

import contextlib
import io
from functools import cache
from importlib.util import find_spec

from onnx_harness.providers import Problem, Provider
from onnx_harness.providers.libraries import install_command
from onnx_harness.providers.placement import DEVICE_SHARE, SHAPE_OPS

_PACKAGE = "onnxruntime_ep_webgpu"


@cache
def load() -> None:
    """Register the plugin library, once: a second time aborts the process at its exit."""
    import onnxruntime as ort

    if find_spec(_PACKAGE) is None:
        return
    import onnxruntime_ep_webgpu

    library = onnxruntime_ep_webgpu.get_library_path()
    with contextlib.redirect_stdout(io.StringIO()):
        ort.register_execution_provider_library(PROVIDER.name, library)


def diagnose() -> Problem | None:
    """Return the problem that keeps WebGPU from being used here, or None."""
    import onnxruntime as ort

    if find_spec(_PACKAGE) is None:
        return Problem(
            "the plugin package onnxruntime-ep-webgpu isn't installed",
            install_command(PROVIDER),
        )
    # The library registers without a word when it finds no adapter: it then offers no device.
    if not any(device.ep_name == PROVIDER.ort_name for device in ort.get_ep_devices()):
        return Problem(
            "its library found no GPU with a Vulkan driver",
            "install libvulkan1 and the GPU's Vulkan driver; for a software one such as "
            "SwiftShader set VK_DRIVER_FILES to its .json and "
            "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1",
        )
    return None


PROVIDER = Provider(
    name="webgpu",
    ort_name="WebGpuExecutionProvider",
    extra="webgpu",
    summary="WebGPU through Vulkan",
    min_share=DEVICE_SHARE,
    cpu_ops=SHAPE_OPS,
    device="webgpu",
    native_fp16=True,
    # Six models of the public zoo moved 1.6 times as far as their noise at most, on a device in
    # software; a GPU's own exponentials are coarser.
    noise_factor=4.0,
    load=load,
    diagnose=diagnose,
)
