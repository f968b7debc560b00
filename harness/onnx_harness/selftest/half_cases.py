"""Small models, each with something that float16 may be too coarse or too narrow for: built with seeds, by kind.

Every kind has gentle parameters and harsh ones. Nothing here says which answer is right: `half_truth` finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
from onnx import numpy_helper

from onnx_harness.cards.card import InputSpec

Array = npt.NDArray[np.generic]
Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class HalfCase:
    """A model and the range of its inputs.

    Attributes:
        kind: the pattern that the model shows, such as ``centring``.
        name: unique; valid as the name of a model.
        model: float32, at most some thousand elements a value.
        inputs: the lower and upper bound of each input.
    """

    kind: str
    name: str
    model: onnx.ModelProto
    inputs: Mapping[str, Bounds]

    @property
    def specs(self) -> dict[str, InputSpec]:
        """The inputs as a card describes them."""
        return {name: InputSpec(low=low, high=high) for name, (low, high) in self.inputs.items()}


_X, _Y = "float[2, 64] x", "float[2, 64] y"


def _case(
    kind: str,
    label: str,
    body: str,
    bounds: Bounds,
    weights: Mapping[str, object] | None = None,
    *,
    x: str = _X,
    y: str = _Y,
    opset: int = 18,
) -> HalfCase:
    text = f'<ir_version: 8, opset_import: ["" : {opset}]>\n{kind} ({x}) => ({y}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for name, value in (weights or {}).items():
        array = np.asarray(value)
        single = array.astype(np.float32) if array.dtype == np.float64 else array
        model.graph.initializer.append(numpy_helper.from_array(single, name))
    for node in model.graph.node:
        node.name = node.output[0]
    name = f"{kind}_{label}".replace("-", "m").replace("+", "")
    return HalfCase(kind, name, model, {model.graph.input[0].name: bounds})


def _normal(*shape: int, scale: float = 1.0, seed: int = 0) -> Array:
    return np.asarray(scale * np.random.default_rng(seed).standard_normal(shape), np.float32)


_LAST = {"last": np.array([-1], np.int64)}


def _centring() -> Iterator[HalfCase]:
    for offset in (0.0, 0.5, 100.0, 3000.0):
        body = "mean = ReduceMean (x, last) y = Sub (x, mean)"
        yield _case("centring", f"{offset:g}", body, (offset - 1, offset + 1), _LAST)


def _variance_by_squares() -> Iterator[HalfCase]:
    body = """squares = Mul (x, x) of_squares = ReduceMean (squares, last)
              mean = ReduceMean (x, last) squared = Mul (mean, mean) y = Sub (of_squares, squared)"""
    for offset in (0.0, 0.3, 30.0, 100.0):
        bounds = (offset - 1, offset + 1)
        yield _case("variance_by_squares", f"{offset:g}", body, bounds, _LAST, y="float[2, 1] y")


def _sine_of_large_angles() -> Iterator[HalfCase]:
    for op in ("Sin", "Cos"):
        for most in (2.0, 300.0, 3000.0):
            yield _case("sine_of_large_angles", f"{op.lower()}_{most:g}", f"y = {op} (x)", (0, most))


def _masked_softmax() -> Iterator[HalfCase]:
    body = """scaled = Mul (x, scale) shifted = Add (scaled, level) masked = Where (seen, shifted, hidden)
              y = Softmax <axis = -1> (masked)"""
    seen = np.arange(64) < 50
    for scale, level, hidden in [(1, 0, -1e4), (3, 0, -3e38), (1, 0, -np.inf), (1, 2000, -1e4), (900, 0, -3e38)]:
        weights = {"scale": float(scale), "level": float(level), "hidden": float(hidden), "seen": seen}
        yield _case("masked_softmax", f"{scale}_{level}_{hidden:g}", body, (-2, 2), weights)


def _rms_norm() -> Iterator[HalfCase]:
    body = """squares = Pow (x, two) mean = ReduceMean (squares, last) safe = Add (mean, epsilon)
              root = Sqrt (safe) y = Div (x, root)"""
    for size, epsilon in [(2.0, 1e-5), (20.0, 1e-6), (2e-4, 1e-12), (600.0, 1e-6), (1e-3, 1e-9)]:
        weights = _LAST | {"two": 2.0, "epsilon": epsilon}
        yield _case("rms_norm", f"{size:g}", body, (-size, size), weights)


def _layer_norm() -> Iterator[HalfCase]:
    body = """mean = ReduceMean (x, last) centred = Sub (x, mean) squares = Mul (centred, centred)
              variance = ReduceMean (squares, last) safe = Add (variance, epsilon) root = Sqrt (safe)
              y = Div (centred, root)"""
    for offset, size in [(0.0, 2.0), (1.0, 3.0), (500.0, 1.0), (0.0, 800.0), (0.0, 2e-4)]:
        weights = _LAST | {"epsilon": 1e-12 if size < 1e-3 else 1e-5}
        bounds = (offset - size, offset + size)
        yield _case("layer_norm", f"{offset:g}_{size:g}", body, bounds, weights)


def _log_floor() -> Iterator[HalfCase]:
    body = "power = Mul (x, x) floored = Max (power, floor) y = Log (floored)"
    for low, high, floor in [(0.3, 1.0, 1e-10), (0.1, 4.0, 1e-6), (1e-5, 2e-4, 1e-10), (300.0, 900.0, 1e-10)]:
        yield _case("log_floor", f"{high:g}", body, (low, high), {"floor": floor})
    for low, high in [(0.02, 1.0), (1e-9, 1e-7)]:
        body = "safe = Add (x, floor) logs = Log (safe) y = Mul (logs, decibels)"
        yield _case("log_floor", f"added_{high:g}", body, (low, high), {"floor": 1e-9, "decibels": 4.343})


def _long_sum() -> Iterator[HalfCase]:
    for count, low, high in [(256, -1.0, 1.0), (2048, 0.0, 1.0), (4096, 20.0, 60.0), (512, 200.0, 300.0)]:
        body = "total = ReduceSum (x, last) more = Add (total, x) y = Abs (more)"
        yield _case("long_sum", f"{count}", body, (low, high), _LAST,
                    x=f"float[2, {count}] x", y=f"float[2, {count}] y")  # fmt: skip


def _cumulative_sum() -> Iterator[HalfCase]:
    axis = {"axis": np.array(1, np.int64)}
    for count, low, high in [(8, 0.0, 1.0), (24, -1.0, 1.0), (3000, 0.0, 2.0)]:
        yield _case("cumulative_sum", f"{count}", "y = CumSum (x, axis)", (low, high), axis,
                    x=f"float[1, {count}] x", y=f"float[1, {count}] y")  # fmt: skip
    body = "phase = CumSum (x, axis) y = Sin (phase)"
    for count, high in [(6, 0.3), (1500, 0.9)]:
        yield _case("cumulative_sum", f"phase_{count}", body, (0.0, high), axis,
                    x=f"float[1, {count}] x", y=f"float[1, {count}] y")  # fmt: skip


def _exponential() -> Iterator[HalfCase]:
    body = "raised = Exp (x) total = ReduceSum (raised, last) y = Log (total)"
    for most in (3.0, 6.0, 14.0, 25.0):
        yield _case("exponential", f"sum_{most:g}", body, (-1, most), _LAST, y="float[2, 1] y")
    for most in (4.0, 9.0, 18.0):
        body = "raised = Exp (x) more = Add (raised, one) y = Log (more)"
        yield _case("exponential", f"softplus_{most:g}", body, (-most, most), {"one": 1.0})


def _gelu() -> Iterator[HalfCase]:
    body = "part = Div (x, root) error = Erf (part) more = Add (error, one) half_x = Mul (x, half) y = Mul (half_x, more)"
    for most in (3.0, 30.0):
        weights = {"root": 2**0.5, "one": 1.0, "half": 0.5}
        yield _case("gelu", f"erf_{most:g}", body, (-most, most), weights)
    body = """cube = Pow (x, three) small = Mul (cube, part) sum = Add (x, small) scaled = Mul (sum, root)
              bent = Tanh (scaled) more = Add (bent, one) half_x = Mul (x, half) y = Mul (half_x, more)"""
    weights = {"three": 3.0, "part": 0.044715, "root": (2 / np.pi) ** 0.5, "one": 1.0, "half": 0.5}
    for most in (3.0, 90.0):  # the cube overflows, and the tanh of it is 1 all the same
        yield _case("gelu", f"tanh_{most:g}", body, (-most, most), weights)
    for low, high in [(2.2, 2.9), (2.9, 3.4)]:
        body = "error = Erf (x) y = Sub (one, error)"
        yield _case("gelu", f"erfc_{high:g}", body, (low, high), {"one": 1.0})


def _attention() -> Iterator[HalfCase]:
    body = """query = MatMul (x, wq) key = MatMul (x, wk) turned = Transpose <perm = [0, 2, 1]> (key)
              scores = MatMul (query, turned) scaled = Mul (scores, scale)
              attention = Softmax <axis = -1> (scaled) y = MatMul (attention, x)"""
    for size, scale in [(0.5, 0.25), (1.0, 0.1), (400.0, 1e-5), (30.0, 0.25), (60.0, 4e-3)]:
        weights = {"wq": _normal(16, 16, scale=0.25), "wk": _normal(16, 16, scale=0.25, seed=1), "scale": scale}
        yield _case("attention", f"{size:g}", body, (-size, size), weights,
                    x="float[1, 12, 16] x", y="float[1, 12, 16] y")  # fmt: skip


def _residual_outlier() -> Iterator[HalfCase]:
    for outlier in (0.5, 2.0, 500.0, 5000.0):
        stream = np.where(np.arange(64) % 8 == 3, outlier, 0.0)
        body = """mixed = MatMul (x, weight) raised = Add (mixed, stream) bent = Add (raised, x)
                  y = Sub (bent, stream)"""
        weights = {"weight": _normal(64, 64, scale=0.125), "stream": stream}
        yield _case("residual_outlier", f"{outlier:g}", body, (-1, 1), weights)
    for outlier in (3.0, 2000.0):
        stream = np.where(np.arange(64) == 5, outlier, 0.0)
        body = """raised = Add (x, stream) mixed = MatMul (raised, weight) taken = Sub (mixed, part)
                  y = Tanh (taken)"""
        weight = _normal(64, 64, scale=0.125)
        weights = {"weight": weight, "stream": stream, "part": np.asarray(outlier * weight[5], np.float32)}
        yield _case("residual_outlier", f"mixed_{outlier:g}", body, (-1, 1), weights)


def _resize() -> Iterator[HalfCase]:
    for mode, scale in [("linear", 2.0), ("nearest", 3.0), ("cubic", 1.5)]:
        attributes = f'mode = "{mode}", coordinate_transformation_mode = "half_pixel"'
        body = f"y = Resize <{attributes}> (x, , scales)"
        weights = {"scales": np.array([1, 1, scale, scale], np.float32)}
        yield _case("resize", mode, body, (-1, 1), weights, x="float[1, 2, 6, 6] x", y="float[1, 2, h, w] y")
    for count in (40, 4000):  # source positions computed as numbers, as exporters write a grid
        body = """spread = Mul (x, side) place = Floor (spread) whole = Cast <to = 7> (place)
                  y = Gather <axis = 0> (table, whole)"""
        table = np.sin(np.arange(count) * 2.0)
        yield _case("resize", f"grid_{count}", body, (0.0, 0.999), {"side": float(count), "table": table})
    body = "spread = Mul (x, big) y = Resize <mode = \"linear\"> (spread, , scales)"
    weights = {"big": 1e5, "scales": np.array([1, 1, 2, 2], np.float32)}
    yield _case("resize", "large", body, (-1, 1), weights, x="float[1, 2, 6, 6] x", y="float[1, 2, h, w] y")


def _rotary() -> Iterator[HalfCase]:
    rates = 10000.0 ** -(np.arange(8) / 8)
    body = """single = Cast <to = 1> (ids) column = Unsqueeze (single, last) angles = Mul (column, rates)
              cosine = Cos (angles) sine = Sin (angles)
              first = Mul (cosine, left) second = Mul (sine, right) y = Sub (first, second)"""
    for most in (2, 6, 2000, 30000):
        weights = _LAST | {"rates": rates, "left": _normal(8), "right": _normal(8, seed=1)}
        yield _case("rotary", f"{most}", body, (0, most), weights,
                    x="int64[2, 12] ids", y="float[2, 12, 8] y")  # fmt: skip


def _timestep() -> Iterator[HalfCase]:
    rates = np.exp(-np.log(10000.0) * np.arange(16) / 16)
    body = """column = Unsqueeze (t, last) angles = Mul (column, rates) sine = Sin (angles) cosine = Cos (angles)
              waves = Concat <axis = 1> (sine, cosine) mixed = MatMul (waves, weight) y = Tanh (mixed)"""
    for most in (1.0, 3.0, 1000.0, 100000.0):
        weights = _LAST | {"rates": rates, "weight": _normal(32, 8, scale=0.18)}
        yield _case("timestep", f"{most:g}", body, (most / 2, most), weights, x="float[6] t", y="float[6, 8] y")


def _large_ids() -> Iterator[HalfCase]:
    for count in (50, 1000, 6000, 60000):
        body = "whole = Cast <to = 7> (x) y = Gather <axis = 0> (table, whole)"
        rounded = "steps = Mul (x, count) spread = Floor (steps) " + body.replace("(x)", "(spread)")
        table = _normal(count + 1, 2, seed=3)
        yield _case("large_ids", f"{count}", rounded, (0.0, 1.0), {"table": table, "count": float(count)},
                    y="float[2, 64, 2] y")  # fmt: skip
    for most, scale in [(1000, 1e-3), (2000, 5e-4), (200000, 1e-5), (90000, 1e-5)]:
        body = "single = Cast <to = 1> (ids) y = Mul (single, scale)"
        yield _case("large_ids", f"scaled_{most}", body, (most // 2, most), {"scale": scale}, x="int64[2, 64] ids")


def _power_chain() -> Iterator[HalfCase]:
    body = "squares = Mul (x, x) more = Add (squares, one) y = Sqrt (more)"
    for most in (3.0, 100.0, 500.0):
        yield _case("power_chain", f"hypotenuse_{most:g}", body, (-most, most), {"one": 1.0})
    for most, power in [(2.0, 3.0), (20.0, 3.0), (60.0, 4.0)]:
        body = "raised = Pow (x, power) y = Pow (raised, back)"
        yield _case("power_chain", f"{power:g}_{most:g}", body, (most / 4, most), {"power": power, "back": 1 / power})


def _reciprocal() -> Iterator[HalfCase]:
    for low, high in [(0.2, 1.0), (0.01, 0.02), (4e-6, 9e-6), (1e-8, 9e-8)]:
        yield _case("reciprocal", f"{high:g}", "y = Reciprocal (x)", (low, high))
    body = "safe = Add (x, epsilon) y = Div (one, safe)"
    for epsilon, low, high in [(1e-3, 0.1, 1.0), (1e-8, 0.0, 3e-8)]:
        yield _case("reciprocal", f"safe_{high:g}", body, (low, high), {"epsilon": epsilon, "one": 1e-4})


def _integer_cast() -> Iterator[HalfCase]:
    for steps in (8, 20, 5000, 100000):
        body = """spread = Mul (x, steps) whole = Cast <to = 7> (spread) rest = Mod (whole, cycle)
                  y = Cast <to = 1> (rest)"""
        cycle = {"cycle": np.array(1000 if steps < 100 else 7, np.int64), "steps": float(steps)}
        yield _case("integer_cast", f"{steps}", body, (0.0, 1.0), cycle)


def _recurrent() -> Iterator[HalfCase]:
    for size, gain in [(1.0, 0.3), (3.0, 0.3), (1.0, 300.0), (90000.0, 1e-5)]:
        body = """scaled = Mul (x, unit) steps, last = LSTM <hidden_size = 8> (scaled, w, r, b)
                  flat = Squeeze (steps, one) y = Mul (flat, two)"""
        weights = {"w": _normal(1, 32, 4, scale=gain, seed=1), "r": _normal(1, 32, 8, scale=0.3, seed=2),
                   "b": _normal(1, 64, scale=0.1, seed=3), "one": np.array([1], np.int64), "two": 2.0,
                   "unit": 1.0}  # fmt: skip
        yield _case("recurrent", f"{size:g}_{gain:g}", body, (-size, size), weights,
                    x="float[10, 2, 4] x", y="float[10, 2, 8] y", opset=14)  # fmt: skip
    body = """centred = Sub (x, level) steps, last = GRU <hidden_size = 8> (centred, w, r)
              y = Squeeze (steps, one)"""
    for level in (0.5, 3000.0):
        weights = {"w": _normal(1, 24, 4, seed=4), "r": _normal(1, 24, 8, scale=0.3, seed=5), "level": level,
                   "one": np.array([1], np.int64)}  # fmt: skip
        yield _case("recurrent", f"centred_{level:g}", body, (level - 1, level + 1), weights,
                    x="float[10, 2, 4] x", y="float[10, 2, 8] y", opset=14)  # fmt: skip


def _product() -> Iterator[HalfCase]:
    for size in (1.0, 40.0, 3000.0, 20000.0):
        weights = {"weight": _normal(64, 64, scale=1.0), "back": 1 / (8 * size)}
        yield _case("product", f"{size:g}", "wide = MatMul (x, weight) y = Mul (wide, back)", (-size, size), weights)
    for size in (1.0, 30000.0):
        weights = {"w": _normal(4, 3, 3, 3, scale=1.0), "back": 1 / (5 * size)}
        yield _case("product", f"conv_{size:g}", "wide = Conv (x, w) y = Mul (wide, back)", (-size, size), weights,
                    x="float[1, 3, 8, 8] x", y="float[1, 4, 6, 6] y")  # fmt: skip


def _batch_norm() -> Iterator[HalfCase]:
    body = "y = BatchNormalization (x, gain, bias, mean, var)"
    for mean, variance in [(0.0, 1.0), (0.5, 4.0), (900.0, 1.0), (2000.0, 4.0)]:
        weights = {"gain": np.ones(3), "bias": np.zeros(3), "mean": np.full(3, mean), "var": np.full(3, variance)}
        yield _case("batch_norm", f"{mean:g}", body, (mean - 2, mean + 2), weights,
                    x="float[1, 3, 5, 5] x", y="float[1, 3, 5, 5] y")  # fmt: skip


def _steep_gate() -> Iterator[HalfCase]:
    body = "less = Sub (x, threshold) steep = Mul (less, slope) gate = Sigmoid (steep) y = Mul (gate, x)"
    for threshold, slope in [(0.5, 4.0), (0.5, 30.0), (0.5, 2000.0), (40.0, 50.0)]:
        bounds = (threshold - 0.5, threshold + 0.5)
        yield _case("steep_gate", f"{slope:g}", body, bounds, {"threshold": threshold, "slope": slope})


def _deep_chain() -> Iterator[HalfCase]:
    for label, step, gain in [("residual", "x{0} = Add (x{1}, t{0})", 0.05), ("chaos", "x{0} = Sin (t{0})", 0.6)]:
        for count in (1, 3, 12):
            lines = ["x0 = Identity (x)"]
            for index in range(1, count + 1):
                lines.append(f"m{index} = MatMul (x{index - 1}, weight) t{index} = Tanh (m{index})")
                lines.append(step.format(index, index - 1))
            lines.append(f"y = Identity (x{count})")
            weights = {"weight": _normal(64, 64, scale=gain)}
            yield _case("deep_chain", f"{label}_{count}", " ".join(lines), (-1, 1), weights)


def _subnormal() -> Iterator[HalfCase]:
    for small in (1e-2, 1e-3, 3e-6, 1e-7):
        body = "tiny = Mul (x, small) bent = Tanh (tiny) y = Mul (bent, large)"
        yield _case("subnormal", f"{small:g}", body, (0.5, 1.0), {"small": small, "large": min(1 / small, 9999.0)})
    for size in (0.02, 3e-5):  # squared differences, averaged: the loss of a network that is nearly right
        body = "squares = Mul (x, x) mean = ReduceMean (squares, last) y = Sqrt (mean)"
        yield _case("subnormal", f"loss_{size:g}", body, (-size, size), _LAST, y="float[2, 1] y")


def _clamped_weight() -> Iterator[HalfCase]:
    for size, back in [(30.0, 1 / 30), (9000.0, 1e-4), (40000.0, 1e-4), (1e-8, 9000.0)]:
        body = "wide = Mul (x, weight) bent = Mul (wide, back) y = Tanh (bent)"
        weight = np.linspace(0.5, 1.0, 64) * size
        yield _case("clamped_weight", f"{size:g}", body, (-1e-1, 1e-1), {"weight": weight, "back": back})


def _pairwise_distance() -> Iterator[HalfCase]:
    body = """rows = Unsqueeze (x, one) columns = Unsqueeze (x, zero) apart = Sub (rows, columns)
              squares = Mul (apart, apart) total = ReduceSum (squares, last) nearness = Neg (total)
              y = Exp (nearness)"""
    places = {"one": np.array([1], np.int64), "zero": np.array([0], np.int64)}
    for offset in (0.0, 0.6, 90.0, 2000.0):
        yield _case("pairwise_distance", f"{offset:g}", body, (offset - 0.7, offset + 0.7), _LAST | places,
                    x="float[12, 3] x", y="float[12, 12, 1] y")  # fmt: skip


KINDS: Sequence[Callable[[], Iterator[HalfCase]]] = (
    *(_centring, _variance_by_squares, _sine_of_large_angles, _masked_softmax, _rms_norm, _layer_norm, _log_floor),
    *(_long_sum, _cumulative_sum, _exponential, _gelu, _attention, _residual_outlier, _resize, _rotary, _timestep),
    *(_large_ids, _power_chain, _reciprocal, _integer_cast, _recurrent, _product, _batch_norm),
    *(_steep_gate, _deep_chain, _subnormal, _clamped_weight, _pairwise_distance),
)
"""Makers of the cases of a kind each."""


def half_cases(*, quick: bool = False) -> Iterator[HalfCase]:
    """Yield every case, kind by kind; ``quick``: the first and the last of every other kind."""
    for index, cases in enumerate(KINDS):
        of_kind = list(cases())
        if not quick:
            yield from of_kind
        elif index % 2 == 0:
            yield from (of_kind[0], of_kind[-1])
