"""A conversion to a half type whose float32 nodes are to be chosen: what a search asks of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from onnx_harness.transforms.half.convert import convert_to_half, converted_copy
from onnx_harness.transforms.half.plan import Plan, plan
from onnx_harness.transforms.half.requests import Request
from onnx_harness.transforms.half.weights import Round, Rounder


@dataclass(frozen=True, slots=True)
class MixedConversion:
    """A conversion, but for the nodes that stay float32.

    Attributes:
        model: that is converted; it stays as it is until the choice is made.
        request: how, with the nodes that stay float32 whatever is chosen.
        limits: the least and greatest magnitudes of weights that aren't clamped.
        round: rounds weights.
        half: the half type.
        spelling: of the step that makes the same of a list of nodes.
    """

    model: onnx.ModelProto
    request: Request
    limits: tuple[float, float]
    round: Round
    half: int
    spelling: str

    def rounder(self, folder: Path | None = None) -> Rounder:
        """Return what rounds weights; external data lie in ``folder``."""
        return Rounder(self.limits, self.round, self.half, folder)

    def plan(self, skeleton: onnx.ModelProto, rounder: Rounder) -> Plan:
        """Return what would be decided with no node chosen.

        Args:
            skeleton: a copy of the model; it is used up.
            rounder: knows where its weights lie.
        """
        return plan(skeleton, rounder, self.request)

    def converted(self, names: Sequence[str]) -> onnx.ModelProto:
        """Return the model converted, with those nodes in float32.

        Raises:
            NotApplicable: as the conversion does.
        """
        return converted_copy(self.model, self.rounder(), self._keeping(names))

    def with_choice(self, choose: Choose) -> onnx.ModelProto:
        """Convert the model itself, but for the nodes that are chosen.

        Args:
            choose: chooses them.

        Raises:
            NotApplicable: as the conversion does, or no choice makes it right.
            UsageError: as the conversion does.
        """
        return convert_to_half(self.model, self.rounder(), self._keeping(choose(self)))

    def _keeping(self, names: Sequence[str]) -> Request:
        listed = dict.fromkeys((*(self.request.node_block_list or ()), *names))
        return replace(self.request, node_block_list=tuple(listed))


Choose = Callable[[MixedConversion], Sequence[str]]
"""Chooses the nodes that stay float32: their names, as ``node_block_list`` takes them."""
