"""What the gate says, shown: the terminal's lines, the job's page, the text of an issue, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnx_harness.cli import UNDONE, main
from onnx_harness.report.gate import MOST_CELLS, issue, lines, page
from onnx_harness.results.cells import Stage, Status
from onnx_harness.results.gated import Finding, GatedCell, GateReport, Nights, gravest
from onnx_harness.results.outcome import Outcome
from tests.nights import night, timed
from tests.unit.results_examples import RUN

EVIL = "y\x1b[31m|<img src=x>`@everyone`\nhttps://evil"
QUIET = Nights(Outcome.PASS, 1.003, 1.001, 0.2, 0.021, 12)
SLOW = Nights(Outcome.FAIL, 1.062, 1.001, 5.9, 0.021, 13)


def report(*cells: GatedCell, findings: tuple[Finding, ...] = ()) -> GateReport:
    everything = (*findings, *(finding for cell in cells for finding in cell.findings))
    return GateReport(gravest(everything), RUN, findings, cells, ("a note",))


def failing(name: str, reason: str = "it's slower") -> GatedCell:
    return GatedCell(
        name, Outcome.FAIL, (Finding(Outcome.FAIL, "latency", reason),), (), SLOW
    )


GOOD = GatedCell("net-original-cpu", Outcome.PASS, nights=QUIET)


def test_the_terminal_shows_what_does_not_pass_and_all_on_request() -> None:
    made = report(GOOD, failing("net-simplify-cpu"))
    shown = [line.text for line in lines(made)]
    assert shown == [
        (
            "net-simplify-cpu  FAIL          1.062 of the reference's time, 1.001 accepted; sees "
            "2.1% "
            "(13 nights)"
        ),
        "    latency: it's slower",
        "note: a note",
        "gate: FAIL · 2 cells: 1 pass, 1 fail; latency gated in 2",
    ]
    assert any("net-original-cpu" in line.text for line in lines(made, everything=True))


def test_the_gravest_comes_first() -> None:
    doubtful = GatedCell(
        "a", Outcome.INCONCLUSIVE, (Finding(Outcome.INCONCLUSIVE, "latency", "once"),)
    )
    void = GatedCell("b", Outcome.INVALID, (Finding(Outcome.INVALID, "card", "changed"),))
    made = report(GOOD, doubtful, void, failing("c"))
    assert [
        line.text[:1]
        for line in lines(made)
        if not line.text.startswith((" ", "note", "gate"))
    ] == ["c", "b", "a"]
    assert made.outcome is Outcome.FAIL
    assert report(doubtful, void).outcome is Outcome.INVALID


@pytest.mark.parametrize("show", [page, issue])
def test_a_models_words_are_shown_and_do_nothing(show: object) -> None:
    assert callable(show)
    told = show(
        report(
            failing("net-original-cpu", EVIL), findings=(Finding(Outcome.FAIL, "run", EVIL),)
        )
    )
    assert "\x1b" not in told
    assert "<img" not in told
    assert "@everyone" not in told
    assert "://evil" not in told
    rows = [line for line in told.splitlines() if line.startswith("| net-original-cpu")]
    assert len(rows) == 1
    assert rows[0].replace("\\|", "").count("|") == 7
    assert all(
        "\x1b" not in line.text and "\n" not in line.text
        for line in lines(report(failing("a", EVIL)))
    )


def test_an_issue_has_a_title_that_names_what_failed() -> None:
    title, blank, *_ = issue(
        report(GOOD, failing("net-a-cpu"), failing("net-b-cpu"))
    ).splitlines()
    assert (title, blank) == ("Nightly gate: FAIL in net-a-cpu and 1 more", "")
    stale = report(findings=(Finding(Outcome.INVALID, "run", "nothing was recorded"),))
    assert issue(stale).startswith("Nightly gate: INVALID in the run\n")


def test_a_page_of_many_failures_stays_within_what_a_job_shows() -> None:
    told = page(
        report(*(failing(f"m{number}-original-cpu", "x" * 300) for number in range(2000)))
    )
    assert told.count("| m") == MOST_CELLS
    assert "And 1,800 more" in told
    assert len(told.encode()) < 900_000


def test_the_command_leaves_its_verdict_in_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    night(tmp_path)
    where = ("--report-dir", str(tmp_path))
    main(["gate", "accept", "--all", "--why", "right", *where])
    night(
        tmp_path,
        [
            timed("original", status=Status.FAIL, stage=Stage.RUN, reason="no kernel"),
            timed("simplify"),
        ],
    )
    summary, text = tmp_path / "summary", tmp_path / "issue"
    summary.write_text("what was there\n", "utf-8")
    capsys.readouterr()
    assert (
        main(["gate", "--json", "--summary", str(summary), "--issue", str(text), *where])
        == 1
    )
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((tmp_path / "gate.json").read_text("utf-8"))
    assert said["outcome"] == "fail"
    assert {cell["id"]: cell["outcome"] for cell in said["cells"]} == {
        "net-original-cpu": "fail",
        "net-simplify-cpu": "pass",
    }
    assert said["cells"][0]["findings"][0]["what"] == "status"
    assert summary.read_text("utf-8").startswith("what was there\n# Gate: FAIL\n")
    assert (tmp_path / "gate.md").read_text("utf-8").startswith("# Gate: FAIL\n")
    assert text.read_text("utf-8").startswith("Nightly gate: FAIL in net-original-cpu\n")


def test_a_verdict_that_cannot_be_left_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    night(tmp_path)
    main(["gate", "accept", "--all", "--why", "right", "--report-dir", str(tmp_path)])
    assert main(["gate", "--report-dir", str(tmp_path)]) == 0
    assert (
        main(
            [
                "gate",
                "--report-dir",
                str(tmp_path),
                "--summary",
                str(tmp_path / "no" / "summary"),
            ]
        )
        == UNDONE
    )


def test_an_issue_has_the_command_that_accepts_and_no_notes_on_the_installation() -> None:
    told = issue(report(GOOD, failing("net-simplify-cpu"), failing("net-a b-cpu")))
    assert "onnx-harness gate accept net-simplify-cpu 'net-a b-cpu' --why \"…\"" in told
    assert "a note" not in told
    gone = GatedCell("c", Outcome.FAIL, (Finding(Outcome.FAIL, "cell", "not in this run"),))
    assert 'onnx-harness gate accept --all --why "…"' in issue(report(gone, failing("d")))
