"""The cache: whole entries only, whoever dies, whoever else writes, however full the disk is."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onnx_harness.errors import ResultsError
from onnx_harness.results.cache import Cache
from onnx_harness.results.cache_root import cache_root, fallback_note

KEY = Cache.key("an artifact")


def write(text: str) -> Callable[[Path], None]:
    def writer(folder: Path) -> None:
        (folder / "artifact").write_text(text)

    return writer


def entry(cache: Cache, name: str, *, used: float, size: int) -> Path:
    """An entry of ``size`` bytes that was used ``used`` seconds ago."""
    folder = cache.put("model", Cache.key(name), write("x" * size))
    os.utime(folder, (time.time() - used, time.time() - used))
    return folder


@pytest.fixture
def full_disk() -> Iterator[None]:
    """As good as a full disk: no file of this process grows beyond 2,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_the_root_is_the_named_folder_before_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "named"))
    assert cache_root() == tmp_path / "named"
    assert (tmp_path / "named").is_dir()
    monkeypatch.delenv("ONNX_HARNESS_CACHE")
    assert cache_root() == tmp_path / "xdg" / "onnx-harness"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "onnx-harness"


def test_a_root_that_cannot_be_made_says_where_and_which_variable_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        ResultsError, match=r"file: .*MB free there.*move it away.*\$ONNX_HARNESS_CACHE"
    ):
        cache_root()


def test_a_root_that_is_read_only_gives_way_to_the_temporary_folder_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("ONNX_HARNESS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")  # nobody can make a folder there
    root = cache_root()
    assert root.parent == tmp_path
    assert "Mend: set $ONNX_HARNESS_CACHE to a folder" in fallback_note()
    assert str(root) in fallback_note()


