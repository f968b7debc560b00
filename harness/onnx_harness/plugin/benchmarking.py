"""The options of pytest-benchmark, which times the cells."""

from __future__ import annotations

import importlib.util

import pytest

from onnx_harness.plugin.state import only_models


def settle_benchmark(config: pytest.Config) -> None:
    """Refuse what pytest-benchmark can't draw, and have it print no table beside the account.

    Raises:
        pytest.UsageError: a histogram was asked for, and what draws it isn't installed.
    """
    option = config.option
    is_drawn = getattr(option, "benchmark_histogram", None)
    if is_drawn and importlib.util.find_spec("pygal") is None:
        # pytest-benchmark finds out when all is measured, and ends with a traceback.
        raise pytest.UsageError(
            "--benchmark-histogram needs pygal. Mend: pip install 'pytest-benchmark[histogram]'"
        )
    if only_models(config) and hasattr(option, "benchmark_quiet"):
        # The account at the end says what pytest-benchmark's table says, beside the verdicts.
        # Its files, histograms and comparisons are written where it isn't quiet.
        words = ("save", "autosave", "compare", "compare_fail", "histogram", "cprofile")
        is_benchmarked = any(getattr(option, f"benchmark_{word}", None) for word in words)
        option.benchmark_quiet = not is_benchmarked
