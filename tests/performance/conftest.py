"""The tests here measure: they are collected only when their marker is asked for, as `make performance` does."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the folder alone in an ordinary run, where other work would disturb what it measures."""
    asked_for = "performance" in str(config.getoption("markexpr"))
    return None if asked_for or collection_path.suffix != ".py" else True
