"""Cells that don't run where they were asked to: caught before anything is computed, whatever ONNX Runtime claims.

This machine needs no device: a declared one stands in for it, and its sessions really run on the CPU, as they do when
ONNX Runtime falls back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import onnxruntime as ort
import pytest

from harness import pipeline, providers
from harness.matrix import Cell, card_for
from harness.names import parse_variant
from harness.pipeline import Task, judge
from harness.providers import Provider
from harness.results.cells import CellResult, Stage, Status
from harness.settings import Settings
from tests.models import linear, save

pytestmark = pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider':UserWarning")

DEVICE, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@dataclass(frozen=True)
class Node:
    op_type: str
    domain: str = ""


@dataclass(frozen=True)
class Owned:
    """What ONNX Runtime's record says of one provider."""

    ep_name: str
    ops: tuple[str, ...]

    def get_nodes(self) -> list[Node]:
        return [Node(op) for op in self.ops]


@pytest.fixture(autouse=True)
def _device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A provider that the installed wheel seems to have, and that no session gets."""
    declared = replace(providers.get("cuda"), name="device", environment={}, load=lambda: None, diagnose=lambda: None)
    monkeypatch.setitem(cast("dict[str, Provider]", providers.registry()), "device", declared)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [DEVICE, CPU])
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def judged(folder: Path, provider: str = "device", **settings: Any) -> CellResult:
    card = card_for(save(linear(), folder / "lin.onnx"))
    return judge(
        Task(Cell(card, parse_variant("original"), provider), card.path, Settings(input_sets=2, **settings))
    ).result


def claim_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the first check's evidence away: every session says that it has what it was asked for."""
    really = ort.InferenceSession.__init__
    asked: dict[int, list[str]] = {}

    def opened(self: object, *args: object, providers: list[Any], **options: object) -> None:
        really(self, *args, providers=providers, **options)
        asked[id(self)] = [each if isinstance(each, str) else each[0] for each in providers]

    monkeypatch.setattr(ort.InferenceSession, "__init__", opened)
    monkeypatch.setattr(ort.InferenceSession, "get_providers", lambda self: asked.get(id(self), []))


def forge_the_record(monkeypatch: pytest.MonkeyPatch, *owned: Owned) -> None:
    monkeypatch.setattr(ort.InferenceSession, "get_provider_graph_assignment_info", lambda _: list(owned))


def test_a_silent_fallback_is_caught_when_the_session_opens(tmp_path: Path) -> None:
    result = judged(tmp_path)
    assert (result.status, result.stage) == (Status.FAIL, Stage.SESSION)
    assert "'device' was asked for, but ONNX Runtime would run on CPUExecutionProvider" in str(result.reason)


def test_a_fallback_that_the_session_denies_is_caught_by_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_the_device(monkeypatch)
    result = judged(tmp_path)
    assert (result.status, result.stage, result.accuracy) == (Status.FAIL, Stage.PLACEMENT, None)
    assert str(result.reason).startswith(f"{DEVICE} owns 0 of 1 nodes (0%, at least 95% is wanted)")
    assert result.placement is not None
    assert (result.placement.nodes, result.placement.share) == ({CPU: 1}, 0.0)


def test_without_both_checks_a_fallback_goes_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim_the_device(monkeypatch)
    monkeypatch.setattr(pipeline, "shortfall", lambda *_: None)
    assert judged(tmp_path).status is Status.PASS


def test_a_provider_that_owns_a_part_only_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim_the_device(monkeypatch)
    forge_the_record(monkeypatch, Owned(DEVICE, ("MatMul",)), Owned(CPU, ("Add",)))
    result = judged(tmp_path)
    assert (result.status, result.stage) == (Status.FAIL, Stage.PLACEMENT)
    assert "owns 1 of 2 nodes (50%, at least 95% is wanted); elsewhere: Add x1" in str(result.reason)
    assert judged(tmp_path, min_placement=0.5).status is Status.PASS
    monkeypatch.setattr(pipeline, "shortfall", lambda *_: None)
    assert judged(tmp_path).status is Status.PASS


def test_shape_arithmetic_may_stay_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim_the_device(monkeypatch)
    forge_the_record(monkeypatch, Owned(DEVICE, ("MatMul", "Add")), Owned(CPU, ("Shape", "Gather")))
    result = judged(tmp_path)
    assert (result.status, result.reason) == (Status.PASS, None)


@pytest.mark.parametrize("provider", ["device", "cpu"])
def test_nodes_on_a_third_provider_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    if provider == "device":
        claim_the_device(monkeypatch)
    own = DEVICE if provider == "device" else CPU
    forge_the_record(monkeypatch, Owned(own, ("MatMul",)), Owned("OtherExecutionProvider", ("Shape",)))
    result = judged(tmp_path, provider)
    assert (result.status, result.stage) == (Status.FAIL, Stage.PLACEMENT)
    assert "elsewhere: Shape x1" in str(result.reason)


def test_a_placement_that_cannot_be_proven_is_no_placement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keeps_no_record(_: object) -> list[Owned]:
        raise RuntimeError("recording is off")

    monkeypatch.setattr(ort.InferenceSession, "get_provider_graph_assignment_info", keeps_no_record)
    result = judged(tmp_path, "cpu")
    assert (result.status, result.stage) == (Status.FAIL, Stage.PLACEMENT)
    assert "can't be proven: this session keeps no record of it (recording is off)" in str(result.reason)
