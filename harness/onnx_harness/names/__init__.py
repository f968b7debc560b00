"""Ids and their grammar: model names, variants and their steps, cells.

Ids are the keys of history. Names match ``[a-z0-9_.]+``, so that ``-`` and ``+`` stay separators.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath

from onnx_harness.errors import NameGrammarError

ORIGINAL = "original"
CARD_SUFFIX = ".model.toml"
REPRO_FOLDER = "repro"  # of a report folder: the models of failing cells

OptionValue = bool | int | float | str | tuple[str, ...]

_NAME = re.compile(r"[a-z0-9_.]+")
_NOT_NAME = re.compile(r"[^a-z0-9_.]+")
# What splits a chain, and the quoted text in which nothing does.
_MARK = re.compile(r"""[()+]|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""", re.DOTALL)
_CONTENT_HASH = re.compile(r"[0-9a-f]{20,}")
# As TOML and JSON write them; a step's own spelling and id have Python's.
_TRUTH = {"true": True, "false": False}
# Letters of an option in an id: a chain of several still makes a file name.
_READABLE_OPTION = 40


@dataclass(frozen=True, slots=True)
class Step:
    """One transform of a variant's chain, with the options that were written in parentheses."""

    name: str
    options: tuple[tuple[str, OptionValue], ...] = ()

    def __str__(self) -> str:
        if not self.options:
            return self.name
        options = ", ".join(f"{key}={_written(value)}" for key, value in self.options)
        return f"{self.name}({options})"


@dataclass(frozen=True, slots=True)
class Variant:
    """An ordered chain of steps. ``original`` is the empty chain.

    Attributes:
        id: what cell ids show; a name that a project gave, or else derived from the steps.
        steps: the chain, first step first.
    """

    id: str
    steps: tuple[Step, ...] = ()

    @property
    def spelling(self) -> str:
        """The chain as a user would write it, options included."""
        return "+".join(str(step) for step in self.steps) or ORIGINAL


def slug(text: str) -> str:
    """Bring any text into the grammar of names.

    Lower case, runs of anything else become one underscore.

    Raises:
        NameGrammarError: nothing is left of the text.
    """
    name = _NOT_NAME.sub("_", text.lower()).strip("_.")
    if not name:
        raise NameGrammarError(
            f"no name can be made of {text!r}: it needs a letter or a digit from a-z, 0-9"
        )
    return name


def model_name(path: PurePath) -> str:
    """Return the name of the model in ``path``, a ``.onnx`` or a card ``NAME.model.toml``.

    A stem without a letter or digit of ASCII gets a name by its hash: ``model_1f2e3d4c``.
    """
    stem = path.name.removesuffix(CARD_SUFFIX).removesuffix(".onnx")
    try:
        return slug(stem)
    except NameGrammarError:
        return f"model_{_short_hash(stem)}"


def distinct_names(paths: Iterable[PurePath]) -> dict[PurePath, str]:
    """Return a name for each model, with a word of its folders where stems repeat.

    ``yolo.model``, ``bert.model``.

    The word is that of the nearest level of folders at which all of them differ. Content hashes, by
    which the caches of model hubs name their snapshots, are passed over, and so is the folder of
    the snapshots. What no folder tells apart gets a hash of its path.

    Args:
        paths: of models or cards, absolute or relative to one folder.
    """
    groups: dict[str, list[PurePath]] = {}
    for path in dict.fromkeys(paths):
        groups.setdefault(model_name(path), []).append(path)
    names: dict[PurePath, str] = {}
    for name, members in groups.items():
        for path, word in zip(members, _telling_words(members), strict=True):
            names[path] = f"{word}.{name}" if word else name
    uses = Counter(names.values())
    names_by_path: dict[PurePath, str] = {}
    for path, name in names.items():
        names_by_path[path] = (
            f"{name}.{_short_hash(path.as_posix())}" if uses[name] > 1 else name
        )
    return names_by_path


def _telling_words(paths: list[PurePath]) -> list[str]:
    """Return the word of each path that tells it from the others.

    Empty where there is one path, or no such word.
    """
    if len(paths) == 1:
        return [""]
    for words in zip(*map(_folders_that_tell, paths), strict=False):
        readable = [_NOT_NAME.sub("_", word.lower()).strip("_.") for word in words]
        if all(readable) and len(set(readable)) == len(readable):
            return readable
    return [""] * len(paths)


def _folders_that_tell(path: PurePath) -> list[str]:
    """Return the folders of a path, the nearest first.

    Content hashes and what model hubs put above them are left out.
    """
    folders = list(path.parts[-2::-1])
    telling: list[str] = []
    for place, folder in enumerate(folders):
        above_hash = place > 0 and _CONTENT_HASH.fullmatch(folders[place - 1]) is not None
        if not _CONTENT_HASH.fullmatch(folder) and not (
            above_hash and folder == "snapshots"
        ):
            telling.append(folder)
    return telling


