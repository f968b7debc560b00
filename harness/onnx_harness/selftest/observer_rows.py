"""The row of the observer effect.

Failures that vanish when values are watched, each by a fusion of ONNX Runtime that computes
something else than the nodes that it replaces.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.diagnose.search import diagnose
from onnx_harness.names import parse_variant
from onnx_harness.selftest.bench import Bench, Outcome
from onnx_harness.selftest.table import Row, Step, bad, none_bad, total
from onnx_harness.settings import Settings

REPORTED = "watching values changes the result"
_QUICK = 2
_SETTINGS = Settings(input_sets=1)


@dataclass(frozen=True, slots=True)
class Observed:
    """A model whose failure goes away when its values are outputs.

    Attributes:
        kind: of effect.
        level: of ONNX Runtime's optimizations at which it fails.
        text: the model's opset and graph, as onnx's parser reads them.
    """

    kind: str
    level: str
    text: str

    def model(self) -> onnx.ModelProto:
        """Return the model."""
        return onnx.parser.parse_model(self.text)


_MEAN_SQUARE = """<ir_version: 9, opset_import: ["" : 17]>
rms (float[4,4] x) => (float[4,4] z) <float[4] g = {1, 2, 3, 4}> {
    two = Constant<value_float=2.0>()  e = Constant<value_float=0.00001>()
    p = Pow(x, two)  m = ReduceMean<axes=[-1], keepdims=0>(p)  s = Add(m, e)
    r = Sqrt(s)  q = Div(x, r)  z = Mul(q, g) }"""
_LAYER_NORM = """<ir_version: 9, opset_import: ["" : 17]>
layer_norm (float[4,4] x) => (float[4,4] z) <float[4] g = {1, 2, 3, 4}, float[4] b = {1, 0, 1, 0}> {
    two = Constant<value_float=2.0>()  e = Constant<value_float=0.00001>()
    m = ReduceMean<axes=[-1], keepdims=KEEPDIMS>(x)  d = Sub(DIFFERENCE)  p = Pow(d, two)
    v = ReduceMean<axes=[-1], keepdims=KEEPDIMS>(p)  a = Add(v, e)  q = Sqrt(a)  n = Div(d, q)
    h = Mul(n, g)  z = Add(h, b) }"""
_DIV_MUL = """<ir_version: 9, opset_import: ["" : 17]>
reciprocal (int32[4] x, int32[4] d) => (int32[4] z) <int32 o = {1}> {
    f = Div(o, d)  z = Mul(x, f) }"""
_DIV_MUL_RANK = """<ir_version: 9, opset_import: ["" : 17]>
reciprocal (float[4] x, float[4] d) => (float[1,4] z) <float[1,1] o = {1}> {
    r = Div(o, d)  z = Mul(x, r) }"""
_TWO_QUANTIZERS = """<ir_version: 9, opset_import: ["" : 17]>
quantized (float[2,3] x) => (float[a,b] z)
    <float s = {0.1}, uint8 p = {128}, float s2 = {0.01}, uint8 p2 = {100}> {
    q0 = QuantizeLinear(x, s, p)  d = DequantizeLinear(q0, s, p)
    q = QuantizeLinear(d, s2, p2)  z = DequantizeLinear(q, s2, p2) }"""


def observed_models() -> Iterator[Observed]:
    """Yield a model of each kind of effect."""
    yield Observed("mean of squares, axis dropped", "extended", _MEAN_SQUARE)
    text = _LAYER_NORM.replace("KEEPDIMS", "0").replace("DIFFERENCE", "x, m")
    yield Observed("layer norm, axis dropped", "extended", text)
    text = _LAYER_NORM.replace("KEEPDIMS", "1").replace("DIFFERENCE", "m, x")
    yield Observed("layer norm, difference swapped", "extended", text)
    yield Observed("reciprocal of integers", "basic", _DIV_MUL)
    yield Observed("reciprocal of a higher rank", "basic", _DIV_MUL_RANK)
    yield Observed("two quantizers in a row", "basic", _TWO_QUANTIZERS)


def _steps(bench: Bench) -> Iterator[Step]:
    models = list(observed_models())
    for observed in models[:_QUICK] if bench.quick else models:
        yield Step(observed.kind, partial(judge, observed))


def judge(observed: Observed) -> Outcome:
    """Diagnose a model: the effect is to be reported, and an optimizer to be named."""
    with tempfile.TemporaryDirectory(prefix="onnx-harness-observed-") as folder:
        file = Path(folder) / "observed.onnx"
        onnx.save(observed.model(), str(file))
        variant = parse_variant(f"ort.{observed.level}")
        diagnosis = diagnose(Task(Cell(card_for(file), variant, "cpu"), file, _SETTINGS))
    is_reported = any(REPORTED in line for line in diagnosis.evidence)
    if is_reported and diagnosis.cause.optimizers:
        return Outcome(1, 0)
    return Outcome(1, 1, (f"{observed.kind}: {diagnosis.sentence}",))


OBSERVED = Row(
    "observer",
    "failures that vanish when values are watched: reported",
    "all",
    _steps,
    lambda outcomes: f"{total(outcomes) - bad(outcomes)} of {total(outcomes)}",
    none_bad,
)
