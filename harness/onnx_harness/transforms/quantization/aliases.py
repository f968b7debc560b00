"""Names that no name of a model can meet, while onnxruntime.quantization makes new ones from them.

The library appends ``_scale``, ``_quantized`` or a number to the name of a tensor, and doesn't ask
whether the model has such a tensor already: a weight beside its own ``weight_scale`` then ends in a
KeyError or in two tensors of one name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

# What is appended to an alias never makes another one of it.
_ALIAS = re.compile(r"<[vn]\d+>")


class Aliases:
    """Aliases of the values and the nodes of a model, and the way back."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Give all values and nodes of ``model`` aliases, in place."""
        from onnx_harness.model.rewrite import rename

        self._of_values: dict[str, str] = {}
        self._of_nodes: dict[str, str] = {}
        self._names: dict[str, str] = {}
        rename(model.graph, self.of_value, self.of_node)

    def of_value(self, name: str) -> str:
        """Return the alias of a value."""
        return self._alias(name, "v", self._of_values)

    def of_node(self, name: str) -> str:
        """Return the alias of a node."""
        return self._alias(name, "n", self._of_nodes)

    def _alias(self, name: str, kind: str, aliases: dict[str, str]) -> str:
        alias = aliases.setdefault(name, f"<{kind}{len(aliases)}>")
        self._names[alias] = name
        return alias

    def in_words(self, text: str) -> str:
        """Return a message of the library with the model's own names in it."""
        return _ALIAS.sub(lambda match: self._names.get(match[0], match[0]), text)

    def take_back(self, model: onnx.ModelProto) -> None:
        """Give what the library made of the model its own names again, in place.

        A name that the library made from an alias gets another number where the model has a value
        of this name.
        """
        from onnx_harness.model.rewrite import rename, value_names
        from onnx_harness.model.walk import graphs, walk

        declared = {info.name for graph in graphs(model.graph) for info in graph.value_info}
        values = self._restored(value_names(model.graph) | declared)
        nodes = self._restored({node.name for node in walk(model.graph)})
        rename(model.graph, values.__getitem__, nodes.__getitem__)

    def _restored(self, names: set[str]) -> dict[str, str]:
        from onnx_harness.model.rewrite import fresh_name

        restored = {name: self._names[name] for name in names if name in self._names}
        taken = set(restored.values())
        for name in sorted(names - restored.keys()):
            restored[name] = fresh_name(self.in_words(name), taken)
        return restored
