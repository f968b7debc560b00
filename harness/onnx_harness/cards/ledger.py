"""The ledger of known failures: the versions that an entry is for, and those that are installed."""

from __future__ import annotations

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
