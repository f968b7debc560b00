"""The ledger of known failures: the versions that an entry is for, and those that are installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx_harness.cards.card import KnownFailure

_COMPARISONS = "<>=!~"
Installed = Callable[[str], str | None]


def installed_version(distribution: str) -> str | None:
    """Return the version of a distribution that is installed here; None where it isn't."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def is_range(versions: str) -> bool:
    """Tell a range, such as ``<1.33`` or ``>=1.30,<1.33``, from the version it was seen in."""
    return versions.strip().startswith(tuple(_COMPARISONS))


def range_fault(versions: str) -> str | None:
    """Say what is wrong with a range; None for a sound one, and for a version."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    if not is_range(versions):
        return None
    try:
        SpecifierSet(versions)
    except InvalidSpecifier:
        return "isn't a range of versions such as '>=1.30,<1.33' (PEP 440)"
    return None


def as_toml(entry: KnownFailure) -> str:
    """Return an entry as a card has it: ``[[known_failure]]`` and its keys, a line each."""
    fields: dict[str, object] = {
        "variants": list(entry.variants),
        "providers": list(entry.providers),
        "stage": entry.stage,
        "reason": entry.reason,
    }
    lines = ["[[known_failure]]"]
    for key, value in fields.items():
        if value:
            lines.append(f"{key} = {_quoted(value)}")
    pairs = [f"{_quoted(name)} = {_quoted(text)}" for name, text in entry.versions.items()]
    lines.append(f"versions = {{ {', '.join(pairs)} }}")
    for key, text in {"cause": entry.cause, "repro": entry.repro}.items():
        if text:
            lines.append(f"{key} = {_quoted(text)}")
    return "\n".join(lines) + "\n"


def _quoted(value: object) -> str:
    """Return texts as TOML has them: JSON's are the same, but for the last control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def left_range(entry: KnownFailure, installed: Installed = installed_version) -> str:
    """Name the installed versions that lie outside an entry's ranges: it isn't for them.

    Returns:
        As ``onnxruntime 1.33.0 (known of <1.33)``; empty where the entry holds. A distribution
        that isn't installed leaves no range.
    """
    from packaging.specifiers import SpecifierSet

    outside = []
    for name, versions in entry.versions.items():
        here = installed(name)
        if here is None or not is_range(versions):
            continue
        if not SpecifierSet(versions).contains(here, prereleases=True):
            outside.append(f"{name} {here} (known of {versions})")
    return ", ".join(outside)


def upgrades(entry: KnownFailure, installed: Installed = installed_version) -> str:
    """Name the installed versions that aren't those that a failure was seen in.

    Returns:
        As ``onnxruntime 1.33.0 (seen in 1.32.0)``; empty where there are none, or where the entry
        has ranges.
    """
    other = []
    for name, versions in entry.versions.items():
        here = installed(name)
        if here is not None and not is_range(versions) and here != versions:
            other.append(f"{name} {here} (seen in {versions})")
    return ", ".join(other)
