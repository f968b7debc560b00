"""The records of a scanned model file."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class ScannedTensor:
    """A tensor of the file.

    Attributes:
        dims: as the file says them, negative ones included.
        kind: number of the element type in ``TensorProto.DataType``.
        values: of a small constant of integers or booleans; None of any other.
        external: the keys and values that say where its data lies; empty where it lies in the file.
    """

    name: str = ""
    dims: list[int] = field(default_factory=list)
    kind: int = 0
    values: list[int] | None = None
    external: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class ScannedNode:
    """A node of the file, with those of its attributes that decide sizes."""

    op: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    numbers: dict[str, list[int]] = field(default_factory=dict)
    tensors: dict[str, ScannedTensor] = field(default_factory=dict)
    graphs: dict[str, ScannedGraph] = field(default_factory=dict)


@dataclass(slots=True)
class ScannedGraph:
    """A graph of the file, or the body of a function.

    Attributes:
        inputs: name to (element type, dimensions); dimensions None where the rank or one of them
            isn't a number.
        depth: of the graph in graphs, from 0.
    """

    nodes: list[ScannedNode] = field(default_factory=list)
    tensors: dict[str, ScannedTensor] = field(default_factory=dict)
    inputs: dict[str, tuple[int, list[int] | None]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    depth: int = 0


@dataclass(slots=True)
class ScannedFunction:
    """A function of the model, by which other nodes stand for many."""

    name: str = ""
    domain: str = ""
    body: ScannedGraph = field(default_factory=ScannedGraph)


@dataclass(slots=True)
class Scan:
    """The content of the file.

    Attributes:
        tensors: all of them, those of attributes and of subgraphs included.
        longest_name: bytes of the longest name.
        misspelt: the first name that isn't UTF-8, or None.
        deepest: graphs inside graphs.
        highest_rank: of the tensors, inputs and outputs, at least.
    """

    graph: ScannedGraph = field(default_factory=ScannedGraph)
    functions: list[ScannedFunction] = field(default_factory=list)
    tensors: list[ScannedTensor] = field(default_factory=list)
    longest_name: int = 0
    misspelt: bytes | None = None
    deepest: int = 0
    highest_rank: int = 0
