"""A static quantization whose float nodes are to be chosen: what a search asks of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx


@dataclass(frozen=True, slots=True)
class QuantizedConversion:
    """A static quantization, but for the nodes that stay float.

    Attributes:
        model: that is quantized; it stays as it is.
        quantize: gives the model quantized, with the nodes of those names left out.
        ops: the operators that are quantized.
        left_out: the nodes that stay float whatever is chosen.
        sqnr_db: the least ratio of signal to quantization noise of every float output, in dB.
        agreement: the least share of rows of each float output whose greatest element is the
            original's.
        spelling: of the step that makes the same of a list of nodes.
    """

    model: onnx.ModelProto
    quantize: Callable[[Sequence[str]], onnx.ModelProto]
    ops: frozenset[str]
    left_out: frozenset[str]
    sqnr_db: float
    agreement: float
    spelling: str


Choose = Callable[[QuantizedConversion], Sequence[str]]
"""Chooses the nodes that stay float: their names, as ``nodes_to_exclude`` takes them."""
