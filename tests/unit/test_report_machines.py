"""What machines read of a run: GitHub's annotations, SARIF, properties of JUnit XML."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from onnx_harness.report.figures import ModelHeader
from onnx_harness.report.github import MOST_ANNOTATIONS, annotation_lines, inert
from onnx_harness.report.junit import properties
from onnx_harness.report.sarif import document
from onnx_harness.results.cells import AccuracyRecord, CellResult, Stage, Status, Symptom
from tests.schemas import SARIF, violations
from tests.unit.results_examples import RUN, cell, full_latency, output

HOSTILE = "y\r\n::error file=x,title=z::%0A [a](https://evil) {0} \x1b[31m,:"


def failing(name: str = "fp16", **more: Any) -> CellResult:
    fields = {
        "status": Status.FAIL,
        "stage": Stage.COMPARE,
        "reason": "it departs",
        "symptom": Symptom.WRONG_VALUES,
    }
    return cell(name, **{**fields, **more})


HEADERS = {failing().model: ModelHeader(path="models/a,b:c %.onnx")}


def test_an_annotation_names_the_file_the_cell_and_the_reason() -> None:
    [line] = annotation_lines([failing(detail=("it departs", "alone: pytest x"))], HEADERS)
    assert line.startswith(
        "::error file=models/a%2Cb%3Ac %25.onnx,title=net-fp16-cpu::fail at compare: it departs%0A"
    )
    assert line.endswith("%0Aalone: pytest x")


def test_names_of_a_model_are_no_commands() -> None:
    [line] = annotation_lines(
        [failing(reason=HOSTILE)], {failing().model: ModelHeader(path=HOSTILE)}
    )
    assert "\n" not in line
    assert "\r" not in line
    assert "\x1b" not in line
    assert line.startswith("::error file=")
    listed = re.fullmatch(r"::error ([^:]*)::.*", line)
    assert listed is not None
    assert [part.partition("=")[0] for part in listed[1].split(",")] == ["file", "title"]


def test_at_most_as_many_as_github_shows_one_for_each_cause() -> None:
    alike = [failing(f"v{number}") for number in range(30)]
    [line] = annotation_lines(alike, {})
    assert "and 29 cells more" in line
    words = [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "iota",
        "kappa",
        "lambda",
        "mu",
    ]
    lines = list(annotation_lines([failing(reason=word) for word in words], {}))
    assert len(lines) == MOST_ANNOTATIONS
    assert (
        lines[-1] == "::error title=onnx-harness::3 more causes, in the summary of the job"
    )
    assert list(annotation_lines([], {})) == []


@pytest.mark.parametrize(
    "line", ["::set-output name=x::y", "  ::stop-commands::x", "##[add-matcher]x"]
)
def test_a_line_of_output_that_begins_as_a_command_is_disarmed(line: str) -> None:
    assert not inert(line).lstrip().startswith(("::", "##["))
    assert line.lstrip() in inert(line)
    assert inert("  y: 3 of 4") == "  y: 3 of 4"


def test_sarif_has_a_result_for_each_failing_cell() -> None:
    cells = [
        cell("original"),
        failing(),
        failing("x", status=Status.ERROR, stage=Stage.LOAD, symptom=None),
    ]
    log = json.loads(json.dumps(document(RUN, cells, HEADERS), allow_nan=False))
    assert (log["version"], log["$schema"].endswith("sarif-2.1.0.json")) == ("2.1.0", True)
    [run] = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == ["compare.wrong_values", "load.error"]
    assert [result["ruleId"] for result in run["results"]] == rules
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] == "error"
        [place] = result["locations"]
        assert (
            place["physicalLocation"]["artifactLocation"]["uri"]
            == "models/a%2Cb%3Ac%20%25.onnx"
        )
    assert run["invocations"][0]["startTimeUtc"].endswith("Z")
    assert run["results"][0]["partialFingerprints"] == {"onnxHarnessCell/v1": "net-fp16-cpu"}


def test_sarif_has_the_form_of_the_standard() -> None:
    cells = [cell("original"), failing(latency=full_latency()), failing(reason=HOSTILE)]
    for some in (cells, cells[:1], []):
        log = json.loads(json.dumps(document(RUN, some, HEADERS), allow_nan=False))
        assert violations(log, SARIF, SARIF) == []


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("version",), "2.0.0", ".version isn't 2.1.0"),
        (
            ("runs", 0, "tool", "driver", "name"),
            None,
            ".runs[].tool.driver.name isn't string",
        ),
        (("runs", 0, "results", 0, "level"), "fail", "level isn't in"),
        (("runs", 0, "results", 0, "message"), {}, "message.text is missing"),
        (("runs", 0, "results", 0, "rank"), 1, "rank isn't in the schema"),
        (("runs", 0, "invocations", 0, "startTimeUtc"), "now", "isn't of the form"),
    ],
)
def test_another_form_is_noticed(
    where: tuple[str | int, ...], value: object, said: str
) -> None:
    log: Any = document(RUN, [failing()], HEADERS)
    inner = log
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    [found] = violations(log, SARIF, SARIF)
    assert said in found


def test_sarif_of_a_run_without_failures_has_no_results() -> None:
    [run] = document(RUN, [cell("original")], {})["runs"]
    assert (run["results"], run["tool"]["driver"]["rules"]) == ([], [])


def test_sarif_holds_no_links_placeholders_or_controls_of_a_model() -> None:
    log = document(
        RUN, [failing(reason=HOSTILE)], {failing().model: ModelHeader(path=HOSTILE)}
    )
    text = log["runs"][0]["results"][0]["message"]["text"]
    assert r"\[a\](" in text
    assert "{{0}}" in text
    assert "\x1b" not in text
    assert "\r" not in text
    uri = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"][
        "artifactLocation"
    ]["uri"]
    assert re.fullmatch(r"[\w%./~-]+", uri)


def test_properties_are_the_figures_and_leave_out_what_was_not_measured() -> None:
    whole = cell("fp16", latency=full_latency())
    found = dict(properties(whole))
    assert found.keys() == {"error", "tolerance", "speedup", "interval", "placement"}
    assert float(found["error"]) == pytest.approx(1.1e-6)
    assert properties(replace(whole, accuracy=None, latency=None, placement=None)) == []
    none = replace(output(), minimum_tolerance=None)
    assert (
        dict(properties(cell("x", accuracy=AccuracyRecord(1, {"y": none}))))["error"]
        == "none would pass"
    )
