"""Name a file that isn't an ONNX model by its first bytes, with what to do about it."""

from __future__ import annotations

import re
from pathlib import Path

_LFS = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*?size (\d+)", re.MULTILINE
)
_MOST_POINTER_BYTES = 1024  # git-lfs's own limit for a pointer file

_SIGNATURES = {
    b"PK\x03\x04": (
        "a zip archive, such as torch.save writes. Mend: export the model with torch.onnx.export"
    ),
    b"\x1f\x8b": "gzip-compressed. Mend: unpack it with gunzip",
    b"\x89HDF\r\n": "an HDF5 file, as Keras writes. Mend: convert it with tf2onnx",
    b"\x80\x02": "a Python pickle. Mend: export the model with torch.onnx.export",
    b"\x80\x04": "a Python pickle. Mend: export the model with torch.onnx.export",
    b"GGUF": "a GGUF file, of llama.cpp. Mend: export the model to ONNX",
    b"ORTM": "in ONNX Runtime's own format (.ort). Mend: name the .onnx that it was made from",
}


def lfs_pointer_bytes(path: Path) -> int | None:
    """Return the size in bytes of the file that a Git LFS pointer stands for.

    None for any other file.
    """
    try:
        if path.stat().st_size > _MOST_POINTER_BYTES:
            return None
        match = _LFS.match(path.read_bytes())
    except OSError:
        return None
    return int(match[1]) if match else None


def lfs_sentence(size: int) -> str:
    """Return what to say of a pointer to a file of ``size`` bytes."""
    return (
        f"a Git LFS pointer, not the file of {size:,} bytes that it stands for. "
        "Mend: git lfs pull"
    )


def describe(path: Path, problem: str) -> str:
    """Return a sentence on what ``path`` is, where it can't be parsed as ONNX.

    Args:
        path: a file that can be read.
        problem: what the parser met; it decides between a truncated model and something else
            altogether.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return f"{path.name} is empty (0 bytes). Mend: export or download the model again"
    pointer = lfs_pointer_bytes(path)
    if pointer is not None:
        return f"{path.name} is {lfs_sentence(pointer)}"
    for signature, words in _SIGNATURES.items():
        if head.startswith(signature):
            return f"{path.name} isn't an ONNX file: it is {words}"
    if (start := _text_start(head)) is not None:
        if start.lower().startswith(("<!doctype", "<html", "<?xml")):
            return (
                f"{path.name} isn't an ONNX file: it is a web page, perhaps the error page of a "
                f"download. Mend: "
                "download the model itself, and look at the file's first lines"
            )
        # A link may lead to a file that is nobody's business: of that no word is shown.
        quoted = "" if path.is_symlink() else f" that begins with {start!r}"
        return (
            f"{path.name} isn't an ONNX file: it is text{quoted}. Mend: name the model itself, or "
            "export it again"
        )
    if (
        "ends" in problem
    ):  # a field begins well and goes beyond the end of the file, or of the message it is in
        size = path.stat().st_size
        return (
            f"{path.name} is truncated, or isn't an ONNX file: its {size:,} bytes end in the "
            f"middle of it ({problem}). "
            "Mend: copy, download or export it again"
        )
    return (
        f"{path.name} isn't an ONNX file ({problem}). Mend: name a model in ONNX format, or "
        f"export it again"
    )


def _text_start(head: bytes) -> str | None:
    """Return the first words of a text; None for binary data, which protobuf is."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # Not merely a character that the 512 bytes cut in two.
        if error.start < len(head) - 4:
            return None
        text = head[: error.start].decode("utf-8")
    if any(not letter.isprintable() and letter not in "\r\n\t" for letter in text):
        return None
    return text.strip()[:40].splitlines()[0] if text.strip() else None
