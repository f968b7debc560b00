"""Tell what the clamp did to weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

# A note that lists every tensor of a large model would be read by nobody.
_NAMED = 5


class Lost(NamedTuple):
    """The clamp's effect on a tensor.

    See `onnx_harness.transforms.float16.Clamped`, without the array.
    """

    raised: int
    lowered: int
    smallest: float | None
    largest: float | None


def clamp_remarks(losses: Mapping[str, Lost], limits: tuple[float, float]) -> Iterator[str]:
    """Return what was clamped, a sentence each.

    The tensors that lost most, the others summed up.
    """
    low, high = limits
    clipped = sorted(
        (
            (each.lowered, name, each.largest or 0.0)
            for name, each in losses.items()
            if each.lowered
        ),
        key=lambda each: (-each[0], each[1]),
    )
    for count, name, largest in clipped[:_NAMED]:
        yield (
            f"{_weights(count)} of '{name}' {_were(count)} clipped at {high:g}; the largest "
            f"was {largest:.4g}"
        )
    unnamed = clipped[_NAMED:]
    if unnamed:
        count = sum(lowered for lowered, _, _ in unnamed)
        largest = max(magnitude for _, _, magnitude in unnamed)
        yield (
            f"{_weights(count)} of {len(unnamed)} more tensors {_were(count)} clipped at "
            f"{high:g}; "
            f"the largest was {largest:.4g}"
        )
    raised = [each for each in losses.values() if each.raised]
    if raised:
        count = sum(lost.raised for lost in raised)
        smallest = min(lost.smallest or low for lost in raised)
        tensors = f"{len(raised)} tensor{'s' * (len(raised) > 1)}"
        yield (
            f"{_weights(count)} of {tensors} {_were(count)} raised to {low:g}; the smallest "
            f"was {smallest:.4g}"
        )


def _weights(count: int) -> str:
    return f"{count:,} weight{'s' * (count != 1)}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
