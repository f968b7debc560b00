"""Rounds of a measurement where there is no pytest-benchmark: in a worker process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class PlainRounds:
    """Calls what is timed as pytest-benchmark's fixture does, and keeps no times of its own."""

    disabled = False

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}

    def pedantic(
        self,
        target: Callable[[], object],
        *,
        setup: Callable[[], None] | None = None,
        teardown: Callable[[], None] | None = None,
        rounds: int = 1,
    ) -> object:
        """Call ``setup``, the timed ``target`` and ``teardown``, ``rounds`` times."""
        result: object = None
        for _ in range(rounds):
            if setup is not None:
                setup()
            result = target()
            if teardown is not None:
                teardown()
        return result
