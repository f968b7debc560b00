"""``python -m tests.dropin``: a library's tests, with the library and with ours in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dropin.__main__ import outcomes
from tests.dropin.plugin import LIBRARIES

SUITE = """
import os, onnx, onnxsim
from onnxsim import simplify
from onnx import parser
MODEL = parser.parse_model('<ir_version: 8, opset_import: ["": 17]> '
    'g (float[2] x) => (float[2] y) { a = Identity(x) y = Neg(a) }')
def test_both(): assert len(simplify(MODEL)[0].graph.node) == 1
def test_the_library_alone(): assert simplify.__module__.startswith('onnxsim')
def test_ours_alone(): assert onnxsim.simplify.__module__.startswith('onnx_harness')
def test_it_ends_the_process(): os._exit(9)
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "test_suite.py"
    path.write_text(SUITE)
    return path


def passed(results: dict[str, str]) -> set[str]:
    return {name.split("::")[1] for name, outcome in results.items() if outcome == "passed"}


@pytest.mark.nightly
def test_a_suite_runs_with_ours_in_the_place_of_the_library(
    suite: Path, tmp_path: Path
) -> None:
    assert "onnxsim" in LIBRARIES
    theirs = outcomes(suite, "", [], tmp_path)
    ours = outcomes(suite, "onnxsim", [], tmp_path)
    assert passed(theirs) == {"test_both", "test_the_library_alone"}
    assert passed(ours) == {"test_both", "test_ours_alone"}
    assert ours["test_suite::test_the_library_alone"].startswith("failed: ")
