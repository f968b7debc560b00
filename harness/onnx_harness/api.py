"""The harness as a library.

A verdict for a test of one's own, found in a worker process, without pytest.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness.errors import UsageError, did_you_mean
from onnx_harness.run.runner import Runner
from onnx_harness.run.verification import CHOICES, Question, Verdict, answer, verdict_of
from onnx_harness.settings import Settings
from onnx_harness.settings.project import nearest_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx_harness.run.files import InputsLike, ModelLike
    from onnx_harness.run.verification import Forward

__all__ = ["Verdict", "compare", "verify"]


def verify(
    model: ModelLike,
    *,
    variant: str = "simplify",
    candidate: ModelLike | Forward | None = None,
    reference: ModelLike | Forward | None = None,
    provider: str = "cpu",
    inputs: InputsLike | None = None,
    **settings: Any,
) -> Verdict:
    """Judge what a variant makes of a model, or somebody's candidate.

    It's judged as ``pytest MODEL --variant V`` does.

    Args:
        model: the untouched one: a ``.onnx``, a card, or a ModelProto.
        variant: a chain of steps, such as ``simplify+fp16.io32``. Not used where there is a
            candidate or a reference.
        candidate: what should compute the same as the model, where it is at hand: another model, or
            a callable such as a framework's forward. It takes arrays, one for each input of the
            model in order, and gives an array, a sequence of arrays in the order of the outputs, or
            a mapping by output name.
        reference: what is right, where the model itself is to be judged: as ``candidate``. Give one
            of the two.
        provider: the execution provider to judge on.
        inputs: used instead of generated ones: an array by input name, a sequence of such mappings,
            or a ``.npz``.
        settings: of :class:`onnx_harness.settings.Settings`: ``input_sets``, ``seed``, ``rtol`` and
            ``atol``, ``min_placement``, ``cell_timeout`` (seconds), ``cell_memory`` (bytes). Others
            are those of the nearest pyproject.toml.

    Raises:
        UsageError: there's no such variant, provider or setting.
        ProviderError: the provider can't be used here.
        ModelError: there is no such file, or the untouched model can't be read or doesn't run.
        InputError: no inputs can be had, the given ones don't fit, or a callable's outputs don't.
        Exception: whatever a callable raises, as it is.
    """
    question = Question(model, variant, candidate, reference, provider, inputs)
    return _answered(question, _settings(settings))


def compare(
    a: ModelLike,
    b: ModelLike,
    *,
    provider: str = "cpu",
    inputs: InputsLike | None = None,
    float16_io: bool = False,
    **settings: Any,
) -> Verdict:
    """Judge whether B computes what A does, as ``onnx-harness compare A B`` does.

    Args:
        a: the model that is right: a ``.onnx``, a card, or a ModelProto.
        b: the model that should compute the same.
        provider: where B runs; A runs on the CPU, graph optimizations disabled.
        inputs: as in :func:`verify`.
        float16_io: B may take and give float16 where A has float32.
        settings: as in :func:`verify`.

    Raises:
        as :func:`verify`.
    """
    question = Question(
        a, candidate=b, provider=provider, inputs=inputs, float16_io=float16_io
    )
    return _answered(question, _settings(settings))


def _answered(question: Question, settings: Settings) -> Verdict:
    models = (question.model, question.candidate, question.reference)
    paths = [Path(model) for model in models if isinstance(model, (str, os.PathLike))]
    runner = Runner(settings, readable=paths)
    try:
        return verdict_of(answer(question, runner))
    finally:
        runner.close()


def _settings(overrides: Mapping[str, Any]) -> Settings:
    unknown = sorted(overrides.keys() - CHOICES)
    if unknown:
        raise UsageError(
            f"there is no setting '{unknown[0]}' here. {did_you_mean(unknown[0], CHOICES)}"
        )
    return nearest_settings(overrides)
