"""Changes that make smaller what two models differ by: see `onnx_harness.diagnose.moves`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_harness.diagnose.moves import duplicate
from onnx_harness.diagnose.smaller_case import Array, Case


def differing(case: Case) -> list[str]:
    """Return the weights of numbers that both models have, with other values in the same form."""
    if case.other is None:
        return []
    names = []
    others = {tensor.name: tensor for tensor in case.other.graph.initializer}
    for tensor in case.model.graph.initializer:
        twin = others.get(tensor.name)
        if twin is None or tensor.data_type == onnx.TensorProto.STRING:
            continue
        same_form = (tensor.data_type, *tensor.dims) == (twin.data_type, *twin.dims)
        if same_form and places(case, tensor.name):
            names.append(tensor.name)
    return names


def places(
    case: Case,
    name: str,
) -> list[int]:
    """Return the positions in the flat arrays of a weight at which two models differ."""
    first, second = _arrays(case, name)
    return [int(place) for place in np.flatnonzero(first != second)]


def differing_at(
    case: Case,
    name: str,
    chosen: Sequence[int],
) -> Case:
    """Return the case whose other model differs in a weight only at some of the positions."""
    first, second = _arrays(case, name)
    mixed = np.array(first).reshape(-1)
    mixed[list(chosen)] = second.reshape(-1)[list(chosen)]
    return _with_pair(case, name, first, mixed.reshape(first.shape))


def simpler(
    case: Case,
    name: str,
) -> Iterator[Case]:
    """Yield the case with a weight of zeros or ones, and 1 or the same more where it differs."""
    first, second = _arrays(case, name)
    if first.dtype.kind == "b":
        return
    mask = first != second
    with np.errstate(all="ignore"):
        difference = second - first
        for base in (np.zeros_like(first), np.ones_like(first)):
            for more in (np.ones_like(first), difference):
                twin = np.where(mask, base + more, base).astype(first.dtype)
                if not np.array_equal(base, first):
                    yield _with_pair(case, name, base, twin)
        yield _with_pair(
            case, name, first, np.where(mask, first + np.ones_like(first), first)
        )


def _arrays(
    case: Case,
    name: str,
) -> list[Array]:
    arrays = []
    for model in case.models:
        tensor = next(entry for entry in model.graph.initializer if entry.name == name)
        arrays.append(numpy_helper.to_array(tensor))
    return arrays


def _with_pair(
    case: Case,
    name: str,
    first: Array,
    second: Array,
) -> Case:
    """Return the case with a weight of its own in each of the models."""
    changed = duplicate(case)
    for model, array in zip(changed.models, (first, second), strict=True):
        for tensor in model.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(array, name))
    return changed
