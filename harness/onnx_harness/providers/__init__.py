"""Execution providers: one file each, declared here, loaded when asked for.

Importing this package or a provider's file imports no onnxruntime.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from onnx_harness.errors import UsageError, did_you_mean
from onnx_harness.names.extensions import extensions, registered

ENTRY_POINTS = "onnx_harness.providers"


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something can't be used here.

    Attributes:
        reason: a clause that can follow a colon, without its full stop.
        mend: the command or the act that would mend it; None when nothing is known that would.
    """

    reason: str
    mend: str | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """The declaration in a provider's file, called ``PROVIDER``.

    Attributes:
        name: ours, as in ids: ``cuda``.
        ort_name: ONNX Runtime's: ``CUDAExecutionProvider``.
        extra: the extra of this package that brings it: ``cuda`` for ``pip install
            'onnx-harness[cuda]'``.
        summary: one line for listings.
        accuracy_options: provider options pinned when numbers are judged (TF32 off, deterministic
            algorithms).
        latency_options: provider options pinned when time is judged.
        fallback: ONNX Runtime names listed behind it, in order.
        min_share: of the nodes that aren't allowed on the CPU, the share that it must own, in [0,
            1].
        cpu_ops: op types of the standard domain that ONNX Runtime puts on the CPU on purpose (shape
            arithmetic).
        thread_option: the provider option that takes the number of threads, where the session's own
            doesn't reach.
        environment: variables that must be set before the process opens its first session.
        device_bound: timed outputs may stay in device memory because a run waits for the device
            (CUDA, TensorRT).
        device: ONNX Runtime's name of the device whose memory timed inputs lie in: ``cuda``;
            ``cpu`` for what has none of its own.
        compiles: it makes one node of all that it takes in, and doesn't tell what computes in
            there.
        native_fp16: FP16 kernels compute in FP16 here; False where ONNX Runtime surrounds FP32
            kernels with Casts.
        noise_factor: how many times the noise that ONNX Runtime's own CPU kernels make is noise
            here, where kernels sum in other orders.
        load: run once per process, before the first session (registering a plugin library,
            preloading shared libraries). Must not raise for what ``diagnose`` explains better.
        diagnose: after ``load`` and without opening a session, why the provider can't be used, or
            None.
        describe: where ``diagnose`` found nothing, the name of the device that sessions run on;
            None where that is the processor, or can't be told. Latencies on two devices aren't
            compared.
    """

    name: str
    ort_name: str
    extra: str
    summary: str
    accuracy_options: Mapping[str, str] = field(default_factory=dict)
    latency_options: Mapping[str, str] = field(default_factory=dict)
    fallback: tuple[str, ...] = ("CPUExecutionProvider",)
    min_share: float = 1.0
    cpu_ops: frozenset[str] = frozenset()
    thread_option: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    device_bound: bool = False
    device: str = "cpu"
    compiles: bool = False
    native_fp16: bool = False
    noise_factor: float = 1.0
    load: Callable[[], None] = _nothing
    diagnose: Callable[[], Problem | None] = _nothing
    describe: Callable[[], str | None] = _nothing


@cache
def registry() -> Mapping[str, Provider]:
    """Return all providers by name.

    Those of other packages (entry point ``onnx_harness.providers``) are included, unless they can't
    be loaded, or claim another provider's name: see :func:`left_out`.
    """
    providers, _ = _registered()
    return providers


def left_out() -> tuple[str, ...]:
    """Return a sentence for each provider of another package that can't be used, and why."""
    _, problems = _registered()
    return problems


@cache
def _registered() -> tuple[Mapping[str, Provider], tuple[str, ...]]:
    ours: dict[str, Provider] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for (name,), provider in _declared(module):
            ours[name] = provider
    return registered(ours, extensions(ENTRY_POINTS), _declared, "provider")


def _declared(module: object) -> Iterable[tuple[tuple[str], Provider]]:
    """Give the provider that a module declares with its name."""
    provider = getattr(module, "PROVIDER", None)
    if not isinstance(provider, Provider):
        return []
    return [((provider.name,), provider)]


def get(name: str) -> Provider:
    """Return the provider called ``name``.

    Raises:
        UsageError: there is none.
    """
    provider = registry().get(name)
    if provider is None:
        words = (
            f"there is no execution provider '{name}'.",
            did_you_mean(name, registry()),
            *left_out(),
        )
        raise UsageError(" ".join(words))
    return provider
