"""The tests here need an environment of their own: they are collected only when their marker is
asked for.
"""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the folder alone in an ordinary run, where each of its tests would fail for lack of its
    provider.
    """
    asked_for = "providers" in str(config.getoption("markexpr"))
    return None if asked_for or collection_path.suffix != ".py" else True
