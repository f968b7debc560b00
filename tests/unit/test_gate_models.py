"""The models that are kept beside the reference environment: all their files, once, or none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from onnx_harness.gate.models import forget, reference_model
from onnx_harness.model.file import Model
from tests.models import linear, save, with_external_data


def test_a_model_is_kept_in_a_folder_below_others_with_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    model = with_external_data(tmp_path / "net.onnx", "deep/deeper/weights.bin")
    store = tmp_path / "not" / "there"
    copied: list[Path] = []
    copies = shutil.copyfile

    def copying(source: Path, copy: Path) -> None:
        copied.append(copy)
        copies(source, copy)

    monkeypatch.setattr(shutil, "copyfile", copying)
    sha256 = Model(model).sha256
    for accepted in ("", sha256):
        assert reference_model(model, accepted, store) == (model, sha256)
    assert (store / sha256 / "deep" / "deeper" / "weights.bin").is_file()
    assert len(copied) == 2
    assert all(path.is_relative_to(store) for path in copied)
    assert [path.name for path in store.iterdir()] == [sha256]


def test_a_model_that_another_run_has_kept_meanwhile_is_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, store = save(linear(), tmp_path / "net.onnx"), tmp_path / "store"
    sha256 = Model(model).sha256

    def quicker(*_: Path) -> None:
        (store / sha256).mkdir()
        (store / sha256 / "theirs").touch()

    monkeypatch.setattr(shutil, "copyfile", quicker)
    assert reference_model(model, "", store) == (model, sha256)
    assert [path.name for path in store.rglob("*")] == [sha256, "theirs"]


def test_what_cannot_be_removed_from_the_store_is_left(tmp_path: Path) -> None:
    (tmp_path / "store" / "old").mkdir(parents=True)
    (tmp_path / "store" / "a file").touch()
    forget(tmp_path / "store", set())
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["a file"]
    forget(tmp_path / "nowhere", set())
