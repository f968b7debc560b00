"""A search for what a folder tells of a model: its names, and runs of its values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

_RUN_BYTES = 8
_RUN_OF_INTEGERS = 4
_SHORTEST_NAME = 4  # shorter ones are anybody's
_HARMLESS = (0, 1)
_DIGITS = 6


def leaks(folder: Path, *originals: onnx.ModelProto) -> list[str]:
    """Return what files of a folder have of some models.

    Args:
        folder: with files of any kind.
        originals: whose names have at least four letters where they matter.

    Returns:
        A line for each name, and for each array of which two values in a row, at least eight bytes (of
        integers four values), are in a file: as bytes, in their own type or in another float type, or as text.
    """
    found = []
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    names = {name for model in originals for name in _names(model)}
    arrays = [pair for model in originals for pair in _arrays(model)]
    for file in files:
        content = file.name.encode() + b"\n" + file.read_bytes()
        for name in sorted(names):
            if re.search(rb"(?<!\w)" + re.escape(name.encode()) + rb"(?!\w)", content):
                found.append(f"{file.name}: name {name}")
        for label, array in arrays:
            if any(run in content for run in _runs(array)):
                found.append(f"{file.name}: values of {label}")
    return found


def _runs(array: np.ndarray) -> Iterator[bytes]:
    """Yield the bytes, and as text the digits, of runs of an array that say something."""
    flat = array.reshape(-1)
    forms = [flat]
    if flat.dtype.kind == "f":
        with np.errstate(over="ignore"):
            forms += [
                flat.astype(kind)
                for kind in ("f2", "f4", "f8")
                if kind != flat.dtype.str[1:]
            ]
        for value in flat:
            text = f"{value:.{_DIGITS}g}".lstrip("-")
            if len(text) > _DIGITS:
                yield text.encode()
    for form in forms:
        length = max(2, -(-_RUN_BYTES // form.dtype.itemsize))
        if form.dtype.kind in "iub":  # of integers two may be the same by chance
            length = max(length, _RUN_OF_INTEGERS)
        for start in range(flat.size - length + 1):
            part = form[start : start + length]
            if not np.isin(np.abs(part.astype(np.float64)), _HARMLESS).all():
                yield part.tobytes()


def _names(message: Any) -> Iterator[str]:
    """Yield every string of a message but operators and their attributes' names."""
    for entry, value in message.ListFields():
        if entry.name in ("op_type", "raw_data", "s"):  # an attribute's word, such as a mode
            continue
        if isinstance(message, AttributeProto) and entry.name == "name":
            continue
        for one in value if hasattr(value, "extend") else (value,):
            if entry.message_type is not None:
                yield from _names(one)
            elif isinstance(one, str | bytes) and len(one) >= _SHORTEST_NAME:
                text = one if isinstance(one, str) else one.decode()
                yield from () if text.startswith("ai.onnx") else (text,)


def _arrays(message: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every tensor of a message, and the floats of its attributes."""
    if isinstance(message, TensorProto):
        if message.data_type != TensorProto.STRING:
            yield message.name or "a tensor", numpy_helper.to_array(message)
        return
    if isinstance(message, AttributeProto) and message.floats:
        yield message.name, np.asarray(message.floats, np.float32)
    for entry, value in message.ListFields():
        if entry.message_type is not None:
            for one in value if hasattr(value, "extend") else (value,):
                yield from _arrays(one)


def confidential() -> onnx.ModelProto:
    """Return a model with values and names wherever a model has some."""
    made = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20, "secret.ops" : 1, "ai.onnx.ml" : 4],
            doc_string: "secret_words", producer_name: "secret_maker">
        secret_graph (float[secret_batch,4] secret_in, bool go) => (float[secret_batch,4] secret_out)
        <int64[4] secret_ids = {3, 1, 2, 0}>
        {
            [secret_node] inner_a = secret.ops.secret_function <secret_attribute = 0.3712345> (secret_in)
            inner_c = Constant <value_floats = [0.1234567, 2.7182818, 3.1415926, 0.5772156]> ()
            inner_t = Constant <value = float[4] {1.4142135, 1.7320508, 2.2360679, 2.4494897}> ()
            inner_d = Add(inner_a, inner_c)
            inner_g = Gather <axis = 1> (inner_d, secret_ids)
            inner_b = CastLike(secret_half, inner_g)
            inner_q = CastLike(secret_int8, inner_g)
            inner_h = Mul(inner_g, inner_b)
            inner_i = Add(inner_h, inner_q)
            inner_m = ai.onnx.ml.LabelEncoder <keys_strings = ["secret_k", "secret_l"],
                values_floats = [7.654321, 1.234567], default_float = 4.567891> (secret_texts)
            inner_n = Add(inner_i, inner_m)
            inner_o = Add(inner_n, secret_sparse)
            inner_s = Add(inner_o, inner_t)
            secret_out = If (go) <
                then_branch = secret_yes () => (float[secret_n,4] inner_y)
                    <float[4] secret_w = {9.8765432, 8.7654321, 7.6543219, 6.5432198}>
                    { inner_y = Add(inner_s, secret_w) },
                else_branch = secret_no () => (float[secret_n,4] inner_z)
                    { inner_z = Neg(inner_s) }>
        }
        <domain: "secret.ops", opset_import: ["" : 20], doc_string: "secret_words">
        secret_function <secret_attribute: float = 0.1928374> (secret_x) => (secret_y)
        { secret_y = LeakyRelu <alpha: float = @secret_attribute> (secret_x) }"""
    )
    arrays: dict[str, Any] = {
        "secret_half": np.random.default_rng(5).normal(size=4).astype(ml_dtypes.bfloat16),
        "secret_int8": np.array([17, -93, 55, 101], np.int8),
        "secret_texts": np.array(["secret_k"], object),
    }
    for name, array in arrays.items():
        made.graph.initializer.append(numpy_helper.from_array(array, name))
    entries = numpy_helper.from_array(
        np.array([1.6180339, 0.6931471], np.float32), "secret_sparse"
    )
    indices = numpy_helper.from_array(np.array([0, 3]), "secret_indices")
    made.graph.sparse_initializer.append(
        onnx.helper.make_sparse_tensor(entries, indices, [4])
    )
    made.metadata_props.add(key="secret_key", value="secret_value")
    return made
