"""A merged folder has the verdicts of its parts: it can be resumed, merged again and made anew."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from onnx_harness.cell.content import content_key
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cli import main
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from onnx_harness.results.recorder import Entry, Recorder
from onnx_harness.results.store import read_results
from onnx_harness.results.verdicts import VerdictFiles
from onnx_harness.run.past import Past
from onnx_harness.settings import Settings
from tests.models import linear, save
from tests.unit.results_examples import RUN, cell, latency

KEYS = {
    name: f"{number:02}" * 32 for number, name in enumerate(("original", "simplify", "fp16"))
}
ERROR = cell("optimize", status=Status.ERROR, stage=Stage.LOAD, symptom=Symptom.ENVIRONMENT)


def part(
    folder: Path, number: int, *cells: CellResult, keys: dict[str, str] | None = None
) -> Path:
    run = replace(RUN, id=f"{RUN.id}{number}", shards=(f"{number}/3 aaaaaaaaaaaa",))
    recorder = Recorder(folder / str(number), run)
    for each in cells:
        recorder.put(each, Entry((keys or KEYS).get(each.variant, ""), "timing"))
    recorder.finish()
    return folder / str(number)


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """One cell is in two of them, under one key, with other seconds."""
    twice = replace(cell(), seconds={"run": 2.0})
    return [
        part(tmp_path, 1, cell(), ERROR),
        part(tmp_path, 2, cell("simplify", latency=latency()), twice),
        part(tmp_path, 3, cell("fp16")),
    ]


def tree(folder: Path) -> dict[str, bytes]:
    files = [
        *folder.glob("verdicts/*/*.json"),
        *folder.glob("runs/*"),
        folder / "results.json",
    ]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_verdicts_are_united_in_any_order(parts: list[Path], tmp_path: Path) -> None:
    trees = []
    for number, order in enumerate(itertools.permutations(parts)):
        merged = tmp_path / f"merged{number}"
        assert main(["report", "--merge", *map(str, order), "-o", str(merged)]) == 0
        trees.append(tree(merged))
    assert all(written == trees[0] for written in trees)
    assert sum(name.startswith("verdicts") for name in trees[0]) == 3
    run, cells = VerdictFiles(tmp_path / "merged0").read_run(f"{RUN.id}1")
    whole = read_results(tmp_path / "merged0")
    assert (run, cells) == (whole.run, whole.cells)


def test_mergers_are_merged_like_their_parts(parts: list[Path], tmp_path: Path) -> None:
    one, two, three = map(str, parts)
    first, second, at_once = (
        str(tmp_path / name) for name in ("first", "second", "at once")
    )
    main(["report", "--merge", one, two, "-o", first])  # one part is missing, so it isn't 0
    assert main(["report", "--merge", three, first, "-o", second]) == 0
    assert main(["report", "--merge", one, two, three, "-o", at_once]) == 0
    assert tree(Path(second)) == tree(Path(at_once))


def test_lost_results_of_a_merger_are_made_again(parts: list[Path], tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    main(["report", "--merge", *map(str, parts), "-o", str(merged)])
    before = (merged / "results.json").read_bytes()
    (merged / "results.json").unlink()
    assert main(["report", str(merged)]) == 0
    assert (merged / "results.json").read_bytes() == before


def test_a_merger_is_resumed(tmp_path: Path) -> None:
    card = card_for(save(linear(), tmp_path / "net.onnx"))
    settings = Settings(report_dir=tmp_path / "merged", resume=True)
    folders = []
    for number, variant in enumerate(("original", "simplify"), 1):
        judged = Cell(card, parse_variant(variant), "cpu")
        keys = {variant: content_key(judged, card.path, settings)}
        folders.append(str(part(tmp_path, number, cell(variant), keys=keys)))
    main(["report", "--merge", *folders, "-o", str(tmp_path / "merged")])
    past = Past(settings)
    for variant in ("original", "simplify"):
        assert past.verdict(Cell(card, parse_variant(variant), "cpu")) == cell(variant)
    # A run that was killed would be entered into the history: the merger isn't one.
    assert VerdictFiles(tmp_path / "merged").unfinished() == []


def test_runs_that_are_judged_again_by_other_bounds_leave_no_verdicts(
    parts: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "again"
    words = [
        "report",
        "--merge",
        *map(str, parts),
        "--rtol",
        "1",
        "--atol",
        "1",
        "-o",
        str(out),
    ]
    assert main(words) == 0
    assert not (out / "verdicts").exists()
