"""Greedy decoding in parts: what is fed step by step, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnx_harness.accuracy.explain import MOST_ELEMENT
from onnx_harness.cards.specs import GenerateSpec
from onnx_harness.judging.generation import decoding
from onnx_harness.judging.generation.decoder import Decoder, Role
from onnx_harness.judging.generation.decoding import Decoded, decode
from onnx_harness.judging.generation.verdict import (
    Generation,
    explained_by,
    judge_generation,
)
from onnx_harness.model.file import ValueType
from onnx_harness.results.generation import GenerationRecord

INT, FLOAT, HALF = "tensor(int64)", "tensor(float)", "tensor(float16)"
SPEC = GenerateSpec(prompt=(1, 2), steps=3)


def value(name: str, kind: str, *shape: int | str | None) -> ValueType:
    return ValueType(name, kind, shape)


IDS = value("input_ids", INT, "batch", "sequence")


# What is fed.


class Session:
    """A stand-in that notes what it's fed, and gives logits that rise with its runs."""

    def __init__(self, rows: int = 1, **types: str) -> None:
        self.fed: list[dict[str, Any]] = []
        self._types = types
        self._rows = rows

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name=name, type=kind) for name, kind in self._types.items()]

    def run(self, values: Mapping[str, Any]) -> dict[str, Any]:
        self.fed.append({name: np.asarray(given).tolist() for name, given in values.items()})
        self.types = {name: np.asarray(given).dtype for name, given in values.items()}
        number = len(self.fed)
        logits = np.zeros((1, self._rows, 8), ml_dtypes.bfloat16)
        logits[0, :, 7] = 9
        logits[0, -1] = 0
        logits[0, -1, number] = number
        return {
            "logits": logits,
            "out": np.full((1, number), number),
            "gone": np.zeros((0, 0)),
        }


@pytest.fixture(autouse=True)
def _running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "run", lambda session, values: session.run(values))
    clock = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock) ** 2))


def decoder(**changes: Any) -> Decoder:
    made = Decoder(IDS, True, "logits", {"c": "out"}, {"c": (1, 0)}, {}, "growing", None)
    return replace(made, **changes)


def decoded(session: Any, made: Decoder, **more: Any) -> Decoded:
    return decode(session, made, more.pop("fixed", {}), (5, 6), 3, **more)


def test_each_step_feeds_what_the_last_one_picked_and_its_cache() -> None:
    session = Session(2, input_ids=INT, c=INT)
    got = decoded(session, decoder())
    assert session.fed == [
        {"input_ids": [[5, 6]], "c": [[]]},
        {"input_ids": [[1]], "c": [[1]]},
        {"input_ids": [[2]], "c": [[2, 2]]},
    ]
    assert got.logits.tolist() == [
        [0.0] * step + [step] + [0.0] * (7 - step) for step in (1, 2, 3)
    ]
    assert got.logits.dtype == np.float32
    assert got.tokens.tolist() == [1, 2, 3]
    assert got.tokens.dtype == np.int64
    assert got.seconds == (1.0, 5.0, 9.0)
    session = Session(input_ids=INT, c=INT)
    got = decoded(session, decoder(), forced=(7, 6, 5))
    assert [fed["input_ids"] for fed in session.fed] == [[[5, 6]], [[7]], [[6]]]
    assert got.tokens.tolist() == [1, 2, 3]


def test_tokens_go_one_at_a_time_where_no_more_are_taken() -> None:
    counts = {
        "p": (Role.POSITIONS, value("p", INT, 1)),
        "m": (Role.MASK, value("m", INT, 1, "n")),
    }
    session = Session(input_ids="tensor(int32)", c=INT, p=INT, m=FLOAT)
    made = decoder(whole=False, ids=value("input_ids", INT, 1), roles=counts, places=5)
    got = decoded(session, made)
    assert [fed["input_ids"] for fed in session.fed] == [[5], [6], [2], [3]]
    assert [fed["p"] for fed in session.fed] == [[0], [1], [2], [3]]
    assert [sum(fed["m"][0]) for fed in session.fed] == [1, 2, 3, 4]
    assert {len(fed["m"][0]) for fed in session.fed} == {5}
    assert session.types == {
        "input_ids": np.int32,
        "c": np.int64,
        "p": np.int64,
        "m": np.float32,
    }
    assert got.tokens.tolist() == [2, 3, 4]


def test_without_a_cache_the_history_is_fed_again() -> None:
    session = Session(input_ids=INT, p=INT)
    counts = {"p": (Role.PAST, value("p", INT, 1))}
    made = decoder(cache={}, empty={}, roles=counts, ids=ValueType("input_ids", INT, None))
    decoded(session, made)
    tokens = [[[5, 6]], [[5, 6, 1]], [[5, 6, 1, 2]]]
    assert session.fed == [{"input_ids": each, "p": [0]} for each in tokens]


