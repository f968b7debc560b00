"""``onnx-harness report``: rebuilt, compared, merged, exported, judged again."""

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from onnx_harness.cli import main
from onnx_harness.report import export
from onnx_harness.results.cells import AccuracyRecord, CellResult, Stage, Status
from onnx_harness.results.history import FILE_NAME, History
from onnx_harness.results.run import RunInfo
from onnx_harness.results.shard_plan import write_plan
from onnx_harness.results.store import ResultsWriter, read_results
from tests.unit.results_examples import RUN, cell, latency, output

LATER = replace(
    RUN,
    id="20260103t030405z-0a1b2c3d",
    started="2026-01-03T03:04:05+00:00",
    versions={"onnx": "1.24.0"},
)
FAILED = cell("fp16", status=Status.FAIL, stage=Stage.COMPARE, reason="it is off")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def left(folder: str, *cells: CellResult, run: RunInfo = RUN) -> str:
    writer = ResultsWriter(Path(folder), run)
    for each in cells:
        writer.put(each)
    writer.finish()
    return folder


def test_without_a_run_the_latest_report_is_written_anew(
    capsys: pytest.CaptureFixture[str],
) -> None:
    left("reports", cell(), FAILED)
    assert main(["report"]) == 0
    assert "1 model, 2 cells on cpu: 1 pass, 1 fail" in capsys.readouterr().out
    assert "Fail: 1 of 2 cells" in Path("reports/report.html").read_text("utf-8")
    assert Path("reports/summary.md").read_text("utf-8").startswith("# Fail")


