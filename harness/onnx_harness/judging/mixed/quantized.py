"""The nodes that a static quantization leaves in float.

Every quantizer a switch, searched, verified on the real model.

The quantizers are those that the library puts round the operators: their scales and zero points are
read in the fully quantized model. A value is quantized for all its readers as soon as one quantized
node gives or takes it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_harness import providers
from onnx_harness.errors import NotApplicable
from onnx_harness.isolate import noting
from onnx_harness.judging.mixed.account import MOST_RUNS, RESERVED, Account, Effort, Mix
from onnx_harness.judging.mixed.search import Found, smallest_set
from onnx_harness.judging.mixed.source import Source
from onnx_harness.judging.mixed.switches import MASK
from onnx_harness.judging.standard import Standard
from onnx_harness.judging.verdict import verdict
from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.providers.running import run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.transforms.quantization.mixed import QuantizedConversion

if TYPE_CHECKING:
    import onnxruntime as ort

_ERRORS = "onnx_harness_quantizer_errors"
_PREFIX = "onnx_harness_quantized"
# what the library calls a value that it has dequantized, after the value's own name
_OF = "_DequantizeLinear_Output"
# They move what is quantized as it is, and are quantized only where that is.
_FOLLOW = frozenset(
    {
        "Flatten",
        "Gather",
        "GatherElements",
        "MaxPool",
        "Pad",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
    }
    | {"Transpose", "Unsqueeze"}
)
_TINY = 1e-37


@dataclass(frozen=True, slots=True)
class Quantizers:
    """A float model with a switch at each quantizer.

    Attributes:
        model: takes ``MASK``, a boolean for each quantizer, beside its own inputs, and gives
            ``_ERRORS`` as well.
        labels: the nodes that can stay float.
        claims: by quantizer, the places of the nodes of which one that isn't float has it quantize.
    """

    model: onnx.ModelProto
    labels: tuple[str, ...]
    claims: tuple[frozenset[int], ...]

    def mask(self, floats: Collection[int]) -> npt.NDArray[np.bool_]:
        """Return which quantizers quantize with those nodes in float."""
        return np.array([not claim <= set(floats) for claim in self.claims], bool)


def find_floats(
    standard: Standard, conversion: QuantizedConversion, source: Source, effort: Effort
) -> Mix:
    """Find the nodes that a static quantization leaves in float.

    Args:
        standard: what the outputs are judged by.
        conversion: the quantization, with what it has to reach.
        source: its model.
        effort: what the search may cost.

    Raises:
        NotApplicable: no set of nodes is enough.
    """
    return _Quantizing(standard, conversion, source, effort).find()


def quantizers(
    model: onnx.ModelProto, quantized: onnx.ModelProto, conversion: QuantizedConversion
) -> Quantizers:
    """Put the quantizers of a quantized model into the one that it was made of, each with a switch.

    Args:
        model: the float model; it is changed.
        quantized: the same, as the library quantizes it.
        conversion: says which operators are quantized.
    """
    graph = model.graph
    outputs = {info.name for info in graph.output}
    nodes = []
    for node in graph.node:
        if (
            node.name
            and node.op_type in conversion.ops - _FOLLOW
            and node.name not in conversion.left_out
        ):
            nodes.append(node)
    places = {node.name: place for place, node in enumerate(nodes)}
    claiming: dict[str, set[int]] = {}
    for node in nodes:
        for name in (*node.input, *node.output):
            claiming.setdefault(name, set()).add(places[node.name])
    names = {name for node in graph.node for name in (*node.input, *node.output)} | outputs
    initializers = {tensor.name: tensor for tensor in quantized.graph.initializer}
    makers = {name: node for node in quantized.graph.node for name in node.output}
    claims: list[frozenset[int]] = []
    mixed: dict[str, str] = {}
    after: dict[str, list[onnx.NodeProto]] = {}
    parts: list[str] = []
    for node in quantized.graph.node:
        name = node.output[0].removesuffix(_OF) if node.op_type == "DequantizeLinear" else ""
        if name not in names or name not in claiming or name in mixed:
            continue
        chain = [node] if node.input[0] in initializers else [makers[node.input[0]], node]
        nodes_here = _quantizer(chain, name, initializers, graph)
        switch, choice = f"{_PREFIX}_switch_{len(claims)}", f"{_PREFIX}_mixed_{len(claims)}"
        raw = f"{_PREFIX}_raw_{len(claims)}" if name in outputs else name
        if raw != name:
            for new_node in nodes_here:
                new_node.input[:] = [raw if value == name else value for value in new_node.input]
            choice = name
        nodes_here.append(
            helper.make_node("Where", [switch, nodes_here[-1].output[0], raw], [choice])
        )
        nodes_here += _error(raw, nodes_here[-2].output[0], len(claims), parts)
        mixed[name] = choice
        after[name] = nodes_here
        claims.append(frozenset(claiming[name]))
    _write(graph, outputs, mixed, after, len(claims), parts)
    model.ir_version = max(model.ir_version, FREE_INITIALIZERS)
    return Quantizers(model, tuple(places), tuple(claims))


def _quantizer(
    chain: Sequence[onnx.NodeProto],
    name: str,
    initializers: Mapping[str, onnx.TensorProto],
    graph: onnx.GraphProto,
) -> list[onnx.NodeProto]:
    """Return copies of a quantizer's nodes that read ``name``; their constants go to the graph."""
    names = {tensor.name for tensor in graph.initializer}
    copies = []
    for node in chain:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.name = f"{_PREFIX}_{node.name}"
        for place, value in enumerate(node.input):
            if value in initializers:
                copied.input[place] = f"{_PREFIX}_{value}"
                if copied.input[place] not in names:
                    tensor = graph.initializer.add()
                    tensor.CopyFrom(initializers[value])
                    tensor.name = copied.input[place]
                    names.add(tensor.name)
            elif place == 0:
                copied.input[0] = name if node.op_type == "QuantizeLinear" else f"{_PREFIX}_{value}"
        copied.output[0] = f"{_PREFIX}_{node.output[0]}"
        copies.append(copied)
    return copies


