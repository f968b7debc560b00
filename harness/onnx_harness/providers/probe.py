"""Probing what works here: the evidence behind ``doctor`` and behind refusing to start a run.

A probe opens a real session, which can bring the process down: run it in a worker process.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_harness.errors import ProviderError
from onnx_harness.providers import Problem, Provider, get, registry
from onnx_harness.providers.libraries import distribution, install_command
from onnx_harness.providers.placement import placement, shortfall
from onnx_harness.providers.sessions import Purpose, open_session, prepare


@dataclass(frozen=True, slots=True)
class Availability:
    """The answer to whether a provider can be used in this environment.

    Attributes:
        name: the provider's name in ids.
        usable: a session opened on it, owned the node of a tiny model and computed it rightly.
        reason: why it isn't usable, a clause without its full stop; None when it is.
        device: the name of what its sessions run on; None where that is the processor, or can't be
            told.
        mend: what would mend it; None when it is usable or nothing is known.
        details: for a person to read: versions, devices, options.
    """

    name: str
    usable: bool
    reason: str | None = None
    mend: str | None = None
    details: dict[str, str] = field(default_factory=dict)
    device: str | None = None


def probe(name: str) -> Availability:
    """Try to use the provider called ``name``.

    Raises:
        UsageError: there is no such provider.
    """
    provider = get(name)
    try:
        import onnxruntime as ort
    except ImportError as error:
        reason = f"ONNX Runtime can't be imported here ({error})"
        return Availability(name, False, reason, install_command(provider))
    details = {
        "distribution": distribution(),
        "providers": ", ".join(ort.get_available_providers()),
    }
    details |= {f"option {key}": value for key, value in provider.accuracy_options.items()}
    details |= {f"variable {key}": value for key, value in provider.environment.items()}
    device = None
    try:
        prepare(provider)
        problem = provider.diagnose() or _try(provider, details)
        device = None if problem else provider.describe()
    # Whatever a provider's libraries raise is the answer to the question.
    except Exception as error:
        problem = Problem(f"it failed to start: {_one_line(error)}")
    if problem is not None:
        return Availability(name, False, problem.reason, problem.mend, details)
    if device:
        details["device"] = device
    return Availability(name, True, details=details, device=device)


def refusal(availability: Availability) -> str:
    """Write the message of a run that doesn't start because a provider can't be used."""
    mend = f" Mend: {availability.mend}." if availability.mend else ""
    return (
        f"provider '{availability.name}' was asked for and can't be used here: "
        f"{availability.reason}.{mend}\n`onnx-harness doctor` shows every provider. Nothing was "
        "run."
    )


def doctor(look: Callable[[str], Availability] = probe) -> list[Availability]:
    """Probe every provider, those of other packages included.

    Args:
        look: does one probe; give one that does it in a worker process, since a probe can crash.
    """
    return [look(name) for name in registry()]


def conflict(installed: Iterable[str] | None = None) -> Problem | None:
    """Return the problem of several distributions of ONNX Runtime in this environment, or None.

    They all write the import package ``onnxruntime``: the one installed last wins file by file, and
    uninstalling either leaves a broken rest.

    Args:
        installed: names of distributions; None looks at this environment.
    """
    if installed is None:
        installed = _installed_names()
    normalized = {name.lower().replace("_", "-") for name in installed}
    names = sorted(name for name in normalized if _is_runtime(name))
    if len(names) < 2:
        return None
    return Problem(
        f"{' and '.join(names)} are installed in one environment and overwrite each other's files",
        f"pip uninstall -y {' '.join(names)}, then install one, for example pip install "
        "'onnx-harness[cpu]'",
    )


def _installed_names() -> list[str]:
    """Names of installed distributions that begin with "o", by the folders of their metadata.

    Every run of pytest asks. ``importlib.metadata`` would read the metadata of all distributions
    for their names, which takes longer than importing pytest.
    """
    folders = []
    for entry in sys.path:
        for folder in Path(entry).glob("[oO]*-info"):
            folders.append(folder)
    return [folder.name.partition("-")[0] for folder in folders]


# Plugin libraries and companions have import packages of their own.
_COMPANIONS = (
    "onnxruntime-ep-",
    "onnxruntime-extensions",
    "onnxruntime-genai",
    "onnxruntime-tools",
)


def _is_runtime(name: str) -> bool:
    if name in {"onnxruntime", "ort-nightly"}:
        return True
    return name.startswith(("onnxruntime-", "ort-nightly-")) and not name.startswith(
        _COMPANIONS
    )


def _try(provider: Provider, details: dict[str, str]) -> Problem | None:
    """Open a tiny model on the provider, prove its placement and check what it computes."""
    import numpy as np

    try:
        session = open_session(_tiny_model(), provider, purpose=Purpose.ACCURACY)
    except ProviderError:
        return Problem(
            "ONNX Runtime leaves it out of a session (its own message about that went to standard "
            "error)"
        )
    except Exception as error:  # ONNX Runtime's errors have no common class below Exception
        return Problem(f"a session on it can't be opened: {_one_line(error)}")
    problem = shortfall(placement(session, provider), provider, min_share=1.0)
    if problem is not None:
        return Problem(f"it doesn't execute even a matrix product: {problem}")
    # Small integers are exact in every precision.
    factor = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = factor @ factor.T
    computed = session.run(None, {"a": factor, "b": factor.T})[0]
    if not np.array_equal(computed, expected):
        return Problem(
            f"it computes a matrix product wrongly: {computed.tolist()}, not {expected.tolist()}"
        )
    with contextlib.suppress(Exception):  # a nicety: not every provider tells its options
        options: dict[str, dict[str, Any]] = session.get_provider_options()
        in_force = options.get(provider.ort_name, {})
        values = {}
        for key, value in in_force.items():
            if value:
                values[f"in force {key}"] = str(value)
        details |= values
    return None


def _tiny_model() -> bytes:
    from onnx import TensorProto, helper

    def tensor(name: str, rows: int, columns: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, columns])

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["product"])],
        "probe",
        [tensor("a", 2, 3), tensor("b", 3, 2)],
        [tensor("product", 2, 2)],
    )
    # Old on purpose: every distribution of ONNX Runtime that this package allows reads it.
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    return bytes(model.SerializeToString())


def _one_line(error: BaseException) -> str:
    words = str(error).split()
    return " ".join(words)[:300] or type(error).__name__
