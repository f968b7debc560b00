"""Cases of arithmetic: sums, differences, products, functions of one number.

Every kind has gentle parameters and harsh ones. Nothing here says which answer is right:
`half_truth` finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from onnx_harness.selftest.half_case import LAST, HalfCase, make_case, normal


def _centring() -> Iterator[HalfCase]:
    for offset in (0.0, 0.5, 100.0, 3000.0):
        body = "mean = ReduceMean (x, last) y = Sub (x, mean)"
        yield make_case("centring", f"{offset:g}", body, (offset - 1, offset + 1), LAST)


def _variance_by_squares() -> Iterator[HalfCase]:
    body = """squares = Mul (x, x) of_squares = ReduceMean (squares, last)
              mean = ReduceMean (x, last) squared = Mul (mean, mean)
              y = Sub (of_squares, squared)"""
    for offset in (0.0, 0.3, 30.0, 100.0):
        bounds = (offset - 1, offset + 1)
        yield make_case(
            "variance_by_squares", f"{offset:g}", body, bounds, LAST, y="float[2, 1] y"
        )


def _sine_of_large_angles() -> Iterator[HalfCase]:
    for op in ("Sin", "Cos"):
        for most in (2.0, 300.0, 3000.0):
            yield make_case(
                "sine_of_large_angles", f"{op.lower()}_{most:g}", f"y = {op} (x)", (0, most)
            )


def _masked_softmax() -> Iterator[HalfCase]:
    body = """scaled = Mul (x, scale) shifted = Add (scaled, level)
              masked = Where (seen, shifted, hidden)
              y = Softmax <axis = -1> (masked)"""
    seen = np.arange(64) < 50
    for scale, level, hidden in [
        (1, 0, -1e4),
        (3, 0, -3e38),
        (1, 0, -np.inf),
        (1, 2000, -1e4),
        (900, 0, -3e38),
    ]:
        weights = {
            "scale": float(scale),
            "level": float(level),
            "hidden": float(hidden),
            "seen": seen,
        }
        yield make_case(
            "masked_softmax", f"{scale}_{level}_{hidden:g}", body, (-2, 2), weights
        )


def _rms_norm() -> Iterator[HalfCase]:
    body = """squares = Pow (x, two) mean = ReduceMean (squares, last) safe = Add (mean, epsilon)
              root = Sqrt (safe) y = Div (x, root)"""
    for size, epsilon in [
        (2.0, 1e-5),
        (20.0, 1e-6),
        (2e-4, 1e-12),
        (600.0, 1e-6),
        (1e-3, 1e-9),
    ]:
        weights = LAST | {"two": 2.0, "epsilon": epsilon}
        yield make_case("rms_norm", f"{size:g}", body, (-size, size), weights)


def _layer_norm() -> Iterator[HalfCase]:
    body = """mean = ReduceMean (x, last) centred = Sub (x, mean) squares = Mul (centred, centred)
              variance = ReduceMean (squares, last) safe = Add (variance, epsilon)
              root = Sqrt (safe)
              y = Div (centred, root)"""
    for offset, size in [(0.0, 2.0), (1.0, 3.0), (500.0, 1.0), (0.0, 800.0), (0.0, 2e-4)]:
        weights = LAST | {"epsilon": 1e-12 if size < 1e-3 else 1e-5}
        bounds = (offset - size, offset + size)
        yield make_case("layer_norm", f"{offset:g}_{size:g}", body, bounds, weights)


def _log_floor() -> Iterator[HalfCase]:
    body = "power = Mul (x, x) floored = Max (power, floor) y = Log (floored)"
    for low, high, floor in [
        (0.3, 1.0, 1e-10),
        (0.1, 4.0, 1e-6),
        (1e-5, 2e-4, 1e-10),
        (300.0, 900.0, 1e-10),
    ]:
        yield make_case("log_floor", f"{high:g}", body, (low, high), {"floor": floor})
    for low, high in [(0.02, 1.0), (1e-9, 1e-7)]:
        body = "safe = Add (x, floor) logs = Log (safe) y = Mul (logs, decibels)"
        yield make_case(
            "log_floor",
            f"added_{high:g}",
            body,
            (low, high),
            {"floor": 1e-9, "decibels": 4.343},
        )


def _long_sum() -> Iterator[HalfCase]:
    for count, low, high in [
        (256, -1.0, 1.0),
        (2048, 0.0, 1.0),
        (4096, 20.0, 60.0),
        (512, 200.0, 300.0),
    ]:
        body = "total = ReduceSum (x, last) more = Add (total, x) y = Abs (more)"
        yield make_case(
            "long_sum",
            f"{count}",
            body,
            (low, high),
            LAST,
            x=f"float[2, {count}] x",
            y=f"float[2, {count}] y",
        )


def _cumulative_sum() -> Iterator[HalfCase]:
    axis = {"axis": np.array(1, np.int64)}
    for count, low, high in [(8, 0.0, 1.0), (24, -1.0, 1.0), (3000, 0.0, 2.0)]:
        yield make_case(
            "cumulative_sum",
            f"{count}",
            "y = CumSum (x, axis)",
            (low, high),
            axis,
            x=f"float[1, {count}] x",
            y=f"float[1, {count}] y",
        )
    body = "phase = CumSum (x, axis) y = Sin (phase)"
    for count, high in [(6, 0.3), (1500, 0.9)]:
        yield make_case(
            "cumulative_sum",
            f"phase_{count}",
            body,
            (0.0, high),
            axis,
            x=f"float[1, {count}] x",
            y=f"float[1, {count}] y",
        )


def _exponential() -> Iterator[HalfCase]:
    body = "raised = Exp (x) total = ReduceSum (raised, last) y = Log (total)"
    for most in (3.0, 6.0, 14.0, 25.0):
        yield make_case(
            "exponential", f"sum_{most:g}", body, (-1, most), LAST, y="float[2, 1] y"
        )
    for most in (4.0, 9.0, 18.0):
        body = "raised = Exp (x) more = Add (raised, one) y = Log (more)"
        yield make_case(
            "exponential", f"softplus_{most:g}", body, (-most, most), {"one": 1.0}
        )


def _gelu() -> Iterator[HalfCase]:
    body = (
        "part = Div (x, root) error = Erf (part) more = Add (error, one) half_x = Mul (x, "
        "half) y = Mul (half_x, more)"
    )
    for most in (3.0, 30.0):
        weights = {"root": 2**0.5, "one": 1.0, "half": 0.5}
        yield make_case("gelu", f"erf_{most:g}", body, (-most, most), weights)
    body = """cube = Pow (x, three) small = Mul (cube, part) sum = Add (x, small)
              scaled = Mul (sum, root)
              bent = Tanh (scaled) more = Add (bent, one) half_x = Mul (x, half)
              y = Mul (half_x, more)"""
    weights = {
        "three": 3.0,
        "part": 0.044715,
        "root": (2 / np.pi) ** 0.5,
        "one": 1.0,
        "half": 0.5,
    }
    for most in (3.0, 90.0):  # the cube overflows, and the tanh of it is 1 all the same
        yield make_case("gelu", f"tanh_{most:g}", body, (-most, most), weights)
    for low, high in [(2.2, 2.9), (2.9, 3.4)]:
        body = "error = Erf (x) y = Sub (one, error)"
        yield make_case("gelu", f"erfc_{high:g}", body, (low, high), {"one": 1.0})


def _attention() -> Iterator[HalfCase]:
    body = """query = MatMul (x, wq) key = MatMul (x, wk)
              turned = Transpose <perm = [0, 2, 1]> (key)
              scores = MatMul (query, turned) scaled = Mul (scores, scale)
              attention = Softmax <axis = -1> (scaled) y = MatMul (attention, x)"""
    for size, scale in [(0.5, 0.25), (1.0, 0.1), (400.0, 1e-5), (30.0, 0.25), (60.0, 4e-3)]:
        weights = {
            "wq": normal(16, 16, scale=0.25),
            "wk": normal(16, 16, scale=0.25, seed=1),
            "scale": scale,
        }
        yield make_case(
            "attention",
            f"{size:g}",
            body,
            (-size, size),
            weights,
            x="float[1, 12, 16] x",
            y="float[1, 12, 16] y",
        )


def _residual_outlier() -> Iterator[HalfCase]:
    for outlier in (0.5, 2.0, 500.0, 5000.0):
        stream = np.where(np.arange(64) % 8 == 3, outlier, 0.0)
        body = """mixed = MatMul (x, weight) raised = Add (mixed, stream) bent = Add (raised, x)
                  y = Sub (bent, stream)"""
        weights = {"weight": normal(64, 64, scale=0.125), "stream": stream}
        yield make_case("residual_outlier", f"{outlier:g}", body, (-1, 1), weights)
    for outlier in (3.0, 2000.0):
        stream = np.where(np.arange(64) == 5, outlier, 0.0)
        body = """raised = Add (x, stream) mixed = MatMul (raised, weight) taken = Sub (mixed, part)
                  y = Tanh (taken)"""
        weight = normal(64, 64, scale=0.125)
        weights = {
            "weight": weight,
            "stream": stream,
            "part": np.asarray(outlier * weight[5], np.float32),
        }
        yield make_case("residual_outlier", f"mixed_{outlier:g}", body, (-1, 1), weights)


def _resize() -> Iterator[HalfCase]:
    for mode, scale in [("linear", 2.0), ("nearest", 3.0), ("cubic", 1.5)]:
        attributes = f'mode = "{mode}", coordinate_transformation_mode = "half_pixel"'
        body = f"y = Resize <{attributes}> (x, , scales)"
        weights = {"scales": np.array([1, 1, scale, scale], np.float32)}
        yield make_case(
            "resize",
            mode,
            body,
            (-1, 1),
            weights,
            x="float[1, 2, 6, 6] x",
            y="float[1, 2, h, w] y",
        )
    # Source positions computed as numbers, as exporters write a grid.
    for count in (40, 4000):
        body = """spread = Mul (x, side) place = Floor (spread) whole = Cast <to = 7> (place)
                  y = Gather <axis = 0> (table, whole)"""
        table = np.sin(np.arange(count) * 2.0)
        yield make_case(
            "resize",
            f"grid_{count}",
            body,
            (0.0, 0.999),
            {"side": np.float32(count), "table": table},
        )
    body = 'spread = Mul (x, big) y = Resize <mode = "linear"> (spread, , scales)'
    large = {"big": 1e5, "scales": np.array([1, 1, 2, 2], np.float32)}
    yield make_case(
        "resize",
        "large",
        body,
        (-1, 1),
        large,
        x="float[1, 2, 6, 6] x",
        y="float[1, 2, h, w] y",
    )


KINDS: Sequence[Callable[[], Iterator[HalfCase]]] = (
    *(_centring, _variance_by_squares, _sine_of_large_angles, _masked_softmax, _rms_norm),
    *(_layer_norm, _log_floor, _long_sum, _cumulative_sum, _exponential),
    *(_gelu, _attention, _residual_outlier, _resize),
)
"""Makers of the cases of a kind each."""
