"""Constant folding: what depends on constants alone is computed once, by ONNX Runtime.

The result becomes a constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from onnx_harness.model.graph import Editing, all_nodes, inner_graphs
from onnx_harness.model.types import Fact
from onnx_harness.transforms.simplification.constants import replace_by_constant
from onnx_harness.transforms.simplification.fold_plan import (
    _FOLDED_DTYPES,
    Array,
    _foldable,
    cost_of,
    first_of,
    freed_bytes,
    is_constant,
    leading_to,
    make_plan,
    outgrowing,
    reads,
    tensor_of,
)
from onnx_harness.transforms.simplification.no_ops import remove_whole

_RANDOM = frozenset(
    (
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    )
)
# ONNX Runtime computes with the integers that a DequantizeLinear reads: the floats in their place
# it would quantize anew, with other levels, and the file would hold four bytes for each.
_KEEPS_INTEGERS = frozenset(("DequantizeLinear",))
# Larger initializers are handed to the session as inputs: neither copied into the model nor bound
# by its 2 GB.
_FED_FROM_BYTES = 1 << 12


class ConstantFolder:
    """Folds a graph in rounds, and remembers the nodes that ONNX Runtime couldn't compute."""

    def __init__(self, editing: Editing) -> None:
        self._editing = editing
        self._refused: set[ir.Node] = set()

    def fold(self, facts: Mapping[str, Fact], budget: int) -> tuple[int, int]:
        """Fold what is constant.

        Args:
            facts: types of the values.
            budget: bytes by which the model may grow.

        Returns:
            The number of nodes removed, and the bytes by which the constants of the model grew
            (negative: shrank).
        """
        constant = self._constant_nodes()
        unfolded: set[ir.Node] = set()
        computed: dict[ir.Value, Array] = {}
        while True:
            plan = make_plan(self._editing, constant, unfolded, facts)
            if not plan.results:
                return 0, 0
            costs = {value: cost_of(value, facts, computed) for value in plan.results}
            unsized = [value for value, cost in costs.items() if cost is None]
            sized = {}
            for value, cost in costs.items():
                if cost is not None:
                    sized[value] = cost
            targets = unsized or [value for value in plan.results if value not in computed]
            freed = freed_bytes(plan)
            growth = sum(sized.values()) - sum(freed.values())
            if growth > budget:
                unfolded |= outgrowing(sized, growth - budget, freed)
            elif not targets:
                break
            elif not self._compute(constant, first_of(targets, costs), facts, computed):
                constant = [node for node in constant if node not in self._refused]
        for value in plan.results:
            replace_by_constant(self._editing, value, ir.tensor(computed.pop(value)))
        for node in reversed(plan.nodes):
            remove_whole(node)
        return len(plan.nodes), growth

    def _constant_nodes(self) -> list[ir.Node]:
        """Return the nodes of all graphs that depend on constants alone.

        The ``Constant`` nodes themselves are left out.
        """
        editing = self._editing
        constants = set()
        for value in editing.graph.initializers.values():
            if not value.is_graph_input():
                constants.add(value)
        nodes: list[ir.Node] = []
        self._collect(editing.graph, constants, nodes)
        return [node for node in nodes if not _hands_on_a_constant(node)]

    def _collect(
        self, graph: ir.Graph, constants: set[ir.Value], nodes: list[ir.Node]
    ) -> None:
        for node in graph:
            if self._editing.is_standard(node, "Constant"):
                constants.update(node.outputs)
            elif (
                # First what most nodes aren't, and is quickly seen.
                constants.issuperset(value for value in node.inputs if value is not None)
                and self._is_repeatable(node)
                and constants.issuperset(reads(node))
                and node not in self._refused
            ):
                constants.update(node.outputs)
                nodes.append(node)
            else:
                for inner in inner_graphs(node):
                    self._collect(inner, constants, nodes)

    def _is_repeatable(self, node: ir.Node) -> bool:
        """Decide whether the node, and each inside it, gives the same result every time.

        All are standard operators then.
        """
        return not keeps_integers(node.op_type) and all(
            self._editing.is_standard(inner)
            and is_deterministic(inner.op_type, self._editing.opset)
            for inner in all_nodes(node)
        )

    def _compute(
        self,
        constant: Sequence[ir.Node],
        targets: Sequence[ir.Value],
        facts: Mapping[str, Fact],
        computed: dict[ir.Value, Array],
    ) -> bool:
        """Compute the wanted values in one run; False when some nodes had to be refused instead."""
        nodes = leading_to(targets, constant)
        try:
            computed.update(self._run(nodes, targets, facts, {}))
        except Exception:  # any of ONNX Runtime's, which have no base class of their own
            refused = self._refusals(nodes, facts)
            # Each node runs, and all together don't: no telling which one to leave out.
            self._refused.update(refused or nodes)
            return False
        return True

    def _refusals(self, nodes: Sequence[ir.Node], facts: Mapping[str, Fact]) -> set[ir.Node]:
        """The nodes that ONNX Runtime can't compute, found by running each alone."""
        refused: set[ir.Node] = set()
        values: dict[ir.Value, Array] = {}
        for node in nodes:
            outputs = [value for value in node.outputs if value.name]
            ready = all(
                value in values
                or value.producer() is None
                or is_constant(value.producer())
                or tensor_of(value) is not None
                for value in reads(node)
            )
            try:
                if not ready or not all(
                    _foldable(self._editing, value, facts) for value in outputs
                ):
                    raise LookupError(node.op_type)
                values.update(self._run([node], outputs, facts, values))
            except Exception:  # as above
                refused.add(node)
        return refused

    def _run(
        self,
        nodes: Sequence[ir.Node],
        targets: Sequence[ir.Value],
        facts: Mapping[str, Fact],
        values: Mapping[ir.Value, Array],
    ) -> dict[ir.Value, Array]:
        """Run ``nodes`` in ONNX Runtime, unoptimized, on the CPU, and return the values."""
        model = onnx.ModelProto()
        model.ir_version = max(self._editing.model.ir_version, 4)
        model.opset_import.extend(self._editing.model.opset_import)
        graph = model.graph
        graph.name = "constants"
        feeds: dict[str, Array] = {}
        inside = set()
        for node in nodes:
            for value in node.outputs:
                inside.add(value)
        for value in dict.fromkeys(
            value for node in nodes for value in reads(node) if value not in inside
        ):
            assert value.name is not None
            tensor = tensor_of(value)
            if value in values:
                graph.initializer.append(
                    onnx.numpy_helper.from_array(np.asarray(values[value]), value.name)
                )
            elif tensor is None:
                producer = value.producer()
                assert producer is not None
                graph.node.append(ir.serde.serialize_node(producer))
            elif tensor.nbytes >= _FED_FROM_BYTES and tensor.dtype.value in _FOLDED_DTYPES:
                feeds[value.name] = tensor.numpy()
                dims = [int(dim) for dim in tensor.shape.numpy()]
                graph.input.append(
                    onnx.helper.make_tensor_value_info(value.name, tensor.dtype.value, dims)
                )
            else:
                ir.serde.serialize_tensor_into(graph.initializer.add(), tensor)
                graph.initializer[-1].name = value.name
        graph.node.extend(ir.serde.serialize_node(node) for node in nodes)
        for value in targets:
            assert value.name is not None
            graph.output.append(
                onnx.helper.make_tensor_value_info(value.name, facts[value.name].dtype, None)
            )
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), _session_options(), providers=["CPUExecutionProvider"]
        )
        results = session.run([value.name for value in targets], feeds)
        for value, result in zip(targets, results, strict=True):
            expected = onnx.helper.tensor_dtype_to_np_dtype(facts[str(value.name)].dtype)
            if not isinstance(result, np.ndarray) or result.dtype != expected:
                raise TypeError(f"{value.name} should be {expected}")
        return dict(zip(targets, results, strict=True))


def _session_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # A node that can't run is expected here, and not worth a line.
    options.log_severity_level = 4
    return options


@cache
def is_deterministic(op_type: str, opset: int) -> bool:
    """Decide whether a standard operator of that opset gives the same result every time."""
    return op_type not in _RANDOM and onnx.defs.has(op_type, opset)


def keeps_integers(op_type: str) -> bool:
    """Return whether an operator stays although all that it reads is constant."""
    return op_type in _KEEPS_INTEGERS


def _hands_on_a_constant(node: ir.Node) -> bool:
    """Return whether it's the identity of a constant.

    An output of the model, then, and as good as can be.
    """
    source = node.inputs[0] if node.op_type == "Identity" else None
    return source is not None and (
        source.producer() is None or is_constant(source.producer())
    )
