"""Greedy decoding: how a decoder is fed, what is fed back, and which steps depart."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_harness.cards.card import Card, read
from onnx_harness.cards.specs import GenerateSpec
from onnx_harness.errors import CardError
from onnx_harness.judging.generation.decoder import Decoder, decoder_of
from onnx_harness.judging.generation.decoding import Decoded, _State, decode
from onnx_harness.judging.generation.verdict import judge_generation
from onnx_harness.judging.runs import open_cpu
from onnx_harness.model.file import Model
from tests.decoders import growing_cache, static_cache, without_cache
from tests.models import model, save

SPEC = GenerateSpec(prompt=(7, 11, 3), steps=8)


def interface(made: onnx.ModelProto, folder: Path, spec: GenerateSpec = SPEC) -> Decoder:
    signature = Model(save(made, folder / "d.onnx")).signature
    return decoder_of(signature, [value.name for value in signature.inputs], spec)


def tokens(made: onnx.ModelProto, folder: Path) -> tuple[str, list[int]]:
    decoder = interface(made, folder)
    decoded = decode(open_cpu(folder / "d.onnx"), decoder, {}, SPEC.prompt, SPEC.steps)
    assert decoded.logits.shape[0] == len(decoded.seconds) == SPEC.steps
    return decoder.form, decoded.tokens.tolist()


@pytest.mark.parametrize(
    "pattern",
    [
        "past_key_values.0.{} present.0.{}",
        "past_{}_0 present_{}_0",
        "past.0.{} present.0.{}",
        "cache_{}_in cache_{}_out",
        "{}_states new_{}_states",
    ],
)
def test_a_growing_cache_is_fed_back_by_the_names_of_exporters(
    tmp_path: Path, pattern: str
) -> None:
    decoder = interface(growing_cache(pattern), tmp_path)
    before, after = pattern.split()
    assert decoder.cache == {before.format(w): after.format(w) for w in ("key", "value")}
    assert set(decoder.empty.values()) == {(1, 0, 16)}
    assert decoder.form == "growing"


def test_keys_of_an_encoder_are_those_of_the_first_step(tmp_path: Path) -> None:
    """What a merged decoder gives of them later on is a dummy: here, 0 times what it took."""
    made = model(
        """(int64[batch,sequence] input_ids, float[batch,heads,4] past_encoder_key,
            float[batch,2,3] past_key_cross_0)
        => (float[batch,sequence,8] logits, float[batch,heads,4] out) {
            embedded = Gather (table, input_ids)
            summed = ReduceSum <keepdims = 0> (past_key_cross_0)
            logits = Add (embedded, summed)
            shape = Shape (input_ids)
            length = Gather (shape, one)
            float_length = Cast <to = 1> (length)
            less = Sub (float_length, unit)
            row = Mul (less, ones)
            out = Identity (row)
        }"""
    )
    table = np.random.default_rng(1).standard_normal((9, 8)).astype(np.float32)
    for name, value in {
        "table": table,
        "one": np.array(1, np.int64),
        "unit": np.array(1, np.float32),
        "ones": np.ones((1, 1, 4), np.float32),
    }.items():
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    spec = replace(SPEC, cache={"past_encoder_key": "out"})
    decoder = interface(made, tmp_path, spec)
    # And no complaint of past_key_cross_0.
    assert decoder.cache == {"past_encoder_key": "out"}
    cross = {"past_key_cross_0": np.zeros((1, 2, 3), np.float32)}
    state = _State(open_cpu(tmp_path / "d.onnx"), decoder, cross)
    state.feed([1, 2, 3])
    first = state._cache["past_encoder_key"].tolist()
    state.feed([4])
    assert state._cache["past_encoder_key"].tolist() == first == [[[2.0] * 4]]


def test_both_forms_of_a_cache_generate_what_their_arithmetic_says(tmp_path: Path) -> None:
    """The two decoders have the same weights, and the same mathematics."""
    growing, first = tokens(growing_cache(), tmp_path)
    static, second = tokens(static_cache(), tmp_path)
    assert (growing, static) == ("growing", "static")
    assert first == second
    assert len(set(first)) > 2  # what repeats one token would hide a wrong cache


@pytest.mark.parametrize("made", [growing_cache, static_cache, without_cache])
def test_of_a_prompt_only_the_last_logits_are_held(
    tmp_path: Path, made: Callable[[], onnx.ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows of a long prompt, of a large vocabulary, would be gigabytes."""
    decoder = interface(made(), tmp_path)
    state = _State(open_cpu(tmp_path / "d.onnx"), decoder, {})
    rows: list[weakref.ref[Any]] = []
    alive: list[int] = []
    feed_chunk = state._run

    def counting(chunk: list[int]) -> NDArray[np.float32]:
        alive.append(sum(row() is not None for row in rows))
        row = feed_chunk(chunk)
        rows.append(weakref.ref(row))
        return row

    monkeypatch.setattr(state, "_run", counting)
    last = state.feed([1, 2, 3])
    assert alive == ([0, 0, 0] if made is static_cache else [0])
    assert last.base is None  # no view of the other rows


