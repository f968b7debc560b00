"""Refuse models with sparse initializers where a library doesn't read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_harness.errors import NotApplicable

if TYPE_CHECKING:
    import onnx


def refuse_sparse(model: onnx.ModelProto, library: str, mend: str) -> None:
    """Raise NotApplicable for a model with sparse initializers.

    Args:
        model: it stays as it is.
        library: that takes such a value for one that nobody makes.
        mend: what takes the model instead, as a sentence.
    """
    from onnx_harness.model.walk import graphs

    for graph in graphs(model.graph):
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            raise NotApplicable(
                f"{library} doesn't read sparse initializers, and the model has some ('{name}'). "
                f"{mend}"
            )
