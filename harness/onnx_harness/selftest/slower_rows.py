"""The row of slower operators.

One operator of a network replaced by an equal one that computes a tenth more, and networks compared
with themselves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness import providers
from onnx_harness.latency.operators import slower_operators
from onnx_harness.latency.profiled import ProfiledSession, ProfiledSide, profile_pairs
from onnx_harness.results.operators import SlowerOperator
from onnx_harness.selftest.bench import Bench, Outcome
from onnx_harness.selftest.table import Row, Step, bad, summed, total

_COUNT, _QUICK = 40, 4
_GOAL = 0.95
_GROUPS = 2
_KINDS = ("Conv", "ConvTranspose", "grouped Conv")
# A kernel of 10 elements gets one more, which is zero.
_KERNEL, _LONGER = 10, 11
_CHANNELS, _LENGTH, _LAYERS = 16, 600, 7
# What ONNX Runtime calls a node that it moved to its own memory layout.
_LAYOUT_SUFFIX = "_nchwc"


@dataclass(frozen=True, slots=True)
class Slowed:
    """A network, and itself with one layer that computes a tenth more.

    Attributes:
        number: of the case: of its weights, the layers' kinds and which of them is slower.
        is_slowed: the second network has a slower layer; else it's the first again.
    """

    number: int
    is_slowed: bool

    @property
    def layer(self) -> int:
        """The place of the slower layer."""
        return self.number * 3 % _LAYERS

    def models(self) -> tuple[bytes, bytes]:
        """Return both networks."""
        longer = self.layer if self.is_slowed else None
        return self._network(None), self._network(longer)

    def names(self) -> frozenset[str]:
        """Return what the slower layer may be called: ONNX Runtime names fused nodes anew."""
        return frozenset(
            {f"layer_{self.layer}", f"layer_{self.layer}_out", f"x{self.layer + 1}"}
        )

    def _network(self, longer: int | None) -> bytes:
        rng = np.random.default_rng(self.number)
        nodes: list[onnx.NodeProto] = []
        weights: list[onnx.TensorProto] = []
        for place in range(_LAYERS):
            kind = _KINDS[int(rng.integers(len(_KINDS)))]
            channels = _CHANNELS // _GROUPS if kind == "grouped Conv" else _CHANNELS
            kernel = rng.normal(size=(_CHANNELS, channels, 1, _KERNEL)) / np.sqrt(
                10 * channels
            )
            size = _LONGER if place == longer else _KERNEL
            kernel = np.pad(kernel, [(0, 0)] * 3 + [(0, size - _KERNEL)])
            weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"w{place}"))
            nodes += _layer(place, kind, size)
        shape = [1, _CHANNELS, 1, _LENGTH]
        graph = helper.make_graph(
            nodes,
            "slowed",
            [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(f"x{_LAYERS}", TensorProto.FLOAT, None)],
            weights,
        )
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        return bytes(model.SerializeToString())


def _layer(place: int, kind: str, size: int) -> list[onnx.NodeProto]:
    """Return a layer and its activation; the length stays as it is, whatever the kernel's size."""
    pads = [0, 5, 0, 4 + size - _KERNEL]
    if kind == "ConvTranspose":
        pads = [0, 4, 0, 5 + size - _KERNEL]
    group = _GROUPS if kind == "grouped Conv" else 1
    name, result = f"layer_{place}", f"layer_{place}_out"
    op_type = kind.removeprefix("grouped ")
    inputs = [f"x{place}", f"w{place}"]
    return [
        helper.make_node(op_type, inputs, [result], name, pads=pads, group=group),
        helper.make_node("Tanh", [result], [f"x{place + 1}"], f"tanh_{place}"),
    ]


def measured(slowed: Slowed) -> tuple[SlowerOperator, ...]:
    """Profile both networks in pairs of fresh sessions, and name what got slower."""
    rng = np.random.default_rng(slowed.number)
    values = {"x0": rng.normal(size=(1, _CHANNELS, 1, _LENGTH)).astype(np.float32)}
    models = slowed.models()

    def open_pair(_: int, variant_first: bool) -> tuple[ProfiledSide, ProfiledSide, float]:
        sides: dict[bool, ProfiledSession] = {}
        for is_variant in (variant_first, not variant_first):
            sides[is_variant] = _opened(models[is_variant], values)
        started = time.perf_counter()
        for side in sides.values():
            side.run()
        return sides[False], sides[True], (time.perf_counter() - started) / 2

    return slower_operators(profile_pairs(open_pair, seed=slowed.number))


def _opened(model: bytes, values: dict[str, Any]) -> ProfiledSession:
    session = ProfiledSession(model, providers.get("cpu"), values)
    session.run()
    return session


def judge(slowed: Slowed) -> Outcome:
    """Compare what is named with what was slowed down."""
    operators = measured(slowed)
    words = "; ".join(map(str, operators)) or "nothing is named"
    if not slowed.is_slowed:
        figures = {"equal": 1.0, "named": float(bool(operators))}
        return Outcome(
            0, 0, (f"equal networks {slowed.number}: {words}",) * bool(operators), figures
        )
    first = operators[0].name.removesuffix(_LAYOUT_SUFFIX) if operators else ""
    if first in slowed.names() and len(operators) == 1:
        return Outcome(1, 0)
    return Outcome(1, 1, (f"layer {slowed.layer} of network {slowed.number}: {words}",))


def _steps(bench: Bench) -> Iterator[Step]:
    for number in range(_QUICK if bench.quick else _COUNT):
        for is_slowed in (True, False):
            key = f"{number}, {'slowed' if is_slowed else 'equal'}"
            yield Step(key, partial(judge, Slowed(number, is_slowed)))


def _figure(outcomes: Sequence[Outcome]) -> str:
    right = total(outcomes) - bad(outcomes)
    equal, named = summed(outcomes, "equal"), summed(outcomes, "named")
    return f"{right} of {total(outcomes)} right; {named} of {equal} equal networks have one"


def _reached(outcomes: Sequence[Outcome]) -> bool:
    is_right = bad(outcomes) <= (1 - _GOAL) * total(outcomes) and total(outcomes) > 0
    return is_right and not summed(outcomes, "named")


SLOWER = Row(
    "slower",
    "one operator computes a tenth more: it is named, and none of equal networks",
    "95%, none",
    _steps,
    _figure,
    _reached,
)
