"""A plugin of pytest that puts our functions in the place of a library's, before tests import it."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--in-place-of", choices=LIBRARIES, help="the library to replace")


def pytest_configure(config: pytest.Config) -> None:
    library = config.getoption("--in-place-of")
    if library is not None:
        LIBRARIES[library]()


def _replace(original: Callable[..., Any], ours: Callable[..., Any]) -> None:
    """Replace a function in all modules of its library that have been imported."""
    library = original.__module__.split(".")[0]
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] != library:
            continue
        for attribute, value in list(vars(module).items()):
            if value is original:
                setattr(module, attribute, ours)


def _onnxconverter_common() -> None:
    import onnxconverter_common  # noqa: F401  # its modules are searched
    from onnxconverter_common import auto_mixed_precision, float16  # noqa: F401

    from onnx_harness.transforms.float16 import convert_np_to_float16
    from onnx_harness.transforms.fp16 import (
        convert_float_to_float16,
        convert_float_to_float16_model_path,
    )

    _replace(float16.convert_float_to_float16, convert_float_to_float16)
    _replace(
        float16.convert_float_to_float16_model_path, convert_float_to_float16_model_path
    )
    _replace(float16.convert_np_to_float16, convert_np_to_float16)


def _onnxruntime() -> None:
    from onnxruntime.transformers import float16

    from onnx_harness.transforms.fp16 import convert_float_to_float16

    _replace(float16.convert_float_to_float16, convert_float_to_float16)


def _onnxsim() -> None:
    import onnxsim

    from onnx_harness.transforms.simplify import simplify_as_onnxsim

    _replace(onnxsim.simplify, simplify_as_onnxsim)


def _onnxslim() -> None:
    """Do what ``onnxslim.slim`` does to a model; what it says of several is the library's own."""
    import onnxslim

    original = onnxslim.slim

    def slim(model: Any, *args: Any, **options: Any) -> onnx.ModelProto | None:
        if isinstance(model, list) or options.get("inspect"):
            result: onnx.ModelProto | None = original(model, *args, **options)
            return result
        return _slim(model, *args, **options)

    _replace(original, slim)


def _slim(
    model: onnx.ModelProto | str,
    output_model: str | None = None,
    *,
    dtype: str | None = None,
    input_shapes: list[str] | None = None,
    model_check: bool = False,
    **_: Any,
) -> onnx.ModelProto | None:
    from onnx_harness.transforms.fp16 import convert_float_to_float16
    from onnx_harness.transforms.simplify import simplify

    small = simplify(
        model, overwrite_input_shapes=input_shapes or (), check_n=int(model_check)
    )
    if dtype == "fp16":
        small = convert_float_to_float16(small)
    if output_model is None:
        return small
    onnx.save(small, output_model)
    return None


def _onnxoptimizer() -> None:
    """Let the library's own result be tested, once ours has no more nodes than that."""
    import onnxoptimizer

    from onnx_harness.model.file import node_count
    from onnx_harness.transforms.simplify import simplify

    original = onnxoptimizer.optimize

    def optimize(model: onnx.ModelProto, *args: Any, **options: Any) -> onnx.ModelProto:
        before = onnx.ModelProto()
        before.CopyFrom(model)
        result: onnx.ModelProto = original(model, *args, **options)
        ours = node_count(simplify(before).graph)
        theirs = node_count(result.graph)
        assert ours <= theirs, f"simplify leaves {ours} nodes, onnxoptimizer {theirs}"
        return result

    _replace(original, optimize)


LIBRARIES: dict[str, Callable[[], None]] = {
    "onnxconverter_common": _onnxconverter_common,
    "onnxoptimizer": _onnxoptimizer,
    "onnxruntime": _onnxruntime,
    "onnxsim": _onnxsim,
    "onnxslim": _onnxslim,
}

# A helper that ONNX Runtime's tests take from a folder beside them: the installed package is tested.
if "parity_utilities" not in sys.modules:
    _helper: Any = types.ModuleType("parity_utilities")
    _helper.find_transformers_source = lambda *_: False
    sys.modules["parity_utilities"] = _helper


def outcomes_file(folder: Path, library: str) -> Path:
    """Return the path of the outcomes of a run."""
    return folder / f"{library or 'itself'}.xml"
