"""A power cut: what was brought to the disk is there, and of the rest anything may be missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnx_harness.results.verdicts import RUNS, VERDICTS, VerdictFiles
from tests.unit.results_examples import RUN, cell

KEYS = [f"{number:02x}" * 32 for number in (7, 7 + 16, 200)]


class Disk:
    """What a disk holds for certain of a folder: files and names as they were last synced.

    Args:
        root: the folder, whose own name is on the disk; it's empty.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.contents: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {root.stat().st_ino: {}}

    def sync(self, handle: int) -> None:
        """Take the place of ``os.fsync``."""
        path = Path(f"/proc/self/fd/{handle}")
        number = os.fstat(handle).st_ino
        if path.is_dir():
            self.names[number] = {
                child.name: child.stat().st_ino for child in path.iterdir()
            }
        else:
            self.contents[number] = path.read_bytes()

    def restore(self, target: Path, *, all_names: bool) -> None:
        """Write what is left after a cut.

        Args:
            target: where.
            all_names: every name reached the disk, also of files whose content didn't.
        """
        self._restore(self.root.stat().st_ino, self.root, target, all_names)

    def _restore(self, number: int, now: Path, target: Path, all_names: bool) -> None:
        target.mkdir(parents=True)
        names = self.names.get(number, {})
        if all_names:
            names = {child.name: child.stat().st_ino for child in now.iterdir()}
        for name, inner in names.items():
            if (now / name).is_dir():
                self._restore(inner, now / name, target / name, all_names)
            else:
                (target / name).write_bytes(self.contents.get(inner, b""))


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    root = tmp_path / "report"
    root.mkdir()
    disk = Disk(root)
    monkeypatch.setattr(os, "fsync", disk.sync)
    return disk


@pytest.mark.parametrize("all_names", [False, True])
def test_each_verdict_that_was_put_is_there_and_so_is_its_run(
    disk: Disk, tmp_path: Path, all_names: bool
) -> None:
    files = VerdictFiles(disk.root)
    files.begin(RUN)
    for count, key in enumerate(KEYS, 1):
        files.put(cell(), key)
        left = tmp_path / f"left{count}"
        disk.restore(left, all_names=all_names)
        after = VerdictFiles(left)
        assert [after.get(key) is not None for key in KEYS] == [
            n < count for n in range(len(KEYS))
        ]
        assert after.unfinished() == [RUN.id]
        assert [one.id for one in after.read_run(RUN.id)[1]] == [cell().id]
    files.close()


def test_a_folder_that_is_not_synced_takes_the_verdict_with_it(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnx_harness.results.verdicts._sync_folder", lambda _: None)
    files = VerdictFiles(disk.root)
    files.put(cell(), KEYS[0])
    disk.restore(tmp_path / "left", all_names=False)
    assert VerdictFiles(tmp_path / "left").get(KEYS[0]) is None
    assert (disk.root / VERDICTS).is_dir()
    assert not (tmp_path / "left" / RUNS).exists()
