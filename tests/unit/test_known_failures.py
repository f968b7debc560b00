"""The ledger of known failures: what an entry is for, and what is said once an upgrade mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_harness.cards import ledger
from onnx_harness.cards.card import KnownFailure, read
from onnx_harness.cell import known
from onnx_harness.cell.known import with_ledger
from onnx_harness.errors import CardError
from onnx_harness.results.cells import CellResult, Stage, Status
from tests.nights import timed


def entry(versions: str) -> KnownFailure:
    return KnownFailure(
        "compare",
        "a sign is lost",
        {"thing": versions},
        cause="`fuse` of node n",
        repro="repro/n",
    )


def judged(
    monkeypatch: pytest.MonkeyPatch, versions: str, installed: str, *, passes: bool
) -> CellResult:
    """A cell whose card has an entry for some versions, judged with one."""
    here = {"thing": installed}.get
    for name in ("left_range", "upgrades"):
        ask = getattr(ledger, name)
        monkeypatch.setattr(known, name, lambda entry, ask=ask: ask(entry, here))
    ended = (
        {"status": Status.PASS}
        if passes
        else {"status": Status.FAIL, "stage": Stage.COMPARE}
    )
    result = timed("original", reason=None if passes else "the outputs differ", **ended)
    return with_ledger(result, entry(versions), "net.model.toml")


@pytest.mark.parametrize("versions", ["1.32.0", "<1.33", ">=1.30,<1.33"])
def test_a_failure_that_the_ledger_knows_has_its_cause_and_its_repro(
    monkeypatch: pytest.MonkeyPatch, versions: str
) -> None:
    result = judged(monkeypatch, versions, "1.32.0", passes=False)

    assert result.status is Status.KNOWN_FAILURE
    assert result.reason == f"a sign is lost (seen in thing {versions})"
    assert result.detail == ("cause: `fuse` of node n", "repro: repro/n")
    assert result.known is not None
    assert (result.known.cause, result.known.mended) == ("`fuse` of node n", None)


def test_what_an_upgrade_beyond_the_range_mends_passes_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = judged(monkeypatch, "<1.33", "1.33.0", passes=True)

    assert result.status is Status.PASS
    assert result.notes == ("mended by thing 1.33.0 (known of <1.33): a sign is lost",)
    assert result.known is not None
    assert result.known.mended == "thing 1.33.0 (known of <1.33)"


def test_what_was_to_be_mended_and_fails_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = judged(monkeypatch, "<1.33", "1.33.0", passes=False)

    assert result.status is Status.FAIL
    assert result.reason is not None
    assert "of thing 1.33.0 (known of <1.33)" in result.reason


def test_a_pass_within_the_range_is_a_failure_of_the_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = judged(monkeypatch, "<1.33", "1.32.0", passes=True)

    assert result.status is Status.FAIL
    assert result.reason is not None
    assert result.reason.startswith(
        "passes, though the card net.model.toml knows it to fail"
    )
    assert "mended by" not in result.reason


def test_a_pass_with_another_version_than_the_one_it_was_seen_in_names_the_upgrade(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = judged(monkeypatch, "1.32.0", "1.33.0", passes=True)

    assert result.status is Status.FAIL
    assert result.reason is not None
    assert result.reason.endswith("mended by thing 1.33.0 (seen in 1.32.0)")
    assert "give it the range of versions" in result.detail[0]


def test_a_distribution_that_is_not_installed_leaves_no_range() -> None:
    def nothing(_: str) -> None:
        return None

    assert ledger.left_range(entry("<1.33"), nothing) == ""
    assert ledger.upgrades(entry("1.32.0"), nothing) == ""


CARD = """
[source]
path = "net.onnx"
[[known_failure]]
stage = "run"
reason = "r"
versions = { onnxruntime = "VERSIONS" }
repro = "REPRO"
"""


def card(folder: Path, versions: str, repro: str) -> KnownFailure:
    path = folder / "net.model.toml"
    path.write_text(CARD.replace("VERSIONS", versions).replace("REPRO", repro), "utf-8")
    return read(path).known_failures[0]


def test_an_entry_is_read_with_its_range_and_its_repro(tmp_path: Path) -> None:
    read_entry = card(tmp_path, ">=1.30,<1.33", "repro")

    assert dict(read_entry.versions) == {"onnxruntime": ">=1.30,<1.33"}
    assert read_entry.repro == "repro"


def test_a_range_that_is_none_is_refused(tmp_path: Path) -> None:
    words = r"known_failure\[0\]\.versions\.onnxruntime is '>=1.x': isn't a range"
    with pytest.raises(CardError, match=words):
        card(tmp_path, ">=1.x", "repro")
