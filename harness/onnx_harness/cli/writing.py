"""Write a transformed model to its file, and say why it can't be."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness.errors import HarnessError, TransformError, UsageError, words_of
from onnx_harness.model.file import Model
from onnx_harness.names import Variant
from onnx_harness.transforms.variant import bind_variant

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class Written:
    """The written model. Bytes count external data.

    Attributes:
        keeps_float32: names of the nodes that stay float32, where they were chosen, those of the
            card included.
        did: what the steps did, in their own words.
        remarks: what they remark for whoever uses the result.
    """

    nodes_before: int
    nodes_after: int
    bytes_before: int
    bytes_after: int
    transform_seconds: float
    external_data: str | None
    keeps_float32: tuple[str, ...] | None = None
    did: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Objections:
    """The objections to the written model.

    Attributes:
        checker: what the ONNX checker says against it, or None.
        original: what it says against the model that it was made of, or None.
        interface: what a caller would notice, a sentence each.
    """

    checker: str | None
    original: str | None
    interface: tuple[str, ...]

    def problems(self) -> list[str]:
        """Sentences.

        That an invalid model stays invalid is no transform's fault, and is told as a note.
        """
        problems = [f"the model's interface changed: {change}" for change in self.interface]
        if self.checker and not self.original:
            problems.insert(0, f"the ONNX checker rejects the written model: {self.checker}")
        return problems

    def notes(self) -> list[str]:
        """Remarks that don't make the work a failure."""
        return (
            [f"the ONNX checker rejects the original too: {self.original}"]
            if self.original
            else []
        )


def check_output(out: Path, path: Path, *, force: bool) -> None:
    """Check that a model can be written there.

    Raises:
        UsageError: there is no such folder, it is the model itself, or it exists and isn't forced.
    """
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} to write {out.name} to")
    if out.is_dir():
        raise UsageError(f"{out} is a folder; name the file to write")
    if out.exists() and out.samefile(path):
        raise UsageError(f"{out} is the model itself; name another file")
    for file in (out, data_file(out)):
        if file.exists() and not force:
            raise UsageError(f"{file} exists; --force overwrites it")


def data_file(out: Path) -> Path:
    """Return the file of the external data of a written model."""
    return out.with_name(f"{out.name}.data")


@contextlib.contextmanager
def folder_for(out: Path) -> Iterator[Path]:
    """Open a folder beside ``out``, on its file system, whose files take their places at the end.

    An error leaves older files as they were.

    Raises:
        TransformError: it can't be written.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent)
    except OSError as error:
        raise cannot_write(out, error) from None
    with folder as name:
        yield Path(name)


def publish(folder: Path, out: Path) -> None:
    """Move what was written for ``out`` to its place, its external data first.

    Raises:
        TransformError: it can't be written.
    """
    try:
        for file in sorted(folder.iterdir(), key=lambda file: file.name == out.name):
            file.replace(out.with_name(file.name))
    except OSError as error:
        raise cannot_write(out, error) from None


def write(
    model: onnx.ModelProto, out: Path, inline_bytes: int, said: Path | None = None
) -> str | None:
    """Write ``model``, in a folder of its own first.

    A failure leaves an older file as it was.

    Args:
        model: to write.
        out: its file.
        inline_bytes: above it, weights go to a file of their own.
        said: how an error calls the file, where it isn't its place yet.
    """
    from onnx_harness.model.saving import save

    data = data_file(out)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
            unfinished = Path(folder) / out.name
            large = save(model, unfinished, inline_bytes=inline_bytes, weights=data.name)
            if large:
                unfinished.with_name(data.name).replace(data)
            unfinished.replace(out)
            return data.name if large else None
    except Exception as error:  # also protobuf's own, for a message above 2 GiB
        raise cannot_write(said or out, error) from None


def cannot_write(out: Path, error: Exception) -> HarnessError:
    """Return the error to raise where writing ended in an operating system's error."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    mend = ". Mend: free some space, or choose another disk" if full else ""
    return TransformError(
        f"{out} can't be written: {getattr(error, 'strerror', None) or words_of(error)}{mend}"
    )


def find_objections(path: Path, out: Path, variant: Variant) -> Objections:
    """Hold what was written against the ONNX checker and the original's interface.

    Meant for the worker.
    """
    from onnx_harness.cell.artifacts import checker_says
    from onnx_harness.model.interface import interface_changes

    before, after = Model(path), Model(out, "written")
    checker = checker_says(out)
    original = checker_says(path) if checker else None
    bound = bind_variant(variant)
    changes = interface_changes(
        before.signature, after.signature, bound.float_io, bound.fixed_shapes
    )
    return Objections(checker, original, tuple(changes))
