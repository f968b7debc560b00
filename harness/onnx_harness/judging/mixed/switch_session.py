"""The session in which every node's precision is a switch, and its verdicts on mixes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_harness import providers
from onnx_harness.errors import NotApplicable
from onnx_harness.isolate import noting
from onnx_harness.judging.mixed.account import Account
from onnx_harness.judging.mixed.source import Source
from onnx_harness.judging.mixed.switches import MASK, Switched, switched
from onnx_harness.judging.standard import Standard
from onnx_harness.judging.verdict import verdict
from onnx_harness.providers.running import run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.transforms.half.mixed import MixedConversion
from onnx_harness.transforms.half.plan import Plan

if TYPE_CHECKING:
    import onnxruntime as ort


class SwitchSession:
    """A session with a switch at every node, on the usual input sets.

    Attributes:
        graph: the model with switches.
        sets: positions of the input sets in the reference.
        witnesses: indices, in ``sets``, of those on which a mix has failed.
        exact: whether everything in float32 gave the original's outputs bit for bit.
        refused: places of the nodes that are in float32 in every mix.
    """

    def __init__(
        self,
        standard: Standard,
        conversion: MixedConversion,
        source: Source,
        account: Account,
    ) -> None:
        """Nothing is opened before it is asked for.

        Args:
            standard: what the outputs are judged by.
            conversion: the conversion.
            source: its model.
            account: counts sessions and runs.
        """
        self.graph: Switched
        self.sets = standard.reference.usual
        self.witnesses: list[int] = []
        self.exact = False
        self.refused = frozenset[int]()
        self._standard = standard
        self._conversion = conversion
        self._source = source
        self._account = account
        self._expected = [dict(standard.reference.outputs[place]) for place in self.sets]
        self._rounder = conversion.rounder(source.folder)
        # Thousands of small nodes gain nothing by threads that wait for one another.
        self._threads = None if source.external else 1
        self._session: ort.InferenceSession

    def plan(self) -> Plan:
        """Return a fresh plan of the conversion, to be closed."""
        return self._conversion.plan(self._source.copy(), self._rounder)

    def open_switched(self) -> None:
        """Open the session, where there is a node to switch."""
        plan = self.plan()
        try:
            self.graph = switched(plan, self._clamped)
        finally:
            plan.close()
        if not self.graph.labels:  # all that computes stays float32 already
            return
        self._session = self.open(self._source.openable(self.graph.model))

    def _clamped(self, tensor: onnx.TensorProto) -> onnx.TensorProto | None:
        """Return what the conversion makes of a weight that it clamps, as float32."""
        values = numpy_helper.to_array(tensor, str(self._source.folder))
        rounded = self._conversion.round(values.reshape(-1), [])
        if not rounded.raised and not rounded.lowered:
            return None
        return numpy_helper.from_array(
            rounded.array.astype(np.float32).reshape(values.shape)
        )

    def _outputs(self, float32: Collection[int], at: int) -> dict[str, Any]:
        """Return the outputs on the usual input set at ``at`` with those nodes in float32."""
        self._account.runs += 1
        mixed = self.refused.union(float32)
        values = self._standard.reference.sets[self.sets[at]].values
        with noting(f"transform: float32 search, run {self._account.runs}"):
            return run(self._session, {**values, MASK: self.graph.mask(mixed)})

    def _passes_on(self, float32: Collection[int], at: int) -> bool:
        return self._judged(self._outputs(float32, at), at)

    def _judged(self, outputs_made: Mapping[str, Any], at: int) -> bool:
        """Return whether outputs on one input set pass, the original's own on the others."""
        outputs: list[Mapping[str, Any]] = list(self._expected)
        outputs[at] = outputs_made
        return verdict(self._standard, outputs).passed

    def refuse_hopeless(self) -> None:
        """The original's own outputs pass: else no mix does, whatever it keeps in float32.

        Raises:
            NotApplicable: they don't, as where no output reacts to the inputs.
        """
        judged = verdict(self._standard, self._expected)
        if not judged.passed:
            raise NotApplicable(
                f"no choice of nodes can pass, since the original's own outputs don't: "
                f"{judged.reason}"
            )

    def plain_passes(self) -> bool:
        """Return whether nothing in float32 passes.

        Of the input sets on which it fails, the worst is the first witness.
        """
        everywhere = range(len(self.sets))
        outputs = [self._outputs((), at) for at in everywhere]
        failing = [at for at in everywhere if not self._judged(outputs[at], at)]
        if failing:
            worst = max(
                failing, key=lambda at: (_departure(outputs[at], self._expected[at]), -at)
            )
            self.witnesses.append(worst)
        return not failing

    def passes_everywhere(self, float32: Collection[int]) -> bool:
        """Return whether a mix passes on every usual input set.

        One on which it fails becomes a witness.
        """
        for at in sorted(range(len(self.sets)), key=lambda at: at not in self.witnesses):
            if not self._passes_on(float32, at):
                if at not in self.witnesses:
                    self.witnesses.append(at)
                return False
        return True

    def passes(self, float32: frozenset[int]) -> bool:
        """Return whether a mix passes on the input sets that have told something yet."""
        return all(self._passes_on(float32, at) for at in self.witnesses)

    def control(self) -> None:
        """Everything in float32 is the original: else what the switches say means nothing.

        Raises:
            NotApplicable: it isn't.
        """
        reason = self._departs()
        if (
            reason and self._threads is not None
        ):  # ONNX Runtime's LSTM gives other outputs on one thread
            self._threads = None
            self._session = self.open(self._source.openable(self.graph.model))
            reason = self._departs()
        if reason:
            raise NotApplicable(
                f"which nodes need float32 can't be found: with all of them in float32 the model "
                f"departs: {reason}"
            )

    def _departs(self) -> str:
        """Return why the outputs with everything in float32 are wrong.

        Nothing where they aren't.
        """
        everything = range(len(self.graph.labels))
        outputs = [self._outputs(everything, at) for at in range(len(self.sets))]
        self.exact = all(map(all_same, outputs, self._expected))
        judged = None if self.exact else verdict(self._standard, outputs)
        return (
            "" if judged is None or judged.passed else judged.reason or "the outputs differ"
        )

    def open(self, model: Path | bytes, profile: Path | None = None) -> ort.InferenceSession:
        """Open a session that rounds where the graph says so, and nowhere else."""
        self._account.sessions += 1
        return open_session(
            model,
            providers.get("cpu"),
            purpose=Purpose.ACCURACY,
            level="disable",
            threads=self._threads,
            record_placement=False,
            profile=profile,
        )


