"""Cases of networks.

They have positions, ids, recurrence, layers, loops, and overflows that nothing comes of.

Every kind has gentle parameters and harsh ones. Nothing here says which answer is right:
`half_truth` finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from onnx_harness.selftest.half_case import LAST, HalfCase, make_case, normal


def _rotary() -> Iterator[HalfCase]:
    rates = 10000.0 ** -(np.arange(8) / 8)
    body = """single = Cast <to = 1> (ids) column = Unsqueeze (single, last)
              angles = Mul (column, rates)
              cosine = Cos (angles) sine = Sin (angles)
              first = Mul (cosine, left) second = Mul (sine, right) y = Sub (first, second)"""
    for most in (2, 6, 2000, 30000):
        weights = LAST | {"rates": rates, "left": normal(8), "right": normal(8, seed=1)}
        yield make_case(
            "rotary",
            f"{most}",
            body,
            (0, most),
            weights,
            x="int64[2, 12] ids",
            y="float[2, 12, 8] y",
        )


def _timestep() -> Iterator[HalfCase]:
    rates = np.exp(-np.log(10000.0) * np.arange(16) / 16)
    body = """column = Unsqueeze (t, last) angles = Mul (column, rates) sine = Sin (angles)
              cosine = Cos (angles)
              waves = Concat <axis = 1> (sine, cosine) mixed = MatMul (waves, weight)
              y = Tanh (mixed)"""
    for most in (1.0, 3.0, 1000.0, 100000.0):
        weights = LAST | {"rates": rates, "weight": normal(32, 8, scale=0.18)}
        yield make_case(
            "timestep",
            f"{most:g}",
            body,
            (most / 2, most),
            weights,
            x="float[6] t",
            y="float[6, 8] y",
        )


def _large_ids() -> Iterator[HalfCase]:
    for count in (50, 1000, 6000, 60000):
        body = "whole = Cast <to = 7> (x) y = Gather <axis = 0> (table, whole)"
        rounded = "steps = Mul (x, count) spread = Floor (steps) " + body.replace(
            "(x)", "(spread)"
        )
        table = normal(count + 1, 2, seed=3)
        yield make_case(
            "large_ids",
            f"{count}",
            rounded,
            (0.0, 1.0),
            {"table": table, "count": float(count)},
            y="float[2, 64, 2] y",
        )
    for most, scale in [(1000, 1e-3), (2000, 5e-4), (200000, 1e-5), (90000, 1e-5)]:
        body = "single = Cast <to = 1> (ids) y = Mul (single, scale)"
        yield make_case(
            "large_ids",
            f"scaled_{most}",
            body,
            (most // 2, most),
            {"scale": scale},
            x="int64[2, 64] ids",
        )


def _power_chain() -> Iterator[HalfCase]:
    body = "squares = Mul (x, x) more = Add (squares, one) y = Sqrt (more)"
    for most in (3.0, 100.0, 500.0):
        yield make_case(
            "power_chain", f"hypotenuse_{most:g}", body, (-most, most), {"one": 1.0}
        )
    for most, power in [(2.0, 3.0), (20.0, 3.0), (60.0, 4.0)]:
        body = "raised = Pow (x, power) y = Pow (raised, back)"
        yield make_case(
            "power_chain",
            f"{power:g}_{most:g}",
            body,
            (most / 4, most),
            {"power": power, "back": 1 / power},
        )


def _reciprocal() -> Iterator[HalfCase]:
    for low, high in [(0.2, 1.0), (0.01, 0.02), (4e-6, 9e-6), (1e-8, 9e-8)]:
        yield make_case("reciprocal", f"{high:g}", "y = Reciprocal (x)", (low, high))
    body = "safe = Add (x, epsilon) y = Div (one, safe)"
    for epsilon, low, high in [(1e-3, 0.1, 1.0), (1e-8, 0.0, 3e-8)]:
        yield make_case(
            "reciprocal",
            f"safe_{high:g}",
            body,
            (low, high),
            {"epsilon": epsilon, "one": 1e-4},
        )


def _integer_cast() -> Iterator[HalfCase]:
    for steps in (8, 20, 5000, 100000):
        body = """spread = Mul (x, steps) whole = Cast <to = 7> (spread) rest = Mod (whole, cycle)
                  y = Cast <to = 1> (rest)"""
        cycle = {
            "cycle": np.array(1000 if steps < 100 else 7, np.int64),
            "steps": float(steps),
        }
        yield make_case("integer_cast", f"{steps}", body, (0.0, 1.0), cycle)


def _recurrent() -> Iterator[HalfCase]:
    for size, gain in [(1.0, 0.3), (3.0, 0.3), (1.0, 300.0), (90000.0, 1e-5)]:
        body = """scaled = Mul (x, unit) steps, last = LSTM <hidden_size = 8> (scaled, w, r, b)
                  flat = Squeeze (steps, one) y = Mul (flat, two)"""
        weights = {
            "w": normal(1, 32, 4, scale=gain, seed=1),
            "r": normal(1, 32, 8, scale=0.3, seed=2),
            "b": normal(1, 64, scale=0.1, seed=3),
            "one": np.array([1], np.int64),
            "two": 2.0,
            "unit": 1.0,
        }
        yield make_case(
            "recurrent",
            f"{size:g}_{gain:g}",
            body,
            (-size, size),
            weights,
            x="float[10, 2, 4] x",
            y="float[10, 2, 8] y",
            opset=14,
        )
    body = """centred = Sub (x, level) steps, last = GRU <hidden_size = 8> (centred, w, r)
              y = Squeeze (steps, one)"""
    for level in (0.5, 3000.0):
        weights = {
            "w": normal(1, 24, 4, seed=4),
            "r": normal(1, 24, 8, scale=0.3, seed=5),
            "level": level,
            "one": np.array([1], np.int64),
        }
        yield make_case(
            "recurrent",
            f"centred_{level:g}",
            body,
            (level - 1, level + 1),
            weights,
            x="float[10, 2, 4] x",
            y="float[10, 2, 8] y",
            opset=14,
        )


def _product() -> Iterator[HalfCase]:
    for size in (1.0, 40.0, 3000.0, 20000.0):
        weights = {"weight": normal(64, 64, scale=1.0), "back": 1 / (8 * size)}
        yield make_case(
            "product",
            f"{size:g}",
            "wide = MatMul (x, weight) y = Mul (wide, back)",
            (-size, size),
            weights,
        )
    for size in (1.0, 30000.0):
        weights = {"w": normal(4, 3, 3, 3, scale=1.0), "back": 1 / (5 * size)}
        yield make_case(
            "product",
            f"conv_{size:g}",
            ("wide = Conv (x, w) y = Mul (wide, back)"),
            (-size, size),
            weights,
            x="float[1, 3, 8, 8] x",
            y="float[1, 4, 6, 6] y",
        )


def _batch_norm() -> Iterator[HalfCase]:
    body = "y = BatchNormalization (x, gain, bias, mean, var)"
    for mean, variance in [(0.0, 1.0), (0.5, 4.0), (900.0, 1.0), (2000.0, 4.0)]:
        weights = {
            "gain": np.ones(3),
            "bias": np.zeros(3),
            "mean": np.full(3, mean),
            "var": np.full(3, variance),
        }
        yield make_case(
            "batch_norm",
            f"{mean:g}",
            body,
            (mean - 2, mean + 2),
            weights,
            x="float[1, 3, 5, 5] x",
            y="float[1, 3, 5, 5] y",
        )


def _steep_gate() -> Iterator[HalfCase]:
    body = (
        "less = Sub (x, threshold) steep = Mul (less, slope) gate = Sigmoid (steep) y = Mul "
        "(gate, x)"
    )
    for threshold, slope in [(0.5, 4.0), (0.5, 30.0), (0.5, 2000.0), (40.0, 50.0)]:
        bounds = (threshold - 0.5, threshold + 0.5)
        yield make_case(
            "steep_gate",
            f"{slope:g}",
            body,
            bounds,
            {"threshold": threshold, "slope": slope},
        )


def _deep_chain() -> Iterator[HalfCase]:
    for label, step, gain in [
        ("residual", "x{0} = Add (x{1}, t{0})", 0.05),
        ("chaos", "x{0} = Sin (t{0})", 0.6),
    ]:
        for count in (1, 3, 12):
            lines = ["x0 = Identity (x)"]
            for index in range(1, count + 1):
                lines.append(
                    f"m{index} = MatMul (x{index - 1}, weight) t{index} = Tanh (m{index})"
                )
                lines.append(step.format(index, index - 1))
            lines.append(f"y = Identity (x{count})")
            weights = {"weight": normal(64, 64, scale=gain)}
            yield make_case(
                "deep_chain", f"{label}_{count}", " ".join(lines), (-1, 1), weights
            )


def _subnormal() -> Iterator[HalfCase]:
    for small in (1e-2, 1e-3, 3e-6, 1e-7):
        body = "tiny = Mul (x, small) bent = Tanh (tiny) y = Mul (bent, large)"
        yield make_case(
            "subnormal",
            f"{small:g}",
            body,
            (0.5, 1.0),
            {"small": small, "large": min(1 / small, 9999.0)},
        )
    for size in (
        0.02,
        3e-5,
    ):  # squared differences, averaged: the loss of a network that is nearly right
        body = "squares = Mul (x, x) mean = ReduceMean (squares, last) y = Sqrt (mean)"
        yield make_case(
            "subnormal", f"loss_{size:g}", body, (-size, size), LAST, y="float[2, 1] y"
        )


def _clamped_weight() -> Iterator[HalfCase]:
    for size, back in [(30.0, 1 / 30), (9000.0, 1e-4), (40000.0, 1e-4), (1e-8, 9000.0)]:
        body = "wide = Mul (x, weight) bent = Mul (wide, back) y = Tanh (bent)"
        weight = np.linspace(0.5, 1.0, 64) * size
        yield make_case(
            "clamped_weight",
            f"{size:g}",
            body,
            (-1e-1, 1e-1),
            {"weight": weight, "back": back},
        )


def _pairwise_distance() -> Iterator[HalfCase]:
    body = """rows = Unsqueeze (x, one) columns = Unsqueeze (x, zero) apart = Sub (rows, columns)
              squares = Mul (apart, apart) total = ReduceSum (squares, last) nearness = Neg (total)
              y = Exp (nearness)"""
    places = {"one": np.array([1], np.int64), "zero": np.array([0], np.int64)}
    for offset in (0.0, 0.6, 90.0, 2000.0):
        yield make_case(
            "pairwise_distance",
            f"{offset:g}",
            body,
            (offset - 0.7, offset + 0.7),
            LAST | places,
            x="float[12, 3] x",
            y="float[12, 12, 1] y",
        )


def _harmless_overflow() -> Iterator[HalfCase]:
    """Values leave the range of float16, and nothing comes of it: the answer is right."""
    ones = {"one": 1.0, "most": 50.0}
    bodies = {
        "sigmoid": (
            "turned = Neg (x) raised = Exp (turned) more = Add (raised, one) y = Reciprocal (more)"
        ),
        "clipped": "squares = Mul (x, x) cubes = Mul (squares, squares) y = Min (cubes, most)",
        "compared": "squares = Mul (x, x) big = Mul (squares, squares) seen = Greater (big, most) "
        "y = Where (seen, one, most)",
        "angle": "squares = Mul (x, x) big = Mul (squares, squares) y = Atan (big)",
        "unselected": "raised = Exp (x) low = Less (x, one) y = Where (low, raised, x)",
    }
    for label, body in bodies.items():
        yield make_case("harmless_overflow", label, body, (-18.0, 18.0), ones)


def _masked_product() -> Iterator[HalfCase]:
    mask = (np.arange(64) % 3 == 0) * 1.0
    body = "raised = Exp (x) y = Mul (raised, mask)"
    for most in (4.0, 13.0):  # zero times infinity is NaN
        yield make_case("masked_product", f"{most:g}", body, (0.0, most), {"mask": mask})
    body = (
        "first = Mul (x, large) second = Mul (first, large) third = Mul (second, zero) y = Add "
        "(x, third)"
    )
    yield make_case(
        "masked_product", "zero", body, (0.5, 1.0), {"large": 900.0, "zero": 0.0}
    )


def _ranking() -> Iterator[HalfCase]:
    for offset in (0.0, 2.0, 900.0, 9000.0):
        body = "z = Add (x, offset) y = ArgMax <axis = -1> (z)"
        yield make_case(
            "ranking",
            f"first_{offset:g}",
            body,
            (-1.0, 1.0),
            {"offset": offset},
            y="int64[2, 1] y",
        )
    for offset in (0.0, 900.0):
        body = "z = Add (x, offset) best, y = TopK <axis = -1> (z, k)"
        weights = {"offset": offset, "k": np.array([3], np.int64)}
        yield make_case(
            "ranking", f"top_{offset:g}", body, (-1.0, 1.0), weights, y="int64[2, 3] y"
        )


def _loop_accumulation() -> Iterator[HalfCase]:
    for trips, step in [(4, 0.1), (20, 0.01), (900, 1.0), (1500, 0.2)]:
        body = """y = Loop (trips, always, x) <body = body (int64 i, bool go_on, float[2, 64] state)
                  => (bool go_on_next, float[2, 64] next) {
                      bent = Cos (state) moved = Mul (bent, step) shifted = Add (moved, drift)
                      next = Add (state, shifted) go_on_next = Identity (go_on) }>"""
        weights = {
            "trips": np.array(trips, np.int64),
            "always": np.array(True),
            "step": 0.1,
            "drift": step,
        }
        yield make_case("loop_accumulation", f"{trips}", body, (0.0, 1.0), weights)


def _one_plus_small() -> Iterator[HalfCase]:
    bodies = {
        "log": "more = Add (x, one) y = Log (more)",
        "exp": "raised = Exp (x) y = Sub (raised, one)",
    }
    for label, body in bodies.items():
        for high in (1.0, 2e-4):
            yield make_case(
                "one_plus_small", f"{label}_{high:g}", body, (high / 2, high), {"one": 1.0}
            )


def _wrap() -> Iterator[HalfCase]:
    body = "whole = Floor (x) y = Sub (x, whole)"
    for low in (0.0, 300.0, 5000.0):
        yield make_case("wrap", f"{low:g}", body, (low + 0.1, low + 0.9))


def _plain() -> Iterator[HalfCase]:
    ops = "Tanh Sigmoid Softsign Elu Atan Asinh Sinh HardSwish Neg Abs Softplus"
    for op in ops.split():
        yield make_case("plain", op.lower(), f"y = {op} (x)", (-2.0, 2.0))


KINDS: Sequence[Callable[[], Iterator[HalfCase]]] = (
    *(_rotary, _timestep, _large_ids, _power_chain, _reciprocal),
    *(_integer_cast, _recurrent, _product, _batch_norm, _steep_gate),
    *(_deep_chain, _subnormal, _clamped_weight, _pairwise_distance, _harmless_overflow),
    *(_masked_product, _ranking, _loop_accumulation, _one_plus_small, _wrap),
    *(_plain,),
)
"""Makers of the cases of a kind each."""
