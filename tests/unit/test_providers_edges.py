"""Both sides of each threshold in what is told of providers, their placements and their profiles."""

from __future__ import annotations

import ctypes
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest

from onnx_harness.errors import ProviderError
from onnx_harness.providers import Problem, cuda, get, sessions
from onnx_harness.providers import profile as profiles
from onnx_harness.providers.contradiction import breach, contradiction
from onnx_harness.providers.libraries import distribution
from onnx_harness.providers.placement import (
    Placement,
    assignments,
    judge,
    keeps_record,
    shortfall,
)
from onnx_harness.providers.probe import conflict, probe
from onnx_harness.providers.profile import Profile, precision, read_profile
from onnx_harness.providers.profile_runs import NodeRun, read_nodes, read_runs

CPU, CUDA, TENSORRT = get("cpu"), get("cuda"), get("tensorrt")
ON, OFF = "CUDAExecutionProvider", "CPUExecutionProvider"


# what is installed


@pytest.mark.parametrize(
    ("installed", "named"),
    [
        (["onnxruntime", "ort_nightly"], "onnxruntime and ort-nightly"),
        (["ORT-Nightly-GPU", "onnxruntime"], "onnxruntime and ort-nightly-gpu"),
        (
            ["onnxruntime_gpu", "onnxruntime-openvino"],
            "onnxruntime-gpu and onnxruntime-openvino",
        ),
        (["onnxruntime", "onnxruntime-tools", "onnxruntime-ep-a"], None),
        (["onnxruntime", "onnxruntimes", "ort", "ort-nightlyx"], None),
        (["onnxruntime", "onnxruntime"], None),
        ([], None),
    ],
)
def test_several_distributions_are_named_each_once(
    installed: list[str], named: str | None
) -> None:
    problem = conflict(installed)
    assert (problem is None) is (named is None)
    if problem is not None:
        assert named is not None
        words = f"{named} are installed in one environment and overwrite each other's files"
        assert problem.reason == words
        assert problem.mend == (
            f"pip uninstall -y {named.replace(' and ', ' ')}, then install one, for example "
            "pip install 'onnx-harness[cpu]'"
        )


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("onnxruntime_gpu-1.24.0.dist-info", True),
        ("ORT_nightly-1.0.egg-info", True),
        ("onnxruntime_gpu", False),
        ("my_onnxruntime_gpu-1.0.dist-info", False),
    ],
)
def test_a_distribution_is_known_by_the_folder_of_its_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, found: bool
) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / "onnxruntime-1.24.0.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "nowhere"), str(tmp_path)])
    assert (conflict() is not None) is found


def test_a_release_that_does_not_say_its_distribution_is_the_plain_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(ort, "package_name", raising=False)
    assert distribution() == f"onnxruntime {ort.__version__}"


def test_without_onnxruntime_the_reason_is_what_python_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    reason = str(probe("cuda").reason)
    assert reason.startswith("ONNX Runtime can't be imported here (")
    assert "onnxruntime" in reason
    assert reason.endswith(")")


def test_a_gpu_s_name_in_another_encoding_is_told_as_far_as_it_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Driver:
        def cuDeviceGet(self, *_: Any) -> int:
            return 0

        def cuDeviceGetName(self, name: Any, *_: Any) -> int:
            name.value = b"GPU \xff 1"
            return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver())
    assert cuda.device_name() == "GPU \ufffd 1"


# where nodes are assigned


@pytest.mark.parametrize(
    ("assigned", "sizes", "off", "share"),
    [
        ({(ON, "Conv"): 3, (OFF, "Mul"): 5}, {(OFF, "Mul"): 4}, {"Mul": 1}, 3 / 4),
        ({(ON, "Conv"): 3, (OFF, "Mul"): 5}, {(OFF, "Mul"): 9}, {}, 1.0),
        ({(ON, "Conv"): 3, (OFF, "Mul"): 5}, {(ON, "Mul"): 4}, {"Mul": 5}, 3 / 8),
        ({(ON, "Conv"): 3, (OFF, "Det"): 5}, {(OFF, "Det"): 5}, {"Det": 5}, 3 / 8),
        ({(ON, "Conv"): 3, ("Other", "Mul"): 1}, {("Other", "Mul"): 1}, {"Mul": 1}, 3 / 4),
        ({(ON, "Conv"): 1, ("Other", "Shape"): 1}, {}, {"Shape": 1}, 1 / 2),
        ({(ON, "Conv"): 1, (OFF, "Shape"): 9}, {}, {}, 1.0),
        ({(OFF, "Shape"): 2, ("Other", "Mul"): 3}, {}, {"Mul": 3, "Shape": 2}, 0.0),
        ({(ON, "Conv"): 0}, {}, {}, 1.0),
    ],
)
def test_a_share_is_of_the_nodes_that_may_lie_nowhere_else(
    assigned: dict[tuple[str, str], int],
    sizes: dict[tuple[str, str], int],
    off: dict[str, int],
    share: float,
) -> None:
    placed = judge(Counter(assigned), CUDA, Counter(sizes))
    nodes: Counter[str] = Counter()
    for (owner, _), count in assigned.items():
        nodes[owner] += count
    owned = {name: count for name, count in sorted(nodes.items()) if count}
    assert placed == Placement(ON, owned, off, share)
    assert list(placed.nodes) == sorted(owned)
    assert list(placed.off_provider_ops) == list(off)


