"""The pytest plugin."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and ini values."""
    parser.addini("onnx_model_paths", "folders whose .onnx files and model cards are collected", type="paths")
