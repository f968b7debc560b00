"""Greedy decoding in parts: the interface by the names of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from onnx_harness.cards.specs import GenerateSpec
from onnx_harness.errors import CardError
from onnx_harness.judging.generation import decoder as decoders
from onnx_harness.judging.generation.decoder import Decoder, Role, decoder_of, of_encoder
from onnx_harness.model.file import ValueType

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
