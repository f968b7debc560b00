"""Recorded input sets in ONNX's own layout.

``test_data_set_N/input_K.pb`` and ``output_K.pb`` beside a model.

Each file is a serialized TensorProto, SequenceProto or OptionalProto. K counts the graph's inputs
(outputs), unless the values carry the names of the graph's.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from onnx_harness.errors import InputError
from onnx_harness.inputs.graph.signature import Container, Input, default_names, read_inputs
from onnx_harness.inputs.recorded.npz import check_equal_dims, listed, typed
from onnx_harness.inputs.values.sets import DataSet, InputSet, Value, arrays_of, shape_text

_FOLDER = re.compile(r"test_data_set_(\d+)")
_FILE = re.compile(r"(input|output)_(\d+)\.pb")


def data_set_folders(model: Path) -> list[Path]:
    """The folders ``test_data_set_N`` beside ``model``, in order of N.

    They are said to be the model's where it's the only ``.onnx`` of its folder.
    """
    if not model.parent.is_dir():
        return []
    names = os.listdir(model.parent)  # noqa: PTH208  a folder of 10,000 models is listed for each
    folders = []
    for name in names:
        if not name.startswith("test_data_set_"):
            continue
        match = _FOLDER.fullmatch(name)
        folder = model.parent / name
        if match is not None and folder.is_dir():
            folders.append((int(match[1]), folder))
    if not folders or any(name.endswith(".onnx") and name != model.name for name in names):
        return []
    return [path for _, path in sorted(folders)]


def data_set_files(model: Path) -> list[Path]:
    """Every file of the model's data sets: what a cache key has to know of.

    Raises:
        InputError: one is no file: a pipe or a device would be read for ever.
    """
    files: list[Path] = []
    for folder in data_set_folders(model):
        for file in sorted(folder.glob("*.pb")):
            if not file.is_file():
                raise InputError(f"{folder.name}/{file.name} isn't a file")
            files.append(file)
    return files


def digest(files: Iterable[Path]) -> str:
    """SHA-256 over names and contents of ``files``, in hexadecimal."""
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.parent.name}/{file.name}\n".encode())
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def load_data_sets(path: Path, model: onnx.ModelProto) -> list[DataSet]:
    """Read the data sets beside the model in ``path``, each held against its graph.

    Args:
        path: the model's file.
        model: large initializers may have lost their data; names, types and dimensions are read.

    Raises:
        InputError: a file isn't what the graph declares, an input is missing, there is one too
            many, or one is of a type that can't be fed.
    """
    folders = data_set_folders(path)
    if not folders:
        return []
    inputs, defaults = read_inputs(model), default_names(model)
    declared = {info.name: info.type for info in (*model.graph.input, *model.graph.output)}
    fed, outputs = (
        [info.name for info in model.graph.input],
        [info.name for info in model.graph.output],
    )
    sets = []
    for folder in folders:
        raw = _read(folder, "input", [list(inputs), fed], declared)
        values = _checked(folder.name, raw, inputs, defaults)
        expected = _read(folder, "output", [outputs], declared)
        entries = []
        for value in values.values():
            entries.append(shape_text(next(arrays_of(value), np.empty(0)).shape))
        shapes = ", ".join(entries)
        name = f"recorded in {folder.name}{f' ({shapes})' if shapes else ''}"
        sets.append(DataSet(InputSet(name, values), expected))
    return sets


def _read(
    folder: Path,
    what: str,
    orders: Sequence[Sequence[str]],
    declared: Mapping[str, onnx.TypeProto],
) -> dict[str, Any]:
    """The values of ``input_*.pb`` or ``output_*.pb`` by name.

    Args:
        folder: of the set.
        what: ``input`` or ``output``.
        orders: names that K may count, likeliest first: a model's inputs without those that have a
            default, and all.
        declared: types by name.
    """
    files: dict[int, Path] = {}
    for file in folder.glob(f"{what}_*.pb"):
        if (match := _FILE.fullmatch(file.name)) is not None:
            files[int(match[2])] = file
    if not files:
        return {}
    order = next((names for names in orders if max(files) < len(names)), None)
    if order is None:
        raise InputError(
            f"{folder.name} holds {max(files) + 1} {what}s, and the model has {len(orders[-1])}"
        )
    named = {}
    for number in sorted(files):
        name, value = _parsed(
            files[number], declared[order[number]], f"{folder.name}/{files[number].name}"
        )
        named[number] = (name, value)
    names = [name for name, _ in named.values()]
    if len(set(names)) == len(names) and set(names) <= set(orders[-1]):
        return dict(named.values())
    return {order[number]: value for number, (_, value) in named.items()}


def _parsed(file: Path, declared: onnx.TypeProto, where: str) -> tuple[str, Any]:
    """The name that a file's value carries, and the value."""
    kind = declared.WhichOneof("value")
    message: Any = {
        "sequence_type": onnx.SequenceProto,
        "optional_type": onnx.OptionalProto,
        "map_type": onnx.MapProto,
    }.get(str(kind), onnx.TensorProto)()
    try:
        message.ParseFromString(file.read_bytes())
        # A tensor of float32 reads as an empty sequence otherwise: each says 1 for its type.
        if kind != "tensor_type" and len(UnknownFieldSet(message)):
            raise ValueError("it has fields that are none of it")
        return str(message.name), _value(message)
    except OSError as error:
        raise InputError(f"{where} can't be read: {error.strerror}") from None
    except (DecodeError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{where} isn't the {type(message).__name__} that the graph declares: {error}"
        ) from None


