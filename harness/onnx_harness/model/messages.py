"""Protobuf messages in part."""

from __future__ import annotations

from google.protobuf.message import Message


def copy_fields(source: Message, target: Message, but: str) -> None:
    """Copy every field of a message that is set, except the one called ``but``."""
    for descriptor, value in source.ListFields():
        if descriptor.name == but:
            continue
        if isinstance(value, str | bytes | int | float):
            setattr(target, descriptor.name, value)
        elif hasattr(value, "extend"):
            getattr(target, descriptor.name).extend(value)
        else:
            getattr(target, descriptor.name).CopyFrom(value)
