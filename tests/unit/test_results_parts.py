"""Parts of what is kept of a run: errors of a disk, the machine's head, levels, pruning, codecs."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_harness.errors import ResultsError
from onnx_harness.results import cache_root as roots
from onnx_harness.results import run as heads
from onnx_harness.results.cache import Cache
from onnx_harness.results.cells import PinnedRecord, Status
from onnx_harness.results.codec import as_data, as_json, decode, encode
from onnx_harness.results.files import cannot_write, move_folder, replace_text
from onnx_harness.results.gated import Finding, gravest
from onnx_harness.results.levels import (
    FILE_NAME,
    Level,
    read_levels,
    sole_writer,
    trimmed,
    write_levels,
)
from onnx_harness.results.operators import OperatorRecord, SlowerOperator
from onnx_harness.results.outcome import Outcome
from onnx_harness.results.pruning import prune, remove_stale, subfolders
from onnx_harness.results.run import gather, moment_of, this_host, versions
from onnx_harness.results.timings import LevelVerdict
from tests.unit.results_examples import RUN, cell, latency

FREE = SimpleNamespace(free=12_345_678)


@pytest.mark.parametrize(
    ("code", "mend"),
    [
        (errno.ENOSPC, "free some space there, or choose another folder"),
        (
            errno.EDQUOT,
            "the disk quota is used up: free some space there, or choose another",
        ),
        (
            errno.EFBIG,
            "a file-size limit (ulimit -f) is in the way: raise it, or choose another",
        ),
        (errno.EROFS, "the file system is read-only: choose another folder"),
        (errno.EACCES, "mend its permissions, or choose another folder"),
        (errno.EPERM, "mend its permissions, or choose another folder"),
        (
            errno.ENOTDIR,
            "a file stands where a folder is needed: move it away, or choose another",
        ),
        (
            errno.EEXIST,
            "a file stands where a folder is needed: move it away, or choose another",
        ),
        (errno.EIO, "the disk reports an error: choose a folder on another one"),
        (errno.ENOENT, "choose another folder"),
    ],
)
def test_an_error_of_the_disk_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, code: int, mend: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: FREE)
    said = str(cannot_write("the report", Path("/a/b"), OSError(code, "no"), "--report-dir"))
    assert said.startswith(
        "the report can't be written at /a/b: no (12 MB free there). Mend: "
    )
    assert f"Mend: {mend}" in said
    assert said.endswith(" (--report-dir).")


def test_the_space_is_that_of_the_nearest_folder_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Path] = []

    def usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        if folder != tmp_path:
            raise FileNotFoundError(folder)
        return FREE

    monkeypatch.setattr(shutil, "disk_usage", usage)
    error = cannot_write("x", tmp_path / "a" / "b", OSError("odd"), "y")
    assert "odd (12 MB free there). Mend: choose another folder (y)." in str(error)
    assert asked == [tmp_path / "a" / "b", tmp_path / "a", tmp_path]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _raise(OSError()))
    assert "odd. Mend" in str(cannot_write("x", tmp_path, OSError("odd"), "y"))


def _raise(error: Exception) -> Any:
    raise error


def test_a_text_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    replace_text(path, "one\r\ntwo\nö\ud800")
    assert path.read_bytes() == b"one\r\ntwo\n\xc3\xb6\\ud800"

    def refuses(*_: object) -> None:
        assert len(list(tmp_path.iterdir())) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", refuses)
    with pytest.raises(KeyboardInterrupt):
        replace_text(path, "three")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes().startswith(b"one")


SLOWER = SlowerOperator("gru_3", "GRU", 1.4, 2.1, (1.47, 1.53), 0.97)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (SLOWER, "gru_3 (GRU): 1.4 -> 2.1 ms [+47%, +53%], 97% of the slowdown"),
        (
            replace(SLOWER, name="GRU_3", ratio_ci95=None, before_ms=0.0),
            "GRU_3: 0 -> 2.1 ms, 97% of the slowdown",
        ),
        (OperatorRecord(reason="it died"), "which operator got slower isn't known: it died"),
        (
            OperatorRecord((), 16),
            "no operator stands out in 16 pairs of profiled sessions",
        ),
        (
            OperatorRecord((replace(SLOWER, ratio_ci95=None),) * 2, 16),
            "slower operators: gru_3 (GRU): 1.4 -> 2.1 ms, 97% of the slowdown; "
            "gru_3 (GRU): 1.4 -> 2.1 ms, 97% of the slowdown",
        ),
    ],
)
def test_operators_that_got_slower_in_words(record: object, words: str) -> None:
    assert str(record) == words


def test_a_run_is_as_its_gravest_finding() -> None:
    order = [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.INVALID, Outcome.FAIL]
    assert gravest(()) is Outcome.PASS
    for place, grave in enumerate(order):
        findings = [Finding(outcome, "x", "y") for outcome in order[: place + 1]]
        assert gravest(tuple(findings)) is grave
        assert gravest(tuple(findings[::-1])) is grave


@pytest.mark.parametrize(
    ("started", "moment"),
    [
        ("2026-11-29T10:00:00+00:00", datetime(2026, 11, 29, 10, tzinfo=UTC)),
        ("2026-11-29T10:00:00", datetime(2026, 11, 29, 10, tzinfo=UTC)),
        ("2026-11-29T10:00:00+02:00", datetime(2026, 11, 29, 8, tzinfo=UTC)),
        ("yesterday", None),
    ],
)
def test_a_run_s_time_has_a_zone_or_cannot_be_read(
    started: str, moment: datetime | None
) -> None:
    assert moment_of(replace(RUN, started=started)) == moment


def test_the_head_of_a_run_describes_it_and_its_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    head = gather("pytest x", 5, {"cuda": "A GPU"})
    began = datetime.fromisoformat(head.started)
    assert before <= began <= datetime.now(UTC)
    assert began.utcoffset() is not None
    assert head.id.startswith(f"{began:%Y%m%dt%H%M%Sz}-")
    assert len(head.id) == len("20261104t021503z-9f3a61c2")
    assert (head.command, head.seed, head.host.devices) == ("pytest x", 5, {"cuda": "A GPU"})
    assert head.versions == versions()
    assert platform.platform() in dataclasses.astuple(head.host)
    assert head.host.cores == len(os.sched_getaffinity(0))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert head.host.memory_bytes == pages
    host = head.host
    assert host.processor_of("cuda") == f"{host.cpu}, A GPU"
    assert host.processor_of("cpu") == host.cpu
    assert this_host().devices == {}
    monkeypatch.setattr(os, "sysconf", lambda _: _raise(ValueError()))
    assert this_host().memory_bytes == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(99)))
    assert this_host().cores == 99
    monkeypatch.delattr(os, "sched_getaffinity")
    for count, cores in ((7, 7), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert this_host().cores == cores


@pytest.mark.parametrize(
    ("text", "fallbacks", "name"),
    [
        (
            "processor : 0\nmodel name\t: A Processor: 3\nmodel name : Other\n",
            ("p", "m"),
            None,
        ),
        ("Hardware : BCM2835\n", ("p", "m"), "BCM2835"),
        ("processor : 0\n", ("p", "m"), "p"),
        ("processor : 0\n", ("", "m"), "m"),
        ("", ("", ""), "unknown"),
        (None, ("p", ""), "p"),
    ],
)
def test_the_processor_is_named_by_what_the_system_says(
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    fallbacks: tuple[str, str],
    name: str | None,
) -> None:
    def reads(self: Path, *how: str) -> str:
        assert (str(self), how) == ("/proc/cpuinfo", ("utf-8", "replace"))
        return _raise(OSError()) if text is None else text

    monkeypatch.setattr(Path, "read_text", reads)
    monkeypatch.setattr(platform, "processor", lambda: fallbacks[0])
    monkeypatch.setattr(platform, "machine", lambda: fallbacks[1])
    assert heads._processor() == (name or "A Processor: 3")


def test_what_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "onnx":
            raise importlib.metadata.PackageNotFoundError(name)
        return f"1 of {name}"

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == "1 of numpy"
    assert "onnx" not in found
    assert set(found) == {"python", *heads.DISTRIBUTIONS} - {"onnx"}


PINNED = PinnedRecord(
    {"onnx": "1"},
    Status.PASS,
    "why",
    "ab",
    ratio=1.0,
    ratio_ci95=(0.9, 1.1),
    log_ratios=(0.1, 0.2),
    confirming_log_ratios=(0.3,) * 8,
    samples=5,
    median_ms=2.0,
    verdict=LevelVerdict(Outcome.PASS, 1.0, 0.5, 1.2, (1.1, 1.3), 8),
    operators=OperatorRecord(),
    graph=cell().graph,
    accuracy=cell().accuracy,
)


def test_a_level_has_nothing_that_differs_from_run_to_run() -> None:
    night = cell(
        pinned=PINNED, latency=latency(), notes=("a",), detail=("b",), card_sha256="c1"
    )
    level = trimmed(night)
    assert (level.detail, level.notes, level.seconds, level.latency) == ((), (), {}, None)
    assert level.graph == (night.graph and replace(night.graph, transform_seconds=0.0))
    assert (level.accuracy, level.placement, level.card_sha256) == (
        night.accuracy,
        night.placement,
        "c1",
    )
    kept = PinnedRecord({"onnx": "1"}, Status.PASS, None, "ab", median_ms=2.0)
    kept = replace(kept, ratio=PINNED.night_ratio, ratio_ci95=PINNED.night_ci95)
    assert level.pinned == kept
    bare = trimmed(cell(graph=None))
    assert (bare.graph, bare.pinned) == (None, None)


def a_level(name: str = "original", processor: str = "A Processor") -> Level:
    return Level(cell(name), processor, 7, "night", "2026-11-29", "me", "why", ("models",))


def test_levels_are_written_in_order_and_read_back(tmp_path: Path) -> None:
    levels = [a_level("simplify"), a_level(), a_level(processor="Another")]
    with sole_writer(tmp_path / "new"):
        write_levels(tmp_path / "new", {level.key: level for level in levels})
    lines = (tmp_path / "new" / FILE_NAME).read_text("utf-8").splitlines()
    keys = [(row["cell"]["id"], row["processor"]) for row in map(json.loads, lines)]
    assert keys == sorted(level.key for level in levels)
    assert list(read_levels(tmp_path / "new").values()) == sorted(
        levels, key=lambda each: each.key
    )
    assert ', "' in lines[0]
    assert '": ' in lines[0]
    assert read_levels(tmp_path) == {}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda text: text[:-1], "are cut short: restore them from git"),
        (
            lambda text: "{}\n" + text,
            "line 1: level.cell is missing. Restore the file from git",
        ),
        (lambda text: text + "[]\n", "line 2: level should be an object, and is []"),
        (lambda text: text + "{\n", "line 2: Expecting"),
        (lambda text: text * 2, "have two of net-original-cpu on A Processor: keep one"),
        (lambda text: text + "[" * 100_000 + "\n", "line 2: "),
    ],
)
def test_spoilt_levels_are_refused_where_they_are_spoilt(
    tmp_path: Path, spoil: Callable[[str], str], words: str
) -> None:
    write_levels(tmp_path, {a_level().key: a_level()})
    path = tmp_path / FILE_NAME
    path.write_text(spoil(path.read_text("utf-8")), "utf-8")
    with pytest.raises(ResultsError) as told:
        read_levels(tmp_path)
    assert str(told.value).startswith(f"the accepted levels {path}")
    assert words in str(told.value)


def test_levels_that_are_no_text_or_in_no_folder_are_told(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"\xff\n")
    with pytest.raises(ResultsError, match=r"can't be read: .*Restore them from git"):
        read_levels(tmp_path)
    for writes in (write_levels, lambda folder, _: sole_writer(folder).__enter__()):
        with pytest.raises(
            ResultsError, match=r"the accepted levels can't be .*--report-dir"
        ):
            writes(tmp_path / FILE_NAME / "x", {})


def entry(root: Path, name: str, size: int, age: float) -> Path:
    folder = root / "kind" / name[:2] / name
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"x" * size)
    os.utime(folder, (time.time() - age,) * 2)
    return folder


@pytest.mark.parametrize(
    ("limit", "in_use", "removed"),
    [
        (60, 0.0, ""),
        (59, 0.0, "a"),
        (50, 0.0, "a"),
        (49, 0.0, "ab"),
        (0, 0.0, "abc"),
        (0, 150.0, "ab"),
        (0, 350.0, ""),
    ],
)
def test_the_least_recently_used_entries_go_until_the_rest_fits(
    tmp_path: Path, limit: int, in_use: float, removed: str
) -> None:
    root, unfinished = tmp_path / "artifacts", tmp_path / "artifacts" / ".unfinished"
    for name, size, age in (("c", 30, 100.0), ("a", 10, 300.0), ("b", 20, 200.0)):
        entry(root, name * 4, size, age)
    said: list[str] = []
    count = prune(root, unfinished, limit, in_use, said.append)
    left = {folder.name[0] for folder in root.glob("kind/*/*")}
    assert left == set("abc") - set(removed)
    assert count == sum({"a": 10, "b": 20, "c": 30}[name] for name in removed)
    assert said == []
    assert list(unfinished.glob("*")) == []


def test_an_entry_that_cannot_be_removed_ends_the_pruning_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, unfinished = tmp_path / "artifacts", tmp_path / "artifacts" / ".unfinished"
    for name, age in (("aaaa", 300.0), ("bbbb", 200.0), ("cccc", 100.0)):
        entry(root, name, 10, age)
    rename = Path.rename

    def refuses(self: Path, target: Path) -> Path:
        if self.name == "aaaa":
            raise FileNotFoundError(errno.ENOENT, "gone")
        if self.name == "cccc":
            raise PermissionError(errno.EACCES, "not yours")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuses)
    said: list[str] = []
    assert prune(root, unfinished, 0, 0.0, said.append) == 10
    path = root / "kind" / "cc" / "cccc"
    assert said == [f"The cache entry {path} can't be removed: not yours."]


def test_leftovers_of_others_or_of_the_last_minute_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in ("old", "new")]
    for folder, age in zip(folders, (61.0, 58.0), strict=True):
        folder.mkdir()
        os.utime(folder, (time.time() - age,) * 2)
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    remove_stale(folders)
    assert all(folder.exists() for folder in folders)
    monkeypatch.setattr(os, "getuid", lambda: own)
    remove_stale([tmp_path / "nowhere", *reversed(folders)])
    assert [folder.exists() for folder in folders] == [False, True]
    (tmp_path / "file").touch()
    assert subfolders(tmp_path) == [folders[1]]
    assert subfolders(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("variables", "root"),
    [
        ({"ONNX_HARNESS_CACHE": "~/named", "XDG_CACHE_HOME": "/xdg"}, "{home}/named"),
        ({"ONNX_HARNESS_CACHE": "", "XDG_CACHE_HOME": "~/xdg"}, "{home}/xdg/onnx-harness"),
        ({"XDG_CACHE_HOME": ""}, "{home}/.cache/onnx-harness"),
        ({}, "{home}/.cache/onnx-harness"),
    ],
)
def test_the_cache_lies_where_the_variables_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], root: str
) -> None:
    for name in ("ONNX_HARNESS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(roots, "_fallback", [])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    made = roots.cache_root()
    assert made == Path(root.format(home=tmp_path))
    assert made.is_dir()
    assert roots.fallback_note() == ""


def test_a_cache_that_is_read_only_gives_way_to_one_of_the_user_s_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    named, temporary = tmp_path / "named", tmp_path / "temporary"
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(named))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(roots, "_fallback", [])
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != named)
    assert roots.cache_root() == temporary / f"onnx-harness-{os.getuid()}"
    note = roots.fallback_note()
    assert note.startswith(
        f"the cache can't be written ([Errno 13] it is read-only: '{named}')"
    )
    assert f"{temporary / f'onnx-harness-{os.getuid()}'} is used." in note
    assert note.endswith("Mend: set $ONNX_HARNESS_CACHE to a folder")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(
        ResultsError, match=r"The cache can't be .*onnx-harness-.*HARNESS_CACHE"
    ):
        roots.cache_root()
    monkeypatch.delattr(os, "getuid")
    monkeypatch.setenv("USERNAME", "mia")
    assert roots._user() == "mia"
    monkeypatch.delenv("USERNAME")
    assert roots._user() == "user"


@dataclass(frozen=True)
class Part:
    """What a record may hold."""

    number: float
    count: int = 3
    names: tuple[str, ...] = ()
    pair: tuple[int, str] | None = None
    table: dict[str, float] | None = None
    status: Status = Status.PASS
    flag: bool = False


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "part.number is missing"),
        ({"number": True}, "part.number should be a number, and is True"),
        ({"number": "1"}, "part.number should be a number, and is '1'"),
        ({"number": 1, "count": 1.0}, "part.count should be a whole number, and is 1.0"),
        ({"number": 1, "count": True}, "part.count should be a whole number, and is True"),
        ({"number": 1, "flag": 1}, "part.flag should be true or false, and is 1"),
        ({"number": 1, "names": "ab"}, "part.names should be a list, and is 'ab'"),
        ({"number": 1, "names": ["a", 2]}, "part.names[1] should be text, and is 2"),
        ({"number": 1, "pair": [1]}, "part.pair should be a list, and is [1]"),
        ({"number": 1, "pair": [1, 2]}, "part.pair[1] should be text, and is 2"),
        ({"number": 1, "table": [1]}, "part.table should be an object, and is [1]"),
        (
            {"number": 1, "table": {"a": "b"}},
            "part.table['a'] should be a number, and is 'b'",
        ),
        ({"number": 1, "status": "so so"}, "part.status should be one of pass, "),
        ([], "part should be an object, and is []"),
        ({"number": "x" * 58}, f"and is '{'x' * 58}'"),
        ({"number": "x" * 59}, f"and is '{'x' * 58}…"),
    ],
)
def test_a_field_of_another_type_is_named_with_what_it_should_be(
    given: Any, words: str
) -> None:
    with pytest.raises(ResultsError) as told:
        decode(Part, given, "part")
    assert words in str(told.value)


def test_records_go_into_json_and_come_back() -> None:
    part = Part(1.5, 2, ("a", "b"), (3, "c"), {"d": 4.0}, Status.FAIL, True)
    assert decode(Part, json.loads(json.dumps(encode(part))), "part") == part
    assert as_json(Part).loads(as_json(Part).dumps(part)) == part
    told = decode(Part, {"number": 2, "pair": None, "later": 1}, "part")
    assert told == Part(2.0)
    assert isinstance(told.number, float)
    lost = decode(Part, {"number": None, "table": {"a": None}}, "part")
    assert np.isnan(lost.number)
    assert lost.table is not None
    assert np.isnan(lost.table["a"])
    assert encode({1: (np.float32(0.5), np.int64(3), np.bool_(True))}) == {
        "1": [0.5, 3, True]
    }
    assert (
        encode([float("nan"), float("inf"), np.float64("nan"), np.float32("inf")])
        == [None] * 4
    )
    assert (encode(Status.PASS), type(encode(Status.PASS))) == ("pass", str)
    with pytest.raises(TypeError, match="object has no JSON form: <object"):
        encode(object())


def test_a_codec_of_data_takes_its_own_kind_alone() -> None:
    codec = as_data(list)
    assert codec.loads(codec.dumps([1, 2])) == [1, 2]
    with contextlib.suppress(ResultsError, TypeError, ValueError):
        assert not codec.loads(as_data(dict).dumps({"a": 1}))


def test_a_cache_that_cannot_be_written_is_one_in_memory_s_folder(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file")
    cache = Cache(tmp_path)
    made: list[int] = []

    def writes(folder: Path) -> None:
        made.append(1)
        (folder / "file").write_text("x")

    first = cache.get_or_put("kind", "ab" * 32, writes)
    assert (first / "file").read_text() == "x"
    assert cache.get_or_put("kind", "ab" * 32, writes) == first
    other = cache.get_or_put("kind", "cd" * 32, writes)
    assert other != first
    assert (len(made), len(cache.warnings)) == (2, 1)
    assert cache.warnings[0].startswith("Going on without a cache. ")


def test_a_folder_that_cannot_be_moved_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another file system each file is copied, and the error lists all that failed."""
    full = f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}: 'a' -> 'b'"

    def fail(*_: object) -> None:
        raise shutil.Error([("a", "b", full), ("c", "d", full)])

    monkeypatch.setattr(shutil, "move", fail)
    with pytest.raises(ResultsError) as raised:
        move_folder(tmp_path / "a", tmp_path / "b")
    told = str(raised.value)
    assert f"can't be written at {tmp_path / 'b'}: {os.strerror(errno.ENOSPC)} (" in told
    assert "Mend: free some space there, or choose another folder (--report-dir)" in told
    assert "[Errno" not in told
