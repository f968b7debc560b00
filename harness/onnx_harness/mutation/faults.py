"""What a fault is, and how it's planted: an edit of one place in a copy of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
        """The constant that the node reads as input ``slot`` (the fault's own, by default)."""
        tensor = self.atlas.constant(self.fault.site, self.fault.slot if slot is None else slot)
        if tensor is None:
            raise ValueError(f"{self.fault.text}: no constant is read there")
        return self.atlas.array(tensor)

    def replace(self, array: Array, slot: int | None = None) -> None:
        """Have this node, and no other reader of the same constant, read ``array`` instead."""
        place = self.fault.slot if slot is None else slot
        self.node.input[place] = self.new_constant(array, self.node.input[place])

    def replace_for_all(self, array: Array) -> None:
        """Have every reader of the constant that the fault is in read ``array`` instead."""
        name, tensor = self.node.input[self.fault.slot], self.atlas.constant(self.fault.site, self.fault.slot)
        new = self.new_constant(array, name)
        for site, node in self.atlas.nodes:
            if name in node.input and self.atlas.tensor(site, name) is tensor:
                reader = graph_at(self.model, site.graph).node[site.node]
                for place, each in enumerate(node.input):
                    if each == name:
                        reader.input[place] = new

    def new_constant(self, array: Array, like: str) -> str:
        """Put ``array`` into the main graph, where graphs inside see it too; its new name."""
        name = fresh_name(f"{like}.planted", value_names(self.model.graph))
        tensor = numpy_helper.from_array(np.require(array, requirements="C"), name)
        self.model.graph.initializer.append(tensor)
        if self.model.ir_version < FREE_INITIALIZERS:  # there, every initializer has to be an input as well
            info = onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
            self.model.graph.input.append(info)
        return name

    def set_attribute(self, name: str, value: Any) -> None:
        """Give the node's attribute ``name`` another value."""
        kept = [each for each in self.node.attribute if each.name != name]
        made = [*kept, onnx.helper.make_attribute(name, value)]
        copies = [onnx.AttributeProto() for _ in made]
        for copy, each in zip(copies, made, strict=True):
            copy.CopyFrom(each)
        del self.node.attribute[:]
        self.node.attribute.extend(copies)

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of the node's attribute ``name``."""
        return attributes(self.node).get(name, default)

    def become(self, op_type: str, keep: tuple[str, ...] = (), inputs: int = 1) -> None:
        """Make another standard operator of the node, with its first ``inputs`` and the attributes named."""
        kept = [each for each in self.node.attribute if each.name in keep]
        values = [onnx.helper.make_attribute(each.name, onnx.helper.get_attribute_value(each)) for each in kept]
        self.node.op_type, self.node.domain = op_type, ""
        del self.node.input[inputs:]
        del self.node.attribute[:]
        self.node.attribute.extend(values)


Find = Callable[[Atlas, np.random.Generator], Iterator[Fault]]
"""Yields faults at different places, in random order; some kinds never run out of places."""


@dataclass(frozen=True, slots=True)
class Kind:
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
    """What a person calls a node: its name or else its first output, and its operator."""
    return f"{node.op_type} '{node.name or next(iter(node.output), '')}'"