def test_a_run_of_the_history_gets_a_folder_of_its_own() -> None:
    with History(Path("reports", FILE_NAME)) as past:
        for run in (RUN, LATER):
            past.begin(run)
            past.put(cell())
    assert main(["report", "20260103"]) == 0
    assert LATER.id in Path("reports", LATER.id, "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["2026"], "several runs begin with '2026'"),
        (["2027"], "no run of the history begins with '2027'"),
        (["--rtol", "1"], "--rtol and --atol go together"),
        (["--rtol", "1", "--atol", "1", "--sqnr", "1"], "one kind of bound"),
        (["--rtol", "-1", "--atol", "1"], "aren't negative"),
        (["--sqnr", "nan"], "--sqnr is a finite number; nan isn't"),
        (["--merge"], "--merge: name the folders of the parts"),
    ],
)
def test_usage_errors(
    words: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    left("reports", cell())
    with History(Path("reports", FILE_NAME)) as past:
        past.begin(RUN)
        past.begin(LATER)
    assert main(["report", *words]) == 2
    assert said in capsys.readouterr().err


def test_two_runs_are_compared_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    slow = cell("simplify", latency=latency(20.0, 1.5, (1.4, 1.6)))
    quick = cell("simplify", latency=latency(10.0, 3.0, (2.9, 3.1)))
    left("a", cell(), cell("fp16"), slow, cell("gone"))
    left("b", cell(), FAILED, quick, cell("new"), run=LATER)
    assert main(["report", "a", "b"]) == 0
    said = "1 no longer pass, 1 pass with another speedup, 1 are gone, 1 are new, 1 end as before"
    assert said in capsys.readouterr().out
    page = Path("reports/compared/report.html").read_text("utf-8")
    for expected in (
        "1 cell no longer passes",
        "it is off",
        "(2.00x)",
        "onnx: 1.23.2 → 1.24.0",
    ):
        assert expected in page
    summary = Path("reports/compared/summary.md").read_text("utf-8")
    assert summary.startswith("# 1 cell no longer passes\n")
    assert (
        "| net-fp16-cpu | pass · 1.1e-06 of 1.0e-04 | FAIL · 1.1e-06 of 1.0e-04 | it is off |"
        in summary
    )


def test_times_of_two_processors_are_not_compared() -> None:
    """The same medians and speedups as above, of a run on another machine."""
    other = replace(LATER, host=replace(RUN.host, cpu="Another CPU"))
    left("a", cell("simplify", latency=latency(20.0, 1.5, (1.4, 1.6))))
    left("b", cell("simplify", latency=latency(10.0, 3.0, (2.9, 3.1))), run=other)
    assert main(["report", "a", "b"]) == 0
    page = Path("reports/compared/report.html").read_text("utf-8")
    assert "1 cell: end as before" in page
    assert "(2.00x)" not in page
    assert "Another CPU; times can" in page


@pytest.mark.parametrize("same_cpu", [True, False])
def test_another_device_is_said_where_its_times_are_not_compared(same_cpu: bool) -> None:
    """A provider that one of the runs hasn't tried is no other device."""
    old_devices = {"cuda": "GPU A", "webgpu": "GPU A", "tensorrt": "GPU A"}
    new_devices = {"cuda": "GPU B", "webgpu": "GPU A"}
    cpu = RUN.host.cpu if same_cpu else "Another CPU"
    before = replace(RUN, host=replace(RUN.host, devices=old_devices))
    after = replace(LATER, host=replace(RUN.host, cpu=cpu, devices=new_devices))
    slow = replace(cell(latency=latency(20.0, 1.5, (1.4, 1.6))), provider="cuda")
    quick = replace(cell(latency=latency(10.0, 3.0, (2.9, 3.1))), provider="cuda")
    left("a", slow, run=before)
    left("b", quick, run=after)
    assert main(["report", "a", "b"]) == 0
    said = Path("reports/compared/summary.md").read_text("utf-8")
    assert "device of cuda: GPU A → GPU B; its times can't be compared" in said
    assert said.count("device of") == 1
    assert (said.count("processor: ") == 0) == same_cpu
    assert "(2.00x)" not in Path("reports/compared/report.html").read_text("utf-8")


def test_runs_without_a_common_cell_are_no_comparison(
    capsys: pytest.CaptureFixture[str],
) -> None:
    a, b = left("a", cell()), left("b", FAILED)
    assert main(["report", a, b]) == 2
    assert "--merge makes one run of shards" in capsys.readouterr().err


def test_shards_are_merged_into_results_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    left("a", cell())
    left("b", FAILED, run=LATER)
    assert main(["report", "a", "b", "--merge", "-o", "both"]) == 0
    merged = read_results(Path("both"))
    assert [each.id for each in merged.cells] == ["net-fp16-cpu", "net-original-cpu"]
    assert merged.run == RUN
    assert "several versions of onnx: 1.23.2, 1.24.0" in capsys.readouterr().err
    assert main(["report", "a", "both", "--merge", "-o", "a"]) == 2


def test_a_run_is_judged_again_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    undecided = cell("v", accuracy=AccuracyRecord(4, {"y": output(1e-6, max_abs=0.5)}))
    left("reports", cell("fp16", accuracy=AccuracyRecord(1, {"y": output(1e-3)})), undecided)
    assert main(["report", "--rtol", "1e-5", "--atol", "1e-7"]) == 0
    told = capsys.readouterr().err
    assert "judged again by rtol 1e-05, atol 1e-07: 1 cell with another verdict" in told
    assert "net-fp16-cpu: fail now" in told
    assert (
        "net-v-cpu: whether y is within the bounds doesn't follow from its figures" in told
    )
    assert [each.status for each in read_results(Path("reports/rejudged")).cells] == [
        Status.FAIL,
        Status.PASS,
    ]
    assert [each.status for each in read_results(Path("reports")).cells] == [
        Status.PASS,
        Status.PASS,
    ]


def test_csv_goes_to_a_file_or_to_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    left("reports", cell(latency=latency()), FAILED)
    assert main(["report", "--csv", "-"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["status"] for row in rows] == ["pass", "fail"]
    assert (rows[0]["speedup"], rows[0]["speedup_low"], rows[1]["median_ms"]) == (
        "1.02",
        "1.01",
        "",
    )
    assert main(["report", "--csv", "cells.csv"]) == 0
    assert (
        Path("cells.csv")
        .read_text("utf-8")
        .startswith("id,model,variant,provider,status,stage,reason,")
    )


def test_parquet_without_its_library_is_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    left("reports", cell())
    assert main(["report", "-o", "out", "--parquet", "cells.parquet"]) == 2
    assert "Mend: pip install 'onnx-harness[parquet]'" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not Path("out").exists()


def test_parquet_has_the_columns_of_the_csv() -> None:
    assert export.COLUMNS.keys() == export.rows([cell()])[0].keys()


@pytest.mark.nightly
def test_parquet_is_read_back_with_the_same_types_whatever_was_measured() -> None:
    arrow = pytest.importorskip(
        "pyarrow", reason="not installed here: `make test-extras` has it"
    )
    from pyarrow import parquet

    schemas = []
    for name, cells in (("some", [cell(latency=latency()), FAILED]), ("few", [FAILED])):
        left(name, *cells)
        assert main(["report", name, "--parquet", f"{name}.parquet"]) == 0
        table = parquet.read_table(f"{name}.parquet")
        assert table.to_pylist() == [dict(row) for row in export.rows(cells)]
        schemas.append(table.schema)
    assert schemas[0].equals(schemas[1])
    assert schemas[0].field("speedup").type == arrow.float64()


def test_a_name_is_no_formula_of_a_spreadsheet_and_no_second_row() -> None:
    hostile = cell('=cmd|"x"\n1', "@a", reason="+1", status=Status.FAIL)
    [_, row] = csv.reader(io.StringIO(export.as_csv([hostile])))
    assert row[1:3] == ["'@a", '\'=cmd|"x"\\n1']
    assert row[6] == "'+1"


def test_commands_name_the_card_that_the_run_named() -> None:
    Path("models").mkdir()
    Path("models/net.model.toml").write_text(
        '[model]\nlicense = "MIT"\n[source]\npath = "net.onnx"\n', "utf-8"
    )
    run = replace(RUN, command="pytest models --provider cpu")
    left(
        "reports", cell(), cell("simplify", latency=latency(10.0, 2.0, (1.9, 2.1))), run=run
    )
    assert main(["report"]) == 0
    page = Path("reports/report.html").read_text("utf-8")
    assert (
        "<span>models/net.model.toml</span> <span>--variant</span> <span>simplify</span>"
        in page
    )


def test_a_merger_of_one_is_that_one() -> None:
    """A list of folders may have one: an array of one task, or a merger of earlier parts."""
    left("a", FAILED, cell())
    assert main(["report", "--merge", "a", "-o", "alone"]) == 0
    assert main(["report", "--merge", "a", "a", "-o", "twice"]) == 0
    assert main(["report", "--merge", "alone", "-o", "again"]) == 0
    assert (
        len(
            {Path(name, "results.json").read_bytes() for name in ("alone", "twice", "again")}
        )
        == 1
    )
    assert read_results(Path("alone")) == read_results(Path("a"))
    assert Path("alone", FILE_NAME).exists()


def test_a_merger_of_one_shard_says_which_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard(tmp_path / "a", "1/3 aaaaaaaaaaaa", [("net-original-cpu",), (), ()])
    out = tmp_path / "out"
    assert main(["report", "--merge", str(tmp_path / "a"), "-o", str(out)]) == 1
    assert "of 3 shards of one plan, 2 are missing: 2, 3" in capsys.readouterr().err
    assert not (out / FILE_NAME).exists()


def shard(folder: Path, label: str, parts: Sequence[Sequence[str]] | None = None) -> str:
    """Leave a run that is a shard, of the plan that has those parts."""
    writer = ResultsWriter(folder, replace(RUN, shards=(label,)))
    writer.put_all([cell(folder.name)])
    writer.finish()
    writer.close()
    if parts is not None:
        write_plan(folder, label.partition(" ")[2], parts)
    return str(folder)


def test_shards_of_two_plans_end_with_1_and_are_in_no_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = shard(tmp_path / "a", "1/2 aaaaaaaaaaaa")
    b = shard(tmp_path / "b", "2/2 bbbbbbbbbbbb")
    c = shard(tmp_path / "c", "2/2 aaaaaaaaaaaa")
    out = tmp_path / "out"
    assert main(["report", "--merge", a, b, "-o", str(out)]) == 1
    told = capsys.readouterr().err
    assert "2 different plans" in told
    assert f"plan bbbbbbbbbbbb (2 parts) has here part 2 ({b})" in told
    assert "of plan aaaaaaaaaaaa, 1 is missing: 2" in told
    assert "to mend it, choose one plan" in told
    assert not (out / FILE_NAME).exists()
    assert main(["report", a, c, "-o", str(out)]) == 0
    assert (out / FILE_NAME).exists()


@pytest.mark.parametrize(
    ("parts", "label", "said"),
    [
        (
            (("m-fp16-cpu", "n-fp16-cpu"), ("n-original-cpu",)),
            "2/2",
            "plan bbbbbbbbbbbb has 1 cell that plan aaaaaaaaaaaa hasn't: m-fp16-cpu. Their models",
        ),
        (
            (("n-fp16-cpu",), ()),
            "2/2",
            "plan aaaaaaaaaaaa has 1 cell that plan bbbbbbbbbbbb hasn't: n-original-cpu. Their",
        ),
        (
            (("n-fp16-cpu",), ("n-original-cpu",), ()),
            "3/3",
            "have the same cells, in 2 and in 3 parts: --shard wasn't of the same number",
        ),
        (
            (("n-original-cpu",), ("n-fp16-cpu",)),
            "2/2",
            "have the same cells, dealt out differently: --shard-times weren't the same",
        ),
    ],
)
def test_what_tells_two_plans_apart_is_said(
    parts: Sequence[Sequence[str]],
    label: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = (("n-fp16-cpu",), ("n-original-cpu",))
    one = shard(tmp_path / "one", "1/2 aaaaaaaaaaaa", first)
    other = shard(tmp_path / "other", f"{label} bbbbbbbbbbbb", parts)
    words = ["report", "--merge", one, other, "-o", str(tmp_path / "out")]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert said in told
    assert "plan aaaaaaaaaaaa (2 parts, 2 cells) has here part 1" in told
    assert told.count("hasn't") + told.count("have the same cells") == 1
