"""Model cards: ``NAME.model.toml`` beside or instead of a ``.onnx``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class WheelSource:
    """``[source] wheel = "silero-vad==6.2.3"``, ``member = …``, ``sha256 = …`` (of the member)."""

    requirement: str
    member: str
    sha256: str


@dataclass(frozen=True, slots=True)
class BuilderSource:
    """``[source] builder = "builders.py:bn_cnn"``: a function in a file beside the card.

    It's called with the path that it must write the ``.onnx`` to.
    """

    file: Path
    function: str


@dataclass(frozen=True, slots=True)
class PathSource:
    """``[source] path = "exports/model.onnx"``, relative to the card; the default is ``NAME.onnx`` beside it."""

    path: Path
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class InputSpec:
    """``[inputs.NAME]``: what can't be inferred from the graph.

    Attributes:
        generator: name of a signal generator (``normal``, ``uniform``, ``audio``, ``page``, ``tokens``, …).
        values: input set k is filled with ``values[k % len(values)]``.
        low: inclusive lower bound of generated values.
        high: inclusive upper bound.
        shapes: input set k takes ``shapes[k % len(shapes)]``.
        sizes: without ``by``: a dim_param or an axis number to the sizes it rotates through; with ``by``: a value
            of that other input, as text, to the size of this input's last axis.
        by: the name of the input whose value decides the size.
    """

    generator: str | None = None
    values: tuple[Scalar, ...] = ()
    low: float | None = None
    high: float | None = None
    shapes: tuple[tuple[int, ...], ...] = ()
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    by: str | None = None


@dataclass(frozen=True, slots=True)
class ToleranceSpec:
    """``[tolerance.OUTPUT]``, or ``[tolerance."*"]`` for every output; what is None keeps its default."""

    rtol: float | None = None
    atol: float | None = None
    sqnr_db: float | None = None
    signed_zero: bool | None = None


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """``[[known_failure]]``: cells that a released library breaks. An unexpected pass is a failure.

    Attributes:
        variants: ids of the variants that fail.
        providers: provider names; empty for every one.
        stage: the stage that they end in.
        reason: one sentence, with the defect and whose it is.
        versions: distribution name to the version that it was seen in.
    """

    variants: tuple[str, ...]
    stage: str
    reason: str
    versions: Mapping[str, str]
    providers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """A model card, read and checked.

    Attributes:
        path: the card's file.
        name: of the model, from the file's name.
        license: SPDX expression.
    """

    path: Path
    name: str
    source: PathSource | WheelSource | BuilderSource
    summary: str = ""
    license: str = ""
    inputs: Mapping[str, InputSpec] = field(default_factory=dict)
    tolerance: Mapping[str, ToleranceSpec] = field(default_factory=dict)
    known_failures: tuple[KnownFailure, ...] = ()


def read(path: Path) -> Card:
    """Read the card in ``path``.

    Raises:
        CardError: it isn't TOML, a key is unknown (with "did you mean"), a value has the wrong type or is missing.
    """
    raise NotImplementedError
