"""The record of greedy decoding, as part of a cell's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """Greedy decoding by the candidate beside the reference's.

    The candidate is given the reference's tokens, and its own cache: so each step is judged on the
    same history. Up to the first other token that is what decoding on its own gives.

    Attributes:
        steps: tokens generated.
        agreement: the share of steps at which the candidate picks the reference's token.
        first_divergence: the first step, from 1, at which it picks another; None: none.
        margin: there, how far the reference's best logit lies above its second; None: no such step.
        behind: there, how far the logit of the candidate's pick lies below the reference's best.
        noise: how far below it a pick may lie; None where it couldn't be measured, and nothing was
            judged.
        cache: ``growing``, ``static`` or ``none``.
        first_token_ms: what the candidate took for the prompt, in milliseconds.
        per_token_ms: its median for a further token; None for a single step.
    """

    steps: int
    agreement: float
    first_divergence: int | None
    margin: float | None
    behind: float | None
    noise: float | None
    cache: str
    first_token_ms: float
    per_token_ms: float | None
