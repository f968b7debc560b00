"""Compare a card's words on inputs with the graph, and read the sizes that it pins for each set."""

from __future__ import annotations

from collections.abc import Mapping

from onnx_harness.cards.card import InputSpec
from onnx_harness.cards.toml import Scalar
from onnx_harness.errors import CardError, did_you_mean
from onnx_harness.inputs.graph.signature import Container, Input
from onnx_harness.inputs.values import generators

Shape = tuple[int, ...]


def check(
    specs: Mapping[str, InputSpec], inputs: Mapping[str, Input], defaults: set[str]
) -> None:
    """Hold every spec against the graph.

    Raises:
        CardError: it names an input that the model doesn't have or that has a default, an unknown
            generator, or contradicts the graph's dtype, rank or fixed sizes; the message names the
            key, and its line in the card.
    """
    for name, spec in specs.items():
        if name not in inputs:
            if name in defaults:
                raise CardError(
                    f"{spec.place()}[inputs.{name}]: '{name}' has a default (an initializer), "
                    "so no values are made for it"
                )
            suggestion = did_you_mean(name, inputs) if inputs else "It has no inputs."
            raise CardError(
                f"{spec.place()}[inputs.{name}]: the model has no input '{name}'. {suggestion}"
            )
        _check_values(name, spec, inputs[name])
        _check_sizes(name, spec, inputs[name], inputs)


def pins(
    specs: Mapping[str, InputSpec],
    inputs: Mapping[str, Input],
    index: int,
    controls: Mapping[str, Scalar],
) -> dict[str, int]:
    """The sizes of dynamic dimensions that the cards fix in set ``index``.

    Args:
        specs: checked already.
        inputs: of the model.
        index: of the set.
        controls: input name to the value that the whole input holds in this set; what ``by`` looks
            at.

    Raises:
        CardError: two keys want different sizes of one dimension, or ``sizes`` lacks the value of
            the input ``by``.
    """
    pinned: dict[str, int] = {}
    wanted_by: dict[str, str] = {}

    def pin(dim: int | str, size: int, key: str) -> None:
        if isinstance(dim, int):
            return
        if pinned.setdefault(dim, size) != size:
            raise CardError(
                f"{key} wants dimension '{dim}' to be {size} in set {index}, but {wanted_by[dim]} "
                f"wants {pinned[dim]}"
            )
        wanted_by.setdefault(dim, key)

    for name, spec in specs.items():
        dims = inputs[name].dims or ()
        if spec.shapes:
            shape = spec.shapes[index % len(spec.shapes)]
            for dim, size in zip(dims, shape, strict=False):
                pin(dim, size, f"[inputs.{name}] shapes")
        if spec.by is not None:
            if dims:
                pin(
                    dims[-1], _size_by(name, spec, index, controls), f"[inputs.{name}] sizes"
                )
            continue
        for key, sizes in spec.sizes.items():
            pin(
                dims[_axis_of(key, inputs[name], spec.place("sizes"))],
                sizes[index % len(sizes)],
                f"[inputs.{name}] sizes.{key}",
            )
    return pinned


def shape_of_unranked(spec: InputSpec | None, index: int) -> Shape | None:
    """Return the shape that a card gives in set ``index``, for an input whose rank is open."""
    return (
        spec.shapes[index % len(spec.shapes)] if spec is not None and spec.shapes else None
    )


def _check_values(name: str, spec: InputSpec, entry: Input) -> None:
    where = f"[inputs.{name}]"
    at = spec.place
    if entry.container is Container.SEQUENCE and spec.values:
        raise CardError(
            f"{at('values')}{where} values: '{name}' is a sequence; give a generator or shapes "
            f"instead"
        )
    for value in spec.values:
        if (problem := _misfit(value, entry)) is not None:
            raise CardError(
                f"{at('values')}{where} values: {value!r} {problem}; the input is of type "
                f"{entry.type_name}"
            )
    if spec.generator is not None:
        if spec.generator not in generators.GENERATORS:
            suggestion = did_you_mean(spec.generator, generators.GENERATORS)
            raise CardError(
                f"{at('generator')}{where} generator: '{spec.generator}' isn't one. {suggestion}"
            )
        if entry.is_string:
            raise CardError(
                f"{at('generator')}{where} generator: '{name}' takes texts; give `values = "
                f'["…"]` instead'
            )
    for key, bound in (("low", spec.low), ("high", spec.high)):
        if bound is None:
            continue
        if entry.is_string or entry.is_bool:
            raise CardError(
                f"{at(key)}{where} {key}: an input of type {entry.type_name} has no bounds"
            )
        if entry.is_integer and not (
            entry.integer_range[0] <= bound <= entry.integer_range[1]
        ):
            raise CardError(
                f"{at(key)}{where} {key}: {bound:g} doesn't fit the input's type, {entry.type_name}"
            )
    if spec.low is not None and spec.high is not None and spec.low > spec.high:
        raise CardError(f"{at('low')}{where} low: {spec.low:g} is above high, {spec.high:g}")


