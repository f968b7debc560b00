"""The outcome of a comparison over time: one word for every room that says it."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The knowledge about a change for the worse."""

    PASS = "pass"  # there is none of the size that counts
    FAIL = "fail"  # there is one
    INCONCLUSIVE = "inconclusive"  # neither is shown: too few readings, or too noisy ones
    INVALID = "invalid"  # these aren't readings that a verdict can rest on
