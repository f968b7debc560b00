"""Greedy decoding in parts: the interface by the names of values, what is fed, the verdict."""

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
from onnx_harness.errors import CardError
from onnx_harness.judging.generation import decoder as decoders
from onnx_harness.judging.generation import decoding
from onnx_harness.judging.generation.decoder import Decoder, Role, decoder_of, of_encoder
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


def signature(inputs: Sequence[ValueType], outputs: Sequence[ValueType]) -> Any:
    return SimpleNamespace(inputs=tuple(inputs), outputs=tuple(outputs))


IDS = value("input_ids", INT, "batch", "sequence")
LOGITS = value("logits", FLOAT, "batch", "sequence", 9)
PAST = value("past_key", FLOAT, "batch", 2, "past", 4)
PRESENT = value("present_key", FLOAT, "batch", 2, "total", 4)
POSITIONS = value("position_ids", INT, "batch", "sequence")
MASK = value("attention_mask", INT, "batch", "total")


def interface(
    inputs: Sequence[ValueType],
    outputs: Sequence[ValueType],
    spec: GenerateSpec = SPEC,
    unfed: Sequence[str] = (),
) -> Decoder:
    fed = [each.name for each in inputs if each.name not in unfed]
    return decoder_of(signature(inputs, outputs), fed, spec)


def test_the_interface_of_a_decoder_with_a_growing_cache() -> None:
    extra = value("temperature", FLOAT)
    got = interface(
        [extra, IDS, MASK, POSITIONS, PAST, value("unfed_past", FLOAT, 1, 2)],
        [PRESENT, LOGITS],
        unfed=("unfed_past",),
    )
    assert got == Decoder(
        IDS,
        True,
        "logits",
        {"past_key": "present_key"},
        {"past_key": (1, 2, 0, 4)},
        {"attention_mask": (Role.MASK, MASK), "position_ids": (Role.POSITIONS, POSITIONS)},
        "growing",
        None,
    )


STATIC_IDS = value("input_ids", INT, 1, 1)
STATIC = (value("past_key", FLOAT, 1, 6, 4), value("present_key", FLOAT, 1, 6, 4))


def test_the_interface_of_a_decoder_with_a_cache_of_a_fixed_size() -> None:
    position = value("position", INT, 1)
    got = interface([STATIC_IDS, position, STATIC[0]], [LOGITS, STATIC[1]])
    assert (got.whole, got.form, got.places) == (False, "static", 6)
    assert got.empty == {"past_key": (1, 6, 4)}
    # Without positions no axis is known to be the length.
    got = interface([STATIC_IDS, STATIC[0]], [LOGITS, STATIC[1]])
    assert (got.form, got.places) == ("static", None)
    # Of several caches, the greatest axis of any.
    wide = value("past_value", FLOAT, 1, 3, 8), value("present_value", FLOAT, 1, 3, 8)
    got = interface([STATIC_IDS, position, STATIC[0], wide[0]], [LOGITS, STATIC[1], wide[1]])
    assert got.places == 8


def test_a_prompt_and_steps_have_to_fit_a_cache_of_a_fixed_size() -> None:
    position = value("position", INT, 1)
    inputs, outputs = [STATIC_IDS, position, STATIC[0]], [LOGITS, STATIC[1]]
    assert interface(inputs, outputs, replace(SPEC, steps=5)).places == 6
    with pytest.raises(CardError) as raised:
        interface(inputs, outputs, replace(SPEC, steps=6))
    assert str(raised.value) == (
        "generate: prompt and steps take 7 places, and the cache has 6 at most"
    )


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        (
            [STATIC_IDS],
            [LOGITS],
            "input 'input_ids' takes one token and nothing is fed back: name the cache",
        ),
        (
            [IDS, value("key_cache", FLOAT, 1, 2, 3)],
            [LOGITS],
            "input 'key_cache' looks like a cache, and no output of its name is fed back. Mend: "
            '[generate.cache] key_cache = "OUTPUT"',
        ),
    ],
)
def test_what_is_no_decoder_says_which_key_would_mend_it(
    inputs: list[ValueType], outputs: list[ValueType], words: str
) -> None:
    for place, start in (("", ""), ("a.toml", "a.toml: ")):
        with pytest.raises(CardError) as raised:
            interface(inputs, outputs, replace(SPEC, place=place))
        assert str(raised.value) == f"{start}generate: {words}"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"ids": "nowhere"}, "the model has no input 'nowhere'"),
        ({"logits": "nowhere"}, "the model has no output 'nowhere'"),
        ({"cache": {"nowhere": "present_key"}}, "the model has no input 'nowhere'"),
        ({"cache": {"past_key": "nowhere"}}, "the model has no output 'nowhere'"),
    ],
)
def test_names_of_the_card_are_the_models(asked: dict[str, Any], words: str) -> None:
    spec = replace(SPEC, **{"cache": {"past_key": "present_key"}, **asked})
    with pytest.raises(CardError, match=words):
        interface([IDS, PAST], [LOGITS, PRESENT], spec)


