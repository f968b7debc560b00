"""The account of the operators' official cases: what each variant breaks, in lines and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onnx_harness.report.table import Line, Style
from onnx_harness.results.cells import CellResult, Status, Symptom
from onnx_harness.results.files import cannot_write, replace_text

FILE = "backend_suite.json"
SCHEMA = 1

MOST_NAMES = 12
"""Of one symptom of one variant on the terminal; the file has all."""

PASS = "pass"
NOT_APPLICABLE = "not_applicable"
OTHER = "other"

# In the words of a person, in the order in which they are told. What isn't a transform's doing
# comes last.
_WORDS: Mapping[str, str] = {
    Symptom.EXCEPTION: "raise an exception",
    Symptom.CRASH: "crash",
    Symptom.INVALID: "invalid",
    Symptom.DOES_NOT_RUN: "don't run",
    Symptom.CHANGED_TYPES: "change types or shapes",
    Symptom.WRONG_VALUES: "wrong values",
    OTHER: "fail otherwise",
    NOT_APPLICABLE: "not applicable",
    Symptom.UNSTABLE: "give other outputs each time",
    Symptom.NOT_RUN: "not run by ONNX Runtime itself",
}
_BLAMELESS = (PASS, NOT_APPLICABLE, Symptom.UNSTABLE, Symptom.NOT_RUN)


@dataclass(frozen=True, slots=True)
class VariantAccount:
    """The cases of one variant on one provider, by how they ended.

    Attributes:
        cases: names of the cases by how they ended: ``pass``, ``not_applicable``, ``other`` or a
            symptom.
    """

    variant: str
    provider: str
    cases: dict[str, list[str]] = field(default_factory=dict)

    @property
    def run(self) -> int:
        """Cases that ONNX Runtime runs untouched, giving the suite's outputs."""
        return self._count((Symptom.NOT_RUN, Symptom.UNSTABLE))

    @property
    def broken(self) -> int:
        """Cases that the variant is to blame for."""
        return self._count(_BLAMELESS)

    def _count(self, left_out: Sequence[str]) -> int:
        counts = []
        for how, names in self.cases.items():
            if how not in left_out:
                counts.append(len(names))
        return sum(counts)


def accounts(cells: Sequence[CellResult]) -> list[VariantAccount]:
    """Make an account for each variant and provider, in the order of their first cells.

    Names of cases are in alphabetical order.
    """
    by_names: dict[tuple[str, str], VariantAccount] = {}
    for cell in cells:
        key = (cell.variant, cell.provider)
        by_names.setdefault(key, VariantAccount(*key))
    for cell in sorted(cells, key=lambda cell: cell.model):
        account = by_names[cell.variant, cell.provider]
        account.cases.setdefault(_how(cell), []).append(cell.model)
    return list(by_names.values())


def _how(cell: CellResult) -> str:
    if cell.status is Status.PASS:
        return PASS
    if cell.symptom is not None:
        return cell.symptom
    return NOT_APPLICABLE if cell.status is Status.NOT_APPLICABLE else OTHER


def lines(cells: Sequence[CellResult], *, width: int, where: str) -> Iterator[Line]:
    """Write the account for a terminal.

    Args:
        cells: of the suite's cases.
        width: of the terminal, in columns.
        where: the file that has every name; empty when nothing was written.
    """
    variants = accounts(cells)
    cases = len({cell.model for cell in cells})
    yield Line(f"ONNX's own cases of operators: {cases:,}, by variant", "bold")
    for account in variants:
        counts = []
        for how, words in _WORDS.items():
            if how in account.cases:
                counts.append(f"{len(account.cases[how]):,} {words}")
        passed = len(account.cases.get(PASS, ()))
        text = " · ".join(
            [
                f"{account.variant} on {account.provider}: {passed:,} of {account.run:,} pass",
                *counts,
            ]
        )
        yield from _wrapped(text, width, "  ", "red" if account.broken else "green")
        for how, words in _WORDS.items():
            if how not in _BLAMELESS and how in account.cases:
                yield from _wrapped(
                    f"{words}: {_names(account.cases[how])}", width, "      ", ""
                )
    if where and any(account.broken for account in variants):
        yield Line(f"  every case by name: {where}")


def _names(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    if more <= 1:
        return ", ".join(names)
    return f"{', '.join(names[:MOST_NAMES])} and {more:,} more"


def _wrapped(text: str, width: int, indent: str, style: Style) -> Iterator[Line]:
    wrapped = textwrap.wrap(
        text,
        max(width, 60),
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    for part in wrapped:
        yield Line(part, style)


def write(
    report_dir: Path, versions: Mapping[str, str], cells: Sequence[CellResult]
) -> None:
    """Write the account to ``backend_suite.json``, whole or not at all.

    Raises:
        ResultsError: it can't be written; the older one is untouched.
    """
    page = {
        "schema": SCHEMA,
        "versions": dict(versions),
        "variants": [
            {
                "variant": account.variant,
                "provider": account.provider,
                "run": account.run,
                "broken": account.broken,
                "counts": {how: len(names) for how, names in account.cases.items()},
                "cases": {how: names for how, names in account.cases.items() if how != PASS},
            }
            for account in accounts(cells)
        ],
    }
    path = report_dir / FILE
    try:
        replace_text(path, json.dumps(page, indent=1) + "\n")
    except OSError as error:
        raise cannot_write(FILE, path, error, "--report-dir") from error
