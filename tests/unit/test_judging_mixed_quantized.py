"""The search for the nodes that a quantization leaves in float, on a stand-in for ONNX Runtime.

Each quantizer of the stand-in adds an amount to the output where it's switched on; the quantized
model adds what its kernels add. So every choice, every count and every error is known beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_harness.errors import NotApplicable
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging.mixed import quantized
from onnx_harness.judging.mixed import search as searches
from onnx_harness.judging.mixed.account import UNLIMITED, Account, Effort, Mix
from onnx_harness.judging.mixed.quantized import find_floats, shortfall, sqnr_db
from onnx_harness.judging.mixed.quantizers import ERRORS, Quantizers
from onnx_harness.judging.mixed.switches import MASK
from onnx_harness.judging.reference import Reference
from onnx_harness.providers.sessions import Purpose
from onnx_harness.transforms.quantization.mixed import QuantizedConversion

LABELS = ("a", "b", "c", "d")
OWN = tuple(frozenset({place}) for place in range(4))
EXPECTED = (np.array([100.0, 1.0], np.float32), np.array([50.0, 2.0], np.float32))


def nothing(_: tuple[str, ...]) -> float:
    """What kernels add that compute exactly."""
    return 0.0


@dataclass
class Bench:
    """The stand-in.

    Attributes:
        noise: what each quantizer adds to the first element of the output.
        claims: the nodes of each quantizer.
        errors: the relative error of each quantizer; None: as the noise.
        kernels: what the quantized model adds beside, by the names of its float nodes; NaN: the
            provider refuses it.
        words: the provider's, where it refuses.
        control: what everything in float adds.
        conversion: changes of what is asked for: 80 dB, an error of 1 in 10,000.
        seconds: of each run.
        opened: sessions: the model, the provider, the level.
        masks: of the runs with switches.
        notes: of the worker.
    """

    noise: Sequence[float] = (0.001, 0.001, 1.0, 0.002)
    claims: Sequence[frozenset[int]] = OWN
    errors: Sequence[float] | None = None
    kernels: Callable[[tuple[str, ...]], float] = nothing
    words: str = "no kernel\nfor it"
    control: float = 0.0
    conversion: Mapping[str, Any] = field(default_factory=dict)
    effort: Effort = UNLIMITED
    seconds: float = 0.0
    opened: list[tuple[Any, ...]] = field(default_factory=list)
    masks: list[list[bool]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def verified(self) -> list[str]:
        """The names of the float nodes of each quantized model that was opened."""
        return ["".join(model[1]) for model, _, level in self.opened if level == "all"]

    def outputs(self, session: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        place = int(values["x"]) - 1
        value = EXPECTED[place].copy()
        if session == ("graph",):
            mask = values[MASK]
            self.masks.append(mask.tolist())
            value[0] += np.sum(np.array(self.noise) * mask)
            value[0] += self.control * (not mask.any())
            errors = np.array(self.noise if self.errors is None else self.errors)
            table = np.stack([errors**2 * (1 + place), np.full(len(errors), 4.0)], axis=1)
            return {"y": value, "n": 3, ERRORS: table.astype("f4").ravel()}
        names = session[1]
        places = {LABELS.index(name) for name in names}
        for claim, amount in zip(self.claims, self.noise, strict=True):
            value[0] += amount * (not claim <= places)
        value[0] += self.kernels(names)
        return {"y": value, "n": 3}

    def open(self, model: Any, provider: Any, **options: Any) -> Any:
        self.opened.append((model, provider.name, options.pop("level")))
        assert options == {"purpose": Purpose.ACCURACY, "record_placement": False}
        if model[0] == "quantized" and math.isnan(self.kernels(model[1])):
            raise RuntimeError(self.words)
        return model

    @contextmanager
    def noting(self, words: str) -> Iterator[None]:
        self.notes.append(words)
        yield


def reference() -> Reference:
    odd = "at 100 times the usual magnitude"
    sets = (
        InputSet("first", {"x": np.array(1.0)}),
        InputSet("odd", {"x": np.array(9.0)}, unusual=odd),
        InputSet("second", {"x": np.array(2.0)}),
    )
    outputs = tuple({"y": EXPECTED[place], "n": 3} for place in (0, 0, 1))
    return Reference(sets, outputs, frozenset())


def quantize(names: Sequence[str]) -> Any:
    if len(names) == len(LABELS):
        raise NotApplicable("nothing is quantized")
    return "quantized", tuple(names)


def conversion(**changes: Any) -> QuantizedConversion:
    given: dict[str, Any] = {
        "model": None,
        "quantize": quantize,
        "ops": frozenset(),
        "left_out": frozenset(),
        "sqnr_db": 80.0,
        "agreement": 0.0,
        "spelling": "int8.static",
    }
    return QuantizedConversion(**(given | changes))


def passing(standard: Any, outputs: Sequence[Mapping[str, Any]]) -> Any:
    assert (standard.provider, len(outputs)) == ("openvino", 2)
    return SimpleNamespace(passed=True)


@contextmanager
def written(model: Any) -> Iterator[Any]:
    yield model


def search(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> Mix:
    asked = conversion(**bench.conversion)

    def quantizers(model: Any, quantized_model: Any, of: Any) -> Quantizers:
        assert (model, quantized_model, of) == ("copy", ("quantized", ()), asked)
        return Quantizers("graph", LABELS, tuple(bench.claims))  # type: ignore[arg-type]

    class Clocked(Account):
        @property
        def seconds(self) -> float:
            return bench.seconds * self.runs

    monkeypatch.setattr(quantized, "Account", Clocked)
    monkeypatch.setattr(quantized, "quantizers", quantizers)
    monkeypatch.setattr(quantized, "open_session", bench.open)
    monkeypatch.setattr(quantized, "run", bench.outputs)
    monkeypatch.setattr(quantized, "noting", bench.noting)
    monkeypatch.setattr(quantized, "verdict", passing)
    source: Any = SimpleNamespace(
        copy=lambda: "copy", openable=lambda model: (model,), written=written
    )
    standard: Any = SimpleNamespace(reference=reference(), provider="openvino")
    return find_floats(standard, asked, source, bench.effort)


def mix(*names: str, **changes: Any) -> Mix:
    given: dict[str, Any] = {
        "minimal": True,
        "exact": True,
        "corrections": 0,
        "seconds": 0.0,
    }
    return Mix(names, len(names), 4, None, kind="float", **(given | changes))


def test_where_the_quantized_model_passes_nothing_is_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(noise=(0.0, 0.0, 0.0, 0.001), control=0.001)
    assert search(monkeypatch, bench) == mix(exact=False, sessions=2, runs=4)
    assert bench.opened == [
        (("graph",), "cpu", "disable"),
        (("quantized", ()), "openvino", "all"),
    ]
    assert bench.masks == [[False] * 4] * 2
    assert bench.notes == [
        "transform: float search, run 1",
        "transform: float search, run 2",
        "transform: float search, verifying",
    ]


def test_the_node_whose_quantizer_is_worst_is_tried_and_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(seconds=0.5)
    # Two runs each: all in float, the quantized model, c in float by its switch, and verified.
    assert search(monkeypatch, bench) == mix("c", sessions=3, runs=8, seconds=4.0)
    assert bench.verified == ["", "c"]
    assert bench.masks[2:] == [[True, True, False, True]] * 2


def test_a_quantizer_is_off_where_all_its_nodes_are_float(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claims = (frozenset({0, 3}), frozenset({1}), frozenset({1, 2}), frozenset({2}))
    bench = Bench((1.0, 0.001, 0.001, 0.001), claims)
    got = search(monkeypatch, bench)
    assert (got.names, got.nodes, got.minimal) == (("a", "d"), 2, True)


FAILING = "no choice of nodes in float was verified on the quantized model: "
TEN_OFF = "output y reaches 20.0 dB, less than 80 dB"


@pytest.mark.parametrize(
    ("bench", "verified", "expected"),
    [
        # What was found with the likeliest of the others, one at a time: d, then a, then b.
        (
            Bench(kernels=lambda names: 10.0 * ("b" not in names)),
            ["", "c", "cd", "ac", "bc"],
            mix("b", "c", minimal=False, corrections=3, sessions=6, runs=14),
        ),
        # The larger set that the search began with comes first.
        (
            Bench(
                (0.0, 0.0, 1.0, 0.0, 0.0),
                (*OWN, OWN[0]),
                (0.1, 0.1, 100.0, 99.0, 0.1),
                kernels=lambda names: 10.0 * ("d" not in names),
            ),
            ["", "c", "cd"],
            mix("c", "d", minimal=False, corrections=1, sessions=4, runs=12),
        ),
        # Where that is all of them nothing is left to quantize, and the next is tried.
        (
            Bench(
                (0.0, 0.0, 1.0, 0.0),
                OWN,
                (1.0,) * 4,
                lambda names: 10.0 * ("a" not in names),
            ),
            ["", "c", "ac"],
            mix("a", "c", minimal=False, corrections=2, sessions=4, runs=20),
        ),
        # Where the provider refuses it, the others alone are tried before that.
        (
            Bench(
                noise=(0.001, 0.001, 1.0, 0.002),
                kernels=lambda names: math.nan if "c" in names else -1.0 * ("a" in names),
            ),
            ["", "c", "d", "a"],
            mix("a", minimal=False, corrections=2, sessions=5, runs=10),
        ),
        (Bench(kernels=lambda _: 10.0), ["", "c", "cd", "ac", "bc"], TEN_OFF),
        (
            Bench(kernels=lambda _: math.nan),
            ["", "c", "d", "a", "b", "cd", "ac", "bc"],
            "provider 'openvino' doesn't run it: no kernel",
        ),
        (
            Bench(kernels=lambda _: math.nan, words="dead " * 90),
            ["", "c", "d", "a", "b", "cd", "ac", "bc"],
            f"provider 'openvino' doesn't run it: {('dead ' * 90)[:159]}…",
        ),
        # With all in float nothing is left to quantize, which is no reason where there is another.
        (Bench(noise=(1.0,) * 4), [""], "with those in float nothing is left to quantize"),
        (
            Bench(noise=(1.0, 1.0, 1.0, 0.0), kernels=lambda names: 10.0 * bool(names)),
            ["", "abc"],
            TEN_OFF,
        ),
        # Time ends it after the first that fails.
        (
            Bench(kernels=lambda _: 10.0, effort=Effort(7.9), seconds=1.0),
            ["", "c"],
            TEN_OFF,
        ),
        (
            Bench(kernels=lambda _: 10.0, effort=Effort(8.0), seconds=1.0),
            ["", "c", "cd"],
            TEN_OFF,
        ),
    ],
)
def test_where_kernels_lose_more_than_switches_other_choices_are_verified(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, verified: list[str], expected: Mix | str
) -> None:
    if isinstance(expected, str):
        with pytest.raises(NotApplicable) as raised:
            search(monkeypatch, bench)
        assert str(raised.value) == FAILING + expected
    else:
        assert search(monkeypatch, bench) == expected
    assert bench.verified == verified


@pytest.mark.parametrize(
    ("bench", "error"),
    [
        (
            Bench(claims=()),
            "nothing is chosen: no quantizer of the model belongs to a node that has a name",
        ),
        (
            Bench(control=1.0),
            "which nodes need float can't be found: with all of them in float the model departs",
        ),
    ],
)
def test_where_nothing_can_be_found_the_error_says_why(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, error: str
) -> None:
    with pytest.raises(NotApplicable) as raised:
        search(monkeypatch, bench)
    assert str(raised.value) == error


@pytest.mark.parametrize(
    ("share", "goal"),
    [(0.0, "80 dB"), (0.5, "80 dB and 50% of the first choices")],
)
def test_where_all_in_float_fails_the_search_the_goal_is_named(
    monkeypatch: pytest.MonkeyPatch, share: float, goal: str
) -> None:
    monkeypatch.setattr(quantized, "smallest_set", lambda *_: None)
    with pytest.raises(NotApplicable) as raised:
        search(monkeypatch, Bench(conversion={"agreement": share}))
    assert str(raised.value) == f"with every node in float its outputs don't reach {goal}"


def test_equals_cost_the_same_and_a_budget_ends_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    def smallest_set(passes: Any, suspicion: Any, price: Any, spent: Any) -> Any:
        seen.extend([suspicion, price, spent()])
        found = searches.smallest_set(passes, suspicion, price, lambda: True)
        assert found is not None
        return found

    monkeypatch.setattr(quantized, "smallest_set", smallest_set)
    got = search(monkeypatch, Bench())
    assert (got.names, got.minimal) == (("c",), False)
    assert seen == [
        pytest.approx([2 / 3, 2 / 3, 2000 / 3, 4 / 3], rel=1e-4),
        [1.0] * 4,
        False,
    ]


def searching(sets: int, labels: str = "abc", effort: Effort = UNLIMITED) -> Any:
    made = InputSet("s", {})
    standard: Any = SimpleNamespace(
        reference=Reference((made,) * sets, ({},) * sets, frozenset()), provider="cpu"
    )
    search_made: Any = quantized._Quantizing(standard, conversion(), None, effort)  # type: ignore[arg-type]
    claims = (frozenset({0, 1}), frozenset({1}), frozenset({2}))
    search_made._graph = Quantizers(None, tuple(labels), claims)  # type: ignore[arg-type]
    return search_made


@pytest.mark.parametrize(
    ("sets", "runs", "spent"), [(2, 55, False), (2, 56, True), (6, 71, False), (6, 72, True)]
)
def test_runs_end_a_search_by_the_number_of_sets(sets: int, runs: int, spent: bool) -> None:
    search_made = searching(sets)
    search_made._account.runs = runs
    assert search_made._spent() is spent


def test_time_ends_a_search() -> None:
    search_made = searching(1, effort=Effort(50.0))
    for seconds, spent in ((49.0, False), (50.0, False), (50.5, True)):
        search_made._account = SimpleNamespace(runs=0, seconds=seconds)
        assert search_made._spent() is spent


@pytest.mark.parametrize(
    ("errors", "suspicion"),
    [
        ([0.5, 2.0, 8.0], [0.25, 1.0, 4.0]),
        ([4.0, 2.0, 0.0], [2.0, 2.0, 0.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([0.0, 0.0, 1e-37], [0.0, 0.0, 1.0]),
    ],
)
def test_a_node_is_suspect_of_its_worst_quantizer(
    errors: list[float], suspicion: list[float]
) -> None:
    assert searching(1)._suspicion(np.array(errors)) == suspicion


def test_the_error_of_a_quantizer_is_its_worst_over_the_sets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tables = iter(([4, 1, 9, 1, 0, 0], [1, 1, 36, 1, 4e-37, 0]))
    monkeypatch.setattr(quantized, "run", lambda *_: {ERRORS: np.array(next(tables), "f4")})
    monkeypatch.setattr(quantized, "verdict", lambda *_: SimpleNamespace(passed=True))
    search_made = searching(2)
    search_made._session = None
    exact, errors = search_made._control(range(3))
    assert exact
    assert errors == pytest.approx([2.0, 6.0, 2.0])


INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("expected", "actual", "ratio"),
    [
        ([3.0, 4.0], [3.0, 4.5], 20.0),
        ([3.0, 4.0], [3.0, 4.0], INF),
        ([0.0, 0.0], [0.0, 1.0], -INF),
        ([0.0, 0.0], [0.0, 0.0], INF),
        ([3.0, INF, 4.0], [3.0, 7.0, 4.5], 20.0),
        ([3.0, 4.0], [3.0, INF], -INF),
        ([3.0, 4.0], [NAN, 4.0], -INF),
        ([NAN, 4.0], [NAN, 4.0], INF),
    ],
)
def test_a_ratio_is_of_what_is_finite(
    expected: list[float], actual: list[float], ratio: float
) -> None:
    assert sqnr_db(np.array(expected), np.array(actual)) == pytest.approx(ratio)
    halves = np.array(expected, np.float16), np.array(actual, np.float16)
    assert sqnr_db(*halves) == pytest.approx(ratio)


Outputs = list[dict[str, Any]]


def outputs(*values: Any, **more: Any) -> Outputs:
    return [{"y": np.array(value, np.float32), **more} for value in values]


ROWS = [[3.0, 4.0], [4.0, 3.0]]


@pytest.mark.parametrize(
    ("changes", "actual", "lacking"),
    [
        ({"sqnr_db": 20.0}, outputs([3.0, 4.5], [3.0, 4.0]), ""),
        (
            {"sqnr_db": 20.5},
            outputs([3.0, 4.0], [3.0, 4.5]),
            "output y reaches 20.0 dB, less than 20.5 dB",
        ),
        (
            {"sqnr_db": -INF, "agreement": 0.6},
            outputs(ROWS, [[3.0, 4.0], [3.0, 4.0]]),
            "output y has 50% of the first choices, less than 60%",
        ),
        ({"sqnr_db": -INF, "agreement": 0.5}, outputs(ROWS, [[3.0, 4.0], [3.0, 4.0]]), ""),
        ({"sqnr_db": -INF}, outputs(ROWS, [[4.0, 3.0], [3.0, 4.0]]), ""),
    ],
)
def test_what_outputs_lack_is_said_of_the_first_that_does(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], actual: Outputs, lacking: str
) -> None:
    rows = actual[0]["y"].ndim == 2
    expected = outputs(*[ROWS if rows else [3.0, 4.0]] * 3, n=[1], i=np.array([1, 2]))
    sets = (InputSet("a"), InputSet("b", large=True), InputSet("c"))
    made: Any = SimpleNamespace(reference=Reference(sets, tuple(expected), frozenset()))
    seen: list[Any] = []

    def verdict(standard: Any, judged: Any) -> Any:
        seen.append((standard, judged))
        return SimpleNamespace(passed=True, reason="unused")

    monkeypatch.setattr(quantized, "verdict", verdict)
    far = {"y": np.array([9.0, -9.0], np.float32)}
    judged = [actual[0], far, actual[1]]
    assert shortfall(made, conversion(**changes), judged) == lacking
    assert seen == ([] if lacking else [(made, judged)])


@pytest.mark.parametrize(
    ("reason", "lacking"), [("it departs", "it departs"), (None, "it doesn't pass")]
)
def test_what_reaches_the_ratio_has_to_pass_as_well(
    monkeypatch: pytest.MonkeyPatch, reason: str | None, lacking: str
) -> None:
    judged = SimpleNamespace(passed=False, reason=reason)
    monkeypatch.setattr(quantized, "verdict", lambda *_: judged)
    made: Any = SimpleNamespace(reference=Reference((InputSet("a"),), ({},), frozenset()))
    assert shortfall(made, conversion(), [{}]) == lacking
