"""``ort.LEVEL``: ONNX Runtime's own optimizer, as an option of the session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from onnx_harness.errors import UsageError
from onnx_harness.names import Step
from onnx_harness.transforms import Transform

if TYPE_CHECKING:
    import onnx

LEVELS = ("disable", "basic", "extended", "layout", "all")
DEFAULT = "all"
PREFIX = "ort."


def level_of(steps: Iterable[Step]) -> str:
    """The graph optimization level that a chain asks for.

    One of ``LEVELS``, ``DEFAULT`` when it asks for none.

    Raises:
        UsageError: it asks for two.
    """
    levels = [step.name for step in steps if step.name.startswith(PREFIX)]
    if len(levels) > 1:
        raise UsageError(
            f"a session has one optimization level; this chain asks for {' and '.join(levels)}: "
            f"leave one"
        )
    return levels[0].removeprefix(PREFIX) if levels else DEFAULT


def _unchanged(model: onnx.ModelProto) -> onnx.ModelProto:
    return model


TRANSFORM = Transform(
    summary="ONNX Runtime's graph optimization level",
    apply=_unchanged,
    forms={f"{PREFIX}{level}": {} for level in LEVELS},
    session=True,
    groups=("ort",),
)