def test_two_tokens_at_once_are_no_single_one() -> None:
    with pytest.raises(CardError, match="input 'input_ids' takes 2 tokens at once"):
        interface([value("input_ids", INT, 1, 2)], [LOGITS])


def test_what_looks_like_a_cache_may_be_an_encoders_tokens_or_a_count() -> None:
    for other in (
        value("past_key_values.0.encoder.key", FLOAT, 1, 2, 3),
        value("past_seq_len", INT, 1),
        value("cached", FLOAT, 1, 2),
    )[:2]:
        assert interface([IDS, other], [LOGITS]).cache == {}
    tokens = value("past_tokens", INT, 1, "n")
    assert interface([tokens], [LOGITS], replace(SPEC, ids="past_tokens")).ids is tokens


@pytest.mark.parametrize(
    ("name", "is_encoders"),
    [
        ("encoder", True),
        ("past.encoder.key", True),
        ("past_cross_0", True),
        ("past.0.cross", True),
        ("encoders", False),
        ("encoded", False),
        ("past_crossing_0", False),
        ("decoder.key", False),
        ("past_decoder_0", False),
    ],
)
def test_keys_of_an_encoder_by_their_names(name: str, is_encoders: bool) -> None:
    assert of_encoder(name) is is_encoders


# The cache.


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("past_key_values.0.key", "present.0.key"),
        ("past_key_values.0.key", "present_key_values.0.key"),
        ("past_0", "present_0"),
        ("past_0", "new_0"),
        ("cache_0", "present_0"),
        ("cache_0", "new_cache_0"),
        ("cache_0", "cache_out_0"),
        ("k_in", "k_out"),
        ("in_k", "out_k"),
        ("k_input", "k_output"),
        ("state", "present_state"),
        ("state", "new_state"),
        ("state", "next_state"),
        ("state", "updated_state"),
        ("state", "state_out"),
        ("state", "state_output"),
        ("state", "state_new"),
        ("state", "state_next"),
        ("past_past", "present_past"),
    ],
)
def test_an_output_is_fed_back_by_its_name(name: str, output: str) -> None:
    state, other = value(name, FLOAT, 1, 2), value("zzz", FLOAT, 1, 2)
    outputs = {each.name: each for each in (other, value(output, FLOAT, 1, 2))}
    assert decoders._pairs({name: state}, outputs, SPEC) == {name: output}


def test_names_are_tried_from_the_likeliest_on() -> None:
    assert decoders._fed_back("past_key_values_in") == [
        "present_in",
        "present_key_values_in",
        "present_key_values_in",
        "new_key_values_in",
        "past_key_values_out",
        "present_past_key_values_in",
        "new_past_key_values_in",
        "next_past_key_values_in",
        "updated_past_key_values_in",
        "past_key_values_in_out",
        "past_key_values_in_output",
        "past_key_values_in_new",
        "past_key_values_in_next",
    ]


def pairs(names: str, outputs: str, spec: GenerateSpec = SPEC) -> dict[str, str]:
    return decoders._pairs(
        {name: value(name, FLOAT, 1, 2) for name in names.split()},
        {name: value(name, FLOAT, 1, 2) for name in outputs.split()},
        spec,
    )


