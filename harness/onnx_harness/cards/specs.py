"""The records of a card: where a model comes from, its inputs, tolerances and placement."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from onnx_harness.cards.toml import Scalar
from onnx_harness.errors import CardError, did_you_mean

# The stages of onnx_harness.results.cells.Stage that a cell can fail in. That room is on this one's
# floor; a test holds the two together.
FAILING_STAGES = (
    "load",
    "transform",
    "check",
    "session",
    "placement",
    "run",
    "compare",
    "latency",
)


PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""Those of ``onnx_harness.transforms.Precision``, which a room on the same floor can't ask."""


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
    """``[source] path = "exports/model.onnx"``, relative to the card.

    The default is ``NAME.onnx`` beside it.
    """

    path: Path
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class InputSpec:
    """``[inputs.NAME]``: what can't be inferred from the graph.

    Attributes:
        generator: name of a signal generator (``normal``, ``uniform``, ``audio``, ``page``,
            ``tokens``, …).
        values: input set k is filled with ``values[k % len(values)]``.
        low: inclusive lower bound of generated values.
        high: inclusive upper bound.
        shapes: input set k takes ``shapes[k % len(shapes)]``.
        sizes: without ``by``: a dim_param or an axis number to the sizes it rotates through; with
            ``by``: a value of that other input, as text, to the size of this input's last axis.
        by: the name of the input whose value decides the size.
        problem: why the card's file can't be read; empty for a card in order. Its model fails, and
            no other.
        places: for messages: where each key stands, such as ``card m.model.toml, line 7``; ``""``
            is the whole.
    """

    generator: str | None = None
    values: tuple[Scalar, ...] = ()
    low: float | None = None
    high: float | None = None
    shapes: tuple[tuple[int, ...], ...] = ()
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    by: str | None = None
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def said(self) -> dict[str, object]:
        """Return what it says, without where."""
        values: dict[str, object] = {}
        for key, value in asdict(self).items():
            if key != "places":
                values[key] = value
        return values

    def place(self, key: str = "") -> str:
        """Where ``key`` stands, in front of a message about it.

        Nothing for a spec that no card holds.
        """
        where = self.places.get(key) or self.places.get("", "")
        return f"{where}: " if where else ""


@dataclass(frozen=True, slots=True)
class ToleranceSpec:
    """``[tolerance.OUTPUT]``, or ``[tolerance."*"]`` for every output.

    What is None keeps its default.

    Attributes:
        cosine: least cosine of the angle to the reference.
        top_k: how many of the greatest elements along the last axis have to be the reference's.
        agreement: the share of rows in which they have to be.
        by_precision: ``[tolerance.OUTPUT.fp16]`` and the like: what holds for variants of that
            precision alone.
    """

    rtol: float | None = None
    atol: float | None = None
    sqnr_db: float | None = None
    signed_zero: bool | None = None
    cosine: float | None = None
    top_k: int | None = None
    agreement: float | None = None
    by_precision: Mapping[str, ToleranceSpec] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlacementSpec:
    """``[placement]``: what is asked of any provider but the CPU's own.

    What is None isn't asked beyond its default.

    Attributes:
        min_share: of the nodes, the share that the provider must own, in [0, 1].
        min_time_share: of the time in kernels, the share that it must have, in [0, 1].
        max_memcpy: how many nodes may copy between its memory and the host's.
        allowed_cpu_ops: op types that may lie on the CPU without counting against it, beside those
            that compute shapes; outside the standard domain as ``domain:op``.
        by_provider: ``[placement.webgpu]`` and the like: what holds for that provider, in the place
            of the others; the allowed op types come on top.
    """

    min_share: float | None = None
    min_time_share: float | None = None
    max_memcpy: int | None = None
    allowed_cpu_ops: tuple[str, ...] = ()
    by_provider: Mapping[str, PlacementSpec] = field(default_factory=dict)

    def of(self, provider: str) -> PlacementSpec:
        """Return what is asked of one provider."""
        own = self.by_provider.get(provider)
        if own is None:
            return self
        return PlacementSpec(
            min_share=self.min_share if own.min_share is None else own.min_share,
            min_time_share=self.min_time_share
            if own.min_time_share is None
            else own.min_time_share,
            max_memcpy=self.max_memcpy if own.max_memcpy is None else own.max_memcpy,
            allowed_cpu_ops=(*self.allowed_cpu_ops, *own.allowed_cpu_ops),
        )


