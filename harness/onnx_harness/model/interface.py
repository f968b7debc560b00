"""Compare what callers of two models rely on: their inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from onnx_harness.model.file import Signature, ValueType


def interface_changes(
    before: Signature,
    after: Signature,
    float_io: str | None,
    fixed: Mapping[str, tuple[int, ...]] | None = None,
) -> list[str]:
    """Return what a caller of the model would notice, a sentence each.

    Args:
        before: the original's.
        after: the transformed model's.
        float_io: the dtype that float32 inputs and outputs may have become; None: none may change.
        fixed: the shapes that the user gave to inputs; those of outputs then follow from them.
    """
    changes = []
    for what, old, new in (
        ("input", before.inputs, after.inputs),
        ("output", before.outputs, after.outputs),
    ):
        names, now = [value.name for value in old], [value.name for value in new]
        gone = [n for n in names if n not in now]
        come = [n for n in now if n not in names]
        changes += [f"{what} '{name}' is gone" for name in gone] + [
            f"{what} '{name}' is new" for name in come
        ]
        if not gone and not come and names != now:
            changes.append(
                f"the {what}s are in another order: {', '.join(names)} became {', '.join(now)}"
            )
        by_name = {value.name: value for value in new}
        for value in old:
            if value.name in by_name:
                if (
                    what == "input"
                    and fixed
                    and value.name in fixed
                    and by_name[value.name].shape == fixed[value.name]
                ):
                    value = replace(value, shape=fixed[value.name])
                elif what == "output" and fixed:
                    value = replace(value, shape=None)
                changes += _value_changes(what, value, by_name[value.name], float_io)
    return changes


def _value_changes(
    what: str, old: ValueType, new: ValueType, float_io: str | None
) -> Iterator[str]:
    if (
        old.kind
        and new.kind
        and new.kind not in (old.kind, old.kind.replace("float)", f"{float_io})"))
    ):
        yield f"{what} '{old.name}' was {old.kind} and is {new.kind}"
    if old.shape is None or new.shape is None:
        return
    if len(old.shape) != len(new.shape):
        yield f"{what} '{old.name}' had {len(old.shape)} dimensions and has {len(new.shape)}"
        return
    for axis, (dim, now) in enumerate(zip(old.shape, new.shape, strict=True)):
        # An output's open dimension may become known; an input's may not: calls that worked would
        # be refused.
        narrowed = (
            isinstance(now, int) and now != dim and (isinstance(dim, int) or what == "input")
        )
        if narrowed or (
            isinstance(dim, int) and not isinstance(now, int) and what == "output"
        ):
            yield (
                f"{what} '{old.name}' had {dim or 'any size'} on axis {axis} and has "
                f"{now or 'any size'}"
            )
