"""Which paths a worker may open, one rule at a time, and what is tidied up after it."""

from __future__ import annotations

import fractions
import os
import pickle
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from onnx_harness.isolate import files, own_folder
from onnx_harness.isolate.files import VARIABLE, Files, allowed_paths, package_roots, pickled
from onnx_harness.isolate.landlock import CHANGE, DEVICE, READ, RUN
from onnx_harness.isolate.own_folder import CACHE_PREFIX, PREFIX, OwnFolder, remove_leftovers

Rule = tuple[str, int]


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    for name in ("m.onnx", "m.toml", "m.ort", "lib.so", "lib.dylib", "lib.dll", "data.npz"):
        (folder / name).touch()
    return folder


def added(made: Files) -> list[Rule]:
    """Return the rules beyond those of any worker."""
    usual = set(Files().rules() or ())
    rules = made.rules()
    assert rules is not None
    return [rule for rule in rules if rule not in usual]


def rule(path: Path, right: int = READ) -> Rule:
    return str(path), int(right)


@pytest.mark.parametrize(
    "name", ["m.onnx", "m.toml", "m.ort", "lib.so", "lib.dylib", "lib.dll"]
)
def test_what_has_neighbours_stands_for_its_folder(store: Path, name: str) -> None:
    assert added(Files([store / name])) == [rule(store)]
    assert added(Files([store / f"missing-{name}"])) == [rule(store / f"missing-{name}")]


def test_files_and_folders_stand_for_themselves(store: Path) -> None:
    assert added(Files([store / "data.npz"])) == [rule(store / "data.npz")]
    assert added(Files([store])) == [rule(store)]
    (store / "folder.onnx").mkdir()
    assert added(Files([store / "folder.onnx"])) == [rule(store / "folder.onnx")]


def test_a_relative_path_is_the_current_folder_s(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store)
    made = Files([Path("data.npz")], [Path("out")], [Path("more")])
    assert made.include([Path("m.onnx")])
    made.change(Path("later"))
    assert added(made) == [
        rule(store / "data.npz"),
        rule(store),
        rule(store / "more"),
        rule(store / "out", CHANGE),
        rule(store / "later", CHANGE),
    ]


def test_links_are_followed_and_a_store_is_asked_for(store: Path, tmp_path: Path) -> None:
    links, blobs = tmp_path / "links", tmp_path / "blobs"
    links.mkdir()
    (links / "m.onnx").symlink_to(store / "m.onnx")
    (links / "data.npz").symlink_to(store / "data.npz")
    asked: list[Path] = []

    def store_of(path: Path) -> Path | None:
        asked.append(path)
        return blobs if path.parent == links else None

    made = Files([links / "m.onnx", links / "data.npz", store / "m.onnx"], store_of=store_of)
    assert added(made) == [rule(links), rule(store), rule(blobs)]
    assert asked == [links / "m.onnx", store / "m.onnx"]
    assert added(Files([links / "data.npz"])) == [rule(store / "data.npz")]


def test_what_a_worker_may_open_already_is_nothing_new(store: Path, tmp_path: Path) -> None:
    made = Files([store / "data.npz"], [tmp_path / "out"], [tmp_path / "all"])
    assert not made.include([store / "data.npz"])
    assert not made.include([tmp_path / "out" / "a", tmp_path / "all" / "b" / "c"])
    assert not made.include([Path(sysconfig.get_paths()["purelib"]) / "numpy"])
    assert made.include([tmp_path / "out" / "a", store / "m.onnx"])
    assert not made.include([store / "lib.so", store / "below" / "data.npz"])
    assert not made.include([])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(store / "data.npz")
    fresh = Files([], [tmp_path / "out"])
    # A worker can make such a link itself.
    assert not fresh.include([tmp_path / "out" / "link"])


