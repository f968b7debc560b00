"""ONNX Runtime's graph optimizers: which of them change a model, by its own log, and the operators that they make.

A session that logs names each graph transformer as it ends: ``GraphTransformer LayerNormFusionL2 modified: 1``. Rewrite
rules run inside transformers that end in ``RuleBasedTransformer`` and are named by the library's type information.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness.diagnose.trials import Question, Trial, bench_of, open_candidate
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
    """Return the optimizers that a session's log names, and those of them that changed the graph, in order."""
    found = _LOGGED.findall(log.read_text(errors="replace")) if log.is_file() else []
    names = dict.fromkeys(name for name, _ in found)
    return tuple(names), tuple(dict.fromkeys(name for name, changed in found if changed == "1"))


def suspects(log: Path, *, completed: bool) -> tuple[str, ...]:
    """Return the optimizers that may be at fault: those that changed the graph, rules in the place of their runners.

    Args:
        log: of a session that fails.
        completed: whether the session was made; an optimizer in which that ended isn't logged as one that changed it.
    """
    names, changed = logged(log)
    chosen = changed if completed else tuple(dict.fromkeys((*names, *rule_names())))
    listed: dict[str, None] = {}
    for name in chosen:
        listed.update(dict.fromkeys(rule_names() if name.endswith(_RULES) else (name,)))
    return tuple(listed)


@cache
def rule_names() -> tuple[str, ...]:
    """Return what the library itself calls its rewrite rules, and a few names beside: an unknown one does no harm."""
    import onnxruntime.capi

    folder = Path(next(iter(onnxruntime.capi.__path__)))
    library = next(iter(sorted(folder.glob("onnxruntime_pybind11_state*"))), None)
    if library is None:
        return ()
    data = library.read_bytes()
    names = {match.decode() for pattern in (_TEXT, _TYPE) for match in pattern.findall(data)}
    return tuple(sorted(name for name in names if _RULE.search(name) and not _INTERNAL.search(name)))


def log_session(question: Question, trial: Trial, log: Path) -> None:
    """Open a session as the trial asks for, with its log in a file. Meant for the worker, which may die of it."""
    bench = bench_of(question)
    model = bench.model(trial.count, trial.off)
    with _standard_error(log):
        open_candidate(bench, trial, model, verbose=True)


def made_operators(question: Question, trial: Trial, without: Sequence[str]) -> tuple[str, ...]:
    """Return the operators of the optimized graph that aren't there without the optimizers named, and their nodes.

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
    known = {output for node in right.node for output in node.output}
    new.sort(key=lambda node: known.issuperset(node.output))  # nodes whose values are new come first
    return tuple(f"{node.op_type} '{node.name or next(iter(node.output), '')}'" for node in new[:8])


def _identity(node: onnx.NodeProto) -> tuple[str, ...]:
    return (node.op_type, *node.input, "->", *node.output)


@contextlib.contextmanager
def _standard_error(file: Path) -> Iterator[None]:
    """Let what the process writes to standard error go to a file: a library writes past Python's own stream."""
    before = os.dup(2)
    with file.open("wb") as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