def test_what_an_encoder_gave_is_kept_after_the_first_step() -> None:
    session = Session(input_ids=INT, e=INT, encoder=INT, cross=INT)
    cache = {"encoder": "out", "cross": "gone", "e": "out"}
    decoded(session, decoder(cache=cache, empty=dict.fromkeys(cache, (1, 0))))
    assert [fed["encoder"] for fed in session.fed] == [[[]], [[1]], [[1]]]
    assert [fed["cross"] for fed in session.fed] == [[[]], [], []]
    assert [fed["e"] for fed in session.fed] == [[[]], [[1]], [[2, 2]]]


def test_what_is_fixed_is_fed_in_the_types_of_the_session() -> None:
    session = Session(input_ids=INT, c=HALF, scale=HALF, odd="tensor(string)")
    fixed = {
        "scale": np.array([1e9, 0.5], np.float32),
        "c": np.ones(3),
        "odd": np.array(["s"]),
    }
    decoded(session, decoder(empty={"c": (1, 0)}), fixed=fixed)
    assert session.fed[0] == {
        "input_ids": [[5, 6]],
        "c": [[]],
        "scale": [math.inf, 0.5],
        "odd": ["s"],
    }
    assert session.types["c"] == np.float16
    unknown = Session(input_ids=INT)
    decoded(unknown, decoder())
    assert unknown.fed[0]["c"] == [[]]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (FLOAT, np.float32),
        (HALF, np.float16),
        ("tensor(bfloat16)", ml_dtypes.bfloat16),
        ("tensor(double)", np.float64),
        (INT, np.int64),
        ("tensor(int32)", np.int32),
        ("tensor(bool)", np.bool_),
        ("tensor(int8)", np.int8),
        ("tensor(uint8)", np.uint8),
        ("tensor(uint16)", np.float32),
    ],
)
def test_a_cache_begins_with_zeros_of_its_type(kind: str, dtype: Any) -> None:
    state = decoding._State(Session(c=kind), decoder(empty={"c": (1, 2)}), {})
    assert (state._cache["c"].dtype, state._cache["c"].tolist()) == (dtype, [[0, 0]])


def test_a_mask_without_a_shape_counts_all_tokens() -> None:
    kinds = decoding._counted(Role.KINDS, value("k", INT, "b", 3, "n"), 2, 4, None)
    assert kinds.tolist() == [[[0] * 4] * 3]
    static = decoding._counted(Role.MASK, value("m", INT, 1, 3), 2, 1, 9)
    assert static.tolist() == [[1, 1, 1]]
    positions = decoding._counted(Role.POSITIONS, value("p", INT, 2, 1), 4, 3, None)
    assert positions.tolist() == [[4], [4]]


# The verdict.

EYE = tuple(tuple(float(row == column) for column in range(4)) for row in range(4))


def steps(*rows: Sequence[float], seconds: Sequence[float] = ()) -> Decoded:
    return Decoded(np.array(rows, np.float32), tuple(seconds or [0.25] * len(rows)))


def record(**changes: Any) -> GenerationRecord:
    given: dict[str, Any] = {
        "steps": 3,
        "agreement": 1.0,
        "first_divergence": None,
        "margin": None,
        "behind": None,
        "noise": 0.25,
        "cache": "growing",
        "first_token_ms": 250.0,
        "per_token_ms": 250.0,
    }
    return GenerationRecord(**(given | changes))


REFERENCE = steps((4.0, 3.5, 0.0), (0.0, 2.0, 1.75), (1.0, 0.0, 5.0))
NAN = math.nan


def judged(
    candidate: Decoded, noise: float | None = 0.25, reference: Decoded = REFERENCE
) -> Generation:
    spec = GenerateSpec((1,), len(reference.seconds))
    return judge_generation(decoder(), spec, reference, candidate, noise)


def test_steps_that_agree_have_nothing_to_tell() -> None:
    candidate = steps((9.0, 0, 0), (0, 9.0, 0), (0, 0, 9.0), seconds=(2.0, 0.5, 0.25))
    times = {"first_token_ms": 2000.0, "per_token_ms": 375.0}
    assert judged(candidate) == Generation(record(**times))
    assert judged(candidate, None) == Generation(record(noise=None, **times))
    one = judged(steps((1.0, 0.0)), reference=steps((1.0, 0.0)))
    assert one == Generation(record(steps=1, per_token_ms=None))


def test_another_token_within_the_noise_is_a_note() -> None:
    candidate = steps((9.0, 0, 0), (0, 0, 9.0), (0, 0, 9.0))
    differing = record(agreement=2 / 3, first_divergence=2, margin=0.25, behind=0.25)
    thirds: Any = pytest.approx(2 / 3)
    got = judged(candidate)
    assert got == Generation(
        replace(differing, agreement=thirds),
        notes=(
            "generation: 2 of 3 tokens agree; the first other one is at step 2, where the two best "
            "logits lie 0.25 apart, which noise explains",
        ),
    )
    unmeasured = judged(candidate, None)
    assert unmeasured.record.noise is None
    assert unmeasured.record.behind == 0.25
    assert unmeasured.notes == (
        "generation isn't judged, its noise wasn't measured: 2 of 3 tokens agree",
    )
    assert (unmeasured.reason, unmeasured.detail) == (None, ())


