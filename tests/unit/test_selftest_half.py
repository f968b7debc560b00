"""Models whose float16 answer is known: enough of them, on either side, and the answer found
without the harness.
"""

import numpy as np
import onnx
import pytest

from onnx_harness import inputs
from onnx_harness.selftest.half_case import HalfCase
from onnx_harness.selftest.half_cases import KINDS, half_cases
from onnx_harness.selftest.half_truth import Truth, error_share, truth
from onnx_harness.transforms import remarks
from onnx_harness.transforms.fp16 import convert_float_to_float16


def answer(case: HalfCase) -> Truth:
    feeds = [chosen.values for chosen in inputs.generate(case.model, case.specs, count=2)]
    converted = onnx.ModelProto()
    converted.CopyFrom(case.model)
    with remarks():
        converted = convert_float_to_float16(converted, keep_io_types=True)
    return truth(case.model, converted, feeds)


def test_there_are_over_a_hundred_valid_models_of_over_twelve_kinds() -> None:
    cases = list(half_cases())
    assert len(cases) > 100
    assert len({case.kind for case in cases}) == len(KINDS) > 12
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        onnx.checker.check_model(case.model, full_check=True)


@pytest.mark.filterwarnings("ignore:the float32 number")
def test_the_quick_ones_are_a_dozen_and_of_either_side() -> None:
    answers = [answer(case) for case in half_cases(quick=True)]
    assert 12 <= len(answers) <= 16
    assert min(answers.count(side) for side in (Truth.RIGHT, Truth.WRONG)) >= 4


def test_every_kind_is_built_alike_every_time() -> None:
    first, again = (
        [case.model.SerializeToString() for case in half_cases(quick=True)] for _ in range(2)
    )
    assert first == again


@pytest.mark.parametrize(
    ("expected", "actual", "share"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([0.0, 1.0], [0.005, 1.0], 1.0),  # 5e-3 of the greatest magnitude
        ([1.0, 1.0], [1.0, 1.03], 2.0),  # and 1e-2 of the element
        ([1.0, 1.0], [1.0, np.nan], np.inf),
        ([1.0, 1.0], [1.0, np.inf], np.inf),
        ([np.inf, 1.0], [np.inf, 1.0], 0.0),
    ],
)
def test_an_error_is_a_share_of_the_documented_bound(
    expected: list[float], actual: list[float], share: float
) -> None:
    assert error_share(np.array(expected), np.array(actual)) == pytest.approx(share)


def test_an_index_is_right_or_wrong() -> None:
    assert error_share(np.array([3, 4]), np.array([3, 4])) == 0.0
    assert error_share(np.array([3, 400]), np.array([3, 401])) == np.inf
