"""A model that ONNX Runtime can't open: the sentence says what would mend it."""

from __future__ import annotations

import pytest

from onnx_harness.judging.reference import _refused


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        ("Failed to construct locale with name:en_US.UTF-8", "`locale-gen en_US.UTF-8`"),
        ("custom:Op is not a registered function/op", "custom_ops"),
        ("Unsupported model: opset 99", "an older opset"),
    ],
)
def test_a_refusal_says_what_would_mend_it(words: str, mend: str) -> None:
    assert mend in _refused(RuntimeError(words))
