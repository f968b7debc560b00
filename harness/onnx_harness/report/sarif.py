"""A run's failing cells as SARIF 2.1.0, the format of GitHub's code scanning and of editors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any
from urllib.parse import quote

from onnx_harness.report import figures
from onnx_harness.report.escape import printable
from onnx_harness.report.export import rows
from onnx_harness.report.figures import BAD, ModelHeader
from onnx_harness.results.cells import CellResult
from onnx_harness.results.run import RunInfo, moment_of

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LINK = re.compile(r"[\\\[\]]")
_PLACEHOLDER = re.compile(r"\{(\d+)\}")


def document(
    run: RunInfo, cells: Sequence[CellResult], models: Mapping[str, ModelHeader]
) -> dict[str, Any]:
    """Return the JSON value of a SARIF log: one result for each failing cell.

    Rules are kinds of failure, such as ``compare.wrong_values``. Texts are printable, and hold none
    of the links and placeholders that SARIF knows in a message (sections 3.11.5 and 3.11.6 of the
    standard).

    Args:
        run: the run.
        cells: all of its cells.
        models: what is known of each model, by its name: its path is the place of the result.
    """
    failures = [cell for cell in cells if cell.status in BAD]
    rules = sorted({_rule(cell) for cell in failures})
    driver = {
        "name": "onnx-harness",
        "version": run.versions.get("onnx-harness", "0"),
        "rules": [
            {"id": rule, "shortDescription": {"text": _description(rule)}} for rule in rules
        ],
    }
    invocation: dict[str, Any] = {
        "executionSuccessful": True,
        "commandLine": printable(run.command),
    }
    started = moment_of(run)
    if started is not None:
        invocation["startTimeUtc"] = f"{started.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    results = [_result(cell, rules.index(_rule(cell)), models) for cell in failures]
    log = {"tool": {"driver": driver}, "invocations": [invocation], "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [log]}


def _result(
    cell: CellResult, rule: int, models: Mapping[str, ModelHeader]
) -> dict[str, Any]:
    [row] = rows([cell])
    figures_of_cell = {}
    for name, value in row.items():
        if isinstance(value, int | float):
            figures_of_cell[name] = value
    lines = [f"{cell.id}: {cell.status} at {cell.stage}", *figures.explanation(cell)]
    location: dict[str, Any] = {
        "logicalLocations": [{"fullyQualifiedName": printable(cell.id)}]
    }
    header = models.get(cell.model)
    if header is not None and header.path:
        artifact = {"uri": quote(printable(header.path), safe="/"), "uriBaseId": "%SRCROOT%"}
        location["physicalLocation"] = {
            "artifactLocation": artifact,
            "region": {"startLine": 1},
        }
    return {
        "ruleId": _rule(cell),
        "ruleIndex": rule,
        "level": "error",
        "message": {"text": "\n".join(_text(line) for line in lines)},
        "locations": [location],
        "partialFingerprints": {"onnxHarnessCell/v1": printable(cell.id)},
        "properties": figures_of_cell,
    }


def _rule(cell: CellResult) -> str:
    kind = cell.symptom or cell.status
    return f"{cell.stage}.{kind}"


def _description(rule: str) -> str:
    stage, _, kind = rule.partition(".")
    return f"A cell ended at {stage}: {kind.replace('_', ' ')}"


def _text(line: str) -> str:
    escaped = _LINK.sub(r"\\\g<0>", printable(line))
    return _PLACEHOLDER.sub(r"{{\1}}", escaped)
