"""A worker that an untrusted model took over can write into the cache: whoever reads it next runs
nothing of what it planted, and makes the value anew.
"""

from __future__ import annotations

import ast
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import onnx_harness
from onnx_harness.cell.matrix import named_card
from onnx_harness.inputs import InputSet
from onnx_harness.isolate.answers import pack
from onnx_harness.judging.reference import Reference, reference
from onnx_harness.model.file import Model
from onnx_harness.results.cache import Cache
from onnx_harness.results.codec import as_data
from onnx_harness.settings import Settings
from tests import models

WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)
ANSWERS = Reference(
    sets=(InputSet("set 1", {"x": WEIGHTS, "words": np.array(["a", "é"], object)}),),
    outputs=({"y": WEIGHTS.astype(np.float16), "rows": [WEIGHTS[0]], "maps": [{1: 0.5}]},),
    unstable=frozenset({"drawn"}),
    notes=("a note",),
)


class Bomb:
    """Makes a folder when somebody unpickles it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def plant(cache: Cache, kind: str, key: str, data: bytes) -> None:
    """Put bytes where the cache looks for a value, whatever the value's file is called."""

    def write(folder: Path) -> None:
        for suffix in ("data", "pickle", "json"):
            (folder / f"{kind}.{suffix}").write_bytes(data)

    cache.put(kind, key, write)


def remembered(cache: Cache) -> Reference:
    return cache.remember("reference", "ab12", lambda: ANSWERS, as_data(Reference))


def test_a_reference_comes_back_as_it_was(tmp_path: Path) -> None:
    first, second = remembered(Cache(tmp_path)), remembered(Cache(tmp_path))
    assert second is not first
    assert pack(second) == pack(ANSWERS)
    assert second.outputs[0]["y"].dtype == np.float16
    assert second.sets[0].digest() == ANSWERS.sets[0].digest()


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 8, pack(["not", "a", "reference"]), b"\xff" * 99]
)
def test_what_cannot_be_read_is_made_anew_and_kept(data: bytes, tmp_path: Path) -> None:
    plant(Cache(tmp_path), "reference", "ab12", data)
    assert remembered(Cache(tmp_path)) is ANSWERS
    assert remembered(Cache(tmp_path)) is not ANSWERS


def test_a_planted_pickle_is_not_run(tmp_path: Path) -> None:
    owned = tmp_path / "owned"
    bomb = pickle.dumps(Bomb(owned))
    plant(Cache(tmp_path), "reference", "ab12", bomb)
    assert remembered(Cache(tmp_path)) is ANSWERS
    assert not owned.exists()
    pickle.loads(bomb)  # it is a real one
    assert owned.is_dir()


def test_a_pickle_planted_in_every_entry_is_not_run_by_the_next_verdict(
    tmp_path: Path,
) -> None:
    """As the harness itself fills and asks its cache."""
    card = named_card(models.save(models.linear(), tmp_path / "plain.onnx"))
    model = Model(card.path, card.name)
    owned, bomb = tmp_path / "owned", pickle.dumps(Bomb(tmp_path / "owned"))
    first = reference(model, card, Settings(), Cache(tmp_path / "cache"))
    files = [
        path for path in (tmp_path / "cache").rglob("*") if path.suffix in {".data", ".json"}
    ]
    planted = [path for path in files if not path.name.startswith(".")]
    assert planted
    for path in planted:
        path.write_bytes(bomb.ljust(path.stat().st_size, b"\0")[: path.stat().st_size])
    again = reference(model, card, Settings(), Cache(tmp_path / "cache"))
    assert not owned.exists()
    assert pack(again) == pack(first)


def test_only_the_call_to_a_worker_is_unpickled() -> None:
    """What a worker unpickles is its parent's; nothing else in the package is."""
    folder = Path(onnx_harness.__file__).parent
    readers = {
        str(path.relative_to(folder))
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in {"pickle", "marshal", "shelve"}
        and node.attr in {"load", "loads", "Unpickler", "open"}
    }
    assert readers == {"isolate/serve.py"}
