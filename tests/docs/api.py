"""The page of the Python API, from signatures and docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

from tests.docs import docstrings
from tests.docs.markdown import code

# By heading, the module and its public names; none stands for all that the module defines.
_PUBLIC: Sequence[tuple[str, str, Sequence[str]]] = (
    ("Verdicts", "onnx_harness", ("verify", "compare", "Verdict")),
    ("Fixtures", "onnx_harness.run.own_tests", ("OnnxVerify", "OnnxSnapshot")),
    (
        "Float16 and bfloat16",
        "onnx_harness.transforms.fp16",
        ("convert_float_to_float16", "convert_float_to_float16_model_path"),
    ),
    ("", "onnx_harness.transforms.bf16", ("convert_float_to_bfloat16",)),
    ("", "onnx_harness.transforms.float16", ("convert_np_to_float16", "clamp")),
    (
        "Simplification",
        "onnx_harness.transforms.simplify",
        ("simplify", "simplify_with_report", "simplify_as_onnxsim"),
    ),
    ("", "onnx_harness.transforms.optimize", ("optimize",)),
    ("Latency statistics", "onnx_harness.latency.statistics", ()),
)
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


def api() -> str:
    """Return a section for each public function and class."""
    parts: list[str] = []
    for heading, module_name, names in _PUBLIC:
        module = importlib.import_module(module_name)
        if heading:
            parts.append(f"## {heading}")
        for name in names or _defined(module):
            parts.append(_described(module_name, name, getattr(module, name)))
    return "\n\n".join(parts)


def _defined(module: object) -> list[str]:
    """Return the public functions and classes that a module defines, in its order."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == getattr(module, "__name__", "")
    ]


def _described(module: str, name: str, value: Callable[..., Any]) -> str:
    doc = docstrings.read(value)
    if not inspect.isclass(value):
        parts = [
            f"### `{module}.{name}`",
            _signature(name, value),
            doc.prose,
            *_sections(doc),
        ]
    elif (called := vars(value).get("__call__")) is not None:
        fixture = _CAPITAL.sub("_", name).lower()
        inner = docstrings.read(called)
        parts = [
            f"### `{fixture}`",
            doc.prose,
            _signature(fixture, called),
            inner.prose,
            *_sections(inner),
        ]
    else:
        methods = [
            _method(method, vars(value)[method])
            for method in vars(value)
            if _is_method(value, method)
        ]
        parts = [f"### `{module}.{name}`", doc.prose, *_sections(doc), *methods]
    return "\n\n".join(part for part in parts if part)


def _is_method(owner: type, name: str) -> bool:
    return not name.startswith("_") and inspect.isfunction(vars(owner)[name])


def _method(name: str, function: Callable[..., Any]) -> str:
    return f"`{name}()`: {docstrings.read(function).prose}"


def _signature(name: str, function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    lines: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in lines:
            lines.append("*")
        lines.append(_parameter(parameter))
    inner = "".join(f"\n    {line}," for line in lines)
    returned = signature.return_annotation
    arrow = "" if returned is inspect.Signature.empty else f" -> {_named(returned)}"
    return f"```python\n{name}({inner}\n){arrow}\n```"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
    stars = "**" if parameter.kind is parameter.VAR_KEYWORD else stars
    typed = (
        ""
        if parameter.annotation is parameter.empty
        else f": {_named(parameter.annotation)}"
    )
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    return f"{stars}{parameter.name}{typed}{default}"


def _named(annotation: Any) -> str:
    """Return an annotation as it is written in the code."""
    return (
        annotation
        if isinstance(annotation, str)
        else str(getattr(annotation, "__name__", annotation))
    )


def _sections(doc: docstrings.Doc) -> list[str]:
    return [_section(heading, entries) for heading, entries in doc.entries.items()]


def _section(heading: str, entries: Any) -> str:
    lines = [
        f"- {code(name)}: {meaning}" if name else f"- {meaning}"
        for name, meaning in entries.items()
    ]
    return f"**{heading}**\n\n" + "\n".join(lines)
