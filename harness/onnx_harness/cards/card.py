"""Model cards: ``NAME.model.toml`` beside or instead of a ``.onnx``."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from onnx_harness.cards.keys import TABLES, TOP_KEYS, names_of
from onnx_harness.cards.toml import Scalar, Section, read_toml
from onnx_harness.errors import CardError, NameGrammarError, did_you_mean
from onnx_harness.names import CARD_SUFFIX, model_name

# The stages of onnx_harness.results.cells.Stage that a cell can fail in. That room is on this one's
# floor; a test holds the two together.
FAILING_STAGES = ("load", "transform", "check", "session", "placement", "run", "compare", "latency")

# The keys that go with each kind of source.
_SOURCE_KEYS = {"wheel": {"member", "sha256"}, "builder": set[str](), "path": {"sha256"}}

_PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""Those of ``onnx_harness.transforms.Precision``, which a room on the same floor can't ask."""

_PLACEMENT = names_of("placement")
_RECORDED = ("fail", "note")
_CPU = "cpu"  # the provider that every other falls back to


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
        return {key: value for key, value in asdict(self).items() if key != "places"}

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
class KnownFailure:
    """``[[known_failure]]``: cells that a released library breaks. An unexpected pass is a failure.

    Attributes:
        variants: ids of the variants that fail; empty for every one.
        providers: provider names; empty for every one.
        stage: the stage that they end in.
        reason: one sentence, with the defect and whose it is.
        versions: distribution name to the version that it was seen in.
    """

    stage: str
    reason: str
    versions: Mapping[str, str]
    variants: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()


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
    custom_ops: tuple[Path, ...] = ()
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
                    at = f"{place}: " if (place := self.places.get(f"{table}.{name}")) else ""
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


def read(path: Path) -> Card:
    """Read the card in ``path``.

    Whether the model is there, and whether its inputs and outputs have the names that the card
    uses, is for later: a card is read while tests are collected, when nothing may be opened but the
    card.

    Raises:
        CardError: it isn't TOML, a key is unknown (with "did you mean"), a value has the wrong type
            or is missing.
    """
    card = read_toml(path)
    card.allow(*TABLES, *(key.name for key in TOP_KEYS))
    model = card.section("model")
    model.allow(*names_of("model"))
    inputs = {section.key: _input(section) for section in card.section("inputs").sections()}
    _check_sizes_by(card.section("inputs"), inputs)
    try:
        name = model_name(path)
    except NameGrammarError as error:
        raise CardError(f"card {path}: {error}") from None
    return Card(
        path=path,
        name=name,
        source=_source(card.section("source"), path),
        summary=model.text("summary") or "",
        license=model.text("license") or "",
        inputs=inputs,
        tolerance={
            section.key: _tolerance(section) for section in card.section("tolerance").sections()
        },
        placement=_placement(card.section("placement")),
        vacuous={entry.key: entry.own_text() for entry in card.section("vacuous").entries()},
        places={
            f"{table}.{entry.key}": entry.place()
            for table in ("tolerance", "vacuous", "placement")
            for entry in card.section(table).entries()
        },
        known_failures=tuple(_known_failure(section) for section in card.array("known_failure")),
        least_sensitivity=_least_sensitivity(card.section("sensitivity")),
        recorded_outputs=_recorded_outputs(card.section("recorded")),
        keep_float32=_keep_float32(card.section("fp16")),
        custom_ops=_custom_ops(card),
    )


def _source(section: Section, card: Path) -> PathSource | WheelSource | BuilderSource:
    section.allow(*names_of("source"))
    kinds = [kind for kind in _SOURCE_KEYS if kind in section.data]
    if len(kinds) > 1:
        raise section.error(kinds[1], f"names {len(kinds)} sources ({', '.join(kinds)}): keep one")
    kind = kinds[0] if kinds else "path"
    if not kinds and section.data and section.data.keys() != {"sha256"}:
        raise section.error(None, "names no source: it needs one of wheel, builder, path")
    for key in section.data.keys() - _SOURCE_KEYS[kind] - {kind}:
        raise section.error(key, f"has no effect beside '{kind}': remove it")
    if kind == "wheel":
        return _wheel(section)
    if kind == "builder":
        return _builder(section, card)
    default = card.name.removesuffix(CARD_SUFFIX) + ".onnx"
    return PathSource(card.parent / (section.text("path") or default), _sha256(section))


