"""Ids and their grammar: model names, variants and their steps, cells.

Ids are the keys of history. Names match ``[a-z0-9_.]+``, so that ``-`` and ``+`` stay separators.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import PurePath

from harness.errors import NameGrammarError

ORIGINAL = "original"
CARD_SUFFIX = ".model.toml"

OptionValue = bool | int | float | str | tuple[str, ...]

_NAME = re.compile(r"[a-z0-9_.]+")
_NOT_NAME = re.compile(r"[^a-z0-9_.]+")


@dataclass(frozen=True, slots=True)
class Step:
    """One transform of a variant's chain, with the options that were written in parentheses."""

    name: str
    options: tuple[tuple[str, OptionValue], ...] = ()

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name}({', '.join(f'{key}={_written(value)}' for key, value in self.options)})"


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
    """Bring any text into the grammar of names: lower case, runs of anything else become one underscore.

    Raises:
        NameGrammarError: nothing is left of the text.
    """
    name = _NOT_NAME.sub("_", text.lower()).strip("_.")
    if not name:
        raise NameGrammarError(f"no name can be made of {text!r}: it needs a letter or a digit from a-z, 0-9")
    return name


def model_name(path: PurePath) -> str:
    """The name of the model in ``path``, a ``.onnx`` or a card ``NAME.model.toml``."""
    return slug(path.name.removesuffix(CARD_SUFFIX).removesuffix(".onnx"))


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

    Values in parentheses are Python literals: numbers, ``True``, strings, lists of strings.

    Args:
        text: the chain.
        id: the name that ids show; without it, one is derived from the steps.

    Raises:
        NameGrammarError: a step isn't a name, or its options can't be read.
    """
    if text.strip() == ORIGINAL:
        return Variant(ORIGINAL if id is None else check_name(id, "variant"))
    steps = tuple(_parse_step(part.strip(), text) for part in _split_outside_parentheses(text))
    if id is not None:
        return Variant(check_name(id, "variant"), steps)
    return Variant("+".join(_derived_id(step) for step in steps), steps)


def _derived_id(step: Step) -> str:
    return ".".join([step.name, *(slug(f"{key}_{value}") for key, value in step.options)])


def _split_outside_parentheses(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == "+" and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def _parse_step(part: str, whole: str) -> Step:
    name, parenthesis, rest = part.partition("(")
    check_name(name.strip(), f"in variant '{whole}': step")
    if not parenthesis:
        return Step(name.strip())
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("options are written as name=value")
        options = tuple((str(word.arg), _literal(word.value)) for word in call.keywords)
    except (SyntaxError, ValueError) as error:
        raise NameGrammarError(
            f"the options of step '{part}' in variant '{whole}' can't be read ({error}); "
            "write them as Python literals, such as fp16.io32(max_finite_val=65504)"
        ) from None
    return Step(name.strip(), options)


def _literal(node: ast.expr) -> OptionValue:
    value = ast.literal_eval(node)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{value!r} is neither a number, a truth value, a string nor a list of strings")


def _written(value: OptionValue) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)
