"""What holds for input sets of any model: determinism, independence of the inputs, sizes and
bounds.
"""

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnx_harness.inputs import generate
from onnx_harness.inputs.values import generators
from onnx_harness.inputs.values.sets import arrays_of

TYPES = st.sampled_from(
    [
        TensorProto.FLOAT,
        TensorProto.INT64,
        TensorProto.BOOL,
        TensorProto.FLOAT16,
        TensorProto.UINT8,
    ]
)
DIMS = st.lists(
    st.one_of(st.integers(0, 5), st.sampled_from(["n", "seq", "height"])), max_size=3
)


@st.composite
def signatures(draw: st.DrawFn) -> dict[str, tuple[int, list[int | str]]]:
    names = draw(
        st.lists(
            st.sampled_from(["x", "input_ids", "mask", "a/b:0", "état"]),
            unique=True,
            max_size=3,
        )
    )
    return {name: (draw(TYPES), draw(DIMS)) for name in names}


def model_of(signature: dict[str, tuple[int, list[int | str]]]) -> onnx.ModelProto:
    infos = [
        helper.make_tensor_value_info(name, kind, dims)
        for name, (kind, dims) in signature.items()
    ]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in signature]
    return helper.make_model(helper.make_graph(nodes, "g", infos, []))


@given(signatures(), st.integers(0, 2**40), st.integers(1, 5))
def test_a_set_is_the_same_whatever_the_count_and_differs_by_seed(
    signature: dict[str, tuple[int, list[int | str]]], seed: int, count: int
) -> None:
    model = model_of(signature)
    few, many = (
        generate(model, {}, count=count, seed=seed),
        generate(model, {}, count=count + 2, seed=seed),
    )
    assert [each.digest() for each in few] == [each.digest() for each in many[: len(few)]]
    assert [each.name for each in few] == [each.name for each in many[: len(few)]]


@given(signatures(), st.integers(0, 100))
def test_one_inputs_absence_does_not_move_another(
    signature: dict[str, tuple[int, list[int | str]]], seed: int
) -> None:
    together = generate(model_of(signature), {}, count=2, seed=seed)
    for name, declared in signature.items():
        alone = generate(model_of({name: declared}), {}, count=2, seed=seed)
        for one, other in zip(alone, together, strict=True):
            # Only sizes may be shared between inputs; where they agree, so do the values.
            mine, theirs = np.asarray(one.values[name]), np.asarray(other.values[name])
            if mine.shape == theirs.shape:
                assert np.array_equal(mine, theirs)


@given(signatures(), st.integers(0, 100))
def test_declared_types_and_sizes_are_kept_and_names_are_equal_sizes(
    signature: dict[str, tuple[int, list[int | str]]], seed: int
) -> None:
    for each in generate(model_of(signature), {}, count=3, seed=seed):
        sizes: dict[str, int] = {}
        for name, (kind, dims) in signature.items():
            (array,) = arrays_of(each.values[name])
            assert array.dtype == helper.tensor_dtype_to_np_dtype(kind)
            assert len(array.shape) == len(dims)
            for dim, size in zip(dims, array.shape, strict=True):
                assert size == (dim if isinstance(dim, int) else sizes.setdefault(dim, size))


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 6), max_size=3).map(tuple),
    st.integers(-(2**62), 2**62),
    st.integers(0, 2**20),
)
def test_integers_and_ids_stay_in_their_range(
    seed: int, shape: tuple[int, ...], low: int, span: int
) -> None:
    for make in (generators.integers, generators.tokens):
        values = np.asarray(make(np.random.default_rng(seed), shape, low, low + span))
        assert values.shape == shape
        if values.size:
            assert low <= values.min() <= values.max() <= low + span
