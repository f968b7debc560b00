"""Cells that don't run where they were asked to: caught before anything is computed, whatever ONNX
Runtime claims.

This machine needs no device: a declared one stands in for it, and its sessions really run on the
CPU, as they do when ONNX Runtime falls back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import onnxruntime as ort
import pytest

from onnx_harness import providers
from onnx_harness.cards.card import read
from onnx_harness.cell import pipeline, placement
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.pipeline import judge
from onnx_harness.cell.state import Task
from onnx_harness.names import parse_variant
from onnx_harness.providers import Provider
from onnx_harness.results.cells import CellResult, PlacementRecord, Stage, Status
from onnx_harness.settings import Settings
from tests.models import linear, model, save

pytestmark = pytest.mark.filterwarnings(
    "ignore:Specified provider 'CUDAExecutionProvider':UserWarning"
)

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
    declared = replace(
        providers.get("cuda"),
        name="device",
        environment={},
        load=lambda: None,
        diagnose=lambda: None,
    )
    monkeypatch.setitem(
        cast("dict[str, Provider]", providers.registry()), "device", declared
    )
    monkeypatch.setattr(ort, "get_available_providers", lambda: [DEVICE, CPU])
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def judged(
    folder: Path, provider: str = "device", *, asks: str = "", **settings: Any
) -> CellResult:
    card = card_for(save(linear(), folder / "lin.onnx"))
    if asks:
        (folder / "lin.model.toml").write_text(f"[placement]\n{asks}\n")
        card = read(folder / "lin.model.toml")
    return judge(
        Task(
            Cell(card, parse_variant("original"), provider),
            folder / "lin.onnx",
            Settings(input_sets=2, **settings),
        )
    ).result


def claim_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the first check's evidence away: every session says that it has what it was asked for."""
    really = ort.InferenceSession.__init__
    asked: dict[int, list[str]] = {}

    def opened(self: object, *args: object, providers: list[Any], **options: object) -> None:
        really(self, *args, providers=providers, **options)
        asked[id(self)] = [each if isinstance(each, str) else each[0] for each in providers]

    monkeypatch.setattr(ort.InferenceSession, "__init__", opened)
    monkeypatch.setattr(
        ort.InferenceSession, "get_providers", lambda self: asked.get(id(self), [])
    )


def forge_the_record(monkeypatch: pytest.MonkeyPatch, *owned: Owned) -> None:
    monkeypatch.setattr(
        ort.InferenceSession, "get_provider_graph_assignment_info", lambda _: list(owned)
    )


def forge_the_profile(
    monkeypatch: pytest.MonkeyPatch,
    *owned: Owned,
    microseconds: int = 10,
    gives: dict[str, list[int]] | None = None,
    takes: dict[str, list[int]] | None = None,
) -> None:
    """Have the profile say that one node of each op ran, ``microseconds`` on the device and 10
    elsewhere.

    What runs elsewhere takes and gives tensors of these types and shapes.
    """
    really = ort.InferenceSession.end_profiling

    def ended(self: ort.InferenceSession) -> str:
        file = Path(really(self))
        events: list[dict[str, Any]] = []
        for owner in owned:
            for op in owner.ops:
                result = (gives if owner.ep_name != DEVICE else None) or {"float": [2]}
                details = {
                    "op_name": op,
                    "provider": owner.ep_name,
                    "output_type_shape": [result],
                }
                if takes and owner.ep_name != DEVICE:
                    details["input_type_shape"] = [takes, takes]
                took = microseconds if owner.ep_name == DEVICE else 10
                name = f"node_{len(events)}_kernel_time"
                events.append({"cat": "Node", "name": name, "dur": took, "args": details})
        events.append({"cat": "Session", "name": "model_run", "dur": 1, "args": {}})
        file.write_text("[\n" + ",\n".join(map(json.dumps, events)) + "\n]\n")
        return str(file)

    monkeypatch.setattr(ort.InferenceSession, "end_profiling", ended)


def forge_both(monkeypatch: pytest.MonkeyPatch, *owned: Owned) -> None:
    """A record and a profile that agree."""
    forge_the_record(monkeypatch, *owned)
    forge_the_profile(monkeypatch, *owned)


