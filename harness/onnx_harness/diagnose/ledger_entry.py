"""A diagnosis as an entry of the ledger of known failures, to paste into the model's card."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness.cards.ledger import as_toml, installed_version
from onnx_harness.cards.specs import KnownFailure
from onnx_harness.cell.matrix import upstream
from onnx_harness.names import CARD_SUFFIX
from onnx_harness.results.run import versions

if TYPE_CHECKING:
    from onnx_harness.cell.matrix import Cell
    from onnx_harness.diagnose.findings import Findings

FILE = "known_failure.toml"
"""In the folder of the smallest model."""
_RUNTIME = "onnxruntime"


def entry_of(
    cell: Cell,
    findings: Findings,
    sentence: str,
    repro: Path | None,
) -> KnownFailure:
    """Return the entry for a cell whose failure has a cause.

    One that the card has already keeps all that it says, but for the cause and the folder.

    Args:
        cell: it fails.
        findings: with the stage and the reason of the failure.
        sentence: the cause.
        repro: the folder of the smallest model; None where there is none.
    """
    folder = (
        ""
        if repro is None
        else Path(os.path.relpath(repro, cell.card.path.parent)).as_posix()
    )
    entry = cell.known_failure
    if entry is not None:
        return replace(entry, cause=sentence, repro=folder or entry.repro)
    return KnownFailure(
        stage=findings.stage,
        reason=findings.failure,
        versions=_versions(cell, findings),
        variants=(cell.variant.id,),
        providers=(cell.provider,),
        cause=sentence,
        repro=folder,
    )


def text_of(cell: Cell, entry: KnownFailure) -> str:
    """Return an entry as it is pasted, with the name of the card that it belongs into."""
    card = cell.card.path
    name = card.name.removesuffix(CARD_SUFFIX).removesuffix(".onnx")
    verb = "in the place of the entry in" if cell.known_failure is not None else "for"
    return f"# {verb} {name}{CARD_SUFFIX}\n{as_toml(entry)}"


def _versions(cell: Cell, findings: Findings) -> dict[str, str]:
    """Return the versions of the libraries that the cause lies in; of ONNX Runtime, at least."""
    libraries: Sequence[str] = ()
    if findings.cause.level is None:
        libraries = upstream(cell.variant)
    seen = {}
    for name in libraries:
        installed = installed_version(name)
        if installed is not None:
            seen[name] = installed
    if seen:
        return seen
    return {name: number for name, number in versions().items() if name.startswith(_RUNTIME)}