def test_a_token_further_behind_departs() -> None:
    candidate = steps((0, 9.0, 0), (0, 0, 9.0), (9.0, 0, 0))
    got = judged(candidate)
    assert got.record == record(agreement=0.0, first_divergence=1, margin=0.5, behind=0.5)
    assert got.reason == (
        "generation departs at step 1 of 3 (growing cache fed back): token 1 instead of 0, whose "
        "logit lies 0.5 higher in the reference, and noise explains 0.25; 0 of 3 tokens agree"
    )
    assert got.detail == (
        "step 1: token 1 instead of 0, whose logit lies 0.5 higher in the reference; the "
        "reference's two best lie 0.5 apart",
        "step 3: token 0 instead of 2, whose logit lies 4 higher in the reference; the "
        "reference's two best lie 4 apart",
    )
    assert got.notes == ()
    # The step that departs needn't be the first that differs.
    got = judged(candidate, 0.5)
    assert got.record.first_divergence == 1
    assert (got.reason or "").startswith("generation departs at step 3 of 3")
    assert len(got.detail) == 1


def test_no_more_than_a_few_steps_are_listed() -> None:
    reference = steps(*[(1.0, 0.0)] * 6)
    got = judged(steps(*[(0.0, 1.0)] * 6), reference=reference)
    assert [line.split(":")[0] for line in got.detail] == [
        f"step {step}" for step in (1, 2, 3, 4)
    ]


def test_nan_departs_where_the_reference_has_none() -> None:
    candidate = steps((NAN, 0, 0), (0, 9.0, 0), (0, 0, NAN))
    third: Any = pytest.approx(1 / 3)
    got = judged(candidate, 100.0)
    assert got.record == record(agreement=third, first_divergence=1, margin=0.5, noise=100.0)
    assert got.reason == (
        "generation departs at step 1 of 3 (growing cache fed back): its logits are NaN, and "
        "noise explains 1e+02; 1 of 3 tokens agree"
    )
    assert got.detail == (
        "step 1: its logits are NaN; the reference's two best lie 0.5 apart",
        "step 3: its logits are NaN; the reference's two best lie 4 apart",
    )
    reference = steps((NAN, 0, 0), (0, 9.0, 0), (0, 0, 1.0))
    assert (
        judged(steps((NAN, 0, 0), (0, 9.0, 0), (0, 0, 1.0)), reference=reference).reason
        is None
    )


@pytest.mark.parametrize(
    ("logits", "margin"),
    [
        ((4.0, 1.0, 3.5), 0.5),
        ((1.0, 4.0), 3.0),
        ((4.0,), 0.0),
        ((math.inf, 1.0), 0.0),
        ((2.0, 2.0), 0.0),
    ],
)
def test_a_margin_is_between_the_two_best(logits: tuple[float, ...], margin: float) -> None:
    reference = steps(logits)
    candidate = steps([0.0] * (len(logits) - 1) + [NAN])
    assert judged(candidate, reference=reference).record.margin == margin


def test_noise_is_the_greatest_share_of_any_usual_set() -> None:
    asked: list[tuple[Any, ...]] = []

    class Yardstick:
        def bound(self, index: int, name: str, reference: Any, scale: float) -> Any:
            asked.append((index, name, reference.dtype, scale))
            tail = None if index == 0 else SimpleNamespace(greatest=0.5 * index)
            return SimpleNamespace(greatest=0.25, tail=tail)

    usual = {
        0: {"y": np.array([2.0, -4.0], np.float16)},
        3: {"y": np.array([0.0, 8.0], np.float32)},
        1: {"y": np.array([1.0, 50.0], np.float32)},
        2: {"y": np.array([0.0, math.nan], np.float32)},
    }
    logits = np.array([[1.0, -3.0], [math.inf, 2.0]], np.float32)
    got = explained_by(Yardstick(), usual, "y", logits)  # type: ignore[arg-type]
    assert got == pytest.approx(2 * MOST_ELEMENT * (1.5 / 8) * 3)
    assert asked == [
        (0, "y", np.float16, 4.0),
        (3, "y", np.float32, 8.0),
        (1, "y", np.float32, 50.0),
    ]
    first: Any = {0: usual[0]}
    only = explained_by(Yardstick(), first, "y", logits)  # type: ignore[arg-type]
    assert only == pytest.approx(2 * MOST_ELEMENT * (0.25 / 4) * 3)
    small: Any = {1: {"y": np.array([0.25, -0.5], np.float32)}}
    of_small = explained_by(Yardstick(), small, "y", logits)  # type: ignore[arg-type]
    assert of_small == pytest.approx(2 * MOST_ELEMENT * (0.5 / 0.5) * 3)
    assert explained_by(Yardstick(), {}, "y", logits) == 0.0  # type: ignore[arg-type]
