"""Commands leave a model in a folder of links to a worker: the parent never parses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_harness.cards import unlinked
from onnx_harness.cli import common
from onnx_harness.model import file
from tests.models import with_external_data


@pytest.fixture
def linked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A model whose external data are a link; to parse it in this process fails the test."""
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "models"
    folder.mkdir()
    path = with_external_data(folder / "m.onnx", "m.data")
    path.with_name("m.data").rename(folder / "real.data")
    path.with_name("m.data").symlink_to("real.data")

    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} is parsed in the parent")

    monkeypatch.setattr(file, "skeleton", refuse)
    return path


def test_a_worker_makes_the_copy_without_links(linked: Path, tmp_path: Path) -> None:
    _, path = common.find_model(linked)
    assert path.is_relative_to(tmp_path / "cache")
    assert not path.with_name("m.data").is_symlink()


def test_a_worker_that_names_another_file_is_not_believed(
    linked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lying:
        def __enter__(self) -> Lying:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def call(self, *_: object) -> Path:
            return Path("/etc/passwd")

    monkeypatch.setattr(common, "started_worker", lambda *_, **__: Lying())
    assert common.find_model(linked)[1] == linked


def test_without_links_no_worker_is_started(
    linked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked.with_name("m.data").unlink()
    linked.with_name("real.data").rename(linked.with_name("m.data"))
    monkeypatch.setattr(common, "started_worker", None)
    assert not unlinked.may_be_linked(linked)
    assert common.find_model(linked)[1] == linked