def test_an_output_is_fed_back_once_and_the_card_goes_first() -> None:
    assert pairs("past_a cache_a", "present_a") == {"past_a": "present_a"}
    assert pairs("past_a cache_a", "present_a new_cache_a") == {
        "past_a": "present_a",
        "cache_a": "new_cache_a",
    }
    card = replace(SPEC, cache={"other": "present_a"})
    assert pairs("past_a", "present_a", card) == {"other": "present_a"}
    assert pairs("past_a", "present_a new_a", card) == {
        "other": "present_a",
        "past_a": "new_a",
    }
    assert pairs("past_a", "present_a", replace(SPEC, cache={"past_a": "b"})) == {
        "past_a": "b"
    }
    assert pairs("past_a", "present_a", replace(SPEC, logits="present_a")) == {}
    assert pairs("past_a past_b", "present_a present_b", replace(SPEC, ids="past_a")) == {
        "past_b": "present_b"
    }


def test_what_is_fed_back_has_axes_and_the_type_of_its_input() -> None:
    def fed_back(given: ValueType, output: ValueType) -> bool:
        return bool(decoders._pairs({given.name: given}, {output.name: output}, SPEC))

    output = value("present", FLOAT, 1, 2)
    assert fed_back(value("past", FLOAT, 1, 2), output)
    assert fed_back(value("past", FLOAT, 1, 3), output)
    assert not fed_back(value("past", FLOAT, 1, 2, 3), output)
    assert not fed_back(value("past", HALF, 1, 2), output)
    assert not fed_back(value("past", HALF, 1, 2, 3), output)
    assert not fed_back(value("past", FLOAT, 2), value("present", FLOAT, 2))
    assert not fed_back(ValueType("past", FLOAT, None), output)
    # The next candidate is tried where one is of another type.
    outputs = {"present": value("present", HALF, 1, 2), "new": value("new", FLOAT, 1, 2)}
    assert decoders._pairs({"past": value("past", FLOAT, 1, 2)}, outputs, SPEC) == {
        "past": "new"
    }


@pytest.mark.parametrize(
    ("shape", "ids", "empty"),
    [
        (("batch", 2, "past", 4), ("batch", "n"), (1, 2, 0, 4)),
        ((2, "past", 4), ("batch", "n"), (2, 0, 4)),
        (("b", "past"), ("batch", "n"), (1, 0)),
        (("b", "past"), ("n",), (1, 0)),
        ((None, None, "past"), None, (1, 0, 0)),
        (("past", "batch", 4), ("batch", "n"), (0, 1, 4)),
        (("past", "batch", "batch"), ("batch", "n"), (0, 1, 1)),
        (("past",), ("n",), (0,)),
        (("batch",), ("batch", "n"), (1,)),
        ((3, 4), ("batch", "n"), (3, 4)),
        ((2, 2), (2, "n"), (2, 2)),
        ((None, 4), (None, "n"), (0, 4)),
    ],
)
def test_a_cache_begins_empty_in_the_axis_that_grows(
    shape: tuple[Any, ...], ids: tuple[Any, ...] | None, empty: tuple[int, ...]
) -> None:
    got = decoders._empty_shape(value("c", FLOAT, *shape), ValueType("ids", INT, ids))
    assert got == empty
    assert all(type(size) is int for size in got)


def test_the_form_of_a_cache() -> None:
    assert decoders._form({}) == "none"
    assert decoders._form({"a": (1, 2), "b": (1, 0)}) == "growing"
    assert decoders._form({"a": (1, 2), "b": (1, 3)}) == "static"


