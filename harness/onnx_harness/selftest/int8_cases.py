"""Networks with something built in that 8 bits can't hold.

A backbone of residual layers for which 8 bits are enough, and hostile patterns in some of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onnx_harness.selftest.half_case import HalfCase, make_case, normal

_WIDTH = 32


@dataclass(frozen=True, slots=True)
class Pattern:
    """A hostile piece of a layer.

    Attributes:
        kind: what makes it hostile.
        body: its nodes, in the syntax of ``onnx.parser``, ``{0}`` before each name of its own; from
            ``{0}in``, whose values are within some units of zero, to ``{0}out``.
        weights: by name, without the prefix.
    """

    kind: str
    body: str
    weights: Mapping[str, object]


def _wide_channel(size: float) -> Pattern:
    """One channel takes all levels of the tensor."""
    spread = np.ones(_WIDTH, np.float32)
    spread[0] = size
    body = "{0}wide = Mul ({0}in, {0}up) {0}out = Mul ({0}wide, {0}dn)"
    return Pattern("wide channel", body, {"up": spread, "dn": 1 / spread})


def _offset(size: float) -> Pattern:
    """A large constant comes and goes."""
    body = "{0}lift = Add ({0}in, {0}c) {0}out = Sub ({0}lift, {0}c)"
    return Pattern("offset", body, {"c": np.full(_WIDTH, size, np.float32)})


def _wide_weight(size: float) -> Pattern:
    """One column of a weight is far larger than the others, and its product is scaled back."""
    columns = np.ones(_WIDTH, np.float32)
    columns[3] = size
    weight = (
        np.asarray(normal(_WIDTH, _WIDTH, scale=_WIDTH**-0.5, seed=7), np.float32) * columns
    )
    body = "{0}far = MatMul ({0}in, {0}w) {0}out = Mul ({0}far, {0}dn)"
    return Pattern("wide weight", body, {"w": weight, "dn": 1 / columns})


PATTERNS = (
    *(_wide_channel(1000.0), _wide_channel(3000.0)),
    *(_offset(3000.0), _offset(10000.0)),
    *(_wide_weight(300.0), _wide_weight(1000.0)),
)


def int8_cases(*, quick: bool = False) -> Iterator[HalfCase]:
    """Yield networks that are right with some nodes in float, and wrong with none.

    Args:
        quick: one of each kind, and small.
    """
    if quick:
        for pattern in PATTERNS[::2]:
            yield _network(3, {1: pattern})
        return
    for number, pattern in enumerate(PATTERNS):
        yield _network(4, {number % 4: pattern})
        yield _network(12, {number: pattern, number + 5: PATTERNS[number - 1]})


def _network(layers: int, hostile: Mapping[int, Pattern]) -> HalfCase:
    parts: list[str] = []
    weights: dict[str, object] = {}
    value = "x"
    for layer in range(layers):
        prefix = f"l{layer}_"
        weights[f"{prefix}v"] = normal(_WIDTH, _WIDTH, scale=_WIDTH**-0.5, seed=layer)
        parts.append(f"{prefix}in = MatMul ({value}, {prefix}v)")
        inner = f"{prefix}in"
        pattern = hostile.get(layer)
        if pattern is not None:
            parts.append(pattern.body.format(prefix))
            weights |= {
                f"{prefix}{name}": weight for name, weight in pattern.weights.items()
            }
            inner = f"{prefix}out"
        parts.append(
            f"{prefix}act = Relu ({inner}) {prefix}sum = Add ({prefix}act, {value})"
        )
        value = f"{prefix}sum"
    weights["head"] = normal(_WIDTH, 8, scale=_WIDTH**-0.5, seed=99)
    body = f"{' '.join(parts)} y = MatMul ({value}, head)"
    shape = f"float[4, {_WIDTH}] x"
    label = "_".join(
        f"{pattern.kind.replace(' ', '_')}_{at}" for at, pattern in hostile.items()
    )
    return make_case(
        f"int8_{layers}", label, body, (-2.0, 2.0), weights, x=shape, y="float[4, 8] y"
    )