def test_a_silent_fallback_is_caught_when_the_session_opens(tmp_path: Path) -> None:
    result = judged(tmp_path)
    assert (result.status, result.stage) == (Status.FAIL, Stage.SESSION)
    assert (
        "'device' was asked for, but ONNX Runtime would run on CPUExecutionProvider"
        in str(result.reason)
    )


def test_a_fallback_that_the_session_denies_is_caught_by_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_the_device(monkeypatch)
    result = judged(tmp_path)
    assert (result.status, result.stage, result.accuracy) == (
        Status.FAIL,
        Stage.PLACEMENT,
        None,
    )
    assert str(result.reason).startswith(
        f"{DEVICE} owns 0 of 1 nodes (0%, at least 95% is required)"
    )
    assert result.placement is not None
    assert (result.placement.nodes, result.placement.share) == ({CPU: 1}, 0.0)


def test_without_both_checks_a_fallback_goes_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_the_device(monkeypatch)
    monkeypatch.setattr(placement, "shortfall", lambda *_: None)
    assert judged(tmp_path).status is Status.PASS


def test_a_provider_that_owns_a_part_only_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_the_device(monkeypatch)
    forge_both(monkeypatch, Owned(DEVICE, ("MatMul",)), Owned(CPU, ("Add",)))
    result = judged(tmp_path)
    assert (result.status, result.stage) == (Status.FAIL, Stage.PLACEMENT)
    assert "owns 1 of 2 nodes (50%, at least 95% is required); elsewhere: Add x1" in str(
        result.reason
    )
    assert judged(tmp_path, min_placement=0.5).status is Status.PASS
    monkeypatch.setattr(placement, "shortfall", lambda *_: None)
    assert judged(tmp_path).status is Status.PASS


def test_shape_arithmetic_may_stay_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_the_device(monkeypatch)
    forge_both(
        monkeypatch, Owned(DEVICE, ("MatMul", "Add")), Owned(CPU, ("Shape", "Gather"))
    )
    result = judged(tmp_path)
    assert (result.status, result.reason) == (Status.PASS, None)


@pytest.mark.parametrize(
    ("gives", "takes", "passes"),
    [
        ({"int64": [2]}, {"int64": [2]}, True),
        ({"bool": []}, {"int64": []}, True),
        ({"int64": [1, 64]}, {"int64": [1, 64]}, True),
        ({"int64": [1, 65]}, {"int64": [1, 65]}, False),
        ({"int64": [2]}, {"float": [2]}, False),
        ({"float": [2]}, {"int64": [2]}, False),
    ],
)
def test_arithmetic_on_a_few_integers_may_stay_on_the_cpu_and_on_others_may_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gives: dict[str, list[int]],
    takes: dict[str, list[int]],
    passes: bool,
) -> None:
    claim_the_device(monkeypatch)
    owned = Owned(DEVICE, ("MatMul",)), Owned(CPU, ("Add",))
    forge_the_record(monkeypatch, *owned)
    forge_the_profile(monkeypatch, *owned, gives=gives, takes=takes)
    result = judged(tmp_path)
    if passes:
        assert (result.status, result.reason) == (Status.PASS, None)
        assert result.placement is not None
        assert (result.placement.share, result.placement.off_provider_ops) == (1.0, {})
    else:
        assert (result.status, result.stage) == (Status.FAIL, Stage.PLACEMENT)
        assert "elsewhere: Add x1" in str(result.reason)


def test_what_is_never_arithmetic_on_shapes_is_caught_before_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_the_device(monkeypatch)
    forge_the_record(monkeypatch, Owned(DEVICE, ("MatMul",)), Owned(CPU, ("Det", "Add")))
    monkeypatch.setattr(pipeline, "run_sets", lambda *_: pytest.fail("it ran"))
    result = judged(tmp_path)
    assert (result.status, result.stage) == (Status.FAIL, Stage.PLACEMENT)
    assert (
        "owns 1 of 3 nodes (33%, at least 95% is required); elsewhere: Det x1, Add x1"
        in str(result.reason)
    )


