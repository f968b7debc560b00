"""Runs of a model, or of what was made of it, beside its reference.

Always on the CPU, gaps instead of outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import onnx_harness
from onnx_harness import providers
from onnx_harness.accuracy.measure import is_float
from onnx_harness.accuracy.noise import FEW_ELEMENTS, Gap, Noise, gaps, worst
from onnx_harness.accuracy.values import Leaf, walk
from onnx_harness.judging.reference import Reference, runtime_key
from onnx_harness.model.file import Model
from onnx_harness.providers.running import run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.cache import Cache, source_digest
from onnx_harness.results.codec import as_json

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

# A protobuf message holds at most 2 GiB: what is made of a larger model isn't handed over in
# memory.
MOST_BYTES = 1_900_000_000

# Outputs of few elements are measured in more than one draw. An ideal error that happens to be a
# fifth of its spread is nothing rare in one draw of one element, and 4 times it is then not much.
DRAWS = 3


def kept_noise(
    kind: str,
    model: Model,
    reference: Reference,
    cache: Cache,
    details: object,
    make: Callable[[], Noise],
) -> Noise:
    """Return what ``make`` measures, cached by the content of all that it depends on.

    Args:
        kind: of artifact.
        model: the untouched model.
        reference: its input sets and outputs.
        cache: where.
        details: what else decides the result; it has a JSON form.
        make: measures it.
    """
    key = cache.key(
        kind,
        model.sha256,
        [input_set.digest() for input_set in reference.sets],
        sorted(reference.unstable),
        details,
        onnx_harness.__version__,
        runtime_key(),
        source_digest(),
    )
    return cache.remember(kind, key, make, as_json(Noise), in_memory=True)


def in_memory(model: Model) -> onnx.ModelProto:
    """Load a model that is going to be changed and handed over in memory.

    Raises:
        ValueError: it is too large for that. It isn't read then.
    """
    if model.size_bytes > MOST_BYTES:
        raise ValueError("the model is too large to be changed in memory")
    return model.load()


def open_cpu(
    model: Path | onnx.ModelProto,
    level: str = "disable",
    threads: int | None = None,
    *,
    config: Mapping[str, str] | None = None,
) -> ort.InferenceSession:
    """Open a session as the reference's.

    It may have another level, other threads or further configuration entries.

    Raises:
        ValueError: a model in memory is too large to be handed over.
    """
    from onnx_harness.model.size import byte_size

    if not isinstance(model, Path):
        if byte_size(model) > MOST_BYTES:
            raise ValueError("the model is too large to be changed in memory")
        model = model.SerializeToString()
    return open_session(
        model,
        providers.get("cpu"),
        purpose=Purpose.ACCURACY,
        level=level,
        threads=threads,
        record_placement=False,
        config=config,
    )


Draw = Callable[[Mapping[str, Any], np.random.Generator], Mapping[str, Any]]


def gaps_of(
    session: ort.InferenceSession,
    reference: Reference,
    sets: Sequence[int],
    draws: Sequence[Draw] = (lambda values, _: values,),
    steps: Mapping[str, float] | None = None,
    first: int = 0,
) -> Iterator[tuple[int, dict[str, Gap]]]:
    """Run a session on some of the reference's input sets; the gap of each output in each.

    Args:
        session: of the model, or of what was made of it.
        reference: its input sets and outputs.
        sets: which of them, from 0.
        draws: what is done to the inputs, once for each run; the worst gap over them counts.
        steps: of outputs on a grid, as in `Noise`.
        first: the number of the first draw: others are other draws.
    """
    for index in sets:
        values = reference.sets[index].values
        expected = {}
        for name, value in reference.outputs[index].items():
            if name not in reference.unstable:
                expected[name] = value
        runs = []
        for number, draw in enumerate(draws, first):
            runs.append(run(session, draw(values, np.random.default_rng([index, number]))))
        yield index, worst(gaps(expected, outputs, steps) for outputs in runs)


def few_elements(reference: Reference) -> bool:
    """Decide whether some float output has so few elements that one run may be right by chance."""
    leaves = []
    for name, value in reference.outputs[0].items():
        if name not in reference.unstable:
            for part in walk(name, value, value):
                if isinstance(part, Leaf) and part.reference is not None:
                    leaves.append(part.reference)
    return any(is_float(array) and 0 < array.size <= FEW_ELEMENTS for array in leaves)


def nudged(value: Any, generator: np.random.Generator, unit: float | None = None) -> Any:
    """Every element a little up or down.

    By one unit in its last place, or by up to ``unit`` of its size.

    Whole numbers stay: they stand for something (a mask, a rate, a token), and one below 1 counts
    as 0.

    Returns:
        The same object where nothing can be moved.
    """
    if isinstance(value, list):
        changed = [nudged(item, generator, unit) for item in value]
        return (
            changed
            if any(new is not old for new, old in zip(changed, value, strict=True))
            else value
        )
    if value.dtype.kind != "f":
        return value
    stays = ~np.isfinite(value) | (value == np.floor(value))
    if stays.all():
        return value
    if unit is None:
        towards = np.where(generator.integers(0, 2, value.shape), np.inf, -np.inf).astype(
            value.dtype
        )
        moved = np.nextafter(value, towards)
    else:
        moved = (value * (1 + unit * generator.uniform(-1, 1, value.shape))).astype(
            value.dtype
        )
    return np.where(stays, value, moved)
