"""Signals by name look like what they are called, in any shape."""

import numpy as np
import pytest

from onnx_harness.errors import InputError
from onnx_harness.inputs.plan.hints import read
from onnx_harness.inputs.values import generators


@pytest.mark.parametrize("name", sorted(generators.GENERATORS))
@pytest.mark.parametrize(
    "shape",
    [
        (),
        (0,),
        (1,),
        (5,),
        (2, 0, 3),
        (2, 3, 64, 96),
        (1, 70, 90, 3),
        (7, 11),
        (2, 3, 4, 5, 6),
    ],
)
def test_every_generator_fills_every_shape_within_its_span(
    name: str, shape: tuple[int, ...]
) -> None:
    made = generators.find(name)
    values = np.asarray(made.fill(generators.seeded(0, 0, "x"), shape))
    assert values.shape == shape
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    if made.span is not None and values.size:
        assert made.span[0] <= values.min() <= values.max() <= made.span[1]


def test_a_page_is_light_with_dark_strokes_and_one_drawing_for_all_colours() -> None:
    page = generators.find("page").fill(generators.seeded(0, 0, "x"), (2, 3, 128, 192))
    assert 0.02 < (page < -0.5).mean() < 0.6
    assert (page > 0.5).mean() > 0.2
    assert np.abs(page[:, 0] - page[:, 1]).max() < 0.3  # only the noise differs
    assert np.abs(page[0] - page[1]).max() > 1.0


def test_sound_is_tonal() -> None:
    sound = generators.find("audio").fill(generators.seeded(0, 0, "x"), (1, 16000))[0]
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    assert np.sort(spectrum)[-100:].sum() > 0.8 * spectrum.sum()


def test_an_unknown_generator_is_refused_with_a_suggestion() -> None:
    with pytest.raises(InputError, match="Did you mean 'audio'"):
        generators.find("audoi")


def test_hints_read_sizes_bounds_and_numbers_from_messages() -> None:
    told = read(
        "Got invalid dimensions for input: a b for the following indices\n index: 0 Got: 1 "
        "Expected: 2\n"
    )
    assert told.dims == {"a b": {0: 2}}
    assert read("idx=7 must be within the inclusive range [-5,4]").cap == 4
    mismatch = (
        "/onnxruntime/core/math.h:142 MatMul Status Message: dimension mismatch, left "
        "{1,16} right {20,5}"
    )
    assert read(mismatch).numbers == (1, 16, 20, 5)
