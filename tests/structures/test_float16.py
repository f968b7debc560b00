"""The structures where float16 computes: each is right, or fails with its node and a verified mend."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import pytest

from onnx_harness.judging.simulation import simulated
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.run.runner import Runner
from onnx_harness.run.verification import Question, answer
from onnx_harness.settings import Settings
from onnx_harness.transforms.fp16 import convert_float_to_float16
from tests.structures import SIZES, STRUCTURES, Structure
from tests.unit.transform_models import copy_of, run

# What float16 has no numbers or digits for whatever a converter does short of leaving products in
# float32: these have to fail.
BEYOND = {
    "box_cox",
    "cosine_attention",
    "covariance",
    "distances_to_centres",
    "energy_normalization",
    "gram_matrix",
    "layer_norm_of_residuals",
    "overflowing_product",
    "overlaps",
    "probability_of_a_product",
    "radial_basis",
    "reversible_scaling",
    "squared_distances",
    "symmetric_logarithm",
    "variance_by_squares",
    "viterbi",
    "autocorrelation",
    "contrastive_loss",
    "drawdown",
    "spline_coupling",
    "structural_similarity",
    "trees_by_comparisons",
    "quantized_by_hand",
    "distance_by_squares",
    "gemm_with_factors",
    "step_of_an_optimizer",
    "sum_of_many_probabilities",
    "temperature_of_an_input",
    "tiny_times_huge",
    "variance_of_channels_by_pools",
}
# The same of bfloat16: lengths, codes and signs of zero that its 8 bits decide otherwise, and a
# ReduceLogSumExp of which ONNX Runtime's bfloat16 kernel makes infinity.
BEYOND_BFLOAT16 = {
    "depthwise_squeeze_and_excite",
    "durations",
    "finite_scalar_codes",
    "partition_function",
}
ENOUGH = 3e-3
MEND = re.compile(r"mend: `--variant \"?([^\"`]+)\"?` keeps (\d+) of (\d+) nodes .*: '\w+'")
ALL_STAY = re.compile(
    r"No mend was found: (each of its \d+ nodes|its only node) has to stay float32 "
)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    runner = Runner(Settings())
    yield runner
    runner.close()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the float32 number", UserWarning)
        yield


def departure(structure: Structure, size: int) -> float:
    """The relative L2 error of the converted model, each float16 value rounded as it's made."""
    model, inputs = structure.model(size), structure.inputs(size)
    half = convert_float_to_float16(model, keep_io_types=True)
    (ours,) = run(simulated(copy_of(half), copy_of(half)), **inputs)
    (expected,) = run(model, **inputs)
    if ours.shape != expected.shape:
        return np.inf
    finite = np.isfinite(expected)
    if not np.array_equal(ours[~finite], expected[~finite], equal_nan=True):
        return np.inf
    error = np.linalg.norm((ours.astype("f8") - expected)[finite])
    return float(
        np.nan_to_num(error / np.linalg.norm(expected[finite].astype("f8")), nan=np.inf)
    )


def judged(
    model: onnx.ModelProto, inputs: dict[str, object], variant: str, runner: Runner
) -> CellResult:
    return answer(Question(model, variant=variant, inputs=inputs), runner)


def test_there_are_more_than_forty() -> None:
    assert len(STRUCTURES) > 100
    assert STRUCTURES.keys() >= BEYOND


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_is_right_or_fails_with_its_mend(
    name: str, size: int, runner: Runner
) -> None:
    structure = STRUCTURES[name]
    if departure(structure, size) < ENOUGH:
        return
    assert name in BEYOND
    model, inputs = structure.model(size), structure.inputs(size)
    result = judged(model, inputs, "fp16.io32", runner)
    if result.status is Status.PASS:  # its outputs ask for no more digits
        assert departure(structure, size) < 3 * ENOUGH
        return
    assert result.status is Status.FAIL
    if ALL_STAY.match(result.detail[-1]):
        return
    mend = MEND.match(result.detail[-1])
    assert mend is not None, result.detail
    assert parse_variant(mend[1])
    assert judged(model, inputs, mend[1], runner).status is Status.PASS


@pytest.mark.nightly
@pytest.mark.parametrize(
    "variant", ["simplify", "optimize", "simplify+fp16.io32", "bf16.io32"]
)
@pytest.mark.parametrize("name", STRUCTURES)
def test_nothing_fails_for_another_reason(name: str, variant: str, runner: Runner) -> None:
    structure, size = STRUCTURES[name], SIZES[-1]
    result = judged(structure.model(size), structure.inputs(size), variant, runner)
    if name in BEYOND_BFLOAT16 and variant == "bf16.io32":
        assert result.status is Status.FAIL
        return
    if name in BEYOND and "16" in variant and result.status is Status.FAIL:
        assert "mend: " in result.detail[-1] or ALL_STAY.match(result.detail[-1])
        return
    assert result.status in {Status.PASS, Status.NOT_APPLICABLE}, result
