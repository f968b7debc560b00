"""Read a card's TOML, strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from onnx_harness.cards.keys import TABLES, TOP_KEYS, names_of
from onnx_harness.cards.ledger import range_fault
from onnx_harness.cards.specs import (
    FAILING_STAGES,
    PRECISIONS,
    BuilderSource,
    Card,
    GenerateSpec,
    InputSpec,
    KnownFailure,
    PathSource,
    PlacementSpec,
    ToleranceSpec,
    WheelSource,
)
from onnx_harness.cards.toml import Section, read_toml
from onnx_harness.errors import CardError, NameGrammarError, did_you_mean
from onnx_harness.names import CARD_SUFFIX, model_name

__all__ = [
    "FAILING_STAGES",
    "PRECISIONS",
    "BuilderSource",
    "Card",
    "GenerateSpec",
    "InputSpec",
    "KnownFailure",
    "PathSource",
    "PlacementSpec",
    "ToleranceSpec",
    "WheelSource",
    "read",
]

# The keys that go with each kind of source.
_SOURCE_KEYS = {"wheel": {"member", "sha256"}, "builder": set[str](), "path": {"sha256"}}
_PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLACEMENT = names_of("placement")
_RECORDED = ("fail", "note")
_CPU = "cpu"  # the provider that every other falls back to


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
            section.key: _tolerance(section)
            for section in card.section("tolerance").sections()
        },
        placement=_placement(card.section("placement")),
        vacuous={entry.key: entry.own_text() for entry in card.section("vacuous").entries()},
        places={
            f"{table}.{entry.key}": entry.place()
            for table in ("tolerance", "vacuous", "placement")
            for entry in card.section(table).entries()
        },
        known_failures=tuple(
            _known_failure(section) for section in card.array("known_failure")
        ),
        least_sensitivity=_least_sensitivity(card.section("sensitivity")),
        recorded_outputs=_recorded_outputs(card.section("recorded")),
        keep_float32=_keep_float32(card.section("fp16")),
        random_seed=_random_seed(card.section("random")),
        custom_ops=_custom_ops(card),
        generate=_generate(card.section("generate")),
    )


def _source(section: Section, card: Path) -> PathSource | WheelSource | BuilderSource:
    section.allow(*names_of("source"))
    kinds = [kind for kind in _SOURCE_KEYS if kind in section.data]
    if len(kinds) > 1:
        raise section.error(
            kinds[1], f"names {len(kinds)} sources ({', '.join(kinds)}): keep one"
        )
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
            "wheel",
            f'is {requirement!r}, but should pin one version, such as "silero-vad==6.2.3"',
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
        sizes={
            size.key: size.whole_numbers() for size in section.section("sizes").entries()
        },
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
            "by",
            f"has no effect without 'sizes': say which size each value of {spec.by!r} means",
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
                "by",
                f"is {spec.by!r}, which has to be another input of this card, with 'values'",
            )
        values = {str(value) for value in inputs[spec.by].values}
        for key in sorted(values ^ set(spec.sizes)):
            gap = "has no size for it" if key in values else "isn't one of its values"
            raise this.error(
                "sizes", f"and the values of {spec.by!r} don't match: {key} {gap}"
            )


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
            "minimum",
            f"is {minimum:g}, but a share of the planted faults lies between 0 and 1",
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
        raise section.error(
            "keep_float32", f"is {list(names)!r}, but should list names of nodes"
        )
    return tuple(map(str, names))


def _generate(section: Section) -> GenerateSpec | None:
    section.allow(*names_of("generate"))
    if not section.data:
        return None
    if "prompt" not in section.data:
        raise section.error("prompt", "is missing: list the ids of the tokens to begin with")
    prompt = next(
        entry for entry in section.entries() if entry.key == "prompt"
    ).whole_numbers()
    steps = _count(section, "steps")
    if steps is None:
        raise section.error("steps", "is missing: say how many tokens to generate")
    return GenerateSpec(
        prompt=prompt,
        steps=steps,
        ids=section.text("ids"),
        logits=section.text("logits"),
        cache={pair.key: pair.own_text() for pair in section.section("cache").entries()},
        place=section.place(),
    )


def _random_seed(section: Section) -> int | None:
    section.allow(*names_of("random"))
    seed = section.number("seed")
    if seed is not None and (seed < 0 or seed != int(seed)):
        raise section.error("seed", f"is {seed:g}, but should be a whole number from 0")
    return None if seed is None else int(seed)


def _custom_ops(card: Section) -> tuple[Path, ...]:
    names = card.scalars("custom_ops")
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise card.error(
            "custom_ops", f"is {list(names)!r}, but should list files of libraries"
        )
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
        raise section.error(
            "max_memcpy", f"is {copies:g}, but should be a whole number from 0"
        )
    ops = section.scalars("allowed_cpu_ops")
    if not all(isinstance(op, str) and op.strip() for op in ops):
        raise section.error(
            "allowed_cpu_ops",
            f"is {list(ops)!r}, but should list op types, such as ['NonZero']",
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
            "versions",
            "is missing: name the distribution and the version that it was seen in",
        )
    for name, text in versions.items():
        fault = range_fault(text)
        if fault is not None:
            raise section.error(f"versions.{name}", f"is {text!r}: {fault}")
    return KnownFailure(
        variants=section.names("variants"),
        stage=stage,
        reason=section.needed_text("reason"),
        versions=versions,
        providers=section.names("providers"),
        cause=section.text("cause") or "",
        repro=section.text("repro") or "",
    )
