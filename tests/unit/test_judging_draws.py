"""What moves in a draw, and the runs beside a reference that draws are measured by."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_harness.accuracy.noise import Gap, Noise
from onnx_harness.errors import NotApplicable
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging import nudges
from onnx_harness.judging import runs as running
from onnx_harness.judging.last_bits import AMOUNT, EDGES, FOUR_UNITS, NOTHING, ONE_UNIT
from onnx_harness.judging.reference import Reference
from onnx_harness.model.file import Model
from onnx_harness.providers.sessions import Purpose
from onnx_harness.results.cache import Cache
from tests.models import model, save

SMOOTH = "(float[n,4] x) => (float[n,4] y, float[n,4] z) { y = Exp(x) z = Neg(y) }"


def test_each_way_to_nudge_says_how_far_inside() -> None:
    x = np.full(3, 0.5, "f4")
    values: dict[str, Any] = {"x": x, "n": np.array([2])}
    amounts: dict[Any, Any] = {
        nudges.nudge_inputs: None,
        nudges.nudge_inside: (ONE_UNIT, ONE_UNIT),
        nudges.nudge_further: (FOUR_UNITS, FOUR_UNITS),
        nudges.nudge_constants: (ONE_UNIT, NOTHING),
    }
    for nudge, expected in amounts.items():
        moved = nudge(values, np.random.default_rng(4))
        more = {} if expected is None else dict(zip((AMOUNT, EDGES), expected, strict=True))
        assert {name: moved[name] for name in more} == more
        assert list(moved) == ["x", "n", *more]
        assert moved["n"] is values["n"]
        again = nudge(values, np.random.default_rng(4))["x"]
        assert moved["x"].tobytes() == again.tobytes()
        assert (moved["x"] is x) == (nudge is nudges.nudge_constants)
        assert (moved["x"] != x).all() == (nudge is not nudges.nudge_constants)


def test_inputs_for_float64_are_float64_in_lists_too() -> None:
    single, whole = np.array([0.1], "f4"), np.array([1])
    half = np.array([0.1], "f2")
    wide = nudges.as_double(
        {"a": single, "b": [single, whole], "c": half}, np.random.default_rng(0)
    )
    assert wide["a"].dtype == wide["b"][0].dtype == np.float64
    assert wide["a"] == float(single[0])
    assert wide["b"][1] is whole
    assert wide["c"] is half


def test_what_has_no_kernel_in_float64_is_named(tmp_path: Path) -> None:
    text = "(float[n,4] x) => (float[n,4] y) { e = Erf(x) y = Elu(e) }"
    with pytest.raises(NotApplicable) as told:
        nudges.in_double(Model(save(model(text), tmp_path / "model.onnx")))
    assert str(told.value) == "ONNX Runtime has no kernel of float64 for Elu, Erf"


# runs beside the reference


def test_a_session_is_opened_as_the_reference_s_but_for_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        running, "open_session", lambda *words, **more: asked.append((*words, more))
    )
    made = model(SMOOTH)
    running.open_cpu(tmp_path)
    running.open_cpu(made, "all", 2, config={"a": "1"})
    plain = {"purpose": Purpose.ACCURACY, "record_placement": False}
    [(first, cpu, words), (second, same, more)] = asked
    assert (first, second) == (tmp_path, made.SerializeToString())
    assert cpu.name == same.name == "cpu"
    assert words == {**plain, "level": "disable", "threads": None, "config": None}
    assert more == {**plain, "level": "all", "threads": 2, "config": {"a": "1"}}


@pytest.mark.parametrize(("size", "fits"), [(1_900_000_000, True), (1_900_000_001, False)])
def test_what_no_message_holds_is_not_changed_in_memory(
    size: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = model(SMOOTH)
    subject: Any = SimpleNamespace(size_bytes=size, load=lambda: made)
    monkeypatch.setattr("onnx_harness.model.size.byte_size", lambda _: size)
    monkeypatch.setattr(running, "open_session", lambda *_, **__: "a session")
    if fits:
        assert running.in_memory(subject) is made
        assert running.open_cpu(made) == "a session"
        return
    for call in (lambda: running.in_memory(subject), lambda: running.open_cpu(made)):
        with pytest.raises(
            ValueError, match="the model is too large to be changed in memory"
        ):
            call()


def test_each_draw_of_each_set_is_its_own_and_the_worst_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fed: list[Any] = []

    def run(session: Any, values: dict[str, Any]) -> dict[str, Any]:
        fed.append((session, values["x"]))
        return {"y": np.array([values["x"]], "f4"), "u": np.array([9.0], "f4")}

    monkeypatch.setattr(running, "run", run)
    sets = tuple(InputSet(str(at), {"x": float(at)}) for at in range(3))  # type: ignore[dict-item]
    outputs = tuple({"y": np.array([at], "f4"), "u": np.zeros(1, "f4")} for at in range(3))
    made = Reference(sets, outputs, frozenset("u"))
    session: Any = "session"

    def draw(values: Any, generator: np.random.Generator) -> Any:
        return {"x": values["x"] + generator.random()}

    found = dict(running.gaps_of(session, made, [2, 0], [draw, draw], {"y": 0.5}, 5))
    drawn = {
        (at, n): np.random.default_rng([at, n]).random() for at in (2, 0) for n in (5, 6)
    }
    assert fed == [(session, at + drawn[at, n]) for at in (2, 0) for n in (5, 6)]
    assert list(found) == [2, 0]
    for at, gaps in found.items():
        worst = max(drawn[at, 5], drawn[at, 6])
        assert list(gaps) == ["y"]
        assert gaps["y"].greatest == pytest.approx(worst, rel=1e-6)
        assert gaps["y"].moved == (worst > 0.25)
    fed.clear()
    list(running.gaps_of(session, made, [1], [draw]))
    assert fed == [(session, 1 + np.random.default_rng([1, 0]).random())]
    plain = dict(running.gaps_of(session, made, [1]))
    assert plain == {1: {"y": Gap(norm=1.0, scale=1.0, size=1)}}


def key_parts(**changes: Any) -> list[Any]:
    """What a measurement is kept under, and how."""
    kept: list[Any] = []

    class Recording:
        key = staticmethod(Cache.key)

        def remember(self, kind: str, key: str, make: Any, _: Any, **more: Any) -> Any:
            kept.extend((kind, key, more, make()))
            return make()

    sets = (InputSet("a", {"x": np.array([changes.pop("value", 1)])}),)
    made = Reference(sets, ({},), frozenset(changes.pop("unstable", "ab")))
    words: dict[str, Any] = {"kind": "floor", "sha": "5a", "details": [1]} | changes
    subject: Any = SimpleNamespace(sha256=words["sha"])
    cache: Any = Recording()
    found = running.kept_noise(
        words["kind"], subject, made, cache, words["details"], lambda: Noise(({},))
    )
    assert found == Noise(({},))
    return kept


def test_noise_is_kept_by_all_that_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    kind, key, more, noise = key_parts()
    assert (kind, more, noise) == ("floor", {"in_memory": True}, Noise(({},)))
    assert key_parts(unstable="ba")[1] == key
    changes: list[dict[str, Any]] = [
        {"value": 2},
        {"unstable": "a"},
        {"kind": "other"},
        {"sha": "5b"},
        {"details": [2]},
    ]
    keys = {key} | {key_parts(**change)[1] for change in changes}
    for name in ("runtime_key", "source_digest"):
        with monkeypatch.context() as patched:
            patched.setattr(running, name, lambda: "another")
            keys.add(key_parts()[1])
    with monkeypatch.context() as patched:
        patched.setattr("onnx_harness.__version__", "another")
        keys.add(key_parts()[1])
    assert len(keys) == 9
