"""Pairs of fresh sessions whose runs are profiled, in turns: which operators take the time."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from onnx_harness.latency.operators import ProfiledPair
from onnx_harness.latency.pairs import alternating, balanced
from onnx_harness.latency.plan import THREADS
from onnx_harness.latency.sessions import SPINNING
from onnx_harness.providers import Provider
from onnx_harness.providers.binding import bound_runner
from onnx_harness.providers.profile_runs import RunProfiles, read_runs
from onnx_harness.providers.running import feeds_for
from onnx_harness.providers.sessions import Purpose, open_session

PAIRS = 16
"""Of a profiled comparison: see `slower_operators`."""
FEWEST_RUNS, MOST_RUNS = 6, 60
PAIR_S = 0.4
"""Seconds of profiled running in each pair, both sides together."""


class ProfiledSide(Protocol):
    """A fresh session whose runs are profiled. It may live in another process."""

    def run(self) -> None:
        """Run it once."""

    def finish(self) -> RunProfiles:
        """End the session, and return the profiles of its runs."""


class ProfiledSession:
    """A side in this process.

    Args:
        model: a file, or a serialized model without external data.
        provider: where it runs.
        values: the inputs.
        level: ONNX Runtime's optimization level.
        threads: intra-op threads.
    """

    def __init__(
        self,
        model: Path | bytes,
        provider: Provider,
        values: Mapping[str, Any],
        *,
        level: str = "all",
        threads: int = THREADS,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="onnx-harness-profile-")
        self._session = open_session(
            model,
            provider,
            purpose=Purpose.LATENCY,
            level=level,
            threads=threads,
            allow_spinning=SPINNING,
            record_placement=False,
            profile=Path(self._folder.name) / "profile",
        )
        self._run = bound_runner(self._session, provider, feeds_for(self._session, values))

    def run(self) -> None:
        """Run it once."""
        self._run()

    def finish(self) -> RunProfiles:
        """End the session, and return the profiles of its runs.

        Raises:
            ProviderError: ONNX Runtime kept none.
        """
        try:
            return read_runs(Path(self._session.end_profiling()))
        finally:
            self._folder.cleanup()


OpenPair = Callable[[int, bool], tuple[ProfiledSide, ProfiledSide, float]]
"""Opens pair number k, the variant first or not.

The sides (baseline, variant), and seconds of a run. Both have run once or more: these runs aren't
counted.
"""


def profile_pairs(
    open_pair: OpenPair, *, pairs: int = PAIRS, seed: int = 0, seconds: float = PAIR_S
) -> list[ProfiledPair]:
    """Profile pairs of fresh sessions, whose runs take turns in random order.

    Args:
        open_pair: see `OpenPair`.
        pairs: how many.
        seed: of the order.
        seconds: of profiled running in each pair.
    """
    rng = random.Random(seed)
    profiled = []
    for number, variant_first in enumerate(alternating(rng, pairs)):
        baseline, variant, run_s = open_pair(number, variant_first)
        runs = min(MOST_RUNS, max(FEWEST_RUNS, int(seconds / (2 * max(run_s, 1e-6)))))
        for baseline_first in balanced(rng, runs):
            for side in (baseline, variant) if baseline_first else (variant, baseline):
                side.run()
        profiled.append(
            ProfiledPair(_last(baseline.finish(), runs), _last(variant.finish(), runs))
        )
    return profiled


def _last(profiles: RunProfiles, runs: int) -> RunProfiles:
    """Return the last runs: those that took turns."""
    return RunProfiles(profiles.op_types, profiles.runs[-runs:])
