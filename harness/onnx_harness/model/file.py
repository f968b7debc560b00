"""An ONNX model on disk: its hash, its signature, its external data, and a checked way to load it.

Hash and signature never load weights: the file is mapped and its protobuf fields are walked, tensor
data skipped.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness.errors import ModelError
from onnx_harness.model.links import is_reachable
from onnx_harness.model.ops import STANDARD_DOMAINS, imports_standard, opset_of
from onnx_harness.model.skeleton import skeleton
from onnx_harness.model.unreadable import lfs_pointer_bytes, lfs_sentence
from onnx_harness.model.walk import subgraphs, walk

if TYPE_CHECKING:
    import onnx


# A larger model gets a file of its own for its weights: protobuf holds at most 2 GiB in one
# message.
INLINE_BYTES = 1_500_000_000

# Of a model that has such files already the result gets one from here on: it's written a tensor at
# a time, and nobody who reads its nodes reads the weights.
_OUTSIDE_BYTES = 1 << 26

# Before this IR version every initializer had to be listed among the inputs, and was a constant all
# the same.
FREE_INITIALIZERS = 4


@dataclass(frozen=True, slots=True)
class ValueType:
    """The declared type of a graph input or output.

    Attributes:
        name: of the value.
        kind: as ONNX Runtime writes it: ``tensor(float)``, ``seq(tensor(int64))``; empty when
            undeclared.
        shape: a number, a dim_param or None (unknown, which some exporters write as a negative
            number) for each axis; None for an unknown rank or a non-tensor.
    """

    name: str
    kind: str
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True, slots=True)
class Signature:
    """The interface that callers of a model rely on.

    Attributes:
        inputs: in order; with IR version 4 and up, those with a default (an initializer of the same
            name) included.
        outputs: in order.
    """

    inputs: tuple[ValueType, ...]
    outputs: tuple[ValueType, ...]


class Model:
    """An ONNX file with its external data. Nothing is read before it is asked for."""

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path = path
        self.name = path.stem if name is None else name

    @cached_property
    def skeleton(self) -> onnx.ModelProto:
        """The model without the data of tensors larger than 1 KiB.

        Their names, types and dimensions are there.

        Raises:
            ModelError: the file is missing, isn't ONNX, or is truncated.
        """
        return skeleton(self.path)

    @cached_property
    def signature(self) -> Signature:
        """The declared inputs and outputs."""
        return signature(self.skeleton)

    @cached_property
    def external_files(self) -> tuple[Path, ...]:
        """The files that hold external data, sorted by location.

        Raises:
            ModelError: one is missing, too short, or lies outside the model's folder.
        """
        return external_files(self.skeleton, self.path)

    @cached_property
    def size_bytes(self) -> int:
        """Size of the file and its external data.

        Raises:
            ModelError: see :attr:`skeleton` and :attr:`external_files`.
        """
        return sum(file.stat().st_size for file in (*self.external_files, self.path))

    @cached_property
    def sha256(self) -> str:
        """Hash of the content: the file, then each external file's location and bytes, by location.

        Raises:
            ModelError: see :attr:`skeleton` and :attr:`external_files`.
        """
        # Several locations may be links to one file, which is read once.
        contents = {file: _digest(file).digest() for file in self.external_files}
        digest = _digest(self.path)
        folder = self.path.parent.resolve()
        for location in sorted(external_locations(self.skeleton)):
            # Where a link leads is the store's affair: there two files may have swapped names.
            digest.update(location.encode(errors="replace"))
            digest.update(contents[(folder / location).resolve()])
        return digest.hexdigest()

    @property
    def inline_bytes(self) -> int:
        """The size up to which what is made of the model is written to a single file."""
        return _OUTSIDE_BYTES if self.external_files else INLINE_BYTES

    @property
    def opset(self) -> int | None:
        """The version of the standard operator set; None when the model imports none."""
        return opset_of(self.skeleton) if imports_standard(self.skeleton) else None

    def load(self) -> onnx.ModelProto:
        """Load the whole model into memory, external data included.

        The checks of :attr:`external_files` come first.

        Raises:
            ModelError: see :attr:`skeleton` and :attr:`external_files`.
        """
        import onnx

        _ = self.external_files
        try:
            return onnx.load(str(self.path))
        except (
            Exception
        ) as error:  # protobuf and onnx raise types of their own, none of them stable
            raise ModelError(f"{self.path.name} can't be loaded: {error}") from error


def _digest(path: Path) -> hashlib._Hash:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def signature(model: onnx.ModelProto) -> Signature:
    """The declared inputs and outputs of ``model``.

    Below IR version 4 every initializer has to be listed among the inputs; there, those aren't part
    of the signature.
    """
    listed = model.ir_version < FREE_INITIALIZERS
    listed_constants = (
        {tensor.name for tensor in model.graph.initializer} if listed else set()
    )
    return Signature(
        tuple(
            _value_type(info)
            for info in model.graph.input
            if info.name not in listed_constants
        ),
        tuple(_value_type(info) for info in model.graph.output),
    )


def node_count(graph: onnx.GraphProto) -> int:
    """Nodes of ``graph`` and of all its subgraphs, Constant nodes included."""
    return sum(1 for _ in walk(graph))


def operator_counts(graph: onnx.GraphProto) -> dict[str, int]:
    """Return how many nodes of each operator a graph and its subgraphs hold, most first.

    Constant nodes are included. An operator that isn't of ONNX's own domain has its domain before
    its name: ``com.microsoft.FusedMatMul``.
    """
    counts = Counter(
        node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op_type}"
        for node in walk(graph)
    )
    return dict(counts.most_common())


def has_loops(graph: onnx.GraphProto) -> bool:
    """Return whether ``graph``, or a graph inside it, repeats some of its nodes."""
    return any(node.op_type in ("Loop", "Scan") for node in walk(graph))


def external_files(model: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """Return the external data files that ``model``, read from ``path``, refers to.

    They're resolved and sorted by location.

    Raises:
        ModelError: a location is absolute or leads outside the model's folder (a link counts as
            where it points, which may be the store that ``path`` itself leads into), its file is
            missing or is shorter than the model says.
    """
    folder = path.parent.resolve()
    files: list[Path] = []
    for tensor in external_tensors(model):
        entries = {_text(entry.key): _text(entry.value) for entry in tensor.external_data}
        location = entries.get("location", "")
        where = f"{path.name}: external data of tensor '{_text(tensor.name)}'"
        try:
            file = (folder / location).resolve()
            inside, there = location and is_reachable(location, path), file.is_file()
        except (
            OSError,
            ValueError,
            RuntimeError,
        ) as error:  # too long a name, a null byte, a loop of links
            raise ModelError(
                f"{where} can't be found: {location[:200]!r} is no path to a file ({error})"
            ) from None
        if not inside:
            raise ModelError(
                f"{where} lies outside the model's folder ({location!r}). It isn't read; move it "
                f"inside."
            )
        if not there:
            raise ModelError(
                f"{where} is missing: there is no file {location!r} beside the model. Copy it "
                f"there."
            )
        offset, length = entries.get("offset", "0"), entries.get("length", "0")
        if not (
            offset.isascii()
            and offset.isdecimal()
            and length.isascii()
            and length.isdecimal()
        ):
            raise ModelError(
                f"{where} has an offset or length that isn't a number: {offset!r}, {length!r}"
            )
        end, size = (
            int(offset[:20]) + max(int(length[:20]), least_bytes(tensor)),
            file.stat().st_size,
        )
        if end > size:
            if (pointer := lfs_pointer_bytes(file)) is not None:
                raise ModelError(f"{where}: {location!r} is {lfs_sentence(pointer)}")
            raise ModelError(
                f"{where} is truncated: {location!r} has {size} bytes, {end} are needed"
            )
        files.append(file)
    return tuple(sorted(set(files), key=lambda file: _place(file, path)))


def external_locations(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the locations of the external data files as the model has them, each once."""
    locations = []
    for tensor in external_tensors(model):
        for entry in tensor.external_data:
            if _text(entry.key) == "location":
                locations.append(_text(entry.value))
    return tuple(dict.fromkeys(locations))


