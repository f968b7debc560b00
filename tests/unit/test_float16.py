"""The clamp of the float16 conversions: what it refuses, takes, counts and needs.

Its laws are in tests/properties.
"""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from onnxconverter_common import float16 as library

from onnx_harness.transforms import float16, float16_rounding
from onnx_harness.transforms.float16 import (
    Clamped,
    check_limits,
    clamp,
    convert_np_to_float16,
)
from tests.unit.transform_models import floats

LONG = 1 << 13  # enough for ONNX Runtime's cast


@pytest.fixture
def fresh_cast() -> Iterator[None]:
    """The cast is looked for again, in the test and after it."""
    float16_rounding._ort_cast.cache_clear()
    yield
    float16_rounding._ort_cast.cache_clear()


def beyond_the_limits(size: int) -> npt.NDArray[np.float32]:
    """Ordinary values and, among them, every kind that isn't."""
    array = np.linspace(-3, 3, size, dtype=np.float32)
    array[:: size // 8] = np.array(
        [1e-9, -1e-45, 2e4, -3e38, 0, -0.0, np.inf, np.nan, 1e-40][
            : len(array[:: size // 8])
        ]
    )
    return array


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ((2.0**-25, 1e4), "rounds to 0 in float16"),
        ((0.0, 1e4), "rounds to 0 in float16"),
        ((1e-7, 65505.0), "largest finite float16 is 65504"),
        ((1e-7, float("inf")), "largest finite float16 is 65504"),
        ((2.0, 1.0), "above max_finite_val"),
        ((float("nan"), 1e4), "NaN is none"),
        ((1e-7, float("nan")), "NaN is none"),
    ],
)
def test_limits_that_cannot_hold_are_refused_with_the_reason(
    limits: tuple[float, float], reason: str
) -> None:
    for refusing in (
        lambda: check_limits(*limits),
        lambda: convert_np_to_float16(floats(2), *limits),
    ):
        with pytest.raises(ValueError, match=reason):
            refusing()


def test_a_limit_that_rounds_to_zero_by_way_of_the_array_s_dtype_is_refused() -> None:
    just_above = float(np.nextafter(2.0**-25, 1))
    assert clamp(np.array([1e-30]), just_above).array == np.float16(2.0**-24)
    with pytest.raises(ValueError, match=r"2\^-25 in float32 and rounds to 0"):
        clamp(np.array([1e-30], np.float32), just_above)


def test_signs_zeros_infinities_and_nan_are_kept() -> None:
    x = np.array(
        [1e-9, -1e-9, 2e4, -2e4, 0.0, -0.0, np.inf, -np.inf, np.nan, 1.5], np.float32
    )
    expected = np.array(
        [1e-7, -1e-7, 1e4, -1e4, 0.0, -0.0, np.inf, -np.inf, np.nan, 1.5], np.float16
    )
    result = convert_np_to_float16(x)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(np.signbit(result), np.signbit(expected))


def test_it_tells_how_many_were_clamped_and_the_extremes() -> None:
    array = np.array([1e-9, -1e-12, 0.0, 1e-7, 1.0, 1e4, -3e4, 7e4, 10001, np.inf, np.nan])
    found = clamp(array)
    assert (found.raised, found.lowered) == (2, 3)
    assert (found.smallest, found.largest) == (1e-12, 7e4)
    assert clamp(np.array([0.5])) == Clamped(np.array([0.5], np.float16))


def test_a_value_that_rounds_to_the_limit_from_beyond_is_counted() -> None:
    array = np.array(
        [
            np.nextafter(np.float32(1e4), np.float32(2e4)),
            np.nextafter(np.float32(1e-7), np.float32(0)),
        ]
    )
    found = clamp(array)
    assert (found.raised, found.lowered) == (1, 1)
    assert (found.smallest, found.largest) == (float(array[1]), float(array[0]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16])
def test_a_value_that_only_wider_limits_tell_from_them_is_counted(dtype: type[Any]) -> None:
    low, high = np.float64(2.0**-20 * (1 + 2.0**-40)), np.float64(1024 * (1 - 2.0**-40))
    found = clamp(np.array([2.0**-20, 1, 1024], dtype), low, high)
    assert (found.raised, found.lowered) == (1, 1)
    assert (found.smallest, found.largest) == (2.0**-20, 1024)