def all_same(outputs: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Return whether the outputs that are expected are there bit for bit."""
    return all(_same(outputs.get(name), value) for name, value in expected.items())


def _departure(outputs: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """The greatest relative L2 distance of a float output.

    Infinite where one isn't finite any more.
    """
    gaps = [0.0]
    for name, value in expected.items():
        actual = outputs.get(name)
        if (
            isinstance(value, np.ndarray)
            and isinstance(actual, np.ndarray)
            and value.dtype.kind == "f"
        ):
            wide, half = value.astype(np.float64), actual.astype(np.float64)
            finite = np.isfinite(wide)
            if wide.shape != half.shape or not np.isfinite(half[finite]).all():
                return math.inf
            whole = float(np.linalg.norm(wide[finite])) or 1.0
            gaps.append(float(np.linalg.norm(half[finite] - wide[finite])) / whole)
    return max(gaps)


def _same(value: Any, expected: Any) -> bool:
    if isinstance(value, list) and isinstance(expected, list):  # arrays of a sequence
        return len(value) == len(expected) and all(map(_same, value, expected))
    if isinstance(value, np.ndarray) and isinstance(expected, np.ndarray):
        if expected.dtype.hasobject:  # texts, of which the bytes are addresses
            return np.array_equal(value, expected)
        return value.shape == expected.shape and value.tobytes() == expected.tobytes()
    return type(value) is type(expected) and bool(value == expected)