def _value(message: Any) -> Any:
    if isinstance(message, onnx.SequenceProto):
        if message.elem_type not in (
            onnx.SequenceProto.TENSOR,
            onnx.SequenceProto.UNDEFINED,
        ):
            raise ValueError("only sequences of tensors are read")
        return [_array(tensor) for tensor in message.tensor_values]
    if isinstance(message, onnx.OptionalProto):
        match message.elem_type:
            case onnx.OptionalProto.UNDEFINED:
                return None
            case onnx.OptionalProto.TENSOR:
                return _array(message.tensor_value)
            case onnx.OptionalProto.SEQUENCE:
                return _value(message.sequence_value)
        raise ValueError("only optional tensors and sequences are read")
    if isinstance(message, onnx.TensorProto):
        return _array(message)
    raise ValueError("maps aren't read")


def _array(tensor: onnx.TensorProto) -> Any:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ValueError("its data lies in another file, which isn't read")
    array = onnx.numpy_helper.to_array(tensor)
    if array.dtype.kind == "O":
        texts = []
        for item in array.reshape(-1).tolist():
            texts.append(item.decode() if isinstance(item, bytes) else item)
        array = np.array(texts, dtype=object).reshape(array.shape)
    return array


def _checked(
    where: str, raw: Mapping[str, Any], inputs: Mapping[str, Input], defaults: set[str]
) -> dict[str, Value]:
    missing = [name for name in inputs if name not in raw]
    extra = []
    for name in raw:
        if name not in inputs and name not in defaults:
            extra.append(name)
    if missing or extra:
        problems = [f"lacks {listed(missing)}"] * bool(missing) + [
            f"has {listed(extra)}, which the model has no input for"
        ] * bool(extra)
        raise InputError(
            f"{where} {' and '.join(problems)}. The model's inputs: "
            f"{listed(list(inputs)) or 'none'}"
        )
    values: dict[str, Value] = {}
    for name, value in raw.items():
        if value is None:
            raise InputError(f"{where}: '{name}' is an absent optional, which can't be fed")
        entry = inputs.get(name)
        if entry is None:
            values[name] = (
                # an initializer that is also an input: the recorded value takes its default's place
                value
            )
        elif isinstance(value, list) != (entry.container is Container.SEQUENCE):
            raise InputError(
                f"{where}: '{name}' is {'a sequence' if isinstance(value, list) else 'a tensor'}"
            )
        elif isinstance(value, list):
            values[name] = [typed(where, array, entry) for array in value]
        else:
            values[name] = typed(where, value, entry)
    check_equal_dims(where, values, inputs)
    ordered: dict[str, Value] = {}
    for name in (*inputs, *(name for name in values if name not in inputs)):
        ordered[name] = values[name]
    return ordered
