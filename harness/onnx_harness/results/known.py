"""The record of a known failure: the card's entry on a cell."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownRecord:
    """A known failure, and whether it's gone.

    Attributes:
        reason: the defect, and whose it is.
        versions: distribution to the version that it was seen in, or to the range that it's known
            of.
        cause: as a diagnosis has it; None where the card doesn't say.
        repro: a folder relative to the card, or an address; None where the card doesn't say.
        mended: the versions that it's gone with; None where it's there.
    """

    reason: str
    versions: dict[str, str]
    cause: str | None = None
    repro: str | None = None
    mended: str | None = None
