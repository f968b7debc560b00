"""A verdict in the light of the card's known failures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnx_harness.cards.ledger import left_range, upgrades
from onnx_harness.results.cells import CellResult, KnownRecord, Status

if TYPE_CHECKING:
    from onnx_harness.cards.card import KnownFailure


def with_ledger(result: CellResult, entry: KnownFailure, card: str) -> CellResult:
    """Compare a verdict with the entry of the ledger that is for its cell.

    A failure that the entry knows is a known failure. One that passes within the entry's versions
    is a failure: the card is out of date. Outside of them it's mended, which is said and passes;
    what fails there, or at another stage, fails.

    Args:
        result: of the cell, passed or failed.
        entry: the card's.
        card: the name of the card's file.
    """
    if result.status is Status.PASS:
        return _mended(result, entry, card)
    outside = left_range(entry)
    if outside:
        reason = (
            f"{result.reason} (a failure as the card {card} knows one, but of {outside})"
        )
        return replace(result, reason=reason)
    if result.stage != entry.stage:
        where = f"fails at {result.stage}, not at {entry.stage} as the card knows it"
        return replace(result, reason=f"{where}: {result.reason}")
    return replace(
        result,
        status=Status.KNOWN_FAILURE,
        reason=f"{entry.reason} (seen in {_seen(entry)})",
        detail=(*result.detail, *_entry_lines(entry)),
        known=_record(entry),
    )


def _mended(result: CellResult, entry: KnownFailure, card: str) -> CellResult:
    outside, other = left_range(entry), upgrades(entry)
    known = _record(entry, mended=outside or other)
    if outside:
        note = f"mended by {outside}: {entry.reason}"
        return replace(result, notes=(*result.notes, note), known=known)
    history = f"{entry.reason}; seen in {_seen(entry)}"
    reason = f"passes, though the card {card} knows it to fail ({history})"
    mend = "Mend: take that entry out of the card."
    if other:
        reason += f"; mended by {other}"
        mend = (
            "Mend: take that entry out of the card, or give it the range of versions that it's "
            'for, such as versions = { NAME = "<VERSION" }.'
        )
    return replace(result, status=Status.FAIL, reason=reason, detail=(mend,), known=known)


def _seen(entry: KnownFailure) -> str:
    return ", ".join(f"{name} {versions}" for name, versions in entry.versions.items())


def _entry_lines(entry: KnownFailure) -> list[str]:
    lines = {"cause": entry.cause, "repro": entry.repro}
    return [f"{name}: {text}" for name, text in lines.items() if text]


def _record(entry: KnownFailure, mended: str = "") -> KnownRecord:
    return KnownRecord(
        entry.reason,
        dict(entry.versions),
        cause=entry.cause or None,
        repro=entry.repro or None,
        mended=mended or None,
    )
