"""Build the matrix of a run's cells: models by variants by providers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from onnx_harness import providers, transforms
from onnx_harness.cards import card as cards
from onnx_harness.cards.card import Card, KnownFailure, PathSource
from onnx_harness.errors import CardError, ModelError, UsageError, did_you_mean
from onnx_harness.names import (
    CARD_SUFFIX,
    ORIGINAL,
    Variant,
    cell_id,
    distinct_names,
    is_model_file,
    model_name,
    parse_variant,
)
from onnx_harness.transforms.variant import bind_variant

DEFAULT = (
    ORIGINAL,
    "optimize",
    "simplify",
    "simplify+optimize",
    "fp16.io32",
    "simplify+fp16.io32",
)
_FOUNDATION = frozenset({"onnx", "onnx-ir", "onnxruntime"})
GROUPS = ("default", "passes", "ort", "fp16", "int8", "peers", "all")


@dataclass(frozen=True, slots=True)
class Cell:
    """One model in one variant on one provider."""

    card: Card
    variant: Variant
    provider: str

    @property
    def id(self) -> str:
        """The key of its history."""
        return cell_id(self.card.name, self.variant.id, self.provider)

    @property
    def known_failure(self) -> KnownFailure | None:
        """The card's entry for this cell, if it has one."""
        for entry in self.card.known_failures:
            of_variant = not entry.variants or self.variant.id in entry.variants
            if of_variant and (not entry.providers or self.provider in entry.providers):
                return entry
        return None


def named_card(path: Path) -> Card:
    """The card of a model that somebody named: see :func:`card_for`.

    Raises:
        ModelError: there is no such file.
        CardError: the card can't be read.
    """
    if path.is_dir():
        inside = sorted(file.name for file in path.iterdir() if is_model_file(file))
        mend = (
            f"name one of its models: {', '.join(inside[:8])}"
            if inside
            else "it holds no model"
        )
        raise ModelError(f"{path} is a folder; {mend}")
    if not path.exists():
        folder = path.parent
        near = (
            [file.name for file in folder.iterdir() if is_model_file(file)]
            if folder.is_dir()
            else []
        )
        hint = f" {did_you_mean(path.name, near)}" if near else ""
        raise ModelError(f"there is no file {path}.{hint}")
    return card_for(path)


def card_for(path: Path) -> Card:
    """The card of a model file: itself, the one beside a ``.onnx``, or a blank one.

    A ``.onnx`` is what is judged even where the card beside it describes another source, such as a
    wheel.

    Raises:
        CardError: the card can't be read.
    """
    if path.name.endswith(CARD_SUFFIX):
        return cards.read(path)
    neighbour = card_beside(path)
    if neighbour.is_file():
        card = cards.read(neighbour)
        if (
            isinstance(card.source, PathSource)
            and card.source.path.resolve() == path.resolve()
        ):
            return card
        return replace(card, source=PathSource(path))
    return Card(path=path, name=model_name(path), source=PathSource(path))


def card_or_problem(path: Path) -> Card:
    """Return the card as :func:`card_for` does.

    A blank one with the problem where it can't be read.
    """
    try:
        return card_for(path)
    except CardError as error:
        file = path if path.name.endswith(CARD_SUFFIX) else card_beside(path)
        return Card(
            path=file, name=model_name(path), source=PathSource(path), problem=str(error)
        )


def with_distinct_names(cards: Iterable[Card], folders: Iterable[Path]) -> dict[Path, Card]:
    """Return the cards by path, renamed where stems repeat.

    See :func:`onnx_harness.names.distinct_names`.

    Args:
        cards: of a run.
        folders: whose models are known beside those of the run: a name mustn't hang on which of
            them a run has.
    """
    by_path = {card.path: card for card in cards}
    paths = dict.fromkeys(by_path)
    for folder in folders:
        if any(path.is_relative_to(folder) for path in by_path):
            paths |= dict.fromkeys(map(_card_path, models_below(folder)))
    names = distinct_names(paths)
    return {path: replace(card, name=names[path]) for path, card in by_path.items()}


def models_below(folder: Path) -> list[Path]:
    """Return the models and cards in a folder and in those below it, sorted."""
    paths = []
    for path in folder.rglob("*"):
        if is_model_file(path) and path.is_file():
            paths.append(path)
    return sorted(paths)