def _short_hash(text: str) -> str:
    # File systems differ in how they spell one name.
    plain = unicodedata.normalize("NFC", text)
    return hashlib.sha256(plain.encode(errors="surrogateescape")).hexdigest()[:8]


def is_model_file(path: PurePath) -> bool:
    """Return whether ``path`` is named as a model or a card."""
    return path.name.endswith((".onnx", CARD_SUFFIX))


def check_name(name: str, what: str) -> str:
    """Return ``name`` if it follows the grammar.

    Raises:
        NameGrammarError: it doesn't; ``what`` says whose name it is.
    """
    if not _NAME.fullmatch(name):
        raise NameGrammarError(f"{what} {name!r} isn't a name: use a-z, 0-9, '_' and '.'")
    return name


def cell_id(model: str, variant: str, provider: str) -> str:
    """``silero_vad-simplify+fp16-cpu``."""
    return f"{model}-{variant}-{provider}"


def parse_variant(text: str, id: str | None = None) -> Variant:
    """Read ``simplify+fp16.io32(max_finite_val=65504)``.

    Values in parentheses are Python literals: numbers, ``True``, strings, lists of strings;
    ``true`` and ``false`` are taken too. The order of a step's options means nothing: they are kept
    sorted, so that a step has one spelling and one id.

    Args:
        text: the chain.
        id: the name that ids show; without it, one is derived from the steps.

    Raises:
        NameGrammarError: a step isn't a name, or its options can't be read.
    """
    if text.strip() == ORIGINAL:
        return Variant(ORIGINAL if id is None else check_name(id, "variant"))
    steps = tuple(
        _parse_step(part.strip(), text) for part in _split_outside_parentheses(text)
    )
    if any(step.name == ORIGINAL for step in steps):
        raise NameGrammarError(
            f"variant '{text}': '{ORIGINAL}' is the empty chain and stands alone; leave it out"
        )
    if id is not None:
        return Variant(check_name(id, "variant"), steps)
    return Variant("+".join(_derived_id(step) for step in steps), steps)


def _derived_id(step: Step) -> str:
    return ".".join([step.name, *(_option_id(key, value) for key, value in step.options)])


def _option_id(key: str, value: OptionValue) -> str:
    """``max_finite_val_65504``.

    What the grammar of names would lose is kept apart by a hash: ``blocked_add.5f1d8a02``.

    One meaning has one id (1 and 1.0), and two meanings have two (1e-16 and 1e16; ``["a_b"]`` and
    ``["a", "b"]``).
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = f"{key}_{str(value).lower() if isinstance(value, bool) else value}"
    readable = _NOT_NAME.sub("_", text.lower()).strip("_.")
    if (
        readable == text
        and len(text) <= _READABLE_OPTION
        and not isinstance(value, str | tuple)
    ):
        return readable
    digest = hashlib.sha256(f"{key}={_written(value)}".encode()).hexdigest()
    return f"{re.sub('_+', '_', readable)[:_READABLE_OPTION].rstrip('_.')}.{digest[:8]}"


def _split_outside_parentheses(text: str) -> Iterator[str]:
    start = depth = 0
    for match in _MARK.finditer(text):
        depth += (match[0] == "(") - (match[0] == ")")
        if match[0] == "+" and depth == 0:
            yield text[start : match.start()]
            start = match.end()
    yield text[start:]


def _parse_step(part: str, whole: str) -> Step:
    name, parenthesis, arguments = part.partition("(")
    name = check_name(name.strip(), f"in variant '{whole}': step")
    if not parenthesis:
        return Step(name)
    try:
        options = _options(f"f({arguments}")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise NameGrammarError(
            f"the options of step '{part}' in variant '{whole}' can't be read ({error}); "
            "write them as Python literals, such as fp16.io32(max_finite_val=65504)"
        ) from None
    return Step(name, tuple(sorted(options.items())))


def _options(call: str) -> dict[str, OptionValue]:
    with warnings.catch_warnings():
        # An escape that Python would rather see written otherwise.
        warnings.simplefilter("ignore")
        tree = ast.parse(call, mode="eval").body
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise ValueError("something follows the closing parenthesis")
    if tree.args or any(word.arg is None for word in tree.keywords):
        raise ValueError("options are written as name=value")
    options: dict[str, OptionValue] = {}
    for word in tree.keywords:
        key = str(word.arg)
        if key in options:
            raise ValueError(f"'{key}' is given twice")
        options[key] = _literal(word.value)
    return options


def _literal(node: ast.expr) -> OptionValue:
    if isinstance(node, ast.Name) and node.id in _TRUTH:
        return _TRUTH[node.id]
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            raise ValueError(f"a text stands in quotes: '{inner.id}'")
    value = ast.literal_eval(node)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if isinstance(value, int | float) and abs(value) > sys.float_info.max:
        raise ValueError("a number is beyond those that an option takes")
    if isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"{value!r} is neither a number, a truth value, a string nor a list of strings"
    )


def _written(value: OptionValue) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)
