"""``onnx-harness report`` of a run's parts, of which some ended before their first verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from onnx_harness.cli import main
from onnx_harness.results.shard_plan import write_plan
from onnx_harness.results.store import read_results
from tests.unit.test_cli_report import shard


def test_a_part_that_ended_before_its_first_verdict_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that holds nothing but the plan is no error: all others are merged."""
    parts = [("net-original-cpu",), ("net-fp16-cpu",)]
    begun = shard(tmp_path / "a", "1/2 aaaaaaaaaaaa", parts)
    killed = tmp_path / "b"
    write_plan(killed, "aaaaaaaaaaaa", parts)
    out = tmp_path / "out"
    assert main(["report", "--merge", begun, str(killed), "-o", str(out)]) == 1
    told = capsys.readouterr().err
    assert f"{killed} has a shard's plan and no results: that part is left out" in told
    assert "of 2 shards of one plan, 1 is missing: 2" in told
    assert len(read_results(out).cells) == 1
    assert main(["report", "--merge", str(killed), "-o", str(tmp_path / "none")]) == 1
    told = capsys.readouterr().err
    assert "can't be read" in told
    assert "left out" not in told


@pytest.mark.parametrize("words", [[], ["--merge"]])
def test_three_folders_are_merged_with_and_without_a_word_of_it(
    words: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of them have results: these are merged, and never compared."""
    parts = [("net-a-cpu",), ("net-b-cpu",), ("net-c-cpu",)]
    first = shard(tmp_path / "a", "1/3 aaaaaaaaaaaa", parts)
    second = shard(tmp_path / "b", "2/3 aaaaaaaaaaaa", parts)
    killed, out = tmp_path / "c", tmp_path / "out"
    write_plan(killed, "aaaaaaaaaaaa", parts)
    assert main(["report", first, second, str(killed), *words, "-o", str(out)]) == 1
    told = capsys.readouterr().err
    assert f"{killed} has a shard's plan and no results: that part is left out" in told
    assert "of 3 shards of one plan, 1 is missing: 3" in told
    assert len(read_results(out).cells) == 2


def test_three_folders_of_which_one_began_are_its_merger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [("net-a-cpu",), ("net-b-cpu",), ("net-c-cpu",)]
    begun = shard(tmp_path / "a", "1/3 aaaaaaaaaaaa", parts)
    killed = [str(tmp_path / name) for name in "bc"]
    for folder in killed:
        write_plan(Path(folder), "aaaaaaaaaaaa", parts)
    assert main(["report", begun, *killed, "-o", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert told.count("left out") == 2
    assert "of 3 shards of one plan, 2 are missing: 2, 3" in told


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_folders_of_which_one_began_are_its_merger(
    order: tuple[int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other has nothing to be compared with."""
    parts = [("net-a-cpu",), ("net-b-cpu",)]
    killed = tmp_path / "b"
    write_plan(killed, "aaaaaaaaaaaa", parts)
    both = [shard(tmp_path / "a", "1/2 aaaaaaaaaaaa", parts), str(killed)]
    out = tmp_path / "out"
    assert main(["report", *(both[place] for place in order), "-o", str(out)]) == 1
    told = capsys.readouterr().err
    assert f"{killed} has a shard's plan and no results: that part is left out" in told
    assert "of 2 shards of one plan, 1 is missing: 2" in told
    assert len(read_results(out).cells) == 1
