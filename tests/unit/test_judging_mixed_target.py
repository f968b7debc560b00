"""The provider that is asked what it refuses: what is tried, what is read off its words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from onnx_harness.errors import NotApplicable
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging.mixed import target
from onnx_harness.judging.mixed.account import Account, Refused
from onnx_harness.judging.mixed.search import Found
from onnx_harness.judging.mixed.target import Target, gist, kinds_of, operators_of
from onnx_harness.judging.reference import Reference
from onnx_harness.providers.sessions import Purpose
from onnx_harness.transforms.half.schemas import BFLOAT16, FLOAT16
from tests.unit.test_judging_mixed_switches import BRANCHES, CHAIN, CLAMPED, built, plan_of


@dataclass
class Bench:
    """A stand-in for a device.

    Attributes:
        fallback: of the provider.
        fails: the error of a session on a model; none where it opens.
        breaks: likewise, of its run.
        elsewhere: the operators that a model's session leaves to the CPU.
        records: whether sessions keep a record of that.
        judged: the verdict.
        opened: models of sessions, in order.
        ran: the inputs of runs.
        notes: of the worker.
    """

    fallback: tuple[str, ...] = ("CPUExecutionProvider",)
    fails: Mapping[str, Exception] = field(default_factory=dict)
    breaks: Mapping[str, Exception] = field(default_factory=dict)
    elsewhere: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    records: bool = True
    judged: Any = field(default_factory=lambda: SimpleNamespace(passed=True, reason=None))
    opened: list[str] = field(default_factory=list)
    ran: list[int] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    account: Account = field(default_factory=Account)

    def open(self, path: str, provider: Any, **options: Any) -> Any:
        self.opened.append(path)
        assert provider.name == "npu"
        assert options == {
            "purpose": Purpose.ACCURACY,
            "level": "basic",
            "config": {"of": ("skeleton of the model", f"skeleton of {path}")},
        }
        if path in self.fails:
            raise self.fails[path]
        return path

    def run(self, session: str, feeds: tuple[Any, ...]) -> Any:
        assert feeds[0] == session
        self.ran.append(int(feeds[1]["x"]))
        if session in self.breaks:
            raise self.breaks[session]
        return {"of": session, "at": int(feeds[1]["x"])}

    def verdict(self, standard: Any, outputs: Sequence[Any]) -> Any:
        assert standard.level == "basic"
        self.outputs.append(outputs)
        return self.judged

    @contextmanager
    def noting(self, words: str) -> Iterator[None]:
        self.notes.append(words)
        yield

    def placement(self, session: str, provider: Any) -> Any:
        assert provider.name == "npu"
        return SimpleNamespace(off_provider_ops=dict(self.elsewhere.get(session, {})))


@contextmanager
def written(name: str) -> Iterator[str]:
    yield name


def model_of(path: str) -> Any:
    return SimpleNamespace(path=path, skeleton=f"skeleton of {path}")


def converted(names: tuple[str, ...]) -> str:
    if names == ("all",):
        raise NotApplicable("nothing is converted")
    assert isinstance(names, tuple)
    return "-".join(("half", *names))


def target_of(bench: Bench, monkeypatch: pytest.MonkeyPatch, half: int = FLOAT16) -> Target:
    provider = SimpleNamespace(name="npu", fallback=bench.fallback)

    def get(name: str) -> Any:
        assert name == "npu"
        return provider

    def exact_sums(model: str, candidate: str) -> Any:
        return {"of": (model, candidate)}

    def feeds_for(session: str, values: Mapping[str, Any]) -> Any:
        return session, values

    def keeps_record(session: str) -> bool:
        assert session in bench.opened
        return bench.records

    monkeypatch.setattr(target, "providers", SimpleNamespace(get=get))
    monkeypatch.setattr(target, "open_session", bench.open)
    monkeypatch.setattr(target, "run", bench.run)
    monkeypatch.setattr(target, "feeds_for", feeds_for)
    monkeypatch.setattr(target, "verdict", bench.verdict)
    monkeypatch.setattr(target, "noting", bench.noting)
    monkeypatch.setattr(target, "placement", bench.placement)
    monkeypatch.setattr(target, "keeps_record", keeps_record)
    monkeypatch.setattr(target, "exact_sums", exact_sums)
    monkeypatch.setattr(target, "Model", model_of)
    odd = InputSet("odd", {"x": np.array(9)}, unusual="odd")
    sets = (InputSet("a", {"x": np.array(1)}), odd, InputSet("b", {"x": np.array(2)}))
    standard: Any = SimpleNamespace(
        provider="npu",
        reference=Reference(sets, ({}, {}, {}), frozenset()),
        level="basic",
        model=model_of("the model"),
    )
    conversion: Any = SimpleNamespace(half=half, converted=converted)
    source: Any = SimpleNamespace(written=written, copy=lambda: "untouched")
    return Target(standard, conversion, source, bench.account)


def plan(*domains: str) -> Any:
    steps = [SimpleNamespace(node=SimpleNamespace(domain=domain)) for domain in domains]
    return SimpleNamespace(reading=SimpleNamespace(floating=steps))


@pytest.mark.parametrize(
    ("fallback", "half", "domains", "asked"),
    [
        (("CPU",), FLOAT16, ("",), True),
        (("CPU",), BFLOAT16, ("",), True),
        ((), FLOAT16, ("", "ai.onnx"), False),
        ((), FLOAT16, ("", "com.microsoft"), True),
        ((), BFLOAT16, ("com.microsoft",), False),
    ],
)
def test_a_provider_is_asked_where_it_may_lack_a_kernel(
    monkeypatch: pytest.MonkeyPatch,
    fallback: tuple[str, ...],
    half: int,
    domains: tuple[str, ...],
    asked: bool,
) -> None:
    made = target_of(Bench(fallback), monkeypatch, half)
    assert made.is_asked(plan(*domains)) is asked
    assert made.half == ("float16" if half == FLOAT16 else "bfloat16")


def test_a_provider_that_needs_no_asking_opens_no_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(fallback=())
    made = target_of(bench, monkeypatch)
    assert made.refused(plan(""), lambda: False) == Refused()
    assert made.departs(model_of("candidate")) == ""
    assert bench.opened == []


def test_what_runs_is_not_refused_and_verified_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    made = target_of(bench, monkeypatch)
    assert made.refused(plan(""), lambda: False) == Refused()
    assert (bench.opened, bench.ran) == (["half"], [1])
    assert made.departs(model_of("candidate")) == ""
    assert (bench.opened, bench.ran) == (["half", "candidate"], [1, 1, 2])
    assert bench.outputs == [[{"of": "candidate", "at": 1}, {"of": "candidate", "at": 2}]]
    assert (bench.account.sessions, bench.account.runs) == (2, 3)
    assert bench.notes == ["transform: float32 search, on provider npu"] * 5


@pytest.mark.parametrize(
    ("bench", "departs"),
    [
        (
            Bench(fails={"candidate": RuntimeError("no kernel\nmore")}),
            "provider 'npu' doesn't run it: no kernel",
        ),
        (
            Bench(breaks={"candidate": RuntimeError("dead " * 90)}),
            f"provider 'npu' doesn't run it: {('dead ' * 90)[:159]}…",
        ),
        (
            Bench(judged=SimpleNamespace(passed=False, reason="y departs")),
            "on provider 'npu', y departs",
        ),
        (
            Bench(judged=SimpleNamespace(passed=False, reason=None)),
            "on provider 'npu', the outputs differ",
        ),
    ],
)
def test_a_candidate_departs_by_its_error_or_its_outputs(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, departs: str
) -> None:
    assert target_of(bench, monkeypatch).departs(model_of("candidate")) == departs


@pytest.mark.parametrize(
    ("bench", "names", "words", "opened"),
    [
        (Bench(), ["a", "b"], "", ["half-a-b"]),
        (Bench(), ["all"], "", []),
        (Bench(fails={"half-a": RuntimeError(" no \n")}), ["a"], "no", ["half-a"]),
        (Bench(breaks={"half-a": ValueError(" ")}), ["a"], "ValueError", ["half-a"]),
        (
            Bench(
                elsewhere={
                    "half-a": {"Conv": 2, "Cast": 9, "Tanh": 1},
                    "untouched": {"Tanh": 1},
                }
            ),
            ["a"],
            "it leaves Conv to the CPU",
            ["half-a", "untouched"],
        ),
        (
            Bench(elsewhere={"half-a": {"Conv": 2, "Tanh": 1}, "untouched": {"Conv": 1}}),
            ["a"],
            "it leaves Conv, Tanh to the CPU",
            ["half-a", "untouched"],
        ),
        (
            Bench(elsewhere={"half-a": {"Conv": 2}, "untouched": {"Conv": 2, "Cast": 1}}),
            ["a"],
            "",
            ["half-a", "untouched"],
        ),
        (Bench(elsewhere={"half-a": {"Cast": 2}}), ["a"], "", ["half-a"]),
        (Bench(elsewhere={"half-a": {"Conv": 2}}, records=False), ["a"], "", ["half-a"]),
        (Bench(elsewhere={"half-a": {"Conv": 2}}, fallback=()), ["a"], "", ["half-a"]),
        (
            Bench(elsewhere={"half-a": {"Conv": 2}}, fails={"untouched": RuntimeError()}),
            ["a"],
            "it leaves Conv to the CPU",
            ["half-a", "untouched"],
        ),
    ],
)
def test_a_refusal_is_an_error_or_what_the_half_type_alone_leaves_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
    bench: Bench,
    names: list[str],
    words: str,
    opened: list[str],
) -> None:
    made = target_of(bench, monkeypatch)
    assert made.refusal(names) == words
    assert bench.opened == opened
    assert bench.ran in ([1] * len(opened), [1] * (len(opened) - len(bench.fails)))
    if "untouched" in opened:
        assert made.refusal(names) == words
        assert bench.opened[len(opened) :] == opened[:1]  # the original is asked once


def test_a_model_that_does_not_run_there_either_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fails = {"half": RuntimeError("no"), "untouched": RuntimeError("nor this")}
    bench = Bench(fails=fails)
    made = target_of(bench, monkeypatch)
    assert made.refused(plan(""), lambda: False) == Refused()
    assert made.departs(model_of("candidate")) == ""
    assert bench.opened == ["half", "untouched"]


def test_the_kinds_that_are_refused_are_searched_for_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(fails={"half": RuntimeError("no kernel for 'a'")})
    made = target_of(bench, monkeypatch)
    real = plan_of(built(CHAIN))
    assert made.refused(real, lambda: False) == Refused(
        ("a",), "no kernel for 'a'", "npu", "float16", minimal=True
    )
    assert bench.opened == ["half", "untouched", "half-a"]
    # Where the time is up nothing is searched for.
    bench = Bench(fails={"half": RuntimeError("no kernel for 'a'")})
    with pytest.raises(NotApplicable):
        target_of(bench, monkeypatch).refused(real, lambda: True)


def test_a_search_takes_so_many_sessions_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = target_of(Bench(), monkeypatch)
    for opened in range(target._MOST_SESSIONS):
        assert not made.exhausted, opened
        made.refusal(("a",))
    assert made.exhausted


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "provider 'npu' refuses float16 in its only node: wrong"),
        (2, "provider 'npu' refuses float16 in each of its 2 nodes: wrong"),
    ],
)
def test_a_provider_that_refuses_all_has_nothing_left(
    monkeypatch: pytest.MonkeyPatch, count: int, words: str
) -> None:
    error = target_of(Bench(), monkeypatch).nothing_left(count, "what\nis\nwrong\n")
    assert str(error) == words
    assert isinstance(error, NotApplicable)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("  one \n", "one"),
        ("one\n two \n\n", "two"),
        ("x" * 240, "x" * 240),
        ("x" * 241, "x" * 239 + "…"),
    ],
)
def test_the_gist_of_words_is_the_end_of_their_last_line(words: str, line: str) -> None:
    assert gist(words) == line


# The kinds that are refused.

KINDS = [("a", "b"), ("c",), ("t",), ("d",), ("e",)]
OPERATORS = {
    "a": "Conv",
    "b": "Conv",
    "c": "Conv",
    "t": "Transpose",
    "d": "Tanh",
    "e": "Exp",
}


class Asked:
    """A provider that says what it's told to, and notes what it was asked."""

    half = "float16"
    provider = SimpleNamespace(name="npu")

    def __init__(self, says: Callable[[set[str]], str], most: int = 99) -> None:
        self._says = says
        self._most = most
        self.asked: list[str] = []

    @property
    def exhausted(self) -> bool:
        return len(self.asked) >= self._most

    def refusal(self, names: Iterable[str]) -> str:
        self.asked.append("".join(names))
        return self._says(set(names))

    def nothing_left(self, count: int, words: str) -> Exception:
        return NotApplicable(f"{count} {words}")


