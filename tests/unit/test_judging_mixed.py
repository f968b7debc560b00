"""Parts of the search for nodes that stay float: who moves between types, errors, times."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onnx_harness.judging.mixed import survey
from onnx_harness.judging.mixed.neighbours import moves_between


def plan_of(*steps: tuple[str, str, str, str], outputs: str = "", kept: str = "") -> Any:
    """A plan of steps, each its label, its operator, what it reads and what it gives; those of
    ``kept`` aren't converted.
    """
    floating = [
        SimpleNamespace(label=label, op=op, ins=list(ins), outs=list(outs), bodies=())
        for label, op, ins, outs in steps
    ]
    names = {name for step in floating for name in (*step.ins, *step.outs)} - {"i"}
    return SimpleNamespace(
        halving=SimpleNamespace(floats=names),
        reading=SimpleNamespace(
            floating=floating, scopes=[SimpleNamespace(outputs=[*outputs])]
        ),
        label=lambda step: step.label,
        converted=lambda step: step.label not in kept,
    )


A, T = ("a", "MatMul", "x", "h"), ("t", "Transpose", "h", "p")
B, C = ("b", "Add", "p", "y"), ("c", "Mul", "p", "z")
U, D = ("u", "Reshape", "p", "q"), ("d", "Add", "q", "y")
E = ("e", "Mul", "q", "z")


@pytest.mark.parametrize(
    ("steps", "labels", "more", "moves"),
    [
        ((A, T, B, C), "ab", {}, ("t",)),
        ((A, T, B, C), "", {}, ()),
        ((A, T, B, C), "abc", {}, ()),
        ((A, T, B, C), "a", {}, ()),
        ((A, T, B, C), "b", {}, ()),
        ((A, T, B, C), "x", {"kept": "ab"}, ("t",)),
        ((A, T, C), "a", {"outputs": "p"}, ("t",)),
        ((A, T, B), "ab", {"outputs": "p"}, ()),
        ((A, T, U, D, E), "ad", {}, ("t", "u")),
        ((A, T, U, D, C), "ad", {}, ("t",)),
        ((A, T, U, D, E, C), "ad", {}, ("t", "u")),
        ((("a", "Cast", "x", "h"), T, B, C), "ab", {}, ()),
        ((("a", "Constant", "", "h"), T, B, C), "ab", {}, ()),
        ((("a", "ConstantOfShape", "s", "h"), T, B, C), "ab", {}, ()),
        ((("a", "MatMul", "x", "i"), ("t", "Transpose", "i", "p"), B, C), "ab", {}, ()),
    ],
)
def test_moves_between_readers_of_both_types_are_named(
    steps: tuple[tuple[str, str, str, str], ...],
    labels: str,
    more: dict[str, str],
    moves: tuple[str, ...],
) -> None:
    assert moves_between(plan_of(*steps, **more), set(labels)) == moves


@pytest.mark.parametrize(
    ("inherits", "moved", "factor"),
    [
        (math.nan, 1.0, 1.0),
        (1.0, math.inf, 1.0),
        (1.0, 0.0, 1.0),
        (math.inf, 1.0, survey._WITHOUT_BOUND),
        (math.inf, math.inf, 1.0),
        (3 * survey._AMPLIFIES, 3.0, 1.0),
        (3.1 * survey._AMPLIFIES, 3.0, 3.1 * survey._AMPLIFIES / 3.0),
        (3.0, 3 * survey._AMPLIFIES, 1.0),
        (2.9, 3 * survey._AMPLIFIES, 2.9 / 3.0 / survey._AMPLIFIES),
        (0.0, 1.0, survey._LEAST),
    ],
)
def test_a_node_makes_an_error_larger_or_smaller_or_keeps_it(
    inherits: float, moved: float, factor: float
) -> None:
    assert survey._factor(inherits, moved) == pytest.approx(factor)


def test_the_time_of_a_node_is_its_share_of_those_that_can_be_chosen() -> None:
    plan = plan_of(A, T, B, C)
    atoms = {"a": 0, "b": 1, "c": 1}
    times = {"a": 1.0, "t": 9.0, "b": 2.0, "none": 5.0}
    assert survey._time_shares(plan, atoms, times) == [1 / 3, 2 / 3, 0.0]
    assert survey._time_shares(plan, atoms, {"b": 1.0, "c": 3.0})[:2] == [0.0, 1.0]
    assert survey._time_shares(plan, atoms, {}) == [1 / 3] * 3


def test_the_times_of_nodes_are_those_of_kernels_over_all_runs(tmp_path: Path) -> None:
    def event(name: str, micros: int) -> str:
        return json.dumps({"name": name, "dur": micros}) + ","

    lines = ["[", event("a_kernel_time", 1500), event("a_kernel_time", 500)]
    lines += [event("b_kernel_time", 7), event("model_run", 9), event("ö_kernel_time", 3)]
    lines += [event(f"{survey._PREFIX}_kernel_time", 7), "]"]
    path = tmp_path / "profile.json"
    path.write_text("\n".join(lines), encoding="utf-8")
    times = survey.node_times(path)
    assert times == pytest.approx({"a": 2e-3, "b": 7e-6, "ö": 3e-6})