@pytest.mark.parametrize(("ops", "more"), [(6, ""), (7, " and 1 more op types")])
def test_a_shortfall_lists_six_operators(ops: int, more: str) -> None:
    off = {f"Op{place}": 2 for place in range(ops)}
    placed = Placement(ON, {ON: 12, OFF: 2 * ops}, off, 0.5)
    listed = ", ".join(f"Op{place} x2" for place in range(6))
    assert shortfall(placed, CUDA) == (
        f"{ON} owns 12 of {12 + 2 * ops} nodes (50%, at least 95% is required); elsewhere: "
        f"{listed}{more} (nodes by provider: {ON} 12, {OFF} {2 * ops})"
    )
    assert shortfall(placed, CUDA, 0.5) is None
    assert shortfall(placed, CUDA, 0.51) is not None
    assert shortfall(placed, CUDA, 0.0) is None
    idle = Placement(ON, {OFF: 1}, {"Mul": 1}, 0.0)
    assert f"{ON} owns 0 of 1 nodes (0%," in str(shortfall(idle, CUDA))


def test_a_record_is_counted_by_provider_and_operator() -> None:
    def owned(name: str, *ops: tuple[str, str]) -> Any:
        nodes = [SimpleNamespace(domain=domain, op_type=op) for domain, op in ops]
        return SimpleNamespace(ep_name=name, get_nodes=lambda: nodes)

    record = [
        owned(ON, ("", "Mul"), ("ai.onnx", "Mul"), ("com.microsoft", "Gelu")),
        owned(OFF, ("", "Mul"), ("ai.onnx.ml", "Scaler")),
        owned(ON, ("", "Mul")),
    ]
    session: Any = SimpleNamespace(get_provider_graph_assignment_info=lambda: record)
    assert assignments(session, CUDA) == {
        (ON, "Mul"): 3,
        (ON, "com.microsoft:Gelu"): 1,
        (OFF, "Mul"): 1,
        (OFF, "ai.onnx.ml:Scaler"): 1,
    }

    def fails() -> None:
        raise RuntimeError("it was off")

    session = SimpleNamespace(get_provider_graph_assignment_info=fails)
    with pytest.raises(ProviderError, match=r"on provider 'cuda' .* of it \(it was off\)$"):
        assignments(session, CUDA)


def test_a_release_that_records_placements_has_the_call_for_it() -> None:
    recording: Any = SimpleNamespace(get_provider_graph_assignment_info=list)
    old: Any = SimpleNamespace()
    assert (keeps_record(recording), keeps_record(old)) == (True, False)


# where they ran


def event(op: str, owner: str = OFF, took: int = 5, **details: Any) -> dict[str, Any]:
    args = {"op_name": op, "provider": owner, **details}
    return {"cat": "Node", "name": f"{op}_kernel_time", "dur": took, "args": args}


END = {"cat": "Session", "name": "model_run", "dur": 9, "args": {}}


def written(folder: Path, *events: dict[str, Any]) -> Path:
    file = folder / "profile.json"
    file.write_text("[\n" + ",\n".join(map(json.dumps, events)) + "\n]\n")
    return file


@pytest.mark.parametrize(
    ("given", "taken", "small"),
    [
        ([{"int64": [64]}], [], True),
        ([{"int64": [8, 8]}], [{"bool": []}], True),
        ([{"int64": [65]}], [], False),
        ([{"int64": [2]}], [{"int64": [5, 13]}], False),
        ([{"int64": [2]}, {"int64": [65]}], [], False),
        ([{"float": [1]}], [{"int64": [1]}], False),
        ([{"int64": [1]}], [{"float": [1]}], False),
        ([{"uint8": [0]}], [], True),
        ([], [{"int64": [1]}], False),
    ],
)
def test_arithmetic_on_shapes_takes_and_gives_a_few_integers(
    tmp_path: Path, given: list[Any], taken: list[Any], small: bool
) -> None:
    node = event("Mul", output_type_shape=given, input_type_shape=taken)
    found = read_profile(written(tmp_path, node, END), CPU)
    assert found.sizes[OFF, "Mul"] == int(small)
    assert found.nodes == {(OFF, "Mul"): 1}


