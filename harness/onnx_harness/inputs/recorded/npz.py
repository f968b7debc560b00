"""Recorded input sets in ``.npz`` files, read without pickle: such a file may come from anybody.

One set: the keys are the names of the inputs, and of those outputs that are recorded with them.
Several: ``0/NAME``, ``1/NAME`` …, which is what :func:`save_npz` writes for more
than one. An element of a sequence is ``NAME[0]``, ``NAME[1]`` …; texts are stored as numpy's
fixed-width unicode.
"""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_harness.errors import InputError, first_line
from onnx_harness.inputs.graph.signature import Container, Input, default_names, read_inputs
from onnx_harness.inputs.values.sets import (
    Array,
    DataSet,
    InputSet,
    Value,
    arrays_of,
    shape_text,
)

_NUMBERED = re.compile(r"(\d+)/(.+)", re.S)
_ELEMENT = re.compile(r"(.+)\[(\d+)\]", re.S)


def save_npz(path: Path, sets: Sequence[InputSet]) -> None:
    """Write ``sets`` so that :func:`load_npz` gives them back.

    The file appears whole or not at all.

    Raises:
        InputError: there is nothing to write.
        OSError: the file can't be written.
    """
    if not sets:
        raise InputError(f"{path}: there is no input set to write")
    arrays: dict[str, Array] = {}
    for number, input_set in enumerate(sets):
        prefix = f"{number}/" if len(sets) > 1 else ""
        for name, value in input_set.values.items():
            if isinstance(value, list):
                members = {}
                for place, array in enumerate(value):
                    members[f"{prefix}{name}[{place}]"] = _stored(array)
                arrays |= members
            else:
                arrays[f"{prefix}{name}"] = _stored(value)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with (
            os.fdopen(handle, "wb") as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            # numpy.savez takes names as keyword arguments, which a name such as "file" would
            # collide with.
            for key, array in arrays.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_npz(path: Path, model: onnx.ModelProto) -> list[InputSet]:
    """Read the inputs of the recorded sets in ``path``: see :func:`load_npz_sets`."""
    return [data_set.inputs for data_set in load_npz_sets(path, model)]


def load_npz_sets(path: Path, model: onnx.ModelProto) -> list[DataSet]:
    """Read the recorded sets in ``path``, each held against the inputs of ``model``.

    A key that names an output, and no input, is what the model is said to give. It may have any
    dtype and shape.

    Raises:
        InputError: it isn't a ``.npz``, holds pickled objects, lacks an input, has a key that is
            neither an input nor an output, or an input of another dtype, rank or fixed size than
            the graph declares.
    """
    outputs = {info.name: info.type for info in model.graph.output}
    inputs, defaults = read_inputs(model), default_names(model)
    raw = _read(path)
    input_names = {info.name for info in model.graph.input}
    numbered = {}
    for key in raw:
        if key not in input_names and (match := _NUMBERED.fullmatch(key)) is not None:
            numbered[key] = match
    if raw and len(numbered) == len(raw):
        parts: dict[int, dict[str, Array]] = {}
        for key, match in numbered.items():
            parts.setdefault(int(match[1]), {})[match[2]] = raw[key]
        groups = [parts[number] for number in sorted(parts)]
    else:
        groups = [raw]
    sets = []
    for number, arrays in enumerate(groups):
        where = f"{path.name}" if len(groups) == 1 else f"{path.name}, set {number}"
        expected = _expected(arrays, outputs, {*inputs, *defaults})
        values = _checked(
            where,
            {key: arrays[key] for key in arrays if key not in expected.keys},
            inputs,
            defaults,
        )
        entries = []
        for value in values.values():
            entries.append(shape_text(next(arrays_of(value), np.empty(0)).shape))
        shapes = ", ".join(entries)
        named = InputSet(
            f"recorded {number} ({path.name}{f', {shapes}' if shapes else ''})", values
        )
        sets.append(DataSet(named, expected.values))
    return sets


@dataclass(frozen=True, slots=True)
class _Expected:
    """The recorded outputs of one set.

    The keys that they are stored under, and their values by output name.
    """

    keys: frozenset[str]
    values: Mapping[str, Any]


def _expected(
    arrays: Mapping[str, Array], outputs: Mapping[str, onnx.TypeProto], inputs: set[str]
) -> _Expected:
    """Return what is recorded of the outputs.

    Of a sequence every element under a key of its own.
    """
    keys, values, elements = set(), {}, dict[str, dict[int, Array]]()
    for key, array in arrays.items():
        match = _ELEMENT.fullmatch(key)
        if key in inputs:
            continue
        if key in outputs:
            keys.add(key)
            values[key] = _as_given(array, outputs[key])
        elif match is not None and match[1] in outputs and match[1] not in inputs:
            keys.add(key)
            elements.setdefault(match[1], {})[int(match[2])] = _as_given(
                array, outputs[match[1]]
            )
    sequences = {}
    for name, items in elements.items():
        sequences[name] = [items[place] for place in sorted(items)]
    return _Expected(frozenset(keys), {**values, **sequences})


def _as_given(array: Array, declared: onnx.TypeProto) -> Array:
    """Return a recorded output as ONNX Runtime gives it.

    Texts are objects, and raw bytes what the graph says.
    """
    if array.dtype.kind == "U":
        return array.astype(object)
    element = (
        declared.tensor_type.elem_type
        or declared.sequence_type.elem_type.tensor_type.elem_type
    )
    if array.dtype.kind == "V" and element:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
        return array.view(dtype) if dtype.itemsize == array.dtype.itemsize else array
    return array


def _read(path: Path) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    key = ""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                key = member.filename.removesuffix(".npy")
                with archive.open(member) as file:
                    arrays[key] = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        # What zipfile, zlib and numpy's reader of headers raise varies.
        if "pickle" in str(error).lower():
            raise InputError(
                f"{path.name}: {key!r} holds pickled objects, which are not read because they can "
                f"run code. "
                "Store texts as numpy.array(texts, dtype='U') instead of dtype=object"
            ) from None
        if isinstance(error, ValueError) and key:
            raise InputError(
                f"{path.name}: {key!r} isn't a numpy array: {first_line(error)!r}"
            ) from None
        raise InputError(
            f"{path.name} can't be read as a .npz file: {first_line(error)!r}"
        ) from None
    return arrays


def _checked(
    where: str, arrays: Mapping[str, Array], inputs: Mapping[str, Input], defaults: set[str]
) -> dict[str, Value]:
    values: dict[str, Value] = {}
    elements: dict[str, dict[int, Array]] = {}
    extra = []
    for key, array in arrays.items():
        match = _ELEMENT.fullmatch(key)
        if key in inputs and inputs[key].container is Container.TENSOR:
            values[key] = typed(where, array, inputs[key])
        elif (
            match is not None
            and match[1] in inputs
            and inputs[match[1]].container is Container.SEQUENCE
        ):
            elements.setdefault(match[1], {})[int(match[2])] = typed(
                where, array, inputs[match[1]]
            )
        elif key in defaults:
            # An initializer that is also an input: the recorded value takes its default's place.
            values[key] = array
        else:
            extra.append(key)
    values |= {
        name: [items[place] for place in sorted(items)] for name, items in elements.items()
    }
    missing = [name for name in inputs if name not in values]
    if missing or extra:
        problems = [f"lacks {listed(missing)}"] * bool(missing) + [
            f"has {listed(extra)}, which the model has no input or output for"
        ] * bool(extra)
        raise InputError(
            f"{where} {' and '.join(problems)}. The model's inputs: "
            f"{listed(list(inputs)) or 'none'}"
        )
    check_equal_dims(where, values, inputs)
    ordered: dict[str, Value] = {}
    for name in (*inputs, *(name for name in values if name not in inputs)):
        ordered[name] = values[name]
    return ordered


def typed(where: str, array: Array, entry: Input) -> Array:
    """The array in the input's dtype, after its dtype and shape were held against the graph."""
    if entry.is_string and array.dtype.kind in "US":
        texts = array.astype(object)
        if array.dtype.kind == "S":
            texts.reshape(-1)[:] = [text.decode() for text in array.reshape(-1).tolist()]
        array = texts
    elif (
        array.dtype.kind == "V"
        and entry.dtype.kind == "V"
        and array.dtype.itemsize == entry.dtype.itemsize
    ):
        # numpy writes bfloat16 and float8 as raw bytes; the graph says what they are.
        array = array.view(entry.dtype)
    if array.dtype != entry.dtype:
        raise InputError(
            f"{where}: '{entry.name}' is {array.dtype}, the model takes {entry.type_name}"
        )
    declared = entry.shape_text()
    if entry.dims is not None and len(array.shape) != len(entry.dims):
        raise InputError(
            f"{where}: '{entry.name}' has rank {array.ndim}, the model takes {declared}"
        )
    for axis, (dim, size) in enumerate(zip(entry.dims or (), array.shape, strict=False)):
        if isinstance(dim, int) and dim != size:
            raise InputError(
                f"{where}: '{entry.name}' is {size} long at axis {axis}, the model takes {declared}"
            )
    return array


def check_equal_dims(
    where: str, values: Mapping[str, Value], inputs: Mapping[str, Input]
) -> None:
    """Hold dimensions of one name against each other.

    Raises InputError where their sizes differ.
    """
    sizes: dict[str, tuple[int, str]] = {}
    for name, entry in inputs.items():
        for array in arrays_of(values[name]):
            for dim, size in zip(entry.dims or (), array.shape, strict=False):
                if not isinstance(dim, str) or entry.container is Container.SEQUENCE:
                    continue
                earlier, whose = sizes.setdefault(dim, (size, name))
                if earlier != size:
                    raise InputError(
                        f"{where}: dimension '{dim}' is {earlier} in '{whose}' and "
                        f"{size} in '{name}'"
                    )


def _stored(array: Array) -> Array:
    if array.dtype.kind != "O":
        return array
    texts = []
    for item in array.reshape(-1).tolist():
        texts.append(item.decode() if isinstance(item, bytes) else str(item))
    if any(text.endswith("\0") for text in texts):
        raise InputError(
            "a text that ends in a NUL character can't be stored: numpy would drop it"
        )
    return np.array(texts, dtype=np.str_).reshape(array.shape)


def listed(names: list[str]) -> str:
    """The names in quotes, with commas."""
    return ", ".join(f"'{name}'" for name in names)
