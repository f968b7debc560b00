"""The edges of floating-point inputs: magnitudes, signs, ties and infinities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_harness.inputs.values.sets import MAGNIFIED, RISING

_Change = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Edge:
    """One way of being unusual.

    Attributes:
        words: how a failure tells of it: "only …".
        change: from an input's usual values to the unusual ones, before they are brought into the
            input's bounds.
        always: whether models that take long to run get it too.
        infinite: whether it holds infinities, which only inputs without bounds may, or what one
            divides by to get them.
        smooth: whether no value lies on purpose where a last bit decides.
        undefined: whether it leaves the domain of a logarithm or the like, and only that; NaN
            inside a model is told from NaN elsewhere by what isn't floating-point alone, such as a
            class.
        missing: whether it holds NaN, which only inputs may that the model asks for it.
    """

    words: str
    change: _Change
    always: bool = False
    infinite: bool = False
    smooth: bool = False
    undefined: bool = False
    missing: bool = False


def scaled(factor: float) -> _Change:
    """Return a change that multiplies values by ``factor``."""
    return lambda values, _: values * factor


def _picked(*choices: float) -> _Change:
    return lambda values, rng: np.asarray(rng.choice(np.asarray(choices), size=values.shape))


def _in_turn(*numbers: float) -> _Change:
    return lambda values, _: np.resize(np.asarray(numbers), values.shape)


def _negative(values: NDArray[Any], _: np.random.Generator) -> NDArray[Any]:
    return np.asarray(-np.abs(values) - 0.1)


def _partly(number: float) -> _Change:
    """The first half along the last axis.

    Whole windows of a sliding kernel, and the edge between them.
    """

    def change(values: NDArray[Any], _: np.random.Generator) -> NDArray[Any]:
        changed = np.array(values)
        if changed.ndim:
            changed[..., : (changed.shape[-1] + 1) // 2] = number
        return changed

    return change


def _rising(values: NDArray[Any], _: np.random.Generator) -> NDArray[Any]:
    """Return what saturates ties here, and the first of equals isn't the greatest."""
    return np.broadcast_to(
        np.linspace(20.0, 200.0, values.shape[-1]) if values.ndim else 200.0, values.shape
    )


def _alternating(values: NDArray[Any], _: np.random.Generator) -> NDArray[Any]:
    """Return negative and positive values in turns along every axis, the first negative.

    None of them is like another.
    """
    turns = np.indices(values.shape).sum(axis=0) % 2
    return np.asarray(
        (2.0 + np.linspace(0.0, 1.0, values.size).reshape(values.shape))
        * np.where(turns, 1.0, -1.0)
    )


def _of_all_magnitudes(values: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    """Return numbers of either sign with digits to move: whole ones stay where noise is drawn."""
    greatest = _picked(1e5, -1e5, 1e3, -1e3, 1.0, -1.0, 1e-3, -1e-3, 2e-6, -2e-6)
    return greatest(values, generator) * generator.uniform(0.5, 1.0, values.shape)


def _throughout(number: float) -> _Change:
    return lambda values, _: np.full_like(values, number)


FLOAT_EDGES = (
    Edge(f"at 100 {MAGNIFIED}", scaled(100.0), always=True, smooth=True),
    Edge(f"at 10 {MAGNIFIED}", scaled(10.0), always=True, smooth=True),
    Edge("at a hundredth of the usual magnitude", scaled(0.01), smooth=True),
    Edge("at a millionth of the usual magnitude", scaled(1e-6), smooth=True),
    Edge("with negative values alone", _negative, smooth=True),
    Edge(
        "with ties, zeros and halves",
        _picked(0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5, 2.5, -2.5),
    ),
    Edge("with zeros alone", _throughout(0.0)),
    Edge("with magnitudes from 1e-6 to 1e5", _of_all_magnitudes, smooth=True),
    Edge("with -inf in the first half", _partly(-math.inf), infinite=True),
    Edge("with inf in the first half", _partly(math.inf), infinite=True),
    Edge("with -inf alone", _throughout(-math.inf), infinite=True),
    Edge(RISING, _rising),
    Edge("with zeros of either sign", _in_turn(-0.0, 1.0, 0.0, -2.0, 0.5), infinite=True),
    Edge("with values that have no logarithm or root", _alternating, undefined=True),
    Edge("with NaN in the first half", _partly(math.nan), missing=True),
)