@pytest.mark.parametrize(
    ("op", "given", "taken", "type_name"),
    [
        ("Add", [{"float16": [1]}], [{"float": [1]}], "float16"),
        ("Add", [{"bfloat16": [1]}], [], "bfloat16"),
        ("Add", [{"int64": [1]}, {"double": [1]}], [], "float64"),
        ("ArgMax", [{"int64": [1]}], [{"int32": [1]}, {"float16": [1]}], "float16"),
        ("ArgMax", [{"int64": [1]}], [], None),
        ("Cast", [{"float16": [1]}], [{"float": [1]}], None),
        ("If", [{"float": [1]}], [], None),
    ],
)
def test_a_node_computes_in_the_float_that_it_gives_or_else_takes(
    tmp_path: Path, op: str, given: list[Any], taken: list[Any], type_name: str | None
) -> None:
    node = event(op, output_type_shape=given, input_type_shape=taken)
    found = read_profile(written(tmp_path, node, END), CPU)
    assert found.arithmetic == ({type_name: 1} if type_name else {})
    assert found.microseconds == ({} if op == "If" else {OFF: 5})


@pytest.mark.parametrize(("most", "nodes"), [(1, 1), (2, 2), (9, 4)])
def test_a_run_is_read_to_its_first_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, nodes: int
) -> None:
    """The list's bracket counts as one, and one more is read."""
    monkeypatch.setattr(profiles, "_MOST_EVENTS", most)
    file = written(tmp_path, *(event(f"Op{place}") for place in range(4)), END)
    ops = [op for _, op in read_profile(file, CPU).nodes]
    assert ops == [f"Op{place}" for place in range(nodes)]


def test_what_is_no_kernel_of_a_node_takes_no_time(tmp_path: Path) -> None:
    """ONNX Runtime notes the waiting before and after a kernel as events of their own."""
    waiting = {**event("Mul", took=900), "name": "Mul_fence_before"}
    loading = {**event("Mul", took=900), "cat": "Session"}
    file = written(tmp_path, waiting, event("Mul"), loading, END)
    assert read_profile(file, CPU).microseconds == {OFF: 5}
    assert [dict(run) for run in read_runs(file).runs] == [{"Mul": 5.0}]
    assert read_nodes(file) == {"Mul": NodeRun(5.0, OFF, "")}


def test_nameless_nodes_come_by_their_index_and_those_without_one_first(
    tmp_path: Path,
) -> None:
    first = {**event("Add", took=7), "name": "_kernel_time"}
    second = {**event("Add", took=9, node_index="1"), "name": "Add_1_kernel_time"}
    [run] = read_runs(written(tmp_path, second, first, END)).runs
    assert run == {"Add_0": 7.0, "Add_1": 9.0}


def test_a_profile_that_cannot_be_read_says_what_python_says(tmp_path: Path) -> None:
    gone = tmp_path / "gone.json"
    what = rf"ONNX Runtime's profile can't be read \(FileNotFoundError: .*{gone.name}.*\)"
    place = "where the nodes ran on provider 'cpu' can't be told"
    with pytest.raises(ProviderError, match=rf"^{place}: {what}$"):
        read_profile(gone, CPU)
    for read in (read_runs, read_nodes):
        with pytest.raises(ProviderError, match=rf"^{what}$"):
            read(gone)
    empty = written(tmp_path, event("Add"))
    with pytest.raises(ProviderError, match=r"\(ValueError: it holds no run\)$"):
        read_profile(empty, CPU)


@pytest.mark.parametrize(
    ("arithmetic", "compiled", "casts", "wants_half", "provider", "told"),
    [
        ({"float16": 3, "float32": 1}, 0, 1, True, CUDA, "mixed"),
        ({"float16": 3, "float32": 1}, 0, 0, True, CUDA, "float16"),
        ({"float16": 3}, 0, 1, True, CUDA, "float16"),
        ({"float32": 3}, 2, 1, True, TENSORRT, "mixed"),
        ({"float32": 3}, 2, 1, True, CPU, "emulated"),
        ({}, 2, 0, True, CPU, "emulated"),
        ({}, 2, 0, True, TENSORRT, "float16"),
        ({}, 0, 5, True, TENSORRT, None),
        ({"float64": 2, "float32": 1}, 0, 0, False, CUDA, "float64"),
        ({"float64": 2}, 1, 0, False, CUDA, "float32"),
        ({}, 0, 1, False, CUDA, None),
    ],
)
def test_the_precision_is_what_most_or_any_of_it_was_computed_in(
    arithmetic: dict[str, int],
    compiled: int,
    casts: int,
    wants_half: bool,
    provider: Any,
    told: str | None,
) -> None:
    found = Profile(arithmetic=Counter(arithmetic), compiled=compiled, inserted_casts=casts)
    assert precision(found, provider, wants_half=wants_half) == told


