"""The plugin beside other plugins, switches and broken packages: it says what is missing, and stops
nobody.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import linear, save
from tests.plugin.running import install, run_pytest


def test_a_plain_run_loads_the_plugin_and_none_of_its_rooms(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_rooms():
            ours = {name.removeprefix("onnx_harness.") for name in sys.modules if name.startswith("onnx_harness.")}
            others = {name for name in ours if name.partition(".")[0] != "plugin"}
            assert others == {"settings", "settings.declaring", "settings.kinds", "settings.project", "names", "errors", "cards", "cards.suite_options"}
            assert {"psutil", "numpy", "onnx"}.isdisjoint(sys.modules)
        """
    )
    options = (
        "-p",
        "no:hypothesispytest",
        "-p",
        "no:xdist",
        "-p",
        "no:benchmark",
        "-p",
        "no:cacheprovider",
    )
    pytester.runpytest_subprocess(*options, "--assert=plain").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("switch", "words"),
    [
        (
            ["-p", "no:benchmark"],
            "*latency isn't measured: pytest-benchmark is switched off or not installed",
        ),
        (["--benchmark-disable"], "*latency isn't measured: --benchmark-disable"),
    ],
)
def test_latency_is_skipped_with_its_reason(
    pytester: pytest.Pytester, switch: list[str], words: str
) -> None:
    save(linear(), pytester.path / "net.onnx")
    result = pytester.runpytest_subprocess(*switch, "net.onnx", "--variant=original", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines([words])


def test_pytest_benchmark_keeps_names_with_the_model_and_plain_params(
    tmp_path: Path,
) -> None:
    save(linear(), tmp_path / "net.onnx")
    kept = [
        "net.onnx",
        "--variant=original",
        "--benchmark-save=night",
        "--benchmark-json=out.json",
    ]
    run_pytest(tmp_path, *kept)
    (benchmark,) = json.loads((tmp_path / "out.json").read_text("utf-8"))["benchmarks"]
    assert benchmark["name"] == "test_latency[net-original-cpu]"
    assert benchmark["params"] == {"model": "net", "variant": "original", "provider": "cpu"}
    assert list((tmp_path / ".benchmarks").rglob("*_night.json"))
    compared = run_pytest(tmp_path, *kept, "--benchmark-compare")
    assert "net-original-cpu" in compared.told
    assert "Comparing against benchmarks from" in compared.told


def test_a_histogram_that_cannot_be_drawn_is_refused_before_anything_runs(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "pygal" else real(name, *rest),
    )
    save(linear(), pytester.path / "net.onnx")
    result = pytester.runpytest_inprocess("net.onnx", "--benchmark-histogram=h")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*needs pygal. Mend: pip install 'pytest-benchmark[[]histogram]'*"]
    )


def test_fixtures_of_the_suite_are_not_offered_to_others(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--fixtures")
    for name in ("runner", "record", "progress"):
        assert f"onnx_{name}" not in result.stdout.str()


def test_doctor_names_an_entry_point_that_cannot_be_loaded(tmp_path: Path) -> None:
    install(tmp_path, "raise SystemExit('broken on purpose')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from onnx_harness.cli import "
        f"main; main(['doctor'])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in ended.stderr
    said = " ".join((ended.stdout + ended.stderr).split())
    assert (
        "Entry point 'faults' of faults 1 can't be loaded: SystemExit: broken on purpose"
        in said
    )
