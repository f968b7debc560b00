"""The session with switches: what it asks of ONNX Runtime, and what it concludes from the outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.errors import NotApplicable
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging.mixed import switch_session
from onnx_harness.judging.mixed.account import Account
from onnx_harness.judging.mixed.switch_session import SwitchSession
from onnx_harness.judging.mixed.switches import MASK
from onnx_harness.judging.reference import Reference
from onnx_harness.providers.sessions import Purpose
from onnx_harness.transforms.bf16 import MAX_FINITE_VAL, round_to_bfloat16
from onnx_harness.transforms.float16 import clamp

Apart = Callable[[frozenset[int], int], float]


def exact(_: frozenset[int], __: int) -> float:
    """As far as everything in float32 is from the original."""
    return 0.0


@dataclass
class Bench:
    """A stand-in for the model, its sessions and the verdict.

    Attributes:
        apart: how far the output is from the reference, by what is float32 and the input set.
        labels: of the nodes.
        external: whether weights lie in a file.
        hopeless: the reason why even the original's own outputs don't pass.
        opened: options of sessions.
        masks: the nodes in float32 of each run, and its input set.
        judged: the sets of which outputs other than the original's were judged, a verdict each.
        closed: how many plans were.
    """

    apart: Apart = exact
    labels: tuple[str, ...] = ("a", "b", "c")
    external: bool = False
    hopeless: str | None = None
    opened: list[Any] = field(default_factory=list)
    masks: list[tuple[str, int]] = field(default_factory=list)
    judged: list[list[int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    closed: int = 0
    account: Account = field(default_factory=Account)

    def open(self, model: Any, provider: Any, **options: Any) -> str:
        threads, profile = options.pop("threads"), options.pop("profile")
        self.opened.append((model, provider.name, threads, profile))
        assert options == {
            "purpose": Purpose.ACCURACY,
            "level": "disable",
            "record_placement": False,
        }
        return "session"

    def run(self, session: str, values: Mapping[str, Any]) -> dict[str, Any]:
        assert session == "session"
        at = int(values["x"])
        self.masks.append(
            ("".join(self.labels[place] for place in sorted(values[MASK])), at)
        )
        return {"y": np.array([1.0, at + self.apart(values[MASK], at)]), "n": 3}

    def verdict(self, standard: Any, outputs: Sequence[Mapping[str, Any]]) -> Any:
        assert standard.provider == "openvino"
        assert len(outputs) == 3
        gaps = [abs(output["y"][1] - place) for place, output in enumerate(outputs)]
        self.judged.append([place for place, gap in enumerate(gaps) if gap])
        if self.hopeless is not None:
            return SimpleNamespace(passed=False, reason=self.hopeless)
        passed = not any(gap > 1 for gap in gaps)
        return SimpleNamespace(passed=passed, reason=None if max(gaps) > 7 else "y departs")

    @contextmanager
    def noting(self, words: str) -> Iterator[None]:
        self.notes.append(words)
        yield

    def close(self) -> None:
        self.closed += 1


def session_of(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, folder: Path = Path("folder")
) -> SwitchSession:
    plan = SimpleNamespace(close=bench.close)
    graph = SimpleNamespace(labels=bench.labels, model="graph", mask=frozenset)

    def switched(made: Any, clamped: Any) -> Any:
        assert made is plan
        assert clamped.__name__ == "_clamped"
        if "wrong" in bench.labels:
            raise ValueError("wrong")
        return graph

    def planned(copied: str, rounder: Any) -> Any:
        assert (copied, rounder) == ("copy", ("rounder", folder))
        return plan

    monkeypatch.setattr(switch_session, "switched", switched)
    monkeypatch.setattr(switch_session, "open_session", bench.open)
    monkeypatch.setattr(switch_session, "run", bench.run)
    monkeypatch.setattr(switch_session, "verdict", bench.verdict)
    monkeypatch.setattr(switch_session, "noting", bench.noting)
    odd = InputSet("odd", {"x": np.array(9)}, unusual="odd")
    sets = [InputSet(str(place), {"x": np.array(place)}) for place in range(3)]
    outputs = [{"y": np.array([1.0, place]), "n": 3} for place in range(3)]
    standard: Any = SimpleNamespace(
        reference=Reference(
            (*sets[:2], odd, sets[2]), (*outputs[:2], {}, outputs[2]), frozenset()
        ),
        provider="openvino",
    )
    conversion: Any = SimpleNamespace(
        rounder=lambda place: ("rounder", place),
        plan=planned,
        round=lambda array, places: clamp(array, 1e-7, 1e4, places),
    )
    source: Any = SimpleNamespace(
        folder=folder,
        external=bench.external,
        copy=lambda: "copy",
        openable=lambda model: (model,),
    )
    return SwitchSession(standard, conversion, source, bench.account)


def opened(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> SwitchSession:
    made = session_of(bench, monkeypatch)
    made.open_switched()
    return made


@pytest.mark.parametrize(("external", "threads"), [(False, 1), (True, None)])
def test_a_small_model_runs_on_one_thread(
    monkeypatch: pytest.MonkeyPatch, external: bool, threads: int | None
) -> None:
    bench = Bench(external=external)
    made = opened(bench, monkeypatch)
    assert bench.opened == [(("graph",), "cpu", threads, None)]
    assert (bench.account.sessions, bench.account.runs, bench.closed) == (1, 0, 1)
    assert made.sets == [0, 1, 3]
    assert (made.witnesses, made.exact, made.refused) == ([], False, frozenset())
    made.open(b"model", Path("profile"))
    assert bench.opened[1:] == [(b"model", "cpu", threads, Path("profile"))]
    assert bench.account.sessions == 2


def test_without_a_node_to_switch_no_session_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(labels=())
    assert opened(bench, monkeypatch).graph.labels == ()
    assert (bench.opened, bench.closed) == ([], 1)
    bench = Bench(labels=("wrong",))
    with pytest.raises(ValueError, match="wrong"):
        opened(bench, monkeypatch)
    assert bench.closed == 1


def test_a_run_is_of_a_set_and_what_is_refused_is_float32_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    made = opened(bench, monkeypatch)
    made.refused = frozenset({2})
    made.witnesses = [2, 0]
    assert made.passes(frozenset({0}))
    assert bench.masks == [("ac", 2), ("ac", 0)]
    assert bench.account.runs == 2
    assert bench.notes == [f"transform: float32 search, run {run}" for run in (1, 2)]
    # Of the others the original's own outputs are judged.
    assert bench.judged == [[], []]


def test_a_mix_is_judged_on_the_sets_that_told_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(lambda float32, at: 2.0 * (at == 1 and 0 not in float32))
    made = opened(bench, monkeypatch)
    assert made.passes(frozenset())  # nobody has told anything yet
    made.witnesses = [0, 1, 2]
    assert not made.passes(frozenset({1}))
    assert [at for _, at in bench.masks] == [0, 1]  # the first that fails is enough
    assert bench.judged == [[], [1]]
    assert made.passes(frozenset({0}))


def test_the_worst_set_on_which_nothing_in_float32_fails_is_the_first_witness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def plain(*apart: float) -> tuple[bool, list[int], list[tuple[str, int]]]:
        bench = Bench(lambda _, at: apart[at])
        made = opened(bench, monkeypatch)
        return made.plain_passes(), made.witnesses, bench.masks

    runs = [("", 0), ("", 1), ("", 2)]
    assert plain(0.5, 0.9, 1.0) == (True, [], runs)
    assert plain(0.5, 2.0, 0.5) == (False, [1], runs)
    # Relative to the norms, which are 1, 1.4 and 2.2.
    assert plain(2.0, 2.0, 2.0) == (False, [0], runs)
    assert plain(1.1, 2.0, 2.1) == (False, [1], runs)
    assert plain(0.9, 2.0, 9.0) == (False, [2], runs)
    # Of equals the first.
    assert plain(0.0, math.inf, math.inf) == (False, [1], runs)


@pytest.mark.parametrize(
    ("fails", "before", "passes", "asked", "witnesses"),
    [
        ((), [], True, [0, 1, 2], []),
        ((), [2], True, [2, 0, 1], [2]),
        ((1,), [2], False, [2, 0, 1], [2, 1]),
        ((0, 1), [], False, [0], [0]),
        ((1, 2), [2], False, [2], [2]),
    ],
)
def test_a_set_on_which_a_mix_fails_becomes_a_witness(
    monkeypatch: pytest.MonkeyPatch,
    fails: tuple[int, ...],
    before: list[int],
    passes: bool,
    asked: list[int],
    witnesses: list[int],
) -> None:
    bench = Bench(lambda _, at: 2.0 * (at in fails))
    made = opened(bench, monkeypatch)
    made.witnesses = before
    assert made.passes_everywhere(frozenset({1})) is passes
    assert bench.masks == [("b", at) for at in asked]
    assert made.witnesses == witnesses


def test_the_originals_own_outputs_have_to_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    opened(Bench(), monkeypatch).refuse_hopeless()
    bench = Bench(hopeless="nothing was compared")
    with pytest.raises(NotApplicable) as raised:
        opened(bench, monkeypatch).refuse_hopeless()
    assert str(raised.value) == (
        "no choice of nodes can pass, since the original's own outputs don't: nothing was compared"
    )
    assert bench.judged == [[]]


DEPARTS = "which nodes need float32 can't be found: with all of them in float32 the model departs: "


@pytest.mark.parametrize(
    ("apart", "external", "is_exact", "sessions", "reason"),
    [
        ((0.0, 0.0), False, True, 1, None),
        ((0.5, 0.0), False, False, 1, None),
        ((2.0, 0.0), False, True, 2, None),
        ((2.0, 0.5), False, False, 2, None),
        ((2.0, 2.0), False, False, 2, "y departs"),
        ((0.0, 8.0), True, True, 1, None),
        ((2.0, 8.0), True, False, 1, "y departs"),
        ((8.0, 8.0), True, False, 1, "the outputs differ"),
    ],
)
def test_everything_in_float32_has_to_be_the_original(
    monkeypatch: pytest.MonkeyPatch,
    apart: tuple[float, float],
    external: bool,
    is_exact: bool,
    sessions: int,
    reason: str | None,
) -> None:
    """The first distance is that of the first session; the second, on more threads, has another."""
    bench = Bench(external=external)
    bench.apart = lambda float32, at: (
        apart[len(bench.opened) - 1] if at == 2 and len(float32) == 3 else 0.0
    )
    made = opened(bench, monkeypatch)
    if reason is None:
        made.control()
    else:
        with pytest.raises(NotApplicable) as raised:
            made.control()
        assert str(raised.value) == DEPARTS + reason
    assert made.exact is is_exact
    threads = [None] if external else [1, None][:sessions]
    assert [of for _, _, of, _ in bench.opened] == threads
    assert bench.opened[-1][0] == ("graph",)
    assert bench.masks == [("abc", at) for at in range(3)] * sessions


def test_what_is_the_original_bit_for_bit_needs_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That the original's own outputs fail is said by who asks for that."""
    bench = Bench(hopeless="nothing was compared")
    made = opened(bench, monkeypatch)
    made.control()
    assert (made.exact, bench.judged) == (True, [])