def _error(exact: str, rounded: str, place: int, parts: list[str]) -> list[onnx.NodeProto]:
    """Return nodes that measure a value against its quantized form.

    The squares of their distance, and its own.
    """
    stem = f"{_PREFIX}_error_{place}"
    flat = f"{_PREFIX}_flat"
    parts += [f"{stem}_moved", f"{stem}_whole"]
    return [
        helper.make_node("Sub", [exact, rounded], [f"{stem}_apart"]),
        helper.make_node("Reshape", [f"{stem}_apart", flat], [f"{stem}_flat"]),
        helper.make_node("Reshape", [exact, flat], [f"{stem}_exact"]),
        helper.make_node("ReduceSumSquare", [f"{stem}_flat"], [f"{stem}_moved"]),
        helper.make_node("ReduceSumSquare", [f"{stem}_exact"], [f"{stem}_whole"]),
    ]


def _write(
    graph: onnx.GraphProto,
    outputs: Collection[str],
    mixed: Mapping[str, str],
    after: Mapping[str, Sequence[onnx.NodeProto]],
    count: int,
    parts: Sequence[str],
) -> None:
    written: list[onnx.NodeProto] = []
    for place in range(count):
        index = f"{_PREFIX}_index_{place}"
        graph.initializer.append(numpy_helper.from_array(np.array(place, np.int64), index))
        written.append(helper.make_node("Gather", [MASK, index], [f"{_PREFIX}_switch_{place}"]))
    made = set()
    for node in graph.node:
        for name in node.output:
            made.add(name)
    for name, nodes in after.items():
        if name not in made:
            written += nodes
    for node in graph.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        for place, name in enumerate(node.input):
            copied.input[place] = mixed.get(name, name)
        new = []
        for name in node.output:
            for quantizer in after.get(name, ()):
                new.append(quantizer)
        for place, name in enumerate(node.output):
            if name in outputs and name in after:
                copied.output[place] = new[0].input[0]
        written += [copied, *new]
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), f"{_PREFIX}_flat"))
    if parts:
        written.append(helper.make_node("Concat", parts, [_ERRORS], axis=0))
        graph.output.append(helper.make_tensor_value_info(_ERRORS, TensorProto.FLOAT, [len(parts)]))
    graph.input.append(helper.make_tensor_value_info(MASK, TensorProto.BOOL, [count]))
    graph.ClearField("node")
    graph.node.extend(written)
    graph.ClearField("value_info")


