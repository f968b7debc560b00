"""Models of the structures, from nodes written as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.unit.transform_models import floats, run

__all__ = ["SIZES", "STRUCTURES", "Structure", "floats", "integers", "structure"]

Arrays = dict[str, Any]
Parts = tuple[str, Arrays, Arrays]
"""The nodes, the inputs and the constants of a model; it gives ``y``.

In the text of the nodes ``#2.5`` is a float32 constant, ``#2i`` an int64 one, ``#[0, 2]`` a vector
of int64.
"""

SIZES = (6, 37)
_LITERAL = re.compile(r"#(\[[^\]]*\]|-?\d[\d.]*(?:e-?\d+)?i?)")


@dataclass(frozen=True, slots=True)
class Structure:
    """A structure that can be built at any size.

    Attributes:
        name: of its test.
        parts: its nodes, inputs and constants, by size.
        opset: of the standard operators.
    """

    name: str
    parts: Callable[[int], Parts]
    opset: int = 18

    def inputs(self, size: int) -> Arrays:
        """Return the inputs that it is run with."""
        return self.parts(size)[1]

    def model(self, size: int) -> onnx.ModelProto:
        """Return the model, the axes of its inputs symbolic where they differ between sizes."""
        nodes, inputs, constants = self.parts(size)
        nodes, literals = _with_literals(nodes)
        shapes = [{n: np.shape(a) for n, a in self.inputs(s).items()} for s in SIZES]
        header = f'<ir_version: 10, opset_import: ["" : {self.opset}, "com.microsoft" : 1]>'
        model = onnx.parser.parse_model(f"{header} agraph () => () {{ {nodes} }}")
        for name, array in inputs.items():
            kind = helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)
            dims = _symbolic(shapes[0][name], shapes[1][name])
            model.graph.input.append(helper.make_tensor_value_info(name, kind, dims))
        for name, array in (constants | literals).items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        for number, node in enumerate(model.graph.node):
            node.name = f"{node.op_type}_{number}"
        _add_output(model, inputs)
        return model


STRUCTURES: dict[str, Structure] = {}


def structure(
    parts: Callable[[int], Parts] | None = None, *, name: str = "", opset: int = 18
) -> Callable[..., Any]:
    """Enter a function that gives nodes, inputs and constants by size among the structures."""

    def enter(function: Callable[[int], Parts]) -> Callable[[int], Parts]:
        entry = Structure(name or function.__name__, function, opset)
        assert entry.name not in STRUCTURES
        STRUCTURES[entry.name] = entry
        return function

    return enter if parts is None else enter(parts)


def integers(*shape: int, below: int, seed: int = 0) -> Any:
    """Return equally distributed int64 values from 0 on."""
    return np.random.default_rng(seed).integers(0, below, shape)


def _with_literals(nodes: str) -> tuple[str, Arrays]:
    literals: Arrays = {}

    def name_of(match: re.Match[str]) -> str:
        text = match[1]
        if text.startswith("["):
            value: Any = np.array(
                [int(number) for number in text[1:-1].split(",")], np.int64
            )
        elif text.endswith("i"):
            value = np.int64(text[:-1])
        else:
            value = np.float32(text)
        name = "k_" + re.sub(r"\W", "_", text)
        literals[name] = value
        return name

    return _LITERAL.sub(name_of, nodes), literals


def _symbolic(first: Sequence[int], second: Sequence[int]) -> list[int | str]:
    dims: list[int | str] = []
    for small, large in zip(first, second, strict=True):
        dims.append(small if small == large else f"d{small}_{large}")
    return dims


def _add_output(model: onnx.ModelProto, inputs: Arrays) -> None:
    """Declare ``y``: its rank is what a run gives where no operator's schema says it."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    known = {info.name: info for info in inferred.graph.value_info}
    model.graph.output.add(name="y")
    if "y" in known and known["y"].type.tensor_type.HasField("shape"):
        model.graph.output[0].CopyFrom(known["y"])
        return
    (array,) = run(model, **inputs)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    declared = helper.make_tensor_value_info("y", kind, [None] * array.ndim)
    model.graph.output[0].CopyFrom(declared)