def _misfit(value: Scalar, entry: Input) -> str | None:
    """Why ``value`` can't be held by ``entry``, or None."""
    if entry.is_string:
        return None if isinstance(value, str) else "isn't a text"
    if isinstance(value, str):
        return "is a text"
    if entry.is_bool:
        return None if value in (0, 1) else "isn't a truth value"
    if entry.is_integer:
        if not float(value).is_integer():
            return "isn't a whole number"
        low, high = entry.integer_range
        return None if low <= value <= high else "is out of range"
    return None


def _check_sizes(
    name: str, spec: InputSpec, entry: Input, inputs: Mapping[str, Input]
) -> None:
    where = f"[inputs.{name}]"
    at = spec.place
    declared = entry.shape_text()
    for shape in spec.shapes:
        if entry.dims is None:
            continue
        if len(shape) != len(entry.dims):
            raise CardError(
                f"{at('shapes')}{where} shapes: {list(shape)} has rank {len(shape)}, the graph "
                f"declares {declared}"
            )
        for axis, (dim, size) in enumerate(zip(entry.dims, shape, strict=True)):
            if isinstance(dim, int) and dim != size:
                raise CardError(
                    f"{at('shapes')}{where} shapes: {list(shape)} has {size} at axis {axis}, "
                    f"the graph declares {declared}"
                )
    if spec.by is not None:
        if spec.by not in inputs:
            raise CardError(
                f"{at('by')}{where} by: the model has no input '{spec.by}'. "
                f"{did_you_mean(spec.by, inputs)}"
            )
        if not spec.sizes:
            raise CardError(f"{at('by')}{where} by: has no effect without sizes")
        if not entry.dims or isinstance(entry.dims[-1], int):
            raise CardError(
                f"{at('sizes')}{where} sizes: the last axis isn't dynamic, the graph declares "
                f"{declared}"
            )
        return
    for key, sizes in spec.sizes.items():
        dim = (entry.dims or ())[_axis_of(key, entry, at("sizes"))]
        if isinstance(dim, int) and any(size != dim for size in sizes):
            raise CardError(
                f"{at('sizes')}{where} sizes.{key}: that axis is fixed at {dim}, the graph "
                f"declares {declared}"
            )


def _axis_of(key: str, entry: Input, place: str) -> int:
    dims = entry.dims or ()
    if key in dims:
        return dims.index(key)
    if key.lstrip("-").isdigit() and -len(dims) <= int(key) < len(dims):
        return int(key) % len(dims)
    names = []
    for dim, label in zip(dims, entry.labels or (), strict=True):
        if isinstance(dim, str) and label != "?":
            names.append(dim)
    names_listed = (
        ", ".join([*names, *map(str, range(len(dims)))])
        or "none (the graph declares no shape: use shapes)"
    )
    raise CardError(
        f"{place}[inputs.{entry.name}] sizes.{key}: neither a dimension of this input nor an "
        f"axis. Known: {names_listed}."
    )


def _size_by(name: str, spec: InputSpec, index: int, controls: Mapping[str, Scalar]) -> int:
    value = controls.get(spec.by or "")
    if value is None:
        raise CardError(
            f"{spec.place('by')}[inputs.{name}] by: '{spec.by}' doesn't hold one value throughout; "
            f"give it some: [inputs.{spec.by}] values"
        )
    for key, sizes in spec.sizes.items():
        if key == str(value) or _number(key) == value:
            return sizes[index % len(sizes)]
    raise CardError(
        f"{spec.place('sizes')}[inputs.{name}] sizes: no size for {spec.by} = {value}. "
        f"{did_you_mean(str(value), spec.sizes)}"
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