def _place(file: Path, path: Path) -> str:
    """Return where an external file lies.

    Relative to the model's folder, or its name in a store of links.
    """
    folder = path.parent.resolve()
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.name


def least_bytes(tensor: onnx.TensorProto) -> int:
    """The bytes that the data of ``tensor`` takes by its dimensions; 0 where it can't be told."""
    import onnx

    try:
        name = onnx.TensorProto.DataType.Name(tensor.data_type)
        itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError, TypeError):
        return 0
    if name.startswith(
        ("INT2", "UINT2", "INT4", "UINT4", "FLOAT4", "STRING")
    ):  # several to a byte, or of any length
        return 0
    return int(math.prod(max(dim, 0) for dim in tensor.dims) * itemsize)


def external_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Return the tensors whose data lie outside the file, wherever in the model they are."""
    import onnx

    def from_sparse(tensors: Iterable[onnx.SparseTensorProto]) -> Iterator[onnx.TensorProto]:
        for tensor in tensors:
            yield tensor.values
            yield tensor.indices

    def from_nodes(nodes: Iterator[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
        for node in nodes:
            for attribute in node.attribute:
                yield from attribute.tensors
                if attribute.HasField("t"):
                    yield attribute.t
                if attribute.HasField("sparse_tensor"):
                    yield from from_sparse([attribute.sparse_tensor])
                yield from from_sparse(attribute.sparse_tensors)
            for body in subgraphs(node):
                yield from from_graph(body)

    def from_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
        yield from graph.initializer
        yield from from_sparse(graph.sparse_initializer)
        yield from from_nodes(iter(graph.node))

    tensors = [*from_graph(model.graph)]
    for function in model.functions:
        tensors += from_nodes(iter(function.node))
    return (
        tensor for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL
    )


def _value_type(info: onnx.ValueInfoProto) -> ValueType:
    kind, shape = _type_words(info.type)
    return ValueType(_text(info.name), kind, shape)


def _text(value: str | bytes) -> str:
    """A string of a model; protobuf hands over as bytes what isn't UTF-8."""
    return value if isinstance(value, str) else value.decode(errors="replace")


def _type_words(declared: onnx.TypeProto) -> tuple[str, tuple[int | str | None, ...] | None]:
    match declared.WhichOneof("value"):
        case "tensor_type" | "sparse_tensor_type" as which:
            tensor = getattr(declared, which)
            element = _element_word(tensor.elem_type)
            kind = f"{which.removesuffix('_type')}({element})"
            return kind, tuple(_dim(dim) for dim in tensor.shape.dim) if tensor.HasField(
                "shape"
            ) else None
        case "sequence_type":
            return f"seq({_type_words(declared.sequence_type.elem_type)[0]})", None
        case "optional_type":
            return f"optional({_type_words(declared.optional_type.elem_type)[0]})", None
        case "map_type":
            key = _element_word(declared.map_type.key_type)
            return f"map({key},{_type_words(declared.map_type.value_type)[0]})", None
        case _:
            return "", None


def _element_word(number: int) -> str:
    import onnx

    names = onnx.TensorProto.DataType.items()
    return next((name.lower() for name, value in names if value == number), "undefined")


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return _text(dim.dim_param) or None
