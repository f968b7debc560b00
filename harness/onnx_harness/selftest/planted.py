"""A model with its standard, and one mistake after another that is judged by it.

What the rows of mistakes share.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from onnx_harness.cards.card import Card, InputSpec, PathSource
from onnx_harness.judging.judge import judge_outputs
from onnx_harness.judging.reference import Reference, reference
from onnx_harness.judging.runs import open_cpu
from onnx_harness.judging.standard import Standard, standard
from onnx_harness.judging.verdict import Verdict
from onnx_harness.model.file import Model
from onnx_harness.names import parse_variant
from onnx_harness.providers.running import feeds_for, run
from onnx_harness.results.workbench import workbench
from onnx_harness.settings import Settings
from onnx_harness.transforms.variant import bind_variant

VARIANT = "optimize"
SEED = 0


@dataclass(slots=True)
class Bench:
    """A right model, ready for mistakes.

    Attributes:
        reference: its input sets, and what it makes of them.
        seconds: that it took to make these.
    """

    reference: Reference
    seconds: float
    _standard: Standard
    _subject: Model
    _verdicts: dict[bytes, Verdict] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        right: onnx.ModelProto,
        folder: Path,
        specs: Mapping[str, InputSpec] | None = None,
    ) -> Bench:
        """Make the input sets of a model and what it is held to.

        Args:
            name: of the model.
            right: the model.
            folder: an empty one for its file, which has to stay.
            specs: what a card would say of its inputs.
        """
        path = folder / f"{name}.onnx"
        onnx.save(right, path)
        model, settings = Model(path), Settings(seed=SEED)
        card = Card(path, name, source=PathSource(path), inputs=dict(specs or {}))
        cache, bound = workbench().cache, bind_variant(parse_variant(VARIANT))
        started = time.perf_counter()
        answers = reference(model, card, settings, cache)
        seconds = time.perf_counter() - started
        return cls(
            answers,
            seconds,
            standard(model, answers, card, bound, "cpu", settings, cache),
            model,
        )

    def judge(self, candidate: onnx.ModelProto) -> Verdict:
        """Return the verdict on a model that a transform put in the place of the right one."""
        key = candidate.SerializeToString(deterministic=True)
        if key not in self._verdicts:
            session = open_cpu(candidate, "all")
            outputs = []
            for chosen in self.reference.sets:
                outputs.append(run(session, feeds_for(session, chosen.values)))
            self._verdicts[key] = judge_outputs(
                self._standard, outputs, self._subject, emulated=False
            )
        return self._verdicts[key]