def unless(*needed: str, words: str) -> Callable[[set[str]], str]:
    """Say the words unless nodes are float32, with the name of the first that isn't."""

    def says(names: set[str]) -> str:
        missing = [name for name in needed if name not in names]
        return words.format(missing[0]) if missing else ""

    return says


def refusals(asked: Asked, spent: Callable[[], bool] = lambda: False) -> Any:
    return target._Refusals(asked, KINDS, OPERATORS, spent)  # type: ignore[arg-type]


def find(says: Callable[[set[str]], str], most: int = 99) -> tuple[Refused, list[str]]:
    asked = Asked(says, most)
    return refusals(asked).find(says(set())), asked.asked


@pytest.mark.parametrize(
    ("words", "needed", "names", "asked"),
    [
        # Named, in quotes or brackets, or as what ONNX Runtime makes of it.
        ("no '{}'", "a", "ab", ["ab"]),
        ("no ({}) here", "d", "d", ["d"]),
        ("no '{}/Fused'", "c", "c", ["c"]),
        ("no '{}'", "ca", "abc", ["c", "abc"]),
        # Of one operator: what else is of it is given back.
        ("no Conv", "c", "c", ["abc", "c"]),
        ("no Conv", "a", "ab", ["abc", "c", "ab"]),
        ("no Conv", "ac", "abc", ["abc", "c", "ab"]),
        # A name goes before an operator; the operator follows where the name wasn't enough.
        ("no Conv '{}'", "c", "c", ["c"]),
        ("no Conv 'c'", "ca", "abc", ["c", "abc"]),
        ("no Transpose", "t", "t", ["t"]),
    ],
)
def test_kinds_are_read_off_what_the_provider_says(
    words: str, needed: str, names: str, asked: list[str]
) -> None:
    got = find(unless(*needed, words=words))
    first = words.format(needed[0])
    assert got == (Refused(tuple(names), first, "npu", "float16", minimal=True), asked)