@pytest.mark.parametrize("provider", ["device", "cpu"])
def test_nodes_on_a_third_provider_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    if provider == "device":
        claim_the_device(monkeypatch)
    own = DEVICE if provider == "device" else CPU
    forge_the_record(
        monkeypatch, Owned(own, ("MatMul",)), Owned("OtherExecutionProvider", ("Shape",))
    )
    result = judged(tmp_path, provider)
    assert (result.status, result.stage) == (Status.FAIL, Stage.PLACEMENT)
    assert "elsewhere: Shape x1" in str(result.reason)


def test_a_placement_that_cannot_be_proven_is_no_placement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keeps_no_record(_: object) -> list[Owned]:
        raise RuntimeError("recording is off")

    monkeypatch.setattr(
        ort.InferenceSession, "get_provider_graph_assignment_info", keeps_no_record
    )
    result = judged(tmp_path, "cpu")
    assert (result.status, result.stage) == (Status.FAIL, Stage.PLACEMENT)
    assert "can't be proven: this session keeps no record of it (recording is off)" in str(
        result.reason
    )


def test_a_fallback_that_the_record_hides_is_caught_by_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_the_device(monkeypatch)
    forge_the_record(monkeypatch, Owned(DEVICE, ("Gemm",)))
    result = judged(tmp_path)
    assert (result.status, result.stage, result.accuracy) == (
        Status.FAIL,
        Stage.PLACEMENT,
        None,
    )
    assert (
        result.reason
        == f"the record of assignments puts 1 node on {DEVICE} that ran on {CPU}: Gemm x1"
    )
    assert result.placement is not None
    assert (result.placement.share, result.placement.executed) == (1.0, {CPU: 1})
    monkeypatch.setattr(placement, "contradiction", lambda *_: None)
    assert judged(tmp_path).status is Status.PASS


def test_a_fallback_that_fusion_has_renamed_is_caught_by_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_the_device(monkeypatch)
    forge_the_record(monkeypatch, Owned(DEVICE, ("MatMul", "Add")))
    result = judged(tmp_path)
    assert (result.status, result.stage) == (Status.FAIL, Stage.PLACEMENT)
    assert f"puts 2 nodes on {DEVICE}, and none ran there ({CPU} 1)" in str(result.reason)


def test_one_node_that_ran_elsewhere_than_recorded_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_the_device(monkeypatch)
    forge_the_record(monkeypatch, Owned(DEVICE, ("MatMul",) * 40), Owned(CPU, ("Gather",)))
    forge_the_profile(
        monkeypatch, Owned(DEVICE, ("MatMul",) * 39), Owned(CPU, ("Gather", "MatMul"))
    )
    result = judged(tmp_path)
    assert (result.status, result.stage) == (Status.FAIL, Stage.PLACEMENT)
    assert f"puts 1 node on {DEVICE} that ran on {CPU}: MatMul x1" in str(result.reason)


def test_fusion_and_branches_not_taken_are_no_contradiction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_the_device(monkeypatch)
    forge_the_record(
        monkeypatch,
        Owned(DEVICE, ("Conv", "Relu", "Conv", "Relu", "If")),
        Owned(CPU, ("Gather",) * 3),
    )
    forge_the_profile(
        monkeypatch, Owned(DEVICE, ("FusedConv", "Conv")), Owned(CPU, ("Gather", "Gather"))
    )
    assert judged(tmp_path).status is Status.PASS


@pytest.mark.parametrize(
    ("asks", "complaint"),
    [
        (
            "max_memcpy = 1",
            (
                f"2 nodes copy between the memory of {DEVICE} and the host's (Memcpy), and the "
                f"card "
                f"allows 1"
            ),
        ),
        (
            "min_time_share = 0.5",
            f"{DEVICE} has 23% of the time in kernels, and the card requires at least 50%",
        ),
        ("min_share = 0.99", "owns 39 of 40 nodes (98%, at least 99% is required)"),
    ],
)
def test_a_card_that_asks_for_more_than_there_is_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: str, complaint: str
) -> None:
    claim_the_device(monkeypatch)
    owned = Owned(DEVICE, ("MatMul",) * 39), Owned(CPU, ("Det",))
    forge_the_record(monkeypatch, *owned)
    copying = Owned(DEVICE, ("MatMul", "MemcpyToHost", "MemcpyFromHost"))
    forge_the_profile(monkeypatch, copying, owned[1], microseconds=1)
    result = judged(tmp_path, asks=asks)
    assert (result.status, result.stage) == (Status.FAIL, Stage.PLACEMENT)
    assert complaint in str(result.reason)
    assert (
        judged(tmp_path, asks="max_memcpy = 2\nmin_time_share = 0.2").status is Status.PASS
    )
    monkeypatch.setattr(placement, "breach", lambda *_, **__: None)
    monkeypatch.setattr(placement, "shortfall", lambda *_: None)
    assert judged(tmp_path, asks=asks).status is Status.PASS


