"""The operators of a cell that got slower: both environments profiled, in fresh processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from statistics import median

from onnx_harness.errors import GateError
from onnx_harness.gate.process import EnvironmentProcess
from onnx_harness.latency.operators import slower_operators
from onnx_harness.latency.profiled import PAIRS, ProfiledSide, profile_pairs
from onnx_harness.providers.profile_runs import RunProfiles
from onnx_harness.results.operators import OperatorRecord

OpenProfiled = Callable[[int, bool], tuple[EnvironmentProcess, float]]
"""Starts a process of pair number k with a profiled session, in the pinned environment or not.

The process, and seconds of a run.
"""


class _Remote:
    """A profiled session in another process."""

    def __init__(self, process: EnvironmentProcess) -> None:
        self._process = process

    def run(self) -> None:
        self._process.ask("run_block", 0, 1)

    def finish(self) -> RunProfiles:
        profiles: RunProfiles = self._process.ask("finish_profile")
        self._process.close()
        return profiles


def profile_cell(start: OpenProfiled, seed: int, pairs: int = PAIRS) -> OperatorRecord:
    """Name the operators that take longer under test than with the pinned versions.

    Args:
        start: see `OpenProfiled`.
        seed: of the order.
        pairs: of fresh processes.

    Returns:
        A record whose ``reason`` says what went wrong: never a reason to end the run.
    """
    with ExitStack() as stack:

        def open_pair(
            number: int, tested_first: bool
        ) -> tuple[ProfiledSide, ProfiledSide, float]:
            sides: dict[bool, _Remote] = {}
            run_s = []
            for is_pinned in (not tested_first, tested_first):
                process, seconds = start(number, is_pinned)
                stack.callback(process.close)
                sides[is_pinned] = _Remote(process)
                run_s.append(seconds)
            return sides[True], sides[False], median(run_s)

        try:
            profiles = profile_pairs(open_pair, pairs=pairs, seed=seed)
        except GateError as error:
            return OperatorRecord(reason=str(error))
    return OperatorRecord(slower_operators(profiles), pairs)
