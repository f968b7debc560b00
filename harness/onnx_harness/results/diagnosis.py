"""The record of a diagnosis.

What ``onnx-harness diagnose --json`` prints and results.json keeps of a failing cell.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class NodeCause:
    """The first node that departs on its own.

    Attributes:
        name: of the node; of its first output where it has none.
        op_type: its operator.
        own_error: relative L2 error of its output where its inputs are the reference's; None: not
            finite.
        inherited_error: the greatest relative L2 error of its inputs as the candidate runs; None:
            not finite.
    """

    name: str
    op_type: str
    own_error: float | None
    inherited_error: float | None


@dataclass(frozen=True, slots=True)
class Cause:
    """The cause of a cell's failure; None where it doesn't apply or wasn't found.

    Attributes:
        transform: the step of the chain.
        passes: the minimal set of its passes that still fails.
        rules: the minimal set of its rules, or of the nodes that it converts.
        level: ONNX Runtime's lowest optimization level that fails.
        optimizers: the minimal set of ONNX Runtime's optimizers.
        node: the first node that departs on its own.
        provider: the execution provider, where the CPU is right.
        input_set: the name of the input set that shows it.
        release: the first release of a package that fails.
    """

    transform: str | None = None
    passes: tuple[str, ...] | None = None
    rules: tuple[str, ...] | None = None
    level: str | None = None
    optimizers: tuple[str, ...] | None = None
    node: NodeCause | None = None
    provider: str | None = None
    input_set: str | None = None
    release: str | None = None


@dataclass(frozen=True, slots=True)
class Smallest:
    """The smallest model that still fails.

    Attributes:
        path: its folder.
        nodes: that it has.
        checks: that it took.
        kept: what ``--public`` couldn't replace, a line each: names, strings, and how many values
            of which array.
    """

    path: str
    nodes: int
    checks: int
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mend:
    """A variant that passes, and whether that was verified."""

    variant: str
    verified: bool


@dataclass(frozen=True, slots=True)
class Spent:
    """The cost of a diagnosis: transforms applied, sessions opened, runs of a session, seconds."""

    transforms: int = 0
    sessions: int = 0
    runs: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The cause of a failure.

    Attributes:
        sentence: the answer, for a person.
        cause: in parts.
        smallest: the smallest model that still fails; None: there is none, or it wasn't searched
            for.
        mend: a variant that passes; None: there is none, or it wasn't searched for.
        evidence: what was tried and what came of it, a line each.
        found: whether a cause was found within the budget.
    """

    sentence: str
    cause: Cause = field(default_factory=Cause)
    smallest: Smallest | None = None
    mend: Mend | None = None
    spent: Spent = field(default_factory=Spent)
    evidence: tuple[str, ...] = ()
    found: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the document of ``--json``: every key is there, None for what doesn't apply."""
        document = asdict(self)
        return {
            key: document[key] for key in ("sentence", "cause", "smallest", "mend", "spent")
        }