def test_what_a_card_allows_on_the_cpu_does_not_count_and_the_command_line_overrides_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_the_device(monkeypatch)
    forge_both(monkeypatch, Owned(DEVICE, ("MatMul",)), Owned(CPU, ("Det",)))
    assert judged(tmp_path).status is Status.FAIL
    assert judged(tmp_path, asks='allowed_cpu_ops = ["Det"]').status is Status.PASS
    assert judged(tmp_path, asks="min_share = 0.5").status is Status.PASS
    assert judged(tmp_path, asks="min_share = 0.5", min_placement=0.9).status is Status.FAIL


def test_what_a_card_asks_of_one_provider_goes_before_what_it_asks_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_the_device(monkeypatch)
    forge_both(monkeypatch, Owned(DEVICE, ("MatMul",)), Owned(CPU, ("Det",)))
    assert (
        judged(tmp_path, asks="min_share = 0.9\n[placement.device]\nmin_share = 0.5").status
        is Status.PASS
    )
    assert (
        judged(tmp_path, asks="min_share = 0.5\n[placement.device]\nmin_share = 0.9").status
        is Status.FAIL
    )
    assert (
        judged(tmp_path, asks="min_share = 0.5\n[placement.cuda]\nmin_share = 0.9").status
        is Status.PASS
    )
    assert (
        judged(tmp_path, asks='[placement.device]\nallowed_cpu_ops = ["Det"]').status
        is Status.PASS
    )
    asks = 'allowed_cpu_ops = ["Det"]\n[placement.device]\nmax_memcpy = 0'
    assert judged(tmp_path, asks=asks).status is Status.PASS


def test_a_card_that_names_no_provider_is_refused_by_key_and_line(tmp_path: Path) -> None:
    result = judged(tmp_path, asks="[placement.webgp]\nmin_share = 0.5")
    assert (result.status, result.stage) == (Status.ERROR, Stage.LOAD)
    assert (
        "line 2: placement.webgp is neither a key nor an execution provider. Did you mean 'webgpu'?"
        in str(result.reason)
    )


def test_a_card_cannot_excuse_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge_the_record(
        monkeypatch, Owned(CPU, ("MatMul",)), Owned("OtherExecutionProvider", ("Add",))
    )
    result = judged(tmp_path, "cpu", asks='min_share = 0.1\nallowed_cpu_ops = ["Add"]')
    assert (result.status, result.stage) == (Status.FAIL, Stage.PLACEMENT)


def test_a_profile_that_cannot_be_read_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ort.InferenceSession, "end_profiling", lambda _: str(tmp_path / "gone.json")
    )
    result = judged(tmp_path, "cpu")
    assert (result.status, result.stage) == (Status.FAIL, Stage.PLACEMENT)
    assert "where the nodes ran on provider 'cpu' can't be told" in str(result.reason)


def test_a_loop_is_profiled_where_it_says_something(tmp_path: Path) -> None:
    body = "body (int64 i, bool c, float[2] v) => (bool d, float[2] w) { d = Identity(c) w = Exp(v) }"
    rounds = "k = Constant<value_int = 3>()"
    loop = model(
        f"(float[2] x) => (float[2] y) {{ {rounds} y = Loop<body = {body}>(k, , x) }}"
    )
    card = card_for(save(loop, tmp_path / "loop.onnx"))

    def record(variant: str) -> PlacementRecord | None:
        return judge(
            Task(
                Cell(card, parse_variant(variant), "cpu"), card.path, Settings(input_sets=1)
            )
        ).result.placement

    plain, half = record("original"), record("fp16.io32")
    assert plain is not None
    assert half is not None
    assert (plain.precision, plain.time_share, plain.share) == (None, None, 1.0)
    assert (half.precision, half.time_share) == ("emulated", 1.0)
