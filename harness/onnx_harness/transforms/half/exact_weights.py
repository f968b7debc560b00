"""Find the steps that stay float32 for what float16 would make of their weights."""

from __future__ import annotations

from itertools import compress

import onnx

from onnx_harness.transforms.half.constants import constant_behind
from onnx_harness.transforms.half.contrib import SCALED, SCALES
from onnx_harness.transforms.half.graph import Reading
from onnx_harness.transforms.half.steps import Step
from onnx_harness.transforms.half.weights import Rounder

# Of BatchNormalization: the place of the running variance among its inputs, and what is added to it
# by default.
_VARIANCE, _DEFAULT_EPSILON = 4, 1e-5


def exact_normalizations(reading: Reading, rounder: Rounder) -> set[Step]:
    """The normalizations that stay float32.

    Those whose running statistics the clamp would cut, as they are or as they may be: trained
    models have variances of 1e8, and a clipped one isn't a small error, it scales a whole
    channel. Those with variances that float16 holds with few digits, and no epsilon that drowns
    them. And those that train: the statistics that they give stop moving once a step is less
    than float16 tells apart.
    """
    normalizations = reading.floating_of({"BatchNormalization"})
    if not normalizations:
        return set()
    training = {step for step in normalizations if len(step.outs) > 1}
    steps = [step for step in normalizations if step not in training]
    weights = []
    for step in steps:
        weights.append([constant_behind(reading, name) for name in step.ins[1:]])
    known = []
    for tensors in weights:
        for tensor in tensors:
            if tensor is not None:
                known.append(tensor)
    # Most models have none, which is seen at one glance.
    clips, loses = rounder.clips_and_loses(known)
    if len(known) == sum(map(len, weights)) and not (clips or loses):
        return training
    exact: set[Step] = set()
    variances: dict[Step, tuple[onnx.TensorProto, float]] = {}
    for step, tensors in zip(steps, weights, strict=True):
        if not all(tensors) or (clips and rounder.clips(filter(None, tensors))):
            exact.add(step)
            continue
        variance = tensors[_VARIANCE - 1]
        if variance is not None:
            variances[step] = variance, _epsilon(step)
    lost = rounder.lose_beside(list(variances.values()))
    return training | exact | set(compress(variances, lost))


def exact_scales(reading: Reading, rounder: Rounder) -> set[Step]:
    """The products with quantized weights that stay float32.

    Their scales are below what float16 holds well.
    """
    steps = []
    for step in reading.floating if reading.has(SCALED) else ():
        if not step.op and step.node.op_type in SCALED:
            steps.append(step)
    scales = {}
    for step in steps:
        if len(step.ins) > SCALES:
            scales[step] = constant_behind(reading, step.ins[SCALES])
    entries: set[Step] = set()
    for step, tensor in scales.items():
        if tensor is not None and (rounder.loses([tensor]) or rounder.clips([tensor])):
            entries.add(step)
    return entries


def _epsilon(step: Step) -> float:
    epsilons = [
        attribute.f for attribute in step.node.attribute if attribute.name == "epsilon"
    ]
    return epsilons[0] if epsilons else _DEFAULT_EPSILON
