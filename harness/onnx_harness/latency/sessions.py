"""Fresh sessions for a measurement: two of them differ in nothing but what is measured."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx_harness.latency.plan import THREADS
from onnx_harness.latency.sides import Timed
from onnx_harness.providers import Provider
from onnx_harness.providers.binding import bound_runner, has_transfers, plain_runner
from onnx_harness.providers.running import feeds_for
from onnx_harness.providers.sessions import Purpose, open_session

SPINNING = False
"""Idle threads don't wait busily: on shared cores they would take time from other processes."""


def timed_session(
    model: Path | bytes,
    provider: Provider,
    sets: Sequence[Mapping[str, Any]],
    *,
    level: str = "all",
    threads: int = THREADS,
) -> Timed:
    """Open a session to be timed.

    Args:
        model: a file, or a serialized model without external data.
        provider: where it runs.
        sets: input values by name, of the dtypes that the original takes; runs take them in turn.
        level: ONNX Runtime's graph optimization level.
        threads: intra-op threads.
    """
    started = time.perf_counter()
    session = open_session(
        model,
        provider,
        purpose=Purpose.LATENCY,
        level=level,
        threads=threads,
        allow_spinning=SPINNING,
        record_placement=False,
    )
    session_s = time.perf_counter() - started
    feeds = [feeds_for(session, values) for values in sets]
    bound = [bound_runner(session, provider, values) for values in feeds]
    plain = []
    if has_transfers(session, provider):
        plain = [plain_runner(session, values) for values in feeds]
    return Timed(bound, session_s, plain)


def keeps_to_its_threads(provider: Provider) -> bool:
    """True where a provider computes on a session's threads, so that as many cores suffice.

    CUDA's runs are launched and waited for by one thread. With an H100, and free to move between 16
    cores, that thread made pairs of equal models spread by 18% in processes of their own; on one
    core they spread by 0.9%.
    """
    is_cpu = provider.ort_name == "CPUExecutionProvider"
    own_threads = is_cpu or provider.thread_option is not None
    return own_threads or provider.device_bound
