"""Read ONNX Runtime's error texts: sizes it expected, and bounds that an index broke."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# "Got invalid dimensions for input: x for the following indices\n index: 1 Got: 3 Expected: 4"
_DIMENSIONS = re.compile(
    r"invalid dimensions for input: (?P<name>.+?) for the following indices(?P<rows>.*)",
    re.S,
)
_ROW = re.compile(r"index: (\d+) Got: \d+ Expected: (\d+)")
# "indices element out of data bounds, idx=7 must be within the inclusive range [-5,4]"
_BOUNDS = re.compile(r"must be within the inclusive range \[-?\d+, ?(-?\d+)\]")
_NUMBER = re.compile(r"(?<![\w.#])\d{1,6}(?![\w.])")
_MOST_NUMBERS = 6


@dataclass(frozen=True, slots=True)
class Hints:
    """Read from one message.

    Attributes:
        dims: input name to axis to the size that was expected.
        cap: greatest index that would have been accepted.
        numbers: sizes that the message mentions, in order: in a mismatch of shapes, one of them is
            often the cure.
    """

    dims: dict[str, dict[int, int]] = field(default_factory=dict)
    cap: int | None = None
    numbers: tuple[int, ...] = ()


def read(message: str) -> Hints:
    """Read ``message``; what it doesn't say stays empty."""
    dims: dict[str, dict[int, int]] = {}
    if (match := _DIMENSIONS.search(message)) is not None:
        dims[match["name"]] = {
            int(axis): int(size) for axis, size in _ROW.findall(match["rows"])
        }
    bounds = _BOUNDS.search(message)
    # Paths and line numbers of ONNX Runtime's own sources come first; what matters stands behind
    # the last of them.
    tail = re.sub(r"\S+\.(cc|h|cu):\d+", " ", message)
    tail = tail.split("Status Message:")[-1] if "Status Message:" in tail else tail
    sizes = [int(number) for number in _NUMBER.findall(tail)]
    numbers = tuple(dict.fromkeys(size for size in sizes if 1 <= size <= 100_000))
    return Hints(dims, None if bounds is None else int(bounds[1]), numbers[:_MOST_NUMBERS])


def shortened(message: str, most: int = 400) -> str:
    """Return the message on one line.

    Of a long one it's the end, because ONNX Runtime puts the innermost cause last.
    """
    line = " ".join(message.split())
    return line if len(line) <= most else f"…{line[-most + 1 :]}"
