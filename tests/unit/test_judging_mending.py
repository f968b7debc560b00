"""Which mend of a conversion is tried, in which order, and what is said of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from onnx_harness import transforms
from onnx_harness.cards.card import Card, PathSource
from onnx_harness.errors import DiedBefore, NotApplicable
from onnx_harness.inputs import InputSet
from onnx_harness.judging import mends as room
from onnx_harness.judging.card_options import even_in_vain, takes_nodes, with_card
from onnx_harness.judging.conversions import conversion_of
from onnx_harness.judging.mends import (
    is_of_library,
    mend_of,
    named,
    quoted,
    spelled,
    tried_mend,
)
from onnx_harness.judging.mixed.account import Effort, Mix
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.standard import Standard
from onnx_harness.judging.verdict import Verdict
from onnx_harness.model.file import Model
from onnx_harness.names import parse_variant
from onnx_harness.results.cache import Cache
from onnx_harness.results.cells import Status
from onnx_harness.transforms import Precision, remark
from onnx_harness.transforms.variant import BoundVariant, bind_variant
from tests.models import model

PATH = Path("m.onnx")
CARD = Card(path=PATH, name="m", source=PathSource(PATH))
MOST = 1 << 28
OTHER: Any = SimpleNamespace(sha256="other")


def bound(text: str) -> BoundVariant:
    return bind_variant(parse_variant(text))


def sized(size: int = 1) -> Any:
    return SimpleNamespace(size_bytes=size, sha256="0123456789abcdef" * 4)


def answering(asked: list[Any], answer: Any) -> Callable[..., Any]:
    """Note what is asked; raise the answer if it's an error, and give it otherwise."""

    def answers(*words: Any, **more: Any) -> Any:
        asked.append((*words, more) if more else words)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return answers


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (DiedBefore("of it"), "No mend is offered: of it"),
        (NotApplicable("none"), "No mend was found: none"),
        (RuntimeError("a " + "x" * 200 + "\nb"), "No mend is offered: a " + "x" * 200),
    ],
)
def test_a_mend_that_cannot_be_tried_is_told_in_a_line(
    answer: Exception, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    risks: list[str] = []
    asked: list[Any] = []

    @contextlib.contextmanager
    def risking(what: str) -> Iterator[None]:
        risks.append(what)
        yield

    monkeypatch.setattr(room, "risking", risking)
    monkeypatch.setattr(room, "_tried_mend", answering(asked, answer))
    monkeypatch.setattr(room, "_key", lambda *_: "key")
    words: Any = (SimpleNamespace(kept=Cache.temporary()), "variant", sized())
    spelling, told = mend_of(*words)
    assert spelling is None
    limit = len("No mend is offered: ") + 160
    assert told == (line if len(line) <= limit else f"{line[: limit - 1]}…")
    assert asked == [words]
    assert risks == ["mend 0123456789abcdef"]
    assert tried_mend(*words) == told
    assert asked == [words] * 2
    monkeypatch.setattr(room, "_tried_mend", answering(asked, (None, "none here")))
    for _ in range(2):  # another search may find one
        assert mend_of(*words) == (None, "none here")
    assert asked == [words] * 4
    monkeypatch.setattr(room, "_tried_mend", answering(asked, ("fp16.mixed", "a line")))
    assert mend_of(*words) == ("fp16.mixed", "a line")
    assert tried_mend(*words) == "a line"
    assert asked == [words] * 5  # it's kept


def test_a_mend_is_kept_for_all_that_it_depends_on() -> None:
    reference = Reference((InputSet("one"),), ({},), frozenset())
    standard = Standard(
        sized(), reference, CARD, Precision.FP16, None, None, "cpu", exact=False,
        override=None, kept=Cache.temporary(),
    )  # fmt: skip
    keys = []
    for changed, variant, candidate in (
        (standard, "fp16", sized()),
        (replace(standard, model=OTHER), "fp16", sized()),
        (replace(standard, override=(1.0, 1.0)), "fp16", sized()),
        (replace(standard, card=replace(CARD, keep_float32=("n",))), "fp16", sized()),
        (standard, "simplify+fp16", sized()),
        (standard, "fp16", OTHER),
    ):
        words: Any = (changed, bound(variant), candidate)
        keys.append(room._key(*words))
        assert room._key(*words) == keys[-1]
    assert len(set(keys)) == len(keys)


NONE = (
    "No mend is offered: no step of the variant converts to a half type, the model asks for it "
    "itself"
)
LARGE = "No mend is offered: the model is too large to try one; --variant fp16.mixed does"
CALIBRATED = "No mend is offered: the variant is calibrated as well"


@pytest.mark.parametrize(
    ("variant", "candidate", "original", "line"),
    [
        ("simplify", 1, 1, NONE),
        ("original", 1, 1, NONE),
        ("int8.dynamic", 1, 1, NONE),
        ("fp16.mixed", 1, 1, "No mend is offered: fp16.mixed is what would be"),
        ("simplify+bf16.mixed", 1, 1, "No mend is offered: bf16.mixed is what would be"),
        ("fp16.io32", MOST + 1, 1, LARGE),
        ("fp16.io32", 1, 2 * MOST + 1, LARGE),
        ("bf16.io32", MOST + 1, 1, LARGE.replace("fp16", "bf16")),
        ("fp16.io32+int8.static", 1, 1, CALIBRATED),
    ],
)
def test_where_no_mend_is_tried_the_line_says_why(
    variant: str, candidate: int, original: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_with_choice", "_in_place_of_library"):
        monkeypatch.setattr(room, name, None)
    standard: Any = SimpleNamespace(model=sized(original))
    assert room._tried_mend(standard, bound(variant), sized(candidate)) == (None, line)


@pytest.mark.parametrize(
    ("variant", "at", "mixed", "library"),
    [
        ("fp16()", 0, "fp16.mixed", False),
        ("simplify+fp16.io32", 1, "fp16.mixed", False),
        ("simplify+bf16.io32+ort.basic", 1, "bf16.mixed", False),
        ("fp16.onnxmltools.io32", 0, "fp16.mixed", True),
        ("simplify+optimize+fp16.onnxmltools()", 2, "fp16.mixed", True),
    ],
)
def test_the_mend_stands_in_the_place_of_the_conversion(
    variant: str, at: int, mixed: str, library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(room, "_with_choice", answering(asked, "chosen"))
    monkeypatch.setattr(room, "_in_place_of_library", answering(asked, "in its place"))
    chain = bound(variant)
    standard: Any = SimpleNamespace(model=sized(2 * MOST))
    found: Any = room._tried_mend(standard, chain, sized(MOST))
    assert is_of_library(chain.steps[at]) is library
    assert found == ("in its place" if library else "chosen")
    more = [] if library else [{"known_to_fail": True}]
    assert asked == [(standard, chain, at, mixed, *more)]


def test_a_step_that_converts_to_no_half_type_is_no_library_s() -> None:
    steps = bound("simplify+int8.dynamic").steps
    assert [is_of_library(step) for step in steps] == [False, False]


@pytest.mark.parametrize("plain", ["fp16()", None])
@pytest.mark.parametrize("variant", ["fp16.onnxmltools()", "fp16.onnxmltools.io32"])
def test_in_a_library_s_place_ours_is_tried_as_it_is(
    variant: str, plain: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(room, "_plain_half", answering(asked, plain))
    monkeypatch.setattr(room, "_with_choice", answering(asked, "chosen"))
    chain = bound(variant)
    standard: Any = "standard"
    found: Any = room._in_place_of_library(standard, chain, 0, "fp16.mixed")
    halves = chain.float_io is not None
    words = (standard, chain, 0)
    choice = (*words, "fp16.mixed", {"known_to_fail": False})
    if halves and plain is not None:
        passes = 'mend: `--variant "fp16()"` passes, and has no list of nodes to keep'
        assert found == ("fp16()", passes)
        assert asked == [(*words, "fp16")]
        return
    assert found == "chosen"
    assert asked == [*([(*words, "fp16")] if halves else []), choice]


def mix(nodes: int, *names: str) -> Mix:
    return Mix(names, nodes, 5, 0.5, True, True, 0, 1, 1, 1.0)


def held_to(**changes: Any) -> Any:
    """A standard, as far as it is replaced and passed on here."""
    words: dict[str, Any] = dict.fromkeys(Standard.__dataclass_fields__, "")
    return Standard(**(words | {"card": CARD, "float_io": "float16"} | changes))


@pytest.mark.parametrize(
    ("variant", "at", "mixed", "found", "known", "spelling", "line"),
    [
        (
            "fp16()", 0, "fp16.mixed", mix(2, "a", "b"), True, "fp16.mixed",
            "mend: `--variant fp16.mixed` keeps 2 of 5 nodes in float32 (50.0% of the time): "
            "'a', 'b'",
        ),
        (
            "simplify+fp16.io32(op_block_list=['Add'])", 1, "fp16.mixed", mix(2, "a"), False,
            "simplify+fp16.mixed(op_block_list=['Add'])",
            "mend: `--variant \"simplify+fp16.mixed(op_block_list=['Add'])\"` keeps 2 of 5 nodes "
            "in float32 (50.0% of the time): 'a'",
        ),
        (
            "bf16.io32", 0, "bf16.mixed", mix(5, "a"), True, None,
            "No mend was found: bf16.mixed keeps all 5 nodes in float32, so that nothing is gained",
        ),
        (
            "fp16.onnxmltools.io32", 0, "fp16.mixed", mix(0), False, "fp16.io32",
            "mend: `--variant fp16.io32` passes, and has no list of nodes to keep",
        ),
        (
            "fp16()", 0, "fp16.mixed", mix(0), True, "fp16.mixed",
            "mend: `--variant fp16.mixed` keeps none of 5 nodes in float32",
        ),
    ],
)  # fmt: skip
def test_what_has_to_stay_is_offered_as_it_was_found(
    variant: str,
    at: int,
    mixed: str,
    found: Mix,
    known: bool,
    spelling: str | None,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(room, "_tried", answering(asked, found))
    standard = held_to(card=replace(CARD, keep_float32=("k",)))
    told = room._with_choice(standard, bound(variant), at, mixed, known_to_fail=known)
    assert told == (spelling, line)
    [(judging, mended, place, effort)] = asked
    assert (place, effort) == (at, Effort(20.0, known_to_fail=known))
    assert mended.steps[at].name == mixed
    assert mended.steps[at].options.get("node_block_list", ("k",)) == ("k",)
    assert takes_nodes(mended.steps[at]) == ("fp16" in mixed)
    assert judging == replace(standard, float_io=None, conversion=conversion_of(mended))
    assert judging.conversion.type == ("bfloat16" if "bf16" in variant else "float16")


def test_our_conversion_alone_is_right_where_its_model_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    made = model("(float[2] x) => (float[2] y) { y = Neg(x) }")
    subject: Any = SimpleNamespace(load=lambda: made)
    standard = held_to(model=subject, card=replace(CARD, keep_float32=("k",)))

    def applies(given: Any, steps: Any) -> str:
        asked.append(
            (given, [step.name for step in steps], steps[-1].options["node_block_list"])
        )
        remark("told to nobody")
        return "converted"

    monkeypatch.setattr(room, "_applied", applies)
    monkeypatch.setattr(room, "_verify", answering(asked, None))
    chain = bound("simplify+fp16.onnxmltools()")
    assert room._plain_half(standard, chain, 1, "fp16") == "simplify+fp16"
    (given, steps, kept), (judging, replacing, converted) = asked
    assert (given, steps, kept) == (made, ["simplify", "fp16"], ("k",))
    assert converted == "converted"
    assert replacing.variant.spelling == "simplify+fp16"
    assert replacing.steps == with_card(bound("simplify+fp16"), standard.card).steps
    assert judging == replace(standard, conversion=conversion_of(replacing))
    alone = bound("fp16.onnxmltools()")
    assert room._plain_half(standard, alone, 0, "fp16") == "fp16()"
    monkeypatch.setattr(room, "_verify", answering(asked, NotApplicable("it fails")))
    assert room._plain_half(standard, alone, 0, "fp16") is None
    # Where the other one leaves inputs and outputs of another type, ours isn't in its place.
    monkeypatch.setattr(room, "_applied", None)
    assert room._plain_half(standard, bound("fp16.onnxmltools.io32"), 0, "fp16") is None


@pytest.mark.parametrize(
    ("variant", "text"),
    [("fp16", "fp16()"), ("fp16.mixed", "fp16.mixed"), ("a+fp16", "a+fp16")],
)
def test_a_step_that_is_called_as_a_group_is_spelt_with_parentheses(
    variant: str, text: str
) -> None:
    chain: Any = SimpleNamespace(spelling=variant)
    assert "fp16" in {
        group for each in transforms.registry().values() for group in each.groups
    }
    assert spelled(chain) == text


def test_options_that_the_other_conversion_knows_are_taken_over() -> None:
    variant = parse_variant(
        "simplify+fp16.io32(min_positive_val=0.5, op_block_list=['Add'], "
        "node_block_list=['n'])+ort.basic"
    )
    found = room._replaced(variant, 1, "fp16.mixed")
    known = transforms.registry()["fp16.mixed"].options
    options = [option for option in variant.steps[1].options if option[0] in known]
    assert [step.name for step in found.steps] == ["simplify", "fp16.mixed", "ort.basic"]
    assert list(found.steps[1].options) == options
    assert dict(options)["op_block_list"] == ("Add",)
    assert (found.steps[0], found.steps[2]) == (variant.steps[0], variant.steps[2])
    plain = room._replaced(variant, 1, "simplify")
    assert plain.steps[1].options == ()


class Step:
    """A step of a chain that notes what it gets."""

    def __init__(self, name: str, log: list[Any], *, session: bool = False) -> None:
        self.name, self._log = name, log
        self.transform = SimpleNamespace(session=session)

    def __call__(self, given: str, **more: Any) -> str:
        self._log.append((self.name, given, more))
        if "choose" in more:
            more["choose"]("conversion")
        remark("told when the cell's own model was made")
        return f"{given}>{self.name}"


@pytest.mark.parametrize("last", ["nothing", "a session", "a change"])
def test_what_follows_the_conversion_is_applied_and_verified(
    last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[Any] = []
    choosers: list[Any] = []
    verified: list[Any] = []
    found = mix(1, "a")

    def chooser(standard: Any, say: Any, mixes: list[Mix], effort: Any) -> Any:
        choosers.append((standard, effort, say("a remark")))
        return lambda _: mixes.append(found)

    monkeypatch.setattr(room, "chooser", chooser)
    monkeypatch.setattr(room, "_verify", answering(verified, None))
    steps = [Step("before", log), Step("idle", log, session=True), Step("fp16", log)]
    if last != "nothing":
        steps.append(Step("after", log, session=last == "a session"))
    subject: Any = SimpleNamespace(load=lambda: "model")
    standard = held_to(model=subject)
    variant: Any = SimpleNamespace(steps=steps)
    effort = Effort(3.0)
    assert room._tried(standard, variant, 2, effort) is found
    assert [(name, given) for name, given, _ in log] == [
        ("before", "model"),
        ("fp16", "model>before"),
        *([("after", "model>before>fp16")] if last == "a change" else []),
    ]
    assert [list(more) for _, _, more in log][:2] == [[], ["choose"]]
    assert choosers == [(standard, effort, None)]
    ended = (standard, variant, "model>before>fp16>after")
    assert verified == ([ended] if last == "a change" else [])


def test_a_model_is_verified_from_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model("(float[2] x) => (float[2] y) { y = Neg(x) }")
    seen: list[Any] = []
    answers = iter([Verdict(Status.PASS), Verdict(Status.FAIL, reason="it is wrong")])

    def judges(standard: Any, candidate: Model) -> Verdict:
        seen.append((standard, onnx.load(candidate.path), candidate.path))
        return next(answers)

    monkeypatch.setattr(room, "half_verdict", judges)
    standard: Any = "standard"
    chain = bound("simplify+fp16.mixed")
    room._verify(standard, chain, made)
    with pytest.raises(NotApplicable) as told:
        room._verify(standard, chain, made)
    assert str(told.value) == "simplify+fp16.mixed fails all the same: it is wrong"
    assert [(given, loaded) for given, loaded, _ in seen] == [(standard, made)] * 2
    assert not any(path.parent.exists() for _, _, path in seen)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("", ""),
        ("a", ": 'a'"),
        ("abc", ": 'a', 'b', 'c'"),
        ("abcd", ": 'a', 'b', 'c' and 1 more"),
        ("abcdef", ": 'a', 'b', 'c' and 3 more"),
    ],
)
def test_the_first_nodes_that_stay_are_named(names: str, words: str) -> None:
    assert named(list(names)) == words
    assert (quoted("a.b"), quoted("a(b)")) == ("a.b", '"a(b)"')


# what a card says of conversions


def options_of(variant: BoundVariant) -> list[dict[str, Any]]:
    return [dict(step.options) for step in variant.steps]


def test_nodes_of_a_card_join_those_of_the_variant() -> None:
    card = replace(CARD, keep_float32=("b", "a"))
    plain = bound("simplify+fp16.io32(node_block_list=['c', 'a'])+int8.dynamic+bf16.io32")
    found = with_card(plain, card)
    expected = options_of(plain)
    expected[1] |= {"node_block_list": ("c", "a", "b"), "allow_missing": True}
    assert options_of(found) == expected
    assert replace(found, steps=plain.steps) == plain
    [alone] = options_of(with_card(bound("fp16.mixed"), card))
    assert (alone["node_block_list"], alone["allow_missing"]) == (("b", "a"), True)
    library = bound("fp16.onnxmltools.io32")
    assert with_card(library, card) == library
    assert with_card(plain, CARD) == plain
    assert [takes_nodes(step) for step in plain.steps] == [False, True, False, False]


def test_a_case_converts_in_vain_and_its_nodes_stay() -> None:
    card = replace(CARD, keep_float32=("a",), suite="onnx")
    variant = bound("simplify+fp16.io32+bf16.io32")
    found = with_card(variant, card)
    assert options_of(found)[1]["node_block_list"] == ("a",)
    for step, plain in zip(found.steps, variant.steps, strict=True):
        vain = even_in_vain(plain)
        assert vain.transform is step.transform is plain.transform
        added = {"node_block_list", "allow_missing"} if takes_nodes(plain) else set()
        for name, value in vain.options.items():
            assert name in added or step.options[name] == value
        assert (vain.options == plain.options) == (plain.name == "simplify")
    library = bound("fp16.onnxmltools.io32").steps[0]
    assert (even_in_vain(library) is library) == (library.transform.parts is None)
