"""Networks with something built in that float16 can't hold.

The fewest nodes that have to stay float32 for it are known.

A backbone of residual blocks that float16 is enough for, and hostile patterns in some of its
blocks. Each pattern says which of its nodes need float32; that no fewer do is tried out where the
cases are used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_harness.selftest.half_case import LAST, Array, HalfCase, make_case, normal

_WIDTH = 64
_LSTM = 8


@dataclass(frozen=True, slots=True)
class Pattern:
    """A hostile piece of a block.

    Attributes:
        cause: what makes it hostile.
        body: its nodes, in the syntax of ``onnx.parser``, ``{0}`` before each name of its own; from
            ``{0}in``, whose values are within about 1 of zero, to ``{0}out``.
        weights: by name, without the prefix.
        smallest: the values whose makers have to be float32.
    """

    cause: str
    body: str
    weights: Mapping[str, object]
    smallest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MixedCase:
    """A network, and what is known of it.

    Attributes:
        case: the network and its inputs.
        causes: of its patterns.
        smallest: names of the nodes that have to stay float32.
    """

    case: HalfCase
    causes: tuple[str, ...]
    smallest: tuple[str, ...]


def _square(size: float) -> Pattern:
    body = (
        "{0}wide = Mul ({0}in, {0}up) {0}sq = Mul ({0}wide, {0}wide) {0}rt = Sqrt ({0}sq) "
        "{0}out = Mul ({0}rt, {0}dn)"
    )
    return Pattern("square and root", body, {"up": size, "dn": 1 / size}, ("sq", "rt"))


def _overflow(size: float) -> Pattern:
    body = """{0}wide = Mul ({0}in, {0}up) {0}far = Mul ({0}wide, {0}up)
              {0}back = Mul ({0}far, {0}dn)
              {0}out = Tanh ({0}back)"""
    return Pattern("overflow", body, {"up": size, "dn": 1 / size**2}, ("far", "back"))


def _cancellation(size: float) -> Pattern:
    body = (
        "{0}lift = Add ({0}in, {0}c) {0}left = Sub ({0}lift, {0}c) {0}out = Tanh ({0}left)"
    )
    return Pattern("cancellation", body, {"c": size}, ("lift", "left"))


def _difference_of_squares(size: float) -> Pattern:
    body = """{0}a = Add ({0}in, {0}c) {0}p = Mul ({0}a, {0}a) {0}d = Sub ({0}p, {0}cc)
              {0}s = Mul ({0}d, {0}dn)
              {0}out = Tanh ({0}s)"""
    weights = {"c": size, "cc": size**2, "dn": 0.5 / size}
    return Pattern("difference of squares", body, weights, ("a", "p", "d"))


def _epsilon(size: float) -> Pattern:
    # What is squared is a normal number, and its square isn't.
    body = """{0}n = Mul ({0}in, {0}dn) {0}q = Mul ({0}n, {0}n) {0}e = Add ({0}q, {0}eps)
              {0}r = Sqrt ({0}e)
              {0}out = Mul ({0}r, {0}up)"""
    return Pattern(
        "epsilon", body, {"dn": size, "eps": 1e-12, "up": 1 / size}, ("q", "e", "r")
    )


def _subnormal(size: float) -> Pattern:
    body = (
        "{0}t = Mul ({0}in, {0}dn) {0}u = Mul ({0}t, {0}up) {0}v = Mul ({0}u, {0}rest) {0}out "
        "= Tanh ({0}v)"
    )
    return Pattern(
        "subnormal scale", body, {"dn": size, "up": 5e3, "rest": 2e-4 / size}, ("t", "u")
    )


def _angle(size: float) -> Pattern:
    # Behind a bound, where no rule of the conversion looks for angles.
    body = (
        "{0}b = Tanh ({0}in) {0}turn = Add ({0}b, {0}c) {0}sin = Sin ({0}turn) {0}out = Mul "
        "({0}sin, {0}half)"
    )
    return Pattern("angle", body, {"c": size, "half": 0.5}, ("turn", "sin"))


def _running_sum(size: float) -> Pattern:
    body = """{0}s1 = Add ({0}in, {0}c) {0}s2 = Add ({0}s1, {0}c) {0}s3 = Add ({0}s2, {0}c)
              {0}s4 = Add ({0}s3, {0}k)
              {0}out = Tanh ({0}s4)"""
    return Pattern(
        "running sum", body, {"c": size, "k": -3 * size}, ("s1", "s2", "s3", "s4")
    )


def _softmax(size: float) -> Pattern:
    # A power, since rules of the conversion look for exponentials that are summed.
    body = """{0}wide = Mul ({0}in, {0}up) {0}low = Add ({0}wide, {0}c) {0}e = Pow ({0}b, {0}low)
              {0}t = ReduceSum ({0}e, {0}last) {0}out = Div ({0}e, {0}t)"""
    return Pattern(
        "softmax without maximum",
        body,
        {"up": 1.0, "c": size, "b": math.e, **LAST},
        ("e", "t", "out"),
    )


def _attention(size: float) -> Pattern:
    body = """{0}q = Mul ({0}in, {0}up) {0}k = Transpose <perm = [1, 0]> ({0}q)
              {0}score = MatMul ({0}q, {0}k)
              {0}scaled = Mul ({0}score, {0}dn) {0}p = Softmax <axis = -1> ({0}scaled)
              {0}out = MatMul ({0}p, {0}in)"""
    return Pattern(
        "attention scores", body, {"up": size, "dn": 1 / (8 * size**2)}, ("score", "scaled")
    )


def _lstm(size: float) -> Pattern:
    weight = normal(1, 4 * _LSTM, _WIDTH, scale=0.1, seed=5)
    bias = np.concatenate(
        [-size * weight.sum(axis=2), np.zeros((1, 4 * _LSTM))], axis=1
    ).astype(np.float32)
    weights = {
        "w": weight,
        "r": normal(1, 4 * _LSTM, _LSTM, scale=0.3, seed=6),
        "b": bias,
        "c": size,
        "zero": np.array([0], np.int64),
        "z2": np.array([0, 1], np.int64),
        "m": normal(_LSTM, _WIDTH, scale=0.3, seed=7),
    }
    body = """{0}lift = Add ({0}in, {0}c) {0}seq = Unsqueeze ({0}lift, {0}zero)
              {0}steps, {0}last = LSTM <hidden_size = 8> ({0}seq, {0}w, {0}r, {0}b)
              {0}flat = Squeeze ({0}steps, {0}z2) {0}out = MatMul ({0}flat, {0}m)"""
    return Pattern("LSTM state", body, weights, ("lift", "steps"))


def _loop(size: float) -> Pattern:
    body = """{0}lift = Add ({0}in, {0}c)
              {0}sum = Loop ({0}trips, {0}on, {0}lift)
              <body = b (int64 {0}i, bool {0}go, float[2, 64] {0}state)
              => (bool {0}more, float[2, 64] {0}next) {{
                  {0}next = Add ({0}state, {0}step) {0}more = Identity ({0}go) }}>
              {0}left = Add ({0}sum, {0}back) {0}out = Tanh ({0}left)"""
    weights = {
        "trips": np.array(8, np.int64),
        "on": np.array(True),
        "c": size,
        "step": 0.75,
        "back": -size - 6.0,
    }
    # Its state is float32 in any case, by a rule of the conversion.
    return Pattern("Loop", body, weights, ("lift", "left"))


_STRENGTHS = {
    _square: (1e3, 3e3, 8e3),
    _overflow: (800.0, 2000.0, 6000.0),
    _cancellation: (7000.0, 8000.0, 9000.0),
    _difference_of_squares: (150.0, 180.0, 200.0),
    _epsilon: (6e-4, 1e-3, 8e-4),
    _subnormal: (1e-7, 2e-7, 5e-7),
    _angle: (2000.7, 3000.1, 5000.3),
    _running_sum: (3000.0, 4000.0, 6000.0),
    _softmax: (12.0, 20.0, 40.0),
    _attention: (200.0, 500.0, 1000.0),
    _lstm: (3000.0, 5000.0, 9000.0),
    _loop: (7000.0, 8000.0, 9000.0),
}


def mixed_cases(*, quick: bool = False) -> Iterator[MixedCase]:
    """Yield the cases, cause by cause; ``quick``: one of each cause."""
    makers = list(_STRENGTHS)
    for index, maker in enumerate(makers):
        first, second, third = (maker(size) for size in _STRENGTHS[maker])
        yield network(f"{_slug(first.cause)}_1", 6, {2: first})
        if quick:
            continue
        yield network(f"{_slug(first.cause)}_2", 8, {1: second, 6: third})
        neighbour = makers[(index + 1) % len(makers)]
        yield network(
            f"{_slug(first.cause)}_3", 8, {3: third, 5: neighbour(_STRENGTHS[neighbour][0])}
        )


def large_case() -> MixedCase:
    """Return a network of about 1,000 nodes with four patterns of different causes."""
    patterns = {
        10: _square(1e3),
        75: _cancellation(8000.0),
        130: _overflow(800.0),
        188: _attention(200.0),
    }
    return network("large", 196, patterns)


def network(name: str, blocks: int, patterns: Mapping[int, Pattern]) -> MixedCase:
    """Return a backbone with patterns in some of its blocks.

    Args:
        name: of the case.
        blocks: how many.
        patterns: by the block that they're in.
    """
    lines: list[str] = []
    weights: dict[str, object] = {}
    before = "x"
    for block in range(blocks):
        p = f"b{block}_"
        pattern = patterns.get(block)
        result = f"{p}in" if pattern is None else f"{p}h_out"
        lines.append(
            f"{p}m = MatMul ({before}, {p}w1) {p}a = Add ({p}m, {p}c) {p}h = Relu ({p}a)"
        )
        lines.append(f"{p}in = MatMul ({p}h, {p}w2)")
        lines += _lines(pattern, p)
        lines.append(f"{p}next = Add ({before}, {result})")
        before = f"{p}next"
        weights |= _backbone(p, block, blocks) | _own_weights(pattern, p)
    lines.append(f"y = Identity ({before})")
    case = make_case("mixed", name, " ".join(lines), (-1.7, 1.7), weights)
    names = [
        f"b{block}_h_{value}"
        for block, pattern in patterns.items()
        for value in pattern.smallest
    ]
    causes = tuple(dict.fromkeys(pattern.cause for pattern in patterns.values()))
    return MixedCase(case, causes, tuple(names))


def _lines(pattern: Pattern | None, prefix: str) -> Sequence[str]:
    if pattern is None:
        return []
    return [f"{prefix}h_in = Identity ({prefix}in)", pattern.body.format(f"{prefix}h_")]


def _own_weights(pattern: Pattern | None, prefix: str) -> dict[str, object]:
    return (
        {}
        if pattern is None
        else {f"{prefix}h_{name}": value for name, value in pattern.weights.items()}
    )


def _backbone(prefix: str, block: int, blocks: int) -> dict[str, object]:
    scale = 1 / _WIDTH**0.5

    def weight(seed: int, size: float) -> Array:
        return normal(_WIDTH, _WIDTH, scale=scale * size, seed=seed)

    # A long backbone adds up, and stays within a few units of zero all the same.
    share = 0.8 / max(1.0, blocks / 16) ** 0.5
    return {
        f"{prefix}w1": weight(2 * block, 1.0),
        f"{prefix}w2": weight(2 * block + 1, share),
        f"{prefix}c": normal(_WIDTH, scale=0.1, seed=block),
    }


def _slug(cause: str) -> str:
    return cause.lower().replace(" ", "_")
