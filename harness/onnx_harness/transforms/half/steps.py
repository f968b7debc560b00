"""The nodes and graphs of a model as they were read off its protobuf."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from onnx_harness.transforms.half.schemas import FLOAT, Rule


class Step:
    """A node as it was read.

    Attributes:
        node: the message.
        op: its operator; empty for one that isn't a standard operator.
        ins: names of its inputs.
        outs: names of its outputs.
        index: its place in its graph.
        scope: its graph.
        rule: what its schema says; None for a node with graphs inside and for a call of a function.
        tensor: the value of a Constant that holds it as a tensor.
        bodies: the graphs inside.
        sized: whether what it gives is computed from sizes and constants alone.
        unclear: whether it reads or gives a sequence or the like, or what nothing is known about.
        want: in what type it reads its float32 inputs: one for all, or one for each.
    """

    # Of the class until they differ, which most never do.
    rule: Rule | None = None
    tensor: onnx.TensorProto | None = None
    bodies: Sequence[Scope] = ()
    sized = False
    unclear = False
    want: int | tuple[int, ...] = FLOAT

    def __init__(
        self,
        node: onnx.NodeProto,
        op: str,
        ins: list[str],
        outs: list[str],
        index: int,
        scope: Scope,
    ) -> None:
        self.node = node
        self.op = op
        self.ins = ins
        self.outs = outs
        self.index = index
        self.scope = scope


class Scope:
    """A graph as it was read: the main one, or one inside a node.

    Attributes:
        graph: the message.
        steps: its nodes.
        given: its inputs with their names, those of initializers included.
        results: its outputs.
        inputs: names of its inputs; before IR version 4 without those of initializers, which are
            constants there.
        outputs: names of its outputs.
        want: the type in which its float32 outputs are wanted, decided by whoever converts the node
            around it.
        blocked: whether nothing in it may change its type.
        exact: places of the outputs that are wanted in float32 whatever the others are.
    """

    __slots__ = (
        "blocked",
        "exact",
        "given",
        "graph",
        "inputs",
        "outputs",
        "results",
        "steps",
        "want",
    )

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.steps: list[Step] = []
        self.given: list[tuple[onnx.ValueInfoProto, str]] = []
        self.results: list[onnx.ValueInfoProto] = []
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.want = FLOAT
        self.blocked = False
        self.exact: frozenset[int] = frozenset()

    def wanted(self, place: int) -> int:
        """The type in which the output at a place is wanted, if it is float32."""
        return FLOAT if place in self.exact else self.want
