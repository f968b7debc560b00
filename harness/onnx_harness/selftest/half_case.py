"""Write a model with something that float16 may be too coarse or too narrow for."""

from __future__ import annotations

from collections.abc import Mapping
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
        return {
            name: InputSpec(low=low, high=high) for name, (low, high) in self.inputs.items()
        }


_X, _Y = "float[2, 64] x", "float[2, 64] y"


def make_case(
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
    """Return a case whose graph is ``body``, in the syntax of ``onnx.parser``.

    Args:
        kind: the pattern.
        label: tells the cases of a kind apart.
        body: the nodes.
        bounds: of the first input.
        weights: by name; floats become float32.
        x: the inputs, as the syntax declares them.
        y: the outputs.
        opset: of the standard operators.
    """
    text = (
        f'<ir_version: 8, opset_import: ["" : {opset}]>\n{kind} ({x}) => ({y}) {{ {body} }}'
    )
    model = onnx.parser.parse_model(text)
    for name, value in (weights or {}).items():
        array = np.asarray(float(value) if isinstance(value, int) else value)
        single = array.astype(np.float32) if array.dtype == np.float64 else array
        model.graph.initializer.append(numpy_helper.from_array(single, name))
    for node in model.graph.node:
        node.name = node.output[0]
    name = f"{kind}_{label}".replace("-", "m").replace("+", "")
    return HalfCase(kind, name, model, {model.graph.input[0].name: bounds})


def normal(*shape: int, scale: float = 1.0, seed: int = 0) -> Array:
    """Return normal values of mean 0, float32."""
    return np.asarray(scale * np.random.default_rng(seed).standard_normal(shape), np.float32)


LAST = {"last": np.array([-1], np.int64)}
