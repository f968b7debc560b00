"""Which nodes a conversion to float16 should leave in float32: tried on the model before it is offered.

One overflow hides the next: keep a square in float32, and its mean overflows as it is handed on. So the blocked nodes
grow by what still overflows, and by what reads it, and the converted model is judged anew each time, by the same
simulated run that it failed. Digits that are lost name no node. There everything but the large products is blocked
first, and then given back, one operator after another, as long as the model stays right.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from onnx_harness import transforms
from onnx_harness.errors import DiedBefore
from onnx_harness.isolate import risking
from onnx_harness.judging.emulation import half_verdict, overflowing
from onnx_harness.judging.half_range import Place, computes_in_half, nodes_in_half
from onnx_harness.judging.runs import first_line
from onnx_harness.judging.verdict import Standard
from onnx_harness.model.file import Model
from onnx_harness.model.ops import is_standard
from onnx_harness.model.saving import save
from onnx_harness.names import Step, Variant
from onnx_harness.transforms import Precision
from onnx_harness.transforms.variant import BoundVariant

if TYPE_CHECKING:
    from onnx_harness.transforms import BoundStep

_OPS, _NODES = "op_block_list", "node_block_list"
_MOST_NAMED = 4  # nodes: a longer list is harder to read than the operators
_MOST_ROUNDS = 6
_MOST_TRIALS = 16
# A mend is a courtesy within the cell's own time limit: no trial begins after this.
_MOST_SECONDS = 20.0
_MOST_BYTES = 1 << 28  # a larger model takes longer to convert and run once than a person waits for advice
# What float16 is for. Without these in float16 a conversion gains next to nothing.
_PRODUCTS = frozenset({"Attention", "Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN"})


@dataclass(frozen=True, slots=True)
class _Blocked:
    """What stays in float32, beside what the variant blocks already: nodes by name and operator, and operators."""

    nodes: frozenset[tuple[str, str]] = frozenset()
    ops: frozenset[str] = frozenset()

    def options(self, unique: frozenset[str]) -> dict[str, tuple[str, ...]]:
        """Return the block lists: of nodes where they are few and all have a name of their own, else of operators."""
        names = sorted(name for name, _ in self.nodes)
        if not self.ops and len(names) <= _MOST_NAMED and unique.issuperset(names):
            return {_NODES: tuple(names)}
        return {_OPS: tuple(sorted(self.ops | {op for _, op in self.nodes}))}


@dataclass(frozen=True, slots=True)
class _Trial:
    """One conversion: what was blocked, the model, None where it can't be converted, and whether it passes."""

    blocked: _Blocked
    made: Model | None
    passed: bool


@dataclass(slots=True)
class _Search:
    """The state of one search: the conversion, what passed, and what it has cost."""

    held: Standard
    chain: list[BoundStep]
    steps: tuple[Step, ...]
    at: int
    before: onnx.ModelProto
    unique: frozenset[str]
    folder: Path
    started: float = field(default_factory=time.monotonic)
    trials: int = 0

    def spelling(self, blocked: _Blocked) -> str:
        """Return the variant with the block lists, as a user writes it."""
        step = self.steps[self.at]
        options = tuple(sorted({**dict(step.options), **self._options(blocked)}.items()))
        steps = (*self.steps[: self.at], Step(step.name, options), *self.steps[self.at + 1 :])
        return Variant("", steps).spelling

    def converted(self, blocked: _Blocked) -> Model:
        """Return the model as the variant with the block lists makes it."""
        self.trials += 1
        model = onnx.ModelProto()
        model.CopyFrom(self.before)
        step = self.chain[self.at]
        again = replace(step, options={**step.options, **self._options(blocked)})
        with transforms.remarks():
            model = _applied(model, [again, *self.chain[self.at + 1 :]])
        file = self.folder / f"{self.trials}.onnx"
        save(model, file)
        return Model(file)

    def trial(self, blocked: _Blocked) -> _Trial:
        """Convert with those in float32 and judge: it passes where it is right, and still float16 elsewhere."""
        try:
            made = self.converted(blocked)
            right = computes_in_half(made.skeleton) and half_verdict(self.held, made).passed
            return _Trial(blocked, made, right)
        except Exception:  # what a transform, onnx and ONNX Runtime raise has no common class
            return _Trial(blocked, None, passed=False)

    @property
    def spent(self) -> bool:
        """Whether no further trial fits the budget."""
        return self.trials >= _MOST_TRIALS or time.monotonic() - self.started > _MOST_SECONDS

    def _options(self, blocked: _Blocked) -> dict[str, tuple[str, ...]]:
        """The block lists, with what the variant itself blocks."""
        own = self.chain[self.at].options
        merged = {}
        for name, values in blocked.options(self.unique).items():
            known = own.get(name, ())
            merged[name] = tuple(dict.fromkeys((*(known if isinstance(known, tuple) else ()), *values)))
        return merged


