"""The parts of documentation pages that are made from the code, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from onnx_harness import providers, transforms
from onnx_harness.cards.card import FAILING_STAGES
from onnx_harness.cards.keys import TABLES, TOP_KEYS, Key, Table
from onnx_harness.cell.matrix import DEFAULT, GROUPS
from onnx_harness.inputs.values.generators import GENERATORS
from onnx_harness.settings import OPTIONS, Settings
from onnx_harness.settings.kinds import Option
from onnx_harness.transforms import Transform, bf16, fp16, int8, optimize, simplify
from tests.docs import docstrings
from tests.docs.api import api
from tests.docs.markdown import code, codes, table

# The functions that say what an option does, where a step's own refers to them.
_EXPLAINED_BY: Mapping[str, Callable[..., Any]] = {
    "onnx_harness.transforms.fp16": fp16.convert_float_to_float16,
    "onnx_harness.transforms.bf16": bf16.convert_float_to_bfloat16,
    "onnx_harness.transforms.int8_mixed": int8.quantize_static,
    "onnx_harness.transforms.optimize": optimize.optimize,
    "onnx_harness.transforms.simplify": simplify.simplify_with_report,
}
_WRITTEN = {
    tuple: "list",
    bool: "true or false",
    str: "text",
    int: "whole number",
    float: "number",
}
_SHOWN_FORMS = 8


def card_keys() -> str:
    """Return a section for each table of a card, and one for the keys above them."""
    top = Table("above the first table", "Keys of the whole card.", TOP_KEYS)
    return "\n\n".join([_card_table(top), *map(_card_table, TABLES.values())])


def _card_table(described: Table) -> str:
    heading = (
        code(described.heading)
        if described.heading.startswith("[")
        else described.heading.capitalize()
    )
    parts = [f"### {heading}", described.meaning]
    if described.keys:
        parts.append(
            table(
                ("key", "value", "meaning", "default"),
                [_card_row(key) for key in described.keys],
            )
        )
    return "\n\n".join(parts)


def _card_row(key: Key) -> tuple[str, ...]:
    meaning = key.meaning.replace("{stages}", codes(FAILING_STAGES))
    return code(key.name), key.type, meaning, key.default or "required"


def generators() -> str:
    """Return a table of the signal generators."""
    return table(
        ("generator", "values"),
        [(code(entry.name), entry.summary) for entry in GENERATORS.values()],
    )


def groups() -> str:
    """Return a table of the variant groups."""
    return table(("group", "variants"), [(code(group), _members(group)) for group in GROUPS])


def _members(group: str) -> str:
    if group == "default":
        return codes(DEFAULT)
    if group == "all":
        return "all of the above, every step by itself, and the project's own variants"
    names = [
        name
        for name, transform in transforms.registry().items()
        if group in transform.groups
    ]
    return (
        codes(names)
        if len(names) <= _SHOWN_FORMS
        else f"{codes(names[:2])} … ({len(names)} in all)"
    )


def variants() -> str:
    """Return a section for each transform of this package, with its forms and options."""
    declared = {id(transform): transform for transform in _own_transforms().values()}
    return "\n\n".join(map(_transform, declared.values()))


def _own_transforms() -> dict[str, Transform]:
    """Return the transforms of this package, without those of others that are installed."""
    return {
        name: transform
        for name, transform in transforms.registry().items()
        if transform.apply.__module__.startswith("onnx_harness.")
        or getattr(transform.apply, "func", transform.apply).__module__.startswith(
            "onnx_harness."
        )
    }


def _transform(transform: Transform) -> str:
    forms = list(transform.forms)
    shared = len(forms) > _SHOWN_FORMS
    heading = f"### `{forms[0].split('.')[0]}.NAME`" if shared else f"### {codes(forms)}"
    parts = [heading, _sentence(transform.summary)]
    if shared:
        parts.append(
            "NAME is one of " + codes([form.partition(".")[2] for form in forms]) + "."
        )
    presets = [
        f"{code(form)}: {_presets(preset)}"
        for form, preset in transform.forms.items()
        if preset
    ]
    if presets and not shared:
        parts.append("Presets: " + "; ".join(presets) + ".")
    parts.append(_facts(transform))
    if transform.options:
        rows = [
            (code(name), _WRITTEN[kind], *option_words(transform, name))
            for name, kind in transform.options.items()
        ]
        parts.append(table(("option", "value", "meaning", "default"), rows))
    return "\n\n".join(parts)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _presets(preset: Mapping[str, Any]) -> str:
    return ", ".join(code(f"{key}={value}") for key, value in preset.items())


def _facts(transform: Transform) -> str:
    facts = [f"Arithmetic: {transform.precision.value}"]
    if transform.requires:
        facts.append(f"needs {codes(transform.requires)}")
    if transform.groups:
        facts.append(f"group {codes(transform.groups)}")
    return "; ".join(facts) + "."


def option_words(transform: Transform, name: str) -> tuple[str, str]:
    """Return the meaning of an option, and its default, from the functions that take it."""
    functions = [
        transform.apply,
        _EXPLAINED_BY.get(transform.apply.__module__, transform.apply),
    ]
    meanings = [
        docstrings.read(function).entries.get("Args", {}).get(name, "")
        for function in functions
    ]
    meaning = next(
        (words for words in meanings if words and not words.startswith("as ")), ""
    )
    for function in functions:
        parameter = inspect.signature(function).parameters.get(name)
        if parameter is not None:
            return meaning, _default(parameter.default)
    return meaning, ""


def _default(value: Any) -> str:
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, float):
        return code(f"{value:g}")
    return codes(value) if isinstance(value, tuple | list) else code(value)


def settings() -> str:
    """Return a table of the settings: options of pytest, keys of pyproject.toml."""
    meanings = docstrings.read(Settings).entries["Attributes"]
    defaults = Settings()
    rows = [
        _setting(option, meanings[key], getattr(defaults, key))
        for key, option in OPTIONS.items()
    ]
    return table(("pytest", "pyproject.toml", "meaning", "default"), rows)


def _setting(option: Option, meaning: str, default: Any) -> tuple[str, ...]:
    spelled = f"--{option.flag} {option.metavar}".strip()
    shown = (
        "3/4 of the machine's memory" if option.key == "cell_memory" else _default(default)
    )
    return code(spelled) if option.help else "", code(option.key), meaning, shown


def provider_table() -> str:
    """Return a table of the providers of this package."""
    own = [provider for provider in providers.registry().values() if _is_own(provider.name)]
    rows = [
        (
            code(provider.name),
            code(provider.ort_name),
            code(f"pip install 'onnx-harness[{provider.extra}]'"),
            provider.summary,
            f"{provider.min_share:g}",
            f"{provider.noise_factor:g}",
        )
        for provider in own
    ]
    return table(
        (
            "name",
            "ONNX Runtime's name",
            "installation",
            "what it is",
            "least share of nodes",
            "noise factor",
        ),
        rows,
    )


def _is_own(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(f"onnx_harness.providers.{name}") is not None


def fields_of(declaration: type) -> str:
    """Return a table of the fields of a dataclass."""
    meanings = docstrings.read(declaration).entries["Attributes"]
    return table(
        ("field", "meaning"), [(code(name), meaning) for name, meaning in meanings.items()]
    )


BLOCKS: Mapping[str, Callable[[], str]] = {
    "card keys": card_keys,
    "generators": generators,
    "groups": groups,
    "variants": variants,
    "settings": settings,
    "providers": provider_table,
    "fields of Transform": lambda: fields_of(Transform),
    "fields of Parts": lambda: fields_of(transforms.Parts),
    "fields of Provider": lambda: fields_of(providers.Provider),
    "api": api,
}