@pytest.mark.parametrize(
    ("recorded", "ran", "words"),
    [
        # as many as ran elsewhere beyond the record, and no more than are missing
        ({(ON, "Mul"): 5}, {(ON, "Mul"): 3, (OFF, "Mul"): 1}, "1 node on {on} that ran on {off}: Mul x1"),
        ({(ON, "Mul"): 5}, {(ON, "Mul"): 4, (OFF, "Mul"): 9}, "1 node on {on} that ran on {off}: Mul x1"),
        (
            {(ON, "Mul"): 5, (OFF, "Mul"): 2},
            {(ON, "Mul"): 1, (OFF, "Mul"): 4},
            "2 nodes on {on} that ran on {off}: Mul x2",
        ),
        ({(ON, "Mul"): 5, (OFF, "Mul"): 2}, {(ON, "Mul"): 5, (OFF, "Mul"): 4}, None),
        ({(ON, "Mul"): 5, (OFF, "Mul"): 2}, {(ON, "Mul"): 1, (OFF, "Mul"): 2}, None),
        # none of what was promised ran there, under whatever names
        ({(ON, "Mul"): 1}, {(OFF, "Fused"): 2}, "1 node on {on}, and none ran there ({off} 2)"),
        ({(ON, "Mul"): 1}, {(ON, "Fused"): 1, (OFF, "Fused"): 1}, None),
        ({(OFF, "Mul"): 1}, {(OFF, "Fused"): 1}, None),
        ({(ON, "Mul"): 1}, {}, None),
    ],
)  # fmt: skip
def test_what_has_no_honest_explanation_contradicts_the_record(
    recorded: dict[tuple[str, str], int], ran: dict[tuple[str, str], int], words: str | None
) -> None:
    told = contradiction(Counter(recorded), Profile(Counter(ran)), CUDA)
    expected = None
    if words is not None:
        expected = f"the record of assignments puts {words.format(on=ON, off=OFF)}"
    assert told == expected


def test_of_many_operators_that_moved_the_commonest_six_are_named() -> None:
    ops = {f"Op{place}": 9 - place for place in range(7)}
    recorded = Counter({(ON, op): count for op, count in ops.items()})
    ran = Profile(Counter({(OFF, op): count for op, count in ops.items()}))
    listed = ", ".join(f"Op{place} x{9 - place}" for place in range(6))
    told = str(contradiction(recorded, ran, CUDA))
    assert told.endswith(f"puts 42 nodes on {ON} that ran on {OFF}: {listed}")


def test_demands_that_are_met_to_the_last_are_met() -> None:
    found = Profile(microseconds=Counter({ON: 1, OFF: 3}), copies=2)
    assert breach(found, CUDA, min_time_share=0.25, max_copies=2) is None
    assert breach(found, CUDA, min_time_share=0.25, max_copies=1) is not None
    assert "and the card requires" in str(
        breach(found, CUDA, min_time_share=0.5, max_copies=0)
    )
    assert breach(Profile(copies=2), CUDA, min_time_share=0.5) is None
    assert Profile().time_share(CUDA) is None
    assert Profile(microseconds=Counter({OFF: 3})).time_share(CUDA) == 0.0


# what is refused

HERE = "provider 'cuda' was asked for and can't be used here"
ELSEWHERE = (
    "provider 'cuda' was asked for, but ONNX Runtime would run on CPUExecutionProvider"
)


@pytest.mark.parametrize(
    ("problem", "opened", "words"),
    [
        (None, None, f"{HERE}."),
        (Problem("it's old"), None, f"{HERE}: it's old."),
        (Problem("it's old", "renew it"), None, f"{HERE}: it's old. Mend: renew it."),
        (
            None,
            [OFF, ON],
            f"{ELSEWHERE} (its own message about that went to standard error).",
        ),
        (Problem("it's old"), [OFF], f"{ELSEWHERE}: it's old."),
    ],
)
def test_a_refusal_says_what_happened_and_what_would_mend_it(
    problem: Problem | None, opened: list[str] | None, words: str
) -> None:
    told = sessions._refused(CUDA, problem, opened)
    assert told == f"{words} `onnx-harness doctor` shows every provider."
