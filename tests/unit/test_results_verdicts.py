"""A verdict's file and a run's list, line by line: what is written, and what is read of what lies there."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.results import verdicts
from onnx_harness.results.cells import Status
from onnx_harness.results.codec import encode, line_of
from onnx_harness.results.verdicts import Verdict, VerdictFiles, run_list
from tests.unit.results_examples import RUN, cell, latency

KEY, OTHER = "3f" * 32, "ab" * 32
END = '{"end": true}\n'


def begun(folder: Path, name: str = "run") -> VerdictFiles:
    files = VerdictFiles(folder)
    files.begin(replace(RUN, id=name))
    return files


def test_a_file_has_its_head_and_the_cell_s_line(tmp_path: Path) -> None:
    VerdictFiles(tmp_path).put(cell(), KEY, "timing")
    file = tmp_path / "verdicts" / "3f" / f"{KEY}.json"
    line = line_of(cell())
    text = f'{{"schema": 1, "key": "{KEY}", "timing": "timing", "cell": {line}}}'
    assert file.read_text() == text
    assert json.loads(text)["cell"] == encode(cell())
    assert list(file.parent.iterdir()) == [file]
    files = VerdictFiles(tmp_path)
    stored = files.get(KEY)
    assert stored == Verdict(KEY, cell(), "timing")
    assert stored is not None
    assert stored.line == line
    assert files.holds(KEY, cell())
    assert not files.holds(KEY, cell("simplify"))
    assert not files.holds(OTHER, cell())
    assert files.get(OTHER) is None
    # a stage of that name is no end of the head
    named = cell(seconds={"load": 0.25, "cell": 1.0})
    files.put(named, OTHER)
    assert files.get(OTHER) == Verdict(OTHER, named)
    # a newer state in its place, by the line that another file has of it
    files.put(cell(), KEY, line=line_of(cell(latency=latency())))
    stored = files.get(KEY)
    assert stored is not None
    assert (stored.cell, stored.timing) == (cell(latency=latency()), "")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"schema": 1', '"schema": 2'),
        lambda text: text.replace(KEY, OTHER),
        lambda text: text.replace('"schema": 1, ', ""),
        lambda text: text.replace(f'"key": "{KEY}", ', ""),
        lambda text: text.replace(', "timing": ""', ""),
        lambda text: text.replace('"status": "pass"', '"status": "fine"'),
        lambda text: text[:-9],
        lambda text: f"[{text}]",
        lambda text: text.replace('"model": "net"', '"model": "né"'),
        lambda _: f'{{"schema": 1, "key": "{KEY}", "timing": "", "cell": {"[" * 99_999}',
        lambda _: "",
    ],
)
def test_another_file_is_no_verdict(tmp_path: Path, change: Any) -> None:
    files = VerdictFiles(tmp_path)
    files.put(cell(), KEY)
    [file] = tmp_path.rglob("*.json")
    assert files.get(KEY) is not None
    file.write_bytes(change(file.read_text()).encode("latin-1"))
    assert files.get(KEY) is None


def test_a_run_s_list_has_a_line_for_each_cell(tmp_path: Path) -> None:
    begun(tmp_path, "first").close()
    files = begun(tmp_path)
    broken = cell("simplify", status=Status.ERROR)
    files.put(cell(), KEY)
    files.put(broken, "")
    files.note(cell("optimize"), OTHER)
    files.close()
    files.finish("run")
    log = tmp_path / "runs" / "run.jsonl"
    lines = log.read_text().split("\n")
    assert list(map(json.loads, lines[:4])) == [
        {"schema": 1, "number": 2, "run": encode(replace(RUN, id="run"))},
        {"id": "net-original-cpu", "key": KEY},
        {"id": "net-simplify-cpu", "key": "", "cell": encode(broken)},
        {"id": "net-optimize-cpu", "key": OTHER},
    ]
    assert lines[4:] == ["", END.strip(), ""]
    assert files.unfinished() == ["first"]
    assert files.keys("run") == {"net-original-cpu": KEY, "net-optimize-cpu": OTHER}
    assert files.keys("nowhere") == {}
    # what was begun again is appended
    again = begun(tmp_path)
    again.put(cell("optimize"), OTHER)
    again.close()
    assert log.read_text().startswith("\n".join(lines))
    run, cells = VerdictFiles(tmp_path).read_run("run")
    assert (run.id, list(cells)) == ("run", [cell(), broken, cell("optimize")])
    assert VerdictFiles(tmp_path).unfinished() == ["first", "run"]


def test_without_a_run_a_verdict_is_kept_and_nothing_noted(tmp_path: Path) -> None:
    files = VerdictFiles(tmp_path)
    files.put(cell(), KEY)
    files.put(cell("simplify"), "")
    files.note(cell(), KEY)
    files.close()
    assert [path.name for path in tmp_path.iterdir()] == ["verdicts"]
    assert len(list(tmp_path.rglob("*.json"))) == 1


def test_lines_of_another_kind_are_passed_over(tmp_path: Path) -> None:
    files = begun(tmp_path)
    files.put(cell(), KEY)
    files.close()
    other = {"id": "net-original-cpu", "key": KEY}
    odd: list[Any] = [
        [],
        7,
        {"id": 7, "key": KEY},
        {"id": "a", "key": 7},
        {"id": "b", "key": ""},
        {"id": "c", "key": "../secret"},
        {"id": "d", "key": KEY.upper()},
        {"id": "e", "key": KEY},
        {"cell": {"id": "f"}},
        {"cell": 7, **other},
    ]
    with (tmp_path / "runs" / "run.jsonl").open("a") as log:
        log.write("not JSON\n" + "[" * 99_999 + "\n")
        log.writelines(json.dumps(line) + "\n" for line in odd)
        log.write(json.dumps({"id": "x", "key": "", "cell": encode(cell("simplify"))}))
    read = VerdictFiles(tmp_path)
    assert read.keys("run") == {"net-original-cpu": KEY, "e": KEY}
    assert read.read_run("run")[1] == (cell(), cell("simplify"))


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        (f"head\n{END}", True),
        (END, True),
        (END.strip(), False),
        (f"{END}more\n", False),
        ("", False),
    ],
)
def test_a_list_has_an_end_where_that_is_its_last_line(
    tmp_path: Path, text: str, finished: bool
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.jsonl").write_text(text)
    (tmp_path / "runs" / "b.jsonl").mkdir()  # none that could be read
    assert VerdictFiles(tmp_path).unfinished() == ([] if finished else ["a"])


def test_the_list_of_a_run_that_has_ended_reads_as_one_that_was_kept(tmp_path: Path) -> None:
    run = replace(RUN, id="run")
    broken = cell("simplify", status=Status.ERROR)
    text = run_list(run, [(cell(), KEY), (broken, "")])
    head, first, second, end = text.splitlines()
    assert json.loads(head) == {"schema": 1, "number": 1, "run": encode(run)}
    assert json.loads(first) == {"id": "net-original-cpu", "key": KEY}
    assert json.loads(second) == {"id": broken.id, "key": "", "cell": encode(broken)}
    assert f"{end}\n" == END
    assert text.isascii()
    files = VerdictFiles(tmp_path)
    files.put(cell(), KEY)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "run.jsonl").write_text(text)
    assert files.read_run("run") == (run, (cell(), broken))
    assert files.unfinished() == []


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_what_cannot_be_brought_to_the_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    file = tmp_path / "deep" / "file"
    verdicts._write_durably(file, b"first")
    place: Any = os if broken == "fsync" else Path
    with monkeypatch.context() as patch:
        patch.setattr(place, broken, fails)
        with pytest.raises(KeyboardInterrupt):
            verdicts._write_durably(file, b"second")
    assert (file.read_bytes(), list(file.parent.iterdir())) == (b"first", [file])


def test_everything_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[Any] = []
    sync, replaces = os.fsync, Path.replace

    def synced(handle: int) -> None:
        log.append(Path(f"/proc/self/fd/{handle}").readlink())
        sync(handle)

    def replaced(self: Path, target: Path) -> Path:
        log.append((self, target))
        return replaces(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    folder = tmp_path.resolve() / "a"
    file = folder / "b" / "file"
    verdicts._write_durably(file, b"data")
    assert log[:2] == [folder.parent, folder]
    temporary, (source, target), last = log[2:]
    assert temporary == source
    assert temporary.name.startswith(".file-")
    assert (temporary.parent, target, last) == (file.parent, file, file.parent)
    log.clear()
    files = begun(folder)
    log_path = folder / "runs" / "run.jsonl"
    assert log == [folder, log_path, log_path.parent]
    log.clear()
    files.put(cell(), "")
    files.note(cell(), KEY)
    assert log == [log_path]
    files.close()
    files.close()
    assert log == [log_path] * 2


def test_a_list_is_given_up_whatever_the_disk_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = begun(tmp_path)
    closed: list[int] = []
    close = os.close

    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    monkeypatch.setattr(os, "close", lambda handle: closed.append(handle) or close(handle))  # type: ignore[func-returns-value]
    files.close()
    files.close()
    assert len(closed) == 1


def test_a_folder_that_another_process_makes_meanwhile_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    looked: list[Path] = []
    is_dir = Path.is_dir

    def not_yet(self: Path, **_: Any) -> bool:
        looked.append(self)
        first = looked.count(self) == 1 and self in (folder, folder.parent)
        return is_dir(self) and not first

    monkeypatch.setattr(Path, "is_dir", not_yet)
    verdicts._make_folder(folder)
    assert looked[:3] == [folder, folder.parent, tmp_path]
