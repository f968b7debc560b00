"""Choose the nodes that a conversion keeps as they are, by verdicts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from onnx_harness.judging.mixed.account import UNLIMITED, Effort, Mix
from onnx_harness.judging.mixed.half_search import find_float32
from onnx_harness.judging.mixed.quantized import find_floats
from onnx_harness.judging.mixed.source import Source
from onnx_harness.judging.standard import Standard
from onnx_harness.transforms import remarks
from onnx_harness.transforms.half.mixed import MixedConversion
from onnx_harness.transforms.quantization.mixed import QuantizedConversion


def chooser(
    standard: Standard,
    say: Callable[[str], None],
    chosen: list[Mix] | None = None,
    effort: Effort = UNLIMITED,
) -> Callable[[MixedConversion | QuantizedConversion], Sequence[str]]:
    """Return what chooses the nodes of a conversion by verdicts.

    Args:
        standard: what the outputs are judged by.
        say: takes a remark on the result.
        chosen: gets what was found.
        effort: what the search may cost.
    """

    def choose(conversion: MixedConversion | QuantizedConversion) -> Sequence[str]:
        with remarks():  # on models that were tried; the one that is made gets its own
            mix = find_mix(standard, conversion, effort)
        if chosen is not None:
            chosen.append(mix)
        for sentence in mix.sentences(conversion.spelling):
            say(sentence)
        return mix.names

    return choose


def find_mix(
    standard: Standard,
    conversion: MixedConversion | QuantizedConversion,
    effort: Effort = UNLIMITED,
) -> Mix:
    """Find the nodes that a conversion keeps in float32.

    With them the converted model is faithful and usable.

    Args:
        standard: what the outputs are judged by.
        conversion: the conversion.
        effort: what the search may cost.

    Raises:
        NotApplicable: no set of nodes makes it so, or the model with switches isn't the model.
    """
    with tempfile.TemporaryDirectory(
        prefix="onnx-harness-mixed-", ignore_cleanup_errors=True
    ) as folder:
        source = Source(conversion.model, Path(folder))
        if isinstance(conversion, QuantizedConversion):
            return find_floats(standard, conversion, source, effort)
        return find_float32(standard, conversion, source, effort)
