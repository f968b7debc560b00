"""Names and ids, for any text."""

import keyword
import re
from pathlib import PurePosixPath

from hypothesis import assume, example, given
from hypothesis import strategies as st

from onnx_harness.errors import NameGrammarError
from onnx_harness.names import (
    CARD_SUFFIX,
    OptionValue,
    Step,
    Variant,
    check_name,
    model_name,
    parse_variant,
    slug,
)

NAMES = st.from_regex(r"[a-z0-9_.]+", fullmatch=True).filter(lambda name: name != "original")
KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,12}", fullmatch=True).filter(
    lambda key: key not in keyword.kwlist
)
TEXT = st.text(max_size=20)
VALUES: st.SearchStrategy[OptionValue] = (
    st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.lists(TEXT, max_size=4).map(tuple)
)
STEPS = st.builds(
    lambda name, options: Step(name, tuple(sorted(options.items()))),
    NAMES,
    st.dictionaries(KEYS, VALUES, max_size=3),
)
CHAINS = st.lists(STEPS, max_size=4).map(tuple)


@given(CHAINS)
@example((Step("x", (("a", "\ud800\"'\\"), ("b", -0.0))),))
def test_a_spelling_reads_back_to_the_chain_that_it_spells(steps: tuple[Step, ...]) -> None:
    variant = parse_variant(Variant("any", steps).spelling)
    assert variant.steps == steps
    assert repr(variant.steps) == repr(steps)  # equality alone doesn't tell True from 1
    assert parse_variant(variant.spelling) == variant


@given(CHAINS)
def test_an_id_is_names_joined_by_plus_and_short_enough_for_a_file(
    steps: tuple[Step, ...],
) -> None:
    variant = parse_variant(Variant("any", steps).spelling)
    parts = variant.id.split("+")
    assert [check_name(part, "step") for part in parts] == parts
    assert len(parts) == max(1, len(steps))
    for part, step in zip(parts, steps, strict=False):
        assert len(part) <= len(step.name) + 50 * len(step.options)


@given(CHAINS, CHAINS)
def test_two_chains_with_one_id_mean_the_same(
    one: tuple[Step, ...], other: tuple[Step, ...]
) -> None:
    first, second = (parse_variant(Variant("any", steps).spelling) for steps in (one, other))
    if first.id == second.id:
        assert first.steps == second.steps


@given(NAMES, KEYS, VALUES, VALUES)
@example("x", "a", 1.0, True)
@example("x", "a", 0.5, "0.5")
@example("x", "a", 1e22, 10**22)
def test_two_values_have_one_id_if_and_only_if_they_are_equal(
    name: str, key: str, one: OptionValue, other: OptionValue
) -> None:
    ids = {parse_variant(str(Step(name, ((key, value),)))).id for value in (one, other)}
    same = one == other and isinstance(one, bool) == isinstance(other, bool)
    assert len(ids) == (1 if same else 2)


@given(st.text())
@example("x(a=1e400)")
@example("x(a='\\d')")
@example("x(" * 300)
@example("x(a=" + "-" * 10_000 + "1)")
def test_any_text_is_a_variant_or_a_grammar_error(text: str) -> None:
    check_read_back_or_refused(text)


@given(st.text(alphabet="ab1.+-()=,'\"[]\\ \n", max_size=30).map(lambda text: f"x({text}"))
def test_any_options_are_read_back_or_a_grammar_error(text: str) -> None:
    check_read_back_or_refused(text)


def check_read_back_or_refused(text: str) -> None:
    try:
        variant = parse_variant(text)
    except NameGrammarError:
        return
    assert parse_variant(variant.spelling) == variant


@given(st.text())
def test_a_slug_is_a_name_and_its_own_slug(text: str) -> None:
    assume(re.search(r"[a-z0-9]", text.lower()))
    name = slug(text)
    assert check_name(name, "model") == name == slug(name)


@given(NAMES)
def test_a_model_and_its_card_share_a_name(stem: str) -> None:
    assume(stem.strip("_."))
    assume(not stem.endswith((".onnx", CARD_SUFFIX)))
    assert model_name(PurePosixPath(f"{stem}.onnx")) == model_name(
        PurePosixPath(f"{stem}{CARD_SUFFIX}")
    )
