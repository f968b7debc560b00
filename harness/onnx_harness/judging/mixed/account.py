"""Count the cost of a search for the nodes that stay as they are: its limits, spending and end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

MOST_RUNS = 60
_NAMED = 3
RESERVED = 2
"""Of the runs, for each input set: to confirm what was found, and to verify it."""


@dataclass(frozen=True, slots=True)
class Effort:
    """The limits of a search's cost.

    Attributes:
        seconds: after these nothing more is tried to do with fewer nodes.
        known_to_fail: the model with no node chosen was judged already.
    """

    seconds: float = math.inf
    known_to_fail: bool = False


UNLIMITED = Effort()


@dataclass(slots=True)
class Account:
    """The cost of a search so far."""

    sessions: int = 0
    runs: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.started


@dataclass(frozen=True, slots=True)
class Refused:
    """The nodes that a provider refuses in the half type.

    Attributes:
        names: as a block list takes them; empty where it refuses none.
        words: what it said.
        provider: its name.
        half: the type.
        minimal: whether it was tried without each kind of them that it didn't name.
    """

    names: tuple[str, ...] = ()
    words: str = ""
    provider: str = ""
    half: str = ""
    minimal: bool = True


@dataclass(frozen=True, slots=True)
class Mix:
    """The nodes that stay float32, verified.

    Attributes:
        names: as a block list takes them.
        nodes: how many nodes stay float32 by it: those inside a Loop that is named count.
        of: how many would be converted without it.
        time_share: of the time of those in float32; None where it wasn't taken.
        minimal: whether each was tried without.
        exact: whether everything in float32 gave the original's outputs bit for bit.
        corrections: how often the verification asked for more.
        sessions: opened.
        runs: of sessions, an input set each.
        seconds: taken.
        kind: what those nodes stay, in a word.
        refused: those of them that the provider has no kernel for.
    """

    names: tuple[str, ...]
    nodes: int
    of: int
    time_share: float | None
    minimal: bool
    exact: bool
    corrections: int
    sessions: int
    runs: int
    seconds: float
    kind: str = "float32"
    refused: Refused = Refused()

    @property
    def option(self) -> str:
        """The option that takes the names."""
        return "node_block_list" if self.kind == "float32" else "nodes_to_exclude"

    def keeps(self) -> str:
        """``keeps 6 of 412 nodes in float32 (0.8% of the time)``."""
        if not self.nodes:
            return f"keeps none of {self.of} nodes in {self.kind}"
        if self.nodes == self.of:
            return f"keeps all {self.of} nodes in {self.kind}, so that nothing is gained"
        time = "" if self.time_share is None else f" ({self.time_share:.1%} of the time)"
        return f"keeps {self.nodes} of {self.of} nodes in {self.kind}{time}"

    def sentences(self, spelling: str) -> Iterator[str]:
        """Yield what a reader of the result should know.

        Args:
            spelling: of the step that makes the same of a list of nodes.
        """
        control = (
            "gives the original's outputs bit for bit"
            if self.exact
            else "gives the original's outputs"
        )
        smaller = (
            ""
            if self.minimal or not self.nodes
            else "; a smaller set may do: the budget ended the search"
        )
        yield (
            f"{self.keeps()}, found in {self.runs} runs of {self.sessions} sessions and verified "
            f"on the converted "
            f"model; everything in {self.kind} {control}{smaller}"
        )
        if self.refused.names:
            names = self.refused.names
            named = ", ".join(map(repr, names[:_NAMED]))
            more = ""
            if len(names) > _NAMED:
                more = f" and {len(names) - _NAMED} more"
            yield (
                f"provider '{self.refused.provider}' refuses {self.refused.half} in "
                f"{named}{more}: {self.refused.words}"
            )
        if self.names:
            yield f"the same again: {spelling}({self.option}={list(self.names)!r})"
