"""``python -m tests.structures FOLDER`` writes each structure at both sizes, its inputs beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx

from tests.structures import SIZES, STRUCTURES

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for structure in STRUCTURES.values():
    for size in SIZES:
        stem = folder / f"{structure.name.replace(' ', '_')}_{size}"
        onnx.save(structure.model(size), stem.with_suffix(".onnx"))
        np.savez(stem.with_suffix(".npz"), **structure.inputs(size))
