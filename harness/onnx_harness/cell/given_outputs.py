"""A model compared with outputs that come from elsewhere.

A framework's own forward, or golden files.

Meant for the worker. ONNX's own layout holds the golden outputs: ``test_data_set_N/input_K.pb`` and
``output_K.pb`` (https://github.com/onnx/onnx/blob/main/docs/OnnxBackendTest.md).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_harness import providers
from onnx_harness.cards.seeded import judged_file
from onnx_harness.cards.unlinked import unlinked
from onnx_harness.cell.comparison import Pair, PairOutcome, pair_reference
from onnx_harness.errors import InputError
from onnx_harness.inputs.recorded.data_sets import load_data_sets
from onnx_harness.judging.judge import judge_outputs
from onnx_harness.judging.recorded import compare_recorded
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.standard import Standard
from onnx_harness.model.file import Model
from onnx_harness.providers.running import feeds_for, run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.workbench import workbench
from onnx_harness.transforms import Precision

_STEM = "model.onnx"  # data sets are found beside a model, which needn't be there


def usual_inputs(pair: Pair) -> list[dict[str, Any]]:
    """Return the usual input sets of model A, the inputs of each by name in the graph's order."""
    model = Model(judged_file(pair.a, pair.card), "a")
    names = [info.name for info in model.signature.inputs]
    answers = pair_reference(pair, model)
    sets = [answers.sets[place].values for place in answers.everyday]
    return [{name: values[name] for name in names if name in values} for values in sets]


def output_names(path: Path) -> list[str]:
    """Return the names of a model's outputs in the graph's order."""
    return [info.name for info in Model(unlinked(path)).signature.outputs]


def compare_with_outputs(pair: Pair, outputs: Sequence[Mapping[str, Any]]) -> PairOutcome:
    """Compare model A with a framework's outputs on its usual input sets.

    The bounds are those for recorded outputs: a framework sums in another order than ONNX Runtime.

    Args:
        pair: A, where it runs, and the settings. ``b`` isn't used.
        outputs: by name, for each of :func:`usual_inputs`.
    """
    model = Model(judged_file(pair.a, pair.card), "a")
    answers = pair_reference(pair, model)
    places = answers.everyday
    sets = tuple(answers.sets[place] for place in places)
    ours = tuple(answers.outputs[place] for place in places)
    if pair.provider != "cpu":
        ours = tuple(
            _outputs(model, pair.provider, [dict(input_set.values) for input_set in sets])
        )
    usual = replace(
        answers, sets=sets, outputs=ours, recorded=tuple(dict(output) for output in outputs)
    )
    comparison = compare_recorded(model, usual, pair.card, pair.settings, workbench().cache)
    if comparison is None:
        raise InputError(
            "there is nothing to compare: no outputs were given, or the model draws all of them "
            "at random"
        )
    return PairOutcome(
        reason=comparison.reason(),
        input_sets=tuple(input_set.name for input_set in sets),
        accuracy=comparison.record,
        failures=comparison.failures,
        lines=tuple(comparison.lines()),
        notes=answers.notes,
    )


def write_snapshot(pair: Pair, folder: Path) -> int:
    """Write the usual input sets of model A and its outputs into ``folder``.

    They take the place of those that were there.

    Returns:
        The number of data sets.

    Raises:
        OSError: the folder can't be written.
    """
    model = Model(judged_file(pair.a, pair.card), "a")
    answers = pair_reference(pair, model)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("test_data_set_*"):
        shutil.rmtree(old)
    for number, place in enumerate(answers.everyday):
        target = folder / f"test_data_set_{number}"
        target.mkdir()
        _write(
            target,
            "input",
            [info.name for info in model.signature.inputs],
            answers.sets[place].values,
        )
        _write(
            target,
            "output",
            [info.name for info in model.signature.outputs],
            answers.outputs[place],
        )
    return len(answers.everyday)


def compare_with_snapshot(pair: Pair, folder: Path) -> PairOutcome:
    """Compare what model A computes now with the golden outputs in ``folder``.

    Beyond its noise they have changed.

    Raises:
        InputError: the files don't fit the model.
    """
    model = Model(judged_file(pair.a, pair.card), "a")
    data_sets = load_data_sets(folder / _STEM, model.skeleton)
    sets = tuple(data_set.inputs for data_set in data_sets)
    expected = tuple(dict(data_set.expected) for data_set in data_sets)
    ours = _outputs(model, pair.provider, [dict(input_set.values) for input_set in sets])
    standard = Standard(
        model,
        # Its noise is that of the model as it is now.
        Reference(sets, tuple(ours), frozenset()),
        pair.card,
        Precision.FP32,
        conversion=None,
        float_io=None,
        provider=pair.provider,
        exact=False,
        override=pair.settings.tolerance_override,
        kept=workbench().cache,
    )
    verdict = judge_outputs(standard, expected, model, emulated=False)
    changed = "the golden outputs (got) aren't what the model computes now (reference)"
    return PairOutcome(
        reason=None if verdict.reason is None else f"{changed}: {verdict.reason}",
        input_sets=tuple(input_set.name for input_set in sets),
        accuracy=None if verdict.comparison is None else verdict.comparison.record,
        lines=verdict.detail,
        notes=verdict.notes,
    )


def _outputs(
    model: Model, provider: str, sets: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    # The untouched model as its reference runs it; a device gets the optimizations that it can't
    # run without.
    level = "disable" if provider == "cpu" else "all"
    session = open_session(
        model.path, providers.get(provider), purpose=Purpose.ACCURACY, level=level
    )
    return [run(session, feeds_for(session, values)) for values in sets]


def _write(folder: Path, word: str, order: Sequence[str], values: Mapping[str, Any]) -> None:
    for number, name in enumerate(order):
        if name not in values:  # an input with a default, or one that is left out
            continue
        message = _message(values[name], name)
        (folder / f"{word}_{number}.pb").write_bytes(message.SerializeToString())


def _message(value: Any, name: str) -> onnx.TensorProto | onnx.SequenceProto:
    if isinstance(value, list):
        return numpy_helper.from_list(value, name)
    return numpy_helper.from_array(np.asarray(value), name)
