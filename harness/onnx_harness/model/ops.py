"""The vocabulary of standard operators.

Their domain, their version, what they move, which attributes name a type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

# A model may write the standard domain either way; they mean the same.
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})

# Before versions were imported at all (IR version 2), operators were of version 1.
_FIRST_OPSET = 1

# Attributes that name the element type of what an operator gives: Cast and BitCast write `to`;
# BlackmanWindow, HammingWindow, HannWindow and MelWeightMatrix `output_datatype`; QuantizeLinear
# and DequantizeLinear `output_dtype`. A test compares the set with onnx's schemas. The types that
# an operator computes in on its way (`stash_type`, `softmax_precision`) aren't among them: nothing
# has to fit those.
TYPE_ATTRIBUTES = frozenset({"dtype", "output_datatype", "output_dtype", "to"})

# Operators that give some of the values of their first input (Concat: of all inputs), each as it
# is, and nothing else. What else hands values on depends on who asks: a Pad adds zeros, a MaxPool
# chooses, a Cast may round. Users say so in sets of their own, as MOVES and what they add.
MOVES = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)


def is_standard(node: onnx.NodeProto, *op_types: str) -> bool:
    """Return whether a node is one of ONNX's own operators.

    Where types are named, it has to be one of those.

    A function of the model that takes an operator's name isn't looked for: inline functions first,
    or ask `model.graph.Editing.is_standard`.
    """
    return node.domain in STANDARD_DOMAINS and (not op_types or node.op_type in op_types)


def imports_standard(holder: onnx.ModelProto | onnx.FunctionProto) -> bool:
    """Return whether a model or a function states the version of the standard operators."""
    return any(entry.domain in STANDARD_DOMAINS for entry in holder.opset_import)


def opset_of(holder: onnx.ModelProto | onnx.FunctionProto) -> int:
    """Return the version of the standard operators that a model or a function imports.

    1 where it imports none.

    Of several imports the last one holds, as in ONNX Runtime 1.32.
    """
    versions = []
    for entry in holder.opset_import:
        if entry.domain in STANDARD_DOMAINS:
            versions.append(entry.version)
    return int(versions[-1]) if versions else _FIRST_OPSET
