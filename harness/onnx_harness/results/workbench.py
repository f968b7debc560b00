"""The memory of one process from cell to cell.

It has the cache, and the last thing of each kind that was made.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from onnx_harness.results.cache import Cache
from onnx_harness.results.cache_root import cache_root

T = TypeVar("T")


class Workbench:
    """The memory of one process.

    Cells come model by model, so that the last thing of a kind is what is asked for next.

    Attributes:
        cache: what outlives the process.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self._last: dict[str, tuple[object, Any]] = {}

    def last(self, kind: str, key: object, make: Callable[[], T]) -> T:
        """Return the last thing of a kind if it has the key, or else make it.

        The one before it is forgotten first.

        Args:
            kind: of thing; no two callers share one.
            key: all that the thing depends on; compared, not hashed.
            make: makes it. What it raises goes through, and nothing is kept.
        """
        if kind not in self._last or self._last[kind][0] != key:
            self._last.pop(kind, None)  # both may be large
            self._last[kind] = (key, make())
        value: T = self._last[kind][1]
        return value

    def passing_cache(self, key: object) -> Cache:
        """Return a cache that goes with the next key.

        For what is quicker made again than kept by the thousand.
        """
        return self.last("passing cache", key, Cache.temporary)


_benches: dict[Path, Workbench] = {}


def workbench() -> Workbench:
    """Return this process's workbench; another one when the cache's folder is another."""
    root = cache_root()
    if root not in _benches:
        _benches.clear()
        _benches[root] = Workbench(Cache(root))
    return _benches[root]