def _wheel(section: Section) -> WheelSource:
    requirement, member = section.needed_text("wheel"), section.needed_text("member")
    if not _PINNED.fullmatch(requirement):
        raise section.error(
            "wheel", f'is {requirement!r}, but should pin one version, such as "silero-vad==6.2.3"'
        )
    if member.startswith("/") or ".." in member.split("/") or member.endswith("/"):
        raise section.error(
            "member", f"is {member!r}, but should be the path of a file within the wheel"
        )
    section.needed_text("sha256")
    return WheelSource(requirement, member, _sha256(section) or "")


def _builder(section: Section, card: Path) -> BuilderSource:
    file, colon, function = section.needed_text("builder").rpartition(":")
    if not colon or not file.endswith(".py") or not function.isidentifier():
        raise section.error(
            "builder", 'should name a file and a function, such as "builders.py:bn_cnn"'
        )
    return BuilderSource(card.parent / file, function)


def _sha256(section: Section) -> str | None:
    digest = section.text("sha256")
    if digest is not None and not _SHA256.fullmatch(digest.lower()):
        raise section.error("sha256", f"is {digest!r}, but should be 64 hexadecimal digits")
    return digest.lower() if digest else None


def _input(section: Section) -> InputSpec:
    section.allow(*names_of("inputs"))
    spec = InputSpec(
        generator=section.text("generator"),
        values=section.scalars("values"),
        low=section.number("low"),
        high=section.number("high"),
        shapes=section.shapes("shapes"),
        sizes={size.key: size.whole_numbers() for size in section.section("sizes").entries()},
        by=section.text("by"),
        places={key: section.place(key) for key in section.data} | {"": section.place()},
    )
    if spec.values:
        for key in ("generator", "low", "high"):
            if key in section.data:
                raise section.error(key, "has no effect beside 'values': remove one of them")
    if spec.shapes and spec.sizes:
        raise section.error("sizes", "has no effect beside 'shapes': remove one of them")
    if spec.by is not None and not spec.sizes:
        raise section.error(
            "by", f"has no effect without 'sizes': say which size each value of {spec.by!r} means"
        )
    if spec.low is not None and spec.high is not None and spec.low > spec.high:
        raise section.error("low", f"is {spec.low:g}, above high = {spec.high:g}")
    return spec


def _check_sizes_by(section: Section, inputs: Mapping[str, InputSpec]) -> None:
    """A size is looked up by the other input's value, so each of its values has to have one."""
    for name, spec in inputs.items():
        if spec.by is None:
            continue
        this = section.section(name)
        if spec.by == name or spec.by not in inputs or not inputs[spec.by].values:
            raise this.error(
                "by", f"is {spec.by!r}, which has to be another input of this card, with 'values'"
            )
        values = {str(value) for value in inputs[spec.by].values}
        for key in sorted(values ^ set(spec.sizes)):
            gap = "has no size for it" if key in values else "isn't one of its values"
            raise this.error("sizes", f"and the values of {spec.by!r} don't match: {key} {gap}")


def _tolerance(section: Section) -> ToleranceSpec:
    section.allow(*names_of("tolerance"), *PRECISIONS)
    by_precision = {}
    for precision in PRECISIONS:
        if precision in section.data:
            inner = section.section(precision)
            inner.allow(*names_of("tolerance"))
            by_precision[precision] = _bounds(inner, {})
    spec = _bounds(section, by_precision)
    if spec.rtol is not None and spec.atol is None:
        raise section.error(
            "rtol", "stands without atol: give both, as on the command line, or atol alone"
        )
    return spec


def _bounds(section: Section, by_precision: Mapping[str, ToleranceSpec]) -> ToleranceSpec:
    spec = ToleranceSpec(
        rtol=section.number("rtol"),
        atol=section.number("atol"),
        sqnr_db=section.number("sqnr_db"),
        signed_zero=section.flag("signed_zero"),
        cosine=section.number("cosine"),
        top_k=_count(section, "top_k"),
        agreement=section.number("agreement"),
        by_precision=by_precision,
    )
    for key, share, least in (("cosine", spec.cosine, -1), ("agreement", spec.agreement, 0)):
        if share is not None and not least <= share <= 1:
            raise section.error(key, f"is {share:g}, but should be between {least} and 1")
    for key, value in (("rtol", spec.rtol), ("atol", spec.atol)):
        if value is not None and value < 0:
            raise section.error(key, f"is {value:g}, but a tolerance can't be negative")
    return spec