@dataclass(frozen=True, slots=True)
class GenerateSpec:
    """``[generate]``: greedy decoding of a decoder, its cache of keys and values fed back.

    Attributes:
        prompt: ids of the tokens that it begins with.
        steps: how many tokens are generated.
        ids: the input that takes tokens; None: found by its name and type.
        logits: the output with a score for each token of the vocabulary; None: found likewise.
        cache: inputs of the cache to the outputs that are fed back to them; those that aren't
            named are found by the patterns of the usual exporters.
        place: for messages: where the table stands.
    """

    prompt: tuple[int, ...]
    steps: int
    ids: str | None = None
    logits: str | None = None
    cache: Mapping[str, str] = field(default_factory=dict)
    place: str = field(default="", compare=False, repr=False)

    def said(self) -> dict[str, object]:
        """Return what it says, without where."""
        return {key: value for key, value in asdict(self).items() if key != "place"}


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """``[[known_failure]]``: cells that a released library breaks. An unexpected pass is a failure.

    Attributes:
        variants: ids of the variants that fail; empty for every one.
        providers: provider names; empty for every one.
        stage: the stage that they end in.
        reason: one sentence, with the defect and whose it is.
        versions: distribution name to the version that it was seen in, or to the range of
            versions that it's known of: see `onnx_harness.cards.ledger`.
        cause: what `onnx-harness diagnose` found; empty where nobody asked.
        repro: a folder with the smallest model that shows it, relative to the card, or an address.
    """

    stage: str
    reason: str
    versions: Mapping[str, str]
    variants: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    cause: str = ""
    repro: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """A model card, read and checked.

    Attributes:
        path: the card's file.
        name: of the model, from the file's name.
        license: SPDX expression.
        suite: the suite of test cases that the model is one of; empty for a model of its own. A
            case is judged on its recorded input sets alone, and only where ONNX Runtime gives the
            outputs that are recorded beside them.
        least_sensitivity: ``[sensitivity] minimum``: the share of planted faults, equivalent ones
            excluded, that a cell has to catch under ``--sensitivity``; None: any.
        vacuous: ``[vacuous] OUTPUT = "why"``: outputs that may say nothing about the inputs, each
            with the reason.
        recorded_outputs: ``[recorded] outputs``: what it is if the untouched model misses outputs
            recorded beside it: ``fail``, of its ``original`` cell, or ``note``.
        keep_float32: ``[fp16] keep_float32``: names of nodes that every conversion to float16
            leaves in float32.
        generate: the greedy decoding that every cell of the model is judged by too; None: none.
        random_seed: ``[random] seed``: of the values that take the place of what the model draws
            at random; None: it draws.
        custom_ops: ``custom_ops``, above the tables: libraries of custom operators, relative to the
            card in its file.
        places: for messages: where each ``tolerance.OUTPUT``, ``vacuous.OUTPUT`` and
            ``placement.PROVIDER`` stands.
    """

    path: Path
    name: str
    source: PathSource | WheelSource | BuilderSource
    summary: str = ""
    license: str = ""
    inputs: Mapping[str, InputSpec] = field(default_factory=dict)
    tolerance: Mapping[str, ToleranceSpec] = field(default_factory=dict)
    placement: PlacementSpec = PlacementSpec()
    known_failures: tuple[KnownFailure, ...] = ()
    suite: str = ""
    least_sensitivity: float | None = None
    vacuous: Mapping[str, str] = field(default_factory=dict)
    recorded_outputs: str = "fail"
    keep_float32: tuple[str, ...] = ()
    random_seed: int | None = None
    custom_ops: tuple[Path, ...] = ()
    generate: GenerateSpec | None = None
    problem: str = ""
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def check_outputs(self, outputs: Collection[str]) -> None:
        """Hold what the card says of outputs against the model's.

        Raises:
            CardError: it names an output that the model doesn't have; the message names key and
                line.
        """
        for table, names in (("tolerance", self.tolerance), ("vacuous", self.vacuous)):
            for name in names:
                if name != "*" and name not in outputs:
                    at = (
                        f"{place}: " if (place := self.places.get(f"{table}.{name}")) else ""
                    )
                    suggestion = did_you_mean(name, outputs)
                    raise CardError(
                        f"{at}{table}.{name}: the model has no output '{name}'. {suggestion}"
                    )

    def check_providers(self, providers: Collection[str]) -> None:
        """Hold the providers of ``[placement.PROVIDER]`` against those there are.

        Raises:
            CardError: there is no such provider; the message names key and line.
        """
        for name in self.placement.by_provider:
            if name not in providers:
                at = f"{place}: " if (place := self.places.get(f"placement.{name}")) else ""
                suggestion = did_you_mean(name, providers)
                raise CardError(
                    f"{at}placement.{name} is neither a key nor an execution provider. {suggestion}"
                )

    def digest(self) -> str:
        """Return the SHA-256, in hexadecimal, of what the card demands.

        That is what it says about inputs, tolerances, placement and known failures.

        Where the model comes from isn't part of it: the model has a hash of its own. Values left at
        their defaults don't count, so that a card keeps its hash when this package learns a new
        key.
        """
        said: list[object] = [
            {name: _said(spec.said()) for name, spec in self.inputs.items()},
            {output: _said(asdict(spec)) for output, spec in self.tolerance.items()},
            [_said(asdict(entry)) for entry in self.known_failures],
        ]
        if self.placement != PlacementSpec():
            said.append(_said(asdict(self.placement)))
        if self.recorded_outputs != "fail":
            said.append({"recorded": self.recorded_outputs})
        if self.keep_float32:
            said.append({"keep_float32": list(self.keep_float32)})
        if self.generate is not None:
            said.append({"generate": _said(self.generate.said())})
        if self.random_seed is not None:
            said.append({"random_seed": self.random_seed})
        text = json.dumps(said, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _said(value: object) -> object:
    """``value`` without what is empty, as JSON has it."""
    if isinstance(value, Mapping):
        fields = {}
        for key, item in value.items():
            if item not in (None, (), {}, ""):
                fields[str(key)] = _said(item)
        return fields
    return [_said(item) for item in value] if isinstance(value, tuple) else value
