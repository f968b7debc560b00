"""Intel's OpenVINO behind ONNX Runtime, on its CPU device."""

from __future__ import annotations

from onnx_harness.providers import Problem, Provider
from onnx_harness.providers.libraries import not_in_wheel, provider_library_failure
from onnx_harness.providers.placement import DEVICE_SHARE, SHAPE_OPS


def diagnose() -> Problem | None:
    """Return the problem that keeps OpenVINO from being used here, or None."""
    absent = not_in_wheel(PROVIDER)
    if absent is not None:
        return absent
    failure = provider_library_failure("openvino")
    if failure is None:
        return None
    # The wheel carries OpenVINO itself, so what is missing is a broken installation.
    return Problem(failure, "pip install --force-reinstall onnxruntime-openvino")


_OPTIONS = {
    "device_type": "CPU",
    # A processor with bfloat16 or AMX may compute in bfloat16 of its own accord, and FP32 is what
    # is judged. The same for timing: what is timed is what was judged.
    "precision": "FP32",
    # One inference at a time: more streams buy throughput with latency.
    "num_streams": "1",
}

PROVIDER = Provider(
    name="openvino",
    ort_name="OpenVINOExecutionProvider",
    extra="openvino",
    summary="OpenVINO on the CPU device",
    accuracy_options=_OPTIONS,
    latency_options=_OPTIONS,
    min_share=DEVICE_SHARE,
    cpu_ops=SHAPE_OPS,
    compiles=True,
    thread_option="num_of_threads",  # it has a pool of its own and ignores the session's
    # Its exponentials and error functions are approximations of its own: of 14 models of the public
    # zoo one (magika) moved 7.3 times as far as its noise on ONNX Runtime's kernels, the others 2.6
    # times at most.
    noise_factor=4.0,
    diagnose=diagnose,
)
