"""Find the nodes that read or give what has no range as a model is calibrated.

That is NaN or infinity: a division of 0 by 0 whose result a Where drops, a mask. The library then
fails with "scale issue", wherever in the model it is, or writes a scale that is infinite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.model.inference import infer_types
from onnx_harness.model.rewrite import fresh_name, value_names
from onnx_harness.transforms import remark
from onnx_harness.transforms.quantization.aliases import Aliases

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True, slots=True)
class Unbounded:
    """The values and nodes that have no range.

    Attributes:
        values: their names.
        nodes: the names of the main graph's nodes that read or give one of them.
    """

    values: frozenset[str] = frozenset()
    nodes: tuple[str, ...] = ()

    def overrides(self) -> dict[str, Any]:
        """Return ranges for the library, which computes a scale of values that it leaves alone."""
        bounds = {"rmin": np.float32(0), "rmax": np.float32(1)}
        return {name: [dict(bounds)] for name in sorted(self.values)}


def run_bounded(
    run_library: Callable[[Unbounded], None],
    source: Path,
    target: Path,
    feeds: Sequence[Mapping[str, Any]],
    aliases: Aliases,
) -> None:
    """Quantize, and once more without the nodes that have no range, where there are some.

    Args:
        run_library: takes what is to be left out, by aliases.
        source: the model that it reads.
        target: the one that it writes.
        feeds: what it is calibrated on.
        aliases: of the model's nodes.

    Raises:
        Exception: what the library raises, where every value has a range.
    """
    try:
        run_library(Unbounded())
    except AssertionError:  # its words for a range that is NaN
        unbounded = find_unbounded(source, feeds)
        if not unbounded.nodes:
            raise
    else:
        if not has_infinite_scale(target):
            return
        unbounded = find_unbounded(source, feeds)
    run_library(unbounded)
    names = unbounded.nodes
    shown = ", ".join(aliases.in_words(name) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    remark(
        f"left in float: {shown}{more}, which read or give NaN or infinity on the sets that "
        f"int8.static is calibrated on: such a range has no levels"
    )


def has_infinite_scale(path: Path) -> bool:
    """Return whether a quantized model has a scale that is no number.

    Args:
        path: of the file that the library wrote.
    """
    model = onnx.load_model(path)
    scales = set()
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scales.add(node.input[1])
    for tensor in model.graph.initializer:
        if tensor.name in scales and not np.isfinite(numpy_helper.to_array(tensor)).all():
            return True
    return False


def find_unbounded(path: Path, feeds: Sequence[Mapping[str, Any]]) -> Unbounded:
    """Return what has no range on any feed, and the nodes that read or give it.

    Args:
        path: of the model, every node of which has a name.
        feeds: input sets, a value by input name in each.
    """
    import onnxruntime

    model = onnx.load_model(path)
    graph = infer_types(model).graph
    floats = set()
    for info in (*graph.input, *graph.value_info, *graph.output):
        if info.type.tensor_type.elem_type in _FLOATS:
            floats.add(info.name)
    probes = _add_probes(model, floats)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    unbounded: set[str] = set()
    for feed in feeds:
        for name, total in zip(
            probes.values(), session.run(list(probes), feed), strict=True
        ):
            if not np.isfinite(total):
                unbounded.add(name)
    names = []
    for node in graph.node:
        if not unbounded.isdisjoint((*node.input, *node.output)):
            names.append(node.name)
    return Unbounded(frozenset(unbounded), tuple(names))


def _add_probes(model: onnx.ModelProto, floats: set[str]) -> dict[str, str]:
    """Give a model an output for each of these values: 0, or NaN where an element is no number.

    Returns:
        The value that each output is of.
    """
    taken = value_names(model.graph)
    probes: dict[str, str] = {}
    for name in sorted(floats):
        differences, wide, total = (
            fresh_name(part, taken) for part in ("differences", "wide", "total")
        )
        model.graph.node.extend(
            [
                helper.make_node("Sub", [name, name], [differences]),
                helper.make_node("Cast", [differences], [wide], to=TensorProto.FLOAT),
                helper.make_node("ReduceSum", [wide], [total], keepdims=0),
            ]
        )
        model.graph.output.append(
            helper.make_tensor_value_info(total, TensorProto.FLOAT, [])
        )
        probes[total] = name
    return probes
