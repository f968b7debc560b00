"""The plan of a run in parts, which each part keeps in its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_harness.results.files import replace_text

PLAN = "shard-plan.json"
"""The file of a part's report folder that says which cells each part of its run has."""


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """A run cut into parts.

    Attributes:
        digest: a hash of ``parts``.
        parts: ids of the cells of each part, the first part's first.
    """

    digest: str
    parts: tuple[tuple[str, ...], ...]

    @property
    def cells(self) -> frozenset[str]:
        """Return the ids of the cells of all parts."""
        return frozenset(cell_id for part in self.parts for cell_id in part)


def read_plan(folder: Path) -> ShardPlan | None:
    """Return the plan that a report folder keeps; None where it keeps none that can be read."""
    try:
        document = json.loads((folder / PLAN).read_text("utf-8"))
        parts = tuple(tuple(map(str, part)) for part in document["parts"])
        return ShardPlan(str(document["digest"]), parts)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_plan(folder: Path, digest: str, parts: Sequence[Sequence[str]]) -> None:
    """Keep a plan in a report folder.

    Raises:
        OSError: it can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lists = [sorted(part) for part in parts]
    replace_text(folder / PLAN, json.dumps({"digest": digest, "parts": lists}, indent=1))