@pytest.mark.parametrize("beyond", [[5, 70, 71, 199], range(200)], ids=["few", "all"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_places_are_counted_from_the_start_of_the_array(
    dtype: type[Any], beyond: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(float16, "_CHUNK", 64)
    array = np.ones(200, dtype)
    array[beyond] = 2e4
    array[beyond[::2]] = 1e-9
    places: list[npt.NDArray[np.intp]] = []
    clamp(array, places=places)
    assert np.concatenate(places).tolist() == list(beyond)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.array(3e5, np.float32), id="0-d"),
        pytest.param(np.zeros((0, 3), np.float32), id="empty"),
        pytest.param(floats(6, 8)[::2, ::-3], id="strided"),
        pytest.param(np.asfortranarray(floats(6, 8)), id="fortran"),
        pytest.param(floats(4).astype(">f4"), id="big-endian"),
        pytest.param(floats(4).astype(np.float64), id="double"),
        pytest.param(floats(4).astype(np.float16), id="half"),
        pytest.param(floats(4).astype(ml_dtypes.bfloat16), id="bfloat16"),
        pytest.param(floats(4).astype(np.longdouble), id="longdouble"),
    ],
)
def test_any_layout_is_taken_and_the_input_left_alone(array: npt.NDArray[Any]) -> None:
    before = array.copy(order="A")
    array.flags.writeable = False
    result = convert_np_to_float16(array)
    assert result.shape == array.shape
    assert result.dtype == np.dtype(np.float16)
    np.testing.assert_array_equal(
        result, np.clip(before.astype(np.float64), -1e4, 1e4).astype(np.float16)
    )
    np.testing.assert_array_equal(array, before)


def test_scalars_lists_and_subclasses_become_plain_arrays() -> None:
    for taken in (np.float32(2e4), 2e4, [2e4], np.ma.masked_array([2e4], [False])):
        result = convert_np_to_float16(taken)
        assert type(result) is np.ndarray
        assert result.reshape(-1).tolist() == [1e4]


@pytest.mark.parametrize(
    "dtype", [np.int32, np.bool_, np.complex64, np.str_, np.object_, ml_dtypes.int4]
)
def test_only_floats_are_taken(dtype: type[Any]) -> None:
    with pytest.raises(TypeError, match=f"not {np.zeros(1, dtype).dtype}"):
        convert_np_to_float16(np.zeros(1, dtype))


@pytest.mark.parametrize(
    "name",
    ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float6_e2m3fn", "float4_e2m1fn"],
)
def test_the_small_floats_of_ml_dtypes_keep_the_values_that_float16_holds(name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name))
    bits = {"float6_e2m3fn": 6, "float4_e2m1fn": 4}.get(name, 8)
    array = np.arange(1 << bits, dtype=np.uint8).view(dtype)
    wide = array.astype(np.float32)
    np.testing.assert_array_equal(convert_np_to_float16(array), convert_np_to_float16(wide))


def test_a_scale_too_small_for_float16_does_not_become_zero() -> None:
    scales = np.array(
        [2.0**-127, 2.0**-10], ml_dtypes.float8_e8m0fnu
    )  # which has no zero, and the library gives one
    assert library.convert_np_to_float16(scales).tolist() == [0, 2.0**-10]
    assert convert_np_to_float16(scales).tolist() == [np.float16(1e-7), 2.0**-10]


def test_longdoubles_beyond_float64_are_clamped_and_not_lost() -> None:
    found = clamp(np.array(["1e-4000", "-1e4000", "0", "-inf"], np.longdouble))
    assert found.array.tolist() == [np.float16(1e-7), -1e4, 0, -np.inf]
    assert (found.raised, found.lowered) == (1, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, int])
def test_limits_of_any_number_type_are_taken(dtype: type[Any], kind: type[Any]) -> None:
    low, high = kind(1), kind(65504)
    array = np.array([0.5, 1.5, 7e4], dtype)
    assert convert_np_to_float16(array, low, high).tolist() == [1, 1.5, 65504]


