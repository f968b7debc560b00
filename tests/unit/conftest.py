"""What unit tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from onnx_harness.transforms import remark
from onnx_harness.transforms.simplification import attempts


@pytest.fixture(autouse=True)
def rules_left_out(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """What simplify says of rules that fail: nothing, in a test of simplify.

    The model then stays as it is, which is what many tests ask for. One that wants a rule to fail
    takes this list and empties it.
    """
    said: list[str] = []
    if not request.module.__name__.rpartition(".")[2].startswith("test_transforms_simplify"):
        yield said
        return

    def remarks(text: str) -> None:
        if " was left out: " in text:
            said.append(text)
        remark(text)

    monkeypatch.setattr(attempts, "remark", remarks)
    yield said
    assert said == []