def tried_mend(held: Standard, variant: BoundVariant, made: Model) -> str:
    """Find what a float16 conversion has to leave in float32, and try it.

    Meant for the worker, after a cell failed by what float16 makes of its values.

    Args:
        held: what the outputs are judged by.
        variant: the one that ran.
        made: the model that it made.

    Returns:
        A line for the failure's message: the variant's spelling that passes, or that none was found, and why.
    """
    try:
        with risking(f"mend {made.sha256[:16]}"):
            return _tried_mend(held, variant, made)
    except DiedBefore as error:
        return f"No mend is offered: {error}"
    except Exception as error:  # as in `passes`
        return f"No mend is offered: {first_line(error)}"


def _tried_mend(held: Standard, variant: BoundVariant, made: Model) -> str:
    chain = list(variant.steps)
    halving = [place for place, step in enumerate(chain) if step.transform.precision is Precision.FP16]
    if not halving:
        return "No mend is offered: no step of the variant converts to float16, the model asks for it itself"
    at = halving[0]
    if not {_OPS, _NODES} <= chain[at].transform.options.keys():
        return f"No mend is offered: {chain[at].name} takes no list of what stays float32, as fp16.io32 does"
    if made.size_bytes > _MOST_BYTES or held.model.size_bytes > 2 * _MOST_BYTES:
        return "No mend is offered: the model is too large to try one"
    if any(step.transform.calibrated for step in chain):
        return "No mend is offered: the variant is calibrated as well"
    with transforms.remarks():  # they were told when the cell's own model was made
        before = _applied(held.model.load(), chain[:at])
    with tempfile.TemporaryDirectory(prefix="onnx-harness-mend-", ignore_cleanup_errors=True) as folder:
        search = _Search(held, chain, variant.variant.steps, at, before, _unique_names(before.graph), Path(folder))
        return _searched(search, made)


def _applied(model: onnx.ModelProto, steps: Sequence[BoundStep]) -> onnx.ModelProto:
    """Return the model as those of the steps make it that aren't options of the session."""
    for step in steps:
        if not step.transform.session:
            model = step(model)
    return model


def _searched(search: _Search, made: Model) -> str:
    overflows = _against_overflow(search, made)
    if overflows.passed:
        return f"Mend: keep what overflows and what reads it in float32: {search.spelling(overflows.blocked)} passes."
    digits = None if search.spent else _against_lost_digits(search, made, overflows.blocked)
    if digits is not None:
        return f"Mend: keep in float32 what needs more digits or range: {search.spelling(digits)} passes."
    return f"No mend was found: of {search.trials} conversions that keep more in float32 none passes."


def _against_overflow(search: _Search, made: Model) -> _Trial:
    """Block what overflows and what reads it, again and again, until the model passes or nothing new overflows."""
    trial = _Trial(_Blocked(), made, passed=False)
    for _ in range(_MOST_ROUNDS):
        if trial.made is None or search.spent:
            break
        nodes = frozenset(_around(overflowing(search.held, trial.made)))
        if nodes <= trial.blocked.nodes:
            break
        trial = search.trial(replace(trial.blocked, nodes=trial.blocked.nodes | nodes))
        if trial.passed:
            break
    return trial


def _against_lost_digits(search: _Search, made: Model, start: _Blocked) -> _Blocked | None:
    """Block every operator but the large products, then give back those that the model is right without."""
    counts = Counter(node.op_type for node in nodes_in_half(made.skeleton) if is_standard(node))
    ops = frozenset(counts.keys() - _PRODUCTS) | {op for _, op in start.nodes}
    if not ops or not search.trial(_Blocked(ops=ops)).passed:
        return None
    blocked = _Blocked(ops=ops)
    for op, _ in counts.most_common():  # what there is most of, first: it gains the most
        if op in blocked.ops and len(blocked.ops) > 1 and not search.spent:
            fewer = replace(blocked, ops=blocked.ops - {op})
            blocked = fewer if search.trial(fewer).passed else blocked
    return blocked


def _around(places: Iterable[Place]) -> Iterable[tuple[str, str]]:
    """The nodes that give what overflows, and those that compute with it: name and operator."""
    for place in places:
        for name, op in ((place.node, place.op), *place.readers):
            if op != "Cast":
                yield name, op


def _unique_names(graph: onnx.GraphProto) -> frozenset[str]:
    """The node names of the main graph that one node alone has."""
    counts = Counter(node.name for node in graph.node)
    return frozenset(name for name, count in counts.items() if name and count == 1)
