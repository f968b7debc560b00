"""``simplify`` on models that simplifiers get wrong: each stays valid, keeps its interface, and
every bit it gives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_harness.transforms.simplify import simplify_with_report
from tests.unit.transform_models import copy_of, run

FILE = Path(__file__).parents[1] / "data" / "simplify" / "nasty.txt"
TEXTS = dict(part.split("\n", 1) for part in FILE.read_text("utf-8").split("\n== ")[1:])
SPECIAL = [1.5, -0.0, np.nan, np.inf, 0.0, -np.inf, -2.0, 3.0, 0.25, -1.0, 1e-3]
INTEGERS = [-7, 3, 0, 1, 2**31 - 1, -128, 5, -1]


def value(kind: onnx.TypeProto, turn: int) -> Any:
    """A value of that type: ordinary numbers in the first turn, special ones afterwards.

    Free dimensions are 2.
    """
    shape = [
        dim.dim_value if dim.HasField("dim_value") else 2
        for dim in kind.tensor_type.shape.dim
    ]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type)
    size = int(np.prod(shape))
    if dtype.kind == "f":
        ordinary = np.random.default_rng(size).standard_normal(size)
        return (
            (ordinary if turn == 0 else np.resize(np.roll(SPECIAL, turn), size))
            .astype(dtype)
            .reshape(shape)
        )
    if dtype.kind == "b":
        return np.resize([turn % 2 == 0, turn % 2 == 1], size).reshape(shape)
    return np.resize(np.roll(INTEGERS, turn), size).astype(dtype).reshape(shape)


def bits(held: Any) -> list[tuple[str, tuple[int, ...], Any]]:
    found = []
    for array in held if isinstance(held, list) else [held]:
        array = np.asarray(array)
        found.append(
            (
                str(array.dtype),
                array.shape,
                array.tolist() if array.dtype == object else array.tobytes(),
            )
        )
    return found


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", TEXTS)
def test_nothing_but_the_graph_is_different(name: str, in_place: bool) -> None:
    model = onnx.parser.parse_model(TEXTS[name])
    onnx.checker.check_model(model, full_check=True)
    result, _ = simplify_with_report(
        copy_of(model), inline_functions=in_place, in_place=in_place
    )
    onnx.checker.check_model(result, full_check=True)
    assert list(result.graph.input) == list(model.graph.input)
    assert list(result.graph.output) == list(model.graph.output)
    for turn in range(4):
        feeds = {info.name: value(info.type, turn) for info in model.graph.input}
        for one, other in zip(run(model, **feeds), run(result, **feeds), strict=True):
            assert bits(one) == bits(other)