def test_a_weight_that_is_clamped_is_given_as_the_conversion_makes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = session_of(Bench(), monkeypatch, tmp_path)

    def clamped(*values: Any) -> Any:
        got = made._clamped(numpy_helper.from_array(np.array(values, np.float32), "w"))
        if got is None:
            return None
        assert got.data_type == onnx.TensorProto.FLOAT
        return numpy_helper.to_array(got).tolist()

    assert clamped(1.0, 0.1, 1e4) is None
    assert clamped([1.5, 3e4], [0.5, -2e5]) == [[1.5, 1e4], [0.5, -1e4]]
    small = clamped(1.5, 1e-9)
    assert small == [1.5, float(np.float16(1e-7))]
    # Its data may lie in the folder of the weights.
    (tmp_path / "data").write_bytes(np.array([1.0, 3e4], np.float32).tobytes())
    outside = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[2])
    outside.data_location = onnx.TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="data")
    got = made._clamped(outside)
    assert got is not None
    assert numpy_helper.to_array(got).tolist() == [1.0, 1e4]
    # A conversion may round vectors alone.
    made._conversion = SimpleNamespace(round=round_to_bfloat16)  # type: ignore[assignment]
    largest = float(MAX_FINITE_VAL)
    assert clamped([1.0, 2.0], [3.4e38, -3.4e38]) == [[1.0, 2.0], [largest, -largest]]
    assert clamped([1.0, math.inf]) is None


