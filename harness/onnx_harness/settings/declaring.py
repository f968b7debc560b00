"""Fields of the settings that are options as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnx_harness.settings.kinds import Kind


def is_cluster(word: str) -> bool:
    """Return whether ``--cluster`` can mean it: nothing, ``local``, an address or a file."""
    return word in ("", "local") or "://" in word or word.endswith((".toml", ".json"))


def _always(_: Any) -> bool:
    return True


def as_option(
    kind: Kind,
    help: str,
    metavar: str = "",
    *,
    holds: Callable[[Any], bool] = _always,
    range: str = "",
) -> dict[str, Any]:
    """The metadata of a field of :class:`Settings`.

    A value that isn't None has to be in the range.
    """
    return {"option": (kind, help, metavar, holds, range)}
