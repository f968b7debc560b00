"""A fault, and planting it: an edit of one place in a copy of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.model.rewrite import fresh_name, value_names
from onnx_harness.mutation.atlas import Array, Atlas, Site, attributes, graph_at


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault at one place. It means the same in every process that has the model.

    Attributes:
        kind: name of its kind.
        site: the node that goes wrong.
        text: what goes wrong where, for a person.
        slot: which input of the node, where it's about one.
        index: an element, a pair of axes or channels: what the kind makes of it.
        factor: what a number is multiplied by, where the kind multiplies.
    """

    kind: str
    site: Site
    text: str
    slot: int = 0
    index: tuple[int, ...] = ()
    factor: float = 1.0


class Edit:
    """A copy of the model in the middle of being changed at the site of a fault."""

    def __init__(self, atlas: Atlas, fault: Fault) -> None:
        self.atlas = atlas
        self.fault = fault
        self.model = onnx.ModelProto()
        self.model.CopyFrom(atlas.model)
        self.graph = graph_at(self.model, fault.site.graph)
        self.node = self.graph.node[fault.site.node]

    def array(self, slot: int | None = None) -> Array:
        """Return the constant that the node reads as input ``slot`` (by default the fault's)."""
        slot = self.fault.slot if slot is None else slot
        tensor = self.atlas.constant(self.fault.site, slot)
        if tensor is None:
            raise ValueError(f"{self.fault.text}: no constant is read there")
        return self.atlas.array(tensor)

    def replace(self, array: Array, slot: int | None = None) -> None:
        """Have this node, and no other reader of the same constant, read ``array`` instead."""
        slot = self.fault.slot if slot is None else slot
        self.node.input[slot] = self.new_constant(array, self.node.input[slot])

    def replace_for_all(self, array: Array) -> None:
        """Have every reader of the constant that the fault is in read ``array`` instead."""
        name = self.node.input[self.fault.slot]
        tensor = self.atlas.constant(self.fault.site, self.fault.slot)
        new_name = self.new_constant(array, name)
        for site, node in self.atlas.nodes:
            if name not in node.input or self.atlas.tensor(site, name) is not tensor:
                continue
            reader = graph_at(self.model, site.graph).node[site.node]
            for slot, input_name in enumerate(node.input):
                if input_name == name:
                    reader.input[slot] = new_name

    def new_constant(self, array: Array, like: str) -> str:
        """Put ``array`` into the main graph, where graphs inside see it too; return its name."""
        name = fresh_name(f"{like}.planted", value_names(self.model.graph))
        tensor = numpy_helper.from_array(np.require(array, requirements="C"), name)
        self.model.graph.initializer.append(tensor)
        # In old versions every initializer has to be an input as well.
        if self.model.ir_version < FREE_INITIALIZERS:
            info = onnx.helper.make_tensor_value_info(
                name, tensor.data_type, list(tensor.dims)
            )
            self.model.graph.input.append(info)
        return name

    def set_attribute(self, name: str, value: Any) -> None:
        """Give the node's attribute ``name`` another value."""
        names = []
        for attribute in self.node.attribute:
            if attribute.name != name:
                names.append(attribute.name)
        self._keep_attributes(names)
        self.node.attribute.append(onnx.helper.make_attribute(name, value))

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return the value of the node's attribute ``name``."""
        return attributes(self.node).get(name, default)

    def become(self, op_type: str, keep: tuple[str, ...] = (), inputs: int = 1) -> None:
        """Make the node another standard operator, with its first ``inputs`` and ``keep``."""
        self.node.op_type, self.node.domain = op_type, ""
        del self.node.input[inputs:]
        self._keep_attributes(keep)

    def _keep_attributes(self, names: Sequence[str]) -> None:
        # protobuf invalidates what is still referred to in a list that shrinks: copies stay.
        copies = []
        for attribute in self.node.attribute:
            if attribute.name in names:
                copy = onnx.AttributeProto()
                copy.CopyFrom(attribute)
                copies.append(copy)
        del self.node.attribute[:]
        self.node.attribute.extend(copies)


Find = Callable[[Atlas, np.random.Generator], Iterator[Fault]]
"""Yields faults at different places, in random order; some kinds never run out of places."""


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One kind of fault.

    Attributes:
        name: in a few words, for people and for ``results.json``.
        find: where it can be planted.
        plant: plants it.
    """

    name: str
    find: Find
    plant: Callable[[Edit], None]


def called(node: onnx.NodeProto) -> str:
    """Describe a node to a person: its operator, with its name or else its first output."""
    first_output = next(iter(node.output), "")
    return f"{node.op_type} '{node.name or first_output}'"
