"""The files that a worker may open, by what its calls name."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from onnx_harness.isolate.files import VARIABLE, Files, pickled
from onnx_harness.isolate.landlock import CHANGE, READ
from onnx_harness.settings import Settings


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def readable(files: Files) -> set[Path]:
    rules = files.rules()
    assert rules is not None
    return {Path(path) for path, right in rules if right & READ}


@pytest.mark.parametrize("name", ["m.onnx", "m.model.toml", "libops.so"])
def test_models_cards_and_libraries_stand_for_their_folders(
    tmp_path: Path, name: str
) -> None:
    file = tmp_path / "store" / name
    file.parent.mkdir()
    file.touch()
    files = Files([file])
    assert file.parent in readable(files)
    assert not files.include([file.parent / "inputs.npz"])  # nothing new


def test_what_lies_below_a_package_is_nothing_new() -> None:
    files = Files()
    assert files.rules()
    example = (
        Path(onnx.__file__).parent / "backend" / "test" / "data" / "simple" / "model.onnx"
    )
    assert not files.include([example])


def test_another_file_stands_for_itself(tmp_path: Path) -> None:
    (tmp_path / "inputs.npz").touch()
    paths = readable(Files([tmp_path / "inputs.npz"]))
    assert tmp_path / "inputs.npz" in paths
    assert tmp_path not in paths


def test_a_link_leads_into_its_store(tmp_path: Path) -> None:
    for name in ("hub/blobs", "hub/snapshot"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "hub/blobs/0123").touch()
    (tmp_path / "hub/snapshot/m.onnx").symlink_to(tmp_path / "hub/blobs/0123")
    paths = readable(Files([tmp_path / "hub/snapshot/m.onnx"]))
    assert {tmp_path / "hub/blobs", tmp_path / "hub/snapshot"} <= paths


def test_a_path_that_leads_elsewhere_now_is_new(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.npz").touch()
    link = tmp_path / "link.npz"
    link.symlink_to(tmp_path / "first/m.npz")
    files = Files()
    assert files.include([link])
    assert not files.include([link])
    link.unlink()
    link.symlink_to(tmp_path / "second/m.npz")
    assert files.include([link])
    assert tmp_path / "second/m.npz" in readable(files)


def test_a_path_that_was_missing_and_is_a_link_now_is_new(tmp_path: Path) -> None:
    link, target = tmp_path / "link.npz", tmp_path / "store/m.npz"
    files = Files()
    assert files.include([link])
    assert not files.include([link])
    target.parent.mkdir()
    target.touch()
    link.symlink_to(target)
    assert files.include([link])
    assert target in readable(files)
    assert not files.include([link])


def test_a_module_outside_the_environment_is_new_once(tmp_path: Path) -> None:
    files = Files()
    assert files.include([], [tmp_path / "steps.py", Path(onnx.__file__)])
    assert not files.include([], [tmp_path / "steps.py", Path(onnx.__file__)])


def test_a_call_names_its_paths_however_deep_they_lie(tmp_path: Path) -> None:
    settings = Settings(custom_ops=(tmp_path / "libops.so",))
    _, paths, modules = pickled((len, ({"a": [settings]}, tmp_path / "m.onnx")))
    assert {tmp_path / "libops.so", tmp_path / "m.onnx"} <= set(paths)
    assert any(module.name == "__init__.py" for module in modules)  # of the settings


def test_the_root_lifts_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Files(allowed=[Path("/")]).rules() is None
    monkeypatch.setenv(VARIABLE, "/nowhere:/")
    assert Files().rules() is None


def test_what_is_to_be_changed_may_be_read(tmp_path: Path) -> None:
    files = Files(writable=[tmp_path])
    assert (str(tmp_path), int(CHANGE)) in (files.rules() or ())
    assert not files.include([tmp_path / "m.onnx"])