def _card_path(path: Path) -> Path:
    neighbour = path if path.name.endswith(CARD_SUFFIX) else card_beside(path)
    return neighbour if neighbour.is_file() else path


def card_beside(path: Path) -> Path:
    """Where the card of a ``.onnx`` would lie."""
    return path.with_name(path.name.removesuffix(".onnx") + CARD_SUFFIX)


def expand_variants(words: Iterable[str], named: Mapping[str, str]) -> tuple[Variant, ...]:
    """The variants that ``words`` ask for, each once, in order.

    Args:
        words: variants, names of ``named`` ones, and groups.
        named: the project's own variants.

    Raises:
        UsageError: a word is none of these, needs a library that isn't installed, asks for two
            optimization levels, or names an empty group; a project's own variant has a name that is
            taken.
    """
    for name in named:
        if name in GROUPS or name == ORIGINAL or name in transforms.registry():
            raise UsageError(
                f"the project's variant '{name}' is called as one that is built in: give it "
                f"another name"
            )
    variants_by_id: dict[str, Variant] = {}
    for word in words:
        if word in GROUPS:
            chosen = _group(word, named)
            if not chosen:
                raise UsageError(f"the group '{word}' has no variant that can run here")
        else:
            chosen = [_variant(word, named)]
            _refuse_uninstalled(chosen[0])
        for variant in chosen:
            first = variants_by_id.setdefault(variant.id, variant)
            if first.steps != variant.steps:
                raise UsageError(
                    f"'{first.spelling}' and '{variant.spelling}' would both be called "
                    f"'{variant.id}'. Ids are keys of "
                    "history: give one of them another name in [tool.onnx-harness.variants]"
                )
    return tuple(variants_by_id.values())


def upstream(variant: Variant) -> tuple[str, ...]:
    """The distributions of others that decide what ``variant`` makes of a model.

    Those that ours are built on aren't.

    What such a library breaks is its defect, not one of this package or of the model.
    """
    needed = []
    for step in variant.steps:
        for name in transforms.registry()[step.name].requires:
            needed.append(name)
    return tuple(dict.fromkeys(name for name in needed if name not in _FOUNDATION))


def check_providers(names: Iterable[str]) -> tuple[str, ...]:
    """The provider names, each once, in order.

    Raises:
        UsageError: there's no such provider.
    """
    return tuple(dict.fromkeys(providers.get(name).name for name in names))


def _variant(word: str, named: Mapping[str, str]) -> Variant:
    if word in named:
        try:
            return _checked(parse_variant(named[word], id=word))
        except UsageError as error:
            raise UsageError(
                f"the project's variant '{word}' ({named[word]}): {error}"
            ) from None
    variant = parse_variant(word)
    registered = transforms.registry()
    if (
        len(variant.steps) == 1
        and variant.steps[0].name not in registered
        and not variant.steps[0].options
    ):
        everything = {*registered, *named, *GROUPS, ORIGINAL}
        words = (
            f"there is no variant or group '{word}'.",
            did_you_mean(word, everything),
            *transforms.left_out(),
        )
        raise UsageError(" ".join(words))
    return _checked(variant)


def _checked(variant: Variant) -> Variant:
    bind_variant(variant)
    return variant


def _group(group: str, named: Mapping[str, str]) -> list[Variant]:
    if group == "all":
        words = [*DEFAULT, *transforms.registry(), *named]
    elif group == "default":
        words = [*DEFAULT]
    else:
        words = []
        for name, transform in transforms.registry().items():
            if group in transform.groups:
                words.append(name)
    variants = [_variant(word, named) for word in dict.fromkeys(words)]
    return [variant for variant in variants if not _uninstalled(variant)]


def _uninstalled(variant: Variant) -> list[str]:
    missing = []
    for step in variant.steps:
        for distribution in transforms.registry()[step.name].requires:
            try:
                version(distribution)
            except PackageNotFoundError:
                missing.append(distribution)
    return [*dict.fromkeys(missing)]


def _refuse_uninstalled(variant: Variant) -> None:
    missing = _uninstalled(variant)
    if missing:
        raise UsageError(
            f"variant '{variant.id}' needs {' and '.join(missing)}, not installed here. "
            f"Mend: pip install {' '.join(missing)}"
        )
