"""The rows that compare a search with another one, or with what was planted, count what is worse."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from onnx_harness.cli import main
from onnx_harness.results.operators import SlowerOperator
from onnx_harness.selftest import autocast, int8_beside, mixed_beside, slower_rows
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


STAND_IN = """
import sys
import onnx
class autocast:
    def convert_to_mixed_precision(path, keep_io_types, calibration_data):
        assert keep_io_types and calibration_data.endswith(".npz")
        return onnx.load(path)
names = ("modelopt", "modelopt.onnx", "modelopt.onnx.autocast")
sys.modules.update(dict.fromkeys(names, autocast))
words = sys.argv[1:]  # -c, the code, its arguments
sys.argv = ["-c", *words[2:]]
exec(words[1])
"""


def test_autocast_is_called_in_its_own_environment_and_judged_by_the_same_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stand_in.py").write_text(STAND_IN, encoding="utf-8")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/stand_in.py "$@"\n')
    python.chmod(0o755)
    autocast.check(python)
    built = next(mixed_cases(quick=True))

    outcome = mixed_beside.judge(built, python)  # it leaves all of it in float32

    figures = outcome.figures
    assert figures["autocast_right"] == 1.0
    assert figures["autocast_nodes"] > figures["nodes"]
    assert "AutoCast: 1 of 1 right" in mixed_beside.MIXED_BESIDE.figure([outcome])
    assert "AutoCast" not in mixed_beside.MIXED_BESIDE.figure([mixed_beside.judge(built)])
    words = ["selftest", "mixed-beside", "--quick", "--models", str(tmp_path), "--autocast"]
    assert main([*words, str(tmp_path / "nowhere")]) == 2
    assert "there is no such file" in capsys.readouterr().err
    assert main([*words, sys.executable]) == 2
    assert "has no AutoCast" in capsys.readouterr().err


def test_nodes_that_another_order_shows_to_be_enough_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = next(int8_cases(quick=True))
    outcome = int8_beside.judge(case)
    assert (outcome.count, outcome.bad) == (1, 0), outcome.words
    # The library measured, and what it put first is enough.
    assert outcome.figures["other_right"]
    assert 0 < outcome.figures["nodes"] < outcome.figures["other_nodes"]

    monkeypatch.setattr(int8_beside, "ranked", lambda *_: int8_beside.Ranking(names=()))
    fewer = int8_beside.judge(case)
    monkeypatch.setattr(int8_beside, "shortfall", lambda *_: "nothing is enough")
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
        values = {
            "x0": np.random.default_rng(0).normal(size=(1, 16, 1, 600)).astype(np.float32)
        }
        first, second = (
            ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(
                None, values
            )[0]
            for content in slower_rows.Slowed(number, True).models()
        )
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)
