"""Faults whose cause is known.

A planted step of the chain, with passes or rules of which some do harm.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from onnx_harness.transforms import BoundStep, Parts, Transform

if TYPE_CHECKING:
    import onnx

STEP = "planted"
_NAMES = tuple(f"part_{number:02}" for number in range(48))
_PRODUCTS = ("Conv", "Gemm", "MatMul", "ConvTranspose", "LSTM", "GRU")
_HANG_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Planted:
    """A fault of a step.

    Attributes:
        kind: of fault.
        step: that does harm.
        parts: of it that do, together.
        passes: whether its parts are called passes, or else rules.
    """

    kind: str
    step: BoundStep
    parts: tuple[str, ...]
    passes: bool


def planted_steps() -> Iterator[Planted]:
    """Give one fault of each kind."""
    yield _planted("wrong pass", scale, ("part_17",))
    yield _planted("two passes together", scale, ("part_03", "part_30"))
    yield _planted("wrong rule", scale, ("part_41",), "rule")
    yield _planted("three rules together", scale, ("part_00", "part_22", "part_47"), "rule")
    yield _planted("exception", fail, ("part_09",))
    yield _planted("crash", crash, ("part_33",))
    yield _planted("hang", hang, ("part_05",))
    yield _planted("shape", reshape, ("part_28",))
    yield _planted("invalid graph", disconnect, ("part_11",))
    yield _planted("lost output", rename, ("part_45",))
    yield _planted("Cast", narrow, ("part_14",))
    yield _planted("sign", negate, ("part_36",), "rule")


def one_of_48(number: int) -> Planted:
    """Give a fault of one pass of a step that has 48, by its number from 0."""
    return _planted("one of 48 passes", scale, (_NAMES[number],))


def scale(model: onnx.ModelProto) -> None:
    """Scale the weights of the first product."""
    from onnx import numpy_helper

    tensor = _weight(model)
    tensor.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.5, tensor.name)
    )


def fail(_: onnx.ModelProto) -> None:
    """Raise."""
    raise RuntimeError("a planted exception")


def crash(_: onnx.ModelProto) -> None:
    """End the process as a null pointer does."""
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(_: onnx.ModelProto) -> None:
    """Sleep."""
    time.sleep(_HANG_SECONDS)


def reshape(model: onnx.ModelProto) -> None:
    """Give the first output one more dimension."""
    shape = model.graph.output[0].type.tensor_type.shape
    shape.dim.add().dim_value = 1


def disconnect(model: onnx.ModelProto) -> None:
    """Let the last node read what nobody makes."""
    model.graph.node[-1].input[0] = "made by nobody"


def rename(model: onnx.ModelProto) -> None:
    """Give the first output another name."""
    output = model.graph.output[0]
    old, output.name = output.name, f"{output.name}_planted"
    node = next(node for node in model.graph.node if old in node.output)
    node.output[list(node.output).index(old)] = output.name


def narrow(model: onnx.ModelProto) -> None:
    """Round what the first product gives to whole numbers, by Casts to int32 and back."""
    from onnx import TensorProto

    _behind(model, ("Cast", {"to": TensorProto.INT32}), ("Cast", {"to": TensorProto.FLOAT}))


def negate(model: onnx.ModelProto) -> None:
    """Change the sign of what the first product gives."""
    _behind(model, ("Neg", {}))


def _behind(model: onnx.ModelProto, *operators: tuple[str, Mapping[str, Any]]) -> None:
    from onnx import helper

    nodes = list(model.graph.node)
    place = next(at for at, node in enumerate(nodes) if node.op_type in _PRODUCTS)
    name = nodes[place].output[0]
    nodes[place].output[0] = before = f"{name}_planted"
    added = []
    for number, (operator, attributes) in enumerate(operators):
        after = name if number == len(operators) - 1 else f"{before}_{number}"
        added.append(helper.make_node(operator, [before], [after], **attributes))
        before = after
    nodes[place + 1 : place + 1] = added
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _weight(model: onnx.ModelProto) -> onnx.TensorProto:
    weights: dict[str, onnx.TensorProto] = {}
    for tensor in model.graph.initializer:
        weights[tensor.name] = tensor
    products = (node for node in model.graph.node if node.op_type in _PRODUCTS)
    names = []
    for node in products:
        for name in node.input[1:2]:
            if name in weights:
                names.append(name)
    return weights[next(iter(names))]


def _planted(kind: str, harm: Any, parts: tuple[str, ...], called: str = "pass") -> Planted:
    apply = partial(_apply, harm=harm, culprits=parts)
    transform = Transform("", apply, {}, parts=Parts(called, _names, _without))
    return Planted(kind, BoundStep(STEP, transform, {}), parts, called == "pass")


def _apply(
    model: onnx.ModelProto, harm: Any, culprits: Sequence[str], skipped: Sequence[str] = ()
) -> onnx.ModelProto:
    if not set(culprits) & set(skipped):
        harm(model)
    return model


def _names(_: onnx.ModelProto, __: Mapping[str, Any]) -> Sequence[str]:
    return _NAMES


def _without(options: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    return {**options, "skipped": tuple(names)}
