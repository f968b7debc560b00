"""Float16 conversion of random models: valid, the interface kept, and it runs wherever the model
does.

Its values aren't compared: on graphs at random float16 overflows, and ties are broken otherwise.
"""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from hypothesis import assume, given
from hypothesis import strategies as st

from onnx_harness.fuzz.models import feeds, random_model
from onnx_harness.transforms.fp16 import convert_float_to_float16
from tests.properties.test_simplify_properties import outputs, session


@given(st.integers(0, 2**32 - 1), st.integers(1, 25), st.booleans())
def test_a_converted_model_is_valid_and_runs(seed: int, size: int, keep: bool) -> None:
    random = Random(seed)
    model = random_model(random, size)
    try:
        onnx.checker.check_model(model, full_check=True)
        before = session(model)
    except Exception:
        # What the checker, inference and ONNX Runtime raise has no common base.
        assume(False)
    inputs = feeds(Random(seed), 2)
    expected = outputs(before, inputs)
    assume(expected is not None)
    declared = list(model.graph.output)

    result = convert_float_to_float16(model, keep_io_types=keep)

    onnx.checker.check_model(result, full_check=True)
    after = session(result)
    if not keep:
        inputs = {
            name: each.astype(np.float16) if each.dtype == np.float32 else each
            for name, each in inputs.items()
        }
    got = outputs(after, inputs)
    assert got is not None
    assert [info.name for info in result.graph.output] == [info.name for info in declared]
    for one, other in zip(expected or [], got, strict=True):
        assert np.shape(one) == np.shape(other)
        assert not keep or np.asarray(one).dtype == np.asarray(other).dtype