INF, NAN = math.inf, math.nan


def floats(*values: float, dtype: Any = np.float32) -> Any:
    return np.array(values, dtype)


def texts(*values: str) -> Any:
    """Texts of their own, as a run gives them: equal ones are other objects."""
    return np.array(["".join(list(value)) for value in values], object)


@pytest.mark.parametrize(
    ("actual", "expected", "departure"),
    [
        ({"y": floats(3, 4.5)}, {"y": floats(3, 4)}, 0.1),
        ({"y": floats(3, 4.5), "z": floats(2)}, {"y": floats(3, 4), "z": floats(1)}, 1.0),
        ({"y": floats(3, 4.5), "z": floats(1)}, {"z": floats(1), "y": floats(3, 4)}, 0.1),
        ({"y": floats(0.5)}, {"y": floats(0)}, 0.5),
        ({"y": floats(3, 4, INF)}, {"y": floats(3, 4, 1)}, INF),
        ({"y": floats(3, NAN)}, {"y": floats(3, 4)}, INF),
        ({"y": floats(3, 4.5, 7)}, {"y": floats(3, 4, INF)}, 0.1),
        ({"y": floats(3, 4, 5)}, {"y": floats(3, 4)}, INF),
        ({"y": floats(6e4, dtype=np.float16)}, {"y": floats(-6e4, dtype=np.float16)}, 2.0),
        ({"y": floats(9, dtype=np.int64)}, {"y": floats(1, dtype=np.int64)}, 0.0),
        ({}, {"y": floats(1)}, 0.0),
        ({"y": [1.0]}, {"y": floats(1)}, 0.0),
        ({"y": floats(9)}, {"y": [1.0]}, 0.0),
        ({"z": floats(2), "y": 0}, {"y": [1.0], "z": floats(1)}, 1.0),
    ],
)
def test_a_departure_is_the_greatest_relative_distance_of_a_float_output(
    actual: dict[str, Any], expected: dict[str, Any], departure: float
) -> None:
    assert switch_session._departure(actual, expected) == pytest.approx(departure, rel=1e-3)


