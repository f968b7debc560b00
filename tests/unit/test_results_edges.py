"""What is kept of runs at its edges: folders that are (not) there, other systems, spoilt files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from onnx_harness.errors import ResultsError
from onnx_harness.results import cache as caching
from onnx_harness.results import cache_root, files, locks
from onnx_harness.results.cache import Cache
from onnx_harness.results.cells import CellResult
from onnx_harness.results.codec import as_data, as_json, encode
from onnx_harness.results.diagnosis import Diagnosis
from onnx_harness.results.files import move_folder
from onnx_harness.results.history import FILE_NAME, History
from onnx_harness.results.levels import Level, write_levels
from onnx_harness.results.store import Results, ResultsWriter, read_results
from onnx_harness.results.union import unite_verdicts
from onnx_harness.results.verdicts import VerdictFiles, run_list
from tests.unit.results_examples import RUN, cell, latency

KEY, OTHER = "ab" * 32, "cd" * 32
ELSEWHERE = replace(RUN, command="pytest mödels", shards=())
FOREIGN = cell("simplify", detail=("größer",))


def write(folder: Path) -> None:
    (folder / "artifact").write_text("weights")


def test_what_is_written_is_ascii_whatever_the_names_are(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path, ELSEWHERE)
    writer.put(FOREIGN)
    writer.close()
    kept = VerdictFiles(tmp_path)
    kept.begin(ELSEWHERE)
    kept.put(FOREIGN, KEY)
    kept.put(FOREIGN, "")
    kept.close()
    assert kept.holds(KEY, FOREIGN)
    level = Level(FOREIGN, "A", 7, "night", "2026-11-29", "Jörg", "größer", ("mödels",))
    write_levels(tmp_path, {level.key: level})
    with History(tmp_path / FILE_NAME) as past:
        past.begin(ELSEWHERE)
        past.put(FOREIGN)
        rows = past._database.execute("SELECT json FROM runs UNION SELECT json FROM cells")
        texts = [text for (text,) in rows]
    written = [path for path in tmp_path.rglob("*.json*") if path.is_file()]
    assert len(written) > 3
    texts += [path.read_text("utf-8") for path in written]
    assert all(text.isascii() for text in texts)
    listed = run_list(ELSEWHERE, [(FOREIGN, "")])
    assert listed.isascii()
    assert json.loads(listed.splitlines()[0])["number"] == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: ResultsWriter(folder, RUN).close(),
        lambda folder: History(folder / FILE_NAME).close(),
        lambda folder: VerdictFiles(folder).begin(RUN),
        lambda folder: VerdictFiles(folder).put(cell(), KEY),
        lambda folder: Cache(folder).put("model", KEY, write),
        lambda folder: unite_verdicts(folder, Results(RUN, ()), []),
    ],
)
def test_a_folder_is_made_with_those_above_it_and_may_be_there(
    tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    folder = tmp_path / "a" / "b"
    make(folder)
    assert folder.is_dir()
    make(folder)


def test_a_folder_is_moved_to_where_there_is_none_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "a" / "b" / "failing cell"
    for name in ("1", "2"):
        source.mkdir()
        write(source)
        move_folder(source, target.with_name(name))
        assert [path.name for path in target.parent.glob(f"{name}/*")] == ["artifact"]
    assert sorted(path.name for path in target.parent.iterdir()) == ["1", "2"]
    assert not source.exists()
    source.mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(
        ResultsError, match=r"^a failing cell can't .*file.c: .*\(--report-dir\)"
    ):
        move_folder(source, tmp_path / "file" / "c")
    options: dict[str, Any] = {}
    moves = shutil.move

    def move(start: Path, end: Path) -> None:
        assert end.parent.parent == target.parent  # the same disk
        moves(start, end)

    monkeypatch.setattr(shutil, "move", move)
    scratch = tempfile.TemporaryDirectory

    def opened(**words: Any) -> Any:
        options.update(words)
        return scratch(**words)

    monkeypatch.setattr(tempfile, "TemporaryDirectory", opened)
    move_folder(source, target)
    # Hidden, beside its target, and no error where a scanner still has a file of it open.
    assert options == {"prefix": ".", "dir": target.parent, "ignore_cleanup_errors": True}


def test_a_key_is_the_hash_of_its_parts_in_one_form() -> None:
    text = '["\\u00f6",{"a":[2],"b":1}]'
    assert Cache.key("ö", {"b": 1, "a": (2,)}) == hashlib.sha256(text.encode()).hexdigest()


def test_what_cannot_be_removed_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = shutil.rmtree

    def removes(folder: Path, ignore_errors: bool = False) -> None:
        remove(folder, ignore_errors=True)
        if not ignore_errors:
            raise PermissionError(13, "not yours")

    monkeypatch.setattr(shutil, "rmtree", removes)
    cache = Cache(tmp_path, limit_bytes=0)
    folder = cache.put("kind", KEY, write)
    (folder / "artifact").write_text("")
    cache.put("kind", KEY, write)
    scratch = Path(tempfile.mkdtemp(dir=tmp_path))
    for owner in (os.getpid() + 1, os.getpid()):
        assert scratch.exists()
        caching._remove_scratch(scratch, os.open(scratch, os.O_RDONLY), owner)
    assert not scratch.exists()
    assert cache.prune(in_use_seconds=0) == 0
    assert cache.warnings == [f"The cache entry {folder} can't be removed: not yours."]


def test_what_is_being_written_is_no_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=0)
    inside = tmp_path / "artifacts" / ".unfinished" / "1-living" / "shelf"
    inside.mkdir(parents=True)
    (inside / "weights").write_text("x")
    assert cache.prune(in_use_seconds=0) == 0
    assert (inside / "weights").exists()


def test_an_entry_is_dropped_alone(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for key in (KEY, OTHER):
        cache.put("kind", key, write)
    cache.drop("kind", KEY)
    cache.drop("kind", KEY)  # another process was first
    assert (cache.get("kind", KEY), cache.get("kind", OTHER) is None) == (None, False)


def test_a_value_that_cannot_be_read_makes_way_for_one_that_can(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.remember("kind", OTHER, lambda: [1], as_data(list)) == [1]
    [file] = tmp_path.rglob("kind.*")
    assert file.name == "kind.data"
    planted = cache.put(
        "kind", KEY, lambda folder: (folder / file.name).write_bytes(file.read_bytes()[::-1])
    )
    assert cache._stored("kind", KEY, as_data(list)) is None
    assert not planted.exists()
    assert cache.remember("kind", KEY, lambda: [2], as_data(list)) == [2]
    assert cache.remember("kind", KEY, lambda: [3], as_data(list)) == [2]


def test_a_file_that_holds_no_such_value_says_so() -> None:
    with pytest.raises(ResultsError, match="it holds no list"):
        as_data(list).loads(as_data(dict).dumps({"a": 1}))
    with pytest.raises(ResultsError, match=r"^(?!None$)"):
        as_data(list).loads(b"nothing of ours")


def test_the_manifest_names_each_file_with_its_size_and_checksum(tmp_path: Path) -> None:
    def two(folder: Path) -> None:
        (folder / "b").write_text("12")
        (folder / "a").mkdir()
        (folder / "a" / "ö").write_text("1")

    folder = Cache(tmp_path).put("kind", KEY, two)
    manifest = (folder / ".manifest.json").read_bytes()
    assert json.loads(manifest) == {"a/ö": [1, crc32(b"1")], "b": [2, crc32(b"12")]}
    assert manifest.index(b"a/") < manifest.index(b'"b"')
    assert Cache(tmp_path).get("kind", KEY) == folder
    assert folder.stat().st_mode & 0o777 == 0o755


def test_the_last_few_values_are_held_in_memory(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made: list[int] = []

    def make() -> list[int]:
        made.append(1)
        return made

    for key in ("0", *"012345678", *"12345678", "0"):
        cache.remember("kind", key * 64, make, as_data(list), in_memory=True)
        cache.drop("kind", key * 64)
    assert len(made) == 10


def test_a_note_on_the_cache_is_there_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cache_root, "_fallback", [])
    monkeypatch.delenv("ONNX_HARNESS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert str(tmp_path) in cache_root.fallback_note()


def test_an_error_of_the_writer_for_the_moment_goes_through(tmp_path: Path) -> None:
    cache = Cache.temporary()

    def reads(_: Path) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "file" / "model.onnx").read_bytes()

    def raises(_: Path) -> None:
        raise OSError(5, "Input/output error")

    def twice(folder: Path) -> None:
        for _ in range(2):
            (folder / "a").mkdir()

    def gone(folder: Path) -> None:
        (folder / "no such folder" / "file").write_text("x")

    with pytest.raises(NotADirectoryError):
        cache.get_or_put("kind", KEY, reads)
    with pytest.raises(FileNotFoundError):
        cache.get_or_put("kind", KEY, gone)
    with pytest.raises(ResultsError, match=r"kind.abab.*: File exists.*\(TMPDIR\)"):
        cache.get_or_put("kind", KEY, twice)
    with pytest.raises(ResultsError, match=r"kind.abab.*: Input/output error.*\(TMPDIR\)"):
        cache.get_or_put("kind", KEY, raises)


def test_a_temporary_folder_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    with pytest.raises(
        ResultsError, match=rf"{tmp_path / 'file'}: Not a directory.*\(TMPDIR\)"
    ):
        Cache.temporary()


def test_a_file_system_without_locks_has_a_cache_and_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(95, "no locks here")

    for module in ("cache", "store"):
        monkeypatch.setattr(f"onnx_harness.results.{module}.lock", none)
    assert (Cache.temporary().get_or_put("kind", KEY, write) / "artifact").exists()
    assert Cache(tmp_path).put("kind", KEY, write).exists()
    writer = ResultsWriter(tmp_path, RUN)
    writer.put(cell())
    writer.finish()
    assert read_results(tmp_path).cells == (cell(),)


def test_a_lock_is_given_up_or_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handles = [os.open(tmp_path, os.O_RDONLY) for _ in range(2)]
    locks.lock(handles[0], wait=False)
    with pytest.raises(BlockingIOError):
        locks.lock(handles[1], wait=False)
    locks.unlock(handles[0])
    locks.lock(handles[1], wait=False)
    monkeypatch.setattr(locks, "fcntl", None)  # as on Windows
    locks.lock(handles[0], wait=False)
    locks.unlock(handles[0])
    for handle in handles:
        os.close(handle)


def test_a_system_that_opens_no_folders_keeps_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    open_ = os.open

    def opens(path: Any, flags: int, *mode: int) -> int:
        if Path(path).is_dir():
            opened.append(Path(path))
        return open_(path, flags, *mode)

    monkeypatch.setattr(os, "open", opens)
    VerdictFiles(tmp_path).put(cell(), KEY)
    assert set(opened) == {tmp_path, tmp_path / "verdicts", tmp_path / "verdicts" / KEY[:2]}
    opened.clear()
    monkeypatch.delattr(os, "O_DIRECTORY")  # as on Windows
    VerdictFiles(tmp_path).put(cell(), OTHER)
    assert opened == []


def test_a_diagnosis_has_each_key_in_its_document() -> None:
    document = Diagnosis("it rounds", evidence=("tried",)).as_json()
    assert list(document) == ["sentence", "cause", "smallest", "mend", "spent"]
    assert (document["sentence"], document["smallest"], document["mend"]) == (
        "it rounds",
        None,
        None,
    )


class Float(float):
    """A number by inheritance."""


def test_a_number_by_inheritance_is_a_number() -> None:
    assert encode([Float(0.5), Float("nan"), np.float64(1.5)]) == [0.5, None, 1.5]
    assert (as_json(Diagnosis).suffix, as_data(list).suffix) == ("json", "data")


def test_cells_that_outgrow_their_room_are_read_back(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path, RUN)
    small = [cell(name, latency=latency()) for name in ("original", "simplify", "fp16")]

    def cost(record: CellResult) -> int:
        """Put a cell into both files; the bytes that each took."""
        writer.put(record)
        before = sum(twin.bytes_written for twin in writer._twins)
        writer.put(record)
        return sum(twin.bytes_written for twin in writer._twins) - before

    writer.put_all(small)
    writer.put_all(small)
    assert b" ," not in (tmp_path / "results.json").read_bytes()
    grown = [replace(record, detail=("x" * 2000,)) for record in small]
    size = len(json.dumps(encode(grown[0])))
    for count, record in enumerate(grown, 1):
        # It moves everything behind it, and nothing before.
        assert cost(record) < size + (len(small) - count) * (size - 1000)
        assert read_results(tmp_path).cells == (*grown[:count], *small[count:])
    same = replace(grown[0], detail=("y" * 2000,))
    assert cost(same) < size + 100  # of the same length: what lies behind it stays as it is
    writer.put(cell("last"))
    assert b" \n" in (tmp_path / "results.json").read_bytes()
    assert (tmp_path / "results.json").stat().st_mode & 0o111 == 0
    writer.finish()
    assert read_results(tmp_path).cells == (same, *grown[1:], cell("last"))
    assert b" \n" not in (tmp_path / "results.json").read_bytes()


def test_the_disk_may_take_a_line_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda handle, data, at: pwrite(handle, data[:100], at)
    )
    writer = ResultsWriter(tmp_path, RUN)
    writer.put(cell())
    writer.close()
    assert read_results(tmp_path).cells == (cell(),)


def test_results_of_the_last_run_stay_until_there_is_a_verdict(tmp_path: Path) -> None:
    for again in range(2):
        writer = ResultsWriter(tmp_path, replace(RUN, seed=again))
        if again == 0:
            writer.put(cell())
        writer.finish()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json"]
    assert read_results(tmp_path) == Results(replace(RUN, seed=0), (cell(),))


def test_an_interrupted_replacement_is_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupts(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "open", interrupts)
    with pytest.raises(KeyboardInterrupt):
        files.replace_text(tmp_path / "file", "x")


def test_a_root_needs_to_be_written_and_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def access(_: Any, mode: int) -> bool:
        asked.append(mode)
        return True

    monkeypatch.setattr(os, "access", access)
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path))
    assert cache_root.cache_root() == tmp_path
    assert asked == [os.W_OK | os.X_OK]