def test_modules_are_run_and_those_of_the_environment_are_nothing_new(
    tmp_path: Path,
) -> None:
    made = Files()
    module = tmp_path / "own.py"
    assert made.include([], [module])
    assert not made.include([], [module])
    assert not made.include([], [Path(os.__file__), Path(pytest.__file__)])
    assert made.include([tmp_path / "data"], [module])
    assert added(made) == [rule(module, RUN), rule(tmp_path / "data")]


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        ("", []),
        ("/a", ["/a"]),
        (os.pathsep.join(("/a", "", "/b/c")), ["/a", "/b/c"]),
        (os.pathsep, []),
    ],
)
def test_the_user_s_paths_are_separated_as_the_system_s(
    words: str, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert VARIABLE == "ONNX_HARNESS_ALLOW_READ"
    monkeypatch.setenv(VARIABLE, words)
    assert allowed_paths() == [Path(path) for path in paths]
    assert {rule(Path(path)) for path in paths} <= set(Files().rules() or ())
    monkeypatch.delenv(VARIABLE)
    assert allowed_paths() == []


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_of_the_user_s_own_folder_hidden_files_stay_closed(home: Path) -> None:
    for name in ("m.onnx", ".secret", "weights.bin"):
        (home / name).touch()
    (home / "models").mkdir()
    (home / ".ssh").mkdir()
    expected = {rule(home / name) for name in ("m.onnx", "weights.bin", "models")}
    assert set(added(Files([home / "m.onnx"]))) == expected
    above = set(added(Files([home.parent])))
    assert above == {rule(home)}
    (home / "models" / ".hidden").touch()
    assert added(Files([home / "models"])) == [rule(home / "models")]


ENVIRONMENT = [
    ("/usr", RUN),
    ("/lib64", RUN),
    ("/etc/ld.so.cache", READ),
    ("/etc/default/locale", READ),
    ("/proc/cpuinfo", READ),
    ("/proc/sys", READ),
    ("/proc/self", DEVICE),
    ("/dev/shm", CHANGE),
    ("/dev/null", DEVICE),
    ("/dev/dri", DEVICE),
]


def test_every_worker_may_open_the_system_s_own(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_CACHE_PATH", raising=False)
    rules = Files().rules() or ()
    assert {(path, int(right)) for path, right in ENVIRONMENT} <= set(rules)
    assert rule(home / ".nv", CHANGE) in rules
    assert not any(path in ("/", "/proc", "/etc", "/dev", str(home)) for path, _ in rules)
    monkeypatch.setenv("CUDA_CACHE_PATH", "/cuda-cache")
    changed = Files().rules() or ()
    assert ("/cuda-cache", int(CHANGE)) in changed
    assert rule(home / ".nv", CHANGE) not in changed


@pytest.mark.parametrize(
    "name", ["LD_LIBRARY_PATH", "CUDA_HOME", "VK_ICD_FILENAMES", "TZDIR"]
)
def test_folders_that_libraries_are_loaded_from_may_be_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    words = (
        "/libs/one",
        "",
        "/libs/a blank",
        str(home),
        str(home.parent),
        str(home / "libs"),
    )
    monkeypatch.setenv(name, os.pathsep.join(words))
    rules = set(Files().rules() or ())
    expected = {
        ("/libs/one", int(RUN)),
        ("/libs/a blank", int(RUN)),
        rule(home / "libs", RUN),
    }
    assert expected <= rules
    paths = {path for path, _ in rules}
    assert paths.isdisjoint({"", str(home), str(home.parent)})
    for variable in files._VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert all(path.startswith("/") for path, _ in Files().rules() or ())


def test_devices_of_a_family_are_found_by_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def glob(folder: Path, pattern: str) -> Iterator[Path]:
        asked.append((str(folder), pattern))
        yield folder / pattern.replace("*", "0")

    monkeypatch.setattr(Path, "glob", glob)
    found = [str(path) for path in files._devices()]
    assert ("/dev", "nvidia*") in asked
    assert {"/dev/null", "/dev/urandom", "/dev/nvidia0", "/dev/mali0"} <= set(found)
    assert all(path.startswith("/dev/") for path in found)


def test_roots_are_those_that_python_imports_from(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, link, current = tmp_path / "real", tmp_path / "link", tmp_path / "current"
    real.mkdir()
    current.mkdir()
    link.symlink_to(real)
    monkeypatch.chdir(current)
    monkeypatch.setattr(sys, "path", [str(link), "", str(home), *sys.path])
    editable, nested = ModuleType("editable_package"), ModuleType("editable_package.nested")
    editable.__path__ = [str(tmp_path / "editable"), str(real / "inside")]
    nested.__path__ = [str(tmp_path / "nested")]
    for module in (editable, nested, ModuleType("plain_module")):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    empty = SimpleNamespace(__path__=None)
    monkeypatch.setitem(sys.modules, "odd_module", empty)
    roots = list(package_roots())
    assert {link, real, current, Path(sys.prefix), Path(sys.base_prefix)} <= set(roots)
    assert Path(sysconfig.get_paths()["stdlib"]) in roots
    assert tmp_path / "editable" in roots
    assert not {home, tmp_path / "nested", real / "inside"} & set(roots)


def function_of_this_module() -> None:
    pass


def test_a_pickle_tells_the_paths_and_modules_that_it_names() -> None:
    value = {
        "a": [Path("x/y"), PurePosixPath("z"), Path("x/y")],
        "b": (fractions.Fraction, int),
    }
    data, paths, modules = pickled((function_of_this_module, value))
    assert paths == [Path("x/y"), Path("z")]
    assert Path(__file__).absolute() in modules
    assert Path(fractions.__file__).absolute() in modules
    assert all(module.is_absolute() for module in modules)
    assert pickle.loads(data) == (function_of_this_module, value)
    assert data[:2] == b"\x80" + bytes([pickle.HIGHEST_PROTOCOL])
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickled(lambda: None)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_worker_s_folder_has_a_place_for_each_kind_of_file(temporary: Path) -> None:
    own = OwnFolder()
    assert own.path.parent == temporary
    assert own.path.name.startswith(f"onnx-harness-worker-{os.getpid()}-")
    assert own.log == own.path / "log"
    assert own.log.read_bytes() == b""
    assert (own.temporary, own.given) == (own.path / "tmp", own.path / "given")
    assert own.temporary.is_dir()
    assert own.given.is_dir()
    place = str(own.temporary)
    assert own.variables == {"TMPDIR": place, "TEMP": place, "TMP": place}
    own.remove()
    assert list(temporary.iterdir()) == []
    own.remove()  # once more does nothing


def test_emptying_leaves_what_others_go_on_using_and_what_was_given(temporary: Path) -> None:
    own = OwnFolder()
    kept = {own.temporary / f"{CACHE_PREFIX}1", own.given / "file", own.log}
    (own.temporary / f"{CACHE_PREFIX}1").mkdir()
    (own.given / "file").touch()
    outside = temporary / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (own.temporary / "link").symlink_to(outside)
    (own.temporary / "file").touch()
    (own.temporary / "folder" / "deep").mkdir(parents=True)
    own.empty()
    assert list(own.temporary.iterdir()) == [own.temporary / f"{CACHE_PREFIX}1"]
    assert all(path.exists() for path in kept)
    assert (outside / "file").exists()
    own.remove()
    own.empty()  # where there's nothing it does nothing
    assert not own.path.exists()


@pytest.mark.usefixtures("temporary")
def test_a_forked_copy_tidies_up_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    own = OwnFolder()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        own.remove()
    assert own.log.is_file()
    own.remove()
    assert not own.path.exists()


DEAD, LIVING = 999_999_998, "LIVING"
"""The second stands for this process, whose number no name of a test may hold."""


@pytest.mark.parametrize(
    ("name", "age", "goes"),
    [
        (f"{PREFIX}{DEAD}-x", 2.0, True),
        (f"{PREFIX}{DEAD}-x", 0.5, False),  # it may be about to take its lock
        (f"{PREFIX}{LIVING}-x", 2.0, False),
        (f"{PREFIX}{LIVING}-x", 50.0, False),
        (f"{PREFIX}{LIVING}-x", 70.0, True),  # another process has the number now
        (f"{PREFIX}word-x", 2.0, True),
        (f"{PREFIX}{LIVING}", 2.0, False),
        (f"other-{PREFIX}{DEAD}-x", 70.0, False),
    ],
)
@pytest.mark.parametrize("is_folder", [True, False])
def test_what_is_left_over_goes(
    temporary: Path, name: str, age: float, goes: bool, is_folder: bool
) -> None:
    left = temporary / name.replace(LIVING, str(os.getpid()))
    if is_folder:
        (left / "below").mkdir(parents=True)
    else:
        left.touch()
    then = time.time() - age
    os.utime(left, (then, then))
    remove_leftovers()
    assert left.exists() is not goes


@pytest.mark.parametrize(
    ("name", "age", "goes"),
    [
        (f"{PREFIX}{DEAD}-x", 1.0, True),
        (f"{PREFIX}{DEAD}-x", 0.96875, False),
        (f"{PREFIX}{LIVING}-x", 60.0, False),
        (f"{PREFIX}{LIVING}-x", 60.03125, True),
    ],
)
def test_a_folder_is_young_for_a_second_and_its_number_its_own_for_a_minute(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, name: str, age: float, goes: bool
) -> None:
    left = temporary / name.replace(LIVING, str(os.getpid()))
    left.mkdir()
    os.utime(left, (1024.0, 1024.0))
    monkeypatch.setattr(time, "time", lambda: 1024.0 + age)
    remove_leftovers()
    assert left.exists() is not goes


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_cannot_be_removed_keeps_nothing_else(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, is_folder: bool
) -> None:
    for number in range(3):
        left = temporary / f"{PREFIX}{DEAD}-{number}"
        if is_folder:
            left.mkdir()
        else:
            left.touch()
        os.utime(left, (0, 0))
    removers = {"rmdir": os.rmdir, "unlink": os.unlink}
    refused: list[object] = []

    def refuses_once(name: str) -> Any:
        def remove(path: Any, **options: Any) -> None:
            if not refused:
                refused.append(path)
                raise PermissionError
            removers[name](path, **options)

        return remove

    for name in removers:
        monkeypatch.setattr(os, name, refuses_once(name))
    remove_leftovers()
    assert len(refused) == 1
    assert len(list(temporary.iterdir())) == 1


def test_what_is_somebody_else_s_or_locked_stays(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    left = temporary / f"{PREFIX}{DEAD}-x"
    left.mkdir()
    os.utime(left, (0, 0))
    handle = os.open(left, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    remove_leftovers()
    assert left.exists()
    os.close(handle)
    with monkeypatch.context() as patch:
        user = os.getuid()
        patch.setattr(os, "getuid", lambda: user + 1)
        remove_leftovers()
        assert left.exists()
    link = temporary / f"{PREFIX}{DEAD}-link"
    link.symlink_to(temporary)
    os.utime(link, (0, 0), follow_symlinks=False)
    remove_leftovers()
    assert not left.exists()
    assert link.is_symlink()  # what it leads to isn't looked at


def test_without_locks_the_number_of_the_process_alone_tells(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_folder, "fcntl", None)
    monkeypatch.setattr(psutil, "pid_exists", lambda number: number == 7)
    for name in ("7-x", "8-x"):
        (temporary / f"{PREFIX}{name}").mkdir()
        os.utime(temporary / f"{PREFIX}{name}", (0, 0))
    own = OwnFolder()
    assert sorted(path.name for path in temporary.iterdir()) == sorted(
        [f"{PREFIX}7-x", own.path.name]
    )
    own.remove()
    assert not own.path.exists()


def test_a_temporary_folder_that_is_gone_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    remove_leftovers()
    with pytest.raises(FileNotFoundError):
        OwnFolder()


@pytest.mark.usefixtures("temporary")
def test_a_file_system_without_locks_has_folders_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(*_: Any) -> None:
        raise OSError("no locks")

    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", refuses)
    own = OwnFolder()
    assert own.log.is_file()
    os.utime(own.path, (0, 0))
    remove_leftovers()
    assert own.path.exists()  # who can't ask for the lock leaves it
    own.remove()
    assert not own.path.exists()
