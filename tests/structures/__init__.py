"""Structures of trained models that people report, each built at two sizes."""

from tests.structures import (
    activations,
    attention,
    audio,
    boxes,
    counting,
    decoding,
    limits,
    more,
    norms,
    positions,
    vision,
    wiring,
)
from tests.structures.building import SIZES, STRUCTURES, Structure

__all__ = ["SIZES", "STRUCTURES", "Structure"]
_THEMES = (
    activations,
    attention,
    audio,
    boxes,
    counting,
    decoding,
    limits,
    more,
    norms,
    positions,
    vision,
    wiring,
)
