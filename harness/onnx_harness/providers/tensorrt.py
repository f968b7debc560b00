"""NVIDIA's TensorRT behind ONNX Runtime: engines for subgraphs, CUDA kernels for other nodes."""

from __future__ import annotations

from onnx_harness.providers import Problem, Provider, cuda
from onnx_harness.providers.libraries import (
    install_command,
    not_in_wheel,
    preload,
    provider_library_failure,
)
from onnx_harness.providers.placement import DEVICE_SHARE, SHAPE_OPS


def load() -> None:
    """Open TensorRT's libraries from its wheel: ONNX Runtime preloads only CUDA and cuDNN."""
    cuda.load()
    names = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
    preload("tensorrt_libs", names)


def diagnose() -> Problem | None:
    """Return the problem that keeps TensorRT from being used here, or None."""
    absent = not_in_wheel(PROVIDER)
    if absent is not None:
        return absent
    # CUDA first: TensorRT's provider library needs all that CUDA's does, and hands its leftovers to
    # it.
    for stem in ("cuda", "tensorrt"):
        failure = provider_library_failure(stem)
        if failure is not None:
            command = install_command(PROVIDER)
            if "libnv" in failure:
                return Problem(failure, f"{command} (brings TensorRT 10)")
            return Problem(failure, cuda.mend(failure, command))
    return cuda.driver_problem()


# Booleans are True and False: TensorRT's parser rejects 1 and 0, which CUDA's takes.
_OPTIONS = {
    # FP16 is judged as a model that holds FP16, not as a switch that lets TensorRT choose layer by
    # layer.
    "trt_fp16_enable": "False",
    "trt_bf16_enable": "False",
    "trt_int8_enable": "False",
    # A cache can give the engine of one model to another of the same structure, and a cached engine
    # makes the session's creation look free.
    "trt_engine_cache_enable": "False",
    # Only speeds up building; off, so that no run depends on an earlier one.
    "trt_timing_cache_enable": "False",
}

PROVIDER = Provider(
    name="tensorrt",
    ort_name="TensorrtExecutionProvider",
    extra="tensorrt",
    summary="NVIDIA GPUs, TensorRT engines",
    accuracy_options=_OPTIONS,
    latency_options=_OPTIONS,
    # What TensorRT can't take goes to CUDA, not straight to the CPU.
    fallback=("CUDAExecutionProvider", "CPUExecutionProvider"),
    min_share=DEVICE_SHARE,
    cpu_ops=SHAPE_OPS,
    # TensorFloat-32 is on by default and has no option here; the libraries read this variable when
    # they start.
    environment={"NVIDIA_TF32_OVERRIDE": "0"},
    device_bound=True,
    device="cuda",
    compiles=True,
    native_fp16=True,
    noise_factor=4.0,  # as for WebGPU: not measured, no such device was at hand
    load=load,
    diagnose=diagnose,
    describe=cuda.device_name,
)
