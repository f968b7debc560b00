"""ONNX Runtime's graph optimizers.

Which of them change a model, by its own log, and the operators that they make.

A session that logs names each graph transformer as it ends: ``GraphTransformer LayerNormFusionL2
modified: 1``. Rewrite rules run inside transformers that end in ``RuleBasedTransformer`` and are
named by the library's type information.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness.diagnose.bench import bench_of, open_candidate
from onnx_harness.diagnose.trials import Question, Trial
from onnx_harness.model.file import Model

if TYPE_CHECKING:
    import onnx

_LOGGED = re.compile(r"GraphTransformer (\S+) modified: (\d)")
_RULES = "RuleBasedTransformer"
# A type of the namespace onnxruntime, as type information spells it, and a name by itself.
_TYPE = re.compile(rb"N11onnxruntime\d+(\w+?)E\x00")
_TEXT = re.compile(rb"\x00([A-Z]\w{5,60})(?=\x00)")
_RULE = re.compile(r"(Elimination|Fusion|Rewrite|Clip|Optimizer)$|^Eliminate|^Fuse")
_INTERNAL = re.compile(r"_$|^N\d|^_|^Clip$")


def logged(log: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the optimizers that a session's log names, in order.

    The second item is those of them that changed the graph.
    """
    matches = _LOGGED.findall(log.read_text(errors="replace")) if log.is_file() else []
    names = dict.fromkeys(name for name, _ in matches)
    return tuple(names), tuple(
        dict.fromkeys(name for name, changed in matches if changed == "1")
    )


def changing(log: Path) -> tuple[str, ...]:
    """Return the optimizers that changed the graph of a session.

    Rules stand in the place of their runners.
    """
    return _with_rules(logged(log)[1])


def all_of(log: Path, healthy: Path) -> tuple[str, ...]:
    """Return every optimizer that a session named in its log, or would have.

    By the log of another one at its level.
    """
    return _with_rules((*logged(log)[0], *logged(healthy)[0]))


def interrupted(log: Path, healthy: Path) -> list[tuple[str, ...]]:
    """Return what is suspected where a session wasn't made.

    The optimizer that came next, and those that worked before.

    Args:
        log: of the session that wasn't made.
        healthy: of another one at the same level: the order of the optimizers.
    """
    names = _LOGGED.findall(log.read_text(errors="replace")) if log.is_file() else []
    order = (
        [name for name, _ in _LOGGED.findall(healthy.read_text(errors="replace"))]
        if healthy.is_file()
        else []
    )
    if not order:
        return []
    last = names[-1][0] if names else ""
    followers = [after for before, after in pairwise(order) if before == last] or order[:1]
    alone = _with_rules(tuple(dict.fromkeys((*followers, last) if last else followers)))
    before = _with_rules(logged(log)[1])
    return [alone, tuple(dict.fromkeys((*alone, *before)))]


def _with_rules(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with the library's rules in the place of what runs rules."""
    listed: dict[str, None] = {}
    for name in names:
        listed.update(dict.fromkeys(rule_names() if name.endswith(_RULES) else (name,)))
    return tuple(listed)


@cache
def rule_names() -> tuple[str, ...]:
    """Return what the library itself calls its rewrite rules, and a few names beside.

    An unknown one does no harm.
    """
    import onnxruntime.capi

    folder = Path(next(iter(onnxruntime.capi.__path__)))
    library = next(iter(sorted(folder.glob("onnxruntime_pybind11_state*"))), None)
    if library is None:
        return ()
    data = library.read_bytes()
    names = set()
    for pattern in (_TEXT, _TYPE):
        for match in pattern.findall(data):
            names.add(match.decode())
    entries = []
    for name in names:
        if _RULE.search(name) and not _INTERNAL.search(name):
            entries.append(name)
    return tuple(sorted(entries))


def log_session(question: Question, trial: Trial, log: Path, idle: bool) -> None:
    """Open a session as the trial asks for, with its log in a file.

    Meant for the worker, which may die of it.

    Args:
        question: what is diagnosed.
        trial: says how.
        log: the file.
        idle: open a model in which there is nothing to optimize, in the place of the trial's.
    """
    bench = bench_of(question)
    model = _idle_model() if idle else bench.model(trial.count, trial.off)
    with _standard_error(log):
        open_candidate(bench, trial, model, verbose=True)


def _idle_model() -> onnx.ModelProto:
    import onnx

    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> idle (float[1] x) => (float[1] y) { y = Exp(x) }'
    )


def made_operators(
    question: Question, trial: Trial, without: Sequence[str]
) -> tuple[str, ...]:
    """Return the operators of the optimized graph that optimizers make, and their nodes.

    They aren't there without the optimizers named.

    Meant for the worker.

    Returns:
        ``Op 'node'`` for each, at most eight; empty where the session can't be made.
    """
    bench = bench_of(question)
    model = bench.model(trial.count, trial.off)
    graphs = []
    others = replace(trial, disabled=(*trial.disabled, *without))
    for number, each_trial in enumerate((trial, others)):
        file = question.folder / f"optimized_{number}.onnx"
        open_candidate(bench, each_trial, model, optimized=file)
        graphs.append(Model(file).skeleton.graph)
    with_fault, right = graphs
    before = {_identity(node) for node in right.node}
    new = [node for node in with_fault.node if _identity(node) not in before]
    outputs = {output for node in right.node for output in node.output}
    new.sort(
        key=lambda node: outputs.issuperset(node.output)
    )  # nodes whose values are new come first
    return tuple(
        f"{node.op_type} '{node.name or next(iter(node.output), '')}'" for node in new[:8]
    )


def _identity(node: onnx.NodeProto) -> tuple[str, ...]:
    return (node.op_type, *node.input, "->", *node.output)


@contextlib.contextmanager
def _standard_error(file: Path) -> Iterator[None]:
    """Let what the process writes to standard error go to a file.

    A library writes past Python's own stream.
    """
    before = os.dup(2)
    with file.open("wb") as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
