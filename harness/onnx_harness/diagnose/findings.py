"""The knowledge of a search so far."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from onnx_harness.results.diagnosis import Cause, Mend, Smallest

if TYPE_CHECKING:
    from onnx_harness.diagnose.values import Watch


@dataclass(slots=True)
class Findings:
    """The knowledge of a search so far.

    Attributes:
        cause: as far as it was found.
        evidence: lines for a person, in the order in which they were found.
        failure: the reason of the failure.
        stage: at which it fails; empty before that is known.
        operators: that ONNX Runtime's optimizers made.
        kind: of the parts of the transform: pass, rule or node.
        threads: it takes more than one thread to fail.
        proven: the parts at fault are a minimal set.
        watch: of the values of the whole transform, where the node that departs there is the part
            at fault.
        remark: what belongs to ``end``.
        end: why the search ended before its end; empty where it didn't.
        smallest: model that still fails.
        mend: a variant in place of the one that fails.
    """

    cause: Cause = field(default_factory=Cause)
    evidence: list[str] = field(default_factory=list)
    failure: str = ""
    stage: str = ""
    operators: tuple[str, ...] = ()
    kind: str = ""
    threads: bool = False
    proven: bool = False
    watch: Watch | None = None
    remark: str = ""
    end: str = ""
    smallest: Smallest | None = None
    mend: Mend | None = None

    def note(self, line: str) -> None:
        """Add a line to the evidence."""
        self.evidence.append(line)

    def set_cause(self, **parts: Any) -> None:
        """Set fields of the cause."""
        self.cause = replace(self.cause, **parts)

    @property
    def named(self) -> bool:
        """Return whether something is named as the cause, beside the input set that shows it."""
        cause = self.cause
        return any((cause.transform, cause.level, cause.provider, cause.node, self.threads))
