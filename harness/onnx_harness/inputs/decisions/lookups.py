"""The columns of inputs that are looked up among keys or categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from onnx_harness.cards.card import InputSpec
from onnx_harness.inputs.decisions.columns import Column, NotTraced, trace
from onnx_harness.inputs.graph.attributes import label
from onnx_harness.inputs.graph.scopes import Scope
from onnx_harness.inputs.graph.signature import Input
from onnx_harness.inputs.graph.tables import is_open, keys_of, replaced_of


@dataclass(frozen=True)
class Lookup:
    """A column of an input that is looked up.

    Attributes:
        source: the input.
        place: which element of its row.
        keys: what it is looked up among.
        is_open: whether others are taken.
    """

    source: str
    place: int
    keys: tuple[Any, ...]
    is_open: bool


def lookups_of(
    scope: Scope,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Input],
    specs: Mapping[str, InputSpec],
) -> tuple[tuple[Lookup, ...], list[str]]:
    """The columns that some nodes look up, and why others can't be followed back to an input.

    Args:
        scope: the main graph.
        nodes: those of which :func:`keys_of` knows keys, and those that replace a number.
        inputs: of the model.
        specs: what its card says of them.
    """
    lookups_by_slot: dict[tuple[str, int], Lookup] = {}
    notes: list[str] = []
    for node in nodes:
        try:
            columns = trace(scope, inputs, node.input[0])
        except NotTraced as reason:
            notes.append(f"the keys of {label(node)} aren't fed one by one: {reason}")
            continue
        for column in columns:
            lookup = _lookup(column, node, inputs, specs)
            if lookup is not None:
                earlier = lookups_by_slot.get(column.slot, Lookup(*column.slot, (), True))
                keys = tuple(dict.fromkeys((*earlier.keys, *lookup.keys)))
                lookups_by_slot[column.slot] = Lookup(
                    *column.slot, keys, earlier.is_open and lookup.is_open
                )
    return tuple(lookups_by_slot.values()), notes


def keys_by_column(
    scope: Scope, inputs: Mapping[str, Input], specs: Mapping[str, InputSpec]
) -> dict[str, tuple[tuple[Any, ...], ...]]:
    """For inputs all of whose columns are looked up: the keys of each."""
    nodes = [node for node in scope.nodes if keys_of(node)]
    if not nodes:
        return {}
    columns: dict[str, dict[int, tuple[Any, ...]]] = {}
    for lookup in lookups_of(scope, nodes, inputs, specs)[0]:
        columns.setdefault(lookup.source, {})[lookup.place] = lookup.keys
    whole: dict[str, tuple[tuple[Any, ...], ...]] = {}
    for name, column in columns.items():
        if len(column) == inputs[name].row_size:
            whole[name] = tuple(column[place] for place in range(len(column)))
    return whole


def _lookup(
    column: Column,
    node: onnx.NodeProto,
    inputs: Mapping[str, Input],
    specs: Mapping[str, InputSpec],
) -> Lookup | None:
    """The keys of one column as its input would hold them.

    None where the card or a step before stands against it.
    """
    entry = inputs[column.source]
    spec = specs.get(column.source)
    if (spec is not None and spec.values) or any(
        step.kind not in ("cast", "impute") for step in column.maps
    ):
        return None
    replaced = {step.numbers[0] for step in column.maps if step.kind == "impute"}
    lookups = []
    for key in keys_of(node) or replaced_of(node):
        if _holds(entry, key) and key not in replaced:
            lookups.append(key)
    keys = tuple(lookups)
    return Lookup(*column.slot, keys, is_open(node)) if keys else None


def _holds(entry: Input, key: Any) -> bool:
    if entry.is_string or isinstance(key, str):
        return entry.is_string and isinstance(key, str)
    if entry.is_integer:
        low, high = entry.integer_range
        return float(key).is_integer() and low <= key <= high
    return True
