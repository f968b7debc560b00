"""The rows that compare a search with another one, or with what was planted, count what is worse."""

from __future__ import annotations

import pytest

from onnx_harness.results.operators import SlowerOperator
from onnx_harness.selftest import int8_beside, mixed_beside, slower_rows
from onnx_harness.selftest.int8_cases import int8_cases
from onnx_harness.selftest.mixed_cases import mixed_cases


def test_a_search_that_keeps_more_nodes_than_another_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = next(mixed_cases(quick=True))
    assert mixed_beside.judge(built).bad == 0

    monkeypatch.setattr(mixed_beside, "searched", lambda _: mixed_beside._Search(names=()))
    monkeypatch.setattr(mixed_beside, "_passes", lambda *_: True)
    outcome = mixed_beside.judge(built)

    assert (outcome.count, outcome.bad) == (1, 1)
    assert not mixed_beside.MIXED_BESIDE.reached([outcome])


def test_nodes_that_another_order_shows_to_be_enough_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = next(int8_cases(quick=True))
    outcome = int8_beside.judge(case)
    assert (outcome.count, outcome.bad) == (1, 0), outcome.words
    assert outcome.figures["other_right"]  # the library measured, and what it put first is enough
    assert 0 < outcome.figures["nodes"] < outcome.figures["other_nodes"]

    monkeypatch.setattr(int8_beside, "ranked", lambda *_: int8_beside.Ranking(names=()))
    fewer = int8_beside.judge(case)
    monkeypatch.setattr(int8_beside, "reaches", lambda *_: False)
    wrong = int8_beside.judge(case)

    for counted in (fewer, wrong):
        assert counted.bad == 1
        assert not int8_beside.INT8_BESIDE.reached([counted])


def operator(name: str) -> SlowerOperator:
    return SlowerOperator(name, "Conv", 1.0, 1.1, (1.08, 1.12), 1.0)


def test_a_wrong_operator_and_one_of_equal_networks_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slowed, equal = slower_rows.Slowed(1, True), slower_rows.Slowed(1, False)
    right = operator(f"x{slowed.layer + 1}_nchwc")
    wrong = operator(f"layer_{slowed.layer + 1}")
    rows = []
    for operators in ((right,), (wrong,), (right, wrong), ()):
        monkeypatch.setattr(slower_rows, "measured", lambda _, named=operators: named)
        rows.append(slower_rows.judge(slowed))
    assert [row.bad for row in rows] == [0, 1, 1, 1]
    assert slower_rows.SLOWER.reached(rows[:1])
    assert not slower_rows.SLOWER.reached(rows[:2])

    monkeypatch.setattr(slower_rows, "measured", lambda _: (right,))
    assert not slower_rows.SLOWER.reached([rows[0], slower_rows.judge(equal)])


def test_the_slower_network_computes_what_the_other_one_does() -> None:
    import numpy as np
    import onnxruntime as ort

    for number in range(4):
        values = {"x0": np.random.default_rng(0).normal(size=(1, 16, 1, 600)).astype(np.float32)}
        first, second = (
            ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, values)[0]
            for content in slower_rows.Slowed(number, True).models()
        )
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)
