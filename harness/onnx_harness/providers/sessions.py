"""Opening a session on a provider so that ONNX Runtime can't quietly use another one."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness.errors import ProviderError, UsageError, did_you_mean
from onnx_harness.model.custom_ops import register
from onnx_harness.providers import Problem, Provider

if TYPE_CHECKING:
    import onnxruntime as ort

# Ours -> the name in onnxruntime.GraphOptimizationLevel.
LEVELS: Mapping[str, str] = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}

THREADS = "ONNX_HARNESS_THREADS"
"""The variable that says how many threads a session of this process gets."""

RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"
_EXTERNAL_DATA = "session.model_external_initializers_file_folder_path"

# ONNX Runtime's severities: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal.
_INFO = 1
_ERROR = 3
_FATAL = 4

_prepared: set[str] = set()
_preparing = threading.Lock()


class Purpose(StrEnum):
    """The purpose of a session: it chooses the provider options."""

    ACCURACY = "accuracy"
    LATENCY = "latency"


def prepare(provider: Provider) -> None:
    """Set the provider's environment variables and load its libraries, once per process."""
    import onnxruntime as ort

    with _preparing:
        if provider.name in _prepared:
            return
        # Not setdefault: a variable from the shell would change what is judged.
        os.environ.update(provider.environment)
        # The default logger speaks outside sessions: why a provider couldn't be made is told here
        # and nowhere else.
        ort.set_default_logger_severity(_ERROR)
        provider.load()
        _prepared.add(provider.name)


def open_session(
    model: Path | bytes,
    provider: Provider,
    *,
    purpose: Purpose,
    level: str = "all",
    threads: int | None = None,
    allow_spinning: bool = True,
    record_placement: bool = True,
    external_data: Path | None = None,
    profile: Path | None = None,
    config: Mapping[str, str] | None = None,
    disabled: Collection[str] = (),
    optimized: Path | None = None,
    verbose: bool = False,
) -> ort.InferenceSession:
    """Open a session whose first provider is the one asked for.

    Args:
        model: a file, or a serialized model.
        provider: where the nodes are to run.
        purpose: chooses between the provider's accuracy and latency options.
        level: ONNX Runtime's graph optimization level, a key of ``LEVELS``.
        threads: intra-op threads; None: this process's share of the cores, or, where it has none,
            what ONNX Runtime chooses. Nodes are always run one after another.
        allow_spinning: idle threads wait busily. False for steady timings on shared cores.
        record_placement: keep the record that ``placement`` reads.
        external_data: the folder of a serialized model's external data; None: it has none.
        profile: keep a profile of every run, in a file whose name begins like this;
            ``read_profile`` reads it.
        config: further entries of the session's configuration
            (onnxruntime_session_options_config_keys.h).
        disabled: names of ONNX Runtime's graph optimizers that are left out.
        optimized: a file for the graph that they make.
        verbose: what each of them did goes to the standard error of the process.

    Raises:
        UsageError: no such level.
        ProviderError: ONNX Runtime doesn't have the provider, or opened the session without it.
        ModelError: a custom-operator library is missing or can't be loaded.
        Exception: whatever ONNX Runtime raises about the model, as it is.
    """
    import onnxruntime as ort

    if level not in LEVELS:
        raise UsageError(
            f"there is no optimization level '{level}' in ONNX Runtime. "
            f"{did_you_mean(level, LEVELS)}"
        )
    prepare(provider)
    if provider.ort_name not in ort.get_available_providers():
        # ONNX Runtime would warn once and run on the CPU.
        raise ProviderError(_refused(provider, provider.diagnose()))
    threads = shared_threads() if threads is None else threads
    options = _base_options(level, threads, verbose=verbose)
    entries = {
        "session.intra_op.allow_spinning": str(int(allow_spinning)),
        RECORD_PLACEMENT: str(int(record_placement)),
        **({} if external_data is None else {_EXTERNAL_DATA: str(external_data)}),
        **(config or {}),
    }
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    # Kernels that have a deterministic form use it: a difference is then the model's, not the
    # run's.
    options.use_deterministic_compute = purpose is Purpose.ACCURACY
    requested = (provider.ort_name, provider_options(provider, purpose, threads))
    session = ort.InferenceSession(
        model if isinstance(model, bytes) else str(model),
        options,
        providers=[requested, *provider.fallback],
        # Else a failure on the device, now or during a run, becomes a second try on another
        # provider.
        enable_fallback=0,
        disabled_optimizers=set(disabled),
    )
    opened = session.get_providers()
    if opened[0] != provider.ort_name:
        raise ProviderError(_refused(provider, provider.diagnose(), opened))
    return session


def _base_options(level: str, threads: int | None, *, verbose: bool) -> ort.SessionOptions:
    """The options of every session: its level, its threads, its log and custom operators."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    register(options)
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[level])
    # A session's errors are raised as well: once is enough.
    options.log_severity_level = _INFO if verbose else _FATAL
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def shared_threads() -> int | None:
    """Return this process's share of the machine's cores; None where it has them all."""
    share = os.environ.get(THREADS, "")
    if not share.isascii() or not share.isdecimal():
        return None
    return int(share) or None


def thread_environment(count: int) -> dict[str, str]:
    """Return the variables that limit a process, and numpy in it, to ``count`` threads."""
    names = (THREADS, "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return dict.fromkeys(names, str(count))


def provider_options(
    provider: Provider, purpose: Purpose, threads: int | None = None
) -> dict[str, str]:
    """Return the options that a session for ``purpose`` gives to the provider."""
    options = dict(provider.latency_options)
    if purpose is Purpose.ACCURACY:
        options = dict(provider.accuracy_options)
    if provider.thread_option is not None and threads is not None:
        options[provider.thread_option] = str(threads)
    return options


def _refused(
    provider: Provider, problem: Problem | None, opened: list[str] | None = None
) -> str:
    """Write the message about a provider that ONNX Runtime left out."""
    happened = f"provider '{provider.name}' was asked for and can't be used here"
    unexplained = ""
    if opened:
        happened = (
            f"provider '{provider.name}' was asked for, "
            f"but ONNX Runtime would run on {opened[0]}"
        )
        unexplained = " (its own message about that went to standard error)"
    cause = f": {problem.reason}" if problem else unexplained
    mend = f" Mend: {problem.mend}." if problem and problem.mend else ""
    return f"{happened}{cause}.{mend} `onnx-harness doctor` shows every provider."
