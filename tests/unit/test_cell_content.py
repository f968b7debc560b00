"""Each thing that a verdict depends on, by itself: another one is another key, the same is the same."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from onnx_harness import providers, transforms
from onnx_harness.cell import content
from onnx_harness.cell.content import content_key, external_locations, model_digest
from onnx_harness.cell.matrix import Cell
from onnx_harness.errors import ModelError
from onnx_harness.model.scan import scan
from onnx_harness.names import Variant, parse_variant
from onnx_harness.providers import Provider
from onnx_harness.results.cache import Cache
from onnx_harness.settings import Settings
from onnx_harness.transforms import Transform
from tests.models import linear, save, with_external_data
from tests.unit.results_examples import RUN
from tests.unit.test_cell_parts import task_of

SETTINGS = Settings()


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_models", {})
    monkeypatch.setattr(content, "_last_run", [])
    content._of_parts.cache_clear()


def a_cell(
    path: Path, variant: str = "simplify", provider: str = "cpu", **card: Any
) -> Cell:
    return replace(task_of(path, variant, **card).cell, provider=provider)


OPTIONS = ("", "(skip_fuse_bn=True)", "(skip_fuse_bn=False)", "+ort.basic")
MACHINE = content.machine_of(RUN.host)


def test_each_part_of_a_key_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(linear(), tmp_path / "net.onnx")
    library = tmp_path / "ops.so"
    library.write_bytes(b"a library")
    monkeypatch.setattr(content, "libraries_digest", lambda libraries: f"of {libraries}")
    one, two = (library,), (library, library)

    def key(
        cell: Cell | None = None,
        settings: Settings = SETTINGS,
        machine: Any = MACHINE,
        digest: str | None = None,
    ) -> str:
        return content_key(cell or a_cell(path), path, settings, machine, digest)

    changes = {
        "nothing": key(),
        "a digest": key(digest="ab"),
        "a step": key(a_cell(path, "optimize")),
        "an option": key(a_cell(path, "simplify(skip_fuse_bn=True)")),
        "its value": key(a_cell(path, "simplify(skip_fuse_bn=False)")),
        "an id": key(replace(a_cell(path), card=replace(a_cell(path).card, name="other"))),
        "a provider": key(a_cell(path, provider="cuda")),
        "a library of the card": key(a_cell(path, custom_ops=one)),
        "two libraries": key(a_cell(path, custom_ops=two)),
        "a suite": key(a_cell(path, suite="s")),
        "a seed": key(settings=Settings(seed=3)),
        "a source": key(machine=replace(MACHINE, source="another")),
        "versions": key(machine=replace(MACHINE, versions={"onnx": "0"})),
        "a processor": key(
            machine=replace(MACHINE, host=replace(RUN.host, cpu="Another Processor"))
        ),
    }
    assert len(set(changes.values())) == len(changes)
    # Of a variant that the project names its id says nothing.
    named = [
        Variant("ours", parse_variant(f"simplify{options}").steps) for options in OPTIONS
    ]
    keys = {key(replace(a_cell(path), variant=variant)) for variant in named}
    assert len(keys) == len(OPTIONS)
    # Other facts of the machine decide no verdict; nor does whose a library is.
    assert key(machine=replace(MACHINE, host=replace(RUN.host, cores=99))) == key()
    assert key(machine=replace(MACHINE, fingerprint="x")) == key()
    libraries = Settings(custom_ops=one)
    assert key(settings=libraries) == changes["a library of the card"]
    assert key(a_cell(path, custom_ops=one), libraries) == changes["two libraries"]
    assert key(digest=model_digest(a_cell(path), path)) == key()
    monkeypatch.setattr(content, "this_machine", lambda: MACHINE)
    assert key(machine=None) == key()


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy_options": ({"a": "b"},)},
        {"environment": {"A": "b"}},
        {"load": linear},
    ],
)
def test_a_provider_s_declaration_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    path = save(linear(), tmp_path / "net.onnx")

    def key() -> str:
        content._of_parts.cache_clear()
        return content_key(a_cell(path), path, SETTINGS, MACHINE)

    before, registry = key(), cast("dict[str, Provider]", providers.registry())
    assert key() == before
    monkeypatch.setitem(registry, "cpu", replace(registry["cpu"], **change))
    assert key() != before


def test_a_transform_s_library_and_source_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(linear(), tmp_path / "net.onnx")
    registry = cast("dict[str, Transform]", transforms.registry())
    installed = {"library": "1", "other": "1"}
    monkeypatch.setattr(importlib.metadata, "version", installed.__getitem__)

    def key(variant: str = "planted") -> str:
        content._of_parts.cache_clear()
        return content_key(a_cell(path, variant), path, SETTINGS, MACHINE)

    def plant(apply: Callable[..., Any], *requires: str) -> None:
        planted = Transform("planted", apply, {"planted": {}}, requires=requires)
        monkeypatch.setitem(registry, "planted", planted)

    def own(made: Any) -> Any:
        return made

    plant(own, "library")
    keys = [key()]
    installed["library"] = "2"
    keys.append(key())
    installed["other"] = "2"
    assert key() == keys[-1]
    plant(own, "library", "other")
    keys.append(key())
    plant(linear, "library", "other")
    keys.append(key())
    plant(linear)
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_a_model_is_hashed_once_for_its_cells_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_external_data(tmp_path / "net.onnx", "weights.bin")
    card_file = tmp_path / "net.model.toml"
    card_file.write_text("# nothing")
    hashed: list[str] = []
    digest = content._digest

    def spy(file: Path) -> str:
        hashed.append(file.name)
        return digest(file)

    monkeypatch.setattr(content, "_digest", spy)
    card = a_cell(path).card
    cell = replace(a_cell(path), card=replace(card, path=card_file))
    first = model_digest(cell, path)
    assert sorted(hashed) == ["net.model.toml", "net.onnx", "weights.bin"]
    assert model_digest(replace(cell, provider="cuda"), path) == first
    assert len(hashed) == 3
    # a card without a file of its own has no digest but the model's
    hashed.clear()
    keys = {first, model_digest(a_cell(path), path)}
    assert sorted(hashed) == ["net.onnx", "weights.bin"]
    card_file.write_text("# another remark")
    keys.add(model_digest(cell, path))
    np.savez(tmp_path / "net.npz", x=np.zeros((1, 8), np.float32))
    hashed.clear()
    keys.add(model_digest(cell, path))
    assert sorted(hashed) == ["net.model.toml", "net.npz", "net.onnx", "weights.bin"]
    keys.add(model_digest(replace(cell, card=replace(cell.card, suite="s")), path))
    assert len(keys) == 5
    model_digest(cell, path)
    weights = tmp_path / "weights.bin"
    before = weights.stat()
    weights.write_bytes(bytes(reversed(weights.read_bytes())))
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    keys.add(model_digest(cell, path))
    assert len(keys) == 6
    weights.unlink()
    keys.add(model_digest(cell, path))
    assert len(keys) == 7
    other = save(linear(), tmp_path / "other.onnx")
    keys |= {model_digest(a_cell(other), other), model_digest(cell, path)}
    assert len(keys) == 8


def test_external_data_is_each_file_that_the_model_names(tmp_path: Path) -> None:
    path = with_external_data(tmp_path / "net.onnx", "b.bin")
    assert external_locations(scan(path)) == ["b.bin"]
    tensors: Any = [
        SimpleNamespace(external=external)
        for external in (
            {"location": "b"},
            {},
            {"location": "a", "offset": "1"},
            {"location": "b"},
        )
    ]
    assert external_locations(SimpleNamespace(tensors=tensors)) == ["a", "b"]  # type: ignore[arg-type]


def test_external_data_that_is_not_there_or_elsewhere_is_the_same_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "inside" / "net.onnx"
    path.parent.mkdir()
    (tmp_path / "outside.bin").write_bytes(b"1")
    (path.parent / "own.bin").write_bytes(b"1")
    names = ["own.bin", "gone.bin", "../outside.bin", "", "a\0b", "x" * 5000]
    monkeypatch.setattr(content, "scan", lambda _: None)
    monkeypatch.setattr(content, "external_locations", lambda _: names)
    own = content._digest(path.parent / "own.bin")
    hashes, states = content._of_external_data(path)
    assert hashes == [[name, own if name == "own.bin" else None] for name in names]
    assert [*states] == names
    assert [name for name in names if states[name] is None] == [
        "gone.bin",
        "a\0b",
        "x" * 5000,
    ]

    def fails(_: object) -> None:
        raise ModelError("it's cut")

    monkeypatch.setattr(content, "scan", fails)
    assert content._of_external_data(path) == (["it's cut"], {})
    monkeypatch.setattr(content, "libraries_digest", fails)
    assert content._of_libraries((path,)) == ["it's cut"]
    assert content._of_libraries(()) == []


def test_the_settings_of_a_run_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    make = Cache.key

    def spy(*parts: object) -> str:
        made.append(parts)
        return make(*parts)

    monkeypatch.setattr(content, "Cache", SimpleNamespace(key=spy))
    settings, machine = Settings(), replace(MACHINE)
    first = content._of_run(settings, machine)
    assert content._of_run(settings, machine) == first
    assert len(made) == 1
    # equal ones that are others are hashed anew, and one pair is kept
    assert content._of_run(Settings(), machine) == first
    assert content._of_run(Settings(), replace(machine, source="other")) != first
    assert content._of_run(settings, machine) == first
    assert len(made) == 4
    assert len(content._last_run) == 1


def test_paths_among_settings_are_written_as_text(tmp_path: Path) -> None:
    settings = Settings(allow_read=(tmp_path, tmp_path / "a"), variant=("x",), seed=4)
    deciding = content._deciding(settings)
    assert deciding["allow_read"] == [str(tmp_path), str(tmp_path / "a")]
    assert (deciding["seed"], deciding["cell_timeout"]) == (4, settings.cell_timeout)
    assert "variant" not in deciding
    assert deciding.keys() == Settings.__dataclass_fields__.keys() - content._NOT_DECIDING
    assert content._deciding(Settings())["allow_read"] == ()
