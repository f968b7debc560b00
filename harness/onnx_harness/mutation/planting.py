"""Choosing faults for a model, kind by kind in turn, and planting them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import onnx

from onnx_harness.model.file import Model
from onnx_harness.model.inference import infer_types
from onnx_harness.mutation import structure, weights
from onnx_harness.mutation.atlas import Atlas
from onnx_harness.mutation.faults import Edit, Fault, FaultKind

KINDS: Mapping[str, FaultKind] = {
    kind.name: kind for kind in (*weights.KINDS, *structure.KINDS)
}


def atlas_of(path: Path) -> Atlas:
    """Make the atlas of the model in ``path``; its external data stays where it is."""
    model = onnx.load(str(path), load_external_data=False)
    return Atlas(model, path.parent, infer_types(Model(path).skeleton, follow_sizes=True))


def choose(atlas: Atlas, count: int, seed: int) -> list[Fault]:
    """Choose up to ``count`` different faults, in turn among the kinds.

    So no kind outnumbers the others by its places. The same for the same model and seed, and a
    shorter list is the beginning of a longer one.
    """
    streams = {name: _stream(kind, atlas, seed) for name, kind in KINDS.items()}
    return list(islice(_in_turn(streams), count))


def planted(atlas: Atlas, fault: Fault) -> onnx.ModelProto:
    """Copy the model with ``fault`` in it, and nothing else changed."""
    edit = Edit(atlas, fault)
    KINDS[fault.kind].plant(edit)
    return edit.model


def _stream(kind: FaultKind, atlas: Atlas, seed: int) -> Iterator[Fault]:
    return kind.find(atlas, np.random.default_rng([seed, *kind.name.encode()]))


def _in_turn(streams: dict[str, Iterator[Fault]]) -> Iterator[Fault]:
    seen: set[Fault] = set()
    idle = 0
    while streams and idle < 64:  # kinds that never run out may have run out of new ones
        idle += 1
        for name in list(streams):
            fault = next(streams[name], None)
            if fault is None:
                del streams[name]
            elif fault not in seen:
                seen.add(fault)
                idle = 0
                yield fault
