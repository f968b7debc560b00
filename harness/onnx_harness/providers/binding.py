"""One timed run of a session: where inputs and outputs lie, and that it waits for the outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from onnx_harness.providers import Provider

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime as ort

# ONNX Runtime's name of host memory; what it pins for transfers has other names, and another memory
# type.
_HOST = "Cpu"


def plain_runner(
    session: ort.InferenceSession, feeds: Mapping[str, np.ndarray[Any, Any]]
) -> Callable[[], None]:
    """Return a function that runs the session once, from host memory to host memory."""
    feed = dict(feeds)

    def run_plainly() -> None:
        session.run(None, feed)  # returns arrays in host memory, whatever the provider

    return run_plainly


def has_transfers(session: ort.InferenceSession, provider: Provider) -> bool:
    """Tell if a run can be timed without its transfers.

    The provider has a memory of its own, and all inputs and outputs are tensors.
    """
    if provider.device == "cpu":
        return False
    values = [*session.get_inputs(), *session.get_outputs()]
    return all(value.type.startswith("tensor(") for value in values)


def bound_runner(
    session: ort.InferenceSession,
    provider: Provider,
    feeds: Mapping[str, np.ndarray[Any, Any]],
) -> Callable[[], None]:
    """Return the function that latency times: one run on ``feeds``, until the outputs exist.

    Where the provider has a memory of its own, the inputs lie in it beforehand, as far as ONNX
    Runtime's placement lets the nodes that take them read them there. The outputs stay there if
    they are made there and the provider's runs wait for the device. Elsewhere a run may return
    before the device has finished (measured on WebGPU: 0.016 ms for a run of 105 ms), so the
    outputs are bound to host memory: reading them back is part of the time, and is what makes it
    true. Without such a memory it's a plain run.
    """
    if not has_transfers(session, provider):
        return plain_runner(session, feeds)
    binding = session.io_binding()
    input_memory = session.get_input_memory_infos()
    for value, memory in zip(session.get_inputs(), input_memory, strict=True):
        if value.name not in feeds:
            continue
        array = _contiguous(feeds[value.name])
        if _may_lie_on_device(value, memory):
            binding.bind_ortvalue_input(value.name, _device_value(provider, array))
        else:
            binding.bind_cpu_input(value.name, array)
    output_memory = session.get_output_memory_infos()
    for value, memory in zip(session.get_outputs(), output_memory, strict=True):
        stays = provider.device_bound and _may_lie_on_device(value, memory)
        binding.bind_output(value.name, provider.device if stays else "cpu")

    def run_bound() -> None:
        # Waits for the device at its end, unless a run option forbids it: none is given.
        session.run_with_iobinding(binding)

    return run_bound


def _may_lie_on_device(value: Any, memory: Any) -> bool:
    import onnxruntime as ort

    if value.type == "tensor(string)":
        return False
    return bool(memory.name != _HOST and memory.mem_type == ort.OrtMemType.DEFAULT)


def _device_value(provider: Provider, array: np.ndarray[Any, Any]) -> ort.OrtValue:
    import onnxruntime as ort

    return ort.OrtValue.ortvalue_from_numpy(array, provider.device, 0)


def _contiguous(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    # Not ascontiguousarray: it makes a scalar one-dimensional.
    return np.require(array, requirements="C")