def test_a_user_without_a_home_has_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("ONNX_HARNESS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)
    assert cache_root().parent == tmp_path


def test_a_key_depends_on_every_part_and_not_on_the_order_of_options() -> None:
    assert Cache.key("a", {"x": 1, "y": 2.5}) == Cache.key("a", {"y": 2.5, "x": 1})
    assert (
        len(
            {
                Cache.key("a", "b"),
                Cache.key("ab"),
                Cache.key("b", "a"),
                Cache.key(["a", "b"]),
                Cache.key("a", None),
            }
        )
        == 5
    )
    with pytest.raises(TypeError):
        Cache.key(object())


def test_what_was_put_is_got_by_another_process_too(tmp_path: Path) -> None:
    folder = Cache(tmp_path).put("model", KEY, write("weights"))
    again = Cache(tmp_path).get("model", KEY)
    assert again == folder
    assert (folder / "artifact").read_text() == "weights"
    assert Cache(tmp_path).get("reference", KEY) is None


def test_getting_marks_an_entry_as_used(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    folder = entry(cache, "old", used=5000, size=10)
    cache.get("model", Cache.key("old"))
    assert time.time() - folder.stat().st_mtime < 60


def test_a_writer_that_raises_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fail(folder: Path) -> None:
        write("half")(folder)
        raise ValueError("no such node")

    with pytest.raises(ValueError, match="no such node"):
        cache.put("model", KEY, fail)
    assert cache.get("model", KEY) is None
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_error_of_the_writer_about_another_file_goes_through(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()

    def read_elsewhere(folder: Path) -> None:
        (folder / "artifact").write_bytes(
            (tmp_path / "elsewhere" / "model.onnx").read_bytes()
        )

    with pytest.raises(NotADirectoryError):
        Cache(tmp_path / "cache").put("model", KEY, read_elsewhere)


def test_a_killed_writer_leaves_nothing_visible_and_its_leftovers_are_removed(
    tmp_path: Path,
) -> None:
    code = """
import os, sys
from pathlib import Path
from onnx_harness.results.cache import Cache
def die(folder):
    (folder / "artifact").write_text("half")
    os.kill(os.getpid(), 9)
Cache(Path(sys.argv[1])).put("model", sys.argv[2], die)
"""
    died = subprocess.run([sys.executable, "-c", code, tmp_path, KEY], check=False)
    assert died.returncode == -signal.SIGKILL
    cache = Cache(tmp_path)
    assert cache.get("model", KEY) is None
    [leftover] = (tmp_path / "artifacts" / ".unfinished").iterdir()
    os.utime(leftover, (1, 1))
    cache.prune()
    assert not leftover.exists()


def test_a_living_writers_folder_is_left_alone_however_old(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def write_slowly(folder: Path) -> None:
        write("weights")(folder)
        os.utime(folder, (1, 1))
        Cache(tmp_path).prune()

    assert (cache.put("model", KEY, write_slowly) / "artifact").read_text() == "weights"


def test_many_processes_may_put_the_same_entry(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from onnx_harness.results.cache import Cache
def write(folder):
    for name in "abc":
        (folder / name).write_text("x" * 50_000)
for number in range(40):
    key = Cache.key(number)
    folder = Cache(Path(sys.argv[1])).get_or_put("model", key, write)
    assert [len((folder / name).read_text()) for name in "abc"] == [50_000] * 3
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, tmp_path]) for _ in range(4)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0, 0]
    assert list((tmp_path / "artifacts" / ".unfinished").iterdir()) == []
    assert len(list((tmp_path / "artifacts" / "model").glob("*/*"))) == 40


WEIGHTS = "weights " * 500_000  # more than is read for every cell


@pytest.mark.parametrize(
    ("text", "damaged"),
    [
        ("weights", ""),
        ("weights", "\0" * 7),
        ("weights", "weighty"),
        (WEIGHTS, WEIGHTS[:-4096] + "\0" * 4096),
        (WEIGHTS, WEIGHTS[:500_000] + "\0" * 100_000 + WEIGHTS[600_000:]),
    ],
    ids=["empty", "zeros", "a flipped bit", "zeros at the end", "zeros amid a large file"],
)
def test_a_damaged_entry_is_not_got_and_is_replaced(
    tmp_path: Path, text: str, damaged: str
) -> None:
    cache = Cache(tmp_path)
    folder = cache.put("model", KEY, write(text))
    (folder / "artifact").write_text(damaged)  # what a power cut leaves
    assert cache.get("model", KEY) is None
    cache.put("model", KEY, write(text))
    assert (folder / "artifact").read_text() == text
    assert cache.get("model", KEY) == folder


@pytest.mark.parametrize(
    "manifest", ["{}", "[]", "null", "[" * 5000, '{"artifact": {}}', "7"]
)
def test_an_entry_whose_list_of_files_is_damaged_is_not_got(
    tmp_path: Path, manifest: str
) -> None:
    cache = Cache(tmp_path)
    folder = cache.put("model", KEY, write("weights"))
    (folder / ".manifest.json").write_text(manifest)
    assert cache.get("model", KEY) is None


def test_an_entry_of_an_earlier_version_is_got_by_its_sizes(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    folder = cache.put("model", KEY, write("weights"))
    (folder / ".manifest.json").write_text('{"artifact": 7}')
    assert cache.get("model", KEY) == folder
    (folder / ".manifest.json").write_text('{"artifact": 8}')
    assert cache.get("model", KEY) is None
    cache.put("model", KEY, write("weights"))
    assert (folder / "artifact").read_text() == "weights"
    assert cache.get("model", KEY) == folder


def test_pruning_removes_the_least_recently_used_above_the_limit(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=2500)
    oldest, older, newest = (
        entry(cache, str(used), used=used, size=1000) for used in (9000, 8000, 7000)
    )
    assert cache.prune() >= 1000
    assert [folder.exists() for folder in (oldest, older, newest)] == [False, True, True]


def test_pruning_spares_what_a_run_may_be_reading(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=0)
    old, recent = (
        entry(cache, "old", used=9000, size=10),
        entry(cache, "recent", used=60, size=10),
    )
    cache.prune()
    assert [folder.exists() for folder in (old, recent)] == [False, True]


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(
        ResultsError,
        match=r"cache can't be written at .*MB free.*Mend: .*\$ONNX_HARNESS_CACHE",
    ):
        cache.put("model", KEY, write("x" * 5000))
    assert cache.get("model", KEY) is None


def test_a_run_goes_on_without_a_cache_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    (tmp_path / "artifacts").touch()  # stands where the folder should be
    cache = Cache(tmp_path)
    first = cache.get_or_put("model", KEY, write("weights"))
    second = cache.get_or_put("model", Cache.key("another"), write("others"))
    assert ((first / "artifact").read_text(), (second / "artifact").read_text()) == (
        "weights",
        "others",
    )
    assert cache.get_or_put("model", KEY, write("never asked")) == first
    [warning] = cache.warnings
    assert warning.startswith("Going on without a cache. The cache can't be written at ")
    del cache
    assert list(temporary.iterdir()) == []


def test_a_folder_above_that_may_not_be_written_is_the_caches_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "shared"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        ResultsError,
        match=r"cache can't be written at .*: Permission denied.*mend its permissions",
    ):
        Cache(tmp_path / "shared" / "mine").put("model", KEY, write("weights"))


@pytest.mark.usefixtures("full_disk")
def test_without_room_anywhere_the_error_names_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ResultsError, match=r"temporary artifact can't be written .*TMPDIR"):
        Cache(tmp_path / "cache").get_or_put("model", KEY, write("x" * 5000))


def test_pruning_is_due_once_an_hour(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=0)

    def put_an_old_entry() -> None:
        def write(folder: Path) -> None:
            (folder / "x").write_bytes(b"12345")

        os.utime(cache.put("model", cache.key("a"), write), (0, 0))

    put_an_old_entry()
    assert cache.prune_if_due() > 0
    put_an_old_entry()
    assert cache.prune_if_due() == 0
