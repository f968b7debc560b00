"""The names of the rules of ``simplify``, in their order.

Options are checked by them before any rule is imported.
"""

RULES = (
    "lift constants",
    "inline branches",
    "remove dead",
    "merge initializers",
    "merge nodes",
    "remove nops",
    "fold dimensions",
    "fold reshapes",
    "merge chains",
    "merge pairs",
    "fold constants",
    "fuse pads",
    "fuse transposes",
    "fuse affine",
    "fuse normalizations",
    "fuse matmul",
    "merge products",
)
