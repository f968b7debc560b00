"""Arguments of ``onnxsim.simplify`` that this one's rules don't need.

They're a path, outputs to leave out, a check by running.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from onnx_harness.errors import did_you_mean
from onnx_harness.model.custom_ops import register
from onnx_harness.model.label_keys import with_key_types
from onnx_harness.transforms.simplification.shapes import overwritten

# onnxsim's own bounds (its options check_rtol and check_atol).
RTOL, ATOL = 1e-4, 1e-5

Array = npt.NDArray[Any]


# Arguments of onnxsim 0.8 that change nothing here: shapes are what folding rests on, dimensions
# stay as they are, graphs inside nodes are simplified too, ``max_growth_bytes`` limits folding, and
# inputs that have a default aren't folded.
_WITHOUT_EFFECT = (
    "dynamic_input_shape",
    "include_subgraph",
    "mutable_initializer",
    "skip_shape_inference",
    "tensor_size_threshold",
    "external_data_threshold",
    "gemm_fusion_backend",
    "gradient_precision",
    "import_custom_schemas",
    "merge_ort_profile",
)
# Those that ask for something that isn't done here, and what says that it isn't asked for.
_NOT_DONE: Mapping[str, tuple[object, ...]] = {
    "certify": (None, False),
    "check_gradients": (False,),
    "check_hazards": (False,),
    "custom_rewriter": (None,),
    "extra_optimizers": (None, []),
    "function_rewrite_rules": (None, []),
    "initializers_as_constants": (True,),
    "input_fill": ("random",),
    "input_shapes": (None,),
    "ort_profile": (None,),
    "profile": (None,),
    "providers": (None, ["CPUExecutionProvider"]),
    "range_opt": (False,),
    "target_opset_version": (None,),
}


def refuse_unknown(arguments: Mapping[str, object]) -> None:
    """Refuse what onnxsim doesn't take either, and what is asked of it that isn't done here.

    Raises:
        TypeError: an argument isn't onnxsim's.
        ValueError: its value asks for something that isn't done.
    """
    for name, value in arguments.items():
        if name in _WITHOUT_EFFECT:
            continue
        if name not in _NOT_DONE:
            raise TypeError(f"simplify_as_onnxsim() got an unexpected argument '{name}'")
        if not any(value == unasked for unasked in _NOT_DONE[name]):
            raise ValueError(
                f"simplify_as_onnxsim doesn't do what {name}={value!r} asks for: leave it out, or "
                f"call onnxsim for it"
            )


@dataclass(frozen=True, slots=True)
class Sample:
    """Inputs that two models are compared on, as a caller has them, and the bounds.

    Attributes:
        shapes: by the name of an input.
        arrays: by the name of an input; they come before its shape.
        rtol: relative to the original's element.
        atol: absolute.
    """

    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    arrays: Mapping[str, Any] = field(default_factory=dict)
    rtol: float = RTOL
    atol: float = ATOL


def loaded(model: onnx.ModelProto | str | Path) -> onnx.ModelProto:
    """Return the model itself, or the one in the file of that path, its external data included."""
    return model if isinstance(model, onnx.ModelProto) else onnx.load_model(str(model))


def without_outputs(
    model: onnx.ModelProto, names: Sequence[str], in_place: bool
) -> onnx.ModelProto:
    """Return the model without these outputs: a copy, unless it may be changed.

    Raises:
        ValueError: one isn't an output of the model, or none would stay.
    """
    if not names:
        return model
    present = [info.name for info in model.graph.output]
    for name in names:
        if name not in present:
            raise ValueError(
                f"unused_output: '{name}' is no output of the model. {did_you_mean(name, present)}"
            )
    if not in_place:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        model = copy
    used = [info for info in model.graph.output if info.name not in names]
    if not used:
        raise ValueError("unused_output names every output of the model: one has to stay")
    model.graph.ClearField("output")
    model.graph.output.extend(used)
    return model


def holds(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    times: int,
    shapes: Sequence[tuple[str, tuple[int, ...]]],
    sample: Sample,
) -> bool:
    """Return whether a model passes the full checker, and the comparison of `differences`.

    Args:
        before: as there, and so are the others.
        after: as there.
        times: as there; none is made for 0.
        shapes: as there.
        sample: as there.

    Raises:
        ValueError: as there.
    """
    try:
        onnx.checker.check_model(with_key_types(after), full_check=True)
    except Exception:  # what the checker and inference raise has no common base
        return False
    return not times or not differences(before, after, times, shapes, sample)


def differences(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    times: int,
    shapes: Sequence[tuple[str, tuple[int, ...]]] = (),
    sample: Sample | None = None,
) -> list[str]:
    """Run both models on drawn inputs, ``times`` times.

    The result has a sentence for each output that differs.

    Floats are drawn from N(0, 1), integers and booleans are 0 or 1, dimensions that aren't static
    are 1, where the sample doesn't say otherwise. Outputs agree within its bounds, by default
    onnxsim's. Graph optimizations are off.

    Args:
        before: the original.
        after: what was made of it.
        times: how often.
        shapes: those that inputs of the original have been given since.
        sample: what is known of the inputs.

    Raises:
        ValueError: the original doesn't run on such inputs.
    """
    rng = np.random.default_rng(0)
    sample = sample or Sample()
    with overwritten(before, shapes):
        first = _session(before)
    second = _session(after)
    sentences: list[str] = []
    for _ in range(times):
        feeds = {info.name: _drawn(rng, info, sample) for info in first.get_inputs()}
        try:
            expected = first.run(None, feeds)
        except Exception as error:  # ONNX Runtime's errors have no base class of their own
            raise ValueError(
                f"check_n: the original doesn't run on drawn inputs: {error}"
            ) from None
        got = second.run(None, feeds)
        for info, first_output, second_output in zip(
            first.get_outputs(), expected, got, strict=True
        ):
            if not _agree(first_output, second_output, sample):
                sentences.append(f"output '{info.name}' differs from the original's")
    return list(dict.fromkeys(sentences))


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    register(options)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _drawn(rng: np.random.Generator, info: Any, sample: Sample) -> Array:
    if info.name in sample.arrays:
        return np.asarray(sample.arrays[info.name])
    shape = [size if isinstance(size, int) and size >= 0 else 1 for size in info.shape]
    shape = list(sample.shapes.get(info.name, shape))
    kind = info.type.removeprefix("tensor(").removesuffix(")")
    if kind == "string":
        return np.full(shape, "", object)
    dtype = np.dtype({"float": "float32", "double": "float64"}.get(kind, kind))
    if dtype.kind == "f":
        return np.asarray(rng.standard_normal(shape)).astype(dtype)
    return np.asarray(rng.integers(0, 2, shape)).astype(dtype)


def _agree(first: Any, second: Any, bounds: Sample) -> bool:
    if isinstance(first, list):
        return len(first) == len(second) and all(
            _agree(one, other, bounds) for one, other in zip(first, second, strict=True)
        )
    if not isinstance(first, np.ndarray) or first.dtype.kind not in "fc":
        return bool(np.array_equal(first, second))
    return first.shape == second.shape and bool(
        np.allclose(second, first, rtol=bounds.rtol, atol=bounds.atol, equal_nan=True)
    )