class _Quantizing:
    """One search."""

    def __init__(
        self, standard: Standard, conversion: QuantizedConversion, source: Source, effort: Effort
    ) -> None:
        self._standard = standard
        self._conversion = conversion
        self._source = source
        self._effort = effort
        self._account = Account()
        self._sets = standard.reference.usual
        self._expected = [dict(standard.reference.outputs[place]) for place in self._sets]
        self._graph: Quantizers
        self._session: ort.InferenceSession

    def find(self) -> Mix:
        self._graph = quantizers(
            self._source.copy(), self._conversion.quantize(()), self._conversion
        )
        if not self._graph.claims:
            raise NotApplicable(
                "nothing is chosen: no quantizer of the model belongs to a node that has a name"
            )
        self._session = self._open(self._source.openable(self._graph.model), "disable")
        everything = range(len(self._graph.labels))
        exact, errors = self._control(everything)
        chosen = Found(frozenset(), frozenset(), minimal=True)
        if self._fails(chosen.nodes):
            suspicion = self._suspicion(errors)
            searched = smallest_set(self._passes, suspicion, [1.0] * len(suspicion), self._spent)
            if searched is None:
                raise NotApplicable(
                    f"with every node in float its outputs don't reach {self._goal()}"
                )
            chosen = searched
            self._verify(chosen)
        names = tuple(self._graph.labels[place] for place in sorted(chosen.nodes))
        account = self._account
        return Mix(
            names,
            len(names),
            len(self._graph.labels),
            None,
            chosen.minimal,
            exact,
            0,
            account.sessions,
            account.runs,
            account.seconds,
            kind="float",
        )

    def _control(self, everything: Collection[int]) -> tuple[bool, npt.NDArray[np.float64]]:
        """Everything in float is the original.

        Returns whether bit for bit, and the quantizers' errors.
        """
        outputs = [self._outputs(everything, at) for at in range(len(self._sets))]
        errors = np.stack(
            [output.pop(_ERRORS).astype(np.float64).reshape(-1, 2) for output in outputs]
        )
        ratios = np.sqrt(errors[..., 0] / np.maximum(errors[..., 1], _TINY)).max(axis=0)
        if not self._good(outputs):
            raise NotApplicable(
                "which nodes need float can't be found: with all of them in float the model departs"
            )
        exact = all(
            np.array_equal(each[name], value, equal_nan=False)
            for each, expected in zip(outputs, self._expected, strict=True)
            for name, value in expected.items()
            if isinstance(value, np.ndarray)
        )
        return exact, ratios

    def _suspicion(self, errors: npt.NDArray[np.float64]) -> list[float]:
        """Return the error of each node's worst quantizer, beside that of the middling one."""
        middle = max(float(np.median(errors)), _TINY)
        worst = [0.0] * len(self._graph.labels)
        for claim, error in zip(self._graph.claims, errors.tolist(), strict=True):
            for place in claim:
                worst[place] = max(worst[place], error / middle)
        return worst

    def _outputs(self, floats: Collection[int], at: int) -> dict[str, Any]:
        self._account.runs += 1
        values = self._standard.reference.sets[self._sets[at]].values
        with noting(f"float search, run {self._account.runs}"), np.errstate(all="ignore"):
            return run(self._session, {**values, MASK: self._graph.mask(floats)})

    def _passes(self, floats: Collection[int]) -> bool:
        outputs = [self._outputs(floats, at) for at in range(len(self._sets))]
        for output in outputs:
            output.pop(_ERRORS, None)
        return self._good(outputs)

    def _good(self, outputs: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether outputs reach what was asked for, and pass."""
        conversion = self._conversion
        for output, expected in zip(outputs, self._expected, strict=True):
            for name, value in _floats(expected):
                if sqnr_db(value, output[name]) < conversion.sqnr_db:
                    return False
                if conversion.agreement and agreement(value, output[name]) < conversion.agreement:
                    return False
        return verdict(self._standard, outputs).passed

    def _goal(self) -> str:
        goal = f"{self._conversion.sqnr_db:g} dB"
        share = self._conversion.agreement
        return f"{goal} and {share:.0%} of the first choices" if share else goal

    def _verify(self, searched: Found) -> None:
        """The quantized model with those nodes in float passes as it runs here.

        Raises:
            NotApplicable: it doesn't.
        """
        if self._fails(searched.nodes):
            raise NotApplicable(
                f"no choice of nodes in float was verified on the quantized model: it doesn't "
                f"reach {self._goal()}"
            )

    def _fails(self, floats: frozenset[int]) -> bool:
        names = [self._graph.labels[place] for place in sorted(floats)]
        with noting("float search, verifying"):
            session = self._open(self._source.saved(self._conversion.quantize(names)), "all")
            outputs = []
            for place in self._sets:
                self._account.runs += 1
                outputs.append(run(session, self._standard.reference.sets[place].values))
        return not self._good(outputs)

    def _spent(self) -> bool:
        late = self._account.seconds > self._effort.seconds
        return late or self._account.runs >= max(
            MOST_RUNS - RESERVED * len(self._sets), 12 * len(self._sets)
        )

    def _open(self, model: Any, level: str) -> ort.InferenceSession:
        self._account.sessions += 1
        cpu = providers.get("cpu")
        return open_session(
            model, cpu, purpose=Purpose.ACCURACY, level=level, record_placement=False
        )


def _floats(outputs: Mapping[str, Any]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for name, value in outputs.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            yield name, value


def sqnr_db(expected: npt.NDArray[Any], actual: npt.NDArray[Any]) -> float:
    """Return the ratio of signal to quantization noise, in dB.

    20 log10(|expected| / |actual - expected|).

    Args:
        expected: float, of any shape.
        actual: of the same shape.

    Returns:
        Infinite for equal arrays; -inf where an element isn't finite and the expected one is.
    """
    signal, got = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(signal)
    if not np.isfinite(got[finite]).all():
        return -math.inf
    noise = float(np.linalg.norm(got[finite] - signal[finite]))
    power = float(np.linalg.norm(signal[finite]))
    if not noise:
        return math.inf
    return 20 * math.log10(power / noise) if power else -math.inf


def agreement(expected: npt.NDArray[Any], actual: npt.NDArray[Any]) -> float:
    """Return the share of rows along the last axis whose greatest element is at the same place.

    1 without rows.
    """
    if not expected.ndim or expected.shape[-1] < 2 or not expected.size:
        return 1.0
    return float(np.mean(expected.argmax(axis=-1) == actual.argmax(axis=-1)))
