"""Run onnxruntime.quantization, which works on files, talks, and reads samples one by one."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_harness.errors import NotApplicable
from onnx_harness.model.custom_ops import in_foreign_sessions
from onnx_harness.transforms.quantization.aliases import Aliases
from onnx_harness.transforms.quantization.preparing import nothing_to_quantize, remark_tied

if TYPE_CHECKING:
    import onnx


_ERROR = 3  # ONNX Runtime's severity


class Samples:
    """The samples as the CalibrationDataReader of onnxruntime.quantization."""

    def __init__(self, feeds: Sequence[Mapping[str, Any]]) -> None:
        self._feeds = feeds
        self.set_range(0, len(feeds))

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Begin again with some of the samples."""
        self._rest = iter(self._feeds[start_index:end_index])

    def get_next(self) -> Mapping[str, Any] | None:
        """Return the next sample; None after the last."""
        return next(self._rest, None)


def feeds_of(
    model: onnx.ModelProto, samples: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The samples as the model takes them, which a step before this one may have changed."""
    import numpy as np
    import onnx

    types = {info.name: info.type.tensor_type.elem_type for info in model.graph.input}
    half = set()
    for name, kind in types.items():
        if kind == onnx.TensorProto.FLOAT16:
            half.add(name)
    feeds = []
    for sample in samples:
        feed = {}
        for name, value in sample.items():
            if name in types:
                is_narrowed = name in half and value.dtype == np.float32
                feed[name] = value.astype(np.float16) if is_narrowed else value
        feeds.append(feed)
    if not all(feeds):
        raise NotApplicable("the model takes no inputs: there is nothing to calibrate it on")
    return feeds


def through_files(
    model: onnx.ModelProto,
    quantize: Callable[[Path, Path, Aliases], None],
    types: Sequence[str],
    excluded: Sequence[str] = (),
) -> onnx.ModelProto:
    """Quantize from file to file, in a folder that goes afterwards.

    That is all that the library can do.

    Args:
        model: its values and nodes get aliases.
        quantize: takes the file to read, the one to write and the aliases.
        types: the operators chosen.
        excluded: names of nodes that are left out.

    Raises:
        NotApplicable: nothing was quantized.
    """
    import onnx

    from onnx_harness.model.rewrite import sort_nodes
    from onnx_harness.model.unread_defaults import unread_defaults
    from onnx_harness.transforms.declared_types import declare_float_types
    from onnx_harness.transforms.quantization.draws import seed_draws, take_seeds_back
    from onnx_harness.transforms.quantization.nodes import (
        captured,
        is_quantized,
        tied_tables,
    )

    tied = tied_tables(model.graph)
    unread = unread_defaults(model)
    seeded = seed_draws(model)
    inside = captured(model.graph)
    floats = [tensor for tensor in model.graph.initializer if tensor.name in inside]
    with (
        tempfile.TemporaryDirectory(prefix="int8-") as name,
        quiet(),
        aliased(model) as aliases,
    ):
        source, target = Path(name) / "model.onnx", Path(name) / "quantized.onnx"
        declare_float_types(model, Path(name))
        onnx.save_model(model, source)
        quantize(source, target, aliases)
        quantized = onnx.load_model(target)
    if not any(is_quantized(node) for node in quantized.graph.node):
        aliases.take_back(model)
        raise NotApplicable(nothing_to_quantize(types, model.graph, excluded))
    remark_tied(tied)
    _put_back(quantized.graph, floats)
    aliases.take_back(quantized)
    take_seeds_back(quantized, seeded)
    if unread is not None:
        unread.put_back(quantized.graph)
    sort_nodes(quantized.graph)
    _remove_note(quantized)
    return quantized


def _put_back(graph: onnx.GraphProto, tensors: Sequence[onnx.TensorProto]) -> None:
    """Add those of some initializers that the library left out."""
    present = {tensor.name for tensor in graph.initializer}
    for tensor in tensors:
        if tensor.name not in present:
            graph.initializer.append(tensor)


def _remove_note(model: onnx.ModelProto) -> None:
    """Remove the library's note to itself."""
    entries = []
    for entry in model.metadata_props:
        if entry.key != "onnx.infer":
            entries.append(entry)
    model.ClearField("metadata_props")
    model.metadata_props.extend(entries)


@contextlib.contextmanager
def aliased(model: onnx.ModelProto) -> Iterator[Aliases]:
    """Give values and nodes aliases, which errors of the library don't show."""
    aliases = Aliases(model)
    try:
        yield aliases
    except Exception as error:
        words = []
        for word in error.args:
            words.append(aliases.in_words(word) if isinstance(word, str) else word)
        error.args = tuple(words)
        raise


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the library from printing, and from configuring the root logger.

    It logs and configures when it's imported.
    """
    root, silent = logging.getLogger(), logging.NullHandler()
    disabled = root.manager.disable
    root.addHandler(silent)  # without any, logging.warning() would add one that stays
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import onnxruntime

            onnxruntime.set_default_logger_severity(_ERROR)  # of the sessions that calibrate
            with in_foreign_sessions():
                yield
    finally:
        logging.disable(disabled)
        root.removeHandler(silent)
