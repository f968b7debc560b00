"""The record of an operator whose time has moved between two sides of a measurement."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlowerOperator:
    """An operator that takes longer than it did.

    Attributes:
        name: of the node.
        op_type: its operator, on the slower side where it's there.
        before_ms: its time in a run of the reference; 0 where it has no such node.
        after_ms: its time under test.
        ratio_ci95: 95% interval of their ratio over pairs of fresh sessions; None where the
            reference has no such node.
        share: of the whole slowdown, the part that is this node's, in [0, 1]; of what slower
            operators add, where others became faster.
    """

    name: str
    op_type: str
    before_ms: float
    after_ms: float
    ratio_ci95: tuple[float, float] | None
    share: float

    def __str__(self) -> str:
        """Write it as one phrase: ``GRU_3: 1.4 -> 2.1 ms [+47%, +53%], 97% of the slowdown``."""
        operator = "" if self.name.startswith(self.op_type) else f" ({self.op_type})"
        interval = ""
        if self.ratio_ci95 is not None:
            low, high = self.ratio_ci95
            interval = f" [{low - 1:+.0%}, {high - 1:+.0%}]"
        times = f"{self.before_ms:.3g} -> {self.after_ms:.3g} ms{interval}"
        return f"{self.name}{operator}: {times}, {self.share:.0%} of the slowdown"


@dataclass(frozen=True, slots=True)
class OperatorRecord:
    """The operators of a cell that is slower than accepted, under test and with pinned versions.

    Attributes:
        slower: those that take longer, the one that adds most first.
        pairs: of fresh sessions that were profiled.
        reason: why they couldn't be profiled; None where they could.
    """

    slower: tuple[SlowerOperator, ...] = ()
    pairs: int = 0
    reason: str | None = None

    def __str__(self) -> str:
        """Write it as one sentence."""
        if self.reason is not None:
            return f"which operator got slower isn't known: {self.reason}"
        if not self.slower:
            return f"no operator stands out in {self.pairs} pairs of profiled sessions"
        return f"slower operators: {'; '.join(map(str, self.slower))}"
