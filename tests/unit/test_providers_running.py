"""Values of every type through a session, and threads shared between processes."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from onnx_harness.errors import InputError
from onnx_harness.providers import get, running
from onnx_harness.providers.running import feeds_for, run
from onnx_harness.providers.sessions import (
    THREADS,
    Purpose,
    open_session,
    shared_threads,
    thread_environment,
)


def session_of(op_type: str, element: int, **attributes: Any) -> ort.InferenceSession:
    """A session of one operator from ``x`` to ``y``."""
    x, y = (helper.make_tensor_value_info(name, element, ["n", 2]) for name in "xy")
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x"], ["y"], **attributes)], "one", [x], [y]
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    return open_session(model.SerializeToString(), get("cpu"), purpose=Purpose.ACCURACY)


@pytest.mark.parametrize(
    ("element", "dtype"),
    [
        (TensorProto.FLOAT, np.float32),
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
        (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
        (TensorProto.FLOAT8E5M2, ml_dtypes.float8_e5m2),
    ],
)
def test_values_of_every_type_come_back_bit_for_bit(element: int, dtype: type) -> None:
    values: Any = np.array([[1.5, -2.0], [0.25, np.nan], [-0.0, 4.0]]).astype(dtype)
    turned = np.asfortranarray(values)
    given = {"x": turned, "unused": np.zeros(1)}
    outputs = run(session_of("Identity", element), given)
    assert outputs["y"].dtype == values.dtype
    assert outputs["y"].shape == values.shape
    assert outputs["y"].tobytes() == values.tobytes()


def test_an_empty_value_of_a_raw_type_comes_back() -> None:
    empty = np.zeros((0, 2), ml_dtypes.bfloat16)
    assert run(session_of("Identity", TensorProto.BFLOAT16), {"x": empty})["y"].shape == (
        0,
        2,
    )


@pytest.mark.parametrize("type_name", ["tensor(int4)", "tensor(float4e2m1)"])
def test_a_type_of_which_several_share_a_byte_is_refused(type_name: str) -> None:
    value = SimpleNamespace(name="x", type=type_name)
    session = SimpleNamespace(get_inputs=lambda: [value], get_outputs=list)
    with pytest.raises(
        InputError, match=f"type {re.escape(type_name)} can't be handed over"
    ):
        run(session, {"x": np.zeros(2, np.int8)})


def test_a_raw_output_on_a_device_is_refused() -> None:
    class OnDevice:
        def data_type(self) -> str:
            return "tensor(bfloat16)"

        def device_name(self) -> str:
            return "cuda"

    words = r"type tensor\(bfloat16\) lies on cuda, out of numpy's reach"
    with pytest.raises(InputError, match=words):
        running._array(OnDevice())


def test_a_run_changes_nothing_of_the_caller() -> None:
    class Greedy:
        """Writes into what it is fed, as training kernels do."""

        def get_inputs(self) -> list[Any]:
            kinds = {"x": "tensor(float)", "s": "seq(tensor(float))"}
            return [SimpleNamespace(name=name, type=kind) for name, kind in kinds.items()]

        def get_outputs(self) -> list[Any]:
            return [SimpleNamespace(name="y", type="tensor(float)")]

        def run(self, _: list[str], feeds: dict[str, Any]) -> list[Any]:
            feeds["x"][:] = 9
            feeds["s"][1][:] = 9
            return [feeds["x"]]

    values: dict[str, Any] = {"x": np.zeros(2), "s": [np.zeros(1), np.zeros(1)]}
    outputs = run(Greedy(), values)
    assert outputs["y"].tolist() == [9, 9]
    assert (values["x"].tolist(), values["s"][1].tolist()) == ([0, 0], [0])


@pytest.mark.parametrize(
    ("element", "dtype"),
    [
        (TensorProto.FLOAT16, np.dtype(np.float16)),
        (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
        (TensorProto.FLOAT, np.dtype(np.float32)),
    ],
)
def test_float32_is_cast_where_a_half_type_is_read(
    element: int, dtype: np.dtype[Any]
) -> None:
    session = session_of("Identity", element)
    values = {"x": np.array([[1e9, 1.0]], np.float32), "other": np.ones(1, np.float32)}
    fed = feeds_for(session, values)
    assert (fed["x"].dtype, fed["other"].dtype) == (dtype, np.float32)
    assert values["x"].dtype == np.float32
    wide = {"x": values["x"].astype(np.float64)}
    assert feeds_for(session, wide)["x"].dtype == np.float64
    assert feeds_for(session, {}) == {}


def test_a_share_of_the_cores_reaches_every_library() -> None:
    assert thread_environment(3) == {
        "ONNX_HARNESS_THREADS": "3",
        "OMP_NUM_THREADS": "3",
        "OPENBLAS_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
    }


@pytest.mark.parametrize(
    ("said", "count"),
    [("3", 3), ("0", None), ("", None), ("-2", None), ("٣", None), ("x", None)],
)
def test_the_share_is_a_number_or_none(
    monkeypatch: pytest.MonkeyPatch, said: str, count: int | None
) -> None:
    monkeypatch.setenv(THREADS, said)
    assert shared_threads() == count
    monkeypatch.delenv(THREADS)
    assert shared_threads() is None
