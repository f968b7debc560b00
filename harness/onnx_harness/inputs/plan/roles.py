"""The usual meaning of a dynamic dimension, by its name, its place and its neighbours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np

from onnx_harness.inputs.graph.signature import Input
from onnx_harness.inputs.graph.walk import Findings


class Role(StrEnum):
    """The usual meaning of a dynamic dimension; those of one role are changed together first."""

    BATCH = "batch"
    HEIGHT = "height"
    WIDTH = "width"
    SAMPLES = "samples"
    SEQUENCE = "sequence"
    PAST = "past"
    FIXED = "fixed"
    OTHER = "other"


_BATCH_NAME = re.compile(r"batch|^(n|b|bs)$", re.I)
_PAST_NAME = re.compile(r"past|cache", re.I)  # of a dimension, or of its input
_SAMPLES_NAME = re.compile(r"sample|audio|wave|pcm", re.I)
_SEQUENCE_NAME = re.compile(r"seq|token|time|frame|step|length|len$", re.I)
_HEIGHT_NAME = re.compile(r"height|^h$", re.I)
_WIDTH_NAME = re.compile(r"width|^w$", re.I)
_CHANNELS = (1, 3, 4)


def role_of(
    name: str,
    entry: Input,
    axis: int,
    inputs: Mapping[str, Input],
    findings: Findings,
    widest: int,
) -> Role:
    """Return the role of a dimension of an input.

    Args:
        name: of the dimension.
        entry: the input.
        axis: of the dimension in it.
        inputs: all of them, by name.
        findings: what the graph says of the input.
        widest: the most dimensions that an input has.
    """
    dims = entry.dims or ()
    rank = len(dims)
    for pattern, role in (
        (_BATCH_NAME, Role.BATCH),
        (_PAST_NAME, Role.PAST),
        (_HEIGHT_NAME, Role.HEIGHT),
        (_WIDTH_NAME, Role.WIDTH),
        (_SAMPLES_NAME, Role.SAMPLES),
    ):
        # A dimension without a name carries its input's: only names that the exporter gave count.
        named = not name.startswith(f"{entry.name}[") and pattern.search(name) is not None
        # n is a batch where batches are; of a vector it is as likely the length.
        if named and not (
            role is Role.BATCH and len(name) <= 2 and not _may_be_batch(axis, dims, widest)
        ):
            return role
    if axis and _PAST_NAME.search(entry.name):
        return Role.PAST
    if axis == 0 and rank > 1:
        return Role.BATCH
    # [2, ?, 128]: a state of layers x batch x width, beside an input whose first axis is the batch.
    if rank == 3 and axis == 1 and isinstance(dims[0], int) and isinstance(dims[2], int):
        others = []
        for input_entry in inputs.values():
            if input_entry is not entry and input_entry.dims:
                others.append(input_entry)
        if any(isinstance((input_entry.dims or (0,))[0], str) for input_entry in others):
            return Role.BATCH
    if rank == 4 or (rank == 3 and (dims[-1] in (3, 4) or dims[0] == 3)):
        return _role_in_image(axis, dims)
    if (
        axis == rank - 1
        and (entry.is_float or entry.dtype == np.int16)
        and (findings.is_signal or _SAMPLES_NAME.search(entry.name))
    ):
        return Role.SAMPLES
    if _SEQUENCE_NAME.search(name) or (axis == 1 and rank in (2, 3)):
        return Role.SEQUENCE
    return Role.OTHER


def _role_in_image(axis: int, dims: Sequence[int | str]) -> Role:
    rank = len(dims)
    channels_last = dims[-1] in _CHANNELS and not (rank == 4 and dims[1] in _CHANNELS)
    height, width = (rank - 3, rank - 2) if channels_last else (rank - 2, rank - 1)
    return {height: Role.HEIGHT, width: Role.WIDTH}.get(axis, Role.OTHER)


def _may_be_batch(axis: int, dims: Sequence[int | str], widest: int) -> bool:
    """Return whether a batch is usual there: first, or second behind the time or the layers."""
    return (axis == 0 and widest > 1) or (axis == 1 and len(dims) == 3 and dims[0] != 1)