def test_numpy_s_error_handling_does_not_matter() -> None:
    with np.errstate(all="raise"):
        for dtype in (np.float16, np.float32, np.float64, np.longdouble):
            array = np.array(
                [
                    6e-8,
                    1.23456789e-6,
                    7e4 if dtype is not np.float16 else 6e4,
                    np.inf,
                    np.nan,
                ],
                dtype,
            )
            assert clamp(array).lowered == 1


@pytest.mark.usefixtures("fresh_cast")
def test_without_onnxruntime_numpy_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    array = beyond_the_limits(LONG)
    with_it = clamp(array)
    assert float16_rounding._ort_cast() is not None
    float16_rounding._ort_cast.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    without = clamp(array)
    assert float16_rounding._ort_cast() is None
    np.testing.assert_array_equal(without.array, with_it.array)
    assert without.raised == with_it.raised > 0


@pytest.mark.usefixtures("fresh_cast")
def test_an_onnxruntime_that_rounds_otherwise_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import onnxruntime

    class Truncating:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def io_binding(self) -> dict[str, int]:
            return Binding()

        def run_with_iobinding(self, binding: dict[str, int]) -> None:
            bits = np.ctypeslib.as_array(
                (ctypes.c_uint32 * binding["size"]).from_address(binding["x"])
            )
            halves = np.ctypeslib.as_array(
                (ctypes.c_uint16 * binding["size"]).from_address(binding["y"])
            )
            halves[:] = (
                (bits & ~np.uint32(0x1FFF))
                .view(np.float32)
                .astype(np.float16)
                .view(np.uint16)
            )

    class Binding(dict[str, int]):
        def bind(
            self,
            name: str,
            _device: str,
            _id: int,
            _type: object,
            shape: tuple[int],
            pointer: int,
        ) -> None:
            self[name], self["size"] = pointer, shape[0]

        bind_input = bind_output = bind

    monkeypatch.setattr(onnxruntime, "InferenceSession", Truncating)
    assert float16_rounding._ort_cast() is None


def test_threads_may_clamp_at_once() -> None:
    arrays = [beyond_the_limits(LONG * 20) + np.float32(shift) for shift in range(8)]
    expected = [clamp(array).array for array in arrays]
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(
            pool.map(convert_np_to_float16, arrays * 4), expected * 4, strict=True
        ):
            np.testing.assert_array_equal(got, wanted)


@pytest.fixture
def flushing_to_zero() -> Iterator[Callable[[], None]]:
    """The processor takes subnormals for zero and makes zeros of them, as a library built for speed
    may ask for.
    """
    if platform.machine() != "x86_64" or sys.platform != "linux":
        pytest.skip("sets a control register of x86-64 through glibc")
    libm = ctypes.CDLL("libm.so.6")
    environment = (ctypes.c_uint32 * 8)()  # glibc's fenv_t: MXCSR is its last word
    libm.fegetenv(environment)
    before = environment[7]

    def flush() -> None:
        environment[7] = before | 0x8040  # FTZ and DAZ
        libm.fesetenv(environment)

    yield flush
    environment[7] = before
    libm.fesetenv(environment)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("size", [100, LONG])
def test_flushing_subnormals_to_zero_changes_nothing(
    dtype: type[Any], size: int, flushing_to_zero: Callable[[], None]
) -> None:
    with np.errstate(all="ignore"):
        array = beyond_the_limits(size).astype(dtype)
    array[5] = np.array(1, f"u{array.itemsize}").view(dtype)  # the smallest subnormal
    usual = clamp(array)
    flushing_to_zero()
    assert np.array([1e-40], np.float32) * 1 == 0
    flushed = clamp(array)
    assert flushed.array.tobytes() == usual.array.tobytes()
    assert (flushed.raised, flushed.lowered) == (usual.raised, usual.lowered)


def test_importing_it_loads_neither_numpy_nor_onnxruntime() -> None:
    program = (
        "import sys, onnx_harness.transforms.float16; print({'numpy', 'onnx', "
        "'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
