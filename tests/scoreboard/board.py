"""The rows of the scoreboard from the cells of two runs, and its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from onnx_harness.report.backend_suite import NOT_APPLICABLE, PASS, VariantAccount, accounts
from onnx_harness.results.cells import CellResult, Symptom


@dataclass(frozen=True, slots=True)
class Column:
    """One thing to compare.

    Attributes:
        name: what its row is called.
        variant: the id of the variant that applies it as its documentation says; without ONNX
            Runtime's own optimizer, whose mistakes have rows of their own.
        distribution: the package whose version counts.
    """

    name: str
    variant: str
    distribution: str


COLUMNS = (
    Column("onnxoptimizer, default passes", "onnxoptimizer+ort.disable", "onnxoptimizer"),
    Column("onnxsim", "onnxsim+ort.disable", "onnxsim"),
    Column("onnxslim", "onnxslim+ort.disable", "onnxslim"),
    Column("onnxscript, optimizer", "onnxscript+ort.disable", "onnxscript"),
    Column(
        "onnxconverter-common, float16",
        "fp16.onnxmltools.io32+ort.disable",
        "onnxconverter-common",
    ),
    Column("ONNX Runtime, level basic", "ort.basic", "onnxruntime"),
    Column("ONNX Runtime, level extended", "ort.extended", "onnxruntime"),
    Column("ONNX Runtime, level all", "ort.all", "onnxruntime"),
    Column("onnx-harness, simplify", "simplify+ort.disable", "onnx-harness"),
    Column("onnx-harness, float16", "fp16.io32+ort.disable", "onnx-harness"),
)
_BROKEN = (Symptom.INVALID, Symptom.DOES_NOT_RUN, Symptom.CHANGED_TYPES)
_RAISED = (Symptom.EXCEPTION, Symptom.CRASH)


@dataclass(frozen=True, slots=True)
class Score:
    """How models came out of one variant.

    Attributes:
        run: models that ONNX Runtime runs untouched, and the variant takes.
        right: of those, the ones that pass.
        wrong: give other values.
        broken: aren't valid, don't run, or give other types or shapes.
        raised: end in an exception or a crash of the library.
        other: fail otherwise.
    """

    run: int
    right: int
    wrong: int
    broken: int
    raised: int
    other: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the scoreboard.

    Attributes:
        name: of the library.
        version: empty where it isn't installed.
        operators: its score on the official cases of operators; None where it wasn't run.
        defects: its score on the models that some release got wrong; None likewise.
    """

    name: str
    version: str
    operators: Score | None
    defects: Score | None


def entries(
    operators: Sequence[CellResult],
    defects: Sequence[CellResult],
    versions: Mapping[str, str],
) -> list[Entry]:
    """Make the rows, in the order of :data:`COLUMNS`."""
    official, known = _scores(operators), _scores(defects)
    rows = []
    for column in COLUMNS:
        scores = official.get(column.variant), known.get(column.variant)
        rows.append(Entry(column.name, versions.get(column.distribution, ""), *scores))
    return rows


def as_json(rows: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the rows as JSON takes them."""
    return [asdict(row) for row in rows]


def page(rows: Sequence[Entry], when: datetime) -> str:
    """Render the page: one file, nothing from a network."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html").render(rows=rows, when=when)


def _scores(cells: Sequence[CellResult]) -> dict[str, Score]:
    return {account.variant: _score(account) for account in accounts(cells)}


def _score(account: VariantAccount) -> Score:
    def count(*ways: str) -> int:
        return sum(len(account.cases.get(way, ())) for way in ways)

    run = account.run - count(NOT_APPLICABLE)
    right, wrong = count(PASS), count(Symptom.WRONG_VALUES)
    broken, raised = count(*_BROKEN), count(*_RAISED)
    return Score(run, right, wrong, broken, raised, run - right - wrong - broken - raised)
