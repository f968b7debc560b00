"""Draws of the last bits inside a model, as many as it takes to know what they may do."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from onnx_harness.accuracy.noise import Gap, worst
from onnx_harness.judging.last_bits import has_steps, steps, with_last_bits
from onnx_harness.judging.nudges import nudge_inside
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.runs import Draw, gaps_of, in_memory, open_cpu
from onnx_harness.model.file import Model

# A model that rounds is drawn in rounds of so many draws until the greatest departure was found in
# the first half of them, and no sooner than in so many draws over all sets. Of a dynamically
# quantized decoder three draws of four moved it by 1e-7 and the fourth by 1.8e-2: 32 draws miss
# such a flip once in ten thousand times.
_ROUND = 4
_FEWEST_DRAWS = 32
_FEWEST_ROUNDS = 2
_MOST_ROUNDS = 8
# A departure that is greater by less than half tells nothing new about what may happen.
_NEWS = 1.5
# Further rounds of a slow model wait for nobody: the note says how many draws there were.
_MOST_SECONDS = 5.0

Run = Iterable[tuple[int, dict[str, Gap]]]
"""The gaps of each output on some input sets, by the sets' places."""


class Inside:
    """Draws of the last bits inside a model.

    They run on one session that is opened when it's first asked for.

    Attributes:
        rounds: whether a value passes a step function inside, or is a float16.
    """

    def __init__(self, model: Model, reference: Reference) -> None:
        self._model = model
        self._reference = reference
        self._session: Any = None
        self.rounds = has_steps(model.skeleton)
        self.steps = steps(model.load()) if self.rounds else {}
        self.draws = 0

    def gaps(self, sets: Sequence[int], draws: Sequence[Draw], first: int = 0) -> Run:
        """The gaps of some draws."""
        if not sets:
            return []
        if self._session is None:
            self._session = open_cpu(with_last_bits(in_memory(self._model)))
        return gaps_of(self._session, self._reference, sets, draws, self.steps, first)

    def drawn(self, sets: Sequence[int]) -> Run:
        """The gaps of as many draws as it takes until more of them show nothing new."""
        gaps_by_set: dict[int, dict[str, Gap]] = {}
        greatest: dict[str, float] = {}
        last_news, started = 0, time.monotonic()
        fewest = max(_FEWEST_ROUNDS, math.ceil(_FEWEST_DRAWS / (_ROUND * len(sets))))
        for number in range(1, _MOST_ROUNDS + 1):
            for index, gaps in self.gaps(sets, [nudge_inside] * _ROUND, self.draws):
                gaps_by_set[index] = worst([gaps_by_set.get(index, {}), gaps])
            self.draws += _ROUND
            tail = {}
            for name, size in _sizes(gaps_by_set):
                if size > _NEWS * greatest.get(name, 0.0):
                    tail[name] = size
            if tail:
                greatest |= tail
                last_news = number
            enough = number >= max(fewest, 2 * last_news)
            too_long = (
                number >= _FEWEST_ROUNDS and time.monotonic() - started > _MOST_SECONDS
            )
            if enough or too_long:
                break
        return gaps_by_set.items()


def _sizes(gaps_by_set: Mapping[int, Mapping[str, Gap]]) -> list[tuple[str, float]]:
    """Return how far each output departs at most: relatively, or the share of what changes."""
    names = set()
    for gaps in gaps_by_set.values():
        for name in gaps:
            names.add(name)
    sizes: list[tuple[str, float]] = []
    for name in sorted(names):
        sizes.append(
            (name, max(_size(gaps[name]) for gaps in gaps_by_set.values() if name in gaps))
        )
    return sizes


def _size(gap: Gap) -> float:
    return gap.l2 / gap.norm if gap.norm > 0 else gap.changed / max(gap.size, 1)
