"""A JSON value against a schema, as much of JSON Schema as ours use; unlisted properties are refused.

And our own words for the part of SARIF that we write: the schema that OASIS publishes doesn't come
with a licence to copy it into a repository.
"""

from __future__ import annotations

import re
from typing import Any

Schema = dict[str, Any]


def violations(value: object, schema: Schema, whole: Schema, where: str = "") -> list[str]:
    """Return what ``value`` breaks of ``schema``, a part of the ``whole``, in a line each."""
    if "$ref" in schema:
        return violations(
            value, whole["$defs"][schema["$ref"].removeprefix("#/$defs/")], whole, where
        )
    if "anyOf" in schema:
        tried = [violations(value, each, whole, where) for each in schema["anyOf"]]
        return [] if any(not each for each in tried) else tried[0]
    if "const" in schema and value != schema["const"]:
        return [f"{where} isn't {schema['const']}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where} isn't in {schema['enum']}"]
    kinds = schema.get("type", [])
    known: dict[str, Any] = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "object": dict,
        "array": list,
        "null": type(None),
        "boolean": bool,
    }
    if kinds and not any(
        isinstance(value, known[kind])
        for kind in ([kinds] if isinstance(kinds, str) else kinds)
    ):
        return [f"{where} isn't {kinds}"]
    if isinstance(value, dict):
        rest = schema.get("additionalProperties")
        found = [
            f"{where}.{name} is missing"
            for name in schema.get("required", [])
            if name not in value
        ]
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name, rest)
            found += (
                [f"{where}.{name} isn't in the schema"]
                if inner is None
                else violations(item, inner, whole, f"{where}.{name}")
            )
        return found
    if isinstance(value, str) and not re.fullmatch(schema.get("pattern", r"(?s:.)*"), value):
        return [f"{where} isn't of the form {schema['pattern']}"]
    if isinstance(value, list):
        found = [] if len(value) >= schema.get("minItems", 0) else [f"{where} is too short"]
        return found + [
            line
            for item in value
            for line in violations(item, schema["items"], whole, f"{where}[]")
        ]
    if isinstance(value, int | float) and not schema.get(
        "minimum", value
    ) <= value <= schema.get("maximum", value):
        return [f"{where} is out of bounds"]
    return []


def _table(required: str, **properties: Schema) -> Schema:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list_of(kind: str) -> Schema:
    return {"type": "array", "items": {"$ref": f"#/$defs/{kind}"}}


_TEXT: Schema = {"type": "string"}

# The sections are those of "Static Analysis Results Interchange Format (SARIF) Version 2.1.0".
SARIF: Schema = {
    "$ref": "#/$defs/log",
    "$defs": {
        # 3.13
        "log": _table(
            "version runs",
            **{"$schema": _TEXT, "version": {"const": "2.1.0"}, "runs": _list_of("run")},
        ),
        # 3.14
        "run": _table(
            "tool",
            tool=_table("driver", driver={"$ref": "#/$defs/component"}),
            invocations=_list_of("invocation"),
            results=_list_of("result"),
        ),
        # 3.19
        "component": _table("name", name=_TEXT, version=_TEXT, rules=_list_of("rule")),
        # 3.49
        "rule": _table("id", id=_TEXT, shortDescription=_table("text", text=_TEXT)),
        # 3.20
        "invocation": _table(
            "executionSuccessful",
            executionSuccessful={"type": "boolean"},
            commandLine=_TEXT,
            startTimeUtc={
                "type": "string",
                "pattern": r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z",  # 3.9
            },
        ),
        # 3.27
        "result": _table(
            "message",
            ruleId=_TEXT,
            ruleIndex={"type": "integer", "minimum": 0},
            level={"enum": ["none", "note", "warning", "error"]},
            message=_table("text", text=_TEXT),
            locations=_list_of("location"),
            partialFingerprints={"type": "object", "additionalProperties": _TEXT},
            properties={"type": "object", "additionalProperties": {}},  # 3.8, a bag
        ),
        # 3.28
        "location": _table(
            "",
            physicalLocation=_table(
                "artifactLocation",
                artifactLocation=_table(
                    "", uri={"type": "string", "pattern": r"[\w%./~-]+"}, uriBaseId=_TEXT
                ),
                region=_table("", startLine={"type": "integer", "minimum": 1}),
            ),
            logicalLocations={
                "type": "array",
                "items": _table("", fullyQualifiedName=_TEXT),
            },
        ),
    },
}