def test_words_that_point_to_nothing_leave_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def smallest_set(passes: Any, suspicion: Any, price: Any, spent: Any) -> Found:
        seen.extend([suspicion, price, spent()])
        assert not passes(frozenset({0, 1}))
        assert passes(frozenset({3}))
        return Found(frozenset({3}), frozenset({3}), minimal=False)

    monkeypatch.setattr(target, "smallest_set", smallest_set)
    got, asked = find(unless("d", words="no Conv"))
    assert got == Refused(("d",), "no Conv", "npu", "float16", minimal=False)
    assert seen == [[1e6, 1e6, 0.5, 1.0, 1.0], [2.0, 1.0, 1.0, 1.0, 1.0], False]
    assert asked == ["abc", "d"]  # what was tried isn't tried again


@pytest.mark.parametrize("words", ["nothing", "no 'x'", "''", "no conv", "no Convolution"])
def test_other_words_point_to_no_kind(words: str) -> None:
    assert refusals(Asked(lambda _: ""))._pointed_to(words) == (set(), set())


def test_words_may_point_to_names_and_operators() -> None:
    made = refusals(Asked(lambda _: ""))
    assert made._pointed_to("no Tanh(13) of 'b' and (e)") == ({0, 4}, {3})
    assert made._pointed_to("Conv,Transpose 'd/e/Cast' 't/Cast'") == ({2}, {0, 1, 2})