@pytest.mark.parametrize(
    ("actual", "expected", "same"),
    [
        ({"y": floats(1, NAN)}, {"y": floats(1, NAN)}, True),
        ({"y": floats(0.0)}, {"y": floats(-0.0)}, False),
        ({"y": floats(1, 2)}, {"y": floats(1, 2).reshape(2, 1)}, False),
        ({"y": [1, 2], "more": 1}, {"y": [1, 2]}, True),
        ({"y": [1, 2]}, {"y": [1, 3]}, False),
        ({"y": [1.0]}, {"y": floats(2)}, False),
        ({"y": texts("a", "b" * 9)}, {"y": texts("a", "b" * 9)}, True),
        ({"y": texts("a", "b")}, {"y": texts("a", "c")}, False),
        ({"y": texts("a")}, {"y": floats(1)}, False),
        ({"y": [floats(1, 2), floats(NAN)]}, {"y": [floats(1, 2), floats(NAN)]}, True),
        ({"y": [floats(1, 2), floats(3)]}, {"y": [floats(1, 2), floats(4)]}, False),
        ({"y": [floats(1, 2)]}, {"y": [floats(1, 2), floats(4)]}, False),
        ({"y": floats(1, 2)}, {"y": [floats(1, 2)]}, False),
        ({}, {"y": floats(2)}, False),
        ({"y": floats(1), "z": floats(2)}, {"y": floats(1), "z": floats(1)}, False),
    ],
)
def test_outputs_are_the_same_bit_for_bit(
    actual: dict[str, Any], expected: dict[str, Any], same: bool
) -> None:
    assert switch_session.all_same(actual, expected) is same