# The other inputs.


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("use_cache_branch", Role.HAS_PAST),
        ("total_sequence_length", Role.TOTAL),
        ("seqlens_k", Role.LAST),
        ("past_seq_len", Role.PAST),
        ("past_sequence_length", Role.PAST),
        ("cache_len", Role.PAST),
        ("start_pos", Role.PAST),
        ("token_type_ids", Role.KINDS),
        ("segment_ids", Role.KINDS),
        ("attention_mask", Role.MASK),
        ("position_ids", Role.POSITIONS),
        ("position", Role.POSITIONS),
        ("pos", Role.POSITIONS),
        ("pos_id", Role.POSITIONS),
        ("posits", None),
        ("input_pos", Role.POSITIONS),
        ("temperature", None),
        ("past_key", None),
        ("input_ids", None),
        ("tokens", None),
    ],
)
def test_an_input_counts_tokens_by_its_name(name: str, role: Role | None) -> None:
    given = value(name, INT, 1, "n")
    expected = {} if role is None else {name: (role, given)}
    assert decoders._roles({name: given}, {}, SPEC) == expected
    assert decoders._roles({name: given}, {name: "out"}, SPEC) == {}
    assert decoders._roles({name: given}, {}, replace(SPEC, ids=name)) == {}


def test_positions_are_integers_and_a_mask_has_two_axes() -> None:
    def roles(given: ValueType) -> list[str]:
        other = value("start_pos", INT, 1)
        return list(decoders._roles({given.name: given, "start_pos": other}, {}, SPEC))

    assert roles(value("position_ids", FLOAT, 1, "n")) == ["start_pos"]
    assert roles(value("position_ids", "tensor(int32)", 1, "n")) == [
        "position_ids",
        "start_pos",
    ]
    assert roles(value("position_ids", INT)) == ["position_ids", "start_pos"]
    assert roles(value("mask", FLOAT, 1, "n")) == ["mask", "start_pos"]
    for shape, axes in (((1,), 1), ((1, 1, 2), 3), (None, 0)):
        with pytest.raises(
            CardError, match=f"'mask' is a mask of {axes} axes, and 2 are known"
        ):
            decoders._roles({"mask": ValueType("mask", INT, shape)}, {}, SPEC)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([], "x"),
        (
            [value("decoder_input_ids", INT, 1, 1), value("input_ids", INT, 1, 1)],
            "decoder_input_ids",
        ),
        ([value("input_ids", INT, 1, 1), value("input", INT, 1, 1)], "input_ids"),
        ([value("input_tokens", "tensor(int32)", 1)], "input_tokens"),
        ([value("token_ids", INT, 1), value("tokens", INT, 1)], "token_ids"),
        ([value("ids", INT, 1), value("tokens", INT, 1)], "tokens"),
        ([value("ids", INT, 1), value("input", INT, 1)], "ids"),
        ([value("input", INT, 1)], "input"),
        ([value("input_ids", FLOAT, 1, 1)], "x"),
        ([value("input_ids", INT, 1, 1, 1)], "x"),
        ([value("input_ids", INT)], "x"),
        ([value("y", FLOAT, 1, 1)], "x"),
        ([value("y", INT, 1, 1)], None),
    ],
)
def test_the_tokens_go_to_the_likeliest_input(
    others: list[ValueType], chosen: str | None
) -> None:
    inputs = {each.name: each for each in (value("x", INT, 1, "n"), *others)}
    if chosen is None:
        with pytest.raises(CardError, match="no input is certain to take the tokens"):
            decoders._ids(inputs, {}, {}, SPEC)
        return
    assert decoders._ids(inputs, {}, {}, SPEC) is inputs[chosen]


@pytest.mark.parametrize(
    ("outputs", "cache", "chosen"),
    [
        ("lm_logits scores x", (), "lm_logits"),
        ("logits lm_logits", (), "logits"),
        ("scores x", (), "scores"),
        ("x", (), "x"),
        ("x y", ("y",), "x"),
        ("scores x", ("scores",), "x"),
        ("x y", (), None),
        ("x", ("x",), None),
    ],
)
def test_the_logits_are_the_likeliest_output(
    outputs: str, cache: tuple[str, ...], chosen: str | None
) -> None:
    for kind in (FLOAT, HALF, "tensor(double)", "tensor(bfloat16)"):
        values = {name: value(name, kind, 1, 9) for name in outputs.split()}
        values["logit"] = value("logit", INT, 1)
        fed_back = {f"in_{name}": name for name in cache}
        if chosen is None:
            with pytest.raises(CardError, match="no output is certain to be the logits"):
                decoders._logits(values, fed_back, SPEC)
        else:
            assert decoders._logits(values, fed_back, SPEC) == chosen


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
