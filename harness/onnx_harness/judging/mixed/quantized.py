"""The nodes that a static quantization leaves in float.

Every quantizer a switch, searched, verified on the real model.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnx_harness import providers
from onnx_harness.errors import NotApplicable, first_line
from onnx_harness.isolate import noting
from onnx_harness.judging.mixed.account import MOST_RUNS, RESERVED, Account, Effort, Mix
from onnx_harness.judging.mixed.quantizers import ERRORS, Quantizers, quantizers
from onnx_harness.judging.mixed.search import Found, smallest_set
from onnx_harness.judging.mixed.source import Source
from onnx_harness.judging.mixed.switch_session import all_same
from onnx_harness.judging.mixed.switches import MASK
from onnx_harness.judging.standard import Standard
from onnx_harness.judging.verdict import verdict
from onnx_harness.providers.running import run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.transforms.quantization.mixed import QuantizedConversion

if TYPE_CHECKING:
    import onnxruntime as ort

_TINY = 1e-37
# How many nodes are tried one at a time beside what was found, where that fails on the model.
_MOST_CORRECTIONS = 8


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


class _Quantizing:
    """One search."""

    def __init__(
        self,
        standard: Standard,
        conversion: QuantizedConversion,
        source: Source,
        effort: Effort,
    ) -> None:
        self._standard = standard
        self._conversion = conversion
        self._source = source
        self._effort = effort
        self._account = Account()
        self._refused = False
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
        self._session = self._open(
            self._source.openable(self._graph.model), "disable", "cpu"
        )
        everything = range(len(self._graph.labels))
        exact, errors = self._control(everything)
        nodes, minimal, corrections = frozenset[int](), True, 0
        if self._shortfall(nodes):
            suspicion = self._suspicion(errors)
            searched = smallest_set(
                self._passes, suspicion, [1.0] * len(suspicion), self._spent
            )
            if searched is None:
                raise NotApplicable(
                    f"with every node in float its outputs don't reach {self._goal()}"
                )
            nodes, corrections = self._verified(searched, suspicion)
            minimal = searched.minimal and not corrections
        names = tuple(self._graph.labels[place] for place in sorted(nodes))
        account = self._account
        return Mix(
            names,
            len(names),
            len(self._graph.labels),
            None,
            minimal,
            exact,
            corrections,
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
            [output.pop(ERRORS).astype(np.float64).reshape(-1, 2) for output in outputs]
        )
        error = errors[..., 0]
        signal = np.maximum(errors[..., 1], _TINY)
        ratios = np.sqrt(error / signal).max(axis=0)
        if not self._good(outputs):
            raise NotApplicable(
                "which nodes need float can't be found: with all of them in float the model departs"
            )
        return all(map(all_same, outputs, self._expected)), ratios

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
        with noting(f"transform: float search, run {self._account.runs}"):
            return run(self._session, {**values, MASK: self._graph.mask(floats)})

    def _passes(self, floats: Collection[int]) -> bool:
        outputs = [self._outputs(floats, at) for at in range(len(self._sets))]
        for output in outputs:
            output.pop(ERRORS, None)
        return self._good(outputs)

    def _good(self, outputs: Sequence[Mapping[str, Any]]) -> bool:
        return not shortfall(self._standard, self._conversion, outputs)

    def _goal(self) -> str:
        goal = f"{self._conversion.sqnr_db:g} dB"
        share = self._conversion.agreement
        return f"{goal} and {share:.0%} of the first choices" if share else goal

    def _verified(
        self, searched: Found, suspicion: Sequence[float]
    ) -> tuple[frozenset[int], int]:
        """Return nodes in float with which the quantized model passes as it runs here.

        And how many choices did not: ONNX Runtime's integer kernels can saturate, or round where
        the search's switches don't.

        Raises:
            NotApplicable: none of those tried does.
        """
        lacking = ""
        for corrections, nodes in enumerate(self._attempts(searched, suspicion)):
            try:
                lacking = self._shortfall(nodes)
            except NotApplicable:
                lacking = lacking or "with those in float nothing is left to quantize"
                continue
            if not lacking:
                return nodes, corrections
            if self._account.seconds > self._effort.seconds:
                break
        raise NotApplicable(
            f"no choice of nodes in float was verified on the quantized model: {lacking}"
        )

    def _attempts(
        self, searched: Found, suspicion: Sequence[float]
    ) -> Iterator[frozenset[int]]:
        """Yield what was found, the larger set it came from, and it with one node more."""
        yield searched.nodes
        if searched.wide != searched.nodes:
            yield searched.wide
        others = set(range(len(suspicion))) - searched.nodes
        likeliest = sorted(others, key=lambda place: -suspicion[place])[:_MOST_CORRECTIONS]
        if self._refused:  # no ratio says which node the provider has no kernel for
            for place in likeliest:
                yield frozenset({place})
        for place in likeliest:
            yield searched.nodes | {place}

    def _shortfall(self, floats: frozenset[int]) -> str:
        """Return what the quantized model with those nodes in float lacks; empty if it passes."""
        names = [self._graph.labels[place] for place in sorted(floats)]
        quantized = self._conversion.quantize(names)
        provider = self._standard.provider
        with (
            noting("transform: float search, verifying"),
            self._source.written(quantized) as file,
        ):
            try:
                session = self._open(file, "all", provider)
                outputs = self._runs(session)
            except Exception as error:
                # ONNX Runtime's errors have no common class below Exception.
                self._refused = True
                return f"provider '{provider}' doesn't run it: {first_line(error, 160)}"
        return shortfall(self._standard, self._conversion, outputs)

    def _runs(self, session: ort.InferenceSession) -> list[dict[str, Any]]:
        outputs = []
        for place in self._sets:
            self._account.runs += 1
            outputs.append(run(session, self._standard.reference.sets[place].values))
        return outputs

    def _spent(self) -> bool:
        late = self._account.seconds > self._effort.seconds
        return late or self._account.runs >= max(
            MOST_RUNS - RESERVED * len(self._sets), 12 * len(self._sets)
        )

    def _open(self, model: Any, level: str, provider: str) -> ort.InferenceSession:
        self._account.sessions += 1
        return open_session(
            model,
            providers.get(provider),
            purpose=Purpose.ACCURACY,
            level=level,
            record_placement=False,
        )


def shortfall(
    standard: Standard, conversion: QuantizedConversion, outputs: Sequence[Mapping[str, Any]]
) -> str:
    """Return what outputs lack of what a quantization is asked for, or why they don't pass.

    Args:
        standard: what they are judged by.
        conversion: says what is asked for.
        outputs: on each usual input set of the reference, in order.

    Returns:
        Empty where nothing is lacking.
    """
    reference = standard.reference
    for output, place in zip(outputs, reference.usual, strict=True):
        if reference.sets[place].large:
            # Nothing was calibrated at that size, and the verdict doesn't ask either.
            continue
        for name, value in _floats(reference.outputs[place]):
            ratio = sqnr_db(value, output[name])
            if ratio < conversion.sqnr_db:
                return f"output {name} reaches {ratio:.1f} dB, less than {conversion.sqnr_db:g} dB"
            share = agreement(value, output[name]) if conversion.agreement else 1.0
            if share < conversion.agreement:
                return (
                    f"output {name} has {share:.0%} of the first choices, less than "
                    f"{conversion.agreement:.0%}"
                )
    judged = verdict(standard, outputs)
    return "" if judged.passed else judged.reason or "it doesn't pass"


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
