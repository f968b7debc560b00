"""NVIDIA GPUs through ONNX Runtime's CUDA provider."""

from __future__ import annotations

import contextlib
import ctypes
import io

from onnx_harness.providers import Problem, Provider
from onnx_harness.providers.libraries import (
    install_command,
    not_in_wheel,
    provider_library_failure,
)
from onnx_harness.providers.placement import DEVICE_SHARE, SHAPE_OPS

DRIVER_MEND = "install NVIDIA's driver, r580 or newer for CUDA 13"

# Of CUresult in cuda.h: CUDA_ERROR_NO_DEVICE, _SYSTEM_DRIVER_MISMATCH and _UNKNOWN.
_DRIVER_ERRORS = {
    100: "it sees no GPU",
    803: "it doesn't match the kernel's module",
    999: "it reports an unknown error",
}


def load() -> None:
    """Open the CUDA and cuDNN libraries of NVIDIA's wheels: the linker doesn't search there."""
    import onnxruntime as ort

    # It prints what it can't find; ``diagnose`` says that better.
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()


def diagnose() -> Problem | None:
    """Return the problem that keeps CUDA from being used here, or None."""
    absent = not_in_wheel(PROVIDER)
    if absent is not None:
        return absent
    failure = provider_library_failure("cuda")
    if failure is not None:
        return Problem(failure, mend(failure, install_command(PROVIDER)))
    return driver_problem()


def mend(failure: str, command: str) -> str:
    """Name the source of the library in ``failure``: the system for the driver, else wheels."""
    if "libcuda.so" in failure:
        return DRIVER_MEND
    return f"{command} (brings CUDA 13 and cuDNN 9; driver r580 or newer)"


def driver_problem() -> Problem | None:
    """Return the reason why the driver has no GPU that this ONNX Runtime can use, or None."""
    import onnxruntime as ort

    # Provider libraries link to it: it has just been found.
    driver = ctypes.CDLL("libcuda.so.1")
    version = ctypes.c_int()
    # It works before cuInit, and gives 1000 x major + 10 x minor.
    driver.cuDriverGetVersion(ctypes.byref(version))
    major, minor = divmod(version.value, 1000)
    built_for = str(getattr(ort, "cuda_version", "") or "")
    if built_for and major < int(built_for.split(".")[0]):
        return Problem(
            f"the driver supports CUDA {major}.{minor // 10}, and this onnxruntime-gpu is built "
            f"for CUDA {built_for}",
            DRIVER_MEND,
        )
    code = driver.cuInit(0)
    if code == 0:
        return None
    reason = _DRIVER_ERRORS.get(code, "cuInit failed")
    return Problem(
        f"the CUDA driver doesn't start: {reason} (error {code})",
        "run where `nvidia-smi` lists a GPU (in a container: with the NVIDIA runtime and a GPU "
        "passed in)",
    )


def device_name() -> str | None:
    """Return the name of the driver's first GPU, the one that sessions run on.

    Such as ``NVIDIA H100 80GB HBM3``. The driver must have started.
    """
    driver = ctypes.CDLL("libcuda.so.1")
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    if driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    if driver.cuDeviceGetName(name, len(name), device) != 0:
        return None
    return name.value.decode("utf-8", "replace")


PROVIDER = Provider(
    name="cuda",
    ort_name="CUDAExecutionProvider",
    extra="cuda",
    summary="NVIDIA GPUs, CUDA kernels and cuDNN",
    accuracy_options={
        # TensorFloat-32 keeps 10 bits of the mantissa and is on by default: an FP32 comparison
        # would not be one.
        "use_tf32": "0",
        # The default, EXHAUSTIVE, times the algorithms and may pick another one in each session.
        "cudnn_conv_algo_search": "HEURISTIC",
    },
    latency_options={
        "use_tf32": "0",  # the arithmetic that was judged is what is timed
        # Here the default: the fastest algorithm is what somebody who ships the model gets.
        "cudnn_conv_algo_search": "EXHAUSTIVE",
    },
    min_share=DEVICE_SHARE,
    cpu_ops=SHAPE_OPS,
    device_bound=True,
    device="cuda",
    native_fp16=True,
    # On an H100 twenty models of the public zoo moved 3.2 times as far as their noise at most.
    noise_factor=4.0,
    load=load,
    diagnose=diagnose,
    describe=device_name,
)
