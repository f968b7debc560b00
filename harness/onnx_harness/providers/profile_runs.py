"""The profile of a session's runs, ONNX Runtime's own: the time of each node in each run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_harness.errors import ProviderError
from onnx_harness.providers.profile import parse_event

_KERNEL = "_kernel_time"
_RUN_ENDS = "model_run"
_FLOATS = {
    "float": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "double": "float64",
}
# Their time is that of the nodes inside them, which have events of their own.
_BODIES = frozenset({"If", "Loop", "Scan"})


@dataclass(frozen=True, slots=True)
class RunProfiles:
    """The runs of one session, node by node.

    Attributes:
        op_types: of the nodes, by the name that they have in ``runs``.
        runs: microseconds by node of each run, in order. A node that ran several times in a run,
            in a Loop, counts with their sum. A node without a name is called after its operator,
            with its place among the nameless nodes of that operator: ``Add_0``.
    """

    op_types: Mapping[str, str]
    runs: tuple[Mapping[str, float], ...]


def read_runs(file: Path) -> RunProfiles:
    """Read every run in a profile.

    Raises:
        ProviderError: it can't be read, or isn't a profile that holds a run.
    """
    with _explained():
        return _profiles(_events(file))


@dataclass(frozen=True, slots=True)
class NodeRun:
    """A node in the last run of a profile.

    Attributes:
        microseconds: in its kernel; the sum where it ran several times.
        provider: ONNX Runtime's name of the execution provider that ran it.
        precision: the element type of its first output of floats, or else of any: ``float16``.
    """

    microseconds: float
    provider: str
    precision: str


def read_nodes(file: Path) -> dict[str, NodeRun]:
    """Read the last run in a profile, by the names of the nodes that have one.

    Raises:
        ProviderError: it can't be read.
    """
    nodes: dict[str, NodeRun] = {}
    with _explained():
        events = _events(file)
        last = _profiles(events).runs[-1]
        for event in filter(_is_kernel, events):
            name = event["name"].removesuffix(_KERNEL)
            if name in last:
                details = event["args"]
                nodes[name] = NodeRun(last[name], details["provider"], _output_type(details))
    return nodes


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ProviderError(f"ONNX Runtime's profile can't be read ({what})") from error


def _events(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        return [event for line in lines if (event := parse_event(line))]


def _output_type(details: Mapping[str, Any]) -> str:
    types = [name for tensor in details.get("output_type_shape", ()) for name in tensor]
    floats = [name for name in types if name in _FLOATS]
    return _FLOATS[floats[0]] if floats else next(iter(types), "")


def _profiles(events: list[dict[str, Any]]) -> RunProfiles:
    names = _names(events)
    op_types: dict[str, str] = {}
    runs: list[Mapping[str, float]] = []
    run: dict[str, float] = {}
    for event in events:
        if event.get("cat") == "Session" and event["name"] == _RUN_ENDS:
            runs.append(run)
            run = {}
        elif _is_kernel(event):
            name = names[event["name"], event["args"]["op_name"]]
            op_types[name] = event["args"]["op_name"]
            run[name] = run.get(name, 0.0) + float(event["dur"])
    if not runs:
        raise ValueError("it holds no run")
    return RunProfiles(op_types, tuple(runs))


def _names(events: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """Return the names of nodes by those of their events and their operators."""
    names: dict[tuple[str, str], str] = {}
    nameless: dict[str, set[tuple[int, str]]] = {}
    for event in filter(_is_kernel, events):
        op_type = event["args"]["op_name"]
        index = str(event["args"].get("node_index", ""))
        name = event["name"].removesuffix(_KERNEL)
        # What ONNX Runtime calls a node without a name; its index is that of one graph alone.
        if name in ("", f"{op_type}_{index}"):
            nameless.setdefault(op_type, set()).add((int(index or 0), event["name"]))
        names[event["name"], op_type] = name
    for op_type, entries in nameless.items():
        for place, (_, event_name) in enumerate(sorted(entries)):
            names[event_name, op_type] = f"{op_type}_{place}"
    return names


def _is_kernel(event: Mapping[str, Any]) -> bool:
    if event.get("cat") != "Node" or not event["name"].endswith(_KERNEL):
        return False
    return event["args"]["op_name"] not in _BODIES
