"""The first node that departs on its own: every value of reference and candidate compared, in
bounded memory.

Values are matched by name, which transforms keep. The candidate's graph is cut at every matched value: what reads it
reads an input of the graph instead, and what makes it gives an output. Fed with the reference's values, each output
then shows its node's *own* error; the error of its inputs as the candidate runs is *inherited*. One session answers for
all nodes, since ONNX Runtime runs the path to the outputs that are asked for and no more
(``RunOptions.only_execute_path_to_fetches``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from onnx_harness.diagnose.trials import Bench, Question, Trial, bench_of, open_candidate
from onnx_harness.isolate import note_stage
from onnx_harness.judging.emulation import half_as_hardware
from onnx_harness.judging.half_range import computes_in_half, half_values
from onnx_harness.judging.runs import open_cpu
from onnx_harness.judging.simulation import PREFIX
from onnx_harness.judging.verdict import verdict
from onnx_harness.model.inlining import inline_functions
from onnx_harness.model.saving import save
from onnx_harness.providers.running import feeds_for
from onnx_harness.results.cells import Stage
from onnx_harness.results.workbench import workbench
from onnx_harness.transforms import Precision

if TYPE_CHECKING:
    import onnxruntime as ort

    from onnx_harness.judging.reference import Reference

_MOST_BYTES = 1 << 28
"""Of values that are held at a time, of each of the two models."""
_MADE = "onnx_harness_made_"
_TENSORS = frozenset(
    {
        *(onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16),
        *(onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL),
        *(onnx.TensorProto.INT8, onnx.TensorProto.UINT8),
    }
)
# The first node whose own error is so near the greatest one is the cause: others are as wrong for
# its like.
_NEAR = 0.1
# A node that departs by less is no cause: it is the order of its additions.
_LEAST = 3e-6


@dataclass(frozen=True, slots=True)
class NodeError:
    """How far a node departs.

    Attributes:
        name: of the node; of its first output where it has none.
        value: the output that departs.
        own: relative L2 error of that output where its inputs are the reference's; infinite where
            it isn't finite.
        inherited: the greatest of the errors of its inputs as the candidate runs.
    """

    name: str
    op_type: str
    value: str
    own: float
    inherited: float


@dataclass(frozen=True, slots=True)
class Watch:
    """What came of watching values.

    Attributes:
        node: the first one that departs on its own; None: none does.
        compared: values that were compared, of all that the candidate has.
        values: those.
        mended: whether the outputs are right once that node's output is the reference's; None: it
            wasn't tried.
        observer: what is to be said where watching values changes the result; empty: it doesn't.
        sessions: that were opened.
        runs: of them.
    """

    node: NodeError | None
    compared: int
    values: int
    mended: bool | None = None
    observer: str = ""
    sessions: int = 0
    runs: int = 0


def first_departure(question: Question, trial: Trial, place: int) -> Watch:
    """Find the first node that departs on its own. Meant for the worker.

    Args:
        question: what is diagnosed.
        trial: what fails.
        place: the position of an input set on which it fails.
    """
    note_stage(Stage.COMPARE)
    bench = bench_of(question)
    return _Watcher(bench, trial, place).watch()


class _Watcher:
    """The sessions and runs of one search."""

    def __init__(self, bench: Bench, trial: Trial, place: int) -> None:
        self._bench = bench
        self._trial = trial
        self._place = place
        self._sessions = 0
        self._runs = 0
        self._half: set[str] = set()

    def watch(self) -> Watch:
        model = self._explicit()
        original = inline_functions(self._bench.subject.model.load())
        graph = model.graph
        matched = _matched(original, model)
        values = sum(len(node.output) for node in graph.node)
        if not matched:
            return Watch(None, 0, values, sessions=self._sessions, runs=self._runs)
        observer = self._observed(original)
        errors = self._errors(original, model, matched)
        node = _cause(graph, errors, matched)
        mended = None if node is None else self._mended(original, model, node, matched)
        return Watch(node, len(matched), values, mended, observer, self._sessions, self._runs)

    def _explicit(self) -> onnx.ModelProto:
        """The candidate as a graph that computes the same with optimizations off: ONNX Runtime's
        changes are in it.
        """
        bench, trial = self._bench, self._trial
        candidate = bench.model(trial.count, trial.off)
        kept = workbench().cache
        if computes_in_half(candidate.skeleton) and bench.standard.precision is Precision.FP16:
            self._half = _half_names(candidate.skeleton)
            rounded = half_as_hardware(
                bench.subject.model, bench.standard.reference, candidate, kept
            )
            if rounded is not None:
                return inline_functions(rounded)
        if trial.level == "disable":
            return inline_functions(candidate.load())
        file = bench.question.folder / "explicit.onnx"
        open_candidate(bench, trial, candidate, optimized=file)
        self._sessions += 1
        return inline_functions(onnx.load(str(file)))

    def _observed(self, original: onnx.ModelProto) -> str:
        """Run the candidate at its own level with its values exposed, and judge it: watching may
        mend it.
        """
        bench, trial = self._bench, self._trial
        if trial.level == "disable" or self._half:
            return ""
        model = inline_functions(bench.model(trial.count, trial.off).load())
        exposed = _exposed(model, _matched(original, model))
        try:
            session = open_candidate(bench, trial, exposed)
            self._sessions += 1
            outputs = self._run(session, None, self._values(session))
        except Exception:  # exposing them all isn't always possible
            return ""
        reference = bench.standard.reference
        own = {name: outputs[name] for name in reference.outputs[self._place] if name in outputs}
        if not self._passes(own):
            return ""
        return (
            "watching values changes the result: with them as outputs ONNX Runtime optimizes "
            "less, and it passes; "
            "so its optimized graph was replayed, cut into its nodes"
        )

    def _errors(
        self, original: onnx.ModelProto, model: onnx.ModelProto, matched: Mapping[str, int]
    ) -> dict[str, tuple[float, float]]:
        """Own error and whole error of each matched value."""
        reference = self._opened(_exposed(original, matched), "reference")
        exposed = self._opened(_exposed(_copy(model), matched), "exposed")
        cut = self._opened(_cut(_copy(model), matched), "cut")
        sources = _sources(model.graph, matched)
        errors: dict[str, tuple[float, float]] = {}
        for chunk in self._chunks(reference, list(matched)):
            needed = dict.fromkeys((*chunk, *(name for value in chunk for name in sources[value])))
            right = self._run(reference, list(needed), self._values(reference))
            whole = self._run(exposed, list(chunk), self._values(exposed))
            fed = {name: self._rounded(name, value) for name, value in right.items()}
            own = self._run(cut, [_MADE + name for name in chunk], self._fed(cut, fed))
            for name in chunk:
                errors[name] = (
                    _relative(right[name], own[_MADE + name]),
                    _relative(right[name], whole[name]),
                )
        return errors

    def _mended(
        self,
        original: onnx.ModelProto,
        model: onnx.ModelProto,
        node: NodeError,
        matched: Mapping[str, int],
    ) -> bool | None:
        """Whether the outputs are right once the value is the reference's.

        None where that can't be tried.
        """
        value = {node.value: matched[node.value]}
        outputs = set(self._bench.standard.reference.outputs[self._place])
        try:
            reference = self._opened(_exposed(original, value), "one")
            session = self._opened(_cut(_copy(model), value, keep=False), "switched")
            right = self._run(reference, [node.value], self._values(reference))
            made = self._run(session, None, self._fed(session, right))
        except Exception:  # a graph that is nothing but that node
            return None
        made = {name.removeprefix(_MADE): array for name, array in made.items()}
        made.update({name: array for name, array in right.items() if name in outputs})
        return self._passes({name: array for name, array in made.items() if name in outputs})

    def _passes(self, outputs: Mapping[str, Any]) -> bool:
        """Judge those outputs on the one input set, in the place of the candidate's."""
        held, reference = self._bench.standard, self._bench.standard.reference
        if set(outputs) != set(reference.outputs[self._place]):
            return False
        answers = [dict(output) for output in reference.outputs]
        answers[self._place] = dict(outputs)
        return verdict(held, answers).passed

    def _opened(self, model: onnx.ModelProto, name: str) -> ort.InferenceSession:
        self._sessions += 1
        folder = self._bench.question.folder / name
        folder.mkdir(exist_ok=True)
        file = folder / "model.onnx"
        save(model, file)
        return open_cpu(file, config=self._bench.config(self._bench.subject.model))

    def _run(
        self, session: ort.InferenceSession, names: Sequence[str] | None, feeds: Any
    ) -> dict[str, Any]:
        import onnxruntime as ort

        self._runs += 1
        wanted = [info.name for info in session.get_outputs()] if names is None else list(names)
        options = ort.RunOptions()
        options.only_execute_path_to_fetches = names is not None
        return dict(zip(wanted, session.run(wanted, feeds, options), strict=True))

    def _values(self, session: ort.InferenceSession) -> dict[str, Any]:
        """The values of the input set, as the session takes them."""
        reference: Reference = self._bench.standard.reference
        taken = {info.name for info in session.get_inputs()}
        values = feeds_for(session, reference.sets[self._place].values)
        if self._half:
            values = {name: _through_half(value) for name, value in values.items()}
        return {name: value for name, value in values.items() if name in taken}

    def _fed(self, session: ort.InferenceSession, right: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the input set and the reference's.

        What isn't among them isn't read, and is empty.
        """
        feeds = self._values(session)
        for info in session.get_inputs():
            if info.name in right:
                feeds[info.name] = right[info.name]
            elif info.name not in feeds:
                feeds[info.name] = np.zeros((0,), _NUMPY[info.type])
        return feeds

    def _rounded(self, name: str, value: Any) -> Any:
        """The reference's value as the candidate can hold it: a node isn't at fault for what
        float16 can't say.
        """
        return _through_half(value) if name in self._half else value

    def _chunks(self, reference: ort.InferenceSession, names: Sequence[str]) -> list[list[str]]:
        """The values in groups whose size is bounded, by the sizes that the reference declares or
        half of the bound.
        """
        shapes = {info.name: info.shape for info in reference.get_outputs()}
        chunks: list[list[str]] = [[]]
        held = 0
        for name in names:
            size = 8 * math.prod(
                dim if isinstance(dim, int) else 64 for dim in shapes.get(name) or ()
            )
            if chunks[-1] and held + size > _MOST_BYTES:
                chunks.append([])
                held = 0
            chunks[-1].append(name)
            held += size
        return chunks


_NUMPY = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
}


def _through_half(value: Any) -> Any:
    if getattr(value, "dtype", None) != np.float32:
        return value
    with np.errstate(over="ignore"):
        return value.astype(np.float16).astype(np.float32)


def _half_names(skeleton: onnx.ModelProto) -> set[str]:
    return set(half_values(inline_functions(skeleton)))


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """The element types of the main graph's tensors, as far as they can be inferred."""
    light = onnx.ModelProto()
    light.CopyFrom(model)
    for tensor in light.graph.initializer:
        if tensor.ByteSize() > 1 << 12:
            tensor.ClearField("raw_data")
    try:
        inferred = onnx.shape_inference.infer_shapes(light, strict_mode=False)
    except Exception:  # what it raises of an unknown operator varies
        inferred = light
    infos = (
        *inferred.graph.value_info,
        *inferred.graph.output,
        *model.graph.value_info,
        *model.graph.output,
    )
    return {
        info.name: info.type.tensor_type.elem_type
        for info in infos
        if info.type.HasField("tensor_type")
    }


def _matched(original: onnx.ModelProto, model: onnx.ModelProto) -> dict[str, int]:
    """The values that nodes of both graphs make, in the candidate's order, with the type.

    Of types that can be fed.
    """
    here, there = _types(original), _types(model)
    known = {name for node in original.graph.node for name in node.output if name}
    matched: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.output:
            kind = there.get(name) or here.get(name, 0)
            if name in known and kind in _TENSORS and here.get(name, kind) == kind:
                matched[name] = kind
    return matched


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _exposed(model: onnx.ModelProto, matched: Mapping[str, int]) -> onnx.ModelProto:
    """The model, with those values as further outputs."""
    present = {name for node in model.graph.node for name in node.output}
    outputs = {info.name for info in model.graph.output}
    for name, kind in matched.items():
        if name in present and name not in outputs:
            model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return model


def _cut(
    model: onnx.ModelProto, matched: Mapping[str, int], *, keep: bool = True
) -> onnx.ModelProto:
    """The model cut at those values: read from inputs of the graph, given as outputs under another
    name.

    Args:
        model: it is changed.
        matched: the values and their types.
        keep: give what is made in their place as outputs; graph outputs among them are given anyhow.
    """
    graph = model.graph
    graph.ClearField("value_info")
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name in matched:
                node.output[place] = _MADE + name
    outputs = [info for info in graph.output if info.name not in matched]
    own = [info.name for info in graph.output if info.name in matched]
    made = list(matched) if keep else own
    outputs += [helper.make_tensor_value_info(_MADE + name, matched[name], None) for name in made]
    graph.ClearField("output")
    graph.output.extend(outputs)
    graph.input.extend(
        helper.make_tensor_value_info(name, kind, None) for name, kind in matched.items()
    )
    return model


def _sources(graph: onnx.GraphProto, matched: Mapping[str, int]) -> dict[str, list[str]]:
    """Of each matched value the matched values that the nodes before it read, up to the next
    matched ones.
    """
    makers = {name: node for node in graph.node for name in node.output if name}
    behind: dict[str, list[str]] = {}

    def reads(name: str) -> list[str]:
        node = makers.get(name)
        if node is None:
            return []
        if name not in behind:
            behind[name] = []  # graphs have no cycles; a broken one mustn't end in one here
            found: dict[str, None] = {}
            for read in _all_reads(node):
                found.update(dict.fromkeys([read] if read in matched else reads(read)))
            behind[name] = list(found)
        return behind[name]

    for node in graph.node:  # in order, so that no recursion is deep
        for name in node.output:
            reads(name)
    return {name: behind.get(name, []) for name in matched}


def _all_reads(node: onnx.NodeProto) -> list[str]:
    """The names that a node reads, those inside its bodies included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            for inner in body.node:
                names += _all_reads(inner)
            names += [info.name for info in body.output]
    return names


def _relative(right: Any, found: Any) -> float:
    """||found - right|| / ||right||; infinite where shapes, NaN or infinities differ."""
    if getattr(right, "shape", None) != getattr(found, "shape", None):
        return math.inf
    if right.dtype.kind not in "f":
        return 0.0 if np.array_equal(right, found) else 1.0
    a, b = right.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return math.inf
    norm = float(np.linalg.norm(a[finite]))
    gap = float(np.linalg.norm((b - a)[finite]))
    if gap == 0:
        return 0.0
    return gap / norm if norm else math.inf


def _cause(
    graph: onnx.GraphProto, errors: Mapping[str, tuple[float, float]], matched: Mapping[str, int]
) -> NodeError | None:
    """The first node in order whose own error is about as great as any."""
    greatest = max((own for own, _ in errors.values()), default=0.0)
    if greatest <= _LEAST:
        return None
    sources = _sources(graph, matched)
    makers = {output: node for node in graph.node for output in node.output}
    least = _NEAR * greatest if math.isfinite(greatest) else math.inf
    name = next(name for name in matched if errors.get(name, (0.0, 0.0))[0] >= least)
    inherited = max(
        (errors[source][1] for source in sources[name] if source in errors), default=0.0
    )
    node = makers[name]
    while node.op_type == "Cast" and node.input[0].startswith(
        PREFIX
    ):  # what rounds it in simulated float16
        node = makers[node.input[0]]
    return NodeError(node.name or name, node.op_type, name, errors[name][0], inherited)
