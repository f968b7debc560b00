"""Open the session that a cell is judged by."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness import providers
from onnx_harness.cell.state import Artifact, Subject, Way
from onnx_harness.errors import NotApplicable
from onnx_harness.judging.half_range import computes_in_half
from onnx_harness.judging.runs import MOST_BYTES
from onnx_harness.judging.verdict import session_config
from onnx_harness.model.file import has_loops
from onnx_harness.providers import Provider
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.transforms import Precision
from onnx_harness.transforms.variant import BoundVariant

if TYPE_CHECKING:
    import onnxruntime as ort

# What ONNX Runtime says of an operator and its types for which the provider, and the CPU behind it,
# have nothing: that, or that a device with memory of its own leaves it to nobody, or what is wrong
# with the definition that it puts in the operator's place, which may be older than bfloat16.
_NO_KERNEL = re.compile(
    r"Could not find an implementation for (\w+)"
    r"|Provider type for (\w+) node with name '.*' is not set"
    r"|Type 'tensor\(bfloat16\)' of input parameter \(.*\) of operator \((\w+)\)"
)


@dataclass(frozen=True, slots=True)
class NoKernel:
    """An operator that a provider doesn't have in bfloat16."""

    operator: str

    def on(self, provider: str) -> str:
        """Return why a model that has the operator doesn't run on a provider."""
        return f"provider '{provider}' has no {self.operator} in bfloat16"


def open_cell(
    way: Way, subject: Subject, artifact: Artifact, scratch: Path
) -> ort.InferenceSession | NoKernel:
    """Open the session of a transformed model, profiled where a run has to tell where it ran.

    Raises:
        NotApplicable: the provider, whose hardware it is, has no kernel in bfloat16.
    """
    provider = providers.get(way.task.cell.provider)
    profile = scratch / "profile" if _is_profiled(way, artifact) else None
    accuracy, level = Purpose.ACCURACY, artifact.level
    config = session_config(subject.model, way.bound, artifact.model.skeleton)
    try:
        return open_session(
            artifact.model.path,
            provider,
            purpose=accuracy,
            level=level,
            profile=profile,
            config=config,
        )
    except Exception as error:
        lacking = lacking_kernel(error, way.bound, provider)
        if lacking is None:
            raise
        return lacking


def lacking_kernel(
    error: Exception, bound: BoundVariant, provider: Provider
) -> NoKernel | None:
    """Return the operator that a session lacks in bfloat16; None where that isn't what failed.

    The model is valid, as its check has shown: which types a provider computes in is a fact about
    the provider.

    Args:
        error: that opening the session raised.
        bound: the variant.
        provider: of the session.

    Raises:
        NotApplicable: the provider's hardware has no such kernel.
    """
    missing = _NO_KERNEL.search(str(error))
    if missing is None or not any(
        step.transform.precision is Precision.BF16 for step in bound.steps
    ):
        return None
    lacking = NoKernel(missing[1] or missing[2] or missing[3])
    if not provider.fallback:  # of the CPU nobody asks to be the hardware
        return lacking
    raise NotApplicable(lacking.on(provider.name)) from error


def reopening(
    way: Way, subject: Subject, artifact: Artifact, scratch: Path
) -> Callable[[], ort.InferenceSession] | None:
    """Return what opens the session of a large model again, which nobody holds beside another."""
    if artifact.model.size_bytes <= MOST_BYTES:
        return None

    def opened() -> ort.InferenceSession:
        session = open_cell(way, subject, artifact, scratch)
        assert not isinstance(session, NoKernel)
        return session

    return opened


def _is_profiled(way: Way, artifact: Artifact) -> bool:
    """Return whether a run is profiled: a device's always, since another one may do its work.

    On the CPU the profile tells no more than what float16 became. A loop's costs more than the
    loop, and one of each of a suite's cases takes longer than the case.
    """
    if providers.get(way.task.cell.provider).fallback:
        return True
    if way.task.cell.card.suite or not way.task.explained:
        return False
    return not has_loops(artifact.model.skeleton.graph) or computes_in_half(
        artifact.model.skeleton
    )