def test_without_a_cache_the_whole_history_is_fed(tmp_path: Path) -> None:
    form, generated = tokens(without_cache(), tmp_path)
    assert form == "none"
    session, history = open_cpu(tmp_path / "d.onnx"), list(SPEC.prompt)
    for token in generated:
        scores = session.run(None, {"tokens": np.array([history])})[0]
        assert token == int(np.argmax(scores[0, -1]))
        history.append(token)


def test_pairs_of_the_card_go_before_names(tmp_path: Path) -> None:
    made = growing_cache("past_{} elsewhere_{}")
    with pytest.raises(
        CardError, match=r"input 'past_key' looks like a cache.*generate.cache"
    ):
        interface(made, tmp_path)
    pairs = {"past_key": "elsewhere_key", "past_value": "elsewhere_value"}
    assert interface(made, tmp_path, replace(SPEC, cache=pairs)).cache == pairs
    wrong = {"past_key": "elswhere_key"}
    with pytest.raises(
        CardError, match=r"no output 'elswhere_key'.*Did you mean 'elsewhere_key'"
    ):
        interface(made, tmp_path, replace(SPEC, cache=wrong))


def test_more_tokens_than_a_cache_of_a_fixed_size_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="take 33 places, and the cache has 32 at most"):
        interface(static_cache(), tmp_path, replace(SPEC, steps=31))


def rows(*picks: tuple[float, float, float]) -> Decoded:
    logits: NDArray[np.float32] = np.array(picks, np.float32)
    return Decoded(logits, tuple([1e-3] * len(picks)))


DECODER = Decoder(None, True, "logits", {}, {}, {}, "none", None)  # type: ignore[arg-type]


def test_another_token_within_noise_is_a_note_and_beyond_it_a_departure() -> None:
    spec = GenerateSpec((1,), 2)
    reference = rows((1.0, 0.9, 0.0), (0.0, 2.0, 0.5))
    candidate = rows((0.9, 1.0, 0.0), (0.0, 2.0, 0.5))
    near = judge_generation(DECODER, spec, reference, candidate, 0.2)
    assert near.reason is None
    assert near.record.agreement == 0.5
    assert near.record.first_divergence == 1
    assert near.record.margin == pytest.approx(0.1)
    assert "1 of 2 tokens agree" in near.notes[0]
    far = judge_generation(DECODER, spec, reference, candidate, 0.05)
    assert "departs at step 1 of 2" in (far.reason or "")
    assert len(far.detail) == 1
    unmeasured = judge_generation(DECODER, spec, reference, candidate, None)
    assert unmeasured.reason is None
    assert "isn't judged" in unmeasured.notes[0]


def test_a_later_departure_is_seen_behind_a_tie() -> None:
    spec = GenerateSpec((1,), 2)
    reference = rows((1.0, 0.99, 0.0), (0.0, 2.0, 0.5))
    outcome = judge_generation(DECODER, spec, reference, rows((0.0, 1.0, 0), (0, 0, 1)), 0.1)
    assert outcome.record.first_divergence == 1
    assert "departs at step 2" in (outcome.reason or "")


def test_logits_that_become_nan_depart() -> None:
    spec = GenerateSpec((1,), 1)
    outcome = judge_generation(
        DECODER, spec, rows((1.0, 0.0, 0.0)), rows((1.0, np.nan, 0.0)), 10.0
    )
    assert "its logits are NaN" in (outcome.reason or "")


def card(folder: Path, text: str) -> Card:
    file = folder / "d.model.toml"
    file.write_text(text)
    return read(file)


def test_a_card_says_what_is_generated_and_its_digest_knows(tmp_path: Path) -> None:
    plain = card(tmp_path, "")
    asked = card(tmp_path, '[generate]\nprompt = [1, 2]\nsteps = 4\ncache = { a = "b" }\n')
    assert asked.generate == GenerateSpec((1, 2), 4, cache={"a": "b"})
    assert asked.digest() != plain.digest()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps = 4", r"generate\.prompt is missing"),
        ("prompt = [1]", r"generate\.steps is missing"),
        ("prompt = [1]\nsteps = 0", r"generate\.steps is 0, but should be a whole number"),
        ("prompt = [-1]\nsteps = 1", r"generate\.prompt"),
        ("prompt = [1]\nsteps = 1\nstep = 2", r"Did you mean 'steps'"),
    ],
)
def test_a_mistake_in_a_card_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(CardError, match=words):
        card(tmp_path, f"[generate]\n{text}\n")
