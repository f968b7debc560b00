"""Merging the results of shards and machines: a set union by cell id."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from onnx_harness.results.cells import CellResult, Status
from onnx_harness.results.codec import encode
from onnx_harness.results.run import RunInfo, are_all_shards
from onnx_harness.results.store import Results

_GRAVITY = (
    Status.NOT_APPLICABLE,
    Status.PASS,
    Status.KNOWN_FAILURE,
    Status.ERROR,
    Status.FAIL,
)


def merge(parts: Sequence[Results]) -> Results:
    """Merge results. Order and repetition make no difference.

    Of two results with the same cell id the graver one stays, so that no failure is hidden by a
    pass; of two equally grave ones, the greater as JSON. The head is that of the earliest run, and
    a cell that another host has judged names that.

    Args:
        parts: one or more.

    Returns:
        The merged results, cells sorted by id.
    """
    head = min((part.run for part in parts), key=_run_order)
    shards = set()
    for part in parts:
        for shard in part.run.shards:
            shards.add(shard)
    head = replace(head, shards=tuple(sorted(shards, key=_shard_order)))
    if are_all_shards(head.shards):
        head = replace(head, planned=None)  # each part knows its own number alone
    cells: dict[str, CellResult] = {}
    for part in parts:
        for cell in part.cells:
            placed = replace(cell, machine=cell.machine or part.run.host)
            present = cells.get(cell.id)
            graver = placed if present is None else max(placed, present, key=_cell_order)
            cells[cell.id] = graver
    merged = []
    for _, cell in sorted(cells.items()):
        own = cell.machine == head.host
        merged.append(replace(cell, machine=None) if own else cell)
    return Results(head, tuple(merged))


def differences(parts: Sequence[Results]) -> list[str]:
    """Return what speaks against reading merged results as one run: a sentence each."""
    remarks = []
    for what, values in (
        ("processors", {part.run.host.cpu for part in parts}),
        ("seeds", {str(part.run.seed) for part in parts}),
    ):
        if len(values) > 1:
            remarks.append(f"the runs have several {what}: {', '.join(sorted(values))}")
    versions: dict[str, set[str]] = {}
    for part in parts:
        for name, version in part.run.versions.items():
            versions.setdefault(name, set()).add(version)
    for name, seen in sorted(versions.items()):
        if len(seen) > 1:
            remarks.append(
                f"the runs have several versions of {name}: {', '.join(sorted(seen))}"
            )
    hashes: dict[str, set[str]] = {}
    for part in parts:
        for cell in part.cells:
            hashes.setdefault(cell.model, set()).add(cell.model_sha256)
    changed = sorted(model for model, seen in hashes.items() if len(seen) > 1)
    if changed:
        remarks.append(f"the runs have several files of {', '.join(changed)}")
    return remarks


def _shard_order(shard: str) -> tuple[int, str]:
    return int(shard.partition("/")[0]), shard


def _run_order(run: RunInfo) -> tuple[str, str, str]:
    return run.started, run.id, _json(run)


def _cell_order(cell: CellResult) -> tuple[int, str]:
    return _GRAVITY.index(cell.status), _json(cell)


def _json(value: object) -> str:
    return json.dumps(encode(value), sort_keys=True)
