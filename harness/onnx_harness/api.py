"""The harness as a library: a verdict for a test of one's own, found in a worker process, without pytest."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness import providers
from onnx_harness.cards import fetch
from onnx_harness.cell.comparison import Pair
from onnx_harness.cell.matrix import Cell, expand_variants, named_card
from onnx_harness.errors import InputError, ProviderError, UsageError
from onnx_harness.providers.probe import refusal
from onnx_harness.results.cells import OutputAccuracy, Status
from onnx_harness.run.pair import compare_pair
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings, nearest_settings

if TYPE_CHECKING:
    import onnx

    ModelLike = str | os.PathLike[str] | onnx.ModelProto
    InputsLike = str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to whether a model still computes what the untouched one does. True in a condition when it does.

    Attributes:
        status: as in results.json: ``pass``, ``fail``, ``error`` or ``not_applicable``.
        reason: one sentence; None for a pass.
        outputs: the figures of each output, by name; empty where nothing could be compared.
        detail: further lines for a person.
        notes: remarks on a verdict that stands.
        subject: what was judged: model, variant and provider, or the two models.
    """

    status: Status
    reason: str | None = None
    outputs: Mapping[str, OutputAccuracy] = field(default_factory=dict)
    detail: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    subject: str = ""

    def __bool__(self) -> bool:
        return self.status is Status.PASS

    def report(self) -> str:
        """The verdict in lines, for the message of an assertion."""
        lines = [f"{self.subject}: {self.status.value}" + (f": {self.reason}" if self.reason else "")]
        lines += [f"  {line}" for line in self.detail]
        lines += [f"  output {name}: {_figures(output)}" for name, output in self.outputs.items()]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def verify(
    model: ModelLike,
    *,
    variant: str = "simplify",
    candidate: ModelLike | None = None,
    provider: str = "cpu",
    inputs: InputsLike | None = None,
    **settings: Any,
) -> Verdict:
    """Judge what a variant makes of a model, or somebody's candidate, as ``pytest MODEL --variant V`` does.

    Args:
        model: the untouched one: a ``.onnx``, a card, or a ModelProto.
        variant: a chain of steps, such as ``simplify+fp16.io32``. Not used where there is a candidate.
        candidate: the model that should compute the same, where it is at hand.
        provider: the execution provider to judge on.
        inputs: used instead of generated ones: an array by input name, a sequence of such mappings, or a ``.npz``.
        settings: of :class:`onnx_harness.settings.Settings`: ``input_sets``, ``seed``, ``rtol`` and ``atol``,
            ``min_placement``, ``cell_timeout`` (seconds), ``cell_memory`` (bytes). Others are those of the nearest
            pyproject.toml.

    Raises:
        UsageError: there's no such variant, provider or setting.
        ProviderError: the provider can't be used here.
        ModelError: there is no such file, or the untouched model can't be read or doesn't run.
        InputError: no inputs can be had, or the given ones don't fit.
    """
    if candidate is not None:
        return compare(model, candidate, provider=provider, inputs=inputs, **settings)
    chosen = _settings(settings)
    with _files(model, inputs) as (path, recorded):
        variants = expand_variants([variant], chosen.variants)
        if len(variants) != 1:
            names = ", ".join(member.id for member in variants[:6])
            raise UsageError(f"'{variant}' is a group of variants; name one, such as {names}")
        cell = Cell(named_card(path), variants[0], providers.get(provider).name)
        runner = Runner(chosen, recorded=recorded)
        try:
            if cell.provider != "cpu" and not (availability := runner.probe(cell.provider)).usable:
                raise ProviderError(refusal(availability))
            result = runner.judge(cell)
        finally:
            runner.close()
    return Verdict(
        result.status,
        result.reason,
        {} if result.accuracy is None else result.accuracy.outputs,
        result.detail,
        result.notes,
        cell.id,
    )


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
    chosen = _settings(settings)
    with _files(a, inputs) as (path_a, recorded), _files(b, None) as (path_b, _):
        card, other = named_card(path_a), named_card(path_b)
        files = fetch.materialize(card), fetch.materialize(other)
        pair = Pair(*files, card, providers.get(provider).name, recorded, float16_io, chosen)
        outcome = compare_pair(pair)
    return Verdict(
        Status.PASS if outcome.reason is None else Status.FAIL,
        outcome.reason,
        {} if outcome.accuracy is None else outcome.accuracy.outputs,
        outcome.lines,
        outcome.notes,
        f"{path_b.name} compared with {path_a.name} on {pair.provider}",
    )


def _settings(overrides: Mapping[str, Any]) -> Settings:
    unknown = sorted(overrides.keys() - _SETTINGS)
    if unknown:
        raise UsageError(f"there is no setting '{unknown[0]}' here; there are {', '.join(sorted(_SETTINGS))}")
    return nearest_settings(overrides)


_SETTINGS = frozenset({"input_sets", "seed", "rtol", "atol", "min_placement", "cell_timeout", "cell_memory"})


@contextlib.contextmanager
def _files(model: ModelLike, inputs: InputsLike | None) -> Iterator[tuple[Path, Path | None]]:
    """The files that a worker process reads: the model's, and that of the given inputs."""
    with tempfile.TemporaryDirectory(prefix="onnx-harness-") as scratch:
        folder = Path(scratch)
        yield _model_file(model, folder), None if inputs is None else _inputs_file(inputs, folder)


def _model_file(model: ModelLike, folder: Path) -> Path:
    if isinstance(model, str | os.PathLike):
        return Path(model)
    from onnx_harness.model.saving import save

    file = folder / "model.onnx"
    save(model, file)
    return file


def _inputs_file(inputs: InputsLike, folder: Path) -> Path:
    if isinstance(inputs, str | os.PathLike):
        file = Path(inputs)
        if not file.is_file():
            raise InputError(f"there is no file {file}")
        return file
    import numpy as np

    from onnx_harness.inputs.recorded.npz import save_npz
    from onnx_harness.inputs.values.sets import InputSet

    groups = [inputs] if isinstance(inputs, Mapping) else list(inputs)
    sets = []
    for number, group in enumerate(groups):
        values = {name: value if _is_sequence(value) else np.asarray(value) for name, value in group.items()}
        sets.append(InputSet(f"given {number}", values))
    file = folder / "inputs.npz"
    save_npz(file, sets)
    return file


def _is_sequence(value: Any) -> bool:
    """Whether a value is for an input that takes a sequence of tensors; a list of numbers is one tensor."""
    import numpy as np

    return isinstance(value, list) and all(isinstance(item, np.ndarray) for item in value)


def _figures(output: OutputAccuracy) -> str:
    known = {"max abs": output.max_abs, "relative L2": output.rel_l2, "rtol": output.rtol, "atol": output.atol}
    return ", ".join(f"{name} {value:.2g}" for name, value in known.items() if value is not None)