def _least_sensitivity(section: Section) -> float | None:
    section.allow(*names_of("sensitivity"))
    minimum = section.number("minimum")
    if minimum is not None and not 0 <= minimum <= 1:
        raise section.error(
            "minimum", f"is {minimum:g}, but a share of the planted faults lies between 0 and 1"
        )
    return minimum


def _recorded_outputs(section: Section) -> str:
    section.allow(*names_of("recorded"))
    choice = section.text("outputs") or _RECORDED[0]
    if choice not in _RECORDED:
        raise section.error("outputs", f"is {choice!r}. {did_you_mean(choice, _RECORDED)}")
    return choice


def _keep_float32(section: Section) -> tuple[str, ...]:
    section.allow(*names_of("fp16"))
    names = section.scalars("keep_float32")
    if not all(isinstance(name, str) and name for name in names):
        raise section.error("keep_float32", f"is {list(names)!r}, but should list names of nodes")
    return tuple(map(str, names))


def _custom_ops(card: Section) -> tuple[Path, ...]:
    names = card.scalars("custom_ops")
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise card.error("custom_ops", f"is {list(names)!r}, but should list files of libraries")
    return tuple((card.file.parent / str(name)).absolute() for name in names)


def _placement(section: Section) -> PlacementSpec:
    tables = []
    for key, value in section.data.items():
        if isinstance(value, dict) and key not in _PLACEMENT:
            tables.append(key)
    if _CPU in tables:
        raise section.error(
            _CPU,
            "has no effect: nothing stands behind the CPU provider, which has to run every node",
        )
    section.allow(*_PLACEMENT, *tables)
    spec = _asked(section)
    inner = {key: section.section(key) for key in tables}
    for table in inner.values():
        table.allow(*_PLACEMENT)
    return replace(spec, by_provider={key: _asked(table) for key, table in inner.items()})


def _asked(section: Section) -> PlacementSpec:
    shares = {key: section.number(key) for key in ("min_share", "min_time_share")}
    for key, value in shares.items():
        if value is not None and not 0 <= value <= 1:
            raise section.error(key, f"is {value:g}, but a share lies between 0 and 1")
    copies = section.number("max_memcpy")
    if copies is not None and (copies < 0 or copies != int(copies)):
        raise section.error("max_memcpy", f"is {copies:g}, but should be a whole number from 0")
    ops = section.scalars("allowed_cpu_ops")
    if not all(isinstance(op, str) and op.strip() for op in ops):
        raise section.error(
            "allowed_cpu_ops", f"is {list(ops)!r}, but should list op types, such as ['NonZero']"
        )
    return PlacementSpec(
        min_share=shares["min_share"],
        min_time_share=shares["min_time_share"],
        max_memcpy=None if copies is None else int(copies),
        allowed_cpu_ops=tuple(str(op) for op in ops),
    )


def _count(section: Section, key: str) -> int | None:
    number = section.number(key)
    if number is not None and (number < 1 or number != int(number)):
        raise section.error(key, f"is {number:g}, but should be a whole number, 1 or more")
    return None if number is None else int(number)


def _known_failure(section: Section) -> KnownFailure:
    section.allow(*names_of("known_failure"))
    stage = section.needed_text("stage")
    if stage not in FAILING_STAGES:
        raise section.error("stage", f"is {stage!r}. {did_you_mean(stage, FAILING_STAGES)}")
    versions = {}
    for version in section.section("versions").entries():
        versions[version.key] = version.own_text()
    if not versions:
        raise section.error(
            "versions", "is missing: name the distribution and the version that it was seen in"
        )
    return KnownFailure(
        variants=section.names("variants"),
        stage=stage,
        reason=section.needed_text("reason"),
        versions=versions,
        providers=section.names("providers"),
    )