def test_all_that_computes_is_refused_where_no_node_or_every_node_is_to_blame() -> None:
    with pytest.raises(NotApplicable, match=r"^5 it fails$"):
        find(lambda names: "" if len(names) == 6 else "it fails")
    with pytest.raises(NotApplicable, match=r"^5 it always fails$"):
        find(lambda _: "it always fails")
    # Nodes that only move values don't count.
    with pytest.raises(NotApplicable, match=r"^5 no 'a'$"):
        find(unless(*"acde", words="no '{}'"))
    got, _ = find(unless(*"acd", words="no '{}'"))
    assert got.names == ("a", "b", "c", "d")


def test_a_budget_ends_it_with_what_was_enough() -> None:
    got, asked = find(unless("c", words="no Conv"), most=1)
    assert (got.names, got.minimal, asked) == (("a", "b", "c"), False, ["abc"])
    got, asked = find(unless("c", words="no Conv"), most=2)
    assert (got.names, got.minimal, asked) == (("c",), True, ["abc", "c"])


# The kinds of nodes.


def test_nodes_are_of_a_kind_by_operator_attributes_and_ranks_of_weights() -> None:
    text = """(float[1,4,6] x, float[4,4,1] other) => (float[1,4,6] y, float[1,6,4] z) {
        a = Conv(x, weight)  b = Conv<group = 2>(a, grouped)  d = Conv<group = 2>(b, grouped)
        e = Conv(d, weight)  f = Conv(e, weight, bias)  g = Conv(f, other)  p = Mul(g, s)  q = Mul(p, v)
        k = Conv<strides = [1], group = 2>(q, grouped)  l = Conv<group = 2, strides = [1]>(k, grouped)
        y = Neg(l)  z = Transpose<perm = [0, 2, 1]>(y) }"""
    source = built(text)
    for name, shape in (
        ("weight", (4, 4, 1)),
        ("grouped", (4, 2, 1)),
        ("bias", (4,)),
        ("s", ()),
        ("v", (1,)),
    ):
        value = np.full(shape, 0.5, np.float32)
        source.graph.initializer.append(numpy_helper.from_array(value, name))
    made = plan_of(source)
    assert kinds_of(made) == [
        ("a", "e"),
        ("b", "d"),
        ("f",),
        ("g",),
        ("p",),
        ("q",),
        ("k", "l"),
        ("y",),
        ("z",),
    ]
    assert operators_of(made) == {
        **dict.fromkeys("abdefgkl", "Conv"),
        **dict.fromkeys("pq", "Mul"),
        "y": "Neg",
        "z": "Transpose",
    }


def test_a_node_with_graphs_and_what_stays_float32() -> None:
    assert kinds_of(plan_of(built(BRANCHES))) == [
        ("h",),
        ("a",),
        ("g",),
        ("up",),
        ("same",),
        ("down", "s"),
        ("other",),
        ("y",),
    ]
    assert kinds_of(plan_of(built(CHAIN))) == [("h",), ("t",), ("a",), ("b",), ("y",)]
    assert kinds_of(plan_of(built(CLAMPED))) == [("g",), ("h",), ("b",), ("y",)]
    chain = plan_of(built(CHAIN), node_block_list=["h", "a", "b"])
    assert operators_of(chain) == {"y": "Tanh"}


def test_nodes_of_one_name_are_listed_once() -> None:
    source = built(
        "(float[2,3] x) => (float[2,3] y) { a = Mul(x, c)  b = Mul(a, c)  y = Neg(b) }"
    )
    for node in source.graph.node:
        node.name = "same" if node.op_type == "Mul" else "end"
    assert kinds_of(plan_of(source)) == [("same",), ("end",)]
