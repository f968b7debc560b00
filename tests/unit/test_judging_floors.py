"""Which runs a noise floor is measured by: on which sets, with which draws, under which levels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_harness.accuracy.noise import Gap, Noise
from onnx_harness.inputs.values.sets import RISING, InputSet
from onnx_harness.judging import inside as inside_room
from onnx_harness.judging import noise_floor as room
from onnx_harness.judging import nudges
from onnx_harness.judging.inside import Inside
from onnx_harness.judging.last_bits import AMOUNT, EDGES
from onnx_harness.judging.reference import Reference
from onnx_harness.model.file import Model
from onnx_harness.results.cache import Cache
from tests.models import model, save

SMOOTH = "(float[n,4] x) => (float[n,4] y, float[n,4] z) { y = Exp(x) z = Neg(y) }"
ROUNDS = "(float[n,4] x) => (float[n,4] y, float[n,4] z) { y = Round(x) z = Exp(x) }"
X = np.full((20, 4), 0.3, np.float32)


def reference(*sets: InputSet, size: int = 80) -> Reference:
    outputs = tuple({"y": np.zeros(size, "f4"), "z": np.zeros(size, "f4")} for _ in sets)
    return Reference(sets, outputs, frozenset())


def usual(count: int) -> list[InputSet]:
    return [InputSet(f"set {place}", {"x": X}) for place in range(count)]


@dataclass
class Calls:
    """Runs that were asked for; each departs by what ``departures`` says of its session.

    Attributes:
        asked: the session, the sets, the draws, the steps and the first draw's number.
    """

    asked: list[tuple[Any, ...]] = field(default_factory=list)
    departures: dict[Any, dict[str, Gap]] = field(default_factory=dict)
    broken: str = ""

    def gaps_of(
        self,
        session: str,
        reference: Reference,
        sets: Sequence[int],
        draws: Sequence[Any] = (),
        steps: Any = None,
        first: int = 0,
    ) -> Iterator[tuple[int, dict[str, Gap]]]:
        assert isinstance(reference, Reference)
        names = [draw.__name__ for draw in draws]
        self.asked.append((session, list(sets), names, steps, first))
        for index in sets:
            of_set = self.departures.get((session, index), {})
            yield index, self.departures.get(session, of_set)

    def open_cpu(
        self, source: Any, level: str = "disable", threads: Any = None, *, config: Any = None
    ) -> str:
        if isinstance(source, Path):
            name = "model"
        else:
            inputs = {info.name for info in source.graph.input}
            kind = source.graph.input[0].type.tensor_type.elem_type
            name = "inside" if AMOUNT in inputs else "double" if kind == 11 else "changed"
        more = () if config is None else (dict(config),)
        session = " ".join(map(str, (name, level, threads, *more)))
        if session == self.broken:
            raise RuntimeError("broken")
        return session


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    for module in (room, inside_room, nudges):
        for name in ("gaps_of", "open_cpu"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(calls, name))
    return calls


def saved(text: str, folder: Path) -> Model:
    return Model(save(model(text), folder / "model.onnx"))


PLAIN = "model disable None"
INSIDE = "inside disable None"
DOUBLE = "double disable None"


def test_a_smooth_model_is_measured_by_last_bits_float64_and_levels(
    calls: Calls, tmp_path: Path
) -> None:
    unusual = InputSet("odd", {"x": X}, "odd", smooth=True)
    made = reference(*usual(3), unusual)
    small = Gap(l2=1e-9, norm=1.0, scale=1.0)
    calls.departures = {
        PLAIN: {"y": Gap(l2=1.0, norm=9.0)},
        DOUBLE: {"y": Gap(l2=2.0, norm=9.0), "z": small},
        "model all 1 {}": {"y": Gap(l2=3.0, norm=9.0), "z": Gap(nonfinite=1)},
    }
    found = room.noise_floor(saved(SMOOTH, tmp_path), made, Cache(tmp_path))
    assert calls.asked == [
        (PLAIN, [0, 1, 2], ["nudge_inputs"], None, 0),
        (DOUBLE, [0, 1, 2], ["as_double"], {}, 0),
        ("model basic 1 {}", [0, 2], [], {}, 0),
        ("model extended 2 {}", [1], [], {}, 0),
        ("model all 1 {}", [0, 1, 2], [], {}, 0),
    ]
    own = {"y": Gap(l2=3.0, norm=9.0), "z": small}
    assert found == Noise(
        (own, own, own, {}),
        (
            "the last bit of the inputs",
            "float64",
            "level basic, 1 thread",
            "level extended, 2 threads",
            "level all, 1 thread",
        ),
        (f"{room.NOT_NOISE} under level all, 1 thread, z is another result",),
    )


def test_a_model_that_rounds_is_drawn_inside_and_its_steps_are_passed_on(
    calls: Calls, tmp_path: Path
) -> None:
    found = room.noise_floor(saved(ROUNDS, tmp_path), reference(*usual(4)), Cache(tmp_path))
    every, steps = [0, 1, 2, 3], {"y": 1.0}
    assert calls.asked == [
        (PLAIN, every, ["nudge_inputs"], None, 0),
        (DOUBLE, every, ["as_double"], steps, 0),
        (INSIDE, every, ["nudge_inside"] * 4, steps, 0),
        (INSIDE, every, ["nudge_inside"] * 4, steps, 4),
        ("model basic 1 {}", [0, 2], [], steps, 0),
        ("model extended 2 {}", [1, 3], [], steps, 0),
        ("model all 1 {}", every, [], steps, 0),
    ]
    assert (found.has_tail, found.steps) == (True, steps)
    assert found.sources[:3] == (
        "the last bit of the inputs",
        "float64",
        "the last bits inside",
    )
    assert found.notes == (
        f"{room.RESTS_ON} 8 draws of the last bits of its constants and of what it rounds, on "
        "each of 4 input sets",
    )


def test_a_level_beyond_the_draws_is_asked_once_more_with_further_moves(
    calls: Calls, tmp_path: Path
) -> None:
    # Beyond what draws explain, though no more than a level of a smooth model may do.
    calls.departures = {
        INSIDE: {"y": Gap(l2=1.0, greatest=1.0)},
        "model extended 2 {}": {"y": Gap(l2=20.0, greatest=20.0)},
    }
    found = room.noise_floor(saved(ROUNDS, tmp_path), reference(*usual(4)), Cache(tmp_path))
    assert calls.asked[-1] == (INSIDE, [1, 3], ["nudge_further"] * 8, {"y": 1.0}, 0)
    assert found.sets == ({"y": Gap(l2=1.0, greatest=1.0)},) * 4
    noted = [note for note in found.notes if note.startswith(room.NOT_NOISE)]
    assert noted == [
        f"{room.NOT_NOISE} under level extended, 2 threads, y is another result"
    ]


def test_what_one_set_shows_of_a_model_that_rounds_is_noise_on_the_others(
    calls: Calls, tmp_path: Path
) -> None:
    wild, calm = Gap(l2=9.0, norm=1.0, greatest=9.0, scale=1.0), Gap(norm=1.0, scale=1.0)
    for text, noted in ((ROUNDS, 0), (SMOOTH, 1)):
        calls.departures = {
            (PLAIN, 0): {"y": wild},
            (PLAIN, 1): {"y": calm},
            ("model extended 2 {}", 1): {"y": wild},
        }
        folder = tmp_path / str(noted)
        found = room.noise_floor(saved(text, folder), reference(*usual(2)), Cache(folder))
        notes = [note for note in found.notes if note.startswith(room.NOT_NOISE)]
        assert len(notes) == noted
        assert found.sets[1] == {"y": calm if noted else wild}


PICKED = (
    "(float[n,4] x, int64[n] k) => (float[n,4] y, float z) { y = Gather(x, k) z = Neg(x) }"
)


def test_what_is_picked_out_of_a_table_is_told(calls: Calls, tmp_path: Path) -> None:
    found = room.noise_floor(saved(PICKED, tmp_path), reference(*usual(1)), Cache(tmp_path))
    assert found.picked == ("y",)
    assert calls.asked


def test_without_draws_inside_the_floor_says_what_it_rests_on_and_why(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise ValueError("too old")

    monkeypatch.setattr(inside_room, "with_last_bits", refuse)
    found = room.noise_floor(saved(ROUNDS, tmp_path), reference(*usual(1)), Cache(tmp_path))
    why = "the last bits inside can't be run: too old"
    assert found.notes == (
        why,
        f"{room.RESTS_ON} its inputs and ONNX Runtime's levels alone. {why}",
    )
    assert found.has_tail
    assert "the last bits inside" not in found.sources
    assert [asked[0] for asked in calls.asked] == [
        PLAIN,
        DOUBLE,
        "model basic 1 {}",
        "model extended 2 {}",
        "model all 1 {}",
    ]


UNUSUAL = (
    InputSet("smooth", {"x": X}, "smooth", smooth=True),
    InputSet("edged", {"x": X}, "edged"),
    InputSet("rising", {"x": X}, RISING),
)


@pytest.mark.parametrize(("text", "draws"), [(SMOOTH, 3), (ROUNDS, 8)])
def test_unusual_sets_move_nothing_that_lies_on_an_edge_on_purpose(
    text: str, draws: int, calls: Calls, tmp_path: Path
) -> None:
    made = reference(*usual(1), *UNUSUAL)
    calls.departures = {PLAIN: {"y": Gap(l2=1.0)}, INSIDE: {"y": Gap(l2=2.0), "z": Gap()}}
    found = room.unusual_floor(saved(text, tmp_path), made, Cache(tmp_path))
    steps = {"y": 1.0} if text == ROUNDS else {}
    assert calls.asked == [
        (PLAIN, [1, 3], ["nudge_inputs"] * 8, None, 0),
        (INSIDE, [1, 3], ["nudge_inside"] * draws, steps, 0),
        (INSIDE, [2], ["nudge_constants"] * draws, steps, 0),
        (DOUBLE, [1], ["as_double"], None, 0),
    ]
    both = {"y": Gap(l2=2.0), "z": Gap()}
    assert found == Noise(
        ({}, both, both, both),
        (
            "the last bit of the inputs",
            "the last bits inside",
            "the last bits of the constants",
            "float64",
        ),
    )


@pytest.mark.parametrize(
    ("broken", "source", "floor"),
    [
        (DOUBLE, "float64", room.unusual_floor),
        (DOUBLE, "float64", room.noise_floor),
        ("model all 1 {}", "level all, 1 thread", room.noise_floor),
    ],
)
def test_what_a_floor_lacks_is_noted(
    broken: str, source: str, floor: Any, calls: Calls, tmp_path: Path
) -> None:
    calls.broken = broken
    found = floor(saved(SMOOTH, tmp_path), reference(*usual(1), UNUSUAL[0]), Cache(tmp_path))
    assert found.notes == (f"{source} can't be run: broken",)
    assert source not in found.sources


def test_the_floors_of_usual_and_unusual_sets_are_kept_apart(
    calls: Calls, tmp_path: Path
) -> None:
    subject, kept = saved(SMOOTH, tmp_path), Cache(tmp_path)
    made = reference(*usual(1), UNUSUAL[0])
    calls.departures = {PLAIN: {"y": Gap(l2=1.0)}}
    floors = [
        asked(subject, made, kept).sets for asked in (room.noise_floor, room.unusual_floor)
    ]
    assert floors == [({"y": Gap(l2=1.0)}, {}), ({}, {"y": Gap(l2=1.0)})]
    count = len(calls.asked)
    for asked, sets in zip((room.noise_floor, room.unusual_floor), floors, strict=True):
        assert asked(subject, made, kept).sets == sets
        assert asked(subject, made, Cache(tmp_path)).sets == sets
    assert len(calls.asked) == count


# one source after another


def test_a_source_that_fails_is_noted_and_the_others_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    risks: list[str] = []

    @contextlib.contextmanager
    def risking(what: str) -> Iterator[None]:
        risks.append(what)
        yield

    def fails() -> Any:
        raise RuntimeError("no " + "x" * 200 + "\nmore")

    monkeypatch.setattr(room, "risking", risking)
    subject = saved(SMOOTH, tmp_path)
    notes, sources = ["before"], ["earlier"]
    runs: dict[str, Callable[[], Any]] = {
        "a": lambda: [(0, {"y": Gap(l2=1.0)}), (2, {})],
        "b": fails,
        "c": lambda: [(0, {"y": Gap(l2=2.0)})],
    }
    found = room._runs(notes, sources, runs, 3, subject)
    assert found == [{"a": {"y": Gap(l2=1.0)}, "c": {"y": Gap(l2=2.0)}}, {}, {"a": {}}]
    assert sources == ["earlier", "a", "c"]
    assert risks == [f"{source} {subject.sha256[:16]}" for source in "abc"]
    assert notes[0] == "before"
    assert notes[1].startswith("b can't be run: no xxx")
    assert len(notes) == 2
    assert len(notes[1]) == len("b can't be run: ") + 160


def test_further_moves_are_added_where_a_level_does_more_than_the_floor() -> None:
    own = Gap(l2=1.0, greatest=1.0)
    floor = Noise(({"y": own}, {"y": own}, {"y": own}), has_tail=True)
    asked: list[Any] = []

    def gaps(sets: Any, draws: Any) -> Any:
        asked.append((sets, [draw.__name__ for draw in draws]))
        return [(index, {"y": Gap(l2=5.0), "z": Gap(l2=7.0)}) for index in sets]

    inside: Any = SimpleNamespace(gaps=gaps)
    beyond = {"y": Gap(l2=1e3)}
    levels = [{"a": {"y": own}, "b": beyond}, {"a": {"y": own}}, {"a": beyond}]
    found = room._further(floor, levels, inside, [0, 1, 2])
    more = {"y": Gap(l2=5.0, greatest=1.0), "z": Gap(l2=7.0)}
    assert found == replace(floor, sets=(more, {"y": own}, more))
    assert asked == [([0, 2], ["nudge_further"] * 8)]


def test_changed_outputs_are_named_in_order_and_by_their_own_noise() -> None:
    floor = Noise(({"a": Gap(l2=1.0), "c": Gap(l2=1.0)}, {"c": Gap(l2=50.0)}))
    run = {name: Gap(l2=40.0, greatest=40.0) for name in "cab"}
    assert room._changes(run, floor, [0, 1], 0, rounds=False) == ["a", "b", "c"]
    assert room._changes(run, floor, [0, 1], 1, rounds=False) == ["a", "b"]
    assert room._changes({"c": Gap(l2=2.0)}, floor, [0, 1], 0, rounds=True) == []
    assert room._changes({"c": Gap(l2=33.0)}, floor, [0, 1], 0, rounds=True) == ["c"]


def test_sets_that_a_floor_does_not_rest_on_explain_nothing(
    calls: Calls, tmp_path: Path
) -> None:
    own, wild = Gap(l2=1.0, norm=1.0), Gap(l2=99.0, norm=1.0)
    floor = Noise(({"y": own}, {"y": own}, {"y": wild}), has_tail=True)
    run = {"y": Gap(l2=50.0, norm=1.0)}
    for usual_sets, changes in (([0, 1], ["y"]), ([0, 1, 2], [])):
        assert room._own(floor, usual_sets, 0, "y") == (own if changes else wild)
        assert room._changes(run, floor, usual_sets, 0, rounds=True) == changes
        asked: list[Any] = []
        inside: Any = SimpleNamespace(
            gaps=lambda sets, _, asked=asked: asked.append(sets) or []
        )
        room._further(floor, [{"a": run}], inside, usual_sets)
        assert asked == [[0] if changes else []]
    calls.departures = {"model all 1": run}
    unusual = reference(*usual(2), UNUSUAL[0])
    assert room._inexact(saved(SMOOTH, tmp_path), unusual, floor) != []


# integer kernels


@pytest.mark.parametrize(
    ("gaps", "words"),
    [
        (
            {
                "a": Gap(l2=4.0, norm=8.0, greatest=4.0),
                "b": Gap(l2=1.0, norm=4.0, greatest=1.0),
            },
            "a by 5.0e-01",
        ),
        (
            {
                "b": Gap(l2=4.0, norm=8.0, greatest=4.0),
                "a": Gap(l2=1.0, norm=4.0, greatest=1.0),
            },
            "b by 5.0e-01",
        ),
        ({"a": Gap(l2=4.0, norm=0.0, greatest=4.0)}, None),
        ({"a": Gap(l2=1e-9, norm=1.0)}, None),
        ({"a": Gap(l2=0.5, norm=0.5, greatest=1.0)}, "a by 1.0e+00"),
    ],
)
def test_what_integer_kernels_move_most_is_told_with_the_options_against_them(
    gaps: dict[str, Gap],
    words: str | None,
    calls: Calls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "exact_sums", lambda _: {"two": "2", "one": "1"})
    calls.departures = {"model all 1": gaps}
    made = reference(UNUSUAL[0], *usual(2))
    notes = room._inexact(saved(SMOOTH, tmp_path), made, Noise(({}, {}, {})))
    assert calls.asked == [("model all 1", [1], [], None, 0)]
    if words is None:
        assert notes == []
        return
    [note] = notes
    assert note.startswith(
        f"{room.INEXACT} at its default settings ONNX Runtime moves {words} (relative L2) on "
        "this processor."
    )
    assert note.endswith(" Mend: the session options one = 1 and two = 2")


def test_kernels_that_stay_within_the_model_s_own_noise_are_not_told(
    calls: Calls, tmp_path: Path
) -> None:
    calls.departures = {"model all 1": {"y": Gap(l2=20.0, norm=1.0, greatest=20.0)}}
    subject, made = saved(SMOOTH, tmp_path), reference(*usual(1))
    own = {"y": Gap(l2=1.0, greatest=1.0)}
    assert room._inexact(subject, made, Noise((own,))) == []
    assert room._inexact(subject, made, Noise((own,), has_tail=True)) != []


def test_what_cannot_be_run_says_nothing_about_integer_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "open_cpu", lambda *_: 1 / 0)
    assert room._inexact(saved(SMOOTH, tmp_path), reference(*usual(1)), Noise(({},))) == []


def test_a_floor_measures_integer_kernels_where_the_model_has_exact_sums(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "exact_sums", lambda _: {"one": "1"})
    calls.departures = {"model all 1": {"y": Gap(l2=9.0, norm=1.0, greatest=9.0)}}
    found = room.noise_floor(saved(SMOOTH, tmp_path), reference(*usual(2)), Cache(tmp_path))
    assert [asked[0] for asked in calls.asked[2:]] == [
        "model basic 1 {'one': '1'}",
        "model extended 2 {'one': '1'}",
        "model all 1 {'one': '1'}",
        "model all 1",
    ]
    [note] = found.notes
    assert note.startswith(room.INEXACT)
    calls.broken = DOUBLE
    more = room.noise_floor(
        saved(SMOOTH, tmp_path), reference(*usual(2)), Cache(tmp_path / "b")
    )
    assert more.notes == ("float64 can't be run: broken", note)


# the last bit of what enters


@pytest.mark.parametrize(
    ("size", "fewest", "draws"), [(80, 1, 1), (64, 1, 3), (64, 8, 8), (80, 8, 8), (64, 2, 3)]
)
def test_few_elements_are_drawn_more_than_once(
    size: int, fewest: int, draws: int, calls: Calls, tmp_path: Path
) -> None:
    made = reference(*usual(3), size=size)
    found = room._last_bits(saved(SMOOTH, tmp_path), made, [2, 0], fewest)
    assert [index for index, _ in found] == [2, 0]
    assert calls.asked == [(PLAIN, [2, 0], ["nudge_inputs"] * draws, None, 0)]


def test_where_no_input_moves_each_float_weight_does_by_a_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = model("(int64[3] i) => (float[3,2] y) { y = Gather(w, i) }")
    weights: dict[str, Any] = {
        "w": np.array([[0.1, -0.7], [1.0, 1e-3]], "f4"),
        "v": np.array([0.3], "f4"),
        "d": np.array([0.3]),
        "k": np.array([3]),
    }
    for name, array in weights.items():
        made.graph.initializer.append(numpy_helper.from_array(array, name))
    opened: list[onnx.ModelProto] = []
    monkeypatch.setattr(room, "open_cpu", opened.append)
    monkeypatch.setattr(room, "gaps_of", lambda _, made, sets: [(made, sets)])
    sets = [
        InputSet("a", {"i": np.array([0, 1, 0])}),
        InputSet("b", {"i": np.array([1, 1, 1])}),
    ]
    answers = reference(*sets)
    subject = Model(save(made, tmp_path / "m.onnx"))
    found: Any = room._last_bits(subject, answers, [0])
    assert found == [(answers, [0])]
    [changed] = opened
    moved = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in changed.graph.initializer
    }
    assert list(moved) == list(weights)
    for name, array in weights.items():
        assert moved[name].dtype == array.dtype
        units = np.abs(moved[name] - array) / np.spacing(
            np.abs(array, dtype=float).astype(array.dtype)
        )
        whole = (array == np.floor(array)) | (array.dtype != np.float32)
        assert (units == np.where(whole, 0, 1)).all(), name
    room._last_bits(subject, answers, [1])
    assert opened[1] == changed  # the same draw each time


def test_one_input_that_moves_is_enough(calls: Calls, tmp_path: Path) -> None:
    whole = InputSet("whole", {"x": np.ones(4, "f4"), "k": np.array([2])})
    moves = InputSet("moves", {"k": np.array([2]), "x": np.full(4, 0.5, "f4")})
    made = reference(whole, moves)
    for sets, session in (([0, 1], PLAIN), ([0], "changed disable None")):
        list(room._last_bits(saved(SMOOTH, tmp_path), made, sets))
        assert calls.asked[-1][:2] == (session, sets)


# draws inside


def test_a_session_is_opened_once_and_each_draw_has_its_number(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    def opens(made: onnx.ModelProto) -> str:
        opened.append(made)
        return calls.open_cpu(made)

    monkeypatch.setattr(inside_room, "open_cpu", opens)
    made = reference(*usual(2))
    inside = Inside(saved(ROUNDS, tmp_path), made)
    assert (inside.steps, inside.draws) == ({"y": 1.0}, 0)
    assert inside.gaps([], [nudges.nudge_inside]) == []
    assert opened == calls.asked == []
    assert [place for place, _ in inside.gaps([1], [nudges.nudge_inside], 7)] == [1]
    assert [place for place, _ in inside.gaps([0], [nudges.nudge_further] * 2)] == [0]
    assert calls.asked == [
        (INSIDE, [1], ["nudge_inside"], {"y": 1.0}, 7),
        (INSIDE, [0], ["nudge_further"] * 2, {"y": 1.0}, 0),
    ]
    assert len(opened) == 1
    assert [info.name for info in opened[0].graph.input] == ["x", AMOUNT, EDGES]


def test_a_model_without_steps_isn_t_loaded_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside_room, "steps", lambda _: 1 / 0)
    assert Inside(saved(SMOOTH, tmp_path), reference(*usual(1))).steps == {}


@pytest.mark.parametrize(
    ("sets", "departures", "seconds", "draws"),
    [
        (1, [0.0], 0.0, 32),
        (2, [0.0], 0.0, 16),
        (3, [0.0], 0.0, 12),
        (4, [0.0], 0.0, 8),
        (5, [0.0], 0.0, 8),
        (40, [0.0], 0.0, 8),
        (8, [1.0], 0.0, 8),
        (8, [0.0, 1.0], 0.0, 16),
        (8, [1.0, 1.0, 1.0], 0.0, 8),
        # By half is no news; by more is, and counts from what was news before.
        (8, [1.0, 1.5, 1.5, 1.5], 0.0, 8),
        (8, [1.0, 1.51, 1.0, 1.0], 0.0, 16),
        (3, [1.0, 1.5, 1.6, 1.0, 1.0, 1.0, 1.0], 0.0, 24),
        (8, [2.0**number for number in range(9)], 0.0, 32),
        # A slow model: after two rounds at the soonest, and where it took longer than allowed.
        (1, [0.0], 5.0, 32),
        (1, [0.0], 5.1, 8),
        (1, [1.0, 2.0, 4.0], 100.0, 8),
    ],
)
def test_as_many_draws_as_it_takes_until_they_show_nothing_new(
    sets: int,
    departures: list[float],
    seconds: float,
    draws: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = reference(*usual(sets))
    inside = Inside(saved(SMOOTH, tmp_path), made)
    firsts: list[int] = []

    def gaps(asked: Sequence[int], moves: Sequence[Any], first: int) -> Any:
        assert list(asked) == list(range(sets))
        assert moves == [nudges.nudge_inside] * 4
        firsts.append(first)
        size = departures[min(len(firsts), len(departures)) - 1]
        return [(0, {"y": Gap(l2=size, norm=1.0)}), (sets - 1, {"z": Gap(l2=0.0, norm=1.0)})]

    clock = iter([50.0])
    monkeypatch.setattr(inside, "gaps", gaps)
    monkeypatch.setattr("time.monotonic", lambda: next(clock, 50.0 + seconds))
    found = dict(inside.drawn(range(sets)))
    assert inside.draws == draws
    assert firsts == list(range(0, draws, 4))
    seen = max(departures[: draws // 4])
    worst = {0: {"y": Gap(l2=seen, norm=1.0)}, sets - 1: {"z": Gap(norm=1.0)}}
    if sets == 1:
        worst = {0: {**worst[0], "y": Gap(l2=seen, norm=1.0)}}
        worst[0] |= {"z": Gap(norm=1.0)}
    assert found == worst


def test_what_was_news_once_is_none_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = Inside(saved(SMOOTH, tmp_path), reference(*usual(8)))
    rounds = iter([{"y": 1.0}, {"y": 1.0, "z": 1.0}])

    def gaps(*_: Any) -> Any:
        sizes = next(rounds, {})
        return [(0, {name: Gap(l2=size, norm=1.0) for name, size in sizes.items()})]

    monkeypatch.setattr(inside, "gaps", gaps)
    inside.drawn(range(8))
    assert inside.draws == 16
