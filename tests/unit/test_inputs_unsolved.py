"""The error for a model that runs on nothing says whose fault that is."""

from __future__ import annotations

import pytest

from onnx_harness.errors import (
    DiedBefore,
    HarnessError,
    InputError,
    ModelError,
    ModelTooLarge,
)
from onnx_harness.inputs.plan.unsolved import no_inputs

MUCH = RuntimeError("Failed to allocate memory for requested buffer of size 4398046511104")
MORE = RuntimeError(
    "Tile output tensor would require more than 4294967296 bytes, which exceeds"
)
SHAPES = RuntimeError("Got invalid dimensions for input: x")
NO_TEXT = RuntimeError("'utf-8' codec can't decode byte 0xff in position 0")
DIED = DiedBefore("ONNX Runtime dies of it, and the process with it")


@pytest.mark.parametrize(
    ("complaints", "kind", "words"),
    [
        ([MUCH, MORE], ModelTooLarge, "asks for more memory than there is"),
        ([MUCH, SHAPES], InputError, "no inputs"),
        ([DIED, DIED], ModelError, "dies of every feed"),
        ([DIED, MUCH], InputError, "no inputs"),
        ([NO_TEXT, NO_TEXT], ModelError, "texts that aren't UTF-8"),
        ([NO_TEXT, SHAPES], InputError, "no inputs"),
        ([], InputError, "no inputs"),
    ],
)
def test_what_every_feed_ended_with_is_the_model_s_own(
    complaints: list[Exception], kind: type[HarnessError], words: str
) -> None:
    error = no_inputs("no inputs were found", complaints, decided_by_inputs=False)
    assert type(error) is kind
    assert words in str(error)
    assert str(error).endswith("no inputs were found")


def test_the_smallest_request_is_told() -> None:
    error = no_inputs("", [MUCH, MORE], decided_by_inputs=False)
    assert "4,294,967,296 bytes at once" in str(error)


@pytest.mark.parametrize("complaint", [MUCH, DIED])
def test_another_whole_number_might_do(complaint: Exception) -> None:
    """An input of whole numbers may be a size: then the card can settle it."""
    assert type(no_inputs("", [complaint], decided_by_inputs=True)) is InputError
